package f5

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// counters are the statistics of one object: numbers, and words.
type counters map[string]struct {
	Value       float64 `json:"value"`
	Description string  `json:"description"`
}

func (c counters) count(name string) uint64 { return uint64(max(c[name].Value, 0)) }
func (c counters) word(name string) string  { return c[name].Description }

// traffic returns one direction, In or Out. A BIG-IP counts bits.
func (c counters) traffic(way string) *plugins.Traffic {
	return &plugins.Traffic{Packets: c.count("pkts" + way), Bytes: c.count("bits"+way) / 8}
}

// side returns the counters whose names begin with a side, without it.
func (c counters) side(name string) counters {
	out := make(counters)
	for k, v := range c {
		if n := len(name) + 1; len(k) > n && k[:n] == name+"." {
			out[k[n:]] = v
		}
	}
	return out
}

// counts reads the statistics at path. Those that aren't there are none.
func (c *client) counts(ctx context.Context, path string) ([]counters, error) {
	var doc struct {
		Entries map[string]struct {
			Nested struct {
				Entries counters `json:"entries"`
			} `json:"nestedStats"`
		} `json:"entries"`
	}
	if _, err := c.get(ctx, path, nil, &doc); err != nil {
		if statusOf(err) == http.StatusNotFound {
			return nil, nil
		}
		return nil, err
	}
	var out []counters
	for _, e := range doc.Entries {
		out = append(out, e.Nested.Entries)
	}
	return out, nil
}

// Stats returns what the BIG-IP counts. Clients are flows and connections.
func (d *Driver) Stats(ctx context.Context) (*plugins.Stats, error) {
	s, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	out, _, err := s.stats(ctx)
	return out, err
}

func (s *target) stats(ctx context.Context) (*plugins.Stats, *found, error) {
	f, err := s.read(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	out := &plugins.Stats{At: time.Now(), Site: f.site}
	site := f.deployment.Site(f.site)
	if site == nil {
		return out, f, nil
	}
	r := &renderer{owner: s.config.Owner, site: site}
	for i := range site.Pools {
		p, err := s.poolStats(ctx, f, r, &site.Pools[i])
		if err != nil {
			return nil, nil, fmt.Errorf("f5: statistics of pool %s: %w", site.Pools[i].Name, err)
		}
		out.Pools = append(out.Pools, p)
	}
	for i := range site.Groups {
		g := &site.Groups[i]
		out.Groups = append(out.Groups, plugins.GroupStats{Name: g.Name, Pool: g.Pool})
		for k := range g.Listeners {
			l, err := s.listenerStats(ctx, f, r, g, &g.Listeners[k])
			if err != nil {
				return nil, nil, fmt.Errorf("f5: statistics of listener %s: %w", g.Listeners[k].Name, err)
			}
			out.Listeners = append(out.Listeners, l)
		}
	}
	return out, f, nil
}

func (s *target) listenerStats(ctx context.Context, f *found, r *renderer, g *plugins.Group, l *plugins.Listener) (plugins.ListenerStats, error) {
	out := plugins.ListenerStats{Name: l.Name, Group: g.Name, Protocol: l.Protocol, Address: l.Address, State: "open"}
	list, err := s.client.counts(ctx, "/mgmt/tm/ltm/virtual/"+tilde("/"+f.name+"/"+r.appName(g)+"/"+r.serviceName(l))+"/stats")
	if err != nil {
		return out, err
	}
	if len(list) == 0 {
		out.State, out.Error = "failed", "the BIG-IP doesn't serve it"
		return out, nil
	}
	all := list[0]
	switch {
	case all.word("status.enabledState") == "disabled":
		out.State = "draining"
	case all.word("status.availabilityState") == "offline":
		out.State, out.Error = "failed", cmp.Or(all.word("status.statusReason"), "it is offline")
	}
	c := all.side("clientside")
	out.Active, out.Total = new(int64(c.count("curConns"))), new(c.count("totConns"))
	out.In, out.Out = c.traffic("In"), c.traffic("Out")
	return out, nil
}

func (s *target) poolStats(ctx context.Context, f *found, r *renderer, p *plugins.Pool) (plugins.PoolStats, error) {
	out := plugins.PoolStats{Name: p.Name}
	var tables []counters
	for _, at := range r.pools(p) {
		list, err := s.client.counts(ctx, "/mgmt/tm/ltm/pool/"+tilde("/"+f.name+"/"+at)+"/members/stats")
		if err != nil {
			return out, err
		}
		tables = append(tables, list...)
	}
	weights := make([]float64, len(p.Backends))
	for i := range p.Backends {
		b := &p.Backends[i]
		x := backendStats(b, tables)
		if d, ok := f.drained[plugins.BackendRef{Pool: p.Name, Backend: b.Name}]; ok && d != stateEnable && x.State == "up" {
			x.State = "draining"
		}
		if x.State == "up" {
			weights[i] = float64(ratioOf(p, b))
		}
		out.Backends = append(out.Backends, x)
	}
	out.Priority = share(out.Backends, weights)
	return out, nil
}

// share divides new clients among those of the first priority that is up, and
// returns it.
func share(list []plugins.BackendStats, weights []float64) (priority int) {
	first, found, total := 0, false, 0.0
	for i := range list {
		if weights[i] > 0 && (!found || list[i].Priority < first) {
			first, found = list[i].Priority, true
		}
	}
	for i := range list {
		if list[i].Priority == first {
			total += weights[i]
		}
	}
	for i := range list {
		if total > 0 && list[i].Priority == first {
			list[i].Share = weights[i] / total
		}
	}
	return first
}

// backendStats sums up what all ports of a backend count. It is as well as the worst
// of them.
func backendStats(b *plugins.Backend, tables []counters) plugins.BackendStats {
	x := plugins.BackendStats{Name: b.Name, Address: b.Address, Priority: b.Priority, MaxClients: b.MaxClients, State: "down", Cause: "no listener uses it, or the BIG-IP doesn't serve it"}
	var in, out plugins.Traffic
	active, total := int64(0), uint64(0)
	seen := false
	for _, t := range tables {
		if a, err := netip.ParseAddr(cmp.Or(t.word("addr"), last(t.word("nodeName")))); err != nil || a != b.Address {
			continue
		}
		state, cause := memberState(t)
		if !seen || worse(state, x.State) {
			x.State, x.Cause = state, cause
		}
		seen = true
		c := t.side("serverside")
		active, total = active+int64(c.count("curConns")), total+c.count("totConns")
		to, from := c.traffic("In"), c.traffic("Out")
		in.Bytes, in.Packets = in.Bytes+to.Bytes, in.Packets+to.Packets
		out.Bytes, out.Packets = out.Bytes+from.Bytes, out.Packets+from.Packets
	}
	if seen {
		x.Active, x.Total, x.In, x.Out = &active, &total, &in, &out
	}
	return x
}

func worse(a, b string) bool {
	rank := map[string]int{"up": 0, "draining": 1, "down": 2}
	return rank[a] > rank[b]
}

func memberState(t counters) (state, cause string) {
	reason := t.word("status.statusReason")
	switch {
	case t.word("status.enabledState") == "disabled" && t.word("status.availabilityState") == "offline":
		return "down", cmp.Or(reason, "forced offline")
	case t.word("status.enabledState") == "disabled":
		return "draining", ""
	case t.word("status.availabilityState") == "offline":
		return "down", cmp.Or(reason, "its checks fail")
	}
	return "up", ""
}
