package standin

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/aovlb/aovlb/ikev2"
)

// maxFragments bounds what one message may be cut into. Windows cuts into about
// 570 bytes.
const maxFragments = 128

// An ikeSA is one side of an IKE SA: what both the gateway and the client do
// with one.
type ikeSA struct {
	keys       ikeKeys
	spiI, spiR ikev2.SPI
	initiator  bool   // this side began the SA
	sendID     uint32 // of the next request from here
	recvID     uint32 // of the next request from the peer
	frag       struct {
		header ikev2.Header
		first  ikev2.PayloadType
		parts  [][]byte
		have   int
	}
}

// own returns the SPI that this side chose.
func (s *ikeSA) own() ikev2.SPI {
	if s.initiator {
		return s.spiI
	}
	return s.spiR
}

func (s *ikeSA) header(t ikev2.ExchangeType, response bool, id uint32) ikev2.Header {
	h := ikev2.Header{SPIi: s.spiI, SPIr: s.spiR, Exchange: t, MessageID: id}
	if s.initiator {
		h.Flags |= ikev2.FlagInitiator
	}
	if response {
		h.Flags |= ikev2.FlagResponse
	}
	return h
}

// request seals a request and counts it.
func (s *ikeSA) request(t ikev2.ExchangeType, list []ikev2.Payload, fragment int) (uint32, [][]byte) {
	id := s.sendID
	s.sendID++
	return id, s.keys.seal(s.header(t, false, id), list, s.initiator, fragment)
}

// response seals the response to request id.
func (s *ikeSA) response(t ikev2.ExchangeType, id uint32, list []ikev2.Payload) [][]byte {
	return s.keys.seal(s.header(t, true, id), list, s.initiator, 0)
}

// open decrypts a message of the peer. It returns done = false for a fragment of
// a message that isn't complete yet.
func (s *ikeSA) open(b []byte) (h ikev2.Header, list []ikev2.Payload, done bool, err error) {
	h, outer, err := parse(b)
	if err != nil {
		return h, nil, false, err
	}
	if len(outer) == 0 || (outer[len(outer)-1].Type != ikev2.PayloadSK && outer[len(outer)-1].Type != ikev2.PayloadSKF) {
		return h, nil, false, fmt.Errorf("%w: not encrypted", errMalformed)
	}
	p := outer[len(outer)-1]
	plain, err := s.keys.open(b, p, !s.initiator)
	if err != nil {
		return h, nil, false, err
	}
	inner := h
	inner.NextPayload = p.Inner
	if p.Type == ikev2.PayloadSKF {
		if inner.NextPayload, plain, err = s.join(h, p, plain); err != nil || plain == nil {
			return h, nil, false, err
		}
	}
	list, err = walk(ikev2.Message{Header: inner, Body: plain})
	return h, list, err == nil, err
}

// join keeps a fragment, and returns the whole once it is complete.
func (s *ikeSA) join(h ikev2.Header, p ikev2.Payload, plain []byte) (ikev2.PayloadType, []byte, error) {
	h.Length = 0 // that of a fragment
	n, total := int(binary.BigEndian.Uint16(p.Body)), int(binary.BigEndian.Uint16(p.Body[2:]))
	if n < 1 || n > total || total > maxFragments {
		return 0, nil, fmt.Errorf("%w: fragment %d of %d", errMalformed, n, total)
	}
	f := &s.frag
	if f.header != h || len(f.parts) != total {
		f.header, f.parts, f.have = h, make([][]byte, total), 0
	}
	if f.parts[n-1] == nil {
		f.parts[n-1] = append([]byte{}, plain...)
		f.have++
	}
	if n == 1 {
		f.first = p.Inner
	}
	if f.have < total {
		return 0, nil, nil
	}
	whole := slices.Concat(f.parts...)
	f.parts = nil
	return f.first, whole, nil
}

// idBody is the body of an IDi or IDr payload.
func idBody(name string) []byte { return append([]byte{idFQDN, 0, 0, 0}, name...) }

func nameOf(id []byte) string {
	if len(id) < 4 {
		return ""
	}
	return string(id[4:])
}

// anyTraffic is a traffic selector of all IPv4 (RFC 7296 section 3.13).
func anyTraffic() []byte {
	b := []byte{1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 0xff, 0xff, 0, 0, 0, 0}
	return append(b, 255, 255, 255, 255)
}

// espOffer is the only proposal for a child SA: AES-128-GCM.
func espOffer(spi uint32) []byte {
	return ikev2.AppendSA(nil, ikev2.Proposal{
		Protocol: ikev2.ProtocolESP, SPI: binary.BigEndian.AppendUint32(nil, spi),
		Transforms: []ikev2.Transform{espGCM, {Type: ikev2.TransformESN}},
	})
}

var espGCM = ikev2.Transform{Type: ikev2.TransformEncr, ID: ikev2.EncrAESGCM16, KeyBits: 128}

// espSPI returns the SPI in an SA payload that espOffer made.
func espSPI(sa []byte) (uint32, error) {
	list, err := ikev2.ParseSA(sa)
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		if p.Protocol == ikev2.ProtocolESP && len(p.SPI) == 4 && slices.Contains(p.Transforms, espGCM) {
			return binary.BigEndian.Uint32(p.SPI), nil
		}
	}
	return 0, errors.New("standin: no child SA with AES-128-GCM offered")
}
