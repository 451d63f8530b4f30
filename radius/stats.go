package radius

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// Stats is what a Proxy has counted since it was made.
type Stats struct {
	// Packets counts what came from clients, Dropped what of it wasn't taken,
	// by reason.
	Packets uint64
	Dropped map[string]uint64
	// SendErrors counts packets that the system refused to send.
	SendErrors uint64
	// Waiting is how many requests wait for an answer, Kept how many answers
	// are kept for repetitions.
	Waiting, Kept int
	// Stored counts accounting that the Spool took, NotStored what it refused.
	Stored, NotStored uint64
	// Clients and Servers are each one's, by name.
	Clients []ClientStats
	Servers []ServerStats
	// Failures are the users that failed most often, the worst first.
	Failures []Failure
}

// Answers counts answers by their kind.
type Answers struct {
	// Accepts to Accounting count Access-Accept, Access-Reject,
	// Access-Challenge and Accounting-Response.
	Accepts, Rejects, Challenges, Accounting uint64
}

// ClientStats is what is counted of a client.
type ClientStats struct {
	// Name is the client's.
	Name string
	// Requests counts requests, Duplicates their repetitions, which aren't
	// among them; Status counts Status-Server.
	Requests, Duplicates, Status uint64
	Answers
	// Timeouts counts requests that nobody answered, Dropped packets that
	// weren't taken, BadAuthenticators those among them that were wrongly
	// signed, and Spooled accounting that was stored.
	Timeouts, Dropped, BadAuthenticators, Spooled uint64
	// Latency is how long answers took.
	Latency Histogram
	// Sizes says how large the packets were.
	Sizes Sizes
}

// ServerStats is what is counted of one port of a backend.
type ServerStats struct {
	// Name is the backend's, Port its port.
	Name string
	Port uint16
	// Requests counts requests, Resent repetitions, and Moved requests that
	// were sent elsewhere in the end.
	Requests, Resent, Moved uint64
	Answers
	// Timeouts counts requests that were given up here. Late counts answers
	// that came after that, Stray those to nothing, BadAuthenticators those
	// that don't bear the secret or lack a Message-Authenticator, and
	// Malformed what is no packet.
	Timeouts, Late, Stray, BadAuthenticators, Malformed uint64
	// Refused counts refusals of its port, Shunned how often new users were
	// kept from it, and NoIdentifier requests there was no Identifier for.
	Refused, Shunned, NoIdentifier uint64
	// Waiting is how many requests wait for it now, Shuns that new users are
	// kept from it now.
	Waiting int
	Shuns   bool
	// Took is its smoothed response time.
	Took time.Duration
	// Latency is how long its answers took.
	Latency Histogram
	// Sizes says how large its answers were.
	Sizes Sizes
}

// histogramSteps is how many buckets a Histogram has.
const histogramSteps = 20

// A Histogram counts durations. Bucket i holds those under [HistogramBound](i)
// that no earlier one holds; the last holds all others.
type Histogram struct { //nolint:recvcheck // its reading methods take it by value, as its users do
	// Counts are the buckets, Sum is all durations together.
	Counts [histogramSteps]uint64
	Sum    time.Duration
}

// HistogramBound returns what the durations in bucket i of a Histogram are less
// than: 256 µs doubled i times. The last has no bound, for which it returns 0.
func HistogramBound(i int) time.Duration {
	if i >= histogramSteps-1 {
		return 0
	}
	return 256 * time.Microsecond << i
}

