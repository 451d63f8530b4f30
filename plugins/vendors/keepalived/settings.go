package keepalived

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Settings say where keepalived is, and what a deployment doesn't.
type Settings struct {
	// File is the file that the driver writes, and nobody else. It is included by
	// Main, or is Main.
	File string `json:"file"`
	// Main is keepalived's configuration; empty means
	// /etc/keepalived/keepalived.conf.
	Main string `json:"main,omitempty"`
	// Marks is the nftables ruleset that the driver writes; empty means a file
	// beside File whose name ends in -marks.nft.
	Marks string `json:"marks,omitempty"`
	// PIDFile names keepalived's process; empty means /run/keepalived.pid.
	PIDFile string `json:"pid_file,omitempty"`
	// Program and NFT are the programs; empty means keepalived and nft, found by
	// PATH.
	Program string `json:"program,omitempty"`
	NFT     string `json:"nft,omitempty"`
	// Method is how packets go on to backends; empty means MethodNAT.
	Method Method `json:"method,omitempty"`
	// Script is a script that the driver writes, to ask gateways of SSTP by HEAD,
	// and to verify certificates; it needs curl. Empty has keepalived itself ask,
	// by GET.
	Script string `json:"script,omitempty"`
	// Probe is the full path of aovlb on the machine where keepalived runs, to ask
	// RADIUS servers with; empty has checks of RADIUS left out.
	Probe string `json:"probe,omitempty"`
	// User runs Script and Probe; empty means root.
	User string `json:"user,omitempty"`
	// ConfigOnly has files written and nothing else done.
	ConfigOnly bool `json:"config_only,omitempty"`
	// VRRP has the addresses of listeners be on one machine of a pair; nil
	// leaves them alone.
	VRRP *VRRP `json:"vrrp,omitempty"`
}

// A Method is a way in which packets go on.
type Method string

const (
	// MethodNAT changes the address that packets go to. Backends route their
	// answers through this machine.
	MethodNAT Method = "nat"
	// MethodDR changes nothing: backends have the listeners' addresses, unheard,
	// and answer by themselves.
	MethodDR Method = "dr"
	// MethodTUN is MethodDR through an IP-in-IP tunnel.
	MethodTUN Method = "tun"
)

// VRRP says how a pair of machines shares addresses.
type VRRP struct {
	// Interface is the network device that has them.
	Interface string `json:"interface"`
	// Router identifies the pair in its network, 1 to 255, the same on both.
	Router int `json:"router"`
	// Priority is 1 to 254; the machine with the higher one serves. 0 means 100.
	Priority int `json:"priority,omitempty"`
	// Preempt has the machine of higher priority take over whenever it returns.
	Preempt bool `json:"preempt,omitempty"`
	// Self and Peer are the machines' own addresses; without them they speak by
	// multicast.
	Self netip.Addr `json:"self,omitzero"`
	Peer netip.Addr `json:"peer,omitzero"`
	// Sync is the network device by which the other machine is told which client
	// is where; empty tells it nothing, so that clients are spread anew.
	Sync string `json:"sync,omitempty"`
}

