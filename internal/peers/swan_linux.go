package peers

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// SwanPrograms is what tests with strongSwan need.
var SwanPrograms = []string{"charon-systemd", "swanctl"}

// ServerName is the name in the certificate of every gateway.
const ServerName = "vpn.example.com"

// A Swan is a strongSwan daemon in a Host: a gateway or a client.
type Swan struct {
	Host *Host
	// Dir holds its configuration.
	Dir string

	proc     *Proc
	settings map[string]string
	plugins  string // more text of the section plugins
	starts   int
}

// A Gateway is the configuration of a VPN gateway that takes tunnels by
// EAP-MSCHAPv2 and by certificate. Any user has the password [Password].
type Gateway struct {
	// ID tells gateways apart, 1 to 250: see the package comment.
	ID  int
	PKI *PKI
	// Fragmentation is yes, no, accept or force; empty means yes.
	Fragmentation string
	// Settings are added to the charon section of strongswan.conf:
	// "cookie_threshold": "1".
	Settings map[string]string
	// Proposals is what IKE may use; empty means [Proposals].
	Proposals string
	// RADIUS, if valid, is the server that judges users, on ports 1812 and
	// 1813, instead of the gateway.
	RADIUS netip.Addr
	// Rekey and ChildRekey are how long until the gateway renews an IKE or a
	// child SA by itself; 0 means it doesn't.
	Rekey, ChildRekey time.Duration
}

// Proposals is what gateways and clients use unless told otherwise: what current
// advice for Always On VPN says.
const Proposals = "aes128gcm16-prfsha256-modp2048,aes256-sha256-modp2048"

const childProposals = "aes128gcm16,aes256-sha256"

// Password is every user's.
const Password = "correct horse"

// Users is how many users a gateway knows: user1, user2 and so on.
const Users = 60

// A Tunnel is the configuration of one connection of a client.
type Tunnel struct {
	// Name is what the methods of Swan call it.
	Name string
	// Server is the address the client dials.
	Server netip.Addr
	// User, if set, is for EAP-MSCHAPv2; otherwise the certificate of Machine
	// is used.
	User, Machine string
	// Port4500 starts at UDP port 4500 instead of 500.
	Port4500 bool
	// Fragmentation is yes, no, accept or force; empty means yes.
	Fragmentation string
	// DPD is how often the client looks whether the gateway lives; 0 means
	// never. A client that finds it dead dials again.
	DPD time.Duration
	// Proposals is what IKE may use; empty means [Proposals].
	Proposals string
	// ChildProposals is what ESP may use; empty means what gateways take.
	ChildProposals string
	// Rekey and ChildRekey are how long until the client renews an IKE or a
	// child SA by itself; 0 means it doesn't.
	Rekey, ChildRekey time.Duration
	// Forgetful is a user whose client has no password, so that it breaks off
	// when EAP asks for one.
	Forgetful bool
	// Device asks for the network 172.30.0.0/16 instead of 172.31.0.0/16, as
	// a device tunnel that reaches only the domain controllers does, so that
	// it can stand beside a user tunnel.
	Device bool
}

// inner returns the address of gateway id inside the tunnel.
func inner(id int, device bool) netip.Addr {
	if device {
		return netip.AddrFrom4([4]byte{172, 30, byte(id), 1})
	}
	return netip.AddrFrom4([4]byte{172, 31, byte(id), 1})
}

// Gateway starts a VPN gateway in the namespace.
func (h *Host) Gateway(g Gateway) *Swan {
	t := h.net.t
	t.Helper()
	h.IP(
		fmt.Sprintf("address add %s/32 dev lo", inner(g.ID, false)),
		fmt.Sprintf("address add %s/32 dev lo", inner(g.ID, true)),
	)
	leaf := g.PKI.Issue(t, ServerName)
	s := h.swan(g.Settings)
	if g.RADIUS.IsValid() {
		s.plugins = fmt.Sprintf(`		eap-radius {
			accounting = yes
			servers {
				nps {
					address = %s
					secret = %s
					sockets = 5
				}
			}
		}
`, g.RADIUS, RADIUSSecret)
	}
	s.configure(map[string][]byte{
		"x509/own.pem":   leaf.Cert,
		"x509/inter.pem": g.PKI.IntermediatePEM(),
		"x509ca/ca.pem":  g.PKI.RootPEM(),
		"private/own":    leaf.Key,
		"swanctl.conf":   []byte(g.swanctl()),
	})
	s.Start()
	return s
}

