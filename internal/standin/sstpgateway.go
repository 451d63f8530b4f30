package standin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// An SSTPGateway answers SSTP clients as RRAS behind HTTP.sys does (MS-SSTP
// §3.3), and keeps books. Serve may be called again after it has returned.
type SSTPGateway struct {
	// Name is written into the answers to LCP Echo.
	Name string
	// Certificate is what it shows. If it is empty it speaks plain HTTP, as with
	// UseHttps = 0.
	Certificate tls.Certificate
	// Hash and HashSHA1 are the hashes that an administrator has set, as
	// SHA256CertificateHash and SHA1CertificateHash; if both are zero, those of
	// Certificate count. SetHash changes them while it serves.
	Hash     sstp.Fingerprint
	HashSHA1 sstp.FingerprintSHA1
	// Hashes are those that it offers; 0 means both.
	Hashes sstp.Hashes
	// Passwords are its users'. If there are any, they log in by MS-CHAPv2, and
	// get addresses by IPCP. Otherwise a client says who it is by an LCP
	// Identification, and nothing is asked of it.
	Passwords map[string]string
	// Ports is how many calls it takes at once; 0 means any number. Beyond, it
	// answers 503.
	Ports int
	// Negotiation is how long it waits for each step until a call is connected;
	// 0 means 60 s.
	Negotiation time.Duration
	// HEAD is the status that it answers a HEAD for the SSTP resource with; 0
	// means 401.
	HEAD int
	// Hello is how long the peer may be silent before it is asked, and again
	// before the call is given up; 0 means 60 s.
	Hello time.Duration
	// Logger, if not nil, hears why calls end.
	Logger *slog.Logger

	book book

	mu     sync.Mutex // below, and Hash and HashSHA1
	counts SSTPCounts
	fault  SSTPFault
	calls  int
}

// An SSTPFault is what is wrong with a gateway.
type SSTPFault struct {
	// Status is what it answers SSTP_DUPLEX_POST with, if not 0.
	Status int
	// Mute has it never answer a request.
	Mute bool
	// SilentAuth has it never say whether a password is right.
	SilentAuth bool
	// NoHello has it send no ECHO_REQUEST.
	NoHello bool
	// Garbage has it send what isn't SSTP once a call is connected.
	Garbage bool
	// Abort, if not nil, is what it aborts calls with once they are connected.
	Abort *sstp.StatusInfo
	// CloseQuietly has it close the connection where it should abort, as some
	// servers do.
	CloseQuietly bool
	// ForeignHash has it want a hash that no certificate has.
	ForeignHash bool
}

// SetFault makes something wrong, from the next connection on.
func (g *SSTPGateway) SetFault(f SSTPFault) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fault = f
}

// SetHash sets the hash that it expects, from the next CALL_CONNECTED on. Real
// gateways have to be restarted for that.
func (g *SSTPGateway) SetHash(f sstp.Fingerprint, f1 sstp.FingerprintSHA1) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.Hash, g.HashSHA1 = f, f1
}

// expected returns the hashes that it expects.
func (g *SSTPGateway) expected() (sstp.Fingerprint, sstp.FingerprintSHA1) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.fault.ForeignHash:
		return sstp.Fingerprint{1}, sstp.FingerprintSHA1{1}
	case !g.Hash.IsZero() || !g.HashSHA1.IsZero() || len(g.Certificate.Certificate) == 0:
		return g.Hash, g.HashSHA1
	}
	der := g.Certificate.Certificate[0]
	return sstp.FingerprintOf(der), sstp.FingerprintSHA1Of(der)
}

// SSTPCounts are what an SSTPGateway was asked and what it refused.
type SSTPCounts struct {
	// Probes counts HEAD requests for the SSTP resource, Calls the calls that
	// were set up, Aborted those refused for their crypto binding, Bad the
	// connections that spoke neither HTTP nor SSTP, IPHTTPS those that asked
	// for the resource of DirectAccess.
	Probes, Calls, Aborted, Bad, IPHTTPS uint64
}

// Counts returns what has been counted over all lives.
func (g *SSTPGateway) Counts() SSTPCounts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts
}

func (g *SSTPGateway) count(c *uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*c++
}

// Sessions returns all calls, of all lives.
func (g *SSTPGateway) Sessions() []Session { return g.book.list() }

