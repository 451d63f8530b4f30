package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/lb/udp"
)

func newTable(maxFlows int) *table {
	n, m := sizes(maxFlows)
	return &table{records: make([]record, n), pairs: make([]pairs, m), ways: make([]way, n), seed: 0x1234567, grace: grace}
}

// manyth is the i-th of many directions, of both families.
func manyth(i int) path {
	ends := func(a string, j, p int) netip.AddrPort {
		addr := netip.MustParseAddr(a)
		b := addr.AsSlice()
		binary.BigEndian.PutUint16(b[len(b)-2:], uint16(j))
		b[len(b)-3] = byte(j >> 16)
		addr, _ = netip.AddrFromSlice(b)
		return netip.AddrPortFrom(addr, uint16(p))
	}
	if i%4 == 3 {
		return path{ends("2001:db8:1::", i, 1024+i%50000), ends("2001:db8:2::", 1, 4500), ends("2001:db8:3::", 1, 1024+i%60000), ends("2001:db8:4::", i%7, 4500)}
	}
	return path{ends("10.0.0.0", i, 1024+i%50000), ends("192.0.2.0", 1, 4500), ends("192.0.2.0", 2, 1024+i%60000), ends("198.51.100.0", i%7, 4500)}
}

func statusOf(p *path, side int) uint64 {
	if p.src.Addr().Is4() {
		return status(family4, uint8(side), 7, 9)
	}
	return status(family6, uint8(side), 7, 9)
}

// The forms of the tables' values here and in the program are the same.
func TestLayout(t *testing.T) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]uintptr{
		"records": unsafe.Sizeof(record{}), "pairs6": unsafe.Sizeof(pairs{}), "devices": unsafe.Sizeof(device{}), "states": unsafe.Sizeof(state{}),
	} {
		if m := spec.Maps[name]; m == nil || uintptr(m.ValueSize) != size {
			t.Errorf("%s: %+v, want values of %d octets", name, m, size)
		}
	}
	if unsafe.Sizeof(record{}) != 64 {
		t.Error("a record doesn't fill a line of the cache")
	}
}

// There is no table whose size can't be counted: it would be a small one.
func TestTableSize(t *testing.T) {
	for _, n := range []int{mostFlows + 1, 1 << 30} {
		if p, err := Open(Config{MaxFlows: n}); err == nil || !strings.Contains(err.Error(), "MaxFlows") {
			t.Errorf("of %d flows: %v", n, err)
			if err == nil {
				_ = p.Close(false)
			}
		}
	}
	if r, p := sizes(mostFlows); uint64(r)*uint64(unsafe.Sizeof(record{})) >= 1<<31 || uint64(p)*uint64(unsafe.Sizeof(pairs{})) >= 1<<31 {
		t.Errorf("%d flows are more than 32 bits count: %d records, %d pairs", mostFlows, r, p)
	}
}

// What is in the table is found, and nothing else is, whatever comes and goes. What a
// program may still be using isn't touched.
func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const flows = 200
		r, x := rand.New(rand.NewPCG(1, 2)), newTable(flows)
		there := make(map[int]uint32)
		type gone struct {
			when time.Time
			r    record
			p    pairs
		}
		left := make(map[uint32]gone)
		refused := 0
		for range 20000 {
			i := r.IntN(3 * flows)
			p := manyth(i)
			k := x.keyOf(&p)
			at, have := there[i]
			if was, found, _ := x.find(&k); found != have || have && was != at {
				t.Fatalf("%v is at %d: %v; want %d: %v", p, was, found, at, have)
			}
			switch {
			case have && r.IntN(2) == 0:
				if got, ok := x.path(at); !ok || got != p {
					t.Fatalf("%v became %v, %v", p, got, ok)
				}
				x.records[at].Packets += 3
				before := gone{time.Now(), x.records[at], pairs{}}
				if p.src.Addr().Is6() {
					before.p = x.pairs[x.pairOf(at)]
				}
				x.drop(at)
				left[at] = before
				delete(there, i)
			case have:
				_, err := x.put(&p, statusOf(&p, 0), [spis]uint32{})
				if err != errTaken {
					t.Fatalf("%v twice: %v", p, err)
				}
			case len(there) < 2*flows:
				at, err := x.put(&p, statusOf(&p, 0), [spis]uint32{1, 2, 3, 4})
				if err != nil {
					refused++ // all that is free may have been left just now
					break
				}
				if at-x.first(&k) >= probes || x.records[at].Packets != 0 {
					t.Fatalf("%v is at %d, from %d on, with %d packets", p, at, x.first(&k), x.records[at].Packets)
				}
				there[i] = at
			}
			for at, g := range left {
				if time.Since(g.when) > grace {
					delete(left, at)
					continue
				}
				now := x.records[at]
				now.Status = g.r.Status
				if now != g.r || uint8(g.r.Status) == family6 && x.pairs[x.pairOf(at)] != g.p {
					t.Fatalf("%v after it was left, record %d became %+v, was %+v", time.Since(g.when), at, now, g.r)
				}
			}
			time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
		}
		if len(there) < flows || refused > 100 {
			t.Errorf("%d are there at the end, %d were refused", len(there), refused)
		}
		for i, at := range there {
			x.drop(at)
			delete(there, i)
		}
		time.Sleep(2 * grace)
		x.settle()
		for at := range x.records {
			if s := x.records[at].Status; s != 0 {
				t.Errorf("record %d: status %x", at, s)
			}
		}
		if used := int(x.touched) - len(x.unused); used != 0 {
			t.Errorf("%d pairs are missing", used)
		}
		if slices.ContainsFunc(x.ways, func(w way) bool { return w != way{} }) {
			t.Error("searches go past places, for nothing")
		}
	})
}

