package radius

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// This file carries packets one by one, over whatever a net.Conn or a
// net.PacketConn stands for. On Linux, UDP sockets are served in batches instead:
// see mmsg_linux.go and inbox_linux.go.

// inbox is what was received at once.
type inbox interface {
	// recv waits for packets and returns how many came; an error may come with
	// some.
	recv() (int, error)
	// at returns the ith, valid until the next recv.
	at(i int) []byte
	// from and local return whence and whereto it came, if the inbox knows.
	from(i int) netip.AddrPort
	local(i int) netip.Addr
}

// linkIO is how a link is read and written.
type linkIO struct {
	conn  net.Conn
	in    inbox
	batch *batch // not nil if it can be written in batches
}

func (l *linkIO) init(c net.Conn, s shelf) {
	l.conn = c
	if u, ok := c.(*net.UDPConn); ok {
		if l.batch = newBatch(u); l.batch != nil {
			l.in = l.batch.inbox(s, false)
			return
		}
	}
	l.in = &connInbox{conn: c}
}

func (l *linkIO) recv() (int, error) { return l.in.recv() }

// frontIO is how a front is read and written.
type frontIO struct {
	conn  addrPortConn
	in    inbox
	batch *batch
}

func (f *frontIO) init(c net.PacketConn, s shelf) {
	f.conn = asAddrPortConn(c)
	if u, ok := c.(*net.UDPConn); ok {
		if f.batch = newBatch(u); f.batch != nil {
			f.in = f.batch.inbox(s, true)
			return
		}
	}
	f.in = &packetInbox{conn: f.conn}
}

func (f *frontIO) recv() (int, error) { return f.in.recv() }

// addrPortConn are the methods of a net.UDPConn that allocate nothing.
type addrPortConn interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

func asAddrPortConn(c net.PacketConn) addrPortConn {
	if a, ok := c.(addrPortConn); ok {
		return a
	}
	return plainConn{c}
}

type plainConn struct{ net.PacketConn }

func (c plainConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, a, err := c.ReadFrom(b)
	if u, ok := a.(*net.UDPAddr); ok && err == nil {
		return n, u.AddrPort(), nil
	}
	return n, netip.AddrPort{}, err
}

func (c plainConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// packetInbox reads a front.
type packetInbox struct {
	conn addrPortConn
	buf  [MaxLen]byte
	n    int
	src  netip.AddrPort
}

func (i *packetInbox) recv() (int, error) {
	n, from, err := i.conn.ReadFromUDPAddrPort(i.buf[:])
	if err != nil {
		return 0, err
	}
	i.n, i.src = n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	return 1, nil
}

func (i *packetInbox) at(int) []byte           { return i.buf[:i.n] }
func (i *packetInbox) from(int) netip.AddrPort { return i.src }
func (i *packetInbox) local(int) netip.Addr    { return netip.Addr{} }

// connInbox reads a link.
type connInbox struct {
	conn net.Conn
	buf  [MaxLen]byte
	n    int
}

func (i *connInbox) recv() (int, error) {
	n, err := i.conn.Read(i.buf[:])
	if err != nil {
		return 0, err
	}
	i.n = n
	return 1, nil
}

func (i *connInbox) at(int) []byte           { return i.buf[:i.n] }
func (i *connInbox) from(int) netip.AddrPort { return netip.AddrPort{} }
func (i *connInbox) local(int) netip.Addr    { return netip.Addr{} }

// write sends packets by a link, and returns how many could be.
func (s *post) write(l *linkIO, bufs [][]byte) (int, error) {
	if l.batch != nil {
		return s.sendBatch(l.batch, bufs, nil)
	}
	for i, b := range bufs {
		if _, err := l.conn.Write(b); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

// writeTo sends packets by a front.
func (s *post) writeTo(f *front, bufs [][]byte, to []dest) (int, error) {
	if f.io.batch != nil {
		return s.sendBatch(f.io.batch, bufs, to)
	}
	for i, b := range bufs {
		if _, err := f.io.conn.WriteToUDPAddrPort(b, to[i].to); err != nil {
			return i, err
		}
	}
	return len(bufs), nil
}

// passing reports whether an error of a front is about a single packet.
func passing(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) ||
		errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.EPERM)
}
