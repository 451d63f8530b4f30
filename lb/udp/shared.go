package udp

import (
	"slices"

	"github.com/aovlb/aovlb/lb"
)

// A shared flow carries many clients, whose requests are told apart by
// lb.Verdict.Exchange: a RADIUS client sends those of all its users from one
// port. Different requests go to different backends, so such a flow keeps an
// upstream to each backend it has sent to; flow.up is the one for the datagram
// in hand. To a backend they still all come from one port, and a request that is
// repeated comes from the port it came from first.

// request directs a datagram with an Exchange.
func (s *shard) request(f *flow, v *lb.Verdict) *flow {
	s.heard(f)
	view := s.b.Pool.View()
	if f.exchanges == nil {
		f.exchanges = new(lb.Exchanges)
	}
	m, why := f.exchanges.Repeats(v, view)
	if m == nil {
		r, err := s.b.Route(v, f.flow)
		if err != nil {
			s.refuse(f.flow, err)
			return nil
		}
		if r.Member == nil {
			// Nobody could tell whose answer it would be.
			s.refuse(f.flow, lb.ErrUnknownClient)
			return nil
		}
		m, why = r.Member, r.Why
	}
	u := s.upstreamTo(f, m, view)
	if u == nil {
		return nil
	}
	f.exchanges.Sent(v, m, why)
	f.up, f.member, f.view = u, m, view
	return f
}

// newShared makes a shared flow of a first datagram with an Exchange.
func (s *shard) newShared(k *flowKey, fl lb.Flow, end *endpoint, v *lb.Verdict) *flow {
	if !s.room(1) {
		s.refuseFull(fl)
		return nil
	}
	f := s.add(k, fl, end, lb.StageNone)
	if s.request(f, v) == nil {
		s.remove(f)
		return nil
	}
	return f
}

// upstreamTo returns the upstream of a shared flow to m, made if need be. Then
// those of backends that have left the Pool are closed.
func (s *shard) upstreamTo(f *flow, m *lb.Member, view *lb.View) *upstream {
	if f.up != nil && !slices.Contains(f.others, f.up) {
		f.others = append(f.others, f.up)
	}
	for _, u := range f.others {
		if u.member.ID == m.ID {
			return u
		}
	}
	f.others = slices.DeleteFunc(f.others, func(u *upstream) bool {
		if view.Member(u.member.ID) != nil {
			return false
		}
		if f.up == u {
			f.up = nil
		}
		s.close(u)
		return true
	})
	u := s.open(f, m, s.e.local(f.flow))
	if u != nil {
		f.others = append(f.others, u)
	}
	s.count()
	return u
}

// reply records what an answer from u proves of the client of its request.
func (s *shard) reply(f *flow, u *upstream, v *lb.Verdict) {
	keys, why, ok := f.exchanges.Answered(v, u.member)
	if !ok || v.Stage == lb.StageNone {
		return
	}
	s.b.Answered(u.member, f.flow, v.Stage, why, keys[:]...)
	if v.Stage > f.stage {
		s.relist(f, v.Stage)
	}
}
