package lbtest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// DefaultQueue is how many datagrams wait at a socket to be read.
const DefaultQueue = 256

// firstPort is the first of the ports that are given to who asks for any.
const firstPort = 49152

// A Net is a network of datagrams in memory. The zero Net delivers everything
// at once. It may be used from many goroutines; its fields must not be changed
// while it carries anything. To be used in a bubble of testing/synctest it
// must be made there.
type Net struct {
	// Link, if not nil, says what happens to each datagram on its way. It is
	// called by the goroutine that sends, without a lock held, and must not
	// retain the payload.
	Link func(Datagram) Fate
	// Queue is how many datagrams wait at a socket to be read before further
	// ones are lost; 0 means DefaultQueue.
	Queue int

	mu    sync.Mutex // below
	socks map[pair]*Conn
	next  uint16
	open  int // sockets, those a NAT has no address for included

	lost, passed atomic.Uint64
}

// A Datagram is one packet on its way.
type Datagram struct {
	// From and To are what the network sees: behind a NAT, From is the NAT's
	// address.
	From, To netip.AddrPort
	// Payload is what it carries.
	Payload []byte
}

// A Fate is what happens to a Datagram. The zero Fate delivers it at once.
type Fate struct {
	// Drop loses it, without a word to the sender.
	Drop bool
	// Delay is how long it is under way. Datagrams of different delays
	// overtake each other.
	Delay time.Duration
	// Copies is how many more times it arrives.
	Copies int
	// From, if valid, is put in the place of the sender's address, as a NAT
	// on the way would.
	From netip.AddrPort
}

// Stats counts what became of the datagrams of a Net.
type Stats struct {
	// Passed is how many arrived at a socket, copies included; Lost how many
	// did not: dropped by Link, nobody there, or a full queue.
	Passed, Lost uint64
}

// Stats returns what has been counted so far.
func (n *Net) Stats() Stats { return Stats{Passed: n.passed.Load(), Lost: n.lost.Load()} }

// Sockets returns how many sockets are open, for tests that none is left.
func (n *Net) Sockets() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.open
}

// pair is what a socket is found by: its own address, and the one it is
// connected to, if it is.
type pair struct{ local, remote netip.AddrPort }

// A Host is a machine on a Net.
type Host struct {
	// Net is what it is connected to. It must not be nil.
	Net *Net
	// Addr is its address.
	Addr netip.Addr
}

// Listen opens a socket that takes datagrams of everybody; port 0 means any
// that is free. The error is like that of package net if the port is taken.
func (h Host) Listen(port uint16) (*Conn, error) {
	return h.Net.bind(netip.AddrPortFrom(h.Addr, port), netip.AddrPort{})
}

