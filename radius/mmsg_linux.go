//go:build linux && (amd64 || arm64)

package radius

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// On Linux a UDP socket is read and written by recvmmsg(2) and sendmmsg(2): many
// packets with one call. The calls don't block, so they are made without telling
// the scheduler; where there is nothing to read, Go's poller waits.
//
// Packets of one length that go the same way one after the other are handed over as
// one, a train, and cut up again at the end of the kernel's way (UDP GSO): requests
// differ in length as names do, but most accepts of a policy are equally long. It is
// the way through the kernel that a packet costs.

// mmsghdr is struct mmsghdr of recvmmsg(2), on 64-bit machines.
type mmsghdr struct {
	syscall.Msghdr
	n uint32
	_ [4]byte
}

// batch is a socket that is served in batches.
type batch struct {
	conn *net.UDPConn
	raw  syscall.RawConn
	v6   bool // its addresses are IPv6 ones, IPv4 mapped into them

	noTrains atomic.Bool // they can't be sent here
}

func newBatch(c *net.UDPConn) *batch {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	b := &batch{conn: c, raw: raw}
	if err := raw.Control(func(fd uintptr) {
		sa, err := syscall.Getsockname(int(fd))
		_, six := sa.(*syscall.SockaddrInet6)
		b.v6 = six && err == nil
	}); err != nil {
		return nil
	}
	return b
}

const (
	// slotLen takes a packet and its padding, if there is little of that; more
	// is cut off. The odd line keeps the slots apart in the processor's caches.
	slotLen    = MaxLen + 64
	controlLen = 96
)

// mmsgInbox reads a batch.
type mmsgInbox struct {
	b       *batch
	hdrs    []mmsghdr
	iovs    []syscall.Iovec
	names   []syscall.RawSockaddrInet6
	bufs    []byte
	control []byte
	try     func(fd uintptr) bool
	n       int
	errno   syscall.Errno
}

// inbox makes an inbox of n slots. named says that the packets come from many.
func (b *batch) inbox(n int, named bool) inbox {
	i := &mmsgInbox{b: b, hdrs: make([]mmsghdr, n), iovs: make([]syscall.Iovec, n), bufs: make([]byte, n*slotLen)}
	if named {
		i.names, i.control = make([]syscall.RawSockaddrInet6, n), make([]byte, n*controlLen)
	}
	for k := range i.hdrs {
		i.iovs[k].Base = &i.bufs[k*slotLen]
		i.iovs[k].SetLen(slotLen)
		i.hdrs[k].Iov, i.hdrs[k].Iovlen = &i.iovs[k], 1
	}
	i.try = func(fd uintptr) bool {
		for {
			n, _, e := syscall.RawSyscall6(syscall.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&i.hdrs[0])), uintptr(len(i.hdrs)), syscall.MSG_DONTWAIT, 0, 0)
			if e == syscall.EINTR {
				continue
			}
			i.n, i.errno = int(n), e
			return e != syscall.EAGAIN
		}
	}
	return i
}

func (i *mmsgInbox) recv() (int, error) {
	for k := range i.names {
		h := &i.hdrs[k]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&i.names[k])), syscall.SizeofSockaddrInet6
		h.Control = &i.control[k*controlLen]
		h.SetControllen(controlLen)
	}
	if err := i.b.raw.Read(i.try); err != nil {
		return 0, err
	}
	if i.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", i.errno)
	}
	return i.n, nil
}

func (i *mmsgInbox) at(k int) []byte {
	return i.bufs[k*slotLen : k*slotLen+int(i.hdrs[k].n)]
}

func (i *mmsgInbox) from(k int) netip.AddrPort { return addrOf(&i.names[k]) }

