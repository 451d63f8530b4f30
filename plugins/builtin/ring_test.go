package builtin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

var ringSerial = new(big.Int)

// newRingCert writes a certificate with its key into one file.
func newRingCert(t *testing.T, file string) sstp.Fingerprint {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ringSerial.Add(ringSerial, big.NewInt(1))
	tmpl := &x509.Certificate{
		SerialNumber: new(big.Int).Set(ringSerial), Subject: pkix.Name{CommonName: "vpn.example.org"}, DNSNames: []string{"vpn.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	c := &sstp.Certificate{Leaf: leaf, Key: key}
	k, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(c.ChainPEM(), k...), 0o600); err != nil {
		t.Fatal(err)
	}
	return c.SHA256()
}

// A ringSite is two gateways whose TLS ends before them. What they are configured
// with is in files, which stand for their registries.
type ringSite struct {
	t     *testing.T
	dir   string
	state string
	dep   *plugins.Deployment
}

func newRingSite(t *testing.T) *ringSite {
	s := &ringSite{t: t, dir: t.TempDir(), state: t.TempDir()}
	var backends []plugins.Backend
	// One port for both, as a check has one.
	first := s.gateway("127.0.0.1:0")
	for i := range 2 {
		addr := netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + i)})
		if i > 0 {
			s.gateway(netip.AddrPortFrom(addr, first.Port()).String())
		}
		backends = append(backends, plugins.Backend{Name: fmt.Sprintf("ras%d", i+1), Address: addr})
	}
	s.dep = &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{Name: "ras", Backends: backends, Checks: []plugins.Check{{
			Type: plugins.CheckSSTP, PlainHTTP: true, Port: int(first.Port()), Interval: plugins.Duration(time.Second),
		}}}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{{
			Name: "sstp", Protocol: plugins.ProtocolTCP, Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 9}), freePort(t)),
		}}}},
		Certificates: []plugins.Certificate{{
			Name: "vpn", Pool: "ras", CertFile: filepath.Join(s.dir, "vpn.pem"),
			Renewal: plugins.Rollout{Settle: plugins.Duration(100 * time.Millisecond), Timeout: plugins.Duration(10 * time.Second), Prove: -1},
		}},
	}}}
	return s
}

// gateway answers HEAD with 401.
func (s *ringSite) gateway(addr string) netip.AddrPort {
	s.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		s.t.Skipf("no address %s here: %v", addr, err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	s.t.Cleanup(srv.Close)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func (s *ringSite) rollout() *plugins.Rollout { return &s.dep.Sites[0].Certificates[0].Renewal }

// hooks has the hashes set and read by shell scripts.
func (s *ringSite) hooks() {
	s.t.Helper()
	for name, text := range map[string]string{
		"set":  "#!/bin/sh\ncat > " + s.dir + "/$AOVLB_GATEWAY.ps1\necho $1 $2 > " + s.dir + "/$AOVLB_GATEWAY.args\necho $AOVLB_SHA256 > " + s.dir + "/$AOVLB_GATEWAY.registry\n",
		"read": "#!/bin/sh\necho it is\ncat " + s.dir + "/$AOVLB_GATEWAY.registry\n",
	} {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o700); err != nil {
			s.t.Fatal(err)
		}
	}
	s.rollout().Set = []string{filepath.Join(s.dir, "set"), "{gateway}", "at {address}"}
	s.rollout().Read = []string{filepath.Join(s.dir, "read")}
}

func (s *ringSite) registry(gateway string) string {
	b, _ := os.ReadFile(filepath.Join(s.dir, gateway+".registry"))
	return strings.TrimSpace(string(b))
}

// serve has a driver serve the site, until the returned function is called.
func (s *ringSite) serve() (*Driver, func()) {
	s.t.Helper()
	d := &Driver{StateDir: s.state}
	s.apply(d)
	var once sync.Once
	end := func() {
		once.Do(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			if err := d.Shutdown(ctx); err != nil {
				s.t.Error(err)
			}
		})
	}
	s.t.Cleanup(end)
	return d, end
}

