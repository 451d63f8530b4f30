package sstp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/sstp"
)

// certificates makes certificates of one name: each its own CA.
func certificate(t testing.TB, roots *x509.CertPool) tls.Certificate {
	t.Helper()
	cert, _, err := standin.SelfSigned("vpn.example")
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(cert.Leaf)
	return cert
}

// leaves are Leaves by the backend's name; "" is for all others.
type leaves struct {
	mu   sync.Mutex
	each map[string]*tls.Certificate
}

func (l *leaves) Leaf(backend string, _ *tls.ClientHelloInfo) (*tls.Certificate, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.each[backend]; c != nil {
		return c, nil
	}
	if c := l.each[""]; c != nil {
		return c, nil
	}
	return nil, errors.New("no certificate")
}

func (l *leaves) set(backend string, c tls.Certificate) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.each[backend] = &c
}

// A world is gateways on loopback, each at an address of its own, before them a
// balancer that ends TLS, and a client.
type world struct {
	t        testing.TB
	ctx      context.Context
	gateways []*standin.SSTPGateway
	roots    *x509.CertPool
	leaves   *leaves
	sessions *sstp.Sessions
	term     *sstp.Terminator
	engine   *tcp.Engine
	pool     *lb.Pool
	addr     netip.AddrPort
	port     uint16                          // of the gateways
	wrap     func(net.Listener) net.Listener // of the balancer; nil for none
	wg       sync.WaitGroup
}

// newWorld serves n gateways. In ModeOffload they speak plain HTTP and expect the
// certificate that is served; in ModeReencrypt they have it themselves.
func newWorld(t testing.TB, mode sstp.Mode, n int, change func(w *world)) *world {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	w := &world{t: t, ctx: ctx, roots: x509.NewCertPool(), pool: new(lb.Pool), sessions: new(sstp.Sessions)}
	cert := certificate(t, w.roots)
	w.leaves = &leaves{each: map[string]*tls.Certificate{"": &cert}}
	w.term = &sstp.Terminator{
		Mode: mode, Leaves: w.leaves, Sessions: w.sessions, IPHTTPS: true,
		Gateway: sstp.GatewayTLS{RootCAs: w.roots}, Linger: 300 * time.Millisecond,
	}
	w.engine = &tcp.Engine{
		Balancer: &lb.Balancer{Pool: w.pool, Table: new(lb.Table), Picker: new(lb.RoundRobin), MaxHinted: -1}, Sniffer: sstp.Sniffer{}, Terminator: w.term,
	}
	var backends []lb.Backend
	for i := range n {
		g := &standin.SSTPGateway{Name: fmt.Sprintf("ras%d", i+1)}
		if mode == sstp.ModeReencrypt {
			g.Certificate = cert
		} else {
			g.Hash, g.HashSHA1 = sstp.FingerprintOf(cert.Certificate[0]), sstp.FingerprintSHA1Of(cert.Certificate[0])
		}
		w.gateways = append(w.gateways, g)
		backends = append(backends, lb.Backend{Name: g.Name, Addr: netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)})})
	}
	if change != nil {
		change(w)
	}
	w.listen()
	w.engine.Port = w.port
	if err := w.pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().(*net.TCPAddr).AddrPort()
	if w.wrap != nil {
		l = w.wrap(l)
	}
	w.wg.Go(func() { w.engine.Serve(ctx, l) })
	t.Cleanup(func() { cancel(); w.wg.Wait() })
	return w
}

// listen opens the gateways, all at one port.
func (w *world) listen() {
	w.t.Helper()
	for range 20 {
		var open []net.Listener
		for i := range w.gateways {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.%d:%d", 2+i, w.port))
			if err != nil {
				break
			}
			open = append(open, l)
			w.port = uint16(l.Addr().(*net.TCPAddr).Port)
		}
		if len(open) == len(w.gateways) {
			for i, g := range w.gateways {
				w.wg.Go(func() { g.Serve(w.ctx, open[i]) })
			}
			return
		}
		for _, l := range open {
			l.Close()
		}
		w.port = 0
	}
	w.t.Fatal("no port that is free at all addresses")
}

