package lb

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"
)

// A Backend is one server, such as an RRAS gateway or an NPS server. It has no
// port: the listener through which a client came adds the port, so that all
// ports of one client lead to the same server.
type Backend struct {
	// Name identifies the backend; it is unique within a Pool.
	Name string
	// Addr is where it is reached.
	Addr netip.Addr
	// Weight is its share of new clients relative to the others of the same
	// Priority, 0 to 65535. It gets none if it is negative; zero means 1.
	Weight int
	// Priority orders active and passive backends: those with the lowest
	// number serve, the others stand by.
	Priority int
	// MaxClients is how many clients it takes; 0 means no limit. Clients it
	// already has are kept if the limit is lowered, and a rush may go over it
	// by those that haven't been answered yet.
	MaxClients int
}

func (b Backend) validate() error {
	switch {
	case b.Name == "":
		return fmt.Errorf("lb: backend at %v has no name", b.Addr)
	case !b.Addr.IsValid():
		return fmt.Errorf("lb: backend %q has no valid address", b.Name)
	case b.Weight > 65535:
		return fmt.Errorf("lb: backend %q: weight %d is over 65535", b.Name, b.Weight)
	case b.MaxClients < 0:
		return fmt.Errorf("lb: backend %q: max clients %d is negative", b.Name, b.MaxClients)
	}
	return nil
}

// A State says what a backend may be given.
type State uint8

const (
	// Up takes new clients.
	Up State = iota
	// Draining keeps the clients it has and takes no new ones.
	Draining
	// Down takes nothing; its clients are moved at their next packet.
	Down
)

func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Draining:
		return "draining"
	case Down:
		return "down"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// MarshalText returns the State as String does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// ID identifies a backend within its Pool by a small number: the same as long as
// the Pool holds that name at that address. A backend that was taken out and comes
// back has another.
type ID uint32

// A Member is a Backend as a [View] shows it. It is immutable but for its
// counters, which all views share.
type Member struct {
	Backend
	// ID is the backend's number in its Pool.
	ID ID
	// State is what the backend may be given now.
	State State
	// Cause says why it is in that State; empty if nothing special happened.
	Cause string
	// Since is when it came into that State.
	Since time.Time
	// Share is the weight in force: Weight, less while it starts slowly.
	Share int

	load *load
}

// load is what is counted of one backend, whatever View shows it.
type load struct {
	clients atomic.Int64 // of the Table
	streams atomic.Int64 // of stream engines, without a name in the Table
	picked  atomic.Uint64
	// losses is how often the backend was lost, and stale how many of its
	// clients haven't been heard of since the last time.
	losses atomic.Uint32
	stale  atomic.Int64
	// pending counts the picks of one second that no answer has followed: the
	// second, as Unix time, in the upper half.
	pending atomic.Uint64
	// requests are those under way, where an engine counts them.
	requests Requests
}

// lost notes that the backend is down: its clients may be gone. They keep their
// names, for it may come back with them, but those that aren't heard of again
// are no load.
func (l *load) lost() {
	l.stale.Store(l.clients.Load())
	l.losses.Add(1)
}

// wait counts a pick.
func (l *load) wait(now uint32) {
	for {
		was := l.pending.Load()
		is := was + 1
		if uint32(was>>32) != now {
			is = uint64(now)<<32 | 1
		}
		if l.pending.CompareAndSwap(was, is) {
			return
		}
	}
}

// answered takes a pick back, now that its client is counted as such.
func (l *load) answered() {
	for {
		was := l.pending.Load()
		if uint32(was) == 0 || l.pending.CompareAndSwap(was, was-1) {
			return
		}
	}
}

// waiting returns how many picks wait for an answer.
func (l *load) waiting(now uint32) int {
	p := l.pending.Load()
	if now-uint32(p>>32) > 1 {
		return 0
	}
	return int(uint32(p))
}

// Clients is how many clients the backend has now: those in the Table, and
// streams without one. Clients that it had when it was last down, and that
// haven't been heard of since, don't count.
func (m *Member) Clients() int {
	return int(m.load.clients.Load() - max(m.load.stale.Load(), 0) + m.load.streams.Load())
}

// Full reports whether the backend has as many clients as it may have.
func (m *Member) Full() bool { return m.MaxClients > 0 && m.Clients() >= m.MaxClients }

// Usable reports whether clients that it has may stay.
func (m *Member) Usable() bool { return m.State != Down }

// Picked counts the clients it was picked for, whether or not it answered them.
func (m *Member) Picked() uint64 { return m.load.picked.Load() }
