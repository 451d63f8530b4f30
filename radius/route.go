package radius

import (
	"errors"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// route finds a server for r. A request that continues a conversation goes to the
// server that has it, however that is: another could only discard it. Others keep
// away from servers that are silent, or have enough; unless settle, they rather
// stay where they are than go to such a one.
func (p *Proxy) route(h *hand, r *request, v *lb.Verdict, settle bool) (*lb.Member, lb.Why, error) {
	r.bound = !v.Begin
	if v.Begin && r.code == AccessRequest {
		v.Keys[0] = lb.Key{} // the request itself, which the cell knows by other means
	}
	r.keys, r.scope, r.pick = v.Keys, v.Scope, v.Pick
	if r.bound {
		got, err := p.Balancer.Route(v, r.flow)
		return got.Member, got.Why, err
	}
	h.avoid = p.avoid(h.avoid[:0], p.portFor(r), h.now)
	if r.link != nil {
		h.avoid = append(h.avoid, r.member.ID)
	}
	got, err := p.Balancer.Route(v, r.flow, h.avoid...)
	if err != nil && len(h.avoid) > 0 && settle {
		got, err = p.Balancer.Route(v, r.flow)
	}
	if err == nil && got.Member == nil {
		err = lb.ErrUnknownClient
	}
	return got.Member, got.Why, err
}

// avoid appends the servers that get no new users now.
func (p *Proxy) avoid(to []lb.ID, port uint16, now int64) []lb.ID {
	for _, v := range p.servers.Load().list() {
		if v.port == port && (v.shun.Load() > now || v.full()) {
			to = append(to, v.backend)
		}
	}
	return to
}

func (v *server) full() bool {
	most := v.conf.Load().MaxOutstanding
	return most > 0 && v.count.busy.Load() >= int64(most)
}

// list returns the servers that have been spoken to.
func (s *serverSet) list() []*server {
	if s == nil {
		return nil
	}
	return s.all
}

// errSilent is what is said of a server that doesn't answer.
var errSilent = errors.New("requests of clients go unanswered; NPS discards silently when this address isn't one of its RADIUS clients, " +
	"the secret is wrong, a State isn't its own, or its log disk is full")

// silentUsers is how many users must wait in vain for a server before it is kept
// from others: what one user waits for, NPS may have discarded on purpose.
const silentUsers = 3

// silent takes note that v has left user unanswered, and everybody else too.
func (v *server) silent(p *Proxy, h *hand, user lb.Key) {
	v.count.mu.Lock()
	if now := h.now; now-v.count.silentAt > int64(time.Second) {
		v.count.silentAt, v.count.silentN = now, 0
	}
	known := false
	for _, k := range v.count.silent[:v.count.silentN] {
		known = known || k == user
	}
	if !known && v.count.silentN < len(v.count.silent) {
		v.count.silent[v.count.silentN] = user
		v.count.silentN++
	}
	many := v.count.silentN >= silentUsers
	v.count.mu.Unlock()
	if many {
		p.shunned(h, v, errSilent)
		return
	}
	p.suspect(v, errSilent)
}

// shunned keeps new users from v for a while.
func (p *Proxy) shunned(h *hand, v *server, err error) {
	fresh := v.shun.Load() <= h.now
	v.shun.Store(h.now + int64(orDefault(p.Shun, DefaultShun)))
	if fresh {
		v.count.shunned.Add(1)
		p.warn(nil, "a server gets no new users for now", "backend", v.name, "port", v.port, "cause", err)
		if p.Trace != nil && p.Trace.Shunned != nil {
			p.Trace.Shunned(v.name, err)
		}
	}
	p.suspect(v, err)
}

// suspect has v probed at once, not more than once a second.
func (p *Proxy) suspect(v *server, err error) {
	now := p.now()
	was := v.count.suspected.Load()
	if p.Suspect == nil || was != 0 && now-was < int64(time.Second) || !v.count.suspected.CompareAndSwap(was, now) {
		return
	}
	p.Suspect(v.name, fmt.Errorf("radius: port %d: %w", v.port, err))
}

// Alive says that a probe has found a port of a backend alive, or with port 0 all of
// them: new users aren't kept from it any longer.
func (p *Proxy) Alive(backend string, port uint16) {
	for _, v := range p.servers.Load().list() {
		if v.name == backend && (v.port == port || port == 0) {
			v.shun.Store(0)
			v.heard.Store(p.now())
		}
	}
}
