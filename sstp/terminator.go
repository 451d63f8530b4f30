package sstp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// The defaults of a Terminator.
const (
	// DefaultHandshakeTimeout bounds a client's TLS handshake, which over a bad
	// mobile network takes seconds.
	DefaultHandshakeTimeout = 10 * time.Second
	// DefaultHeadTimeout bounds the wait for a client's request after it.
	DefaultHeadTimeout = 10 * time.Second
	// DefaultGatewayTimeout bounds a TLS handshake with a gateway.
	DefaultGatewayTimeout = 5 * time.Second
	// DefaultLinger is how long one side may take to end what the other has.
	DefaultLinger = 10 * time.Second
	// DefaultMaxHandshakes bounds connections before their request is there.
	DefaultMaxHandshakes = 4096
	// DefaultHandshakeRate and DefaultHandshakeBurst bound the handshakes of one
	// source: an office of a thousand clients that all come back at once is let
	// in within seconds, and a single computer can't keep this one busy.
	DefaultHandshakeRate  = 50
	DefaultHandshakeBurst = 500
	// DefaultTries is how many gateways a client is led to.
	DefaultTries = 3
)

// A Terminator ends the clients' TLS, and carries what is in it to gateways, in
// plain HTTP ([ModeOffload]) or in TLS of its own ([ModeReencrypt]). It is an
// [lb.Terminator], for lb/tcp.Engine.
//
// The gateway is chosen when the client's first message has come, before the
// client is shown a certificate: so each gateway's clients see the one that this
// gateway expects (see [Leaves]).
//
// A connection to the resource of SSTP goes to that gateway, its bytes unchanged.
// So does one to that of IP-HTTPS, if IPHTTPS is set. Anything else goes to the
// web server at Web, or is answered by 404.
//
// Its fields must not be changed once it is used. It must not be copied.
type Terminator struct {
	// Mode is ModeOffload or ModeReencrypt.
	Mode Mode
	// Leaves has the certificates. It must not be nil.
	Leaves Leaves
	// Gateway says which gateways are trusted, where TLS goes on to them.
	Gateway GatewayTLS
	// TLSPort is where gateways take TLS in ModeOffload, for what can't be
	// offloaded: IP-HTTPS, and clients with NULL ciphers. 0 means the port that
	// the client came to.
	TLSPort uint16
	// IPHTTPS has DirectAccess clients go to gateways.
	IPHTTPS bool
	// PassNull has clients that want TLS without encryption passed through to a
	// gateway unopened, as DirectAccess clients since Windows 8 do: they encrypt
	// by IPsec. Without it they must take a cipher that encrypts; so they must
	// where Clients wants a certificate, which a client can't be asked for that is
	// passed unopened.
	PassNull bool
	// Web is a server for what is neither SSTP nor IP-HTTPS; the zero AddrPort
	// is none, and such requests are answered by 404. It is spoken to in plain
	// HTTP, unless WebTLS is set.
	Web netip.AddrPort
	// WebTLS, if not nil, has TLS spoken to Web.
	WebTLS *tls.Config
	// MinVersion is the least version of TLS; 0 means TLS 1.2.
	MinVersion uint16
	// CipherSuites are those of TLS 1.2; nil means those with forward secrecy
	// and authenticated encryption.
	CipherSuites []uint16
	// Tickets lets clients resume TLS sessions, each within one certificate: a
	// ticket is no good once the certificate is another. Without it there are
	// none.
	Tickets bool
	// Clients says whether clients must show a certificate in TLS.
	Clients ClientCertificates

	// HandshakeTimeout, HeadTimeout, GatewayTimeout and Linger bound the times
	// that their defaults describe; 0 means those.
	HandshakeTimeout, HeadTimeout, GatewayTimeout, Linger time.Duration
	// MaxHandshakes bounds how many connections are in a handshake, or before
	// their request, at once: more are refused. One source, an IPv4 address or a
	// /64 of IPv6, can have a quarter of them. 0 means DefaultMaxHandshakes.
	MaxHandshakes int
	// HandshakeRate is how many handshakes one source may begin in a second,
	// HandshakeBurst how many at once; 0 means the defaults, and a rate less
	// than 0 no limit.
	HandshakeRate, HandshakeBurst int
	// Tries is how many gateways a client is led to, of those that expect the
	// certificate it was shown; 0 means DefaultTries.
	Tries int

	// Sessions remembers sessions; nil means nobody does.
	Sessions *Sessions
	// Logger hears of each session when it has ended, with its correlation ID.
	// Nil is silent.
	Logger *slog.Logger
	// Trace, if not nil, hears of events.
	Trace *Trace

	sources sources
	tickets ticketKeys
	count   terminatorCounters
}

