package geodns

import (
	"hash/maphash"
	"net/netip"
	"sync/atomic"
)

// RateLimit bounds how often one network gets the same answer over UDP, so that
// the server is of no use to those who send queries in the name of others. A
// query with a good cookie, and those over TCP, aren't limited.
type RateLimit struct {
	// PerSecond is how many equal answers a network of IPv4 /24 or IPv6 /56
	// gets a second; 0 means no limit.
	PerSecond int
	// Slip is how many of those above the limit go by until one is answered
	// with "use TCP"; 0 means 2. Clients that are real then use TCP.
	Slip int
}

// limiter counts answers in a fixed table of buckets, shared by those whose
// hashes are equal.
type limiter struct {
	seed    maphash.Seed
	buckets []atomic.Uint64 // second << 32 | answers in it
	slips   atomic.Uint32
}

const (
	limitBuckets = 1 << 16
	// burst is how many seconds' worth a network may use at once.
	burst = 4
)

// limited counts a response and reports whether it is above the limit.
func (s *Server) limited(r *responder, from netip.AddrPort) bool {
	rate := s.RateLimit.PerSecond
	if rate <= 0 {
		return false
	}
	a := from.Addr().Unmap()
	bits := 24
	if a.Is6() {
		bits = 56
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return false
	}
	// Errors and missing names are one answer each, whatever was asked; and so
	// is all that a wildcard makes.
	var key struct {
		net   [16]byte
		rcode byte
		qtype uint16
		name  uint64
	}
	key.net, key.rcode = p.Addr().As16(), byte(r.rcode)
	if r.rcode == rcodeSuccess && r.an > 0 {
		key.qtype = r.q.qtype
		key.name = maphash.Bytes(s.limiter.seed, r.q.name.from(r.synthesized))
	}
	b := &s.limiter.buckets[maphash.Comparable(s.limiter.seed, key)%limitBuckets]
	now := uint64(r.now.Sub(s.started).Seconds()) // monotonic: setting the clock doesn't open the gate
	for {
		old := b.Load()
		at, n := old>>32, old&0xffffffff
		// What a second allows is taken off again as time passes.
		if now > at {
			n -= min(n, (now-at)*uint64(rate))
		}
		over := n >= uint64(rate*burst)
		if !over {
			n++
		}
		if b.CompareAndSwap(old, max(now, at)<<32|n) {
			return over
		}
	}
}

// slip reports whether a limited response is to be sent as "use TCP".
func (s *Server) slip() bool {
	n := s.RateLimit.Slip
	if n <= 0 {
		n = 2
	}
	return s.limiter.slips.Add(1)%uint32(n) == 0
}
