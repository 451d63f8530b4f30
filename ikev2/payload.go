package ikev2

import "encoding/binary"

// payloadHeaderLen is the length of the generic payload header: next payload,
// critical bit, length of the payload with this header (RFC 7296 §3.2).
const payloadHeaderLen = 4

// MaxPayloads bounds the payloads of one message: more is an error. The largest
// real messages, with a long certificate chain, have fewer than thirty.
const MaxPayloads = 128

// A Payload is one part of a message.
type Payload struct {
	// Type says what it holds.
	Type PayloadType
	// Critical says that who doesn't know Type must refuse the message.
	Critical bool
	// Inner is, for SK and SKF, the type of the first payload inside.
	Inner PayloadType
	// Body is the payload without its generic header. After parsing it is part
	// of the message.
	Body []byte
	// Offset is where Body is in the message, its header included. Only
	// parsing sets it.
	Offset int
}

// A Message is an IKE message whose payloads haven't been parsed.
type Message struct {
	Header
	// Body is the chain of payloads: part of what was parsed.
	Body []byte
}

// ParseMessage reads an IKEv2 message without marker. It checks the version and
// that the datagram is as long as its header says, and copies nothing.
func ParseMessage(b []byte) (Message, error) {
	h, err := ParseHeader(b)
	switch {
	case err != nil:
		return Message{}, err
	case h.Version>>4 != 2:
		return Message{}, parseError(17, "version", "major version is %d, not 2", h.Version>>4)
	case uint64(h.Length) != uint64(len(b)):
		return Message{}, parseError(24, "length", "header says %d octets, the message has %d", h.Length, len(b))
	case h.SPIi == 0:
		return Message{}, parseError(0, "initiator SPI", "is zero")
	}
	return Message{Header: h, Body: b[HeaderLen:]}, nil
}

// Payloads returns a Walker over the payloads. It stops at an Encrypted payload
// or a fragment of one: what follows is inside.
func (m Message) Payloads() Walker {
	return Walker{rest: m.Body, next: m.NextPayload, at: HeaderLen}
}

// Notify returns the first Notify payload of type t. Malformed payloads after it
// don't count.
func (m Message) Notify(t NotifyType) (Notify, bool) {
	for w := m.Payloads(); w.Next(); {
		if w.Payload.Type != PayloadNotify {
			continue
		}
		if n, err := ParseNotify(w.Payload.Body); err == nil && n.Type == t {
			return n, true
		}
	}
	return Notify{}, false
}

// A Walker steps through a chain of payloads without copying:
//
//	w := m.Payloads()
//	for w.Next() {
//		use(w.Payload)
//	}
//	if err := w.Err(); err != nil { … }
type Walker struct {
	// Payload is where the Walker is, after Next has returned true.
	Payload Payload

	rest []byte
	next PayloadType
	at   int // offset of rest in the message
	n    int
	err  walkError
}

// Next goes to the next payload. It returns false at the end, and at the first
// fault: Err tells which.
func (w *Walker) Next() bool {
	if w.err.problem != "" {
		return false
	}
	if w.next == PayloadNone {
		if len(w.rest) > 0 {
			return w.err.set(w.at, "payload", "more octets after the last one")
		}
		return false
	}
	if len(w.rest) < payloadHeaderLen {
		return w.err.set(w.at, "payload header", "message ends within it")
	}
	size := int(binary.BigEndian.Uint16(w.rest[2:]))
	switch {
	case size < payloadHeaderLen:
		return w.err.set(w.at+2, "payload length", "is less than its own header")
	case size > len(w.rest):
		return w.err.set(w.at+2, "payload length", "is more than what is left of the message")
	case w.n == MaxPayloads:
		return w.err.set(w.at, "payload", "too many of them")
	}
	w.n++
	w.Payload = Payload{
		Type: w.next, Critical: w.rest[1]&0x80 != 0,
		Body: w.rest[payloadHeaderLen:size], Offset: w.at + payloadHeaderLen,
	}
	w.next = PayloadType(w.rest[0])
	if w.Payload.Type == PayloadSK || w.Payload.Type == PayloadSKF {
		w.Payload.Inner, w.next = w.next, PayloadNone
	}
	w.rest = w.rest[size:]
	w.at += size
	return true
}

// Err returns what stopped the Walker, a [*ParseError]: nil at the proper end of
// the chain.
func (w *Walker) Err() error { return w.err.err() }

// AppendMessage appends an IKE message with these payloads. It sets NextPayload
// and Length of the header, and Version if that is zero.
func AppendMessage(b []byte, h Header, payloads ...Payload) []byte {
	if h.Version == 0 {
		h.Version = Version2
	}
	h.NextPayload = PayloadNone
	size := HeaderLen
	for _, p := range payloads {
		size += payloadHeaderLen + len(p.Body)
	}
	if len(payloads) > 0 {
		h.NextPayload = payloads[0].Type
	}
	h.Length = uint32(size)
	b = AppendHeader(b, h)
	for i, p := range payloads {
		next := p.Inner
		if i+1 < len(payloads) {
			next = payloads[i+1].Type
		}
		b = AppendPayload(b, next, p)
	}
	return b
}

// AppendPayload appends one payload, after which one of type next comes. A body
// longer than 65531 octets can't be sent: its length is wrong then.
func AppendPayload(b []byte, next PayloadType, p Payload) []byte {
	critical := byte(0)
	if p.Critical {
		critical = 0x80
	}
	b = append(b, byte(next), critical)
	b = binary.BigEndian.AppendUint16(b, uint16(payloadHeaderLen+len(p.Body)))
	return append(b, p.Body...)
}
