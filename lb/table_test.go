package lb

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// model is a Table as one would write it without caring for speed.
type model struct {
	clients []*modelClient
	t       *Table
}

type modelClient struct {
	names   []Key // latest first
	source  Key
	backend ID
	stage   Stage
	seen    time.Time
}

func (m *model) client(k Key) *modelClient {
	m.expire()
	for _, c := range m.clients {
		if slices.Contains(c.names, k) {
			return c
		}
	}
	return nil
}

func (m *model) expire() {
	m.clients = slices.DeleteFunc(m.clients, func(c *modelClient) bool {
		limit := m.t.halfOpen()
		if c.stage == StageEstablished {
			limit = m.t.idle()
		}
		return time.Since(c.seen) > limit || len(c.names) == 0
	})
}

// answeredFor follows the rules of Table.answeredFor.
func (m *model) answeredFor(id ID, stage Stage, why Why, keys []Key) (c *modelClient) {
	for i, k := range keys {
		known := m.client(k)
		if known == nil || known == c {
			continue
		}
		here := known.backend == id
		switch {
		case !here && stage != StageEstablished && why == WhyKnown:
		case c != nil && here && known.stage == StageEstablished:
			c.names = nil
			return known
		case c != nil:
		case here && (i == 0 || stage >= known.stage), i == 0 && k.Space() != SpaceFlow:
			c = known
			if !here || known.stage >= stage {
				return c
			}
		}
	}
	return c
}

func (m *model) bind(id ID, src Key, stage Stage, why Why, keys []Key) {
	c := m.answeredFor(id, stage, why, keys)
	if c == nil {
		c = &modelClient{source: src}
		defer func() { m.clients = append(m.clients, c) }()
	}
	if c.backend == id && stage < c.stage {
		c.seen = time.Now()
		return
	}
	c.backend, c.source, c.seen, c.stage = id, src, time.Now(), max(c.stage, stage)
	for _, k := range keys {
		other := m.client(k)
		if other != nil && stage != StageEstablished && why == WhyKnown && (other.stage == StageEstablished || other.backend != id) {
			continue
		}
		if other == c {
			c.names = append([]Key{k}, slices.DeleteFunc(c.names, func(o Key) bool { return o == k })...)
			continue
		}
		if other != nil && other.backend == id {
			continue
		}
		if other != nil {
			other.names = slices.DeleteFunc(other.names, func(o Key) bool { return o == k })
		}
		if len(c.names) == m.t.MaxNames {
			c.names = c.names[:len(c.names)-1]
		}
		c.names = append([]Key{k}, c.names...)
	}
}

// TestTableModel makes the Table and the model do the same at random, and
// compares them all the time.
func TestTableModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 2))
		t.Logf("seed %d", seed)
		b := newBalancer(t, "a", "b", "c")
		b.Table = &Table{MaxNames: 4, Idle: time.Minute, HalfOpen: 5 * time.Second}
		m := &model{t: b.Table}
		view := b.Pool.View()
		for step := range 20000 {
			keys := make([]Key, 1+rng.IntN(3))
			for i := range keys {
				keys[i] = spi(uint64(rng.IntN(60) + 100*i))
			}
			f := flow("192.0.2.0", uint16(rng.IntN(5)), 500)
			f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(rng.IntN(9))}), 500)
			mem := view.Members[rng.IntN(3)]
			stage := Stage(1 + rng.IntN(2))
			switch rng.IntN(10) {
			case 0:
				b.Table.Forget(keys[0])
				if c := m.client(keys[0]); c != nil {
					c.names = nil
				}
			case 1:
				time.Sleep(time.Duration(rng.IntN(100)) * tickLen)
			case 2:
				if known := b.Touch(keys[0]); known != (m.client(keys[0]) != nil) {
					t.Fatalf("step %d: Touch(%v) = %v", step, keys[0], known)
				}
				if c := m.client(keys[0]); c != nil {
					c.seen = time.Now()
				}
			default:
				why := []Why{WhyKnown, WhyPicked}[rng.IntN(2)]
				if rng.IntN(2) == 0 {
					keys[0] = keys[0].as(SpaceFlow)
				}
				b.Answered(mem, f, stage, why, keys...)
				m.bind(mem.ID, AddrKey(f.Client.Addr()), stage, why, keys)
			}
			if err := b.Table.check(); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if step%50 == 0 {
				compare(t, step, b, m)
			}
		}
		if n := b.Table.Stats().Expired; n == 0 {
			t.Error("nothing ever expired: the test is too tame")
		}
	})
}

