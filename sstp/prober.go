package sstp

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// DefaultExpect is the status that a gateway answers a HEAD for [Path]
	// with while its SSTP service serves: 401, Unauthorized.
	DefaultExpect = 401
	// DefaultTimeout bounds a probe whose context has no deadline.
	DefaultTimeout = 5 * time.Second
)

// Prober asks a gateway whether its SSTP service serves: it sends a HEAD for
// [Path] and expects the status 401. This is the check that all vendors' guides
// use. It opens no tunnel, takes none of the server's ports and logs nothing
// there. Ask has it do more. The zero Prober is ready for use, from many
// goroutines at once.
//
// Each probe has a connection of its own: a gateway that can't accept new
// connections must not pass because an old one still works.
type Prober struct {
	// Question is what it asks; zero means AskHead.
	Question Question
	// ServerName is the name to ask for, in TLS (SNI) and as the HTTP Host.
	// If it is empty, the address is asked for and no SNI is sent, as HTTP.sys
	// needs none.
	ServerName string
	// Verify makes a certificate that clients wouldn't accept a failure: its
	// chain, its time and its name, which is ServerName or else the address.
	//
	// By default the certificate is only reported, in [Result]. Gateways are
	// probed by their addresses, while their certificates hold the public name
	// of the service, and often come from a CA that the balancer doesn't know:
	// a check that fails for that would take working gateways out of service.
	Verify bool
	// RootCAs are the CAs for Verify; nil means those of the system.
	RootCAs *x509.CertPool
	// PlainHTTP probes without TLS, for gateways whose TLS is offloaded
	// (UseHttps = 0).
	PlainHTTP bool
	// Expect is the status to expect of AskHead; 0 means DefaultExpect.
	Expect int
	// Timeout bounds a probe whose context has no deadline; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// Dialer opens the connections; nil means a plain one. With its LocalAddr
	// a probe can come from where clients come from.
	Dialer *net.Dialer
}

// A Result says what a probe has found, as far as it got.
type Result struct {
	// Status is the HTTP status; 0 if none came.
	Status int
	// Reason is the phrase after the status. Windows sends none.
	Reason string
	// Server is the Server header, as Microsoft-HTTPAPI/2.0 of Windows.
	Server string
	// TLSVersion and CipherSuite are what was agreed on; see [tls.VersionName]
	// and [tls.CipherSuiteName]. They are 0 without TLS.
	TLSVersion, CipherSuite uint16
	// Leaf is the gateway's certificate; nil without TLS.
	Leaf *x509.Certificate
	// Chain is what came with it.
	Chain []*x509.Certificate
	// LeafSHA256 is the SHA-256 over the DER of Leaf. SSTP binds tunnels to
	// this hash: it is the gateway's SHA256CertificateHash.
	LeafSHA256 [sha256.Size]byte
	// Hashes are those that the gateway takes for crypto bindings; 0 unless
	// AskCall came as far as that.
	Hashes Hashes
	// Connect, Handshake and Reply are how long TCP, TLS and the answer took;
	// 0 for what wasn't reached.
	Connect, Handshake, Reply time.Duration
}

// Fingerprint returns LeafSHA256 in hex, or "" without a Leaf.
func (r *Result) Fingerprint() string {
	if r.Leaf == nil {
		return ""
	}
	return hex.EncodeToString(r.LeafSHA256[:])
}

// Probe asks target. It returns nil only for the expected status.
func (p *Prober) Probe(ctx context.Context, target netip.AddrPort) error {
	_, err := p.Ask(ctx, target)
	return err
}

// Ask is like Probe, and returns what it has found as well, with an error too.
// It ends with ctx.
func (p *Prober) Ask(ctx context.Context, target netip.AddrPort) (Result, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(p.Timeout, DefaultTimeout))
		defer cancel()
	}
	var res Result
	conn, err := p.dial(ctx, target, &res)
	if err != nil {
		return res, stageError(ctx, "connect", err)
	}
	// Waiting ends with ctx, whether it is cancelled or runs out.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	defer conn.Close()
	stream := conn
	if !p.PlainHTTP {
		if stream, err = p.handshake(ctx, conn, target, &res); err != nil {
			return res, err
		}
	}
	return res, p.request(ctx, stream, target, &res)
}

