package kemp

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// counters are those of one answer. Indexes hold within it, and within a list that
// is asked for just before.
type counters struct {
	services map[string]*node
	servers  map[[2]string]*node // by the service's index and the server's address
}

func readCounters(ctx context.Context, c *client) (counters, error) {
	n, err := c.ask(ctx, "stats", nil)
	if err != nil {
		return counters{}, err
	}
	out := counters{services: make(map[string]*node), servers: make(map[[2]string]*node)}
	for _, v := range n.all("Vs") {
		out.services[v.get("Index")] = v
	}
	for _, r := range n.all("Rs") {
		out.servers[[2]string{r.get("VSIndex"), serverAddress(r)}] = r
	}
	return out, nil
}

// Stats returns what the LoadMaster counts. It has states in one answer and counts in
// another. Clients are connections; those of a group are entries of its table.
func (d *Driver) Stats(ctx context.Context) (*plugins.Stats, error) {
	out, _, err := d.look(ctx)
	return out, err
}

// look returns statistics, and the revision of what is there.
func (d *Driver) look(ctx context.Context) (*plugins.Stats, string, error) {
	c, s, box, err := d.setup(ctx)
	if err != nil {
		return nil, "", err
	}
	f, err := d.find(ctx, c, box)
	if err != nil {
		return nil, "", err
	}
	revision := plugins.RevisionOf(f.objects)
	out := &plugins.Stats{At: time.Now(), Site: f.site}
	site := f.memory.Site
	if site == nil {
		return out, revision, nil
	}
	count, err := readCounters(ctx, box)
	if err != nil {
		return nil, "", fmt.Errorf("kemp: %w", err)
	}
	v := &viewer{found: f, count: count, site: site, services: (&renderer{site: site, owner: c.Owner, settings: s}).services()}
	for i := range site.Pools {
		out.Pools = append(out.Pools, v.pool(&site.Pools[i]))
	}
	for i := range site.Groups {
		g := &site.Groups[i]
		out.Groups = append(out.Groups, v.group(g))
		for k := range v.services {
			if v.services[k].group == g {
				out.Listeners = append(out.Listeners, v.listener(&v.services[k]))
			}
		}
	}
	return out, revision, nil
}

// viewer puts states and counts together.
type viewer struct {
	*found
	count    counters
	site     *plugins.Site
	services []service
}

func (v *viewer) listener(s *service) plugins.ListenerStats {
	out := plugins.ListenerStats{Name: s.listener.Name, Group: s.group.Name, Protocol: s.listener.Protocol, Address: s.listener.Address, State: "failed"}
	is := v.byName(s.name())
	if is == nil {
		out.Error = "the LoadMaster has no such virtual service"
		return out
	}
	switch status := is.node.get("Status"); {
	case status == "Up":
		out.State = "open"
	case !is.node.yes("Enable"):
		out.Error = "it was disabled at the LoadMaster"
	default:
		out.Error = "the LoadMaster says " + status + ": none of its real servers is up"
	}
	if n := v.count.services[is.index]; n != nil {
		out.Active, out.Total = new(int64(n.number("ActiveConns"))), new(n.number("TotalConns"))
		out.In, out.Out = &plugins.Traffic{Bytes: n.number("BytesRead")}, &plugins.Traffic{Bytes: n.number("BytesWritten")}
	}
	return out
}

func (v *viewer) group(g *plugins.Group) plugins.GroupStats {
	out := plugins.GroupStats{Name: g.Name, Pool: g.Pool}
	for i := range v.services {
		s := &v.services[i]
		if s.group != g || !s.persists || s.leader != "" {
			continue
		}
		for k := range s.pool.Backends {
			if n := v.counts(s, &s.pool.Backends[k]); n != nil {
				if out.Clients == nil {
					out.Clients = new(int)
				}
				*out.Clients += int(n.number("Persist"))
			}
		}
	}
	return out
}

// counts returns the counts of a backend in a service; nil if there are none.
func (v *viewer) counts(s *service, b *plugins.Backend) *node {
	is := v.byName(s.name())
	if is == nil {
		return nil
	}
	at, _ := s.server(b)
	return v.count.servers[[2]string{is.index, at.String()}]
}

func (v *viewer) pool(p *plugins.Pool) plugins.PoolStats {
	out := plugins.PoolStats{Name: p.Name}
	first, found := 0, false
	for i := range p.Backends {
		x := v.backend(p, &p.Backends[i])
		if x.State == "up" && (!found || x.Priority < first) {
			first, found = x.Priority, true
		}
		out.Backends = append(out.Backends, x)
	}
	out.Priority = first
	total := 0
	takes := func(i int) int {
		if x := &out.Backends[i]; x.State != "up" || x.Priority != first {
			return 0
		}
		return weightOf(&p.Backends[i])
	}
	for i := range out.Backends {
		total += takes(i)
	}
	for i := range out.Backends {
		if total > 0 {
			out.Backends[i].Share = float64(takes(i)) / float64(total)
		}
	}
	return out
}

// backend sums up what is known of a backend in all services that use it.
func (v *viewer) backend(p *plugins.Pool, b *plugins.Backend) plugins.BackendStats {
	out := plugins.BackendStats{Name: b.Name, Address: b.Address, Priority: b.Priority, MaxClients: b.MaxClients, State: "up"}
	used := false
	for i := range v.services {
		s := &v.services[i]
		if s.pool != p {
			continue
		}
		used = true
		v.inService(s, b, &out)
	}
	for _, d := range v.memory.Drained {
		if d.Pool == p.Name && d.Backend == b.Name {
			out.DrainDeadline = d.Deadline
			if d.Cut {
				out.State, out.Cause = "down", "drained, and taken out of its virtual services"
			}
		}
	}
	switch {
	case !used:
		out.State, out.Cause = "down", "no listener uses it"
	case b.Admin == plugins.AdminDisabled:
		out.Cause = "disabled by the deployment"
	}
	return out
}

// inService adds what is known of a backend in one service: the worst state counts.
func (v *viewer) inService(s *service, b *plugins.Backend, out *plugins.BackendStats) {
	is, status := v.byName(s.name()), ""
	if is != nil {
		at, _ := s.server(b)
		for _, n := range is.node.all("Rs") {
			if serverAddress(n) != at.String() {
				continue
			}
			status = n.get("Status")
			if !n.yes("Enable") {
				status = "Disabled"
			}
		}
	}
	switch status {
	case "Up":
	case "Disabled":
		if out.State == "up" {
			out.State, out.Cause = "draining", ""
		}
	case "":
		out.State, out.Cause = "down", "it isn't in the virtual service of "+s.listener.Name
	default:
		out.State, out.Cause = "down", "the LoadMaster says "+status+" for "+s.listener.Name
	}
	if c, ok := mainCheck(s.pool); ok && s.network() == "tcp" && len(out.Checks) == 0 {
		out.Checks = append(out.Checks, plugins.CheckStats{
			Name: c.Name, Target: netip.AddrPortFrom(b.Address, uint16(c.Port)), Known: status == "Up" || status == "Down", Passing: status == "Up",
		})
	}
	n := v.counts(s, b)
	if n == nil {
		return
	}
	if out.Active == nil {
		out.Active, out.Total, out.In, out.Out = new(int64), new(uint64), new(plugins.Traffic), new(plugins.Traffic)
	}
	*out.Active += int64(n.number("ActivConns")) // sic
	*out.Total += n.number("Conns")
	out.In.Bytes += n.number("BytesRead")
	out.Out.Bytes += n.number("BytesWritten")
}
