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
	linger time.Duration
	call   *call // nil if nobody looks
	client bool
	// closed says that we have ended our direction.
	closed atomic.Bool
	last   *atomic.Int64 // when bytes came or went, as Unix time in ns
}

func newSide(c net.Conn, linger time.Duration) *side {
	s := &side{Conn: c, linger: linger}
	s.half, _ = c.(interface{ CloseWrite() error })
	return s
}

// Read reads, and looks at what has come.
func (s *side) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if n > 0 && s.call != nil {
		s.last.Store(time.Now().UnixNano())
		f := &s.call.down
		if s.client {
			f = &s.call.up
		}
		s.call.feed(f, b[:n])
	}
	switch {
	case err == nil:
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = io.EOF // TLS ended without its farewell, as it does with many
	case s.closed.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		err = io.EOF
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

// carry carries a session to its end.
func (v *visit) carry(gateway net.Conn, s Session) error {
	t := v.t
	c := &call{s: s, report: t.bound}
	c.up.from, c.down.from = PeerClient, PeerGateway
	c.up.phase, c.down.phase = phasePackets, phaseHead
	linger := cmp.Or(t.Linger, DefaultLinger)
	front := &side{Conn: v.conn, half: v.conn, linger: linger, client: true}
	back := newSide(gateway, linger)
	if v.request.Tunnel() {
		last := new(atomic.Int64)
		front.call, back.call, front.last, back.last = c, c, last, last
		// The client's request has been read already, and what came with it.
		if _, n, err := ParseRequest(v.first); err == nil {
			c.feed(&c.up, v.first[n:])
		}
	} else {
		c.s.Stage = StageOpaque
	}
	t.begin(c)
	carried := v.in.Carry(front, back, v.first)
	var quiet time.Duration
	if front.last != nil && front.last.Load() != 0 {
		quiet = max(time.Since(time.Unix(0, front.last.Load())), 0)
	}
	t.end(c, carried, quiet)
	return nil
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
	s := c.s
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