var _ lb.Terminator = (*Terminator)(nil)

// GatewayTLS says which certificates of gateways are accepted, where TLS goes on
// to them. The zero GatewayTLS wants one from a CA of the system, for the name
// that the client asked for.
type GatewayTLS struct {
	// ServerName is the name that must be in the certificate; empty means that
	// which the client asked for.
	ServerName string
	// RootCAs are the CAs; nil means those of the system.
	RootCAs *x509.CertPool
	// Pins, if there are any, are the only leaf certificates that are accepted,
	// whatever their name, CA and time are.
	Pins []Fingerprint
	// Insecure accepts any certificate. Then whoever is between here and a
	// gateway can take its place.
	Insecure bool
}

// A Trace hears of events. Any of its functions may be nil. They are called
// synchronously, from many goroutines at once, so they must be quick.
type Trace struct {
	// Handshake is called after each TLS handshake with a client: err says why
	// it failed, or is nil.
	Handshake func(f lb.Flow, backend string, err error)
	// Bound is called when a client has sent its CALL_CONNECTED, with what is
	// known by then: the hash it reports, that which it was shown. Whether the
	// gateway accepts it is known only when the session has ended, or data move.
	Bound func(s Session)
	// Ended is called when a session has ended.
	Ended func(s Session)
}

// TerminatorStats counts what a Terminator has done since it was made.
type TerminatorStats struct {
	// Handshakes counts those with clients that were finished, Resumed those
	// of them that took up an earlier session, Failed those that failed.
	Handshakes, Resumed, Failed uint64
	// Limited counts connections refused for MaxHandshakes or HandshakeRate.
	Limited uint64
	// Tunnels, Probes, IPHTTPS, Web, NotFound, Null and ACME count what came
	// after: SSTP clients, other requests for the resource of SSTP,
	// DirectAccess, what went to the web server, what was answered by 404,
	// clients with NULL ciphers, and challenges of ACME.
	Tunnels, Probes, IPHTTPS, Web, NotFound, Null, ACME uint64
	// Pending is how many connections are before their request.
	Pending int
}

type terminatorCounters struct {
	handshakes, resumed, failed, limited                atomic.Uint64
	tunnels, probes, ipHTTPS, web, notFound, null, acme atomic.Uint64
}

// Stats returns what has been counted.
func (t *Terminator) Stats() TerminatorStats {
	c := &t.count
	return TerminatorStats{
		Handshakes: c.handshakes.Load(), Resumed: c.resumed.Load(), Failed: c.failed.Load(), Limited: c.limited.Load(),
		Tunnels: c.tunnels.Load(), Probes: c.probes.Load(), IPHTTPS: c.ipHTTPS.Load(), Web: c.web.Load(),
		NotFound: c.notFound.Load(), Null: c.null.Load(), ACME: c.acme.Load(), Pending: t.sources.pending(),
	}
}

// errLimited says that a source has too many handshakes.
var errLimited = errors.New("sstp: too many handshakes")

// Terminate serves one connection.
func (t *Terminator) Terminate(ctx context.Context, in lb.Incoming) error {
	from := in.Flow().Client.Addr()
	if !t.sources.begin(from, t, time.Now()) {
		t.count.limited.Add(1)
		return errLimited
	}
	p, err := apart(func() (*passage, error) { return t.receive(ctx, in, from) })
	if p != nil {
		p.carry()
	}
	return err
}

