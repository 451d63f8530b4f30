package builtin

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

// A ring is a plugins.Certificate that is served: the leaves that its gateways
// expect, and the renewal that brings a new one to them. It lives as long as there
// is a certificate of its name, whatever else is applied.
type ring struct {
	d       *Driver
	name    string
	keyring *sstp.Keyring
	store   *sstp.KeyStore // nil without a StateDir

	mu      sync.Mutex // below
	spec    plugins.Certificate
	renewal *sstp.Renewal            // the last there was; nil if none
	rollout *rollout                 // carries it out; nil if nobody does
	stopped string                   // why nobody does
	drained map[string]bool          // gateways that get no new clients
	closed  map[string]bool          // of these, those that keep none
	asked   map[string]chan struct{} // gateways that wait for an administrator
	seen    map[string]gatewaySight  // by the watch
	watcher *rollout
}

// certificateDir is where the rings of a site are kept, below its state.
const certificateDir = "certificates"

// newRing returns the ring for a certificate, as the state directory has it.
func (d *Driver) newRing(site string, spec *plugins.Certificate) (*ring, error) {
	r := &ring{
		d: d, name: spec.Name, spec: *spec,
		keyring: &sstp.Keyring{Trusting: spec.ACME == nil},
		drained: make(map[string]bool), closed: make(map[string]bool), asked: make(map[string]chan struct{}),
	}
	if d.Challenge != nil && spec.ACME != nil {
		r.keyring.Challenge = d.Challenge(spec.Name)
	}
	if d.StateDir == "" {
		return r, nil
	}
	r.store = &sstp.KeyStore{Dir: filepath.Join(d.stateDir(site), certificateDir, spec.Name)}
	state, certs, err := r.store.Load()
	if err != nil {
		return nil, err
	}
	for _, c := range certs {
		if _, err := r.keyring.Hold(c); err != nil {
			return nil, err
		}
	}
	r.keyring.Restore(state)
	for _, g := range r.keyring.Status().Gateways {
		if g.Unsure != "" { // it was being changed, by whatever renewal
			r.drained[g.Gateway], r.closed[g.Gateway] = true, true
		}
	}
	if r.renewal = state.Renewal; r.renewal != nil {
		for _, g := range r.renewal.Gateways {
			switch g.Phase {
			case sstp.PhaseSetting, sstp.PhaseVerifying:
				r.drained[g.Gateway], r.closed[g.Gateway] = true, true
			case sstp.PhaseDraining, sstp.PhaseEmptying:
				r.drained[g.Gateway] = true
			default:
			}
		}
	}
	return r, nil
}

// readCertificate reads the files of a certificate; nil if it comes from a CA.
func readCertificate(spec *plugins.Certificate, at string) (*sstp.Certificate, error) {
	if spec.ACME != nil {
		return nil, nil
	}
	var bundles []*sstp.Bundle
	var errs []error
	for _, f := range []struct{ field, name string }{{"cert_file", spec.CertFile}, {"key_file", spec.KeyFile}} {
		if f.name == "" {
			continue
		}
		b, err := readBundle(f.name)
		if err != nil {
			errs = append(errs, &plugins.FieldError{Path: at + "." + f.field, Err: fmt.Errorf("%s: %w", f.name, err)})
		}
		bundles = append(bundles, b)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	c, err := sstp.NewCertificate(bundles...)
	if err == nil && c.Key == nil {
		err = errors.New("the private key isn't there: name its file by key_file")
	}
	if err != nil {
		return nil, &plugins.FieldError{Path: at + ".cert_file", Err: err}
	}
	return c, nil
}

func readBundle(name string) (*sstp.Bundle, error) {
	f, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, sstp.MaxBundle+1))
	if err != nil {
		return nil, err
	}
	return sstp.ParseBundle(b)
}

// stagedRing is a ring and what is to become of it.
type stagedRing struct {
	ring *ring
	spec plugins.Certificate
	cert *sstp.Certificate // nil if it comes from a CA
}

// stageRings finds or makes the rings of a site.
func (d *Driver) stageRings(old *running, next *staged, site *plugins.Site, at string) error {
	for i := range site.Certificates {
		spec := site.Certificates[i]
		path := fmt.Sprintf("%s.certificates[%d]", at, i)
		c, err := readCertificate(&spec, path)
		if err != nil {
			return err
		}
		r := find(old.rings, func(r *ring) bool { return r.name == spec.Name && (r.spec.ACME == nil) == (spec.ACME == nil) })
		if r == nil {
			if r, err = d.newRing(site.Name, &spec); err != nil {
				return &plugins.FieldError{Path: path, Err: err}
			}
		}
		next.rings = append(next.rings, r)
		next.ringSpecs = append(next.ringSpecs, stagedRing{r, spec, c})
	}
	return nil
}

// commitRings has the rings be what was staged. It comes before pools and
// listeners: a gateway that is being changed must not get a client.
func (d *Driver) commitRings(old *running, next *staged) {
	for _, r := range old.rings {
		if !slices.Contains(next.rings, r) {
			r.close()
		}
	}
	for _, s := range next.ringSpecs {
		s.ring.mu.Lock()
		s.ring.spec = s.spec
		s.ring.mu.Unlock()
		s.ring.regather()
		if s.cert != nil {
			if err := s.ring.offer(s.cert); err != nil {
				d.logger().Error("the certificate can't be used", "certificate", s.ring.name, "error", err)
			}
		}
	}
	d.rings.Store(&next.rings)
}

