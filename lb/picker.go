package lb

import (
	"sync/atomic"
	"time"
)

// A Picker chooses a backend for a client that is new. It chooses among
// v.Ready, which the Pool has already narrowed to what may take new clients:
// up, and of the active priority. It must not retain v, block or allocate, save
// for what it prepares once for each View. It is called from several goroutines
// at once.
type Picker interface {
	// Pick returns one of v.Ready, or nil if there is none to be had.
	Pick(k Key, v *View) *Member
}

// PickerFunc is a function as a Picker.
type PickerFunc func(k Key, v *View) *Member

// Pick calls f.
func (f PickerFunc) Pick(k Key, v *View) *Member { return f(k, v) }

// LeastClients picks the backend with the fewest clients for its share. Clients
// picked for within the last second that haven't been answered yet count too:
// or a rush of clients would all fall on the backend that had the fewest when it
// began.
type LeastClients struct{}

// Pick returns the backend with the fewest clients.
func (LeastClients) Pick(k Key, v *View) *Member {
	n := len(v.Ready)
	if n == 0 {
		return nil
	}
	now := uint32(time.Now().Unix())
	first := int(k.hash(0) % uint64(n)) // of several with equal loads, the key decides
	best := v.Ready[first]
	load := best.Clients() + best.load.waiting(now)
	for i := 1; i < n; i++ {
		m := v.Ready[(first+i)%n]
		// (clients+1)/share, multiplied out.
		if l := m.Clients() + m.load.waiting(now); (l+1)*best.Share < (load+1)*m.Share {
			best, load = m, l
		}
	}
	return best
}

// RoundRobin picks the backends in turn, each as often as its share says, and
// spread evenly. It is the one Picker that doesn't give the same client the same
// backend twice. The zero RoundRobin is ready for use.
type RoundRobin struct {
	next atomic.Uint64
	turn atomic.Pointer[turns]
}

type turns struct {
	view  *View
	order []uint16 // of view.Ready
}

// Pick returns the backend whose turn it is.
func (p *RoundRobin) Pick(_ Key, v *View) *Member {
	if len(v.Ready) == 0 {
		return nil
	}
	t := p.turn.Load()
	if t == nil || t.view != v {
		t = newTurns(v)
		p.turn.Store(t)
	}
	return v.Ready[t.order[p.next.Add(1)%uint64(len(t.order))]]
}

// newTurns lays out one round. In each step every backend gains its share, and
// the one that has most pays the sum of all: so a weight of 5 beside two of 1
// gives a a b a c a a and not a a a a a b c (smooth weighted round robin, as in
// nginx).
func newTurns(v *View) *turns {
	const most = 8192 // steps in a round
	sum, div := 0, 0
	for _, m := range v.Ready {
		div = gcd(div, m.Share)
	}
	for _, m := range v.Ready {
		sum += m.Share / div
	}
	scale := 1 + (sum-1)/most
	share := make([]int, len(v.Ready))
	sum = 0
	for i, m := range v.Ready {
		share[i] = max(m.Share/div/scale, 1)
		sum += share[i]
	}
	t := &turns{view: v, order: make([]uint16, sum)}
	credit := make([]int, len(share))
	for step := range t.order {
		best := 0
		for i := range credit {
			credit[i] += share[i]
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= sum
		t.order[step] = uint16(best)
	}
	return t
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
