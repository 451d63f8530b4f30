package tcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("tcp: engine closed")

// The defaults of an Engine.
const (
	// DefaultIdle is five times the longest silence of a living SSTP tunnel:
	// after 60 seconds of silence a peer sends an echo request, and after 60
	// more it gives up (MS-SSTP §3.1.2). Anything up to 120 seconds would cut
	// tunnels that live.
	DefaultIdle = 10 * time.Minute
	// DefaultDialTimeout leaves room for two lost SYNs, which Linux repeats
	// after 1 and 3 seconds.
	DefaultDialTimeout = 5 * time.Second
	// DefaultSniffTimeout is long enough for a first flight that is lost once.
	DefaultSniffTimeout = 5 * time.Second
	// DefaultUserTimeout is as long as SSTP itself takes to give up.
	DefaultUserTimeout = 2 * time.Minute
	// DefaultKeepAlive is the silence after which a peer is asked whether it
	// is still there.
	DefaultKeepAlive = 45 * time.Second
	// DefaultMaxStreams bounds the streams of an Engine.
	DefaultMaxStreams = 1 << 16
	// DefaultMaxSniffing bounds the streams that may wait for first bytes.
	DefaultMaxSniffing = 4096
	// DefaultTries is how many backends a stream is offered.
	DefaultTries = 3
)

// MaxSniff is how many bytes a Sniffer can see, PROXY header included: a whole
// TLS record.
const MaxSniff = 16 << 10

// An Engine serves one port of an affinity group, or several that lead to the
// same backend port. The zero value needs a Balancer, nothing else.
type Engine struct {
	// Balancer decides. It must not be nil.
	Balancer *lb.Balancer
	// Sniffer names clients by their first bytes. Nil names nobody: each
	// connection is picked for on its own, without waiting for a byte, and
	// the Table isn't used. With [lb.ByAddr] a client keeps its backend.
	Sniffer lb.Sniffer
	// Terminator, if not nil, is handed each connection, once the Sniffer has
	// named its client, to end its TLS say. It then does what is said above of
	// choosing and connecting, with the help of the engine. Tries is its own.
	Terminator lb.Terminator
	// Port is where backends are reached; 0 means the port the client came to.
	Port uint16
	// Transparent connects to backends from the client's address (Linux,
	// CAP_NET_ADMIN). See the package comment for the routing it needs. It
	// can't be had together with Dial.
	Transparent bool
	// ProxyFrom are the addresses of proxies whose connections start with a
	// PROXY protocol header, version 1 or 2: it is then required, and what it
	// says of the client's address is believed.
	ProxyFrom []netip.Prefix
	// ProxyTo has a PROXY protocol header sent to backends.
	ProxyTo ProxyVersion
	// Idle is how long nothing may move in a stream, in either direction; 0
	// means DefaultIdle, less than 0 forever. It must be over 120 seconds for
	// SSTP. A stream is cut at most a 64th of Idle later, or a second.
	Idle time.Duration
	// DialTimeout bounds connecting to one backend; 0 means
	// DefaultDialTimeout.
	DialTimeout time.Duration
	// SniffTimeout bounds how long is waited for the PROXY header and for all
	// that the Sniffer would like; 0 means DefaultSniffTimeout. Then the
	// stream is treated by what has come. Without a Sniffer there is no wait.
	SniffTimeout time.Duration
	// UserTimeout is how long data may be unacknowledged, or a peer refuse to
	// take more, before its connection is given up (TCP_USER_TIMEOUT, Linux);
	// 0 means DefaultUserTimeout, less than 0 leaves it to the system.
	UserTimeout time.Duration
	// KeepAlive is the silence after which a peer is probed; 0 means
	// DefaultKeepAlive, less than 0 never.
	KeepAlive time.Duration
	// MaxStreams bounds how many connections from clients are open at once:
	// more are reset. 0 means DefaultMaxStreams.
	MaxStreams int
	// MaxSniffing bounds how many streams wait for their first bytes at once,
	// so that clients that never send any can't hold everything: further
	// streams aren't waited for, and are treated by what has come. 0 means
	// DefaultMaxSniffing. It doesn't count for PROXY headers, which are only
	// waited for from proxies that are trusted.
	MaxSniffing int
	// Tries is how many backends are dialed for one stream; 0 means
	// DefaultTries.
	Tries int
	// Dial connects to a backend; nil means the network. Tests put an
	// in-memory network here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Logger hears of backends that can't be reached and of failing
	// listeners, and, at debug level, of each stream. Nil is silent.
	Logger *slog.Logger
	// Trace, if not nil, hears of events.
	Trace *Trace

	count   counters
	buffers sync.Pool // of *[MaxSniff]byte
	smalls  sync.Pool // of *[smallBuffer]byte
	bulks   sync.Pool // of *[bulkBuffer]byte
	pipes   pipes
	warned  atomic.Int64 // second of the last warning, as Unix time

	mu      sync.Mutex // below
	closed  bool
	servers map[*server]struct{}
}

