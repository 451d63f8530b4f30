package npscert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A Severity says how bad a finding is.
type Severity string

const (
	// Fault keeps clients from connecting.
	Fault Severity = "fault"
	// Warning is what may keep some from it, now or later.
	Warning Severity = "warning"
	// Note is worth knowing.
	Note Severity = "note"
)

// A Finding is something about a server's certificate, or about all of them.
type Finding struct {
	Severity Severity `json:"severity"`
	// Code is one word that stays the same, for programs.
	Code string `json:"code"`
	// Text says what is found, Fix what to do about it.
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"`
}

// Expected is what the certificates have to satisfy.
type Expected struct {
	// Cluster is the name that clients' profiles name. It must be set.
	Cluster string
	// ServerNames are the expressions in the profile's ServerNames; none means
	// Cluster.
	ServerNames []string
	// Thumbprints are the profile's TrustedRootCA, SHA-1 in hexadecimal;
	// spaces and colons don't matter. None means any root.
	Thumbprints []string
	// Roots are root certificates that clients trust. Servers needn't send
	// theirs, so without it a chain may be left without an end.
	Roots []*x509.Certificate
	// Now is when the certificates must be valid; zero means now.
	Now time.Time
	// Soon is within what time an end is warned of; 0 means 30 days.
	Soon time.Duration
}

// minBits is the least length of an RSA key (Microsoft's requirements of NPS
// certificates).
const minBits = 2048

// judging is the judgement of one certificate.
type judging struct {
	want  *Expected
	host  string
	chain []*x509.Certificate
	found []Finding
	root  *x509.Certificate
}

func (j *judging) add(s Severity, code, fix, format string, args ...any) {
	j.found = append(j.found, Finding{s, code, fmt.Sprintf(format, args...), fix})
}

// Judge says what is wrong with the chain that a server sends. host is the DNS
// name of the server, or empty. root is where the chain ends, if that is known.
func (e *Expected) Judge(host string, chain []*x509.Certificate) (found []Finding, root *x509.Certificate) {
	j := &judging{want: e, host: host, chain: chain}
	if len(chain) == 0 {
		j.add(Fault, "none", "choose a certificate in the network policy's authentication method", "the server shows no certificate")
		return j.found, nil
	}
	j.subject()
	j.names()
	j.usage()
	j.keys()
	j.validity()
	j.trust()
	return j.found, j.root
}

func (e *Expected) now() time.Time {
	if e.Now.IsZero() {
		return time.Now()
	}
	return e.Now
}

const newRequest = "request a new certificate: aovlb nps request"

func (j *judging) subject() {
	leaf := j.chain[0]
	cn := leaf.Subject.CommonName
	switch {
	case len(leaf.Subject.Names) == 0:
		j.add(Fault, "subject-empty", newRequest, "its subject is empty: NPS doesn't offer such a certificate, and clients can't match its name")
	case cn == "":
		j.add(Fault, "subject-no-name", newRequest, "its subject, %q, has no common name", leaf.Subject)
	case !strings.EqualFold(cn, j.want.Cluster) && j.has(j.want.Cluster):
		j.add(Warning, "subject-other", newRequest, "its subject is %q, and the cluster's name %s is only among the alternative names", cn, j.want.Cluster)
	case !strings.EqualFold(cn, j.want.Cluster):
		j.add(Fault, "subject-other", newRequest, "its subject is %q, and not the cluster's name %s", cn, j.want.Cluster)
	}
	if strings.Contains(cn, "*") {
		j.add(Fault, "wildcard", newRequest, "its subject is a wildcard, which Windows doesn't match for EAP")
	}
}

// has reports whether a DNS name is among the alternative ones.
func (j *judging) has(name string) bool {
	return slices.ContainsFunc(j.chain[0].DNSNames, func(n string) bool { return strings.EqualFold(n, name) })
}

