package ikev2

import (
	"encoding/binary"
	"fmt"
)

// HeaderLen is the length of the IKE header.
const HeaderLen = 28

// Version2 is the version octet of IKEv2: major version 2, minor version 0.
const Version2 = 0x20

// The ports of IKE and of IKE and ESP behind a NAT (RFC 7296 §2, RFC 3948).
const (
	Port     = 500
	PortNATT = 4500
)

// An SPI names one side of an IKE SA. Each side chooses its own at random; zero
// means not chosen yet.
type SPI uint64

// String shows an SPI as 16 hexadecimal digits, as Wireshark does.
func (s SPI) String() string { return fmt.Sprintf("%016x", uint64(s)) }

// A Header is the start of every IKE message (RFC 7296 §3.1):
//
//	 0  initiator's SPI (8)    8  responder's SPI (8)
//	16  next payload (1)  17  version (1)  18  exchange type (1)  19  flags (1)
//	20  message ID (4)    24  length of the message, header included (4)
//
// On port 4500 four zero octets come before it: the non-ESP marker.
type Header struct {
	// SPIi belongs to who initiated this SA, which after a rekey by the server
	// is the server. Both directions carry the same SPIi.
	SPIi SPI
	// SPIr belongs to the responder; zero in the first message.
	SPIr SPI
	// NextPayload is the type of the first payload.
	NextPayload PayloadType
	// Version is major version << 4 | minor version.
	Version uint8
	// Exchange says what the message is for.
	Exchange ExchangeType
	// Flags say who sent it.
	Flags Flags
	// MessageID pairs requests and responses.
	MessageID uint32
	// Length is that of the whole message in octets, without a marker.
	Length uint32
}

// ParseHeader reads the header of an IKE message without marker. It checks that
// there is one, but none of its values: see [ParseMessage].
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, parseError(len(b), "header", "message ends here, a header takes 28 octets")
	}
	return Header{
		SPIi:        SPI(binary.BigEndian.Uint64(b)),
		SPIr:        SPI(binary.BigEndian.Uint64(b[8:])),
		NextPayload: PayloadType(b[16]),
		Version:     b[17],
		Exchange:    ExchangeType(b[18]),
		Flags:       Flags(b[19]),
		MessageID:   binary.BigEndian.Uint32(b[20:]),
		Length:      binary.BigEndian.Uint32(b[24:]),
	}, nil
}

// AppendHeader appends h as it stands. [AppendMessage] fills in what follows
// from the payloads.
func AppendHeader(b []byte, h Header) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(h.SPIi))
	b = binary.BigEndian.AppendUint64(b, uint64(h.SPIr))
	b = append(b, byte(h.NextPayload), h.Version, byte(h.Exchange), byte(h.Flags))
	b = binary.BigEndian.AppendUint32(b, h.MessageID)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

// Response reports whether the message answers another.
func (h Header) Response() bool { return h.Flags&FlagResponse != 0 }

// Protected reports whether all payloads are in an Encrypted payload or a
// fragment of one, as they are in every exchange after the first.
func (h Header) Protected() bool {
	return h.NextPayload == PayloadSK || h.NextPayload == PayloadSKF
}

// String shows what identifies the message.
func (h Header) String() string {
	kind := "request"
	if h.Response() {
		kind = "response"
	}
	return fmt.Sprintf("%v %s %d, SPIs %v %v", h.Exchange, kind, h.MessageID, h.SPIi, h.SPIr)
}

// Flags of the header (RFC 7296 §3.1).
type Flags uint8

const (
	// FlagInitiator is set by who initiated the SA in use, which isn't always
	// the client: a rekey changes sides if the server makes it.
	FlagInitiator Flags = 0x08
	// FlagVersion says that the sender could speak a higher major version.
	FlagVersion Flags = 0x10
	// FlagResponse marks a response.
	FlagResponse Flags = 0x20
)

// String shows flags as letters: I, V, R; a dash for none.
func (f Flags) String() string {
	s := ""
	for _, x := range [...]struct {
		f Flags
		s string
	}{{FlagInitiator, "I"}, {FlagVersion, "V"}, {FlagResponse, "R"}} {
		if f&x.f != 0 {
			s += x.s
		}
	}
	if s == "" {
		return "-"
	}
	return s
}

// The non-ESP marker: where ESP has its SPI, which is never zero, IKE on port
// 4500 has four zero octets (RFC 3948 §2.2).
const markerLen = 4

// AppendMarker appends the non-ESP marker.
func AppendMarker(b []byte) []byte { return append(b, 0, 0, 0, 0) }

// TrimMarker returns b without the non-ESP marker, and whether there was one. It
// is for datagrams known to be IKE: see [Identify] for others.
func TrimMarker(b []byte) (msg []byte, marked bool) {
	if len(b) >= markerLen && b[0]|b[1]|b[2]|b[3] == 0 {
		return b[markerLen:], true
	}
	return b, false
}
