package udp_test

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

func (w *world) flows(want int) {
	w.t.Helper()
	if s := w.engine.Stats(); s.Flows != want || s.Sockets < want {
		w.t.Errorf("%d flows with %d sockets, want %d", s.Flows, s.Sockets, want)
	}
}

func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		port := w.gateways[first].from(7)

		time.Sleep(34 * time.Minute)
		if got := c.ask(datagram('E', 7)); got != first {
			t.Errorf("after 34 minutes: answered by %q, want %q", got, first)
		}
		if got := w.gateways[first].from(7); got != port {
			t.Errorf("after 34 minutes: from %v, want still %v", got, port)
		}

		time.Sleep(24 * time.Hour)
		w.flows(0)
		if s := w.balancer.Table.Stats(); s.Clients != 0 || s.Names != 0 {
			t.Errorf("after 24 hours: the table has %d clients, %d names", s.Clients, s.Names)
		}
		if s := w.engine.Stats(); s.Expired != 1 {
			t.Errorf("expired %d flows, want 1", s.Expired)
		}
		w.stop(c)
	})
}

// A client that only receives must not expire, neither in the engine nor in the
// Table.
func TestOneDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		g := w.gateways[first]
		up := g.from(7)
		for range 24 * 3 {
			time.Sleep(20 * time.Minute)
			if err := g.send([]byte("e push "+first), up); err != nil {
				t.Fatal(err)
			}
			if got := c.next(); got != first {
				t.Fatalf("push came from %q", got)
			}
		}
		if got := c.ask(datagram('C', 7)); got != first {
			t.Errorf("after a day of receiving: answered by %q, want %q", got, first)
		}
		if s := w.balancer.Stats(); s.Picked != 1 {
			t.Errorf("picked %d times, want once", s.Picked)
		}
		w.stop(c)
	})
}

func TestStages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.engine.Unanswered = 10 * time.Second
		w.serve()
		mute, stateless, half := w.client("198.51.100.1:1"), w.client("198.51.100.1:2"), w.client("198.51.100.1:3")
		g := w.gateways["gw0"]
		g.hush(true)
		mute.ask(datagram('N', 1))
		g.hush(false)
		stateless.ask(datagram('N', 2, 's'))
		half.ask(datagram('N', 3, 'h'))

		s := w.engine.Stats()
		if s.Flows != 3 || s.Unanswered != 2 || s.HalfOpen != 1 {
			t.Errorf("stats %+v", s)
		}
		if n := w.balancer.Table.Stats().Clients; n != 1 {
			t.Errorf("the table has %d clients, want the half-open one only", n)
		}
		time.Sleep(12 * time.Second)
		if s = w.engine.Stats(); s.Flows != 1 || s.Unanswered != 0 || s.HalfOpen != 1 {
			t.Errorf("after 12 s: stats %+v", s)
		}
		time.Sleep(20 * time.Second)
		w.flows(0)
		w.stop(mute, stateless, half)
	})
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5).serve()
		g := w.gateways["gw3"]
		g.knows(42) // it knows a client that the table doesn't
		c := w.client("198.51.100.1:1000")
		if got := c.ask(datagram('Q', 42)); got != "gw3" {
			t.Fatalf("answered by %q, want gw3", got)
		}
		synctest.Wait()
		for name, g := range w.gateways {
			if g.count() != 1 {
				t.Errorf("%s got %d datagrams, want 1", name, g.count())
			}
		}
		if s := w.engine.Stats(); s.Sockets != 1 || s.Flows != 1 || s.HalfOpen+s.Unanswered != 0 {
			t.Errorf("after the answer: %+v", s)
		}
		if got := c.ask(datagram('E', 42)); got != "gw3" {
			t.Errorf("then answered by %q, want gw3", got)
		}
		// From elsewhere it is known now.
		moved := w.client("203.0.113.9:999")
		if got := moved.ask(datagram('C', 42)); got != "gw3" {
			t.Errorf("from elsewhere answered by %q, want gw3", got)
		}
		if s := w.balancer.Stats(); s.Asked != 1 {
			t.Errorf("asked %d times, want once", s.Asked)
		}
		w.stop(c, moved)
	})
}

