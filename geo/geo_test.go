package geo_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/google/go-cmp/cmp"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func gateways(addrs ...string) (list []geo.Gateway) {
	for i, a := range addrs {
		list = append(list, geo.Gateway{Name: fmt.Sprintf("ras%d", i+1), Addrs: []netip.Addr{addr(a)}})
	}
	return list
}

func at(lat, lon float64) geo.Place {
	return geo.Place{Coordinates: geo.Coordinates{Latitude: lat, Longitude: lon}, Located: true}
}

func place(continent, country string, lat, lon float64) geo.Place {
	p := at(lat, lon)
	p.Continent, p.Country = continent, country
	return p
}

// world are four sites, with clients of networks that the locator below knows.
func world() []geo.Site {
	return []geo.Site{
		{Name: "berlin", Place: place("EU", "DE", 52.5, 13.4), Gateways: gateways("198.51.100.1", "198.51.100.2")},
		{Name: "london", Place: place("EU", "GB", 51.5, -0.1), Gateways: gateways("198.51.100.11")},
		{Name: "seattle", Place: place("NA", "US", 47.6, -122.3), Gateways: gateways("198.51.100.21")},
		{Name: "tokyo", Place: place("AS", "JP", 35.7, 139.7), Gateways: gateways("198.51.100.31"), Priority: 1},
	}
}

