package builtin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
)

// A pool is a plugins.Pool that is served.
type pool struct {
	name   string
	lb     *lb.Pool
	picker switchPicker
	// sessions are those of SSTP at its gateways.
	sessions *sstp.Sessions

	mu      sync.Mutex // below
	spec    plugins.Pool
	secrets [sha256.Size]byte
	monitor *monitor           // nil without checks
	drained map[lb.ID]drainSet // what has been said to lb
}

// drainSet is how a backend is drained: not at all if it is zero.
type drainSet struct {
	on       bool
	deadline time.Time
}

// monitor is an lb.Monitor and the goroutine that runs it.
type monitor struct {
	lb     *lb.Monitor
	cancel context.CancelFunc
	done   chan struct{}
}

// switchPicker is a Picker that can be exchanged while it is used.
type switchPicker struct{ p atomic.Pointer[pickerBox] }

type pickerBox struct {
	lb.Picker
	name plugins.Picker
}

// Pick asks the Picker of the moment.
func (s *switchPicker) Pick(k lb.Key, v *lb.View) *lb.Member { return s.p.Load().Pick(k, v) }

func (s *switchPicker) set(name plugins.Picker) {
	name = cmp.Or(name, plugins.PickMaglev)
	if old := s.p.Load(); old != nil && old.name == name {
		return
	}
	box := &pickerBox{name: name}
	switch name {
	case plugins.PickLeastClients:
		box.Picker = lb.LeastClients{}
	case plugins.PickRoundRobin:
		box.Picker = new(lb.RoundRobin)
	case plugins.PickLeastOutstanding:
		box.Picker = lb.LeastOutstanding{}
	default:
		box.Picker = new(lb.Maglev)
	}
	s.p.Store(box)
}

func (d *Driver) newPool(name string) *pool {
	p := &pool{name: name, drained: make(map[lb.ID]drainSet), sessions: d.newSessions(name)}
	p.lb = &lb.Pool{Trace: &lb.Trace{Changed: func(old, now *lb.Member) { d.backendChanged(name, old, now) }}}
	return p
}

// backendChanged is called with the lb.Pool locked.
func (d *Driver) backendChanged(pool string, old, now *lb.Member) {
	log := d.logger()
	switch {
	case now == nil:
		log.Info("backend removed", "pool", pool, "backend", old.Name)
		d.events.send(plugins.SeverityInfo, "backend", pool+"/"+old.Name, "removed")
	case old == nil && now.State == lb.Up:
		log.Info("backend added", "pool", pool, "backend", now.Name, "address", now.Addr)
		d.events.send(plugins.SeverityInfo, "backend", pool+"/"+now.Name, "added")
	case now.State == lb.Down:
		log.Warn("backend is down", "pool", pool, "backend", now.Name, "cause", now.Cause, "clients", now.Clients())
		d.events.send(plugins.SeverityWarning, "backend", pool+"/"+now.Name, "down: "+now.Cause)
	default:
		log.Info("backend is "+now.State.String(), "pool", pool, "backend", now.Name, "clients", now.Clients())
		d.events.send(plugins.SeverityInfo, "backend", pool+"/"+now.Name, now.State.String())
	}
}

// checkSet are the checks of a pool, and what they were made of beside the spec.
type checkSet struct {
	list    []lb.Check
	secrets [sha256.Size]byte // changes when a secret does
}

// checksOf makes the checks of a pool, which takes reading secrets.
func checksOf(spec *plugins.Pool, at string, own ownSecrets) (checkSet, error) {
	var out checkSet
	var errs []error
	sum := sha256.New()
	own.hash(sum)
	for i := range spec.Checks {
		c := &spec.Checks[i]
		path := fmt.Sprintf("%s.checks[%d]", at, i)
		read := func(ref plugins.Secret, field string) []byte {
			if ref.IsZero() {
				return nil
			}
			b, err := ref.Read()
			if err != nil {
				errs = append(errs, &plugins.FieldError{Path: path + "." + field, Err: err})
			}
			fmt.Fprintf(sum, "%d %d\n", i, len(b))
			sum.Write(b)
			return b
		}
		secret := read(c.Secret(), secretField(c.Secret()))
		password := read(c.Password(), strings.Replace(secretField(c.Password()), "secret", "password", 1))
		p, err := prober(c, secret, password, own)
		if c.Type == plugins.CheckRadSec && err != nil {
			errs = append(errs, beneath(path+".radsec.", err))
		} else if err != nil {
			errs = append(errs, &plugins.FieldError{Path: path + ".type", Err: err})
		}
		u := c.Usual()
		out.list = append(out.list, lb.Check{
			Name: u.Name, Prober: p, Port: uint16(u.Port), Interval: u.Interval.D(), Timeout: u.Timeout.D(),
			Rise: u.Rise, Fall: u.Fall, Advisory: u.Advisory,
		})
	}
	sum.Sum(out.secrets[:0])
	return out, errors.Join(errs...)
}

