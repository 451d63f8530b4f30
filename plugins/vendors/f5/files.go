package f5

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/aovlb/aovlb/plugins"
)

// disk has files be what they are.
type disk struct{}

func (disk) secret(s plugins.Secret) (value, shown string, err error) {
	b, err := s.Read()
	return string(b), placeholder(s), err
}

// certificate reads a certificate and its key, which must belong together.
func (disk) certificate(c *plugins.Certificate) (cert, chain, key string, err error) {
	certs, err := readFile(c.CertFile)
	if err != nil {
		return "", "", "", err
	}
	keyFile := cmp.Or(c.KeyFile, c.CertFile)
	keys, err := readFile(keyFile)
	if err != nil {
		return "", "", "", err
	}
	if _, err := tls.X509KeyPair(certs, keys); err != nil {
		return "", "", "", fmt.Errorf("%s and %s: it takes a certificate and its key as PEM: %w", c.CertFile, keyFile, err)
	}
	for rest := certs; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		switch text := string(pem.EncodeToMemory(&pem.Block{Type: b.Type, Bytes: b.Bytes})); {
		case b.Type != "CERTIFICATE":
		case cert == "":
			cert = text
		default:
			chain += text
		}
	}
	for rest := keys; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return "", "", "", fmt.Errorf("%s holds no private key", keyFile)
		}
		if b.Type == "PRIVATE KEY" || b.Type == "RSA PRIVATE KEY" || b.Type == "EC PRIVATE KEY" {
			return cert, chain, string(pem.EncodeToMemory(b)), nil
		}
	}
}

func (disk) bundle(name string) (string, error) {
	b, err := readFile(name)
	if err == nil && !bytes.Contains(b, []byte("-----BEGIN CERTIFICATE-----")) {
		err = fmt.Errorf("%s holds no certificate as PEM", name)
	}
	return string(b), err
}

// maxFile bounds a file of certificates, in bytes.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, errors.New(name + " isn't a file of at most 1 MiB")
	}
	return os.ReadFile(name)
}

// paper has placeholders be what files are.
type paper struct{}

func (paper) secret(s plugins.Secret) (value, shown string, err error) {
	return placeholder(s), placeholder(s), nil
}

func (paper) certificate(c *plugins.Certificate) (cert, chain, key string, err error) {
	return "the certificate in " + c.CertFile, "", "the private key in " + cmp.Or(c.KeyFile, c.CertFile), nil
}

func (paper) bundle(name string) (string, error) { return "the certificates in " + name, nil }

// placeholder stands for a secret where it may be seen.
func placeholder(s plugins.Secret) string { return "<the secret in " + s.String() + ">" }
