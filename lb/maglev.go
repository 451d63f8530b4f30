package lb

import "sync/atomic"

// Maglev picks by a hash of the client's key, weighted: the same key gets the
// same backend on every balancer that has the same backends, and a backend that
// comes or goes moves few other clients (Eisenbud et al., Maglev, NSDI 2016).
// The zero Maglev is ready for use.
type Maglev struct {
	table atomic.Pointer[maglevTable]
}

type maglevTable struct {
	view *View
	rows []uint16 // of view.Ready
}

// maglevSizes are primes; the table has about a hundred rows a backend, so
// that shares are right to a per cent.
var maglevSizes = [...]int{251, 1021, 4093, 16381, 65537}

// Pick returns the backend of k.
func (p *Maglev) Pick(k Key, v *View) *Member {
	if len(v.Ready) == 0 {
		return nil
	}
	return p.tableFor(v).pick(k)
}

// tableFor returns the table of v. After a change, which is rare, several
// goroutines may make the same one at once; that is cheaper than a lock on each
// pick.
func (p *Maglev) tableFor(v *View) *maglevTable {
	t := p.table.Load()
	if t == nil || t.view != v {
		t = newMaglev(v)
		p.table.Store(t)
	}
	return t
}

func (t *maglevTable) pick(k Key) *Member {
	return t.view.Ready[t.rows[k.hash(0)%uint64(len(t.rows))]]
}

func newMaglev(v *View) *maglevTable {
	top := 0
	for _, m := range v.Ready {
		top = max(top, m.Share)
	}
	size := maglevSizes[len(maglevSizes)-1]
	for _, s := range maglevSizes {
		if s >= 100*len(v.Ready) {
			size = s
			break
		}
	}
	t := &maglevTable{view: v, rows: make([]uint16, size)}
	const free = 1<<16 - 1
	for i := range t.rows {
		t.rows[i] = free
	}
	// Each backend has its own order of the rows, made from its name; in turn
	// they take their next free row, as often as their share says.
	type seat struct{ at, step, credit int }
	seats := make([]seat, len(v.Ready))
	for i, m := range v.Ready {
		h := HashKey(SpaceProtocol, []byte(m.Name))
		seats[i] = seat{at: int(h.hi % uint64(size)), step: 1 + int(h.lo%uint64(size-1))}
	}
	for left := size; left > 0; {
		for i, m := range v.Ready {
			s := &seats[i]
			s.credit += m.Share
			if s.credit < top {
				continue
			}
			s.credit -= top
			for t.rows[s.at] != free {
				s.at = (s.at + s.step) % size
			}
			t.rows[s.at] = uint16(i)
			if left--; left == 0 {
				break
			}
		}
	}
	return t
}
