package ikev2

import (
	"fmt"
	"net/netip"
	"time"
)

// An EventKind says what an Event is.
type EventKind uint8

const (
	// EventDatagram is a UDP datagram, whole: one IKE message, ESP in UDP, or
	// a keepalive.
	EventDatagram EventKind = iota
	// EventIncomplete is a datagram of which not all IP fragments came. Data is
	// what came up to the first gap.
	EventIncomplete
	// EventICMP is an ICMP error about a datagram: From and To are those of
	// that datagram, and Data is what the error quotes of it.
	EventICMP
	// EventESP is a packet of IP protocol 50: ESP without UDP. The ports of From
	// and To are 0.
	EventESP
)

func (k EventKind) String() string {
	switch k {
	case EventDatagram:
		return "datagram"
	case EventIncomplete:
		return "incomplete datagram"
	case EventICMP:
		return "ICMP error"
	case EventESP:
		return "ESP"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An ICMPError says what an EventICMP tells.
type ICMPError uint8

const (
	// ICMPOther is an error that says nothing of its own to a diagnosis.
	ICMPOther ICMPError = iota
	// ICMPTooBig: a packet was larger than the next link takes, and must not
	// be fragmented there (RFC 1191, RFC 8201).
	ICMPTooBig
	// ICMPPortUnreachable: nobody listens.
	ICMPPortUnreachable
	// ICMPUnreachable: there is no way to the host or network.
	ICMPUnreachable
	// ICMPProhibited: a filter said no.
	ICMPProhibited
	// ICMPReassembly: not all fragments came in time.
	ICMPReassembly
)

func (e ICMPError) String() string {
	switch e {
	case ICMPOther:
		return "error"
	case ICMPTooBig:
		return "packet too big"
	case ICMPPortUnreachable:
		return "port unreachable"
	case ICMPUnreachable:
		return "unreachable"
	case ICMPProhibited:
		return "administratively prohibited"
	case ICMPReassembly:
		return "fragment reassembly time exceeded"
	}
	return fmt.Sprintf("ICMPError(%d)", uint8(e))
}

// An Event is one thing that somebody saw between clients and gateways: a capture
// file, a tap, or a balancer. A [Tracker] makes conversations of them.
type Event struct {
	// Kind says which of the fields below count.
	Kind EventKind
	// Time is when it was seen.
	Time time.Time
	// Packet is its number in a capture, from 1; 0 where packets have none. Of
	// a datagram in several IP fragments it is the last one's.
	Packet int
	// From and To are its addresses and ports.
	From, To netip.AddrPort
	// Data is the payload of UDP, as far as it was captured. Nobody keeps it
	// after Observe has returned.
	Data []byte
	// Size is how long the payload was on the wire, if that is more than Data
	// has: captures may be cut off. 0 means as long as Data.
	Size int
	// Fragments is how many IP fragments it came in; 0 and 1 mean that it was
	// whole.
	Fragments int
	// Missing says, of an EventIncomplete, which octets of the IP payload never
	// came, in words: "1480-2187".
	Missing string
	// ICMP and MTU are what an EventICMP tells. MTU is 0 if it doesn't say.
	ICMP ICMPError
	MTU  int
	// Reporter is who sent the ICMP error.
	Reporter netip.Addr
	// Gateway is the name of the gateway it came from or goes to, if who saw it
	// knows.
	Gateway string
}

// size returns how long the payload was.
func (e *Event) size() int { return max(e.Size, len(e.Data)) }

// truncated reports whether the capture lacks part of it.
func (e *Event) truncated() bool { return e.Size > len(e.Data) }
