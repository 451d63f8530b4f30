package builtin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
)

// authority issues certificates into files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.make(&x509.Certificate{Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	a.write("ca.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) make(c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := c, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out, key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// radsec issues a certificate for name, and returns what a file says of it.
func (a *authority) radsec(name string, servers ...string) *plugins.RadSec {
	a.t.Helper()
	c, key := a.make(&x509.Certificate{
		DNSNames: []string{name}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".pem", "CERTIFICATE", c.Raw)
	a.write(name+".key", "PRIVATE KEY", der)
	at := func(name string) string { return filepath.Join(a.dir, name) }
	return &plugins.RadSec{CertFile: at(name + ".pem"), KeyFile: at(name + ".key"), CAFile: at("ca.pem"), Names: servers}
}

// radiusServer accepts everybody, and answers accounting.
func radiusServer(t *testing.T, at netip.AddrPort, secret radius.Secret) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip("loopback has but one address here:", err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { c.Close(); wg.Wait() })
	wg.Go(func() {
		b := make([]byte, radius.MaxLen)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			p, err := radius.Parse(b[:n])
			if err != nil || p.CheckRequest(secret) != nil {
				t.Errorf("a server was sent %x: %v", b[:n], err)
				continue
			}
			a := make([]byte, radius.HeaderLen)
			a[0], a[1], a[3] = byte(radius.AccessAccept), p.Identifier(), radius.HeaderLen
			if p.Code() == radius.AccountingRequest {
				a[0] = byte(radius.AccountingResponse)
			}
			q, _ := radius.Parse(a)
			sum := q.ResponseAuthenticator(secret, p.Authenticator())
			copy(a[4:], sum[:])
			_, _ = c.WriteToUDPAddrPort(a, from)
		}
	})
}

// radsecWorld is two balancers with TLS between them:
//
//	NAS ──UDP── outer ──TLS── inner ──UDP── server
type radsecWorld struct {
	t            *testing.T
	ca           *authority
	outer, inner *plugins.Deployment
	port         uint16 // of outer
	tls          uint16 // of inner
	secret       string // file
}

func newRadsecWorld(t *testing.T) *radsecWorld {
	w := &radsecWorld{t: t, ca: newAuthority(t), port: freePort(t), tls: freePort(t), secret: filepath.Join(t.TempDir(), "secret")}
	if err := os.WriteFile(w.secret, []byte("of the NAS and the servers"), 0o600); err != nil {
		t.Fatal(err)
	}
	back := freePort(t)
	radiusServer(t, netip.AddrPortFrom(gatewayAddr(81), back), radius.NewSecret([]byte("of the NAS and the servers")))
	radiusServer(t, netip.AddrPortFrom(gatewayAddr(81), back+1), radius.NewSecret([]byte("of the NAS and the servers")))
	local := netip.MustParseAddr("127.0.0.1")
	w.inner = w.deployment(gatewayAddr(81), plugins.RADIUS{
		Mode: plugins.RADIUSProxy, SecretFile: w.secret, RadSec: w.ca.radsec("inner.example"),
		Clients: []plugins.RADIUSClient{{Name: "outer", Names: []string{"outer.example"}}},
	}, plugins.Listener{Name: "sec", Protocol: plugins.ProtocolRadSec, Address: netip.AddrPortFrom(local, w.tls), BackendPort: int(back)})
	r := w.ca.radsec("outer.example", "inner.example")
	r.Port = int(w.tls)
	w.outer = w.deployment(local, plugins.RADIUS{
		Mode: plugins.RADIUSProxy, Transport: plugins.TransportRadSec, RadSec: r,
		Clients: []plugins.RADIUSClient{{Name: "nas", Addresses: []string{"127.0.0.0/8"}, SecretFile: w.secret}},
	}, plugins.Listener{Name: "udp", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(local, w.port)})
	return w
}

func (w *radsecWorld) deployment(server netip.Addr, r plugins.RADIUS, l plugins.Listener) *plugins.Deployment {
	return &plugins.Deployment{Sites: []plugins.Site{{
		Name:   "hq",
		Pools:  []plugins.Pool{{Name: "nps", Backends: []plugins.Backend{{Name: "nps1", Address: server}}}},
		Groups: []plugins.Group{{Name: "nps", Pool: "nps", RADIUS: &r, Listeners: []plugins.Listener{l}}},
	}}}
}

// ask has a NAS ask the outer balancer.
func (w *radsecWorld) ask(accounting bool) error {
	p := &radius.Prober{Secret: radius.NewSecret([]byte("of the NAS and the servers")), Accounting: accounting, Resend: 200 * time.Millisecond, Timeout: 3 * time.Second}
	return p.Probe(w.t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.port))
}

func TestRadSec(t *testing.T) {
	w := newRadsecWorld(t)
	inner, outer := start(t, new(Driver), w.inner), start(t, new(Driver), w.outer)
	for _, accounting := range []bool{false, true} {
		if err := w.ask(accounting); err != nil {
			t.Fatal(err)
		}
	}
	s, err := inner.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if l := s.Listeners[0]; l.RADIUS == nil || *l.Active == 0 || l.RADIUS.Clients[0].Name != "outer" || l.RADIUS.Clients[0].Requests != 2 {
		t.Errorf("the inner listener: %+v", l)
	}

	// The same file again, and one whose servers are known by another name.
	apply(t, outer, w.outer)
	if err := w.ask(false); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	other := w.outer.Clone()
	other.Sites[0].Groups[0].RADIUS.RadSec.Names = []string{"nobody.example"}
	apply(t, outer, other)
	if err := w.ask(false); err == nil {
		t.Error("a server whose certificate has another name was trusted")
	}
	apply(t, outer, w.outer)
	time.Sleep(600 * time.Millisecond) // the server is left alone for half a second
	if err := w.ask(true); err != nil {
		t.Errorf("with the right name again: %v", err)
	}

	// A client that is taken away is shut out.
	shut := w.inner.Clone()
	shut.Sites[0].Groups[0].RADIUS.Clients[0].Names = []string{"else.example"}
	apply(t, inner, shut)
	if err := w.ask(false); err == nil {
		t.Error("a client that was taken away still gets answers")
	}
}

