package radsec

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// The defaults of a Dialer.
const (
	DefaultConnect  = 10 * time.Second
	DefaultWatchdog = 30 * time.Second
	DefaultAnswer   = 10 * time.Second
)

// minBackoff and maxBackoff bound for how long an unreachable server is left alone.
const (
	minBackoff = 500 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// A Dialer opens links of TLS to servers, for a [radius.Proxy]: its Dial is a
// [radius.DialFunc]. The secret of the [radius.Server] must be [Secret]. A Dialer
// may be used from many goroutines at once; its fields must not be changed then.
// Close must be called in the end.
type Dialer struct {
	// Certificates are the client's own, GetCertificate, if not nil, returns
	// it for each connection, so that it can be renewed.
	Certificates   []tls.Certificate
	GetCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Roots are who issues the servers' certificates. Without any, servers are
	// known by fingerprints alone.
	Roots *x509.CertPool
	// GetRoots, if not nil, returns them for each connection instead.
	GetRoots func() *x509.CertPool
	// Peers say by what certificates the servers are known, by the names of
	// backends; All is for those that aren't among them.
	Peers map[string]Peer
	All   Peer
	// Port is the servers' port; 0 means Port.
	Port uint16
	// Connect is how long connecting and TLS may take, Watchdog how long a
	// connection may be silent before it is tried out, and Answer how long
	// that may take, and a packet to be taken or to arrive. 0 means the
	// defaults.
	Connect, Watchdog, Answer time.Duration
	// Logger hears why servers can't be reached; nil is silent.
	Logger *slog.Logger

	mu      sync.Mutex
	wg      sync.WaitGroup
	targets map[netip.AddrPort]*target
	links   map[*link]bool
	closed  bool
}

// A target is what is known of a server.
type target struct {
	backoff time.Duration
	until   time.Time // left alone until then
	err     error
}

// Dial opens a link. It returns at once, with an error only if the server was
// found unreachable a moment ago.
func (d *Dialer) Dial(m *lb.Member, _ uint16) (net.Conn, error) {
	to := netip.AddrPortFrom(m.Addr, cmp.Or(d.Port, Port))
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	if d.targets == nil {
		d.targets, d.links = make(map[netip.AddrPort]*target), make(map[*link]bool)
	}
	t := d.targets[to]
	if t == nil {
		t = new(target)
		d.targets[to] = t
	}
	if left := time.Until(t.until); left > 0 {
		return nil, fmt.Errorf("radsec: %v is tried again in %v: %w", to, left.Round(time.Millisecond), t.err)
	}
	l := newLink(d, m.Name, to)
	d.links[l] = true
	d.wg.Go(func() {
		l.run(t)
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.links, l)
	})
	return l, nil
}

// Links returns how many links are open.
func (d *Dialer) Links() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.links)
}

// Close closes all links, and waits for them.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	for l := range d.links {
		l.end(net.ErrClosed)
	}
	d.mu.Unlock()
	d.wg.Wait()
	return nil
}

// failed has a server left alone for a while.
func (d *Dialer) failed(t *target, to netip.AddrPort, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t.backoff = min(max(2*t.backoff, minBackoff), maxBackoff)
	t.until, t.err = time.Now().Add(t.backoff), err
	if d.Logger != nil && !d.closed {
		d.Logger.Warn("a RadSec server can't be reached", "server", to, "err", err, "again_in", t.backoff)
	}
}

func (d *Dialer) reached(t *target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*t = target{}
}

func (d *Dialer) peer(backend string) *Peer {
	if p, ok := d.Peers[backend]; ok {
		return &p
	}
	return &d.All
}

// config is that of TLS to one server.
func (d *Dialer) config(backend string) *tls.Config {
	c := base(d.Certificates)
	c.GetClientCertificate = d.GetCertificate
	p := d.peer(backend)
	if len(p.Names) > 0 && net.ParseIP(p.Names[0]) == nil {
		c.ServerName = p.Names[0]
	}
	c.InsecureSkipVerify = true // VerifyConnection does it, with fingerprints too
	c.VerifyConnection = func(st tls.ConnectionState) error {
		return p.verify(st.PeerCertificates, roots(d.Roots, d.GetRoots), x509.ExtKeyUsageServerAuth, time.Now())
	}
	return c
}

// A link is a connection of packets. Its Write never blocks: what can't be sent
// is lost, as with UDP.
type link struct {
	d       *Dialer
	backend string
	to      netip.AddrPort
	out     chan []byte
	in      chan []byte
	over    chan struct{}
	ctx     context.Context
	cancel  context.CancelCauseFunc
	once    sync.Once
	err     error // once over is closed

	mu  sync.Mutex
	dog []byte // the watchdog's request that waits
}

func newLink(d *Dialer, backend string, to netip.AddrPort) *link {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &link{
		d: d, backend: backend, to: to, ctx: ctx, cancel: cancel,
		out: make(chan []byte, 512), in: make(chan []byte, 256), over: make(chan struct{}),
	}
}

