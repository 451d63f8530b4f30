package radsec

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// pki is a root and what it issues.
type pki struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newPKI(t testing.TB) *pki {
	t.Helper()
	p := &pki{t: t, pool: x509.NewCertPool()}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	p.cert, p.key = p.make(c, nil)
	p.pool.AddCert(p.cert)
	return p
}

func (p *pki) make(c *x509.Certificate, by *pki) (*x509.Certificate, *ecdsa.PrivateKey) {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore = big.NewInt(1), time.Now().Add(-time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	return out, key
}

func (p *pki) issue(name string, usage ...x509.ExtKeyUsage) tls.Certificate {
	p.t.Helper()
	if usage == nil {
		usage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	c, key := p.make(&x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, ExtKeyUsage: usage, KeyUsage: x509.KeyUsageDigitalSignature}, p)
	return tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}
}

// echo answers each request with what a server would: an accept, or accounting's
// answer.
type echo struct {
	mu   sync.Mutex
	seen []radius.Request
}

func (e *echo) Handle(r radius.Request) error {
	p, err := radius.Parse(r.Bytes)
	if err != nil {
		return err
	}
	if err := p.CheckRequest(Secret()); err != nil {
		return err
	}
	e.mu.Lock()
	r.Bytes = bytes.Clone(r.Bytes)
	e.seen = append(e.seen, r)
	e.mu.Unlock()
	r.Replier.Reply(answer(p), r.Flow)
	return nil
}

func answer(p radius.Packet) []byte {
	code := radius.AccessAccept
	if p.Code() == radius.AccountingRequest {
		code = radius.AccountingResponse
	}
	b := make([]byte, radius.HeaderLen)
	b[0], b[1], b[3] = byte(code), p.Identifier(), radius.HeaderLen
	a, _ := radius.Parse(b)
	sum := a.ResponseAuthenticator(Secret(), p.Authenticator())
	copy(b[4:], sum[:])
	return b
}

func accounting(id byte) []byte {
	b := make([]byte, radius.HeaderLen+6)
	b[0], b[1], b[3] = byte(radius.AccountingRequest), id, byte(len(b))
	b[20], b[21], b[25] = byte(radius.AcctStatusType), 6, 1
	p, _ := radius.Parse(b)
	sum := p.AccountingAuthenticator(Secret())
	copy(b[4:], sum[:])
	return b
}

