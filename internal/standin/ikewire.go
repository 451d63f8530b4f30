package standin

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Numbers of RFC 7296 section 3 and IANA's registry, as far as they are used.
const (
	ikeHeaderLen = 28
	ikeVersion   = 0x20

	exInit   = 34
	exAuth   = 35
	exChild  = 36
	exInform = 37

	flagInitiator = 0x08
	flagResponse  = 0x20

	plNone    = 0
	plSA      = 33
	plKE      = 34
	plIDi     = 35
	plIDr     = 36
	plCertReq = 38
	plAuth    = 39
	plNonce   = 40
	plNotify  = 41
	plDelete  = 42
	plTSi     = 44
	plTSr     = 45
	plSK      = 46
	plCP      = 47
	plSKF     = 53

	ntInvalidKE        = 17
	ntNoProposal       = 14
	ntAuthFailed       = 24
	ntNATSource        = 16388
	ntNATDest          = 16389
	ntCookie           = 16390
	ntMOBIKE           = 16396
	ntUpdateAddresses  = 16400
	ntFragmentation    = 16430
	protoIKE           = 1
	protoESP           = 3
	trEncr             = 1
	trPRF              = 2
	trInteg            = 3
	trKE               = 4
	trESN              = 5
	attrKeyLength      = 0x800e
	idFQDN             = 2
	authSharedKey      = 2
	maxTransformsTotal = 256
)

var errMalformed = errors.New("standin: malformed message")

type ikeHeader struct {
	spiI, spiR uint64
	exchange   uint8
	flags      uint8
	id         uint32
}

func (h ikeHeader) append(b []byte, next uint8, length int) []byte {
	b = binary.BigEndian.AppendUint64(b, h.spiI)
	b = binary.BigEndian.AppendUint64(b, h.spiR)
	b = append(b, next, ikeVersion, h.exchange, h.flags)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return binary.BigEndian.AppendUint32(b, uint32(length))
}

// parseIKEHeader also returns the type of the first payload.
func parseIKEHeader(b []byte) (h ikeHeader, first uint8, err error) {
	if len(b) < ikeHeaderLen || b[17] != ikeVersion || int(binary.BigEndian.Uint32(b[24:])) != len(b) {
		return h, 0, errMalformed
	}
	h = ikeHeader{
		spiI: binary.BigEndian.Uint64(b), spiR: binary.BigEndian.Uint64(b[8:]),
		exchange: b[18], flags: b[19], id: binary.BigEndian.Uint32(b[20:]),
	}
	return h, b[16], nil
}

func (h ikeHeader) response() bool { return h.flags&flagResponse != 0 }

// ownSPI returns the SPI that the receiver of the message chose.
func (h ikeHeader) ownSPI() uint64 {
	if h.flags&flagInitiator != 0 {
		return h.spiR
	}
	return h.spiI
}

type payload struct {
	kind uint8
	body []byte
}

// find returns the body of the first payload of that type, or nil.
func find(list []payload, kind uint8) []byte {
	for _, p := range list {
		if p.kind == kind {
			return p.body
		}
	}
	return nil
}

// findNotify returns the data of the first notification of that type.
func findNotify(list []payload, kind uint16) ([]byte, bool) {
	for _, p := range list {
		if p.kind != plNotify || len(p.body) < 4 || binary.BigEndian.Uint16(p.body[2:]) != kind {
			continue
		}
		if spi := int(p.body[1]); len(p.body) >= 4+spi {
			return p.body[4+spi:], true
		}
	}
	return nil, false
}

// failure returns the first notification that is an error (RFC 7296 3.10.1).
func failure(list []payload) (uint16, bool) {
	for _, p := range list {
		if p.kind == plNotify && len(p.body) >= 4 {
			if n := binary.BigEndian.Uint16(p.body[2:]); n < 16384 {
				return n, true
			}
		}
	}
	return 0, false
}

