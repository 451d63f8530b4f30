package sstp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Gravity says how bad a [CertificateFinding] is.
type Gravity uint8

const (
	// GravityAdvice could be better.
	GravityAdvice Gravity = iota
	// GravityRisk breaks some clients, or all of them soon.
	GravityRisk
	// GravityFatal has clients refuse the connection.
	GravityFatal
)

func (g Gravity) String() string {
	switch g {
	case GravityFatal:
		return "fatal"
	case GravityRisk:
		return "risk"
	}
	return "advice"
}

// MarshalText returns what String does.
func (g Gravity) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// A CertificateFinding is something about a certificate that SSTP clients, or
// their administrators, would stumble over.
type CertificateFinding struct {
	Gravity Gravity `json:"gravity"`
	// Rule names what was looked at: eku, key usage, name, validity, lifetime,
	// key, signature, chain, crl or role.
	Rule string `json:"rule"`
	// Reason says what is the matter, Fix what to do.
	Reason string `json:"reason"`
	Fix    string `json:"fix,omitempty"`
}

// String returns f in one line.
func (f CertificateFinding) String() string {
	text := f.Gravity.String() + ": " + f.Rule + ": " + f.Reason
	if f.Fix != "" {
		text += "; " + f.Fix
	}
	return text
}

// CertificateRules say what a certificate is checked for. The zero value leaves
// out the name and takes the system's roots.
type CertificateRules struct {
	// Name is the host that clients dial; empty skips what depends on it.
	Name string
	// Roots are the CAs that clients trust; nil means those of this system.
	Roots *x509.CertPool
	// Now is when; zero means now.
	Now time.Time
	// Soon is how long before its end a certificate should have been renewed;
	// 0 means a third of its life, or 30 days if that is less.
	Soon time.Duration
}

// Check returns what is wrong with c, worst first.
func (c *Certificate) Check(r CertificateRules) []CertificateFinding {
	k := &checker{cert: c, rules: r, now: r.Now}
	if k.now.IsZero() {
		k.now = time.Now()
	}
	k.eku()
	k.keyUsage()
	k.name()
	k.validity()
	k.key()
	k.signature()
	k.chain()
	k.revocation()
	slices.SortStableFunc(k.found, func(a, b CertificateFinding) int { return cmp.Compare(b.Gravity, a.Gravity) })
	return k.found
}

type checker struct {
	cert  *Certificate
	rules CertificateRules
	now   time.Time
	found []CertificateFinding
}

func (k *checker) add(g Gravity, rule, reason, fix string) {
	k.found = append(k.found, CertificateFinding{Gravity: g, Rule: rule, Reason: reason, Fix: fix})
}

// eku: clients must look for Server Authentication (MS-SSTP §3.2.5.3, and event
// 16 of RasSstp).
func (k *checker) eku() {
	leaf := k.cert.Leaf
	const fix = "issue it anew from a template with Server Authentication, 1.3.6.1.5.5.7.3.1"
	switch {
	case slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth), slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		k.add(GravityRisk, "eku", "it names no extended key usage, and Windows looks for Server Authentication", fix)
	default:
		k.add(GravityFatal, "eku", "its extended key usage lacks Server Authentication: clients refuse it, event 16 of RasSstp", fix)
	}
	if leaf.IsCA {
		k.add(GravityRisk, "role", "it is the certificate of a CA", "show a server's certificate that the CA issues")
	}
}

func (k *checker) keyUsage() {
	if u := k.cert.Leaf.KeyUsage; u != 0 && u&x509.KeyUsageDigitalSignature == 0 {
		k.add(GravityFatal, "key usage", "its key may not sign, and every modern handshake (ECDHE, TLS 1.3) needs a signature",
			"issue it anew with the key usage Digital Signature")
	}
}

func (k *checker) name() {
	leaf, name := k.cert.Leaf, strings.TrimSuffix(k.rules.Name, ".")
	names := namesOf(leaf)
	if len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 {
		k.add(GravityRisk, "name", fmt.Sprintf("it has no subject alternative name, only the common name %q: current clients and proxies look only at the former", leaf.Subject.CommonName),
			"issue it anew with the public name as a DNS name")
	}
	if name == "" {
		return
	}
	err := leaf.VerifyHostname(name)
	if err != nil && len(leaf.DNSNames)+len(leaf.IPAddresses) == 0 && strings.EqualFold(leaf.Subject.CommonName, name) {
		return // Windows takes it; the risk is said above
	}
	if err != nil {
		k.add(GravityFatal, "name", fmt.Sprintf("clients dial %s, and it is for %s", name, strings.Join(names, ", ")),
			"issue it anew with this name, or have the profile dial one that it has")
	}
}

// namesOf returns all that a certificate is for.
func namesOf(x *x509.Certificate) []string {
	names := slices.Clone(x.DNSNames)
	for _, ip := range x.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = append(names, x.Subject.CommonName)
	}
	return names
}

// maxLifetime is what the CA/Browser Forum allowed public CAs at most, since
// September 2020.
const maxLifetime = 398 * 24 * time.Hour

