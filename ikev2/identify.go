package ikev2

import (
	"encoding/binary"
	"fmt"
)

// A Kind says what a datagram on port 500 or 4500 is.
type Kind uint8

const (
	// KindNone is nothing that belongs there.
	KindNone Kind = iota
	// KindIKE is an IKE message, with or without marker.
	KindIKE
	// KindESP is a tunnelled packet (RFC 3948 §2.1).
	KindESP
	// KindKeepalive is the octet FF that keeps a NAT mapping (RFC 3948 §2.3).
	KindKeepalive
)

func (k Kind) String() string {
	switch k {
	case KindNone:
		return "none"
	case KindIKE:
		return "IKE"
	case KindESP:
		return "ESP"
	case KindKeepalive:
		return "keepalive"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Why a datagram is dropped. These are constants, so that they may be counted
// and logged without cost.
const (
	reasonShort    = "shorter than any ESP or IKE datagram"
	reasonMarker   = "non-ESP marker without a valid IKEv2 message"
	reasonVersion1 = "IKEv1"
	reasonNotIKE   = "neither IKEv2 nor, on port 500, anything else allowed"
	reasonReserved = "reserved ESP SPI"
	reasonNoSPI    = "initiator SPI is zero"
	reasonNotFirst = "first message of an SA with a responder SPI"
	reasonUnsafe   = "unprotected answer within a protected exchange"
)

// minESP is the shortest ESP datagram: SPI, sequence number, and a trailer
// padded to four octets (RFC 4303 §2).
const minESP = 12

// Identify says what datagram b is, whatever the port. For KindIKE it returns
// the message without marker. Some peers forget the marker on port 4500; their
// messages are recognised by version, exchange type and length, which together
// are wrong about an ESP packet once in 2^45.
func Identify(b []byte) (k Kind, msg []byte) {
	k, msg, _ = identify(b, 0)
	return k, msg
}

// identify is Identify for a datagram on a known port, with the reason for
// KindNone.
func identify(b []byte, port uint16) (Kind, []byte, string) {
	if len(b) < minESP {
		if len(b) == 1 && b[0] == 0xff {
			return KindKeepalive, nil, ""
		}
		return KindNone, nil, reasonShort
	}
	spi := binary.BigEndian.Uint32(b)
	if spi == 0 && marked(b[markerLen:]) {
		return KindIKE, b[markerLen:], ""
	}
	switch {
	case unmarked(b):
		return KindIKE, b, ""
	case spi == 0:
		return KindNone, nil, reasonMarker
	case version1(b):
		return KindNone, nil, reasonVersion1
	case port == Port:
		return KindNone, nil, reasonNotIKE
	case spi < 256:
		return KindNone, nil, reasonReserved
	}
	return KindESP, nil, ""
}

// marked reports whether b, which followed a marker, is an IKEv2 message: of any
// minor version and any exchange, as newer peers may send.
func marked(b []byte) bool {
	return len(b) >= HeaderLen && b[17]>>4 == 2 && b[18] >= byte(ExchangeSAInit) && sized(b)
}

// unmarked reports whether b, which could be ESP, is an IKEv2 message. It is
// strict, because nothing else tells them apart.
func unmarked(b []byte) bool {
	return len(b) >= HeaderLen && b[17] == Version2 && ExchangeType(b[18]).known() && sized(b)
}

// version1 reports whether b is an IKEv1 message, such as the many scanners
// send.
func version1(b []byte) bool { return len(b) >= HeaderLen && b[17] == 0x10 && sized(b) }

// sized reports whether the length in the header is that of b.
func sized(b []byte) bool { return uint64(binary.BigEndian.Uint32(b[24:])) == uint64(len(b)) }