// Count returns how many durations were counted.
func (h *Histogram) Count() (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Quantile returns the bound of the bucket in which the fraction q, 0 to 1, of all
// durations is reached; 0 if there are none.
func (h *Histogram) Quantile(q float64) time.Duration {
	n, all := uint64(0), h.Count()
	for i, c := range h.Counts {
		n += c
		if all > 0 && float64(n) >= q*float64(all) {
			return cmp.Or(HistogramBound(i), Histogram{}.most())
		}
	}
	return 0
}

func (Histogram) most() time.Duration { return HistogramBound(histogramSteps-2) * 2 }

// histogram is a Histogram that is counted in.
type histogram struct {
	counts [histogramSteps]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) add(d time.Duration) {
	i := bits.Len64(uint64(max(d, 0)) / uint64(256*time.Microsecond))
	h.counts[min(i, histogramSteps-1)].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() (out Histogram) {
	for i := range h.counts {
		out.Counts[i] = h.counts[i].Load()
	}
	out.Sum = time.Duration(h.sum.Load())
	return out
}

// Sizes says how large packets were, which matters where fragments of IP get lost.
type Sizes struct {
	// Largest is the largest packet, in bytes of RADIUS. What is over 1472 is
	// sent in fragments where the MTU is 1500; Fragmented counts those.
	Largest    int
	Fragmented uint64
	// NearMTU counts those that the 18 bytes of a Message-Authenticator or a
	// Proxy-State would have had fragmented.
	NearMTU uint64
	// LargestEAP is the largest EAP packet, in bytes.
	LargestEAP int
	// FramedMTU is the Framed-MTU a client gave last, 0 if it gave none.
	FramedMTU uint32
}

// unfragmented is how large a packet can be that fits into 1500 bytes with its IP
// and UDP headers.
const unfragmented = 1500 - 20 - 8

// Advice says what the sizes mean, in words; nil if there is nothing to say.
func (s Sizes) Advice() []string {
	var out []string
	if s.Fragmented > 0 {
		out = append(out, fmt.Sprintf("%d packets of up to %d bytes were sent in IP fragments, which firewalls and load balancers like to lose: "+
			"let NPS send smaller EAP fragments by a Framed-MTU of 1344 in the network policy", s.Fragmented, s.Largest))
	}
	if s.NearMTU > 0 {
		out = append(out, fmt.Sprintf("%d packets are within 18 bytes of the size at which they are fragmented: "+
			"nothing that adds an attribute, such as a proxy's Proxy-State, must come on the way", s.NearMTU))
	}
	if s.FramedMTU > 1344 && s.LargestEAP > 1200 {
		out = append(out, fmt.Sprintf("the client gives a Framed-MTU of %d and EAP packets are large, up to %d bytes: 1344 avoids fragments", s.FramedMTU, s.LargestEAP))
	}
	return out
}

// sizes is Sizes that is counted in.
type sizes struct {
	largest, largestEAP atomic.Int64
	framed              atomic.Uint32
	fragmented, near    atomic.Uint64
}

const framedMTU Type = 12

func (s *sizes) add(p Packet) {
	n := len(p.b)
	raise(&s.largest, int64(n))
	switch {
	case n > unfragmented:
		s.fragmented.Add(1)
	case n > unfragmented-18:
		s.near.Add(1)
	}
	eap := 0
	for at := HeaderLen; at < n; at += int(p.b[at+1]) {
		switch Type(p.b[at]) {
		case EAPMessage:
			eap += int(p.b[at+1]) - 2
		case framedMTU:
			if p.b[at+1] == 6 {
				if v := binary.BigEndian.Uint32(p.b[at+2:]); v != s.framed.Load() {
					s.framed.Store(v)
				}
			}
		}
	}
	raise(&s.largestEAP, int64(eap))
}

func raise(a *atomic.Int64, n int64) {
	for was := a.Load(); n > was; was = a.Load() {
		if a.CompareAndSwap(was, n) {
			return
		}
	}
}

func (s *sizes) read() Sizes {
	return Sizes{
		Largest: int(s.largest.Load()), LargestEAP: int(s.largestEAP.Load()), FramedMTU: s.framed.Load(),
		Fragmented: s.fragmented.Load(), NearMTU: s.near.Load(),
	}
}

// answerCounters are Answers that are counted in.
type answerCounters struct {
	accepts, rejects, challenges, accounting atomic.Uint64
	latency                                  histogram
}

func (a *answerCounters) answered(p Packet, took time.Duration) {
	switch p.Code() {
	case AccessAccept:
		a.accepts.Add(1)
	case AccessReject:
		a.rejects.Add(1)
	case AccessChallenge:
		a.challenges.Add(1)
	case AccountingResponse:
		a.accounting.Add(1)
	default:
	}
	a.latency.add(took)
}

func (a *answerCounters) read() Answers {
	return Answers{Accepts: a.accepts.Load(), Rejects: a.rejects.Load(), Challenges: a.challenges.Load(), Accounting: a.accounting.Load()}
}

type clientCounters struct {
	answerCounters
	requests, duplicates, status, timeouts, dropped, badAuthenticator, spooled atomic.Uint64
	sizes                                                                      sizes
	bare                                                                       rare // answers that nothing protects
}

func (c *clientCounters) saw(p Packet) { c.sizes.add(p) }

type serverCounters struct {
	answerCounters
	requests, resent, sent, moved, timeouts, late, stray, bad, malformed atomic.Uint64
	refused, shunned, noIdentifier                                       atomic.Uint64
	waiting, busy                                                        atomic.Int64
	suspected                                                            atomic.Int64
	sizes                                                                sizes

	mu       sync.Mutex // below: the users left unanswered within a second
	silent   [silentUsers]lb.Key
	silentN  int
	silentAt int64
}

func (s *serverCounters) answered(p Packet, took time.Duration) {
	s.answerCounters.answered(p, took)
	s.sizes.add(p)
}

// counters are those of a Proxy.
type counters struct {
	packets, sendErrors atomic.Uint64
	challenged          atomic.Int64 // when the last challenge was sent
	own                 atomic.Uint32
}

// Stats returns what has been counted.
func (p *Proxy) Stats() Stats {
	p.init()
	s := Stats{
		Packets: p.count.packets.Load(), SendErrors: p.count.sendErrors.Load(), Dropped: make(map[string]uint64),
		Stored: p.spooler.stored.Load(), NotStored: p.spooler.refused.Load(), Failures: p.failures.top(p),
	}
	for i, text := range reasonText {
		if n := p.reasons.n[i].Load(); n > 0 {
			s.Dropped[text] = n
		}
	}
	for _, c := range p.cells {
		c.mu.Lock()
		s.Waiting += c.waiting.n
		s.Kept += c.kept.n
		c.mu.Unlock()
	}
	if set := p.clients.Load(); set != nil {
		for _, q := range set.byName {
			s.Clients = append(s.Clients, q.stats())
		}
	}
	slices.SortFunc(s.Clients, func(a, b ClientStats) int { return cmp.Compare(a.Name, b.Name) })
	view := p.Balancer.Pool.View()
	for _, v := range p.servers.Load().list() {
		if m := view.Member(v.backend); m != nil {
			s.Servers = append(s.Servers, v.stats(m.Requests().Took(time.Now()), p.now()))
		}
	}
	slices.SortFunc(s.Servers, func(a, b ServerStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
	})
	return s
}

func (q *peer) stats() ClientStats {
	c := q.count
	return ClientStats{
		Name: q.Name, Requests: c.requests.Load(), Duplicates: c.duplicates.Load(), Status: c.status.Load(),
		Answers: c.answerCounters.read(), Timeouts: c.timeouts.Load(), Dropped: c.dropped.Load(),
		BadAuthenticators: c.badAuthenticator.Load(), Spooled: c.spooled.Load(),
		Latency: c.latency.read(), Sizes: c.sizes.read(),
	}
}

func (v *server) stats(took time.Duration, now int64) ServerStats {
	c := &v.count
	return ServerStats{
		Name: v.name, Port: v.port, Requests: c.requests.Load(), Resent: c.resent.Load(), Moved: c.moved.Load(),
		Answers: c.answerCounters.read(), Timeouts: c.timeouts.Load(), Late: c.late.Load(), Stray: c.stray.Load(),
		BadAuthenticators: c.bad.Load(), Malformed: c.malformed.Load(),
		Refused: c.refused.Load(), Shunned: c.shunned.Load(), NoIdentifier: c.noIdentifier.Load(),
		Waiting: int(c.waiting.Load()), Shuns: v.shun.Load() > now, Took: took,
		Latency: c.latency.read(), Sizes: c.sizes.read(),
	}
}
