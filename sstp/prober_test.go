package sstp

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const windows401 = "HTTP/1.1 401 \r\nServer: Microsoft-HTTPAPI/2.0\r\nDate: Mon, 02 Nov 2026 08:00:00 GMT\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// standIn is a gateway of one behaviour. It serves each connection with handle
// until the test ends.
type standIn struct {
	addr netip.AddrPort
	leaf *x509.Certificate
	pool *x509.CertPool

	mu    sync.Mutex
	heads []string
}

func newStandIn(t *testing.T, plain bool, handle func(s *standIn, c net.Conn)) *standIn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &standIn{addr: l.Addr().(*net.TCPAddr).AddrPort()}
	var wg sync.WaitGroup
	var conf *tls.Config
	if !plain {
		conf = s.certificate(t)
	}
	wg.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer raw.Close()
				defer context.AfterFunc(t.Context(), func() { raw.Close() })()
				if conf == nil {
					handle(s, raw)
				} else {
					handle(s, tls.Server(raw, conf))
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return s
}

func (s *standIn) certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "vpn.example.org"}, DNSNames: []string{"vpn.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if s.leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	s.pool = x509.NewCertPool()
	s.pool.AddCert(s.leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// readRequest reads and keeps a request's head.
func (s *standIn) readRequest(c net.Conn) bool {
	var head strings.Builder
	r := bufio.NewReaderSize(c, 1024)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		head.WriteString(line)
		if line == "\r\n" {
			break
		}
	}
	s.mu.Lock()
	s.heads = append(s.heads, head.String())
	s.mu.Unlock()
	return true
}

func answering(text string) func(*standIn, net.Conn) {
	return func(s *standIn, c net.Conn) {
		if s.readRequest(c) {
			io.WriteString(c, text)
			c.Close()
		}
	}
}

func wait(_ *standIn, c net.Conn) { io.Copy(io.Discard, c) }

func reset(s *standIn, c net.Conn) {
	if s.readRequest(c) {
		c.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
		c.(*tls.Conn).NetConn().Close()
	}
}

func TestProber(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		plain  bool
		handle func(*standIn, net.Conn)
		prober Prober
		want   string // part of the error; none if empty
	}{
		{name: "401", handle: answering(windows401)},
		{name: "401 with a phrase", handle: answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")},
		{name: "401 with bare line feeds", handle: answering("HTTP/1.1 401\nServer: x\n\n")},
		{name: "401 and the length of SSTP", handle: answering("HTTP/1.1 401\r\nContent-Length: 18446744073709551615\r\n\r\n")},
		{name: "401 cut off after the status line", handle: answering("HTTP/1.1 401 Unauthorized\r\nServer: M")},
		{name: "401 without TLS", plain: true, prober: Prober{PlainHTTP: true}, handle: answering(windows401)},
		{
			name: "404", handle: answering("HTTP/1.1 404 Not Found\r\nServer: Microsoft-HTTPAPI/2.0\r\n\r\nbody after HEAD"),
			want: `HTTP status 404 from "Microsoft-HTTPAPI/2.0", want 401: the web server answers, but no SSTP service`,
		},
		{name: "404 as wanted", handle: answering("HTTP/1.1 404 Not Found\r\n\r\n"), prober: Prober{Expect: 404}},
		{name: "401 but 404 wanted", handle: answering(windows401), prober: Prober{Expect: 404}, want: "HTTP status 401"},
		{name: "503", handle: answering("HTTP/1.1 503 Service Unavailable\r\n\r\n"), want: "HTTP status 503, want 401: the web server answers, but the SSTP service"},
		{name: "200", handle: answering("HTTP/1.1 200 OK\r\n\r\n"), want: "HTTP status 200"},
		{name: "redirect", handle: answering("HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n"), want: "redirects"},
		{name: "odd status", handle: answering("HTTP/1.1 418 Teapot\r\n\r\n"), want: "HTTP status 418"},
		{name: "hangs in TLS", plain: true, handle: wait, want: "TLS handshake: timed out"},
		{name: "hangs after TLS", handle: wait, want: "answer to HEAD: timed out"},
		{name: "hangs within the head", handle: func(s *standIn, c net.Conn) {
			s.readRequest(c)
			io.WriteString(c, "HTTP/1.1 401 \r\n")
			wait(s, c)
		}, want: "answer to HEAD: timed out"},
		{name: "resets", handle: reset, want: "answer to HEAD: reset by the gateway"},
		{name: "closes in TLS", plain: true, handle: func(_ *standIn, c net.Conn) {
			c.Read(make([]byte, 4096))
		}, want: "TLS handshake: the connection was closed"},
		{
			name: "closes without a word", handle: func(s *standIn, c net.Conn) { s.readRequest(c); c.Close() },
			want: "closed without an answer",
		},
		{name: "closes within the status line", handle: answering("HTTP/1.1 4"), want: "closed within the status line"},
		{name: "garbage", handle: answering("SSH-2.0-OpenSSH_9.2\r\n"), want: `isn't HTTP, it begins with "SSH-2.0-OpenSSH_9.2`},
		{name: "endless head", handle: answering("HTTP/1.1 404 \r\n" + strings.Repeat("X: y\r\n", 5000)), want: "HTTP status 404"},
		{name: "endless status line", handle: answering("HTTP/1.1 401 " + strings.Repeat("x", 20000)), want: "isn't HTTP"},
		{name: "bad status", handle: answering("HTTP/1.1 4x1 \r\n\r\n"), want: "isn't HTTP"},
		{name: "four digits", handle: answering("HTTP/1.1 4011\r\n\r\n"), want: "isn't HTTP"},
		{name: "plain HTTP where TLS is expected", plain: true, handle: answering(""), want: "TLS handshake"},
		{
			name: "TLS where plain HTTP is expected", plain: true, prober: Prober{PlainHTTP: true},
			handle: answering("\x15\x03\x01\x00\x02\x02\x46"), want: "TLS, not plain HTTP",
		},
		{name: "verified name", prober: Prober{Verify: true, ServerName: "vpn.example.org"}, handle: answering(windows401)},
		{
			name: "unknown CA", prober: Prober{Verify: true, ServerName: "vpn.example.org", RootCAs: x509.NewCertPool()},
			handle: answering(windows401), want: "clients wouldn't accept the certificate",
		},
		{name: "wrong name", prober: Prober{Verify: true, ServerName: "other.example.org"}, handle: answering(windows401), want: "clients wouldn't accept"},
		{name: "address isn't in the certificate", prober: Prober{Verify: true}, handle: answering(windows401), want: "clients wouldn't accept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newStandIn(t, tt.plain, tt.handle)
			p := tt.prober
			if p.Verify && p.RootCAs == nil {
				p.RootCAs = s.pool
			}
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if strings.Contains(tt.want, "timed out") {
				ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
			}
			defer cancel()
			res, err := p.Ask(ctx, s.addr)
			if tt.want == "" && err != nil {
				t.Fatal(err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("error is %v, want %q in it", err, tt.want)
			}
			if s.leaf != nil && !p.PlainHTTP && res.LeafSHA256 != sha256.Sum256(s.leaf.Raw) {
				t.Errorf("the certificate isn't reported: %q", res.Fingerprint())
			}
		})
	}
}

func TestProberResult(t *testing.T) {
	s := newStandIn(t, false, answering(windows401))
	res, err := new(Prober).Ask(t.Context(), s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 401 || res.Reason != "" || res.Server != "Microsoft-HTTPAPI/2.0" || res.TLSVersion != tls.VersionTLS13 {
		t.Errorf("got %+v", res)
	}
	if res.Connect <= 0 || res.Handshake <= 0 || res.Reply <= 0 || !res.Leaf.Equal(s.leaf) {
		t.Errorf("timings or leaf are missing: %+v", res)
	}
	want := "HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\nHost: " + s.addr.String() + "\r\nConnection: close\r\n\r\n"
	if s.heads[0] != want {
		t.Errorf("sent %q, want %q", s.heads[0], want)
	}
	p := Prober{ServerName: "vpn.example.org"}
	if err := p.Probe(t.Context(), s.addr); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.heads[1], "\r\nHost: vpn.example.org\r\n") {
		t.Errorf("sent %q", s.heads[1])
	}
}

func TestProberRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	err = new(Prober).Probe(t.Context(), addr)
	if err == nil || !strings.Contains(err.Error(), "connect: refused") {
		t.Errorf("got %v", err)
	}
}

