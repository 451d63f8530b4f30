package npscert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const cluster = "nps.corp.example"

// keys are made once: RSA keys take time.
var keys = sync.OnceValue(func() map[string]crypto.Signer {
	all := map[string]crypto.Signer{}
	for name, bits := range map[string]int{"root": 2048, "other": 2048, "inter": 2048, "leaf": 2048, "short": 1024} {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			panic(err)
		}
		all[name] = k
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	all["ecdsa"] = k
	return all
})

type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func issue(t testing.TB, c *x509.Certificate, key string, by *issuer) *x509.Certificate {
	t.Helper()
	c.SerialNumber = big.NewInt(7)
	k := keys()[key]
	if by == nil {
		by = &issuer{c, k}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, k.Public(), by.key)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func authority(t testing.TB, name, key string, by *issuer) *issuer {
	return &issuer{issue(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, key, by), keys()[key]}
}

// good is what a certificate should be.
func good() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: cluster}, DNSNames: []string{cluster, "nps1.corp.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(900 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

func TestJudge(t *testing.T) {
	root, other := authority(t, "root", "root", nil), authority(t, "other root", "other", nil)
	inter := authority(t, "intermediate", "inter", root)
	roots := []*x509.Certificate{root.cert}
	tests := []struct {
		name   string
		change func(c *x509.Certificate)
		key    string
		by     *issuer
		sent   []*x509.Certificate // besides it
		want   Expected
		codes  string // faults and warnings
	}{
		{name: "good", by: inter, sent: []*x509.Certificate{inter.cert}, want: Expected{Roots: roots}},
		{name: "good, from the root", by: root, want: Expected{Roots: roots, Thumbprints: []string{strings.ToUpper(Thumbprint(root.cert))}}},
		{name: "good, root sent", by: inter, sent: []*x509.Certificate{inter.cert, root.cert}, want: Expected{Thumbprints: []string{Thumbprint(root.cert)}}},
		{name: "root not known", by: inter, sent: []*x509.Certificate{inter.cert}, codes: "root-unknown"},
		{name: "no subject", change: func(c *x509.Certificate) { c.Subject = pkix.Name{} }, codes: "root-unknown subject-empty"},
		{name: "no common name", change: func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"x"}} }, codes: "root-unknown subject-no-name"},
		{name: "own name as subject", change: func(c *x509.Certificate) { c.Subject.CommonName = "nps1.corp.example" }, codes: "root-unknown subject-other"},
		{name: "another's name", change: func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "x.example", []string{"x.example"}
		}, codes: "no-cluster-name no-host-name root-unknown subject-other"},
		{name: "wildcard", change: func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "*.corp.example", []string{cluster, "*.corp.example"}
		}, codes: "no-host-name root-unknown subject-other wildcard"},
		{name: "no names", change: func(c *x509.Certificate) { c.DNSNames = nil }, codes: "no-names root-unknown"},
		{name: "not the host's name", change: func(c *x509.Certificate) { c.DNSNames = []string{strings.ToUpper(cluster)} }, codes: "no-host-name root-unknown"},
		{name: "client's certificate", change: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, want: Expected{Roots: roots}, by: root, codes: "usage"},
		{name: "for nothing", change: func(c *x509.Certificate) { c.ExtKeyUsage = nil }, codes: "no-usage root-unknown"},
		{name: "may not sign", change: func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, codes: "key-usage root-unknown"},
		{name: "short key", key: "short", codes: "key-short root-unknown"},
		{name: "ECDSA", key: "ecdsa", codes: "key-kind root-unknown"},
		{name: "expired", change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, by: root, want: Expected{Roots: roots}, codes: "expired"},
		{name: "not yet", change: func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, codes: "not-yet root-unknown"},
		{name: "expires soon", change: func(c *x509.Certificate) { c.NotAfter = time.Now().Add(time.Hour) }, codes: "expires-soon root-unknown"},
		{name: "an authority", change: func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, codes: "authority root-unknown"},
		{name: "self-signed", by: &issuer{}, codes: "self-signed"},
		{name: "intermediate not sent", by: inter, want: Expected{Roots: roots}, codes: "chain"},
		{name: "another root", by: other, sent: []*x509.Certificate{other.cert}, want: Expected{Roots: roots}, codes: "untrusted"},
		{name: "another thumbprint", by: root, sent: []*x509.Certificate{root.cert}, want: Expected{Thumbprints: []string{"00"}}, codes: "thumbprint"},
		{name: "thumbprint of a root not known", by: inter, want: Expected{Thumbprints: []string{"00"}}, codes: "root-unknown thumbprint-unknown"},
		{name: "profile's expression", by: root, want: Expected{Roots: roots, ServerNames: []string{"x", `nps\d?\.corp\.example`}}},
		{name: "profile's other name", by: root, want: Expected{Roots: roots, ServerNames: []string{"nps.corp"}}, codes: "profile-names"},
		{name: "profile's wrong expression", by: root, want: Expected{Roots: roots, ServerNames: []string{"(", cluster}}, codes: "profile-expression"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			if tt.change != nil {
				tt.change(c)
			}
			key, by := tt.key, tt.by
			if key == "" {
				key = "leaf"
			}
			if by == nil {
				by = inter
			}
			if by.cert == nil {
				by = nil
			}
			tt.want.Cluster = cluster
			found, _ := tt.want.Judge("nps1.corp.example", append([]*x509.Certificate{issue(t, c, key, by)}, tt.sent...))
			var codes []string
			for _, f := range found {
				codes = append(codes, f.Code)
				if f.Severity == Fault && f.Fix == "" {
					t.Errorf("%s: no way to mend it", f.Code)
				}
			}
			slices.Sort(codes)
			if got := strings.Join(codes, " "); got != tt.codes {
				t.Errorf("found %q, want %q: %+v", got, tt.codes, found)
			}
		})
	}
	if found, _ := (&Expected{Cluster: cluster}).Judge("", nil); len(found) != 1 || found[0].Code != "none" {
		t.Errorf("without a certificate: %+v", found)
	}
}

