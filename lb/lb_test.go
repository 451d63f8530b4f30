package lb

import (
	"fmt"
	"net/netip"
	"testing"
)

func backends(names ...string) []Backend {
	var out []Backend
	for i, n := range names {
		out = append(out, Backend{Name: n, Addr: netip.AddrFrom4([4]byte{10, 0, 1, byte(11 + i)})})
	}
	return out
}

// newBalancer returns a Balancer with these backends, all up.
func newBalancer(t testing.TB, names ...string) *Balancer {
	t.Helper()
	b := &Balancer{Pool: new(Pool), Table: new(Table)}
	if err := b.Pool.Set(backends(names...)...); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *Balancer) member(t testing.TB, name string) *Member {
	t.Helper()
	m := b.Pool.View().ByName(name)
	if m == nil {
		t.Fatalf("no backend %q", name)
	}
	return m
}

func flow(ip string, port, service uint16) Flow {
	return Flow{Client: netip.AddrPortFrom(netip.MustParseAddr(ip), port), Service: service}
}

func spi(n uint64) Key { return Uint64Key(SpaceProtocol, n) }

// begins is the verdict for a client that begins with name k at f.
func begins(k Key, f Flow) *Verdict {
	return &Verdict{Begin: true, Keys: [MaxKeys]Key{k}, Hints: [2]Key{FlowKey(f), AddrKey(f.Client.Addr())}}
}

func (b *Balancer) mustRoute(t testing.TB, v *Verdict, f Flow) Route {
	t.Helper()
	r, err := b.Route(v, f)
	if err != nil {
		t.Fatalf("Route(%v, %v): %v", v.Keys, f, err)
	}
	return r
}

func names(ms []*Member) string {
	s := ""
	for i, m := range ms {
		if i > 0 {
			s += " "
		}
		s += m.Name
	}
	return s
}

// check verifies every invariant of the Table's storage.
func (t *Table) check() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now()
	seen := make(map[uint32]int)
	for which, l := range []*list{&t.half, &t.full} {
		n, prev := 0, uint32(0)
		for c := l.head; c != 0; c = t.clients.items[c].next {
			r := &t.clients.items[c]
			if !t.clients.live(c) || r.prev != prev || (r.stage == StageEstablished) != (which == 1) || r.streams > 0 {
				return fmt.Errorf("client %d is wrong in list %d: %+v", c, which, r)
			}
			if prev != 0 && t.clients.items[prev].seen < r.seen {
				return fmt.Errorf("list %d isn't in order of time at client %d", which, c)
			}
			seen[c]++
			prev = c
			n++
		}
		if l.tail != prev || l.n != n {
			return fmt.Errorf("list %d has %d clients and tail %d, says %d and %d", which, n, prev, l.n, l.tail)
		}
	}
	counts := make(map[uint32]source)
	entries, clients := 0, 0
	for c := uint32(1); int(c) < len(t.clients.items); c++ {
		if !t.clients.live(c) {
			continue
		}
		clients++
		r := &t.clients.items[c]
		if (seen[c] == 1) != (r.streams == 0) {
			return fmt.Errorf("client %d is %d times in the lists with %d streams", c, seen[c], r.streams)
		}
		n, newer := 0, uint32(0)
		for e := r.first; e != 0; e, newer = t.names.items[e].link^newer, e {
			if t.names.items[e].owner != c || t.find(t.names.items[e].key) != e {
				return fmt.Errorf("name %v of client %d can't be found", t.names.items[e].key, c)
			}
			n++
		}
		if n != int(r.names) || newer != r.last {
			return fmt.Errorf("client %d has %d names and %d is the oldest, says %d and %d", c, n, newer, r.names, r.last)
		}
		entries += n
		s := counts[r.source]
		s.clients++
		if r.stage != StageEstablished {
			s.half++
		}
		counts[r.source] = s
	}
	for s, want := range counts {
		got := t.sources.items[s]
		if got.clients != want.clients || got.half != want.half || t.find(t.names.items[got.name].key) != got.name {
			return fmt.Errorf("source %d has %d clients (%d half-open), says %+v", s, want.clients, want.half, got)
		}
	}
	if t.sources.used()-1 != len(counts) || t.index.used != entries+len(counts) || t.names.used()-1 != t.index.used {
		return fmt.Errorf("%d sources for %d, %d names for %d, %d indexed", t.sources.used()-1, len(counts),
			t.names.used()-1, entries+len(counts), t.index.used)
	}
	if clients != t.clients.used()-1 {
		return fmt.Errorf("%d clients live, %d used", clients, t.clients.used()-1)
	}
	return nil
}
