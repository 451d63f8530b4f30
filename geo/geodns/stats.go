package geodns

import "sync/atomic"

// stats are counters. Those of each query are spread by what they count.
type stats struct {
	udp, tcp, dropped, unsent, limited, truncated, streams, evicted atomic.Uint64
	rcodes                                                          [rcodeBadCookie + 1]atomic.Uint64
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
}

// Stats returns the counts. It is safe for concurrent use.
func (s *Server) Stats() Stats {
	st := &s.stats
	v := Stats{
		UDP: st.udp.Load(), TCP: st.tcp.Load(), Dropped: st.dropped.Load(), Unsent: st.unsent.Load(), Limited: st.limited.Load(),
		Truncated: st.truncated.Load(), Streams: st.streams.Load(), Evicted: st.evicted.Load(), RCodes: make(map[int]uint64),
	}
	for i := range st.rcodes {
		if n := st.rcodes[i].Load(); n > 0 {
			v.RCodes[i] = n
		}
	}
	return v
}
