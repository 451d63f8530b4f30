package sstp

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

// goldenHash is that of all files in testdata/certs, by openssl x509 -fingerprint.
const goldenHash = "CE:7C:D5:8C:10:D1:9A:09:15:BF:1A:55:B3:34:39:37:C2:AF:A0:45:18:FE:27:33:23:77:86:92:6E:25:65:4E"

func readTestFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "certs", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func utf16File(b []byte) []byte {
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(string(b))) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

func TestParseBundle(t *testing.T) {
	want, err := ParseFingerprint(goldenHash)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, format string
		data         []byte
		mended       int
	}{
		{"PEM", "PEM", readTestFile(t, "leaf.pem"), 0},
		{"PEM in UTF-16", "PEM", utf16File(readTestFile(t, "leaf.pem")), 0},
		{"PEM with a mark", "PEM", append([]byte("\xef\xbb\xbf"), readTestFile(t, "leaf.pem")...), 0},
		{"PEM within text", "PEM", append([]byte("subject=CN = x\r\n"), readTestFile(t, "leaf.pem")...), 0},
		{"root first", "PEM", readTestFile(t, "wrong.pem"), 1},
		{"twice", "PEM", append(readTestFile(t, "leaf.pem"), readTestFile(t, "leaf.pem")...), 1},
		{"DER", "DER", readTestFile(t, "leaf.cer"), 0},
		{"bare base64", "DER", []byte(base64.StdEncoding.EncodeToString(readTestFile(t, "leaf.cer")) + "\r\n"), 0},
		{"PKCS#7", "PKCS#7", readTestFile(t, "der.p7b"), 1},
		{"PKCS#7 in PEM", "PKCS#7", readTestFile(t, "b64.p7b"), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := ParseBundle(tt.data)
			if err != nil {
				t.Fatal(err)
			}
			c, err := NewCertificate(b)
			if err != nil {
				t.Fatal(err)
			}
			if b.Format != tt.format || c.SHA256() != want || len(c.Mended) != tt.mended {
				t.Errorf("got %s, %v, %q", b.Format, c.SHA256(), c.Mended)
			}
		})
	}
	for _, name := range []string{"new.pfx", "old.pfx", "empty.pfx"} {
		if _, err := ParseBundle(readTestFile(t, name)); !errors.Is(err, ErrPFX) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestParseBundleRefuses(t *testing.T) {
	leaf := readTestFile(t, "leaf.cer")
	for _, tt := range []struct {
		name, want string
		data       []byte
	}{
		{"nothing", "empty", []byte(" \r\n")},
		{"text", "neither PEM nor DER", []byte("hello, this is no certificate")},
		{"half a PEM", "no block of it is whole", readTestFile(t, "leaf.pem")[:300]},
		{"half a DER", "neither PEM nor DER", leaf[:len(leaf)/2]},
		{"more than a DER", "3 bytes follow", append(slices.Clone(leaf), 1, 2, 3)},
		{"BER", "indefinite length", []byte{0x30, 0x80, 0x06, 0x09, 0, 0}},
		{"another sequence", "no certificate, key, PKCS#7 or PFX", []byte{0x30, 0x03, 0x02, 0x01, 0x07}},
		{"too large", "at most", make([]byte, MaxBundle+1)},
		{"a request", "neither a certificate nor a key", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}})},
		{"an encrypted key", "encrypted", pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})},
		{"an old encrypted key", "encrypted", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte{1}})},
		{"a broken key", "can't be read", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret words")})},
		{"many", "65 certificates", bytes.Repeat(readTestFile(t, "leaf.pem"), 65)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseBundle(tt.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestNewCertificate(t *testing.T) {
	root := newTestCA(t, "Root", nil)
	mid := newTestCA(t, "Intermediate", root)
	leaf := mid.issue(t, newTestKey(t), nil)
	other := mid.issue(t, newTestKey(t), nil)
	bundle := func(keys []crypto.Signer, certs ...*x509.Certificate) *Bundle {
		return &Bundle{Certificates: certs, Keys: keys}
	}
	key := []crypto.Signer{leaf.Key}
	for _, tt := range []struct {
		name   string
		bundle *Bundle
		chain  int
		mended string
		err    string
	}{
		{name: "in order", bundle: bundle(key, leaf.Leaf, mid.cert, root.cert), chain: 2},
		{name: "no root", bundle: bundle(key, leaf.Leaf, mid.cert), chain: 1},
		{name: "reversed", bundle: bundle(nil, root.cert, mid.cert, leaf.Leaf), chain: 2, mended: "wrong order"},
		{name: "key tells", bundle: bundle(key, other.Leaf, leaf.Leaf, mid.cert), chain: 1, mended: "isn't part of the chain"},
		{name: "two leaves", bundle: bundle(nil, other.Leaf, leaf.Leaf), err: "can't be told which"},
		{name: "two leaves with keys", bundle: bundle([]crypto.Signer{leaf.Key, other.Key}, other.Leaf, leaf.Leaf), err: "two certificates with keys"},
		{name: "alien key", bundle: bundle([]crypto.Signer{newTestKey(t)}, leaf.Leaf), err: "belongs to none"},
		{name: "the CA's key", bundle: bundle([]crypto.Signer{mid.key}, leaf.Leaf, mid.cert), err: "that of the CA Intermediate"},
		{name: "only a key", bundle: bundle(key), err: "no certificate"},
		{name: "a lonely root", bundle: bundle(nil, root.cert), chain: 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := NewCertificate(tt.bundle)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Chain) != tt.chain || (tt.mended == "") != (len(c.Mended) == 0) || !strings.Contains(strings.Join(c.Mended, " "), tt.mended) {
				t.Errorf("chain of %d, %q", len(c.Chain), c.Mended)
			}
		})
	}
}

func TestCertificateRoundTrip(t *testing.T) {
	ca := newTestCA(t, "Root", nil)
	c := ca.issue(t, newTestKey(t), nil)
	key, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBundle(append(c.ChainPEM(), key...))
	if err != nil {
		t.Fatal(err)
	}
	again, err := NewCertificate(b)
	if err != nil || again.SHA256() != c.SHA256() || again.Key == nil || len(again.Chain) != 1 {
		t.Errorf("got %+v, %v", again, err)
	}
	of := c.TLS()
	if again, err = CertificateOf(&of); err != nil || again.SHA256() != c.SHA256() || again.SHA1() != c.SHA1() || again.Key == nil {
		t.Errorf("got %+v, %v", again, err)
	}
	if _, err := CertificateOf(new(tls.Certificate)); err == nil {
		t.Error("an empty one is taken")
	}
	if _, err := (&Certificate{Leaf: c.Leaf}).KeyPEM(); err == nil {
		t.Error("a key comes from nowhere")
	}
}

func FuzzParseBundle(f *testing.F) {
	for _, name := range []string{"leaf.pem", "leaf.cer", "der.p7b", "b64.p7b", "new.pfx", "wrong.pem"} {
		f.Add(readTestFile(f, name))
	}
	f.Add(utf16File(readTestFile(f, "leaf.pem")))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ParseBundle(b)
		if err != nil {
			return
		}
		c, err := NewCertificate(u)
		if err != nil {
			return
		}
		c.Check(CertificateRules{Name: "vpn.example.com", Roots: x509.NewCertPool()})
		again, err := ParseBundle(c.ChainPEM())
		if err != nil {
			t.Fatalf("what was written can't be read: %v", err)
		}
		if len(again.Certificates) != 1+len(c.Chain) || FingerprintOf(again.Certificates[0].Raw) != c.SHA256() {
			t.Fatal("what was written is something else")
		}
	})
}

