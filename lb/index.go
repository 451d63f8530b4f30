package lb

import "unsafe"

// The Table's storage holds no pointers, so that the garbage collector has
// nothing to look at however many clients there are. Entries live in slabs and
// are known by their number; an index of (hash, number) pairs finds them by
// name: open addressing, linear probing, and removal by moving later entries of
// the same run back, so that there are no tombstones.

type slot struct{ tag, n uint32 } // n is 0 in a free slot

type index struct {
	seed  uint64
	slots []slot
	used  int
}

const minSlots = 64

func (x *index) tag(k Key) uint32 { return uint32(k.hash(x.seed) >> 32) }

func (x *index) find(k Key, names []name) uint32 {
	if len(x.slots) == 0 {
		return 0
	}
	tag, mask := x.tag(k), uint32(len(x.slots)-1)
	for i := tag & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s.n == 0 {
			return 0
		}
		if s.tag == tag && names[s.n].key == k {
			return s.n
		}
	}
}

// insert adds entry n, whose key isn't in the index yet.
func (x *index) insert(n uint32, names []name) {
	if 4*(x.used+1) > 3*len(x.slots) {
		x.grow()
	}
	x.used++
	x.place(slot{tag: x.tag(names[n].key), n: n})
}

func (x *index) place(s slot) {
	mask := uint32(len(x.slots) - 1)
	i := s.tag & mask
	for x.slots[i].n != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

func (x *index) grow() {
	old := x.slots
	x.slots = make([]slot, max(2*len(old), minSlots))
	for _, s := range old {
		if s.n != 0 {
			x.place(s)
		}
	}
}

// remove takes entry n out. Its key must still be in names.
func (x *index) remove(n uint32, names []name) {
	mask := uint32(len(x.slots) - 1)
	i := x.tag(names[n].key) & mask
	for x.slots[i].n != n {
		i = (i + 1) & mask
	}
	x.used--
	for j := i; ; {
		j = (j + 1) & mask
		s := x.slots[j]
		if s.n == 0 {
			break
		}
		// s may move to i if that is not before where its run starts.
		if home := s.tag & mask; (j-home)&mask >= (j-i)&mask {
			x.slots[i] = s
			i = j
		}
	}
	x.slots[i] = slot{}
}

func (x *index) bytes() int { return cap(x.slots) * int(unsafe.Sizeof(slot{})) }

// slab is a slice whose elements keep their number, with a list of free ones.
type slab[T any] struct {
	items []T
	free  []uint32
	alive []uint64 // a bit for each item in use
}

func (s *slab[T]) alloc() uint32 {
	var n uint32
	if l := len(s.free); l > 0 {
		n = s.free[l-1]
		s.free = s.free[:l-1]
	} else {
		var zero T
		n = uint32(len(s.items))
		s.items = append(s.items, zero)
		if int(n)%64 == 0 {
			s.alive = append(s.alive, 0)
		}
	}
	s.alive[n/64] |= 1 << (n % 64)
	return n
}

func (s *slab[T]) release(n uint32) {
	var zero T
	s.items[n] = zero
	s.alive[n/64] &^= 1 << (n % 64)
	s.free = append(s.free, n)
}

func (s *slab[T]) live(n uint32) bool { return s.alive[n/64]&(1<<(n%64)) != 0 }

func (s *slab[T]) used() int { return len(s.items) - len(s.free) }

func (s *slab[T]) bytes() int {
	var zero T
	return cap(s.items)*int(unsafe.Sizeof(zero)) + cap(s.free)*4 + cap(s.alive)*8
}
