package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

func statsTo(s *plugins.Stats) (*pb.StatsResponse, error) {
	fast, err := document(s.FastPath)
	if err != nil {
		return nil, err
	}
	m := &pb.StatsResponse{AtUnixNano: timeTo(s.At), SinceUnixNano: timeTo(s.Since), Site: s.Site, FastPath: fast}
	for i := range s.Pools {
		p := &s.Pools[i]
		pool := &pb.PoolStats{Name: p.Name, Panic: p.Panic, Priority: int64(p.Priority)}
		for k := range p.Backends {
			pool.Backends = append(pool.Backends, backendTo(&p.Backends[k]))
		}
		m.Pools = append(m.Pools, pool)
	}
	for i := range s.Groups {
		g := &s.Groups[i]
		more, err := document(g.IKEv2)
		accounting, accErr := document(g.Accounting)
		if err = errors.Join(err, accErr); err != nil {
			return nil, err
		}
		m.Groups = append(m.Groups, &pb.GroupStats{
			Name: g.Name, Pool: g.Pool, Clients: optional[int, int64](g.Clients), HalfOpen: optional[int, int64](g.HalfOpen),
			Names: optional[int, int64](g.Names), Bytes: optional[int, int64](g.Bytes),
			Routes: g.Routes, Refused: g.Refused, Lost: g.Lost, Ikev2: more, Accounting: accounting,
		})
	}
	for i := range s.Listeners {
		l := &s.Listeners[i]
		more, err := document(l.RADIUS)
		if err != nil {
			return nil, err
		}
		m.Listeners = append(m.Listeners, &pb.ListenerStats{
			Name: l.Name, Group: l.Group, Protocol: string(l.Protocol), Address: addrPortTo(l.Address), State: l.State, Error: l.Error,
			Active: l.Active, Total: l.Total, In: trafficTo(l.In), Out: trafficTo(l.Out), Carried: trafficTo(l.Carried), Dropped: l.Dropped, Radius: more,
		})
	}
	return m, nil
}

func backendTo(b *plugins.BackendStats) *pb.BackendStats {
	m := &pb.BackendStats{
		Name: b.Name, Address: addrTo(b.Address), State: b.State, Cause: b.Cause, SinceUnixNano: timeTo(b.Since), Share: b.Share,
		Priority: int64(b.Priority), Clients: optional[int, int64](b.Clients), MaxClients: int64(b.MaxClients),
		Active: b.Active, Total: b.Total, In: trafficTo(b.In), Out: trafficTo(b.Out), DrainDeadlineUnixNano: timeTo(b.DrainDeadline),
	}
	for i := range b.Checks {
		c := &b.Checks[i]
		m.Checks = append(m.Checks, &pb.CheckStats{
			Name: c.Name, Target: addrPortTo(c.Target), Known: c.Known, Passing: c.Passing, Advisory: c.Advisory, TookNano: int64(c.Took),
			AtUnixNano: timeTo(c.At), Probes: c.Probes, Failures: c.Failures, LastError: c.LastError, FailedAtUnixNano: timeTo(c.FailedAt),
		})
	}
	return m
}

func statsFrom(m *pb.StatsResponse) (*plugins.Stats, error) {
	s := &plugins.Stats{
		At: timeFrom(m.GetAtUnixNano()), Since: timeFrom(m.GetSinceUnixNano()), Site: m.GetSite(),
		Pools: []plugins.PoolStats{}, Groups: []plugins.GroupStats{}, Listeners: []plugins.ListenerStats{},
	}
	if err := undocument(m.GetFastPath(), &s.FastPath); err != nil {
		return nil, fmt.Errorf("statistics of the fast path: %w", err)
	}
	for _, p := range m.GetPools() {
		pool := plugins.PoolStats{Name: p.GetName(), Panic: p.GetPanic(), Priority: number(p.GetPriority())}
		for _, b := range p.GetBackends() {
			pool.Backends = append(pool.Backends, backendFrom(b))
		}
		s.Pools = append(s.Pools, pool)
	}
	for _, g := range m.GetGroups() {
		out := plugins.GroupStats{
			Name: g.GetName(), Pool: g.GetPool(), Clients: optional[int64, int](g.Clients), HalfOpen: optional[int64, int](g.HalfOpen),
			Names: optional[int64, int](g.Names), Bytes: optional[int64, int](g.Bytes),
			Routes: g.GetRoutes(), Refused: g.GetRefused(), Lost: g.GetLost(),
		}
		if err := errors.Join(undocument(g.GetIkev2(), &out.IKEv2), undocument(g.GetAccounting(), &out.Accounting)); err != nil {
			return nil, fmt.Errorf("statistics of group %q: %w", out.Name, err)
		}
		s.Groups = append(s.Groups, out)
	}
	for _, l := range m.GetListeners() {
		out := plugins.ListenerStats{
			Name: l.GetName(), Group: l.GetGroup(), Protocol: plugins.Protocol(l.GetProtocol()), Address: addrPortFrom(l.GetAddress()),
			State: l.GetState(), Error: l.GetError(), Active: l.Active, Total: l.Total, In: trafficFrom(l.GetIn()), Out: trafficFrom(l.GetOut()),
			Carried: trafficFrom(l.GetCarried()), Dropped: l.GetDropped(),
		}
		if err := undocument(l.GetRadius(), &out.RADIUS); err != nil {
			return nil, fmt.Errorf("statistics of listener %q: %w", out.Name, err)
		}
		s.Listeners = append(s.Listeners, out)
	}
	return s, nil
}

func backendFrom(m *pb.BackendStats) plugins.BackendStats {
	b := plugins.BackendStats{
		Name: m.GetName(), Address: addrFrom(m.GetAddress()), State: m.GetState(), Cause: m.GetCause(), Since: timeFrom(m.GetSinceUnixNano()),
		Share: m.GetShare(), Priority: number(m.GetPriority()), Clients: optional[int64, int](m.Clients), MaxClients: number(m.GetMaxClients()),
		Active: m.Active, Total: m.Total, In: trafficFrom(m.GetIn()), Out: trafficFrom(m.GetOut()), DrainDeadline: timeFrom(m.GetDrainDeadlineUnixNano()),
	}
	for _, c := range m.GetChecks() {
		b.Checks = append(b.Checks, plugins.CheckStats{
			Name: c.GetName(), Target: addrPortFrom(c.GetTarget()), Known: c.GetKnown(), Passing: c.GetPassing(), Advisory: c.GetAdvisory(),
			Took: plugins.Duration(c.GetTookNano()), At: timeFrom(c.GetAtUnixNano()), Probes: c.GetProbes(), Failures: c.GetFailures(),
			LastError: c.GetLastError(), FailedAt: timeFrom(c.GetFailedAtUnixNano()),
		})
	}
	return b
}

func trafficTo(t *plugins.Traffic) *pb.Traffic {
	if t == nil {
		return nil
	}
	return &pb.Traffic{Packets: t.Packets, Bytes: t.Bytes}
}

func trafficFrom(m *pb.Traffic) *plugins.Traffic {
	if m == nil {
		return nil
	}
	return &plugins.Traffic{Packets: m.GetPackets(), Bytes: m.GetBytes()}
}

// document makes JSON of what few drivers have.
func document[T any](v *T) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return json.Marshal(v)
}

func undocument[T any](b []byte, into **T) error {
	if len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, into)
}