func compare(t *testing.T, step int, b *Balancer, m *model) {
	t.Helper()
	m.expire()
	per := make(map[ID]int)
	for _, want := range m.clients {
		got, ok := b.Table.Lookup(want.names[0])
		if !ok || !got.Equal(Client{Names: want.names, Source: want.source, Backend: want.backend, Stage: want.stage}) {
			t.Fatalf("step %d: %+v, want %+v", step, got, want)
		}
		per[want.backend]++
	}
	n := 0
	for range b.Table.Clients() {
		n++
	}
	if n != len(m.clients) {
		t.Fatalf("step %d: %d clients, want %d", step, n, len(m.clients))
	}
	b.Table.mu.Lock()
	b.Table.sweep(b.Table.now(), 1<<20)
	b.Table.mu.Unlock()
	for _, mem := range b.Pool.View().Members {
		if mem.Clients() != per[mem.ID] {
			t.Fatalf("step %d: %s counts %d clients, has %d", step, mem.Name, mem.Clients(), per[mem.ID])
		}
	}
}

func TestTableIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a")
		a := b.member(t, "a")
		f := flow("192.0.2.1", 500, 500)
		b.Answered(a, f, StageHalfOpen, WhyPicked, spi(1))
		b.Answered(a, f, StageEstablished, WhyPicked, spi(2))
		b.Answered(a, f, StageEstablished, WhyPicked, spi(3))
		time.Sleep(DefaultHalfOpen + time.Second)
		if _, ok := b.Table.Lookup(spi(1)); ok {
			t.Error("a half-open client outlived its time")
		}
		time.Sleep(DefaultIdle - DefaultHalfOpen - 2*time.Second)
		if !b.Touch(spi(3)) {
			t.Fatal("an established client went before its time")
		}
		time.Sleep(time.Minute)
		if _, ok := b.Table.Lookup(spi(2)); ok {
			t.Error("an established client outlived 35 minutes of silence")
		}
		// A day of packets every half hour, then a day of none.
		for range 48 {
			time.Sleep(30 * time.Minute)
			if !b.Touch(spi(3)) {
				t.Fatal("a client that is heard of went")
			}
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		// Nothing but time has passed: the Table must have cleaned up by itself.
		if s := b.Table.Stats(); s.Clients+s.Names+s.Sources != 0 || a.Clients() != 0 {
			t.Errorf("after a day of silence: %+v, backend counts %d", s, a.Clients())
		}
	})
}

func TestTableLimits(t *testing.T) {
	b := newBalancer(t, "a")
	a := b.member(t, "a")
	b.Table = &Table{MaxClients: 100, MaxHalfOpenPerSource: 10}
	at := func(host byte) Flow {
		return Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, host}), 500), Service: 500}
	}
	for i := range uint64(50) {
		if !b.Answered(a, at(1), StageEstablished, WhyPicked, spi(i)) {
			t.Fatal("room, but refused")
		}
	}
	got := 0
	for i := range uint64(50) {
		if b.Answered(a, at(2), StageHalfOpen, WhyPicked, spi(1000+i)) {
			got++
		}
	}
	if got != 10 {
		t.Errorf("one address has %d half-open clients, want 10", got)
	}
	for i := range uint64(1000) {
		b.Answered(a, at(byte(3+i%200)), StageHalfOpen, WhyPicked, spi(2000+i))
	}
	for i := range uint64(50) {
		if _, ok := b.Table.Lookup(spi(i)); !ok {
			t.Fatalf("half-open clients pushed out established client %d", i)
		}
	}
	if s := b.Table.Stats(); s.Clients != 100 || s.Evicted == 0 || s.Refused != 40 {
		t.Errorf("%+v", s)
	}
	for i := range uint64(60) {
		b.Answered(a, at(1), StageEstablished, WhyPicked, spi(5000+i))
	}
	if _, ok := b.Table.Lookup(spi(9)); ok {
		t.Error("the client that was silent longest is still there")
	}
	if _, ok := b.Table.Lookup(spi(10)); !ok {
		t.Error("more clients were evicted than needed")
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}

// TestTableFlood is a flood of first packets: none of them is answered, so none
// leaves anything behind.
func TestTableFlood(t *testing.T) {
	b := newBalancer(t, "a", "b")
	for i := range uint64(100000) {
		f := Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Service: 500}
		b.mustRoute(t, begins(spi(i), f), f)
	}
	if s := b.Table.Stats(); s.Clients+s.Names+s.Sources+s.Bytes > 200 {
		t.Errorf("a flood left %+v", s)
	}
}

