package geodns_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

// The programs with which administrators look at a DNS server, and the resolvers
// that clients use, as clients of this one.

// signedWorld is a world whose zone is signed.
func signedWorld(t *testing.T) (*world, *geodns.Key) {
	t.Helper()
	key, err := geodns.GenerateKey("example.com")
	if err != nil {
		t.Fatal(err)
	}
	key.Active, key.Announce = true, true
	return newWorld(t, conforming(t, key)), key
}

// tool runs a client of the world's server, and returns what it wrote.
func (w *world) tool(argv ...string) string {
	w.t.Helper()
	host, port, _ := net.SplitHostPort(w.addr)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], append([]string{"@" + host, "-p", port}, argv[1:]...)...).CombinedOutput()
	if err != nil {
		w.t.Errorf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func TestDig(t *testing.T) {
	needPeers(t, "dig", "kdig")
	w, _ := signedWorld(t)
	const vpn = "vpn.example.com"
	for _, tool := range []string{"dig", "kdig"} {
		for _, c := range []struct{ args, want string }{
			{vpn + " A +subnet=81.2.69.0/24", `(?s)198\.51\.100\.11.*`},
			{vpn + " A +subnet=81.2.69.0/24", `CLIENT-SUBNET: 81\.2\.69\.0/24/16`},
			{vpn + " AAAA +subnet=2a02:d180::/48", `CLIENT-SUBNET: 2a02:d180::/48/29`},
			{vpn + " A +subnet=216.160.83.56/32", `198\.51\.100\.21`},
			{vpn + " A +subnet=0.0.0.0/0", `CLIENT-SUBNET: 0\.0\.0\.0/0/0`},
			{vpn + " A +nsid", `NSID: 74 ?65 ?73 ?74`},
			{vpn + " A +cookie", `(?i)COOKIE: [0-9a-f]{16}`},
			{vpn + " A +tcp", `198\.51\.100\.1`},
			{"big.example.com TXT +bufsize=512", `0123456789`}, // by TCP, by itself
			{"nope.example.com A", `status: NXDOMAIN`},
			{"example.org A", `status: REFUSED`},
			{"example.com ANY +tcp", `status: NOERROR`},
			{vpn + " HTTPS", `1 \. alpn="?h2`},
			{"x.wild.example.com TXT", `"synthesized"`},
			{"signed.example.com DS", `12345 13 2`},
			{"mail.example.com A +dnssec", `RRSIG\s+A 13 3 300`},
		} {
			out := w.tool(append([]string{tool, "+norec"}, strings.Fields(c.args)...)...)
			if !regexp.MustCompile(c.want).MatchString(out) || strings.Contains(strings.ReplaceAll(out, "WARNING: truncated", ""), "WARNING: ") {
				t.Errorf("%s %s: want %s in\n%s", tool, c.args, c.want, out)
			}
		}
	}
	out := w.tool("dig", "+norec", vpn, "A", "+subnet=0")
	if !regexp.MustCompile(`status: NOERROR(?s:.*)CLIENT-SUBNET: 0(\.0\.0\.0)?/0/0`).MatchString(out) {
		t.Errorf("dig +subnet=0:\n%s", out)
	}
	out = w.tool("dig", "example.com", "AXFR")
	if !strings.Contains(out, "Transfer failed") {
		t.Errorf("a transfer:\n%s", out)
	}
}

// TestDelv has each kind of signed answer validated by what is in BIND.
func TestDelv(t *testing.T) {
	needPeers(t, "delv")
	w, key := signedWorld(t)
	pub := w.ask("example.com", "DNSKEY").Answer[0].(*dns.DNSKEY)
	anchor := write(t, t.TempDir(), "anchor", fmt.Sprintf("trust-anchors { example.com. static-key %d 3 %d \"%s\"; };\n", pub.Flags, pub.Algorithm, pub.PublicKey))
	if pub.KeyTag() != key.Tag() {
		t.Fatal("another key is served")
	}
	for _, c := range []struct{ q, want string }{
		{"example.com SOA", "; fully validated"},
		{"example.com NS", "; fully validated"},
		{"example.com DNSKEY", "; fully validated"},
		{"example.com CDS", "; fully validated"},
		{"example.com CDNSKEY", "; fully validated"},
		{"mail.example.com A", "; fully validated"},
		{"MAIL.example.COM AAAA", "; fully validated"},
		{"big.example.com TXT", "; fully validated"},
		{"two.example.com A", "; fully validated"},
		{"vpn.example.com A", "; fully validated"},
		{"vpn.example.com AAAA", "; fully validated"},
		{"vpn.example.com TXT", "; fully validated"},
		{"vpn.example.com HTTPS", "; fully validated"},
		{"vpn.example.com MX", "; negative response, fully validated"},
		{"x.any.example.com A", "; fully validated"},
		{"x.any.example.com MX", "; negative response, fully validated"},
		{"x.wild.example.com TXT", "; fully validated"},
		{"a.b.c.d.wild.example.com TXT", "; fully validated"},
		{"x.wild.example.com A", "; negative response, fully validated"},
		{"*.wild.example.com TXT", "; fully validated"},
		{"wild.example.com A", "; negative response, fully validated"},
		{"host.wild.example.com TXT", "; negative response, fully validated"},
		{"x.host.wild.example.com TXT", "; negative response, fully validated"},
		{"alias.example.com A", "; fully validated"},
		{"alias.example.com CNAME", "; fully validated"},
		{"q.wc.example.com A", "; fully validated"},
		{"mail.example.com MX", "; negative response, fully validated"},
		{"b.c.example.com A", "; negative response, fully validated"},
		{"nope.example.com A", "; negative response, fully validated"},
		{"x.y.z.nope.example.com A", "; negative response, fully validated"},
		{"x.vpn.example.com A", "; negative response, fully validated"},
		{"signed.example.com DS", "; fully validated"},
		{"sub.example.com DS", "; negative response, fully validated"},
		{"mail.example.com NSEC", "; fully validated"},
		{"alias.example.com NSEC", "; fully validated"},
		{"vpn.example.com NSEC", "; fully validated"},
		{"x.wild.example.com NSEC", "; fully validated"},
		{"nope.example.com NSEC", "; fully validated"},
		{"old.example.com DNAME", "; fully validated"},
		{"a.b.old.example.com TXT", "; fully validated"},
		{strings.Repeat("x", 63) + ".example.com A", "; negative response, fully validated"},
	} {
		name, typ, _ := strings.Cut(c.q, " ")
		out := w.tool("delv", "-a", anchor, "+root=example.com", name, typ)
		if !strings.Contains(out, c.want) || strings.Contains(out, "unsigned") || strings.Contains(out, "broken trust chain") {
			t.Errorf("%s: want %q in\n%s", c.q, c.want, out)
		}
	}
}

// TestKdigTLS asks over TLS.
func TestKdigTLS(t *testing.T) {
	needPeers(t, "kdig")
	w := newWorld(t, nil)
	dir := t.TempDir()
	cert, ca := selfSigned(t, dir)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"dot"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- w.server.ServeStream(t.Context(), l) }()
	t.Cleanup(func() { <-done })
	w.addr = l.Addr().String()
	for _, c := range []struct{ args, want string }{
		{"+tls mail.example.com A", `192\.0\.2\.25`},
		{"+tls-ca=" + ca + " +tls-hostname=dns.example.com +keepopen mail.example.com A vpn.example.com A", `(?s)192\.0\.2\.25.*198\.51\.100`},
		{"+tls-ca=" + ca + " +tls-hostname=dns.example.com +padding +subnet=81.2.69.0/24 vpn.example.com A", `198\.51\.100\.11`},
	} {
		if out := w.tool(append([]string{"kdig"}, strings.Fields(c.args)...)...); !regexp.MustCompile(c.want).MatchString(out) || !strings.Contains(out, "TLS session") {
			t.Errorf("kdig %s: want %s in\n%s", c.args, c.want, out)
		}
	}
}

