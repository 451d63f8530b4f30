package tcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// A network connects in memory, so that tests run in virtual time. What listens
// at an address is a listener; where nothing does, connections are refused, or
// never answered if the address hangs.
type network struct {
	mu        sync.Mutex // below
	listeners map[netip.AddrPort]*listener
	hangs     map[netip.AddrPort]bool
	dialed    []netip.AddrPort
	nextPort  uint16
}

func newNetwork() *network {
	return &network{
		listeners: make(map[netip.AddrPort]*listener), hangs: make(map[netip.AddrPort]bool), nextPort: 40000,
	}
}

type listener struct {
	at     net.Addr
	queue  chan *conn
	fail   chan error // what Accept returns instead
	closed chan struct{}
	once   sync.Once
}

func (n *network) listen(at string) *listener {
	ap := netip.MustParseAddrPort(at)
	l := &listener{
		at: net.TCPAddrFromAddrPort(ap), queue: make(chan *conn, 64), fail: make(chan error), closed: make(chan struct{}),
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[ap] = l
	return l
}

func (n *network) hang(at string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hangs[netip.MustParseAddrPort(at)] = true
}

// dials returns what has been dialed.
func (n *network) dials() []netip.AddrPort {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]netip.AddrPort(nil), n.dialed...)
}

func (n *network) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	return n.dialFrom(ctx, "192.0.2.250", addr)
}

func (n *network) dialFrom(ctx context.Context, from, addr string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	n.dialed = append(n.dialed, ap)
	n.nextPort++
	port, l, hangs := n.nextPort, n.listeners[ap], n.hangs[ap]
	n.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	if l == nil {
		return nil, refused
	}
	a := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), port))
	up, down := newHalf(), newHalf()
	ours := &conn{local: a, remote: l.at, r: down, w: up}
	theirs := &conn{local: l.at, remote: a, r: up, w: down}
	select {
	case <-l.closed:
		return nil, refused
	default:
	}
	select {
	case <-l.closed:
		return nil, refused
	case l.queue <- theirs:
		return ours, nil
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case err := <-l.fail:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.at }

// room is how many bytes one direction holds before its writer must wait.
const room = 64 << 10

// A half is one direction of a connection.
type half struct {
	mu    sync.Mutex // below
	cond  *sync.Cond
	buf   []byte
	fin   bool  // nothing more will be written
	gone  bool  // nobody reads any more
	reset bool  // by either side
	read  limit // when reading and writing must be over
	write limit
}

type limit struct {
	at    time.Time
	timer *time.Timer
}

func newHalf() *half {
	h := new(half)
	h.cond = sync.NewCond(&h.mu)
	return h
}

func (l *limit) over() bool { return !l.at.IsZero() && !l.at.After(time.Now()) }

func (h *half) set(l *limit, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	l.at = at
	if !at.IsZero() {
		l.timer = time.AfterFunc(time.Until(at), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.cond.Broadcast()
		})
	}
	h.cond.Broadcast()
}

// change changes h and wakes who waits.
func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.cond.Broadcast()
}

// A conn is one end of a connection.
type conn struct {
	local, remote net.Addr
	r, w          *half

	mu     sync.Mutex // below
	closed bool
	linger bool // Close resets
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *conn) Read(b []byte) (int, error) {
	h := c.r
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case c.isClosed():
			return 0, net.ErrClosed
		case h.read.over():
			return 0, os.ErrDeadlineExceeded
		case len(h.buf) > 0:
			n := copy(b, h.buf)
			h.buf = h.buf[n:]
			h.cond.Broadcast()
			return n, nil
		case h.reset:
			return 0, syscall.ECONNRESET
		case h.fin:
			return 0, io.EOF
		}
		h.cond.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	h := c.w
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for {
		switch {
		case c.isClosed():
			return done, net.ErrClosed
		case h.reset || h.gone:
			return done, syscall.ECONNRESET
		case h.fin:
			return done, syscall.EPIPE
		case h.write.over():
			return done, os.ErrDeadlineExceeded
		}
		n := min(len(b)-done, room-len(h.buf))
		h.buf = append(h.buf, b[done:done+n]...)
		if done += n; n > 0 {
			h.cond.Broadcast()
		}
		if done == len(b) {
			return done, nil
		}
		h.cond.Wait()
	}
}

func (c *conn) CloseWrite() error {
	c.w.change(func() { c.w.fin = true })
	return nil
}

func (c *conn) SetLinger(sec int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.linger = sec == 0
	return nil
}

func (c *conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	reset := c.linger
	c.mu.Unlock()
	c.r.change(func() { c.r.gone, c.r.reset = true, c.r.reset || reset })
	c.w.change(func() { c.w.fin, c.w.reset = true, c.w.reset || reset })
	var none time.Time
	return errors.Join(c.SetDeadline(none))
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.r.set(&c.r.read, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.w.set(&c.w.write, t)
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }
