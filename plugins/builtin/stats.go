package builtin

import (
	"context"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
)

// Stats returns counts and states.
func (d *Driver) Stats(context.Context) (*plugins.Stats, error) {
	r := d.current()
	s := &plugins.Stats{
		At: time.Now().Round(0), Site: r.site.Name,
		Pools: []plugins.PoolStats{}, Groups: []plugins.GroupStats{}, Listeners: []plugins.ListenerStats{},
	}
	if t := d.since.Load(); t != nil {
		s.Since = t.Round(0)
	}
	s.FastPath = r.fast.stats()
	for _, p := range r.pools {
		s.Pools = append(s.Pools, d.poolStats(p))
	}
	for _, g := range r.groups {
		s.Groups = append(s.Groups, groupStats(g, s.At))
	}
	for _, l := range r.listeners {
		s.Listeners = append(s.Listeners, listenerStats(l))
	}
	for _, l := range r.lingering {
		if !l.gone() {
			s.Listeners = append(s.Listeners, listenerStats(l))
		}
	}
	return s, nil
}

func (d *Driver) poolStats(p *pool) plugins.PoolStats {
	v := p.lb.View()
	s := plugins.PoolStats{Name: p.name, Panic: v.Panic, Priority: v.Priority}
	checks := p.status()
	sum := 0
	for _, m := range v.Ready {
		sum += m.Share
	}
	ready := make(map[lb.ID]bool)
	for _, m := range v.Ready {
		ready[m.ID] = true
	}
	for _, m := range v.Members {
		b := plugins.BackendStats{
			Name: m.Name, Address: m.Addr, State: m.State.String(), Cause: m.Cause, Since: m.Since.Round(0),
			Priority: m.Priority, Clients: new(m.Clients()), MaxClients: m.MaxClients,
		}
		if ready[m.ID] && sum > 0 {
			b.Share = float64(m.Share) / float64(sum)
		}
		b.DrainDeadline, _ = d.drains.get(plugins.BackendRef{Pool: p.name, Backend: m.Name})
		for _, c := range checks[m.Name].Checks {
			b.Checks = append(b.Checks, plugins.CheckStats{
				Name: c.Name, Target: c.Target, Known: c.Known, Passing: c.Passing, Advisory: c.Advisory,
				Took: plugins.Duration(c.Last), At: c.At.Round(0), Probes: c.Probes, Failures: c.Failures,
				LastError: c.Failure.Err, FailedAt: c.Failure.At.Round(0),
			})
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}

func groupStats(g *group, now time.Time) plugins.GroupStats {
	s := g.balancer.Stats()
	return plugins.GroupStats{
		Name: g.name, Pool: g.pool.name,
		Clients: &s.Table.Clients, HalfOpen: &s.Table.HalfOpen, Names: &s.Table.Names, Bytes: &s.Table.Bytes,
		Routes:  map[string]uint64{"known": s.Known, "hint": s.Hint, "picked": s.Picked, "moved": s.Moved, "asked": s.Asked},
		Refused: map[string]uint64{"no backend": s.NoBackend, "backend down": s.BackendDown, "unknown client": s.UnknownClient, "ask limit": s.AskLimit},
		IKEv2:   g.ikeStats(now), Accounting: g.ledger.stats(),
		Lost: map[string]uint64{"expired": s.Table.Expired, "evicted": s.Table.Evicted, "refused": s.Table.Refused},
	}
}

func listenerStats(l *listener) plugins.ListenerStats {
	s := plugins.ListenerStats{
		Name: l.name(), Group: l.group.name, Protocol: l.spec.Protocol, Address: l.spec.Address, State: "open",
	}
	if l.draining.Load() {
		s.State = "draining"
	}
	if err := l.failed(); err != nil {
		s.State, s.Error = "failed", err.Error()
	}
	if l.rad != nil {
		radiusStats(&s, l.rad.Stats(), l.group.pool.lb)
		if l.sec != nil {
			radsecStats(&s, l.sec.Stats())
		}
	} else if l.udp != nil {
		c := l.udp.Stats()
		udpStats(&s, c)
		if l.carrier != nil {
			s.Carried = &plugins.Traffic{Packets: c.CarriedPackets, Bytes: c.CarriedBytes}
		}
	} else {
		tcpStats(&s, l.tcp.Stats())
	}
	return s
}

func udpStats(s *plugins.ListenerStats, c udp.Stats) {
	s.Active, s.Total = new(int64(c.Flows)), new(c.Opened)
	s.In = &plugins.Traffic{Packets: c.ClientPackets, Bytes: c.ClientBytes}
	s.Out = &plugins.Traffic{Packets: c.BackendPackets, Bytes: c.BackendBytes}
	s.Dropped = map[string]uint64{
		"not of this protocol": c.Dropped, "not for clients": c.Hidden, "no backend": c.Refused, "too many flows": c.Full,
		"closing": c.Closing, "send error": c.SendErrors, "no socket": c.OpenErrors, "receive buffer full": c.Overflow,
	}
}

func tcpStats(s *plugins.ListenerStats, c tcp.Stats) {
	s.Active, s.Total = new(int64(c.Open)), new(c.Accepted)
	s.In, s.Out = &plugins.Traffic{Bytes: c.Sent}, &plugins.Traffic{Bytes: c.Received}
	s.Dropped = make(map[string]uint64)
	for i, n := range c.Refused {
		s.Dropped[tcp.Refusal(i).String()] = n
	}
}
