package udp_test

import (
	"testing"
	"testing/synctest"

	"github.com/aovlb/aovlb/lb"
)

// A client that is told to come again, by an answer that proves nothing, comes to
// the same gateway, however new clients are picked for; one that isn't answered
// may come to another.
func TestComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.balancer.Picker = new(lb.RoundRobin)
		w.serve()
		c := w.client("198.51.100.1:500")
		first := c.ask(datagram('N', 7, 's'))
		for range 6 {
			if got := c.ask(datagram('N', 7, 's')); got != first {
				t.Fatalf("the retry went to %s, not to %s", got, first)
			}
		}
		if n := w.balancer.Table.Stats().Clients; n != 0 {
			t.Errorf("%d clients recorded", n)
		}
		for _, g := range w.gateways {
			g.hush(true)
		}
		for range 3 {
			c.ask(datagram('N', 8))
		}
		for name, g := range w.gateways {
			if n := g.count(); n == 0 {
				t.Errorf("%s wasn't tried while none answers", name)
			}
		}
		w.stop(c)
	})
}

// Users that share one flow go to different gateways, and each stays at its own.
func TestSharedFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.balancer.Picker = new(lb.RoundRobin) // so that only names keep users in place
		w.serve()
		nas := w.client("198.51.100.1:1812")
		at := make(map[uint64]string)
		spread := make(map[string]int)
		for user := range uint64(60) {
			at[user] = nas.ask(datagram('R', user, byte(user)))
			spread[at[user]]++
		}
		if spread["gw0"] != 20 || spread["gw1"] != 20 || spread["gw2"] != 20 {
			t.Errorf("users are spread as %v", spread)
		}
		for round := range byte(5) {
			for user := range uint64(60) {
				if got := nas.ask(datagram('R', user, byte(user)+round)); got != at[user] {
					t.Fatalf("user %d moved from %s to %s", user, at[user], got)
				}
			}
		}
		if s := w.engine.Stats(); s.Flows != 1 || s.Sockets != 3 || s.Moved != 0 {
			t.Errorf("stats %+v", s)
		}
		for f := range w.engine.Flows() {
			t.Errorf("a shared flow is to be continued elsewhere: %+v", f)
		}
		w.stop(nas)
	})
}

// A request that isn't answered is repeated to the same gateway, from the same
// port; when that gateway is down, to another.
func TestSharedFlowRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.balancer.Picker = new(lb.RoundRobin)
		w.serve()
		nas := w.client("198.51.100.1:1812")
		for _, g := range w.gateways {
			g.mute = true
		}
		for range 4 {
			if got := nas.ask(datagram('R', 7, 1)); got != "" {
				t.Fatalf("a mute gateway answered: %q", got)
			}
		}
		first, other := "gw0", "gw1"
		if w.gateways[first].count() == 0 {
			first, other = other, first
		}
		if a, b := w.gateways[first].count(), w.gateways[other].count(); a != 4 || b != 0 {
			t.Errorf("the gateways got %d and %d of 4 repetitions", a, b)
		}
		if n := w.balancer.Table.Stats().Clients; n != 0 {
			t.Errorf("%d clients without an answer", n)
		}
		if err := w.pool.Mark(first, lb.Down, "test"); err != nil {
			t.Fatal(err)
		}
		w.gateways[other].mute = false
		if got := nas.ask(datagram('R', 7, 1)); got != other {
			t.Errorf("answered by %q, want %q", got, other)
		}
		if err := w.pool.Set(lb.Backend{Name: "gw9", Addr: w.gateways[other].addr.Addr()}); err != nil {
			t.Fatal(err)
		}
		if got := nas.ask(datagram('R', 8, 2)); got != other {
			t.Errorf("after the pool changed, answered by %q", got)
		}
		if s := w.engine.Stats(); s.Sockets != 1 {
			t.Errorf("%d sockets, want only that of the backend that is left", s.Sockets)
		}
		w.stop(nas)
	})
}
