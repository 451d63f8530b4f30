package capture

import (
	"encoding/binary"
	"errors"
	"io"
	"net/netip"

	"github.com/aovlb/aovlb/ikev2"
)

// IP protocols, and headers that may stand before them in IPv6.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoESP      = 50
	protoAH       = 51
	protoICMPv6   = 58
	protoOptions  = 60
	protoMobility = 135
)

// maxHeaders bounds the extension headers of an IPv6 packet.
const maxHeaders = 16

// A Decoder makes Events of packets. It isn't safe for concurrent use.
type Decoder struct {
	// Event is called for each event. What it is given is valid until it
	// returns.
	Event func(*ikev2.Event)

	parts reassembly
	stats Stats
}

// Stats count what a Decoder was given.
type Stats struct {
	// Packets counts all; Events what it made of them.
	Packets int `json:"packets"`
	Events  int `json:"events"`
	// NotIP counts packets of other protocols than IP, Malformed IP packets
	// that contradict themselves, Truncated those of which the capture has
	// only part.
	NotIP     int `json:"notIP"`
	Malformed int `json:"malformed"`
	Truncated int `json:"truncated"`
	// Fragments counts IP fragments of UDP, Incomplete datagrams of which some
	// never came, and Orphans those of them whose first one didn't.
	Fragments  int `json:"fragments"`
	Incomplete int `json:"incomplete"`
	Orphans    int `json:"orphans"`
}

// Stats returns what has been counted.
func (d *Decoder) Stats() Stats { return d.stats }

// Run decodes all packets of s and flushes. The error is that of s, unless that
// is io.EOF; what came before is decoded all the same.
func (d *Decoder) Run(s Source) error {
	for {
		p, err := s.Next()
		if err != nil {
			d.Flush()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		d.Decode(&p)
	}
}

// Read reads a capture file into t, which is all there is to do in most cases.
func Read(r io.Reader, t *ikev2.Tracker) (Stats, error) {
	d := Decoder{Event: t.Observe}
	f, err := NewReader(r)
	if err != nil {
		return d.stats, err
	}
	err = d.Run(f)
	return d.stats, err
}

// Decode decodes one packet.
func (d *Decoder) Decode(p *Packet) {
	d.stats.Packets++
	if p.Length > len(p.Data) {
		d.stats.Truncated++
	}
	d.expire(p)
	b := network(p.Link, p.Data)
	if len(b) == 0 {
		d.stats.NotIP++
		return
	}
	h, ok := parseIP(b, p.Length > len(p.Data))
	if !ok {
		d.stats.Malformed++
		return
	}
	if h.fragmented {
		if h.proto == protoUDP {
			d.stats.Fragments++
			d.fragment(p, &h)
		}
		return
	}
	switch h.proto {
	case protoUDP:
		d.udp(p, &h, h.payload, h.size, 1)
	case protoESP:
		d.emit(p, &ikev2.Event{Kind: ikev2.EventESP, From: netip.AddrPortFrom(h.src, 0), To: netip.AddrPortFrom(h.dst, 0)})
	case protoICMP, protoICMPv6:
		d.icmp(p, &h)
	}
}

func (d *Decoder) emit(p *Packet, e *ikev2.Event) {
	e.Packet, e.Time = p.Number, p.Time
	d.stats.Events++
	if d.Event != nil {
		d.Event(e)
	}
}

// ipHeader is what matters of an IP packet.
type ipHeader struct {
	src, dst netip.Addr
	proto    uint8
	// payload is what was captured after the headers, size how long it is.
	payload []byte
	size    int

	fragmented bool
	offset     int
	more       bool
	id         uint32
}

// parseIP reads the headers of an IP packet. cut says that the capture lacks its
// end.
func parseIP(b []byte, cut bool) (ipHeader, bool) {
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b, cut)
	case 6:
		return parseIPv6(b, cut)
	}
	return ipHeader{}, false
}

func parseIPv4(b []byte, cut bool) (h ipHeader, ok bool) {
	if len(b) < 20 {
		return h, false
	}
	hlen, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total == 0 {
		total = len(b) // the network card was to cut it
	}
	if hlen < 20 || total < hlen || len(b) < hlen || !cut && total > len(b) {
		return h, false
	}
	frag := binary.BigEndian.Uint16(b[6:])
	h = ipHeader{
		src: netip.AddrFrom4([4]byte(b[12:])), dst: netip.AddrFrom4([4]byte(b[16:])), proto: b[9],
		payload: b[hlen:min(total, len(b))], size: total - hlen,
		offset: int(frag&0x1fff) * 8, more: frag&0x2000 != 0, id: uint32(binary.BigEndian.Uint16(b[4:])),
	}
	h.fragmented = h.more || h.offset > 0
	return h, true
}

