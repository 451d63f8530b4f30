package radsec

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/radius"
)

// A Prober asks a RadSec server whether it serves: it connects, and sends
// Status-Server (RFC 5997), which servers over TLS answer. It is an [lb.Prober],
// and may be used from many goroutines at once.
type Prober struct {
	// Certificates are the client's own, GetCertificate, if not nil, returns
	// it for each probe.
	Certificates   []tls.Certificate
	GetCertificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)
	// Roots are who issues the servers' certificates; GetRoots, if not nil,
	// returns them for each probe.
	Roots    *x509.CertPool
	GetRoots func() *x509.CertPool
	// Peer says by what certificate the server is known.
	Peer Peer
	// Timeout bounds a probe whose context has no deadline; 0 means
	// [radius.DefaultTimeout].
	Timeout time.Duration
}

// Probe asks target. It returns nil only if it was answered.
func (p *Prober) Probe(ctx context.Context, target netip.AddrPort) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(p.Timeout, radius.DefaultTimeout))
		defer cancel()
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return fmt.Errorf("radsec: connect: %w", err)
	}
	defer func() { _ = raw.Close() }() // nothing is lost with it
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	d := &Dialer{Certificates: p.Certificates, GetCertificate: p.GetCertificate, Roots: p.Roots, GetRoots: p.GetRoots, All: p.Peer}
	conn := tls.Client(raw, d.config(""))
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("radsec: TLS: %w", err)
	}
	if err := askStatus(conn); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		return fmt.Errorf("radsec: Status-Server isn't answered: %w", err)
	}
	return nil
}

// askStatus sends Status-Server and waits for its answer.
func askStatus(conn *tls.Conn) error {
	q := statusServer()
	if _, err := conn.Write(q); err != nil {
		return err
	}
	b := make([]byte, radius.MaxLen)
	for {
		n, err := readPacket(conn, b)
		if err != nil {
			return err
		}
		a, err := radius.Parse(b[:n])
		if err == nil && a.Identifier() == q[1] && a.CheckAnswer(Secret(), [16]byte(q[4:20])) == nil {
			return nil
		}
	}
}
