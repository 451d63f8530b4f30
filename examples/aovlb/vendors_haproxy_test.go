package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/sstp"
)

// A pair is a certificate and its key.
type pair struct {
	tls.Certificate

	roots *x509.CertPool
	file  string // both, as PEM
}

func certificate(t *testing.T, name string) pair {
	t.Helper()
	c, roots, err := standin.SelfSigned(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	return pair{c, roots, string(text)}
}

// A farm is an HAProxy, and gateways on addresses of loopback that only this process
// uses.
type farm struct {
	t   *testing.T
	dir string
	wg  sync.WaitGroup
	ctx context.Context
}

// haproxyPort is where listeners begin, gatewayPort where gateways do.
const (
	haproxyPort = 24430
	gatewayPort = 24480
)

func (f *farm) address(n int) string {
	return fmt.Sprintf("127.%d.%d.%d", 70+os.Getpid()>>16&15, os.Getpid()>>8&255, n)
}

// startHAProxy starts an HAProxy that others have configured, and that has nothing of
// aovlb's yet.
func startHAProxy(t *testing.T, dir string) *farm {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("set AOVLB_PEERS=1 to run HAProxy")
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("there is no HAProxy:", err)
	}
	f := &farm{t: t, dir: dir}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	f.ctx = ctx
	t.Cleanup(func() { cancel(); f.wg.Wait() })
	put(t, filepath.Join(dir, "haproxy.cfg"), "global\n\tmaxconn 4000\n\thard-stop-after 60s\n")
	put(t, filepath.Join(dir, "aovlb.cfg"), "")
	cmd := exec.Command(program, "-W", "-S", filepath.Join(dir, "master"), "-f", filepath.Join(dir, "haproxy.cfg"), "-f", filepath.Join(dir, "aovlb.cfg"))
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it ends by the signal
		if t.Failed() {
			t.Logf("HAProxy: %s", log.String())
		}
	})
	f.until("HAProxy's master answers", func() bool {
		c, err := net.Dial("unix", filepath.Join(dir, "master"))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return f
}

func (f *farm) until(what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(end) {
			f.t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func (f *farm) settings() map[string]any {
	return map[string]any{
		"file": filepath.Join(f.dir, "aovlb.cfg"), "beside": []string{filepath.Join(f.dir, "haproxy.cfg")}, "master": filepath.Join(f.dir, "master"),
	}
}

// gateway serves SSTP. certificate is what it shows, of which none means plain HTTP,
// hash that of the one which clients are shown.
func (f *farm) gateway(n, port int, certificate tls.Certificate, hash sstp.Fingerprint) {
	f.t.Helper()
	ln, err := net.Listen("tcp", fmt.Sprintf("%s:%d", f.address(n), port))
	if err != nil {
		f.t.Skip("loopback has not all of its addresses here:", err)
	}
	g := &standin.SSTPGateway{Name: fmt.Sprint("ras", n-10), Certificate: certificate, Hash: hash}
	f.wg.Go(func() { _ = g.Serve(f.ctx, ln) }) // it ends with ctx
}

// client keeps an SSTP session up from an address of its own.
func (f *farm) client(n, port int, roots *x509.CertPool) *standin.SSTPClient {
	f.t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.address(100+n%100) + ":0"))
	c := &standin.SSTPClient{
		Name: fmt.Sprint("client", n), Server: netip.MustParseAddrPort(fmt.Sprintf("%s:%d", f.address(1), port)), ServerName: "vpn.example.com",
		RootCAs: roots, Dialer: &net.Dialer{LocalAddr: from}, Every: 20 * time.Millisecond, Repeat: 50 * time.Millisecond,
	}
	f.wg.Go(func() { _ = c.Run(f.ctx) }) // it ends with ctx
	return c
}

func newHAProxy(t *testing.T, dir string) *product {
	f := startHAProxy(t, dir)
	cert := certificate(t, "vpn.example.com")
	for n := range 2 {
		f.gateway(11+n, gatewayPort, cert.Certificate, sstp.Fingerprint{})
	}
	return &product{
		settings: f.settings(),
		listen:   fmt.Sprintf("%s:%d", f.address(1), haproxyPort), gateways: strings.TrimSuffix(f.address(0), "0"), port: gatewayPort,
		occupy: func(*testing.T) {
			var list []*standin.SSTPClient
			for n := range 8 {
				list = append(list, f.client(n, haproxyPort, cert.roots))
			}
			for _, c := range list {
				f.until("all sessions are up", func() bool { return c.Status().Gateway != "" })
			}
			t.Cleanup(func() {
				for _, c := range list {
					if c.Status().Established > 2 {
						t.Errorf("%s was cut more than once: %+v", c.Name, c.Status())
					}
				}
			})
		},
		tamper: func(t *testing.T) {
			file := filepath.Join(dir, "aovlb.cfg")
			b, err := os.ReadFile(file)
			if err != nil || !strings.Contains(string(b), "weight 3") {
				t.Fatalf("there is nothing to alter: %v", err)
			}
			put(t, file, strings.Replace(string(b), "weight 3", "weight 7", 1))
		},
		holds: func() string {
			b, err := os.ReadFile(filepath.Join(dir, "aovlb.cfg"))
			if err != nil {
				t.Error(err)
			}
			_, sections, _ := strings.Cut(string(b), "\nfrontend")
			return sections
		},
	}
}

// TestHAProxyKeepsSessions: SSTP sessions through a real HAProxy, passed through,
// offloaded and re-encrypted, each bound to the certificate that its client was shown,
// go on while aovlb apply changes nearly everything about them.
func TestHAProxyKeepsSessions(t *testing.T) {
	dir := t.TempDir()
	f := startHAProxy(t, dir)
	front, back := certificate(t, "vpn.example.com"), certificate(t, "ras.example.com")
	put(t, filepath.Join(dir, "vpn.pem"), front.file)
	put(t, filepath.Join(dir, "ca.pem"), back.file)
	shown := sstp.FingerprintOf(front.Certificate.Certificate[0])
	for n := 11; n <= 13; n++ {
		f.gateway(n, gatewayPort, front.Certificate, sstp.Fingerprint{})
		f.gateway(n, gatewayPort+1, tls.Certificate{}, shown)
		f.gateway(n, gatewayPort+2, back.Certificate, shown)
	}
	w := &desk{t: t, dir: dir, product: &product{settings: f.settings()}}
	f.write(w, live{weight: 1, idle: "10m", every: "1s", picker: "least-clients"})
	w.run(0, "apply", w.file())

	const each = 15
	var list []*standin.SSTPClient
	for n := range 3 * each {
		list = append(list, f.client(n, haproxyPort+n%3, front.roots))
	}
	flow := func(when string, more uint64) {
		t.Helper()
		from := make([]uint64, len(list))
		for i, c := range list {
			from[i] = c.Status().Received
		}
		for i, c := range list {
			f.until(fmt.Sprintf("bytes flow for %s %s: %+v", c.Name, when, c.Status()), func() bool { return c.Status().Received > from[i]+more })
		}
	}
	flow("at first", 5)
	// What was lost until all checks had passed doesn't count.
	begun := make(map[*standin.SSTPClient]int)
	for _, c := range list {
		begun[c] = c.Status().Established
	}
	for i, change := range []live{
		{weight: 5, idle: "10m", every: "1s", picker: "least-clients"},
		{weight: 5, idle: "3m", every: "1s", picker: "round-robin"},
		{weight: 5, idle: "3m", every: "2s", picker: "round-robin", more: true},
		{weight: 1, idle: "1h", every: "1s", picker: "least-clients", more: true, drain: true},
	} {
		f.write(w, change)
		w.shows(w.run(0, "apply", w.file()), "box serves it, ")
		w.shows(w.run(0, "drift", w.file()), "box is as the file says")
		flow(fmt.Sprint("after change ", i+1), 10)
	}
	dropped, spread := 0, make(map[string]int)
	for _, c := range list {
		s := c.Status()
		if s.Established != begun[c] || s.Alien > 0 || !s.Lost.IsZero() {
			dropped++
			t.Errorf("%s: %+v", c.Name, s)
		}
		spread[s.Gateway]++
	}
	t.Logf("%d of %d sessions dropped, at gateways %v", dropped, len(list), spread)
	// New ones go to the gateway that was added, and not to the one that drains.
	f.until("a session at the new gateway", func() bool {
		c := f.client(len(list), haproxyPort+len(list)%3, front.roots)
		list = append(list, c)
		f.until("it is up", func() bool { return c.Status().Gateway != "" })
		if g := c.Status().Gateway; g == "ras1" {
			t.Fatal("a new session at a gateway that drains")
		}
		return c.Status().Gateway == "ras3"
	})
}

// live is what changes while sessions go on.
type live struct {
	weight              int
	idle, every, picker string
	more, drain         bool
}

// write writes a deployment with a listener of each mode.
func (f *farm) write(w *desk, l live) {
	var pools, groups strings.Builder
	admin, third := "enabled", ""
	if l.drain {
		admin = "draining"
	}
	if l.more {
		third = fmt.Sprintf("\n          - {name: ras3, address: %s}", f.address(13))
	}
	for i, tls := range []string{"{}", "{mode: offload}", fmt.Sprintf("{mode: reencrypt, gateway: {ca_file: %s/ca.pem, server_name: ras.example.com}}", f.dir)} {
		plain := i == 1
		fmt.Fprintf(&pools, `
      - name: ras%[1]d
        picker: %[2]s
        backends:
          - {name: ras1, address: %[3]s, weight: %[4]d, admin: %[5]s}
          - {name: ras2, address: %[6]s}%[7]s
        checks: [{type: sstp, port: %[8]d, interval: %[9]s, plain_http: %[10]t, rise: 1}]`,
			i, l.picker, f.address(11), l.weight, admin, f.address(12), third, gatewayPort+i, l.every, plain)
		fmt.Fprintf(&groups, `
      - name: vpn%[1]d
        pool: ras%[1]d
        affinity: source
        listeners: [{name: sstp%[1]d, protocol: sstp, address: "%[2]s:%[3]d", backend_port: %[4]d, idle_timeout: %[5]s, tls: %[6]s}]`,
			i, f.address(1), haproxyPort+i, gatewayPort+i, l.idle, tls)
	}
	put(w.t, w.file(), fmt.Sprintf(`sites:
  - name: hq
    certificates:
      - {name: vpn1, pool: ras1, cert_file: %[1]s/vpn.pem}
      - {name: vpn2, pool: ras2, cert_file: %[1]s/vpn.pem}
    pools:%[2]s
    groups:%[3]s
targets:
  - name: box
    driver: haproxy
    settings: {file: %[1]s/aovlb.cfg, beside: [%[1]s/haproxy.cfg], master: %[1]s/master}
`, f.dir, pools.String(), groups.String()))
}