func (j *judging) names() {
	leaf := j.chain[0]
	if len(leaf.DNSNames) == 0 {
		j.add(Fault, "no-names", newRequest, "it has no DNS name among the alternative names")
		return
	}
	if !j.has(j.want.Cluster) {
		j.add(Fault, "no-cluster-name", newRequest, "the cluster's name %s isn't among its alternative names, which are %s", j.want.Cluster, list(leaf.DNSNames))
	}
	if j.host != "" && !strings.EqualFold(j.host, j.want.Cluster) && !j.has(j.host) {
		j.add(Warning, "no-host-name", newRequest, "the server's own name %s isn't among its alternative names", j.host)
	}
	j.profileNames()
}

// profileNames holds the certificate against a profile's ServerNames.
func (j *judging) profileNames() {
	leaf := j.chain[0]
	all := append([]string{leaf.Subject.CommonName}, leaf.DNSNames...)
	if len(j.want.ServerNames) == 0 {
		return
	}
	for _, expr := range j.want.ServerNames {
		re, err := regexp.Compile("(?i)^(?:" + expr + ")$")
		if err != nil {
			j.add(Warning, "profile-expression", "", "the profile's server name %q can't be read as an expression: %v", expr, err)
			continue
		}
		if slices.ContainsFunc(all, re.MatchString) {
			return
		}
	}
	j.add(Fault, "profile-names", "put the cluster's name into the profile's ServerNames, or "+newRequest,
		"none of its names %s is one that the profile expects, %s", list(all), list(j.want.ServerNames))
}

// list quotes names that somebody else has chosen, and not too many of them.
func list(names []string) string {
	const most = 8
	q := make([]string, 0, most)
	for _, n := range names[:min(len(names), most)] {
		q = append(q, fmt.Sprintf("%q", n[:min(len(n), 100)]))
	}
	if len(names) > most {
		q = append(q, fmt.Sprintf("and %d more", len(names)-most))
	}
	return strings.Join(q, ", ")
}

func (j *judging) usage() {
	leaf := j.chain[0]
	const template = "use a template for server authentication: aovlb nps template"
	anyUse := slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
	switch {
	case len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0:
		j.add(Fault, "no-usage", template, "it doesn't say what it is for (no extended key usage); NPS needs server authentication")
	case !anyUse && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		j.add(Fault, "usage", template, "it isn't for server authentication (1.3.6.1.5.5.7.3.1)")
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		j.add(Fault, "key-usage", template, "its key may not sign (key usage), so TLS with ECDHE fails")
	}
	if leaf.IsCA {
		j.add(Fault, "authority", newRequest, "it is the certificate of an authority, and not of a server")
	}
}