// selfSigned makes a certificate for dns.example.com.
func selfSigned(t *testing.T, dir string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dns.example.com"}, DNSNames: []string{"dns.example.com"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, pemOf("CERTIFICATE", der), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// resolver is a resolver in front of the world.
type resolver struct {
	t    *testing.T
	addr string
}

// ask sends a query, with the client's subnet unless it is empty.
func (r *resolver) ask(name string, typ uint16, subnet string) *dns.Msg {
	r.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), typ)
	m.SetEdns0(1232, true)
	if subnet != "" {
		withSubnet(subnet)(m)
	}
	for try := 0; ; try++ {
		res, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(m, r.addr)
		if err == nil && res.Truncated {
			res, _, err = (&dns.Client{Net: "tcp", Timeout: 5 * time.Second}).Exchange(m, r.addr)
		}
		if err == nil {
			return res
		}
		if try == 5 {
			r.t.Fatalf("%s: %v", name, err)
		}
		time.Sleep(200 * time.Millisecond) // a server's start
	}
}

// validates has a resolver that knows the zone's key resolve every kind of name.
func (r *resolver) validates() {
	r.t.Helper()
	for _, c := range []struct {
		q    string
		code int
		ad   bool
	}{
		{"mail.example.com A", 0, true},
		{"vpn.example.com A", 0, true},
		{"vpn.example.com AAAA", 0, true},
		{"vpn.example.com MX", 0, true},
		{"x.any.example.com A", 0, true},
		{"x.wild.example.com TXT", 0, true},
		{"x.wild.example.com A", 0, true},
		{"alias.example.com A", 0, true},
		{"tovpn.example.com A", 0, true},
		{"b.c.example.com A", 0, true},
		{"example.com CDS", 0, true},
		{"mail.example.com MX", 0, true},
	} {
		name, typ, _ := strings.Cut(c.q, " ")
		m := r.ask(name, dns.StringToType[typ], "")
		if m.Rcode != c.code || m.AuthenticatedData != c.ad {
			r.t.Errorf("%s: %s, validated: %v\n%v", c.q, dns.RcodeToString[m.Rcode], m.AuthenticatedData, m)
		}
	}
	// Of a name that isn't there, compact proofs say so in their own way: a
	// resolver tells the client one or the other.
	m := r.ask("nope.example.com", dns.TypeA, "")
	if m.Rcode != dns.RcodeNameError && m.Rcode != 0 || len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeA || !m.AuthenticatedData {
		r.t.Errorf("no such name:\n%v", m)
	}
	if m := r.ask("tovpn.example.com", dns.TypeA, ""); addrsOf(m) == "" {
		r.t.Errorf("an alias to a geo name:\n%v", m)
	}
}

