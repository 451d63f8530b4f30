package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/sstp"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// offloadWorld is "aovlb serve" with a listener that ends TLS, and behind it a
// gateway that speaks plain HTTP.
type offloadWorld struct {
	t       *testing.T
	dir     string
	gateway *standin.SSTPGateway
	client  *standin.SSTPClient
	port    int // of the gateway
	log     *safeBuffer
}

// safeBuffer may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newOffload starts everything. extra goes into the listener's tls.
func newOffload(t *testing.T, mode, extra string) *offloadWorld {
	t.Helper()
	needLoopback(t)
	cert, roots, err := standin.SelfSigned("vpn.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w := &offloadWorld{t: t, dir: t.TempDir(), log: new(safeBuffer)}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	w.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})))
	w.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address:", err)
	}
	w.port = l.Addr().(*net.TCPAddr).Port
	front, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	plain := "true"
	w.gateway = &standin.SSTPGateway{Name: "ras1", Hash: sstp.FingerprintOf(cert.Certificate[0]), HashSHA1: sstp.FingerprintSHA1Of(cert.Certificate[0])}
	if mode != "offload" {
		w.gateway.Certificate, plain = cert, "false"
	}
	w.client = &standin.SSTPClient{
		Name: "alice", Server: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), front), ServerName: "vpn.example.com",
		RootCAs: roots, Every: 10 * time.Millisecond, Repeat: time.Hour,
	}
	w.write("aovlb.yaml", strings.NewReplacer("DIR", w.dir, "PORT", itoa(w.port), "FRONT", itoa(int(front)), "PLAIN", plain, "MODE", mode, "EXTRA", extra).Replace(`sites:
  - name: hq
    pools:
      - name: ras
        backends: [{name: ras1, address: 127.0.0.2}]
        checks: [{type: sstp, port: PORT, plain_http: PLAIN, interval: 1s, timeout: 1s}]
    certificates:
      - {name: vpn, pool: ras, cert_file: DIR/cert.pem, key_file: DIR/key.pem}
    groups:
      - name: vpn
        pool: ras
        listeners:
          - name: sstp
            protocol: sstp
            address: "127.0.0.1:FRONT"
            backend_port: PORT
            tls: {mode: MODEEXTRA}
admin: {listen: "unix:DIR/a.sock"}
state: DIR/state
`))
	w.start(l)
	return w
}

func (w *offloadWorld) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *offloadWorld) start(l net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.gateway.Serve(ctx, l) })
	w.t.Cleanup(func() { cancel(); wg.Wait() })
	w.serve()
}

// serve starts the program.
func (w *offloadWorld) serve() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		env := &environment{stdout: w.log, stderr: w.log, getenv: w.getenv}
		if code := run(ctx, env, []string{"serve", filepath.Join(w.dir, "aovlb.yaml")}); code != 0 {
			fmt.Fprintf(w.log, "exit code %d\n", code)
		}
	})
	w.t.Cleanup(func() {
		cancel()
		wg.Wait()
		if w.t.Failed() {
			w.t.Log(w.log.String())
		}
	})
	w.until("aovlb is ready", func() bool { return strings.Contains(w.log.String(), "msg=ready") })
}

func (w *offloadWorld) getenv(name string) string {
	return map[string]string{"AOVLB_ADMIN": "unix:" + w.dir + "/a.sock", "GOMAXPROCS": "2"}[name]
}

func (w *offloadWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); <-time.After(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("in vain waited for: %s\n%s", what, w.log.String())
		}
	}
}

// command runs the program, and returns what it printed.
func (w *offloadWorld) command(args ...string) (string, error) {
	var out, bad bytes.Buffer
	env := &environment{stdout: &out, stderr: &bad, getenv: w.getenv}
	if code := run(w.t.Context(), env, args); code != 0 {
		return out.String(), errors.New(bad.String())
	}
	return out.String(), nil
}

// session runs the client until it is up, or has failed.
func (w *offloadWorld) session() standin.TunnelStatus {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { w.client.Run(ctx) })
	w.until("the client", func() bool {
		s := w.client.Status()
		return s.Received > 3 || s.Failed > 0 || !s.Lost.IsZero()
	})
	cancel()
	wg.Wait()
	return w.client.Status()
}

func TestServeEndsTLS(t *testing.T) {
	for _, mode := range []string{"offload", "reencrypt"} {
		t.Run(mode, func(t *testing.T) {
			extra := ""
			if mode == "reencrypt" {
				extra = ", gateway: {insecure: true}"
			}
			w := newOffload(t, mode, extra)
			if s := w.session(); s.Received < 3 {
				t.Fatalf("status %+v", s)
			}
			out := ""
			w.until("the session's end", func() bool {
				var err error
				if out, err = w.command("sessions"); err != nil {
					t.Fatal(err)
				}
				return strings.Contains(out, "the client disconnected") && strings.Contains(w.log.String(), "correlation={")
			})
			if !strings.Contains(out, "at ras1, "+mode) || !strings.Contains(out, "CoId={") {
				t.Errorf("sessions says:\n%s", out)
			}
		})
	}
}

func TestServePassesThrough(t *testing.T) {
	w := newOffload(t, "passthrough", "")
	if s := w.session(); s.Received < 3 {
		t.Fatalf("status %+v", s)
	}
	w.until("the session's end", func() bool {
		out, err := w.command("sessions")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, "at ras1, passthrough, ended") && strings.Contains(out, "after the last byte")
	})
}

// TestDisconnectsPage runs the commands of docs/sstp-disconnects.md while a gateway
// expects the hash of another certificate.
func TestDisconnectsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/sstp-disconnects.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newOffload(t, "offload", "")
	served := w.gateway.Hash
	w.gateway.SetHash(sstp.Fingerprint{1}, sstp.FingerprintSHA1{})
	w.session()
	want := map[string]string{
		"aovlb sessions --problems": "to do: on ras1: Enable-SstpOffload -CertificateHash " + served.String(),
		"aovlb sessions -n 50":      "wrong_hash",
		// The rest is for programs.
		"aovlb sessions --json --problems":            `"finding": "wrong_hash"`,
		"aovlb status":                                served.String()[:8],
		"aovlb probe sstp --plain-http 127.0.0.2:$GW": "serves sstp",
	}
	ran := 0
	for line := range strings.Lines(string(page)) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if !ok || !strings.HasPrefix(line, "aovlb ") {
			continue
		}
		ran++
		said, known := want[line]
		if !known {
			t.Errorf("%q is on the page, and the test doesn't know what it says", line)
			continue
		}
		args := strings.Fields(os.Expand(line, func(string) string { return itoa(w.port) }))[1:]
		var out string
		w.until(line+" to say "+said, func() bool {
			var err error
			if out, err = w.command(args...); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			return strings.Contains(out, said)
		})
		t.Logf("$ %s\n%s", line, out)
	}
	if ran != len(want) {
		t.Errorf("%d commands were run of %d", ran, len(want))
	}
	// Each finding is explained.
	for f := sstp.FindingWrongHash; f.String() != "unknown"; f++ {
		if !strings.Contains(string(page), "`"+f.String()+"`") {
			t.Errorf("the page says nothing of %v", f)
		}
	}
}
