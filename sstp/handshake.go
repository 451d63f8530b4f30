package sstp

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// Suites of TLS that authenticate and don't encrypt. Go has none, but DirectAccess
// clients since Windows 8 like them best, as they send IPsec.
var nullSuites = []uint16{
	0x0001, // TLS_RSA_WITH_NULL_MD5
	0x0002, // TLS_RSA_WITH_NULL_SHA
	0x003b, // TLS_RSA_WITH_NULL_SHA256
}

// defaultSuites are those of TLS 1.2 with forward secrecy and authenticated
// encryption.
func defaultSuites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}

const (
	protoHTTP = "http/1.1"
	protoACME = "acme-tls/1" // RFC 8737
)

// errNull ends a handshake that is passed on to a gateway.
var errNull = errors.New("sstp: the client wants a NULL cipher")

// handshake does TLS with the client.
func (v *visit) handshake(ctx context.Context) error {
	raw := v.in.Client()
	if err := raw.SetDeadline(time.Now().Add(cmp.Or(v.t.HandshakeTimeout, DefaultHandshakeTimeout))); err != nil {
		return err
	}
	v.wire = newWire(raw)
	stream := net.Conn(v.wire)
	if v.t.PassNull && (v.t.Clients.CAs == nil || v.t.Clients.Optional) {
		v.record = &recorder{Conn: v.wire}
		stream = v.record
	}
	c := tls.Server(stream, &tls.Config{GetConfigForClient: v.configure, SessionTicketsDisabled: true})
	err := c.HandshakeContext(ctx)
	if errors.Is(err, errNull) {
		v.kind = kindNull
		return raw.SetDeadline(time.Time{})
	}
	if f := v.t.Trace; f != nil && f.Handshake != nil {
		name := ""
		if v.route.Member != nil {
			name = v.route.Member.Name
		}
		f.Handshake(v.in.Flow(), name, err)
	}
	if err != nil {
		return fmt.Errorf("sstp: TLS handshake: %w", err)
	}
	v.record = nil
	v.conn, v.state = c, c.ConnectionState()
	v.state.PeerCertificates, v.state.VerifiedChains = nil, nil
	v.t.count.handshakes.Add(1)
	if v.state.DidResume {
		v.t.count.resumed.Add(1)
	}
	return raw.SetDeadline(time.Time{})
}

// configure is called with the client's first message. It chooses the gateway, and
// then the certificate which that gateway expects.
func (v *visit) configure(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if slices.Contains(hello.SupportedProtos, protoACME) {
		return v.challenge(hello)
	}
	if v.route, v.noway = v.in.Route(); v.noway == nil {
		v.hello = hello
	}
	if v.record != nil && slices.ContainsFunc(hello.CipherSuites, func(s uint16) bool { return slices.Contains(nullSuites, s) }) {
		return nil, errNull
	}
	leaf, err := v.choose(hello)
	switch {
	case err != nil:
		return nil, err
	case len(leaf.Certificate) == 0:
		return nil, errors.New("sstp: the certificate is empty")
	case v.t.Sessions != nil:
		v.leaf = v.t.Sessions.Served(leaf.Certificate[0])
	default:
		v.leaf = FingerprintOf(leaf.Certificate[0])
	}
	v.record.release()
	return v.t.config(leaf, v.leaf), nil
}

// choose returns the certificate that the chosen gateway expects. If it isn't known
// which that is, or there is none, another gateway is chosen: one that was added
// and told nothing yet must not cost clients that others can serve.
func (v *visit) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if v.noway != nil {
		return v.t.Leaves.Leaf("", hello)
	}
	leaf, first := v.t.Leaves.Leaf(v.route.Member.Name, hello)
	var room [8]lb.ID
	for avoid := room[:0]; errors.Is(first, ErrNoLeaf) && len(avoid) < maxAvoid; {
		avoid = append(avoid, v.route.Member.ID)
		r, err := v.in.Route(avoid...)
		if err != nil {
			return nil, first
		}
		v.route = r
		if leaf, err = v.t.Leaves.Leaf(r.Member.Name, hello); err == nil {
			return leaf, nil
		}
	}
	return leaf, first
}

// challenge answers an ACME server that checks whether this name is ours (RFC
// 8737 §3): it is shown a certificate made for it, and that is all.
func (v *visit) challenge(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	leaf, err := v.t.Leaves.Leaf("", hello)
	if err != nil {
		return nil, err
	}
	v.kind = kindACME
	v.record.release()
	return &tls.Config{
		Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{protoACME}, SessionTicketsDisabled: true,
	}, nil
}