// Nobody knows the client: all are asked again each time, with the same sockets,
// and they go as any unanswered flow does.
func TestAskInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3).serve()
		c := w.client("198.51.100.1:1000")
		for range 3 {
			if got := c.ask(datagram('Q', 42)); got != "" {
				t.Fatalf("answered by %q", got)
			}
		}
		for name, g := range w.gateways {
			if g.count() != 3 {
				t.Errorf("%s got %d datagrams, want 3", name, g.count())
			}
		}
		if w.net.dials != 3 {
			t.Errorf("%d sockets made, want 3", w.net.dials)
		}
		time.Sleep(time.Minute)
		if s := w.engine.Stats(); s.Flows != 0 || s.Sockets != 0 {
			t.Errorf("after a minute: %+v", s)
		}
		w.stop(c)
	})
}

// A client whose NAT gives it a new port reaches the same gateway from a new
// upstream. Its old flow goes on meanwhile: what an attacker sends again from
// elsewhere takes nothing away.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 8).serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		g := w.gateways[first]
		old := g.from(7)
		for i, kind := range []byte{'C', 'E'} {
			if kind == 'E' {
				c.ask(datagram('E', 7)) // 'E' names 7 too, from now on
			}
			moved := w.client(fmt.Sprintf("198.51.100.1:%d", 2000+i))
			if got := moved.ask(datagram(kind, 7)); got != first {
				t.Errorf("%c from a new port: answered by %q, want %q", kind, got, first)
			}
			if now := g.from(7); now == old {
				t.Errorf("%c from a new port: the gateway sees no move", kind)
			}
			if err := g.send([]byte("e for the old port "+first), old); err != nil {
				t.Fatal(err)
			}
			if got := c.next(); got != first {
				t.Errorf("%c: the old port got %q", kind, got)
			}
			moved.Close()
		}
		if n := w.balancer.Table.Stats().Clients; n != 1 {
			t.Errorf("the table has %d clients, want 1", n)
		}
		w.stop(c)
	})
}

// elsewhere makes a client, and its number, that is at another gateway than home.
// That answers as how says.
func (w *world) elsewhere(home string, how byte) (*client, uint64) {
	w.t.Helper()
	for n := range uint64(50) {
		c := w.client(fmt.Sprintf("203.0.113.66:%d", 1000+n))
		if got := c.ask(datagram('N', 100+n, how)); got != home && got != "" {
			return c, 100 + n
		}
		c.Close()
	}
	w.t.Fatal("all clients are at " + home)
	return nil, 0
}

// What comes from a client's address under the name of another gateway's client
// takes the flow from nobody until that gateway has taken it for its own: anybody
// can send that from a false address. Otherwise the client's gateway would see it
// come from another port each time.
func TestForgedSource(t *testing.T) {
	for _, tt := range []struct {
		name       string
		mute       bool          // the other gateway doesn't answer
		home, away time.Duration // that an answer takes
		how        byte          // the other gateway has its own client
	}{
		{name: "none", mute: true},
		{name: "half-open"},
		{name: "half-open, the client's gateway later", home: time.Millisecond},
		{name: "half-open, the client's gateway sooner", away: time.Millisecond},
		{name: "established, the client's gateway sooner", away: time.Millisecond, how: 'e'},
		{name: "established, the client's gateway later", home: time.Millisecond, how: 'e'},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2).serve()
				c := w.client("198.51.100.1:4500")
				home := c.ask(datagram('N', 7))
				c.ask(datagram('E', 7))
				port := w.gateways[home].from(7)
				own, n := w.elsewhere(home, cmp.Or(tt.how, 'h'))
				forged := datagram('N', n, 'h')
				for name, g := range w.gateways {
					takes := tt.home
					if name != home {
						takes = tt.away
						g.hush(tt.mute)
					}
					g.think(takes)
				}
				for range 5 {
					for range 3 {
						c.ask(forged)
					}
					// One comes between what its gateway answers to the
					// others and what it answers to the client itself.
					c.tell(datagram('E', 7))
					time.Sleep(3 * time.Millisecond / 2)
					c.tell(forged)
					if got := c.data(7); got != home {
						t.Errorf("the client was answered by %q, want %q", got, home)
					}
					if got := w.gateways[home].from(7); got != port {
						t.Errorf("its gateway sees it come from %v, want %v", got, port)
					}
				}
				if s := w.engine.Stats(); s.Moved != 0 {
					t.Errorf("moved %d times", s.Moved)
				}
				w.stop(c, own)
			})
		})
	}
}

// named is a toy whose answers name their client, as those of IKE do.
type named struct{ toy }