// TestUnbound has unbound resolve for clients of many networks: each must get what
// is meant for it, from the cache too.
func TestUnbound(t *testing.T) {
	needPeers(t, "unbound")
	for _, signed := range []bool{false, true} {
		t.Run(fmt.Sprintf("signed %v", signed), func(t *testing.T) {
			w, anchor := newWorld(t, nil), ""
			modules := "subnetcache iterator"
			if signed {
				w, _ = signedWorld(t)
				anchor = fmt.Sprintf("  trust-anchor: %q\n", strings.ReplaceAll(w.ask("example.com", "DNSKEY").Answer[0].String(), "\t", " "))
				modules = "subnetcache validator iterator"
			}
			_, behind, _ := net.SplitHostPort(w.addr)
			dir := publicDir(t)
			addr, port := freePort(t)
			conf := write(t, dir, "unbound.conf", fmt.Sprintf(`server:
  interface: 127.0.0.1@%s
  access-control: 127.0.0.0/8 allow
  directory: %q
  username: ""
  chroot: ""
  pidfile: %q
  use-syslog: no
  do-daemonize: no
  num-threads: 1
  do-not-query-localhost: no
  module-config: %q
  send-client-subnet: 127.0.0.1
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: 32
  max-client-subnet-ipv6: 128
  use-caps-for-id: yes
  qname-minimisation: yes
  aggressive-nsec: yes
%sstub-zone:
  name: "example.com"
  stub-addr: 127.0.0.1@%s
remote-control:
  control-enable: no
`, port, dir, filepath.Join(dir, "pid"), modules, anchor, behind))
			start(t, exec.Command("unbound", "-d", "-c", conf))
			r := &resolver{t, addr}
			r.agrees(w)
			if signed {
				r.validates()
				r.keepsNoProof()
			}
			st := w.server.Stats()
			t.Logf("unbound sent %d queries on behalf of the clients", st.UDP+st.TCP)
		})
	}
}

