package ikev2

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// A TransformType says which part of a suite a Transform is.
type TransformType uint8

// Transform types (RFC 7296 §3.3.2).
const (
	TransformEncr  TransformType = 1
	TransformPRF   TransformType = 2
	TransformInteg TransformType = 3
	TransformKE    TransformType = 4
	TransformESN   TransformType = 5
)

func (t TransformType) String() string {
	switch t {
	case TransformEncr:
		return "ENCR"
	case TransformPRF:
		return "PRF"
	case TransformInteg:
		return "INTEG"
	case TransformKE:
		return "KE"
	case TransformESN:
		return "ESN"
	}
	if t >= 6 && t <= 12 {
		return fmt.Sprintf("ADDKE%d", t-5) // RFC 9370
	}
	return fmt.Sprintf("transform type %d", uint8(t))
}

// A Group is a key exchange method: transform type 4, and the group number of a
// Key Exchange payload.
type Group uint16

// Groups that Windows, RRAS or strongSwan use.
const (
	GroupMODP768      Group = 1
	GroupMODP1024     Group = 2
	GroupMODP1536     Group = 5
	GroupMODP2048     Group = 14
	GroupMODP3072     Group = 15
	GroupMODP4096     Group = 16
	GroupECP256       Group = 19
	GroupECP384       Group = 20
	GroupECP521       Group = 21
	GroupMODP1024S160 Group = 22
	GroupMODP2048S256 Group = 24
	GroupX25519       Group = 31
	GroupX448         Group = 32
)

// PublicLen returns how long a public value of the group is in octets, or 0 if
// it isn't known here.
func (g Group) PublicLen() int {
	switch g {
	case GroupMODP768:
		return 96
	case GroupMODP1024, GroupMODP1024S160:
		return 128
	case GroupMODP1536:
		return 192
	case GroupMODP2048, GroupMODP2048S256:
		return 256
	case GroupMODP3072:
		return 384
	case GroupMODP4096:
		return 512
	case GroupECP256:
		return 64
	case GroupECP384:
		return 96
	case GroupECP521:
		return 132
	case GroupX25519:
		return 32
	case GroupX448:
		return 56
	}
	return 0
}

func (g Group) String() string { return transformName(TransformKE, uint16(g)) }

