package lb

import (
	"sync/atomic"
	"time"
)

// Requests counts what is under way to a backend, for engines that see requests
// and their answers. A Member's is shared by all Views; see [Member.Requests].
type Requests struct {
	waiting atomic.Int64
	took    atomic.Int64 // smoothed response time, in ns
	at      atomic.Int64 // when took was last measured, in ns since the Unix epoch
}

// responseHalf is the time in which a response time that isn't measured again
// loses half of its weight: or a server that was slow once would never be asked
// again, and so never be found to be quick.
const responseHalf = 10 * time.Second

// Began says that a request was sent.
func (r *Requests) Began() { r.waiting.Add(1) }

// Ended says that a request ended without an answer.
func (r *Requests) Ended() { r.waiting.Add(-1) }

// Answered says that a request was answered, and how long that took. Times of 0
// and less aren't taken into account: those that a person's thinking is part of.
func (r *Requests) Answered(took time.Duration, now time.Time) {
	r.waiting.Add(-1)
	if took <= 0 {
		return
	}
	const weight = 8 // of the past
	if was := r.took.Load(); was > 0 {
		took = (time.Duration(was)*(weight-1) + took) / weight
	}
	// Two at once may lose one of them: it's a mean.
	r.took.Store(int64(took))
	r.at.Store(now.UnixNano())
}

// Waiting returns how many requests are under way.
func (r *Requests) Waiting() int { return int(max(r.waiting.Load(), 0)) }

// Took returns how long the backend takes to answer, smoothed; 0 if that isn't
// known.
func (r *Requests) Took(now time.Time) time.Duration {
	took := r.took.Load()
	if age := now.UnixNano() - r.at.Load(); age > int64(responseHalf) {
		took >>= min(age/int64(responseHalf), 62)
	}
	return time.Duration(took)
}

// Requests returns what is counted of the requests under way to m.
func (m *Member) Requests() *Requests { return &m.load.requests }

// LeastOutstanding picks the backend with the fewest requests under way for its
// share and its speed: one that takes twice as long to answer counts as twice as
// busy. It needs an engine that says what is under way, see [Member.Requests];
// without one it picks by the key, as Maglev does, if less evenly.
type LeastOutstanding struct{}

// Pick returns the least busy backend.
func (LeastOutstanding) Pick(k Key, v *View) *Member {
	n := len(v.Ready)
	if n == 0 {
		return nil
	}
	now := time.Now()
	quickest := time.Duration(0)
	for _, m := range v.Ready {
		if t := m.load.requests.Took(now); t > 0 && (quickest == 0 || t < quickest) {
			quickest = t
		}
	}
	// Speeds within a factor of two are the same speed: or with little load
	// one backend would have everything for being a hair quicker.
	cost := func(m *Member) int {
		slow := 1
		if quickest > 0 {
			slow = max(1, int(m.load.requests.Took(now)/(2*quickest)))
		}
		return (m.load.requests.Waiting() + 1) * min(slow, 1<<16)
	}
	// Of several with equal costs the key decides, by shares.
	sum := 0
	for _, m := range v.Ready {
		sum += m.Share
	}
	first, at := 0, int(k.hash(0)%uint64(max(sum, 1)))
	for i, m := range v.Ready {
		if at < m.Share {
			first = i
			break
		}
		at -= m.Share
	}
	best := v.Ready[first]
	least := cost(best)
	for i := 1; i < n; i++ {
		m := v.Ready[(first+i)%n]
		// cost/share, multiplied out.
		if c := cost(m); c*best.Share < least*m.Share {
			best, least = m, c
		}
	}
	return best
}
