package radsec

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// The defaults of a Server.
const (
	DefaultMaxConns     = 1024
	DefaultMaxPerSource = 64
	DefaultHandshake    = 10 * time.Second
	DefaultIdle         = 10 * time.Minute
	DefaultWhole        = 10 * time.Second
)

// maxQueued is how many answers may wait for one connection: as many as can be
// outstanding on it.
const maxQueued = 256

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("radsec: server closed")

// A Handler takes requests: a [radius.Proxy].
type Handler interface {
	Handle(r radius.Request) error
}

// A Client is who may connect.
type Client struct {
	// Name is that of the [radius.Client] that its requests are of. The secret
	// of that one must be [Secret].
	Name string
	// Peer says by what certificate it is known.
	Peer
}

// A Server takes requests over TLS. Its fields must not be changed while it
// serves, but for its clients by SetClients. It must not be copied.
type Server struct {
	// Handler takes the requests.
	Handler Handler
	// Certificates are the server's own.
	Certificates []tls.Certificate
	// GetCertificate, if not nil, returns the server's own certificate for
	// each connection, so that it can be renewed.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Roots are who issues the clients' certificates. Without any, clients are
	// known by fingerprints alone.
	Roots *x509.CertPool
	// GetRoots, if not nil, returns them for each connection instead, so that
	// they can be exchanged.
	GetRoots func() *x509.CertPool
	// MaxConns bounds connections, MaxPerSource those from one address; 0
	// means the defaults.
	MaxConns, MaxPerSource int
	// Handshake is how long TLS may take to begin, Idle how long a connection
	// may be silent, and Whole how long a packet may take to arrive, or an
	// answer to be taken; 0 means the defaults.
	Handshake, Idle, Whole time.Duration
	// Logger hears who comes and who is refused; nil is silent.
	Logger *slog.Logger

	clients atomic.Pointer[[]Client]
	n       struct {
		accepted, refused, failed, requests, dropped, framing, slow atomic.Uint64
	}

	mu     sync.Mutex
	conns  map[*serverConn]bool
	from   map[netip.Addr]int
	ends   []net.Listener
	closed bool
	served bool
	ended  chan struct{}
}

// ServerStats are what a Server has counted.
type ServerStats struct {
	// Open is how many connections there are.
	Open int
	// Accepted counts connections whose client is known, Refused those above
	// a limit, Failed those that failed in TLS or by their certificate.
	Accepted, Refused, Failed uint64
	// Requests counts packets, Dropped those that the Handler didn't take,
	// Framing connections closed since they couldn't be read, Slow those closed
	// since they didn't take their answers.
	Requests, Dropped, Framing, Slow uint64
}

// Stats returns what has been counted.
func (s *Server) Stats() ServerStats {
	s.mu.Lock()
	open := len(s.conns)
	s.mu.Unlock()
	return ServerStats{
		Open: open, Accepted: s.n.accepted.Load(), Refused: s.n.refused.Load(), Failed: s.n.failed.Load(),
		Requests: s.n.requests.Load(), Dropped: s.n.dropped.Load(), Framing: s.n.framing.Load(), Slow: s.n.slow.Load(),
	}
}

// SetClients says who may connect. Connections of those who no longer may are
// closed.
func (s *Server) SetClients(clients ...Client) {
	list := append([]Client(nil), clients...)
	s.clients.Store(&list)
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if name, err := s.identify(c.chain); err != nil || name != c.client {
			_ = c.raw.Close() // that is all that is wanted
		}
	}
}

// identify returns the name of the client that a chain of certificates is of.
func (s *Server) identify(chain []*x509.Certificate) (string, error) {
	list := s.clients.Load()
	if list == nil {
		return "", ErrUnknown
	}
	var first error
	for i := range *list {
		c := &(*list)[i]
		err := c.verify(chain, roots(s.Roots, s.GetRoots), x509.ExtKeyUsageClientAuth, time.Now())
		if err == nil {
			return c.Name, nil
		}
		if first == nil || !errors.Is(err, ErrUnknown) {
			first = err
		}
	}
	return "", cmp.Or(first, ErrUnknown)
}

// config is that of TLS. Any certificate is let through the handshake; who it is
// of is found out right after.
func (s *Server) config() *tls.Config {
	c := base(s.Certificates)
	c.GetCertificate = s.GetCertificate
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = func(st tls.ConnectionState) error {
		_, err := s.identify(st.PeerCertificates)
		return err
	}
	return c
}

// Serve takes connections from the listeners, which it closes in the end, until
// ctx is done or Shutdown is called. It is called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	if err := s.begin(listeners); err != nil {
		for _, l := range listeners {
			_ = l.Close() // it owns them in any case
		}
		return err
	}
	defer close(s.ended)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { s.closeAll() })
	defer stop()
	conf := s.config()
	var wg sync.WaitGroup
	for _, l := range listeners {
		wg.Go(func() { cancel(s.accept(ctx, l, conf, &wg)) })
	}
	wg.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	return context.Cause(ctx)
}

func (s *Server) begin(listeners []net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed || s.served:
		return ErrClosed
	case s.Handler == nil:
		return errors.New("radsec: the server has no Handler")
	case len(s.Certificates) == 0 && s.GetCertificate == nil:
		return errors.New("radsec: the server has no certificate")
	}
	s.served = true
	s.conns, s.from, s.ends, s.ended = make(map[*serverConn]bool), make(map[netip.Addr]int), listeners, make(chan struct{})
	return nil
}

func (s *Server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.ends {
		_ = l.Close() // it ends its accept
	}
	for c := range s.conns {
		_ = c.raw.Close() // it ends its reader
	}
}

