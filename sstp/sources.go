package sstp

import (
	"cmp"
	"net/netip"
	"sync"
	"time"
)

// sources bounds what the clients of one source can cost before they have said
// what they want: handshakes a second, and connections that wait. A source is an
// address, or for IPv6 a /64, which is what one subscriber has.
type sources struct {
	mu   sync.Mutex // below
	all  int
	each map[netip.Addr]*source
}

type source struct {
	tokens  float64
	at      time.Time
	waiting int
}

// maxSources bounds how many are remembered. Beyond, those that aren't known are
// let in as long as there is room for handshakes: what counts is that they can't
// exhaust memory.
const maxSources = 1 << 16

func sourceOf(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is4() {
		return a
	}
	p, _ := a.WithZone("").Prefix(64) // zero for no address
	return p.Addr()
}

// begin reports whether another connection from a is let in. If so, end must be
// called.
func (s *sources) begin(a netip.Addr, t *Terminator, now time.Time) bool {
	most := cmp.Or(t.MaxHandshakes, DefaultMaxHandshakes)
	rate := float64(cmp.Or(t.HandshakeRate, DefaultHandshakeRate))
	burst := float64(cmp.Or(t.HandshakeBurst, DefaultHandshakeBurst))
	a = sourceOf(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= most {
		return false
	}
	x := s.each[a]
	if x == nil {
		if len(s.each) >= maxSources {
			s.sweep(now, rate, burst)
		}
		if s.each == nil {
			s.each = make(map[netip.Addr]*source)
		}
		x = &source{tokens: burst, at: now}
		if len(s.each) < maxSources {
			s.each[a] = x
		}
	}
	x.tokens = min(x.tokens+now.Sub(x.at).Seconds()*max(rate, 0), burst)
	x.at = now
	if x.waiting >= max(most/4, 1) || rate > 0 && x.tokens < 1 {
		return false
	}
	x.tokens--
	x.waiting++
	s.all++
	return true
}

// end says that a connection from a has said what it wants, or is gone.
func (s *sources) end(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if x := s.each[sourceOf(a)]; x != nil && x.waiting > 0 {
		x.waiting--
	}
}

// sweep forgets the sources of which nothing is to be remembered.
func (s *sources) sweep(now time.Time, rate, burst float64) {
	for a, x := range s.each {
		if x.waiting == 0 && (rate <= 0 || x.tokens+now.Sub(x.at).Seconds()*rate >= burst) {
			delete(s.each, a)
		}
	}
}

// pending returns how many connections are let in and have said nothing.
func (s *sources) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all
}
