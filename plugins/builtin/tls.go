package builtin

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

// terminated is what a listener that ends TLS is made of beside its spec: what the
// files say that the spec names.
type terminated struct {
	sum        [sha256.Size]byte // of the files
	gatewayCAs *x509.CertPool
	pins       []sstp.Fingerprint
	clientCAs  *x509.CertPool
	webCAs     *x509.CertPool
	crls       []*x509.RevocationList

	engine *sstp.Terminator // once it serves
}

// equal reports whether two were made of the same files.
func (t *terminated) equal(o *terminated) bool {
	if t == nil || o == nil {
		return t == o
	}
	return t.sum == o.sum
}

// maxTLSFile bounds a file of CAs or CRLs. CRLs of large CAs have megabytes.
const maxTLSFile = 64 << 20

// loadTLS reads the files that spec names. It returns nil if TLS isn't ended here.
// The error has all that is wrong with them.
func loadTLS(spec *plugins.Listener, at string) (*terminated, error) {
	s := &spec.TLS
	if !s.Terminated() {
		return nil, nil
	}
	t := new(terminated)
	var errs []error
	sum := sha256.New()
	for _, f := range []struct {
		path, file string
		take       func([]byte) error
	}{
		{".gateway.ca_file", s.Gateway.CAFile, func(b []byte) (err error) { t.gatewayCAs, err = poolOf(b); return err }},
		{".clients.ca_file", s.Clients.CAFile, func(b []byte) (err error) { t.clientCAs, err = poolOf(b); return err }},
		{".web_tls.ca_file", s.WebTLS.CAFile, func(b []byte) (err error) { t.webCAs, err = poolOf(b); return err }},
		{".clients.crl_file", s.Clients.CRLFile, func(b []byte) (err error) { t.crls, err = crlsOf(b); return err }},
	} {
		if f.file == "" {
			continue
		}
		b, err := readTLSFile(f.file)
		if err == nil {
			fmt.Fprintf(sum, "%s %d\n", f.path, len(b))
			sum.Write(b)
			if err = f.take(b); err != nil {
				err = fmt.Errorf("%s: %w", f.file, err)
			}
		}
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: at + f.path, Err: err})
		}
	}
	for i, p := range s.Gateway.Pins {
		f, err := sstp.ParseFingerprint(p)
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: fmt.Sprintf("%s.gateway.pins[%d]", at, i), Err: err})
		}
		t.pins = append(t.pins, f)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	sum.Sum(t.sum[:0])
	return t, nil
}

func readTLSFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxTLSFile))
}

func poolOf(b []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(b) {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return p, nil
}

// crlsOf reads CRLs: any number in PEM, or one in DER.
func crlsOf(b []byte) ([]*x509.RevocationList, error) {
	var out []*x509.RevocationList
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "X509 CRL" {
			continue
		}
		l, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	if out != nil {
		return out, nil
	}
	l, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, errors.New("it holds no CRL, in PEM or DER")
	}
	return []*x509.RevocationList{l}, nil
}

// terminate has the engine of l end TLS, if t says so, and otherwise has it tell
// what can be seen of sessions that pass.
func (d *Driver) terminate(l *listener, t *terminated) {
	p := l.group.pool
	if l.spec.Protocol != plugins.ProtocolSSTP {
		return
	}
	if t == nil {
		l.tcp.Trace.Closed = func(s tcp.Summary) {
			p.sessions.Add(sstp.Passed(s.Flow, s.Member.Name, s.Start, s.Took, s.Quiet, lb.Carried{
				End: s.End.String(), First: s.First.String(), Err: s.Err, Sent: s.Sent, Received: s.Received,
			}))
		}
		return
	}
	s := &l.spec.TLS
	t.engine = &sstp.Terminator{
		Leaves:  leavesOf{d, p.name},
		Gateway: sstp.GatewayTLS{ServerName: s.Gateway.ServerName, RootCAs: t.gatewayCAs, Pins: t.pins, Insecure: s.Gateway.Insecure},
		TLSPort: uint16(s.Gateway.Port), IPHTTPS: s.IPHTTPS, PassNull: s.PassNull, Web: s.Web, Tickets: s.Tickets,
		Clients:       sstp.ClientCertificates{CAs: t.clientCAs, Optional: s.Clients.Optional, CRLs: t.crls, NeedCRL: s.Clients.NeedCRL},
		HandshakeRate: s.HandshakeRate, HandshakeBurst: s.HandshakeBurst, MaxHandshakes: s.MaxHandshakes,
		Sessions: p.sessions, Logger: l.tcp.Logger,
	}
	if name := s.WebTLS.ServerName; name != "" {
		t.engine.WebTLS = &tls.Config{ServerName: name, RootCAs: t.webCAs, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	}
	if s.Mode == plugins.TLSReencrypt {
		t.engine.Mode = sstp.ModeReencrypt
	}
	if s.MinVersion == plugins.TLS13 {
		t.engine.MinVersion = tls.VersionTLS13
	}
	l.tls, l.tcp.Terminator = t, t.engine
}

// leavesOf are the certificates for the gateways of a pool, as they are now.
type leavesOf struct {
	d    *Driver
	pool string
}

// Leaf returns what the gateway expects.
func (l leavesOf) Leaf(backend string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if r := l.d.ringOf(l.pool); r != nil {
		return r.keyring.Leaf(backend, hello)
	}
	return nil, fmt.Errorf("builtin: there is no certificate for pool %s", l.pool)
}

// newSessions remembers the sessions of a pool.
func (d *Driver) newSessions(pool string) *sstp.Sessions {
	return &sstp.Sessions{Expected: func(backend string) (sstp.Fingerprint, bool) {
		if r := d.ringOf(pool); r != nil {
			// What is only assumed, or said, must not acquit a gateway.
			return r.seenToExpect(backend)
		}
		return sstp.Fingerprint{}, false
	}}
}
