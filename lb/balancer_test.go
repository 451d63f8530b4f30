package lb

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestRouteNames(t *testing.T) {
	b := newBalancer(t, "a", "b", "c")
	f500, f4500 := flow("192.0.2.1", 500, 500), flow("192.0.2.1", 4500, 4500)
	first := begins(spi(1), f500)
	r := b.mustRoute(t, first, f500)
	if r.Why != WhyPicked {
		t.Errorf("a new client was %v", r.Why)
	}
	if again := b.mustRoute(t, first, f500); again.Member != r.Member {
		t.Error("a retransmission before the answer went elsewhere")
	}
	home := r.Member
	b.Answered(home, f500, StageHalfOpen, r.Why, spi(1), FlowKey(f500))

	// The next exchange comes on another port, under the same name.
	auth := &Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(1), FlowKey(f4500)}}
	if r = b.mustRoute(t, auth, f4500); r.Member != home || r.Why != WhyKnown {
		t.Errorf("IKE_AUTH went to %v (%v), not to %v", r.Member, r.Why, home.Name)
	}
	b.Answered(home, f4500, StageEstablished, r.Why, auth.Keys[:]...)

	// A rekeyed client: unknown name, known flow.
	rekeyed := &Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(2), FlowKey(f4500)}}
	if r = b.mustRoute(t, rekeyed, f4500); r.Member != home {
		t.Error("a rekeyed client went elsewhere")
	}
	if !b.Learn(home, rekeyed.Keys[:]...) {
		t.Error("the new name wasn't learnt")
	}
	// And then it moves.
	moved := flow("198.51.100.9", 61000, 4500)
	if r = b.mustRoute(t, &Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(2), FlowKey(moved)}}, moved); r.Member != home {
		t.Error("a client that moved went elsewhere")
	}
	b.Answered(home, moved, StageEstablished, r.Why, spi(2), FlowKey(moved))
	if c, ok := b.Table.Lookup(spi(1)); !ok || c.Source != AddrKey(moved.Client.Addr()) || len(c.Names) != 5 {
		t.Errorf("the client is %+v", c)
	}
}

func TestRouteAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a", "b", "c")
		b.AskRate = 10
		b.Pool.Mark("c", Down, "")
		b.Pool.Drain("b", time.Time{})
		f := flow("198.51.100.9", 61000, 4500)
		v := &Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(7), FlowKey(f)}}
		r := b.mustRoute(t, v, f)
		if r.Member != nil || names(r.Ask) != "a b" || r.Why != WhyAsked {
			t.Fatalf("route %+v", r)
		}
		asked, refused := 1, 0
		for i := range 30 {
			other := flow(fmt.Sprintf("198.51.100.%d", 10+i), 61000, 4500)
			if _, err := b.Route(v, other); errors.Is(err, ErrAskLimit) {
				refused++
			} else if err == nil {
				asked++
			}
		}
		if asked != 10 || refused != 21 {
			t.Errorf("asked %d, refused %d", asked, refused)
		}
		time.Sleep(time.Second)
		b.Answered(b.member(t, "b"), f, StageEstablished, WhyAsked, v.Keys[:]...)
		if r = b.mustRoute(t, v, f); r.Member == nil || r.Member.Name != "b" {
			t.Errorf("the one that answered doesn't own the client: %+v", r)
		}
		v.Keys[0], v.Keys[1], v.Miss = spi(8), Key{}, MissDrop
		if _, err := b.Route(v, f); !errors.Is(err, ErrUnknownClient) {
			t.Errorf("what may not be asked: %v", err)
		}
		b.Pool.Mark("b", Down, "")
		v.Keys[0], v.Miss = spi(9), MissAsk
		if r = b.mustRoute(t, v, f); r.Member == nil || r.Member.Name != "a" {
			t.Errorf("with one backend there is nobody to ask: %+v", r)
		}
	})
}

