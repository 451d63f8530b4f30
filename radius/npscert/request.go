package npscert

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const (
	// DefaultBits is how long a key is, in bits.
	DefaultBits = 2048
	// DefaultTemplate is the name of the template that Template adds.
	DefaultTemplate = "AovlbNPS"
)

// A Request says what certificate an NPS server needs.
type Request struct {
	// Cluster is the name that clients' profiles name: that of the whole
	// cluster, up to 64 bytes. It becomes the subject.
	Cluster string
	// Hosts are the DNS names of the servers. An INF file and a PKCS #10 are
	// for one server; PowerShell may be for all, and runs on each.
	Hosts []string
	// More are further DNS names.
	More []string
	// Bits is the length of the RSA key, 2048 to 8192; 0 means DefaultBits.
	Bits int
	// Template is the name of the template at AD CS; empty means
	// DefaultTemplate. A PKCS #10 has none.
	Template string
	// FriendlyName is what the certificate is called on the server; empty
	// means "NPS " and the cluster's name.
	FriendlyName string
}

// Names returns the DNS names of the certificate for a host: the cluster's, its
// own, and More.
func (r *Request) Names(host string) []string {
	var names []string
	for _, n := range append([]string{r.Cluster, host}, r.More...) {
		if !slices.ContainsFunc(names, func(o string) bool { return strings.EqualFold(o, n) }) {
			names = append(names, n)
		}
	}
	return names
}

func (r *Request) bits() int        { return cmp.Or(r.Bits, DefaultBits) }
func (r *Request) template() string { return cmp.Or(r.Template, DefaultTemplate) }
func (r *Request) friendly() string { return cmp.Or(r.FriendlyName, "NPS "+r.Cluster) }

// check says all that is wrong. most is how many hosts there may be.
func (r *Request) check(most int) error {
	errs := []error{commonName("the cluster's name", r.Cluster), templateName(r.template()), text("the friendly name", r.friendly())}
	for _, h := range r.Hosts {
		errs = append(errs, dnsName("a host's name", h))
	}
	for _, n := range r.More {
		errs = append(errs, dnsName("a further name", n))
	}
	switch {
	case len(r.Hosts) == 0:
		errs = append(errs, errors.New("npscert: no host is named"))
	case len(r.Hosts) > most:
		errs = append(errs, fmt.Errorf("npscert: %d hosts are named, and this is for %d", len(r.Hosts), most))
	}
	if b := r.bits(); b < 2048 || b > 8192 {
		errs = append(errs, fmt.Errorf("npscert: a key of %d bits: it must be 2048 to 8192", b))
	}
	return errors.Join(errs...)
}

// INF makes an INF file for certreq -new on the one server in Hosts.
func (r *Request) INF() ([]byte, error) {
	if err := r.check(1); err != nil {
		return nil, err
	}
	friendly, err := inf(r.friendly())
	if err != nil {
		return nil, err
	}
	for _, c := range r.FriendlyName {
		if c > 0x7e {
			return nil, fmt.Errorf("npscert: the friendly name %q isn't ASCII, which certreq may misread in a file", r.FriendlyName)
		}
	}
	names := r.Names(r.Hosts[0])
	var b strings.Builder
	fmt.Fprintf(&b, "; For certreq on %s, as administrator:\n;   certreq -new nps.inf nps.req\n", r.Hosts[0])
	b.WriteString(";   certreq -submit nps.req nps.cer\n;   certreq -accept nps.cer\n")
	b.WriteString("[Version]\nSignature = \"$Windows NT$\"\n\n[NewRequest]\n")
	fmt.Fprintf(&b, "Subject = \"CN=%s\"\nFriendlyName = %s\n", r.Cluster, friendly)
	fmt.Fprintf(&b, "KeyAlgorithm = RSA\nKeyLength = %d\nHashAlgorithm = SHA256\n", r.bits())
	b.WriteString("ProviderName = \"Microsoft RSA SChannel Cryptographic Provider\"\nProviderType = 12\nKeySpec = 1\n" +
		"KeyUsage = 0xA0\nMachineKeySet = TRUE\nExportable = FALSE\nRequestType = PKCS10\nSilent = TRUE\n\n")
	b.WriteString("[EnhancedKeyUsageExtension]\nOID = 1.3.6.1.5.5.7.3.1\n\n[Extensions]\n2.5.29.17 = \"{text}\"\n")
	for i, n := range names {
		end := "&"
		if i == len(names)-1 {
			end = ""
		}
		fmt.Fprintf(&b, "_continue_ = \"dns=%s%s\"\n", n, end)
	}
	fmt.Fprintf(&b, "\n[RequestAttributes]\nCertificateTemplate = \"%s\"\n", r.template())
	return crlf(b.String()), nil
}

// oidEKU and serverAuth are the extended key usage of servers (RFC 5280 §4.2.1.12).
var (
	oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidEKU      = asn1.ObjectIdentifier{2, 5, 29, 37}
	serverAuth  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 1}
)

// PKCS10 makes a certificate request for the one server in Hosts, and its key,
// both in PEM, for an authority that isn't AD CS. The key must be kept from all
// but the server.
func (r *Request) PKCS10() (request, key []byte, err error) {
	if err := r.check(1); err != nil {
		return nil, nil, err
	}
	k, err := rsa.GenerateKey(rand.Reader, r.bits())
	if err != nil {
		return nil, nil, fmt.Errorf("npscert: %w", err)
	}
	der, err := r.pkcs10(k)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, fmt.Errorf("npscert: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

func (r *Request) pkcs10(k crypto.Signer) ([]byte, error) {
	eku, err := asn1.Marshal([]asn1.ObjectIdentifier{serverAuth})
	if err != nil {
		return nil, fmt.Errorf("npscert: %w", err)
	}
	usage, err := asn1.Marshal(asn1.BitString{Bytes: []byte{0xa0}, BitLength: 3}) // digitalSignature, keyEncipherment
	if err != nil {
		return nil, fmt.Errorf("npscert: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:            pkix.Name{CommonName: r.Cluster},
		DNSNames:           r.Names(r.Hosts[0]),
		SignatureAlgorithm: x509.SHA256WithRSA,
		ExtraExtensions: []pkix.Extension{
			{Id: oidKeyUsage, Critical: true, Value: usage},
			{Id: oidEKU, Value: eku},
		},
	}, k)
	if err != nil {
		return nil, fmt.Errorf("npscert: %w", err)
	}
	return der, nil
}

// PowerShell makes a script that, run as administrator on each of Hosts, asks the
// enterprise's AD CS for that host's certificate, and says what remains to be done.
func (r *Request) PowerShell() ([]byte, error) {
	const manyHosts = 256
	if err := r.check(manyHosts); err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, requestScript, powershell(r.Cluster), powershellList(r.Hosts), powershellList(r.More),
		powershell(r.template()), powershell(r.friendly()), r.bits())
	return crlf(b.String()), nil
}

// crlf ends lines as Windows does.
func crlf(s string) []byte { return []byte(strings.ReplaceAll(s, "\n", "\r\n")) }

// Thumbprint returns the SHA-1 of a certificate as Windows shows it and as a
// ProfileXML's TrustedRootCA has it, in hexadecimal. It names a certificate and
// protects nothing.
func Thumbprint(c *x509.Certificate) string { return fmt.Sprintf("%x", thumbprint(c)) }

// Fingerprint returns the SHA-256 of a certificate, in hexadecimal.
func Fingerprint(c *x509.Certificate) string { return fmt.Sprintf("%x", sha256.Sum256(c.Raw)) }
