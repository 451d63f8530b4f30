package sstp

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
)

// A Bundle is what a file of certificates holds, in the file's own order.
type Bundle struct {
	// Format is what the file was, in words: "PEM", "DER", "PKCS#7" or "PFX".
	Format string
	// Certificates are all there are.
	Certificates []*x509.Certificate
	// Keys are the private keys.
	Keys []crypto.Signer
}

const (
	// MaxBundle bounds a file of certificates, in bytes.
	MaxBundle = 1 << 20
	// maxCertificates bounds how many of them one file may hold.
	maxCertificates = 64
)

// ErrPFX says that a file is a PFX (PKCS#12), which package sstp/pfx reads.
var ErrPFX = errors.New("sstp: the file is a PFX (PKCS#12)")

// ErrEncryptedKey says that a private key needs a password.
var ErrEncryptedKey = errors.New("sstp: the private key is encrypted: decrypt it with openssl pkey -in FILE -out FILE, or use the PFX it came from")

// ParseBundle reads certificates and keys in whatever form they come: PEM, with
// text around it or saved as UTF-16; DER, which Windows calls .cer; and PKCS#7,
// .p7b, in both. For a PFX the error is [ErrPFX]. It never panics, and no error
// holds any of a key.
func ParseBundle(b []byte) (*Bundle, error) {
	if len(b) > MaxBundle {
		return nil, fmt.Errorf("sstp: a file of certificates has at most %d bytes, not %d", MaxBundle, len(b))
	}
	b = fromUTF16(b)
	out := &Bundle{}
	var err error
	switch {
	case bytes.Contains(b, []byte("-----BEGIN ")):
		out.Format = "PEM"
		err = out.readPEM(b)
	case len(bytes.TrimSpace(b)) == 0:
		return nil, errors.New("sstp: the file is empty")
	default:
		err = out.readDER(unarmoured(b))
	}
	switch {
	case err != nil:
		return nil, err
	case len(out.Certificates) == 0 && len(out.Keys) == 0:
		return nil, errors.New("sstp: the file holds neither a certificate nor a key")
	case len(out.Certificates) > maxCertificates:
		return nil, fmt.Errorf("sstp: the file holds %d certificates; a chain has a few", len(out.Certificates))
	}
	return out, nil
}

// fromUTF16 undoes what PowerShell's redirection does to text.
func fromUTF16(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	}
	units := make([]uint16, 0, len(b)/2)
	for b = b[2:]; len(b) >= 2; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	return []byte(string(utf16.Decode(units)))
}

// unarmoured returns DER that was given as bare base64, and anything else as it
// is.
func unarmoured(b []byte) []byte {
	text := strings.Join(strings.Fields(string(b)), "")
	if der, err := base64.StdEncoding.DecodeString(text); err == nil {
		return der
	}
	return b
}

func (u *Bundle) readPEM(b []byte) error {
	for n := 0; ; n++ {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil && n == 0 {
			return errors.New("sstp: the file looks like PEM, but no block of it is whole: is its END line there, and its base64 intact?")
		} else if block == nil {
			return nil
		}
		if err := u.readBlock(block); err != nil {
			return err
		}
		if len(u.Certificates) > maxCertificates {
			return nil // ParseBundle says so
		}
	}
}

func (u *Bundle) readBlock(block *pem.Block) error {
	switch block.Type {
	case "CERTIFICATE", "X509 CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return fmt.Errorf("sstp: certificate %d of the file: %w", len(u.Certificates)+1, err)
		}
		u.Certificates = append(u.Certificates, c)
	case "PKCS7", "CMS":
		u.Format = "PKCS#7"
		return u.readPKCS7(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return ErrEncryptedKey
	case "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY":
		if strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return ErrEncryptedKey
		}
		k, err := parseKey(block.Bytes)
		if err != nil {
			return err
		}
		u.Keys = append(u.Keys, k)
	}
	return nil // parameters, requests and CRLs may stand between
}

// parseKey reads a private key in any of its three forms. Its errors say nothing
// of what is in it.
func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if s, ok := k.(crypto.Signer); ok {
			return s, nil
		}
		return nil, errors.New("sstp: the private key is of a kind that can't sign")
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	return nil, errors.New("sstp: the private key can't be read; it must be RSA or ECDSA, as PKCS#8, PKCS#1 or SEC 1")
}

func (u *Bundle) readDER(der []byte) error {
	u.Format = "DER"
	var outer asn1.RawValue
	rest, err := asn1.Unmarshal(der, &outer)
	switch {
	case err != nil || outer.Tag != asn1.TagSequence || !outer.IsCompound:
		if len(der) > 1 && der[0] == 0x30 && der[1] == 0x80 {
			return errors.New("sstp: the file is BER with an indefinite length; openssl pkcs7 -inform DER -in FILE -print_certs makes PEM of it")
		}
		return errors.New("sstp: the file is neither PEM nor DER: it is no certificate")
	case len(rest) > 0:
		return fmt.Errorf("sstp: %d bytes follow the certificate", len(rest))
	}
	if isPFX(outer.Bytes) {
		return ErrPFX
	}
	if k, err := parseKey(der); err == nil {
		u.Keys = append(u.Keys, k)
		return nil
	}
	if isSignedData(outer.Bytes) {
		u.Format = "PKCS#7"
		return u.readPKCS7(der)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("sstp: the file is DER, but no certificate, key, PKCS#7 or PFX: %w", err)
	}
	u.Certificates = append(u.Certificates, c)
	return nil
}

// isPFX reports whether a SEQUENCE begins as a PFX does: version 3, then data or
// signed data (RFC 7292 §4).
func isPFX(b []byte) bool {
	var version int
	rest, err := asn1.Unmarshal(b, &version)
	if err != nil || version != 3 {
		return false
	}
	var safe struct {
		Type asn1.ObjectIdentifier
		Rest asn1.RawValue `asn1:"optional"`
	}
	_, err = asn1.Unmarshal(rest, &safe)
	return err == nil && (safe.Type.Equal(oidData) || safe.Type.Equal(oidSignedData))
}

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
)

func isSignedData(b []byte) bool {
	var oid asn1.ObjectIdentifier
	_, err := asn1.Unmarshal(b, &oid)
	return err == nil && oid.Equal(oidSignedData)
}

// readPKCS7 takes the certificates of a SignedData (RFC 5652 §5.1), which as
// .p7b signs nothing.
func (u *Bundle) readPKCS7(der []byte) error {
	var info struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil || !info.Type.Equal(oidSignedData) {
		return errors.New("sstp: the PKCS#7 holds no signed data, so no certificates")
	}
	var signed struct {
		Version      int
		Digests      asn1.RawValue
		Content      asn1.RawValue
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		CRLs         asn1.RawValue `asn1:"optional,tag:1"`
		Signers      asn1.RawValue `asn1:"optional"`
	}
	if _, err := asn1.Unmarshal(info.Content.Bytes, &signed); err != nil {
		return fmt.Errorf("sstp: the PKCS#7 can't be read: %w", err)
	}
	list, err := x509.ParseCertificates(signed.Certificates.Bytes)
	if err != nil {
		return fmt.Errorf("sstp: the certificates in the PKCS#7 can't be read: %w", err)
	}
	u.Certificates = append(u.Certificates, list...)
	return nil
}
