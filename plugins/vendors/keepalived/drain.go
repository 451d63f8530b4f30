package keepalived

import (
	"context"
	"fmt"

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
	_, drained, err := f.memory.Deployment.Site(f.site).Redrain(f.memory.Drained, ref, req)
	if err != nil {
		return fmt.Errorf("keepalived: %w", err)
	}
	m := f.memory
	m.Drained = drained
	w := want(c, s, m.Deployment, f.site, m.Drained)
	if err := d.put(ctx, c, b, f, &w, m, true); err != nil {
		return err
	}
	d.log().Info("drain", "backend", ref.String(), "on", req != nil)
	return nil
}