// schema is that of Settings.
const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "keepalived",
  "type": "object",
  "additionalProperties": false,
  "required": ["file"],
  "properties": {
    "file": {"type": "string", "description": "The file that the driver writes, and nobody else. The main file includes it, or it is the main file."},
    "main": {"type": "string", "default": "/etc/keepalived/keepalived.conf", "description": "keepalived's configuration."},
    "marks": {"type": "string", "description": "The nftables ruleset that the driver writes; empty means a file beside the first whose name ends in -marks.nft."},
    "pid_file": {"type": "string", "default": "/run/keepalived.pid", "description": "The file with the id of keepalived's process."},
    "program": {"type": "string", "default": "keepalived", "description": "keepalived, to check files with."},
    "nft": {"type": "string", "default": "nft", "description": "nft, to load the ruleset with."},
    "method": {"enum": ["nat", "dr", "tun"], "default": "nat", "description": "How packets go on to backends."},
    "script": {"type": "string", "description": "A script that the driver writes, to ask gateways of SSTP by HEAD and to verify certificates, by curl. Empty has keepalived itself ask, by GET."},
    "probe": {"type": "string", "description": "The full path of aovlb where keepalived runs, to ask RADIUS servers with. Empty has checks of RADIUS left out."},
    "user": {"type": "string", "default": "root", "description": "Who runs these two."},
    "config_only": {"type": "boolean", "default": false, "description": "Write files and do nothing else."},
    "vrrp": {
      "type": "object",
      "additionalProperties": false,
      "required": ["interface", "router"],
      "description": "A pair of machines, of which one has the addresses of the listeners.",
      "properties": {
        "interface": {"type": "string", "description": "The network device that has them."},
        "router": {"type": "integer", "minimum": 1, "maximum": 255, "description": "What identifies the pair in its network, the same on both."},
        "priority": {"type": "integer", "minimum": 1, "maximum": 254, "default": 100, "description": "The machine with the higher one serves."},
        "preempt": {"type": "boolean", "default": false, "description": "It takes over whenever it returns."},
        "self": {"type": "string", "description": "This machine's own address; without self and peer they speak by multicast."},
        "peer": {"type": "string", "description": "The other machine's."},
        "sync": {"type": "string", "description": "The network device by which the other machine is told which client is where."}
      }
    }
  }
}
`

// usual returns s with what its empty fields mean.
func (s Settings) usual() Settings {
	s.Main = cmp.Or(s.Main, "/etc/keepalived/keepalived.conf")
	if s.Marks == "" {
		s.Marks = strings.TrimSuffix(s.File, filepath.Ext(s.File)) + "-marks.nft"
	}
	s.PIDFile = cmp.Or(s.PIDFile, "/run/keepalived.pid")
	s.Program, s.NFT = cmp.Or(s.Program, "keepalived"), cmp.Or(s.NFT, "nft")
	s.Method, s.User = cmp.Or(s.Method, MethodNAT), cmp.Or(s.User, "root")
	return s
}

// isMain reports whether the driver's file is all that keepalived loads.
func (s Settings) isMain() bool { return filepath.Clean(s.Main) == filepath.Clean(s.File) }

// readSettings reads and checks the settings.
func readSettings(c *plugins.Config) (Settings, error) {
	var s Settings
	if err := c.ReadSettings(&s); err != nil {
		return s, err
	}
	var errs []error
	add := func(path, format string, args ...any) {
		errs = append(errs, &plugins.FieldError{Path: "settings." + path, Err: fmt.Errorf(format, args...)})
	}
	if s.File == "" {
		add("file", "it must name the file to write, which keepalived includes")
	}
	s = s.usual()
	for _, f := range []struct{ name, value string }{
		{"file", s.File}, {"main", s.Main}, {"marks", s.Marks}, {"pid_file", s.PIDFile}, {"program", s.Program}, {"nft", s.NFT},
	} {
		if strings.ContainsAny(f.value, "\x00\r\n") {
			add(f.name, "a file name can't hold the end of a line")
		}
	}
	// keepalived reads these as words.
	for _, f := range []struct{ name, value string }{{"script", s.Script}, {"probe", s.Probe}} {
		if f.value != "" && (!filepath.IsAbs(f.value) || strings.ContainsFunc(f.value, notPlain)) {
			add(f.name, "%q is not the full path of a file, of letters, digits, slashes, dots, dashes and underscores", f.value)
		}
	}
	if strings.ContainsFunc(s.User, notPlain) {
		add("user", "%q is not the name of a user", s.User)
	}
	if s.Method != MethodNAT && s.Method != MethodDR && s.Method != MethodTUN {
		add("method", "%q is unknown, it can be nat, dr or tun", s.Method)
	}
	names := []string{s.File, s.Marks, s.Script}
	for i, a := range names {
		for _, b := range names[:i] {
			if a != "" && b != "" && filepath.Clean(a) == filepath.Clean(b) {
				add([]string{"file", "marks", "script"}[i], "%s is another of the driver's files", a)
			}
		}
	}
	s.VRRP.check(add)
	return s, errors.Join(errs...)
}

func (v *VRRP) check(add func(path, format string, args ...any)) {
	if v == nil {
		return
	}
	for _, f := range []struct{ name, value string }{{"interface", v.Interface}, {"sync", v.Sync}} {
		if len(f.value) > 15 || strings.ContainsFunc(f.value, notPlain) || strings.Contains(f.value, "/") {
			add("vrrp."+f.name, "%q is not the name of a network device", f.value)
		}
	}
	if v.Interface == "" {
		add("vrrp.interface", "it is needed")
	}
	if v.Router < 1 || v.Router > 255 {
		add("vrrp.router", "%d is not between 1 and 255", v.Router)
	}
	if v.Priority < 0 || v.Priority > 254 {
		add("vrrp.priority", "%d is not between 1 and 254", v.Priority)
	}
	if v.Self.IsValid() != v.Peer.IsValid() {
		add("vrrp.peer", "self and peer go together")
	}
	if v.Self.IsValid() && v.Self == v.Peer {
		add("vrrp.peer", "it is this machine itself")
	}
	if v.Self.IsValid() && v.Peer.IsValid() && v.Self.Unmap().Is4() != v.Peer.Unmap().Is4() {
		add("vrrp.peer", "self and peer must be both IPv4, or both IPv6")
	}
}

// notPlain reports whether r means something to keepalived or to a shell.
func notPlain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/._-", r)
}
