//go:build linux && (amd64 || arm64)

package radius

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// Receiving. The kernel hands over a train of packets, which came from one sender in
// one go and of which all but the last are of one length, as one message (UDP GRO).
// Such a message may be as long as a UDP datagram can be, so the room for a batch of
// them is large: who has received nothing lends its room to others.

const (
	// inboxBatch is how many messages are received by one call.
	inboxBatch = 32
	// slotLen takes a message. The odd line keeps the slots apart in the
	// processor's caches.
	slotLen = 1<<16 + 64
	// controlLen takes IP_PKTINFO and IPV6_PKTINFO, UDP_GRO, and what else a
	// caller's socket was told to give: a train must not go without its measure.
	controlLen = 192
	udpGRO     = 104 // UDP_GRO
)

// slots are the room for a batch. Its pages are only there once they have been used.
type slots struct {
	hdrs    [inboxBatch]mmsghdr
	iovs    [inboxBatch]syscall.Iovec
	names   [inboxBatch]syscall.RawSockaddrInet6
	control [inboxBatch][controlLen]byte
	bufs    []byte
	dirty   int // of so many messages the headers were overwritten

	packets []span
	froms   [inboxBatch]netip.AddrPort
	locals  [inboxBatch]netip.Addr
}

// span is where a packet is: bytes of a message.
type span struct{ msg, at, end int }

func newSlots() *slots {
	s := &slots{bufs: make([]byte, inboxBatch*slotLen), dirty: inboxBatch}
	for k := range s.hdrs {
		s.iovs[k].Base = &s.bufs[k*slotLen]
		s.iovs[k].SetLen(slotLen)
		s.hdrs[k].Iov, s.hdrs[k].Iovlen = &s.iovs[k], 1
	}
	return s
}

// wipe makes the headers ready for the next batch.
func (s *slots) wipe() {
	for k := range s.hdrs[:s.dirty] {
		h := &s.hdrs[k]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.names[k])), syscall.SizeofSockaddrInet6
		h.Control = &s.control[k][0]
		h.SetControllen(controlLen)
	}
	s.dirty = 0
}

// shelf holds slots that nobody uses.
type shelf chan *slots

func newShelf(n int) shelf { return make(shelf, n) }

func (s shelf) borrow() *slots {
	select {
	case x := <-s:
		return x
	default:
		return newSlots()
	}
}

func (s shelf) giveBack(x *slots) {
	select {
	case s <- x:
	default:
	}
}

// mmsgInbox reads a batch.
type mmsgInbox struct {
	b     *batch
	shelf shelf
	named bool   // that whence packets come matters
	s     *slots // nil while it waits
	try   func(fd uintptr) bool
	n     int // messages
	errno syscall.Errno
}

// inbox makes an inbox. named says that the packets come from many.
func (b *batch) inbox(from shelf, named bool) inbox {
	i := &mmsgInbox{b: b, shelf: from, named: named}
	_ = b.raw.Control(func(fd uintptr) { // without, it is slower
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_UDP, udpGRO, 1)
	})
	i.try = i.receive
	return i
}

// receive receives without waiting, and reports whether there was something.
func (i *mmsgInbox) receive(fd uintptr) bool {
	if i.s == nil {
		i.s = i.shelf.borrow()
	}
	i.s.wipe()
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&i.s.hdrs[0])), inboxBatch, syscall.MSG_DONTWAIT, 0, 0)
		if e == syscall.EINTR {
			continue
		}
		i.n, i.errno = int(n), e
		if e == syscall.EAGAIN {
			i.rest()
			return false
		}
		if e != 0 {
			i.n = 0
		}
		i.s.dirty = max(i.n, 1)
		return true
	}
}

// rest lends the room to others.
func (i *mmsgInbox) rest() {
	if i.s != nil {
		i.shelf.giveBack(i.s)
		i.s = nil
	}
}

func (i *mmsgInbox) recv() (int, error) {
	if err := i.b.raw.Read(i.try); err != nil {
		i.rest()
		return 0, err
	}
	if i.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", i.errno)
	}
	return i.s.split(i.n, i.named), nil
}

// split finds the packets in n messages, and returns how many there are.
func (s *slots) split(n int, named bool) int {
	s.packets = s.packets[:0]
	for k := range n {
		size := s.look(k, named)
		whole := int(s.hdrs[k].n)
		if size <= 0 {
			size = max(whole, 1)
		}
		for at := 0; at < whole || at == 0; at += size {
			s.packets = append(s.packets, span{k, at, min(at+size, whole)})
		}
	}
	return len(s.packets)
}

// look returns how long each packet of the kth message is, 0 if it is one, and notes
// whence and whereto it came if named.
func (s *slots) look(k int, named bool) (size int) {
	if named {
		s.froms[k], s.locals[k] = addrOf(&s.names[k]), netip.Addr{}
	}
	b := s.control[k][:min(int(s.hdrs[k].Controllen), controlLen)]
	for len(b) >= syscall.SizeofCmsghdr {
		h := (*syscall.Cmsghdr)(unsafe.Pointer(&b[0]))
		if h.Len < syscall.SizeofCmsghdr || h.Len > uint64(len(b)) {
			break
		}
		data := b[syscall.SizeofCmsghdr:h.Len]
		switch {
		case h.Level == syscall.IPPROTO_UDP && h.Type == udpGRO && len(data) >= 4:
			size = int(int32(binary.NativeEndian.Uint32(data)))
		case !named || s.locals[k].IsValid():
		default:
			s.locals[k] = localOf(h, data)
		}
		b = b[min(syscall.CmsgSpace(len(data)), len(b)):]
	}
	return size
}

func (i *mmsgInbox) at(k int) []byte {
	p := &i.s.packets[k]
	return i.s.bufs[p.msg*slotLen+p.at : p.msg*slotLen+p.end]
}

func (i *mmsgInbox) from(k int) netip.AddrPort { return i.s.froms[i.s.packets[k].msg] }
func (i *mmsgInbox) local(k int) netip.Addr    { return i.s.locals[i.s.packets[k].msg] }

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

// localOf returns the address that a packet was sent to, if a control message says.
func localOf(h *syscall.Cmsghdr, data []byte) netip.Addr {
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
	return netip.Addr{}
}