// broken are signature algorithms that Windows no longer takes.
func broken(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

func (j *judging) keys() {
	for i, c := range j.chain {
		self := bytes.Equal(c.RawSubject, c.RawIssuer)
		who, fix := "it", newRequest
		if i > 0 {
			who, fix = fmt.Sprintf("%q above it", c.Subject), "renew the authority's certificate"
		}
		switch k := c.PublicKey.(type) {
		case *rsa.PublicKey:
			if n := k.N.BitLen(); n < minBits {
				j.add(Fault, "key-short", fix, "%s has an RSA key of %d bits, and needs %d", who, n, minBits)
			}
		case *ecdsa.PublicKey:
			if i == 0 {
				j.add(Warning, "key-kind", fix, "its key is ECDSA (%s): Microsoft asks for RSA of %d bits or more", k.Curve.Params().Name, minBits)
			}
		default:
			j.add(Fault, "key-kind", fix, "%s has a key of a kind that Windows doesn't take for TLS (%v)", who, c.PublicKeyAlgorithm)
		}
		if broken(c.SignatureAlgorithm) && !(self && i > 0) {
			j.add(Fault, "signature", fix, "%s is signed with %v: SHA-256 is needed", who, c.SignatureAlgorithm)
		}
	}
}

func (j *judging) validity() {
	now, soon := j.want.now(), j.want.Soon
	if soon == 0 {
		soon = 30 * 24 * time.Hour
	}
	for i, c := range j.chain {
		who, fix := "it", "renew it, and choose the new one in the network policy"
		if i > 0 {
			who, fix = fmt.Sprintf("%q above it", c.Subject), "renew the authority's certificate"
		}
		day := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
		switch {
		case now.Before(c.NotBefore):
			j.add(Fault, "not-yet", "wait, or correct the clocks", "%s is valid only from %s on", who, day(c.NotBefore))
		case now.After(c.NotAfter):
			j.add(Fault, "expired", fix, "%s has expired on %s", who, day(c.NotAfter))
		case c.NotAfter.Sub(now) < soon:
			j.add(Warning, "expires-soon", fix, "%s expires on %s", who, day(c.NotAfter))
		}
	}
}

// trust follows the chain to its root.
func (j *judging) trust() {
	leaf := j.chain[0]
	if bytes.Equal(leaf.RawSubject, leaf.RawIssuer) && leaf.CheckSignatureFrom(leaf) == nil || len(j.chain) == 1 && bytes.Equal(leaf.RawSubject, leaf.RawIssuer) {
		j.root = leaf
		j.add(Fault, "self-signed", newRequest, "it is self-signed: each client would have to trust it alone, and lose that when it is renewed")
	} else {
		j.climb()
	}
	j.thumbprints()
}

// climb finds the root, among what was sent or what is trusted.
func (j *judging) climb() {
	const send = "put the issuing authorities' certificates into the server's Intermediate Certification Authorities, and restart NPS"
	at := j.chain[0]
	pool := append(slices.Clone(j.chain[1:]), j.want.Roots...)
	for range len(pool) + 1 {
		if bytes.Equal(at.RawSubject, at.RawIssuer) {
			j.root = at
			break
		}
		k := slices.IndexFunc(pool, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, at.RawIssuer) && at.CheckSignatureFrom(c) == nil
		})
		if k < 0 {
			if len(j.want.Roots) > 0 {
				j.add(Fault, "chain", send, "its chain doesn't lead to a root that is trusted: nothing that was sent has issued %q", at.Subject)
			} else {
				j.add(Note, "root-unknown", "give the root's file with --ca, so that the end of the chain is checked too", "its chain ends below %q, which the server doesn't send", at.Issuer)
			}
			return
		}
		at = pool[k]
	}
	if j.root == nil || len(j.want.Roots) == 0 {
		return
	}
	if !slices.ContainsFunc(j.want.Roots, j.root.Equal) {
		j.add(Fault, "untrusted", newRequest+" from the authority that clients trust", "its root %q isn't one that is trusted", j.root.Subject)
		return
	}
	j.verify(send)
}

// verify has the standard library look at the chain, for what is not looked for
// above: constraints of names and of length.
func (j *judging) verify(fix string) {
	roots, inter := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range j.want.Roots {
		roots.AddCert(c)
	}
	for _, c := range j.chain[1:] {
		inter.AddCert(c)
	}
	_, err := j.chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: j.want.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	said := func(f Finding) bool { return f.Severity == Fault }
	if err != nil && !slices.ContainsFunc(j.found, said) {
		j.add(Fault, "chain", fix, "its chain can't be verified: %v", err)
	}
}

// thumbprints holds the root against a profile's TrustedRootCA.
func (j *judging) thumbprints() {
	if len(j.want.Thumbprints) == 0 {
		return
	}
	if j.root == nil {
		j.add(Warning, "thumbprint-unknown", "give the root's file with --ca", "whether its root has a thumbprint of the profile can't be told, for the root isn't known")
		return
	}
	own := Thumbprint(j.root)
	if !slices.ContainsFunc(j.want.Thumbprints, func(t string) bool { return hexOnly(t) == own }) {
		j.add(Fault, "thumbprint", "put the root's thumbprint into the profile's TrustedRootCA, or "+newRequest+" from the right authority",
			"its root %q has thumbprint %s, which the profile's TrustedRootCA doesn't have", j.root.Subject, own)
	}
}

func hexOnly(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case '0' <= r && r <= '9', 'a' <= r && r <= 'f':
			return r
		case 'A' <= r && r <= 'F':
			return r + 'a' - 'A'
		}
		return -1
	}, s)
}

// oldTLS warns of what clients no longer speak.
func oldTLS(version uint16) (Finding, bool) {
	if version == 0 || version >= tls.VersionTLS12 {
		return Finding{}, false
	}
	return Finding{
		Fault, "tls-old", "let the server speak TLS 1.2: Windows 11 doesn't do older ones",
		"the server speaks " + tls.VersionName(version),
	}, true
}
