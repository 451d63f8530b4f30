package peers

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A PKI is a root, an intermediate and the certificates they issue. All leaves
// share one key: a test has no secrets to keep, and RSA keys take seconds.
type PKI struct {
	Root, Intermediate *x509.Certificate

	interKey, leafKey *rsa.PrivateKey
	serial            int64
	mu                sync.Mutex
}

// A Leaf is a certificate and its key, in PEM.
type Leaf struct {
	Cert, Key []byte
}

var pkis struct {
	mu sync.Mutex
	by map[int]*PKI
}

// NewPKI returns a PKI with RSA keys of the given size, made once for the
// process. 2048 is what most deployments have; with 4096 an IKE_AUTH or an
// EAP-TLS flight is too large for one packet.
func NewPKI(t testing.TB, bits int) *PKI {
	t.Helper()
	pkis.mu.Lock()
	defer pkis.mu.Unlock()
	if p := pkis.by[bits]; p != nil {
		return p
	}
	p, err := newPKI(bits)
	if err != nil {
		t.Fatalf("peers: %v", err)
	}
	if pkis.by == nil {
		pkis.by = map[int]*PKI{}
	}
	pkis.by[bits] = p
	return p
}

func newPKI(bits int) (*PKI, error) {
	var keys [3]*rsa.PrivateKey
	var errs [3]error
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() { keys[i], errs[i] = rsa.GenerateKey(rand.Reader, bits) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	p := &PKI{interKey: keys[1], leafKey: keys[2]}
	ca := func(name string, key *rsa.PrivateKey, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, error) {
		c := p.template(name)
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	var err error
	if p.Root, err = ca("aovlb test root", keys[0], nil, keys[0]); err != nil {
		return nil, err
	}
	p.Intermediate, err = ca("aovlb test intermediate", keys[1], p.Root, keys[0])
	return p, err
}

func (p *PKI) template(name string) *x509.Certificate {
	p.serial++
	return &x509.Certificate{
		SerialNumber: big.NewInt(p.serial),
		Subject:      pkix.Name{Organization: []string{"aovlb"}, CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
}

// ikeIntermediate is the extended key usage that VPN servers carry besides
// serverAuth.
var ikeIntermediate = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 8, 2, 2}

// Issue returns a certificate for a DNS name, good for servers and clients.
// More names make it larger.
func (p *PKI) Issue(t testing.TB, name string, more ...string) Leaf {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.template(name)
	c.DNSNames = append([]string{name}, more...)
	c.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{ikeIntermediate}
	der, err := x509.CreateCertificate(rand.Reader, c, p.Intermediate, &p.leafKey.PublicKey, p.interKey)
	if err != nil {
		t.Fatalf("peers: certificate for %s: %v", name, err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(p.leafKey)
	if err != nil {
		t.Fatalf("peers: key of %s: %v", name, err)
	}
	return Leaf{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}
}

// RootPEM returns the root certificate.
func (p *PKI) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Root.Raw})
}

// IntermediatePEM returns the intermediate certificate.
func (p *PKI) IntermediatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Intermediate.Raw})
}

// write writes files below dir, making folders as needed.
func write(dir string, files map[string][]byte) error {
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return fmt.Errorf("peers: %w", err)
		}
	}
	return nil
}
