package vendors_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/vendors"
)

// checkers have the products themselves read what was rendered for them. Files is
// where they are.
var checkers = map[string]struct {
	tool    string
	command func(dir string, f plugins.File) []string
}{
	"haproxy": {"haproxy", func(dir string, f plugins.File) []string {
		return []string{"haproxy", "-c", "-f", filepath.Join(dir, f.Name)}
	}},
	"nginx": {"nginx", func(dir string, f plugins.File) []string {
		return []string{"nginx", "-t", "-q", "-e", "stderr", "-g", "pid " + filepath.Join(dir, "nginx.pid") + ";", "-c", filepath.Join(dir, f.Name)}
	}},
	"keepalived": {"keepalived", func(dir string, f plugins.File) []string {
		switch filepath.Ext(f.Name) {
		case ".nft":
			return []string{"nft", "-c", "-f", filepath.Join(dir, f.Name)}
		case ".sh":
			return []string{"sh", "-n", filepath.Join(dir, f.Name)}
		}
		if f.Name == "keepalived.conf" {
			return []string{"keepalived", "-t", "-f", filepath.Join(dir, f.Name)}
		}
		return nil
	}},
}

// settings are what a driver is configured with besides.
var settings = map[string][]string{
	"keepalived": {
		`{"file": "/etc/keepalived/keepalived.conf"}`,
		`{"file": "/etc/keepalived/aovlb.conf", "script": "SCRIPT", "probe": "PROBE", "method": "dr",
		  "vrrp": {"interface": "bond0.77", "router": 51, "priority": 150, "self": "10.0.1.2", "peer": "10.0.1.3", "sync": "lo"}}`,
	},
}

// TestRenderedFiles has every deployment of a table rendered for every product, and
// each product check what it was given.
func TestRenderedFiles(t *testing.T) {
	dir := t.TempDir()
	table := deployments(t, dir)
	if len(table) < 30 {
		t.Errorf("the table has %d deployments", len(table))
	}
	for _, product := range vendors.Renderers() {
		list := settings[product]
		if len(list) == 0 {
			list = []string{""}
		}
		for i, s := range list {
			t.Run(fmt.Sprintf("%s/%d", product, i), func(t *testing.T) { renders(t, product, program(t, s), table) })
		}
	}
}

// program puts programs into settings that keepalived finds.
func program(t *testing.T, s string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "check.sh")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("SCRIPT", name, "PROBE", name).Replace(s)
}