// A check over TLS is answered by Status-Server, and by nobody else.
func TestRadSecCheck(t *testing.T) {
	w := newRadsecWorld(t)
	start(t, new(Driver), w.inner)
	list, err := Checks([]plugins.Check{{Type: plugins.CheckRadSec, Port: int(w.tls), RadSec: w.ca.radsec("outer.example", "inner.example")}}, "checks")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), list[0].Port)
	if err := list[0].Prober.Probe(t.Context(), at); err != nil {
		t.Error(err)
	}
	list, err = Checks([]plugins.Check{{Type: plugins.CheckRadSec, RadSec: w.ca.radsec("stranger.example", "inner.example")}}, "checks")
	if err != nil {
		t.Fatal(err)
	}
	if list[0].Port != 2083 {
		t.Errorf("port %d", list[0].Port)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := list[0].Prober.Probe(ctx, at); err == nil {
		t.Error("a stranger's check was answered")
	}
}

func TestRadSecFiles(t *testing.T) {
	ca := newAuthority(t)
	good := ca.radsec("a.example")
	for _, tt := range []struct {
		path  string
		spoil func(*plugins.RadSec)
	}{
		{"cert_file", func(r *plugins.RadSec) { r.CertFile = "/nonexistent" }},
		{"key_file", func(r *plugins.RadSec) { r.KeyFile = "/nonexistent" }},
		{"ca_file", func(r *plugins.RadSec) { r.CAFile = "/nonexistent" }},
		{"ca_file", func(r *plugins.RadSec) { r.CAFile = r.KeyFile }},
	} {
		bad := *good
		tt.spoil(&bad)
		_, err := Checks([]plugins.Check{{Type: plugins.CheckRadSec, RadSec: &bad}}, "p")
		if f, ok := errors.AsType[*plugins.FieldError](err); !ok || f.Path != "p.checks[0].radsec."+tt.path {
			t.Errorf("%s: %v", tt.path, err)
		}
	}
	f, err := openTLS(good, new(Driver).logger())
	if err != nil {
		t.Fatal(err)
	}
	before := f.now().Leaf.SerialNumber
	ca.radsec("a.example") // anew, into the same files
	f.mu.Lock()
	f.looked = time.Time{}
	f.was[0].size++ // whatever the file system's clock says
	f.mu.Unlock()
	if after := f.now().Leaf.SerialNumber; after.Cmp(before) == 0 {
		t.Error("a new certificate isn't read")
	}
	if err := os.WriteFile(good.KeyFile, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	f.looked = time.Time{}
	f.mu.Unlock()
	if f.now() == nil || f.roots() == nil {
		t.Error("files that can't be read take away what there was")
	}
}

// Accounting that no server takes is acknowledged once it is on disk, also across a
// change of its bounds, and delivered when a server is there.
func TestLedger(t *testing.T) {
	dir := t.TempDir()
	w := newRadsecWorld(t)
	back := freePort(t)
	dep := w.deployment(gatewayAddr(82), plugins.RADIUS{
		Mode: plugins.RADIUSProxy, SecretFile: w.secret, Accounting: &plugins.RADIUSAccounting{Directory: dir},
		Clients: []plugins.RADIUSClient{{Name: "nas", Addresses: []string{"127.0.0.0/8"}, SecretFile: w.secret}},
	}, plugins.Listener{Name: "udp", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.port), BackendPort: int(back)})
	d := start(t, new(Driver), dep)
	p := &radius.Prober{Secret: radius.NewSecret([]byte("of the NAS and the servers")), Accounting: true, Resend: -1, Timeout: 6 * time.Second}
	if err := p.Probe(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.port)); err != nil {
		t.Fatalf("without a server: %v", err)
	}
	waiting := func() uint64 { return d.Accounting()["nps"].Waiting }
	if waiting() != 1 {
		t.Errorf("%d records wait", waiting())
	}
	dep = dep.Clone()
	dep.Sites[0].Groups[0].RADIUS.Accounting.MaxMiB = 5
	apply(t, d, dep)
	if waiting() != 1 {
		t.Errorf("%d records wait after a reload", waiting())
	}
	bad := dep.Clone()
	bad.Sites[0].Groups[0].RADIUS.Accounting.Directory = ""
	if err := d.Apply(t.Context(), &plugins.Plan{Deployment: bad}, nil); err == nil || !strings.Contains(err.Error(), "no state is kept") {
		t.Errorf("without a folder: %v", err)
	}
	radiusServer(t, netip.AddrPortFrom(gatewayAddr(82), back), radius.NewSecret([]byte("of the NAS and the servers")))
	for end := time.Now().Add(20 * time.Second); waiting() > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the record isn't delivered")
		}
	}
	apply(t, d, w.inner) // another file: the folder is left
	if len(d.Accounting()) != 0 {
		t.Error("the folder is still used")
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		t.Error(fmt.Errorf("the folder was taken away: %w", err))
	}
}