// end ends a link, with the first reason that is given.
func (l *link) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.over)
		l.cancel(err)
	})
}

// run connects, and carries packets until the link ends.
func (l *link) run(t *target) {
	ctx, cancel := context.WithTimeout(l.ctx, cmp.Or(l.d.Connect, DefaultConnect))
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", l.to.String())
	var conn *tls.Conn
	if err == nil {
		conn = tls.Client(raw, l.d.config(l.backend))
		if err = conn.HandshakeContext(ctx); err != nil {
			_ = raw.Close() // it serves nobody
		}
	}
	cancel()
	if err != nil {
		err = fmt.Errorf("radsec: connect to %v: %w", l.to, err)
		if l.ctx.Err() == nil {
			l.d.failed(t, l.to, err)
		}
		l.end(err)
		return
	}
	stop := context.AfterFunc(l.ctx, func() { _ = raw.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { l.end(l.write(conn)) })
	err = l.read(conn, t)
	l.end(err)
	_ = raw.Close() // it ends the writer too
	wg.Wait()
}

func (l *link) write(conn *tls.Conn) error {
	w := bufio.NewWriterSize(conn, 16<<10)
	for {
		select {
		case <-l.over:
			return l.err
		case b := <-l.out:
			if err := conn.SetWriteDeadline(time.Now().Add(cmp.Or(l.d.Answer, DefaultAnswer))); err != nil {
				return err
			}
			for more := true; more; {
				if _, err := w.Write(b); err != nil {
					return err
				}
				select {
				case b = <-l.out:
				default:
					more = false
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

// read takes packets from the connection, and has it tried out when it is silent.
func (l *link) read(conn *tls.Conn, t *target) error {
	f := newFramer(conn, cmp.Or(l.d.Watchdog, DefaultWatchdog), cmp.Or(l.d.Answer, DefaultAnswer))
	b := make([]byte, radius.MaxLen)
	first := true
	for {
		n, err := f.next(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && f.r.Buffered() == 0 {
			if err = l.watch(f); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			// A server that closes before it has answered anything doesn't
			// want this client.
			if first && l.ctx.Err() == nil {
				l.d.failed(t, l.to, err)
			}
			return err
		}
		if first {
			first = false
			l.d.reached(t)
		}
		f.idle = cmp.Or(l.d.Watchdog, DefaultWatchdog)
		if l.isDog(b[:n]) {
			continue
		}
		select {
		case l.in <- append([]byte(nil), b[:n]...):
		case <-l.over:
			return l.err
		}
	}
}

// watch sends Status-Server if nothing else waits for an answer. If that was done
// before, the server is gone.
func (l *link) watch(f *framer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dog != nil {
		return fmt.Errorf("radsec: %v doesn't answer Status-Server", l.to)
	}
	l.dog = statusServer()
	f.idle = cmp.Or(l.d.Answer, DefaultAnswer)
	select {
	case l.out <- l.dog:
	default: // there is enough to send: that will show it
	}
	return nil
}

// isDog reports whether b answers the watchdog.
func (l *link) isDog(b []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, err := radius.Parse(b)
	if l.dog == nil || err != nil {
		return false
	}
	request := [16]byte(l.dog[4:20])
	is := p.Identifier() == l.dog[1] && p.CheckAnswer(Secret(), request) == nil
	l.dog = nil // whatever it is, the server lives
	return is
}

// statusServer makes a request (RFC 5997 §3).
func statusServer() []byte {
	b := make([]byte, radius.HeaderLen+18)
	b[0] = byte(radius.StatusServer)
	rand.Read(b[1:2])
	b[3] = byte(len(b))
	rand.Read(b[4:20])
	b[20], b[21] = byte(radius.MessageAuthenticator), 18
	p, err := radius.Parse(b)
	if err != nil {
		return nil
	}
	mac, _ := p.MessageAuthenticator(Secret(), p.Authenticator())
	copy(b[22:], mac[:])
	return b
}

// Write sends one packet.
func (l *link) Write(b []byte) (int, error) {
	select {
	case <-l.over:
		return 0, l.err
	default:
	}
	select {
	case l.out <- append([]byte(nil), b...):
	default: // lost, as a datagram may be
	}
	return len(b), nil
}

// Read returns one packet.
func (l *link) Read(b []byte) (int, error) {
	select {
	case p := <-l.in:
		return copy(b, p), nil
	case <-l.over:
		return 0, l.err
	}
}

// Close ends the link.
func (l *link) Close() error {
	l.end(net.ErrClosed)
	return nil
}

// LocalAddr and RemoteAddr name the server: which local address is used is the
// matter of each connection.
func (l *link) LocalAddr() net.Addr  { return l.RemoteAddr() }
func (l *link) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(l.to) }

// Deadlines don't matter: Write never blocks, and Read ends with the link.
func (l *link) SetDeadline(time.Time) error      { return nil }
func (l *link) SetReadDeadline(time.Time) error  { return nil }
func (l *link) SetWriteDeadline(time.Time) error { return nil }