// started runs a server on loopback until the test ends.
func started(t *testing.T, s *Server) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no loopback:", err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() { _ = s.Serve(ctx, l) }) // it ends with ctx
	t.Cleanup(func() { cancel(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func member(t *testing.T, name string) *lb.Member {
	t.Helper()
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: name, Addr: netip.MustParseAddr("127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	return pool.View().Members[0]
}

// link dials a server, and closes with the test.
func linked(t *testing.T, d *Dialer, at netip.AddrPort) net.Conn {
	t.Helper()
	d.Port = at.Port()
	c, err := d.Dial(member(t, "nps1"), 1812)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return c
}

func TestServerAndDialer(t *testing.T) {
	p := newPKI(t)
	h := new(echo)
	s := &Server{Handler: h, Certificates: []tls.Certificate{p.issue("lb.example")}, Roots: p.pool}
	s.SetClients(Client{"other", Peer{Names: []string{"other.example"}}}, Client{"nas", Peer{Names: []string{"nas.example"}}})
	at := started(t, s)
	d := &Dialer{Certificates: []tls.Certificate{p.issue("nas.example")}, Roots: p.pool, All: Peer{Names: []string{"lb.example"}}}
	c := linked(t, d, at)
	const many = 256
	for i := range many {
		if _, err := c.Write(accounting(byte(i))); err != nil {
			t.Fatal(err)
		}
	}
	b := make([]byte, radius.MaxLen)
	got := make(map[byte]bool)
	for range many {
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		a, err := radius.Parse(b[:n])
		if err != nil || a.CheckAnswer(Secret(), [16]byte(accounting(a.Identifier())[4:20])) != nil {
			t.Fatalf("% x, %v", b[:n], err)
		}
		got[a.Identifier()] = true
	}
	if len(got) != many || len(h.seen) != many || h.seen[0].Client != "nas" || h.seen[0].Flow.Service != at.Port() {
		t.Errorf("%d answers, %d requests, the first %+v", len(got), len(h.seen), h.seen[0])
	}
	if st := s.Stats(); st.Open != 1 || st.Accepted != 1 || st.Requests != many {
		t.Errorf("%+v", st)
	}
	s.SetClients() // nobody may come any longer
	if _, err := c.Read(b); err == nil {
		t.Error("a client that may not come any longer isn't shut out")
	}
}

func TestWhoMayConnect(t *testing.T) {
	p, other := newPKI(t), newPKI(t)
	server := p.issue("lb.example")
	nas, forged := p.issue("nas.example"), other.issue("nas.example")
	wrongUse := p.issue("nas.example", x509.ExtKeyUsageServerAuth)
	byName := Client{"nas", Peer{Names: []string{"nas.example"}}}
	for _, tt := range []struct {
		name    string
		clients []Client
		roots   *x509.CertPool
		cert    []tls.Certificate
		peer    Peer
		dial    *x509.CertPool
		want    string // "" is yes
	}{
		{"by name", []Client{byName}, p.pool, []tls.Certificate{nas}, Peer{Names: []string{"lb.example"}}, p.pool, ""},
		{"by fingerprints", []Client{{"nas", Peer{Fingerprints: []Fingerprint{FingerprintOf(forged.Leaf)}}}}, nil, []tls.Certificate{forged}, Peer{Fingerprints: []Fingerprint{FingerprintOf(server.Leaf)}}, nil, ""},
		{"no certificate", []Client{byName}, p.pool, nil, Peer{Names: []string{"lb.example"}}, p.pool, "certificate"},
		{"another root", []Client{byName}, p.pool, []tls.Certificate{forged}, Peer{Names: []string{"lb.example"}}, p.pool, ""},
		{"another name", []Client{{"nas", Peer{Names: []string{"x.example"}}}}, p.pool, []tls.Certificate{nas}, Peer{Names: []string{"lb.example"}}, p.pool, ""},
		{"another use", []Client{byName}, p.pool, []tls.Certificate{wrongUse}, Peer{Names: []string{"lb.example"}}, p.pool, ""},
		{"nobody known", nil, p.pool, []tls.Certificate{nas}, Peer{Names: []string{"lb.example"}}, p.pool, ""},
		{"server of another name", []Client{byName}, p.pool, []tls.Certificate{nas}, Peer{Names: []string{"nps.example"}}, p.pool, "certificate of nobody"},
		{"server of another root", []Client{byName}, p.pool, []tls.Certificate{nas}, Peer{Names: []string{"lb.example"}}, other.pool, "unknown authority"},
		{"server of another fingerprint", []Client{byName}, p.pool, []tls.Certificate{nas}, Peer{Fingerprints: []Fingerprint{{1}}}, p.pool, "certificate of nobody"},
		{"server by nothing", []Client{byName}, p.pool, []tls.Certificate{nas}, Peer{}, p.pool, "certificate of nobody"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &Server{Handler: new(echo), Certificates: []tls.Certificate{server}, Roots: tt.roots}
			s.SetClients(tt.clients...)
			d := &Dialer{Certificates: tt.cert, Roots: tt.dial, All: tt.peer}
			c := linked(t, d, started(t, s))
			if _, err := c.Write(accounting(1)); err != nil {
				t.Fatal(err)
			}
			_, err := c.Read(make([]byte, radius.MaxLen))
			good := strings.HasPrefix(tt.name, "by ")
			if (err == nil) != good || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v", err)
			}
			if err == nil {
				return
			}
			// It is left alone for a moment then.
			if _, err := d.Dial(member(t, "nps1"), 1812); err == nil || !strings.Contains(err.Error(), "tried again in") {
				t.Errorf("dialled again at once: %v", err)
			}
		})
	}
}

// raw connects to a server by TLS, without what a Dialer does.
func raw(t *testing.T, p *pki, at netip.AddrPort) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", at.String(), &tls.Config{Certificates: []tls.Certificate{p.issue("nas.example")}, RootCAs: p.pool, ServerName: "lb.example"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestServerLimits(t *testing.T) {
	p := newPKI(t)
	start := func(t *testing.T, change func(*Server)) (*Server, netip.AddrPort) {
		s := &Server{Handler: new(echo), Certificates: []tls.Certificate{p.issue("lb.example")}, Roots: p.pool}
		s.SetClients(Client{"nas", Peer{Names: []string{"nas.example"}}})
		if change != nil {
			change(s)
		}
		return s, started(t, s)
	}
	ends := func(t *testing.T, c net.Conn) {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := io.Copy(io.Discard, c)
		if timeout := net.Error(nil); n != 0 || errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the connection goes on: %d bytes, %v", n, err)
		}
	}
	wrong := accounting(1)
	wrong[5] ^= 1
	for name, b := range map[string][]byte{
		"short length": {4, 1, 0, 19, 19: 0}, "long length": {4, 1, 0x10, 1, 19: 0}, "bad attribute": {4, 1, 0, 22, 20: 1, 21: 9}, "wrong authenticator": wrong,
	} {
		t.Run(name, func(t *testing.T) {
			_, at := start(t, nil)
			c := raw(t, p, at)
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			ends(t, c)
		})
	}
	t.Run("slow packet", func(t *testing.T) {
		_, at := start(t, func(s *Server) { s.Whole = 100 * time.Millisecond })
		c := raw(t, p, at)
		if _, err := c.Write(accounting(1)[:21]); err != nil {
			t.Fatal(err)
		}
		ends(t, c)
	})
	t.Run("silent", func(t *testing.T) {
		_, at := start(t, func(s *Server) { s.Idle = 100 * time.Millisecond })
		ends(t, raw(t, p, at))
	})
	t.Run("never speaks TLS", func(t *testing.T) {
		_, at := start(t, func(s *Server) { s.Handshake = 100 * time.Millisecond })
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends(t, c)
	})
	t.Run("too many", func(t *testing.T) {
		s, at := start(t, func(s *Server) { s.MaxPerSource = 1 })
		raw(t, p, at)
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ends(t, c)
		if st := s.Stats(); st.Refused != 1 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("packets in pieces", func(t *testing.T) {
		_, at := start(t, nil)
		c := raw(t, p, at)
		both := append(accounting(1), accounting(2)...)
		for _, part := range [][]byte{both[:3], both[3:30], both[30:]} {
			if _, err := c.Write(part); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 2*radius.HeaderLen)
		if _, err := io.ReadFull(c, b); err != nil || b[1] != 1 || b[radius.HeaderLen+1] != 2 {
			t.Errorf("% x, %v", b, err)
		}
	})
}

// A client that never takes its answers is cut off, and nobody waits for it.
func TestSlowReader(t *testing.T) {
	p := newPKI(t)
	h := new(echo)
	s := &Server{Handler: h, Certificates: []tls.Certificate{p.issue("lb.example")}, Roots: p.pool, Whole: 200 * time.Millisecond}
	s.SetClients(Client{"nas", Peer{Names: []string{"nas.example"}}})
	c := raw(t, p, started(t, s))
	b := bytes.Repeat(accounting(1), 100)
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	for {
		if _, err := c.Write(b); err != nil {
			if errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
				t.Errorf("it isn't cut off: %v", err)
			}
			return
		}
	}
}

// silentServer takes connections, and answers nothing but what f says.
func silentServer(t *testing.T, p *pki, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{p.issue("nps.example")}, ClientAuth: tls.RequireAnyClientCert})
	if err != nil {
		t.Skip("no loopback:", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestWatchdog(t *testing.T) {
	p := newPKI(t)
	for _, answers := range []bool{true, false} {
		codes := make(chan radius.Code, 100)
		at := silentServer(t, p, func(c net.Conn) {
			b := make([]byte, radius.MaxLen)
			for {
				n, err := readPacket(c, b)
				if err != nil {
					return
				}
				q, err := radius.Parse(b[:n])
				if err != nil || q.CheckRequest(Secret()) != nil || q.Count(radius.MessageAuthenticator) != 1 && q.Code() == radius.StatusServer {
					t.Errorf("% x, %v", b[:n], err)
				}
				codes <- q.Code()
				if answers {
					if _, err := c.Write(answer(q)); err != nil {
						return
					}
				}
			}
		})
		d := &Dialer{Certificates: []tls.Certificate{p.issue("nas.example")}, Roots: p.pool, All: Peer{Names: []string{"nps.example"}}, Watchdog: 30 * time.Millisecond, Answer: 300 * time.Millisecond}
		c := linked(t, d, at)
		b := make([]byte, radius.MaxLen)
		if answers {
			for range 3 {
				if code := <-codes; code != radius.StatusServer {
					t.Errorf("%v", code)
				}
			}
			if _, err := c.Write(accounting(5)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Read(b); err != nil || b[1] != 5 {
				t.Errorf("% x, %v", b[:n], err)
			}
			continue
		}
		if _, err := c.Read(b); err == nil || !strings.Contains(err.Error(), "Status-Server") {
			t.Errorf("a dead server: %v", err)
		}
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add(append(accounting(1), accounting(2)...))
	f.Add([]byte{1, 2, 0, 19})
	f.Add([]byte{1, 2, 0xff, 0xff, 19: 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := bytes.NewReader(stream)
		b := make([]byte, radius.MaxLen)
		for {
			at := len(stream) - r.Len()
			n, err := readPacket(r, b)
			if err != nil {
				return
			}
			if n != int(binary.BigEndian.Uint16(stream[at+2:])) || !bytes.Equal(b[:n], stream[at:at+n]) {
				t.Fatalf("%d bytes at %d", n, at)
			}
		}
	})
}

func TestParseFingerprint(t *testing.T) {
	want := strings.Repeat("ab", 32)
	for s, good := range map[string]bool{want: true, strings.ToUpper(want): true, strings.Repeat("AB:", 31) + "AB": true, "ab": false, "": false, strings.Repeat("x", 64): false} {
		f, err := ParseFingerprint(s)
		if (err == nil) != good || good && f.String() != want {
			t.Errorf("%q: %v, %v", s, f, err)
		}
	}
}

// TestProxies has a stand-in NAS log in through two proxies, with TLS between them:
//
//	NAS ──UDP── proxy ──TLS── proxy ──UDP── NPS
func TestProxies(t *testing.T) {
	p := newPKI(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	udp := func() (*net.UDPConn, netip.AddrPort) {
		c, at, err := standin.Listen()
		if err != nil {
			t.Skip("no loopback:", err)
		}
		return c, at
	}
	auth, authAt := udp()
	acct, _ := udp()
	nps := &standin.NPS{Name: "nps", Secret: []byte("of nps"), Users: map[string]string{"alice": "x"}}
	wg.Go(func() { _ = nps.Serve(ctx, auth, acct) })
	proxy := func(client radius.Client, server radius.Server, port uint16) *radius.Proxy {
		pool := new(lb.Pool)
		if err := pool.Set(lb.Backend{Name: "next", Addr: netip.MustParseAddr("127.0.0.1")}); err != nil {
			t.Fatal(err)
		}
		x := &radius.Proxy{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, AuthPort: port}
		if err := errors.Join(x.SetClients(client), x.SetServers(server, nil)); err != nil {
			t.Fatal(err)
		}
		return x
	}
	inner := proxy(radius.Client{Name: "outer", Secret: Secret()}, radius.Server{Secret: radius.NewSecret([]byte("of nps"))}, authAt.Port())
	wg.Go(func() { _ = inner.Serve(ctx) })
	s := &Server{Handler: inner, Certificates: []tls.Certificate{p.issue("inner.example")}, Roots: p.pool}
	s.SetClients(Client{"outer", Peer{Names: []string{"outer.example"}}})
	at := started(t, s)
	d := &Dialer{Certificates: []tls.Certificate{p.issue("outer.example")}, Roots: p.pool, All: Peer{Names: []string{"inner.example"}}, Port: at.Port()}
	defer d.Close()
	outer := proxy(radius.Client{Name: "nas", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secret: radius.NewSecret([]byte("of the nas"))}, radius.Server{Secret: Secret(), Dial: d.Dial}, 0)
	front, frontAt := udp()
	wg.Go(func() { _ = outer.Serve(ctx, front) })
	q := &radius.Prober{Secret: radius.NewSecret([]byte("of the nas")), Resend: 200 * time.Millisecond}
	res, err := q.Ask(ctx, frontAt)
	if err != nil || res.Code != radius.AccessReject || !res.MessageAuthenticator {
		t.Errorf("%+v, %v", res, err)
	}
	if c := nps.Counts(); c.Rejects != 1 || c.Bad != 0 {
		t.Errorf("%+v", c)
	}
}