func (n named) Answer(b []byte, f lb.Flow) lb.Verdict {
	v := n.toy.Answer(b, f)
	if v.Stage != lb.StageNone && len(b) >= 9 {
		v.Keys[0], v.Keys[1] = lb.Uint64Key(toyNumber, binary.BigEndian.Uint64(b[1:])), lb.FlowKey(f)
	}
	return v
}

// A client in the midst of its handshake keeps its gateway, though its first message
// comes from the address of another gateway's client too, which answers it.
func TestForgedBeginning(t *testing.T) {
	for _, later := range []string{"the forger's gateway", "its own gateway"} {
		t.Run(later+" later", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				w.engine.Classifier = named{}
				w.serve()
				c := w.client("198.51.100.1:4500")
				home := c.ask(datagram('N', 7))
				c.ask(datagram('E', 7))
				own, n := w.elsewhere(home, 'h')
				for name, g := range w.gateways {
					if (name == home) == (later == "the forger's gateway") {
						g.think(time.Millisecond)
					}
				}
				c.tell(datagram('N', n, 'h'))
				c.tell(datagram('N', n, 'h'))
				time.Sleep(10 * time.Millisecond)
				if got := own.ask(datagram('C', n)); got == home || got == "" {
					t.Errorf("it is answered by %q, which is the other's: %v", got, got == home)
				}
				w.stop(c, own)
			})
		})
	}
}

// A NAT gives the port of a client that has gone to one of another gateway.
func TestPortChangesHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).serve()
		gone := w.client("198.51.100.1:1000")
		stays, n := w.elsewhere(gone.ask(datagram('N', 7)), 'e')
		home := stays.ask(datagram('C', n))
		for _, kind := range []byte{'C', 'E', 'C'} {
			if got := gone.ask(datagram(kind, n)); got != home {
				t.Errorf("%c: answered by %q, want %q", kind, got, home)
			}
		}
		if s := w.engine.Stats(); s.Sockets != s.Flows {
			t.Errorf("%d sockets for %d flows", s.Sockets, s.Flows)
		}
		w.stop(gone, stays)
	})
}

func TestDrainAndDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		var moves []string
		w.engine.Trace = &udp.Trace{Moved: func(_ lb.Flow, from, to *lb.Member) {
			moves = append(moves, from.Name+" to "+to.Name)
		}}
		w.serve()
		at, number := make(map[string]*client), make(map[string]uint64)
		var all []*client
		for i := 0; len(at) < 2; i++ {
			c := w.client(fmt.Sprintf("198.51.100.%d:1000", i))
			all = append(all, c)
			name := c.ask(datagram('N', uint64(i)))
			at[name], number[name] = c, uint64(i)
		}
		if err := w.pool.Drain("gw0", time.Time{}); err != nil {
			t.Fatal(err)
		}
		for name, c := range at {
			if got := c.ask(datagram('E', number[name])); got != name {
				t.Errorf("while gw0 drains, the client of %s is answered by %q", name, got)
			}
		}
		fresh := w.client("203.0.113.1:1000")
		if got := fresh.ask(datagram('N', 99)); got != "gw1" {
			t.Errorf("while gw0 drains, a new client is answered by %q", got)
		}
		if err := w.pool.Mark("gw0", lb.Down, "test"); err != nil {
			t.Fatal(err)
		}
		if got := at["gw0"].ask(datagram('E', number["gw0"])); got != "" {
			t.Errorf("data of a client whose gateway is down was answered by %q", got)
		}
		if got := at["gw0"].ask(datagram('N', 1000)); got != "gw1" {
			t.Errorf("a client that begins anew when its gateway is down: answered by %q", got)
		}
		if got := at["gw1"].ask(datagram('E', number["gw1"])); got != "gw1" {
			t.Errorf("the client of gw1 is answered by %q", got)
		}
		synctest.Wait()
		if !slices.Equal(moves, []string{"gw0 to gw1"}) {
			t.Errorf("moves: %q", moves)
		}
		w.stop(append(all, fresh)...)
	})
}

