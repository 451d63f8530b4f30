package plugintest

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// An Intent is something that is asked of a driver.
type Intent struct {
	// Name says what.
	Name string
	// Deployment is what is to be served. It is valid; whether a driver can do
	// it is the driver's to say.
	Deployment *plugins.Deployment

	skip string
}

// shape makes deployments.
type shape struct {
	Layout
	secret string
}

func (l shape) listener(name string, p plugins.Protocol, port int) plugins.Listener {
	out := plugins.Listener{Name: name, Protocol: p, Address: netip.AddrPortFrom(l.front(), uint16(port+l.PortOffset))}
	if l.PortOffset != 0 {
		out.BackendPort = port
	}
	return out
}

func (l shape) pool(name string, n int, checks ...plugins.Check) plugins.Pool {
	p := plugins.Pool{Name: name, Checks: checks}
	for i := range n {
		p.Backends = append(p.Backends, plugins.Backend{Name: fmt.Sprintf("%s%d", name, i+1), Address: l.back(i + 1)})
	}
	return p
}

func (l shape) ike() []plugins.Listener {
	return []plugins.Listener{l.listener("ike", plugins.ProtocolIKEv2, 500), l.listener("nat-t", plugins.ProtocolIKEv2, 4500)}
}

func (l shape) sstp() plugins.Listener { return l.listener("sstp", plugins.ProtocolSSTP, 443) }

func deployment(pools []plugins.Pool, groups ...plugins.Group) *plugins.Deployment {
	return &plugins.Deployment{Sites: []plugins.Site{{Name: "hq", Pools: pools, Groups: groups}}}
}

// Intents returns the suite's own. secret is a file with a secret. They begin
// with what is common, and each differs from the one before.
func Intents(at Layout, secret string) []Intent {
	l := shape{at, secret}
	var out []Intent
	add := func(name string, d *plugins.Deployment) { out = append(out, Intent{Name: name, Deployment: d}) }
	l.gateways(add)
	l.servers(add)
	l.others(add)
	return out
}

// gateways are of IKEv2 and SSTP.
func (l shape) gateways(add func(string, *plugins.Deployment)) {
	ras := func(change func(*plugins.Pool, *plugins.Group)) *plugins.Deployment {
		p := l.pool("ras", 3, plugins.Check{Type: plugins.CheckIKEv2}, plugins.Check{Type: plugins.CheckSSTP, Host: "vpn.example.com"})
		g := plugins.Group{Name: "vpn", Pool: "ras", Listeners: append(l.ike(), l.sstp())}
		if change != nil {
			change(&p, &g)
		}
		return deployment([]plugins.Pool{p}, g)
	}
	sstp := func(change func(*plugins.Pool, *plugins.Group)) *plugins.Deployment {
		return ras(func(p *plugins.Pool, g *plugins.Group) {
			p.Checks, g.Listeners = p.Checks[1:], g.Listeners[2:]
			if change != nil {
				change(p, g)
			}
		})
	}
	add("sstp", sstp(nil))
	add("sstp with round robin", sstp(func(p *plugins.Pool, _ *plugins.Group) { p.Picker = plugins.PickRoundRobin }))
	add("sstp with least clients and weights", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Picker = plugins.PickLeastClients
		p.Backends[0].Weight, p.Backends[1].Weight = new(3), new(2)
	}))
	add("sstp with a backend fewer", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Picker = plugins.PickLeastClients
		p.Backends = p.Backends[:2]
	}))
	add("sstp with one that stands by", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Picker = plugins.PickLeastClients
		p.Backends[2].Priority = 1
	}))
	add("sstp, by source", sstp(func(_ *plugins.Pool, g *plugins.Group) {
		g.Affinity, g.Idle = plugins.AffinitySource, plugins.Duration(8*time.Hour)
	}))
	add("sstp with a PROXY header", sstp(func(_ *plugins.Pool, g *plugins.Group) { g.Listeners[0].ProxyProtocol = plugins.ProxyV2 }))
	add("sstp with limits", sstp(func(p *plugins.Pool, g *plugins.Group) {
		p.Backends[0].MaxClients, g.Limits.MaxClients, g.Limits.MaxPerSource = 500, 5000, 50
	}))
	add("sstp that is checked slowly", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Checks[0].Interval, p.Checks[0].Timeout = plugins.Duration(30*time.Second), plugins.Duration(10*time.Second)
		p.Checks[0].Rise, p.Checks[0].Fall = 3, 2
	}))
	add("sstp with one drained and one disabled", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Backends[0].Admin, p.Backends[1].Admin = plugins.AdminDraining, plugins.AdminDisabled
	}))
	add("sstp with a slow start", sstp(func(p *plugins.Pool, _ *plugins.Group) { p.SlowStart = plugins.Duration(time.Minute) }))
	add("sstp with a late failback", sstp(func(p *plugins.Pool, _ *plugins.Group) {
		p.Backends[2].Priority, p.Failback, p.FailbackDelay = 1, plugins.FailbackDelayed, plugins.Duration(time.Minute)
	}))
	add("ikev2", ras(func(p *plugins.Pool, g *plugins.Group) { p.Checks, g.Listeners = p.Checks[:1], g.Listeners[:2] }))
	add("ikev2, by source", ras(func(p *plugins.Pool, g *plugins.Group) {
		p.Checks, g.Listeners = p.Checks[:1], g.Listeners[:2]
		g.Affinity, g.Idle = plugins.AffinitySource, plugins.Duration(8*time.Hour)
	}))
	add("ikev2, by source, with the client's address", ras(func(p *plugins.Pool, g *plugins.Group) {
		p.Checks, g.Listeners = p.Checks[:1], g.Listeners[:2]
		g.Affinity, g.ClientAddress = plugins.AffinitySource, plugins.ClientAddressTransparent
	}))
	add("ikev2 and sstp", ras(nil))
	add("ikev2 and sstp, by source", ras(func(_ *plugins.Pool, g *plugins.Group) { g.Affinity = plugins.AffinitySource }))
}

