package geodns

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("geodns: server closed")

// A Server answers queries. Its exported fields must not be changed once it
// serves. The zero Server refuses everything until [Server.Set] is called.
type Server struct {
	// NSID is what the server says is its name, to those who ask; empty says
	// nothing.
	NSID string
	// MaxUDP is how many octets a response over UDP has at most, 512 to 4096;
	// 0 means 1232, which no path fragments.
	MaxUDP int
	// CookieSecret has cookies made and checked; the zero secret makes none.
	// SetCookieSecret changes it later.
	CookieSecret CookieSecret
	// RateLimit bounds equal answers over UDP.
	RateLimit RateLimit
	// MaxStreams is how many TCP connections there may be; 0 means 1000. One
	// more closes the one that has been idle for longest.
	MaxStreams int
	// StreamIdle is how long a TCP connection may be idle; 0 means 10 s.
	StreamIdle time.Duration
	// Logger hears of what goes wrong; nil is silent.
	Logger *slog.Logger

	table   atomic.Pointer[table]
	cookies atomic.Pointer[cookieSecrets]
	limiter limiter
	started time.Time
	once    sync.Once
	stats   stats

	countries atomic.Pointer[countries]

	mu      sync.Mutex // below
	closers map[io.Closer]struct{}
	streams map[*stream]struct{}
	closed  bool

	perCountry map[string]*atomic.Uint64

	working sync.WaitGroup
}

const (
	defaultMaxUDP     = 1232
	mostMaxUDP        = 4096
	defaultMaxStreams = 1000
	defaultStreamIdle = 10 * time.Second
)

func (s *Server) maxUDP() int {
	if s.MaxUDP == 0 {
		return defaultMaxUDP
	}
	return min(max(s.MaxUDP, 512), mostMaxUDP)
}

func (s *Server) streamIdle() time.Duration {
	if s.StreamIdle == 0 {
		return defaultStreamIdle
	}
	return s.StreamIdle
}

// Set has the server answer from exactly these zones and names. If one is at
// fault nothing changes, and the error names each fault. Names that are served
// already keep what they answer; new ones answer SERVFAIL until their first
// Update.
func (s *Server) Set(zones []*Zone, names []*Name) error {
	t, err := newTable(zones, names)
	if err != nil {
		return err
	}
	s.table.Store(t)
	return nil
}

// failed logs what should not happen while a response is made.
func (s *Server) failed(err error) {
	if s.Logger != nil {
		s.Logger.Error("answering", "err", err)
	}
}

func (s *Server) init() {
	s.once.Do(func() {
		s.started = time.Now()
		s.limiter.seed = maphash.MakeSeed()
		s.limiter.buckets = make([]atomic.Uint64, limitBuckets)
	})
}

// add registers what Shutdown has to close, and one who works until then.
func (s *Server) add(list ...io.Closer) bool {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.closers == nil {
		s.closers = make(map[io.Closer]struct{})
		s.streams = make(map[*stream]struct{})
	}
	for _, c := range list {
		s.closers[c] = struct{}{}
	}
	s.working.Add(1)
	return true
}

func (s *Server) remove(list ...io.Closer) {
	s.mu.Lock()
	for _, c := range list {
		delete(s.closers, c)
	}
	s.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
	s.working.Done()
}

// begin takes over what a Serve method got, and closes it when ctx ends, or at once
// if the server is closed. Who has begun calls done when nobody uses it any more.
func begin[T io.Closer](ctx context.Context, s *Server, serving []T) (done func(), err error) {
	list := make([]io.Closer, len(serving))
	for i, c := range serving {
		list[i] = c
	}
	closeAll := func() {
		for _, c := range list {
			_ = c.Close()
		}
	}
	if !s.add(list...) {
		closeAll()
		return nil, ErrClosed
	}
	stop := context.AfterFunc(ctx, closeAll)
	return func() {
		stop()
		s.remove(list...)
	}, nil
}

// ServePacket answers queries over UDP. It blocks until all conns are closed, by
// Shutdown or because ctx ends, and closes them. Several sockets of one address
// (SO_REUSEPORT) use several processors.
//
// Where it can, it has several datagrams of a socket read and written by one
// system call.
func (s *Server) ServePacket(ctx context.Context, conns ...net.PacketConn) error {
	done, err := begin(ctx, s, conns)
	if err != nil {
		return err
	}
	defer done()
	errs := make(chan error, len(conns))
	for _, c := range conns {
		go func() { errs <- s.servePacket(c) }()
	}
	var first error
	for range conns {
		if err := <-errs; first == nil {
			first = err
			for _, c := range conns {
				_ = c.Close()
			}
		}
	}
	return s.ended(ctx, first)
}

// ended returns why serving ended.
func (s *Server) ended(ctx context.Context, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return err
}

