package ikev2

import (
	"encoding/hex"
	"net/netip"
	"strconv"
)

// An Identity is the body of an IDi or IDr payload (RFC 7296 §3.5):
//
//	0  type (1)   1  reserved (3)   4  the name
type Identity struct {
	// Type is what kind of name Data is.
	Type IDType
	// Data is part of what was parsed.
	Data []byte
}

// ParseID reads the body of an IDi or IDr payload, copying nothing. It checks
// that addresses have the length of one.
func ParseID(body []byte) (Identity, error) {
	if len(body) < 4 {
		return Identity{}, parseError(len(body), "identification", "payload ends here, 4 octets are needed")
	}
	id := Identity{Type: IDType(body[0]), Data: body[4:]}
	switch {
	case id.Type == IDIPv4 && len(id.Data) != 4, id.Type == IDIPv6 && len(id.Data) != 16:
		return Identity{}, parseError(4, "identification data", "%d octets are no %v", len(id.Data), id.Type)
	}
	return id, nil
}

// AppendID appends the body of an IDi or IDr payload.
func AppendID(b []byte, id Identity) []byte {
	return append(append(b, byte(id.Type), 0, 0, 0), id.Data...)
}

// String shows an address as such, text in quotes, and the rest in hexadecimal,
// at most 32 octets of it.
func (id Identity) String() string {
	switch id.Type {
	case IDIPv4, IDIPv6:
		if a, ok := netip.AddrFromSlice(id.Data); ok {
			return a.String()
		}
	case IDFQDN, IDRFC822:
		return strconv.QuoteToASCII(string(id.Data))
	}
	return id.Type.String() + " " + hex.EncodeToString(id.Data[:min(len(id.Data), 32)])
}

// An Auth is the body of an AUTH payload (RFC 7296 §3.8):
//
//	0  method (1)   1  reserved (3)   4  data
type Auth struct {
	// Method says how Data was made.
	Method AuthMethod
	// Data is the proof; part of what was parsed. With AuthSignature it starts
	// with an AlgorithmIdentifier: see [Auth.Signature].
	Data []byte
}

// ParseAuth reads the body of an AUTH payload, copying nothing.
func ParseAuth(body []byte) (Auth, error) {
	if len(body) < 4 {
		return Auth{}, parseError(len(body), "authentication", "payload ends here, 4 octets are needed")
	}
	a := Auth{Method: AuthMethod(body[0]), Data: body[4:]}
	if a.Method == AuthSignature {
		if _, _, err := a.Signature(); err != nil {
			return Auth{}, err
		}
	}
	return a, nil
}

// AppendAuth appends the body of an AUTH payload.
func AppendAuth(b []byte, a Auth) []byte {
	return append(append(b, byte(a.Method), 0, 0, 0), a.Data...)
}

// Signature splits the data of AuthSignature into its DER AlgorithmIdentifier
// and the signature (RFC 7427 §3).
func (a Auth) Signature() (algorithm, value []byte, err error) {
	if len(a.Data) < 1 {
		return nil, nil, parseError(4, "algorithm length", "payload ends here")
	}
	n := int(a.Data[0])
	if n > len(a.Data)-1 {
		return nil, nil, parseError(4, "algorithm length", "%d is more than the %d octets left", n, len(a.Data)-1)
	}
	return a.Data[1 : 1+n], a.Data[1+n:], nil
}

// String shows the method, never the data.
func (a Auth) String() string { return a.Method.String() }

// AppendSignature appends the data of AuthSignature. An algorithm over 255 octets
// can't be sent.
func AppendSignature(b, algorithm, value []byte) []byte {
	b = append(b, byte(len(algorithm)))
	return append(append(b, algorithm...), value...)
}