// Transform IDs that Windows, RRAS or strongSwan use.
const (
	EncrDES              uint16 = 2
	Encr3DES             uint16 = 3
	EncrNULL             uint16 = 11
	EncrAESCBC           uint16 = 12
	EncrAESGCM8          uint16 = 18
	EncrAESGCM12         uint16 = 19
	EncrAESGCM16         uint16 = 20
	EncrChaCha20Poly1305 uint16 = 28

	PRFHMACMD5    uint16 = 1
	PRFHMACSHA1   uint16 = 2
	PRFHMACSHA256 uint16 = 5
	PRFHMACSHA384 uint16 = 6
	PRFHMACSHA512 uint16 = 7

	IntegNone       uint16 = 0
	IntegHMACMD5    uint16 = 1
	IntegHMACSHA1   uint16 = 2
	IntegHMACSHA256 uint16 = 12
	IntegHMACSHA384 uint16 = 13
	IntegHMACSHA512 uint16 = 14
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

// String names a transform as IANA does, shortened: AES_CBC_256, HMAC_SHA2_256.
func (t Transform) String() string {
	s := transformName(t.Type, t.ID)
	if t.KeyBits != 0 {
		s = fmt.Sprintf("%s_%d", s, t.KeyBits)
	}
	return s
}

func transformName(t TransformType, id uint16) string {
	switch t {
	case TransformEncr:
		switch id {
		case EncrDES:
			return "DES"
		case Encr3DES:
			return "3DES"
		case EncrNULL:
			return "NULL"
		case EncrAESCBC:
			return "AES_CBC"
		case EncrAESGCM8:
			return "AES_GCM_8"
		case EncrAESGCM12:
			return "AES_GCM_12"
		case EncrAESGCM16:
			return "AES_GCM_16"
		case EncrChaCha20Poly1305:
			return "CHACHA20_POLY1305"
		}
	case TransformPRF, TransformInteg:
		if s := hashName(t, id); s != "" {
			return s
		}
	case TransformKE:
		if s := groupName(Group(id)); s != "" {
			return s
		}
	}
	return fmt.Sprintf("%v %d", t, id)
}

func hashName(t TransformType, id uint16) string {
	if t == TransformPRF {
		switch id {
		case PRFHMACMD5:
			return "PRF_HMAC_MD5"
		case PRFHMACSHA1:
			return "PRF_HMAC_SHA1"
		case PRFHMACSHA256:
			return "PRF_HMAC_SHA2_256"
		case PRFHMACSHA384:
			return "PRF_HMAC_SHA2_384"
		case PRFHMACSHA512:
			return "PRF_HMAC_SHA2_512"
		}
		return ""
	}
	switch id {
	case IntegNone:
		return "NONE"
	case IntegHMACMD5:
		return "HMAC_MD5_96"
	case IntegHMACSHA1:
		return "HMAC_SHA1_96"
	case IntegHMACSHA256:
		return "HMAC_SHA2_256_128"
	case IntegHMACSHA384:
		return "HMAC_SHA2_384_192"
	case IntegHMACSHA512:
		return "HMAC_SHA2_512_256"
	}
	return ""
}

func groupName(g Group) string {
	switch g {
	case GroupMODP768:
		return "MODP_768"
	case GroupMODP1024:
		return "MODP_1024"
	case GroupMODP1536:
		return "MODP_1536"
	case GroupMODP2048:
		return "MODP_2048"
	case GroupMODP3072:
		return "MODP_3072"
	case GroupMODP4096:
		return "MODP_4096"
	case GroupECP256:
		return "ECP_256"
	case GroupECP384:
		return "ECP_384"
	case GroupECP521:
		return "ECP_521"
	case GroupMODP1024S160:
		return "MODP_1024_160"
	case GroupMODP2048S256:
		return "MODP_2048_256"
	case GroupX25519:
		return "CURVE_25519"
	case GroupX448:
		return "CURVE_448"
	}
	return ""
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
	attrKeyLength      = 0x800e // key length, value in place of a length
)

// ParseSA reads the body of a Security Association payload. Attributes other
// than the key length are skipped. SPIs are part of body.
func ParseSA(body []byte) ([]Proposal, error) {
	var ps []Proposal
	for at := 0; ; {
		p, size, last, err := parseProposal(body[at:], at)
		if err != nil {
			return nil, err
		}
		ps = append(ps, p)
		if at += size; last {
			if at != len(body) {
				return nil, parseError(at, "proposal", "%d octets after the last one", len(body)-at)
			}
			return ps, nil
		}
	}
}

// parseProposal reads the proposal at the start of b, which is at offset at.
func parseProposal(b []byte, at int) (p Proposal, size int, last bool, err error) {
	if len(b) < proposalHeaderLen {
		return p, 0, false, parseError(at, "proposal", "payload ends within its header")
	}
	if b[0] != 0 && b[0] != 2 {
		return p, 0, false, parseError(at, "proposal", "starts with %d, not 0 (last) or 2 (more)", b[0])
	}
	size = int(binary.BigEndian.Uint16(b[2:]))
	spi, n := int(b[6]), int(b[7])
	switch {
	case size > len(b):
		return p, 0, false, parseError(at+2, "proposal length", "%d is more than the %d octets left", size, len(b))
	case size < proposalHeaderLen+spi+n*transformHeaderLen:
		return p, 0, false, parseError(at+2, "proposal length", "%d is too short for an SPI of %d octets and %d transforms", size, spi, n)
	}
	p = Proposal{Number: b[4], Protocol: ProtocolID(b[5]), SPI: b[8 : 8+spi]}
	p.Transforms = make([]Transform, 0, n)
	for off := proposalHeaderLen + spi; off < size || len(p.Transforms) < n; {
		if len(p.Transforms) == n {
			return p, 0, false, parseError(at+off, "transform", "more octets than its %d transforms take", n)
		}
		t, tsize, err := parseTransform(b[off:size], at+off)
		if err != nil {
			return p, 0, false, err
		}
		p.Transforms = append(p.Transforms, t)
		off += tsize
	}
	return p, size, b[0] == 0, nil
}

func parseTransform(b []byte, at int) (Transform, int, error) {
	if len(b) < transformHeaderLen {
		return Transform{}, 0, parseError(at, "transform", "proposal ends within its header")
	}
	size := int(binary.BigEndian.Uint16(b[2:]))
	if size < transformHeaderLen || size > len(b) {
		return Transform{}, 0, parseError(at+2, "transform length", "%d isn't between 8 and the %d octets left", size, len(b))
	}
	t := Transform{Type: TransformType(b[4]), ID: binary.BigEndian.Uint16(b[6:])}
	for off := transformHeaderLen; off < size; {
		if size-off < 4 {
			return Transform{}, 0, parseError(at+off, "attribute", "transform ends within it")
		}
		kind, val := binary.BigEndian.Uint16(b[off:]), binary.BigEndian.Uint16(b[off+2:])
		if kind == attrKeyLength {
			t.KeyBits = val
		}
		off += 4
		if kind&0x8000 == 0 { // val is a length
			if int(val) > size-off {
				return Transform{}, 0, parseError(at+off-2, "attribute length", "%d is more than the %d octets left", val, size-off)
			}
			off += int(val)
		}
	}
	return t, size, nil
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
		b = binary.BigEndian.AppendUint16(b, attrKeyLength)
		b = binary.BigEndian.AppendUint16(b, t.KeyBits)
	}
	return b
}
