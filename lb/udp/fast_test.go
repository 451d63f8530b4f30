package udp_test

import (
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// fakePath carries in its imagination: tests say what it has carried.
type fakePath struct {
	mu      sync.Mutex
	refuse  bool
	last    uint64
	flows   map[uint64]udp.FastFlow
	uses    map[uint64]udp.FastUse
	offered []string // what it was asked to carry the like of
	ended   int
	revoked []netip.Addr
}

func newFakePath() *fakePath {
	return &fakePath{flows: make(map[uint64]udp.FastFlow), uses: make(map[uint64]udp.FastUse)}
}

func (p *fakePath) Carry(f udp.FastFlow, b []byte, answer bool) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if answer {
		p.offered = append(p.offered, "answer "+string(b[:1]))
	} else if b != nil {
		p.offered = append(p.offered, string(b[:1]))
	}
	for id, have := range p.flows {
		if have == f {
			return id, true
		}
	}
	if p.refuse || b == nil {
		return 0, false
	}
	p.last++
	p.flows[p.last] = f
	return p.last, true
}

func (p *fakePath) Carried(id uint64) udp.FastUse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.uses[id]
}

func (p *fakePath) End(id uint64) udp.FastUse {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.flows[id]; ok {
		p.ended++
	}
	delete(p.flows, id)
	return p.uses[id]
}

func (p *fakePath) Revoke(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = append(p.revoked, a)
}

// carry has the path carry packets of every flow that it has.
func (p *fakePath) carry(n uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.flows {
		u := p.uses[id]
		u.ClientPackets += n
		u.ClientBytes += 100 * n
		u.BackendPackets += 2 * n
		u.BackendBytes += 200 * n
		p.uses[id] = u
	}
}

// told returns what was revoked.
func (p *fakePath) told() []netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.revoked)
}

// asked returns what was offered.
func (p *fakePath) asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.offered)
}

// carries returns the flows.
func (p *fakePath) carries() (list []udp.FastFlow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flows {
		list = append(list, f)
	}
	return list
}

func (p *fakePath) has() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.flows)
}

// A flow is offered when it is established and has answered, with both directions;
// not before, and not with what is hidden or of nobody.
func TestFastOffer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 1), newFakePath()
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		c.ask(datagram('N', 7))
		if p.has() != 1 || p.asked()[0] != "answer e" {
			t.Fatalf("carried %d flows, was offered %q; want the first answer that proves it", p.has(), p.asked())
		}
		time.Sleep(200 * time.Millisecond)
		c.ask(datagram('E', 7))
		for _, f := range p.carries() {
			want := udp.FastFlow{Client: netip.MustParseAddrPort("198.51.100.1:1000"), Listener: netip.MustParseAddrPort(service), Local: w.gateways["gw0"].from(7), Backend: netip.MustParseAddrPort("10.0.0.1:4500")}
			if f != want {
				t.Errorf("carries %+v, want %+v", f, want)
			}
		}
		got := p.asked()[1]
		if got != "E" {
			t.Errorf("was offered %q, want the client's data next", p.asked())
		}
		w.stop(c)
		if p.ended != 0 {
			t.Errorf("%d flows were ended with the engine, want none: the next one goes on with them", p.ended)
		}
	})
}

// A day of a client all of whose packets are carried: it stays known, is counted, and
// costs nothing more. When it falls silent it isn't carried any more, and is forgotten
// as any other.
func TestFastDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 2), newFakePath()
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		for range 24 * 60 {
			time.Sleep(time.Minute)
			p.carry(10)
		}
		time.Sleep(10 * time.Second)
		s := w.engine.Stats()
		if s.Flows != 1 || s.Carried != 1 || s.CarriedPackets != 24*60*30 || s.CarriedBytes != 24*60*3000 || s.ClientPackets != 24*60*10+1 {
			t.Errorf("after a day: %+v", s)
		}
		if ts := w.balancer.Table.Stats(); ts.Clients != 1 {
			t.Errorf("the table has %d clients after a day, want 1", ts.Clients)
		}
		if got := c.ask(datagram('C', 7)); got != first {
			t.Errorf("after a day: answered by %q, want %q", got, first)
		}
		time.Sleep(3 * time.Minute)
		if s := w.engine.Stats(); s.Carried != 0 || s.Flows != 1 || p.has() != 0 {
			t.Errorf("after three minutes of silence: %+v", s)
		}
		time.Sleep(time.Hour)
		w.flows(0)
		if ts := w.balancer.Table.Stats(); ts.Clients != 0 {
			t.Errorf("the table has %d clients in the end", ts.Clients)
		}
		w.stop(c)
	})
}

