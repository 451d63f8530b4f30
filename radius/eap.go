package radius

import "encoding/binary"

// An EAPCode says what an EAP packet is (RFC 3748 §4).
type EAPCode uint8

// The codes of EAP packets.
const (
	EAPRequest  EAPCode = 1
	EAPResponse EAPCode = 2
	EAPSuccess  EAPCode = 3
	EAPFailure  EAPCode = 4
)

// The types of EAP requests and responses that this package knows by name.
const (
	EAPIdentity byte = 1
	EAPNak      byte = 3
	EAPTLS      byte = 13
	EAPPEAP     byte = 25
	EAPMSCHAPv2 byte = 26
)

// An EAPHeader is the beginning of the EAP packet that the EAP-Message
// attributes of a Packet carry in pieces (RFC 3579 §3.1).
type EAPHeader struct {
	// Code says what the EAP packet is.
	Code EAPCode
	// Identifier is the number that an EAP response has in common with its
	// request. It isn't that of the RADIUS packet.
	Identifier byte
	// Len is how long the EAP packet says it is, in bytes.
	Len int
	// Type is the method; 0 in what is neither a request nor a response.
	Type byte
}

// EAPHeader returns the beginning of the EAP packet that p carries. It reports
// false if p carries none, or less or more of it than the packet says. An
// EAP-Start, which is an empty attribute (RFC 3579 §2.1), is none either.
func (p Packet) EAPHeader() (h EAPHeader, ok bool) {
	var head [5]byte
	n := 0
	for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
		t, v := p.attribute(at)
		if t != EAPMessage {
			continue
		}
		if n < len(head) {
			copy(head[n:], v)
		}
		n += len(v)
	}
	h = EAPHeader{Code: EAPCode(head[0]), Identifier: head[1], Len: int(binary.BigEndian.Uint16(head[2:]))}
	if n < 4 || h.Len != n {
		return EAPHeader{}, false
	}
	if h.Code == EAPRequest || h.Code == EAPResponse {
		if n < 5 {
			return EAPHeader{}, false
		}
		h.Type = head[4]
	}
	return h, true
}

// AppendEAP appends the EAP packet that p carries in pieces to b.
func (p Packet) AppendEAP(b []byte) []byte {
	for at := HeaderLen; at < len(p.b); at += int(p.b[at+1]) {
		if t, v := p.attribute(at); t == EAPMessage {
			b = append(b, v...)
		}
	}
	return b
}
