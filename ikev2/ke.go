package ikev2

import "encoding/binary"

// A KeyExchange is the body of a Key Exchange payload (RFC 7296 §3.4):
//
//	0  group (2)   2  reserved (2)   4  public value
type KeyExchange struct {
	// Group is the key exchange method.
	Group Group
	// Data is the public value; part of what was parsed.
	Data []byte
}

// ParseKE reads the body of a Key Exchange payload, copying nothing.
func ParseKE(body []byte) (KeyExchange, error) {
	if len(body) < 4 {
		return KeyExchange{}, parseError(len(body), "key exchange", "payload ends here, 4 octets are needed")
	}
	return KeyExchange{Group: Group(binary.BigEndian.Uint16(body)), Data: body[4:]}, nil
}

// AppendKE appends the body of a Key Exchange payload.
func AppendKE(b []byte, k KeyExchange) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(k.Group))
	return append(append(b, 0, 0), k.Data...)
}

// The bounds of a nonce in octets (RFC 7296 §3.9).
const (
	MinNonce = 16
	MaxNonce = 256
)

// ParseNonce reads the body of a Nonce payload, which has no other structure
// than its length. The result is body.
func ParseNonce(body []byte) ([]byte, error) {
	if len(body) < MinNonce || len(body) > MaxNonce {
		return nil, parseError(0, "nonce", "%d octets aren't between 16 and 256", len(body))
	}
	return body, nil
}
