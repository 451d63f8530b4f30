package lb

import (
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// weighted returns a View with backends of these weights.
func weighted(t testing.TB, weights ...int) (*Pool, *View) {
	t.Helper()
	p := new(Pool)
	var bs []Backend
	for i, w := range weights {
		b := backends("x")[0]
		b.Name, b.Weight = fmt.Sprintf("b%02d", i), w
		bs = append(bs, b)
	}
	if err := p.Set(bs...); err != nil {
		t.Fatal(err)
	}
	return p, p.View()
}

func TestPickersKeepWeights(t *testing.T) {
	for _, weights := range [][]int{{1}, {1, 1}, {5, 1, 1}, {0, 2}, {3, -1, 1}, {100, 1}, {7, 11, 13, 17, 19}, {65535, 65534}} {
		for name, p := range map[string]Picker{"maglev": new(Maglev), "round robin": new(RoundRobin), "least clients": LeastClients{}} {
			_, v := weighted(t, weights...)
			const n = 20000
			got := make(map[string]int)
			sum := 0.0
			for _, m := range v.Ready {
				sum += float64(m.Share)
			}
			for i := range uint64(n) {
				m := p.Pick(spi(i), v)
				m.load.clients.Add(1)
				got[m.Name]++
			}
			for _, m := range v.Members {
				want := n * math.Max(float64(m.Share), 0) / sum
				// A per cent of all for the table's rows, and what chance does.
				if d := math.Abs(float64(got[m.Name]) - want); d > n*0.012+4*math.Sqrt(want) {
					t.Errorf("%s, weights %v: %s got %d, want %.0f", name, weights, m.Name, got[m.Name], want)
				}
			}
		}
	}
}

func TestPickersEmptyView(t *testing.T) {
	for _, p := range []Picker{new(Maglev), new(RoundRobin), LeastClients{}} {
		if m := p.Pick(spi(1), new(View)); m != nil {
			t.Errorf("%T picked %v of nobody", p, m)
		}
	}
}

// When a backend leaves, its clients go elsewhere and hardly anybody else does.
func TestMaglevMovesFew(t *testing.T) {
	p, v := weighted(t, 1, 1, 1, 1, 1)
	before := make(map[uint64]string)
	const n = 20000
	for i := range uint64(n) {
		before[i] = new(Maglev).tableFor(v).pick(spi(i)).Name
	}
	p.Mark("b02", Down, "")
	after := new(Maglev).tableFor(p.View())
	moved := 0
	for i, was := range before {
		now := after.pick(spi(i)).Name
		if now == "b02" {
			t.Fatal("a backend that is down was picked")
		}
		if was != "b02" && was != now {
			moved++
		}
	}
	if moved > n/10 {
		t.Errorf("%d of %d clients of other backends moved", moved, n)
	}
}

func TestLeastClients(t *testing.T) {
	_, v := weighted(t, 1, 2)
	v.Members[0].load.clients.Add(10)
	v.Members[1].load.clients.Add(15)
	for i := range uint64(50) {
		if m := (LeastClients{}).Pick(spi(i), v); m.Name != "b01" {
			t.Fatalf("picked %s with 10 of weight 1 against 15 of weight 2", m.Name)
		}
	}
}

// A thousand clients that come before any is answered must not all go to one.
func TestLeastClientsRush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBalancer(t, "a", "b", "c")
		b.Picker = LeastClients{}
		b.member(t, "a").load.clients.Add(100)
		f := flow("192.0.2.1", 500, 500)
		rush := func(first uint64) map[string]int {
			got := make(map[string]int)
			for i := range uint64(1000) {
				got[b.mustRoute(t, &Verdict{Begin: true, Keys: [MaxKeys]Key{spi(first + i)}}, f).Member.Name]++
			}
			return got
		}
		if got := rush(0); got["a"] < 250 || got["a"] > 275 || got["b"] < 360 || got["c"] < 360 {
			t.Errorf("the rush went to %v, with 100 clients at a before", got)
		}
		time.Sleep(2 * time.Second) // nobody was answered: nobody waits any more
		if got := rush(1000); got["a"] < 250 || got["a"] > 275 {
			t.Errorf("the second rush went to %v", got)
		}
	})
}

func TestRoundRobinSpreads(t *testing.T) {
	_, v := weighted(t, 5, 1, 1)
	var p RoundRobin
	last, run := "", 0
	for i := range uint64(70) {
		m := p.Pick(spi(i), v)
		if m.Name != last {
			last, run = m.Name, 0
		}
		if run++; run > 4 {
			t.Fatalf("%s five times in a row", last)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	_, v := weighted(b, 1, 2, 3, 4, 5)
	for name, p := range map[string]Picker{"maglev": new(Maglev), "roundrobin": new(RoundRobin), "leastclients": LeastClients{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			i := uint64(0)
			for b.Loop() {
				p.Pick(spi(i), v)
				i++
			}
		})
	}
}
