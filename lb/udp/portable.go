package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// portable is the driver for everything that is no real socket on Linux: a
// goroutine for each listener and each upstream, and one shard under a lock.
// Sending happens outside the lock.
type portable struct {
	e       *Engine
	conns   []net.PacketConn
	start   time.Time
	failed  chan error
	drained chan struct{}
	wake    chan struct{} // the timer has to be set anew
	readers sync.WaitGroup

	mu     sync.Mutex // below
	shard  shard
	ends   []*endpoint
	due    time.Duration // when the timer goes off; 0 if it isn't set
	closed bool
	last   []FlowState // when closed
}

// maxDatagram is the size of the largest UDP datagram, and a bit.
const maxDatagram = 1 << 16

func newPortable(e *Engine, conns []net.PacketConn, maxFlows int) (driver, error) {
	p := &portable{
		e: e, conns: conns, start: time.Now(), failed: make(chan error, 1),
		drained: make(chan struct{}), wake: make(chan struct{}, 1),
	}
	p.shard.init(e, p, 1, maxFlows)
	for i, c := range conns {
		a, err := addrPort(c.LocalAddr())
		if err != nil {
			return nil, err
		}
		p.ends = append(p.ends, &endpoint{id: uint16(i), addr: a, listener: i})
	}
	return p, nil
}

func (p *portable) serve(ctx context.Context) error {
	p.resume()
	for i := range p.conns {
		p.readers.Go(func() { p.read(i) })
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var err error
	for running := true; running; {
		timer.Reset(p.wait())
		select {
		case <-ctx.Done():
			running = false
		case <-p.drained:
			running = false
		case err = <-p.failed:
			running = false
		case <-p.wake:
		case <-timer.C:
			p.expire()
		}
	}
	return errors.Join(err, p.close())
}

// wait returns how long nothing is due.
func (p *portable) wait() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.due = p.shard.due()
	if p.due == 0 {
		return 24 * time.Hour
	}
	return p.due - time.Since(p.start)
}

func (p *portable) expire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shard.now = time.Since(p.start)
	p.shard.expire()
	p.checkDrained()
}

// checkDrained ends serve when it has been drained. p.mu is held.
func (p *portable) checkDrained() {
	if p.shard.draining && p.shard.table.used == 0 {
		select {
		case <-p.drained:
		default:
			close(p.drained)
		}
	}
}

func (p *portable) close() error {
	p.mu.Lock()
	p.last = p.shard.states(nil, p.localOf)
	p.closed, p.shard.closing = true, true
	for _, l := range []*flowList{&p.shard.unanswered, &p.shard.half, &p.shard.full} {
		for l.tail != nil {
			p.shard.remove(l.tail)
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, c := range p.conns {
		if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("udp: closing %v: %w", c.LocalAddr(), err))
		}
	}
	p.readers.Wait()
	return errors.Join(errs...)
}

// read carries what comes to listener i, until that is closed.
func (p *portable) read(i int) {
	b := make([]byte, maxDatagram)
	for {
		n, from, err := readFrom(p.conns[i], b)
		if err != nil {
			if p.over() {
				return
			}
			if transient(err) {
				continue
			}
			select {
			case p.failed <- fmt.Errorf("udp: reading from %v: %w", p.conns[i].LocalAddr(), err):
			default:
			}
			return
		}
		p.carry(i, from, b[:n])
	}
}

func readFrom(c net.PacketConn, b []byte) (int, netip.AddrPort, error) {
	if u, ok := c.(*net.UDPConn); ok {
		n, from, err := u.ReadFromUDPAddrPort(b)
		return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), err
	}
	n, a, err := c.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	from, err := addrPort(a)
	return n, from, err
}

// transient reports whether a socket that returned err can be read further: the
// network's errors of single datagrams are.
func transient(err error) bool {
	var no syscall.Errno
	return errors.As(err, &no) && no != syscall.EBADF
}