// packetReader is what reads and writes datagrams with addresses that don't
// allocate. [net.UDPConn] is one.
type packetReader interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// servePlain answers one datagram at a time.
func (s *Server) servePlain(c net.PacketConn) error {
	pr, ok := c.(packetReader)
	if !ok {
		pr = anyConn{c}
	}
	r := &responder{s: s}
	in, out := make([]byte, 65535), make([]byte, 0, mostMaxUDP)
	for {
		n, from, err := pr.ReadFromUDPAddrPort(in)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return err
			}
			continue // an ICMP error of an earlier answer
		}
		s.stats.udp.Add(1)
		r.now = time.Now()
		if b := r.respond(out[:0], in[:n], from, false); len(b) > 0 {
			_, _ = pr.WriteToUDPAddrPort(b, from)
		}
	}
}

// anyConn is a packetReader made of any net.PacketConn.
type anyConn struct{ net.PacketConn }

func (c anyConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := c.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	if u, ok := from.(*net.UDPAddr); ok {
		return n, u.AddrPort(), nil
	}
	ap, err := netip.ParseAddrPort(from.String())
	return n, ap, err
}

func (c anyConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

// ServeStream answers queries over TCP, or over TLS if the listeners speak it. It
// blocks until all are closed, by Shutdown or because ctx ends, and closes them.
func (s *Server) ServeStream(ctx context.Context, listeners ...net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done, err := begin(ctx, s, listeners)
	if err != nil {
		return err
	}
	defer done()
	errs := make(chan error, len(listeners))
	var conns sync.WaitGroup
	for _, l := range listeners {
		go func() { errs <- s.accept(ctx, l, &conns) }()
	}
	var first error
	for range listeners {
		if err := <-errs; first == nil {
			first = err
			cancel()
		}
	}
	conns.Wait()
	return s.ended(context.WithoutCancel(ctx), first)
}

func (s *Server) accept(ctx context.Context, l net.Listener, conns *sync.WaitGroup) error {
	for {
		c, err := l.Accept()
		if err != nil {
			var ne net.Error
			if ctx.Err() == nil && errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) && !s.pause(ctx) {
				return err
			} else if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				continue // out of file descriptors, say
			}
			return err
		}
		st := &stream{Conn: c, last: time.Now()}
		if !s.admit(st) {
			_ = c.Close()
			continue
		}
		conns.Go(func() { s.serveStream(ctx, st) })
	}
}

// pause waits a little, and reports whether there is still something to do.
func (s *Server) pause(ctx context.Context) bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// stream is a TCP connection.
type stream struct {
	net.Conn
	last time.Time // when a query came; guarded by Server.mu
}

// admit makes room for a connection, if need be by closing the one that has been
// idle for longest.
func (s *Server) admit(st *stream) bool {
	most := s.MaxStreams
	if most == 0 {
		most = defaultMaxStreams
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if len(s.streams) >= most {
		var oldest *stream
		for o := range s.streams {
			if oldest == nil || o.last.Before(oldest.last) {
				oldest = o
			}
		}
		delete(s.streams, oldest)
		_ = oldest.Close()
		s.stats.evicted.Add(1)
	}
	s.streams[st] = struct{}{}
	s.stats.streams.Add(1)
	return true
}

func (s *Server) used(st *stream, now time.Time) {
	s.mu.Lock()
	st.last = now
	s.mu.Unlock()
}

// streamBuffer is how much of a connection is read at once.
const streamBuffer = 4096

// serveStream answers the queries of a connection, in their order.
func (s *Server) serveStream(ctx context.Context, st *stream) {
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	defer func() {
		stop()
		_ = st.Close()
		s.mu.Lock()
		delete(s.streams, st)
		s.mu.Unlock()
	}()
	var from netip.AddrPort
	if a, ok := st.RemoteAddr().(*net.TCPAddr); ok {
		from = a.AddrPort()
	}
	r := &responder{s: s}
	buf := make([]byte, 0, streamBuffer)
	var out []byte
	for {
		// A whole query must come within the time that a connection may be idle:
		// one octet at a time is no way to keep it.
		_ = st.SetDeadline(time.Now().Add(s.streamIdle()))
		for !whole(buf) {
			if len(buf) == cap(buf) {
				buf = slices.Grow(buf, 2+65535-len(buf))
			}
			n, err := st.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			if err != nil && !whole(buf) {
				return
			}
		}
		r.now = time.Now()
		s.used(st, r.now)
		out = out[:0]
		for whole(buf) && len(out) < 1<<16 {
			n := int(binary.BigEndian.Uint16(buf))
			s.stats.tcp.Add(1)
			at := len(out)
			out = append(out, 0, 0)
			out = r.respond(out, buf[2:2+n], from, true)
			if len(out) == at+2 {
				out = out[:at]
			} else {
				binary.BigEndian.PutUint16(out[at:], uint16(len(out)-at-2))
			}
			buf = append(buf[:0], buf[2+n:]...)
		}
		if len(out) > 0 {
			if _, err := st.Write(out); err != nil {
				return
			}
		}
	}
}

// whole reports whether a buffer begins with a whole message.
func whole(b []byte) bool {
	return len(b) >= 2 && len(b) >= 2+int(binary.BigEndian.Uint16(b))
}

// Shutdown closes all sockets and waits for what is being answered, until ctx
// ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for c := range s.closers {
		_ = c.Close()
	}
	for st := range s.streams {
		_ = st.SetReadDeadline(time.Unix(1, 0)) // what was read is still answered
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.working.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
