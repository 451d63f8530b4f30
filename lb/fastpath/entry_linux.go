package fastpath

import (
	"encoding/binary"
	"net/netip"

	"github.com/aovlb/aovlb/lb/udp"
)

// This file is the form of the kernel's maps, as bpf/fastpath.c has it.

const (
	// layout is the version of it. Maps of another can't be gone on with.
	layout = "3"

	spis        = 4 // known for each direction
	maxBackends = 4096
	maxDevices  = 4096
	probes      = 64 // how far from its place a record may be
	minESP      = 12 // SPI, sequence number, trailer (RFC 4303 §2)
	firstSPI    = 256
)

// sides of a flow.
const (
	fromClient = iota
	fromBackend
)

type record struct {
	Status           uint64
	Src, Dst         [4]byte
	Sport, Dport     [2]byte
	ToSport, ToDport [2]byte
	ToSrc, ToDst     [4]byte
	SPI              [spis]uint32 // as on the wire
	Packets, Bytes   uint64
}

// pairs are the addresses of a record of IPv6.
type pairs struct{ Src, Dst, ToSrc, ToDst [16]byte }

// state is struct state.
type state struct{ Lease, Seed, Places, Apart uint64 }

// listener is struct listener.
type listener struct {
	Addr [16]byte
	Port [2]byte
	_    [2]byte
}

// device is struct device.
type device struct {
	By      uint32
	VLAN    uint16
	TC, XDP uint8
	MAC     [6]byte
	Seen    uint8
	_       uint8
}

func port(p uint16) (b [2]byte) {
	binary.BigEndian.PutUint16(b[:], p)
	return b
}

// path is one direction of a flow: what comes from and to the first two leaves from
// and to the others.
type path struct{ src, dst, newSrc, newDst netip.AddrPort }

// paths returns both directions of a flow.
func paths(f *udp.FastFlow) [2]path {
	return [2]path{
		fromClient:  {f.Client, f.Listener, f.Local, f.Backend},
		fromBackend: {f.Backend, f.Local, f.Listener, f.Client},
	}
}

// flowOf is paths backwards, of what comes from clients.
func (p *path) flowOf() udp.FastFlow {
	return udp.FastFlow{Client: p.src, Listener: p.dst, Local: p.newSrc, Backend: p.newDst}
}

// spiOf returns the SPI of ESP in UDP, as it is in a rewrite; ok says whether b is
// that at all.
func spiOf(b []byte) (spi uint32, ok bool) {
	if len(b) < minESP || binary.BigEndian.Uint32(b) < firstSPI {
		return 0, false
	}
	return binary.NativeEndian.Uint32(b), true
}

// fits reports whether a flow can be carried at all, and returns it with all
// addresses in their plain form.
func fits(f udp.FastFlow) (udp.FastFlow, bool) {
	four := 0
	for _, a := range []*netip.AddrPort{&f.Client, &f.Listener, &f.Local, &f.Backend} {
		plain := a.Addr().Unmap()
		if !plain.IsValid() || plain.Zone() != "" || plain.IsUnspecified() || plain.IsLoopback() || plain.IsMulticast() ||
			plain.Is6() && plain.IsLinkLocalUnicast() || a.Port() == 0 {
			return f, false
		}
		if plain.Is4() {
			four++
		}
		*a = netip.AddrPortFrom(plain, a.Port())
	}
	// Port 500 has no ESP (RFC 3948 §2).
	return f, (four == 0 || four == 4) && f.Listener.Port() != 500
}
