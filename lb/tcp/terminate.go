package tcp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"

	"github.com/aovlb/aovlb/lb"
)

// incoming is a stream as its lb.Terminator sees it.
type incoming struct {
	s      *server
	st     *stream
	v      lb.Verdict
	client net.Conn
	claim  *lb.Stream // nil until it has a backend
	why    Refusal    // why it isn't carried, as far as the engine knows
}

var _ lb.Incoming = (*incoming)(nil)

// incoming greets a client. It returns nil if it was refused.
func (s *server) incoming(cancel context.CancelFunc, st *stream) *incoming {
	e := s.e
	head := e.newHead()
	defer e.freeHead(head)
	v, why, err := e.greet(st, head)
	if err != nil {
		s.refuse(st, why, err)
		return nil
	}
	st.dialing(cancel)
	in := &incoming{s: s, st: st, v: v, client: st.client, why: RefusedHandshake}
	if rest := head.rest(); len(rest) > 0 {
		in.client = &prefixed{Conn: st.client, first: bytes.Clone(rest)}
	}
	return in
}

// terminate leaves a stream to the Terminator.
func (s *server) terminate(ctx context.Context, in *incoming) {
	st := in.st
	err := s.e.Terminator.Terminate(ctx, in)
	if in.claim != nil {
		in.claim.Close()
	}
	switch {
	case st.carried.Load():
		s.closed(st)
	case err != nil:
		s.refuse(st, in.why, err)
	default:
		s.e.count.answered.Add(1)
		st.cut(EndDone, SideNone, nil)
	}
}

func (in *incoming) Client() net.Conn { return in.client }
func (in *incoming) Flow() lb.Flow    { return in.st.flow }

func (in *incoming) Route(avoid ...lb.ID) (lb.Route, error) {
	r, err := in.s.e.Balancer.Route(&in.v, in.st.flow, avoid...)
	if err != nil {
		in.why = RefusedNoBackend
	}
	return r, err
}

func (in *incoming) Dial(ctx context.Context, r lb.Route, port uint16) (net.Conn, error) {
	e, st := in.s.e, in.st
	if !usable(e.Balancer.Pool.View(), r.Member.ID) {
		in.why = RefusedNoBackend
		return nil, fmt.Errorf("tcp: backend %s has gone down", r.Member.Name)
	}
	if port == 0 {
		port = defaultTo(e.Port, st.flow.Service)
	}
	target := netip.AddrPortFrom(r.Member.Addr, port)
	conn, why, err := e.reach(ctx, st, r.Member, target)
	if err != nil {
		in.why = why
		return nil, err
	}
	if e.ProxyTo != ProxyNone {
		if _, err := conn.Write(st.proxied.Append(make([]byte, 0, 128), e.ProxyTo)); err != nil {
			in.why = RefusedUnreachable
			abort(conn)
			return nil, err
		}
	}
	return conn, in.join(conn, r)
}

// join makes conn the stream's, in place of one that it had.
func (in *incoming) join(conn net.Conn, r lb.Route) error {
	in.leave()
	if !in.st.join(conn, r) {
		abort(conn)
		in.why = RefusedClosing
		return net.ErrClosed
	}
	in.claim = in.s.e.Balancer.Attach(r.Member, &in.v, in.st.flow, r.Why)
	in.s.recheck(in.st)
	return nil
}

// leave gives up the connection to a backend that the stream has, if any.
func (in *incoming) leave() {
	if in.claim != nil {
		in.claim.Close()
		in.claim = nil
	}
	if in.st.backend != nil {
		abort(in.st.backend)
	}
}

func (in *incoming) DialAddr(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	e, st := in.s.e, in.st
	conn, err := e.dial(ctx, st.flow.Client, addr)
	if err != nil {
		in.why = RefusedUnreachable
		e.logger().Log(ctx, e.grave(), "server can't be reached", "target", addr, "err", err)
		return nil, err
	}
	e.tune(conn)
	in.leave()
	if !st.join(conn, lb.Route{}) {
		abort(conn)
		in.why = RefusedClosing
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (in *incoming) Carry(client, backend net.Conn, first []byte) lb.Carried {
	st := in.st
	in.opened()
	st.carry(in.s.e, client, backend, func() error {
		if len(first) == 0 {
			return nil
		}
		n, err := backend.Write(first)
		st.sent.add(n)
		return err
	})
	return st.ended()
}

// opened counts a stream whose bytes are about to move, and tells of it.
func (in *incoming) opened() {
	e, st := in.s.e, in.st
	st.carried.Store(true)
	e.count.opened.Add(1)
	if st.member != nil {
		e.Trace.opened(st.flow, st.member, st.why)
	}
	if l := e.logger(); l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("stream opened", "client", st.flow.Client, "backend", st.name(), "why", st.why.String())
	}
}

// ended says how a stream has ended that was carried.
func (st *stream) ended() lb.Carried {
	sum := st.summary()
	return lb.Carried{End: sum.End.String(), First: sum.First.String(), Err: sum.Err, Sent: sum.Sent, Received: sum.Received}
}

// prefixed is a connection of which some bytes have been read already.
type prefixed struct {
	net.Conn
	first []byte
}

func (c *prefixed) Read(b []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(b, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// copy is move through a buffer.
func (e *Engine) copy(p *progress, dst, src net.Conn) (action, error) {
	w, ok := src.(interface{ WaitRead() error })
	if !ok {
		return e.copyWaiting(p, dst, src)
	}
	for {
		at, err := reading, w.WaitRead()
		if err == nil {
			at, err = e.pour(p, dst, src)
		}
		switch {
		case at == reading && errors.Is(err, io.EOF):
			return reading, nil
		case err != nil:
			return at, err
		}
	}
}

// pour moves what is there. Its error is never nil once src has ended.
func (e *Engine) pour(p *progress, dst, src net.Conn) (action, error) {
	b := e.bulk()
	defer e.bulks.Put(b)
	for {
		n, err := src.Read(b[:])
		if n > 0 {
			w, err := dst.Write(b[:n])
			p.add(w)
			if err != nil {
				return writing, err
			}
		}
		if err != nil || n < len(b) {
			return reading, err
		}
	}
}

// bulkBuffer is what is read at once, of what is not spliced.
const bulkBuffer = 64 << 10

func (e *Engine) bulk() *[bulkBuffer]byte {
	if b, ok := e.bulks.Get().(*[bulkBuffer]byte); ok {
		return b
	}
	return new([bulkBuffer]byte)
}

// copyWaiting is copy from a connection that can't be waited for. Meanwhile it
// holds a small buffer, so that a stream costs little that is idle.
func (e *Engine) copyWaiting(p *progress, dst, src net.Conn) (action, error) {
	small := e.small()
	defer e.smalls.Put(small)
	big := (*[MaxSniff]byte)(nil)
	defer func() {
		if big != nil {
			e.buffers.Put(big)
		}
	}()
	b := small[:]
	for {
		n, err := src.Read(b)
		if n > 0 {
			w, err := dst.Write(b[:n])
			p.add(w)
			if err != nil {
				return writing, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return reading, nil
		case err != nil:
			return reading, err
		}
		switch {
		case n == len(b) && big == nil: // there is more
			big = e.buffer()
			b = big[:]
		case n < smallBuffer && big != nil:
			e.buffers.Put(big)
			big, b = nil, small[:]
		}
	}
}

// smallBuffer is room for the packet of a tunnel.
const smallBuffer = 2 << 10

func (e *Engine) small() *[smallBuffer]byte {
	if b, ok := e.smalls.Get().(*[smallBuffer]byte); ok {
		return b
	}
	return new([smallBuffer]byte)
}
