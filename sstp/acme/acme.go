package acme

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"

	"github.com/aovlb/aovlb/sstp"
)

// The defaults of a Manager.
const (
	// DefaultDirectory is that of Let's Encrypt.
	DefaultDirectory = certmagic.LetsEncryptProductionCA
	// DefaultCheck is the time between two looks whether it is time to renew.
	DefaultCheck = 10 * time.Minute
)

// A KeyType is a kind of key.
type KeyType string

const (
	// KeyP256 and KeyP384 are ECDSA. KeyP256 is the default: every Windows that is
	// supported knows it, and it makes handshakes cheap.
	KeyP256 KeyType = "p256"
	KeyP384 KeyType = "p384"
	// KeyRSA2048 and KeyRSA4096 are RSA, for clients of before ECDSA.
	KeyRSA2048 KeyType = "rsa2048"
	KeyRSA4096 KeyType = "rsa4096"
)

var keyTypes = map[KeyType]certmagic.KeyType{
	"": certmagic.P256, KeyP256: certmagic.P256, KeyP384: certmagic.P384,
	KeyRSA2048: certmagic.RSA2048, KeyRSA4096: certmagic.RSA4096,
}

// EAB binds the account at the CA to one that somebody has there by other means
// (external account binding, RFC 8555 §7.3.4).
type EAB struct {
	// KeyID says which account, Key is its secret, in base64url.
	KeyID, Key string
}

// String says which account, and not its secret.
func (e EAB) String() string { return "account " + e.KeyID }

// LogValue keeps the secret out of logs.
func (e EAB) LogValue() slog.Value { return slog.StringValue(e.String()) }

// A Manager gets and renews a certificate. Its fields must not be changed after its
// first use, and it must not be copied.
type Manager struct {
	// Name is the host that the certificate is for. It is needed.
	Name string
	// Dir is a directory for accounts, keys and certificates. It is needed.
	// Balancers that share it share the certificate.
	Dir string
	// Directory is where the CA is; empty means DefaultDirectory.
	Directory string
	// Roots are whom the CA's own certificate is trusted from, for a CA of your
	// own; nil means those of the system.
	Roots *x509.CertPool
	// Email is told to the CA; it may be empty.
	Email string
	// EAB, if not nil, is the account to bind to.
	EAB *EAB
	// KeyType is the kind of key; empty means KeyP256.
	KeyType KeyType
	// NoTLSALPN and NoHTTP leave one of the two challenges out.
	NoTLSALPN, NoHTTP bool
	// Listen is the address, without a port, at which the Manager itself answers
	// challenges if nobody else does; the zero Addr means all.
	Listen netip.Addr
	// TLSALPNPort and HTTPPort are where challenges come to, if something before
	// this machine translates 443 and 80; 0 means no translation.
	TLSALPNPort, HTTPPort int
	// Check is the time between two looks whether it is time to renew; 0 means
	// DefaultCheck.
	Check time.Duration
	// RenewalRatio is the part of its life that a certificate has left when it is
	// renewed; 0 means a third. If the CA says when (ARI), that counts.
	RenewalRatio float64
	// Obtained is called with the certificate that there is when Run begins, and
	// with each new one, at once and in order. It must not block for long.
	Obtained func(*sstp.Certificate)
	// Logger hears of what certmagic does; nil is silent.
	Logger *slog.Logger

	once   sync.Once
	broken error
	cache  *certmagic.Cache
	config *certmagic.Config
	issuer *certmagic.ACMEIssuer

	mu     sync.Mutex // below
	status Status
	last   sstp.Fingerprint // handed to Obtained
	giveUp context.CancelCauseFunc
}

// Status is how things stand.
type Status struct {
	// SHA256 is the hash of the newest certificate, NotAfter when it ends.
	SHA256   sstp.Fingerprint `json:"sha256"`
	NotAfter time.Time        `json:"not_after,omitzero"`
	// Obtained is when this process got it from the CA; zero if it was there.
	Obtained time.Time `json:"obtained,omitzero"`
	// Error is why the last try failed, FailedAt when; empty if it didn't.
	Error    string    `json:"error,omitempty"`
	FailedAt time.Time `json:"failed_at,omitzero"`
}

// Status returns how things stand.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// open makes what certmagic needs, once.
func (m *Manager) open() error {
	m.once.Do(func() { m.broken = m.make() })
	return m.broken
}

