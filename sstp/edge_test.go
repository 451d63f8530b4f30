package sstp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/sstp"
)

// An issuer is a CA of computers' certificates.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  crypto.Signer
}

func newIssuer(t *testing.T, name string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &issuer{t: t, key: key}
	c.cert = c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte(name),
	}, nil, key.Public())
	return c
}

func (c *issuer) sign(x, parent *x509.Certificate, pub any) *x509.Certificate {
	c.t.Helper()
	x.NotBefore, x.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	if parent == nil {
		parent = x
	}
	der, err := x509.CreateCertificate(rand.Reader, x, parent, pub, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// client returns the certificate of a computer.
func (c *issuer) client(serial int64) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	x := c.sign(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "pc.corp.example"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, c.cert, key.Public())
	return tls.Certificate{Certificate: [][]byte{x.Raw}, PrivateKey: key}
}

// crl returns a list of revoked certificates.
func (c *issuer) crl(next time.Time, serials ...int64) *x509.RevocationList {
	c.t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now().Add(-time.Hour)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, c.cert, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := x509.ParseRevocationList(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func TestClientCertificates(t *testing.T) {
	ca, stranger := newIssuer(t, "corp"), newIssuer(t, "stranger")
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	good, revoked, foreign := ca.client(7), ca.client(8), stranger.client(7)
	hour := time.Now().Add(time.Hour)
	wanted := sstp.ClientCertificates{CAs: pool}
	optional := sstp.ClientCertificates{CAs: pool, Optional: true}
	listed := sstp.ClientCertificates{CAs: pool, CRLs: []*x509.RevocationList{stranger.crl(hour, 7), ca.crl(hour, 8)}}
	needed := sstp.ClientCertificates{CAs: pool, NeedCRL: true, CRLs: []*x509.RevocationList{stranger.crl(hour)}}
	old := sstp.ClientCertificates{CAs: pool, NeedCRL: true, CRLs: []*x509.RevocationList{ca.crl(time.Now().Add(-time.Minute))}}
	current := sstp.ClientCertificates{CAs: pool, NeedCRL: true, CRLs: []*x509.RevocationList{ca.crl(hour, 8)}}
	for _, tc := range []struct {
		name string
		rule sstp.ClientCertificates
		show []tls.Certificate
		in   bool
	}{
		{"none is asked for", sstp.ClientCertificates{}, nil, true},
		{"wanted, none shown", wanted, nil, false},
		{"wanted and shown", wanted, []tls.Certificate{good}, true},
		{"of another CA", wanted, []tls.Certificate{foreign}, false},
		{"optional, none shown", optional, nil, true},
		{"optional, shown", optional, []tls.Certificate{good}, true},
		{"optional, of another CA", optional, []tls.Certificate{foreign}, false},
		{"not in the CRL", listed, []tls.Certificate{good}, true},
		{"in the CRL", listed, []tls.Certificate{revoked}, false},
		{"no CRL of the issuer", needed, []tls.Certificate{good}, false},
		{"a CRL that is too old", old, []tls.Certificate{good}, false},
		{"a current CRL", current, []tls.Certificate{good}, true},
		{"a current CRL has it", current, []tls.Certificate{revoked}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) { w.term.Clients = tc.rule })
			c, err := w.dial(&tls.Config{
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					if len(tc.show) > 0 {
						return &tc.show[0], nil
					}
					return new(tls.Certificate), nil
				},
			})
			in := false
			if err == nil {
				defer c.Close()
				q := sstp.Request{Method: "POST", Target: sstp.PathIPHTTPS, Minor: 1, Host: "x", Length: sstp.ContentLength}
				c.Write(q.Append(nil))
				b := make([]byte, 12) // in TLS 1.3 a refusal comes with the first bytes
				n, _ := io.ReadFull(c, b)
				in = string(b[:n]) == "HTTP/1.1 200"
			}
			if in != tc.in {
				t.Errorf("let in: %v, want %v", in, tc.in)
			}
			if n := w.gateways[0].Counts().IPHTTPS; n != 0 && !tc.in {
				t.Error("a byte of a client that was refused came to the gateway")
			}
		})
	}
}