// receive does all that comes before bytes are carried. What it returns is nil if
// none are to be.
func (t *Terminator) receive(ctx context.Context, in lb.Incoming, from netip.Addr) (*passage, error) {
	v := &visit{t: t, in: in, start: time.Now()}
	err := v.greet(ctx)
	t.sources.end(from)
	if err != nil {
		t.count.failed.Add(1)
		return nil, err
	}
	return v.serve(ctx)
}

// apart calls f in a goroutine of its own, and waits for it. The stack that it needs
// is gone with it: for a handshake that is several times as much as for what
// follows, and sessions last for hours.
func apart[T any](f func() (T, error)) (T, error) {
	var x T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		x, err = f()
	}()
	<-done
	return x, err
}

// A visit is one connection, until it is carried.
type visit struct {
	t     *Terminator
	in    lb.Incoming
	start time.Time

	// Of the handshake:
	hello  *tls.ClientHelloInfo // until a gateway is connected to
	record *recorder            // nil unless NULL ciphers are looked for
	route  lb.Route
	noway  error // why there is no route
	leaf   Fingerprint
	kind   visitKind
	wire   *wire
	conn   *tls.Conn
	state  tls.ConnectionState

	request Request
	first   []byte // the request, and what came with it
}

type visitKind uint8

const (
	kindHTTP visitKind = iota
	kindACME           // a challenge, which is over with its handshake
	kindNull           // a client with NULL ciphers
)

// greet does what comes before a request is known: the handshake, and reading it.
func (v *visit) greet(ctx context.Context) error {
	if err := v.handshake(ctx); err != nil {
		return err
	}
	if v.kind != kindHTTP {
		return nil
	}
	return v.readRequest()
}

// readRequest reads the head of the client's request.
func (v *visit) readRequest() error {
	if err := v.conn.SetReadDeadline(time.Now().Add(cmp.Or(v.t.HeadTimeout, DefaultHeadTimeout))); err != nil {
		return err
	}
	b := make([]byte, 0, 512)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := v.conn.Read(b[len(b):min(cap(b), MaxHead)])
		old := len(b)
		b = b[:old+n]
		if err == nil && couldBeRequest(b) && len(b) < MaxHead && !headMayEnd(b, old) {
			continue
		}
		r, _, perr := ParseRequest(b)
		if perr == nil {
			v.request, v.first = r, b
			return v.conn.SetReadDeadline(time.Time{})
		}
		if perr != ErrShort {
			v.answer(400)
			return perr
		}
		if err != nil {
			return fmt.Errorf("sstp: waiting for a request: %w", err)
		}
	}
}

// serve leads the client to where it wants to go. It returns nil if it has been
// answered.
func (v *visit) serve(ctx context.Context) (*passage, error) {
	c := &v.t.count
	switch {
	case v.kind == kindACME:
		c.acme.Add(1)
		return nil, nil
	case v.kind == kindNull:
		c.null.Add(1)
		return v.passNull(ctx)
	}
	switch v.request.Resource() {
	case ResourceSSTP:
		if v.request.Tunnel() {
			c.tunnels.Add(1)
		} else {
			c.probes.Add(1)
		}
		return v.toGateway(ctx, v.t.Mode == ModeReencrypt, 0)
	case ResourceIPHTTPS:
		if v.t.IPHTTPS {
			c.ipHTTPS.Add(1)
			return v.toGateway(ctx, true, v.tlsPort())
		}
	}
	if v.t.Web.IsValid() {
		c.web.Add(1)
		return v.toWeb(ctx)
	}
	c.notFound.Add(1)
	v.answer(404)
	return nil, nil
}

// tlsPort returns where gateways take TLS; 0 means where the engine reaches them.
func (v *visit) tlsPort() uint16 {
	if v.t.Mode == ModeReencrypt {
		return 0
	}
	return cmp.Or(v.t.TLSPort, v.in.Flow().Service)
}

