package fastpath

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb/udp"
)

// A table is where the kernel's programs look packets up: memory that is shared with
// them, and that is written here only. bpf/fastpath.c says by which rules.
//
// It is a hash table with open addressing and four places for each flow, so that it is
// never more than half full: then a record is at its place or at the next, mostly, in the
// same page. It has no pointers, and nothing beside: one line of memory is all that a
// packet takes.
type table struct {
	records []record // and probes more than there are places
	ways    []way    // by place; nobody else's
	pairs   []pairs
	seed    uint64
	limbo   []left        // oldest first
	waits   bool          // somebody waits for programs to end: for those that ran when
	passed  time.Time     // the last wait began, which is over
	grace   time.Duration // without; see below
	unused  []uint32
	touched uint32 // pairs from this on were never used
}

// way is what has to be known of a place, whoever is there.
type way struct {
	far  uint8 // how far the record is from where the search for it begins
	past uint8 // how many are found by searches that go past here
}

// left is a record, or also a pair, that a program which has found it may still be
// using.
type left struct {
	record, pairs uint32
	six           bool
	since         time.Time
}

// grace is for how long programs may go on using what they have found, as far as anybody
// can tell who doesn't ask the kernel (see barrier). They take less than a millisecond, but
// the processor of a virtual machine can be taken away.
const grace = time.Second

// What the status of a record says in place of a family.
const (
	stateFree  = 0xfe // it may be used, but searches go past it
	stateLimbo = 0xff // it may not be used yet

	// With stateLimbo: the record was of IPv6, so its pair may be in use, too.
	limboSix = 1 << 8
)

// familyOf are those of <sys/socket.h>.
const (
	family4 = 2
	family6 = 10
)

var (
	errTaken = errors.New("another flow has the same addresses and ports")
	errRoom  = errors.New("there is no place in the table")
)

// sizes returns how many records and pairs there are for flows. Each has two records, so
// the table will be half full; some more are for when flows are few. Of pairs, those of a
// quarter of the flows may wait, taken out just now, while as many others come.
func sizes(flows int) (records, pairs uint32) {
	return 4*uint32(flows) + 2*probes, 2*uint32(flows) + uint32(flows)/2 + probes
}

// status makes a record's.
func status(family, side uint8, backend, generation uint32) uint64 {
	return uint64(family) | uint64(side)<<8 | uint64(backend)<<16 | uint64(generation)<<32
}

func (t *table) places() int { return len(t.records) - probes }

func (t *table) status(at uint32) uint64 { return atomic.LoadUint64(&t.records[at].Status) }

func (t *table) setStatus(at uint32, s uint64) { atomic.StoreUint64(&t.records[at].Status, s) }

// key is what a record is known by, and its hash.
type key struct {
	family       uint8
	src, dst     [4]byte // a digest, of IPv6
	sport, dport [2]byte
	hash         uint64
}

// mix is that of the programs, with the same numbers.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// words are the first four octets of a and of b.
func words(a, b []byte) uint64 {
	return uint64(binary.NativeEndian.Uint32(a))<<32 | uint64(binary.NativeEndian.Uint32(b))
}

func (k *key) ports() uint64 {
	return uint64(binary.NativeEndian.Uint16(k.sport[:]))<<16 | uint64(binary.NativeEndian.Uint16(k.dport[:]))
}

// keyOf returns the key of a direction.
func (t *table) keyOf(p *path) key {
	k := key{sport: port(p.src.Port()), dport: port(p.dst.Port())}
	if p.src.Addr().Is4() {
		k.family, k.src, k.dst = family4, p.src.Addr().As4(), p.dst.Addr().As4()
		k.hash = mix(mix(t.seed, words(k.src[:], k.dst[:])), k.ports())
		return k
	}
	src, dst := p.src.Addr().As16(), p.dst.Addr().As16()
	h := mix(t.seed, k.ports())
	for i := 0; i < 16; i += 4 {
		h = mix(h, words(src[i:], dst[i:]))
	}
	k.family, k.hash = family6, h
	binary.NativeEndian.PutUint32(k.src[:], uint32(h>>32))
	binary.NativeEndian.PutUint32(k.dst[:], uint32(h))
	return k
}