func (w *world) client() *standin.SSTPClient {
	return &standin.SSTPClient{
		Name: "alice", Server: w.addr, ServerName: "vpn.example", RootCAs: w.roots,
		Every: 5 * time.Millisecond, Repeat: time.Hour, Patience: 20 * time.Second,
	}
}

// run runs a client until ok, or until its first call has failed.
func (w *world) run(c *standin.SSTPClient, ok func(standin.TunnelStatus) bool) standin.TunnelStatus {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { c.Run(ctx) })
	until(w.t, "the client", func() bool {
		s := c.Status()
		return ok(s) || s.Failed > 0 || !s.Lost.IsZero()
	})
	s := c.Status()
	cancel()
	wg.Wait()
	return s
}

// ended waits for a session to end and returns it.
func (w *world) ended(n int) sstp.Session {
	w.t.Helper()
	until(w.t, "the session's end", func() bool { return len(w.sessions.List(0, false)) >= n })
	return w.sessions.List(1, false)[0]
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func answered(n uint64) func(standin.TunnelStatus) bool {
	return func(s standin.TunnelStatus) bool { return s.Received >= n }
}

func eachMode(t *testing.T, f func(t *testing.T, mode sstp.Mode)) {
	for _, m := range []sstp.Mode{sstp.ModeOffload, sstp.ModeReencrypt} {
		t.Run(m.String(), func(t *testing.T) { f(t, m) })
	}
}

func TestTerminatorCarriesTunnels(t *testing.T) {
	for name, bend := range map[string]func(g *standin.SSTPGateway, c *standin.SSTPClient){
		"plain":                   func(*standin.SSTPGateway, *standin.SSTPClient) {},
		"pipelined with the head": func(_ *standin.SSTPGateway, c *standin.SSTPClient) { c.Pipelined = true },
		"in single bytes":         func(_ *standin.SSTPGateway, c *standin.SSTPClient) { c.Bytewise, c.Pipelined = true, true },
		"with a login by MS-CHAPv2": func(g *standin.SSTPGateway, c *standin.SSTPClient) {
			g.Passwords, c.Password = map[string]string{"alice": "pw"}, "pw"
		},
		"bound by SHA-1": func(g *standin.SSTPGateway, _ *standin.SSTPClient) { g.Hashes = sstp.HashSHA1 },
	} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, mode sstp.Mode) {
				w := newWorld(t, mode, 1, nil)
				c := w.client()
				bend(w.gateways[0], c)
				if s := w.run(c, answered(5)); s.Received < 5 {
					t.Fatalf("status %+v", s)
				}
				s := w.ended(1)
				if s.Stage != sstp.StageConnected || s.Finding != sstp.FindingNone || s.Backend != "ras1" || s.First != sstp.PeerClient ||
					s.Correlation == "" || s.Mode != mode || s.ServerName != "vpn.example" || s.TLS != "TLS 1.3" || s.Up.IsZero() {
					t.Errorf("session %+v", s)
				}
				if c.Password != "" && (s.Auth != sstp.Auth{Protocol: "CHAP", Result: sstp.AuthSucceeded}) {
					t.Errorf("authentication %v", s.Auth)
				}
				if got := w.engine.Stats(); got.Opened != 1 || got.RefusedTotal() != 0 || got.Sent == 0 || got.Received == 0 {
					t.Errorf("stats %+v", got)
				}
			})
		})
	}
}

// chooses is a client that dials, and says what it got.
func (w *world) dial(c *tls.Config) (*tls.Conn, error) {
	c.RootCAs = w.roots
	if c.ServerName == "" {
		c.ServerName = "vpn.example"
	}
	return tls.Dial("tcp", w.addr.String(), c)
}

func TestEachGatewaysClientsSeeItsCertificate(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 2, nil)
	for i, g := range w.gateways {
		cert := certificate(t, w.roots)
		w.leaves.set(g.Name, cert)
		g.SetHash(sstp.FingerprintOf(cert.Certificate[0]), sstp.FingerprintSHA1{})
		_ = i
	}
	seen := map[string]bool{}
	for n := range 8 {
		c := w.client()
		s := w.run(c, answered(1))
		if s.Received == 0 {
			t.Fatalf("call %d: %+v", n, s)
		}
		seen[w.ended(n+1).Backend] = true
	}
	if len(seen) != 2 {
		t.Errorf("all calls went to %v", seen)
	}
	for _, g := range w.gateways {
		if c := g.Counts(); c.Aborted != 0 {
			t.Errorf("%s aborted %d", g.Name, c.Aborted)
		}
	}
}

