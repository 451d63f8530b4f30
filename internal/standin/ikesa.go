package standin

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// maxFragments bounds what one message may be cut into. Windows cuts into about
// 570 bytes.
const maxFragments = 128

// An ikeSA is one side of an IKE SA: what both the gateway and the client do
// with one.
type ikeSA struct {
	keys       ikeKeys
	spiI, spiR uint64
	initiator  bool   // this side began the SA
	sendID     uint32 // of the next request from here
	recvID     uint32 // of the next request from the peer
	frag       struct {
		header ikeHeader
		first  uint8
		parts  [][]byte
		have   int
	}
}

// own returns the SPI that this side chose.
func (s *ikeSA) own() uint64 {
	if s.initiator {
		return s.spiI
	}
	return s.spiR
}

func (s *ikeSA) header(exchange uint8, response bool, id uint32) ikeHeader {
	h := ikeHeader{spiI: s.spiI, spiR: s.spiR, exchange: exchange, id: id}
	if s.initiator {
		h.flags |= flagInitiator
	}
	if response {
		h.flags |= flagResponse
	}
	return h
}

// request seals a request and counts it.
func (s *ikeSA) request(exchange uint8, list []payload, fragment int) (uint32, [][]byte) {
	id := s.sendID
	s.sendID++
	return id, s.keys.sealFragments(s.header(exchange, false, id), list, s.initiator, fragment)
}

// open decrypts a message of the peer. It returns done = false for a fragment of
// a message that isn't complete yet.
func (s *ikeSA) open(b []byte) (h ikeHeader, list []payload, done bool, err error) {
	h, first, err := parseIKEHeader(b)
	if err != nil {
		return h, nil, false, err
	}
	outer, err := parsePayloads(first, b[ikeHeaderLen:])
	if err != nil {
		return h, nil, false, err
	}
	if len(outer) == 0 {
		return h, nil, false, fmt.Errorf("%w: not encrypted", errMalformed)
	}
	p := outer[len(outer)-1]
	if p.kind != plSK && p.kind != plSKF {
		return h, nil, false, fmt.Errorf("%w: not encrypted", errMalformed)
	}
	inner := b[len(b)-len(p.body)-4] // "next payload" of the SK or SKF header
	plain, err := s.keys.open(b, p, !s.initiator)
	if err != nil {
		return h, nil, false, err
	}
	if p.kind == plSKF {
		if inner, plain, err = s.join(h, inner, p.body, plain); err != nil || plain == nil {
			return h, nil, false, err
		}
	}
	list, err = parsePayloads(inner, plain)
	return h, list, err == nil, err
}

// join keeps a fragment, and returns the whole once it is complete.
func (s *ikeSA) join(h ikeHeader, inner uint8, body, plain []byte) (uint8, []byte, error) {
	n, total := int(binary.BigEndian.Uint16(body)), int(binary.BigEndian.Uint16(body[2:]))
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
		f.first = inner
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
	return appendSA([]proposal{{
		number: 1, protocol: protoESP, spi: binary.BigEndian.AppendUint32(nil, spi),
		transforms: []transform{{trEncr, encrGCM, 128}, {trESN, 0, 0}},
	}})
}

// espSPI returns the SPI in an SA payload that espOffer made.
func espSPI(sa []byte) (uint32, error) {
	list, err := parseSA(sa)
	if err != nil {
		return 0, err
	}
	for _, p := range list {
		if p.protocol == protoESP && len(p.spi) == 4 && slices.Contains(p.transforms, transform{trEncr, encrGCM, 128}) {
			return binary.BigEndian.Uint32(p.spi), nil
		}
	}
	return 0, fmt.Errorf("standin: no child SA with AES-128-GCM offered")
}