// Shutdown takes no more connections, waits until ctx is done for those there are
// to be closed by their clients, and closes the rest. Requests under way are the
// Handler's: shut that down first.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	ends, ended := s.ends, s.ended
	s.mu.Unlock()
	for _, l := range ends {
		_ = l.Close() // it ends its accept
	}
	if ended == nil {
		return nil
	}
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		s.closeAll()
		<-ended
		return context.Cause(ctx)
	}
}

func (s *Server) accept(ctx context.Context, l net.Listener, conf *tls.Config, wg *sync.WaitGroup) error {
	for {
		raw, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && passing(err) {
				if !sleep(ctx, 50*time.Millisecond) {
					return nil
				}
				continue
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.closed || ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("radsec: accept at %v: %w", l.Addr(), err)
		}
		c := s.admit(raw)
		if c == nil {
			_ = raw.Close() // there are too many
			continue
		}
		wg.Go(func() {
			defer s.leave(c)
			s.serve(ctx, c, conf)
		})
	}
}

// passing reports whether an accept may be tried again: files may be short.
func passing(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout() || !errors.Is(err, net.ErrClosed) && isShort(err)
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// A serverConn is a client's connection. It takes the answers to its requests.
type serverConn struct {
	s      *Server
	raw    net.Conn
	addr   netip.AddrPort
	client string
	chain  []*x509.Certificate
	queue  chan []byte
}

func (s *Server) admit(raw net.Conn) *serverConn {
	a, ok := raw.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	c := &serverConn{s: s, raw: raw, addr: netip.AddrPortFrom(a.AddrPort().Addr().Unmap(), a.AddrPort().Port()), queue: make(chan []byte, maxQueued)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || len(s.conns) >= cmp.Or(s.MaxConns, DefaultMaxConns) || s.from[c.addr.Addr()] >= cmp.Or(s.MaxPerSource, DefaultMaxPerSource) {
		s.n.refused.Add(1)
		return nil
	}
	s.conns[c] = true
	s.from[c.addr.Addr()]++
	return c
}

func (s *Server) leave(c *serverConn) {
	_ = c.raw.Close() // it may be closed already
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.from[c.addr.Addr()]--; s.from[c.addr.Addr()] == 0 {
		delete(s.from, c.addr.Addr())
	}
}

// serve reads the requests of a connection.
func (s *Server) serve(ctx context.Context, c *serverConn, conf *tls.Config) {
	conn := tls.Server(c.raw, conf)
	hello, cancel := context.WithTimeout(ctx, cmp.Or(s.Handshake, DefaultHandshake))
	err := conn.HandshakeContext(hello)
	cancel()
	var name string
	if err == nil {
		name, err = s.identify(conn.ConnectionState().PeerCertificates)
	}
	if err != nil {
		s.n.failed.Add(1)
		s.log(slog.LevelWarn, "a RadSec client was refused", "from", c.addr, "err", err)
		return
	}
	s.mu.Lock() // SetClients looks at them
	c.client, c.chain = name, conn.ConnectionState().PeerCertificates
	s.mu.Unlock()
	s.n.accepted.Add(1)
	s.log(slog.LevelInfo, "a RadSec client has come", "client", name, "from", c.addr, "tls", tls.VersionName(conn.ConnectionState().Version))
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { c.write(conn, over) })
	err = c.read(conn, name)
	close(over)
	wg.Wait()
	s.log(slog.LevelInfo, "a RadSec client has gone", "client", name, "from", c.addr, "err", err)
}

func (s *Server) log(l slog.Level, text string, args ...any) {
	if s.Logger != nil {
		s.Logger.Log(context.Background(), l, text, args...)
	}
}

func (c *serverConn) read(conn *tls.Conn, client string) error {
	s := c.s
	f := newFramer(conn, cmp.Or(s.Idle, DefaultIdle), cmp.Or(s.Whole, DefaultWhole))
	flow := lb.Flow{Client: c.addr}
	if a, ok := c.raw.LocalAddr().(*net.TCPAddr); ok {
		flow.Service = uint16(a.Port)
	}
	b := make([]byte, radius.MaxLen)
	for {
		n, err := f.next(b)
		if err != nil {
			if errors.Is(err, ErrFrame) {
				s.n.framing.Add(1)
			}
			return err
		}
		s.n.requests.Add(1)
		p, err := radius.Parse(b[:n])
		if err != nil {
			s.n.framing.Add(1)
			return err // RFC 6613 §2.6.4: a connection with such packets is closed
		}
		if err := s.Handler.Handle(radius.Request{Bytes: b[:n], Flow: flow, Client: client, Replier: c}); err != nil {
			s.n.dropped.Add(1)
			if wrong := p.CheckRequest(Secret()); errors.Is(wrong, radius.ErrAuthenticator) {
				return wrong // likewise
			}
		}
	}
}

// Reply has an answer written.
func (c *serverConn) Reply(b []byte, _ lb.Flow) {
	select {
	case c.queue <- append([]byte(nil), b...):
	default:
		// As many answers as can be outstanding wait already.
		c.s.n.slow.Add(1)
		_ = c.raw.Close() // it ends both goroutines
	}
}

// write writes answers, those together that are there together.
func (c *serverConn) write(conn *tls.Conn, over <-chan struct{}) {
	defer func() { _ = c.raw.Close() }() // the reader must end too
	w := bufio.NewWriterSize(conn, 16<<10)
	for {
		select {
		case <-over:
			return
		case b := <-c.queue:
			if conn.SetWriteDeadline(time.Now().Add(cmp.Or(c.s.Whole, DefaultWhole))) != nil {
				return
			}
			for more := true; more; {
				if _, err := w.Write(b); err != nil {
					return
				}
				select {
				case b = <-c.queue:
				default:
					more = false
				}
			}
			if w.Flush() != nil {
				return
			}
		}
	}
}