// As many flows fit as there may be, and searches are short.
func TestTableFull(t *testing.T) {
	for _, flows := range []int{1, 3, 100, 1 << 16} {
		x, steps, refused := newTable(flows), 0, 0
		for i := range 2 * flows {
			p := manyth(i)
			at, err := x.put(&p, statusOf(&p, 0), [spis]uint32{})
			if err != nil {
				refused++
				continue
			}
			k := x.keyOf(&p)
			steps += int(at-x.first(&k)) + 1
		}
		if refused > 0 {
			t.Errorf("of %d directions %d were refused", 2*flows, refused)
		}
		if mean := float64(steps) / float64(2*flows); mean > 1.7 && flows > 1000 {
			t.Errorf("of %d flows, a search takes %.2f steps", flows, mean)
		}
	}
}

// ways counts them.
func ways(x *table) []way {
	w := make([]way, len(x.ways))
	for at := range x.records {
		p, ok := x.path(uint32(at))
		if !ok {
			continue
		}
		k := x.keyOf(&p)
		first := int(x.first(&k))
		w[at].far = uint8(at - first)
		for i := first; i < at; i++ {
			w[i].past++
		}
	}
	return w
}

// However many flows have come and gone, searches are short, for what isn't there too: these
// are what every other datagram of the machine costs.
func TestTableAges(t *testing.T) {
	const flows = 1 << 11
	x, r := newTable(flows), rand.New(rand.NewPCG(1, 2))
	x.grace = 0
	var there []uint32
	refused, next := 0, 0
	add := func() {
		for {
			p := manyth(next)
			next = (next + 1) % (1 << 20)
			at, err := x.put(&p, statusOf(&p, 0), [spis]uint32{})
			if err == nil {
				there = append(there, at)
				return
			}
			refused++
		}
	}
	for range 2 * flows {
		add()
	}
	for range 50 * flows { // it is as bad then as it becomes
		i := r.IntN(len(there))
		x.drop(there[i])
		there[i] = there[len(there)-1]
		there = there[:len(there)-1]
		add()
	}
	if diff := cmp.Diff(ways(x), x.ways, cmp.AllowUnexported(way{})); diff != "" {
		t.Errorf("searches (-are, +as known):\n%s", diff)
	}
	found, missed := 0, 0
	for _, at := range there {
		found += int(at-x.firstOf(at)) + 1
	}
	for first := range x.places() {
		for i := 0; i < probes && x.status(uint32(first+i)) != 0; i++ {
			missed++
		}
		missed++
	}
	a, b := float64(found)/float64(len(there)), float64(missed)/float64(x.places())
	t.Logf("a search takes %.2f steps, one for nothing %.2f; %d were refused", a, b, refused)
	if a > 4 || b > 12 || refused > 10 {
		t.Error("that is too much")
	}
}

// When all flows that there may be are of IPv6, a quarter of them can be replaced at once.
func TestTableReplaced(t *testing.T) {
	const flows = 1000
	x := newTable(flows)
	var at []uint32
	for i := range 2*flows + flows/2 {
		if i >= 2*flows {
			x.drop(at[i-2*flows])
		}
		p := manyth(4*i + 3)
		n, err := x.put(&p, statusOf(&p, i%2), [spis]uint32{})
		if err != nil {
			t.Fatalf("the %d-th: %v", i, err)
		}
		at = append(at, n)
	}
}

// A process that comes after another knows which places and pairs are free.
func TestTableBegin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTable(100)
		var at []uint32
		for i := range 80 {
			p := manyth(i)
			n, err := x.put(&p, statusOf(&p, i%2), [spis]uint32{})
			if err != nil {
				t.Fatal(err)
			}
			at = append(at, n)
		}
		for _, n := range at[20:40] {
			x.drop(n)
		}
		y := newTable(100)
		y.records, y.pairs = x.records, x.pairs
		y.begin()
		// A program may still be using what was taken out just before.
		if used := int(y.touched) - len(y.unused); len(y.limbo) != 20 || used != 20 {
			t.Errorf("%d records wait, %d pairs are used; want 20 and 20", len(y.limbo), used)
		}
		time.Sleep(2 * grace)
		y.settle()
		if used := int(y.touched) - len(y.unused); len(y.limbo) != 0 || used != 15 {
			t.Errorf("later, %d records wait, %d pairs are used; want 0 and 15", len(y.limbo), used)
		}
		if diff := cmp.Diff(ways(y), y.ways, cmp.AllowUnexported(way{})); diff != "" {
			t.Errorf("searches (-are, +as known):\n%s", diff)
		}
		for i := range 80 {
			p := manyth(i)
			k := y.keyOf(&p)
			if n, there, _ := y.find(&k); there != (i < 20 || i >= 40) || there && n != at[i] {
				t.Errorf("%d is at %d: %v", i, n, there)
			}
		}
		for i := 20; i < 40; i++ {
			p := manyth(i)
			if _, err := y.put(&p, statusOf(&p, 0), [spis]uint32{}); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}
	})
}