func TestProberCanceled(t *testing.T) {
	s := newStandIn(t, false, wait)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- new(Prober).Probe(ctx, s.addr) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProberTimeoutOfItsOwn(t *testing.T) {
	s := newStandIn(t, false, wait)
	p := Prober{Timeout: 50 * time.Millisecond}
	if err := p.Probe(t.Context(), s.addr); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestStatusErrorIsTyped(t *testing.T) {
	s := newStandIn(t, false, answering("HTTP/1.1 503 \r\n\r\n"))
	var e *StatusError
	if err := new(Prober).Probe(t.Context(), s.addr); !errors.As(err, &e) || e.Status != 503 || e.Want != 401 {
		t.Errorf("got %v", e)
	}
}

func FuzzParseHead(f *testing.F) {
	for _, s := range []string{windows401, "HTTP/1.1 401\n\n", "HTTP/1.0 200 OK\r\n", "HTTP/1.1 ", "\n", "HTTP/1.1 999 \r\n:\r\nserver:\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := headEnd(b)
		if end > len(b) || (end >= 0 && !strings.HasSuffix(string(b[:end]), "\n")) {
			t.Fatalf("head ends at %d of %d", end, len(b))
		}
		h, err := parseHead(b)
		if err != nil {
			if h != (head{}) {
				t.Fatalf("%+v with %v", h, err)
			}
			return
		}
		if h.status < 100 || h.status > 999 || !couldBeHTTP(b) {
			t.Fatalf("%q gave %+v", b, h)
		}
		again, err := parseHead(fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nServer: %s\r\n\r\n", h.status, h.reason, h.server))
		if err != nil || again.status != h.status || again.server != h.server {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}
