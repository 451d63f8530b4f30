package lb

import (
	"net/netip"
	"testing"
	"time"
)

// What only its backend can make sense of goes there even if it is down; all else
// moves.
func TestBound(t *testing.T) {
	b := &Balancer{Pool: new(Pool), Table: new(Table)}
	if err := b.Pool.Set(Backend{Name: "a", Addr: netip.MustParseAddr("10.0.0.1")}, Backend{Name: "b", Addr: netip.MustParseAddr("10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	f := Flow{Client: netip.MustParseAddrPort("192.0.2.1:1")}
	state, user := Uint64Key(SpaceProtocol, 1), Uint64Key(SpaceProtocol, 2)
	home := b.Pool.View().ByName("a")
	b.Answered(home, f, StageEstablished, WhyPicked, state, user)
	if err := b.Pool.Mark("a", Down, "test"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		v    Verdict
		want string
		why  Why
	}{
		"bound":              {Verdict{Bound: true, Keys: [MaxKeys]Key{state, user}}, "a", WhyKnown},
		"bound, not known":   {Verdict{Bound: true, Keys: [MaxKeys]Key{Uint64Key(SpaceProtocol, 3), user}}, "b", WhyMoved},
		"not bound":          {Verdict{Keys: [MaxKeys]Key{state, user}}, "b", WhyMoved},
		"bound, but to none": {Verdict{Bound: true, Keys: [MaxKeys]Key{{}, user}}, "b", WhyMoved},
	} {
		r, err := b.Route(&tc.v, f)
		if err != nil || r.Member.Name != tc.want || r.Why != tc.why {
			t.Errorf("%s: %v %v, %v; want %s %v", name, r.Member, r.Why, err, tc.want, tc.why)
		}
	}
	if err := b.Pool.Set(Backend{Name: "b", Addr: netip.MustParseAddr("10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	if r, err := b.Route(&Verdict{Bound: true, Keys: [MaxKeys]Key{state}}, f); err != nil || r.Member.Name != "b" {
		t.Errorf("its backend has left: %v, %v", r.Member, err)
	}
}

// The least busy backend is picked, a slow one counts as busier, and equal ones
// share by weight.
func TestLeastOutstanding(t *testing.T) {
	p := new(Pool)
	if err := p.Set(Backend{Name: "a", Addr: netip.MustParseAddr("10.0.0.1"), Weight: 3}, Backend{Name: "b", Addr: netip.MustParseAddr("10.0.0.2")}); err != nil {
		t.Fatal(err)
	}
	a, b := p.View().ByName("a"), p.View().ByName("b")
	share := func() int {
		n := 0
		for i := range 1000 {
			if (LeastOutstanding{}).Pick(Uint64Key(SpaceProtocol, uint64(i)), p.View()) == a {
				n++
			}
		}
		return n
	}
	if n := share(); n < 700 {
		t.Errorf("idle: %d of 1000 with three times the weight", n)
	}
	for range 10 {
		a.Requests().Began()
	}
	if n := share(); n != 0 {
		t.Errorf("a has 10 requests under way and got %d of 1000", n)
	}
	for range 10 {
		a.Requests().Ended()
	}
	now := time.Now()
	for range 40 {
		a.Requests().Began()
		a.Requests().Answered(100*time.Millisecond, now)
		b.Requests().Began()
		b.Requests().Answered(time.Millisecond, now)
	}
	if n := share(); n != 0 {
		t.Errorf("a is a hundred times slower and got %d of 1000", n)
	}
	if took := a.Requests().Took(now.Add(10 * responseHalf)); took > time.Millisecond {
		t.Errorf("a's slowness of long ago counts still: %v", took)
	}
	if a.Requests().Waiting() != 0 {
		t.Errorf("%d wait", a.Requests().Waiting())
	}
	if n := testing.AllocsPerRun(100, func() { LeastOutstanding{}.Pick(Key{}, p.View()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
