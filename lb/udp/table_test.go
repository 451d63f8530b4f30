package udp

import (
	"math/rand/v2"
	"testing"
)

// TestFlowTable compares the table with a map, over a small set of keys so that
// runs form and are taken apart.
func TestFlowTable(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var table flowTable
	model := make(map[flowKey]*flow)
	for step := range 200000 {
		k := flowKey{lo: uint64(rnd.IntN(40)), port: uint16(rnd.IntN(10)), end: uint16(rnd.IntN(2))}
		if got := table.find(&k); got != model[k] {
			t.Fatalf("step %d: find %+v: %p, want %p", step, k, got, model[k])
		}
		switch f := model[k]; {
		case f == nil && rnd.IntN(2) == 0:
			f = &flow{key: k}
			table.insert(f)
			model[k] = f
		case f != nil && rnd.IntN(2) == 0:
			table.remove(f)
			delete(model, k)
		}
		if table.used != len(model) {
			t.Fatalf("step %d: %d used, want %d", step, table.used, len(model))
		}
	}
}

func TestFlowList(t *testing.T) {
	var l flowList
	flows := make([]flow, 3)
	for i := range flows {
		l.push(&flows[i])
	}
	l.remove(&flows[1])
	l.push(&flows[1])
	l.remove(&flows[0])
	if l.n != 2 || l.head != &flows[1] || l.tail != &flows[2] || l.head.next != l.tail || l.tail.prev != l.head {
		t.Errorf("list %+v", l)
	}
	l.remove(&flows[1])
	l.remove(&flows[2])
	if l != (flowList{}) {
		t.Errorf("empty list %+v", l)
	}
}

func BenchmarkFlowTable(b *testing.B) {
	const n = 1 << 16
	var table flowTable
	keys := make([]flowKey, n)
	for i := range keys {
		keys[i] = flowKey{lo: 0xffff<<32 | rand.Uint64()>>32, port: uint16(i)}
		table.insert(&flow{key: keys[i]})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if table.find(&keys[i%n]) == nil {
			b.Fatal("lost")
		}
		i += 7919
	}
}
