package peers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// A Pebble is Let's Encrypt's ACME server for tests, on loopback:
//
//	test ──https──▶ pebble ──▶ challtestsrv   every name is 127.0.0.1
//	  ▲               │
//	  └── challenges ─┘   at TLSPort and HTTPPort
type Pebble struct {
	// Directory is its ACME directory, Roots whom its own certificate is from.
	Directory string
	Roots     *x509.CertPool
	// RootsPEM are Roots as PEM.
	RootsPEM []byte
	// TLSPort and HTTPPort are where it looks for challenges.
	TLSPort, HTTPPort int

	manage string
}

// PebbleEAB is the account that a Pebble with external account binding knows.
const (
	PebbleEABKeyID = "kid-1"
	PebbleEABKey   = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// StartPebble starts a Pebble until the test ends. With eab it takes no account
// that isn't bound. It needs the programs pebble and pebble-challtestsrv.
func StartPebble(t testing.TB, eab bool) *Pebble {
	t.Helper()
	dir := t.TempDir()
	pki := NewPKI(t, 2048)
	leaf := pki.Issue(t, "localhost")
	ports := freePorts(t, 6)
	dns := fmt.Sprintf("127.0.0.1:%d", ports[2])
	p := &Pebble{
		Directory: fmt.Sprintf("https://localhost:%d/dir", ports[3]), manage: fmt.Sprintf("https://localhost:%d", ports[4]),
		Roots: x509.NewCertPool(), RootsPEM: pki.RootPEM(), TLSPort: ports[0], HTTPPort: ports[1],
	}
	p.Roots.AddCert(pki.Root)
	settings := map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", ports[3]), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", ports[4]),
		"certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": p.HTTPPort, "tlsPort": p.TLSPort, "ocspResponderURL": "", "externalAccountBindingRequired": eab,
		"externalAccountMACKeys": map[string]string{PebbleEABKeyID: PebbleEABKey},
	}
	b, err := json.Marshal(map[string]any{"pebble": settings})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"pebble.json": b, "cert.pem": append(leaf.Cert, pki.IntermediatePEM()...), "key.pem": leaf.Key}
	if err := write(dir, files); err != nil {
		t.Fatal(err)
	}
	startLocal(t, nil, "pebble-challtestsrv", "-dns01", dns, "-http01", "", "-https01", "", "-tlsalpn01", "",
		"-management", fmt.Sprintf("127.0.0.1:%d", ports[5]), "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "")
	startLocal(t, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0"},
		"pebble", "-config", filepath.Join(dir, "pebble.json"), "-dnsserver", dns)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := p.get(p.Directory); err == nil {
			return p
		} else if time.Now().After(end) {
			t.Fatalf("peers: pebble doesn't answer: %v", err)
		}
	}
}

// Issuers returns the root that the certificates are from.
func (p *Pebble) Issuers(t testing.TB) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	b, err := p.get(p.manage + "/roots/0")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("peers: pebble's root is no PEM")
	}
	if !pool.AppendCertsFromPEM(b) {
		t.Fatal("peers: pebble's root is no certificate")
	}
	return pool
}

func (p *Pebble) get(url string) ([]byte, error) {
	c := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: p.Roots}, DisableKeepAlives: true,
	}}
	res, err := c.Get(url)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(io.LimitReader(res.Body, 1<<20))
}

// freePorts returns ports that nobody has now.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for len(ports) < n {
		port, err := freeport.Pick()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(ports, int(port)) {
			ports = append(ports, int(port))
		}
	}
	return ports
}

// startLocal runs a program, in no namespace, until the test ends.
func startLocal(t testing.TB, env []string, argv ...string) {
	t.Helper()
	var out buffer
	cmd := exec.CommandContext(context.Background(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("peers: %s: %v", argv[0], err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", argv[0], tail(string(bytes.TrimSpace([]byte(out.String()))), 60))
		}
	})
}
