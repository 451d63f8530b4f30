package haproxy

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Drain has HAProxy give a backend no new clients. The drain is in the file too, so
// that it outlasts HAProxy.
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
	refs, drained, err := f.memory.Deployment.Site(f.site).Redrain(f.memory.Drained, ref, req)
	if err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	m := f.memory
	m.Drained = drained
	sections := want(c, s, m.Deployment, f.site, m.Drained)
	file, err := write(c.Owner, f.site, m, sections, f.edition)
	if err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	if err := b.writeFile(ctx, file, false); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	var commands []string
	for _, x := range refs {
		commands = append(commands, steps(c, m.Deployment.Site(f.site), x, req)...)
	}
	if err := b.set(ctx, commands); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	d.log().Info("drain", "backend", ref.String(), "on", req != nil)
	return nil
}

// steps are the commands for a drain, or for its end if req is nil.
func steps(c plugins.Config, s *plugins.Site, x plugins.BackendRef, req *plugins.DrainRequest) []string {
	pool := s.Pool(x.Pool)
	b := &pool.Backends[slices.IndexFunc(pool.Backends, func(b plugins.Backend) bool { return b.Name == x.Backend })]
	var out []string
	for _, proxy := range proxiesOf(c, s, pool) {
		server := proxy + "/" + x.Backend
		switch {
		case req == nil && b.Admin == plugins.AdminDisabled || req == nil && b.Admin == plugins.AdminDraining:
			// It was out of service before.
		case req == nil:
			out = append(out, "set server "+server+" state ready", "set weight "+server+" "+strconv.Itoa(weightOf(pool, b)))
		case !req.Deadline.IsZero() && !req.Deadline.After(time.Now()):
			out = append(out, "set server "+server+" state maint", "shutdown sessions server "+server)
		case b.Admin == plugins.AdminDisabled:
		default:
			out = append(out, "set server "+server+" state drain")
		}
	}
	return out
}

// proxiesOf returns the names of the sections that hold the servers of a pool.
func proxiesOf(c plugins.Config, s *plugins.Site, p *plugins.Pool) []string {
	var out []string
	for i := range s.Groups {
		g := &s.Groups[i]
		if g.Pool != p.Name {
			continue
		}
		for k := range g.Listeners {
			out = append(out, c.Owner.Name(s.Name, 0, g.Name, g.Listeners[k].Name, "to"))
			if disbelieves(p) {
				out = append(out, c.Owner.Name(s.Name, 0, g.Name, g.Listeners[k].Name, "panic"))
			}
		}
	}
	return out
}
