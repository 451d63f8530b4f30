package standin

import (
	"crypto/hmac"
	"crypto/md5" // RADIUS has no other
	"crypto/sha256"
	"errors"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2869"
)

// The packets are built and read by layeh.com/radius rather than by package
// radius, so that whoever balances with the one is tested with the other.
// Message-Authenticator (RFC 3579 section 3.2) is missing there.

// eapMethod is the made-up EAP method of several rounds: in a request round (1)
// and challenge (16), in a response round (1) and proof (32). Its type is
// the one for experiments (RFC 3748 section 5.8).
const eapMethod = 255

const (
	eapRequest  = 1
	eapResponse = 2
	eapSuccess  = 3
	eapFailure  = 4
	eapIdentity = 1
)

var errRADIUS = errors.New("standin: malformed RADIUS packet")

// encodeSigned encodes p with a Message-Authenticator before all else. An answer
// must have been made by Response.
func encodeSigned(p *layeh.Packet) ([]byte, error) {
	p.Attributes = append(layeh.Attributes{{Type: rfc2869.MessageAuthenticator_Type, Attribute: make([]byte, 16)}}, p.Attributes...)
	b, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	m := hmac.New(md5.New, p.Secret)
	m.Write(b)
	p.Attributes[0].Attribute = m.Sum(nil)
	return p.Encode()
}

// signed reports whether p has a right Message-Authenticator, and whether it has
// one at all. For an answer request is the authenticator of what it answers; for
// a request it is its own.
func signed(p *layeh.Packet, request [16]byte) (right, present bool) {
	for _, a := range p.Attributes {
		if a.Type != rfc2869.MessageAuthenticator_Type {
			continue
		}
		got := a.Attribute
		a.Attribute = make([]byte, 16)
		own := p.Authenticator
		p.Authenticator = request
		b, err := p.MarshalBinary()
		a.Attribute, p.Authenticator = got, own
		if err != nil {
			return false, true
		}
		m := hmac.New(md5.New, p.Secret)
		m.Write(b)
		return hmac.Equal(m.Sum(nil), got), true
	}
	return false, false
}

func eapPacket(code, id uint8, data []byte) []byte {
	n := 4 + len(data)
	return append([]byte{code, id, byte(n >> 8), byte(n)}, data...)
}

func parseEAP(b []byte) (code, id uint8, data []byte, err error) {
	if len(b) < 4 || int(b[2])<<8|int(b[3]) != len(b) {
		return 0, 0, nil, errRADIUS
	}
	return b[0], b[1], b[4:], nil
}

// eapProof is what a user answers a challenge with.
func eapProof(password string, round uint8, challenge []byte) []byte {
	return mac(sha256.New, []byte(password), []byte{round}, challenge)
}
