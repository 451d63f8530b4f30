package sstp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// A packet of SSTP (MS-SSTP §2.2.1) is, in bytes:
//
//	0  1  version 0x10
//	1  1  seven reserved bits, and C: 1 for a control message, 0 for data
//	2  2  four reserved bits, and the length of the whole packet, 4 to 4095
//	4     data: one PPP frame; or
//	4  2  control: the type of the message
//	6  2           how many attributes follow
//	8              the attributes, each of
//	      1        reserved
//	      1        its ID
//	      2        four reserved bits, and its length, these 4 bytes included
//	               its value
//
// Reserved bits are sent as 0 and passed over when read.

const (
	// Version is the only version of the protocol, 1.0.
	Version = 0x10
	// HeaderLen is the length of what every packet begins with.
	HeaderLen = 4
	// MaxPacket is the length of the longest packet.
	MaxPacket = 4095
	// MaxStatusValue is how much of an attribute a StatusInfo can quote.
	MaxStatusValue = 64

	controlLen = 8 // header, type and count of a control message
	attrLen    = 4 // header of an attribute
	nonceLen   = 32
	lengthMask = 0x0fff
)

// ErrShort says that bytes are missing: with more of the stream they could be
// right.
var ErrShort = errors.New("sstp: packet is incomplete")

// ErrPacket says that bytes aren't SSTP. Where a stream has gone wrong like this
// there is no way to find the next packet: the connection is to be dropped,
// without an abort (MS-SSTP §3.1.5.2).
var ErrPacket = errors.New("sstp: malformed packet")

// A Header is what every packet begins with.
type Header struct {
	// Control says that it is a control message and not data.
	Control bool
	// Length is that of the whole packet, HeaderLen to MaxPacket.
	Length int
}

// ParseHeader reads the header at the start of b. The error is ErrShort if b has
// less than HeaderLen bytes, and wraps ErrPacket if they are no header.
func ParseHeader(b []byte) (Header, error) {
	if len(b) > 0 && b[0] != Version {
		return Header{}, fmt.Errorf("%w: version %#02x", ErrPacket, b[0])
	}
	if len(b) < HeaderLen {
		return Header{}, ErrShort
	}
	h := Header{Control: b[1]&1 != 0, Length: int(binary.BigEndian.Uint16(b[2:]) & lengthMask)}
	if h.Length < HeaderLen {
		return Header{}, fmt.Errorf("%w: length %d", ErrPacket, h.Length)
	}
	if h.Control && h.Length < controlLen {
		return Header{}, fmt.Errorf("%w: control message of %d bytes", ErrPacket, h.Length)
	}
	return h, nil
}

// A MessageType says what a control message is (MS-SSTP §2.2.2).
type MessageType uint16

// The types of control messages.
const (
	CallConnectRequest MessageType = 1 + iota
	CallConnectAck
	CallConnectNak
	CallConnected
	CallAbort
	CallDisconnect
	CallDisconnectAck
	EchoRequest
	EchoResponse
)

var messageNames = [...]string{
	CallConnectRequest: "CALL_CONNECT_REQUEST", CallConnectAck: "CALL_CONNECT_ACK", CallConnectNak: "CALL_CONNECT_NAK",
	CallConnected: "CALL_CONNECTED", CallAbort: "CALL_ABORT", CallDisconnect: "CALL_DISCONNECT",
	CallDisconnectAck: "CALL_DISCONNECT_ACK", EchoRequest: "ECHO_REQUEST", EchoResponse: "ECHO_RESPONSE",
}

// String returns the name that the specification uses.
func (t MessageType) String() string {
	if t > 0 && int(t) < len(messageNames) {
		return messageNames[t]
	}
	return fmt.Sprintf("message type %d", uint16(t))
}

// An AttributeID says what an attribute is (MS-SSTP §2.2.4).
type AttributeID uint8

// The attributes. AttrNone is only named in a StatusInfo.
const (
	AttrNone AttributeID = iota
	AttrProtocol
	AttrStatus
	AttrBinding
	AttrBindingRequest
)

// String returns the name that the specification uses.
func (a AttributeID) String() string {
	switch a {
	case AttrNone:
		return "NO_ERROR"
	case AttrProtocol:
		return "ENCAPSULATED_PROTOCOL_ID"
	case AttrStatus:
		return "STATUS_INFO"
	case AttrBinding:
		return "CRYPTO_BINDING"
	case AttrBindingRequest:
		return "CRYPTO_BINDING_REQ"
	}
	return fmt.Sprintf("attribute %d", uint8(a))
}

