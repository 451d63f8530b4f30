package peers

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// RADIUSPrograms is what tests with FreeRADIUS and its clients need.
var RADIUSPrograms = []string{"freeradius", "radclient", "eapol_test"}

// RADIUSSecret is the secret of every server, for clients at any address.
const RADIUSSecret = "testing123-but-longer"

// A RADIUSServer is the configuration of a FreeRADIUS server, which takes PAP,
// CHAP, MS-CHAP and each [EAPMethod] on UDP port 1812 and accounting on 1813. Any user whose name
// starts with "user" has the password [Password].
type RADIUSServer struct {
	// Name is in the Reply-Message of its answers.
	Name string
	PKI  *PKI
	// Fragment is the largest part of a TLS message that is sent at once, and
	// 0 means 1,000: large certificates take several rounds.
	Fragment int
	// Secret is what it shares with its clients; empty means RADIUSSecret.
	Secret string
}

// A FreeRADIUS is a server that runs in a Host.
type FreeRADIUS struct {
	Host *Host
	// Dir holds its configuration and logs.
	Dir string

	proc   *Proc
	starts int
}

// FreeRADIUS starts a server in the namespace.
func (h *Host) FreeRADIUS(c RADIUSServer) *FreeRADIUS {
	t := h.net.t
	t.Helper()
	f := &FreeRADIUS{Host: h, Dir: filepath.Join(h.net.Dir, "radius-"+h.Name)}
	leaf := c.PKI.Issue(t, ServerName, manyNames(20)...)
	if c.Fragment == 0 {
		c.Fragment = 1000
	}
	if c.Secret == "" {
		c.Secret = RADIUSSecret
	}
	files := map[string][]byte{
		"radiusd.conf": fmt.Appendf(nil, radiusdConf, f.Dir, c.Secret, c.Fragment),
		"users":        fmt.Appendf(nil, "DEFAULT User-Name =~ \"^user\", Cleartext-Password := \"%s\"\n\tReply-Message := \"%s\"\n", Password, c.Name),
		"own.pem":      append(append([]byte(nil), leaf.Cert...), c.PKI.IntermediatePEM()...),
		"own.key":      leaf.Key,
		"ca.pem":       append(append([]byte(nil), c.PKI.RootPEM()...), c.PKI.IntermediatePEM()...),
		"dictionary":   []byte("$INCLUDE /usr/share/freeradius/dictionary\n"),
		"auth.log":     nil,
		"acct.log":     nil,
	}
	if err := write(f.Dir, files); err != nil {
		t.Fatal(err)
	}
	f.Start()
	return f
}

// manyNames makes a certificate larger.
func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("a-name-that-makes-it-larger-%02d.example.com", i))
	}
	return names
}

// radiusdConf wants the folder, the secret and the fragment size.
const radiusdConf = `
prefix = /usr
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
libdir = /usr/lib/freeradius
name = freeradius
correct_escapes = true
hostname_lookups = no
max_request_time = 30
cleanup_delay = 25
max_requests = 16384
log {
	destination = stdout
	auth = yes
}
security {
	user = root
	group = root
	allow_core_dumps = no
	max_attributes = 200
	reject_delay = 0
	status_server = no
}
thread pool {
	start_servers = 4
	max_servers = 16
	min_spare_servers = 2
	max_spare_servers = 8
	max_requests_per_server = 0
}
client all {
	ipaddr = 0.0.0.0/0
	secret = "%[2]s"
	require_message_authenticator = no
}
modules {
	pap {
	}
	chap {
	}
	mschap {
	}
	files users {
		filename = ${raddbdir}/users
	}
	eap {
		default_eap_type = peap
		timer_expire = 60
		ignore_unknown_eap_types = no
		max_sessions = 4096
		tls-config main {
			private_key_file = ${raddbdir}/own.key
			certificate_file = ${raddbdir}/own.pem
			ca_file = ${raddbdir}/ca.pem
			fragment_size = %[3]d
			include_length = yes
			cipher_list = "DEFAULT"
			tls_min_version = "1.2"
			tls_max_version = "1.2"
		}
		tls {
			tls = main
		}
		peap {
			tls = main
			default_eap_type = mschapv2
			copy_request_to_tunnel = no
			use_tunneled_reply = yes
			virtual_server = inner
		}
		ttls {
			tls = main
			default_eap_type = mschapv2
			copy_request_to_tunnel = no
			use_tunneled_reply = yes
			virtual_server = inner
		}
		mschapv2 {
		}
	}
	linelog authlog {
		filename = ${raddbdir}/auth.log
		format = "%%{User-Name} %%{Calling-Station-Id} %%{Packet-Src-IP-Address}"
	}
	linelog acctlog {
		filename = ${raddbdir}/acct.log
		format = "%%{User-Name} %%{Calling-Station-Id} %%{Packet-Src-IP-Address} %%{Acct-Status-Type} %%{Acct-Session-Id}"
	}
}
server default {
	listen {
		type = auth
		ipaddr = *
		port = 1812
	}
	listen {
		type = acct
		ipaddr = *
		port = 1813
	}
	authorize {
		eap {
			ok = return
		}
		users
		chap
		mschap
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type CHAP {
			chap
		}
		Auth-Type MS-CHAP {
			mschap
		}
		eap
	}
	post-auth {
		authlog
	}
	accounting {
		acctlog
	}
}
server inner {
	authorize {
		users
		mschap
		eap {
			ok = return
		}
		pap
	}
	authenticate {
		Auth-Type PAP {
			pap
		}
		Auth-Type MS-CHAP {
			mschap
		}
		eap
	}
}
`