// servers are of RADIUS.
func (l shape) servers(add func(string, *plugins.Deployment)) {
	nps := func(change func(*plugins.Pool, *plugins.Group)) *plugins.Deployment {
		p := l.pool("nps", 2, plugins.Check{Type: plugins.CheckRADIUS, User: "ping", SecretFile: l.secret})
		g := plugins.Group{Name: "nps", Pool: "nps", Listeners: []plugins.Listener{
			l.listener("auth", plugins.ProtocolRADIUS, 1812), l.listener("acct", plugins.ProtocolRADIUS, 1813),
		}}
		if change != nil {
			change(&p, &g)
		}
		return deployment([]plugins.Pool{p}, g)
	}
	add("radius", nps(nil))
	add("radius, by source", nps(func(_ *plugins.Pool, g *plugins.Group) { g.Affinity = plugins.AffinitySource }))
	add("radius without accounting or check", nps(func(p *plugins.Pool, g *plugins.Group) { p.Checks, g.Listeners = nil, g.Listeners[:1] }))
}

// others are of anything else, and of several things at once.
func (l shape) others(add func(string, *plugins.Deployment)) {
	tcp := plugins.Check{Type: plugins.CheckTCP, Port: 8443}
	web := plugins.Group{Name: "web", Pool: "web", Listeners: []plugins.Listener{l.listener("https", plugins.ProtocolTCP, 8443)}}
	add("tcp", deployment([]plugins.Pool{l.pool("web", 2, tcp)}, web))
	timed := web
	timed.Listeners = []plugins.Listener{web.Listeners[0]}
	timed.Listeners[0].IdleTimeout = plugins.Duration(5 * time.Minute)
	add("tcp with an idle timeout", deployment([]plugins.Pool{l.pool("web", 2, tcp)}, timed))
	dns := plugins.Group{Name: "time", Pool: "time", Listeners: []plugins.Listener{l.listener("ntp", plugins.ProtocolUDP, 8123)}}
	add("udp", deployment([]plugins.Pool{l.pool("time", 2)}, dns))
	ras := l.pool("ras", 3, plugins.Check{Type: plugins.CheckSSTP})
	ras.Picker = plugins.PickRoundRobin
	two := plugins.Group{Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, Listeners: []plugins.Listener{l.sstp()}}
	add("sstp and tcp", deployment([]plugins.Pool{ras, l.pool("web", 2, tcp)}, two, web))
	many := l.pool("ras-many.of_them", 32, plugins.Check{Type: plugins.CheckSSTP})
	many.Picker = plugins.PickRoundRobin
	two.Pool, two.Name = many.Name, "vpn.main-1_x"
	add("32 backends, and names with all characters", deployment([]plugins.Pool{many}, two))
	l.names(add)
	add("nothing", nil)
}
