package fastpath

import (
	"encoding/binary"
	"net/netip"

	"github.com/aovlb/aovlb/lb/udp"
)

// This file is the form of the kernel's maps, as bpf/fastpath.c has it.

const (
	// layout is the version of it. Maps of another can't be gone on with.
	layout = "1"

	spis        = 4 // known for each direction
	maxBackends = 4096
	maxDevices  = 4096
	usageSize   = 64
	minESP      = 12 // SPI, sequence number, trailer (RFC 4303 §2)
	firstSPI    = 256
)

// sides of a flow, and the low bit of the number of a usage.
const (
	fromClient = iota
	fromBackend
)

type rewrite struct {
	Slot, Backend, Generation, Addresses, Ports uint32
	Sport, Dport                                [2]byte
	SPI                                         [spis]uint32 // as on the wire
}

type key4 struct {
	Src, Dst     [4]byte
	Sport, Dport [2]byte
}

type flow4 struct {
	Src, Dst [4]byte
	To       rewrite
}

type key6 struct {
	Src, Dst     [16]byte
	Sport, Dport [2]byte
}

type flow6 struct {
	Src, Dst [16]byte
	To       rewrite
}

// device is struct device.
type device struct {
	By      uint32
	VLAN    uint16
	TC, XDP uint8
	MAC     [6]byte
	_       [2]byte
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

func (p *path) key4() key4 {
	return key4{p.src.Addr().As4(), p.dst.Addr().As4(), port(p.src.Port()), port(p.dst.Port())}
}

func (p *path) key6() key6 {
	return key6{p.src.Addr().As16(), p.dst.Addr().As16(), port(p.src.Port()), port(p.dst.Port())}
}

// rewrite fills in what p says.
func (p *path) rewrite(r *rewrite) {
	r.Sport, r.Dport = port(p.newSrc.Port()), port(p.newDst.Port())
	was, now := p.key4or6()
	r.Addresses = delta(was, now)
	r.Ports = delta(ports(p.src, p.dst), ports(p.newSrc, p.newDst))
}

// key4or6 returns the addresses before and after.
func (p *path) key4or6() (was, now []byte) {
	return append(p.src.Addr().AsSlice(), p.dst.Addr().AsSlice()...), append(p.newSrc.Addr().AsSlice(), p.newDst.Addr().AsSlice()...)
}

func ports(a, b netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, a.Port()), b.Port())
}

// delta returns what a ones' complement sum grows by when words are replaced, in the
// byte order of the machine, which such sums don't mind.
func delta(was, now []byte) uint32 {
	var sum uint32
	for i := 0; i < len(was); i += 2 {
		sum += uint32(^binary.NativeEndian.Uint16(was[i:])) + uint32(binary.NativeEndian.Uint16(now[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return sum
}

func addr4(a [4]byte, p [2]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(a), binary.BigEndian.Uint16(p[:]))
}

func addr6(a [16]byte, p [2]byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a), binary.BigEndian.Uint16(p[:]))
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
