package builtin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

// A Challenger returns what answers a CA's challenge by TLS-ALPN-01 for the
// certificate of this name.
type Challenger func(certificate string) func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// CertificateStats is what is known of a certificate: what is served, what its
// gateways expect, and how far a renewal has come.
type CertificateStats struct {
	// Name is the certificate's, Pool that of its gateways.
	Name string `json:"name"`
	Pool string `json:"pool"`
	// Ring says which leaves there are, and which gateway expects which.
	Ring sstp.KeyringStatus `json:"ring"`
	// Assumed are the gateways of which nothing was said: they are taken to expect
	// the current leaf.
	Assumed []string `json:"assumed,omitempty"`
	// Findings are what is wrong with the current leaf.
	Findings []sstp.CertificateFinding `json:"findings"`
	// Doubts are gateways that don't do what is expected of them, in words.
	Doubts []GatewayDoubt `json:"doubts"`
	// Renewal is the one under way, or the last; nil if there was none.
	Renewal *sstp.Renewal `json:"renewal,omitempty"`
	// Running says that it is being carried out. If it isn't, and isn't done,
	// Stopped says why.
	Running bool   `json:"running"`
	Stopped string `json:"stopped,omitempty"`
	// Waiting is the gateway whose hash is to be set by hand; empty if none is.
	// Script is the PowerShell that does it, to be run there.
	Waiting string `json:"waiting,omitempty"`
	Script  string `json:"script,omitempty"`
}

// A GatewayDoubt is a gateway at which clients would be cut off, or soon will be.
type GatewayDoubt struct {
	// Gateway is the name of the backend.
	Gateway string `json:"gateway"`
	// Text says what is the matter and what to do.
	Text string `json:"text"`
}

// Certificates returns what is known of the certificates that are served.
func (d *Driver) Certificates() []CertificateStats {
	out := []CertificateStats{}
	for _, r := range d.ringsNow() {
		out = append(out, r.stats())
	}
	return out
}

func (d *Driver) ringsNow() []*ring {
	if list := d.rings.Load(); list != nil {
		return *list
	}
	return nil
}

func (d *Driver) ring(name string) (*ring, error) {
	list := d.ringsNow()
	if name == "" && len(list) == 1 {
		return list[0], nil
	}
	for _, r := range list {
		if r.name == name {
			return r, nil
		}
	}
	if name == "" {
		return nil, fmt.Errorf("%w: there are %d certificates, say which", plugins.ErrNotFound, len(list))
	}
	return nil, fmt.Errorf("%w: there is no certificate %q", plugins.ErrNotFound, name)
}