func (g *Gateway) swanctl() string {
	var b strings.Builder
	b.WriteString("connections {\n")
	for _, auth := range []string{"eap", "cert"} {
		remote := "auth = pubkey\n\t\t\tcacerts = ca.pem"
		switch {
		case auth == "eap" && g.RADIUS.IsValid():
			remote = "auth = eap-radius\n\t\t\teap_id = %any"
		case auth == "eap":
			remote = "auth = eap-mschapv2\n\t\t\teap_id = %any"
		}
		fmt.Fprintf(&b, `	%s {
		version = 2
		proposals = %s
		pools = vips
		send_cert = always
		send_certreq = yes
		fragmentation = %s
		unique = never
		rekey_time = %ds
		over_time = 60s
		dpd_delay = 0s
		local {
			auth = pubkey
			certs = own.pem
			id = %s
		}
		remote {
			%s
		}
		children {
			net {
				local_ts = 172.31.0.0/16, 172.30.0.0/16
				esp_proposals = %s
				rekey_time = %ds
				dpd_action = clear
			}
		}
	}
`, auth, or(g.Proposals, Proposals), or(g.Fragmentation, "yes"), int(g.Rekey.Seconds()),
			ServerName, remote, childProposals, int(g.ChildRekey.Seconds()))
	}
	fmt.Fprintf(&b, "}\npools {\n\tvips {\n\t\taddrs = 172.16.%d.0/24\n\t}\n}\nsecrets {\n\teap-all {\n", g.ID)
	for i := range Users {
		fmt.Fprintf(&b, "\t\tid%[1]d = user%[1]d\n", i+1)
	}
	fmt.Fprintf(&b, "\t\tsecret = \"%s\"\n\t}\n}\n", Password)
	return b.String()
}

// Client starts a VPN client in the namespace. It dials nothing by itself.
func (h *Host) Client(p *PKI, tunnels ...Tunnel) *Swan {
	t := h.net.t
	t.Helper()
	s := h.swan(nil)
	files := map[string][]byte{
		"x509/inter.pem": p.IntermediatePEM(),
		"x509ca/ca.pem":  p.RootPEM(),
	}
	var conns, secrets strings.Builder
	for _, tun := range tunnels {
		conns.WriteString(tun.swanctl())
		if tun.Forgetful {
			continue
		}
		if tun.User != "" {
			fmt.Fprintf(&secrets, "\teap-%[1]s {\n\t\tid = %[2]s\n\t\tsecret = \"%[3]s\"\n\t}\n", tun.Name, tun.User, Password)
			continue
		}
		leaf := p.Issue(t, tun.Machine)
		files["x509/"+tun.Name+".pem"] = leaf.Cert
		files["private/own"] = leaf.Key
	}
	files["swanctl.conf"] = []byte("connections {\n" + conns.String() + "}\nsecrets {\n" + secrets.String() + "}\n")
	s.configure(files)
	s.Start()
	return s
}

func (t *Tunnel) swanctl() string {
	local := fmt.Sprintf("auth = pubkey\n\t\t\tcerts = %s.pem\n\t\t\tid = %s", t.Name, t.Machine)
	if t.User != "" {
		local = fmt.Sprintf("auth = eap-mschapv2\n\t\t\teap_id = %[1]s\n\t\t\tid = %[1]s", t.User)
	}
	port, ts, action := 500, "172.31.0.0/16", "none"
	if t.Port4500 {
		port = 4500
	}
	if t.Device {
		ts = "172.30.0.0/16"
	}
	if t.DPD > 0 {
		action = "restart"
	}
	return fmt.Sprintf(`	%[1]s {
		version = 2
		proposals = %[2]s
		remote_addrs = %[3]s
		local_port = %[4]d
		remote_port = %[5]d
		vips = 0.0.0.0
		mobike = yes
		send_cert = always
		fragmentation = %[6]s
		unique = never
		keyingtries = 0
		rekey_time = %[7]ds
		over_time = 60s
		dpd_delay = %[8]ds
		local {
			%[9]s
		}
		remote {
			auth = pubkey
			id = %[10]s
		}
		children {
			%[1]s {
				remote_ts = %[11]s
				esp_proposals = %[12]s
				rekey_time = %[13]ds
				dpd_action = %[14]s
			}
		}
	}
`, t.Name, or(t.Proposals, Proposals), t.Server, port, port, or(t.Fragmentation, "yes"),
		int(t.Rekey.Seconds()), int(t.DPD.Seconds()), local, ServerName, ts, or(t.ChildProposals, childProposals),
		int(t.ChildRekey.Seconds()), action)
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// swanPlugins are all that tunnels of tests need.
const swanPlugins = "random nonce aes des sha1 sha2 md5 hmac xcbc kdf gcm chapoly curve25519 pem pkcs1 pkcs8 x509 constraints pubkey gmp openssl " +
	"kernel-libipsec kernel-netlink socket-default vici eap-identity eap-mschapv2 eap-radius"

func (h *Host) swan(settings map[string]string) *Swan {
	s := &Swan{Host: h, Dir: filepath.Join(h.net.Dir, "swan-"+h.Name)}
	s.settings = map[string]string{
		// A dead gateway is noticed after about 8 s instead of 165 s.
		"retransmit_timeout": "1.0",
		"retransmit_base":    "1.5",
		"retransmit_tries":   "3",
		"keep_alive":         "5s",
	}
	maps.Copy(s.settings, settings)
	return s
}

func (s *Swan) configure(files map[string][]byte) {
	t := s.Host.net.t
	t.Helper()
	var settings strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.settings)) {
		fmt.Fprintf(&settings, "\t%s = %s\n", k, s.settings[k])
	}
	files["strongswan.conf"] = fmt.Appendf(nil, `charon {
	load = %s
%s	plugins {
		vici {
			socket = %s
		}
%s	}
	filelog {
		log {
			path = %s
			append = yes
			default = 1
			cfg = 0
			lib = 0
			time_format = %%H:%%M:%%S
			time_add_ms = yes
			flush_line = yes
		}
	}
}
swanctl {
	load = pem pkcs1 x509 openssl random
}
`, swanPlugins, settings.String(), s.uri(), s.plugins, s.log())
	if err := write(s.Dir, files); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("charon of %s:\n%s", s.Host.Name, tail(s.Log(), 400))
		}
	})
}

