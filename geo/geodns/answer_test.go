package geodns_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

const zoneText = `
$TTL 300
@        SOA ns1 hostmaster 2026112101 3600 600 86400 60
         NS ns1
         NS ns2
         MX 10 mail
ns1      A 192.0.2.53
ns2      A 192.0.2.54
mail     A 192.0.2.25
         AAAA 2001:db8::25
www      CNAME web.example.net.
alias    CNAME mail
loop1    CNAME loop2
loop2    CNAME loop1
tovpn    CNAME vpn
a.b.c    TXT "deep"
*.wild   TXT "synthesized"
sub      NS ns.sub
         NS ns.elsewhere.example.org.
ns.sub   A 192.0.2.99
signed   NS ns.signed
         DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF
ns.signed AAAA 2001:db8::99
vpn      TXT "the VPN"
vpn      HTTPS 1 . alpn=h2
big      TXT ( "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789" )
`

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// world is a server of a zone with a name vpn of three sites, and a wildcard.
type world struct {
	t      testing.TB
	server *geodns.Server
	zone   *geodns.Zone
	name   *geodns.Name
	health *geo.Health
	plan   *geo.Plan
	addr   string
}

func sites() []geo.Site {
	gw := func(addrs ...string) (list []geo.Gateway) {
		for i, a := range addrs {
			g := geo.Gateway{Name: fmt.Sprintf("ras%d", i+1)}
			for f := range strings.FieldsSeq(a) {
				g.Addrs = append(g.Addrs, addr(f))
			}
			list = append(list, g)
		}
		return list
	}
	return []geo.Site{
		{Name: "berlin", Place: geo.Place{Continent: "EU", Country: "DE"}, Gateways: gw("198.51.100.1 2001:db8:b::1", "198.51.100.2 2001:db8:b::2")},
		{Name: "london", Place: geo.Place{Continent: "EU", Country: "GB"}, Gateways: gw("198.51.100.11 2001:db8:c::1")},
		{Name: "seattle", Place: geo.Place{Continent: "NA", Country: "US"}, Gateways: gw("198.51.100.21")},
	}
}

