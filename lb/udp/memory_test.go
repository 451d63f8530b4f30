package udp_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// memory is a network in memory: sockets by address, no loss unless asked for. It
// takes part in synctest's virtual time.
type memory struct {
	mu      sync.Mutex
	sockets map[netip.AddrPort]*memSocket
	next    uint16
	dials   int
}

type memPacket struct {
	from netip.AddrPort
	b    []byte
	err  error
}

type memSocket struct {
	net    *memory
	addr   netip.AddrPort
	remote netip.AddrPort // of a connected one
	in     chan memPacket
	once   sync.Once
	gone   chan struct{}
}

func newMemory() *memory { return &memory{sockets: make(map[netip.AddrPort]*memSocket), next: 40000} }

func (m *memory) listen(addr string) *memSocket {
	s, err := m.bind(netip.MustParseAddrPort(addr), netip.AddrPort{})
	if err != nil {
		panic(err)
	}
	return s
}

func (m *memory) bind(a, remote netip.AddrPort) (*memSocket, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.Port() == 0 {
		m.next++
		a = netip.AddrPortFrom(a.Addr(), m.next)
	}
	if m.sockets[a] != nil {
		return nil, fmt.Errorf("bind %v: %w", a, syscall.EADDRINUSE)
	}
	s := &memSocket{net: m, addr: a, remote: remote, in: make(chan memPacket, 4096), gone: make(chan struct{})}
	m.sockets[a] = s
	return s, nil
}

// dial is an Engine's Dial, from 10.9.9.9.
func (m *memory) dial(local, remote netip.AddrPort) (net.Conn, error) {
	if !local.IsValid() {
		local = netip.AddrPortFrom(netip.MustParseAddr("10.9.9.9"), 0)
	}
	m.mu.Lock()
	m.dials++
	m.mu.Unlock()
	s, err := m.bind(local, remote)
	if err != nil {
		return nil, err
	}
	return &memConn{s}, nil
}

func (m *memory) open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sockets)
}

func (s *memSocket) send(b []byte, to netip.AddrPort) error {
	s.net.mu.Lock()
	dst := s.net.sockets[to]
	s.net.mu.Unlock()
	p := memPacket{from: s.addr, b: bytes.Clone(b)}
	if dst == nil {
		// As a host without a socket there would: port unreachable.
		dst, p = s, memPacket{err: syscall.ECONNREFUSED}
		if !s.remote.IsValid() {
			return nil
		}
	} else if dst.remote.IsValid() && dst.remote != s.addr {
		return nil
	}
	select {
	case dst.in <- p:
	case <-dst.gone:
	default: // its buffer is full
	}
	return nil
}

func (s *memSocket) recv(b []byte) (int, netip.AddrPort, error) {
	select {
	case p := <-s.in:
		if p.err != nil {
			return 0, netip.AddrPort{}, &net.OpError{Op: "read", Err: os.NewSyscallError("recvfrom", p.err)}
		}
		return copy(b, p.b), p.from, nil
	case <-s.gone:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *memSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.recv(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

func (s *memSocket) WriteTo(b []byte, a net.Addr) (int, error) {
	ap := a.(*net.UDPAddr).AddrPort()
	return len(b), s.send(b, netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()))
}

func (s *memSocket) Close() error {
	err := net.ErrClosed
	s.once.Do(func() {
		s.net.mu.Lock()
		delete(s.net.sockets, s.addr)
		s.net.mu.Unlock()
		close(s.gone)
		err = nil
	})
	return err
}

func (s *memSocket) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(s.addr) }

var errNoDeadline = errors.New("no deadlines in memory")

func (s *memSocket) SetDeadline(time.Time) error      { return errNoDeadline }
func (s *memSocket) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (s *memSocket) SetWriteDeadline(time.Time) error { return errNoDeadline }

type memConn struct{ *memSocket }

func (c *memConn) Read(b []byte) (int, error) {
	n, _, err := c.recv(b)
	return n, err
}
func (c *memConn) Write(b []byte) (int, error) { return len(b), c.send(b, c.remote) }
func (c *memConn) RemoteAddr() net.Addr        { return net.UDPAddrFromAddrPort(c.remote) }
