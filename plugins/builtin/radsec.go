package builtin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
)

// tlsFiles are the certificate, key and roots of a plugins.RadSec. They are read
// again when they have changed.
type tlsFiles struct {
	spec plugins.RadSec
	log  *slog.Logger

	mu     sync.Mutex // below
	looked time.Time
	was    [3]stamp
	cert   *tls.Certificate
	ca     *x509.CertPool // nil without a CAFile
}

// stamp tells whether a file has changed.
type stamp struct {
	at   time.Time
	size int64
}

// lookEvery is the least time between two looks at the files.
const lookEvery = 5 * time.Second

// openTLS reads the files. The error has a *plugins.FieldError for each that can't
// be used, whose path is relative to the spec.
func openTLS(spec *plugins.RadSec, log *slog.Logger) (*tlsFiles, error) {
	f := &tlsFiles{spec: plugins.RadSec{CertFile: spec.CertFile, KeyFile: spec.KeyFile, CAFile: spec.CAFile}, log: log}
	f.looked, f.was = time.Now(), f.stamps()
	return f, f.read()
}

func (f *tlsFiles) stamps() (out [3]stamp) {
	for i, name := range []string{f.spec.CertFile, f.spec.KeyFile, f.spec.CAFile} {
		if info, err := os.Stat(name); err == nil {
			out[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return out
}

// read reads the files, and changes nothing if one can't be used.
func (f *tlsFiles) read() error {
	var errs []error
	cert, err := tls.LoadX509KeyPair(f.spec.CertFile, f.spec.KeyFile)
	if err != nil {
		field := "cert_file"
		if p, ok := errors.AsType[*fs.PathError](err); ok && p.Path == f.spec.KeyFile {
			field = "key_file"
		}
		errs = append(errs, &plugins.FieldError{Path: field, Err: err})
	}
	ca, err := f.readCAs()
	if err != nil {
		errs = append(errs, &plugins.FieldError{Path: "ca_file", Err: err})
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	f.cert, f.ca = &cert, ca
	return nil
}

// readCAs returns nil without a CAFile.
func (f *tlsFiles) readCAs() (*x509.CertPool, error) {
	if f.spec.CAFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(f.spec.CAFile)
	if err != nil {
		return nil, err
	}
	ca := x509.NewCertPool()
	if !ca.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", f.spec.CAFile)
	}
	return ca, nil
}

// refresh reads the files again if they have changed. f.mu is held.
func (f *tlsFiles) refresh() {
	if time.Since(f.looked) < lookEvery {
		return
	}
	f.looked = time.Now()
	now := f.stamps()
	if now == f.was {
		return
	}
	f.was = now
	if err := f.read(); err != nil {
		f.log.Error("RadSec goes on with the certificate it has", "error", err)
		return
	}
	f.log.Info("RadSec has a new certificate", "file", f.spec.CertFile, "until", f.cert.Leaf.NotAfter)
}

func (f *tlsFiles) now() *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	return f.cert
}

func (f *tlsFiles) server(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.now(), nil }

func (f *tlsFiles) client(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return f.now(), nil }

func (f *tlsFiles) roots() *x509.CertPool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refresh()
	return f.ca
}

// peerOf makes a radsec.Peer of what has been validated.
func peerOf(names, fingerprints []string) radsec.Peer {
	p := radsec.Peer{Names: slices.Clone(names)}
	for _, s := range fingerprints {
		if f, err := radsec.ParseFingerprint(s); err == nil {
			p.Fingerprints = append(p.Fingerprints, f)
		}
	}
	return p
}

// certsOf says which files a group's RadSec is made of.
func certsOf(g *plugins.Group) string {
	if !g.Proxies() || g.RADIUS.RadSec == nil {
		return ""
	}
	r := g.RADIUS.RadSec
	return r.CertFile + "\x00" + r.KeyFile + "\x00" + r.CAFile
}

// stageTLS reads the files of a group's RadSec, which must be right now even if it
// goes on with what it has.
func (d *Driver) stageTLS(g *group, spec *plugins.Group, at string) error {
	if certsOf(spec) == "" {
		return nil
	}
	f, err := openTLS(spec.RADIUS.RadSec, d.logger().With("group", spec.Name))
	if err != nil {
		return beneath(at+".radius.radsec.", err)
	}
	if g.tls == nil {
		g.tls = f
	}
	return nil
}

// beneath puts a path before that of each *plugins.FieldError in err.
func beneath(at string, err error) error {
	var errs []error
	for _, f := range plugins.FieldErrors(err) {
		if f.Path == "" {
			errs = append(errs, f.Err)
			continue
		}
		errs = append(errs, &plugins.FieldError{Path: at + f.Path, Err: f.Err})
	}
	return errors.Join(errs...)
}

// dialing is how the servers of a group are dialled over TLS.
type dialing struct {
	*radsec.Dialer
	peers map[string]radsec.Peer
	all   radsec.Peer
	port  uint16
}

// dialingOf returns how the servers of spec are dialled: as before, if nothing has
// changed; nil if none is dialled over TLS.
func (g *group) dialingOf(spec *plugins.Group, log *slog.Logger) *dialing {
	r := spec.RADIUS
	if certsOf(spec) == "" {
		return nil
	}
	n := dialing{all: peerOf(r.RadSec.Names, r.RadSec.Fingerprints), peers: make(map[string]radsec.Peer), port: uint16(r.RadSec.Port)}
	some := r.Transport == plugins.TransportRadSec
	for i := range r.Servers {
		s := &r.Servers[i]
		some = some || s.Transport == plugins.TransportRadSec
		if len(s.Names)+len(s.Fingerprints) > 0 {
			n.peers[s.Backend] = peerOf(s.Names, s.Fingerprints)
		}
	}
	if !some {
		return nil
	}
	if o := g.dialing; o != nil && o.port == n.port && reflect.DeepEqual(o.peers, n.peers) && reflect.DeepEqual(o.all, n.all) {
		return o
	}
	n.Dialer = &radsec.Dialer{
		GetCertificate: g.tls.client, GetRoots: g.tls.roots, Peers: n.peers, All: n.all, Port: n.port, Logger: log,
	}
	return &n
}

// retire closes a Dialer once nothing waits on its links.
func (d *Driver) retire(o *dialing) {
	if o != nil {
		d.retired = append(d.retired, o)
	}
	d.retired = slices.DeleteFunc(d.retired, func(o *dialing) bool {
		if o.Links() > 0 {
			return false
		}
		_ = o.Close() // it has nothing that could fail
		return true
	})
}

// closeDialers closes all Dialers there are.
func (d *Driver) closeDialers(r *running) {
	for _, g := range r.groups {
		if g.dialing != nil {
			_ = g.dialing.Close()
		}
	}
	for _, o := range d.retired {
		_ = o.Close()
	}
}

// newRadSec makes what takes connections for a proxy.
func newRadSec(spec *plugins.Listener, g *group, p *radius.Proxy, log *slog.Logger) *radsec.Server {
	return &radsec.Server{
		Handler: p, GetCertificate: g.tls.server, GetRoots: g.tls.roots, Idle: spec.IdleTimeout.D(), Logger: log,
	}
}

// serveRadSec serves TLS, and the proxy behind it, until one of them ends.
func (l *listener) serveRadSec(ctx context.Context) (func() error, error) {
	conns, err := l.accepting()
	if err != nil {
		return nil, err
	}
	return func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		var wg sync.WaitGroup
		wg.Go(func() { cancel(l.rad.Serve(ctx)) })
		err := l.sec.Serve(ctx, conns...)
		cancel(err)
		wg.Wait()
		return err
	}, nil
}

// shutdownRadSec ends both: connections stay until what waits on them is answered.
func (l *listener) shutdownRadSec(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.sec.Shutdown(ctx) }) // it accepts no more from now on
	_ = l.rad.Shutdown(ctx)                   // and this ends serveRadSec
	wg.Wait()
}

// radsecStats adds what is counted of connections.
func radsecStats(s *plugins.ListenerStats, c radsec.ServerStats) {
	s.Active, s.Total = new(int64(c.Open)), new(c.Accepted)
	for why, n := range map[string]uint64{
		"too many connections": c.Refused, "TLS failed or certificate unknown": c.Failed,
		"connection that carries no packets": c.Framing, "answers not taken": c.Slow,
	} {
		if n > 0 {
			s.Dropped[why] = n
		}
	}
}
