package netscaler

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Drain disables a backend's members: gracefully, with the time that is left as
// their delay, or at once if none is.
func (d *Driver) Drain(ctx context.Context, r plugins.DrainRequest) error {
	return where(d.drain(ctx, r.BackendRef, &r))
}

// Undrain ends a drain.
func (d *Driver) Undrain(ctx context.Context, r plugins.BackendRef) error {
	return where(d.drain(ctx, r, nil))
}

func (d *Driver) drain(ctx context.Context, ref plugins.BackendRef, req *plugins.DrainRequest) error {
	conf, s, c, err := d.setup(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := c.find(ctx, conf.Owner, conf.Site)
	if err != nil {
		return err
	}
	if f.memory == nil {
		return fmt.Errorf("%v: %w", ref, plugins.ErrNotFound)
	}
	m := *f.memory
	site := m.Deployment.Site(f.site)
	refs, drained, err := site.Redrain(m.Drained, ref, req)
	if err != nil {
		return err
	}
	m.Drained = drained
	// It is noted first: a note without its drain is made good by the next Apply, a
	// drain without a note would be undone by it.
	if err := c.remember(ctx, conf.Owner, f, &m); err != nil {
		return err
	}
	for _, x := range refs {
		if err := c.drainMembers(ctx, f, site, x, req, conf.Owner); err != nil {
			return err
		}
	}
	d.altered.Add(1)
	d.log().Info("drain", "backend", ref.String(), "on", req != nil)
	if s.saves() {
		return c.save(ctx)
	}
	return nil
}

// drainMembers disables or enables a backend's members in all servicegroups.
func (c *client) drainMembers(ctx context.Context, f *found, s *plugins.Site, x plugins.BackendRef, req *plugins.DrainRequest, owner plugins.Owner) error {
	p := s.Pool(x.Pool)
	b := &p.Backends[slices.IndexFunc(p.Backends, func(b plugins.Backend) bool { return b.Name == x.Backend })]
	r := &renderer{owner: owner, site: s, servers: f.servers}
	for _, m := range r.members(p, b) {
		if lookup(f.items, m.kind.name, m.name()) == nil {
			continue // Apply makes it
		}
		var err error
		switch {
		case req == nil && m.get("state") == "ENABLED":
			err = c.enable(ctx, m)
		case req == nil:
			err = c.disable(ctx, m, m.get("graceful") != "NO", 0)
		case req.Deadline.IsZero():
			err = c.disable(ctx, m, true, 0)
		default:
			left := time.Until(req.Deadline)
			err = c.disable(ctx, m, left > 0, max(int((left+time.Second-1)/time.Second), 0))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// members returns the members that a backend is, as they are without a drain.
func (r *renderer) members(p *plugins.Pool, b *plugins.Backend) []*item {
	var out []*item
	level := slices.Index(levels(p), b.Priority)
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		if g.Pool != p.Name {
			continue
		}
		for k := range g.Listeners {
			l := &g.Listeners[k]
			names := []string{g.Name, l.Name}
			if level > 0 {
				names = append(names, "standby"+strconv.Itoa(level))
			}
			group := &item{kind: kindOf("servicegroup"), keys: []any{r.name(append(names, "to")...)}}
			out = append(out, r.member(group, l, p, b))
		}
	}
	return out
}
