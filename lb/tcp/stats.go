package tcp

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A Refusal says why a connection was not served.
type Refusal uint8

const (
	// RefusedLimit: there were MaxStreams already.
	RefusedLimit Refusal = iota
	// RefusedProxy: its PROXY header was missing, late or wrong.
	RefusedProxy
	// RefusedBytes: the Sniffer said to drop it.
	RefusedBytes
	// RefusedNoBackend: the Balancer had no backend for it.
	RefusedNoBackend
	// RefusedUnreachable: no backend that was tried could be reached.
	RefusedUnreachable
	// RefusedLocal: this machine had no socket, port or right for it.
	RefusedLocal
	// RefusedGone: the client left before it had sent what was needed.
	RefusedGone
	// RefusedClosing: the engine was being closed.
	RefusedClosing
	// RefusedHandshake: the Terminator couldn't make sense of it, or didn't
	// let it in.
	RefusedHandshake

	refusals
)

var refusalText = [refusals]string{
	"limit", "proxy_header", "bytes", "no_backend", "unreachable", "local", "gone", "closing", "handshake",
}

// String returns one word, joined by underscores, as metrics use it.
func (r Refusal) String() string {
	if r < refusals {
		return refusalText[r]
	}
	return "unknown"
}

// MarshalText returns the Refusal as String does.
func (r Refusal) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// An End says how a stream ended.
type End uint8

const (
	// EndDone: both directions had come to their end.
	EndDone End = iota
	// EndReset: a peer reset it, or vanished.
	EndReset
	// EndIdle: nothing moved for too long.
	EndIdle
	// EndBackend: its backend went down, or was taken from the Pool, or the
	// deadline of its drain passed.
	EndBackend
	// EndClosing: the engine was closed.
	EndClosing

	ends
)

var endText = [ends]string{"done", "reset", "idle", "backend_down", "closing"}

// String returns one word, joined by underscores, as metrics use it.
func (e End) String() string {
	if e < ends {
		return endText[e]
	}
	return "unknown"
}

// MarshalText returns the End as String does.
func (e End) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// A Side is one of the two ends of a stream.
type Side uint8

const (
	// SideNone: the engine itself.
	SideNone Side = iota
	// SideClient is the client.
	SideClient
	// SideBackend is the backend.
	SideBackend
)

func (s Side) String() string {
	switch s {
	case SideClient:
		return "client"
	case SideBackend:
		return "backend"
	}
	return "engine"
}

// MarshalText returns the Side as String does.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Summary tells of a stream that has ended.
type Summary struct {
	// Flow is who came, and to which port.
	Flow lb.Flow
	// Member is the backend as it was when the stream began; nil for a stream
	// that a Terminator had led elsewhere.
	Member *lb.Member
	// Why is how the client came to it.
	Why lb.Why
	// Start is when the connection was accepted.
	Start time.Time
	// Took is how long it was open.
	Took time.Duration
	// Sent are the bytes that went to the backend, without a PROXY header;
	// Received those that went to the client.
	Sent, Received uint64
	// End is how it ended.
	End End
	// First is who ended it: which side sent the first FIN, or the reset.
	First Side
	// Err is the error of a reset; otherwise nil.
	Err error
	// Quiet is for how long nothing had moved, either way, when it ended.
	Quiet time.Duration
}

// A Trace hears of events. Any of its functions may be nil. They are called
// synchronously, from many goroutines at once, so they must be quick.
type Trace struct {
	// Unreachable is called when a backend could not be connected to, and the
	// backend or the network to it is to blame.
	Unreachable func(m *lb.Member, target netip.AddrPort, err error)
	// Opened is called when a backend has been connected to.
	Opened func(f lb.Flow, m *lb.Member, why lb.Why)
	// Closed is called when a stream has ended that had been opened.
	Closed func(s Summary)
	// Refused is called when a connection isn't served. err may be nil; why
	// says it all then.
	Refused func(f lb.Flow, why Refusal, err error)
}

func (t *Trace) unreachable(m *lb.Member, target netip.AddrPort, err error) {
	if t != nil && t.Unreachable != nil {
		t.Unreachable(m, target, err)
	}
}

func (t *Trace) opened(f lb.Flow, m *lb.Member, why lb.Why) {
	if t != nil && t.Opened != nil {
		t.Opened(f, m, why)
	}
}

func (t *Trace) closed(s *Summary) {
	if t != nil && t.Closed != nil {
		t.Closed(*s)
	}
}

func (t *Trace) refused(f lb.Flow, why Refusal, err error) {
	if t != nil && t.Refused != nil {
		t.Refused(f, why, err)
	}
}

// Stats counts what an Engine has done since it was made.
type Stats struct {
	// Accepted are all connections from clients; Opened those that reached a
	// backend, or where a Terminator led them; Answered those that the
	// Terminator answered by itself.
	Accepted, Opened, Answered uint64
	// Refused counts the others by their Refusal.
	Refused [refusals]uint64
	// Ended counts the opened ones that have ended, by their End.
	Ended [ends]uint64
	// Unreachable counts failed connections to backends, Retried streams
	// that were then offered to another.
	Unreachable, Retried uint64
	// SniffTimeouts counts streams that were treated by what had come,
	// because time or MaxSniffing was used up.
	SniffTimeouts uint64
	// AcceptErrors counts accepts that failed, for want of sockets say.
	AcceptErrors uint64
	// Sent and Received are bytes to backends and to clients, of live streams
	// too. Spliced are those of both that never left the kernel.
	Sent, Received, Spliced uint64
	// Open are the connections from clients that are open now. Of those,
	// Sniffing wait for their first bytes.
	Open, Sniffing int
}

// RefusedTotal returns the sum of Refused.
func (s *Stats) RefusedTotal() uint64 {
	var n uint64
	for _, r := range s.Refused {
		n += r
	}
	return n
}

type counters struct {
	accepted, opened, answered, unreachable, retried atomic.Uint64
	sniffTimeouts, acceptErrors                      atomic.Uint64
	refused                                          [refusals]atomic.Uint64
	ended                                            [ends]atomic.Uint64
	// Of streams that have ended; written with server.mu held.
	sent, received, spliced atomic.Uint64
	open, sniffing          atomic.Int64
}

// Stats returns what has been counted.
func (e *Engine) Stats() Stats {
	c := &e.count
	s := Stats{
		Accepted: c.accepted.Load(), Opened: c.opened.Load(), Answered: c.answered.Load(),
		Unreachable: c.unreachable.Load(), Retried: c.retried.Load(),
		SniffTimeouts: c.sniffTimeouts.Load(), AcceptErrors: c.acceptErrors.Load(),
		Open: int(c.open.Load()), Sniffing: int(c.sniffing.Load()),
	}
	for i := range s.Refused {
		s.Refused[i] = c.refused[i].Load()
	}
	for i := range s.Ended {
		s.Ended[i] = c.ended[i].Load()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for sv := range e.servers {
		sv.mu.Lock()
		defer sv.mu.Unlock() // all at once, so that no stream is counted twice
	}
	s.Sent, s.Received, s.Spliced = c.sent.Load(), c.received.Load(), c.spliced.Load()
	for sv := range e.servers {
		for st := range sv.streams {
			s.Sent += st.sent.n.Load()
			s.Received += st.received.n.Load()
			s.Spliced += st.sent.spliced.Load() + st.received.spliced.Load()
		}
	}
	return s
}
