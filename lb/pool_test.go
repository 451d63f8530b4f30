package lb

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPoolSet(t *testing.T) {
	var p Pool
	if v := p.View(); len(v.Members) != 0 || v.ByName("a") != nil || v.Member(3) != nil {
		t.Fatal("the zero Pool isn't empty")
	}
	p.Set(backends("b", "a")...)
	a := p.View().ByName("a")
	p.Set(backends("b", "a")...)
	if again := p.View().ByName("a"); again.ID != a.ID || again.load != a.load {
		t.Error("setting the same backends again made others of them")
	}
	if got := names(p.View().Members); got != "a b" {
		t.Errorf("members %q", got)
	}
	moved := backends("b", "a")
	moved[1].Addr = netip.MustParseAddr("10.9.9.9")
	p.Set(moved...)
	if p.View().ByName("a").ID == a.ID {
		t.Error("a backend at another address kept its identity")
	}
	p.Set(backends("b")...)
	if p.View().ByName("a") != nil || p.View().Member(a.ID) != nil {
		t.Error("a is still there")
	}
}

func TestPoolSetFaults(t *testing.T) {
	var p Pool
	p.Set(backends("a")...)
	before := p.View()
	addr := netip.MustParseAddr("10.0.0.1")
	err := p.Set(Backend{Addr: addr}, Backend{Name: "x"}, Backend{Name: "y", Addr: addr, Weight: 65536},
		Backend{Name: "z", Addr: addr, MaxClients: -1}, Backend{Name: "z", Addr: addr})
	for _, want := range []string{"no name", `"x" has no valid address`, "65536", "negative", `"z" is there twice`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q: %v", want, err)
		}
	}
	if p.View() != before {
		t.Error("a bad set changed the Pool")
	}
	if err := p.Mark("nobody", Down, ""); !errors.Is(err, ErrUnknownBackend) {
		t.Errorf("marking an unknown backend: %v", err)
	}
}

func TestPoolDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var changes []string
		p := Pool{Trace: &Trace{Changed: func(_, m *Member) { changes = append(changes, m.Name+" "+m.State.String()) }}}
		p.Set(backends("a", "b")...)
		changes = nil
		p.Drain("a", time.Now().Add(time.Minute))
		if v := p.View(); names(v.Ready) != "b" || names(v.Usable) != "a b" || v.ByName("a").State != Draining {
			t.Errorf("draining: ready %q, usable %q", names(v.Ready), names(v.Usable))
		}
		time.Sleep(time.Minute + time.Millisecond)
		synctest.Wait()
		if v := p.View(); names(v.Usable) != "b" || v.ByName("a").State != Down {
			t.Errorf("after the deadline: usable %q", names(v.Usable))
		}
		p.Undrain("a")
		if v := p.View(); names(v.Ready) != "a b" {
			t.Errorf("after undrain: ready %q", names(v.Ready))
		}
		if want := []string{"a draining", "a down", "a up"}; !slices.Equal(changes, want) {
			t.Errorf("heard %q, want %q", changes, want)
		}
	})
}

func TestPoolPanic(t *testing.T) {
	for _, c := range []struct {
		name              string
		noPanic           bool
		down, drain       []string
		ready, usable     string
		panics, lastDrain bool
	}{
		{name: "all up", ready: "a b c", usable: "a b c"},
		{name: "one down", down: []string{"a"}, ready: "b c", usable: "b c"},
		{name: "all down", down: []string{"a", "b", "c"}, ready: "a b c", usable: "a b c", panics: true},
		{name: "all down, off", noPanic: true, down: []string{"a", "b", "c"}},
		{name: "all draining", drain: []string{"a", "b", "c"}, usable: "a b c"},
		{name: "down and draining", down: []string{"a", "b"}, drain: []string{"c"}, ready: "c", usable: "c"},
		{name: "draining one is down too", down: []string{"a", "b", "c"}, drain: []string{"c"}, ready: "a b", usable: "a b", panics: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Pool{NoPanic: c.noPanic}
			p.Set(backends("a", "b", "c")...)
			for _, n := range c.down {
				p.Mark(n, Down, "dead")
			}
			for _, n := range c.drain {
				p.Drain(n, time.Time{})
			}
			v := p.View()
			if names(v.Ready) != c.ready || names(v.Usable) != c.usable || v.Panic != c.panics {
				t.Errorf("ready %q, usable %q, panic %v", names(v.Ready), names(v.Usable), v.Panic)
			}
		})
	}
}

func TestPoolSlowStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := Pool{SlowStart: 100 * time.Second}
		p.Set(backends("a", "b")...)
		if got := p.View().ByName("a").Share; got != fullShare {
			t.Errorf("a backend that was never down has share %d", got)
		}
		p.Mark("a", Down, "dead")
		p.Mark("a", Up, "")
		for i := 1; i <= slowSteps; i++ {
			if got, want := p.View().ByName("a").Share, fullShare*i/slowSteps; got != want {
				t.Errorf("step %d: share %d, want %d", i, got, want)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if got := p.View().ByName("a").Share; got != fullShare {
			t.Errorf("at the end: share %d", got)
		}
	})
}

func TestPoolPriority(t *testing.T) {
	ranked := func() []Backend {
		bs := backends("main1", "main2", "spare")
		bs[2].Priority = 1
		return bs
	}
	fail := func(p *Pool, s State) {
		p.Mark("main1", s, "")
		p.Mark("main2", s, "")
	}
	ready := func(t *testing.T, p *Pool, want string) {
		t.Helper()
		if got := names(p.View().Ready); got != want {
			t.Errorf("ready %q, want %q", got, want)
		}
	}
	t.Run("automatic", func(t *testing.T) {
		var p Pool
		p.Set(ranked()...)
		ready(t, &p, "main1 main2")
		if names(p.View().Spare) != "spare" {
			t.Errorf("spare %q", names(p.View().Spare))
		}
		fail(&p, Down)
		ready(t, &p, "spare")
		p.Mark("main2", Up, "")
		ready(t, &p, "main2")
	})
	t.Run("delayed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := Pool{Failback: FailbackDelayed, FailbackDelay: time.Minute}
			p.Set(ranked()...)
			fail(&p, Down)
			p.Mark("main1", Up, "")
			ready(t, &p, "spare")
			time.Sleep(59 * time.Second)
			p.Mark("main1", Down, "again")
			time.Sleep(time.Minute)
			p.Mark("main1", Up, "")
			time.Sleep(59 * time.Second)
			ready(t, &p, "spare")
			time.Sleep(2 * time.Second)
			synctest.Wait()
			ready(t, &p, "main1")
		})
	})
	t.Run("manual", func(t *testing.T) {
		p := Pool{Failback: FailbackManual}
		p.Set(ranked()...)
		fail(&p, Down)
		fail(&p, Up)
		ready(t, &p, "spare")
		p.FailbackNow()
		ready(t, &p, "main1 main2")
		fail(&p, Down)
		fail(&p, Up)
		p.Mark("spare", Down, "")
		ready(t, &p, "main1 main2")
	})
	t.Run("manual, asked too early", func(t *testing.T) {
		p := Pool{Failback: FailbackManual}
		p.Set(ranked()...)
		p.FailbackNow() // nothing to fail back from
		fail(&p, Down)
		fail(&p, Up)
		ready(t, &p, "spare")
	})
}

func TestPoolChanged(t *testing.T) {
	var p Pool
	c := p.Changed()
	p.Set(backends("a")...)
	select {
	case <-c:
	default:
		t.Error("a change wasn't announced")
	}
	select {
	case <-p.Changed():
		t.Error("a change was announced that didn't happen")
	default:
	}
}

func TestPanicWithoutShare(t *testing.T) {
	for _, p := range []Picker{&Maglev{}, LeastClients{}, &RoundRobin{}} {
		b := &Balancer{Pool: new(Pool), Table: new(Table), Picker: p}
		addr := netip.MustParseAddr("192.0.2.9")
		if err := b.Pool.Set(Backend{Name: "keeps", Addr: addr, Weight: -1}, Backend{Name: "sick", Addr: addr}); err != nil {
			t.Fatal(err)
		}
		if err := b.Pool.Mark("sick", Down, "test"); err != nil {
			t.Fatal(err)
		}
		v := Verdict{Begin: true, Keys: [MaxKeys]Key{spi(1)}}
		r, err := b.Route(&v, flow("192.0.2.1", 500, 500))
		if err != nil || r.Member.Name != "sick" {
			t.Errorf("%T: %+v, %v; the one backend that takes new clients is sick", p, r, err)
		}
		view := b.Pool.View()
		if len(view.Usable) != 2 || !view.Panic {
			t.Errorf("usable: %d, panic: %v", len(view.Usable), view.Panic)
		}
	}
}