// Start starts the server again after Kill.
func (f *FreeRADIUS) Start() {
	t := f.Host.net.t
	t.Helper()
	f.starts++
	f.proc = f.Host.Start(fmt.Sprintf("freeradius%d", f.starts), nil, "freeradius", "-f", "-l", "stdout", "-d", f.Dir)
	Eventually(t, 20*time.Second, "FreeRADIUS of "+f.Host.Name, func() error {
		select {
		case <-f.proc.Done():
			t.Fatalf("FreeRADIUS of %s ended: %s", f.Host.Name, f.proc.Output())
		default:
		}
		if !strings.Contains(f.proc.Output(), "Ready to process requests") {
			return errors.New("not ready")
		}
		return nil
	})
}

// Kill ends the server at once.
func (f *FreeRADIUS) Kill() { f.proc.Kill() }

// Pause stops the server from doing anything until Resume.
func (f *FreeRADIUS) Pause() { f.proc.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (f *FreeRADIUS) Resume() { f.proc.Signal(syscall.SIGCONT) }

// A RADIUSEntry is one line of a server's logs.
type RADIUSEntry struct {
	User, Station string
	From          netip.Addr
	Status        string // of accounting: Start, Stop
	Session       string
}

// Authenticated returns what the server has answered: accepts and rejects.
func (f *FreeRADIUS) Authenticated() ([]RADIUSEntry, error) { return f.entries("auth.log") }

// Accounted returns the accounting requests that the server has had.
func (f *FreeRADIUS) Accounted() ([]RADIUSEntry, error) { return f.entries("acct.log") }

func (f *FreeRADIUS) entries(name string) ([]RADIUSEntry, error) {
	b, err := os.ReadFile(filepath.Join(f.Dir, name))
	if err != nil {
		return nil, err
	}
	var out []RADIUSEntry
	for line := range strings.Lines(string(b)) {
		w := append(strings.Split(strings.TrimSpace(line), " "), "", "", "", "", "")
		from, _ := netip.ParseAddr(w[2])
		out = append(out, RADIUSEntry{User: w[0], Station: w[1], From: from, Status: w[3], Session: w[4]})
	}
	return out, nil
}

// Station returns a Calling-Station-Id, and the MAC address that makes it.
func Station(n int) (station, mac string) {
	b := []byte{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
	mac = hex.EncodeToString(b[:1])
	for _, x := range b[1:] {
		mac += ":" + hex.EncodeToString([]byte{x})
	}
	return strings.ToUpper(strings.ReplaceAll(mac, ":", "-")), mac
}

// Radclient sends one request of kind auth or acct to server by radclient, with
// attributes such as "User-Name = user1", and returns what it printed of the
// answer.
func (h *Host) Radclient(server netip.AddrPort, kind string, attributes ...string) (string, error) {
	return h.RunEnv(nil, strings.Join(attributes, "\n")+"\n",
		"radclient", "-x", "-r", "3", "-t", "2", server.String(), kind, RADIUSSecret)
}

// An EAPMethod is how users are known by EAP.
type EAPMethod string

// The methods that Windows has for a VPN, and their likes.
const (
	PEAPMSCHAPv2    EAPMethod = "PEAP with EAP-MSCHAPv2" // also the zero value
	EAPTLS          EAPMethod = "EAP-TLS"
	PEAPTLS         EAPMethod = "PEAP with EAP-TLS"
	EAPMSCHAPv2     EAPMethod = "EAP-MSCHAPv2"
	TTLSPAP         EAPMethod = "EAP-TTLS with PAP"
	TTLSMSCHAPv2    EAPMethod = "EAP-TTLS with MSCHAPv2"
	TTLSEAPMSCHAPv2 EAPMethod = "EAP-TTLS with EAP-MSCHAPv2"
)

// EAPMethods returns all of them.
func EAPMethods() []EAPMethod {
	return []EAPMethod{PEAPMSCHAPv2, EAPTLS, PEAPTLS, EAPMSCHAPv2, TTLSPAP, TTLSMSCHAPv2, TTLSEAPMSCHAPv2}
}

// network returns what eapol_test's configuration says of a method. dir has the
// user's certificate.
func (m EAPMethod) network(dir string) (text string, certificate bool) {
	password := fmt.Sprintf("password=%q", Password)
	own := fmt.Sprintf("client_cert=\"%[1]s/own.pem\"\n\tprivate_key=\"%[1]s/own.key\"", dir)
	switch m {
	case "", PEAPMSCHAPv2:
		return "eap=PEAP\n\tphase2=\"auth=MSCHAPV2\"\n\t" + password, false
	case EAPTLS:
		return "eap=TLS\n\t" + own, true
	case PEAPTLS:
		return fmt.Sprintf("eap=PEAP\n\tphase2=\"auth=TLS\"\n\tca_cert2=\"%[1]s/ca.pem\"\n\tclient_cert2=\"%[1]s/own.pem\"\n\tprivate_key2=\"%[1]s/own.key\"", dir), true
	case EAPMSCHAPv2:
		return "eap=MSCHAPV2\n\t" + password, false
	case TTLSPAP:
		return "eap=TTLS\n\tphase2=\"auth=PAP\"\n\t" + password, false
	case TTLSMSCHAPv2:
		return "eap=TTLS\n\tphase2=\"auth=MSCHAPV2\"\n\t" + password, false
	case TTLSEAPMSCHAPv2:
		return "eap=TTLS\n\tphase2=\"autheap=MSCHAPV2\"\n\t" + password, false
	}
	panic("peers: there is no EAP method " + string(m))
}

// An EAP is one conversation of eapol_test.
type EAP struct {
	Server netip.AddrPort
	// User is who logs in.
	User string
	// Station makes the Calling-Station-Id: see [Station].
	Station int
	// Method is how; empty means PEAPMSCHAPv2. Where it takes a certificate, PKI
	// issues it.
	Method EAPMethod
	PKI    *PKI
	// Fragment is as in RADIUSServer.
	Fragment int
	// FramedMTU is what the client says its MTU is; 0 means 1400.
	FramedMTU int
	// Timeout is how long it may take; 0 means 30 s.
	Timeout time.Duration
}

// An EAPResult is how a conversation went.
type EAPResult struct {
	// Rounds is how many requests were answered.
	Rounds int
	// Retransmits is how many requests were sent again.
	Retransmits int
	Output      string
}

// EAP runs a conversation by eapol_test. The error is nil only if it succeeded,
// keys and all.
func (h *Host) EAP(e EAP) (EAPResult, error) {
	t := h.net.t
	if e.Timeout == 0 {
		e.Timeout = 30 * time.Second
	}
	if e.Fragment == 0 {
		e.Fragment = 1000
	}
	_, mac := Station(e.Station)
	dir := filepath.Join(h.net.Dir, fmt.Sprintf("eap-%s-%d", h.Name, e.Station))
	files := map[string][]byte{"ca.pem": e.PKI.RootPEM()}
	method, certificate := e.Method.network(dir)
	if certificate {
		leaf := e.PKI.Issue(t, e.User, manyNames(20)...)
		files["own.pem"] = append(append([]byte(nil), leaf.Cert...), e.PKI.IntermediatePEM()...)
		files["own.key"] = leaf.Key
	}
	files["conf"] = fmt.Appendf(nil, "network={\n\tkey_mgmt=WPA-EAP\n\tidentity=%q\n\t%s\n\tca_cert=\"%s/ca.pem\"\n\tfragment_size=%d\n}\n",
		e.User, method, dir, e.Fragment)
	if err := write(dir, files); err != nil {
		return EAPResult{}, err
	}
	argv := []string{
		"eapol_test", "-c", filepath.Join(dir, "conf"), "-a", e.Server.Addr().String(),
		"-p", strconv.Itoa(int(e.Server.Port())), "-s", RADIUSSecret, "-M", mac, "-t", strconv.Itoa(int(e.Timeout.Seconds())),
	}
	if e.FramedMTU > 0 {
		argv = append(argv, fmt.Sprintf("-N12:d:%d", e.FramedMTU))
	}
	out, err := h.Run(argv...)
	r := EAPResult{
		Rounds:      strings.Count(out, "Received RADIUS message"),
		Retransmits: strings.Count(out, "Resending RADIUS message"),
		Output:      out,
	}
	if err == nil && !strings.HasSuffix(strings.TrimSpace(out), "SUCCESS") {
		err = fmt.Errorf("%s: eapol_test: %s", h.Name, tail(out, 5))
	}
	return r, err
}