// One network that has all backends asked all the time leaves others what they
// need to be found.
func TestRouteAskIsShared(t *testing.T) {
	for _, x := range []struct {
		name   string
		noisy  func(i int) string
		honest string
	}{
		{"one address", func(int) string { return "198.51.100.1" }, "198.51.100.2"},
		{"one network of IPv6", func(i int) string { return fmt.Sprintf("2001:db8:1:1::%x", i+1) }, "2001:db8:1:2::1"},
	} {
		t.Run(x.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBalancer(t, "a", "b", "c")
				b.Table.Stats()        // which seeds it
				b.Table.index.seed = 1 // with others, both networks may have one share
				asks := func(from string, n uint64) bool {
					f := flow(from, 4500, 4500)
					_, err := b.Route(&Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(n), FlowKey(f)}}, f)
					return err == nil
				}
				noisy, start := 0, time.Now()
				for i := range 60 * 1000 {
					if asks(x.noisy(i), uint64(i)) {
						noisy++
					}
					if i%1000 == 999 && !asks(x.honest, 1<<40) {
						t.Fatalf("after %v the honest client isn't asked about", time.Since(start))
					}
					time.Sleep(time.Millisecond)
				}
				// With nobody else there, it has nearly all.
				if least := 59 * (DefaultAskRate - 2); noisy < least {
					t.Errorf("asked %d times in a minute, want %d at least", noisy, least)
				}
			})
		})
	}
}

func TestRouteHints(t *testing.T) {
	b := newBalancer(t, "a", "b", "c")
	nat := func(port uint16) Flow { return flow("203.0.113.5", port, 4500) }
	f := nat(4500)
	b.Answered(b.member(t, "b"), f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	// Another tunnel of the same computer comes from another port.
	if r := b.mustRoute(t, begins(spi(2), nat(1024)), nat(1024)); r.Member.Name != "b" || r.Why != WhyHint {
		t.Errorf("the second tunnel went to %s (%v)", r.Member.Name, r.Why)
	}
	for i := uint64(2); i <= DefaultMaxHinted; i++ {
		b.Answered(b.member(t, "b"), nat(uint16(i)), StageEstablished, WhyHint, spi(i))
	}
	spread := make(map[string]int)
	for i := range uint64(300) {
		r := b.mustRoute(t, begins(spi(100+i), nat(2000)), nat(2000))
		spread[r.Member.Name]++
	}
	for _, n := range []string{"a", "b", "c"} {
		if spread[n] < 50 {
			t.Errorf("behind one address, %s got %d of 300", n, spread[n])
		}
	}
	// The flow itself is the same computer however many share the address,
	// and even while its backend drains.
	b.Pool.Drain("b", time.Time{})
	if r := b.mustRoute(t, begins(spi(999), f), f); r.Member.Name != "b" {
		t.Errorf("a second tunnel on one flow went to %s", r.Member.Name)
	}
	other := flow("203.0.113.77", 500, 500)
	b.Answered(b.member(t, "b"), other, StageEstablished, WhyPicked, spi(5000))
	o2 := flow("203.0.113.77", 501, 500)
	if r := b.mustRoute(t, begins(spi(5001), o2), o2); r.Member.Name == "b" {
		t.Error("a hint by address led to a draining backend")
	}
}

// A whole office that comes at once, before its second client is answered, doesn't
// all follow the first.
func TestRouteHintsInARush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a", "b", "c")
		at := func(port uint16) Flow { return flow("203.0.113.5", port, 500) }
		b.Answered(b.member(t, "b"), at(500), StageEstablished, WhyPicked, spi(1))
		rush := func(first uint64) (hinted int) {
			for i := range uint64(50) {
				if r := b.mustRoute(t, begins(spi(first+i), at(uint16(1000+i))), at(uint16(1000+i))); r.Why == WhyHint {
					hinted++
				}
			}
			return hinted
		}
		if n := rush(100); n != DefaultMaxHinted-1 {
			t.Errorf("%d of 50 followed the first client, want %d", n, DefaultMaxHinted-1)
		}
		time.Sleep(2 * time.Second)
		if n := rush(200); n != DefaultMaxHinted-1 {
			t.Errorf("when those are forgotten, %d followed, want %d", n, DefaultMaxHinted-1)
		}
		// Each one that is answered is a client then, and no longer on its way.
		time.Sleep(2 * time.Second)
		b.mustRoute(t, begins(spi(300), at(3000)), at(3000))
		b.Answered(b.member(t, "b"), at(3000), StageEstablished, WhyHint, spi(300))
		if n := rush(400); n != DefaultMaxHinted-2 {
			t.Errorf("beside two clients, %d followed, want %d", n, DefaultMaxHinted-2)
		}
	})
}