func (p *Prober) dial(ctx context.Context, target netip.AddrPort, res *Result) (net.Conn, error) {
	d := p.Dialer
	if d == nil {
		d = new(net.Dialer)
	}
	start := time.Now()
	conn, err := d.DialContext(ctx, "tcp", target.String())
	res.Connect = time.Since(start)
	return conn, err
}

// handshake begins TLS, and keeps of the certificate what Result holds even if
// it isn't accepted.
func (p *Prober) handshake(ctx context.Context, conn net.Conn, target netip.AddrPort, res *Result) (net.Conn, error) {
	c := tls.Client(conn, &tls.Config{
		ServerName: p.ServerName,
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"}, // never h2: SSTP isn't carried by it
		// The certificate is judged below, where it can be reported first.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			res.Leaf = s.PeerCertificates[0]
			res.Chain = s.PeerCertificates[1:]
			res.LeafSHA256 = sha256.Sum256(res.Leaf.Raw)
			return p.verify(s, target)
		},
	})
	start := time.Now()
	err := c.HandshakeContext(ctx)
	res.Handshake = time.Since(start)
	if err != nil {
		return nil, stageError(ctx, "TLS handshake", err)
	}
	s := c.ConnectionState()
	res.TLSVersion, res.CipherSuite = s.Version, s.CipherSuite
	return c, nil
}

func (p *Prober) verify(s tls.ConnectionState, target netip.AddrPort) error {
	if !p.Verify {
		return nil
	}
	opts := x509.VerifyOptions{
		Roots:         p.RootCAs,
		DNSName:       cmp.Or(p.ServerName, target.Addr().Unmap().WithZone("").String()),
		Intermediates: x509.NewCertPool(),
	}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
		return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
	}
	return nil
}

// request asks, and judges the answer.
func (p *Prober) request(ctx context.Context, conn net.Conn, target netip.AddrPort, res *Result) error {
	host := cmp.Or(p.ServerName, target.String())
	switch p.Question {
	case AskCall:
		return p.call(ctx, conn, host, res)
	case AskIPHTTPS:
		return p.ipHTTPS(ctx, conn, host, res)
	}
	text := "HEAD " + Path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
	_, err := p.exchange(ctx, conn, text, cmp.Or(p.Expect, DefaultExpect), res)
	return err
}

// exchange sends a head, and reads one, which must have the status want. It
// returns what came after.
func (p *Prober) exchange(ctx context.Context, conn net.Conn, text string, want int, res *Result) ([]byte, error) {
	start := time.Now()
	if _, err := io.WriteString(conn, text); err != nil {
		return nil, stageError(ctx, "request", err)
	}
	b, err := readHead(conn)
	res.Reply = time.Since(start)
	h, perr := parseHead(b)
	switch {
	case len(b) > 0 && !couldBeHTTP(b):
		return nil, notHTTP(b)
	case err != nil && (perr != nil || !closed(err)):
		method, _, _ := strings.Cut(text, " ")
		return nil, answerError(ctx, method, len(b), err)
	case perr != nil:
		return nil, notHTTP(b)
	}
	res.Status, res.Reason, res.Server = h.status, h.reason, h.server
	if h.status != want {
		return nil, &StatusError{Status: h.status, Want: want, Server: h.server, Question: p.Question}
	}
	return b[max(headEnd(b), 0):], nil
}

// readHead reads until the head is there, until it can't be one, or until
// nothing comes any more. It returns what came even with an error.
func readHead(r io.Reader) ([]byte, error) {
	b := make([]byte, 0, 512)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(cap(b), maxHead)])
		b = b[:len(b)+n]
		if headEnd(b) >= 0 || !couldBeHTTP(b) || len(b) >= maxHead {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}

// StatusError says that a gateway answered with another status than expected.
type StatusError struct {
	// Status is what came, Want what was expected.
	Status, Want int
	// Server is the Server header that came with it.
	Server string
	// Question is what was asked.
	Question Question
}