func parseZone(t testing.TB, origin, text string) *geodns.Zone {
	t.Helper()
	z, err := geodns.ParseZone(strings.NewReader(text), origin, origin+".zone")
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func newWorld(t testing.TB, change func(w *world, p *geo.Policy)) *world {
	t.Helper()
	where, err := geo.NewNetworks(
		geo.Network{Prefix: prefix("81.2.0.0/16"), Place: geo.Place{Continent: "EU", Country: "GB"}},
		geo.Network{Prefix: prefix("93.0.0.0/8"), Place: geo.Place{Continent: "EU", Country: "DE"}},
		geo.Network{Prefix: prefix("216.160.83.56/29"), Place: geo.Place{Continent: "NA", Country: "US"}},
		geo.Network{Prefix: prefix("2a02:d180::/29"), Place: geo.Place{Continent: "EU", Country: "DE"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, server: &geodns.Server{NSID: "test"}, health: new(geo.Health), name: &geodns.Name{Name: "vpn.example.com", TTL: 60 * time.Second}}
	w.zone = parseZone(t, "example.com", zoneText)
	p := &geo.Policy{Order: []geo.Criterion{geo.ByCountry, geo.ByContinent}, Method: geo.First}
	if change != nil {
		change(w, p)
	}
	if w.plan, err = p.Compile(sites(), where, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.health.Set(sites()...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.health.Close)
	for _, s := range sites() {
		for _, g := range s.Gateways {
			w.mark(s.Name, g.Name, geo.Up)
		}
	}
	other := &geodns.Name{Name: "*.any.example.com"}
	if err := w.server.Set([]*geodns.Zone{w.zone}, []*geodns.Name{w.name, other}); err != nil {
		t.Fatal(err)
	}
	w.update()
	other.Update(w.plan.Select(w.health.View(), "any"))
	w.serve()
	return w
}

func (w *world) mark(site, gw string, s geo.State) {
	w.t.Helper()
	if err := w.health.Mark(site, gw, s, ""); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update() { w.name.Update(w.plan.Select(w.health.View(), "vpn.example.com")) }

// serve listens on loopback, UDP and TCP on one port.
func (w *world) serve() {
	w.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := lc.ListenPacket(w.t.Context(), "udp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = l.Addr().String()
	done := make(chan error, 2)
	go func() { done <- w.server.ServePacket(context.Background(), c) }()
	go func() { done <- w.server.ServeStream(context.Background(), l) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.server.Shutdown(ctx); err != nil {
			w.t.Error(err)
		}
		for range 2 {
			if err := <-done; err != geodns.ErrClosed {
				w.t.Errorf("serving ended with %v", err)
			}
		}
	})
}

// ask sends a query and returns the response.
func (w *world) ask(name, typ string, change ...func(m *dns.Msg)) *dns.Msg {
	w.t.Helper()
	return w.askBy("udp", name, typ, change...)
}

func (w *world) askBy(network, name, typ string, change ...func(m *dns.Msg)) *dns.Msg {
	w.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.StringToType[typ])
	m.RecursionDesired = false
	for _, c := range change {
		c(m)
	}
	cl := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: 4096}
	r, _, err := cl.Exchange(m, w.addr)
	if err != nil {
		w.t.Fatalf("%s %s: %v", name, typ, err)
	}
	return r
}

func withSubnet(p string) func(*dns.Msg) {
	return func(m *dns.Msg) {
		n := prefix(p)
		o := m.IsEdns0()
		if o == nil {
			m.SetEdns0(1232, false)
			o = m.IsEdns0()
		}
		e := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(n.Bits()), Address: n.Addr().AsSlice()}
		if n.Addr().Is6() {
			e.Family = 2
		}
		o.Option = append(o.Option, e)
	}
}

func withDO(m *dns.Msg) { m.SetEdns0(1232, true) }

// brief tells a response in a line.
func brief(m *dns.Msg) string {
	var b strings.Builder
	b.WriteString(dns.RcodeToString[m.Rcode])
	if m.Authoritative {
		b.WriteString(" aa")
	}
	if m.Truncated {
		b.WriteString(" tc")
	}
	for i, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype == dns.TypeOPT {
				continue
			}
			f := strings.Fields(rr.String())
			fmt.Fprintf(&b, " %s[%s %s %s %s]", []string{"", "ns", "ar"}[i], strings.TrimSuffix(f[0], "example.com."), f[1], f[3], strings.Join(f[4:min(len(f), 6)], " "))
		}
	}
	return b.String()
}