func (s *Swan) uri() string { return "unix://" + filepath.Join(s.Dir, "vici") }
func (s *Swan) log() string { return filepath.Join(s.Dir, "log") }

// Log returns what the daemon has logged.
func (s *Swan) Log() string {
	b, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (s *Swan) env() []string {
	return []string{"STRONGSWAN_CONF=" + filepath.Join(s.Dir, "strongswan.conf"), "SWANCTL_DIR=" + s.Dir}
}

// Start starts the daemon again after Kill.
func (s *Swan) Start() {
	t := s.Host.net.t
	t.Helper()
	s.starts++
	s.proc = s.Host.Start(fmt.Sprintf("charon%d", s.starts), s.env(), "charon-systemd")
	Eventually(t, 20*time.Second, "loading the configuration of "+s.Host.Name, func() error {
		_, err := s.swanctl("--load-all", "--noprompt")
		return err
	})
}

// Kill ends the daemon without a word to its peers.
func (s *Swan) Kill() { s.proc.Kill() }

// Freeze keeps the daemon from doing anything until Thaw. Its ports stay open.
func (s *Swan) Freeze() { s.proc.Signal(syscall.SIGSTOP) }

// Thaw undoes Freeze.
func (s *Swan) Thaw() { s.proc.Signal(syscall.SIGCONT) }

// Stop ends the daemon, which deletes its SAs first.
func (s *Swan) Stop() error { return s.proc.Stop() }

func (s *Swan) swanctl(args ...string) (string, error) {
	return s.Host.RunEnv(s.env(), "", append([]string{"swanctl", args[0], "--uri", s.uri()}, args[1:]...)...)
}

// Up dials a tunnel and waits, d at most, until it is up.
func (s *Swan) Up(name string, d time.Duration) error {
	_, err := s.swanctl("--initiate", "--child", name, "--timeout", strconv.Itoa(int(d.Seconds())))
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", name, err)
	}
	return nil
}

// Down deletes a tunnel.
func (s *Swan) Down(name string) error {
	_, err := s.swanctl("--terminate", "--ike", name, "--timeout", "5")
	return err
}

// RekeyIKE renews the IKE SA of connection name, and returns when it has new
// SPIs. Gateways call their connections eap and cert.
func (s *Swan) RekeyIKE(name string) error {
	return s.rekey(name, "the IKE SA", func(sa SA) string { return sa.InitiatorSPI }, "--ike", name)
}

// RekeyChild renews the child SA of a tunnel.
func (s *Swan) RekeyChild(name, child string) error {
	return s.rekey(name, "the child SA", func(sa SA) string { return sa.ChildSPI }, "--child", child)
}

// rekey renews what, and returns when its SPI is another.
func (s *Swan) rekey(name, what string, spi func(SA) string, args ...string) error {
	before, err := s.SA(name)
	if err != nil {
		return err
	}
	if _, err := s.swanctl(append([]string{"--rekey"}, args...)...); err != nil {
		return err
	}
	return Poll(10*time.Second, func() error {
		now, err := s.SA(name)
		if err == nil && spi(now) == spi(before) {
			err = fmt.Errorf("%s: %s of %s has not been renewed", s.Host.Name, what, name)
		}
		return err
	})
}

// An SA is one IKE SA, with its child.
type SA struct {
	Name, UniqueID, State      string
	InitiatorSPI, ResponderSPI string
	Local, Remote              netip.AddrPort
	RemoteID                   string
	VIP                        netip.Addr // of the client
	Child, ChildState          string
	ChildSPI, ChildSPIOut      string // of what this side receives and sends
	RemoteTS                   string // the first network behind the other side
}