func parseIPv6(b []byte, cut bool) (h ipHeader, ok bool) {
	if len(b) < 40 {
		return h, false
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size == 0 {
		size = len(b) - 40 // a jumbogram, or for the network card to cut
	}
	if !cut && size > len(b)-40 {
		return h, false
	}
	h = ipHeader{
		src: netip.AddrFrom16([16]byte(b[8:])), dst: netip.AddrFrom16([16]byte(b[24:])), proto: b[6],
		payload: b[40:min(40+size, len(b))], size: size,
	}
	for range maxHeaders {
		var n int
		p := h.payload
		switch h.proto {
		case protoHopByHop, protoRouting, protoOptions, protoMobility:
			if len(p) < 8 {
				return h, false
			}
			n = 8 + int(p[1])*8
		case protoAH:
			if len(p) < 8 {
				return h, false
			}
			n = 8 + int(p[1])*4
		case protoFragment:
			if len(p) < 8 || h.fragmented {
				return h, false
			}
			frag := binary.BigEndian.Uint16(p[2:])
			h.offset, h.more, h.id = int(frag&0xfff8), frag&1 != 0, binary.BigEndian.Uint32(p[4:])
			h.fragmented = h.more || h.offset > 0
			n = 8
		default:
			return h, true
		}
		if n > len(p) {
			return h, false
		}
		h.proto, h.payload, h.size = p[0], p[n:], h.size-n
		if h.offset > 0 {
			return h, true // what follows is the middle of something
		}
	}
	return h, false
}

func interesting(port uint16) bool { return port == ikev2.Port || port == ikev2.PortNATT }

// udp passes on a datagram, of which b is what was captured and size how long it
// is, with its UDP header.
func (d *Decoder) udp(p *Packet, h *ipHeader, b []byte, size, fragments int) {
	e, ok := datagram(h, b, size)
	if !ok {
		d.stats.Malformed++
		return
	}
	if !interesting(e.From.Port()) && !interesting(e.To.Port()) {
		if k, _ := ikev2.Identify(e.Data); k != ikev2.KindIKE {
			return
		}
	}
	e.Fragments = fragments
	d.emit(p, &e)
}

// datagram reads the UDP header of b.
func datagram(h *ipHeader, b []byte, size int) (e ikev2.Event, ok bool) {
	if len(b) < 8 {
		return e, false
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length == 0 {
		length = size
	}
	if length < 8 || length > size {
		return e, false
	}
	e.From = netip.AddrPortFrom(h.src, binary.BigEndian.Uint16(b))
	e.To = netip.AddrPortFrom(h.dst, binary.BigEndian.Uint16(b[2:]))
	e.Data = b[8:min(length, len(b))]
	if length > len(b) {
		e.Size = length - 8
	}
	return e, true
}

// icmp passes on an error about a datagram of IKE or ESP.
func (d *Decoder) icmp(p *Packet, h *ipHeader) {
	b := h.payload
	if len(b) < 8 {
		return
	}
	kind, mtu, ok := icmpError(h.proto, b)
	if !ok || len(b) < 8+20 {
		return
	}
	about, ok := parseIP(b[8:], true)
	if !ok {
		return
	}
	e := ikev2.Event{Kind: ikev2.EventICMP, ICMP: kind, MTU: mtu, Reporter: h.src}
	switch {
	case about.proto == protoESP:
		e.From, e.To = netip.AddrPortFrom(about.src, 0), netip.AddrPortFrom(about.dst, 0)
	case about.proto != protoUDP || about.offset > 0 || len(about.payload) < 8:
		return
	default:
		u := about.payload
		e.From = netip.AddrPortFrom(about.src, binary.BigEndian.Uint16(u))
		e.To = netip.AddrPortFrom(about.dst, binary.BigEndian.Uint16(u[2:]))
		e.Data = u[8:]
		e.Size = max(int(binary.BigEndian.Uint16(u[4:]))-8, len(e.Data))
		if !interesting(e.From.Port()) && !interesting(e.To.Port()) {
			return
		}
	}
	d.emit(p, &e)
}

// icmpError reads the type of an ICMP message; ok says that it is an error.
func icmpError(proto uint8, b []byte) (kind ikev2.ICMPError, mtu int, ok bool) {
	if proto == protoICMP {
		return icmp4Error(b)
	}
	switch typ, code := b[0], b[1]; typ {
	case 1: // destination unreachable
		switch code {
		case 1, 5, 6:
			return ikev2.ICMPProhibited, 0, true
		case 4:
			return ikev2.ICMPPortUnreachable, 0, true
		}
		return ikev2.ICMPUnreachable, 0, true
	case 2: // packet too big
		return ikev2.ICMPTooBig, int(binary.BigEndian.Uint32(b[4:]) & 0x7fffffff), true
	case 3: // time exceeded
		if code == 1 {
			return ikev2.ICMPReassembly, 0, true
		}
		return ikev2.ICMPOther, 0, true
	case 4:
		return ikev2.ICMPOther, 0, true
	}
	return 0, 0, false
}

func icmp4Error(b []byte) (kind ikev2.ICMPError, mtu int, ok bool) {
	switch typ, code := b[0], b[1]; typ {
	case 3: // destination unreachable
		switch code {
		case 3:
			return ikev2.ICMPPortUnreachable, 0, true
		case 4:
			return ikev2.ICMPTooBig, int(binary.BigEndian.Uint16(b[6:])), true
		case 9, 10, 13:
			return ikev2.ICMPProhibited, 0, true
		}
		return ikev2.ICMPUnreachable, 0, true
	case 11: // time exceeded
		if code == 1 {
			return ikev2.ICMPReassembly, 0, true
		}
		return ikev2.ICMPOther, 0, true
	case 12:
		return ikev2.ICMPOther, 0, true
	}
	return 0, 0, false
}