// TestRevokedIssuer: a CA in the middle of a client's chain is revoked.
func TestRevokedIssuer(t *testing.T) {
	root := newIssuer(t, "corp")
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	middle := &issuer{t: t, key: root.key} // the names differ, that is enough
	middle.cert = root.sign(&x509.Certificate{
		SerialNumber: big.NewInt(42), Subject: pkix.Name{CommonName: "issuing"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte("issuing"),
	}, root.cert, root.key.Public())
	show := middle.client(7)
	show.Certificate = append(show.Certificate, middle.cert.Raw)
	hour := time.Now().Add(time.Hour)
	for name, tc := range map[string]struct {
		crl *x509.RevocationList
		in  bool
	}{"revoked": {root.crl(hour, 42), false}, "not revoked": {root.crl(hour, 43), true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeOffload, 1, func(w *world) {
				w.term.Clients = sstp.ClientCertificates{CAs: pool, NeedCRL: true, CRLs: []*x509.RevocationList{tc.crl, middle.crl(hour)}}
			})
			c, err := w.dial(&tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{show}})
			if err == nil {
				c.Close()
			}
			if (err == nil) != tc.in {
				t.Errorf("%v, want in: %v", err, tc.in)
			}
		})
	}
}

// nullHello is a ClientHello that wants no encryption, as DirectAccess clients do.
func nullHello() []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 6, 0, 0x3b, 0, 2, 0, 0x2f, 1, 0)
	ext := []byte{0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 1}
	body = append(binary.BigEndian.AppendUint16(body, uint16(len(ext))), ext...)
	msg := append([]byte{1, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{22, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

// TestNullClients: their first bytes come to the gateway as they were, and what it
// answers comes back.
func TestNullClients(t *testing.T) {
	for name, pass := range map[string]bool{"passed": true, "not passed": false, "certificates are wanted": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) {
				w.term.PassNull = name != "not passed"
				if name == "certificates are wanted" {
					w.term.Clients.CAs = x509.NewCertPool()
				}
			})
			hello := nullHello()
			got := make(chan string, 1)
			rawGateway(t, w, func(c net.Conn) {
				b := make([]byte, len(hello))
				io.ReadFull(c, b)
				got <- string(b)
				c.Write([]byte("a ServerHello without encryption"))
			})
			c, err := net.Dial("tcp", w.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, b := range hello { // in any pieces
				c.Write([]byte{b})
			}
			answer, _ := io.ReadAll(c)
			c.Close()
			if !pass {
				if s := w.term.Stats(); !strings.HasPrefix(string(answer), "\x15\x03") || s.Null != 0 || s.Failed != 1 {
					t.Errorf("answer %q, %+v", answer, s)
				}
				return
			}
			if string(answer) != "a ServerHello without encryption" {
				t.Errorf("answer %q", answer)
			}
			if first := <-got; first != string(hello) {
				t.Errorf("the gateway got %x, want %x", first, hello)
			}
			if s := w.ended(1); s.Mode != sstp.ModePassthrough || w.term.Stats().Null != 1 {
				t.Errorf("session %+v", s)
			}
			// Others go on as ever.
			if c, err := w.dial(&tls.Config{}); err != nil {
				t.Error(err)
			} else {
				c.Close()
			}
		})
	}
}

