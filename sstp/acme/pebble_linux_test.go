package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/sstp"
)

// A vip is a TLS listener as a terminating balancer has it: what it shows comes
// from a Keyring.
func vip(t *testing.T, port int, ring *sstp.Keyring) {
	t.Helper()
	l, err := tls.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{
		NextProtos:             []string{"http/1.1", "acme-tls/1"},
		GetCertificate:         func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return ring.Leaf("", h) },
		SessionTicketsDisabled: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = io.Copy(io.Discard, c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

// web serves a handler at a port.
func web(t *testing.T, port int, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); wg.Wait() })
}

func run(t *testing.T, m *Manager) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		over := errors.New("over")
		cancel(over)
		if err := <-done; !errors.Is(err, over) && !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func dialed(t *testing.T, port int, roots *x509.CertPool) sstp.Fingerprint {
	t.Helper()
	c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: "vpn.example.org", RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return sstp.FingerprintOf(c.ConnectionState().PeerCertificates[0].Raw)
}

// TestPebble gets a certificate by each challenge, and then another, from a CA of
// its own. The new leaf is held, and not shown until somebody says so.
func TestPebble(t *testing.T) {
	peers.Need(t, "pebble", "pebble-challtestsrv")
	for _, tt := range []struct {
		name   string
		change func(*Manager)
		eab    bool
		web    bool // port 80 is served by us
		key    x509.PublicKeyAlgorithm
	}{
		{"TLS-ALPN-01 on the shared port", func(m *Manager) { m.NoHTTP = true }, false, false, x509.ECDSA},
		{"HTTP-01 by a handler", func(m *Manager) { m.NoTLSALPN = true; m.KeyType = KeyRSA2048 }, false, true, x509.RSA},
		{"HTTP-01 by itself", func(m *Manager) { m.NoTLSALPN = true; m.KeyType = KeyP384 }, false, false, x509.ECDSA},
		{"external account", func(m *Manager) {
			m.NoHTTP, m.EAB = true, &EAB{KeyID: peers.PebbleEABKeyID, Key: peers.PebbleEABKey}
		}, true, false, x509.ECDSA},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := peers.StartPebble(t, tt.eab)
			ring := new(sstp.Keyring)
			got := make(chan *sstp.Certificate, 4)
			m := &Manager{
				Name: "vpn.example.org", Dir: t.TempDir(), Directory: p.Directory, Roots: p.Roots,
				TLSALPNPort: p.TLSPort, HTTPPort: p.HTTPPort,
				Obtained: func(c *sstp.Certificate) {
					if _, err := ring.Hold(c); err != nil {
						t.Error(err)
					}
					got <- c
				},
			}
			tt.change(m)
			ring.Challenge = m.Challenge
			vip(t, p.TLSPort, ring)
			if tt.web {
				web(t, p.HTTPPort, m.HTTPHandler(nil))
			}
			begin := time.Now()
			stop := run(t, m)
			first := receive(t, m, got)
			t.Logf("the first certificate took %v", time.Since(begin))
			if first.Leaf.PublicKeyAlgorithm != tt.key || first.Leaf.VerifyHostname("vpn.example.org") != nil || len(first.Chain) == 0 {
				t.Errorf("got %v for %v with %d more", first.Leaf.PublicKeyAlgorithm, first.Leaf.DNSNames, len(first.Chain))
			}
			roots := p.Issuers(t)
			if f := dialed(t, p.TLSPort, roots); f != first.SHA256() {
				t.Errorf("clients are shown %v", f)
			}
			begin = time.Now()
			if err := m.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
			second := receive(t, m, got)
			t.Logf("the renewal took %v", time.Since(begin))
			if second.SHA256() == first.SHA256() || ring.Standing(second.SHA256()) != sstp.StandingHeld {
				t.Errorf("the new certificate is %v", second.SHA256())
			}
			if f := dialed(t, p.TLSPort, roots); f != first.SHA256() {
				t.Errorf("clients are shown %v before anybody said so", f)
			}
			if err := ring.SetCurrent(second.SHA256()); err != nil {
				t.Fatal(err)
			}
			if f := dialed(t, p.TLSPort, roots); f != second.SHA256() {
				t.Errorf("clients are shown %v after it was said", f)
			}
			if s := m.Status(); s.SHA256 != second.SHA256() || s.Error != "" || s.Obtained.IsZero() {
				t.Errorf("status %+v", s)
			}
			stop()

			// The next process has it without asking the CA.
			again := &Manager{Name: m.Name, Dir: m.Dir, Directory: m.Directory, Roots: m.Roots, Obtained: func(c *sstp.Certificate) { got <- c }}
			run(t, again)
			if c := receive(t, again, got); c.SHA256() != second.SHA256() || !again.Status().Obtained.IsZero() {
				t.Errorf("the next process has %v", c.SHA256())
			}
		})
	}
}

func receive(t *testing.T, m *Manager, got <-chan *sstp.Certificate) *sstp.Certificate {
	t.Helper()
	select {
	case c := <-got:
		return c
	case <-time.After(20 * time.Second):
		t.Fatalf("no certificate came: %+v", m.Status())
		return nil
	}
}

// TestPebbleRefuses: what a CA says against it is told, and nothing else happens.
func TestPebbleRefuses(t *testing.T) {
	peers.Need(t, "pebble", "pebble-challtestsrv")
	p := peers.StartPebble(t, true)
	var log strings.Builder
	m := &Manager{
		Name: "vpn.example.org", Dir: t.TempDir(), Directory: p.Directory, Roots: p.Roots, NoHTTP: true, TLSALPNPort: p.TLSPort,
		EAB:    &EAB{KeyID: peers.PebbleEABKeyID, Key: "d3JvbmcgYnV0IHdlbGwgZm9ybWVk"},
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	stop := run(t, m)
	for end := time.Now().Add(20 * time.Second); m.Status().Error == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing is said")
		}
	}
	stop()
	if s := m.Status(); !strings.Contains(s.Error, "external") && !strings.Contains(s.Error, "MAC") && !strings.Contains(s.Error, "malformed") {
		t.Errorf("it says %q", s.Error)
	}
	if strings.Contains(log.String(), m.EAB.Key) {
		t.Error("the secret is in the log")
	}
}