func TestAnotherGatewayWithTheSameCertificate(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		w := newWorld(t, mode, 1, nil)
		ras1 := lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("127.0.0.2"), Priority: 1}
		// ras2 is preferred, and isn't there.
		if err := w.pool.Set(ras1, lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("127.0.0.77")}); err != nil {
			t.Fatal(err)
		}
		if s := w.run(w.client(), answered(1)); s.Received == 0 {
			t.Errorf("status %+v", s)
		}
		w.ended(1) // or the second session could end first
		// Nor is ras3, and it expects another certificate, which the client has
		// been shown by then.
		w.leaves.set("ras3", certificate(t, w.roots))
		if err := w.pool.Set(ras1, lb.Backend{Name: "ras3", Addr: netip.MustParseAddr("127.0.0.78")}); err != nil {
			t.Fatal(err)
		}
		if s := w.run(w.client(), answered(1)); s.Received != 0 {
			t.Error("a client that was shown the certificate of ras3 was led to ras1")
		}
		if s := w.ended(2); s.Finding != sstp.FindingNoBackend || s.Backend != "ras3" {
			t.Errorf("session %+v", s)
		}
		if c := w.gateways[0].Counts(); c.Calls != 1 || c.Aborted != 0 {
			t.Errorf("counts of ras1: %+v", c)
		}
	})
}

func TestTheListenerIsShared(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "hello from %s", r.URL.Path)
	}))
	defer web.Close()
	w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) {
		w.term.Web = netip.MustParseAddrPort(web.Listener.Addr().String())
	})
	// A browser, which would rather have HTTP/2.
	browser := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.roots, ServerName: "vpn.example"}, ForceAttemptHTTP2: true,
	}}
	defer browser.CloseIdleConnections()
	for _, path := range []string{"/", "/again"} {
		r, err := browser.Get("https://" + w.addr.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		r.Body.Close()
		if string(b) != "hello from "+path || err != nil || r.ProtoMajor != 1 {
			t.Errorf("%s: %q over %s, %v", path, b, r.Proto, err)
		}
	}
	// An SSTP client.
	if s := w.run(w.client(), answered(2)); s.Received < 2 {
		t.Errorf("SSTP: %+v", s)
	}
	// DirectAccess.
	c, err := w.dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /IPHTTPS HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n", sstp.ContentLength)
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("IP-HTTPS: %q, %v", line, err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	ping := bytes.Repeat([]byte("an IPv6 packet"), 5000)
	go c.Write(ping)
	pong := make([]byte, len(ping))
	if _, err := io.ReadFull(r, pong); err != nil || !bytes.Equal(ping, pong) {
		t.Errorf("IP-HTTPS: %v", err)
	}
	// A monitor.
	p := &sstp.Prober{ServerName: "vpn.example", Verify: true, RootCAs: w.roots}
	if err := p.Probe(t.Context(), w.addr); err != nil {
		t.Error(err)
	}
	if s := w.term.Stats(); s.Tunnels != 1 || s.IPHTTPS != 1 || s.Web == 0 || s.Probes != 1 || s.NotFound != 0 || s.Pending != 0 {
		t.Errorf("stats %+v", s)
	}
}

// TestWebServerInTLS has what isn't SSTP go on in TLS of its own to the web server,
// whose certificate must be for the name that is set, from a CA that is trusted.
func TestWebServerInTLS(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		io.Copy(rw, r.Body)
	}))
	defer web.Close()
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	trusted := web.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		for _, tc := range []struct {
			name  string
			tls   *tls.Config
			wants int
		}{
			{"verified", &tls.Config{ServerName: "example.com", RootCAs: trusted}, 200},
			{"another name", &tls.Config{ServerName: "www.example.org", RootCAs: trusted}, 503},
			{"another CA", &tls.Config{ServerName: "example.com", RootCAs: x509.NewCertPool()}, 503},
		} {
			t.Run(tc.name, func(t *testing.T) {
				w := newWorld(t, mode, 1, func(w *world) {
					w.term.Web, w.term.WebTLS = netip.MustParseAddrPort(web.Listener.Addr().String()), tc.tls
				})
				browser := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.roots, ServerName: "vpn.example"}}}
				defer browser.CloseIdleConnections()
				sent := bytes.Repeat([]byte("both ways "), 100_000) // many records
				r, err := browser.Post("https://"+w.addr.String()+"/", "text/plain", bytes.NewReader(sent))
				if err != nil {
					t.Fatal(err)
				}
				defer r.Body.Close()
				got, err := io.ReadAll(r.Body)
				if r.StatusCode != tc.wants || err != nil || tc.wants == 200 && !bytes.Equal(got, sent) {
					t.Errorf("status %d, %d bytes, %v", r.StatusCode, len(got), err)
				}
			})
		}
	})
}