func renders(t *testing.T, product, settings string, table []plugintest.Intent) {
	accepted := 0
	for _, in := range table {
		r, ok := vendors.FindRenderer(product)
		if !ok {
			t.Fatal("it isn't there")
		}
		if d, ok := r.(plugins.Driver); ok && settings != "" {
			if err := d.Configure(t.Context(), plugins.Config{Settings: json.RawMessage(settings)}); err != nil {
				t.Fatal(err)
			}
		}
		list, err := r.Validate(t.Context(), in.Deployment)
		if err != nil {
			t.Fatalf("%s: %v", in.Name, err)
		}
		files, err := r.Render(t.Context(), in.Deployment)
		if plugins.HasError(list) {
			if !errors.Is(err, plugins.ErrInvalid) {
				t.Errorf("%s has errors, and Render says %v", in.Name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", in.Name, err)
			continue
		}
		accepted++
		accepts(t, product, in.Name, files)
	}
	t.Logf("%d of %d deployments were rendered", accepted, len(table))
	if accepted < len(table)/3 {
		t.Errorf("only %d of %d deployments were rendered", accepted, len(table))
	}
}

// accepts has a product read its files.
func accepts(t *testing.T, product, name string, files []plugins.File) {
	c, ok := checkers[product]
	if !ok || os.Getenv("AOVLB_PEERS") != "1" || os.Getuid() != 0 {
		return
	}
	if _, err := exec.LookPath(c.tool); err != nil {
		return
	}
	dir := t.TempDir()
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		args := c.command(dir, f)
		if args == nil {
			continue
		}
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil && !remark(out) {
			t.Errorf("%s: %s: %v: %s\n%s", name, strings.Join(args, " "), err, out, f.Content)
		}
	}
}

// remark reports whether keepalived only remarks that all servers have the weight 0,
// which is what draining them all means; its driver takes it so too.
func remark(out []byte) bool {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return len(lines) == 2 && strings.HasSuffix(lines[0], "exceeds total weight of real servers 0, reducing quorum to 0") &&
		strings.Contains(lines[1], ": hysteresis 0 >= quorum 0; setting hysteresis to ")
}

// TestCheckersBite has each product refuse what it can't read.
func TestCheckersBite(t *testing.T) {
	if os.Getenv("AOVLB_PEERS") != "1" || os.Getuid() != 0 {
		t.Skip("set AOVLB_PEERS=1, as root, to have products check their files")
	}
	for product, c := range checkers {
		if _, err := exec.LookPath(c.tool); err != nil {
			t.Log("there is no", c.tool)
			continue
		}
		dir := t.TempDir()
		for _, name := range []string{"keepalived.conf", "marks.nft", "check.sh"} {
			f := plugins.File{Name: name}
			args := c.command(dir, f)
			if args == nil || product != "keepalived" && name != "keepalived.conf" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte("nonsense {{ ) 'here\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err == nil {
				t.Errorf("%s accepts nonsense: %s", strings.Join(args, " "), out)
			}
		}
	}
}

// deployments are those of the suite of drivers, and more.
func deployments(t *testing.T, dir string) []plugintest.Intent {
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte(plugintest.Canary), 0o600); err != nil {
		t.Fatal(err)
	}
	cert := selfSigned(t, dir)
	at := plugintest.Layout{Front: netip.AddrFrom4([4]byte{127, 77, byte(os.Getpid() >> 8), byte(os.Getpid()) | 1})}
	var out []plugintest.Intent
	for _, in := range plugintest.Intents(at, secret) {
		if in.Deployment != nil {
			out = append(out, in)
		}
	}
	for _, x := range more(at.Front, cert) {
		d := site()
		d.Sites[0].Groups[0].Listeners = listeners(at.Front)
		x.change(d, &d.Sites[0], &d.Sites[0].Pools[0], &d.Sites[0].Groups[0])
		out = append(out, plugintest.Intent{Name: x.name, Deployment: d})
	}
	return out
}

// site is of two gateways that are checked.
func site() *plugins.Deployment {
	return &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{
				{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}, {Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")},
			},
			Checks: []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource}},
	}}}
}

func listeners(front netip.Addr) []plugins.Listener {
	return []plugins.Listener{
		{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.AddrPortFrom(front, 500)},
		{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: netip.AddrPortFrom(front, 4500)},
		{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: netip.AddrPortFrom(front, 443)},
	}
}

type variant struct {
	name   string
	change func(*plugins.Deployment, *plugins.Site, *plugins.Pool, *plugins.Group)
}