// What docs/configuration.md says of memory: a million entries, of 350,000 clients with two names and an address each.
func TestTableMillion(t *testing.T) {
	const clients = 350_000
	b := newBalancer(t, "a")
	a := b.member(t, "a")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range uint64(clients) {
		f := Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Service: 4500}
		if !b.Answered(a, f, StageEstablished, WhyPicked, spi(i), FlowKey(f)) {
			t.Fatalf("client %d was refused", i)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := b.Table.Stats()
	entries := s.Names + s.Sources
	if entries != 3*clients || a.Clients() != clients {
		t.Fatalf("%d entries, %d clients", entries, a.Clients())
	}
	heap := int(after.HeapAlloc - before.HeapAlloc)
	t.Logf("%d entries in %d bytes, %d each; the heap grew by %d", entries, s.Bytes, s.Bytes/entries, heap)
	if s.Bytes/entries > 80 || heap > s.Bytes*11/10 {
		t.Errorf("%d bytes for each entry, and the heap grew by %d", s.Bytes/entries, heap)
	}
}

func BenchmarkTable(b *testing.B) {
	const n = 1 << 20
	bal := newBalancer(b, "a", "b")
	bal.Table.MaxClients = n
	for i := range uint64(n) {
		f := Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500), Service: 4500}
		bal.Answered(bal.member(b, "a"), f, StageEstablished, WhyPicked, spi(i), FlowKey(f))
	}
	s := bal.Table.Stats()
	b.Run("route known", func(b *testing.B) {
		b.ReportAllocs()
		var v Verdict
		f := flow("10.0.0.1", 500, 4500)
		i := uint64(0)
		for b.Loop() {
			v.Keys[0] = spi(mix(i) % n)
			i++
			bal.Route(&v, f)
		}
		b.ReportMetric(float64(s.Bytes)/float64(s.Clients), "B/client")
		b.ReportMetric(float64(s.Bytes)/float64(s.Names+s.Sources), "B/entry")
	})
	b.Run("route new", func(b *testing.B) {
		b.ReportAllocs()
		f := flow("192.0.2.1", 500, 500)
		v := begins(spi(0), f)
		i := uint64(n)
		for b.Loop() {
			v.Keys[0] = spi(i)
			i++
			bal.Route(v, f)
		}
	})
	b.Run("bind and forget", func(b *testing.B) {
		b.ReportAllocs()
		f := flow("192.0.2.1", 500, 500)
		m := bal.member(b, "b")
		i := uint64(n)
		for b.Loop() {
			bal.Answered(m, f, StageEstablished, WhyPicked, spi(i))
			bal.Table.Forget(spi(i))
			i++
		}
	})
}

// BenchmarkNames gives clients that have as many names as they may another one, which
// pushes out their oldest: so a user of RADIUS gets a session with each login.
func BenchmarkNames(b *testing.B) {
	const clients = 1 << 16
	for _, most := range []int{4, DefaultMaxNames, 64} {
		b.Run(fmt.Sprintf("%d of %d clients", most, clients), func(b *testing.B) {
			bal := newBalancer(b, "a")
			bal.Table.MaxClients, bal.Table.MaxNames = clients, most
			m, f := bal.member(b, "a"), flow("192.0.2.1", 500, 1813)
			next := uint64(clients)
			login := func(user uint64) {
				next++
				bal.Answered(m, f, StageEstablished, WhyPicked, spi(user), spi(next))
			}
			for user := range uint64(clients) {
				for range most {
					login(user)
				}
			}
			if s := bal.Table.Stats(); s.Clients != clients || s.Names != clients*most {
				b.Fatalf("%d clients with %d names", s.Clients, s.Names)
			}
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				login(mix(i) % clients)
			}
		})
	}
}

func TestHalfOpenSweptBesideEstablished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a")
		m := b.member(t, "a")
		b.Table.MaxHalfOpenPerSource = 4
		f := flow("192.0.2.1", 500, 500)
		b.Answered(m, f, StageEstablished, WhyPicked, spi(1))
		time.Sleep(time.Minute)
		for i := range uint64(4) {
			b.Answered(m, f, StageHalfOpen, WhyPicked, spi(10+i))
		}
		time.Sleep(DefaultHalfOpen + 2*time.Second)
		if s := b.Table.Stats(); s.HalfOpen != 0 || m.Clients() != 1 {
			t.Errorf("%d half-open clients are left, the backend counts %d", s.HalfOpen, m.Clients())
		}
		if !b.Answered(m, f, StageHalfOpen, WhyPicked, spi(20)) {
			t.Error("clients whose time is over keep others of their address out")
		}
	})
}

func TestKeyOfSpace255(t *testing.T) {
	b := newBalancer(t, "a")
	f := flow("192.0.2.1", 500, 500)
	k := NewKey(255, f.Client.Addr().As16())
	if !b.Answered(b.member(t, "a"), f, StageEstablished, WhyPicked, k, spi(1)) {
		t.Fatal("not recorded")
	}
	if c, ok := b.Table.Lookup(k); !ok || len(c.Names) != 2 {
		t.Errorf("%+v, %v", c, ok)
	}
	if err := b.Table.check(); err != nil {
		t.Error(err)
	}
}
