package ikev2

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// A Transform is one algorithm.
type Transform struct {
	// Type says which part of the suite it is.
	Type TransformType
	// ID is the algorithm's number within Type.
	ID uint16
	// KeyBits is its key length, if that has to be said; 0 otherwise.
	KeyBits uint16
}

// String names a transform as IANA does, shortened: AES_CBC_256,
// HMAC_SHA2_256_128. Those of additional key exchanges say which one it is:
// ADDKE1=ML_KEM_768.
func (t Transform) String() string {
	s := transformName(t.Type, t.ID)
	if t.KeyBits != 0 {
		s = fmt.Sprintf("%s_%d", s, t.KeyBits)
	}
	if t.Type >= TransformAddKE1 && t.Type <= TransformAddKE7 {
		return t.Type.String() + "=" + s
	}
	return s
}

// A Proposal is a choice of algorithms: of each type, one of those listed. In an
// answer it has one of each type.
type Proposal struct {
	// Number is its place among the proposals, from 1.
	Number uint8
	// Protocol is what it is for.
	Protocol ProtocolID
	// SPI is the sender's, in proposals for ESP and in a rekey.
	SPI []byte
	// Transforms are the algorithms.
	Transforms []Transform
}

// String joins the transforms, as strongSwan's log does.
func (p Proposal) String() string {
	var s strings.Builder
	for i, t := range p.Transforms {
		if i > 0 {
			s.WriteByte('/')
		}
		s.WriteString(t.String())
	}
	return s.String()
}

const (
	proposalHeaderLen  = 8
	transformHeaderLen = 8
	attributeKeyLength = 14
	attributeShort     = 0x8000 // the value is in place of a length
)

// A ProposalView is a proposal where it is in a message (RFC 7296 §3.3.1):
//
//	0  2 if more follow, else 0 (1)   1  reserved (1)   2  length (2)
//	4  number (1)  5  protocol (1)  6  length of the SPI (1)  7  transforms (1)
//	8  SPI, then the transforms
type ProposalView struct {
	// Number is its place among the proposals, from 1.
	Number uint8
	// Protocol is what it is for.
	Protocol ProtocolID
	// SPI is the sender's; part of what was parsed.
	SPI []byte
	// Count is how many transforms it says it has.
	Count int
	// Offset is where it starts, in octets from the start of the payload's body.
	Offset int

	transforms []byte
}

// Transforms returns a walker over its transforms.
func (p *ProposalView) Transforms() TransformWalker {
	return TransformWalker{rest: p.transforms, at: p.Offset + proposalHeaderLen + len(p.SPI), left: p.Count}
}

// A ProposalWalker steps through the body of a Security Association payload
// without copying or allocating:
//
//	w := WalkSA(body)
//	for w.Next() {
//		t := w.Proposal.Transforms()
//		for t.Next() {
//			use(t.Transform)
//		}
//		if err := t.Err(); err != nil { … }
//	}
//	if err := w.Err(); err != nil { … }
type ProposalWalker struct {
	// Proposal is where the walker is, after Next has returned true.
	Proposal ProposalView

	rest []byte
	at   int
	last bool
	err  walkError
}

// WalkSA returns a walker over the proposals of a Security Association payload.
func WalkSA(body []byte) ProposalWalker { return ProposalWalker{rest: body} }