// config returns how TLS goes on with this certificate.
func (t *Terminator) config(leaf *tls.Certificate, f Fingerprint) *tls.Config {
	c := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return leaf, nil },
		MinVersion:     cmp.Or(t.MinVersion, tls.VersionTLS12),
		CipherSuites:   t.CipherSuites,
		// Never h2, which SSTP can't be carried by. A client that offers nothing
		// is fine.
		NextProtos:                  []string{protoHTTP},
		SessionTicketsDisabled:      !t.Tickets,
		DynamicRecordSizingDisabled: true,
	}
	if c.CipherSuites == nil {
		c.CipherSuites = defaultSuites()
	}
	if t.Tickets {
		c.SetSessionTicketKeys(t.tickets.of(f, time.Now()))
	}
	t.Clients.configure(c)
	return c
}

// ticketKeys are the keys of session tickets. They depend on the certificate, so
// that a ticket is of use only as long as the same one is served: a client that
// resumes reports the certificate of the handshake that gave it the ticket.
type ticketKeys struct {
	mu   sync.Mutex
	made time.Time
	// secrets are today's and yesterday's.
	secrets [2][32]byte
}

// ticketLife is how long a key makes tickets; it opens them as long again.
const ticketLife = 12 * time.Hour

func (k *ticketKeys) of(f Fingerprint, now time.Time) [][32]byte {
	k.mu.Lock()
	if k.made.IsZero() || now.Sub(k.made) >= ticketLife {
		k.secrets[1] = k.secrets[0]
		rand.Read(k.secrets[0][:])
		if k.made.IsZero() {
			rand.Read(k.secrets[1][:])
		}
		k.made = now
	}
	secrets := k.secrets
	k.mu.Unlock()
	keys := make([][32]byte, len(secrets))
	for i, s := range secrets {
		m := hmac.New(sha256.New, s[:])
		m.Write(f[:])
		copy(keys[i][:], m.Sum(nil))
	}
	return keys
}

// A recorder keeps what a client has sent, and holds back what it is told, until
// it is clear that TLS is to be ended here. Its methods may be called on nil.
type recorder struct {
	net.Conn
	seen     []byte
	released bool
}

// maxHello bounds what a client may send before that.
const maxHello = 32 << 10

func (r *recorder) release() {
	if r != nil {
		r.released, r.seen = true, nil
	}
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	if !r.released {
		if len(r.seen)+n > maxHello {
			return 0, errors.New("sstp: the ClientHello is too long")
		}
		r.seen = append(r.seen, b[:n]...)
	}
	return n, err
}

// Write holds back alerts to a client who is passed on.
func (r *recorder) Write(b []byte) (int, error) {
	if !r.released {
		return len(b), nil
	}
	return r.Conn.Write(b)
}

// ClientCertificates says which certificates clients must show in TLS, before a
// byte of theirs reaches a gateway. The zero value asks for none.
type ClientCertificates struct {
	// CAs are those that the certificates must come from; nil asks for none.
	CAs *x509.CertPool
	// Optional lets in clients that show none. One that is shown must be right.
	Optional bool
	// CRLs are lists of revoked certificates: those of clients, and of what is
	// between them and a CA.
	CRLs []*x509.RevocationList
	// NeedCRL refuses a client's certificate unless a CRL of its issuer is there
	// that isn't out of date.
	NeedCRL bool
}

func (cc *ClientCertificates) configure(c *tls.Config) {
	if cc.CAs == nil {
		return
	}
	c.ClientCAs = cc.CAs
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if cc.Optional {
		c.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if len(cc.CRLs) > 0 || cc.NeedCRL {
		c.VerifyConnection = func(s tls.ConnectionState) error { return cc.check(s, time.Now()) }
	}
}

// check looks a client's certificate up in the CRLs, and those by which it was
// issued.
func (cc *ClientCertificates) check(s tls.ConnectionState, now time.Time) error {
	if len(s.VerifiedChains) == 0 {
		return nil // none was shown
	}
	chain := s.VerifiedChains[0]
	for i, c := range chain {
		if i > 0 && i == len(chain)-1 {
			break // the CA itself: it is trusted, whoever revokes it
		}
		listed, err := cc.look(c, chain[min(i+1, len(chain)-1)], now)
		if err != nil {
			return err
		}
		if i == 0 && cc.NeedCRL && !listed {
			return fmt.Errorf("sstp: there is no current CRL of the issuer of client certificate %v", c.SerialNumber)
		}
	}
	return nil
}

// look looks for c in the CRLs of its issuer, and reports whether one is current.
func (cc *ClientCertificates) look(c, issuer *x509.Certificate, now time.Time) (current bool, err error) {
	for _, l := range cc.CRLs {
		if string(l.RawIssuer) != string(c.RawIssuer) || l.CheckSignatureFrom(issuer) != nil {
			continue
		}
		for i := range l.RevokedCertificateEntries {
			if l.RevokedCertificateEntries[i].SerialNumber.Cmp(c.SerialNumber) == 0 {
				return false, fmt.Errorf("sstp: client certificate %v is revoked", c.SerialNumber)
			}
		}
		current = current || l.NextUpdate.IsZero() || now.Before(l.NextUpdate)
	}
	return current, nil
}
