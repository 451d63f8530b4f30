package rest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"
)

// key returns a private key as PEM.
func key(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// TestHide: however an appliance repeats what it was sent, no secret comes through, and
// what isn't one does.
func TestHide(t *testing.T) {
	const secret = "pass/w ö&rd"
	file := key(t)
	lines := strings.Split(file, "\n")
	for _, c := range []struct{ name, said, want string }{
		{"as it is", "bad password " + secret + " of admin", "bad password … of admin"},
		{"in an address", "bad ?p=pass%2Fw+%C3%B6%26rd", "bad ?p=…"},
		{"as JSON", `bad "pass/w ö\u0026rd"`, `bad "…"`},
		{"as base64", "bad " + base64.StdEncoding.EncodeToString([]byte(secret)), "bad …"},
		{"as a declaration has it", "bad " + base64.RawURLEncoding.EncodeToString([]byte(secret)), "bad …"},
		{"over lines", "bad pass/w\n  ö&rd", "bad …"},
		{"a key", "can't read " + file + " there", "can't read …"},
		{"a key without its head", "can't read " + lines[1] + "\n" + lines[2] + " there", "can't read … … there"},
		{"a key as base64", "can't read '" + base64.StdEncoding.EncodeToString([]byte(file)) + "'", "can't read '…'"},
		{"a long name", "no " + strings.Repeat("aovlb_headquarters_", 5) + " in /Common/" + strings.Repeat("tenant/", 12), "no " + strings.Repeat("aovlb_headquarters_", 5) + " in /Common/" + strings.Repeat("tenant/", 12)},
	} {
		// Both are always known: the one that isn't meant must do no harm.
		if got := Hide(c.said, secret, "", "another"); !strings.HasPrefix(got, strings.TrimSuffix(c.want, "…")) || strings.Contains(c.want, "…") && !strings.Contains(got, "…") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		} else if strings.Contains(got, "rd") && strings.Contains(got, "pass/") || strings.Contains(got, lines[1][30:40]) {
			t.Errorf("%s: it is there: %q", c.name, got)
		}
	}
	if got := Cut(strings.Repeat("ö", 10), 5); got != "öö…" {
		t.Errorf("cut: %q", got)
	}
}

// TestProxyIsNotRepeated: an address of a proxy that nobody can read may have a password.
func TestProxyIsNotRepeated(t *testing.T) {
	_, err := unnamed(nil, errors.New(`invalid proxy address "http://user:Canary%zz@proxy.example.com"`))
	if err == nil || strings.Contains(err.Error(), "Canary") || !strings.Contains(err.Error(), "HTTPS_PROXY") {
		t.Errorf("%v", err)
	}
}