func TestAnswers(t *testing.T) {
	w := newWorld(t, nil)
	const soa = " ns[ 60 SOA ns1.example.com. hostmaster.example.com.]"
	for _, c := range []struct{ name, typ, want string }{
		{"mail.example.com", "A", "NOERROR aa [mail. 300 A 192.0.2.25]"},
		{"MAIL.Example.COM", "A", "NOERROR aa [MAIL.Example.COM. 300 A 192.0.2.25]"},
		{"example.com", "SOA", "NOERROR aa [ 300 SOA ns1.example.com. hostmaster.example.com.]"},
		{"example.com", "MX", "NOERROR aa [ 300 MX 10 mail.example.com.]"},
		{"mail.example.com", "MX", "NOERROR aa" + soa},
		{"nope.example.com", "A", "NXDOMAIN aa" + soa},
		{"nope.mail.example.com", "A", "NXDOMAIN aa" + soa},
		{"b.c.example.com", "A", "NOERROR aa" + soa},
		{"c.example.com", "A", "NOERROR aa" + soa},
		{"a.b.c.example.com", "TXT", `NOERROR aa [a.b.c. 300 TXT "deep"]`},
		{"x.b.c.example.com", "TXT", "NXDOMAIN aa" + soa},
		{"x.wild.example.com", "TXT", `NOERROR aa [x.wild. 300 TXT "synthesized"]`},
		{"x.y.wild.example.com", "TXT", `NOERROR aa [x.y.wild. 300 TXT "synthesized"]`},
		{"x.wild.example.com", "A", "NOERROR aa" + soa},
		{"wild.example.com", "TXT", "NOERROR aa" + soa},
		{"www.example.com", "A", "NOERROR aa [www. 300 CNAME web.example.net.]"},
		{"alias.example.com", "A", "NOERROR aa [alias. 300 CNAME mail.example.com.] [mail. 300 A 192.0.2.25]"},
		{"alias.example.com", "TXT", "NOERROR aa [alias. 300 CNAME mail.example.com.]" + soa},
		{"tovpn.example.com", "A", "NOERROR aa [tovpn. 300 CNAME vpn.example.com.]"},
		{"sub.example.com", "A", "NOERROR ns[sub. 300 NS ns.sub.example.com.] ns[sub. 300 NS ns.elsewhere.example.org.] ar[ns.sub. 300 A 192.0.2.99]"},
		{"x.y.sub.example.com", "A", "NOERROR ns[sub. 300 NS ns.sub.example.com.] ns[sub. 300 NS ns.elsewhere.example.org.] ar[ns.sub. 300 A 192.0.2.99]"},
		{"ns.sub.example.com", "A", "NOERROR ns[sub. 300 NS ns.sub.example.com.] ns[sub. 300 NS ns.elsewhere.example.org.] ar[ns.sub. 300 A 192.0.2.99]"},
		{"sub.example.com", "DS", "NOERROR aa" + soa},
		{"signed.example.com", "DS", "NOERROR aa [signed. 300 DS 12345 13]"},
		{"example.org", "A", "REFUSED"},
		{"com", "A", "REFUSED"},
		{".", "NS", "REFUSED"},
		{"vpn.example.com", "TXT", `NOERROR aa [vpn. 300 TXT "the VPN"]`},
		{"vpn.example.com", "MX", "NOERROR aa" + soa},
		{"x.vpn.example.com", "A", "NXDOMAIN aa" + soa},
		{"example.com", "AXFR", "REFUSED"},
		{"example.com", "IXFR", "REFUSED"},
	} {
		if c.typ == "AXFR" || c.typ == "IXFR" {
			continue // a client won't send these over UDP; see the conformance tests
		}
		if got := brief(w.ask(c.name, c.typ)); sortNS(got) != sortNS(c.want) {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, c.typ, got, c.want)
		}
	}
}

// sortNS undoes the turning of records.
func sortNS(s string) string {
	const a, b = "ns[sub. 300 NS ns.sub.example.com.]", "ns[sub. 300 NS ns.elsewhere.example.org.]"
	return strings.Replace(s, b+" "+a, a+" "+b, 1)
}