// answer answers the request by itself, and waits a moment until the client has
// read that: to close at once, or while the client still sends a body, would reset
// the connection before. That moment is bounded by time, not by what is sent: a
// browser that uploads a file is to see why it failed.
func (v *visit) answer(status int) {
	reason := map[int]string{400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}[status]
	r := Response{Status: status, Reason: reason, Length: "0"}
	b := r.Append(nil)
	b = append(b[:len(b)-2], "Connection: close\r\n\r\n"...)
	_ = v.conn.SetDeadline(time.Now().Add(2 * time.Second)) // if it is closed, so much the better
	if _, err := v.conn.Write(b); err != nil {
		return
	}
	if v.conn.CloseWrite() != nil {
		return
	}
	for b = slices.Grow(b, 4<<10); ; {
		if _, err := v.conn.Read(b[:cap(b)]); err != nil {
			return
		}
	}
}

// toGateway leads the connection to the gateway that was chosen, or to another one
// that expects the same certificate.
func (v *visit) toGateway(ctx context.Context, useTLS bool, port uint16) (*passage, error) {
	if v.noway != nil {
		v.lost(FindingNoBackend)
		v.answer(503)
		return nil, v.noway
	}
	s := v.session()
	conn, w, err := v.connect(ctx, useTLS, port, &s)
	if err != nil {
		s.unreached(ctx, err, port)
		v.lostAs(s)
		v.answer(503)
		return nil, err
	}
	return v.passage(conn, w, s), nil
}

// unreached notes why no gateway could be used. port is where TLS was looked for
// beside the port of SSTP; 0 if it wasn't.
func (s *Session) unreached(ctx context.Context, err error, port uint16) {
	s.Finding, s.Cause = FindingNoBackend, err.Error()
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		s.Finding = FindingUntrusted
	} else if port != 0 && ctx.Err() == nil {
		s.Finding, s.GatewayPort = FindingNoTLSPort, port
	}
}

// connect connects to a gateway. The wire is nil without TLS.
func (v *visit) connect(ctx context.Context, useTLS bool, port uint16, s *Session) (net.Conn, *wire, error) {
	var room [8]lb.ID
	avoid := room[:0]
	var first error
	for range cmp.Or(v.t.Tries, DefaultTries) {
		s.Backend = v.route.Member.Name
		conn, err := v.in.Dial(ctx, v.route, port)
		var w *wire
		if err == nil && useTLS {
			w = newWire(conn)
			conn, err = v.gatewayTLS(ctx, w, s)
		}
		if err == nil {
			return conn, w, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil || !v.another(&avoid) {
			break
		}
	}
	return nil, nil, first
}

// maxAvoid is more gateways than anybody has.
const maxAvoid = 64

// another chooses another gateway, one that expects the certificate that the
// client has been shown. It adds those that were tried to avoid.
func (v *visit) another(avoid *[]lb.ID) bool {
	for len(*avoid) < maxAvoid {
		*avoid = append(*avoid, v.route.Member.ID)
		r, err := v.in.Route(*avoid...)
		if err != nil {
			return false
		}
		v.route = r
		leaf, err := v.t.Leaves.Leaf(r.Member.Name, v.hello)
		if err == nil && len(leaf.Certificate) > 0 && FingerprintOf(leaf.Certificate[0]) == v.leaf {
			return true
		}
	}
	return false
}

// gatewayTLS begins TLS with a gateway, and notes its certificate.
func (v *visit) gatewayTLS(ctx context.Context, conn net.Conn, s *Session) (net.Conn, error) {
	g := &v.t.Gateway
	name := cmp.Or(g.ServerName, v.state.ServerName)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(v.t.GatewayTimeout, DefaultGatewayTimeout))
	defer cancel()
	c := tls.Client(conn, &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		DynamicRecordSizingDisabled: true,
		// It is verified below, where its hash can be noted first.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			s.Gateway = FingerprintOf(cs.PeerCertificates[0].Raw)
			return g.verify(cs, name)
		},
	})
	if err := c.HandshakeContext(ctx); err != nil {
		conn.Close()
		err = fmt.Errorf("sstp: TLS with gateway %s: %w", s.Backend, err)
		v.t.log().Warn("gateway can't be used", "backend", s.Backend, "err", err)
		return nil, err
	}
	return c, nil
}