// A backend that goes down is revoked in the same moment, and its flows move at their
// next packet: what is carried then goes elsewhere. The Table's word counts, too.
func TestFastDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 2), newFakePath()
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		if err := w.pool.Mark(first, lb.Down, "test"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(p.told()) != 1 || p.told()[0] != w.pool.View().ByName(first).Addr {
			t.Fatalf("revoked %v", p.told())
		}
		time.Sleep(10 * time.Second)
		if s := w.engine.Stats(); s.Carried != 0 || p.has() != 0 {
			t.Errorf("what was revoked is still carried: %+v", s)
		}
		second := c.ask(datagram('N', 8))
		if second == first {
			t.Fatalf("answered by %q, which is down", second)
		}
		if p.has() != 1 {
			t.Fatalf("%d flows are carried, want 1", p.has())
		}
		for _, f := range p.carries() {
			if f.Backend.Addr() != w.pool.View().ByName(second).Addr {
				t.Errorf("carries %+v, want to %s", f, second)
			}
		}
		w.stop(c)
	})
}

// Draining keeps what is carried.
func TestFastDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 2), newFakePath()
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		if err := w.pool.Drain(first, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		for range 59 {
			time.Sleep(time.Minute)
			p.carry(1)
		}
		if s := w.engine.Stats(); s.Carried != 1 || len(p.told()) != 0 {
			t.Errorf("while it drains: %+v, revoked %v", s, p.told())
		}
		time.Sleep(2 * time.Minute)
		if len(p.told()) != 1 {
			t.Errorf("after the deadline %v are revoked, want its backend", p.told())
		}
		w.stop(c)
	})
}

// A path that refuses is asked again, but not for every packet.
func TestFastRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 1), newFakePath()
		p.refuse = true
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		c.ask(datagram('N', 7))
		for range 100 {
			c.ask(datagram('E', 7))
			time.Sleep(100 * time.Millisecond)
		}
		if n := len(p.asked()); n < 10 || n > 30 {
			t.Errorf("was asked %d times in ten seconds", n)
		}
		p.mu.Lock()
		p.refuse = false
		p.mu.Unlock()
		time.Sleep(time.Second)
		c.ask(datagram('E', 7))
		if p.has() != 1 {
			t.Errorf("%d flows are carried, want 1", p.has())
		}
		w.stop(c)
	})
}

// An engine that is given flows of an earlier one asks for them to be carried on.
func TestFastRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, p := newWorld(t, 1), newFakePath()
		w.engine.FastPath = p
		w.serve()
		c := w.client("198.51.100.1:1000")
		c.ask(datagram('N', 7))
		p.carry(5)
		w.cancel()
		<-w.served
		var states []udp.FlowState
		for f := range w.engine.Flows() {
			states = append(states, f)
		}
		w.engine = &udp.Engine{Balancer: w.balancer, Classifier: toy{}, Dial: w.net.dial, FastPath: p}
		w.engine.Restore(states)
		w.serve()
		synctest.Wait()
		p.carry(3)
		time.Sleep(10 * time.Second)
		if s := w.engine.Stats(); s.Restored != 1 || s.Carried != 1 || s.CarriedPackets != 9 {
			t.Errorf("%+v; want one flow restored and carried, and 9 packets", s)
		}
		w.stop(c)
	})
}
