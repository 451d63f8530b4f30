package ikev2

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// The defaults of a Watch.
const (
	// DefaultWatched is how many conversations a Watch keeps: as many take some
	// 10 MB.
	DefaultWatched = 4096
	// watchedExchanges is how many exchanges it keeps of each: a handshake by
	// EAP has seven.
	watchedExchanges = 12
	// watchedAfter is how many are kept when the handshake is over.
	watchedAfter = 2
	// keptProblems is how many problems it remembers.
	keptProblems = 64
)

// How long a Watch waits before it judges.
const (
	// judgeEvery is how long after its beginning a handshake is looked at, and
	// how long until it is looked at again.
	judgeEvery = 5 * time.Second
	// goneAfter is how long a client must be silent before a handshake that
	// ends without a word counts as failed. NPS may wait a minute for a second
	// factor; the client sends again meanwhile.
	goneAfter = time.Minute
)

// A Watch judges the handshakes that pass a balancer while they happen, and counts
// for each gateway what became of them. It is fed IKE messages alone, never ESP, so
// by itself it knows of a tunnel only that the gateway's last answer was one that
// makes tunnels; see Carried.
//
// Its memory is bounded; when a flood begins more handshakes than it keeps, those
// without answers make room. Its fields must not be changed after its first use.
// It is safe for concurrent use.
type Watch struct {
	// MaxConversations is how many conversations are kept; 0 means
	// DefaultWatched.
	MaxConversations int
	// Carried, if not nil, tells whether ESP of the client with an SA was seen,
	// and whether that is known at all: a balancer remembers it, see [Carried].
	// It is asked of few handshakes, and must not call the Watch. Without it a
	// tunnel that is given up at once counts as finished.
	Carried func(SPI) (yes, known bool)

	mu       sync.Mutex
	tracker  Tracker
	ready    bool
	queue    []waiting // by when, from head on
	head     int
	gateways map[string]*HandshakeCounts
	problems []Problem // a ring
	next     int
}

// waiting is a handshake that is to be judged.
type waiting struct {
	spi SPI
	at  time.Time
}

// HandshakeCounts are what became of the handshakes with one gateway.
type HandshakeCounts struct {
	// Gateway is its name; empty counts those that came to none.
	Gateway string
	// Begun counts the handshakes that clients began, Finished those that made
	// a tunnel, Failed those that made none, by the finding that says why.
	Begun    uint64
	Finished uint64
	Failed   map[FindingID]uint64
	// Weak counts the finished ones whose suite is weak, Unfragmented those
	// whose client didn't announce IKE fragmentation. Slow counts those with
	// answers that took seconds.
	Weak         uint64
	Unfragmented uint64
	Slow         uint64
}

// A Problem is a finding of a Watch.
type Problem struct {
	// Time is when the conversation was last heard of, Gateway where it went.
	Time    time.Time
	Gateway string
	Finding Finding
}

// maxGateways bounds the names that are counted: more than a balancer has.
const maxGateways = 1024

func (w *Watch) prepare() {
	if w.ready {
		return
	}
	w.ready = true
	most := w.MaxConversations
	if most <= 0 {
		most = DefaultWatched
	}
	w.tracker.MaxConversations, w.tracker.MaxExchanges, w.tracker.NoESP = most, watchedExchanges, true
	w.tracker.fresh = w.begun
	w.gateways = make(map[string]*HandshakeCounts)
}

// Observe takes note of an IKE message; other datagrams are left alone.
func (w *Watch) Observe(e *Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepare()
	w.tracker.Observe(e)
	w.judge(e.Time, 8)
}

// begun counts a handshake that begins.
func (w *Watch) begun(c *conversation) {
	if c.midway {
		return
	}
	w.at(c).Begun++
	// Entries of handshakes that are forgotten stay until their time has come:
	// a flood must not make this long.
	if len(w.queue)-w.head < 4*w.tracker.MaxConversations {
		w.queue = append(w.queue, waiting{c.sas[0].spi, c.began.Add(judgeEvery)})
	}
}

// gatewayOf is where a conversation went.
func gatewayOf(c *conversation) string {
	if c.authAt != "" {
		return c.authAt
	}
	return c.initAt
}