func (k *checker) validity() {
	leaf := k.cert.Leaf
	life, left := leaf.NotAfter.Sub(leaf.NotBefore), leaf.NotAfter.Sub(k.now)
	soon := k.rules.Soon
	if soon == 0 {
		soon = min(life/3, 30*24*time.Hour)
	}
	switch {
	case k.now.Before(leaf.NotBefore):
		k.add(GravityFatal, "validity", "it is valid only from "+day(leaf.NotBefore), "set the clock, or wait")
	case left <= 0:
		k.add(GravityFatal, "validity", "it ended on "+day(leaf.NotAfter), "renew it: aovlb renew")
	case left <= soon:
		k.add(GravityRisk, "validity", fmt.Sprintf("it ends on %s, in %d days", day(leaf.NotAfter), int(left/(24*time.Hour))), "renew it: aovlb renew")
	}
	if life > maxLifetime+24*time.Hour {
		k.add(GravityAdvice, "lifetime", fmt.Sprintf("it lives %d days, more than any public CA may give", int(life/(24*time.Hour))),
			"shorter lives limit what a stolen key is worth; aovlb renews without an outage")
	}
	for _, x := range k.cert.Chain {
		if k.now.After(x.NotAfter) {
			k.add(GravityFatal, "validity", fmt.Sprintf("%s, which is part of its chain, ended on %s", subject(x), day(x.NotAfter)), "get the CA's current chain")
		}
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func (k *checker) key() {
	const advice = "ECDSA P-256 makes handshakes several times cheaper, and every Windows that is supported knows it"
	switch pub := k.cert.Leaf.PublicKey.(type) {
	case *rsa.PublicKey:
		switch n := pub.N.BitLen(); {
		case n < 2048:
			k.add(GravityFatal, "key", fmt.Sprintf("RSA with %d bits is refused by clients", n), "use ECDSA P-256, or RSA with 2048 bits")
		case n > 4096:
			k.add(GravityAdvice, "key", fmt.Sprintf("RSA with %d bits makes handshakes slow", n), advice)
		default:
			k.add(GravityAdvice, "key", fmt.Sprintf("it is RSA with %d bits", n), advice)
		}
	case *ecdsa.PublicKey:
		switch pub.Curve.Params().BitSize {
		case 256, 384:
		case 521:
			k.add(GravityRisk, "key", "P-521 is not enabled in every Windows", "use P-256")
		default:
			k.add(GravityFatal, "key", pub.Curve.Params().Name+" is a curve that Windows doesn't take", "use P-256")
		}
	case ed25519.PublicKey:
		k.add(GravityFatal, "key", "Windows can't verify Ed25519 in TLS", "use ECDSA P-256")
	default:
		k.add(GravityFatal, "key", "its key is of a kind that TLS doesn't know here", "use ECDSA P-256")
	}
}

func (k *checker) signature() {
	for i, x := range append([]*x509.Certificate{k.cert.Leaf}, k.cert.Chain...) {
		if i > 0 && bytes.Equal(x.RawIssuer, x.RawSubject) {
			continue // nobody verifies a root's signature
		}
		switch x.SignatureAlgorithm {
		case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.DSAWithSHA1, x509.MD5WithRSA, x509.MD2WithRSA:
			k.add(GravityFatal, "signature", fmt.Sprintf("%s is signed with %v, which Windows no longer takes", subject(x), x.SignatureAlgorithm),
				"have the CA sign with SHA-256")
		}
	}
}

func (k *checker) chain() {
	c := k.cert
	for _, m := range c.Mended {
		k.add(GravityRisk, "chain", m, "aovlb cert convert writes it as it should be")
	}
	selfSigned := bytes.Equal(c.Leaf.RawIssuer, c.Leaf.RawSubject)
	if selfSigned && k.trusts() != nil {
		k.add(GravityFatal, "chain", "it is self-signed, and not a root that clients trust", "get it from a CA that clients trust")
		return
	}
	if err := k.trusts(); err != nil {
		k.broken(err)
	}
	if n := len(c.Chain); n > 0 && bytes.Equal(c.Chain[n-1].RawIssuer, c.Chain[n-1].RawSubject) {
		k.add(GravityAdvice, "chain", "the root is sent too, which clients ignore", "leave it out: the handshake gets smaller")
	}
}

// trusts returns why the chain doesn't lead to a root, or nil.
func (k *checker) trusts() error {
	opts := x509.VerifyOptions{
		Roots: k.rules.Roots, Intermediates: x509.NewCertPool(),
		// The time and the usage have rules of their own.
		CurrentTime: middle(k.cert.Leaf), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, x := range k.cert.Chain {
		opts.Intermediates.AddCert(x)
	}
	_, err := k.cert.Leaf.Verify(opts)
	return err
}

// middle is a time at which a certificate and those above it are valid.
func middle(x *x509.Certificate) time.Time { return x.NotBefore.Add(x.NotAfter.Sub(x.NotBefore) / 2) }

// broken says why the chain leads nowhere.
func (k *checker) broken(err error) {
	last := k.cert.Leaf
	if n := len(k.cert.Chain); n > 0 {
		last = k.cert.Chain[n-1]
	}
	switch {
	case bytes.Equal(last.RawIssuer, last.RawSubject):
		k.add(GravityRisk, "chain", fmt.Sprintf("its root, %s, isn't trusted here", subject(last)),
			"a private CA is all right if every client has its root; its CRL must be reachable from the Internet")
	case len(last.IssuingCertificateURL) > 0:
		k.add(GravityRisk, "chain", fmt.Sprintf("the chain ends with %s, whose issuer %q isn't there", subject(last), last.Issuer.CommonName),
			"add the issuer's certificate, which is at "+last.IssuingCertificateURL[0])
	default:
		k.add(GravityRisk, "chain", fmt.Sprintf("the chain ends with %s, whose issuer %q is neither there nor trusted here: %v", subject(last), last.Issuer.CommonName, err),
			"add the CA's intermediate certificates behind the server's")
	}
}

// revocation: Windows' client must find the state of the certificate before there
// is a tunnel, and gives up if it can't (unless NoCertRevocationCheck is set).
func (k *checker) revocation() {
	leaf := k.cert.Leaf
	if len(leaf.CRLDistributionPoints) == 0 && len(leaf.OCSPServer) == 0 {
		k.add(GravityRisk, "crl", "it says nowhere whether it is revoked: Windows' SSTP client asks, and fails with 0x80092012 if it can't be told",
			"use a CA that publishes a CRL by http, or set NoCertRevocationCheck=1 on the clients")
		return
	}
	plain := func(s string) bool { return strings.HasPrefix(strings.ToLower(s), "http://") }
	if slices.ContainsFunc(leaf.CRLDistributionPoints, plain) || slices.ContainsFunc(leaf.OCSPServer, plain) {
		for _, p := range leaf.CRLDistributionPoints {
			if u, err := url.Parse(p); err == nil && plain(p) && !strings.Contains(u.Hostname(), ".") {
				k.add(GravityRisk, "crl", fmt.Sprintf("its CRL is at %s, a name that only the inside knows", p), "publish it by a public name")
			}
		}
		return
	}
	k.add(GravityRisk, "crl", fmt.Sprintf("its CRL is only at %s, which a client outside can't read before it has a tunnel", strings.Join(leaf.CRLDistributionPoints, ", ")),
		"publish the CRL by http, at a name that the Internet reaches, and add it to the CA's distribution points")
}

// maxCRL bounds a revocation list, in bytes.
const maxCRL = 32 << 20

// CheckCRL fetches the revocation lists that the leaf names by http, as a client
// outside would, and says what it finds: that one can't be had, is out of date, or
// holds the certificate. A nil client means a plain one; give it a timeout.
func (c *Certificate) CheckCRL(ctx context.Context, client *http.Client) []CertificateFinding {
	if client == nil {
		client = &http.Client{Timeout: 20 * time.Second}
	}
	k := &checker{cert: c, now: time.Now()}
	for _, p := range c.Leaf.CRLDistributionPoints {
		if !strings.HasPrefix(strings.ToLower(p), "http://") {
			continue
		}
		list, err := fetchCRL(ctx, client, p)
		switch {
		case err != nil:
			k.add(GravityFatal, "crl", err.Error(), "publish it where the Internet reaches it: clients fail with 0x80092013 until then")
		case !list.NextUpdate.IsZero() && k.now.After(list.NextUpdate):
			k.add(GravityFatal, "crl", fmt.Sprintf("the CRL at %s ended on %s", p, day(list.NextUpdate)), "have the CA publish a new one: clients fail with 0x80092013 until then")
		case slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(c.Leaf.SerialNumber) == 0 }):
			k.add(GravityFatal, "crl", "it is revoked", "get another: aovlb renew")
		}
	}
	return k.found
}

func fetchCRL(ctx context.Context, client *http.Client, at string) (*x509.RevocationList, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, fmt.Errorf("the CRL at %s can't be asked for: %w", at, err)
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the CRL can't be had: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the CRL at %s can't be had: HTTP status %s", at, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxCRL))
	if err != nil {
		return nil, fmt.Errorf("the CRL at %s can't be read: %w", at, err)
	}
	list, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, fmt.Errorf("what is at %s is no CRL: %w", at, err)
	}
	return list, nil
}

// CheckSet says which of several certificates that one listener could show are
// for the same name: some clients would get one and some the other, by the kinds
// of key they know, while a gateway knows the hash of one alone.
func CheckSet(list []*Certificate) []CertificateFinding {
	k := new(checker)
	for i, a := range list {
		for _, b := range list[:i] {
			if a.Leaf.Equal(b.Leaf) {
				continue
			}
			for _, name := range namesOf(a.Leaf) {
				if b.Leaf.VerifyHostname(name) == nil {
					k.add(GravityFatal, "name", fmt.Sprintf("two certificates are for %s, %v and %v: some clients would be shown one whose hash the gateway doesn't know, and be cut off after they logged in",
						name, a.Leaf.PublicKeyAlgorithm, b.Leaf.PublicKeyAlgorithm), "keep one certificate for each name")
					break
				}
			}
		}
	}
	return k.found
}
