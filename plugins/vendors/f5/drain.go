package f5

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Drain disables the members that a backend is, so that those who live there stay.
// A deadline that has passed forces them offline, and ends what connections and
// memories of clients there are.
func (d *Driver) Drain(ctx context.Context, r plugins.DrainRequest) error {
	is := stateDisable
	if !r.Deadline.IsZero() && !r.Deadline.After(time.Now()) {
		is = stateOffline
	}
	return d.drain(ctx, r.BackendRef, is)
}

// Undrain ends a drain.
func (d *Driver) Undrain(ctx context.Context, r plugins.BackendRef) error {
	return d.drain(ctx, r, stateEnable)
}

// bodies say a state in iControl REST's words.
var bodies = map[state]map[string]string{
	stateEnable:  {"session": "user-enabled", "state": "user-up"},
	stateDisable: {"session": "user-disabled", "state": "user-up"},
	stateOffline: {"session": "user-disabled", "state": "user-down"},
}

// alone has this driver alone write to the appliance until done, and reads what is there.
func (d *Driver) alone(ctx context.Context) (s *target, f *found, done func(), err error) {
	if s, err = d.setup(ctx); err != nil {
		return nil, nil, nil, err
	}
	if done, err = d.write(ctx); err != nil {
		return nil, nil, nil, err
	}
	if f, err = s.read(ctx, nil); err != nil {
		done()
		return nil, nil, nil, err
	}
	return s, f, done, nil
}

func (d *Driver) drain(ctx context.Context, ref plugins.BackendRef, is state) error {
	if name, ok := ref.GeoSite(); ok {
		return d.drainSite(ctx, name, is != stateEnable)
	}
	s, f, done, err := d.alone(ctx)
	if err != nil {
		return err
	}
	defer done()
	known, wrote, was := false, false, false
	for _, m := range members(s.config.Owner, f.deployment.Site(f.site)) {
		if m.Backend != ref.Backend || ref.Pool != "" && m.Pool != ref.Pool {
			continue
		}
		known = true
		if _, ok := f.drained[m.BackendRef]; ok {
			was = true
		}
		did, err := s.set(ctx, f, m, is)
		if err != nil {
			return fmt.Errorf("f5: %v: %w", ref, err)
		}
		wrote = wrote || did
	}
	switch {
	case !known && !pooled(f.deployment.Site(f.site), ref):
		return fmt.Errorf("f5: %v: %w", ref, plugins.ErrNotFound)
	case is == stateEnable && !was:
		return fmt.Errorf("f5: %v: %w", ref, plugins.ErrNotDrained)
	case is == stateOffline:
		if err := s.cut(ctx, f, ref); err != nil {
			return fmt.Errorf("f5: %v: end its connections: %w", ref, err)
		}
	}
	if !wrote {
		return nil
	}
	d.log().Info("drain", "backend", ref.String(), "state", string(is))
	save := call{method: http.MethodPost, path: "/mgmt/tm/sys/config", body: map[string]string{"command": "save"}, again: true}
	if _, err := s.client.do(ctx, save, nil); err != nil {
		return fmt.Errorf("f5: %v: it is done, but not saved for the next start: %w", ref, err)
	}
	return nil
}

// drainSite disables the pools of a site in all names, or enables them again: AS3 does
// so, which also keeps which sites are drained.
func (d *Driver) drainSite(ctx context.Context, name string, on bool) error {
	s, f, done, err := d.alone(ctx)
	if err != nil {
		return err
	}
	defer done()
	ref := plugins.GeoRef(name)
	switch {
	case len(f.deployment.Refs(f.site, ref)) == 0:
		return fmt.Errorf("f5: %v: %w", ref, plugins.ErrNotFound)
	case !on && !f.sites[name]:
		return fmt.Errorf("f5: %v: %w", ref, plugins.ErrNotDrained)
	case on && f.sites[name]:
		return nil
	}
	if delete(f.sites, name); on {
		f.sites[name] = true
	}
	w, err := s.want(f.deployment, f, f.drained)
	if err != nil {
		return err
	}
	if err := s.free(ctx, w, f); err != nil {
		return err
	}
	if err := s.declare(ctx, w, f, false, nil); err != nil {
		return fmt.Errorf("f5: %v: %w", ref, err)
	}
	d.log().Info("drain", "site", name, "on", on)
	return nil
}

// pooled reports whether a site has a backend, though no listener uses it.
func pooled(s *plugins.Site, ref plugins.BackendRef) bool {
	if s == nil {
		return false
	}
	for i := range s.Pools {
		for _, b := range s.Pools[i].Backends {
			if b.Name == ref.Backend && (ref.Pool == "" || ref.Pool == s.Pools[i].Name) {
				return true
			}
		}
	}
	return false
}

// set has a member be in a state, but never let in more than its deployment says.
func (s *target) set(ctx context.Context, f *found, m memberRef, is state) (bool, error) {
	if more(m.declared, is) {
		is = m.declared
	}
	pool := f.live.pools[m.pool]
	if pool == nil {
		return false, fmt.Errorf("the BIG-IP has no pool %s: apply the deployment", m.pool)
	}
	x := pool.member(m.name)
	if x == nil {
		return false, fmt.Errorf("the BIG-IP has no member %s in %s: apply the deployment", m.name, m.pool)
	}
	if x.admin() == is {
		return false, nil
	}
	path := "/mgmt/tm/ltm/pool/" + tilde("/"+f.name+"/"+m.pool) + "/members/" + tilde(x.FullPath)
	_, err := s.client.do(ctx, call{method: http.MethodPatch, path: path, body: bodies[is], again: true}, nil)
	return true, err
}

// tilde writes a path as iControl REST has it within another.
func tilde(path string) string { return url.PathEscape(strings.ReplaceAll(path, "/", "~")) }

// cut ends the connections of our listeners to a backend, and forgets whose clients
// it has. Those of others on the same server go on.
func (s *target) cut(ctx context.Context, f *found, ref plugins.BackendRef) error {
	site := f.deployment.Site(f.site)
	r := &renderer{owner: s.config.Owner, site: site}
	for i := range site.Groups {
		g := &site.Groups[i]
		for _, b := range site.Pool(g.Pool).Backends {
			if b.Name != ref.Backend || ref.Pool != "" && g.Pool != ref.Pool {
				continue
			}
			for k := range g.Listeners {
				l := &g.Listeners[k]
				virtual := "/" + f.name + "/" + r.appName(g) + "/" + r.serviceName(l)
				if err := s.forget(ctx, "/mgmt/tm/ltm/persistence/persist-records", "virtual "+virtual+" node-addr "+b.Address.String()); err != nil {
					return err
				}
				flows := fmt.Sprintf("cs-server-addr %v cs-server-port %d ss-server-addr %v", l.Address.Addr(), l.Address.Port(), b.Address)
				if err := s.forget(ctx, "/mgmt/tm/sys/connection", flows); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// forget deletes what options say of a table of the traffic. There may be nothing.
func (s *target) forget(ctx context.Context, path, options string) error {
	_, err := s.client.do(ctx, call{method: http.MethodDelete, path: path, query: url.Values{"options": {options}}, again: true}, nil)
	if statusOf(err) == http.StatusNotFound {
		return nil
	}
	return err
}