// TestCheck has one certificate for each rule.
func TestCheck(t *testing.T) {
	ca := newTestCA(t, "Root", nil)
	ec := newTestKey(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	big521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	usual := CertificateRules{Name: "vpn.example.org", Roots: ca.pool()}
	for _, tt := range []struct {
		name   string
		key    crypto.Signer
		change func(*x509.Certificate)
		rules  CertificateRules
		want   string // gravity and rule of the finding; none if empty
		words  string
	}{
		{name: "nothing"},
		{name: "wildcard", change: func(x *x509.Certificate) { x.DNSNames = []string{"*.example.org"} }},
		{name: "any usage", change: func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} }},
		{name: "client usage", change: func(x *x509.Certificate) { x.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, want: "fatal eku", words: "event 16"},
		{name: "no usage", change: func(x *x509.Certificate) { x.ExtKeyUsage = nil }, want: "risk eku"},
		{name: "can't sign", change: func(x *x509.Certificate) { x.KeyUsage = x509.KeyUsageKeyEncipherment }, want: "fatal key usage"},
		{name: "other name", change: func(x *x509.Certificate) { x.DNSNames = []string{"vpn.example.net"} }, want: "fatal name", words: "clients dial vpn.example.org, and it is for vpn.example.net"},
		{name: "only a common name", change: func(x *x509.Certificate) { x.DNSNames = nil }, want: "risk name"},
		{name: "ended", change: func(x *x509.Certificate) { x.NotAfter = time.Now().Add(-time.Minute) }, want: "fatal validity"},
		{name: "ends soon", change: func(x *x509.Certificate) { x.NotAfter = time.Now().Add(26*time.Hour + 24*time.Minute) }, rules: CertificateRules{Soon: 7 * 24 * time.Hour}, want: "risk validity", words: "in 1 days"},
		{name: "not yet", change: func(x *x509.Certificate) { x.NotBefore = time.Now().Add(time.Hour) }, want: "fatal validity"},
		{name: "three years", change: func(x *x509.Certificate) { x.NotAfter = time.Now().Add(3 * 365 * 24 * time.Hour) }, want: "advice lifetime"},
		{name: "RSA 1024", key: small, want: "fatal key", words: "1024"},
		{name: "P-521", key: big521, want: "risk key"},
		{name: "Ed25519", key: ed, want: "fatal key"},
		{name: "no CRL", change: func(x *x509.Certificate) { x.CRLDistributionPoints = nil }, want: "risk crl", words: "0x80092012"},
		{name: "OCSP alone", change: func(x *x509.Certificate) {
			x.CRLDistributionPoints, x.OCSPServer = nil, []string{"http://ocsp.example.org"}
		}},
		{name: "LDAP CRL", change: func(x *x509.Certificate) { x.CRLDistributionPoints = []string{"ldap:///CN=x"} }, want: "risk crl", words: "before it has a tunnel"},
		{name: "CRL inside", change: func(x *x509.Certificate) { x.CRLDistributionPoints = []string{"http://pki01/x.crl"} }, want: "risk crl", words: "only the inside knows"},
		{name: "unknown root", rules: CertificateRules{Roots: x509.NewCertPool()}, want: "risk chain", words: "isn't trusted here"},
		{name: "a CA", change: func(x *x509.Certificate) { x.IsCA, x.BasicConstraintsValid = true, true }, want: "risk role"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := ec
			if tt.key != nil {
				key = tt.key
			}
			c := ca.issue(t, key, tt.change)
			if tt.rules.Roots == nil {
				tt.rules.Roots = usual.Roots
			}
			tt.rules.Name = usual.Name
			var got []string
			for _, f := range c.Check(tt.rules) {
				if f.Rule == "chain" && strings.Contains(f.Reason, "root is sent") {
					continue // it always is here
				}
				got = append(got, f.Gravity.String()+" "+f.Rule)
				if tt.words != "" && !strings.Contains(f.String(), tt.words) {
					t.Errorf("%v lacks %q", f, tt.words)
				}
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckChain(t *testing.T) {
	root := newTestCA(t, "Root", nil)
	mid := newTestCA(t, "Intermediate", root)
	c := mid.issue(t, newTestKey(t), func(x *x509.Certificate) { x.IssuingCertificateURL = []string{"http://pki.example.org/mid.cer"} })
	rules := CertificateRules{Roots: root.pool()}
	if found := c.Check(rules); len(found) != 0 {
		t.Errorf("a whole chain: %v", found)
	}
	c.Chain = nil
	found := c.Check(rules)
	if len(found) != 1 || found[0].Rule != "chain" || !strings.Contains(found[0].Fix, "http://pki.example.org/mid.cer") {
		t.Errorf("without the intermediate: %v", found)
	}
	self := root.issue(t, newTestKey(t), nil)
	tmpl := root.template()
	self.Leaf, self.Chain = signTest(t, tmpl, tmpl, self.Key.Public(), self.Key), nil
	found = self.Check(rules)
	if len(found) != 1 || found[0].Gravity != GravityFatal || !strings.Contains(found[0].Reason, "self-signed") {
		t.Errorf("self-signed: %v", found)
	}
}

func TestCheckSet(t *testing.T) {
	ca := newTestCA(t, "Root", nil)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := ca.issue(t, newTestKey(t), nil)
	b := ca.issue(t, key, nil)
	web := ca.issue(t, newTestKey(t), func(x *x509.Certificate) { x.DNSNames = []string{"www.example.org"} })
	if found := CheckSet([]*Certificate{a, web, a}); len(found) != 0 {
		t.Errorf("got %v", found)
	}
	found := CheckSet([]*Certificate{a, web, b})
	if len(found) != 1 || !strings.Contains(found[0].Reason, "RSA and ECDSA") {
		t.Errorf("got %v", found)
	}
}

func TestCheckCRL(t *testing.T) {
	ca := newTestCA(t, "Root", nil)
	ca.cert.SubjectKeyId = []byte{1}
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/good.crl" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(body)
	}))
	defer srv.Close()
	at := func(path string) *Certificate {
		return ca.issue(t, newTestKey(t), func(x *x509.Certificate) { x.CRLDistributionPoints = []string{srv.URL + path, "ldap:///x"} })
	}
	crl := func(next time.Time, revoked ...*Certificate) []byte {
		list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: next}
		for _, c := range revoked {
			list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
		}
		b, err := x509.CreateRevocationList(rand.Reader, list, ca.cert, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	c := at("/good.crl")
	for _, tt := range []struct {
		name, want string
		cert       *Certificate
		body       []byte
	}{
		{"good", "", c, crl(time.Now().Add(time.Hour))},
		{"old", "ended on", c, crl(time.Now().Add(-time.Minute))},
		{"revoked", "it is revoked", c, crl(time.Now().Add(time.Hour), c)},
		{"not there", "404", at("/other.crl"), nil},
		{"nonsense", "is no CRL", c, []byte("hello")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body = tt.body
			found := tt.cert.CheckCRL(t.Context(), srv.Client())
			if tt.want == "" && len(found) > 0 || tt.want != "" && (len(found) != 1 || !strings.Contains(found[0].Reason, tt.want)) {
				t.Errorf("got %v, want %q", found, tt.want)
			}
		})
	}
}