// A gateway that died comes back without the clients it had: they are no load,
// until they are heard of.
func TestClientsAfterDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a", "b")
		f := flow("192.0.2.1", 500, 500)
		for i := range uint64(10) {
			b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(i))
		}
		time.Sleep(time.Second)
		clients := func(want int) {
			t.Helper()
			if n := b.member(t, "a").Clients(); n != want {
				t.Errorf("a has %d clients, want %d", n, want)
			}
		}
		clients(10)
		b.Pool.Mark("a", Down, "dead")
		b.Pool.Mark("a", Up, "")
		clients(0)
		time.Sleep(time.Second)
		for i := range uint64(3) { // these were only thought to be lost
			if r := b.mustRoute(t, &Verdict{Keys: [MaxKeys]Key{spi(i)}}, f); r.Member.Name != "a" {
				t.Errorf("client %d went to %s", i, r.Member.Name)
			}
		}
		clients(3)
		b.Answered(b.member(t, "b"), f, StageEstablished, WhyMoved, spi(0))
		b.Answered(b.member(t, "b"), f, StageEstablished, WhyMoved, spi(9))
		clients(2)
		b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(50))
		clients(3)
		b.Table.Forget(spi(8))
		b.Table.Forget(spi(50))
		clients(2)
		time.Sleep(DefaultIdle + 2*time.Second)
		synctest.Wait()
		clients(0)
		if n := b.member(t, "b").Clients(); n != 0 {
			t.Errorf("b has %d clients at the end", n)
		}
	})
}