// first returns where the search for k begins.
func (t *table) first(k *key) uint32 {
	high, _ := bits.Mul64(k.hash>>32<<32, uint64(t.places()))
	return uint32(high)
}

// firstOf returns where the search for the record at a place begins.
func (t *table) firstOf(at uint32) uint32 {
	r := &t.records[at]
	k := key{sport: r.Sport, dport: r.Dport, hash: words(r.Src[:], r.Dst[:])}
	if uint8(t.status(at)) == family4 {
		k.hash = mix(mix(t.seed, k.hash), k.ports())
	}
	return t.first(&k)
}

// is reports whether k's record is at a place.
func (t *table) is(at uint32, k *key) bool {
	r := &t.records[at]
	return uint8(t.status(at)) == k.family && r.Src == k.src && r.Dst == k.dst && r.Sport == k.sport && r.Dport == k.dport
}

// find returns where k's record is, or else where it could be; ok says whether either is
// so.
func (t *table) find(k *key) (at uint32, there, ok bool) {
	first := t.first(k)
	for i := first; i < first+probes; i++ {
		switch s := t.status(i); {
		case t.is(i, k):
			return i, true, true
		case s == 0 && !ok:
			return i, false, true
		case s == 0:
			return at, false, true
		case uint8(s) == stateFree && !ok:
			at, ok = i, true
		}
	}
	return at, false, ok
}

// put makes a record of a direction, with the status s.
func (t *table) put(p *path, s uint64, spi [spis]uint32) (uint32, error) {
	t.settle()
	k := t.keyOf(p)
	at, there, ok := t.find(&k)
	if there {
		// Of IPv6 it may be another with the same digest. Nobody will see that
		// happen, and if it does, the flow is the engine's.
		return 0, errTaken
	}
	if !ok {
		return 0, errRoom
	}
	r := record{
		Src: k.src, Dst: k.dst, Sport: k.sport, Dport: k.dport,
		ToSport: port(p.newSrc.Port()), ToDport: port(p.newDst.Port()), SPI: spi,
	}
	if k.family == family4 {
		r.ToSrc, r.ToDst = p.newSrc.Addr().As4(), p.newDst.Addr().As4()
	} else {
		n, ok := t.pair()
		if !ok {
			return 0, errRoom
		}
		t.pairs[n] = pairs{p.src.Addr().As16(), p.dst.Addr().As16(), p.newSrc.Addr().As16(), p.newDst.Addr().As16()}
		binary.NativeEndian.PutUint32(r.ToSrc[:], n)
	}
	r.Status = t.status(at) // so that nobody is there yet
	t.records[at] = r
	t.pass(at, uint8(at-t.first(&k)))
	t.setStatus(at, s)
	return at, nil
}

// pair returns the number of a pair that isn't used.
func (t *table) pair() (n uint32, ok bool) {
	if last := len(t.unused) - 1; last >= 0 {
		n = t.unused[last]
		t.unused = t.unused[:last]
		return n, true
	}
	if int(t.touched) >= len(t.pairs) {
		return 0, false
	}
	t.touched++
	return t.touched - 1, true
}

// drop takes a record out. Its counts can be read until it is used again.
func (t *table) drop(at uint32) {
	l, s := left{record: at, since: time.Now()}, uint64(stateLimbo)
	if uint8(t.status(at)) == family6 {
		l.six, l.pairs = true, t.pairOf(at)
		s |= limboSix
	}
	t.setStatus(at, s)
	t.limbo = append(t.limbo, l)
	for i := at - uint32(t.ways[at].far); i < at; i++ {
		t.ways[i].past--
		if uint8(t.status(i)) == stateFree {
			t.release(i)
		}
	}
	t.ways[at].far = 0
}

// pass has searches for what is at a place begin that far in front of it.
func (t *table) pass(at uint32, far uint8) {
	t.ways[at].far = far
	for i := at - uint32(far); i < at; i++ {
		t.ways[i].past++
	}
}

