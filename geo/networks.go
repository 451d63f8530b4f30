package geo

import (
	"fmt"
	"net/netip"
)

// A Network is a block of addresses that the organisation knows better than a
// database does.
type Network struct {
	// Prefix are its addresses.
	Prefix netip.Prefix
	// Place is where it is.
	Place Place
}

// Networks is a Locator of the organisation's own networks. Of several that
// hold an address, the longest counts. The zero Networks holds none. It is
// immutable.
type Networks struct {
	tree blocks[Place]
}

// NewNetworks returns a Locator of list. A prefix that is there twice, or that
// isn't valid, is an error that names it.
func NewNetworks(list ...Network) (*Networks, error) {
	n := new(Networks)
	for _, w := range list {
		if err := n.tree.add(w.Prefix, w.Place); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// Locate returns the Place of the smallest network that holds addr.
func (n *Networks) Locate(addr netip.Addr) (Place, netip.Prefix) {
	p, _, block := n.tree.find(addr)
	return p, block
}

// blocks maps prefixes to values. Of prefixes inside each other, the longest
// counts.
type blocks[V any] struct {
	v4, v6 *block[V]
}

// block is a node of a binary tree, a bit of the address a step.
type block[V any] struct {
	child [2]*block[V]
	set   bool
	value V
}

func (b *blocks[V]) root(addr netip.Addr) **block[V] {
	if addr.Is4() {
		return &b.v4
	}
	return &b.v6
}

func (b *blocks[V]) add(p netip.Prefix, v V) error {
	if !p.IsValid() {
		return fmt.Errorf("geo: %v is not a network", p)
	}
	if p.Addr().Is4In6() {
		return fmt.Errorf("geo: network %v: write addresses of IPv4 as such", p)
	}
	if p != p.Masked() {
		return fmt.Errorf("geo: network %v has bits behind its length; is %v meant?", p, p.Masked())
	}
	at := b.root(p.Addr())
	for i := range p.Bits() {
		if *at == nil {
			*at = new(block[V])
		}
		at = &(*at).child[bit(p.Addr(), i)]
	}
	if *at == nil {
		*at = new(block[V])
	}
	if (*at).set {
		return fmt.Errorf("geo: network %v is there twice", p)
	}
	(*at).set, (*at).value = true, v
	return nil
}

// find returns the value of the longest prefix that holds addr, its length, or
// -1, and the largest block around addr for which that is so.
func (b *blocks[V]) find(addr netip.Addr) (v V, bits int, uniform netip.Prefix) {
	bits = -1
	at := *b.root(addr)
	depth := 0
	for ; at != nil; depth++ {
		if at.set {
			v, bits = at.value, depth
		}
		if at.child[0] == nil && at.child[1] == nil {
			break
		}
		at = at.child[bit(addr, depth)]
	}
	uniform, _ = addr.Prefix(min(depth, addr.BitLen()))
	return v, bits, uniform
}

// bit returns bit i of an address, the first being 0.
func bit(addr netip.Addr, i int) int {
	if addr.Is4() {
		b := addr.As4()
		return int(b[i/8]>>(7-i%8)) & 1
	}
	b := addr.As16()
	return int(b[i/8]>>(7-i%8)) & 1
}