// ProtocolPPP is the one value of AttrProtocol.
const ProtocolPPP = 1

// A Status says what a peer found wrong (MS-SSTP §2.2.7).
type Status uint32

// The statuses.
const (
	StatusNoError Status = iota
	StatusDuplicateAttribute
	StatusUnrecognizedAttribute
	StatusInvalidAttributeLength
	StatusValueNotSupported
	StatusUnacceptedFrame
	StatusRetryCountExceeded
	StatusInvalidFrame
	StatusNegotiationTimeout
	StatusAttributeNotSupportedInMessage
	StatusRequiredAttributeMissing
	StatusInfoNotSupportedInMessage
)

var statusNames = [...]string{
	"NO_ERROR", "DUPLICATE_ATTRIBUTE", "UNRECOGNIZED_ATTRIBUTE", "INVALID_ATTRIB_VALUE_LENGTH", "VALUE_NOT_SUPPORTED",
	"UNACCEPTED_FRAME_RECEIVED", "RETRY_COUNT_EXCEEDED", "INVALID_FRAME_RECEIVED", "NEGOTIATION_TIMEOUT",
	"ATTRIB_NOT_SUPPORTED_IN_MSG", "REQUIRED_ATTRIBUTE_MISSING", "STATUS_INFO_NOT_SUPPORTED_IN_MSG",
}

// String returns the name that the specification uses, without its prefix.
func (s Status) String() string {
	if int64(s) < int64(len(statusNames)) {
		return statusNames[s]
	}
	return fmt.Sprintf("status %d", uint32(s))
}

// Hashes are hash protocols, as a set: each is a bit (MS-SSTP §2.2.6).
type Hashes uint8

// The hash protocols. A client must take SHA-256 if it is offered.
const (
	HashSHA1   Hashes = 1
	HashSHA256 Hashes = 2
)

// String returns the names, joined by a plus sign.
func (h Hashes) String() string {
	var names []string
	if h&HashSHA1 != 0 {
		names = append(names, "SHA-1")
	}
	if h&HashSHA256 != 0 {
		names = append(names, "SHA-256")
	}
	if rest := h &^ (HashSHA1 | HashSHA256); rest != 0 || names == nil {
		names = append(names, fmt.Sprintf("%#02x", uint8(rest)))
	}
	return strings.Join(names, "+")
}

// An Attribute is one of a control message.
type Attribute struct {
	// ID says which it is.
	ID AttributeID
	// Value is what follows the attribute's header. From a parser it is part of
	// what was parsed.
	Value []byte
}

// A Message is a control message.
type Message struct {
	// Type says which it is.
	Type MessageType
	// Attributes are what it carries, in order.
	Attributes []Attribute
}

// ParseMessage reads the control message at the start of b, and says how many
// bytes it has. The error is ErrShort if b ends before the message does, and
// wraps ErrPacket if it is no control message. Which attributes a message must
// have isn't checked: peers differ in that.
func ParseMessage(b []byte) (m Message, n int, err error) {
	h, err := ParseHeader(b)
	switch {
	case err != nil:
		return m, 0, err
	case !h.Control:
		return m, 0, fmt.Errorf("%w: data, not a control message", ErrPacket)
	case len(b) < h.Length:
		return m, 0, ErrShort
	}
	b = b[:h.Length]
	m.Type = MessageType(binary.BigEndian.Uint16(b[4:]))
	count, rest := int(binary.BigEndian.Uint16(b[6:])), b[controlLen:]
	if count*attrLen > len(rest) {
		return m, 0, fmt.Errorf("%w: %v of %d bytes can't have %d attributes", ErrPacket, m.Type, len(b), count)
	}
	for range count {
		if len(rest) < attrLen {
			return m, 0, fmt.Errorf("%w: %v ends within its attributes", ErrPacket, m.Type)
		}
		size := int(binary.BigEndian.Uint16(rest[2:]) & lengthMask)
		if size < attrLen || size > len(rest) {
			return m, 0, fmt.Errorf("%w: %v has an attribute of length %d", ErrPacket, m.Type, size)
		}
		m.Attributes = append(m.Attributes, Attribute{ID: AttributeID(rest[1]), Value: rest[attrLen:size]})
		rest = rest[size:]
	}
	return m, len(b), nil
}