// release has a place be used again. If no search has to go past it, it is as if it had
// never been used: otherwise, after some days, there would be no such place left, and every
// search for what isn't there would go as far as one can.
func (t *table) release(at uint32) {
	if t.ways[at].past == 0 {
		t.setStatus(at, 0)
	} else {
		t.setStatus(at, stateFree)
	}
}

// pairOf returns the number of the pair of a record of IPv6.
func (t *table) pairOf(at uint32) uint32 { return binary.NativeEndian.Uint32(t.records[at].ToSrc[:]) }

// settle has what was taken out long enough ago be used again.
func (t *table) settle() {
	if len(t.limbo) == 0 {
		return
	}
	n, now := 0, time.Now()
	over := func(l *left) bool {
		if t.waits {
			return l.since.Before(t.passed)
		}
		return now.Sub(l.since) > t.grace
	}
	for n < len(t.limbo) && over(&t.limbo[n]) {
		l := &t.limbo[n]
		n++
		if l.six {
			t.unused = append(t.unused, l.pairs)
		}
		t.release(l.record)
	}
	t.limbo = t.limbo[n:]
}

// path returns the direction that a record is of.
func (t *table) path(at uint32) (p path, ok bool) {
	r := &t.records[at]
	switch uint8(t.status(at)) {
	case family4:
		return path{addr4(r.Src, r.Sport), addr4(r.Dst, r.Dport), addr4(r.ToSrc, r.ToSport), addr4(r.ToDst, r.ToDport)}, true
	case family6:
		if n := t.pairOf(at); int(n) < len(t.pairs) {
			a := &t.pairs[n]
			return path{addr6(a.Src, r.Sport), addr6(a.Dst, r.Dport), addr6(a.ToSrc, r.ToSport), addr6(a.ToDst, r.ToDport)}, true
		}
	}
	return p, false
}

// use returns what has been carried by the records of a flow.
func (t *table) use(at [2]uint32) udp.FastUse {
	up, down := &t.records[at[fromClient]], &t.records[at[fromBackend]]
	return udp.FastUse{
		ClientPackets: atomic.LoadUint64(&up.Packets), ClientBytes: atomic.LoadUint64(&up.Bytes),
		BackendPackets: atomic.LoadUint64(&down.Packets), BackendBytes: atomic.LoadUint64(&down.Bytes),
	}
}

// change has a record be of another status, and know other SPIs. It loses no count.
func (t *table) change(at uint32, s uint64, spi *[spis]uint32) {
	r := &t.records[at]
	for i := range spi {
		atomic.StoreUint32(&r.SPI[i], spi[i])
	}
	t.setStatus(at, s)
}

// begin has what an earlier process left in the table be as that had it, but for the times
// since which places have been left: these aren't known.
func (t *table) begin() {
	now, six := time.Now(), make([]bool, len(t.pairs))
	mine := func(at uint32) bool { // whether the record has a pair
		n := int(t.pairOf(at))
		if n >= len(six) || six[n] {
			return false
		}
		six[n], t.touched = true, max(t.touched, uint32(n)+1)
		return true
	}
	for at := range t.records {
		at := uint32(at)
		switch s := t.status(at); uint8(s) {
		case stateLimbo:
			l := left{record: at, since: now}
			if s&limboSix != 0 && mine(at) {
				l.six, l.pairs = true, t.pairOf(at)
			}
			t.limbo = append(t.limbo, l)
		case family4, family6:
			if uint8(s) == family6 {
				mine(at)
			}
			if far := at - t.firstOf(at); far < probes {
				t.pass(at, uint8(far))
			}
		}
	}
	for at := range t.records {
		if at := uint32(at); uint8(t.status(at)) == stateFree {
			t.release(at)
		}
	}
	for n, used := range six[:t.touched] {
		if !used {
			t.unused = append(t.unused, uint32(n))
		}
	}
}

func addr4(a [4]byte, p [2]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a), binary.BigEndian.Uint16(p[:]))
}

func addr6(a [16]byte, p [2]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a), binary.BigEndian.Uint16(p[:]))
}