// SAs returns the IKE SAs of the daemon.
func (s *Swan) SAs() ([]SA, error) {
	out, err := s.swanctl("--list-sas", "--raw", "--pretty")
	if err != nil {
		return nil, err
	}
	return parseSAs(out), nil
}

// SA returns the newest established IKE SA of connection name that has a child.
func (s *Swan) SA(name string) (SA, error) {
	all, err := s.SAs()
	if err != nil {
		return SA{}, err
	}
	for _, sa := range slices.Backward(all) {
		if sa.Name == name && sa.State == "ESTABLISHED" && sa.ChildState == "INSTALLED" {
			return sa, nil
		}
	}
	return SA{}, fmt.Errorf("%s: no tunnel %s among %d SAs", s.Host.Name, name, len(all))
}

// Gateway returns the ID of the gateway that a tunnel of a client is at.
func (s *Swan) Gateway(name string) (int, error) {
	sa, err := s.SA(name)
	if err != nil {
		return 0, err
	}
	if !sa.VIP.Is4() {
		return 0, fmt.Errorf("tunnel %s has no address", name)
	}
	return int(sa.VIP.As4()[2]), nil
}

// Ping sends one packet through a tunnel, and returns the ID of the gateway that
// answered it.
func (s *Swan) Ping(name string) (int, error) {
	sa, err := s.SA(name)
	if err != nil {
		return 0, err
	}
	id, err := s.Gateway(name)
	if err != nil {
		return 0, err
	}
	to := inner(id, strings.HasPrefix(sa.RemoteTS, "172.30."))
	if _, err = s.Host.Run("ping", "-c", "1", "-W", "1", "-I", sa.VIP.String(), to.String()); err != nil {
		return 0, fmt.Errorf("tunnel %s: no answer to a ping from gateway %d", name, id)
	}
	return id, nil
}

// MustPing pings through a tunnel until there is an answer, for d at most, and
// returns the ID of the gateway.
func (s *Swan) MustPing(t testing.TB, name string, d time.Duration) (id int) {
	t.Helper()
	Eventually(t, d, fmt.Sprintf("ping through tunnel %s of %s", name, s.Host.Name), func() (err error) {
		id, err = s.Ping(name)
		return err
	})
	return id
}

// parseSAs reads what swanctl --list-sas --raw --pretty prints.
func parseSAs(out string) []SA {
	var sas []SA
	var path []string
	var local, localPort, remote, remotePort string
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasSuffix(line, "{"):
			path = append(path, strings.TrimSpace(strings.TrimSuffix(line, "{")))
			if len(path) == 2 {
				sas = append(sas, SA{Name: path[1]})
				local, localPort, remote, remotePort = "", "", "", ""
			}
			continue
		case line == "}" && len(path) > 0:
			path = path[:len(path)-1]
			continue
		case strings.HasSuffix(line, "["):
			// A list: its items have no "=".
			path = append(path, strings.TrimSpace(strings.TrimSuffix(strings.TrimSuffix(line, "["), "= ")))
			continue
		case line == "]" && len(path) > 0:
			path = path[:len(path)-1]
			continue
		}
		if len(sas) == 0 || len(path) < 2 {
			continue
		}
		sa := &sas[len(sas)-1]
		key, value, ok := strings.Cut(line, " = ")
		if !ok {
			if strings.HasSuffix(path[len(path)-1], "-vips") && !sa.VIP.IsValid() {
				sa.VIP, _ = netip.ParseAddr(line)
			}
			if path[len(path)-1] == "remote-ts" && sa.RemoteTS == "" {
				sa.RemoteTS = line
			}
			continue
		}
		if len(path) == 4 && path[2] == "child-sas" {
			// The newest child counts, unless it is on its way out.
			switch key {
			case "name":
				sa.Child = value
			case "state":
				sa.ChildState = value
			case "spi-in":
				sa.ChildSPI = value
			case "spi-out":
				sa.ChildSPIOut = value
			}
			continue
		}
		if len(path) != 2 {
			continue
		}
		switch key {
		case "uniqueid":
			sa.UniqueID = value
		case "state":
			sa.State = value
		case "initiator-spi":
			sa.InitiatorSPI = value
		case "responder-spi":
			sa.ResponderSPI = value
		case "remote-id":
			sa.RemoteID = value
		case "local-host":
			local = value
		case "local-port":
			localPort = value
		case "remote-host":
			remote = value
		case "remote-port":
			remotePort = value
		}
		sa.Local, _ = netip.ParseAddrPort(net.JoinHostPort(local, localPort))
		sa.Remote, _ = netip.ParseAddrPort(net.JoinHostPort(remote, remotePort))
	}
	return sas
}