// Serve answers on ln until ctx is done, and then closes it and all connections.
func (g *SSTPGateway) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer g.book.newLife()
	var wg sync.WaitGroup
	defer wg.Wait()
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			err = fmt.Errorf("standin: SSTP gateway %s: %w", g.Name, err)
			cancel(err)
			return err
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			if err := g.connection(ctx, c); err != nil && g.Logger != nil && ctx.Err() == nil {
				g.Logger.Info("SSTP connection ended", "gateway", g.Name, "client", c.RemoteAddr(), "error", err)
			}
		})
	}
}

// connection serves HTTP requests until one of them becomes an SSTP call.
func (g *SSTPGateway) connection(ctx context.Context, c net.Conn) error {
	c.SetDeadline(time.Now().Add(g.hello()))
	if len(g.Certificate.Certificate) > 0 {
		t := tls.Server(c, &tls.Config{
			Certificates: []tls.Certificate{g.Certificate}, MinVersion: tls.VersionTLS12,
			// A resumed session would bind the call to an older certificate.
			SessionTicketsDisabled: true,
		})
		if err := t.HandshakeContext(ctx); err != nil {
			g.count(&g.counts.Bad)
			return err
		}
		c = t
	}
	r := bufio.NewReader(c)
	for answered := false; ; answered = true {
		b, err := readHead(r)
		switch {
		case err != nil && answered: // that was all the client wanted
			return nil
		case err != nil:
			g.count(&g.counts.Bad)
			return err
		}
		q, _, err := sstp.ParseRequest(b)
		if err != nil || q.Minor != 1 {
			g.count(&g.counts.Bad)
			return errors.Join(errors.New("standin: not HTTP/1.1"), err)
		}
		if done, err := g.request(c, r, &q); done || err != nil {
			return err
		}
	}
}

// request answers one HTTP request; done says that it was a call, which is over.
func (g *SSTPGateway) request(c net.Conn, r *bufio.Reader, q *sstp.Request) (done bool, err error) {
	g.mu.Lock()
	f := g.fault
	g.mu.Unlock()
	switch {
	case q.Tunnel() && f.Mute:
		_, err := io.Copy(io.Discard, r)
		return true, err
	case q.Tunnel() && f.Status != 0:
		return true, httpAnswer(c, f.Status)
	case q.Tunnel():
		if !g.takePort() {
			return true, httpAnswer(c, 503)
		}
		defer g.freePort()
		return true, g.call(c, r, f)
	case q.Resource() == sstp.ResourceSSTP && q.Method == http.MethodHead:
		g.count(&g.counts.Probes)
		return false, httpAnswer(c, orDefault(g.HEAD, 401))
	case q.Resource() == sstp.ResourceIPHTTPS && q.Method == http.MethodPost:
		g.count(&g.counts.IPHTTPS)
		return true, g.ipHTTPS(c, r)
	}
	return false, httpAnswer(c, 404)
}

// ipHTTPS answers as DirectAccess does, and sends back what comes.
func (g *SSTPGateway) ipHTTPS(c net.Conn, r *bufio.Reader) error {
	a := sstp.Response{Status: 200, Reason: "OK", Server: "Microsoft-HTTPAPI/2.0"}
	if _, err := c.Write(a.Append(nil)); err != nil {
		return err
	}
	_, err := io.Copy(c, r)
	return err
}

func (g *SSTPGateway) takePort() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Ports > 0 && g.calls >= g.Ports {
		return false
	}
	g.calls++
	return true
}

func (g *SSTPGateway) freePort() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
}

func httpAnswer(w io.Writer, status int) error {
	r := sstp.Response{Status: status, Length: "0", Server: "Microsoft-HTTPAPI/2.0", Date: httpDate()}
	r.Reason = map[int]string{401: "Unauthorized", 404: "Not Found", 503: "Service Unavailable"}[status]
	_, err := w.Write(r.Append(nil))
	return err
}

