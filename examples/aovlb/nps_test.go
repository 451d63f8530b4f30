package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/radius/npscert"
)

// npsPKI is a root, and what it issues.
type npsPKI struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf *rsa.PrivateKey
}

func newNPSPKI(t *testing.T) *npsPKI {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Corp Root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return &npsPKI{c, key, leaf}
}

func (p *npsPKI) issue(t *testing.T, change func(*x509.Certificate)) *tls.Config {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "nps.corp.example"}, DNSNames: []string{"nps.corp.example", "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, p.cert, &p.leaf.PublicKey, p.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: p.leaf}}}
}

// TestNPSCheck looks at servers on loopback, in words and as JSON.
func TestNPSCheck(t *testing.T) {
	p := newNPSPKI(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	serve := func(c *tls.Config, users map[string]bool) netip.AddrPort {
		conn, at, err := standin.Listen()
		if err != nil {
			t.Skip("no loopback:", err)
		}
		s := &standin.CertServer{Secret: []byte("a RADIUS secret"), TLS: c, Users: users}
		wg.Go(func() { _ = s.Serve(ctx, conn) }) // it ends with ctx
		return at
	}
	good := serve(p.issue(t, nil), nil).String()
	alone := serve(p.issue(t, func(c *x509.Certificate) {
		c.Subject.CommonName, c.DNSNames = "nps2.corp.example", []string{"nps2.corp.example"}
	}), nil).String()
	picky := serve(p.issue(t, nil), map[string]bool{"probe": true}).String()
	t.Setenv("NPS_SECRET", "a RADIUS secret")
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(dir, "profile.xml")
	if err := os.WriteFile(profile, []byte("<a><ServerNames>nps.corp.example</ServerNames><TrustedRootCA>"+npscert.Thumbprint(p.cert)+"</TrustedRootCA></a>"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args  []string
		code  int
		words []string
	}{
		{[]string{good, "--ca", ca, "--profile", profile}, 0, []string{"will be accepted", "nps.corp.example", "PEAP, TLS 1.2", "all 1 server fit"}},
		{[]string{good}, 0, []string{"note: its chain ends", "--ca"}},
		{[]string{good, alone, "--ca", ca}, 1, []string{"will be accepted", "will NOT be accepted", `its subject is "nps2.corp.example"`, "aovlb nps request", "1 of 2 servers don't fit"}},
		{[]string{picky, "--ca", ca}, 1, []string{"could not be looked at", "--user"}},
		{[]string{picky, "--user", "probe", "--ca", ca}, 0, []string{"will be accepted"}},
		{[]string{good, "--method", "tls", "--timeout", "1s"}, 1, []string{"doesn't do this method"}},
		{[]string{good, "--method", "md5"}, 2, []string{"peap or tls"}},
		{[]string{good, "--profile", ca}, 1, []string{"neither ServerNames nor TrustedRootCA"}},
		{[]string{good, "--ca", profile}, 1, []string{"holds no certificate"}},
		{nil, 2, []string{"at least 1"}},
	} {
		var out bytes.Buffer
		env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		args := append([]string{"nps", "check", "--cluster", "nps.corp.example", "--secret-env", "NPS_SECRET"}, tt.args...)
		if code := run(ctx, env, args); code != tt.code {
			t.Errorf("%q: exit code %d, want %d: %s", tt.args, code, tt.code, &out)
		}
		for _, w := range tt.words {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%q: without %q: %s", tt.args, w, &out)
			}
		}
		if strings.Contains(out.String(), "a RADIUS secret") {
			t.Errorf("%q: shows the secret", tt.args)
		}
	}
	var out bytes.Buffer
	env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
	run(ctx, env, []string{"nps", "check", "--json", "--cluster", "nps.corp.example", "--secret-env", "NPS_SECRET", alone})
	var r npscert.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Fits || len(r.Servers) != 1 || len(r.Servers[0].Findings) < 2 {
		t.Errorf("%v: %s", err, &out)
	}
}
