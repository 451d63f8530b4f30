package netscaler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// walker makes deployments at random.
type walker struct {
	*rand.Rand
	cert, ca, secret string
}

// one returns one of a list.
func one[T any](w *walker, list ...T) T { return list[w.IntN(len(list))] }

func (w *walker) deployment() *plugins.Deployment {
	s := plugins.Site{Name: "hq", Certificates: []plugins.Certificate{{Name: "web", Pool: "ras", CertFile: w.cert}}}
	s.Pools = []plugins.Pool{w.pool("ras", plugins.Check{Type: plugins.CheckSSTP}), w.pool("nps", plugins.Check{Type: plugins.CheckRADIUS, SecretFile: w.secret})}
	used := make(map[string]bool)
	listener := func(name string, p plugins.Protocol, port int) plugins.Listener {
		l := plugins.Listener{Name: name, Protocol: p, BackendPort: port}
		for l.Address.Port() == 0 || used[l.Address.String()+p.Network()] {
			l.Address = netip.AddrPortFrom(one(w, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")), uint16(one(w, port, port+1, 443, 444, 445)))
		}
		used[l.Address.String()+p.Network()] = true
		return l
	}
	vpn := plugins.Group{Name: "vpn", Pool: "ras", Affinity: one(w, "", plugins.AffinitySource), ClientAddress: one(w, "", plugins.ClientAddressTransparent)}
	vpn.Idle = plugins.Duration(one(w, 0, time.Minute, time.Hour))
	vpn.Limits.MaxClients = one(w, 0, 500)
	sstp := listener("sstp", plugins.ProtocolSSTP, 443)
	w.tls(&sstp, &vpn)
	vpn.Listeners = append(vpn.Listeners, sstp)
	if w.IntN(3) > 0 {
		vpn.Listeners = append(vpn.Listeners, listener("ike", plugins.ProtocolIKEv2, 500), listener("natt", plugins.ProtocolIKEv2, 4500))
	}
	s.Groups = append(s.Groups, vpn)
	if w.IntN(3) > 0 {
		g := plugins.Group{Name: one(w, "nps", "radius"), Pool: "nps", Affinity: one(w, "", plugins.AffinityUser, plugins.AffinitySource)}
		g.Listeners = append(g.Listeners, listener("auth", plugins.ProtocolRADIUS, 1812), listener("acct", plugins.ProtocolRADIUS, 1813))
		if w.IntN(2) > 0 && g.Affinity != plugins.AffinitySource {
			g.RADIUS = &plugins.RADIUS{User: one(w, plugins.RADIUSByName, plugins.RADIUSByStation)}
		}
		s.Groups = append(s.Groups, g)
	}
	web := plugins.Group{Name: "web", Pool: "ras", Listeners: []plugins.Listener{listener("web", one(w, plugins.ProtocolTCP, plugins.ProtocolUDP), 8443)}}
	if web.Listeners[0].Protocol == plugins.ProtocolTCP {
		web.Listeners[0].ProxyProtocol = one(w, "", plugins.ProxyV1, plugins.ProxyV2)
	}
	s.Groups = append(s.Groups, web)
	return &plugins.Deployment{Sites: []plugins.Site{s}}
}

func (w *walker) tls(l *plugins.Listener, g *plugins.Group) {
	l.TLS.Mode = one(w, "", plugins.TLSOffload, plugins.TLSReencrypt)
	if g.ClientAddress == "" && l.TLS.Mode == "" {
		l.ProxyProtocol = one(w, "", plugins.ProxyV2)
	}
	if l.TLS.Mode == "" {
		return
	}
	l.TLS.IPHTTPS, l.TLS.PassNull, l.TLS.Tickets = w.IntN(2) > 0, w.IntN(2) > 0, w.IntN(2) > 0
	l.TLS.Clients.CAFile = one(w, "", w.ca)
	l.TLS.Clients.Optional = l.TLS.Clients.CAFile != "" && w.IntN(2) > 0
	if l.TLS.Mode == plugins.TLSReencrypt {
		l.TLS.Gateway = one(w, plugins.GatewayTLS{Insecure: true}, plugins.GatewayTLS{CAFile: w.ca}, plugins.GatewayTLS{CAFile: w.ca, ServerName: "ras.example.com"})
	}
}

func (w *walker) pool(name string, check plugins.Check) plugins.Pool {
	p := plugins.Pool{Name: name, Picker: one(w, "", plugins.PickRoundRobin, plugins.PickLeastClients), Checks: []plugins.Check{check}}
	p.Failback, p.Need, p.SlowStart = one(w, "", plugins.FailbackManual), one(w, "", plugins.NeedAny), plugins.Duration(one(w, 0, time.Minute))
	more := one(w, plugins.Check{Type: plugins.CheckICMP, Name: "more"}, plugins.Check{Type: plugins.CheckTCP, Port: 443, Name: "more"},
		plugins.Check{Type: plugins.CheckHTTPS, Host: one(w, "", "a.example.com"), Name: "more"}, plugins.Check{})
	if more.Type != "" {
		more.Interval, more.Timeout = plugins.Duration(one(w, 0, 10*time.Second)), plugins.Duration(one(w, 0, 1500*time.Millisecond))
		p.Checks = append(p.Checks, more)
	}
	for i := range 1 + w.IntN(3) {
		b := plugins.Backend{Name: fmt.Sprintf("%s%d", name, i), Address: netip.AddrFrom4([4]byte{10, 0, byte(len(p.Checks)), byte(i)}), Priority: one(w, 0, 0, 1, 2)}
		b.Admin = one(w, "", "", plugins.AdminDraining, plugins.AdminDisabled)
		if n := one(w, -1, 1, 5); n > 0 {
			b.Weight = &n
		}
		p.Backends = append(p.Backends, b)
	}
	return p
}

// From any deployment to any other, also if it is broken off somewhere on the way,
// the appliance gets to where it is to be, and what isn't the driver's stays.
func TestFromAnywhereToAnywhere(t *testing.T) {
	dir := t.TempDir()
	b := newBox(t)
	foreign := b.Except("aovlb_hq_")
	w := &walker{Rand: rand.New(rand.NewPCG(1, 8)), cert: filepath.Join(dir, "web.pem"), ca: filepath.Join(dir, "ca.pem"), secret: filepath.Join(dir, "secret")}
	write(t, w.cert, chain(t, true))
	write(t, w.ca, chain(t, false))
	write(t, w.secret, []byte("radius"))
	steps := 40
	if testing.Short() {
		steps = 15
	}
	for i := range steps {
		d := b.driver(t)
		dep := w.deployment()
		for dep.Validate() != nil { // IPv6, in front of servers that are to see it and have none
			dep = w.deployment()
		}
		p, err := d.Plan(t.Context(), dep)
		if err != nil || plugins.HasError(p.Diagnostics) {
			t.Fatalf("deployment %d: %v, %v", i, p, err)
		}
		b.BreakAfter(w.IntN(len(p.Changes) + 3))
		err = d.Apply(t.Context(), p, nil)
		b.BreakAfter(-1)
		if err != nil {
			_ = d.Close() // the next program goes on
			d = b.driver(t)
		}
		apply(t, d, dep)
		if b.Except("aovlb_hq_") != foreign {
			t.Fatalf("deployment %d has changed what isn't the driver's", i)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	apply(t, b.driver(t), nil)
	if b.Except("nobody's") != foreign {
		t.Errorf("something is left: %s", b.Except("nobody's"))
	}
}