// TestLimits: whoever says nothing is bounded, in number and in time.
func TestLimits(t *testing.T) {
	t.Run("waiting", func(t *testing.T) {
		w := newWorld(t, sstp.ModeOffload, 1, func(w *world) {
			w.term.MaxHandshakes, w.term.HandshakeTimeout, w.term.HeadTimeout = 8, 300*time.Millisecond, 300*time.Millisecond
		})
		var silent []net.Conn
		for range 2 { // a quarter of 8
			c, err := net.Dial("tcp", w.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			silent = append(silent, c)
		}
		until(t, "both to wait", func() bool { return w.term.Stats().Pending == 2 })
		if c, err := w.dial(&tls.Config{}); err == nil {
			c.Close()
			t.Error("a third connection of one source was let in")
		}
		if s := w.term.Stats(); s.Limited != 1 {
			t.Errorf("stats %+v", s)
		}
		// They are cut, and there is room again.
		for _, c := range silent {
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("a silent client was told something")
			}
		}
		until(t, "room", func() bool { return w.term.Stats().Pending == 0 })
		// Slow heads are cut too.
		c, err := w.dial(&tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		start := time.Now()
		go func() {
			for _, b := range []byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("y", 1000)) {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				<-time.After(10 * time.Millisecond)
			}
		}()
		io.ReadAll(c)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("rate", func(t *testing.T) {
		w := newWorld(t, sstp.ModeOffload, 1, func(w *world) { w.term.HandshakeRate, w.term.HandshakeBurst = 1, 3 })
		in := 0
		for range 6 {
			if c, err := w.dial(&tls.Config{}); err == nil {
				in++
				c.Close()
			}
		}
		if s := w.term.Stats(); in < 3 || in > 4 || s.Limited != uint64(6-in) {
			t.Errorf("let in %d, %+v", in, s)
		}
	})
}

// TestProxyHeader: a gateway that wants it is told where the client comes from,
// before TLS if that goes on to it.
func TestProxyHeader(t *testing.T) {
	eachMode(t, func(t *testing.T, mode sstp.Mode) {
		w := newWorld(t, mode, 1, func(w *world) { w.engine.ProxyTo = tcp.ProxyV1 })
		got := make(chan string, 1)
		rawGateway(t, w, func(c net.Conn) {
			b := make([]byte, 4096)
			n, _ := io.ReadAtLeast(c, b, 60)
			got <- string(b[:n])
		})
		c, err := w.dial(&tls.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from := c.LocalAddr().(*net.TCPAddr)
		q := sstp.TunnelRequest("vpn.example", "{1}")
		c.Write(q.Append(nil))
		want := fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n", from.Port, w.addr.Port())
		next := sstp.Method + " /sra_"
		if mode == sstp.ModeReencrypt {
			next = "\x16\x03\x01"
		}
		if text := <-got; !strings.HasPrefix(text, want+next) {
			t.Errorf("the gateway got %.80q, want %q", text, want+next)
		}
	})
}

// TestIPHTTPSBesideOffload: it goes to the port where gateways take TLS.
func TestIPHTTPSBesideOffload(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, sstp.ModeOffload, 1, func(w *world) { w.term.TLSPort = uint16(l.Addr().(*net.TCPAddr).Port) })
	leaf, _ := w.leaves.Leaf("", nil)
	da := &standin.SSTPGateway{Name: "da1", Certificate: *leaf}
	w.wg.Go(func() { da.Serve(w.ctx, l) })
	p := &sstp.Prober{Question: sstp.AskIPHTTPS, ServerName: "vpn.example"}
	if err := p.Probe(t.Context(), w.addr); err != nil {
		t.Error(err)
	}
	if s := w.run(w.client(), answered(2)); s.Received < 2 {
		t.Errorf("SSTP: %+v", s)
	}
	if n := da.Counts(); n.IPHTTPS != 1 || n.Calls != 0 || w.gateways[0].Counts().Calls != 1 {
		t.Errorf("counts %+v", n)
	}
}

// TestCorrelationIsBounded: it is kept and logged, and anybody can send one.
func TestCorrelationIsBounded(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	c, err := w.dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	q := sstp.TunnelRequest("vpn.example", strings.Repeat("{", 4000))
	c.Write(q.Append(nil))
	c.Read(make([]byte, 1))
	c.Close()
	if s := w.ended(1); s.Correlation != strings.Repeat("{", 64) {
		t.Errorf("%d bytes are kept", len(s.Correlation))
	}
}

// TestIPHTTPSWithoutATLSPort: it isn't gateways that are missing, but TLS at the port
// to which IP-HTTPS goes, and both the session and the probe say so.
func TestIPHTTPSWithoutATLSPort(t *testing.T) {
	for name, port := range map[string]uint16{"of its own": 1, "that of the listener": 0} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeOffload, 1, nil)
			w.term.TLSPort = port
			p := &sstp.Prober{Question: sstp.AskIPHTTPS, ServerName: "vpn.example"}
			err := p.Probe(t.Context(), w.addr)
			if err == nil || !strings.Contains(err.Error(), "IP-HTTPS") || strings.Contains(err.Error(), "SstpSvc") {
				t.Errorf("the probe says %v", err)
			}
			x := w.ended(1)
			what, fix := x.Explain()
			if x.Finding != sstp.FindingNoTLSPort || x.Cause == "" || x.GatewayPort == 0 ||
				!strings.Contains(what, "can't be offloaded") || !strings.Contains(fix, "gateway.port") {
				t.Errorf("%v: %s; %s\n%+v", x.Finding, what, fix, x)
			}
		})
	}
}