// verify reports an error unless a gateway's certificate is accepted.
func (g *GatewayTLS) verify(cs tls.ConnectionState, name string) error {
	leaf := cs.PeerCertificates[0]
	if len(g.Pins) > 0 {
		f := FingerprintOf(leaf.Raw)
		if slices.Contains(g.Pins, f) {
			return nil
		}
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: fmt.Errorf("sstp: its SHA-256 %v is none of the pins", f)}
	}
	if g.Insecure {
		return nil
	}
	if name == "" {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: errors.New("sstp: no name to verify it for: the client sent none, and none is set")}
	}
	opts := x509.VerifyOptions{Roots: g.RootCAs, DNSName: name, Intermediates: x509.NewCertPool()}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: err}
	}
	return nil
}

// toWeb leads the connection to the web server.
func (v *visit) toWeb(ctx context.Context) (*passage, error) {
	conn, err := v.in.DialAddr(ctx, v.t.Web)
	var w *wire
	if err == nil && v.t.WebTLS != nil {
		w = newWire(conn)
		c := tls.Client(w, v.t.WebTLS)
		hctx, cancel := context.WithTimeout(ctx, cmp.Or(v.t.GatewayTimeout, DefaultGatewayTimeout))
		defer cancel()
		if err = c.HandshakeContext(hctx); err != nil {
			conn.Close()
		}
		conn = c
	}
	if err != nil {
		v.answer(503)
		return nil, fmt.Errorf("sstp: web server %v: %w", v.t.Web, err)
	}
	return v.pass(conn, w), nil
}

// passNull passes a client with NULL ciphers to a gateway unopened.
func (v *visit) passNull(ctx context.Context) (*passage, error) {
	if v.noway != nil {
		return nil, v.noway
	}
	s := v.session()
	s.Mode, s.Resource, s.Stage = ModePassthrough, ResourceIPHTTPS, StageOpaque
	conn, err := v.in.Dial(ctx, v.route, v.tlsPort())
	if err != nil {
		s.unreached(ctx, err, v.tlsPort())
		v.lostAs(s)
		return nil, err
	}
	s.Backend = v.route.Member.Name
	return &passage{t: v.t, in: v.in, front: v.in.Client(), back: conn, first: v.record.seen, call: &call{s: s}}, nil
}

// maxCorrelation is longer than a GUID in braces. More isn't kept: anybody may have
// sent it.
const maxCorrelation = 64

// session returns what is known of the visit.
func (v *visit) session() Session {
	s := Session{
		Client: v.in.Flow().Client, Mode: v.t.Mode, Start: v.start, Served: v.leaf,
		Correlation: strings.Clone(v.request.CorrelationID[:min(len(v.request.CorrelationID), maxCorrelation)]), Resource: v.request.Resource(),
		ServerName: v.state.ServerName, Resumed: v.state.DidResume,
	}
	if v.conn != nil {
		s.TLS, s.Cipher = tls.VersionName(v.state.Version), tls.CipherSuiteName(v.state.CipherSuite)
	}
	if v.route.Member != nil {
		s.Backend = v.route.Member.Name
	}
	return s
}

// lost remembers a session that couldn't be carried.
func (v *visit) lost(f Finding) {
	s := v.session()
	s.Finding = f
	if v.noway != nil {
		s.Cause = v.noway.Error()
	}
	v.lostAs(s)
}

func (v *visit) lostAs(s Session) {
	s.End, s.First = time.Now(), PeerBalancer
	if v.t.Sessions != nil {
		v.t.Sessions.Add(s)
	}
	v.t.tell(&s)
}

func (t *Terminator) log() *slog.Logger {
	if t.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return t.Logger
}
