package lb

import (
	"net/netip"
	"testing"
)

// TestAnsweredForgery checks what an answer to a message in a client's name may
// do: anybody can send the first message of a handshake from a false address.
func TestAnsweredForgery(t *testing.T) {
	pool := new(Pool)
	err := pool.Set(Backend{Name: "a", Addr: netip.MustParseAddr("10.0.0.1")}, Backend{Name: "b", Addr: netip.MustParseAddr("10.0.0.2")})
	if err != nil {
		t.Fatal(err)
	}
	a, b := pool.View().Members[0], pool.View().Members[1]
	f := Flow{Client: netip.MustParseAddrPort("192.0.2.1:4500"), Service: 4500}
	name := func(n uint64) Key { return Uint64Key(SpaceProtocol, n) }
	flow := FlowKey(f)
	for _, x := range []struct {
		name   string
		m      *Member // who answers
		stage  Stage
		why    Why
		keys   []Key
		at     *Member // where name 1 is then
		flow   *Member // where the flow is then
		client int     // how many clients there are
	}{
		{"a handshake in its name is another client", a, StageHalfOpen, WhyHint, []Key{name(2), flow}, a, a, 2},
		{"an SA of another backend doesn't take the flow", b, StageHalfOpen, WhyKnown, []Key{name(3), flow}, a, a, 2},
		{"an established client takes the flow", b, StageEstablished, WhyKnown, []Key{name(3), flow}, a, b, 2},
		{"the flow's own traffic doesn't move the client", b, StageEstablished, WhyKnown, []Key{flow}, a, b, 2},
		{"its strongest name does", b, StageEstablished, WhyMoved, []Key{name(1), flow}, b, b, 1},
		{"a second tunnel on the flow is the same client", a, StageEstablished, WhyHint, []Key{name(2), flow}, a, a, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			bal := &Balancer{Pool: pool, Table: new(Table)}
			bal.Answered(a, f, StageHalfOpen, WhyPicked, name(1))
			bal.Answered(a, f, StageEstablished, WhyKnown, name(1), flow)
			bal.Answered(x.m, f, x.stage, x.why, x.keys...)
			for k, want := range map[Key]*Member{name(1): x.at, flow: x.flow} {
				c, ok := bal.Table.Lookup(k)
				if !ok || c.Backend != want.ID {
					t.Errorf("name %v is at backend %v (%v), want %v", k, c.Backend, ok, want.ID)
				}
			}
			if n := bal.Table.Stats().Clients; n != x.client {
				t.Errorf("%d clients, want %d", n, x.client)
			}
		})
	}
}

// TestAnsweredAgain checks that a client that proves itself on a flow on which
// one is established already counts once.
func TestAnsweredAgain(t *testing.T) {
	pool := new(Pool)
	if err := pool.Set(Backend{Name: "a", Addr: netip.MustParseAddr("10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	bal := &Balancer{Pool: pool, Table: new(Table)}
	a := pool.View().Members[0]
	f := Flow{Client: netip.MustParseAddrPort("192.0.2.1:4500"), Service: 4500}
	for i := range uint64(5) {
		k := Uint64Key(SpaceProtocol, i+1)
		bal.Answered(a, f, StageHalfOpen, WhyHint, k)
		bal.Answered(a, f, StageEstablished, WhyKnown, k, FlowKey(f))
	}
	if s := bal.Table.Stats(); s.Clients != 1 || s.Names != 6 || a.Clients() != 1 {
		t.Errorf("%d clients with %d names, backend has %d, want 1, 6 and 1", s.Clients, s.Names, a.Clients())
	}
}

// TestLearnTakesNothing checks that a name which a client only uses isn't taken
// from who has it: nothing has proven it. It may be another's ESP SPI, made up by
// an attacker or sent by who got the port of a client that has gone.
func TestLearnTakesNothing(t *testing.T) {
	b := newBalancer(t, "a", "b")
	victim, other := flow("192.0.2.1", 4500, 4500), flow("198.51.100.9", 4500, 4500)
	b.Answered(b.member(t, "a"), victim, StageEstablished, WhyPicked, spi(1), FlowKey(victim))
	b.Learn(b.member(t, "a"), FlowKey(victim), spi(7))
	b.Answered(b.member(t, "b"), other, StageEstablished, WhyPicked, spi(2), FlowKey(other))
	b.Learn(b.member(t, "b"), FlowKey(other), spi(7), spi(8))
	for k, want := range map[Key]string{spi(7): "a", spi(8): "b"} {
		if c, ok := b.Table.Lookup(k); !ok || c.Backend != b.member(t, want).ID {
			t.Errorf("name %v is at backend %v (%v), want %s", k, c.Backend, ok, want)
		}
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}

// TestAnsweredReplay sends the first message of an established client again, from
// elsewhere. Its backend may answer that again, but nobody has proven to be the
// client by it: it stays where it is, with all its names.
func TestAnsweredReplay(t *testing.T) {
	b := newBalancer(t, "a", "b")
	a := b.member(t, "a")
	f := flow("192.0.2.1", 4500, 4500)
	b.Answered(a, f, StageHalfOpen, WhyPicked, spi(1))
	b.Answered(a, f, StageEstablished, WhyKnown, spi(1), FlowKey(f))
	b.Learn(a, FlowKey(f), spi(100))
	before, _ := b.Table.Lookup(spi(1))
	for i := range uint16(2 * DefaultMaxNames) {
		from := flow("203.0.113.66", 1000+i, 500)
		r := b.mustRoute(t, begins(spi(1), from), from)
		b.Answered(r.Member, from, StageHalfOpen, r.Why, spi(1), FlowKey(from))
	}
	if after, _ := b.Table.Lookup(spi(1)); !after.Equal(before) {
		t.Errorf("the client is %+v, was %+v", after, before)
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}
