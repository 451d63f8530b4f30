package radsec

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Fingerprint is the SHA-256 of a certificate.
type Fingerprint [sha256.Size]byte

// ParseFingerprint reads 64 hexadecimal digits. Colons and spaces between them
// don't matter.
func ParseFingerprint(s string) (Fingerprint, error) {
	b, err := hex.DecodeString(strings.NewReplacer(":", "", " ", "").Replace(s))
	if err != nil || len(b) != sha256.Size {
		return Fingerprint{}, fmt.Errorf("radsec: %q isn't the SHA-256 of a certificate, 64 hexadecimal digits", s)
	}
	return Fingerprint(b), nil
}

func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// FingerprintOf returns that of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// A Peer says by what certificate somebody is known. One with a Fingerprint
// listed is known by that alone. Else its chain must lead to one of the roots, and
// one of its names be listed.
type Peer struct {
	// Names are DNS names or IP addresses, of which one must be among the
	// certificate's alternative names. The common name isn't looked at.
	Names []string
	// Fingerprints are those of certificates that need no chain.
	Fingerprints []Fingerprint
}

// ErrUnknown says that a certificate is nobody's.
var ErrUnknown = errors.New("radsec: certificate of nobody who is known")

// verify checks the chain that the other side has shown.
func (p *Peer) verify(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	if len(chain) == 0 {
		return fmt.Errorf("%w: there is none", ErrUnknown)
	}
	leaf := chain[0]
	if slices.Contains(p.Fingerprints, FingerprintOf(leaf)) {
		if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
			return errors.New("radsec: the certificate isn't valid now")
		}
		return nil
	}
	if len(p.Names) == 0 {
		return fmt.Errorf("%w: its fingerprint is %v", ErrUnknown, FingerprintOf(leaf))
	}
	if !slices.ContainsFunc(p.Names, func(n string) bool { return leaf.VerifyHostname(n) == nil }) {
		return fmt.Errorf("%w: its names are %.300q", ErrUnknown, append(slices.Clone(leaf.DNSNames), addresses(leaf)...))
	}
	return chained(chain, roots, usage, now)
}

// roots returns those that are to be used now.
func roots(fixed *x509.CertPool, get func() *x509.CertPool) *x509.CertPool {
	if get != nil {
		return get()
	}
	return fixed
}

func addresses(c *x509.Certificate) (all []string) {
	for _, ip := range c.IPAddresses {
		all = append(all, ip.String())
	}
	return all
}

// chained verifies that a chain leads to a root.
func chained(chain []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage, now time.Time) error {
	if roots == nil {
		return errors.New("radsec: there are no roots to check names with; only fingerprints are known")
	}
	inter := x509.NewCertPool()
	for _, c := range chain[1:] {
		inter.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("radsec: certificate: %w", err)
	}
	return nil
}

// base is what both sides have in common.
func base(certs []tls.Certificate) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certs, NextProtos: nil}
}