func httpDate() string { return time.Now().UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT") }

func (g *SSTPGateway) hello() time.Duration { return orDefault(g.Hello, sstp.HelloTimeout) }

// A sstpCall is one call as the gateway sees it. Its states are those of the
// specification (§3.3.1): asked and acked lead to Call_Connected_Pending,
// connected is Call_Connected.
type sstpCall struct {
	g         *SSTPGateway
	c         net.Conn
	fault     SSTPFault
	ask       *sstp.BindingRequest // nil until the request has been accepted
	naks      int
	ppp       *PPP // nil where clients only say who they are
	began     time.Time
	client    string
	connected bool
	session   int
}

// call serves an SSTP call until it ends.
func (g *SSTPGateway) call(c net.Conn, r *bufio.Reader, f SSTPFault) error {
	// Windows sends no reason phrase, and no space for one either.
	a := sstp.Response{Status: 200, Length: sstp.ContentLength, Server: "Microsoft-HTTPAPI/2.0", Date: httpDate()}
	if _, err := c.Write(a.Append(nil)); err != nil {
		return err
	}
	s := &sstpCall{g: g, c: c, began: time.Now(), fault: f}
	defer s.end()
	asked := false
	for {
		wait := g.hello()
		if !s.connected {
			wait = orDefault(g.Negotiation, sstp.NegotiationTimeout)
		}
		c.SetDeadline(time.Now().Add(wait))
		p, err := readSSTP(r)
		switch late := errors.Is(err, os.ErrDeadlineExceeded); {
		case late && !s.connected:
			return s.abort(sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusNegotiationTimeout})
		case late && !asked && !f.NoHello:
			// The deadline may have cut a packet in two, but then the next
			// read fails, and so does the call.
			asked = true
			c.SetDeadline(time.Now().Add(g.hello()))
			if _, err = c.Write(sstp.AppendControl(nil, sstp.EchoRequest)); err != nil {
				return err
			}
			continue
		case late && f.NoHello:
			continue
		case err != nil:
			return err
		}
		asked = false
		if done, err := s.packet(p); done || err != nil {
			return err
		}
	}
}

// packet answers one packet; done says that the call is over.
func (s *sstpCall) packet(p sstpPacket) (done bool, err error) {
	if !p.control {
		return false, s.data(p.data)
	}
	switch p.Type {
	case sstp.CallConnectRequest:
		return s.request(&p.Message)
	case sstp.CallConnected:
		return s.bind(&p.Message)
	case sstp.EchoRequest:
		return false, s.control(sstp.EchoResponse)
	case sstp.EchoResponse:
		return false, nil
	case sstp.CallDisconnect:
		err := s.control(sstp.CallDisconnectAck)
		s.wait(sstp.DisconnectTimeout2)
		return true, err
	case sstp.CallAbort:
		// An abort is answered by an abort (§3.1.5.1).
		_, err := s.c.Write(sstp.AppendControl(nil, sstp.CallAbort))
		s.wait(sstp.AbortTimeout2)
		return true, err
	}
	return true, s.abort(sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusUnacceptedFrame})
}

func (s *sstpCall) control(t sstp.MessageType) error {
	_, err := s.c.Write(sstp.AppendControl(nil, t))
	return err
}

// request answers a CALL_CONNECT_REQUEST.
func (s *sstpCall) request(m *sstp.Message) (done bool, err error) {
	if s.ask != nil {
		return true, s.abort(sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusUnacceptedFrame})
	}
	value, ok := m.Value(sstp.AttrProtocol)
	if !ok || string(value) != string([]byte{0, sstp.ProtocolPPP}) {
		if s.naks++; s.naks > sstp.MaxNaks {
			return true, s.abort(sstp.StatusInfo{Attribute: sstp.AttrProtocol, Status: sstp.StatusRetryCountExceeded})
		}
		status := sstp.StatusInfo{Attribute: sstp.AttrProtocol, Status: sstp.StatusValueNotSupported, Value: value}
		_, err := s.c.Write(sstp.AppendStatus(nil, sstp.CallConnectNak, status))
		return false, err
	}
	s.ask = &sstp.BindingRequest{Hashes: orDefault(s.g.Hashes, sstp.HashSHA1|sstp.HashSHA256)}
	copy(s.ask.Nonce[:], randomBytes(32))
	if _, err := s.c.Write(sstp.AppendConnectAck(nil, s.ask)); err != nil {
		return true, err
	}
	if s.g.Passwords == nil {
		return false, nil
	}
	s.ppp = &PPP{
		Server: true, Name: s.g.Name, Silent: s.fault.SilentAuth, Address: [4]byte{10, 99, byte(time.Now().UnixNano() >> 8), 2},
		Passwords: func(user string) (string, bool) { p, ok := s.g.Passwords[user]; return p, ok },
		Send:      s.send, Data: s.echo,
	}
	return false, s.ppp.Begin()
}

