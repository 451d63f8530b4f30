package fastpath

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// ErrUnsupported is what Open's error wraps where there can be no fast path: on
// another system than Linux, say, or on a kernel that is too old.
var ErrUnsupported = errors.New("not supported here")

// The defaults of a Config.
const (
	// DefaultMaxFlows bounds the flows that are carried at once.
	DefaultMaxFlows = 1 << 16
	// mostFlows may be asked for: their table is a gigabyte, which 32 bits can count.
	mostFlows = 1 << 22
	// DefaultFirstMessages bounds the first messages that a processor lets through in a
	// second.
	DefaultFirstMessages = 2000
	// DefaultLease is for how long a Path that is pinned carries after its
	// process was last alive.
	DefaultLease = 30 * time.Second
)

// A Hook says where in the kernel packets are taken.
type Hook uint8

const (
	// HookTC takes them when they have become packets, by TCX. It is for every
	// Ethernet device, virtual ones too.
	HookTC Hook = iota
	// HookXDP takes them before that, in the device's driver, where the driver
	// can do this and can send such packets too; elsewhere it is as HookTC. That
	// is faster. Attaching has some drivers restart the device, and limits its
	// MTU (to some 3,500 bytes, usually).
	HookXDP
)

func (h Hook) String() string {
	switch h {
	case HookTC:
		return "tc"
	case HookXDP:
		return "xdp"
	}
	return fmt.Sprintf("Hook(%d)", uint8(h))
}

// A Config says what to open.
type Config struct {
	// Hook is where packets are taken.
	Hook Hook
	// Interfaces are the names of the network devices that packets of flows come
	// in by, from clients and from backends; one that doesn't exist is waited
	// for. Empty means those that have one of the addresses At, and those by
	// which the routes lead to the addresses Toward and to clients anywhere.
	Interfaces []string
	// At are the addresses and ports of listeners; an unspecified address means
	// all. Toward are the addresses of backends.
	At     []netip.AddrPort
	Toward []netip.Addr
	// MaxFlows bounds the flows that are carried at once; 0 means
	// DefaultMaxFlows, and 4,194,304 is the most. For each, carried or not, the kernel's tables have 416
	// bytes: a flow is two lines of a table that is never more than half full, and
	// 160 bytes are for IPv6.
	MaxFlows int
	// FirstMessages bounds the first messages of IKE to the listeners At, of clients
	// that aren't carried: each processor lets that many through in a second, on the
	// average of ten seconds, and drops what is beyond. So many clients may come at once,
	// but a flood that lasts takes little time from what is carried. 0 means
	// DefaultFirstMessages; below 0, there is no bound. A client whose first message is
	// dropped sends it again (RFC 7296 §2.1).
	FirstMessages int
	// Pin, if not empty, is a folder of a BPF file system in which the programs
	// and the flows outlive the process, so that a restart or an upgrade drops
	// no packet. It is made if its parent exists.
	Pin string
	// Lease is for how long what is pinned carries without a process that runs;
	// 0 means DefaultLease. It is how long a restart may take, and for how long
	// clients are still carried after the end.
	Lease time.Duration
	// Logger, if not nil, hears of what an administrator should know.
	Logger *slog.Logger
}

// Stats says what a Path does.
type Stats struct {
	// Attached are the network devices it takes packets from, by name, and how.
	Attached map[string]Hook
	// Flows are carried now; Waiting are those of them that came from an earlier
	// process or Engine, and that nobody has taken over yet. MaxFlows is the
	// bound.
	Flows, Waiting, MaxFlows int
	// Full counts refusals because of MaxFlows, Unfit those of flows that can't
	// be carried at all, and Failed those for which the table had no place near
	// enough, though there was room: where flows come and go faster than places
	// can be used again: when the kernel says that no program uses them any more.
	Full, Unfit, Failed uint64
	// Dropped counts first messages beyond Config.FirstMessages.
	Dropped uint64
	// Passed counts packets that were left to the Engine, and ICMP errors that
	// were copied, by reason; see [Reasons].
	Passed map[string]uint64
}

// Reasons are the keys of [Stats.Passed], in the order of the kernel's counters.
// All but "fragment" count only packets of flows that are carried.
func Reasons() []string {
	return []string{
		"lease",        // no process has been alive for too long
		"generation",   // the backend's entries were revoked
		"form",         // a keepalive, or lengths that disagree
		"control",      // IKE
		"spi",          // ESP that the Engine hasn't seen
		"ttl",          // its time to live is over
		"too big",      // for the way on
		"forwarding",   // conf.lo.forwarding is off
		"no route",     // to where it would go
		"no neighbour", // likewise, until the stack has found it
		"device",       // the way on is by none that it can be sent by
		"icmp copied",  // an ICMP error
		"fragment",     // an IP fragment of any UDP datagram
	}
}
