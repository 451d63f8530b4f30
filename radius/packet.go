package radius

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// The format of a packet (RFC 2865 §3):
//
//	 0       1            2              4                 20
//	 Code(1) Identifier(1) Length(2)      Authenticator(16) Attributes …
//
// and of an attribute (RFC 2865 §5):
//
//	 0       1            2
//	 Type(1) Length(1)    Value(Length-2)

const (
	// HeaderLen is the length of a packet without attributes, in bytes.
	HeaderLen = 20
	// MaxLen is the length of the longest packet, in bytes.
	MaxLen = 4096
)

// A Code says what a packet is.
type Code uint8

// The codes of packets (RFC 2865 §4, RFC 2866 §4, RFC 5176 §2.3, RFC 5997 §4).
const (
	AccessRequest      Code = 1
	AccessAccept       Code = 2
	AccessReject       Code = 3
	AccountingRequest  Code = 4
	AccountingResponse Code = 5
	AccessChallenge    Code = 11
	StatusServer       Code = 12
	DisconnectRequest  Code = 40
	CoARequest         Code = 43
)

func (c Code) String() string {
	switch c {
	case AccessRequest:
		return "Access-Request"
	case AccessAccept:
		return "Access-Accept"
	case AccessReject:
		return "Access-Reject"
	case AccountingRequest:
		return "Accounting-Request"
	case AccountingResponse:
		return "Accounting-Response"
	case AccessChallenge:
		return "Access-Challenge"
	case StatusServer:
		return "Status-Server"
	case DisconnectRequest:
		return "Disconnect-Request"
	case CoARequest:
		return "CoA-Request"
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// A Type says what an attribute is.
type Type uint8

// The types of the attributes that this package looks at (RFC 2865 §5, RFC 2866
// §5, RFC 2869 §5, RFC 3162 §2).
const (
	UserName             Type = 1
	UserPassword         Type = 2
	NASIPAddress         Type = 4
	NASPort              Type = 5
	ReplyMessage         Type = 18
	State                Type = 24
	Class                Type = 25
	CalledStationID      Type = 30
	CallingStationID     Type = 31
	NASIdentifier        Type = 32
	ProxyState           Type = 33
	AcctStatusType       Type = 40
	AcctDelayTime        Type = 41
	AcctSessionID        Type = 44
	AcctSessionTime      Type = 46
	NASPortType          Type = 61
	EAPMessage           Type = 79
	MessageAuthenticator Type = 80
	NASPortID            Type = 87
	NASIPv6Address       Type = 95
)

// What [Parse] says of bytes that aren't a packet. These are values, not
// wrapped, so that refusing a datagram allocates nothing.
var (
	// ErrShort: there are fewer bytes than a header has, or than the packet
	// says it has.
	ErrShort = errors.New("radius: packet is cut off")
	// ErrLength: the packet says that it is shorter than a header, or longer
	// than a packet may be.
	ErrLength = errors.New("radius: length isn't 20 to 4096")
	// ErrAttribute: the attributes don't fill the packet exactly.
	ErrAttribute = errors.New("radius: malformed attribute")
)

// A Packet is a view of a packet that [Parse] has checked. It shares its bytes
// with what was parsed. The zero Packet has no attributes and Code 0.
type Packet struct {
	b []byte // exactly the packet, or nil
}

// Parse checks that b holds a packet: that its lengths, and those of its
// attributes, are right. Bytes behind the packet are padding (RFC 2865 §3), and
// not part of the Packet. What attributes mean isn't checked. Parse doesn't
// allocate.
func Parse(b []byte) (Packet, error) {
	if len(b) < HeaderLen {
		return Packet{}, ErrShort
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < HeaderLen || n > MaxLen {
		return Packet{}, ErrLength
	}
	if n > len(b) {
		return Packet{}, ErrShort
	}
	b = b[:n:n]
	for at := HeaderLen; at < n; at += int(b[at+1]) {
		if n-at < 2 || b[at+1] < 2 || int(b[at+1]) > n-at {
			return Packet{}, ErrAttribute
		}
	}
	return Packet{b: b}, nil
}

// Bytes returns the packet without padding.
func (p Packet) Bytes() []byte { return p.b }

// Code returns what the packet is.
func (p Packet) Code() Code {
	if p.b == nil {
		return 0
	}
	return Code(p.b[0])
}

// Identifier returns the number that an answer has in common with its request.
func (p Packet) Identifier() byte {
	if p.b == nil {
		return 0
	}
	return p.b[1]
}

// Authenticator returns the Authenticator field.
func (p Packet) Authenticator() (a [16]byte) {
	if p.b != nil {
		a = [16]byte(p.b[4:20])
	}
	return a
}

// Attributes iterates over the attributes in their order. The values share the
// packet's bytes.
func (p Packet) Attributes() iter.Seq2[Type, []byte] {
	return func(yield func(Type, []byte) bool) {
		for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
			if !yield(p.attribute(at)) {
				return
			}
		}
	}
}

// Lookup returns the value of the first attribute of type t.
func (p Packet) Lookup(t Type) (value []byte, ok bool) {
	if at := p.find(t); at > 0 {
		_, value = p.attribute(at)
		return value, true
	}
	return nil, false
}

// Count returns how many attributes of type t there are.
func (p Packet) Count(t Type) int {
	n := 0
	for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
		if Type(p.b[at]) == t {
			n++
		}
	}
	return n
}

// find returns where the first attribute of type t begins, or 0.
func (p Packet) find(t Type) int {
	for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
		if Type(p.b[at]) == t {
			return at
		}
	}
	return 0
}

// attribute returns the attribute that begins at at.
func (p Packet) attribute(at int) (Type, []byte) {
	end := at + int(p.b[at+1])
	return Type(p.b[at]), p.b[at+2 : end : end]
}