// Next goes to the next proposal. It returns false at the end, and at the first
// fault: Err tells which. Faults within transforms are for their walker to tell.
func (w *ProposalWalker) Next() bool {
	b := w.rest
	switch {
	case w.err.problem != "":
		return false
	case w.last:
		if len(b) > 0 {
			return w.err.set(w.at, "proposal", "more octets after the last one")
		}
		return false
	case len(b) < proposalHeaderLen:
		return w.err.set(w.at, "proposal", "payload ends within its header")
	case b[0] != 0 && b[0] != 2:
		return w.err.set(w.at, "proposal", "starts with neither 0 (last) nor 2 (more)")
	}
	size, spi, n := int(binary.BigEndian.Uint16(b[2:])), int(b[6]), int(b[7])
	switch {
	case size > len(b):
		return w.err.set(w.at+2, "proposal length", "is more than what is left of the payload")
	case size < proposalHeaderLen+spi+n*transformHeaderLen:
		return w.err.set(w.at+2, "proposal length", "is too short for its SPI and transforms")
	}
	// Field by field: a whole one would be made aside and copied.
	p := &w.Proposal
	p.Number, p.Protocol = b[4], ProtocolID(b[5])
	p.SPI = b[proposalHeaderLen : proposalHeaderLen+spi]
	p.Count, p.Offset = n, w.at
	p.transforms = b[proposalHeaderLen+spi : size]
	w.last = b[0] == 0
	w.rest = b[size:]
	w.at += size
	return true
}

// Err returns what stopped the walker, a [*ParseError]: nil at the proper end.
func (w *ProposalWalker) Err() error { return w.err.err() }

// A TransformWalker steps through the transforms of a proposal; see
// [ProposalWalker]. A transform (RFC 7296 §3.3.2):
//
//	0  3 if more follow, else 0 (1)   1  reserved (1)   2  length (2)
//	4  type (1)   5  reserved (1)   6  ID (2)   8  attributes
type TransformWalker struct {
	// Transform is where the walker is, after Next has returned true.
	Transform Transform
	// Attributes are all its attributes, the key length too, as they came.
	Attributes []byte
	// Offset is where it starts, in octets from the start of the payload's body.
	Offset int

	rest []byte
	at   int
	left int
	err  walkError
}

// Next goes to the next transform. It returns false at the end, and at the first
// fault: Err tells which.
func (w *TransformWalker) Next() bool {
	b := w.rest
	switch {
	case w.err.problem != "":
		return false
	case w.left == 0:
		if len(b) > 0 {
			return w.err.set(w.at, "transform", "more octets than the transforms of the proposal take")
		}
		return false
	case len(b) < transformHeaderLen:
		return w.err.set(w.at, "transform", "proposal ends within its header")
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case size < transformHeaderLen || size > len(b):
		return w.err.set(w.at+2, "transform length", "is less than its header or more than what is left of the proposal")
	case b[0] != 3 && b[0] != 0:
		return w.err.set(w.at, "transform", "starts with neither 0 (last) nor 3 (more)")
	case (b[0] == 0) != (w.left == 1):
		return w.err.set(w.at, "transform", "is marked as the last one, or not, against the count in the proposal")
	}
	t := &w.Transform
	t.Type, t.ID, t.KeyBits = TransformType(b[4]), binary.BigEndian.Uint16(b[6:]), 0
	w.Attributes = b[transformHeaderLen:size]
	w.Offset = w.at
	if size == transformHeaderLen+4 && b[8] == attributeShort>>8 && b[9] == attributeKeyLength {
		t.KeyBits = binary.BigEndian.Uint16(b[10:]) // nearly always
	} else if size > transformHeaderLen && !w.attributes() {
		return false
	}
	w.left--
	w.rest = b[size:]
	w.at += size
	return true
}

// attributes reads the attributes of the transform.
func (w *TransformWalker) attributes() bool {
	a := WalkAttributes(w.Attributes)
	a.at = w.at + transformHeaderLen
	for a.Next() {
		if a.Type == attributeKeyLength && a.Short {
			w.Transform.KeyBits = binary.BigEndian.Uint16(a.Value)
		}
	}
	w.err = a.err
	return a.err.problem == ""
}

// Err returns what stopped the walker, a [*ParseError]: nil at the proper end.
func (w *TransformWalker) Err() error { return w.err.err() }

// An AttributeWalker steps through the attributes of a transform (RFC 7296
// §3.3.5): a type of two octets, whose highest bit says that two octets of value
// follow, otherwise two octets of length and the value.
type AttributeWalker struct {
	// Type is without the highest bit.
	Type uint16
	// Short says that the value was in place of a length.
	Short bool
	// Value is part of what was parsed.
	Value []byte

	rest []byte
	at   int
	err  walkError
}