// A flood of first packets adds nothing lasting, and established clients keep
// their upstreams.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.engine.MaxUnanswered = 100
		w.serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		up := w.gateways[first].from(7)
		for _, g := range w.gateways {
			g.hush(true)
		}
		flood := w.client("203.0.113.1:1")
		for i := range 5000 {
			flood.addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}), 500)
			if err := flood.send(datagram('N', uint64(1000+i)), netip.MustParseAddrPort(service)); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		s := w.engine.Stats()
		if s.Unanswered > 100 || s.Sockets > 101 || s.Recycled < 4000 {
			t.Errorf("in the flood: %+v", s)
		}
		if n := w.balancer.Table.Stats().Clients; n != 1 {
			t.Errorf("in the flood: the table has %d clients", n)
		}
		for _, g := range w.gateways {
			g.hush(false)
		}
		if got := c.ask(datagram('E', 7)); got != first || w.gateways[first].from(7) != up {
			t.Errorf("in the flood: answered by %q over %v, want %q over %v", got, w.gateways[first].from(7), first, up)
		}
		time.Sleep(time.Minute)
		w.flows(1)
		flood.addr = netip.MustParseAddrPort("203.0.113.1:1")
		w.stop(c, flood)
	})
}

// Answers to a flood don't make it last either: half-open flows are bounded, too.
func TestHalfOpenFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.engine.MaxHalfOpen = 10
		w.serve()
		var all []*client
		for i := range 50 {
			c := w.client(fmt.Sprintf("198.51.100.%d:1000", i))
			all = append(all, c)
			if got := c.ask(datagram('N', uint64(i), 'h')); got != "gw0" {
				t.Fatalf("client %d: answered by %q", i, got)
			}
		}
		if s := w.engine.Stats(); s.HalfOpen != 10 || s.Flows != 10 || s.Sockets != 10 || s.Recycled != 40 {
			t.Errorf("stats %+v", s)
		}
		// Whoever was recycled goes on from a new upstream, being known.
		if got := all[0].ask(datagram('C', 0)); got != "gw0" {
			t.Errorf("the first client: answered by %q", got)
		}
		w.stop(all...)
	})
}

// Names that a client makes up don't reach the Table faster than a few a second.
func TestLearnLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1).serve()
		c := w.client("198.51.100.1:1000")
		c.ask(datagram('N', 7))
		before := w.balancer.Table.Stats().Names
		for i := range 100 {
			if err := c.send(datagram('E', uint64(1000+i)), netip.MustParseAddrPort(service)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := w.balancer.Table.Stats().Names - before; n < 1 || n > 4 {
			t.Errorf("%d names learned at once, want some and at most 4", n)
		}
		w.stop(c)
	})
}

// Data of an established flow isn't looked up in the Table.
func TestFastPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		before := w.balancer.Stats()
		for range 100 {
			if got := c.ask(datagram('E', 7)); got != first {
				t.Fatalf("answered by %q", got)
			}
		}
		if s := w.balancer.Stats(); s.Known != before.Known {
			t.Errorf("%d look-ups for data of an established flow", s.Known-before.Known)
		}
		w.stop(c)
	})
}

func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.engine.MaxFlows = 2
		full := 0
		w.engine.Trace = &udp.Trace{Full: func(lb.Flow) { full++ }}
		w.serve()
		a, b, c := w.client("198.51.100.1:1"), w.client("198.51.100.1:2"), w.client("198.51.100.1:3")
		if got := a.ask([]byte("garbage")); got != "" {
			t.Errorf("garbage was answered by %q", got)
		}
		if got := a.ask(datagram('C', 5)); got != "" {
			t.Errorf("an unknown client was answered by %q", got)
		}
		if got := a.ask(datagram('N', 1, 'x')); got != "" {
			t.Errorf("the client saw a hidden answer of %q", got)
		}
		a.ask(datagram('N', 1))
		b.ask(datagram('N', 2))
		got := c.ask(datagram('N', 3))
		synctest.Wait()
		if got != "" || full != 1 {
			t.Errorf("when full: answered by %q, traced %d times", got, full)
		}
		time.Sleep(50 * time.Second)
		a.ask(datagram('E', 1))
		time.Sleep(50 * time.Second)
		// b has been silent for more than a minute, and makes room.
		if got := c.ask(datagram('N', 3)); got != "gw0" {
			t.Errorf("when full of the silent: answered by %q", got)
		}
		if got := a.ask(datagram('E', 1)); got != "gw0" {
			t.Errorf("the flow that wasn't silent: answered by %q", got)
		}
		s := w.engine.Stats()
		if s.Dropped != 1 || s.Refused != 1 || s.Hidden != 1 || s.Full != 1 || s.Evicted != 1 || s.Flows != 2 {
			t.Errorf("stats %+v", s)
		}
		w.stop(a, b, c)
	})
}

