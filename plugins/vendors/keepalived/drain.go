package keepalived

import (
	"context"
	"fmt"
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// Drain has IPVS give a backend no new clients, by the weight 0. It is in the file,
// so that it outlasts keepalived.
func (d *Driver) Drain(ctx context.Context, r plugins.DrainRequest) error {
	return d.drain(ctx, r.BackendRef, &r)
}

// Undrain ends a drain.
func (d *Driver) Undrain(ctx context.Context, r plugins.BackendRef) error {
	return d.drain(ctx, r, nil)
}

func (d *Driver) drain(ctx context.Context, ref plugins.BackendRef, req *plugins.DrainRequest) error {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := find(ctx, c, s, b, nil)
	if err != nil {
		return err
	}
	refs := f.memory.Deployment.Site(f.site).Refs(ref)
	if len(refs) == 0 {
		return fmt.Errorf("keepalived: %v: %w", ref, plugins.ErrNotFound)
	}
	m := f.memory
	m.Drained = slices.DeleteFunc(slices.Clone(m.Drained), func(x plugins.DrainRequest) bool { return slices.Contains(refs, x.BackendRef) })
	if req == nil && len(m.Drained) == len(f.memory.Drained) {
		return fmt.Errorf("keepalived: %v: %w", ref, plugins.ErrNotDrained)
	}
	for _, x := range refs {
		if req != nil {
			m.Drained = append(m.Drained, plugins.DrainRequest{BackendRef: x, Deadline: req.Deadline})
		}
	}
	w := want(c, s, m.Deployment, f.site, m.Drained)
	if err := d.put(ctx, c, b, f, &w, m, true); err != nil {
		return err
	}
	d.log().Info("drain", "backend", ref.String(), "on", req != nil)
	return nil
}
