package udp

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is what the Linux driver needs of the system call interface that
// golang.org/x/sys doesn't wrap. None of these calls blocks, so they are made
// without telling the scheduler: a thread that is told can lose its place to
// another, and has to wait for one when it returns.

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

const (
	// batch is how many datagrams are received at once.
	batch = 64
	// slotSize is the distance of the buffers of a batch. Each takes the
	// largest datagram, so that none is ever cut. The odd lines added keep the
	// starts of the buffers apart in the processor's caches; what isn't
	// written to costs no memory.
	slotSize = maxDatagram + 33*64
	// maxSegments is how many datagrams the kernel takes as one by GSO
	// (UDP_MAX_SEGMENTS; newer kernels take twice that).
	maxSegments = 64
	// maxTrain is how many bytes it takes.
	maxTrain = 65000

	// maxRuns is how many pieces of a batch wait to be sent to backends. It is
	// more than batch only where trains that were received as one are split.
	maxRuns = 2 * batch

	nameSize = unix.SizeofSockaddrInet6
	// rxCtlSize takes IPV6_PKTINFO and UDP_GRO, and something for
	// options that whoever made a socket has set.
	rxCtlSize = 192
	txCtlSize = 64 // IPV6_PKTINFO and UDP_SEGMENT
)

// slab is a batch of buffers outside Go's heap.
type slab []byte

func newSlab() (slab, error) {
	return unix.Mmap(-1, 0, batch*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
}

func (s slab) free() error { return unix.Munmap(s) }

func (s slab) at(i, n int) []byte {
	return s[i*slotSize : i*slotSize+n : (i+1)*slotSize]
}

func recvmmsg(fd int, h []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)),
		unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// recvfrom receives one datagram.
func recvfrom(fd int, b []byte, from *unix.RawSockaddrInet6) (uint32, unix.Errno) {
	size := uint32(nameSize)
	n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)))
	return uint32(n), e
}

// losses returns how many datagrams a socket has had no room for.
func losses(fd int) (uint32, bool) {
	const drops = 8 // SK_MEMINFO_DROPS
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, e := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[drops], e == 0 && size >= uint32(unsafe.Sizeof(info))
}

func sendmmsg(fd int, h []mmsghdr) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&h[0])), uintptr(len(h)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

func sendmsg(fd int, h *unix.Msghdr) unix.Errno {
	_, _, e := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(h)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	return e
}

// sendAll sends as many of h as it can, which is at least one, and returns how many.
func sendAll(fd int, h []mmsghdr) (int, unix.Errno) {
	m := &h[0]
	switch {
	case len(h) > 1:
		return sendmmsg(fd, h)
	case m.Iovlen == 1 && m.Controllen == 0:
		return 1, sendto(fd, unsafe.Slice(m.Iov.Base, m.Iov.Len), m.Name, m.Namelen)
	}
	return 1, sendmsg(fd, &m.Msghdr)
}

// send sends b on a connected socket.
func send(fd int, b []byte) unix.Errno {
	return sendto(fd, b, nil, 0)
}

func sendto(fd int, b []byte, to *byte, size uint32) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(unsafe.Pointer(to)), uintptr(size))
	return e
}

// keyOfRaw returns the flow key for a client's raw socket address.
func keyOfRaw(sa *unix.RawSockaddrInet6, end uint16) flowKey {
	k := flowKey{end: end}
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	k.port = binary.BigEndian.Uint16(port[:])
	if sa.Family == unix.AF_INET {
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		k.lo = 0xffff<<32 | uint64(binary.BigEndian.Uint32(sa4.Addr[:]))
		return k
	}
	k.hi, k.lo = binary.BigEndian.Uint64(sa.Addr[:8]), binary.BigEndian.Uint64(sa.Addr[8:])
	k.zone = sa.Scope_id
	return k
}

// rawAddr makes a socket address for a socket of the given family.
func rawAddr(a netip.AddrPort, zone uint32, v6 bool) (sa unix.RawSockaddrInet6, size uint32) {
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	binary.BigEndian.PutUint16(port[:], a.Port())
	if v6 {
		sa.Family, sa.Addr, sa.Scope_id = unix.AF_INET6, a.Addr().As16(), zone
		return sa, unix.SizeofSockaddrInet6
	}
	sa.Family = unix.AF_INET
	(*unix.RawSockaddrInet4)(unsafe.Pointer(&sa)).Addr = a.Addr().Unmap().As4()
	return sa, unix.SizeofSockaddrInet4
}