func (m *Manager) make() error {
	key, known := keyTypes[m.KeyType]
	switch {
	case m.Name == "" || m.Dir == "":
		return errors.New("acme: a Manager needs a Name and a Dir")
	case !known:
		return fmt.Errorf("acme: there is no key type %q", m.KeyType)
	case m.NoTLSALPN && m.NoHTTP:
		return errors.New("acme: without any challenge no CA gives a certificate")
	}
	log := zap.New(slogCore{log: m.Logger})
	m.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return m.config, nil },
		RenewCheckInterval: cmp.Or(m.Check, DefaultCheck),
		Logger:             log,
	})
	m.config = certmagic.New(m.cache, certmagic.Config{
		Storage:            &certmagic.FileStorage{Path: m.Dir},
		KeySource:          certmagic.StandardKeyGenerator{KeyType: key},
		RenewalWindowRatio: m.RenewalRatio,
		OCSP:               certmagic.OCSPConfig{DisableStapling: true}, // the leaf isn't served from here
		OnEvent:            m.event,
		Logger:             log,
	})
	template := certmagic.ACMEIssuer{
		CA: cmp.Or(m.Directory, DefaultDirectory), TestCA: cmp.Or(m.Directory, DefaultDirectory),
		Email: m.Email, Agreed: true, TrustedRoots: m.Roots,
		DisableTLSALPNChallenge: m.NoTLSALPN, DisableHTTPChallenge: m.NoHTTP,
		AltTLSALPNPort: m.TLSALPNPort, AltHTTPPort: m.HTTPPort,
		Logger: log,
	}
	if m.Listen.IsValid() {
		template.ListenHost = m.Listen.String()
	}
	if m.EAB != nil {
		template.ExternalAccount = &acme.EAB{KeyID: m.EAB.KeyID, MACKey: m.EAB.Key}
	}
	m.issuer = certmagic.NewACMEIssuer(m.config, template)
	m.config.Issuers = []certmagic.Issuer{m.issuer}
	return nil
}

// Run gets the certificate, and renews it in time, until ctx is done. It returns
// the cause of that, or an error of the fields. What the CA or the network does is
// no reason to return: it is logged, told by Status, and tried again.
func (m *Manager) Run(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	defer m.cache.Stop()
	// This one blocks, in spite of its name: what "async" means is that nobody is
	// asked for an address by way of standard input. It tries again for a month,
	// at growing intervals, as CAs count failures.
	for {
		err := m.config.ObtainCertAsync(ctx, m.Name)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		m.failed(err)
	}
	if err := m.config.ManageAsync(ctx, []string{m.Name}); err != nil {
		return fmt.Errorf("acme: manage the certificate for %s: %w", m.Name, err)
	}
	if err := m.found(ctx, false); err != nil {
		return err
	}
	// The cache does the rest, on a timer of its own.
	<-ctx.Done()
	return context.Cause(ctx)
}

// Renew gets a new certificate now. Run must be running, and have got one.
func (m *Manager) Renew(ctx context.Context) error {
	if err := m.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.mu.Lock()
	m.giveUp = cancel // after the first failure, rather than try for a month
	m.mu.Unlock()
	if err := m.config.RenewCertAsync(ctx, m.Name, true); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		m.failed(err)
		return fmt.Errorf("acme: renew the certificate for %s: %w", m.Name, err)
	}
	return nil
}

func (m *Manager) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Error, m.status.FailedAt = err.Error(), time.Now()
}

// event is called by certmagic, when a certificate is in its storage.
func (m *Manager) event(ctx context.Context, name string, data map[string]any) error {
	switch name {
	case "cert_obtained":
		return m.found(ctx, true)
	case "cert_failed":
		if err, ok := data["error"].(error); ok {
			m.failed(err)
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.giveUp != nil && data["renewal"] == true {
				m.giveUp(err)
			}
		}
	}
	return nil
}

// found reads the certificate from the storage, and hands it on if it is another
// than the last. The cache of certmagic isn't asked: it may still have the old one.
func (m *Manager) found(ctx context.Context, fresh bool) error {
	c, err := m.load(ctx)
	if err != nil {
		m.failed(err)
		return err
	}
	f := c.SHA256()
	m.mu.Lock()
	again := f == m.last
	m.last = f
	m.status = Status{SHA256: f, NotAfter: c.Leaf.NotAfter, Obtained: m.status.Obtained}
	if fresh {
		m.status.Obtained = time.Now()
	}
	m.mu.Unlock()
	if again {
		return nil
	}
	m.logger().Info("certificate", "name", m.Name, "sha256", f.String(), "not_after", c.Leaf.NotAfter, "new", fresh)
	if m.Obtained != nil {
		m.Obtained(c)
	}
	return nil
}

func (m *Manager) load(ctx context.Context) (*sstp.Certificate, error) {
	var bundles []*sstp.Bundle
	issuer := m.issuer.IssuerKey()
	for _, key := range []string{certmagic.StorageKeys.SiteCert(issuer, m.Name), certmagic.StorageKeys.SitePrivateKey(issuer, m.Name)} {
		b, err := m.config.Storage.Load(ctx, key)
		if err != nil {
			return nil, fmt.Errorf("acme: read the certificate for %s: %w", m.Name, err)
		}
		u, err := sstp.ParseBundle(b)
		if err != nil {
			return nil, fmt.Errorf("acme: read the certificate for %s: %w", m.Name, err)
		}
		bundles = append(bundles, u)
	}
	return sstp.NewCertificate(bundles...)
}

// Challenge answers a handshake of the CA by TLS-ALPN-01. It is what
// [sstp.Keyring.Challenge] wants.
func (m *Manager) Challenge(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if err := m.open(); err != nil {
		return nil, err
	}
	return m.config.GetCertificate(hello)
}

// HTTPHandler answers challenges by HTTP-01, and hands everything else to next,
// which may be nil for 404.
func (m *Manager) HTTPHandler(next http.Handler) http.Handler {
	if next == nil {
		next = http.NotFoundHandler()
	}
	if m.open() != nil {
		return next
	}
	return m.issuer.HTTPChallengeHandler(next)
}

func (m *Manager) logger() *slog.Logger {
	if m.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return m.Logger
}