func (p *portable) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// carry brings a client's datagram to its backend.
func (p *portable) carry(i int, from netip.AddrPort, b []byte) {
	var to [4]net.Conn
	conns := to[:0]
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	s := &p.shard
	s.now = time.Since(p.start)
	s.counters.clientPackets.Add(1)
	s.counters.clientBytes.Add(uint64(len(b)))
	k := keyOf(from, uint16(i))
	if f := s.fromClient(&k, p.ends[i], b); f != nil {
		if f.up != nil {
			conns = append(conns, f.up.conn)
		}
		for _, u := range f.asks {
			conns = append(conns, u.conn)
		}
	}
	p.arm()
	p.mu.Unlock()
	for _, c := range conns {
		if _, err := c.Write(b); err != nil {
			s.counters.sendErrors.Add(1)
		} else {
			s.counters.sent.Add(1)
		}
	}
}

// arm has serve set its timer anew if something may be due earlier than it goes
// off. p.mu is held.
func (p *portable) arm() {
	due := p.shard.due()
	if due != 0 && (p.due == 0 || due < p.due) {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// answer brings what comes from u to its client, until u is closed.
func (p *portable) answer(u *upstream) {
	b := make([]byte, maxDatagram)
	for {
		n, err := u.conn.Read(b)
		if !p.reply(u, b[:max(n, 0)], err) {
			return
		}
	}
}

// reply reports whether u may be read further.
func (p *portable) reply(u *upstream, b []byte, err error) bool {
	p.mu.Lock()
	s := &p.shard
	f := u.flow
	if f == nil {
		p.mu.Unlock()
		return false
	}
	s.now = time.Since(p.start)
	if err != nil {
		defer p.mu.Unlock()
		s.failed(u, err)
		if !transient(err) {
			s.remove(f)
			p.checkDrained()
			return false
		}
		return true
	}
	s.counters.backendPackets.Add(1)
	s.counters.backendBytes.Add(uint64(len(b)))
	pass := s.fromBackend(u, b)
	addr, conn := f.addr, p.conns[f.end.listener]
	p.arm()
	p.mu.Unlock()
	if !pass {
		return true
	}
	if _, err := conn.WriteTo(b, addr); err != nil {
		s.counters.sendErrors.Add(1)
	} else {
		s.counters.replied.Add(1)
	}
	return true
}

func (p *portable) open(u *upstream, f *flow, local netip.AddrPort) error {
	dial := p.e.Dial
	if dial == nil {
		dial = dialUDP
	}
	c, err := dial(local, netip.AddrPortFrom(u.member.Addr, p.e.port(f.flow.Service)))
	if err != nil {
		return err
	}
	u.conn = c
	p.readers.Go(func() { p.answer(u) })
	return nil
}

func dialUDP(local, remote netip.AddrPort) (net.Conn, error) {
	var from *net.UDPAddr
	if local.IsValid() {
		from = net.UDPAddrFromAddrPort(local)
	}
	return net.DialUDP("udp", from, net.UDPAddrFromAddrPort(remote))
}

// shut closes the socket of u. Its error would say nothing anyone could act on.
func (p *portable) shut(u *upstream) { _ = u.conn.Close() }

func (p *portable) greet(f *flow) { f.addr = net.UDPAddrFromAddrPort(f.flow.Client) }

func (p *portable) part(*flow) {}

func (p *portable) inherit(flowKey, lb.Flow, *endpoint) bool { return false }

func (p *portable) drain() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shard.draining = true
	p.checkDrained()
}

func (p *portable) flows() []FlowState {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.last
	}
	p.shard.now = time.Since(p.start)
	return p.shard.states(nil, p.localOf)
}

func (p *portable) localOf(u *upstream) netip.AddrPort {
	a, err := addrPort(u.conn.LocalAddr())
	if err != nil {
		return netip.AddrPort{}
	}
	return a
}

func (p *portable) stats() Stats {
	var s Stats
	p.shard.counters.addTo(&s)
	return s
}

// resume continues what Restore was given.
func (p *portable) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.e.takeRestore() {
		err := errNoListener
		for _, end := range p.ends {
			if end.addr == st.Listener {
				err = p.shard.resume(st, end)
				break
			}
		}
		p.e.resumed(st, err)
	}
}
