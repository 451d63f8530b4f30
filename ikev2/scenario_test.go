package ikev2

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

// scenarios are what happens to tunnels behind a load balancer. The first
// thirteen are the known ways of VPN clients; the rest is what else went wrong
// on paper.
var scenarios = []struct {
	name   string
	source bool // source-address affinity survives it
	run    func(w *world) error
}{
	{"two clients behind one NAT", true, func(w *world) error {
		a := w.addr(nil)
		one := w.client(a, 500, 4500, nil)
		if err := one.up(); err != nil {
			return err
		}
		two := w.client(a, 1024, 1025, one.home)
		return chain(two.up, one.ping, two.ping, one.poke, two.poke)
	}},
	{"clients at different addresses", true, func(w *world) error {
		var all []*model
		for range 40 {
			m := w.client(w.addr(nil), 500, 4500, nil)
			if err := m.up(); err != nil {
				return err
			}
			all = append(all, m)
		}
		used := map[*gateway]bool{}
		for _, m := range all {
			used[m.home] = true
			if err := chain(m.ping, m.poke, m.ping); err != nil {
				return err
			}
		}
		if len(used) != len(w.gws) {
			return fmt.Errorf("40 clients use %d of %d gateways", len(used), len(w.gws))
		}
		return nil
	}},
	{"NAT with unpaired addresses", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		first := w.picked(lb.AddrKey(m.f500.Client.Addr()))
		m.f450 = flow(w.addr(first), 30000, PortNATT)
		return chain(m.up, m.poke, m.ping)
	}},
	{"MOBIKE move", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.roam, m.poke, m.poke, m.ping)
	}},
	{"NAT mapping changes its port", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		rebind := func(port uint16) func() error {
			return func() error { m.move(m.f450.Client.Addr(), 500, port); return nil }
		}
		return chain(m.up, rebind(2000), m.poke, m.ping, rebind(2001), m.ping, m.poke)
	}},
	{"child and IKE rekey", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.rekeyChild, m.ping, m.rekeyIKE, m.ping, m.poke, m.rekeyChild, m.ping)
	}},
	{"IKE rekey by the client, then move", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.rekeyIKE, m.roam, m.poke, m.ping, m.roam, m.poke)
	}},
	{"IKE rekey by the server, then move", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.rekeyByServer, m.roam, m.poke, m.ping, m.rekeyByServer, m.ping, m.poke)
	}},
	{"device and user tunnel of one computer", true, func(w *world) error {
		a := w.addr(nil)
		device := w.client(a, 500, 4500, nil)
		if err := device.up(); err != nil {
			return err
		}
		user := w.client(a, 500, 4500, device.home)
		return chain(user.up, device.ping, user.ping, device.poke, user.poke, user.rekeyIKE, device.rekeyIKE,
			user.ping, device.ping, user.poke, device.poke)
	}},
	{"cookie", true, func(w *world) error {
		for i, g := range w.gws {
			g.secret = byte(i + 1)
		}
		return w.client(w.addr(nil), 500, 4500, nil).up()
	}},
	{"IKE fragments", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		m.size, m.frags = 500, 17
		return m.up()
	}},
	{"large IKE_AUTH in one datagram", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		m.size = 9000
		return m.up()
	}},
	{"start on 4500", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 10954, nil)
		return chain(func() error { return m.saInit(m.f450) }, m.auth, m.ping, m.poke)
	}},

	{"device and user tunnel behind a large NAT", true, func(w *world) error {
		w.b.MaxHinted = -1 // as if many were at that address: only the flow helps
		a := w.addr(nil)
		device := w.client(a, 1024, 1025, nil)
		if err := device.up(); err != nil {
			return err
		}
		user := w.client(a, 1024, 1025, device.home)
		return chain(user.up, device.ping, user.ping, device.poke, user.poke)
	}},
	{"another group wanted", true, func(w *world) error {
		for _, g := range w.gws {
			g.group = uint16(GroupECP256)
		}
		return w.client(w.addr(nil), 500, 4500, nil).up()
	}},
	{"4500 without its marker", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		m.unmarked = true
		return chain(m.up, m.poke, m.ping)
	}},
	{"move, ESP first", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.roam, m.ping, m.poke)
	}},
	{"balancer restarts, IKE first", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, forget(w), m.poke, m.ping)
	}},
	{"balancer restarts, ESP first", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, forget(w), m.ping, m.poke, m.roamNowhere, m.ping)
	}},
	{"gateways that answer unknown SPIs", false, func(w *world) error {
		for _, g := range w.gws {
			g.rude = true
		}
		m := w.client(w.addr(nil), 500, 4500, nil)
		return chain(m.up, m.rekeyIKE, m.roam, m.poke, m.ping)
	}},
	{"many clients behind one NAT", true, func(w *world) error {
		a := w.addr(nil)
		var all []*model
		used := map[*gateway]int{}
		for i := range 200 {
			m := w.client(a, uint16(10000+i), uint16(20000+i), nil)
			if err := m.up(); err != nil {
				return err
			}
			all = append(all, m)
			used[m.home]++
		}
		for _, m := range all {
			if err := chain(m.ping, m.poke, m.rekeyIKE, m.ping, m.poke); err != nil {
				return err
			}
		}
		for _, g := range w.gws {
			if want := 200 / len(w.gws); w.c.Affinity == AffinitySPI && (used[g] < want/2 || used[g] > want*2) {
				return fmt.Errorf("%s has %d of 200 clients", g.member.Name, used[g])
			}
		}
		return nil
	}},
	{"NAT gives a port to another client", true, func(w *world) error {
		w.b.MaxHinted = -1
		a := w.addr(nil)
		one := w.client(a, 500, 4500, nil)
		if err := one.up(); err != nil {
			return err
		}
		two := w.client(a, 1024, 4500, one.home) // 4500 was one's
		one.move(a, 500, 4501)
		return chain(two.up, two.ping, one.ping, one.poke, two.ping, two.poke, one.ping)
	}},
	{"late ESP to a port that another client has", true, func(w *world) error {
		w.b.MaxHinted = -1
		a := w.addr(nil)
		one := w.client(a, 500, 4500, nil)
		if err := one.up(); err != nil {
			return err
		}
		two := w.client(a, 1024, 4500, one.home)
		if err := two.up(); err != nil {
			return err
		}
		if (one.home == two.home) != (w.c.Affinity == AffinitySource) {
			return errors.New("the two clients aren't where this test needs them")
		}
		w.answered(one.home, two.f450, espPacket(one.in))
		if err := chain(two.poke, two.ping, two.poke); err != nil {
			return err
		}
		w.answered(one.home, two.f450, espPacket(one.in))
		return chain(two.ping, two.rekeyChild, two.ping, two.rekeyIKE, two.roamNowhere, two.poke, two.ping)
	}},
	{"many child rekeys, then move", false, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		if err := m.up(); err != nil {
			return err
		}
		for range 30 {
			if err := chain(m.rekeyChild, m.ping); err != nil {
				return err
			}
		}
		asked := w.asked
		if err := chain(m.roam, m.poke, m.ping); err != nil || w.asked == asked {
			return err
		}
		return errors.New("the SPI was forgotten, all gateways were asked")
	}},
	{"strangers start SAs in a client's name", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		if err := m.up(); err != nil {
			return err
		}
		for range 40 { // off-path: no answer ever reaches them
			s := w.client(m.f450.Client.Addr(), 500, 4500, m.home)
			s.saInit(s.f450)
		}
		for _, k := range []lb.Key{SPIKey(m.spii), lb.FlowKey(m.f450)} {
			if _, ok := w.b.Table.Lookup(k); !ok && w.c.Affinity == AffinitySPI {
				return fmt.Errorf("name %v was lost", k)
			}
		}
		return chain(m.ping, m.poke, m.ping)
	}},
	{"a stranger's SA is sent in a client's name", true, func(w *world) error {
		w.b.MaxHinted = -1
		m := w.client(w.addr(nil), 500, 4500, nil)
		if err := m.up(); err != nil {
			return err
		}
		s := w.client(w.addr(nil), 500, 4500, m.home)
		if err := s.saInit(s.f450); err != nil {
			return err
		}
		s.saInit(m.f450) // the same message, from the other's address
		if err := chain(m.ping, m.poke, m.ping); err != nil {
			return err
		}
		c, ok := w.b.Table.Lookup(lb.FlowKey(m.f450))
		if w.c.Affinity == AffinitySPI && (!ok || c.Backend != m.home.member.ID) {
			return errors.New("the flow is lost")
		}
		return nil
	}},
	{"gateway dies, client comes back", true, func(w *world) error {
		m := w.client(w.addr(nil), 500, 4500, nil)
		other := w.client(w.addr(nil), 500, 4500, nil)
		if err := chain(m.up, other.up); err != nil {
			return err
		}
		for other.home == m.home {
			other = w.client(w.addr(nil), 500, 4500, nil)
			if err := other.up(); err != nil {
				return err
			}
		}
		dead := m.home
		w.b.Pool.Mark(dead.member.Name, lb.Down, "killed")
		if err := m.poke(); err == nil {
			return errors.New("a dead gateway answered")
		}
		m.spii, m.initiated = w.spi(nil), true
		if err := chain(m.up, other.ping, other.poke); err != nil {
			return err
		}
		if m.home == dead {
			return errors.New("the dead gateway has it")
		}
		// The gateway returns, and the same computer starts its second tunnel.
		w.b.Pool.Mark(dead.member.Name, lb.Up, "")
		w.b.MaxHinted = -1
		user := w.client(m.f500.Client.Addr(), 500, 4500, m.home)
		return chain(user.up, m.ping, user.ping, m.poke, user.poke)
	}},
	{"a client that fails and tries again", true, func(w *world) error {
		a := w.addr(nil)
		for range 10 {
			if err := w.client(a, 500, 4500, nil).up(); err != nil {
				return err
			}
		}
		if n := w.b.Table.Stats().Clients; n != 1 {
			return fmt.Errorf("one computer counts as %d clients", n)
		}
		return nil
	}},
}

// asks says in which scenarios, and how often, all gateways must be asked: only
// where nothing can be known.
var asks = map[string]int{
	"IKE rekey by the client, then move": 1,
	"IKE rekey by the server, then move": 1,
	"balancer restarts, IKE first":       1,
	"balancer restarts, ESP first":       1,
	"gateways that answer unknown SPIs":  1,
	// At its end, where the client rekeys and then its port changes.
	"late ESP to a port that another client has": 1,
}

func forget(w *world) func() error { return func() error { w.restart(); return nil } }

// roamNowhere changes the port only: by now the ESP SPI must be known.
func (m *model) roamNowhere() error {
	m.move(m.f450.Client.Addr(), 500, 4999)
	return nil
}

// TestScenarios drives every scenario in both modes and in both orders in which
// an engine may give keys to Answered.
func TestScenarios(t *testing.T) {
	var table strings.Builder
	for _, s := range scenarios {
		res := map[Affinity]string{}
		for _, a := range []Affinity{AffinitySPI, AffinitySource} {
			res[a] = "ok"
			for _, pending := range []bool{false, true} {
				w := newWorld(t, a, 4)
				w.pending = pending
				err := s.run(w)
				if err != nil {
					res[a] = "FAIL: " + err.Error()
				}
				if a == AffinitySPI && w.asked != asks[s.name] {
					t.Errorf("%s: all gateways were asked %d times, want %d", s.name, w.asked, asks[s.name])
				}
				if want := a == AffinitySPI || s.source; want != (err == nil) {
					t.Errorf("%s, affinity %v, pending first %v: error %v, want success %v", s.name, a, pending, err, want)
				}
			}
		}
		fmt.Fprintf(&table, "%-44s %-6s %s\n", s.name, res[AffinitySPI], res[AffinitySource])
	}
	t.Logf("\n%-44s %-6s %s\n%s", "scenario", "spi", "source", table.String())
}
