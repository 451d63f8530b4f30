package ikev2

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// A TrafficSelector is one range of packets in a TSi or TSr payload (RFC 7296
// §3.13.1):
//
//	0  type (1)  1  IP protocol (1)  2  length (2)  4  first port (2)  6  last port (2)
//	8  first address, last address
type TrafficSelector struct {
	// Type says which of the other fields mean something.
	Type TSType
	// Protocol is the IP protocol; 0 is any.
	Protocol uint8
	// StartPort and EndPort bound the ports; 0 and 65535 are all, 65535 and 0
	// none that can be seen (OPAQUE).
	StartPort, EndPort uint16
	// Start and End bound the addresses, with TSIPv4 and TSIPv6.
	Start, End netip.Addr
	// Data is all that comes after the length, with other types; part of what
	// was parsed.
	Data []byte
}

// String shows the addresses as a range, unless they are one prefix, and the
// ports if there is a limit.
func (t TrafficSelector) String() string {
	if t.Type != TSIPv4 && t.Type != TSIPv6 {
		return fmt.Sprintf("%v of %d octets", t.Type, len(t.Data))
	}
	s := fmt.Sprintf("%v-%v", t.Start, t.End)
	if p, ok := prefixOf(t.Start, t.End); ok {
		s = p.String()
	}
	if t.Protocol != 0 {
		s += fmt.Sprintf(" protocol %d", t.Protocol)
	}
	if t.StartPort != 0 || t.EndPort != 0xffff {
		s += fmt.Sprintf(" ports %d-%d", t.StartPort, t.EndPort)
	}
	return s
}

// prefixOf returns the prefix that start to end is, if it is one.
func prefixOf(start, end netip.Addr) (netip.Prefix, bool) {
	for bits := 0; bits <= start.BitLen(); bits++ {
		p, err := start.Prefix(bits)
		if err != nil || p.Addr() != start {
			continue
		}
		last := start.AsSlice()
		for i := range last {
			keep := min(max(bits-i*8, 0), 8)
			last[i] |= byte(0xff >> keep)
		}
		if a, ok := netip.AddrFromSlice(last); ok && a == end {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// A TSWalker steps through the body of a TSi or TSr payload without copying or
// allocating; see [ProposalWalker].
type TSWalker struct {
	// Selector is where the walker is, after Next has returned true.
	Selector TrafficSelector

	rest []byte
	at   int
	left int
	err  walkError
}

// WalkTS returns a walker over the selectors of a TSi or TSr payload: the body is
// their number (1), three reserved octets, and they.
func WalkTS(body []byte) (w TSWalker) {
	if len(body) < 4 {
		w.err.set(len(body), "traffic selectors", "payload ends here, 4 octets are needed")
		return w
	}
	return TSWalker{rest: body[4:], at: 4, left: int(body[0])}
}

// Next goes to the next selector. It returns false at the end, and at the first
// fault: Err tells which.
func (w *TSWalker) Next() bool {
	b := w.rest
	switch {
	case w.err.problem != "":
		return false
	case w.left == 0:
		if len(b) > 0 {
			return w.err.set(w.at, "traffic selector", "more octets than the payload's count of them takes")
		}
		return false
	case len(b) < 4:
		return w.err.set(w.at, "traffic selector", "payload ends within its header")
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size < 4 || size > len(b) {
		return w.err.set(w.at+2, "traffic selector length", "is less than its header or more than what is left of the payload")
	}
	s := TrafficSelector{Type: TSType(b[0]), Protocol: b[1]}
	switch s.Type {
	case TSIPv4, TSIPv6:
		n := 4
		if s.Type == TSIPv6 {
			n = 16
		}
		if size != 8+2*n {
			return w.err.set(w.at+2, "traffic selector length", "isn't that of two ports and two addresses")
		}
		s.StartPort, s.EndPort = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		s.Start, _ = netip.AddrFromSlice(b[8 : 8+n])
		s.End, _ = netip.AddrFromSlice(b[8+n : 8+2*n])
	default:
		s.Data = b[4:size]
	}
	w.Selector = s
	w.left--
	w.rest = b[size:]
	w.at += size
	return true
}

// Err returns what stopped the walker, a [*ParseError]: nil at the proper end.
func (w *TSWalker) Err() error { return w.err.err() }

// ParseTS reads the body of a TSi or TSr payload.
func ParseTS(body []byte) ([]TrafficSelector, error) {
	var ts []TrafficSelector
	w := WalkTS(body)
	for w.Next() {
		ts = append(ts, w.Selector)
	}
	if err := w.Err(); err != nil {
		return nil, err
	}
	return ts, nil
}

// AppendTS appends the body of a TSi or TSr payload. More than 255 selectors
// can't be sent.
func AppendTS(b []byte, selectors ...TrafficSelector) []byte {
	b = append(b, byte(len(selectors)), 0, 0, 0)
	for _, t := range selectors {
		start := len(b)
		b = append(b, byte(t.Type), t.Protocol, 0, 0)
		if t.Type == TSIPv4 || t.Type == TSIPv6 {
			b = binary.BigEndian.AppendUint16(b, t.StartPort)
			b = binary.BigEndian.AppendUint16(b, t.EndPort)
			b = append(b, t.Start.AsSlice()...)
			b = append(b, t.End.AsSlice()...)
		} else {
			b = append(b, t.Data...)
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b
}