func TestAnythingElseIsNotFound(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, func(w *world) { w.term.IPHTTPS = false })
	for name, tc := range map[string]struct{ send, want string }{
		"a browser":   {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
		"with a body": {"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 404 Not Found\r\n"},
		"IP-HTTPS":    {"POST /IPHTTPS HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 404 Not Found\r\n"},
		"not HTTP":    {"\x16\x03\x01\x02\x00", "HTTP/1.1 400 Bad Request\r\n"},
		"too long":    {"GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", 3000), "HTTP/1.1 400 Bad Request\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := w.dial(&tls.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, tc.send)
			b, err := io.ReadAll(c)
			if !strings.HasPrefix(string(b), tc.want) || err != nil {
				t.Errorf("%.60q, %v; want %q", b, err, tc.want)
			}
		})
	}
}

func TestTLSIsStrict(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	for name, tc := range map[string]struct {
		config *tls.Config
		ok     bool
		proto  string
	}{
		"TLS 1.3":              {&tls.Config{}, true, ""},
		"TLS 1.2":              {&tls.Config{MaxVersion: tls.VersionTLS12}, true, ""},
		"TLS 1.1":              {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false, ""},
		"h2 or http/1.1":       {&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, true, "http/1.1"},
		"only h2":              {&tls.Config{NextProtos: []string{"h2"}}, false, ""},
		"no forward secrecy":   {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, false, ""},
		"CBC":                  {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false, ""},
		"forward secrecy, GCM": {&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384}}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := w.dial(tc.config)
			if (err == nil) != tc.ok {
				t.Fatalf("handshake: %v", err)
			}
			if err != nil {
				return
			}
			defer c.Close()
			if got := c.ConnectionState().NegotiatedProtocol; got != tc.proto {
				t.Errorf("protocol %q, want %q", got, tc.proto)
			}
		})
	}
}

// resume dials twice, and reports whether the second took up the first's session.
func resume(t *testing.T, w *world, version uint16, between func()) bool {
	t.Helper()
	cache := tls.NewLRUClientSessionCache(1)
	for i := range 2 {
		if i == 1 {
			between()
		}
		c, err := w.dial(&tls.Config{ClientSessionCache: cache, MaxVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		// Tickets of TLS 1.3 come with the first bytes.
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		io.ReadAll(c)
		c.Close()
		if i == 1 {
			return c.ConnectionState().DidResume
		}
	}
	return false
}

func TestTicketsAreGoodForOneCertificate(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			w := newWorld(t, sstp.ModeOffload, 1, nil)
			if resume(t, w, version, func() {}) {
				t.Error("a session was resumed though tickets are off")
			}
			w = newWorld(t, sstp.ModeOffload, 1, func(w *world) { w.term.Tickets = true })
			if !resume(t, w, version, func() {}) {
				t.Error("no session was resumed")
			}
			if resume(t, w, version, func() { w.leaves.set("", certificate(t, w.roots)) }) {
				t.Error("a session was resumed across a change of the certificate")
			}
			if s := w.term.Stats(); s.Resumed != 1 {
				t.Errorf("resumed %d, want 1", s.Resumed)
			}
		})
	}
}