// WalkAttributes returns a walker over [TransformWalker.Attributes].
func WalkAttributes(b []byte) AttributeWalker { return AttributeWalker{rest: b} }

// Next goes to the next attribute. It returns false at the end, and at the first
// fault: Err tells which.
func (w *AttributeWalker) Next() bool {
	b := w.rest
	switch {
	case w.err.problem != "" || len(b) == 0:
		return false
	case len(b) < 4:
		return w.err.set(w.at, "attribute", "transform ends within it")
	}
	kind, size := binary.BigEndian.Uint16(b), 4
	if kind&attributeShort != 0 {
		w.Value = b[2:4]
	} else {
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n > len(b)-4 {
			return w.err.set(w.at+2, "attribute length", "is more than what is left of the transform")
		}
		w.Value = b[4 : 4+n]
		size += n
	}
	w.Type, w.Short = kind&^attributeShort, kind&attributeShort != 0
	w.rest = b[size:]
	w.at += size
	return true
}

// Err returns what stopped the walker, a [*ParseError]: nil at the proper end.
func (w *AttributeWalker) Err() error { return w.err.err() }

// AppendAttribute appends an attribute of a transform. A value of two octets is
// sent short, as RFC 7296 wants key lengths to be.
func AppendAttribute(b []byte, kind uint16, value []byte) []byte {
	if len(value) == 2 {
		b = binary.BigEndian.AppendUint16(b, kind|attributeShort)
		return append(b, value...)
	}
	b = binary.BigEndian.AppendUint16(b, kind&^attributeShort)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// ParseSA reads the body of a Security Association payload. Attributes other
// than the key length are skipped. SPIs are part of body. [WalkSA] reads it
// without allocating.
func ParseSA(body []byte) ([]Proposal, error) {
	var ps []Proposal
	w := WalkSA(body)
	for w.Next() {
		p := Proposal{Number: w.Proposal.Number, Protocol: w.Proposal.Protocol, SPI: w.Proposal.SPI}
		p.Transforms = make([]Transform, 0, w.Proposal.Count)
		t := w.Proposal.Transforms()
		for t.Next() {
			p.Transforms = append(p.Transforms, t.Transform)
		}
		if err := t.Err(); err != nil {
			return nil, err
		}
		ps = append(ps, p)
	}
	if err := w.Err(); err != nil {
		return nil, err
	}
	return ps, nil
}

// AppendSA appends the body of a Security Association payload. Proposals whose
// Number is 0 are numbered by their place. More than 255 transforms in a
// proposal can't be sent.
func AppendSA(b []byte, proposals ...Proposal) []byte {
	for i, p := range proposals {
		start := len(b)
		more, number := byte(2), p.Number
		if i == len(proposals)-1 {
			more = 0
		}
		if number == 0 {
			number = uint8(i + 1)
		}
		b = append(b, more, 0, 0, 0, number, byte(p.Protocol), byte(len(p.SPI)), byte(len(p.Transforms)))
		b = append(b, p.SPI...)
		for j, t := range p.Transforms {
			b = appendTransform(b, t, j == len(p.Transforms)-1)
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b
}

func appendTransform(b []byte, t Transform, last bool) []byte {
	more, size := byte(3), uint16(transformHeaderLen)
	if last {
		more = 0
	}
	if t.KeyBits != 0 {
		size += 4
	}
	b = append(b, more, 0)
	b = binary.BigEndian.AppendUint16(b, size)
	b = append(b, byte(t.Type), 0)
	b = binary.BigEndian.AppendUint16(b, t.ID)
	if t.KeyBits != 0 {
		b = binary.BigEndian.AppendUint16(b, attributeShort|attributeKeyLength)
		b = binary.BigEndian.AppendUint16(b, t.KeyBits)
	}
	return b
}