func addrOf(sa *syscall.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == syscall.AF_INET {
		sa4 := (*syscall.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), port)
	}
	a := netip.AddrFrom16(sa.Addr).Unmap()
	if sa.Scope_id != 0 && a.Is6() {
		a = a.WithZone(strconv.FormatUint(uint64(sa.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}

// local returns the address that a packet was sent to, if the socket says.
func (i *mmsgInbox) local(k int) netip.Addr {
	n := int(i.hdrs[k].Controllen)
	if n < syscall.SizeofCmsghdr {
		return netip.Addr{}
	}
	b := i.control[k*controlLen : k*controlLen+min(n, controlLen)]
	for len(b) >= syscall.SizeofCmsghdr {
		h := (*syscall.Cmsghdr)(unsafe.Pointer(&b[0]))
		if h.Len < syscall.SizeofCmsghdr || h.Len > uint64(len(b)) {
			break
		}
		data := b[syscall.SizeofCmsghdr:h.Len]
		switch {
		case h.Level == syscall.IPPROTO_IP && h.Type == syscall.IP_PKTINFO && len(data) >= syscall.SizeofInet4Pktinfo:
			return netip.AddrFrom4((*syscall.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
		case h.Level == syscall.IPPROTO_IPV6 && h.Type == syscall.IPV6_PKTINFO && len(data) >= syscall.SizeofInet6Pktinfo:
			p := (*syscall.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
			a := netip.AddrFrom16(p.Addr)
			if a.IsLinkLocalUnicast() && a.Is6() {
				a = a.WithZone(strconv.FormatUint(uint64(p.Ifindex), 10))
			}
			return a
		}
		b = b[min(syscall.CmsgSpace(len(data)), len(b)):]
	}
	return netip.Addr{}
}

// post is what sending takes. It belongs to a hand.
type post struct {
	hdrs    [frontBatch]mmsghdr
	iovs    [frontBatch]syscall.Iovec
	names   [frontBatch]syscall.RawSockaddrInet6
	control [frontBatch][64]byte
	count   [frontBatch]int // packets of each message
	try     func(fd uintptr) bool
	n, sent int // messages
	errno   syscall.Errno
}

const (
	udpSegment = 103 // UDP_SEGMENT
	// trainPacket is how long a packet of a train may be. Trains are never cut
	// into fragments, so what may be too long for the way isn't in any.
	trainPacket = 1200
	// trainLen is how long a train may be.
	trainLen = 65000
)

// sendBatch sends packets, and returns how many could be.
func (s *post) sendBatch(b *batch, bufs [][]byte, to []dest) (int, error) {
	if s.try == nil {
		s.try = func(fd uintptr) bool {
			for {
				n, _, e := syscall.RawSyscall6(sysSendmmsg, fd, uintptr(unsafe.Pointer(&s.hdrs[0])), uintptr(s.n), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
				if e == syscall.EINTR {
					continue
				}
				if s.sent, s.errno = int(n), e; e != 0 {
					s.sent = 0
				}
				return e != syscall.EAGAIN
			}
		}
	}
	done := 0
	for done < len(bufs) {
		if to == nil {
			s.load(b, bufs[done:], nil)
		} else {
			s.load(b, bufs[done:], to[done:])
		}
		s.sent, s.errno = 0, 0
		if err := b.raw.Write(s.try); err != nil {
			return done, err
		}
		switch {
		case s.errno == 0:
		case s.count[0] > 1 && trainError(s.errno):
			b.noTrains.Store(true) // it is a matter of speed only
		default:
			return done, os.NewSyscallError("sendmmsg", s.errno)
		}
		for _, n := range s.count[:s.sent] {
			done += n
		}
	}
	return done, nil
}

// trainError reports whether e may be because of a train: the device can't make
// checksums or the way is encrypted (EIO), or its packets are too long for the way.
func trainError(e syscall.Errno) bool {
	return e == syscall.EIO || e == syscall.EINVAL || e == syscall.EMSGSIZE
}

// load makes messages of as many packets as there is room for.
func (s *post) load(b *batch, bufs [][]byte, to []dest) {
	s.n = 0
	single := b.noTrains.Load()
	first := 0 // packet of the message in hand
	for i, buf := range bufs[:min(len(bufs), len(s.iovs))] {
		if s.n > 0 && !single && s.joins(bufs[first:i], buf) && (to == nil || to[i] == to[first]) {
			m := s.n - 1
			s.iovs[i].Base = unsafe.SliceData(buf)
			s.iovs[i].SetLen(len(buf))
			if s.count[m] == 1 {
				s.segment(m, len(bufs[first]))
			}
			s.count[m]++
			s.hdrs[m].Iovlen++
			continue
		}
		first = i
		s.put(s.n, i, buf)
		if to != nil {
			s.address(s.n, b, to[i])
		}
		s.n++
	}
}

// joins reports whether buf may follow the packets of a train: all are of one length.
func (s *post) joins(train [][]byte, buf []byte) bool {
	n := len(buf)
	return n == len(train[0]) && n <= trainPacket && (len(train)+1)*n <= trainLen
}

// put makes buf the first packet of the mth message, as the ith of all.
func (s *post) put(m, i int, buf []byte) {
	s.iovs[i].Base = unsafe.SliceData(buf)
	s.iovs[i].SetLen(len(buf))
	h := &s.hdrs[m]
	h.Iov, h.Iovlen = &s.iovs[i], 1
	h.Name, h.Namelen, h.Control, h.Controllen = nil, 0, nil, 0
	s.count[m] = 1
}

// segment makes the mth message, whose address is set, a train of packets of size
// bytes.
func (s *post) segment(m, size int) {
	h, buf := &s.hdrs[m], &s.control[m]
	at := int(h.Controllen)
	c := (*syscall.Cmsghdr)(unsafe.Pointer(&buf[at]))
	c.Level, c.Type = syscall.IPPROTO_UDP, udpSegment
	c.SetLen(syscall.CmsgLen(2))
	binary.NativeEndian.PutUint16(buf[at+syscall.CmsgLen(0):], uint16(size))
	h.Control = &buf[0]
	h.SetControllen(at + syscall.CmsgSpace(2))
}

// address says where the ith packet goes, and from where.
func (s *post) address(i int, b *batch, d dest) {
	h, sa := &s.hdrs[i], &s.names[i]
	h.Name = (*byte)(unsafe.Pointer(sa))
	h.Namelen = putAddr(sa, d.to, b.v6)
	if !d.local.IsValid() {
		return
	}
	buf := &s.control[i]
	*buf = [64]byte{}
	c := (*syscall.Cmsghdr)(unsafe.Pointer(buf))
	n := 0
	if d.local.Unmap().Is4() && !b.v6 {
		c.Level, c.Type, n = syscall.IPPROTO_IP, syscall.IP_PKTINFO, syscall.SizeofInet4Pktinfo
		(*syscall.Inet4Pktinfo)(unsafe.Pointer(&buf[syscall.SizeofCmsghdr])).Spec_dst = d.local.Unmap().As4()
	} else {
		c.Level, c.Type, n = syscall.IPPROTO_IPV6, syscall.IPV6_PKTINFO, syscall.SizeofInet6Pktinfo
		p := (*syscall.Inet6Pktinfo)(unsafe.Pointer(&buf[syscall.SizeofCmsghdr]))
		p.Addr, p.Ifindex = d.local.As16(), zoneIndex(d.local.Zone())
	}
	c.SetLen(syscall.CmsgLen(n))
	h.Control = &buf[0]
	h.SetControllen(syscall.CmsgSpace(n))
}

func zoneIndex(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(zone); err == nil {
		return uint32(i.Index)
	}
	return 0
}

func putAddr(sa *syscall.RawSockaddrInet6, a netip.AddrPort, v6 bool) uint32 {
	*sa = syscall.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], a.Port())
	if v6 {
		sa.Family, sa.Addr, sa.Scope_id = syscall.AF_INET6, a.Addr().As16(), zoneIndex(a.Addr().Zone())
		return syscall.SizeofSockaddrInet6
	}
	sa.Family = syscall.AF_INET
	(*syscall.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr = a.Addr().Unmap().As4()
	return syscall.SizeofSockaddrInet4
}

const (
	linkBuffer     = 4 << 20
	soRcvbufForce  = 33 // SO_RCVBUFFORCE: with privilege, beyond the system's limit
	mtuDiscover    = 10 // IP_MTU_DISCOVER
	mtuDiscover6   = 23 // IPV6_MTU_DISCOVER
	mtuDiscoverOff = 0  // IP_PMTUDISC_DONT
)

// prepare sets the options of a link's socket. Packets may be larger than the path
// takes: the network may fragment them.
func prepare(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // what can't be had is only less good
		if syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soRcvbufForce, linkBuffer) != nil {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, linkBuffer)
		}
		if syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, mtuDiscover, mtuDiscoverOff) != nil {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, mtuDiscover6, mtuDiscoverOff)
		}
	})
}