func TestRouteDown(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("192.0.2.1", 500, 500)
	v := begins(spi(1), f)
	home := b.mustRoute(t, v, f).Member
	b.Answered(home, f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	b.Pool.Drain(home.Name, time.Time{})
	if r := b.mustRoute(t, v, f); r.Member.Name != home.Name {
		t.Error("draining moved a client")
	}
	if r := b.mustRoute(t, begins(spi(2), flow("192.0.2.2", 1, 1)), flow("192.0.2.2", 1, 1)); r.Member.Name == home.Name {
		t.Error("a draining backend got a new client")
	}
	b.Pool.Mark(home.Name, Down, "dead")
	r := b.mustRoute(t, v, f)
	if r.Member.Name == home.Name || r.Why != WhyMoved {
		t.Errorf("the client of a dead backend went to %s (%v)", r.Member.Name, r.Why)
	}
	cont := &Verdict{Miss: MissAsk, Keys: v.Keys}
	if _, err := b.Route(cont, f); !errors.Is(err, ErrBackendDown) {
		t.Errorf("what no other backend can continue: %v", err)
	}
	b.Answered(r.Member, f, StageEstablished, r.Why, spi(1), FlowKey(f))
	if c, _ := b.Table.Lookup(FlowKey(f)); c.Backend != r.Member.ID || home.Clients() != 0 {
		t.Errorf("the client didn't move as a whole: %+v; %d left", c, home.Clients())
	}
	b.Pool.NoPanic = true
	b.Pool.Mark("a", Down, "")
	b.Pool.Mark("b", Down, "")
	if _, err := b.Route(begins(spi(3), f), f); !errors.Is(err, ErrNoBackend) {
		t.Errorf("nobody up: %v", err)
	}
}

// A new login of a known client leaves a backend that drains; all else of it
// stays.
func TestRouteAnew(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("192.0.2.1", 1812, 1812)
	a := b.member(t, "a")
	b.Answered(a, f, StageEstablished, WhyPicked, spi(1))
	login := &Verdict{Anew: true, Keys: [MaxKeys]Key{spi(1)}}
	if r := b.mustRoute(t, login, f); r.Member.Name != "a" || r.Why != WhyKnown {
		t.Errorf("while a is up: %s (%v)", r.Member.Name, r.Why)
	}
	b.Pool.Drain("a", time.Time{})
	if r := b.mustRoute(t, &Verdict{Keys: login.Keys}, f); r.Member.Name != "a" {
		t.Errorf("what continues went to %s", r.Member.Name)
	}
	r := b.mustRoute(t, login, f)
	if r.Member.Name != "b" || r.Why != WhyMoved {
		t.Errorf("a new login went to %s (%v)", r.Member.Name, r.Why)
	}
	b.Answered(r.Member, f, StageEstablished, r.Why, spi(1))
	if a.Clients() != 0 {
		t.Errorf("a has %d clients after the login elsewhere", a.Clients())
	}
}

// A gateway answers the first message of whoever asks it. That takes no client from
// another gateway that has it, unless it was sent there because that one is down.
func TestHalfOpenAnswerMovesNobody(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f, forged := flow("192.0.2.1", 4500, 4500), flow("203.0.113.5", 4500, 4500)
	b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	if b.Answered(b.member(t, "b"), forged, StageHalfOpen, WhyKnown, spi(1)) {
		t.Error("a half-open answer that names another's client was recorded")
	}
	if c, _ := b.Table.Lookup(spi(1)); c.Backend != b.member(t, "a").ID {
		t.Errorf("it took the client: %+v", c)
	}
	// No more so if the other gateway has only begun with it.
	if b.Answered(b.member(t, "a"), f, StageHalfOpen, WhyPicked, spi(2)); b.Answered(b.member(t, "b"), forged, StageHalfOpen, WhyKnown, spi(2)) {
		t.Error("a half-open answer that names another's half-open client was recorded")
	}
	if c, _ := b.Table.Lookup(spi(2)); c.Backend != b.member(t, "a").ID {
		t.Errorf("it took the half-open client: %+v", c)
	}
	b.Answered(b.member(t, "b"), f, StageHalfOpen, WhyMoved, spi(1))
	if c, _ := b.Table.Lookup(spi(1)); c.Backend != b.member(t, "b").ID {
		t.Errorf("a client that was moved is still %+v", c)
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}

// A port that a NAT gives to another client: its flow must not drag the first
// client along.
func TestAnsweredStealsWeakNames(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("203.0.113.5", 4500, 4500)
	b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	b.Answered(b.member(t, "b"), f, StageEstablished, WhyPicked, spi(2), FlowKey(f))
	one, _ := b.Table.Lookup(spi(1))
	two, _ := b.Table.Lookup(FlowKey(f))
	if one.Backend != b.member(t, "a").ID || len(one.Names) != 1 || two.Backend != b.member(t, "b").ID {
		t.Errorf("first client %+v, flow %+v", one, two)
	}
	// Named by nothing else, a client goes with its name.
	b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, spi(3), spi(2), FlowKey(f))
	if s := b.Table.Stats(); s.Clients != 2 {
		t.Errorf("%d clients, want 2", s.Clients)
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}

func TestRouteFullAndAvoid(t *testing.T) {
	var p Pool
	bs := backends("a", "b", "c")
	bs[0].MaxClients, bs[1].MaxClients = 1, 1
	bs[2].Priority = 1
	p.Set(bs...)
	b := &Balancer{Pool: &p, Table: new(Table)}
	f := flow("192.0.2.1", 1, 1)
	var got []string
	for i := range uint64(3) {
		r := b.mustRoute(t, &Verdict{Begin: true, Keys: [MaxKeys]Key{spi(i)}}, f)
		got = append(got, r.Member.Name)
		b.Answered(r.Member, f, StageEstablished, r.Why, spi(i))
	}
	if got[0] == got[1] || got[2] != "c" {
		t.Errorf("clients went to %v; want a and b, then the spare", got)
	}
	c := b.member(t, "c")
	if _, err := b.Route(&Verdict{Begin: true, Keys: [MaxKeys]Key{spi(9)}}, f, c.ID); !errors.Is(err, ErrNoBackend) {
		t.Errorf("full or avoided: %v", err)
	}
	r, err := b.Route(&Verdict{Begin: true, Keys: [MaxKeys]Key{spi(2)}}, f, c.ID)
	if err == nil {
		t.Errorf("a known backend that is to be avoided: %+v", r)
	}
}

func TestAttach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a")
		a := b.member(t, "a")
		f := flow("192.0.2.1", 1, 443)
		nameless := b.Attach(a, new(Verdict), f, WhyPicked)
		v, _ := ByAddr{}.Sniff(nil, f)
		one, two := b.Attach(a, &v, f, WhyPicked), b.Attach(a, &v, f, WhyKnown)
		if a.Clients() != 2 {
			t.Errorf("%d clients, want one stream and one client with two", a.Clients())
		}
		nameless.Close()
		nameless.Close()
		time.Sleep(24 * time.Hour)
		if c, ok := b.Table.Lookup(v.Keys[0]); !ok || c.Streams != 2 {
			t.Errorf("a client with streams: %+v, %v", c, ok)
		}
		one.Close()
		time.Sleep(time.Hour)
		two.Close()
		two.Close()
		time.Sleep(DefaultIdle - time.Second)
		if _, ok := b.Table.Lookup(v.Keys[0]); !ok {
			t.Error("forgotten before its time after the last stream")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if a.Clients() != 0 {
			t.Errorf("%d clients at the end", a.Clients())
		}
		if two.Member() == nil {
			t.Error("the backend of a stream is not known")
		}
		// A stream whose client was forgotten must not let go of another.
		s := b.Attach(a, &v, f, WhyPicked)
		b.Table.Forget(v.Keys[0])
		other := b.Attach(a, &v, f, WhyPicked)
		s.Close()
		if c, _ := b.Table.Lookup(v.Keys[0]); c.Streams != 1 {
			t.Errorf("%d streams, want 1", c.Streams)
		}
		other.Close()
		if err := b.Table.check(); err != nil {
			t.Error(err)
		}
	})
}

