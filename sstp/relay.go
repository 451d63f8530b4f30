package sstp

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A side is one of the two connections of a session, as the engine sees it that
// moves the bytes: it looks at what comes and goes, and knows how it ends.
//
// SSTP has no half-open connections: when one side has ended the other will too.
// It is given a while for that, no longer.
type side struct {
	net.Conn
	half   interface{ CloseWrite() error } // Conn; nil if it can't be half closed
	wire   *wire                           // below Conn, or its own
	tls    bool                            // Conn is TLS on the wire
	linger time.Duration
	call   *call // nil if nobody looks
	client bool
	// closed says that we have ended our direction.
	closed atomic.Bool
	last   *atomic.Int64 // when bytes came or went, as Unix time in ns

	// Of the reader:
	waits bool // it uses WaitRead
	dry   bool // TLS has nothing left, nor had the wire
}

// newSide returns the side of a connection, which is TLS if w isn't nil: w is what
// it is on then.
func newSide(c net.Conn, w *wire, linger time.Duration) net.Conn {
	s := &side{Conn: c, wire: w, tls: w != nil, linger: linger}
	if w == nil {
		s.wire = newWire(c)
		s.wire.records.off = true
		s.Conn = s.wire
	}
	s.half, _ = c.(interface{ CloseWrite() error })
	if s.wire.raw == nil {
		return s
	}
	s.wire.dries = s.tls
	return waitingSide{s}
}

// A waitingSide is a side whose reader can wait without a buffer (see
// [lb.Incoming]).
type waitingSide struct{ *side }

// WaitRead returns when Read has something, or might have.
func (s waitingSide) WaitRead() error {
	s.waits = true
	if s.tls && !s.dry {
		return nil
	}
	s.dry = false
	return s.ended(s.wire.wait())
}

// Read reads, and looks at what has come.
func (s *side) Read(b []byte) (int, error) {
	n, err := s.read(b)
	if n > 0 && s.call != nil {
		s.last.Store(time.Now().UnixNano())
		f := &s.call.down
		if s.client {
			f = &s.call.up
		}
		s.call.feed(f, b[:n])
	}
	if err == io.EOF && s.tls && !s.wire.ended && s.call != nil {
		s.call.farewell(s.client)
	}
	return n, s.ended(err)
}