// startRings resumes what was under way, and begins what is to be begun.
func (d *Driver) startRings(next *staged) {
	for _, r := range next.rings {
		r.startWatch()
		r.resume()
	}
}

// ringOf returns the ring of a pool's gateways, or nil.
func (d *Driver) ringOf(pool string) *ring {
	if list := d.rings.Load(); list != nil {
		for _, r := range *list {
			if r.pool() == pool {
				return r
			}
		}
	}
	return nil
}

func (r *ring) pool() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.spec.Pool
}

// want says how the backend of this name is to be drained because of r.
func (r *ring) want(backend string) drainSet {
	if r == nil {
		return drainSet{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed[backend]:
		return drainSet{true, time.Unix(1, 0)}
	case r.drained[backend]:
		return drainSet{on: true}
	}
	return drainSet{}
}

// offer has r hold a certificate. If there was none, it becomes the one that is
// served, where gateways are trusted to know it.
func (r *ring) offer(c *sstp.Certificate) error {
	known := r.keyring.Standing(c.SHA256()) == sstp.StandingHeld
	if r.store != nil && !known {
		// First on disk: what is held must be there after a crash.
		if err := r.store.Keep(c); err != nil {
			return err
		}
	}
	if _, err := r.keyring.Hold(c); err != nil {
		return err
	}
	r.mu.Lock()
	other := r.rollout != nil && r.renewal.To != c.SHA256() && r.renewal.Away != c.SHA256()
	r.mu.Unlock()
	if other {
		// One gateway may be in the middle of its change. It is changed again.
		r.d.logger().Info("a newer certificate takes the place of one that was being rolled out", "certificate", r.name)
		r.halt()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest(c)
	return r.save()
}

// save keeps what r knows. r.mu is held.
func (r *ring) save() error {
	if r.store == nil {
		return nil
	}
	state := r.keyring.State()
	state.Renewal = r.renewal.Clone()
	return r.store.Save(state)
}

// newest begins a renewal to c, if its gateways don't expect it yet. r.mu is held.
func (r *ring) newest(c *sstp.Certificate) {
	to := c.SHA256()
	if r.renewal != nil && (r.renewal.To == to || r.renewal.Away == to) {
		return // done, under way, or not wanted
	}
	if gateways := r.gateways(); len(gateways) > 0 && !r.allExpect(to, gateways) {
		r.begin(to, gateways, !r.spec.Renewal.Automatic())
	}
}

// allExpect reports whether gateways are known to expect a leaf. r.mu is held.
func (r *ring) allExpect(to sstp.Fingerprint, gateways []string) bool {
	return !slices.ContainsFunc(gateways, func(g string) bool {
		f, ok := r.keyring.Expected(g)
		return !ok || f != to
	})
}

// regather has an unfinished renewal be about the gateways that there are now.
func (r *ring) regather() {
	r.mu.Lock()
	var now []string
	if r.renewal != nil && r.renewal.Ended.IsZero() {
		for _, g := range r.renewal.Gateways {
			now = append(now, g.Gateway)
		}
	}
	want := r.gateways()
	same := now == nil || sameNames(now, want)
	r.mu.Unlock()
	if same {
		return
	}
	r.halt()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range now {
		if !slices.Contains(want, g) {
			r.keyring.Forget(g)
			delete(r.drained, g)
			delete(r.closed, g)
		}
	}
	r.begin(r.renewal.To, want, r.renewal.Paused)
}

func sameNames(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}

// begin makes a renewal, which resume carries out. r.mu is held; then enforce must
// be called, as gateways may be let go.
func (r *ring) begin(to sstp.Fingerprint, gateways []string, paused bool) {
	next, err := sstp.NewRenewal(r.keyring, to, gateways, time.Now().Round(0))
	if err != nil {
		r.d.logger().Error("no renewal could be begun", "certificate", r.name, "error", err)
		return
	}
	next.Paused = paused
	if r.renewal != nil && r.renewal.To == to {
		next.Away = r.renewal.Away
	}
	r.renewal, r.stopped = next, ""
	for g := range r.drained {
		// The renewal before has got no further with it than to empty it: it
		// serves until its turn comes, as the others could not be spared else.
		if _, ok := r.keyring.Expected(g); ok {
			delete(r.drained, g)
			delete(r.closed, g)
		}
	}
	r.d.events.send(plugins.SeverityInfo, "renewal", r.name, "a new certificate is there: "+to.String())
}

// gateways returns the names of the backends that must know the hash. r.mu is held.
func (r *ring) gateways() []string {
	var names []string
	if s := r.d.siteNow(); s != nil {
		if p := s.Pool(r.spec.Pool); p != nil {
			for _, b := range p.Backends {
				names = append(names, b.Name)
			}
		}
	}
	return names
}

// close ends what r runs.
func (r *ring) close() {
	r.mu.Lock()
	running, watcher := r.rollout, r.watcher
	r.rollout, r.watcher = nil, nil
	r.mu.Unlock()
	running.end()
	watcher.end()
}