// Dial opens a socket that speaks with remote only. If local is valid, that is
// its own address, whether the host has it or not, as with IP_TRANSPARENT; an
// invalid one means the host's and a port that is free. Hosts elsewhere may
// have the same address and port: what remote sends there goes to the
// connected socket.
func (h Host) Dial(local, remote netip.AddrPort) (net.Conn, error) {
	if !remote.IsValid() {
		return nil, errors.New("lbtest: dialing nobody")
	}
	if !local.IsValid() {
		local = netip.AddrPortFrom(h.Addr, 0)
	}
	c, err := h.Net.bind(local, remote)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (n *Net) bind(local, remote netip.AddrPort) (*Conn, error) {
	if !local.Addr().IsValid() {
		return nil, errors.New("lbtest: a host without an address")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	at, err := n.free(local, remote)
	if err != nil {
		return nil, err
	}
	c := n.newConn(at.local, remote)
	c.at = at
	n.socks[at] = c
	return c, nil
}

// newConn makes a socket that nobody finds yet. n.mu is held.
func (n *Net) newConn(local, remote netip.AddrPort) *Conn {
	queue := n.Queue
	if queue <= 0 {
		queue = DefaultQueue
	}
	c := &Conn{
		net: n, local: local, remote: remote, in: make(chan Datagram, queue),
		refused: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	c.read.done = make(chan struct{})
	n.open++
	return c
}

// free returns the pair with a port, if it asks for any. n.mu is held.
func (n *Net) free(local, remote netip.AddrPort) (pair, error) {
	if n.socks == nil {
		n.socks = make(map[pair]*Conn)
		n.next = firstPort
	}
	if local.Port() != 0 {
		at := pair{local, remote}
		if n.socks[at] != nil {
			return pair{}, opError("listen", local, syscall.EADDRINUSE)
		}
		return at, nil
	}
	for range 1<<16 - firstPort {
		at := pair{netip.AddrPortFrom(local.Addr(), n.next), remote}
		if n.next++; n.next == 0 {
			n.next = firstPort
		}
		if n.socks[at] == nil {
			return at, nil
		}
	}
	return pair{}, opError("listen", local, syscall.EADDRINUSE)
}

// send carries b on behalf of the socket c.
func (n *Net) send(c *Conn, from, to netip.AddrPort, b []byte) {
	d := Datagram{From: from, To: to, Payload: b}
	var f Fate
	if n.Link != nil {
		f = n.Link(d)
	}
	if f.Drop {
		n.lost.Add(1)
		return
	}
	if f.From.IsValid() {
		d.From = f.From
	}
	d.Payload = append([]byte(nil), b...)
	if f.Delay <= 0 {
		n.deliver(c, d, f.Copies+1)
		return
	}
	time.AfterFunc(f.Delay, func() { n.deliver(c, d, f.Copies+1) })
}

// deliver gives d to who is there. If nobody is, the sender hears of it as from
// an ICMP message: only connected sockets are told.
func (n *Net) deliver(c *Conn, d Datagram, copies int) {
	n.mu.Lock()
	to := n.socks[pair{d.To, d.From}]
	if to == nil {
		to = n.socks[pair{d.To, netip.AddrPort{}}]
	}
	n.mu.Unlock()
	if to == nil {
		n.lost.Add(uint64(copies))
		if c.remote.IsValid() {
			select {
			case c.refused <- struct{}{}:
			default:
			}
		}
		return
	}
	for range copies {
		select {
		case to.in <- d:
			n.passed.Add(1)
		default:
			n.lost.Add(1)
		}
	}
}

// A Conn is a socket of a Net: a [net.PacketConn], and, if it was dialed, a
// [net.Conn] too. Its errors are those that real sockets have.
type Conn struct {
	net    *Net
	local  netip.AddrPort // what its owner knows
	remote netip.AddrPort // invalid unless it was dialed
	nat    *NAT           // nil unless it is behind one
	in     chan Datagram

	refused   chan struct{} // an error waits to be seen
	closeOnce sync.Once
	closed    chan struct{}
	read      deadline

	at pair // where the network finds it; net.mu
}

var (
	_ net.PacketConn = (*Conn)(nil)
	_ net.Conn       = (*Conn)(nil)
)

// Addr returns the address and port that others see. Behind a NAT those are the
// NAT's, and invalid before anything was sent.
func (c *Conn) Addr() netip.AddrPort {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	return c.at.local
}

// LocalAddr returns the socket's own address, a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.local) }

// RemoteAddr returns what it is connected to, a *net.UDPAddr, or nil.
func (c *Conn) RemoteAddr() net.Addr {
	if c.remote.IsValid() {
		return net.UDPAddrFromAddrPort(c.remote)
	}
	return nil
}

// Receive waits for a datagram and returns it whole.
func (c *Conn) Receive() (Datagram, error) {
	if err := c.ended(); err != nil {
		return Datagram{}, err
	}
	select {
	case d := <-c.in:
		return d, nil
	case <-c.refused:
		return Datagram{}, opError("read", c.local, syscall.ECONNREFUSED)
	case <-c.closed:
		return Datagram{}, opError("read", c.local, net.ErrClosed)
	case <-c.read.passed():
		return Datagram{}, opError("read", c.local, os.ErrDeadlineExceeded)
	}
}

// ended returns why nothing is read any more, even if something waits.
func (c *Conn) ended() error {
	select {
	case <-c.closed:
		return opError("read", c.local, net.ErrClosed)
	case <-c.read.passed():
		return opError("read", c.local, os.ErrDeadlineExceeded)
	default:
		return nil
	}
}

// ReadFrom reads one datagram; what doesn't fit into b is lost. The address is a
// *net.UDPAddr.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromUDPAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromUDPAddrPort is ReadFrom with an address that allocates nothing.
func (c *Conn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	d, err := c.Receive()
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return copy(b, d.Payload), d.From, nil
}

// Read reads one datagram; what doesn't fit into b is lost.
func (c *Conn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromUDPAddrPort(b)
	return n, err
}

// WriteTo sends one datagram. It never blocks. The address must be a
// *net.UDPAddr.
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", c.local, fmt.Errorf("a %T is no address of a datagram", to))
	}
	return c.WriteToUDPAddrPort(b, u.AddrPort())
}

// WriteToUDPAddrPort is WriteTo with an address that allocates nothing.
func (c *Conn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.remote.IsValid() {
		return 0, opError("write", c.local, net.ErrWriteToConnected)
	}
	return c.write(b, netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
}

// Write sends one datagram to whom the socket is connected to.
func (c *Conn) Write(b []byte) (int, error) {
	if !c.remote.IsValid() {
		return 0, opError("write", c.local, syscall.EDESTADDRREQ)
	}
	return c.write(b, c.remote)
}

// maxPayload is the most that fits into a datagram over IPv4.
const maxPayload = 65507

func (c *Conn) write(b []byte, to netip.AddrPort) (int, error) {
	select {
	case <-c.closed:
		return 0, opError("write", c.local, net.ErrClosed)
	case <-c.refused:
		return 0, opError("write", c.local, syscall.ECONNREFUSED)
	default:
	}
	if len(b) > maxPayload {
		return 0, opError("write", c.local, syscall.EMSGSIZE)
	}
	from := c.local
	if c.nat != nil {
		var err error
		if from, err = c.nat.outside(c); err != nil {
			return 0, err
		}
	}
	c.net.send(c, from, to, b)
	return len(b), nil
}

// Close ends the socket, and wakes up who waits to read. What is on its way to it
// is lost. Closing it again is an error that wraps net.ErrClosed.
func (c *Conn) Close() error {
	err := opError("close", c.local, net.ErrClosed)
	c.closeOnce.Do(func() {
		c.net.mu.Lock()
		c.net.open--
		if c.net.socks[c.at] == c {
			delete(c.net.socks, c.at)
		}
		c.net.mu.Unlock()
		close(c.closed)
		c.read.set(time.Time{})
		err = nil
	})
	return err
}

// SetDeadline sets the deadline for reading; writing never takes time.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline sets when waiting to read ends with an error that wraps
// os.ErrDeadlineExceeded. The zero time means never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	select {
	case <-c.closed:
		return opError("set", c.local, net.ErrClosed)
	default:
	}
	c.read.set(t)
	return nil
}

// SetWriteDeadline does nothing, for writing never takes time.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

func opError(op string, at netip.AddrPort, err error) error {
	if no, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, no)
	}
	return &net.OpError{Op: op, Net: "udp", Addr: net.UDPAddrFromAddrPort(at), Err: err}
}

// deadline is a time that can be waited for and moved.
type deadline struct {
	mu    sync.Mutex // below
	timer *time.Timer
	done  chan struct{} // closed when the time has passed
}

func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil && !d.timer.Stop() {
		<-d.done // it has just gone off
	}
	d.timer = nil
	over := false
	select {
	case <-d.done:
		over = true
	default:
	}
	if t.IsZero() || time.Until(t) > 0 {
		if over {
			d.done = make(chan struct{})
		}
		if !t.IsZero() {
			done := d.done
			d.timer = time.AfterFunc(time.Until(t), func() { close(done) })
		}
		return
	}
	if !over {
		close(d.done)
	}
}