// read reads as many records of TLS as there are and b has room for: each would
// else be a packet of its own on the way to the other side.
func (s *side) read(b []byte) (n int, err error) {
	if !s.wire.dries {
		return s.Conn.Read(b)
	}
	for n == 0 || len(b)-n >= maxPayload {
		m, err := s.Conn.Read(b[n:])
		n += m
		switch {
		case err == nil && s.emptied(m):
			s.dry = true
			return n, nil
		case err == nil:
		case !isDry(err):
			return n, err
		case n > 0 || s.waits:
			s.dry = true
			s.wire.records.n = 0
			return n, nil
		default:
			if err := s.wire.wait(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// emptied reports whether crypto/tls has nothing left after a Read, nor had the
// wire: to ask it would cost an allocation. Each Read takes one record at least.
func (s *side) emptied(n int) bool {
	r := &s.wire.records
	if n > 0 && r.n > 0 {
		r.n--
	}
	return s.wire.short && r.n == 0 && r.whole()
}

// ended says what an error of reading means.
func (s *side) ended(err error) error {
	switch {
	case err == nil:
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.EOF // TLS ended without its farewell, as it does with many
	case s.closed.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		return io.EOF
	}
	return err
}

// Write writes, all records of TLS at once.
func (s *side) Write(b []byte) (int, error) {
	if !s.tls || len(b) <= maxPayload {
		return s.Conn.Write(b)
	}
	s.wire.cork()
	n, err := s.Conn.Write(b)
	if ferr := s.wire.flush(); err == nil {
		err = ferr
	}
	return n, err
}

// CloseWrite ends our direction, and has the other one end soon.
func (s *side) CloseWrite() error {
	s.closed.Store(true)
	// It has to be so that a Read that waits already ends too.
	if err := s.Conn.SetReadDeadline(time.Now().Add(s.linger)); err != nil {
		return err
	}
	if s.half == nil {
		return nil
	}
	return s.half.CloseWrite()
}

// A passage is a connection that is ready to be carried, and what to do when it has
// been.
type passage struct {
	t           *Terminator
	in          lb.Incoming
	front, back net.Conn
	first       []byte
	call        *call // nil if nobody remembers it
	last        *atomic.Int64
}

// passage returns how a session is to be carried to a gateway.
func (v *visit) passage(gateway net.Conn, w *wire, s Session) *passage {
	t := v.t
	c := &call{s: s, report: t.bound}
	c.up.from, c.down.from = PeerClient, PeerGateway
	c.up.phase, c.down.phase = phasePackets, phaseHead
	p := v.pass(gateway, w)
	p.call = c
	if !v.request.Tunnel() {
		c.s.Stage = StageOpaque
		return p
	}
	front, back := sideOf(p.front), sideOf(p.back)
	p.last = new(atomic.Int64)
	front.call, back.call, front.last, back.last = c, c, p.last, p.last
	front.client = true
	// The client's request has been read already, and what came with it.
	if _, n, err := ParseRequest(v.first); err == nil {
		c.feed(&c.up, v.first[n:])
	}
	return p
}

// pass returns how the client is to be carried to a server, unseen.
func (v *visit) pass(server net.Conn, w *wire) *passage {
	linger := cmp.Or(v.t.Linger, DefaultLinger)
	return &passage{t: v.t, in: v.in, front: newSide(v.conn, v.wire, linger), back: newSide(server, w, linger), first: v.first}
}

func sideOf(c net.Conn) *side {
	if w, ok := c.(waitingSide); ok {
		return w.side
	}
	return c.(*side)
}

// carry carries a session to its end.
func (p *passage) carry() {
	first := p.first
	p.first = nil
	if p.call == nil {
		p.in.Carry(p.front, p.back, first)
		return
	}
	p.t.begin(p.call)
	p.end(p.in.Carry(p.front, p.back, first))
}

func (p *passage) end(carried lb.Carried) {
	var quiet time.Duration
	if p.last != nil && p.last.Load() != 0 {
		quiet = max(time.Since(time.Unix(0, p.last.Load())), 0)
	}
	p.t.end(p.call, carried, quiet)
}

func (t *Terminator) begin(c *call) {
	if t.Sessions != nil {
		t.Sessions.begin(c)
	}
}

// bound tells of a CALL_CONNECTED.
func (t *Terminator) bound(c *call) {
	if t.Trace != nil && t.Trace.Bound != nil {
		t.Trace.Bound(c.snapshot())
	}
}

// end judges a session, and tells of it.
func (t *Terminator) end(c *call, carried lb.Carried, quiet time.Duration) {
	c.mu.Lock()
	c.s.End, c.s.Quiet = time.Now(), quiet
	c.s.ended(carried)
	c.s.Finding = c.s.judge()
	s := c.session()
	c.mu.Unlock()
	if t.Sessions != nil {
		s = t.Sessions.end(c)
	}
	t.tell(&s)
}

// tell logs a session that has ended. What concerns no tunnel is of less interest.
func (t *Terminator) tell(s *Session) {
	if t.Trace != nil && t.Trace.Ended != nil {
		t.Trace.Ended(*s)
	}
	level := slog.LevelInfo
	if s.Resource != ResourceSSTP || s.Correlation == "" && s.Stage == StageHead && s.Finding == FindingNone {
		level = slog.LevelDebug
	}
	if s.Finding != FindingNone && s.Finding != FindingBalancer {
		level = slog.LevelWarn
	}
	l := t.log()
	if !l.Enabled(context.Background(), level) {
		return
	}
	what, fix := s.Explain()
	attrs := []any{
		"correlation", s.Correlation, "client", s.Client, "backend", s.Backend, "stage", s.Stage.String(),
		"finding", s.Finding.String(), "what", what, "took", s.Took(s.End).Round(time.Millisecond),
	}
	if fix != "" {
		attrs = append(attrs, "fix", fix)
	}
	l.Log(context.Background(), level, "session ended", attrs...)
}
