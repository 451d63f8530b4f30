package netscaler

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// number returns a count, which NITRO gives as text.
func (r row) number(field string) uint64 {
	n, err := strconv.ParseUint(r.text(field), 10, 64)
	if err != nil {
		return 0 // it isn't counted for this type
	}
	return n
}

// Stats returns what the appliance counts. Clients are connections, and flows of
// UDP.
func (d *Driver) Stats(ctx context.Context) (*plugins.Stats, error) {
	s, _, err := d.look(ctx)
	return s, where(err)
}

func (d *Driver) look(ctx context.Context) (*plugins.Stats, *found, error) {
	conf, _, c, err := d.setup(ctx)
	if err != nil {
		return nil, nil, err
	}
	f, err := c.find(ctx, conf.Owner, conf.Site)
	if err != nil {
		return nil, nil, err
	}
	out := &plugins.Stats{At: time.Now(), Site: f.site}
	var site *plugins.Site
	if f.memory != nil {
		site = f.memory.Deployment.Site(f.site)
	}
	if site == nil {
		return out, f, nil
	}
	rows, err := c.list(ctx, "stat", "lbvserver", "")
	if err != nil {
		return nil, nil, err
	}
	r := &renderer{owner: conf.Owner, site: site, servers: f.servers}
	for i := range site.Pools {
		p, err := c.poolStats(ctx, r, f, &site.Pools[i])
		if err != nil {
			return nil, nil, err
		}
		out.Pools = append(out.Pools, *p)
	}
	for i := range site.Groups {
		g := &site.Groups[i]
		clients, known := 0, false
		for k := range g.Listeners {
			x, held := r.listenerStats(g, &g.Listeners[k], rows)
			out.Listeners = append(out.Listeners, x)
			if persistenceOf(g, &g.Listeners[k]).method != "NONE" {
				clients, known = max(clients, held), true // a group's members share their clients
			}
		}
		gs := plugins.GroupStats{Name: g.Name, Pool: g.Pool}
		if known {
			gs.Clients = &clients
		}
		out.Groups = append(out.Groups, gs)
	}
	return out, f, nil
}

// listenerStats adds up what virtual servers of a listener count, also those that
// stand by. held is how many clients are remembered.
func (r *renderer) listenerStats(g *plugins.Group, l *plugins.Listener, rows []row) (out plugins.ListenerStats, held int) {
	out = plugins.ListenerStats{Name: l.Name, Group: g.Name, Protocol: l.Protocol, Address: l.Address, State: "failed"}
	out.Error = "it isn't on the appliance"
	out.Active, out.Total, out.In, out.Out = new(int64), new(uint64), new(plugins.Traffic), new(plugins.Traffic)
	for level := range levels(r.site.Pool(g.Pool)) {
		names := []string{g.Name, l.Name}
		if level > 0 {
			names = append(names, "standby"+strconv.Itoa(level))
		}
		i := slices.IndexFunc(rows, func(x row) bool { return x.text("name") == r.name(names...) })
		if i < 0 {
			continue
		}
		x := rows[i]
		switch state := x.text("state"); {
		case state == "UP":
			out.State, out.Error = "open", ""
		case out.State != "open":
			out.Error = "none of its backends is up: the appliance says " + state
		}
		*out.Active += int64(x.number("curclntconnections"))
		*out.Total += x.number("tothits")
		out.In.Bytes += x.number("totalrequestbytes")
		out.Out.Bytes += x.number("totalresponsebytes")
		if l.Protocol.Network() == "udp" {
			out.In.Packets += x.number("totalpktsrecvd")
			out.Out.Packets += x.number("totalpktssent")
		}
		held += int(x.number("curpersistencesessions"))
	}
	return out, held
}

func (c *client) poolStats(ctx context.Context, r *renderer, f *found, p *plugins.Pool) (*plugins.PoolStats, error) {
	out := &plugins.PoolStats{Name: p.Name, Priority: levels(p)[0]}
	weights := make([]int, len(p.Backends))
	for i := range p.Backends {
		b := &p.Backends[i]
		x, err := c.backendStats(ctx, r, f, p, b)
		if err != nil {
			return nil, err
		}
		for _, d := range f.memory.Drained {
			if d.Pool == p.Name && d.Backend == b.Name {
				x.DrainDeadline = d.Deadline
			}
		}
		if x.State == "up" {
			weights[i] = weightOf(p, b)
		}
		out.Backends = append(out.Backends, *x)
	}
	share(out, weights)
	return out, nil
}

// share divides new clients among those of the first priority that is up.
func share(p *plugins.PoolStats, weights []int) {
	total, found := 0, false
	for i, b := range p.Backends {
		if weights[i] > 0 && (!found || b.Priority < p.Priority) {
			p.Priority, found = b.Priority, true
		}
	}
	for i, b := range p.Backends {
		if b.Priority == p.Priority {
			total += weights[i]
		}
	}
	for i := range p.Backends {
		if b := &p.Backends[i]; total > 0 && b.Priority == p.Priority {
			b.Share = float64(weights[i]) / float64(total)
		}
	}
}

// backendStats adds up what members of a backend count.
func (c *client) backendStats(ctx context.Context, r *renderer, f *found, p *plugins.Pool, b *plugins.Backend) (*plugins.BackendStats, error) {
	x := &plugins.BackendStats{Name: b.Name, Address: b.Address, Priority: b.Priority, MaxClients: b.MaxClients, State: "up"}
	x.Active, x.Total, x.In, x.Out = new(int64), new(uint64), new(plugins.Traffic), new(plugins.Traffic)
	members := r.members(p, b)
	if len(members) == 0 {
		x.State, x.Cause = "down", "no listener uses it"
	}
	for _, m := range members {
		state, there := f.states[m.name()]
		if !there {
			x.State, x.Cause = "down", m.name()+" isn't on the appliance"
			continue
		}
		if s := backendState(state); rank(s) > rank(x.State) {
			x.State, x.Cause = s, m.name()+" is "+state
		}
		rows, err := c.list(ctx, "stat", "servicegroupmember", "", "servicegroupname", m.parent(), "ip", netip.Addr.String(b.Address.Unmap()), "port", plain(m.keys[2]))
		if err != nil {
			return nil, err
		}
		for _, s := range rows {
			*x.Active += int64(s.number("cursrvrconnections"))
			*x.Total += s.number("totalrequests")
			x.In.Bytes += s.number("totalrequestbytes")
			x.Out.Bytes += s.number("totalresponsebytes")
		}
	}
	return x, nil
}

// backendState returns a member's state as the model has it.
func backendState(state string) string {
	switch state {
	case "UP":
		return "up"
	case "GOING OUT OF SERVICE", "DOWN WHEN GOING OUT OF SERVICE":
		return "draining"
	}
	return "down"
}

func rank(state string) int { return slices.Index([]string{"up", "draining", "down"}, state) }
