package sstp

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// A Certificate is a server's certificate with its chain, in the order in which
// TLS sends it.
type Certificate struct {
	// Leaf is the server's own. SSTP binds tunnels to its hash.
	Leaf *x509.Certificate
	// Chain is what leads from it to a root, issuer after issuer.
	Chain []*x509.Certificate
	// Key belongs to Leaf; nil if it isn't known.
	Key crypto.Signer
	// Mended says in words what was wrong with the order of the files, and was
	// put right.
	Mended []string
}

// NewCertificate puts together what several files hold: the certificate, its
// key, its intermediates. The leaf is the certificate that the key belongs to, or
// without a key the one that issued none of the others. Chains are put in order,
// and what doesn't belong to them is left out; Mended says so.
func NewCertificate(bundles ...*Bundle) (*Certificate, error) {
	var certs []*x509.Certificate
	var keys []crypto.Signer
	for _, b := range bundles {
		certs, keys = append(certs, b.Certificates...), append(keys, b.Keys...)
	}
	out := new(Certificate)
	if len(certs) == 0 {
		return nil, errors.New("sstp: there is a key, but no certificate")
	}
	if err := out.findLeaf(certs, keys); err != nil {
		return nil, err
	}
	out.order(certs)
	return out, nil
}

// findLeaf sets Leaf and Key.
func (c *Certificate) findLeaf(certs []*x509.Certificate, keys []crypto.Signer) error {
	for _, k := range keys {
		for _, x := range certs {
			if !belongs(k, x) {
				continue
			}
			if c.Leaf != nil && !c.Leaf.Equal(x) {
				return fmt.Errorf("sstp: there are two certificates with keys, for %v and for %v: a listener shows one", subject(c.Leaf), subject(x))
			}
			c.Leaf, c.Key = x, k
		}
	}
	if c.Leaf != nil {
		for _, y := range certs {
			if c.Leaf.IsCA && !y.IsCA && isIssuer(c.Leaf, y) {
				return fmt.Errorf("sstp: the private key is that of the CA %v, not of the certificate for %v", subject(c.Leaf), subject(y))
			}
		}
		return nil
	}
	if len(keys) > 0 {
		return errors.New("sstp: the private key belongs to none of the certificates")
	}
	var ends []*x509.Certificate
	for _, x := range certs {
		issued := slices.ContainsFunc(certs, func(y *x509.Certificate) bool { return !y.Equal(x) && isIssuer(x, y) })
		if !issued && !slices.ContainsFunc(ends, x.Equal) {
			ends = append(ends, x)
		}
	}
	if servers := slices.DeleteFunc(slices.Clone(ends), func(x *x509.Certificate) bool { return x.IsCA }); len(servers) > 0 {
		ends = servers
	}
	switch len(ends) {
	case 0:
		return errors.New("sstp: the certificates issued each other in a circle")
	case 1:
		c.Leaf = ends[0]
		return nil
	}
	return fmt.Errorf("sstp: it can't be told which certificate is the server's, %v or %v: leave one out, or add its key", subject(ends[0]), subject(ends[1]))
}

// order sets Chain and Mended.
func (c *Certificate) order(certs []*x509.Certificate) {
	at := c.Leaf
	for !bytes.Equal(at.RawIssuer, at.RawSubject) {
		i := slices.IndexFunc(certs, func(x *x509.Certificate) bool {
			return !x.Equal(c.Leaf) && !slices.ContainsFunc(c.Chain, x.Equal) && isIssuer(x, at)
		})
		if i < 0 {
			break
		}
		at = certs[i]
		c.Chain = append(c.Chain, at)
	}
	want := append([]*x509.Certificate{c.Leaf}, c.Chain...)
	var got []*x509.Certificate
	for _, x := range certs {
		switch {
		case slices.ContainsFunc(got, x.Equal):
			c.Mended = append(c.Mended, fmt.Sprintf("the certificate of %v is there twice", subject(x)))
		case !slices.ContainsFunc(want, x.Equal):
			c.Mended = append(c.Mended, fmt.Sprintf("the certificate of %v isn't part of the chain and is left out", subject(x)))
		default:
			got = append(got, x)
		}
	}
	if !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
		c.Mended = append(c.Mended, "the chain is in the wrong order: the server's certificate comes first, then the issuer of each")
	}
}

// belongs reports whether k is the private key of x.
func belongs(k crypto.Signer, x *x509.Certificate) bool {
	pub, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && pub.Equal(x.PublicKey)
}

// isIssuer reports whether x issued y.
func isIssuer(x, y *x509.Certificate) bool {
	return bytes.Equal(x.RawSubject, y.RawIssuer) && y.CheckSignatureFrom(x) == nil
}

// subject says who a certificate is for.
func subject(x *x509.Certificate) string {
	switch {
	case len(x.DNSNames) > 0:
		return x.DNSNames[0]
	case x.Subject.CommonName != "":
		return x.Subject.CommonName
	case len(x.IPAddresses) > 0:
		return x.IPAddresses[0].String()
	}
	return "serial number " + x.SerialNumber.Text(16)
}

// SHA256 returns what a gateway's SHA256CertificateHash must be.
func (c *Certificate) SHA256() Fingerprint { return FingerprintOf(c.Leaf.Raw) }

// SHA1 returns what a gateway's SHA1CertificateHash would be.
func (c *Certificate) SHA1() FingerprintSHA1 { return FingerprintSHA1Of(c.Leaf.Raw) }

// TLS returns c as crypto/tls takes it. It can't be served without a Key.
func (c *Certificate) TLS() tls.Certificate {
	out := tls.Certificate{Leaf: c.Leaf, Certificate: [][]byte{c.Leaf.Raw}}
	if c.Key != nil {
		out.PrivateKey = c.Key
	}
	for _, x := range c.Chain {
		out.Certificate = append(out.Certificate, x.Raw)
	}
	return out
}

// CertificateOf returns a tls.Certificate as a Certificate.
func CertificateOf(t *tls.Certificate) (*Certificate, error) {
	if len(t.Certificate) == 0 {
		return nil, errors.New("sstp: no certificate")
	}
	out := new(Certificate)
	for i, der := range t.Certificate {
		x, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("sstp: certificate %d of the chain: %w", i+1, err)
		}
		if i == 0 {
			out.Leaf = x
		} else {
			out.Chain = append(out.Chain, x)
		}
	}
	if s, ok := t.PrivateKey.(crypto.Signer); ok {
		out.Key = s
	}
	return out, nil
}

// ChainPEM returns the leaf and its chain as PEM, which is what every other
// program takes.
func (c *Certificate) ChainPEM() []byte {
	var b bytes.Buffer
	for _, x := range append([]*x509.Certificate{c.Leaf}, c.Chain...) {
		// A bytes.Buffer takes everything.
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: x.Raw})
	}
	return b.Bytes()
}

// KeyPEM returns the private key as PEM, PKCS#8. It is a secret.
func (c *Certificate) KeyPEM() ([]byte, error) {
	if c.Key == nil {
		return nil, errors.New("sstp: the private key isn't known")
	}
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, errors.New("sstp: the private key is of a kind that can't be written")
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