// A stream that could not be opened at the client's backend goes elsewhere; the
// client's other flows don't.
func TestAttachElsewhere(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("192.0.2.1", 4500, 4500)
	v, _ := ByAddr{}.Sniff(nil, f)
	a := b.member(t, "a")
	b.Answered(a, f, StageEstablished, WhyPicked, v.Keys[0])
	r, err := b.Route(&v, f, a.ID)
	if err != nil || r.Member.Name != "b" {
		t.Fatalf("route %+v, %v", r, err)
	}
	s := b.Attach(r.Member, &v, f, r.Why)
	if c, _ := b.Table.Lookup(v.Keys[0]); c.Backend != a.ID || r.Member.Clients() != 1 {
		t.Errorf("the client is at %v, b has %d clients", c.Backend, r.Member.Clients())
	}
	s.Close()
	b.Pool.Mark("a", Down, "dead")
	s = b.Attach(b.member(t, "b"), &v, f, WhyMoved)
	defer s.Close()
	if c, _ := b.Table.Lookup(v.Keys[0]); c.Backend != r.Member.ID {
		t.Error("the client of a dead backend didn't move")
	}
}

func TestExplain(t *testing.T) {
	b := newBalancer(t, "a", "b")
	f := flow("192.0.2.1", 500, 500)
	b.Answered(b.member(t, "b"), f, StageEstablished, WhyPicked, spi(1), FlowKey(f))
	before := b.Stats()
	for _, c := range []struct {
		v    *Verdict
		want []string
	}{
		{begins(spi(1), f), []string{"known at b (established, picked)", "goes to b (known)"}},
		{begins(spi(2), f), []string{"is not known", "hint 192.0.2.1:500>500 leads to b", "goes to b (hint)"}},
		{&Verdict{Miss: MissAsk, Keys: [MaxKeys]Key{spi(3)}}, []string{"all 2 usable backends would be asked"}},
		{&Verdict{Miss: MissDrop, Keys: [MaxKeys]Key{spi(3)}}, []string{"unknown client"}},
	} {
		got := strings.Join(b.Explain(c.v, f).Steps, "\n")
		for _, w := range c.want {
			if !strings.Contains(got, w) {
				t.Errorf("%q isn't in:\n%s", w, got)
			}
		}
	}
	b.Pool.Mark("b", Down, "check ike: timeout")
	if got := strings.Join(b.Explain(begins(spi(1), f), f).Steps, "\n"); !strings.Contains(got, "known at b, which is down: check ike: timeout") ||
		!strings.Contains(got, "goes to a (moved)") {
		t.Errorf("explained as:\n%s", got)
	}
	if b.Stats() != before {
		t.Error("explaining was counted")
	}
}

func TestNoAllocs(t *testing.T) {
	b := newBalancer(t, "a", "b", "c")
	f := flow("192.0.2.1", 500, 500)
	a := b.member(t, "a")
	keys := []Key{spi(1), FlowKey(f)}
	b.Answered(a, f, StageEstablished, WhyPicked, keys...)
	known, fresh := begins(spi(1), f), begins(spi(2), flow("192.0.2.2", 500, 500))
	drop := &Verdict{Miss: MissDrop, Keys: [MaxKeys]Key{spi(3)}}
	rr, view := new(RoundRobin), b.Pool.View()
	rr.Pick(Key{}, view)
	for name, fn := range map[string]func(){
		"route known":    func() { b.Route(known, f) },
		"route new":      func() { b.Route(fresh, f) },
		"route refused":  func() { b.Route(drop, f) },
		"answered again": func() { b.Answered(a, f, StageEstablished, WhyKnown, keys...) },
		"learn":          func() { b.Learn(a, keys...) },
		"touch":          func() { b.Touch(keys[0]) },
		"hash key":       func() { HashKey(50, []byte("DOMAIN\\user"), []byte("00-11-22-33-44-55")) },
		"flow key":       func() { FlowKey(f) },
		"least clients":  func() { LeastClients{}.Pick(keys[0], view) },
		"round robin":    func() { rr.Pick(keys[0], view) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
