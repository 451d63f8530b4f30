package geodns

import (
	"net/netip"
	"sync/atomic"

	"github.com/aovlb/aovlb/geo"
)

// stats are counters. Those of each query are spread by what they count.
type stats struct {
	udp, tcp, subnets, dropped, unsent, limited, truncated, streams, evicted atomic.Uint64
	rcodes                                                                   [rcodeBadCookie + 1]atomic.Uint64
}

// Stats are counts since the Server was made.
type Stats struct {
	// UDP and TCP are queries, by how they came.
	UDP, TCP uint64
	// Dropped were no queries and got no answer.
	Dropped uint64
	// Unsent are responses that the system would not send.
	Unsent uint64
	// Limited got none because of the RateLimit.
	Limited uint64
	// Truncated are responses that said "use TCP".
	Truncated uint64
	// Streams are TCP connections that were accepted, and Evicted those that
	// made room for others.
	Streams, Evicted uint64
	// RCodes are responses by their code; 3, say, is NXDOMAIN.
	RCodes map[int]uint64
	// Subnets are queries for a geo name that told the client's subnet.
	Subnets uint64
	// Countries are answers for geo names by the country of whom they were
	// for, if [Server.CountBy] was called; those of unknown ones are under the
	// empty name.
	Countries map[string]uint64
}

// countries counts by country.
type countries struct {
	m *geo.CountryMap
	n []*atomic.Uint64 // by the numbers of m
}

// CountBy has answers for geo names counted by the country of whom they are for.
// What was counted before stays. nil ends the counting.
func (s *Server) CountBy(m *geo.CountryMap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == nil {
		s.countries.Store(nil)
		return
	}
	if s.perCountry == nil {
		s.perCountry = make(map[string]*atomic.Uint64)
	}
	c := &countries{m: m}
	for _, name := range m.Countries() {
		if s.perCountry[name] == nil {
			s.perCountry[name] = new(atomic.Uint64)
		}
		c.n = append(c.n, s.perCountry[name])
	}
	s.countries.Store(c)
}

// count counts an answer for a client.
func (s *Server) count(client netip.Addr) {
	if c := s.countries.Load(); c != nil {
		c.n[c.m.Find(client)].Add(1)
	}
}

// Stats returns the counts. It is safe for concurrent use.
func (s *Server) Stats() Stats {
	st := &s.stats
	v := Stats{
		UDP: st.udp.Load(), TCP: st.tcp.Load(), Dropped: st.dropped.Load(), Unsent: st.unsent.Load(), Limited: st.limited.Load(),
		Truncated: st.truncated.Load(), Subnets: st.subnets.Load(), Streams: st.streams.Load(), Evicted: st.evicted.Load(), RCodes: make(map[int]uint64),
	}
	s.mu.Lock()
	for name, n := range s.perCountry {
		if n := n.Load(); n > 0 {
			if v.Countries == nil {
				v.Countries = make(map[string]uint64)
			}
			v.Countries[name] = n
		}
	}
	s.mu.Unlock()
	for i := range st.rcodes {
		if n := st.rcodes[i].Load(); n > 0 {
			v.RCodes[i] = n
		}
	}
	return v
}