// SHA-1 can't be made any more by the standard library; what is judged is the field.
func TestBroken(t *testing.T) {
	root := authority(t, "root", "root", nil)
	leaf := issue(t, good(), "leaf", root)
	leaf.SignatureAlgorithm = x509.SHA1WithRSA
	found, _ := (&Expected{Cluster: cluster}).Judge("", []*x509.Certificate{leaf, root.cert})
	if !slices.ContainsFunc(found, func(f Finding) bool { return f.Code == "signature" }) {
		t.Errorf("%+v", found)
	}
}

func TestReadProfile(t *testing.T) {
	const xml = `<VPNProfile><NativeProfile><Authentication><Eap><Configuration><EapHostConfig xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><Config><Eap xmlns="x"><ServerValidation>
<ServerNames>nps.corp.example; nps2.corp.example</ServerNames><TrustedRootCA>AA bb 0c </TrustedRootCA></ServerValidation></Eap><ServerValidation><ServerNames>nps.corp.example</ServerNames></ServerValidation></Config></EapHostConfig></Configuration></Eap></Authentication></NativeProfile></VPNProfile>`
	names, prints, err := ReadProfile(strings.NewReader(xml))
	if err != nil || !slices.Equal(names, []string{"nps.corp.example", "nps2.corp.example"}) || !slices.Equal(prints, []string{"aabb0c"}) {
		t.Errorf("%q %q %v", names, prints, err)
	}
	for _, bad := range []string{"", "<a/>", "<a>", "{}"} {
		if _, _, err := ReadProfile(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is taken for a profile", bad)
		}
	}
}

func FuzzReadProfile(f *testing.F) {
	f.Add("<a><ServerNames>x;y</ServerNames><TrustedRootCA>00</TrustedRootCA></a>")
	f.Fuzz(func(_ *testing.T, s string) { _, _, _ = ReadProfile(strings.NewReader(s)) }) // it must end, and not panic
}
