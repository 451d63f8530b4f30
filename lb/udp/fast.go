package udp

import (
	"context"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A FastPath carries datagrams of established flows in the Engine's place, in the
// kernel say. It only ever does what the Engine has decided, and only with what the
// Engine has seen the like of: everything else still comes to the Engine's sockets,
// which stay open. So whatever a FastPath refuses, forgets or is late with costs
// speed and nothing else.
//
// Its methods are called by several goroutines at once, and must not block.
type FastPath interface {
	// Carry asks for datagrams of f that begin as b does to be carried: those
	// from the client, or, if answer is set, those from the backend. It is
	// asked again for a flow when the Engine gets a datagram of it that could
	// have been carried. With b nil it is asked only to go on with a flow that
	// it carries already, for another Engine or an earlier process.
	//
	// It returns a number that names the flow to it, the same as long as it
	// carries it for one Engine, and whether it does.
	Carry(f FastFlow, b []byte, answer bool) (id uint64, ok bool)
	// Carried returns what has been carried of a flow. It is called for every
	// flow each few seconds.
	Carried(id uint64) FastUse
	// End has a flow come to the Engine's sockets again, and returns what was
	// carried of it. A number that names no flow any more is ignored.
	End(id uint64) FastUse
	// Revoke ends all flows to a backend at once. Their numbers stay valid, and
	// Carry may be asked for them again.
	Revoke(backend netip.Addr)
}

// A FastFlow is a flow as the network sees it.
type FastFlow struct {
	// Client is where the client sends from, Listener where to.
	Client, Listener netip.AddrPort
	// Local is where that is sent on from, and Backend where to.
	Local, Backend netip.AddrPort
}

// FastUse counts what a FastPath has carried of one flow: payload, without any
// header.
type FastUse struct {
	// ClientPackets and ClientBytes came from the client, BackendPackets and
	// BackendBytes from the backend.
	ClientPackets, ClientBytes, BackendPackets, BackendBytes uint64
}

const (
	// offerEvery is how often a flow whose datagrams keep coming to the Engine
	// is offered to the FastPath.
	offerEvery = 100 * time.Millisecond
	// refusedFor is how long it isn't after the FastPath has refused it.
	refusedFor = time.Second
	// fastEvery is in how much time each flow that is carried is looked at.
	fastEvery = 4 * time.Second
	// fastSilence is after how much silence a flow isn't carried any more: it
	// makes room for others, and costs one datagram to be carried again.
	fastSilence = 2 * time.Minute
)

// fast is what a flow knows of its being carried by the FastPath.
type fast struct {
	on     bool
	id     uint64
	at     int // in shard.carried
	use    FastUse
	used   time.Duration    // when it had last grown, or the flow was offered
	asked  [2]time.Duration // when the flow was offered last: of the client, the backend
	homing time.Duration    // when the Table was last asked where the client is
}

// offer offers f to the FastPath: b is a datagram of it that was judged just now,
// and that is about what the flow carries.
func (s *shard) offer(f *flow, b []byte, answer bool) {
	side := 0
	if answer {
		side = 1
	}
	wait := offerEvery
	if !f.fast.on {
		wait = refusedFor
	}
	if last := f.fast.asked[side]; !f.spoke || f.up == nil || f.exchanges != nil || last != 0 && s.now-last < wait {
		return
	}
	f.fast.asked[side] = s.now
	s.carry(f, b, answer)
}

// carry has f carried by the FastPath, if that will.
func (s *shard) carry(f *flow, b []byte, answer bool) {
	m := f.member
	local := s.plumbing.localOf(f.up)
	if !local.IsValid() {
		return
	}
	id, ok := s.e.FastPath.Carry(FastFlow{
		Client: f.flow.Client, Listener: f.end.addr, Local: local,
		Backend: netip.AddrPortFrom(m.Addr, s.e.port(f.flow.Service)),
	}, b, answer)
	switch {
	case !ok:
		s.uncarry(f)
		return
	case !f.fast.on:
		// What the flow has been carried before it came here was another's to
		// count.
		f.fast.on, f.fast.id, f.fast.at = true, id, len(s.carried)
		f.fast.use, f.fast.homing = s.e.FastPath.Carried(id), s.now
		s.carried = append(s.carried, f)
	case f.fast.id != id:
		f.fast.id, f.fast.use = id, FastUse{}
	}
	f.fast.used = s.now
	s.counters.fast.Store(int64(len(s.carried)))
	if !s.stays(f) {
		s.uncarry(f) // Revoke may have been called before Carry
	}
}

// uncarry has the datagrams of f come here again.
func (s *shard) uncarry(f *flow) {
	if !f.fast.on {
		return
	}
	if !s.closing {
		s.caught(f, s.e.FastPath.End(f.fast.id))
	}
	last := len(s.carried) - 1
	s.carried[f.fast.at] = s.carried[last]
	s.carried[f.fast.at].fast.at = f.fast.at
	s.carried[last] = nil
	s.carried = s.carried[:last]
	f.fast = fast{asked: f.fast.asked}
	s.counters.fast.Store(int64(last))
}

// catchUp takes note of what the FastPath has carried of f.
func (s *shard) catchUp(f *flow) {
	if f.fast.on {
		s.caught(f, s.e.FastPath.Carried(f.fast.id))
	}
}

func (s *shard) caught(f *flow, now FastUse) {
	was := f.fast.use
	if now == was {
		return
	}
	f.fast.use = now
	if now.ClientPackets < was.ClientPackets || now.BackendPackets < was.BackendPackets {
		return // the number was of no flow any more
	}
	f.fast.used = s.now
	c := &s.counters
	up, down := now.ClientPackets-was.ClientPackets, now.BackendPackets-was.BackendPackets
	c.clientPackets.Add(up)
	c.clientBytes.Add(now.ClientBytes - was.ClientBytes)
	c.backendPackets.Add(down)
	c.backendBytes.Add(now.BackendBytes - was.BackendBytes)
	c.sent.Add(up)
	c.replied.Add(down)
	c.fastPackets.Add(up + down)
	c.fastBytes.Add(now.ClientBytes - was.ClientBytes + now.BackendBytes - was.BackendBytes)
	s.heard(f)
}

// sweepFast looks after some of the flows that are carried, so that all have been
// looked after in fastEvery.
func (s *shard) sweepFast(since time.Duration) {
	n := int(min(since, fastEvery) * time.Duration(len(s.carried)) / fastEvery)
	for range min(n+1, len(s.carried)) {
		if s.nextFast >= len(s.carried) {
			s.nextFast = 0
		}
		if f := s.carried[s.nextFast]; s.keepsFast(f) {
			s.nextFast++
		} else {
			s.uncarry(f)
			s.nextFast = min(s.nextFast, max(len(s.carried)-1, 0))
		}
		if len(s.carried) == 0 {
			return
		}
	}
}

// keepsFast reports whether f is to be carried further.
func (s *shard) keepsFast(f *flow) bool {
	s.catchUp(f)
	if s.now-f.fast.used >= fastSilence || !s.stays(f) {
		return false
	}
	if s.now-f.fast.homing < touchEvery {
		return true
	}
	// Nobody has asked the Table for as long as all datagrams were carried: by
	// another flow of the client's, or for lack of room, it may know better now.
	f.fast.homing = s.now
	m := s.b.Home(f.last, f.name)
	return m != nil && m.ID == f.member.ID
}

// watchPool revokes what is carried to backends that may have no clients any more,
// at once, until ctx is done.
func (e *Engine) watchPool(ctx context.Context) {
	pool := e.Balancer.Pool
	var usable map[netip.Addr]bool
	for {
		changed := pool.Changed()
		now := make(map[netip.Addr]bool)
		for _, m := range pool.View().Usable {
			now[m.Addr] = true
		}
		for a := range usable {
			if !now[a] {
				e.FastPath.Revoke(a)
			}
		}
		usable = now
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// fastOver reports whether datagrams of f that are like one with verdict v may be
// carried without being looked at: they are of what an established client's flow
// carries, and name nobody but it.
func (s *shard) fastOver(f *flow, v *lb.Verdict) bool {
	if s.e.FastPath == nil || f.stage != lb.StageEstablished || v.Control || v.Exchange != 0 {
		return false
	}
	for _, k := range v.Keys[1:] {
		if !k.IsZero() && !f.knows(k) {
			return false // it has had too many new names to be learned now
		}
	}
	return true
}