// connect connects a socket, which takes no time.
func connect(fd int, to netip.AddrPort) error {
	a := to.Addr().Unmap()
	sa, size := rawAddr(netip.AddrPortFrom(a, to.Port()), zoneID(a.Zone()), a.Is6())
	return rawConnect(fd, &sa, size)
}

// disconnect takes its address and its port from a socket that wasn't bound to these.
func disconnect(fd int) error {
	return rawConnect(fd, &unix.RawSockaddrInet6{Family: unix.AF_UNSPEC}, nameSize)
}

func rawConnect(fd int, sa *unix.RawSockaddrInet6, size uint32) error {
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(sa)), uintptr(size))
	if e != 0 {
		return os.NewSyscallError("connect", e)
	}
	return nil
}

// recvNothing takes a datagram from a socket and throws it away.
func recvNothing(fd int) unix.Errno {
	_, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return e
}

// toSockaddr is rawAddr for the wrapped calls.
func toSockaddr(a netip.AddrPort) (unix.Sockaddr, int) {
	if a.Addr().Unmap().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().Unmap().As4(), Port: int(a.Port())}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port()), ZoneId: zoneID(a.Addr().Zone())}, unix.AF_INET6
}

func fromSockaddr(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && a.Is6() {
			a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// putCmsg writes a control message of n bytes of data to b, and returns the data
// and how many bytes of b it takes.
func putCmsg(b []byte, level, typ int32, n int) (data []byte, size int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, typ
	h.SetLen(unix.CmsgLen(n))
	return b[unix.CmsgLen(0):unix.CmsgLen(n)], unix.CmsgSpace(n)
}

// putSegment writes the control message that makes a datagram a train of
// datagrams of that size.
func putSegment(b []byte, size uint16) int {
	data, n := putCmsg(b, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, size)
	return n
}

// knowsTrains reports whether the kernel can make datagrams of a train. One that
// can't (before Linux 4.18) doesn't refuse a train: it sends it as one datagram.
func knowsTrains(fd int) bool {
	_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
	return err == nil
}

// mergeReads has the kernel merge datagrams of one size that arrive for a socket one
// after the other, if it can: a matter of speed only.
func mergeReads(fd int) { _ = unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) }

// putPktinfo writes the control message that makes a datagram leave from addr.
// The interface is left to the routes, except where an address is nothing without
// its interface.
func putPktinfo(b []byte, addr netip.Addr, ifindex uint32, v6 bool) int {
	if !v6 {
		data, n := putCmsg(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		p := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
		*p = unix.Inet4Pktinfo{Spec_dst: addr.Unmap().As4()}
		return n
	}
	data, n := putCmsg(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
	*p = unix.Inet6Pktinfo{Addr: addr.As16()}
	if linkLocal(addr) {
		p.Ifindex = ifindex
	}
	return n
}

func linkLocal(a netip.Addr) bool { return a.Is6() && !a.Is4In6() && a.IsLinkLocalUnicast() }

// arrival is what the control messages of a received datagram say.
type arrival struct {
	addr    [16]byte // it was sent to
	ifindex uint32
	to      bool // addr is known
	segment int  // it is several datagrams of this size, the last may be smaller; 0: it is one

	listener int // for the worker
}

// parseArrival reads control messages. What isn't understood is skipped.
func parseArrival(b []byte) (a arrival) {
	const head = unix.SizeofCmsghdr
	for len(b) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := uint64(h.Len)
		if size < head || size > uint64(len(b)) {
			return a
		}
		data := b[head:size]
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			p := (*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0]))
			a.addr = netip.AddrFrom4(p.Addr).As16()
			a.ifindex, a.to = uint32(p.Ifindex), true
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			a.addr, a.ifindex, a.to = p.Addr, p.Ifindex, true
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			a.segment = int(binary.NativeEndian.Uint32(data) & 0xffff) // an int, of what the kernel keeps in 16 bits
		}
		b = b[min(uint64(unix.CmsgSpace(len(data))), uint64(len(b))):]
	}
	return a
}
