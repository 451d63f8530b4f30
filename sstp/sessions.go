package sstp

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

// Sessions remembers sessions: those that last, the last ones that have ended,
// what was found how often, and which certificates were served. Terminators that
// succeed one another in a process should share one, so that a client that
// reports an old certificate is understood. The zero Sessions is ready for use.
type Sessions struct {
	// Keep is how many ended sessions are kept; 0 means DefaultKeepSessions.
	Keep int
	// Expected, if not nil, returns the hash that a gateway is configured with,
	// and whether that is known, rather than assumed: by it a gateway is acquitted
	// of a wrong hash. It is called when a session has ended.
	Expected func(backend string) (Fingerprint, bool)
	// Ended, if not nil, hears of each session when it has ended and has been
	// judged. It is called from many goroutines, and must be quick.
	Ended func(s *Session)

	mu     sync.Mutex // below
	live   map[*call]struct{}
	ended  []Session // a ring
	next   int
	total  uint64
	counts map[countKey]uint64
	served map[Fingerprint]servedLeaf
}

// DefaultKeepSessions is how many ended sessions are kept.
const DefaultKeepSessions = 500

// maxServed bounds the certificates that are remembered as served.
const maxServed = 64

type countKey struct {
	backend string
	finding Finding
}

type servedLeaf struct {
	sha1 FingerprintSHA1
	last time.Time
}

// A Count says how often something was found.
type Count struct {
	// Backend is the gateway.
	Backend string `json:"backend"`
	// Finding is what was found.
	Finding Finding `json:"finding"`
	// N is how often.
	N uint64 `json:"n"`
}

// Counts returns how many sessions have ended, by their backends and findings, in
// the order of those.
func (s *Sessions) Counts() []Count {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Count, 0, len(s.counts))
	for k, n := range s.counts {
		out = append(out, Count{k.backend, k.finding, n})
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Backend, b.Backend), cmp.Compare(a.Finding, b.Finding))
	})
	return out
}

// List returns up to n sessions, the latest to end first, and before them those
// that last if live is set, the latest to begin first. With n 0 or less it returns
// all that are kept.
func (s *Sessions) List(n int, live bool) []Session {
	s.mu.Lock()
	ended := make([]Session, 0, len(s.ended))
	for i := range s.ended {
		ended = append(ended, s.ended[(s.next+len(s.ended)-1-i)%len(s.ended)])
	}
	var calls []*call
	if live {
		calls = slices.Collect(maps.Keys(s.live))
	}
	s.mu.Unlock()
	out := make([]Session, 0, len(calls)+len(ended))
	for _, c := range calls {
		out = append(out, c.snapshot())
	}
	slices.SortFunc(out, func(a, b Session) int { return b.Start.Compare(a.Start) })
	out = append(out, ended...)
	if n > 0 && len(out) > n {
		out = out[:n]
	}
	return out
}

// provenAfter is how long a session must have had data both ways until it can't be
// aborted for its binding any more: frames of before may cross the abort.
const provenAfter = 2 * time.Second

// Bindings says what came of the sessions with a gateway that began after a time
// and were shown a certificate: how many have survived their crypto binding, and
// how many the gateway has aborted for it though their clients reported that
// certificate. Those that are kept are counted, see Keep.
func (s *Sessions) Bindings(backend string, leaf Fingerprint, since time.Time) (bound, aborted int) {
	for _, x := range s.List(0, true) {
		if x.Backend != backend || x.Served != leaf || x.Start.Before(since) {
			continue
		}
		switch {
		case x.Finding == FindingWrongHash || x.Finding == FindingKeys:
			aborted++
		case x.Stage != StageConnected || x.Aborted != nil:
		case !x.End.IsZero() || time.Since(x.Up) > provenAfter:
			bound++
		}
	}
	return bound, aborted
}

// Live returns how many sessions last.
func (s *Sessions) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// Served remembers that the certificate whose DER this is was served.
func (s *Sessions) Served(der []byte) Fingerprint {
	f := FingerprintOf(der)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.served[f]; ok {
		l.last = now
		s.served[f] = l
		return f
	}
	if s.served == nil {
		s.served = make(map[Fingerprint]servedLeaf)
	}
	if len(s.served) >= maxServed {
		oldest := f
		for k, l := range s.served {
			if o, ok := s.served[oldest]; !ok || l.last.Before(o.last) {
				oldest = k
			}
		}
		delete(s.served, oldest)
	}
	s.served[f] = servedLeaf{FingerprintSHA1Of(der), now}
	return f
}

// Add remembers a session that has ended and wasn't carried by a Terminator, such
// as one that [Passed] describes.
func (s *Sessions) Add(x Session) {
	s.record(&x)
}

// begin takes up a session that is being carried.
func (s *Sessions) begin(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[*call]struct{})
	}
	s.live[c] = struct{}{}
}

// end judges a session that was carried, and returns it.
func (s *Sessions) end(c *call) Session {
	s.mu.Lock()
	delete(s.live, c)
	s.mu.Unlock()
	c.mu.Lock()
	x := c.session()
	c.mu.Unlock()
	s.look(&x)
	s.record(&x)
	return x
}

// look finishes a judgement about hashes, by all certificates that are known.
func (s *Sessions) look(x *Session) {
	if x.Mode != ModePassthrough && s.Expected != nil {
		if f, ok := s.Expected(x.Backend); ok {
			x.Expected = f
		}
	}
	x.Finding = x.judge()
	if x.Finding != FindingWrongHash {
		return
	}
	r := x.Reported
	own := s.sha1Of(x.Served)
	switch {
	case r.names(x.Served, own):
		// Who speaks TLS with us and was told nothing expects its own leaf.
		expected := cmp.Or(x.Expected, x.Gateway)
		if expected == x.Served {
			x.Finding = FindingKeys
		}
	case s.wasServed(r):
		x.Finding = FindingStaleLeaf
	case r.Hash == HashSHA256 && !x.Gateway.IsZero() && r.Sum == x.Gateway:
		x.Finding = FindingGatewayLeaf
	case r.Hash == HashSHA256 && !x.Expected.IsZero() && r.Sum == x.Expected:
		// It is what the gateway expects, so it can't be inspected TLS.
		x.Finding = FindingKeys
	default:
		x.Finding = FindingInspection
	}
}

func (s *Sessions) sha1Of(f Fingerprint) FingerprintSHA1 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served[f].sha1
}

// wasServed reports whether a certificate with this hash was served here.
func (s *Sessions) wasServed(r CertHash) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f, l := range s.served {
		if r.names(f, l.sha1) {
			return true
		}
	}
	return false
}

func (s *Sessions) record(x *Session) {
	s.mu.Lock()
	if s.counts == nil {
		s.counts = make(map[countKey]uint64)
	}
	s.counts[countKey{x.Backend, x.Finding}]++
	s.total++
	most := cmp.Or(s.Keep, DefaultKeepSessions)
	if len(s.ended) < most {
		s.ended = append(s.ended, *x)
		s.next = len(s.ended) % most
	} else {
		s.ended[s.next] = *x
		s.next = (s.next + 1) % most
	}
	f := s.Ended
	s.mu.Unlock()
	if f != nil {
		f(x)
	}
}

// snapshot returns what is known of a session that lasts.
func (c *call) snapshot() Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session()
	if s.Aborted != nil {
		s.Aborted = new(*s.Aborted)
	}
	if s.Disconnected != nil {
		s.Disconnected = new(*s.Disconnected)
	}
	return s
}
