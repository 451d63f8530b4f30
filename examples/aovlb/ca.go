package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/sstp"
	"github.com/aovlb/aovlb/sstp/acme"
)

// The certificates that come from a CA: one acme.Manager for each. What they get
// they hand to the driver, which brings it to the gateways.

// cas are the managers, by the name of their certificate.
type cas struct {
	driver *builtin.Driver
	log    *slog.Logger
	state  string

	mu  sync.Mutex
	all map[string]*ca
}

type ca struct {
	manager *acme.Manager
	caSpec
	cancel context.CancelFunc
	done   chan struct{}
}

// caSpec is how a CA is asked.
type caSpec struct {
	spec  plugins.ACME
	eab   *acme.EAB
	roots *x509.CertPool // nil for those of the system
}

func (s *caSpec) equal(o *caSpec) bool {
	return s.spec == o.spec && (s.eab == nil) == (o.eab == nil) && (s.eab == nil || *s.eab == *o.eab) && s.roots.Equal(o.roots)
}

// caStatus is how things stand with a CA.
type caStatus struct {
	Host string `json:"host"`
	acme.Status
}

// challenge answers a CA's challenge by TLS-ALPN-01. It is the driver's Challenge.
func (c *cas) challenge(certificate string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if x := c.get(certificate); x != nil {
			return x.manager.Challenge(hello)
		}
		return nil, errors.New("nobody answers challenges for this certificate yet")
	}
}

func (c *cas) get(name string) *ca {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[name]
}

func (c *cas) status(name string) *caStatus {
	x := c.get(name)
	if x == nil {
		return nil
	}
	return &caStatus{Host: x.spec.Host, Status: x.manager.Status()}
}

// issue has a CA issue a certificate now.
func (c *cas) issue(ctx context.Context, name string) error {
	c.mu.Lock()
	if name == "" && len(c.all) == 1 {
		for name = range c.all {
		}
	}
	x := c.all[name]
	c.mu.Unlock()
	if x == nil {
		return fmt.Errorf("%w: no certificate %q comes from a CA", plugins.ErrNotFound, name)
	}
	return x.manager.Renew(ctx)
}

// readCAs reads what is needed to ask the CAs of a site, by the names of their
// certificates. The error has a *plugins.FieldError for each file or variable that
// can't be used.
func (s *source) readCAs(site string) (map[string]*caSpec, error) {
	all := make(map[string]*caSpec)
	var errs []error
	for i := range s.config.Sites {
		x := &s.config.Sites[i]
		if x != s.config.Deployment.Site(site) {
			continue
		}
		for j := range x.Certificates {
			if a := x.Certificates[j].ACME; a != nil {
				c, err := readCA(a)
				for _, e := range plugins.FieldErrors(err) {
					e.Path = fmt.Sprintf("sites[%d].certificates[%d].acme.%s", i, j, e.Path)
					errs = append(errs, e)
				}
				all[x.Certificates[j].Name] = c
			}
		}
	}
	return all, errors.Join(errs...)
}

// readCA reads what spec refers to.
func readCA(spec *plugins.ACME) (*caSpec, error) {
	c := &caSpec{spec: *spec}
	var errs []error
	if spec.EABKeyID != "" {
		key, err := spec.EABKey().Read()
		if err != nil {
			field := "eab_key_file"
			if spec.EABKeyFile == "" {
				field = "eab_key_env"
			}
			errs = append(errs, &plugins.FieldError{Path: field, Err: err})
		}
		c.eab = &acme.EAB{KeyID: spec.EABKeyID, Key: string(key)}
	}
	if spec.CAFile != "" {
		var err error
		if c.roots, err = new(certFiles).roots(spec.CAFile); err != nil {
			errs = append(errs, &plugins.FieldError{Path: "ca_file", Err: err})
		}
	}
	return c, errors.Join(errs...)
}

// set has exactly the certificates in want managed, until ctx is done.
func (c *cas) set(ctx context.Context, want map[string]*caSpec) {
	if c == nil {
		return
	}
	c.mu.Lock()
	if c.all == nil {
		c.all = make(map[string]*ca)
	}
	var ended []*ca
	for name, x := range c.all {
		if w := want[name]; w == nil || !w.equal(&x.caSpec) {
			delete(c.all, name)
			ended = append(ended, x)
		}
	}
	c.mu.Unlock()
	for _, x := range ended {
		x.end()
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if c.get(name) == nil {
			c.begin(ctx, name, want[name])
		}
	}
}

func (c *cas) begin(ctx context.Context, name string, want *caSpec) {
	spec := &want.spec
	m := &acme.Manager{
		Name: spec.Host, Dir: filepath.Join(c.state, "acme"), Directory: spec.Directory, Email: spec.Email,
		KeyType:   acme.KeyType(spec.KeyType),
		NoTLSALPN: spec.Challenge == plugins.ChallengeHTTP, NoHTTP: spec.Challenge == plugins.ChallengeTLSALPN,
		Listen: spec.Listen, TLSALPNPort: spec.TLSALPNPort, HTTPPort: spec.HTTPPort,
		Obtained: func(x *sstp.Certificate) {
			if err := c.driver.OfferCertificate(name, x); err != nil {
				c.log.Error("the certificate from the CA can't be used", "certificate", name, "error", err)
			}
		},
		EAB: want.eab, Roots: want.roots,
		Logger: c.log.With("certificate", name),
	}
	ctx, cancel := context.WithCancel(ctx)
	x := &ca{manager: m, caSpec: *want, cancel: cancel, done: make(chan struct{})}
	c.mu.Lock()
	c.all[name] = x
	c.mu.Unlock()
	go func() { // ended by end, or with ctx, and waited for by end
		defer close(x.done)
		if err := m.Run(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("the CA isn't asked any more", "certificate", name, "error", err)
		}
	}()
}

func (x *ca) end() {
	x.cancel()
	<-x.done
}

// close ends all.
func (c *cas) close() {
	c.mu.Lock()
	all := slices.Collect(maps.Values(c.all))
	c.all = nil
	c.mu.Unlock()
	for _, x := range all {
		x.end()
	}
}