func (e *StatusError) Error() string {
	by := ""
	if e.Server != "" {
		by = fmt.Sprintf(" from %.64q", e.Server)
	}
	why := meaning(e.Status)
	switch {
	case e.Question == AskIPHTTPS && e.Status == 503:
		why = "the web server answers, but nothing takes IP-HTTPS behind it; is the IP Helper service (iphlpsvc) running, with DirectAccess? " +
			"A balancer that offloads SSTP answers so if its gateways take no TLS at the port to which it leads IP-HTTPS"
	case e.Question == AskIPHTTPS && e.Status == 404:
		why = "the web server answers, but nothing is registered for IP-HTTPS at its path; is DirectAccess configured, and ip_https set at a balancer before it?"
	case e.Status == 503 && e.Server == "":
		why += " A balancer that reaches no gateway answers so too"
	case e.Status == DefaultExpect:
		why = "it wants a login in HTTP, which SSTP gateways don't"
	}
	return fmt.Sprintf("sstp: HTTP status %d%s, want %d: %s", e.Status, by, e.Want, why)
}

// meaning says what a status other than 401 tells an administrator.
func meaning(status int) string {
	switch status {
	case 404:
		return "the web server answers, but no SSTP service is registered at its path; is the RemoteAccess service running, and SSTP enabled?"
	case 503:
		return "the web server answers, but the SSTP service behind it doesn't; is the SstpSvc service running, and has it free ports?"
	case 200, 204:
		return "a web server that accepts everything answers, not an SSTP service"
	case 301, 302, 303, 307, 308:
		return "a web server redirects; is this the address of an SSTP gateway?"
	case 400:
		return "the request is refused as malformed; does the port expect TLS, or another name as its host?"
	case 403:
		return "access is forbidden; does something in front of the gateway ask for a client certificate, or filter addresses?"
	case 405, 501:
		return "the server doesn't know HEAD, so it isn't Windows; set the status to expect"
	case 407:
		return "a forward proxy answers"
	case 500:
		return "the service failed"
	case 502, 504:
		return "a proxy answers that doesn't reach its gateway"
	}
	return "this isn't how an SSTP service answers"
}

// notHTTP says what came instead of HTTP.
func notHTTP(b []byte) error {
	if len(b) >= 2 && (b[0] == 0x15 || b[0] == 0x16) && b[1] == 3 {
		return fmt.Errorf("sstp: the answer is TLS, not plain HTTP: the gateway doesn't have its TLS offloaded: %w", errNotHTTP)
	}
	return fmt.Errorf("sstp: the answer isn't HTTP, it begins with %q: %w", b[:min(len(b), 24)], errNotHTTP)
}

// answerError says why no whole answer came, of which n bytes did.
func answerError(ctx context.Context, method string, n int, err error) error {
	if n == 0 && closed(err) {
		return fmt.Errorf("sstp: the connection was closed without an answer to %s: %w", method, err)
	}
	if closed(err) {
		return fmt.Errorf("sstp: the connection was closed within the status line: %w", io.ErrUnexpectedEOF)
	}
	return stageError(ctx, "answer to "+method, err)
}

// closed reports whether err is that of a connection closed by the other side,
// with TLS's farewell or without.
func closed(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// stageError says at which stage a probe failed, and in which of the ways that
// tell an administrator where to look.
func stageError(ctx context.Context, stage string, err error) error {
	var record tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	switch {
	case ctx.Err() == context.Canceled:
		return fmt.Errorf("sstp: %s: %w", stage, context.Canceled)
	case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("sstp: %s: timed out: %w", stage, context.DeadlineExceeded)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("sstp: %s: refused, nothing listens on this port: %w", stage, err)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("sstp: %s: reset by the gateway: %w", stage, err)
	case errors.As(err, &record):
		return fmt.Errorf("sstp: %s: the answer isn't TLS, it begins with %q: %w", stage, record.RecordHeader[:], err)
	case errors.As(err, &cert):
		return fmt.Errorf("sstp: %s: clients wouldn't accept the certificate: %w", stage, err)
	case closed(err):
		return fmt.Errorf("sstp: %s: the connection was closed: %w", stage, err)
	}
	return fmt.Errorf("sstp: %s: %w", stage, err)
}