// Append appends the message to b. The error says that it is too long.
func (m *Message) Append(b []byte) ([]byte, error) {
	start := len(b)
	b = append(b, Version, 1, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(m.Type))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.Attributes)))
	for _, a := range m.Attributes {
		b = append(b, 0, byte(a.ID))
		b = binary.BigEndian.AppendUint16(b, uint16(min(attrLen+len(a.Value), MaxPacket)))
		b = append(b, a.Value...)
		if len(b)-start > MaxPacket {
			return b[:start], fmt.Errorf("sstp: %v is over %d bytes", m.Type, MaxPacket)
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

// Value returns the value of the first attribute with this ID, and whether there
// is one.
func (m *Message) Value(id AttributeID) ([]byte, bool) {
	for _, a := range m.Attributes {
		if a.ID == id {
			return a.Value, true
		}
	}
	return nil, false
}

// String says what the message is and what its attributes say, in one line,
// without any secret: of a crypto binding it shows no MAC.
func (m *Message) String() string {
	var s strings.Builder
	s.WriteString(m.Type.String())
	for _, a := range m.Attributes {
		fmt.Fprintf(&s, " %v", a.ID)
		switch a.ID {
		case AttrStatus:
			if info, err := ParseStatusInfo(a.Value); err == nil {
				fmt.Fprintf(&s, "{%v}", info)
			}
		case AttrBindingRequest:
			if r, err := ParseBindingRequest(a.Value); err == nil {
				fmt.Fprintf(&s, "{%v}", r.Hashes)
			}
		case AttrBinding:
			if r, err := ParseBinding(a.Value); err == nil {
				fmt.Fprintf(&s, "{%v %x}", r.Hash, r.CertHash[:r.Hash.size()])
			}
		}
	}
	return s.String()
}

// AppendControl appends a control message without attributes to b: an
// EchoRequest, an EchoResponse, a CallDisconnectAck.
func AppendControl(b []byte, t MessageType) []byte {
	b = append(b, Version, 1, 0, controlLen)
	b = binary.BigEndian.AppendUint16(b, uint16(t))
	return append(b, 0, 0)
}

// AppendConnectRequest appends a CALL_CONNECT_REQUEST for PPP to b.
func AppendConnectRequest(b []byte) []byte {
	return append(b, Version, 1, 0, 14, 0, byte(CallConnectRequest), 0, 1, 0, byte(AttrProtocol), 0, 6, 0, ProtocolPPP)
}

// AppendData appends a data packet with a PPP frame to b. The error says that
// the frame is too long.
func AppendData(b, frame []byte) ([]byte, error) {
	n := HeaderLen + len(frame)
	if n > MaxPacket {
		return b, fmt.Errorf("sstp: PPP frame is over %d bytes", MaxPacket-HeaderLen)
	}
	b = append(b, Version, 0, byte(n>>8), byte(n))
	return append(b, frame...), nil
}

// A StatusInfo says which attribute is wrong and how (MS-SSTP §2.2.7).
type StatusInfo struct {
	Attribute AttributeID
	Status    Status
	// Value is the beginning of the wrong attribute's value, MaxStatusValue
	// bytes at most; often empty.
	Value []byte
}

// ParseStatusInfo reads the value of an AttrStatus.
func ParseStatusInfo(value []byte) (StatusInfo, error) {
	if len(value) < 8 {
		// Some servers send the status alone, or with the attribute.
		return StatusInfo{}, fmt.Errorf("%w: STATUS_INFO of %d bytes", ErrPacket, len(value))
	}
	return StatusInfo{AttributeID(value[3]), Status(binary.BigEndian.Uint32(value[4:])), value[8:]}, nil
}

// String returns the attribute and the status.
func (s StatusInfo) String() string { return s.Attribute.String() + " " + s.Status.String() }

// AppendStatus appends a message of type t to b that carries s: a CALL_ABORT or
// a CALL_DISCONNECT. Of s.Value no more than MaxStatusValue bytes are sent.
func AppendStatus(b []byte, t MessageType, s StatusInfo) []byte {
	value := s.Value[:min(len(s.Value), MaxStatusValue)]
	n := controlLen + attrLen + 8 + len(value)
	b = append(b, Version, 1, 0, byte(n), byte(t>>8), byte(t), 0, 1, 0, byte(AttrStatus), 0, byte(n-controlLen),
		0, 0, 0, byte(s.Attribute))
	b = binary.BigEndian.AppendUint32(b, uint32(s.Status))
	return append(b, value...)
}
