package netscaler

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
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
	refs, drained, err := m.Deployment.Redrain(f.site, m.Drained, ref, req)
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
		if name, ok := x.GeoSite(); ok {
			if err := c.drainSite(ctx, conf, s, f, name); err != nil {
				return err
			}
			continue
		}
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

// drainSite takes a site of geo out of all names, or brings it back into them: its
// services are unbound, and bound again.
func (c *client) drainSite(ctx context.Context, conf plugins.Config, s Settings, f *found, name string) error {
	want, err := renderAll(conf, s, f.memory.Deployment, f, f.memory.Drained)
	if err != nil {
		return err
	}
	r := &renderer{owner: conf.Owner, site: f.memory.Deployment.Served(f.site)}
	of := make(map[string]bool)
	for _, x := range gslb.Sites(f.memory.Deployment.Geo) {
		for _, record := range gslb.Families() {
			for _, m := range gslb.Members(x, record) {
				of[r.serviceName(&m)] = x.Name == name
			}
		}
	}
	list := steps(f.items, want)
	for i := range list {
		it := list[i].want
		if it == nil {
			it = list[i].found
		}
		// Whatever else differs is for a plan.
		if it.kind.name != "gslbvserver_gslbservice_binding" || !of[it.child()] || lookup(f.items, "gslbvserver", it.parent()) == nil || lookup(f.items, "gslbservice", it.child()) == nil {
			continue
		}
		if err := c.take(ctx, &list[i]); err != nil {
			return err
		}
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