func notify(kind uint16, data []byte) payload {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, kind)
	return payload{plNotify, append(b, data...)}
}

func appendPayloads(b []byte, list []payload) []byte {
	for i, p := range list {
		next := uint8(plNone)
		if i+1 < len(list) {
			next = list[i+1].kind
		}
		b = append(b, next, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(4+len(p.body)))
		b = append(b, p.body...)
	}
	return b
}

func firstKind(list []payload) uint8 {
	if len(list) == 0 {
		return plNone
	}
	return list[0].kind
}

// parsePayloads reads a chain. SK and SKF end it: what their header calls the
// next payload is inside them.
func parsePayloads(first uint8, b []byte) ([]payload, error) {
	var list []payload
	for first != plNone {
		if len(b) < 4 {
			return nil, errMalformed
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return nil, errMalformed
		}
		list = append(list, payload{first, b[4:n]})
		if first == plSK || first == plSKF {
			break
		}
		first, b = b[0], b[n:]
	}
	return list, nil
}

// plainMessage builds a message without encryption.
func plainMessage(h ikeHeader, list []payload) []byte {
	n := ikeHeaderLen
	for _, p := range list {
		n += 4 + len(p.body)
	}
	return appendPayloads(h.append(make([]byte, 0, n), firstKind(list), n), list)
}

type transform struct {
	kind uint8
	id   uint16
	bits uint16 // key length, 0 without one
}

type proposal struct {
	number, protocol uint8
	spi              []byte
	transforms       []transform
}

func appendSA(list []proposal) []byte {
	var b []byte
	for i, p := range list {
		more := byte(2)
		if i == len(list)-1 {
			more = 0
		}
		start := len(b)
		b = append(b, more, 0, 0, 0, p.number, p.protocol, byte(len(p.spi)), byte(len(p.transforms)))
		b = append(b, p.spi...)
		for j, t := range p.transforms {
			b = appendTransform(b, t, j == len(p.transforms)-1)
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return b
}

func appendTransform(b []byte, t transform, last bool) []byte {
	more, n := byte(3), uint16(8)
	if last {
		more = 0
	}
	if t.bits != 0 {
		n += 4
	}
	b = append(b, more, 0)
	b = binary.BigEndian.AppendUint16(b, n)
	b = append(b, t.kind, 0)
	b = binary.BigEndian.AppendUint16(b, t.id)
	if t.bits != 0 {
		b = binary.BigEndian.AppendUint16(b, attrKeyLength)
		b = binary.BigEndian.AppendUint16(b, t.bits)
	}
	return b
}

func parseSA(b []byte) ([]proposal, error) {
	var list []proposal
	for total := 0; len(b) > 0; {
		if len(b) < 8 {
			return nil, errMalformed
		}
		n, spi := int(binary.BigEndian.Uint16(b[2:])), int(b[6])
		if n < 8+spi || n > len(b) {
			return nil, errMalformed
		}
		p := proposal{number: b[4], protocol: b[5], spi: b[8 : 8+spi]}
		var err error
		if p.transforms, err = parseTransforms(b[8+spi : n]); err != nil {
			return nil, err
		}
		if total += len(p.transforms); total > maxTransformsTotal {
			return nil, fmt.Errorf("%w: over %d transforms", errMalformed, maxTransformsTotal)
		}
		list = append(list, p)
		b = b[n:]
	}
	return list, nil
}

func parseTransforms(b []byte) ([]transform, error) {
	var list []transform
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, errMalformed
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 8 || n > len(b) {
			return nil, errMalformed
		}
		t := transform{kind: b[4], id: binary.BigEndian.Uint16(b[6:])}
		if n >= 12 && binary.BigEndian.Uint16(b[8:]) == attrKeyLength {
			t.bits = binary.BigEndian.Uint16(b[10:])
		}
		list = append(list, t)
		b = b[n:]
	}
	return list, nil
}
