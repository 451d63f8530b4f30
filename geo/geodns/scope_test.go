package geodns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/mmdb"
)

// These tests ask about every network there is, one after the other, as resolvers
// would, and compare each answer with the scopes of those before: whoever is in a
// scope must get that scope and that answer, and no scope may reach back over
// another (RFC 7871 section 7.2.1).

var scopePolicies = map[string]geo.Policy{
	"country, first":      {Order: []geo.Criterion{geo.ByCountry}, Method: geo.First},
	"location, weighted":  {Order: geo.ByLocation(), Method: geo.Weighted},
	"distance, hash":      {Order: []geo.Criterion{geo.ByDistance}, Method: geo.Hash, HashBits4: 20, HashBits6: 44},
	"network, all":        {Order: []geo.Criterion{geo.ByNetwork, geo.ByContinent}, Method: geo.All},
	"hash without places": {Method: geo.Hash},
	"nothing":             {},
}

// scopeResponder serves sites with horizons, own networks and a database.
func scopeResponder(t testing.TB, p geo.Policy) *responder {
	t.Helper()
	db, err := mmdb.Open("../mmdb/testdata/small.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	own, err := geo.NewNetworks(
		geo.Network{Prefix: netip.MustParsePrefix("93.0.0.0/8"), Place: geo.Place{Continent: "EU", Country: "DE"}},
		geo.Network{Prefix: netip.MustParsePrefix("93.184.216.0/28"), Place: geo.Place{Continent: "NA", Country: "US"}},
		geo.Network{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Place: geo.Place{Continent: "EU", Country: "GB"}},
		geo.Network{Prefix: netip.MustParsePrefix("2a02:8000::/18"), Place: geo.Place{Continent: "EU", Country: "GB"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	p.Horizons = []geo.Horizon{
		{Name: "inside", Networks: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("fd00:1::/32")}},
	}
	a := netip.MustParseAddr
	list := []geo.Site{
		{
			Name: "berlin", Place: geo.Place{Continent: "EU", Country: "DE", Located: true, Coordinates: geo.Coordinates{Latitude: 52.5, Longitude: 13.4}},
			Gateways: []geo.Gateway{{Name: "a", Addrs: []netip.Addr{a("198.51.100.1"), a("2001:db8::1")}, Inside: map[string][]netip.Addr{"inside": {a("10.9.9.1")}}}},
		},
		{
			Name: "london", Place: geo.Place{Continent: "EU", Country: "GB", Located: true, Coordinates: geo.Coordinates{Latitude: 51.5}},
			Serves:   geo.Area{Countries: []string{"GB"}, Networks: []netip.Prefix{netip.MustParsePrefix("8.8.4.0/22"), netip.MustParsePrefix("8.8.4.4/32")}},
			Gateways: []geo.Gateway{{Name: "a", Addrs: []netip.Addr{a("198.51.100.2"), a("2001:db8::2")}, Inside: map[string][]netip.Addr{"inside": {a("10.9.9.2")}}}},
		},
		{
			Name: "seattle", Place: geo.Place{Continent: "NA", Country: "US", Located: true, Coordinates: geo.Coordinates{Latitude: 47.6, Longitude: -122.3}},
			Gateways: []geo.Gateway{{Name: "a", Addrs: []netip.Addr{a("198.51.100.3")}}},
		},
	}
	plan, err := p.Compile(list, geo.Merge(own, db), nil)
	if err != nil {
		t.Fatal(err)
	}
	var h geo.Health
	t.Cleanup(h.Close)
	if err := h.Set(list...); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if err := h.Mark(s.Name, "a", geo.Up, ""); err != nil {
			t.Fatal(err)
		}
	}
	r := newResponder(t, nil)
	for n := range r.s.table.Load().nodes {
		if g := r.s.table.Load().nodes[n].geo; g != nil {
			g.Update(plan.Select(h.View(), g.Name))
		}
	}
	return r
}

// asker asks about subnets without making a message each time.
type asker struct {
	t    testing.TB
	r    *responder
	from netip.AddrPort
	req  []byte
	buf  []byte
	at   int // of the option's family
}

func newAsker(t testing.TB, r *responder, resolver string, typ uint16, family, source int) *asker {
	req := request(t, "vpn.example.com.", typ, false)
	octets := (source + 7) / 8
	binary.BigEndian.PutUint16(req[len(req)-2:], uint16(8+octets))
	req = append(req, 0, optionSubnet, 0, byte(4+octets), 0, byte(family), byte(source), 0)
	r.now = time.Unix(1_790_000_000, 0)
	a := &asker{t: t, r: r, from: netip.AddrPortFrom(netip.MustParseAddr(resolver), 5353), at: len(req) - 4}
	a.req = append(req, make([]byte, octets)...)
	a.buf = make([]byte, 0, 4096)
	return a
}

// ask returns the answer section's data and the scope.
func (a *asker) ask(addr []byte) (answer []byte, scope int) {
	n := copy(a.req[a.at+4:], addr)
	res := a.r.respond(a.buf, a.req, a.from, false)
	if len(res) < a.at || res[3]&15 != 0 {
		a.t.Fatalf("% x is answered with % x", addr, res)
	}
	// The subnet is the last option.
	opt := len(res) - 4 - n
	if !bytes.Equal(res[opt:opt+3], a.req[a.at:a.at+3]) || !bytes.Equal(res[opt+4:], a.req[a.at+4:]) {
		a.t.Fatalf("% x came back as % x", a.req[a.at:], res[opt:])
	}
	return res[33:opt], int(res[opt+3])
}

// askAbout returns the scope of an address of IPv4, and what tells its answer.
func (a *asker) askAbout(addr uint32) (scope int, sum uint64) {
	b := be(addr)
	answer, scope := a.ask(b[:])
	return scope, records(answer)
}

// records returns what an answer says, whatever record it begins with.
func records(b []byte) (sum uint64) {
	for len(b) >= 16 && binary.BigEndian.Uint16(b) == 0xc00c {
		n := 12 + int(binary.BigEndian.Uint16(b[10:]))
		h := uint64(14695981039346656037)
		for _, o := range b[2:n] {
			h = (h ^ uint64(o)) * 1099511628211
		}
		sum += h
		b = b[n:]
	}
	return sum
}

// TestEveryScopeIsTrue asks about an address in every /16, or with AOVLB_BENCH=1 in
// every /24 that there is, and about each address near an edge.
func TestEveryScopeIsTrue(t *testing.T) {
	for name, p := range scopePolicies {
		for _, resolver := range scopeResolvers {
			t.Run(fmt.Sprintf("%s, by %s", name, resolver), func(t *testing.T) {
				step := uint64(1 << 16) // a /16
				if os.Getenv("AOVLB_BENCH") != "" && name == "location, weighted" {
					step = 1 << 8 // a /24, for half a minute
				}
				c := newAsker(t, scopeResponder(t, p), resolver, 1, 1, 32)
				var w walk
				for at := uint64(0); at < 1<<32; {
					w.visit(t, c, uint32(at))
					next := (at/step + 1) * step
					if fine[uint32(at)/256] {
						next = at + 1
					}
					at = next
				}
				if w.scopes < 1 {
					t.Error("nothing was asked")
				}
			})
		}
	}
}

var scopeResolvers = []string{"192.0.2.53", "127.0.0.1"}

// edges are where something begins or ends.
var edges = []string{
	"81.2.69.0", "81.2.70.0", "216.160.83.56", "216.160.83.64", "2.125.160.216", "93.0.0.0", "94.0.0.0", "93.184.216.0", "93.184.216.16", "10.0.0.0", "10.1.0.0", "10.2.0.0", "10.3.0.0", "11.0.0.0",
	"8.8.4.0", "8.8.4.4", "8.8.8.0", "203.0.113.0", "203.0.114.0", "1.128.0.0", "1.160.0.0", "172.16.0.0", "172.32.0.0", "192.168.0.0", "192.169.0.0", "100.64.0.0", "100.128.0.0", "127.0.0.0", "128.0.0.0",
	"169.254.0.0", "169.255.0.0", "224.0.0.0",
}

// fine are the /24 at an edge, and those before them: there every address is asked
// about.
var fine = func() map[uint32]bool {
	m := make(map[uint32]bool)
	for _, e := range edges {
		a := number(e) / 256
		m[a], m[a-1] = true, true
	}
	return m
}()

func number(addr string) uint32 {
	b := netip.MustParseAddr(addr).As4()
	return binary.BigEndian.Uint32(b[:])
}

// TestScopesTile goes from scope to scope, over all addresses there are: each begins
// where the one before ended, so none overlap and none is left out. Each is asked
// about at its ends, in its middle and somewhere within. Where hashing makes
// millions of scopes, one in each /16 is looked at, and all of those at an edge;
// with AOVLB_BENCH=1, all.
func TestScopesTile(t *testing.T) {
	const most = 1 << 15
	rnd := rand.New(rand.NewPCG(1, 2))
	for name, p := range scopePolicies {
		for _, resolver := range scopeResolvers {
			t.Run(fmt.Sprintf("%s, by %s", name, resolver), func(t *testing.T) {
				c := newAsker(t, scopeResponder(t, p), resolver, 1, 1, 32)
				tiles, left := 0, 0
				for at := uint64(0); at < 1<<32; tiles++ {
					scope, sum := c.askAbout(uint32(at))
					if at&(1<<(32-scope)-1) != 0 {
						t.Fatalf("%v, where a scope ended, is in the midst of one of /%d", netip.AddrFrom4(be(uint32(at))), scope)
					}
					size := uint64(1) << (32 - scope)
					for _, x := range []uint64{1, size / 2, size/2 - 1, size - 2, size - 1, rnd.Uint64N(size)} {
						if x >= size {
							continue // it has one or two addresses
						}
						if s, other := c.askAbout(uint32(at + x)); s != scope || other != sum {
							t.Fatalf("%v is in the scope %v/%d, and gets /%d and another answer: %v", netip.AddrFrom4(be(uint32(at+x))), netip.AddrFrom4(be(uint32(at))), scope, s, other != sum)
						}
					}
					at += size
					if tiles >= most && os.Getenv("AOVLB_BENCH") == "" && !fine[uint32(at)/256] && at&0xffff != 0 {
						at = (at>>16 + 1) << 16
						left++
					}
				}
				t.Logf("%d scopes; %d times the rest of a /16 was left out", tiles, left)
			})
		}
	}
}

// TestScopesByBruteForce asks about every single address of the /16 at the edges.
func TestScopesByBruteForce(t *testing.T) {
	blocks := make(map[uint32]bool)
	for _, e := range []string{"81.2.0.0", "216.160.0.0", "2.125.0.0", "93.184.0.0", "8.8.0.0", "203.0.0.0", "10.1.0.0", "10.2.0.0"} {
		blocks[number(e)>>16] = true
	}
	for name, p := range scopePolicies {
		t.Run(name, func(t *testing.T) {
			c := newAsker(t, scopeResponder(t, p), scopeResolvers[0], 1, 1, 32)
			for b := range blocks {
				var w walk
				for a := range uint32(1 << 16) {
					w.visit(t, c, b<<16|a)
				}
			}
			t.Logf("%d addresses", len(blocks)<<16)
		})
	}
}

// walk remembers the scope that was answered last.
type walk struct {
	begun       bool
	first, last uint32 // of the scope
	scope       int
	sum         uint64
	scopes      int
}

func (w *walk) visit(t *testing.T, c *asker, a uint32) {
	b := be(a)
	scope, sum := c.askAbout(a)
	if w.begun && a >= w.first && a <= w.last {
		if scope != w.scope || sum != w.sum {
			t.Fatalf("%v is in the scope %v/%d, and gets /%d and another answer: %v", netip.AddrFrom4(b), netip.AddrFrom4(be(w.first)), w.scope, scope, sum != w.sum)
		}
		return
	}
	first := uint32(uint64(a) &^ (1<<(32-scope) - 1))
	if w.begun && first <= w.last {
		t.Fatalf("the scope %v/%d of %v reaches back over %v/%d", netip.AddrFrom4(be(first)), scope, netip.AddrFrom4(b), netip.AddrFrom4(be(w.first)), w.scope)
	}
	*w = walk{true, first, first | uint32(1<<(32-scope)-1), scope, sum, w.scopes + 1}
}

func be(a uint32) (b [4]byte) {
	binary.BigEndian.PutUint32(b[:], a)
	return b
}

// TestEveryScopeIsTrueForIPv6 asks about addresses around each edge, and compares
// all with all.
func TestEveryScopeIsTrueForIPv6(t *testing.T) {
	var addrs []netip.Addr
	for _, s := range []string{
		"::", "::1", "::ffff:0:0", "::ffff:93.1.2.3", "::ffff:255.255.255.255", "::1:0:0:0", "100::", "2000::", "2001:480:10::", "2001:480:11::", "2001:db8::", "2a02:8000::", "2a02:c000::", "2a02:d180::", "2a02:d188::", "3fff::",
		"fc00::", "fd00:1::", "fd00:2::", "fe00::", "fe80::", "fec0::", "ff00::",
	} {
		a := netip.MustParseAddr(s)
		addrs = append(addrs, a)
		for _, bit := range []int{20, 40, 56, 60, 90, 100, 127} {
			b := a.As16()
			b[bit/8] ^= 0x80 >> (bit % 8)
			addrs = append(addrs, netip.AddrFrom16(b))
		}
		for _, x := range []netip.Addr{a.Prev(), a.Next()} {
			if x.IsValid() {
				addrs = append(addrs, x)
			}
		}
	}
	type got struct {
		addr  netip.Addr
		scope netip.Prefix
		sum   uint64
	}
	for name, p := range scopePolicies {
		for _, resolver := range []string{"192.0.2.53", "127.0.0.1", "2001:db8::53", "fd00:1::53"} {
			t.Run(fmt.Sprintf("%s, by %s", name, resolver), func(t *testing.T) {
				r := scopeResponder(t, p)
				c := newAsker(t, r, resolver, typeAAAA, 2, 128)
				var list []got
				for _, a := range addrs {
					answer, scope := c.ask(a.AsSlice())
					s, err := netip.AddrFrom16(a.As16()).Prefix(scope)
					if err != nil {
						t.Fatal(err)
					}
					list = append(list, got{a, s, records(answer)})
				}
				for _, x := range list {
					for _, y := range list {
						if x.scope.Contains(y.addr) && (x.scope != y.scope || x.sum != y.sum) {
							t.Fatalf("%v is in the scope %v of %v, and gets %v, another answer: %v", y.addr, x.scope, x.addr, y.scope, x.sum != y.sum)
						}
					}
				}
			})
		}
	}
}

// TestScopesTileForIPv6 goes from scope to scope over all addresses of IPv6, where
// hashing doesn't make too many.
func TestScopesTileForIPv6(t *testing.T) {
	for name, p := range scopePolicies {
		if p.Method == geo.Hash {
			continue
		}
		for _, resolver := range []string{"192.0.2.53", "2001:db8::53"} {
			t.Run(fmt.Sprintf("%s, by %s", name, resolver), func(t *testing.T) {
				c := newAsker(t, scopeResponder(t, p), resolver, typeAAAA, 2, 128)
				tiles := 0
				for at := netip.IPv6Unspecified(); at.IsValid(); tiles++ {
					answer, bits := c.ask(at.AsSlice())
					sum := records(answer)
					scope := netip.PrefixFrom(at, bits)
					if scope != scope.Masked() || tiles > 1<<20 {
						t.Fatalf("%v, where a scope ended, is in the midst of one of /%d; %d so far", at, bits, tiles)
					}
					last := lastOf(scope)
					for _, x := range []netip.Addr{at.Next(), last.Prev(), last} {
						if !scope.Contains(x) {
							continue
						}
						if answer, b := c.ask(x.AsSlice()); b != bits || records(answer) != sum {
							t.Fatalf("%v is in the scope %v, and gets /%d and another answer: %v", x, scope, b, records(answer) != sum)
						}
					}
					at = last.Next()
				}
				t.Logf("%d scopes", tiles)
			})
		}
	}
}

// lastOf returns the last address of a prefix of IPv6.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Addr().As16()
	for i := p.Bits(); i < 128; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom16(a)
}