func (r *ring) stats() CertificateStats {
	s := CertificateStats{Name: r.name, Findings: []sstp.CertificateFinding{}, Doubts: []GatewayDoubt{}}
	if c := r.keyring.Current(); c != nil {
		s.Findings = slices.DeleteFunc(c.Check(sstp.CertificateRules{}), func(f sstp.CertificateFinding) bool { return f.Gravity == sstp.GravityAdvice })
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Pool, s.Renewal, s.Running, s.Stopped = r.spec.Pool, r.renewal.Clone(), r.rollout != nil, r.stopped
	s.Ring = r.keyring.Status() // after the renewal: what that has done can be seen in it
	s.Assumed = r.assumed(&s.Ring)
	for name := range r.asked {
		s.Waiting = name
	}
	for _, g := range r.gateways() {
		if text := r.doubt(g); text != "" {
			s.Doubts = append(s.Doubts, GatewayDoubt{g, text})
		}
	}
	return s
}

// assumed returns the gateways that s doesn't name, and that are taken to expect the
// current leaf. r.mu is held.
func (r *ring) assumed(s *sstp.KeyringStatus) []string {
	var names []string
	for _, g := range r.gateways() {
		named := slices.ContainsFunc(s.Gateways, func(x sstp.GatewayStatus) bool { return x.Gateway == g })
		if _, ok := r.keyring.Expected(g); ok && !named {
			names = append(names, g)
		}
	}
	return names
}

// OfferCertificate hands a new certificate to the one of this name, as a CA has
// issued it. It isn't shown to anybody before its gateways expect it.
func (d *Driver) OfferCertificate(name string, c *sstp.Certificate) error {
	r, err := d.ring(name)
	if err != nil {
		return err
	}
	if err := r.offer(c); err != nil {
		return err
	}
	if err := r.enforce(context.Background()); err != nil {
		return err
	}
	r.restart()
	return nil
}

// Leaves returns what chooses a certificate for the clients of a pool, or nil if
// there is no certificate for its gateways.
func (d *Driver) Leaves(pool string) sstp.Leaves {
	if r := d.ringOf(pool); r != nil {
		return r.keyring
	}
	return nil
}

// Renew begins the renewal that waits, or resumes the one that stands still. With
// back, the gateways are brought back to the hash that the first of them had
// before, and the newer certificate waits until Renew is called again.
func (d *Driver) Renew(ctx context.Context, name string, back bool) error {
	r, err := d.ring(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	switch {
	case r.renewal == nil && back:
		r.mu.Unlock()
		return fmt.Errorf("builtin: certificate %s: there was no renewal", r.name)
	case !back && (r.renewal == nil || !r.renewal.Ended.IsZero()):
		current := r.keyring.Status().Current
		if r.renewal != nil && r.keyring.Standing(r.renewal.Away) == sstp.StandingHeld {
			current = r.renewal.Away // now it is wanted after all
		}
		if current.IsZero() || r.allExpect(current, r.gateways()) {
			r.mu.Unlock()
			return fmt.Errorf("builtin: certificate %s: all gateways expect the newest certificate: there is nothing to bring to them", r.name)
		}
		r.begin(current, r.gateways(), false)
	case back:
		var to sstp.Fingerprint
		for _, g := range r.renewal.Gateways {
			to = cmp.Or(to, g.From)
		}
		if r.keyring.Standing(to) != sstp.StandingHeld {
			r.mu.Unlock()
			return fmt.Errorf("builtin: certificate %s: the one before isn't there any more", r.name)
		}
		r.mu.Unlock()
		r.halt()
		r.mu.Lock()
		away := r.renewal.To
		if r.begin(to, r.gateways(), false); r.renewal.To == to {
			r.renewal.Away = away
		}
	}
	r.renewal.Paused = false
	err = r.save()
	r.mu.Unlock()
	if err != nil {
		return err
	}
	if err := r.enforce(ctx); err != nil {
		return err
	}
	r.resume()
	return nil
}

// PauseRenewal stops a renewal where it is. What has been done stays done: a
// gateway in the middle of its change stays drained.
func (d *Driver) PauseRenewal(_ context.Context, name string) error {
	r, err := d.ring(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.renewal == nil || !r.renewal.Ended.IsZero() {
		r.mu.Unlock()
		return fmt.Errorf("builtin: certificate %s: no renewal is under way", r.name)
	}
	r.renewal.Paused = true
	err = r.save()
	r.mu.Unlock()
	r.halt()
	return err
}

// ConfirmRenewal says that the hash of a gateway was set by hand.
func (d *Driver) ConfirmRenewal(_ context.Context, name, gateway string) error {
	r, err := d.ring(name)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	ch := r.asked[gateway]
	if ch == nil {
		return fmt.Errorf("builtin: certificate %s: gateway %s doesn't wait for its hash to be set", r.name, gateway)
	}
	delete(r.asked, gateway)
	close(ch)
	return nil
}

// RenewalScript returns the PowerShell to run on a gateway: it sets the hash that a
// renewal brings or has brought, or, if there was none, that of the certificate that
// is shown.
func (d *Driver) RenewalScript(name, gateway string) (string, error) {
	r, err := d.ring(name)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	to := r.keyring.Status().Current
	if r.renewal != nil {
		to = r.renewal.To
	}
	there := slices.Contains(r.gateways(), gateway)
	r.mu.Unlock()
	switch {
	case !there:
		return "", fmt.Errorf("%w: pool %s of certificate %s has no gateway %q", plugins.ErrNotFound, r.pool(), r.name, gateway)
	case to.IsZero():
		return "", fmt.Errorf("builtin: certificate %s: there is none yet whose hash could be set", r.name)
	}
	return r.script(sstp.RenewalTask{Gateway: gateway, To: to}), nil
}

// halt ends the rollout, if there is one.
func (r *ring) halt() {
	r.mu.Lock()
	o := r.rollout
	r.rollout = nil
	r.mu.Unlock()
	o.end()
}

// restart has a rollout take up another renewal.
func (r *ring) restart() {
	r.mu.Lock()
	other := r.rollout != nil
	r.mu.Unlock()
	if other {
		r.halt()
	}
	r.resume()
}

// A gatewaySight is what the watch has seen of a gateway.
type gatewaySight struct {
	at         time.Time
	shows      sstp.Fingerprint
	configured sstp.Fingerprint
	err        string
}

// The watch looks at the gateways at these times: at what they show in TLS often,
// and into their registry seldom, as that takes a command.
const (
	watchEvery = time.Minute
	readEvery  = 15 * time.Minute
)

// startWatch has the gateways looked at.
func (r *ring) startWatch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watcher != nil {
		return
	}
	r.watcher = r.d.goRollout(func(ctx context.Context) {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		var read time.Time
		for {
			r.prune()
			due := time.Since(read) >= readEvery
			r.sight(ctx, due)
			if due {
				read = time.Now()
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// prune forgets certificates that have ended and that no gateway expects.
func (r *ring) prune() {
	for _, l := range r.keyring.Status().Leaves {
		if time.Since(l.NotAfter) < 24*time.Hour || r.keyring.Release(l.SHA256) != nil {
			continue
		}
		r.mu.Lock()
		err := r.save()
		if r.store != nil && err == nil {
			err = r.store.Drop(l.SHA256)
		}
		r.mu.Unlock()
		if err != nil {
			r.d.logger().Warn("a certificate that has ended stays", "certificate", r.name, "error", err)
		}
	}
}

// sight looks at each gateway once.
func (r *ring) sight(ctx context.Context, read bool) {
	r.mu.Lock()
	names, command := r.gateways(), r.spec.Renewal.Read
	last := r.seen
	r.mu.Unlock()
	now := make(map[string]gatewaySight, len(names))
	for _, g := range names {
		f, known := r.keyring.Expected(g)
		if !known {
			continue // it is being changed, or was never known
		}
		s := gatewaySight{at: time.Now(), configured: last[g].configured}
		if !r.plain() {
			e, _ := r.look(ctx, g) // whether it serves is for its check to say
			s.shows = e.Shows
		}
		if c := r.keyring.Certificate(f); read && len(command) > 0 && c != nil {
			var err error
			if s.configured, err = r.configured(ctx, command, sstp.RenewalTask{Gateway: g, To: f, Certificate: c}); err != nil {
				s.err = err.Error()
			}
		}
		now[g] = s
	}
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range names {
		was := r.doubt(g)
		r.seen = now
		if text := r.doubt(g); text != "" && text != was {
			r.d.logger().Warn("clients of a gateway will be cut off", "certificate", r.name, "gateway", g, "why", text)
			r.d.events.send(plugins.SeverityWarning, "certificate", r.name+"/"+g, text)
		}
		r.seen = last
	}
	r.seen = now
}

// seenToExpect returns the hash that a gateway is configured with, if somebody has
// looked: in its registry, or at a session that survived its binding.
func (r *ring) seenToExpect(gateway string) (f sstp.Fingerprint, ok bool) {
	f, told := r.keyring.Told(gateway)
	r.mu.Lock()
	defer r.mu.Unlock()
	if told && r.renewal != nil && r.renewal.To == f {
		for i := range r.renewal.Gateways {
			if g := &r.renewal.Gateways[i]; g.Gateway == gateway && g.Evidence.Holds(f) {
				return f, true
			}
		}
	}
	f = r.seen[gateway].configured
	return f, !f.IsZero()
}

// doubt says why clients of a gateway would be cut off, or "". r.mu is held.
func (r *ring) doubt(gateway string) string {
	f, known := r.keyring.Expected(gateway)
	s := r.seen[gateway]
	switch {
	case !known:
		if r.drained[gateway] {
			return "" // it gets no clients
		}
		return "it isn't known which certificate it expects, so that its clients are refused: aovlb renew"
	case r.keyring.Certificate(f) == nil:
		return fmt.Sprintf("it is configured with the hash %s, which is none of ours, so that its clients are refused: aovlb renew", f)
	case !s.configured.IsZero() && s.configured != f:
		return fmt.Sprintf("its registry holds the hash %s, and its clients are shown the certificate %s: each session would be aborted after the user has logged in; run there: %s", s.configured, f, r.enable(f))
	case s.configured.IsZero() && !s.shows.IsZero() && s.shows != f:
		return fmt.Sprintf("it shows the certificate %s itself, and its clients are shown %s: unless its registry holds the latter's hash, each session would be aborted after the user has logged in; to be sure run there: %s", s.shows, f, r.enable(f))
	case time.Until(r.keyring.Certificate(f).Leaf.NotAfter) < 7*24*time.Hour:
		return fmt.Sprintf("its certificate ends on %s: aovlb renew", r.keyring.Certificate(f).Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return ""
}

// enable is the command that sets a hash. Enable-SstpOffload sets UseHttps to 0 too.
func (r *ring) enable(f sstp.Fingerprint) string {
	if r.plainFor(r.spec.Pool) {
		return "Enable-SstpOffload -CertificateHash " + f.String() + " -Restart"
	}
	return "what is printed by: aovlb cert hash --powershell --restart " + f.String()
}