func (w *Watch) at(c *conversation) *HandshakeCounts {
	name := gatewayOf(c)
	h := w.gateways[name]
	if h == nil {
		if len(w.gateways) >= maxGateways {
			name = ""
		}
		if h = w.gateways[name]; h == nil {
			h = &HandshakeCounts{Gateway: name, Failed: make(map[FindingID]uint64)}
			w.gateways[name] = h
		}
	}
	return h
}

// judge looks at handshakes whose time has come, most at most.
func (w *Watch) judge(now time.Time, most int) {
	for n := 0; w.head < len(w.queue) && n < most && !w.queue[w.head].at.After(now); n++ {
		q := w.queue[w.head]
		w.head++
		c := w.tracker.spis[q.spi]
		if c != nil && !w.over(c, now) {
			w.queue = append(w.queue, waiting{q.spi, now.Add(judgeEvery)})
		}
	}
	if w.head > len(w.queue)/2 {
		w.queue, w.head = slices.Delete(w.queue, 0, w.head), 0
	}
}

// over counts a handshake if it is over, and reports whether it is.
func (w *Watch) over(c *conversation, now time.Time) bool {
	d := diagnosis{c: c, began: w.tracker.began, end: now, blind: true, seen: w.Carried}
	d.run()
	switch {
	case d.outcome == OutcomeEstablished && w.early(&d, now):
		return false
	case d.outcome == OutcomeOpen && now.Sub(c.last) < goneAfter:
		return false
	case d.outcome == OutcomeFailed && !final(d.cause) && !c.restarted && now.Sub(c.last) < goneAfter:
		return false
	}
	h := w.at(c)
	switch d.outcome {
	case OutcomeEstablished:
		h.Finished++
		if !c.fragmentation[sideClient] {
			h.Unfragmented++
		}
	case OutcomeFailed:
		h.Failed[d.cause]++
	case OutcomeOpen:
	}
	for _, f := range d.findings {
		switch f.ID {
		case FindingWeakSuite:
			h.Weak++
		case FindingSlow:
			h.Slow++
		}
		if f.Severity > SeverityInfo {
			w.keep(Problem{Time: c.last, Gateway: gatewayOf(c), Finding: f})
		}
	}
	// What follows is the tunnel's life, of which less need be known.
	c.offer = nil
	if n := len(c.exchanges) - watchedAfter; n > 0 {
		c.exchanges = slices.Clone(c.exchanges[n:])
		c.dropped += n
	}
	return true
}

// early reports whether a tunnel may still turn out to have been of no use.
func (w *Watch) early(d *diagnosis, now time.Time) bool {
	x := d.c.lastOf(ExchangeAuth)
	return w.Carried != nil && x != nil && now.Sub(x.response.first) < neverUsedWithin && !d.proven() && !d.carried()
}

// Carried returns what a [Watch] wants to know of a client, from what a Table has
// of the Balancer that the client's packets pass: those of its tunnels leave the
// name of their SPI. Where clients are named by their addresses nothing is known.
func Carried(t *lb.Table, spi SPI) (yes, known bool) {
	c, ok := t.Lookup(SPIKey(spi))
	return slices.ContainsFunc(c.Names, func(k lb.Key) bool { return k.Space() == SpaceESP }), ok
}

// final reports whether a handshake that failed so can't go on.
func final(id FindingID) bool {
	switch id {
	case FindingNoProposal, FindingRefused, FindingAuthRefused, FindingClientStopped, FindingNeverUsed:
		return true
	}
	return false
}

func (w *Watch) keep(p Problem) {
	if len(w.problems) < keptProblems {
		w.problems = append(w.problems, p)
		return
	}
	w.problems[w.next] = p
	w.next = (w.next + 1) % keptProblems
}

// Handshakes returns what became of the handshakes until now, by gateway.
func (w *Watch) Handshakes(now time.Time) []HandshakeCounts {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepare()
	w.judge(now, len(w.queue))
	out := make([]HandshakeCounts, 0, len(w.gateways))
	for _, name := range slices.Sorted(maps.Keys(w.gateways)) {
		h := *w.gateways[name]
		h.Failed = maps.Clone(h.Failed)
		out = append(out, h)
	}
	return out
}

// Problems returns the last few problems until now, latest first.
func (w *Watch) Problems(now time.Time) []Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prepare()
	w.judge(now, len(w.queue))
	out := slices.Concat(w.problems[w.next:], w.problems[:w.next])
	slices.Reverse(out)
	return out
}