// Places are used again when the kernel has said that nobody uses them any more, however
// much time has passed, and after a while where it isn't asked.
func TestBarrier(t *testing.T) {
	x := newBench(t)
	x.p.table.grace = 0
	limbo := func() int {
		x.p.mu.Lock()
		defer x.p.mu.Unlock()
		x.p.table.settle()
		return len(x.p.table.limbo)
	}
	leave := func() {
		x.c.End(x.carry(natFlow4))
		time.Sleep(time.Millisecond)
	}
	x.p.startSettling()
	leave()
	if n := limbo(); n != 2 {
		t.Errorf("%d records wait, want 2", n)
	}
	x.p.settle()
	if n := limbo(); n != 0 {
		t.Errorf("%d records wait for programs that have ended", n)
	}
	leave()
	if n := limbo(); n != 2 {
		t.Errorf("what was left after the last wait: %d records wait, want 2", n)
	}
	x.p.stopSettling()
	if n := limbo(); n != 0 {
		t.Errorf("without a barrier, %d records wait", n)
	}
	x.p.settle()
	leave()
	if n := limbo(); n != 0 {
		t.Errorf("without a barrier, and asked for it, %d records wait", n)
	}
}

// While flows come, change and go, a program that runs at the same time sends no packet
// anywhere but where its flow leads.
func TestTableShared(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	x.p.startSettling()
	defer x.p.stopSettling()
	flow := func(i int) udp.FastFlow {
		f := natFlow4
		f.Client, f.Local = netip.AddrPortFrom(f.Client.Addr(), uint16(1000+i)), netip.AddrPortFrom(f.Local.Addr(), uint16(40000+i))
		return f
	}
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n, used := 0, time.Now()
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if time.Since(used) > 20*time.Millisecond { // so that places are used often
				x.p.settle()
				used = time.Now()
			}
			f := flow(rand.IntN(8))
			id, ok := x.c.Carry(f, payload(spiUp, 20), false)
			if !ok {
				continue
			}
			n++
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
			if rand.IntN(3) == 0 {
				x.c.Revoke(f.Backend.Addr())
			}
			x.c.Carry(f, payload(rand.Uint32()|1<<31, 20), true)
			x.c.End(id)
		}
	}()
	carried := 0
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		f := flow(rand.IntN(8))
		in := packet{from: macC, to: macA, src: f.Client, dst: f.Listener, ttl: 64, b: payload(spiUp, 40)}.bytes()
		want := packet{from: macB, to: macG, src: f.Local, dst: f.Backend, ttl: 63, b: payload(spiUp, 40)}.bytes()
		for range 200 {
			ret, out := x.xdp(in, x.a)
			switch {
			case ret == ranRedirect && bytes.Equal(out, want):
				carried++
			case ret != ranPass || !bytes.Equal(out, in):
				t.Fatalf("returned %d, and sent\n%x, want\n%x", ret, out, want)
			}
		}
	}
	close(stop)
	if n := <-done; carried == 0 || n == 0 {
		t.Errorf("%d packets were carried, flows came %d times", carried, n)
	}
}

// A line of IPv6 whose digest is another flow's isn't taken for that.
func TestDigest(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	x.carry(natFlow6)
	d := directions(natFlow6)[0]
	up := paths(&natFlow6)[fromClient]
	k := x.p.table.keyOf(&up)
	at, _, _ := x.p.table.find(&k)
	pair := &x.p.table.pairs[x.p.table.pairOf(at)]
	was := *pair
	for _, b := range [][]byte{pair.Src[:], pair.Dst[:]} {
		for i := range b {
			b[i]++
			if ret, _ := x.xdp(d.in.bytes(), x.a); ret != ranPass {
				t.Errorf("with other addresses, %x: returned %d", b, ret)
			}
			*pair = was
		}
	}
	if ret, _ := x.xdp(d.in.bytes(), x.a); ret != ranRedirect {
		t.Errorf("returned %d", ret)
	}
}

func BenchmarkTable(b *testing.B) {
	for _, flows := range []int{1000, 100000} {
		b.Run(fmt.Sprint(flows), func(b *testing.B) {
			x := newTable(flows)
			var at []uint32
			for i := range 2*flows - 2 {
				p := manyth(4 * i) // IPv4
				n, err := x.put(&p, statusOf(&p, 0), [spis]uint32{})
				if err != nil {
					b.Fatal(err)
				}
				at = append(at, n)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p, ok := x.path(at[i%len(at)])
				k := x.keyOf(&p)
				if _, there, _ := x.find(&k); !ok || !there {
					b.Fatal("it isn't there")
				}
			}
		})
	}
}