// Serve accepts connections from listeners and carries their bytes, until ctx
// is cancelled or Shutdown is called. It owns the listeners, and closes them. It
// never returns nil: the error is ErrClosed after Shutdown, the cause of ctx's
// end, or that of a listener which failed. No goroutine outlives it.
//
// Serve may be called again, with other listeners, while it runs.
func (e *Engine) Serve(ctx context.Context, listeners ...net.Listener) error {
	s, err := e.open(listeners)
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return err
	}
	defer e.forget(s)
	var accepting, sweeping sync.WaitGroup
	for _, l := range listeners {
		accepting.Go(func() { s.accept(l) })
	}
	sweeping.Go(func() { s.sweep(ctx) })
	accepting.Wait()
	s.handlers.Wait()
	close(s.finished)
	sweeping.Wait()
	return s.cause
}

// Shutdown stops accepting, and waits until the streams have ended. When ctx
// ends first, those that are left are cut, and its error is returned. Serve then
// returns ErrClosed, and so does every later call of it.
func (e *Engine) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	all := make([]*server, 0, len(e.servers))
	for s := range e.servers {
		all = append(all, s)
	}
	e.mu.Unlock()
	for _, s := range all {
		s.halt(ErrClosed)
	}
	cut := 0
	for _, s := range all {
		select {
		case <-s.finished:
			continue
		case <-ctx.Done():
		}
		cut += s.cutAll()
		<-s.finished
	}
	if cut > 0 {
		return fmt.Errorf("tcp: %d streams were cut when the time to drain was over: %w", cut, context.Cause(ctx))
	}
	return nil
}

// check says what is wrong with the fields.
func (e *Engine) check() error {
	var errs []error
	if e.Balancer == nil {
		errs = append(errs, errors.New("tcp: engine without a balancer"))
	} else if e.Balancer.Pool == nil || e.Balancer.Table == nil {
		errs = append(errs, errors.New("tcp: balancer without a pool or table"))
	}
	if e.Transparent && e.Dial != nil {
		errs = append(errs, errors.New("tcp: Transparent and Dial can't be had together"))
	}
	if e.Transparent && errTransparent != nil {
		errs = append(errs, errTransparent)
	}
	if e.ProxyTo > ProxyV2 {
		errs = append(errs, fmt.Errorf("tcp: unknown PROXY protocol version %d", e.ProxyTo))
	}
	return errors.Join(errs...)
}

func (e *Engine) open(listeners []net.Listener) (*server, error) {
	if err := e.check(); err != nil {
		return nil, err
	}
	if len(listeners) == 0 {
		return nil, errors.New("tcp: no listener")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	s := &server{
		e: e, listeners: listeners,
		stopping: make(chan struct{}), finished: make(chan struct{}), abort: make(chan struct{}),
		streams: make(map[*stream]struct{}),
	}
	if e.servers == nil {
		e.servers = make(map[*server]struct{})
	}
	e.servers[s] = struct{}{}
	return s, nil
}

func (e *Engine) forget(s *server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.servers, s)
	if len(e.servers) == 0 {
		e.pipes.close()
	}
}

func (e *Engine) logger() *slog.Logger {
	if e.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Logger
}

func (e *Engine) idle() time.Duration { return defaultTo(e.Idle, DefaultIdle) }

func defaultTo[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}
