package standin

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// A Session is what a server knows of one client's visit: an IKE SA, an SSTP
// call, a RADIUS conversation.
type Session struct {
	// Client is the name the client proved or gave.
	Client string
	// Life counts how often the server had been killed before.
	Life int
	// Begun is when the first message of the session came, Established when the
	// client was let in, Last when it was last heard, Ended when it said
	// goodbye or was dropped; zero if it never did or was.
	Begun, Established, Last, Ended time.Time
	// Packets is how many data packets came, Highest the highest number that
	// one of them had, if they are numbered: the difference got lost.
	Packets, Highest uint64
	// Moves is how often it changed its address.
	Moves int
	// Rekeyed says that this SA replaced an earlier one of the same client,
	// by rekeying.
	Rekeyed bool
}

// book is a list of sessions that outlives the server's lives.
type book struct {
	mu       sync.Mutex
	life     int
	next     int
	sessions map[int]*Session
}

// open starts a session and returns its number.
func (b *book) open(s Session) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sessions == nil {
		b.sessions = make(map[int]*Session)
	}
	s.Life = b.life
	b.sessions[b.next] = &s
	b.next++
	return b.next - 1
}

func (b *book) note(n int, f func(*Session)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[n]; s != nil {
		f(s)
	}
}

// newLife says that the server has been killed: all sessions end.
func (b *book) newLife() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.life++
	for _, s := range b.sessions {
		if s.Ended.IsZero() {
			s.Ended = time.Now()
		}
	}
}

// list returns all sessions in the order in which they were opened.
func (b *book) list() []Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Session, 0, len(b.sessions))
	for _, n := range slices.Sorted(maps.Keys(b.sessions)) {
		out = append(out, *b.sessions[n])
	}
	return out
}