func locator(t testing.TB) geo.Locator {
	n, err := geo.NewNetworks(
		geo.Network{Prefix: prefix("81.2.0.0/16"), Place: place("EU", "GB", 51.5, -0.1)},
		geo.Network{Prefix: prefix("81.2.69.0/24"), Place: place("EU", "FR", 48.9, 2.3)},
		geo.Network{Prefix: prefix("93.0.0.0/8"), Place: place("EU", "DE", 50.1, 8.7)},
		geo.Network{Prefix: prefix("216.160.83.56/29"), Place: place("NA", "US", 47.3, -122.3)},
		geo.Network{Prefix: prefix("2001:db8:1::/48"), Place: place("AS", "JP", 35.7, 139.7)},
		geo.Network{Prefix: prefix("175.16.0.0/16"), Place: geo.Place{Continent: "AS", Country: "CN"}},
	)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func compile(t testing.TB, p geo.Policy, sites []geo.Site) *geo.Plan {
	t.Helper()
	pl, err := p.Compile(sites, locator(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return pl
}

func health(t testing.TB, sites []geo.Site, down ...string) *geo.Health {
	t.Helper()
	h := new(geo.Health)
	if err := h.Set(sites...); err != nil {
		t.Fatal(err)
	}
	for _, s := range sites {
		for _, g := range s.Gateways {
			mark(t, h, s.Name, g.Name, geo.Up)
		}
	}
	for _, d := range down {
		site, gw, one := strings.Cut(d, "/")
		for _, s := range sites {
			for _, g := range s.Gateways {
				if s.Name == site && (!one || g.Name == gw) {
					mark(t, h, s.Name, g.Name, geo.Down)
				}
			}
		}
	}
	t.Cleanup(h.Close)
	return h
}

func mark(t testing.TB, h *geo.Health, site, gw string, s geo.State) {
	t.Helper()
	if err := h.Mark(site, gw, s, "no answer"); err != nil {
		t.Fatal(err)
	}
}

// tiers names the sites of a client's ranking.
func tiers(pl *geo.Plan, client string) string {
	class, _ := pl.Class(addr(client))
	var out []string
	for _, t := range pl.Rankings()[class].Tiers {
		var names []string
		for _, i := range t {
			names = append(names, pl.Sites()[i].Name)
		}
		out = append(out, strings.Join(names, "+"))
	}
	return strings.Join(out, " ")
}

func TestRankings(t *testing.T) {
	for _, c := range []struct {
		name   string
		order  []geo.Criterion
		client string
		want   string
	}{
		{"no order", nil, "81.2.1.1", "berlin+london+seattle+tokyo"},
		{"priority", []geo.Criterion{geo.ByPriority}, "81.2.1.1", "berlin+london+seattle tokyo"},
		{"distance from London", []geo.Criterion{geo.ByDistance}, "81.2.1.1", "london berlin seattle tokyo"},
		{"distance from Frankfurt", []geo.Criterion{geo.ByDistance}, "93.1.2.3", "berlin london seattle tokyo"},
		{"distance from Seattle", []geo.Criterion{geo.ByDistance}, "216.160.83.57", "seattle tokyo london berlin"},
		{"distance from Tokyo, IPv6", []geo.Criterion{geo.ByDistance}, "2001:db8:1::1", "tokyo seattle berlin london"},
		{"distance from nowhere", []geo.Criterion{geo.ByDistance}, "8.8.8.8", "berlin+london+seattle+tokyo"},
		{"country", []geo.Criterion{geo.ByCountry, geo.ByContinent}, "93.1.2.3", "berlin london seattle+tokyo"},
		{"continent only", []geo.Criterion{geo.ByCountry, geo.ByContinent}, "81.2.69.1", "berlin+london seattle+tokyo"},
		{"continent, then distance", []geo.Criterion{geo.ByContinent, geo.ByDistance}, "81.2.69.1", "london berlin seattle tokyo"},
		{"country without coordinates", []geo.Criterion{geo.ByContinent, geo.ByDistance}, "175.16.1.1", "tokyo berlin+london+seattle"},
		{"location, then priority", append(geo.ByLocation(), geo.ByPriority), "8.8.8.8", "berlin+london+seattle tokyo"},
		{"mapped IPv4", []geo.Criterion{geo.ByCountry}, "::ffff:93.1.2.3", "berlin london+seattle+tokyo"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := tiers(compile(t, geo.Policy{Order: c.order}, world()), c.client); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestNearestBoundsTiers(t *testing.T) {
	pl := compile(t, geo.Policy{Order: []geo.Criterion{geo.ByDistance}, Nearest: 1}, world())
	if got, want := tiers(pl, "81.2.1.1"), "london berlin+seattle+tokyo"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestRegionsAreNearTogether(t *testing.T) {
	sites := world()
	sites[0].Region, sites[1].Region = "europe", "europe"
	pl := compile(t, geo.Policy{Order: []geo.Criterion{geo.ByDistance}}, sites)
	if got, want := tiers(pl, "93.1.2.3"), "berlin+london seattle tokyo"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAreas(t *testing.T) {
	sites := world()
	sites[0].Serves = geo.Area{Networks: []netip.Prefix{prefix("10.0.0.0/8")}, Countries: []string{"DE", "FR"}}
	sites[1].Serves = geo.Area{Networks: []netip.Prefix{prefix("10.1.0.0/16")}}
	sites[3].Serves = geo.Area{Countries: []string{"JP"}}
	sites[3].Only = true
	pl := compile(t, geo.Policy{Order: geo.ByLocation()}, sites)
	for client, want := range map[string]string{
		"10.1.2.3":      "london berlin seattle",
		"10.2.2.3":      "berlin london+seattle",
		"81.2.69.1":     "berlin london seattle",
		"2001:db8:1::1": "tokyo berlin+london+seattle",
		"8.8.8.8":       "berlin+london+seattle",
	} {
		if got := tiers(pl, client); got != want {
			t.Errorf("%s: got %s, want %s", client, got, want)
		}
	}
}

func TestHorizons(t *testing.T) {
	sites := world()
	sites[0].Gateways[0].Inside = map[string][]netip.Addr{"office": {addr("10.0.0.1")}}
	pl := compile(t, geo.Policy{Horizons: []geo.Horizon{{Name: "office", Networks: []netip.Prefix{prefix("10.0.0.0/8")}}}}, sites)
	s := pl.Select(health(t, sites).View(), "vpn")
	e := s.Explain(geo.Client{Addr: addr("10.9.9.9")}, time.Now())
	if got, want := fmt.Sprint(e.Horizon, e.Site, e.Addresses), "officeberlin[10.0.0.1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if e := s.Explain(geo.Client{Addr: addr("11.9.9.9")}, time.Now()); e.Horizon != "" {
		t.Errorf("%v is of horizon %q", e.Client, e.Horizon)
	}
}

// TestScopeIsTrue asks for every address near the edges of every block, and for
// many at random: all inside the scope of an answer must get the same.
func TestScopeIsTrue(t *testing.T) {
	sites := world()
	sites[1].Serves.Networks = []netip.Prefix{prefix("93.4.0.0/14"), prefix("93.5.6.0/24"), prefix("2001:db8::/33")}
	for _, m := range []geo.Method{geo.RoundRobin, geo.Weighted, geo.Hash, geo.All, geo.First, geo.LeastLoad} {
		for _, down := range [][]string{nil, {"london"}, {"london", "berlin"}, {"berlin", "london", "seattle", "tokyo"}} {
			p := geo.Policy{Order: []geo.Criterion{geo.ByNetwork, geo.ByCountry, geo.ByDistance}, Method: m}
			s := compile(t, p, sites).Select(health(t, sites, down...).View(), "vpn.example.com")
			now := time.Now()
			pick := func(a netip.Addr) (string, netip.Prefix) {
				p := s.Pick(geo.Client{Addr: a, Resolver: addr("192.0.2.53")}, now)
				scope, _ := a.Prefix(p.Scope)
				return fmt.Sprint(p.Site, p.Choice.Sites), scope
			}
			for range 5000 {
				a := somewhere()
				got, scope := pick(a)
				for range 8 {
					b := inside(scope)
					if other, also := pick(b); other != got || also != scope {
						t.Fatalf("%v, down %v: %v gets %s with scope %v, but %v gets %s with %v", m, down, a, got, scope, b, other, also)
					}
				}
			}
		}
	}
}

// somewhere returns an address, mostly close to something interesting.
func somewhere() netip.Addr {
	near := []string{"81.2.0.0", "81.2.69.0", "81.2.70.0", "93.0.0.0", "93.4.0.0", "93.5.6.0", "93.5.7.0", "216.160.83.56", "216.160.83.64", "2001:db8::", "2001:db8:1::", "2001:db8:2::", "0.0.0.0", "255.255.255.255", "::", "ffff::"}
	a := addr(near[rand.IntN(len(near))])
	b := a.AsSlice()
	for range rand.IntN(3) {
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	}
	a, _ = netip.AddrFromSlice(b)
	if rand.IntN(2) == 0 && a.Prev().IsValid() {
		a = a.Prev()
	}
	if a.Is4In6() { // these are addresses of IPv4, and no part of IPv6's blocks
		return addr("::")
	}
	return a
}

// inside returns an address of a prefix, often one at its ends.
func inside(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	fill := rand.IntN(3)
	for i := p.Bits(); i < len(b)*8; i++ {
		if fill == 1 || fill == 2 && rand.IntN(2) == 0 {
			b[i/8] |= 1 << (7 - i%8)
		}
	}
	a, _ := netip.AddrFromSlice(b)
	if a.Is4In6() {
		return p.Addr()
	}
	return a
}

func TestPrefixesAreShort(t *testing.T) {
	pl := compile(t, geo.Policy{}, world())
	if v4, v6 := pl.Prefixes(); v4 != 1 || v6 != 1 {
		t.Errorf("a policy that asks nothing of the client needs one prefix a family, got %d and %d", v4, v6)
	}
	if _, bits := pl.Class(addr("81.2.69.1")); bits != 0 {
		t.Errorf("scope /%d, want /0", bits)
	}
}

func TestChoices(t *testing.T) {
	order := []geo.Criterion{geo.ByContinent, geo.ByPriority}
	for _, c := range []struct {
		name   string
		policy geo.Policy
		down   []string
		admin  func(*geo.Health) error
		want   string
	}{
		{name: "all up", want: "serving [0 1]"},
		{name: "one down", down: []string{"berlin"}, want: "serving [1]"},
		{name: "one gateway of two down", down: []string{"berlin/ras1"}, want: "serving [0 1]"},
		{name: "a tier down", down: []string{"berlin", "london"}, want: "serving [2]"},
		{name: "all down is as if all were up", down: []string{"berlin", "london", "seattle", "tokyo"}, want: "all-down [0 1]"},
		{name: "all down, no data", policy: geo.Policy{AllDown: geo.NoData}, down: []string{"berlin", "london", "seattle", "tokyo"}, want: "all-down []"},
		{name: "drained", admin: func(h *geo.Health) error { return h.Drain("berlin", time.Time{}) }, want: "serving [1]"},
		{name: "drained, all others down", down: []string{"london", "seattle", "tokyo"}, admin: func(h *geo.Health) error { return h.Drain("berlin", time.Time{}) }, want: "all-down [1]"},
		{name: "forced down, all others down", down: []string{"london", "seattle", "tokyo"}, admin: func(h *geo.Health) error { return h.Force("berlin", geo.Down, time.Time{}) }, want: "all-down [1]"},
		{name: "forced up", down: []string{"berlin", "london"}, admin: func(h *geo.Health) error { return h.Force("london", geo.Up, time.Time{}) }, want: "serving [1]"},
		{name: "several", policy: geo.Policy{Method: geo.All, Answers: 3}, want: "serving [0 1 2]"},
		{name: "several, fewer than in the tier", policy: geo.Policy{Method: geo.All, Answers: 1}, want: "serving [0]"},
		{
			name: "several, all down, is as if all were up", policy: geo.Policy{Method: geo.All, Answers: 3},
			down: []string{"berlin", "london", "seattle", "tokyo"}, want: "all-down [0 1 2]",
		},
		{
			name: "several, all down, fewer than in the tier", policy: geo.Policy{Method: geo.All, Answers: 1},
			down: []string{"berlin", "london", "seattle", "tokyo"}, want: "all-down [0]",
		},
		{name: "all drained", admin: drainAll, want: "no-site []"},
		{name: "all drained, with a last resort", policy: geo.Policy{AllDown: geo.LastResort, LastResort: []netip.Addr{addr("192.0.2.9")}}, admin: drainAll, want: "all-down []"},
		{name: "first", policy: geo.Policy{Method: geo.First}, want: "serving [0]"},
		{name: "least load", policy: geo.Policy{Method: geo.LeastLoad}, admin: func(h *geo.Health) error {
			return firstError(h.Report("berlin", 10), h.Report("london", 9))
		}, want: "serving [1]"},
		{name: "least load, one unknown", policy: geo.Policy{Method: geo.LeastLoad}, admin: func(h *geo.Health) error { return h.Report("berlin", 10) }, want: "serving [0 1]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.policy.Order = order
			h := health(t, world(), c.down...)
			if c.admin != nil {
				if err := c.admin(h); err != nil {
					t.Fatal(err)
				}
			}
			pl := compile(t, c.policy, world())
			class, _ := pl.Class(addr("81.2.1.1"))
			ch := pl.Select(h.View(), "vpn").Choice(class)
			if got := fmt.Sprint(ch.Why, " ", ch.Sites); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func drainAll(h *geo.Health) error {
	var errs []error
	for _, s := range world() {
		errs = append(errs, h.Drain(s.Name, time.Time{}))
	}
	return firstError(errs...)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestUnknownIsNotDown(t *testing.T) {
	sites := world()
	h := new(geo.Health)
	if err := h.Set(sites...); err != nil {
		t.Fatal(err)
	}
	if h.View().Known() {
		t.Error("nothing was asked, and yet all is known")
	}
	pl := compile(t, geo.Policy{Order: []geo.Criterion{geo.ByPriority}}, sites)
	class, _ := pl.Class(addr("81.2.1.1"))
	mark(t, h, "berlin", "ras1", geo.Down)
	mark(t, h, "berlin", "ras2", geo.Down)
	mark(t, h, "london", "ras1", geo.Down)
	if ch := pl.Select(h.View(), "vpn").Choice(class); ch.Why != geo.Guessing || !cmp.Equal(ch.Sites, []int{2}) {
		t.Errorf("got %v %v, want a guess at seattle", ch.Why, ch.Sites)
	}
	mark(t, h, "tokyo", "ras1", geo.Up)
	if ch := pl.Select(h.View(), "vpn").Choice(class); ch.Why != geo.Serving || !cmp.Equal(ch.Sites, []int{3}) {
		t.Errorf("got %v %v, want tokyo, which is known to be up", ch.Why, ch.Sites)
	}
	mark(t, h, "seattle", "ras1", geo.Up)
	if !h.View().Known() {
		t.Error("everything was asked, and yet not all is known")
	}
}

// share counts how often each site is picked.
func share(s *geo.Selector, n int, f func(i int) (geo.Client, time.Time)) map[string]int {
	got := make(map[string]int)
	for i := range n {
		p := s.Pick(f(i))
		got[s.Plan.Sites()[p.Site].Name]++
	}
	return got
}

func client(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
}

func TestSharesFollowWeights(t *testing.T) {
	sites := world()
	w := []int{1, 2, 3, 0}
	for i := range sites {
		sites[i].Weight = &w[i]
	}
	h := health(t, sites)
	now := time.Now()
	const n = 60000
	for _, c := range []struct {
		method geo.Method
		who    func(i int) (geo.Client, time.Time)
		want   map[string]int
	}{
		{geo.Weighted, func(i int) (geo.Client, time.Time) { return geo.Client{Resolver: client(i << 8)}, now }, map[string]int{"berlin": n / 6, "london": n / 3, "seattle": n / 2}},
		{geo.Weighted, func(i int) (geo.Client, time.Time) {
			return geo.Client{Resolver: client(1)}, now.Add(time.Duration(i) * 30 * time.Second)
		}, map[string]int{"berlin": n / 6, "london": n / 3, "seattle": n / 2}},
		{geo.Hash, func(i int) (geo.Client, time.Time) { return geo.Client{Addr: client(i << 8)}, now }, map[string]int{"berlin": n / 6, "london": n / 3, "seattle": n / 2}},
		{geo.RoundRobin, func(i int) (geo.Client, time.Time) { return geo.Client{Resolver: client(i)}, now }, map[string]int{"berlin": n / 4, "london": n / 4, "seattle": n / 4, "tokyo": n / 4}},
	} {
		s := compile(t, geo.Policy{Method: c.method}, sites).Select(h.View(), "vpn")
		got := share(s, n, func(i int) (geo.Client, time.Time) {
			w, now := c.who(i)
			if !w.Addr.IsValid() {
				w.Addr = addr("8.8.8.8")
			}
			return w, now
		})
		for name, want := range c.want {
			if d := got[name] - want; d < -want/20 || d > want/20 {
				t.Errorf("%v: got %v, want %v", c.method, got, c.want)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%v: got %v, want %v", c.method, got, c.want)
		}
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	s := compile(t, geo.Policy{Slot: 10 * time.Second}, world()).Select(health(t, world()).View(), "vpn")
	now := time.Now()
	var last int
	for i := range 20 {
		p := s.Pick(geo.Client{Addr: addr("8.8.8.8"), Resolver: addr("8.8.8.8")}, now.Add(time.Duration(i)*10*time.Second))
		if i > 0 && p.Site != (last+1)%4 {
			t.Fatalf("site %d follows %d", p.Site, last)
		}
		last = p.Site
	}
}

func TestLostSiteMovesOnlyItsClients(t *testing.T) {
	sites := world()
	pl := compile(t, geo.Policy{Method: geo.Hash}, sites)
	all := pl.Select(health(t, sites).View(), "vpn")
	less := pl.Select(health(t, sites, "london").View(), "vpn")
	var moved int
	for i := range 20000 {
		c := geo.Client{Addr: client(i << 8)}
		a, b := all.Pick(c, time.Time{}), less.Pick(c, time.Time{})
		if sites[a.Site].Name == "london" {
			moved++
		} else if a.Site != b.Site {
			t.Fatalf("%v moved from %s to %s, though only london is down", c.Addr, sites[a.Site].Name, sites[b.Site].Name)
		}
	}
	if moved < 4000 || moved > 6000 {
		t.Errorf("london had %d of 20000 clients", moved)
	}
}

func TestGatewaysOfAnswer(t *testing.T) {
	for _, c := range []struct {
		name      string
		unanimous bool
		down      []string
		want      string
	}{
		{"all", false, nil, "[[198.51.100.1] [198.51.100.2]]"},
		{"one down", false, []string{"berlin/ras1"}, "[[198.51.100.2]]"},
		{"one down, unanimous", true, []string{"berlin/ras1"}, "[[198.51.100.1] [198.51.100.2]]"},
		{"both down", false, []string{"berlin"}, "[[198.51.100.1] [198.51.100.2]]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sites := world()
			sites[0].Unanimous = c.unanimous
			s := compile(t, geo.Policy{}, sites).Select(health(t, sites, c.down...).View(), "vpn")
			if got := fmt.Sprint(s.Gateways(0, 0)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestFaults(t *testing.T) {
	minus := -1
	for want, change := range map[string]func(s []geo.Site){
		`site "": needs a name`:                                func(s []geo.Site) { s[0].Name = "" },
		`site "berlin": is there 2 times`:                      func(s []geo.Site) { s[1].Name = "berlin" },
		`site "berlin": weight -1`:                             func(s []geo.Site) { s[0].Weight = &minus },
		`site "berlin": has no gateways`:                       func(s []geo.Site) { s[0].Gateways = nil },
		`site "berlin": latitude 91`:                           func(s []geo.Site) { s[0].Place.Latitude = 91 },
		`site "berlin": is only for what it serves`:            func(s []geo.Site) { s[0].Only = true },
		`site "berlin": needs 3 gateways up, but has 2`:        func(s []geo.Site) { s[0].Need = 3 },
		`site "berlin": gateway "ras1" is there twice`:         func(s []geo.Site) { s[0].Gateways[1].Name = "ras1" },
		`site "berlin": requires site "rome"`:                  func(s []geo.Site) { s[0].Requires = []string{"rome"} },
		`gateway "ras1": 0.0.0.0 is no address to answer with`: func(s []geo.Site) { s[0].Gateways[0].Addrs[0] = addr("0.0.0.0") },
		`in a ring: berlin, london`: func(s []geo.Site) {
			s[0].Requires, s[1].Requires = []string{"london"}, []string{"berlin"}
		},
		`network 10.0.0.1/8 has bits behind its length; is 10.0.0.0/8 meant?`: func(s []geo.Site) {
			s[0].Serves.Networks = []netip.Prefix{netip.PrefixFrom(addr("10.0.0.1"), 8)}
		},
	} {
		sites := world()
		change(sites)
		_, err := new(geo.Policy).Compile(sites, nil, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for want, p := range map[string]geo.Policy{
		"order has country twice": {Order: []geo.Criterion{geo.ByCountry, geo.ByCountry}},
		"last-resort need":        {AllDown: geo.LastResort},
		"criterion 99 is unknown": {Order: []geo.Criterion{99}},
		`horizon "x" has no net`:  {Horizons: []geo.Horizon{{Name: "x"}}},
	} {
		if _, err := p.Compile(world(), nil, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestExplanation(t *testing.T) {
	sites := world()
	h := health(t, sites, "london")
	s := compile(t, geo.Policy{Order: []geo.Criterion{geo.ByCountry, geo.ByDistance}}, sites).Select(h.View(), "vpn")
	got := s.Explain(geo.Client{Addr: addr("81.2.1.2")}, time.Now()).String()
	want := `client 81.2.1.2 is EU, GB, at 51.50, -0.10
all of 81.2.0.0/16 are ranked alike:
  tier 1  london       down     for country GB, 0 km away (0 of 1 gateways up, needs 1 (ras1: no answer))
* tier 2  berlin       up       929 km away
  tier 3  seattle      up       7701 km away
  tier 4  tokyo        up       9558 km away
tier 2 is the first with a site that is up
site berlin by round-robin: [198.51.100.1 198.51.100.2], the same for all of 81.2.0.0/16
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, m := range []geo.Method{geo.RoundRobin, geo.Weighted, geo.Hash, geo.All} {
		s := compile(t, geo.Policy{Order: []geo.Criterion{geo.ByDistance}, Method: m}, world()).Select(health(t, world()).View(), "vpn")
		now := time.Now()
		c := geo.Client{Addr: addr("8.8.8.8"), Resolver: addr("2001:db8::1")}
		if n := testing.AllocsPerRun(1000, func() { s.Pick(c, now) }); n != 0 {
			t.Errorf("%v: %v allocations", m, n)
		}
	}
}

func TestDistance(t *testing.T) {
	paris, sydney := geo.Coordinates{Latitude: 48.8566, Longitude: 2.3522}, geo.Coordinates{Latitude: -33.8688, Longitude: 151.2093}
	if d := geo.Distance(paris, sydney); d < 16900 || d > 17000 {
		t.Errorf("Paris to Sydney is %f km", d)
	}
	if d := geo.Distance(geo.Coordinates{Latitude: 10, Longitude: 180}, geo.Coordinates{Latitude: 10, Longitude: -180}); d > 0.001 {
		t.Errorf("the date line is %f km wide", d)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, m := range []geo.Method{geo.RoundRobin, geo.Weighted, geo.Hash, geo.All} {
		b.Run(m.String(), func(b *testing.B) {
			s := compile(b, geo.Policy{Order: []geo.Criterion{geo.ByDistance}, Method: m}, world()).Select(health(b, world()).View(), "vpn")
			now := time.Now()
			c := geo.Client{Addr: addr("8.8.8.8"), Resolver: addr("2001:db8::1")}
			b.ReportAllocs()
			for b.Loop() {
				s.Pick(c, now)
			}
		})
	}
}

func ExamplePolicy() {
	sites := []geo.Site{
		{Name: "berlin", Place: geo.Place{Country: "DE"}, Gateways: gateways("198.51.100.1")},
		{Name: "tokyo", Place: geo.Place{Country: "JP"}, Gateways: gateways("198.51.100.31")},
	}
	where, _ := geo.NewNetworks(geo.Network{Prefix: prefix("93.0.0.0/8"), Place: geo.Place{Country: "DE"}})
	plan, err := (&geo.Policy{Order: []geo.Criterion{geo.ByCountry}}).Compile(sites, where, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	var h geo.Health
	_ = h.Set(sites...)
	_ = h.Mark("berlin", "ras1", geo.Down, "no answer to IKE_SA_INIT")
	_ = h.Mark("tokyo", "ras1", geo.Up, "")
	fmt.Print(plan.Select(h.View(), "vpn.example.com").Explain(geo.Client{Addr: addr("93.184.216.34")}, time.Now()))
	// Output:
	// client 93.184.216.34 is DE
	// all of 93.0.0.0/8 are ranked alike:
	//   tier 1  berlin       down     for country DE (0 of 1 gateways up, needs 1 (ras1: no answer to IKE_SA_INIT))
	// * tier 2  tokyo        up
	// tier 2 is the first with a site that is up
	// site tokyo by round-robin: [198.51.100.31], the same for all of 93.0.0.0/8
}

// --- time --------------------------------------------------------------------

func TestFailbacks(t *testing.T) {
	for _, c := range []struct {
		name     string
		health   *geo.Health
		release  bool
		wantBack time.Duration // less than 0: never
	}{
		{name: "automatic", health: &geo.Health{}, wantBack: 0},
		{name: "hold-down", health: &geo.Health{HoldDown: 3 * time.Minute}, wantBack: 2 * time.Minute},
		{name: "delayed", health: &geo.Health{Failback: geo.FailbackDelayed, FailbackDelay: 10 * time.Minute}, wantBack: 10 * time.Minute},
		{name: "manual", health: &geo.Health{Failback: geo.FailbackManual}, wantBack: -1},
		{name: "manual, released", health: &geo.Health{Failback: geo.FailbackManual}, release: true, wantBack: 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := c.health
				if err := h.Set(world()...); err != nil {
					t.Fatal(err)
				}
				defer h.Close()
				state := func() geo.State { return h.View().Site("london").State }
				mark(t, h, "london", "ras1", geo.Up)
				if state() != geo.Up {
					t.Fatal("a site that was never down must wait for nothing")
				}
				mark(t, h, "london", "ras1", geo.Down)
				<-time.After(time.Minute)
				mark(t, h, "london", "ras1", geo.Up)
				if c.release {
					if err := h.FailbackNow("london"); err != nil {
						t.Fatal(err)
					}
				}
				if c.wantBack != 0 {
					if st := h.View().Site("london"); st.State != geo.Down || !st.Held || st.Cause == "" {
						t.Fatalf("it is %v already, held %v, cause %q", st.State, st.Held, st.Cause)
					}
					<-time.After(max(c.wantBack, time.Hour) - time.Second)
				}
				if c.wantBack < 0 {
					if state() != geo.Down {
						t.Error("it has returned by itself")
					}
					return
				}
				<-time.After(2 * time.Second)
				if state() != geo.Up {
					t.Errorf("it has not returned: %q", h.View().Site("london").Cause)
				}
			})
		})
	}
}

func TestDelayStartsAgainWhenItFlaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &geo.Health{Failback: geo.FailbackDelayed, FailbackDelay: time.Minute}
		if err := h.Set(world()...); err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		var changes atomic.Int32
		h.Configure(func(h *geo.Health) {
			h.OnChange = func(old, now *geo.View) {
				if o := old.Site("london"); o != nil && o.State != now.Site("london").State {
					changes.Add(1)
				}
			}
		})
		mark(t, h, "london", "ras1", geo.Up)
		for range 100 { // down and up each 10 s
			mark(t, h, "london", "ras1", geo.Down)
			<-time.After(5 * time.Second)
			mark(t, h, "london", "ras1", geo.Up)
			<-time.After(5 * time.Second)
		}
		synctest.Wait()
		if n := changes.Load(); n != 2 { // up, and once down
			t.Errorf("%d changes", n)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if n := changes.Load(); n != 3 || h.View().Site("london").State != geo.Up {
			t.Errorf("%d changes; it is %v", n, h.View().Site("london").State)
		}
	})
}

func TestWishesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := health(t, world())
		defer h.Close()
		if err := h.Drain("london", time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour - time.Second)
		if st := h.View().Site("london"); st.Admin != geo.AdminDrain {
			t.Error("the drain is over too early")
		}
		<-time.After(2 * time.Second)
		if st := h.View().Site("london"); st.Admin != geo.AdminNone || st.Cause != "" {
			t.Errorf("the drain is not over: %v %q", st.Admin, st.Cause)
		}
		if err := h.Drain("london", time.Now().Add(-time.Second)); err == nil {
			t.Error("a drain that is over already was taken")
		}
		if err := h.Drain("rome", time.Time{}); err == nil || !strings.Contains(err.Error(), "berlin, london") {
			t.Errorf("an unknown site: %v", err)
		}
	})
}

func TestLoadGrowsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := health(t, world())
		defer h.Close()
		if err := h.Report("london", 5); err != nil {
			t.Fatal(err)
		}
		if l := h.View().Site("london").Load; l != 5 {
			t.Errorf("load %v, want 5", l)
		}
		<-time.After(61 * time.Second)
		if l := h.View().Site("london").Load; l >= 0 {
			t.Errorf("load %v is too old to be told", l)
		}
	})
}

func TestRequiredSiteTakesOthersDown(t *testing.T) {
	sites := world()
	sites[0].Requires = []string{"london"}
	sites[2].Requires = []string{"berlin"}
	h := health(t, sites, "london")
	for name, want := range map[string]geo.State{"berlin": geo.Down, "seattle": geo.Down, "tokyo": geo.Up} {
		if st := h.View().Site(name); st.State != want {
			t.Errorf("%s is %v, want %v", name, st.State, want)
		}
	}
	since := h.View().Site("seattle").Since
	for i := range 3 { // what else is told changes nothing
		if err := h.Report("tokyo", i); err != nil {
			t.Fatal(err)
		}
	}
	if st := h.View().Site("seattle"); st.Failovers > 1 || !st.Since.Equal(since) {
		t.Errorf("seattle went down %d times, last at %v, then %v", st.Failovers, since, st.Since)
	}
	mark(t, h, "london", "ras1", geo.Up)
	for _, name := range []string{"berlin", "seattle", "london"} {
		if st := h.View().Site(name); st.State != geo.Up || st.Cause != "" {
			t.Errorf("%s is %v: %s", name, st.State, st.Cause)
		}
	}
}

func TestStateSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := health(t, world(), "london")
		defer h.Close()
		if err := firstError(h.Drain("tokyo", time.Now().Add(time.Hour)), h.Force("seattle", geo.Down, time.Time{})); err != nil {
			t.Fatal(err)
		}
		data, err := h.Save()
		if err != nil {
			t.Fatal(err)
		}
		restart := func() *geo.Health {
			h := &geo.Health{Failback: geo.FailbackManual}
			if err := h.Set(world()...); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Close)
			return h
		}
		<-time.After(10 * time.Second)
		n := restart()
		if err := n.Restore(data, time.Minute); err != nil {
			t.Fatal(err)
		}
		if v := n.View(); !v.Known() || v.Site("london").State != geo.Down || v.Site("berlin").State != geo.Up ||
			v.Site("tokyo").Admin != geo.AdminDrain || v.Site("seattle").Admin != geo.AdminDown {
			t.Errorf("after a restart: %+v", v)
		}
		mark(t, n, "london", "ras1", geo.Up)
		if st := n.View().Site("london"); st.State != geo.Down || !st.Held {
			t.Error("a site that waited for an administrator must go on waiting after a restart")
		}
		<-time.After(2 * time.Hour)
		n = restart()
		if err := n.Restore(data, time.Minute); err != nil {
			t.Fatal(err)
		}
		if v := n.View(); v.Known() || v.Site("berlin").State != geo.Unknown || v.Site("tokyo").Admin != geo.AdminNone || v.Site("seattle").Admin != geo.AdminDown {
			t.Errorf("much later: %+v", v)
		}
		future := strings.Replace(string(data), `"at":"2000`, `"at":"2031`, 1)
		n = restart()
		if err := n.Restore([]byte(future), time.Minute); err == nil || !strings.Contains(err.Error(), "yet to come") {
			t.Errorf("state from the future: %v", err)
		}
		if v := n.View(); v.Site("berlin").State != geo.Unknown || v.Site("seattle").Admin != geo.AdminDown {
			t.Errorf("a clock that was set back opens a site that an administrator closed: %+v", v)
		}
	})
}

func FuzzRestore(f *testing.F) {
	h := new(geo.Health)
	_ = h.Set(world()...)
	data, _ := h.Save()
	f.Add(data)
	f.Add([]byte(`{"version":1,"at":"2026-01-01T00:00:00Z","sites":[{"name":"berlin","admin":9,"gateways":[{"name":"ras1","state":200}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h := new(geo.Health)
		if err := h.Set(world()...); err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		_ = h.Restore(data, 1<<62)
		for _, s := range h.View().Sites {
			if s.State > geo.Down || s.Admin > geo.AdminDown {
				t.Fatalf("%+v", s)
			}
		}
	})
}

func TestCountryMap(t *testing.T) {
	l := locator(t)
	m, err := geo.NewCountryMap(l, nil)
	if err != nil {
		t.Fatal(err)
	}
	names := m.Countries()
	for range 2000 {
		a := somewhere()
		p, _ := l.Locate(a)
		if got := names[m.Find(a)]; got != p.Country {
			t.Fatalf("%v: got %q, want %q", a, got, p.Country)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.Find(netip.IPv6LinkLocalAllNodes()) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
