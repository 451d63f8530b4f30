package tcp

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A stream is one connection from a client and, once it has been joined, the
// one to its backend.
type stream struct {
	client net.Conn
	start  time.Time
	flow   lb.Flow
	// proxied is what a PROXY header said, or would say.
	proxied ProxyHeader

	// Set by join; joined is for other goroutines.
	member  *lb.Member
	why     lb.Why
	backend net.Conn
	joined  atomic.Pointer[lb.Member]
	carried atomic.Bool // its bytes move

	sent, received progress

	// Of the sweeper alone:
	moved uint64 // as it was when last seen to change
	since time.Time

	mu     sync.Mutex         // below
	cancel context.CancelFunc // ends the dialing
	over   bool
	end    End
	first  Side
	err    error
}

// progress counts the bytes of one direction.
type progress struct {
	n, spliced atomic.Uint64
	last       atomic.Int64 // when the last of them moved, as Unix time in ns
}

// add counts n bytes that have moved now.
func (p *progress) add(n int) {
	if n > 0 {
		p.n.Add(uint64(n))
		p.last.Store(time.Now().UnixNano())
	}
}

// dialing has a cut end what cancel cancels.
func (st *stream) dialing(cancel context.CancelFunc) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.cancel = cancel
	if st.over {
		cancel()
	}
}

// join gives the stream its backend, unless it has been cut.
func (st *stream) join(conn net.Conn, r lb.Route) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return false
	}
	st.member, st.why, st.backend = r.Member, r.Why, conn
	st.joined.Store(r.Member)
	return true
}

// cut ends a stream, both sides, by reset unless it is done. Only the first call
// counts.
func (st *stream) cut(end End, by Side, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.over {
		return
	}
	st.over, st.end, st.err = true, end, err
	if st.first == SideNone {
		st.first = by
	}
	if st.cancel != nil {
		st.cancel()
	}
	closeConn := abort
	if end == EndDone {
		closeConn = func(c net.Conn) { c.Close() }
	}
	closeConn(st.client)
	if st.backend != nil {
		closeConn(st.backend)
	}
}

// abort closes a connection by reset, if it knows how to.
func abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0) // then it is an ordinary close
	}
	c.Close()
}

// idle returns for how long nothing has moved, as far as the sweeper could see.
func (st *stream) idle(now time.Time) time.Duration {
	moved := st.sent.n.Load() + st.received.n.Load()
	if moved != st.moved || st.since.IsZero() {
		st.moved, st.since = moved, now
	}
	return now.Sub(st.since)
}

// carry moves bytes until both directions have ended. first sends what comes
// before the client's further bytes.
func (st *stream) carry(e *Engine, client, backend net.Conn, first func() error) {
	var back sync.WaitGroup
	back.Go(func() {
		st.direction(e, &st.received, client, backend, SideClient, SideBackend)
	})
	if err := first(); err != nil {
		st.cut(EndReset, SideBackend, err)
	} else {
		st.direction(e, &st.sent, backend, client, SideBackend, SideClient)
	}
	back.Wait()
	st.cut(EndDone, SideNone, nil)
}

// direction moves bytes from src to dst, and passes on how src ends.
func (st *stream) direction(e *Engine, p *progress, dst, src net.Conn, to, from Side) {
	at, err := e.move(p, dst, src)
	if err != nil {
		by := from
		if at == writing {
			by = to
		}
		st.cut(EndReset, by, err)
		return
	}
	st.mu.Lock()
	if st.first == SideNone {
		st.first = from
	}
	st.mu.Unlock()
	half, ok := dst.(interface{ CloseWrite() error })
	if !ok {
		// What can't be half closed is closed: better than a peer that
		// waits for an end that can't be told.
		st.cut(EndDone, from, nil)
		return
	}
	if err := half.CloseWrite(); err != nil {
		st.cut(EndReset, to, err)
	}
}

// action says which half of moving failed.
type action uint8

const (
	reading action = iota
	writing
)

// move moves bytes from src to dst until src ends, which is not an error.
func (e *Engine) move(p *progress, dst, src net.Conn) (action, error) {
	if at, err, ok := e.splice(p, dst, src); ok {
		return at, err
	}
	return e.copy(p, dst, src)
}

func (e *Engine) buffer() *[MaxSniff]byte {
	if b, ok := e.buffers.Get().(*[MaxSniff]byte); ok {
		return b
	}
	return new([MaxSniff]byte)
}

func (st *stream) summary() Summary {
	st.mu.Lock()
	defer st.mu.Unlock()
	return Summary{
		Flow: st.flow, Member: st.member, Why: st.why,
		Start: st.start, Took: time.Since(st.start),
		Sent: st.sent.n.Load(), Received: st.received.n.Load(),
		End: st.end, First: st.first, Err: st.err, Quiet: st.quiet(),
	}
}

// quiet returns how long ago the last byte moved, either way; 0 if none did.
func (st *stream) quiet() time.Duration {
	last := max(st.sent.last.Load(), st.received.last.Load())
	if last == 0 {
		return 0
	}
	return max(time.Duration(time.Now().UnixNano()-last), 0)
}

// name returns the name of the backend, or "" if it has none.
func (st *stream) name() string {
	if st.member == nil {
		return ""
	}
	return st.member.Name
}

// addrPort returns a as a value, the zero one if it isn't of TCP.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok || t == nil {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
