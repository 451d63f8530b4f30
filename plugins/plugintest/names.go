package plugintest

import (
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Names returns intents in which names lead to sites all over the world, beside a site
// with gateways. They are among those of the suite; a suite of their own has a driver
// broken off in the middle of them, too.
func Names(at Layout) []Intent {
	var out []Intent
	shape{Layout: at}.names(func(name string, d *plugins.Deployment) { out = append(out, Intent{Name: name, Deployment: d}) })
	return out
}

// WithNames returns a copy of the deployment of one of [Names], changed by change
// unless that is nil, for tests of a driver's own. It fails the test if no intent has
// that name.
func WithNames(t testing.TB, name string, change func(*plugins.Geo)) *plugins.Deployment {
	t.Helper()
	for _, in := range Names(Layout{}) {
		if in.Name == name {
			d := in.Deployment.Clone()
			if change != nil {
				change(d.Geo)
			}
			return d
		}
	}
	t.Fatalf("there is no intent %q", name)
	return nil
}

// names are of DNS. The site beside them differs from each to the next, for drivers
// that leave names to others.
func (l shape) names(add func(string, *plugins.Deployment)) {
	n := 0
	geo := func(name string, change func(*plugins.Geo)) {
		n++
		ras := l.pool("ras", 2, plugins.Check{Type: plugins.CheckSSTP})
		ras.Picker, ras.Backends[0].Weight = plugins.PickRoundRobin, new(n)
		d := deployment([]plugins.Pool{ras}, plugins.Group{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{l.sstp()}})
		d.Geo = l.world()
		if change != nil {
			change(d.Geo)
		}
		add(name, d)
	}
	geo("names", nil)
	geo("names, by weight", func(g *plugins.Geo) {
		g.Sites[0].Weight, g.Sites[1].Weight = new(3), new(2)
		for i := range g.Names {
			g.Names[i].Method, g.Names[i].TTL = "weighted", plugins.Duration(time.Minute)
		}
	})
	geo("names, one site after the other", func(g *plugins.Geo) {
		for i := range g.Names {
			g.Names[i].Order = []string{"priority"}
		}
		g.Sites[1].Priority, g.Sites[2].Priority, g.Failback = 1, 2, plugins.FailbackManual
	})
	geo("names, two sites and one after them", func(g *plugins.Geo) {
		g.Names[0].Order, g.Sites[2].Priority = []string{"priority"}, 9
	})
	geo("names, by weight, with a site that stands by", func(g *plugins.Geo) {
		g.Names = g.Names[:1]
		g.Names[0].Method, g.Names[0].Sites = "weighted", []string{"seattle", "berlin"}
		g.Sites[1].Weight = new(0)
	})
	geo("names, near the client", func(g *plugins.Geo) {
		g.Names[0].Order = []string{"country", "continent"}
		g.Networks = []plugins.GeoNetwork{{Name: "branch", Prefix: netip.MustParsePrefix("203.0.113.0/24"), GeoPlace: plugins.GeoPlace{Continent: "EU", Country: "FR"}}}
	})
	geo("names, all gateways, or none", func(g *plugins.Geo) {
		g.Names[0].Method, g.Names[0].AllDown = "all", "nodata"
	})
	geo("names with a last resort", func(g *plugins.Geo) {
		for i := range g.Names {
			g.Names[i].AllDown, g.Names[i].LastResort = "last-resort", []netip.Addr{netip.MustParseAddr("198.51.100.99"), netip.MustParseAddr("2001:db8:ff::1")}
		}
	})
	geo("a name fewer", func(g *plugins.Geo) { g.Names = g.Names[1:] })
	geo("a site fewer", func(g *plugins.Geo) { g.Sites, g.Names[1].Sites = g.Sites[:2], nil })
	geo("gateways that are checked elsewhere", func(g *plugins.Geo) {
		g.Sites[0].Gateways[0].CheckAddress = netip.MustParseAddr("10.1.0.1")
		g.Sites[0].Checks = []plugins.Check{{Type: plugins.CheckHTTPS, Host: "vpn.example.com", Path: "/health"}, {Type: plugins.CheckICMP}}
		g.Sites[0].CheckNeed = plugins.NeedAny
	})
	geo("names of sites and gateways that are called otherwise, and have each other's addresses", func(g *plugins.Geo) {
		g.Sites[0].Name, g.Sites[2].Name, g.Names[1].Sites = "lyon", "berlin", []string{"berlin", "lyon"}
		a, b := g.Sites[0].Gateways, g.Sites[2].Gateways
		a[0].Name, a[1].Name = "ras2", "ras3"
		a[0].Addresses[0], a[1].Addresses[0], b[0].Addresses[0] = a[1].Addresses[0], b[0].Addresses[0], a[0].Addresses[0]
		g.Listen = []netip.AddrPort{netip.AddrPortFrom(g.Listen[0].Addr().Next(), g.Listen[0].Port()), g.Listen[0]}
	})
	geo("a name for all below it", func(g *plugins.Geo) { g.Names[0].Name = "*.vpn.example.com." })
	geo("names that lead elsewhere inside", func(g *plugins.Geo) {
		g.Horizons = []plugins.GeoHorizon{{Name: "inside", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
		g.Sites[0].Gateways[0].Inside = map[string][]netip.Addr{"inside": {netip.MustParseAddr("10.1.0.1")}}
	})
}

// world are three sites: one with two gateways of both families, one of IPv6 only, and
// one of IPv4 that isn't checked.
func (l shape) world() *plugins.Geo {
	gateway := func(name string, addresses ...string) plugins.GeoGateway {
		g := plugins.GeoGateway{Name: name}
		for _, a := range addresses {
			g.Addresses = append(g.Addresses, netip.MustParseAddr(a))
		}
		return g
	}
	place := func(continent, country string) plugins.GeoPlace {
		return plugins.GeoPlace{Continent: continent, Country: country}
	}
	return &plugins.Geo{
		Listen: []netip.AddrPort{netip.AddrPortFrom(l.front().Next(), uint16(53+l.PortOffset))},
		Zones:  []plugins.GeoZone{{Origin: "vpn.example.com", File: "/etc/aovlb/vpn.example.com.zone"}},
		Sites: []plugins.GeoSite{
			{Name: "berlin", GeoPlace: place("EU", "DE"), Checks: []plugins.Check{{Type: plugins.CheckIKEv2}, {Type: plugins.CheckSSTP, Host: "vpn.example.com"}}, Gateways: []plugins.GeoGateway{
				gateway("ras1", "198.51.100.1", "2001:db8:b::1"), gateway("ras2", "198.51.100.2", "2001:db8:b::2"),
			}},
			{Name: "seattle", GeoPlace: place("NA", "US"), Checks: []plugins.Check{{Type: plugins.CheckTCP, Port: 443}}, Gateways: []plugins.GeoGateway{gateway("ras1", "2001:db8:c::1")}},
			{Name: "lyon", GeoPlace: place("EU", "FR"), Gateways: []plugins.GeoGateway{gateway("ras1", "198.51.100.31")}},
		},
		Names: []plugins.GeoName{{Name: "gw.vpn.example.com"}, {Name: "EU.vpn.example.com.", Sites: []string{"lyon", "berlin"}}},
	}
}
