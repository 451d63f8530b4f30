package geodns

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/miekg/dns"
)

// newResponder serves a zone with a name of two sites.
func newResponder(t testing.TB, keys *Keys) *responder {
	t.Helper()
	z, err := ParseZone(strings.NewReader("@ 300 SOA ns h 1 2 3 4 60\n@ 300 NS ns\nns 300 A 192.0.2.1\n"), "example.com", "test")
	if err != nil {
		t.Fatal(err)
	}
	z.Keys = keys
	var list []geo.Site
	for i, c := range []string{"DE", "US"} {
		list = append(list, geo.Site{Name: c, Place: geo.Place{Country: c}, Gateways: []geo.Gateway{
			{Name: "a", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})}},
			{Name: "b", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, byte(i + 10)})}},
		}})
	}
	where, err := geo.NewNetworks(geo.Network{Prefix: netip.MustParsePrefix("93.0.0.0/8"), Place: geo.Place{Country: "DE"}})
	if err != nil {
		t.Fatal(err)
	}
	plan, err := (&geo.Policy{Order: []geo.Criterion{geo.ByCountry}}).Compile(list, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	var h geo.Health
	t.Cleanup(h.Close)
	if err := h.Set(list...); err != nil {
		t.Fatal(err)
	}
	n := &Name{Name: "vpn.example.com"}
	s := &Server{CookieSecret: CookieSecret{1}, NSID: "bench", RateLimit: RateLimit{PerSecond: 1 << 30}}
	if err := s.Set([]*Zone{z}, []*Name{n}); err != nil {
		t.Fatal(err)
	}
	n.Update(plan.Select(h.View(), n.Name))
	s.init()
	return &responder{s: s, now: time.Now()}
}

// request packs a query.
func request(t testing.TB, name string, typ uint16, do bool, opts ...dns.EDNS0) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, typ)
	m.SetEdns0(1232, do)
	o := m.IsEdns0()
	o.Option = append(o.Option, opts...)
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var client = netip.MustParseAddrPort("192.0.2.99:5353")

func queries(t testing.TB) map[string][]byte {
	subnet := &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: 24, Address: []byte{93, 1, 2, 0}}
	return map[string][]byte{
		"geo":       request(t, "vpn.example.com.", dns.TypeA, false, subnet),
		"geo, more": request(t, "vpn.example.com.", dns.TypeA, false, subnet, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}, &dns.EDNS0_NSID{Code: dns.EDNS0NSID}),
		"static":    request(t, "ns.example.com.", dns.TypeA, false),
		"nxdomain":  request(t, "nope.example.com.", dns.TypeA, false),
	}
}

func TestAnswersAllocateNothing(t *testing.T) {
	r := newResponder(t, nil)
	buf := make([]byte, 0, 4096)
	for name, q := range queries(t) {
		if n := testing.AllocsPerRun(1000, func() { r.respond(buf, q, client, false) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	key, err := GenerateKey("example.com")
	if err != nil {
		t.Fatal(err)
	}
	key.Active = true
	r = newResponder(t, &Keys{Keys: []*Key{key}})
	for _, name := range []string{"vpn.example.com.", "ns.example.com."} {
		q := request(t, name, dns.TypeA, true)
		if n := testing.AllocsPerRun(1000, func() { r.respond(buf, q, client, false) }); n != 0 {
			t.Errorf("%s, signed: %v allocations", name, n)
		}
	}
}

func BenchmarkRespond(b *testing.B) {
	r := newResponder(b, nil)
	buf := make([]byte, 0, 4096)
	for name, q := range queries(b) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.respond(buf, q, client, false)
			}
		})
	}
	key, err := GenerateKey("example.com")
	if err != nil {
		b.Fatal(err)
	}
	key.Active = true
	r = newResponder(b, &Keys{Keys: []*Key{key}})
	for name, q := range map[string][]byte{
		"signed geo":      request(b, "vpn.example.com.", dns.TypeA, true),
		"signed static":   request(b, "ns.example.com.", dns.TypeA, true),
		"signed nxdomain": request(b, "nope.example.com.", dns.TypeA, true),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.respond(buf, q, client, false)
			}
		})
	}
}
