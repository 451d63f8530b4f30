package builtin

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
)

// drains are the backends that Drain was called for, by pool and name. What a
// Deployment says of a backend is not among them.
type drains struct {
	mu sync.Mutex
	m  map[plugins.BackendRef]time.Time // deadlines
}

func (s *drains) list() []plugins.DrainRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]plugins.DrainRequest, 0, len(s.m))
	for ref, deadline := range s.m {
		out = append(out, plugins.DrainRequest{BackendRef: ref, Deadline: deadline})
	}
	slices.SortFunc(out, func(a, b plugins.DrainRequest) int { return cmp.Compare(a.String(), b.String()) })
	return out
}

func (s *drains) get(ref plugins.BackendRef) (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.m[ref]
	return t, ok
}

func (s *drains) set(ref plugins.BackendRef, deadline time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = make(map[plugins.BackendRef]time.Time)
	}
	s.m[ref] = deadline
}

func (s *drains) remove(ref plugins.BackendRef) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.m[ref]
	delete(s.m, ref)
	return ok
}

// keep forgets the drains of backends that aren't among pools.
func (s *drains) keep(pools []*pool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ref := range s.m {
		if !slices.ContainsFunc(pools, func(p *pool) bool { return p.name == ref.Pool && p.lb.View().ByName(ref.Backend) != nil }) {
			delete(s.m, ref)
		}
	}
}

// backend is a backend of a pool.
type backend struct {
	pool *pool
	name string
}

func (b backend) ref() plugins.BackendRef {
	return plugins.BackendRef{Pool: b.pool.name, Backend: b.name}
}

// find returns the backends that ref means.
func (r *running) find(ref plugins.BackendRef) ([]backend, error) {
	var out []backend
	for _, p := range r.pools {
		if (ref.Pool == "" || ref.Pool == p.name) && p.lb.View().ByName(ref.Backend) != nil {
			out = append(out, backend{p, ref.Backend})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: there is no backend %s", plugins.ErrNotFound, ref)
	}
	return out, nil
}

// Drain lets a backend keep its clients and gives it no new ones, until Undrain,
// across Applies and, with StateDir, restarts. At the deadline the clients that
// are left are moved to other backends at their next packet.
func (d *Driver) Drain(_ context.Context, r plugins.DrainRequest) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	list, err := d.current().find(r.BackendRef)
	if err != nil {
		return err
	}
	text := "no new clients"
	if !r.Deadline.IsZero() {
		text += ", and none at all from " + r.Deadline.Format(time.RFC3339)
	}
	for _, b := range list {
		d.drains.set(b.ref(), r.Deadline)
		d.enforce(b.pool)
		d.events.send(plugins.SeverityInfo, "drain", b.ref().String(), text)
	}
	return d.saveDrains()
}

// Undrain ends a Drain.
func (d *Driver) Undrain(_ context.Context, ref plugins.BackendRef) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	list, err := d.current().find(ref)
	if err != nil {
		return err
	}
	ended := false
	var stays error
	for _, b := range list {
		ended = d.drains.remove(b.ref()) || ended
		d.enforce(b.pool)
		if a := b.pool.admin(b.name); a != "" && a != plugins.AdminEnabled {
			stays = fmt.Errorf("builtin: backend %s stays %s: the deployment says so", b.ref(), a)
		}
		d.events.send(plugins.SeverityInfo, "drain", b.ref().String(), "ended")
	}
	if stays == nil && !ended {
		return fmt.Errorf("%w: %s", plugins.ErrNotDrained, ref)
	}
	if err := d.saveDrains(); err != nil {
		return err
	}
	return stays
}

// Failback has a pool return to its most preferred priority that works.
func (d *Driver) Failback(pool string) error {
	for _, p := range d.current().pools {
		if p.name == pool {
			p.lb.FailbackNow()
			d.events.send(plugins.SeverityInfo, "failback", pool, fmt.Sprintf("priority %d is in use", p.lb.View().Priority))
			return nil
		}
	}
	return fmt.Errorf("%w: there is no pool %q", plugins.ErrNotFound, pool)
}

// admin returns what the spec wants of a backend.
func (p *pool) admin(name string) plugins.Admin {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.spec.Backends {
		if p.spec.Backends[i].Name == name {
			return p.spec.Backends[i].Admin
		}
	}
	return ""
}

// enforce has the lb.Pool drain what is to be drained: as Drain was told, else
// as the spec says.
func (d *Driver) enforce(p *pool) {
	p.mu.Lock()
	specs := slices.Clone(p.spec.Backends)
	p.mu.Unlock()
	view, ring := p.lb.View(), d.ringOf(p.name)
	for i := range specs {
		m := view.ByName(specs[i].Name)
		if m == nil {
			continue
		}
		var want drainSet
		if deadline, ok := d.drains.get(plugins.BackendRef{Pool: p.name, Backend: m.Name}); ok {
			want = drainSet{true, deadline}
		} else if specs[i].Admin == plugins.AdminDraining {
			want = drainSet{on: true}
		}
		if specs[i].Admin == plugins.AdminDisabled {
			want = drainSet{true, time.Unix(1, 0)}
		}
		if r := ring.want(m.Name); r.on && (!want.on || !r.deadline.IsZero()) {
			want = r
		}
		p.drain(m, want)
	}
}

func (p *pool) drain(m *lb.Member, want drainSet) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drained[m.ID] == want {
		return
	}
	p.drained[m.ID] = want
	// The backend is there: Apply, Drain and Undrain exclude each other.
	if want.on {
		_ = p.lb.Drain(m.Name, want.deadline)
		return
	}
	_ = p.lb.Undrain(m.Name)
}