// keepsNoProof has a resolver that answers of proofs (RFC 8198) learn that one
// site has no IPv6, and then ask for a client of another that has.
func (r *resolver) keepsNoProof() {
	r.t.Helper()
	for range 3 {
		if m := r.ask("vpn.example.com", dns.TypeAAAA, "216.160.83.56/29"); addrsOf(m) != "" || m.Rcode != 0 {
			r.t.Fatalf("a site without IPv6:\n%v", m)
		}
		for _, c := range []string{"81.2.69.0/24", "93.1.2.0/24"} {
			if m := r.ask("vpn.example.com", dns.TypeAAAA, c); len(m.Answer) == 0 {
				r.t.Fatalf("a client of another site gets nothing:\n%v", m)
			}
		}
	}
}

// agrees compares what clients get by the resolver, some of it from its cache,
// with what the policy has for them.
func (r *resolver) agrees(w *world) {
	r.t.Helper()
	sel := w.plan.Select(w.health.View(), "vpn.example.com")
	var clients []netip.Addr
	for _, base := range []string{"93.0.0.0/8", "81.2.0.0/16", "81.2.69.0/24", "216.160.83.48/28", "8.0.0.0/7", "2a02:d180::/29", "2a02:d100::/24", "2000::/3"} {
		for range 40 {
			clients = append(clients, within(prefix(base)))
		}
	}
	mrand.Shuffle(len(clients), func(i, j int) { clients[i], clients[j] = clients[j], clients[i] })
	for _, c := range clients {
		full, _ := c.Prefix(c.BitLen())
		p := sel.Pick(geo.Client{Addr: c}, time.Now())
		want := make(map[string]bool)
		for _, g := range sel.Gateways(p.Site, 0) {
			for _, a := range g {
				want[a.String()] = a.Is4()
			}
		}
		m := r.ask("vpn.example.com", dns.TypeA, full.String())
		got := strings.Fields(addrsOf(m))
		for _, a := range got {
			if !want[a] {
				r.t.Fatalf("%v gets %s, but is for %s\n%v", c, a, w.plan.Sites()[p.Site].Name, m)
			}
		}
		if len(got) == 0 {
			r.t.Fatalf("%v gets nothing:\n%v", c, m)
		}
	}
}

// within returns a random address of a prefix.
func within(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		if mrand.IntN(2) == 1 {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// TestBIND has BIND resolve and validate.
func TestBIND(t *testing.T) {
	needPeers(t, "named")
	w, _ := signedWorld(t)
	pub := w.ask("example.com", "DNSKEY").Answer[0].(*dns.DNSKEY)
	_, behind, _ := net.SplitHostPort(w.addr)
	dir := publicDir(t)
	addr, port := freePort(t)
	conf := write(t, dir, "named.conf", fmt.Sprintf(`options {
  directory %q; pid-file none; session-keyfile none; managed-keys-directory %q;
  listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
  recursion yes; allow-query { 127.0.0.1; }; dnssec-validation yes; empty-zones-enable no;
};
controls { };
trust-anchors { example.com. static-key %d 3 %d "%s"; };
zone "example.com" { type forward; forward only; forwarders { 127.0.0.1 port %s; }; };
`, dir, dir, port, pub.Flags, pub.Algorithm, pub.PublicKey, behind))
	start(t, exec.Command("named", "-g", "-n", "1", "-c", conf))
	r := &resolver{t, addr}
	r.validates()
	for i := range 50 { // random names, each with its proof
		if m := r.ask(fmt.Sprintf("r%d.example.com", i), dns.TypeAAAA, ""); !m.AuthenticatedData {
			t.Fatalf("not validated:\n%v", m)
		}
	}
}
