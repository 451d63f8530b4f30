// Package pfx reads PFX files (PKCS#12, .pfx and .p12), in which Windows exports
// a certificate together with its key. It is a package of its own because the
// standard library can't read them.
package pfx

import (
	"crypto"
	"errors"
	"fmt"

	pkcs12 "software.sslmate.com/src/go-pkcs12"

	"github.com/aovlb/aovlb/sstp"
)

// ErrPassword says that the password is wrong, or that there is none and one is
// needed.
var ErrPassword = errors.New("pfx: the password is wrong")

// Parse reads a PFX, protected in any of the ways that Windows and OpenSSL have:
// 3DES and RC2 with SHA-1, or AES with SHA-256. An empty password is right for
// files that have none. No error holds any of the password or the key.
//
// A file that wants its password hashed more than 5,000,000 times in all is refused,
// as far as that can be read before it is decrypted.
func Parse(b []byte, password string) (*sstp.Bundle, error) { return parse(b, password, maxWork) }

func parse(b []byte, password string, most int64) (*sstp.Bundle, error) {
	if len(b) > sstp.MaxBundle {
		return nil, fmt.Errorf("pfx: a file has at most %d bytes, not %d", sstp.MaxBundle, len(b))
	}
	if err := checkWork(b, most); err != nil {
		return nil, err
	}
	key, leaf, chain, err := pkcs12.DecodeChain(b, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, ErrPassword
	case err != nil:
		// Without a key it may be a store of trusted certificates.
		if list, storeErr := pkcs12.DecodeTrustStore(b, password); storeErr == nil {
			return &sstp.Bundle{Format: "PFX", Certificates: list}, nil
		}
		return nil, fmt.Errorf("pfx: it can't be read: %w", err)
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("pfx: its key is of a kind that can't sign")
	}
	out := &sstp.Bundle{Format: "PFX", Keys: []crypto.Signer{s}}
	out.Certificates = append(append(out.Certificates, leaf), chain...)
	return out, nil
}
