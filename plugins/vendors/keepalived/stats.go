package keepalived

import (
	"context"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Stats returns what IPVS counts. Clients are connections and flows.
func (d *Driver) Stats(ctx context.Context) (*plugins.Stats, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := find(ctx, c, s, b, nil)
	if err != nil {
		return nil, err
	}
	return stats(ctx, c, s, b, f)
}

func stats(ctx context.Context, c plugins.Config, s Settings, b box, f *found) (*plugins.Stats, error) {
	out := &plugins.Stats{At: time.Now(), Site: f.site}
	site := f.memory.Deployment.Site(f.site)
	if site == nil {
		return out, nil
	}
	v := &viewer{renderer: newRenderer(c, s, site, f.memory.Drained), why: f.why}
	if f.running {
		list, err := b.services(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		v.list = list
		if err != nil {
			v.why = err.Error()
		}
	}
	for i := range site.Pools {
		out.Pools = append(out.Pools, v.pool(&site.Pools[i]))
	}
	for i := range site.Groups {
		g := &site.Groups[i]
		out.Groups = append(out.Groups, plugins.GroupStats{Name: g.Name, Pool: g.Pool})
		for k := range g.Listeners {
			out.Listeners = append(out.Listeners, v.listener(g, &g.Listeners[k]))
		}
	}
	return out, nil
}

// viewer looks at a site as IPVS has it.
type viewer struct {
	*renderer
	list []service
	why  string // why there is no list
}

// service returns the service of a listener, or nil.
func (v *viewer) service(g *plugins.Group, l *plugins.Listener) *service {
	b := block{head: v.renderer.service(g, l)}
	if !shared(g) {
		b.add("protocol %s", strings.ToUpper(l.Protocol.Network()))
	}
	key := keyOf(&b)
	for i := range v.list {
		if v.list[i].key == key {
			return &v.list[i]
		}
	}
	return nil
}

func (v *viewer) listener(g *plugins.Group, l *plugins.Listener) plugins.ListenerStats {
	out := plugins.ListenerStats{Name: l.Name, Group: g.Name, Protocol: l.Protocol, Address: l.Address, State: "failed"}
	s := v.service(g, l)
	switch {
	case s != nil:
		out.State = "open"
		if !shared(g) {
			out.Active = new(int64)
			for _, d := range s.servers {
				*out.Active += d.active + d.inactive
			}
		}
	case v.why != "":
		out.Error = v.why
	default:
		out.Error = "IPVS has no such service"
	}
	return out
}

func (v *viewer) pool(p *plugins.Pool) plugins.PoolStats {
	out := plugins.PoolStats{Name: p.Name, Priority: levels(p)[0]}
	total := 0
	var weights []int
	for i := range p.Backends {
		x, w := v.backend(p, &p.Backends[i])
		weights = append(weights, w)
		total += w
		out.Backends = append(out.Backends, x)
	}
	for i, w := range weights {
		if total > 0 {
			out.Backends[i].Share = float64(w) / float64(total)
		}
	}
	return out
}

// backend returns what is known of a backend, and its weight.
func (v *viewer) backend(p *plugins.Pool, b *plugins.Backend) (plugins.BackendStats, int) {
	x := plugins.BackendStats{Name: b.Name, Address: b.Address, Priority: b.Priority, MaxClients: b.MaxClients, State: "down"}
	weight, there, used := 0, false, false
	for i := range v.site.Groups {
		g := &v.site.Groups[i]
		if g.Pool != p.Name {
			continue
		}
		list := servicesOf(g)
		for k := range list {
			s := v.service(g, &list[k])
			if s == nil {
				continue
			}
			used = true
			for _, d := range s.servers {
				if d.address != b.Address.Unmap() {
					continue
				}
				there, weight = true, max(weight, d.weight)
				if x.Active == nil {
					x.Active = new(int64)
				}
				*x.Active += d.active + d.inactive
			}
		}
	}
	planned, serves := v.weight(p, b)
	switch {
	case there && weight > 0 && planned > 0:
		x.State = "up"
	case there:
		x.State = "draining"
	case v.why != "":
		x.Cause = v.why
	case !serves:
		x.Cause = "taken out of service"
	case !used:
		x.Cause = "no listener uses it, or IPVS has no such service"
	case b.Priority > levels(p)[0]:
		x.Cause = "stands by"
	default:
		x.Cause = "fails its checks"
	}
	if !there && used && x.Active == nil {
		x.Active = new(int64)
	}
	for _, r := range v.drained {
		if r.Pool == p.Name && r.Backend == b.Name {
			x.DrainDeadline = r.Deadline
		}
	}
	return x, weight
}
