package geodns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A batch reads and writes many datagrams of a socket by one system call each. It
// belongs to one goroutine. All that the kernel writes to is allocated once.
type batch struct {
	s *Server
	r *responder

	in  [batchSize]mmsghdr
	out [batchSize]mmsghdr

	inVec, outVec [batchSize]unix.Iovec
	names         [batchSize]unix.RawSockaddrInet6 // large enough for either family
	control       [batchSize][controlSize]byte
	queries       []byte
	answers       []byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	unix.Msghdr
	n uint32
}

const (
	batchSize = 32
	// querySize is how long a query over UDP may be; those that are longer
	// are cut, and dropped.
	querySize   = 2048
	controlSize = 64 // for one IP_PKTINFO or IPV6_PKTINFO
)

func (s *Server) servePacket(c net.PacketConn) error {
	uc, ok := c.(*net.UDPConn)
	if !ok {
		return s.servePlain(c)
	}
	rc, err := uc.SyscallConn()
	if err != nil {
		return err
	}
	local, _ := uc.LocalAddr().(*net.UDPAddr)
	b := &batch{s: s, r: &responder{s: s}, queries: make([]byte, batchSize*querySize), answers: make([]byte, 0, batchSize*mostMaxUDP)}
	wildcard := local != nil && local.AddrPort().Addr().Unmap().IsUnspecified()
	if wildcard {
		// A reply must leave from the address that was asked.
		err = rc.Control(func(fd uintptr) { err = pktinfo(int(fd), local.AddrPort().Addr().Is4()) })
		if err != nil {
			return err
		}
	}
	b.prepare(wildcard)
	for {
		n, err := b.read(rc)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
				return net.ErrClosed
			}
			continue // an ICMP error of an earlier answer
		}
		b.write(rc, b.work(n))
	}
}

func pktinfo(fd int, v4 bool) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	if v4 {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
}

func (b *batch) prepare(wildcard bool) {
	for i := range b.in {
		b.inVec[i].Base = &b.queries[i*querySize]
		b.inVec[i].SetLen(querySize)
		h := &b.in[i]
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.inVec[i]
		h.SetIovlen(1)
		if wildcard {
			h.Control = &b.control[i][0]
		}
	}
}

// read waits for datagrams and returns how many there are.
func (b *batch) read(rc syscall.RawConn) (n int, err error) {
	for i := range b.in {
		h := &b.in[i]
		h.Namelen = unix.SizeofSockaddrInet6
		if h.Control != nil {
			h.SetControllen(controlSize)
		}
	}
	var errno syscall.Errno
	err = rc.Read(func(fd uintptr) bool {
		// It doesn't block: the runtime need not know of it.
		r, _, e := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in[0])), batchSize, unix.MSG_DONTWAIT, 0, 0)
		n, errno = int(r), e
		return e != unix.EAGAIN && e != unix.EINTR
	})
	if err == nil && errno != 0 {
		return 0, errno
	}
	return n, err
}

// work answers n datagrams and returns how many answers there are.
func (b *batch) work(n int) (answers int) {
	b.r.now = time.Now()
	b.s.stats.udp.Add(uint64(n))
	b.answers = b.answers[:0]
	for i := range n {
		h := &b.in[i]
		if h.Flags&unix.MSG_TRUNC != 0 {
			b.s.stats.dropped.Add(1)
			continue
		}
		start := len(b.answers)
		b.answers = b.r.respond(b.answers, b.queries[i*querySize:i*querySize+int(h.n)], from(&b.names[i]), false)
		if len(b.answers) == start {
			continue
		}
		v := &b.outVec[answers]
		v.Base = &b.answers[start]
		v.SetLen(len(b.answers) - start)
		o := &b.out[answers]
		*o = mmsghdr{}
		o.Name, o.Namelen = h.Name, h.Namelen
		o.Iov = v
		o.SetIovlen(1)
		if h.Control != nil {
			o.Control = h.Control
			o.SetControllen(leaveBy(b.control[i][:h.Controllen]))
		}
		answers++
	}
	return answers
}

// from returns the address in a sockaddr.
func from(a *unix.RawSockaddrInet6) netip.AddrPort {
	port := (*[2]byte)(unsafe.Pointer(&a.Port))
	p := uint16(port[0])<<8 | uint16(port[1])
	if a.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), p)
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), p)
}

// leaveBy makes, of the control message that says where a datagram came to, the
// one that has the answer leave from there; it returns its length. By which
// interface is left to the routes.
func leaveBy(c []byte) int {
	if len(c) < unix.SizeofCmsghdr {
		return 0
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	data := c[unix.CmsgLen(0):]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Ifindex = 0
		return unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		p := (*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0]))
		if !netip.AddrFrom16(p.Addr).IsLinkLocalUnicast() {
			p.Ifindex = 0
		}
		return unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
	return 0
}

// write sends n answers. One that can't be sent is dropped: its client asks again.
func (b *batch) write(rc syscall.RawConn, n int) {
	for at := 0; at < n; {
		var sent int
		var errno syscall.Errno
		err := rc.Write(func(fd uintptr) bool {
			r, _, e := syscall.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[at])), uintptr(n-at), unix.MSG_DONTWAIT, 0, 0)
			sent, errno = int(r), e
			return e != unix.EAGAIN && e != unix.EINTR
		})
		switch {
		case err != nil:
			return
		case errno != 0:
			b.s.stats.unsent.Add(1)
			at++
		default:
			at += sent
		}
	}
}
