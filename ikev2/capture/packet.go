package capture

import (
	"encoding/binary"
	"time"

	"github.com/gopacket/gopacket/layers"
)

// A Packet is one packet as it was captured.
type Packet struct {
	// Number is its place in the capture, from 1.
	Number int
	// Time is when it was captured.
	Time time.Time
	// Link says what Data starts with.
	Link LinkType
	// Data is what was captured of it, and Length how long it was. Data is
	// valid until the next packet is read.
	Data   []byte
	Length int
}

// A Source is where packets come from. Next returns io.EOF at the end.
type Source interface {
	Next() (Packet, error)
}

// A LinkType says what packets start with, by the numbers of pcap files.
type LinkType uint16

// The link types that a Decoder takes.
const (
	LinkNull     LinkType = 0
	LinkEthernet LinkType = 1
	LinkRawBSD   LinkType = 12 // raw IP, as some systems number it
	LinkRawOther LinkType = 14 // likewise
	LinkRaw      LinkType = 101
	LinkLoop     LinkType = 108
	LinkSLL      LinkType = 113
	LinkIPv4     LinkType = 228
	LinkIPv6     LinkType = 229
	LinkSLL2     LinkType = 276
)

func (l LinkType) String() string { return layers.LinkType(l).String() }

// Ethernet types.
const (
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherOld  = 0x9100 // for outer tags, before 802.1ad
)

// maxTags bounds the VLAN tags of a frame.
const maxTags = 8

// network returns the IP packet in a frame, or nil if there is none.
func network(link LinkType, b []byte) []byte {
	switch link {
	case LinkEthernet:
		if len(b) < 14 {
			return nil
		}
		return tagged(binary.BigEndian.Uint16(b[12:]), b[14:])
	case LinkSLL:
		if len(b) < 16 {
			return nil
		}
		return tagged(binary.BigEndian.Uint16(b[14:]), b[16:])
	case LinkSLL2:
		if len(b) < 20 {
			return nil
		}
		return tagged(binary.BigEndian.Uint16(b), b[20:])
	case LinkNull, LinkLoop:
		// Four octets say the address family, in the order of whoever wrote
		// them; the packet says it too.
		if len(b) < 4 {
			return nil
		}
		return b[4:]
	case LinkRaw, LinkRawBSD, LinkRawOther, LinkIPv4, LinkIPv6:
		return b
	}
	return nil
}

// tagged returns the IP packet after an Ethernet type, behind VLAN tags.
func tagged(kind uint16, b []byte) []byte {
	for range maxTags {
		switch kind {
		case etherIPv4, etherIPv6:
			return b
		case etherVLAN, etherQinQ, etherOld:
			if len(b) < 4 {
				return nil
			}
			kind, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		default:
			return nil
		}
	}
	return nil
}

// known reports whether a Decoder takes packets of this type.
func (l LinkType) known() bool {
	switch l {
	case LinkNull, LinkEthernet, LinkRawBSD, LinkRawOther, LinkRaw, LinkLoop, LinkSLL, LinkIPv4, LinkIPv6, LinkSLL2:
		return true
	}
	return false
}
