package udp

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// flowKey is what tells flows of one shard apart: the client's address (in its
// 16-byte form), port and zone, and the number of the endpoint it sends to. It
// is made from a raw socket address for every packet, so it holds no pointer.
type flowKey struct {
	hi, lo uint64
	zone   uint32
	port   uint16
	end    uint16
}

func keyOf(client netip.AddrPort, end uint16) flowKey {
	a := client.Addr()
	b := a.As16()
	k := flowKey{
		hi: binary.BigEndian.Uint64(b[:8]), lo: binary.BigEndian.Uint64(b[8:]),
		port: client.Port(), end: end,
	}
	if z := a.Zone(); z != "" {
		k.zone = zoneID(z)
	}
	return k
}

// zoneID returns the number of an IPv6 zone.
func zoneID(zone string) uint32 {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

// client returns the address in k, an IPv4 address as such.
func (k flowKey) client() netip.AddrPort {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	a := netip.AddrFrom16(b).Unmap()
	if k.zone != 0 && a.Is6() {
		a = a.WithZone(strconv.FormatUint(uint64(k.zone), 10))
	}
	return netip.AddrPortFrom(a, k.port)
}

// flowTable finds flows by key: open addressing with linear probing, and removal
// by moving later entries of the same run back. A lookup that misses the cache
// once is several times faster than Go's map is with keys of this size. The hash
// is seeded, since clients choose their ports.
type flowTable struct {
	seed  [2]uint64
	slots []flowSlot
	used  int
}

type flowSlot struct {
	tag  uint64
	flow *flow
}

func (t *flowTable) tag(k *flowKey) uint64 {
	h1, l1 := bits.Mul64(k.hi^t.seed[0], k.lo^t.seed[1]|1)
	x := uint64(k.zone)<<32 | uint64(k.port)<<16 | uint64(k.end)
	h2, l2 := bits.Mul64(x^t.seed[1], h1^l1^0x9e3779b97f4a7c15)
	h3, l3 := bits.Mul64(k.lo^t.seed[0]^h2, l2|1)
	return h3 ^ l3
}

func (t *flowTable) find(k *flowKey) *flow {
	if t.used == 0 {
		return nil
	}
	tag, mask := t.tag(k), uint64(len(t.slots)-1)
	for i := tag & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.flow == nil {
			return nil
		}
		if s.tag == tag && s.flow.key == *k {
			return s.flow
		}
	}
}

// insert adds f, whose key isn't in the table yet.
func (t *flowTable) insert(f *flow) {
	if 4*(t.used+1) > 3*len(t.slots) {
		t.grow()
	}
	t.used++
	t.place(flowSlot{tag: t.tag(&f.key), flow: f})
}

func (t *flowTable) place(s flowSlot) {
	mask := uint64(len(t.slots) - 1)
	i := s.tag & mask
	for t.slots[i].flow != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

func (t *flowTable) grow() {
	if len(t.slots) == 0 {
		t.seed = [2]uint64{rand.Uint64(), rand.Uint64()}
	}
	old := t.slots
	t.slots = make([]flowSlot, max(2*len(old), 64))
	for _, s := range old {
		if s.flow != nil {
			t.place(s)
		}
	}
}

func (t *flowTable) remove(f *flow) {
	mask := uint64(len(t.slots) - 1)
	i := t.tag(&f.key) & mask
	for t.slots[i].flow != f {
		i = (i + 1) & mask
	}
	t.used--
	for j := i; ; {
		j = (j + 1) & mask
		s := t.slots[j]
		if s.flow == nil {
			break
		}
		if home := s.tag & mask; (j-home)&mask >= (j-i)&mask {
			t.slots[i] = s
			i = j
		}
	}
	t.slots[i] = flowSlot{}
}

// flowList is a list of flows, the one added last first.
type flowList struct {
	head, tail *flow
	n          int
}

func (l *flowList) push(f *flow) {
	f.prev, f.next, f.list = nil, l.head, l
	if l.head != nil {
		l.head.prev = f
	} else {
		l.tail = f
	}
	l.head = f
	l.n++
}

func (l *flowList) remove(f *flow) {
	if f.prev != nil {
		f.prev.next = f.next
	} else {
		l.head = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	} else {
		l.tail = f.prev
	}
	f.prev, f.next, f.list = nil, nil, nil
	l.n--
}
