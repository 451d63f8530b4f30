package sstp

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Leaves chooses the certificate that the gateway expects. A [Terminator] asks
// for it in each TLS handshake, after it has chosen the gateway: SSTP binds a
// tunnel to the certificate that its client saw, and a gateway knows one hash.
type Leaves interface {
	// Leaf returns the certificate for clients of the backend of this name, or
	// an error if there is none, which ends the handshake. The backend is "" for
	// a connection that goes to none, to a web site of the listener say. It is
	// called from many goroutines at once, and must not keep hello.
	Leaf(backend string, hello *tls.ClientHelloInfo) (*tls.Certificate, error)
}

// LeavesFunc is a function as Leaves.
type LeavesFunc func(backend string, hello *tls.ClientHelloInfo) (*tls.Certificate, error)

// Leaf calls f.
func (f LeavesFunc) Leaf(backend string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f(backend, hello)
}

// OneLeaf is the Leaves of a listener that has one certificate for all gateways.
type OneLeaf struct {
	Certificate tls.Certificate
}

// Leaf returns the Certificate.
func (l *OneLeaf) Leaf(string, *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if len(l.Certificate.Certificate) == 0 {
		return nil, errors.New("sstp: no certificate")
	}
	return &l.Certificate, nil
}

// A Fingerprint is the SHA-256 over the DER of a leaf certificate: what Windows
// calls SHA256CertificateHash. The zero Fingerprint is that of no certificate.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the Fingerprint of the certificate whose DER this is.
func FingerprintOf(der []byte) Fingerprint { return sha256.Sum256(der) }

// String returns the hash as 64 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// IsZero reports whether f is that of no certificate.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// MarshalText returns the Fingerprint as String does, and nothing for zero.
func (f Fingerprint) MarshalText() ([]byte, error) {
	if f.IsZero() {
		return nil, nil
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads what [ParseFingerprint] does, and nothing as zero.
func (f *Fingerprint) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*f = Fingerprint{}
		return nil
	}
	p, err := ParseFingerprint(string(b))
	if err != nil {
		return err
	}
	*f = p
	return nil
}

// ParseFingerprint reads 64 hexadecimal digits, of either case. Colons, blanks
// and dashes between them are passed over, as tools and Windows' own dialogs
// put them there.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	err := parseHash(f[:], s, "SHA-256")
	return f, err
}

// A FingerprintSHA1 is the SHA-1 over the DER of a leaf certificate: Windows'
// SHA1CertificateHash, or thumbprint. Old clients bind their tunnels to it.
type FingerprintSHA1 [sha1.Size]byte

// FingerprintSHA1Of returns the SHA-1 of the certificate whose DER this is.
func FingerprintSHA1Of(der []byte) FingerprintSHA1 { return sha1.Sum(der) }

// String returns the hash as 40 hexadecimal digits.
func (f FingerprintSHA1) String() string { return hex.EncodeToString(f[:]) }

// IsZero reports whether f is that of no certificate.
func (f FingerprintSHA1) IsZero() bool { return f == FingerprintSHA1{} }

// MarshalText returns the FingerprintSHA1 as String does, and nothing for zero.
func (f FingerprintSHA1) MarshalText() ([]byte, error) {
	if f.IsZero() {
		return nil, nil
	}
	return []byte(f.String()), nil
}

// UnmarshalText reads what [ParseFingerprintSHA1] does, and nothing as zero.
func (f *FingerprintSHA1) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*f = FingerprintSHA1{}
		return nil
	}
	p, err := ParseFingerprintSHA1(string(b))
	if err != nil {
		return err
	}
	*f = p
	return nil
}

// ParseFingerprintSHA1 reads 40 hexadecimal digits as [ParseFingerprint] does 64.
func ParseFingerprintSHA1(s string) (FingerprintSHA1, error) {
	var f FingerprintSHA1
	err := parseHash(f[:], s, "SHA-1")
	return f, err
}

// separators are what stands between the digits of a hash, the invisible mark
// included that Windows' certificate dialog puts before a thumbprint.
var separators = strings.NewReplacer(":", "", " ", "", "-", "", "\t", "", "\r", "", "\n", "", "\u200e", "")

func parseHash(to []byte, s, kind string) error {
	digits := separators.Replace(s)
	b, err := hex.DecodeString(digits)
	if err != nil {
		return fmt.Errorf("sstp: a %s hash is %d hexadecimal digits: %w", kind, 2*len(to), err)
	}
	if len(b) != len(to) {
		return fmt.Errorf("sstp: a %s hash has %d hexadecimal digits, not %d", kind, 2*len(to), len(digits))
	}
	copy(to, b)
	return nil
}
