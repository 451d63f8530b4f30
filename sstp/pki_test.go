package sstp

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

// A testCA issues certificates as tests want them.
type testCA struct {
	cert *x509.Certificate
	key  crypto.Signer
	next int64
}

func newTestCA(t testing.TB, name string, parent *testCA) *testCA {
	t.Helper()
	key := newTestKey(t)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	ca := &testCA{key: key, next: 100}
	if parent == nil {
		parent = &testCA{cert: tmpl, key: key}
	}
	ca.cert = signTest(t, tmpl, parent.cert, key.Public(), parent.key)
	return ca
}

func newTestKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func signTest(t testing.TB, tmpl, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// template is a certificate with which nothing is wrong.
func (ca *testCA) template() *x509.Certificate {
	ca.next++
	return &x509.Certificate{
		SerialNumber: big.NewInt(ca.next), Subject: pkix.Name{CommonName: "vpn.example.org"}, DNSNames: []string{"vpn.example.org"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(89 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		CRLDistributionPoints: []string{"http://crl.example.org/1.crl"},
	}
}

func (ca *testCA) issue(t testing.TB, key crypto.Signer, change func(*x509.Certificate)) *Certificate {
	t.Helper()
	tmpl := ca.template()
	if change != nil {
		change(tmpl)
	}
	return &Certificate{Leaf: signTest(t, tmpl, ca.cert, key.Public(), ca.key), Key: key, Chain: []*x509.Certificate{ca.cert}}
}

func (ca *testCA) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}