func TestUnreachable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var errs []error
		w.engine.Trace = &udp.Trace{Unreachable: func(m *lb.Member, err error) {
			if m.Name != "gw0" {
				t.Errorf("%s is unreachable", m.Name)
			}
			errs = append(errs, err)
		}}
		w.serve()
		w.gateways["gw0"].Close()
		c := w.client("198.51.100.1:1000")
		for range 10 {
			if err := c.send(datagram('N', 7), netip.MustParseAddrPort(service)); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.next(); got != "" {
			t.Errorf("the client got %q", got)
		}
		synctest.Wait()
		if len(errs) != 1 || !errors.Is(errs[0], syscall.ECONNREFUSED) {
			t.Errorf("errors %v, want one", errs)
		}
		time.Sleep(2 * time.Second)
		c.ask(datagram('N', 7))
		synctest.Wait()
		if len(errs) != 2 {
			t.Errorf("errors %v, want another one after a while", errs)
		}
		w.stop(c)
	})
}

func TestDialFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		broken := true
		w.engine.Dial = func(local, remote netip.AddrPort) (net.Conn, error) {
			if broken {
				return nil, errors.New("broken")
			}
			return w.net.dial(local, remote)
		}
		w.serve()
		c := w.client("198.51.100.1:1000")
		if got := c.ask(datagram('N', 7)); got != "" {
			t.Errorf("answered by %q", got)
		}
		if s := w.engine.Stats(); s.Flows != 0 || s.OpenErrors != 1 {
			t.Errorf("stats %+v", s)
		}
		broken = false
		if got := c.ask(datagram('N', 7)); got != "gw0" {
			t.Errorf("then answered by %q", got)
		}
		w.stop(c)
	})
}

// When the process has no file left, a half-open flow makes room for a new one, and
// established ones stay.
func TestOutOfFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		files := 2
		w.engine.Dial = func(local, remote netip.AddrPort) (net.Conn, error) {
			if s := w.engine.Stats(); s.Sockets >= files {
				return nil, &net.OpError{Op: "dial", Err: syscall.EMFILE}
			}
			return w.net.dial(local, remote)
		}
		w.serve()
		full, half, fresh, late := w.client("198.51.100.1:1"), w.client("198.51.100.1:2"), w.client("198.51.100.1:3"), w.client("198.51.100.1:4")
		full.ask(datagram('N', 1))
		half.ask(datagram('N', 2, 'h'))
		if got := fresh.ask(datagram('N', 3)); got != "gw0" {
			t.Errorf("a new client: answered by %q", got)
		}
		if got := late.ask(datagram('N', 4)); got != "" {
			t.Errorf("when all are established: answered by %q", got)
		}
		if got := full.ask(datagram('E', 1)); got != "gw0" {
			t.Errorf("an established client: answered by %q", got)
		}
		if s := w.engine.Stats(); s.Evicted != 1 || s.OpenErrors != 1 || s.Flows != 2 {
			t.Errorf("stats %+v", s)
		}
		w.stop(full, half, fresh, late)
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1).serve()
		a, b := w.client("198.51.100.1:1"), w.client("198.51.100.1:2")
		a.ask(datagram('N', 1))
		ended := make(chan error, 1)
		go func() { ended <- w.engine.Shutdown(context.Background()) }()
		synctest.Wait()
		if got := b.ask(datagram('N', 2)); got != "" {
			t.Errorf("a new client was answered by %q while closing", got)
		}
		if got := a.ask(datagram('E', 1)); got != "gw0" {
			t.Errorf("the old client was answered by %q", got)
		}
		if s := w.engine.Stats(); s.Closing != 1 {
			t.Errorf("stats %+v", s)
		}
		time.Sleep(36 * time.Minute)
		if err := <-ended; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		w.stop(a, b)
	})
}

// TestShutdownUpstreamFails has the last flow end because its upstream does.
func TestShutdownUpstreamFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		var up net.Conn
		w.engine.Dial = func(local, remote netip.AddrPort) (net.Conn, error) {
			c, err := w.net.dial(local, remote)
			up = c
			return c, err
		}
		a := w.serve().client("198.51.100.1:1")
		a.ask(datagram('N', 1))
		ended := make(chan error, 1)
		go func() { ended <- w.engine.Shutdown(t.Context()) }()
		synctest.Wait()
		up.Close()
		synctest.Wait()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		default:
			t.Error("Shutdown waits although no flow is left")
			w.cancel()
			<-ended
		}
		w.stop(a)
	})
}

func TestShutdownDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1).serve()
		c := w.client("198.51.100.1:1")
		c.ask(datagram('N', 1))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.engine.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if got := slices.Collect(w.engine.Flows()); len(got) != 1 || got[0].Backend != "gw0" {
			t.Errorf("flows after the end: %v", got)
		}
		w.stop(c)
	})
}

// Another process goes on with the flows, and gateways notice nothing.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4).serve()
		var clients []*client
		at, from := make(map[int]string), make(map[int]netip.AddrPort)
		for i := range 20 {
			c := w.client(fmt.Sprintf("198.51.100.%d:1000", i))
			clients = append(clients, c)
			at[i] = c.ask(datagram('N', uint64(i)))
			from[i] = w.gateways[at[i]].from(uint64(i))
		}
		w.cancel()
		<-w.served
		flows := slices.Collect(w.engine.Flows())
		if len(flows) != 20 {
			t.Fatalf("%d flows", len(flows))
		}
		text, err := json.Marshal(flows)
		if err != nil {
			t.Fatal(err)
		}
		if flows = nil; json.Unmarshal(text, &flows) != nil {
			t.Fatalf("flows don't survive as %s", text)
		}
		next := &udp.Engine{
			Balancer:   &lb.Balancer{Pool: w.pool, Table: new(lb.Table)},
			Classifier: toy{}, Dial: w.net.dial,
		}
		next.Restore(flows)
		next.Restore([]udp.FlowState{
			{Client: netip.MustParseAddrPort("203.0.113.1:1"), Listener: flows[0].Listener, Backend: "gone"},
			{Client: netip.MustParseAddrPort("203.0.113.2:1"), Listener: flows[0].Listener, Backend: "gw0", Local: flows[0].Local},
			{Client: netip.MustParseAddrPort("203.0.113.3:1"), Listener: netip.MustParseAddrPort("1.1.1.1:1"), Backend: "gw0"},
		})
		w.engine = next
		w.serve()
		synctest.Wait()
		if s := next.Stats(); s.Restored != 20 || s.Skipped != 3 || s.Flows != 20 {
			t.Fatalf("stats %+v", s)
		}
		for i, c := range clients {
			// What a gateway sends first arrives, too.
			g := w.gateways[at[i]]
			if err := g.send([]byte("e push "+at[i]), from[i]); err != nil {
				t.Fatal(err)
			}
			if got := c.next(); got != at[i] {
				t.Errorf("client %d got %q, want a push of %q", i, got, at[i])
			}
			if got := c.ask(datagram('E', uint64(i))); got != at[i] || g.from(uint64(i)) != from[i] {
				t.Errorf("client %d: answered by %q over %v, want %q over %v", i, got, g.from(uint64(i)), at[i], from[i])
			}
		}
		// A table that wasn't restored learns of them in time.
		for range 2 {
			time.Sleep(31 * time.Second)
			for i, c := range clients {
				c.ask(datagram('E', uint64(i)))
			}
		}
		if n := next.Balancer.Table.Stats().Clients; n != 20 {
			t.Errorf("the table has %d clients, want 20", n)
		}
		w.stop(clients...)
	})
}

func TestServeErrors(t *testing.T) {
	m := newMemory()
	l := m.listen(service)
	b := &lb.Balancer{Pool: new(lb.Pool), Table: new(lb.Table)}
	for name, e := range map[string]*udp.Engine{
		"no balancer": {}, "no pool": {Balancer: &lb.Balancer{}}, "transparent in memory": {Balancer: b, Transparent: true},
	} {
		if err := e.Serve(t.Context(), m.listen("192.0.2.9:0")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := (&udp.Engine{Balancer: b}).Serve(t.Context()); err == nil {
		t.Error("no sockets: no error")
	}
	e := &udp.Engine{Balancer: b, Dial: m.dial}
	l.Close()
	if err := e.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed socket: %v", err)
	}
	if err := e.Serve(t.Context(), m.listen(service)); err == nil {
		t.Error("a second Serve: no error")
	}
	if n := m.open(); n != 0 {
		t.Errorf("%d sockets left open", n)
	}
}