// bind checks a CALL_CONNECTED (§3.3.5.2.3).
func (s *sstpCall) bind(m *sstp.Message) (done bool, err error) {
	if s.ask == nil || s.connected || s.name() == "" {
		return true, s.abort(sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusUnacceptedFrame})
	}
	value, _ := m.Value(sstp.AttrBinding)
	b, err := sstp.ParseBinding(value)
	if err != nil {
		s.g.count(&s.g.counts.Aborted)
		return true, s.abort(sstp.StatusInfo{Attribute: sstp.AttrStatus, Status: sstp.StatusAttributeNotSupportedInMessage})
	}
	var key sstp.Key
	if s.ppp != nil {
		key = s.ppp.Key
	}
	f, f1 := s.g.expected()
	if err := b.Verify(s.ask, f, f1, key); err != nil {
		s.g.count(&s.g.counts.Aborted)
		return true, errors.Join(err, s.abort(sstp.StatusInfo{Attribute: sstp.AttrBinding, Status: sstp.StatusValueNotSupported}))
	}
	s.connect()
	switch {
	case s.fault.Abort != nil:
		return true, s.abort(*s.fault.Abort)
	case s.fault.Garbage:
		_, err := s.c.Write([]byte("this is not SSTP"))
		return false, err
	}
	return false, nil
}

// name returns who the client is, if it has said so and it is true.
func (s *sstpCall) name() string {
	if s.ppp == nil {
		return s.client
	}
	if s.ppp.Authenticated {
		return s.ppp.Who
	}
	return ""
}

// abort ends the call, and waits for the other side to do so too.
func (s *sstpCall) abort(i sstp.StatusInfo) error {
	if s.fault.CloseQuietly {
		return nil
	}
	s.c.SetDeadline(time.Now().Add(sstp.AbortTimeout1))
	if _, err := s.c.Write(sstp.AppendStatus(nil, sstp.CallAbort, i)); err != nil {
		return err
	}
	s.wait(sstp.AbortTimeout1)
	return fmt.Errorf("standin: aborted: %v", i)
}

// wait waits until the other side has closed the connection, for d at most.
func (s *sstpCall) wait(d time.Duration) {
	s.c.SetReadDeadline(time.Now().Add(d))
	_, _ = io.Copy(io.Discard, s.c) // whatever ends it
}

func (s *sstpCall) connect() {
	s.connected = true
	now := time.Now()
	s.g.count(&s.g.counts.Calls)
	s.session = s.g.book.open(Session{Client: s.name(), Begun: s.began, Established: now, Last: now})
}

func (s *sstpCall) end() {
	if s.connected {
		s.g.book.note(s.session, func(s *Session) {
			if s.Ended.IsZero() {
				s.Ended = time.Now()
			}
		})
	}
}

// send sends a PPP frame.
func (s *sstpCall) send(frame []byte) error {
	b, err := sstp.AppendData(nil, frame)
	if err == nil {
		_, err = s.c.Write(b)
	}
	return err
}

// echo sends an IPv4 packet back to where it comes from.
func (s *sstpCall) echo(b []byte) error {
	s.g.book.note(s.session, func(s *Session) { s.Last = time.Now(); s.Packets++ })
	if len(b) < 20 {
		return nil
	}
	out := append([]byte{0xff, 0x03, 0, protoIP}, b...)
	copy(out[4+12:], b[16:20])
	copy(out[4+16:], b[12:16])
	return s.send(out)
}

// networkLayer reports whether a frame is of IP, or of what sets it up, and not of
// LCP or an authentication (RFC 1661 §2).
func networkLayer(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte{0xff, 0x03})
	return len(b) > 1 && (b[0]&1 != 0 || b[0] < 0xc0)
}

// data takes a PPP frame. Before the call is connected only what leads there
// counts (§3.3.5.2).
func (s *sstpCall) data(b []byte) error {
	if s.ppp != nil {
		if !s.connected && networkLayer(b) {
			return nil
		}
		return s.ppp.Take(b)
	}
	code, id, data, ok := parseLCP(b)
	switch {
	case !ok:
		return nil
	case code == lcpIdentification && !s.connected:
		s.client = string(data)
	case code == lcpEchoRequest && s.connected:
		s.g.book.note(s.session, func(s *Session) { s.Last = time.Now(); s.Packets++ })
		_, err := s.c.Write(lcp(lcpEchoReply, id, []byte(s.g.Name)))
		return err
	}
	return nil
}
