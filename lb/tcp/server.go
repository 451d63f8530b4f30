package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A server is one call of Serve.
type server struct {
	e         *Engine
	listeners []net.Listener
	handlers  sync.WaitGroup // one for each connection
	stopping  chan struct{}  // closed by halt
	abort     chan struct{}  // closed by cutAll
	finished  chan struct{}  // closed when all handlers have returned

	mu      sync.Mutex // below
	cause   error      // set by halt
	cutting bool       // set by cutAll
	streams map[*stream]struct{}

	// Of the sweeper alone:
	view    *lb.View
	scanned time.Time
}

// halt stops accepting. The first cause counts.
func (s *server) halt(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != nil {
		return
	}
	s.cause = cause
	close(s.stopping)
	for _, l := range s.listeners {
		l.Close()
	}
}

// cutAll cuts every stream and lets no other begin, and says how many it were.
func (s *server) cutAll() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cutting {
		s.cutting = true
		close(s.abort)
	}
	for st := range s.streams {
		st.cut(EndClosing, SideNone, nil)
	}
	return len(s.streams)
}

// accept serves the connections of l until it is closed.
func (s *server) accept(l net.Listener) {
	const most = time.Second
	wait := time.Duration(0)
	for {
		conn, err := l.Accept()
		if err == nil {
			wait = 0
			s.handlers.Go(func() { s.handle(conn) })
			continue
		}
		select {
		case <-s.stopping:
			return
		default:
		}
		s.e.count.acceptErrors.Add(1)
		if !passing(err) {
			s.halt(fmt.Errorf("tcp: listener at %v: %w", l.Addr(), err))
			s.cutAll()
			return
		}
		wait = min(max(2*wait, 5*time.Millisecond), most)
		s.e.logger().Warn("accepting is paused", "listener", l.Addr().String(), "for", wait, "err", err)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-s.stopping:
			t.Stop()
			return
		}
	}
}

// passing reports whether an error of Accept may be gone a moment later.
func passing(err error) bool {
	return slices.ContainsFunc([]error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET,
	}, func(e error) bool { return errors.Is(err, e) })
}

// handle serves one connection, from its acceptance to its end.
func (s *server) handle(conn net.Conn) {
	e := s.e
	e.count.accepted.Add(1)
	st := &stream{client: conn, start: time.Now()}
	st.flow = lb.Flow{Client: addrPort(conn.RemoteAddr()), Service: addrPort(conn.LocalAddr()).Port()}
	if n := e.count.open.Add(1); n > int64(defaultTo(e.MaxStreams, DefaultMaxStreams)) {
		e.count.open.Add(-1)
		s.refuse(st, RefusedLimit, nil)
		return
	}
	defer e.count.open.Add(-1)
	if !s.add(st) {
		s.refuse(st, RefusedClosing, nil)
		return
	}
	defer s.remove(st)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.serve(ctx, cancel, st)
}

// serve takes a stream through its stages.
func (s *server) serve(ctx context.Context, cancel context.CancelFunc, st *stream) {
	s.e.tune(st.client)
	if s.e.Terminator == nil {
		s.forward(ctx, cancel, st)
		return
	}
	// What is on the stack now stays there for hours.
	if in := s.incoming(cancel, st); in != nil {
		s.terminate(ctx, in)
	}
}

// forward greets a client, and carries its bytes to a backend as they are.
func (s *server) forward(ctx context.Context, cancel context.CancelFunc, st *stream) {
	e := s.e
	head := e.newHead()
	defer e.freeHead(head)
	v, why, err := e.greet(st, head)
	if err != nil {
		s.refuse(st, why, err)
		return
	}
	st.dialing(cancel)
	conn, r, why, err := e.connect(ctx, st, &v)
	if err != nil {
		s.refuse(st, why, err)
		return
	}
	if !st.join(conn, r) {
		abort(conn)
		s.refuse(st, RefusedClosing, nil)
		return
	}
	claim := e.Balancer.Attach(r.Member, &v, st.flow, r.Why)
	defer claim.Close()
	e.count.opened.Add(1)
	e.Trace.opened(st.flow, r.Member, r.Why)
	if l := e.logger(); l.Enabled(ctx, slog.LevelDebug) {
		l.Debug("stream opened", "client", st.flow.Client, "backend", r.Member.Name, "why", r.Why.String())
	}
	s.recheck(st)
	st.carry(e, st.client, st.backend, func() error {
		defer e.freeHead(head)
		return e.first(st, head)
	})
	s.closed(st)
}

// closed counts a stream that has ended, and tells of it.
func (s *server) closed(st *stream) {
	e := s.e
	sum := st.summary()
	e.count.ended[sum.End].Add(1)
	e.Trace.closed(&sum)
	if l := e.logger(); l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("stream closed", "client", st.flow.Client, "backend", st.name(), "end", sum.End.String(),
			"first", sum.First.String(), "took", sum.Took, "sent", sum.Sent, "received", sum.Received, "err", sum.Err)
	}
}

// refuse ends a connection that has not become a stream.
func (s *server) refuse(st *stream, why Refusal, err error) {
	e := s.e
	end := EndClosing
	if why == RefusedHandshake {
		end = EndDone // a reset could overtake what the client was told
	}
	st.cut(end, SideNone, nil)
	e.count.refused[why].Add(1)
	e.Trace.refused(st.flow, why, err)
	if l := e.logger(); l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("connection refused", "client", st.flow.Client, "why", why.String(), "err", err)
	}
}

func (s *server) add(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutting {
		return false
	}
	s.streams[st] = struct{}{}
	return true
}

func (s *server) remove(st *stream) {
	c := &s.e.count
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	c.sent.Add(st.sent.n.Load())
	c.received.Add(st.received.n.Load())
	c.spliced.Add(st.sent.spliced.Load() + st.received.spliced.Load())
}

// recheck cuts a stream whose backend was lost while it was being connected to:
// the sweeper may have looked before the stream had joined it.
func (s *server) recheck(st *stream) {
	if !usable(s.e.Balancer.Pool.View(), st.member.ID) {
		st.cut(EndBackend, SideNone, nil)
	}
}

// usable reports whether a backend may keep its streams.
func usable(v *lb.View, id lb.ID) bool {
	m := v.Member(id)
	return m != nil && (m.State != lb.Down || v.Panic && slices.Contains(v.Usable, m))
}

// sweep looks after all streams until the server is finished: it cuts those
// whose backend is lost, those that are idle, and all when ctx ends.
func (s *server) sweep(ctx context.Context) {
	idle := s.e.idle()
	every := time.Second
	if idle > 0 {
		every = min(max(idle/4, 10*time.Millisecond), every)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	done := ctx.Done()
	for {
		select {
		case now := <-tick.C:
			s.look(now, idle)
		case <-done:
			done = nil
			s.halt(context.Cause(ctx))
			s.cutAll()
		case <-s.finished:
			return
		}
	}
}

// look is one round of sweep. It costs next to nothing unless the view has
// changed or it is time to look for idle streams.
func (s *server) look(now time.Time, idle time.Duration) {
	view := s.e.Balancer.Pool.View()
	changed := view != s.view
	s.view = view
	scan := idle > 0 && now.Sub(s.scanned) >= idle/64
	if !changed && !scan {
		return
	}
	if scan {
		s.scanned = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for st := range s.streams {
		m := st.joined.Load()
		switch {
		case m == nil && !st.carried.Load(): // its own time limits apply
		case changed && m != nil && !usable(view, m.ID):
			st.cut(EndBackend, SideNone, nil)
		case scan && st.idle(now) >= idle:
			st.cut(EndIdle, SideNone, nil)
		}
	}
}