func TestGeoAnswers(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct{ subnet, want string }{
		{"93.1.2.0/24", "198.51.100.1 198.51.100.2 /8"},
		{"81.2.69.0/24", "198.51.100.11 /16"},
		{"216.160.83.0/24", "198.51.100.1 198.51.100.2 /27"},
		{"216.160.83.56/32", "198.51.100.21 /29"},
		{"2a02:d180:1::/48", "198.51.100.1 198.51.100.2 /29"},
		{"10.1.2.0/24", "198.51.100.1 198.51.100.2 /2"},
	} {
		m := w.ask("vpn.example.com", "A", withSubnet(c.subnet))
		var got []string
		for _, rr := range m.Answer {
			got = append(got, rr.(*dns.A).A.String())
		}
		if len(got) == 2 && got[0] > got[1] {
			got[0], got[1] = got[1], got[0]
		}
		for _, o := range m.IsEdns0().Option {
			if s, ok := o.(*dns.EDNS0_SUBNET); ok {
				got = append(got, fmt.Sprintf("/%d", s.SourceScope))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %s, want %s", c.subnet, strings.Join(got, " "), c.want)
		}
	}
}

func TestHealthChangesAnswers(t *testing.T) {
	w := newWorld(t, nil)
	if got := brief(w.ask("vpn.example.com", "AAAA", withSubnet("81.2.69.0/24"))); got != "NOERROR aa [vpn. 60 AAAA 2001:db8:c::1]" {
		t.Error(got)
	}
	w.mark("london", "ras1", geo.Down)
	w.mark("berlin", "ras1", geo.Down)
	w.update()
	if got := brief(w.ask("vpn.example.com", "AAAA", withSubnet("81.2.69.0/24"))); got != "NOERROR aa [vpn. 15 AAAA 2001:db8:b::2]" {
		t.Error(got)
	}
	if n := w.name.Answers(); n["london"] != 1 || n["berlin"] != 1 {
		t.Errorf("counted %v", n)
	}
}

func TestSigned(t *testing.T) {
	var key *geodns.Key
	w := newWorld(t, func(w *world, _ *geo.Policy) {
		var err error
		if key, err = geodns.GenerateKey("example.com"); err != nil {
			t.Fatal(err)
		}
		key.Active, key.Announce = true, true
		w.zone.Keys = &geodns.Keys{Keys: []*geodns.Key{key}}
	})
	keys := w.ask("example.com", "DNSKEY", withDO)
	pub, ok := keys.Answer[0].(*dns.DNSKEY)
	if !ok || pub.KeyTag() != key.Tag() {
		t.Fatal(keys)
	}
	for _, q := range []string{
		"example.com SOA", "example.com DNSKEY", "example.com CDS", "example.com CDNSKEY", "example.com NS", "mail.example.com A", "mail.example.com MX", "nope.example.com A", "vpn.example.com A", "vpn.example.com AAAA",
		"vpn.example.com MX", "x.wild.example.com TXT", "x.wild.example.com A", "alias.example.com A", "sub.example.com A", "signed.example.com A", "signed.example.com DS",
		"sub.example.com DS", "x.any.example.com A", "b.c.example.com A", "vpn.example.com ANY", "www.example.com A",
	} {
		name, typ, _ := strings.Cut(q, " ")
		m := w.askBy("tcp", name, typ, withDO)
		if err := verify(m, pub); err != nil {
			t.Errorf("%s: %v\n%v", q, err, m)
		}
	}
}

// verify checks each set that is authoritative.
func verify(m *dns.Msg, key *dns.DNSKEY) error {
	checked := 0
	for _, section := range [][]dns.RR{m.Answer, m.Ns} {
		sets := make(map[string][]dns.RR)
		sigs := make(map[string]*dns.RRSIG)
		for _, rr := range section {
			h := rr.Header()
			if s, ok := rr.(*dns.RRSIG); ok {
				sigs[fmt.Sprint(strings.ToLower(h.Name), s.TypeCovered)] = s
				continue
			}
			k := fmt.Sprint(strings.ToLower(h.Name), h.Rrtype)
			sets[k] = append(sets[k], rr)
		}
		for k, rrs := range sets {
			if rrs[0].Header().Rrtype == dns.TypeNS && !m.Authoritative {
				continue // a delegation isn't signed (RFC 4035 section 2.2)
			}
			s := sigs[k]
			if s == nil {
				return fmt.Errorf("%s is not signed", k)
			}
			if err := s.Verify(key, rrs); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			if !s.ValidityPeriod(time.Now()) {
				return fmt.Errorf("%s: not valid now", k)
			}
			checked++
		}
	}
	if checked == 0 {
		return fmt.Errorf("nothing is signed")
	}
	return nil
}

func ExampleParseZone() {
	z, err := geodns.ParseZone(strings.NewReader("@ 300 SOA ns hostmaster 7 3600 600 86400 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n"), "vpn.example.com", "vpn.zone")
	if err != nil {
		fmt.Println(err)
		return
	}
	var s geodns.Server
	fmt.Println(z.Origin(), z.Serial(), s.Set([]*geodns.Zone{z}, nil))
	// Output: vpn.example.com. 7 <nil>
}