func (s *ringSite) apply(d *Driver) {
	s.t.Helper()
	p, err := d.Plan(s.t.Context(), s.dep)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := d.Apply(s.t.Context(), p, nil); err != nil {
		s.t.Fatal(err)
	}
}

func waitRing(t *testing.T, d *Driver, what string, ok func(CertificateStats) bool) CertificateStats {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := d.Certificates()[0]
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s never came: %+v, renewal %+v", what, s, s.Renewal)
		}
	}
}

func expects(s CertificateStats, gateway string) sstp.Fingerprint {
	for _, g := range s.Ring.Gateways {
		if g.Gateway == gateway {
			return g.Expects
		}
	}
	return sstp.Fingerprint{}
}

// TestRenewalByCommand: a file changes, a reload sees it, and both gateways are
// told by a command, one after the other.
func TestRenewalByCommand(t *testing.T) {
	s := newRingSite(t)
	s.hooks()
	file := s.dep.Sites[0].Certificates[0].CertFile
	old := newRingCert(t, file)
	d, _ := s.serve()
	waitRing(t, d, "the first", func(c CertificateStats) bool { return c.Ring.Current == old && c.Renewal == nil })
	if err := d.Renew(t.Context(), "", false); err == nil || !strings.Contains(err.Error(), "nothing to bring") {
		t.Errorf("got %v", err)
	}
	next := newRingCert(t, file)
	s.apply(d)
	got := waitRing(t, d, "the end of the renewal", func(c CertificateStats) bool { return c.Renewal != nil && !c.Renewal.Ended.IsZero() })
	for _, g := range []string{"ras1", "ras2"} {
		if s.registry(g) != next.String() || expects(got, g) != next {
			t.Errorf("%s has %s and is held to expect %v", g, s.registry(g), expects(got, g))
		}
		script, err := os.ReadFile(filepath.Join(s.dir, g+".ps1"))
		if err != nil || !strings.Contains(string(script), next.String()) || !strings.Contains(string(script), "$plain = $true") {
			t.Errorf("%s was given %.60q, %v", g, script, err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(s.dir, "ras2.args")); string(b) != "ras2 at 127.0.0.2\n" {
		t.Errorf("the command was called with %q", b)
	}
	if got.Ring.Current != next || got.Renewal.Gateways[0].Evidence.String() != "its registry holds the hash, and it takes calls" {
		t.Errorf("got %+v, %v", got.Ring, got.Renewal.Gateways[0].Evidence)
	}
	if f, ok := d.ringsNow()[0].seenToExpect("ras1"); !ok || f != next {
		t.Errorf("ras1 is seen to expect %v, %v", f, ok)
	}
	if r, err := d.Read(t.Context()); err != nil || len(r.Drained) != 0 {
		t.Errorf("drained: %v, %v", r.Drained, err)
	}
	// And back again.
	if err := d.Renew(t.Context(), "vpn", true); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the way back", func(c CertificateStats) bool { return c.Ring.Current == old && !c.Renewal.Ended.IsZero() })
	if s.registry("ras1") != old.String() || s.registry("ras2") != old.String() {
		t.Error("the gateways still have the new hash")
	}
}

// TestRenewalByHand: an administrator runs a script on each gateway and says so.
// Meanwhile the process ends, and another takes over.
func TestRenewalByHand(t *testing.T) {
	s := newRingSite(t)
	file := s.dep.Sites[0].Certificates[0].CertFile
	old := newRingCert(t, file)
	_, end := s.serve()
	end()
	next := newRingCert(t, file)
	d, end := s.serve()
	c := waitRing(t, d, "the renewal", func(c CertificateStats) bool { return c.Renewal != nil })
	if !c.Renewal.Paused || c.Running || c.Ring.Current != old {
		t.Fatalf("it began without being told: %+v", c)
	}
	if err := d.Renew(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the question", func(c CertificateStats) bool { return c.Waiting == "ras1" })
	if leaf, err := d.Leaves("ras").Leaf("ras1", nil); err == nil {
		t.Errorf("clients of ras1 are shown %v while it is changed", leaf.Leaf.SerialNumber)
	}
	if leaf, err := d.Leaves("ras").Leaf("ras2", nil); err != nil || sstp.FingerprintOf(leaf.Certificate[0]) != old {
		t.Errorf("clients of ras2 are shown another leaf, %v", err)
	}
	if st, _ := d.Stats(t.Context()); st.Pools[0].Backends[0].State == "up" {
		t.Error("ras1 takes clients while it is changed")
	}
	script, err := d.RenewalScript("vpn", "ras1")
	if err != nil || !strings.Contains(script, next.String()) || !strings.Contains(script, "Restart-Service RemoteAccess") {
		t.Errorf("got %.100q, %v", script, err)
	}
	if err := d.ConfirmRenewal(t.Context(), "", "ras2"); err == nil {
		t.Error("a gateway is confirmed whose turn it isn't")
	}
	end()

	d, _ = s.serve()
	c = waitRing(t, d, "the question again", func(c CertificateStats) bool { return c.Waiting == "ras1" })
	if _, err := d.Leaves("ras").Leaf("ras1", nil); err == nil || c.Ring.Current != old {
		t.Error("the next process forgot what was going on")
	}
	if err := d.ConfirmRenewal(t.Context(), "", "ras1"); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "ras1", func(c CertificateStats) bool { return expects(c, "ras1") == next })
	if err := d.PauseRenewal(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the pause", func(c CertificateStats) bool { return !c.Running })
	if err := d.Renew(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the other question", func(c CertificateStats) bool { return c.Waiting == "ras2" })
	if err := d.ConfirmRenewal(t.Context(), "", "ras2"); err != nil {
		t.Fatal(err)
	}
	c = waitRing(t, d, "the end", func(c CertificateStats) bool { return !c.Renewal.Ended.IsZero() })
	if f, ok := d.ringsNow()[0].seenToExpect("ras2"); ok {
		t.Errorf("ras2 is said to be seen to expect %v, on the word of the administrator", f)
	}
	if c.Ring.Current != next || !strings.Contains(c.Renewal.Gateways[1].Evidence.String(), "word of the administrator") {
		t.Errorf("got %+v", c.Renewal)
	}
}

// TestRenewalDoubted: the command says that all is well, and the registry says
// something else. The gateway must not get clients.
func TestRenewalDoubted(t *testing.T) {
	s := newRingSite(t)
	s.hooks()
	file := s.dep.Sites[0].Certificates[0].CertFile
	newRingCert(t, file)
	s.rollout().Set = []string{"/bin/sh", "-c", "cat > /dev/null; echo " + strings.Repeat("ab", 32) + " > " + s.dir + "/$AOVLB_GATEWAY.registry"}
	d, _ := s.serve()
	newRingCert(t, file)
	s.apply(d)
	c := waitRing(t, d, "the doubt", func(c CertificateStats) bool {
		return c.Renewal != nil && strings.Contains(c.Renewal.Gateways[0].Error, "registry holds the hash abab")
	})
	if c.Renewal.Gateways[0].Phase != sstp.PhaseVerifying || c.Renewal.Gateways[1].Phase != sstp.PhaseWaiting {
		t.Errorf("got %+v", c.Renewal)
	}
	if _, err := d.Leaves("ras").Leaf("ras1", nil); err == nil {
		t.Error("clients of ras1 are shown a leaf")
	}
}

// TestDoubts: what is wrong is said before a client comes.
func TestDoubts(t *testing.T) {
	s := newRingSite(t)
	s.hooks()
	newRingCert(t, s.dep.Sites[0].Certificates[0].CertFile)
	if err := os.WriteFile(filepath.Join(s.dir, "ras2.registry"), []byte(strings.Repeat("cd", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	d, _ := s.serve()
	c := waitRing(t, d, "the doubt", func(c CertificateStats) bool { return len(c.Doubts) > 0 })
	if c.Doubts[0].Gateway != "ras2" || !strings.Contains(c.Doubts[0].Text, "registry holds the hash cdcd") || !strings.Contains(c.Doubts[0].Text, "Enable-SstpOffload -CertificateHash "+c.Ring.Current.String()) {
		t.Errorf("got %+v", c.Doubts)
	}
}
