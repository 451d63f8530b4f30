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
// one, a train, and cut up again at the end of the kernel's way (UDP GSO); the last
// one may be shorter. It is the way through the kernel that a packet costs. The
// packets of a batch are put in such an order that trains are long: see hand.order.
// What comes in as a train is taken as one too (UDP GRO): see inbox_linux.go.

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
		// A kernel that doesn't know UDP_SEGMENT (before 4.18) doesn't refuse it
		// beside a message: it would send a train as one long packet.
		_, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_UDP, udpSegment)
		b.noTrains.Store(err != nil)
	}); err != nil {
		return nil
	}
	return b
}

// post is what sending takes. It belongs to a hand.
type post struct {
	hdrs    [postBatch]mmsghdr
	iovs    [postBatch]syscall.Iovec
	names   [postBatch]syscall.RawSockaddrInet6
	control [postBatch][64]byte
	count   [postBatch]int // packets of each message
	try     func(fd uintptr) bool
	n, sent int // messages
	errno   syscall.Errno
}

const (
	// postBatch is how many packets are sent by one call.
	postBatch  = 64
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

// joins reports whether buf may follow the packets of a train: all are of one length,
// but for the last one.
func (s *post) joins(train [][]byte, buf []byte) bool {
	n := len(train[0])
	return len(buf) <= n && len(buf) > 0 && len(train[len(train)-1]) == n && n <= trainPacket && (len(train)+1)*n <= trainLen
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