// backends returns the spec's backends as lb has them.
func backends(spec *plugins.Pool) []lb.Backend {
	out := make([]lb.Backend, 0, len(spec.Backends))
	for _, b := range spec.Backends {
		weight := 1
		if b.Weight != nil {
			weight = *b.Weight
		}
		if weight == 0 {
			weight = -1 // to lb, 0 means 1
		}
		out = append(out, lb.Backend{
			Name: b.Name, Addr: b.Address.Unmap(), Weight: weight,
			Priority: b.Priority, MaxClients: b.MaxClients,
		})
	}
	return out
}

// update makes p what spec says. checks are those of spec. Nothing in it can
// fail for a spec that has been validated.
func (d *Driver) update(p *pool, spec *plugins.Pool, checks checkSet) error {
	failback := map[plugins.Failback]lb.Failback{
		plugins.FailbackDelayed: lb.FailbackDelayed, plugins.FailbackManual: lb.FailbackManual,
	}[spec.Failback]
	noPanic := spec.Panic != nil && !*spec.Panic
	if p.lb.SlowStart != spec.SlowStart.D() || p.lb.Failback != failback || p.lb.FailbackDelay != spec.FailbackDelay.D() || p.lb.NoPanic != noPanic {
		p.lb.Reconfigure(func(l *lb.Pool) {
			l.SlowStart, l.Failback, l.FailbackDelay, l.NoPanic = spec.SlowStart.D(), failback, spec.FailbackDelay.D(), noPanic
		})
	}
	if err := p.lb.Set(backends(spec)...); err != nil {
		return fmt.Errorf("builtin: pool %s: %w", p.name, err)
	}
	p.picker.set(spec.Picker)
	p.mu.Lock()
	defer p.mu.Unlock()
	old, secrets := p.spec, p.secrets
	p.spec, p.secrets = *spec, checks.secrets
	if reflect.DeepEqual(old.Checks, spec.Checks) && old.Need == spec.Need && secrets == checks.secrets &&
		(p.monitor != nil) == (len(checks.list) > 0) {
		return nil
	}
	d.watchHealth(p, checks.list, spec.Need)
	return nil
}

// watchHealth replaces the checks of p. p.mu is held.
func (d *Driver) watchHealth(p *pool, checks []lb.Check, need plugins.Need) {
	if p.monitor != nil {
		p.monitor.end()
		p.monitor = nil
	}
	if len(checks) == 0 {
		for _, m := range p.lb.View().Members {
			// What the checks that are gone said no longer counts.
			_ = p.lb.Mark(m.Name, lb.Up, "")
		}
		return
	}
	mo := &lb.Monitor{Pool: p.lb, Checks: checks, Logger: d.Logger, Probed: d.probed(p, checks)}
	if d.Logger != nil {
		mo.Logger = d.Logger.With("pool", p.name)
	}
	if need == plugins.NeedAny {
		mo.Need = lb.NeedAny
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.monitor = &monitor{lb: mo, cancel: cancel, done: make(chan struct{})}
	done := p.monitor.done
	d.wg.Go(func() {
		defer close(done)
		_ = mo.Run(ctx) // it ends with ctx, and for no other reason
	})
}

func (m *monitor) end() {
	m.cancel()
	<-m.done
}

// close ends what p runs.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.monitor != nil {
		p.monitor.end()
		p.monitor = nil
	}
}

// suspect has backend asked at once.
func (p *pool) suspect(backend string, err error) {
	p.mu.Lock()
	m := p.monitor
	p.mu.Unlock()
	if m != nil {
		m.lb.Suspect(backend, err)
	}
}

// status returns what the checks say of each backend.
func (p *pool) status() map[string]lb.BackendStatus {
	out := make(map[string]lb.BackendStatus)
	for _, s := range p.checkStatus() {
		out[s.Backend] = s
	}
	return out
}

// Checks makes the checks of a list, reading their secrets. at is its path, for
// errors, which are *plugins.FieldError. Programs that check other addresses than
// those of a pool, such as a DNS server that chooses sites, use it.
func Checks(list []plugins.Check, at string) ([]lb.Check, error) {
	set, err := checksOf(&plugins.Pool{Checks: list}, at, nil)
	return set.list, err
}