// more are what the suite doesn't ask for.
func more(front netip.Addr, cert string) []variant {
	type (
		d = plugins.Deployment
		s = plugins.Site
		p = plugins.Pool
		g = plugins.Group
	)
	sstp := func(g *g) *plugins.Listener { g.Listeners = g.Listeners[2:]; return &g.Listeners[0] }
	ended := func(mode plugins.TLSMode) func(*d, *s, *p, *g) {
		return func(_ *d, s *s, _ *p, g *g) {
			sstp(g).TLS = plugins.TLS{Mode: mode, Tickets: true, Clients: plugins.ClientTLS{CAFile: cert, Optional: true}}
			if mode == plugins.TLSReencrypt {
				g.Listeners[0].TLS.Gateway = plugins.GatewayTLS{ServerName: "ras.example.com", CAFile: cert}
			}
			s.Certificates = []plugins.Certificate{{Name: "vpn", Pool: "ras", CertFile: cert, KeyFile: cert}}
		}
	}
	return []variant{
		{"both ports and sstp", func(*d, *s, *p, *g) {}},
		{"only IKEv2", func(_ *d, _ *s, _ *p, g *g) { g.Listeners = g.Listeners[:2] }},
		{"IKEv2 with its own check at both ports", func(_ *d, _ *s, p *p, g *g) {
			g.Listeners = g.Listeners[:2]
			p.Checks = []plugins.Check{{Type: plugins.CheckIKEv2}, {Name: "nat-t", Type: plugins.CheckIKEv2, Port: 4500, Fall: 1}}
		}},
		{"all checks that products have", func(_ *d, _ *s, p *p, _ *g) {
			p.Checks = append(p.Checks, plugins.Check{Type: plugins.CheckTCP, Port: 443, Timeout: plugins.Duration(500 * time.Millisecond)},
				plugins.Check{Type: plugins.CheckICMP}, plugins.Check{Type: plugins.CheckHTTPS, Path: "/health?x={1}", Host: "vpn.example.com", Expect: 204},
				plugins.Check{Name: "plain", Type: plugins.CheckHTTPS, PlainHTTP: true, Port: 8080})
		}},
		{"a certificate that is verified", func(_ *d, _ *s, p *p, g *g) { p.Checks[0].VerifyTLS = true; sstp(g) }},
		{"sstp offloaded", ended(plugins.TLSOffload)},
		{"sstp encrypted anew", ended(plugins.TLSReencrypt)},
		{"weights from 0 to the greatest", func(_ *d, _ *s, p *p, _ *g) { p.Backends[0].Weight, p.Backends[1].Weight = new(0), new(65535) }},
		{"all are drained", func(_ *d, _ *s, p *p, _ *g) {
			p.Backends[0].Admin, p.Backends[1].Admin = plugins.AdminDraining, plugins.AdminDisabled
		}},
		{"all of the first priority are drained", func(_ *d, _ *s, p *p, g *g) {
			p.Backends[0].Admin, p.Backends[1].Priority = plugins.AdminDraining, 1
			sstp(g)
		}},
		{"one stands by", func(_ *d, _ *s, p *p, g *g) { p.Backends[1].Priority = 1; sstp(g).BackendPort = 8443 }},
		{"at all addresses", func(_ *d, _ *s, _ *p, g *g) {
			for i := range g.Listeners {
				g.Listeners[i].Address = netip.AddrPortFrom(netip.IPv4Unspecified(), g.Listeners[i].Address.Port()+20000)
			}
		}},
		{"IPv6", func(_ *d, _ *s, p *p, g *g) {
			for i := range p.Backends {
				p.Backends[i].Address = netip.MustParseAddr(fmt.Sprintf("2001:db8::1%d", i))
			}
			for i := range g.Listeners {
				g.Listeners[i].Address = netip.AddrPortFrom(netip.IPv6Loopback(), g.Listeners[i].Address.Port()+20000)
			}
		}},
		{"the client's address, a long time, and limits", func(_ *d, _ *s, p *p, g *g) {
			g.ClientAddress, g.Idle = plugins.ClientAddressTransparent, plugins.Duration(8*time.Hour)
			g.Limits = plugins.Limits{MaxClients: 5000, MaxPerSource: 50}
			p.Backends[0].MaxClients = 250
		}},
		{"two groups of one pool", func(_ *d, s *s, _ *p, g *g) {
			other := *g
			other.Name, other.Listeners = "sstp-only.1", []plugins.Listener{g.Listeners[2]}
			other.Affinity = ""
			g.Listeners = g.Listeners[:2]
			s.Groups = append(s.Groups, other)
		}},
		{"a site whose name has other letters", func(_ *d, s *s, _ *p, _ *g) { s.Name = "main.site-2_x" }},
		{"RADIUS by two ports, checked by ping", func(_ *d, _ *s, p *p, g *g) {
			p.Checks = []plugins.Check{{Type: plugins.CheckICMP, Interval: plugins.Duration(10 * time.Second)}}
			g.Listeners = []plugins.Listener{
				{Name: "auth", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(front, 1812)},
				{Name: "acct", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(front, 1813)},
			}
		}},
	}
}

// selfSigned writes a certificate with its key, and returns the file.
func selfSigned(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vpn.example.com"}, DNSNames: []string{"vpn.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	out := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...)
	name := filepath.Join(dir, "vpn.pem")
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
