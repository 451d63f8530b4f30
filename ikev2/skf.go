package ikev2

import "encoding/binary"

// An SKF is the body of an Encrypted Fragment payload (RFC 7383 §2.5):
//
//	0  fragment number (2)   2  total fragments (2)   4  sealed part of the message
//
// The type of the first payload inside is [Payload.Inner] of the first fragment;
// in the others that is 0.
type SKF struct {
	// Number is from 1 to Total.
	Number uint16
	// Total is how many fragments there are. A sender that tries a smaller size
	// sends all again, with a higher total.
	Total uint16
	// Data is initialisation vector, encrypted part and checksum; part of what
	// was parsed.
	Data []byte
}

// ParseSKF reads the body of an Encrypted Fragment payload, copying nothing.
func ParseSKF(body []byte) (SKF, error) {
	if len(body) < 4 {
		return SKF{}, parseError(len(body), "fragment", "payload ends here, 4 octets are needed")
	}
	f := SKF{Number: binary.BigEndian.Uint16(body), Total: binary.BigEndian.Uint16(body[2:]), Data: body[4:]}
	switch {
	case f.Number == 0:
		return SKF{}, parseError(0, "fragment number", "is 0")
	case f.Total == 0:
		return SKF{}, parseError(2, "total fragments", "is 0")
	case f.Number > f.Total:
		return SKF{}, parseError(0, "fragment number", "%d is more than the total of %d", f.Number, f.Total)
	}
	return f, nil
}

// AppendSKF appends the body of an Encrypted Fragment payload.
func AppendSKF(b []byte, f SKF) []byte {
	b = binary.BigEndian.AppendUint16(b, f.Number)
	b = binary.BigEndian.AppendUint16(b, f.Total)
	return append(b, f.Data...)
}
