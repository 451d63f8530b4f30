package lb

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
)

// A Space keeps apart names of different kinds, so that an SPI never equals
// an address. Spaces below [SpaceProtocol] belong to this package. Protocols
// whose classifiers share a [Table] take different spaces from there on.
type Space uint8

const (
	// SpaceNone is the space of the zero Key, which names nobody.
	SpaceNone Space = iota
	// SpaceAddr holds client addresses; see [AddrKey].
	SpaceAddr
	// SpaceFlow holds flows: client address, client port and service port;
	// see [FlowKey].
	SpaceFlow

	// SpaceProtocol is the first space for protocols. By agreement: 16-31
	// ikev2, 32-47 sstp, 48-63 radius, 128 and up for users of the library.
	SpaceProtocol Space = 16
)

// A Key is one name of one client. It is comparable and holds no pointer. The
// zero Key names nobody.
type Key struct {
	hi, lo uint64
	meta   uint64 // space<<32 | client port<<16 | service port; the ports of flows only
}

// A Flow is what the network itself says of a datagram or a stream: who sent
// it, and to which of our ports.
type Flow struct {
	// Client is the address and port the client sent from.
	Client netip.AddrPort
	// Service is the local port it was sent to.
	Service uint16
}

// NewKey returns the Key for id in the given space.
func NewKey(s Space, id [16]byte) Key {
	return Key{
		hi:   binary.BigEndian.Uint64(id[:8]),
		lo:   binary.BigEndian.Uint64(id[8:]),
		meta: uint64(s) << 32,
	}
}

// Uint64Key returns the Key for a number, such as an SPI, in the given space.
func Uint64Key(s Space, id uint64) Key { return Key{lo: id, meta: uint64(s) << 32} }

// HashKey returns a Key for text or bytes of any length: the first 128 bits of
// SHA-256 over the parts, each preceded by its length. It is the same in every
// process, so tables of several balancers agree. It doesn't allocate.
func HashKey(s Space, parts ...[]byte) Key {
	// One fixed buffer instead of hash.Hash: names are short, and a longer one
	// is folded into what went before.
	var buf [256]byte
	n := 0
	for _, p := range parts {
		if n+2+len(p) > len(buf) {
			sum := sha256.Sum256(buf[:n])
			n = copy(buf[:], sum[:])
		}
		binary.BigEndian.PutUint16(buf[n:], uint16(len(p)))
		n += 2
		if len(p) > len(buf)-n {
			sum := sha256.Sum256(p)
			n += copy(buf[n:], sum[:])
			continue
		}
		n += copy(buf[n:], p)
	}
	sum := sha256.Sum256(buf[:n])
	return NewKey(s, [16]byte(sum[:16]))
}

// AddrKey returns the name of a client's address. An IPv4-mapped IPv6 address
// has the name of its IPv4 address; a zone doesn't count. An invalid address
// has the zero Key.
func AddrKey(a netip.Addr) Key {
	if !a.IsValid() {
		return Key{}
	}
	hi, lo := halves(a)
	return Key{hi: hi, lo: lo, meta: uint64(SpaceAddr) << 32}
}

// halves returns the 16 octets of a valid address as two numbers. [netip.Addr.As16]
// would do, but costs twice as much: it fills an array by halves, which is then
// copied as a whole, and processors wait for the one before the other.
func halves(a netip.Addr) (hi, lo uint64) {
	if a.Is4() || a.Is4In6() {
		b := a.As4()
		return 0, 0xffff<<32 | uint64(binary.BigEndian.Uint32(b[:]))
	}
	var buf [32]byte                // the name of a zone may follow
	b, _ := a.AppendBinary(buf[:0]) // never fails
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
}

// FlowKey returns the name of a flow. A flow without a valid client has the
// zero Key.
func FlowKey(f Flow) Key {
	a := f.Client.Addr()
	if !a.IsValid() {
		return Key{}
	}
	hi, lo := halves(a)
	return Key{hi: hi, lo: lo, meta: uint64(SpaceFlow)<<32 | uint64(f.Client.Port())<<16 | uint64(f.Service)}
}

// Keys returns the names of a flow and of its client's address at once: [FlowKey]
// and [AddrKey] in the time of one.
func (f Flow) Keys() (flow, client Key) {
	a := f.Client.Addr()
	if !a.IsValid() {
		return Key{}, Key{}
	}
	hi, lo := halves(a)
	client = Key{hi: hi, lo: lo, meta: uint64(SpaceAddr) << 32}
	flow = client
	flow.meta = uint64(SpaceFlow)<<32 | uint64(f.Client.Port())<<16 | uint64(f.Service)
	return flow, client
}

// In returns the name that k is within scope: names that two servers made up
// independently are told apart by whom they were made for. The space stays that
// of k. Within the zero Key k is itself, and the zero Key is nobody everywhere.
func (k Key) In(scope Key) Key {
	if k.IsZero() || scope.IsZero() {
		return k
	}
	k.hi = mix(k.hi ^ scope.hash(0))
	k.lo = mix(k.lo ^ scope.hash(1))
	return k
}

// Space returns the space of k.
func (k Key) Space() Space { return Space(k.meta >> 32) }

// as returns the same name in another space.
func (k Key) as(s Space) Key {
	k.meta = uint64(s)<<32 | k.meta&(1<<32-1)
	return k
}

func (k Key) ports() (client, service uint16) { return uint16(k.meta >> 16), uint16(k.meta) }

// IsZero reports whether k names nobody.
func (k Key) IsZero() bool { return k == Key{} }

// Addr returns the client address in a Key made by [AddrKey] or [FlowKey], and
// the zero Addr for other keys.
func (k Key) Addr() netip.Addr {
	if s := k.Space(); s != SpaceAddr && s != SpaceFlow {
		return netip.Addr{}
	}
	id := k.id()
	return netip.AddrFrom16(id).Unmap()
}

// Flow returns the flow in a Key made by [FlowKey], and the zero Flow for
// other keys.
func (k Key) Flow() Flow {
	if k.Space() != SpaceFlow {
		return Flow{}
	}
	client, service := k.ports()
	return Flow{Client: netip.AddrPortFrom(k.Addr(), client), Service: service}
}

func (k Key) id() [16]byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], k.hi)
	binary.BigEndian.PutUint64(id[8:], k.lo)
	return id
}

// String shows addresses and flows as such, other names as space:hex.
func (k Key) String() string {
	switch {
	case k.IsZero():
		return "nobody"
	case k.Space() == SpaceAddr:
		return k.Addr().String()
	case k.Space() == SpaceFlow:
		f := k.Flow()
		return fmt.Sprintf("%s>%d", f.Client, f.Service)
	case k.hi == 0:
		return fmt.Sprintf("%d:%016x", k.Space(), k.lo)
	}
	id := k.id()
	return fmt.Sprintf("%d:%s", k.Space(), hex.EncodeToString(id[:]))
}

// hash returns the same number for the same Key in every process and on every
// machine, so that balancers without shared state pick the same backend. It
// isn't meant to withstand chosen keys; the table's own hash is seeded.
func (k Key) hash(seed uint64) uint64 {
	return mix(mix(seed^k.meta^k.hi) ^ k.lo)
}

// mix is the finalizer of splitmix64: every input bit reaches every output bit.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
