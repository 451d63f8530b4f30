package kemp

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/aovlb/aovlb/plugins"
)

// maxPEM bounds a certificate's files, in bytes.
const maxPEM = 1 << 20

// leafOf returns the first certificate of a PEM text.
func leafOf(text []byte) (*x509.Certificate, error) {
	for rest := text; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return nil, errors.New("there is no certificate in PEM")
		}
		if b.Type == "CERTIFICATE" {
			return x509.ParseCertificate(b.Bytes)
		}
	}
}

func sumOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// sums returns the SHA-256 of the certificates that come from files.
func (r *renderer) readSums() error {
	r.sums = make(map[string]string)
	for i := range r.site.Certificates {
		c := &r.site.Certificates[i]
		if c.ACME != nil {
			continue
		}
		text, err := readFile(c.CertFile, maxPEM)
		if err != nil {
			return fmt.Errorf("certificate %s: %w", c.Name, err)
		}
		leaf, err := leafOf(text)
		if err != nil {
			return fmt.Errorf("certificate %s: %s: %w", c.Name, c.CertFile, err)
		}
		r.sums[r.certificateName(c)] = sumOf(leaf)
	}
	return nil
}

// bundle returns a certificate, its chain and its key, as the LoadMaster takes them.
// An error never holds any of the key.
func bundle(c *plugins.Certificate) ([]byte, error) {
	text, err := readFile(c.CertFile, maxPEM)
	if err != nil {
		return nil, err
	}
	keys := text
	if c.KeyFile != "" {
		if keys, err = readFile(c.KeyFile, maxPEM); err != nil {
			return nil, err
		}
	}
	if _, err := tls.X509KeyPair(text, keys); err != nil {
		return nil, fmt.Errorf("%s and its key can't be used: they must be PEM, without a password, and belong together", c.CertFile)
	}
	var out bytes.Buffer
	copyBlocks(&out, text, func(kind string) bool { return kind == "CERTIFICATE" })
	copyBlocks(&out, keys, func(kind string) bool { return kind != "CERTIFICATE" && kind != "EC PARAMETERS" })
	return out.Bytes(), nil
}

func copyBlocks(out *bytes.Buffer, text []byte, want func(kind string) bool) {
	for {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			return
		}
		if want(b.Type) {
			out.Write(pem.EncodeToMemory(b))
		}
	}
}
