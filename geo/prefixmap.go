package geo

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sort"
)

// A prefixMap maps every address to a class, by prefixes that don't overlap and
// together hold all addresses. Neighbours of one class have become one prefix,
// so that prefixes are as short as they can be. It is immutable.
//
// It is two sorted lists. That of IPv4 has an index by the first 16 bits, so
// that a search is a few steps.
type prefixMap struct {
	v4    []leaf4
	index []uint32 // of the leaf that holds a.b.0.0
	v6    []leaf6
}

type leaf4 struct {
	first uint32
	class uint32 // << 8 | bits
}

type leaf6 struct {
	hi, lo uint64
	class  uint32 // << 8 | bits
}

// maxClasses is how many classes a map can tell apart.
const maxClasses = 1 << 24

func pack(class uint32, bits int) uint32 { return class<<8 | uint32(bits) }

// find returns the class of an address and the length of the prefix that holds
// it.
func (m *prefixMap) find(addr netip.Addr) (class uint32, bits int) {
	if addr.Is4() {
		return m.find4(addr)
	}
	a := addr.As16()
	hi, lo := binary.BigEndian.Uint64(a[:]), binary.BigEndian.Uint64(a[8:])
	i, j := 0, len(m.v6)
	for i < j {
		h := int(uint(i+j) >> 1)
		l := &m.v6[h]
		if l.hi < hi || l.hi == hi && l.lo <= lo {
			i = h + 1
		} else {
			j = h
		}
	}
	l := m.v6[i-1]
	return l.class >> 8, int(l.class & 0xff)
}

func (m *prefixMap) find4(addr netip.Addr) (class uint32, bits int) {
	b := addr.As4()
	a := binary.BigEndian.Uint32(b[:])
	i, j := int(m.index[a>>16]), len(m.v4)
	if k := int(a>>16) + 1; k < len(m.index) {
		j = int(m.index[k]) + 1 // the leaf that holds the first address behind
	}
	i++ // that leaf starts at or before a
	for i < j {
		h := int(uint(i+j) >> 1)
		if m.v4[h].first <= a {
			i = h + 1
		} else {
			j = h
		}
	}
	l := m.v4[i-1]
	return l.class >> 8, int(l.class & 0xff)
}

// buildMap asks classify for every block of addresses.
//
// classify returns the class of addr and a block around it in which all have
// that class; the block may be smaller than it could be. progress, if not nil,
// is called now and then with the part that is done, and ends the work by
// returning an error.
func buildMap(classify func(netip.Addr) (uint32, netip.Prefix), progress func(done float64) error) (*prefixMap, error) {
	m := new(prefixMap)
	b := builder{classify: classify, progress: progress}
	leaves, err := b.walk(netip.IPv4Unspecified(), 0, 0.5)
	if err != nil {
		return nil, err
	}
	m.v4 = make([]leaf4, len(leaves))
	for i, l := range leaves {
		a := l.prefix.Addr().As4()
		m.v4[i] = leaf4{first: binary.BigEndian.Uint32(a[:]), class: pack(l.class, l.prefix.Bits())}
	}
	m.index = make([]uint32, 1<<16)
	for i := range m.index {
		a := uint32(i) << 16
		n := sort.Search(len(m.v4), func(k int) bool { return m.v4[k].first > a })
		m.index[i] = uint32(n - 1)
	}
	leaves, err = b.walk(netip.IPv6Unspecified(), 0.5, 0.5)
	if err != nil {
		return nil, err
	}
	m.v6 = make([]leaf6, len(leaves))
	for i, l := range leaves {
		a := l.prefix.Addr().As16()
		m.v6[i] = leaf6{hi: binary.BigEndian.Uint64(a[:]), lo: binary.BigEndian.Uint64(a[8:]), class: pack(l.class, l.prefix.Bits())}
	}
	return m, nil
}

type leaf struct {
	prefix netip.Prefix
	class  uint32
}

type builder struct {
	classify func(netip.Addr) (uint32, netip.Prefix)
	progress func(float64) error
}

// walk lists the leaves of one address family, in order.
//
// Blocks come one behind the other. Each that turns out to be the second half
// of a block whose first half has the same class is joined with it, again and
// again, like carrying in an addition.
func (b *builder) walk(at netip.Addr, done, share float64) (list []leaf, err error) {
	for n := 0; ; n++ {
		class, p := b.classify(at)
		for p.Masked().Addr() != at { // it must not reach back: use what lies ahead
			p = netip.PrefixFrom(at, p.Bits()+1)
		}
		p = p.Masked()
		list = append(list, leaf{p, class})
		list = carry(list)
		next := behind(p)
		if !next.IsValid() {
			return list, nil
		}
		at = next
		if n&0xfff == 0xfff && b.progress != nil {
			if err := b.progress(done + share*fraction(at)); err != nil {
				return nil, err
			}
		}
	}
}

func carry(list []leaf) []leaf {
	for len(list) > 1 {
		x, y := &list[len(list)-2], list[len(list)-1]
		n := y.prefix.Bits()
		if n == 0 || x.prefix.Bits() != n || x.class != y.class {
			break
		}
		up := netip.PrefixFrom(x.prefix.Addr(), n-1).Masked()
		if up.Addr() != x.prefix.Addr() || !up.Contains(y.prefix.Addr()) {
			break
		}
		x.prefix = up
		list = list[:len(list)-1]
	}
	return list
}

// behind returns the first address behind a prefix; it isn't valid if there is
// none.
func behind(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		a, carry := bits.Add32(binary.BigEndian.Uint32(b[:]), uint32(uint64(1)<<(32-p.Bits())), 0)
		if carry != 0 || p.Bits() == 0 {
			return netip.Addr{}
		}
		binary.BigEndian.PutUint32(b[:], a)
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	hi, lo := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	var carry uint64
	switch n := p.Bits(); {
	case n == 0:
		return netip.Addr{}
	case n <= 64:
		hi, carry = bits.Add64(hi, 1<<(64-n), 0)
	default:
		lo, carry = bits.Add64(lo, 1<<(128-n), 0)
		hi, carry = bits.Add64(hi, 0, carry)
	}
	if carry != 0 {
		return netip.Addr{}
	}
	binary.BigEndian.PutUint64(b[:], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

// fraction returns how far an address is into its family.
func fraction(a netip.Addr) float64 {
	b := a.AsSlice()
	return float64(binary.BigEndian.Uint32(b)) / (1 << 32)
}
