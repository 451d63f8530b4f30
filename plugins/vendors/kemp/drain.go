package kemp

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Drain disables a backend in each virtual service of its pool, and only there: the
// LoadMaster's own command would disable it in those of others too. When the deadline
// has passed, it takes the backend out of them, which ends its connections.
func (d *Driver) Drain(ctx context.Context, r plugins.DrainRequest) error {
	return d.drain(ctx, r.BackendRef, &r)
}

// Undrain ends a drain.
func (d *Driver) Undrain(ctx context.Context, r plugins.BackendRef) error {
	return d.drain(ctx, r, nil)
}

func (d *Driver) drain(ctx context.Context, ref plugins.BackendRef, req *plugins.DrainRequest) error {
	c, s, box, err := d.setup(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := d.find(ctx, c, box)
	if err != nil {
		return err
	}
	refs := f.memory.deployment().Refs("", ref)
	if len(refs) == 0 {
		return fmt.Errorf("kemp: %v: %w", ref, plugins.ErrNotFound)
	}
	m := f.memory
	m.Drained = slices.DeleteFunc(slices.Clone(m.Drained), func(x drain) bool {
		return slices.Contains(refs, plugins.BackendRef{Pool: x.Pool, Backend: x.Backend})
	})
	if req == nil && len(m.Drained) == len(f.memory.Drained) {
		return fmt.Errorf("kemp: %v: %w", ref, plugins.ErrNotDrained)
	}
	for _, x := range refs {
		if req != nil {
			cut := !req.Deadline.IsZero() && !req.Deadline.After(time.Now())
			m.Drained = append(m.Drained, drain{Pool: x.Pool, Backend: x.Backend, Deadline: req.Deadline, Cut: cut})
		}
	}
	if err := d.remember(ctx, box, f, &m); err != nil {
		return fmt.Errorf("kemp: drain %v: %w", ref, err)
	}
	w := &work{found: f, renderer: &renderer{site: m.Site, geo: m.Geo, owner: c.Owner, settings: s, drained: m.Drained}}
	if name, ok := ref.GeoSite(); ok {
		if err := w.drainSite(ctx, box, name); err != nil {
			return fmt.Errorf("kemp: drain %v: %w", ref, err)
		}
		refs = nil
	}
	for _, x := range plugins.DiffObjects(w.servers(refs)) {
		if err := w.server(ctx, box, x, x.Action == plugins.ActionRemove); err != nil {
			return fmt.Errorf("kemp: drain %v: %s: %w", ref, x.Name, err)
		}
	}
	d.altered.Add(1)
	d.log().Info("drain", "backend", ref.String(), "on", req != nil)
	return nil
}

// servers returns the real servers of backends that are there, and those that are
// wanted.
func (w *work) servers(refs []plugins.BackendRef) (there, want []plugins.Object) {
	for _, s := range w.renderer.services() {
		if w.byName(s.name()) == nil {
			continue // somebody removed it; a plan makes it again
		}
		for i := range s.pool.Backends {
			b := &s.pool.Backends[i]
			if !slices.Contains(refs, plugins.BackendRef{Pool: s.pool.Name, Backend: b.Name}) {
				continue
			}
			_, name := s.server(b)
			for _, o := range w.objects {
				if o.Kind == kindServer && o.Name == name {
					there = append(there, o)
				}
			}
			if o, ok := w.renderer.serverObject(&s, b); ok {
				want = append(want, o)
			}
		}
	}
	return there, want
}
