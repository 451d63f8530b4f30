package ikev2

import (
	"crypto/sha1"
	"encoding/binary"
	"net/netip"
	"strconv"
)

// A Notify is the body of a Notify payload (RFC 7296 §3.10):
//
//	0  protocol (1)  1  length of the SPI (1)  2  type (2)  4  SPI, data
type Notify struct {
	// Protocol and SPI name the SA it is about; empty for the IKE SA itself.
	Protocol ProtocolID
	// SPI is part of what was parsed.
	SPI []byte
	// Type says what it tells.
	Type NotifyType
	// Data depends on Type; part of what was parsed.
	Data []byte
}

// ParseNotify reads the body of a Notify payload, copying nothing.
func ParseNotify(body []byte) (Notify, error) {
	if len(body) < 4 {
		return Notify{}, parseError(len(body), "notify", "payload ends here, 4 octets are needed")
	}
	size := int(body[1])
	if len(body) < 4+size {
		return Notify{}, parseError(1, "notify SPI size", "%d is more than the %d octets left", size, len(body)-4)
	}
	return Notify{
		Protocol: ProtocolID(body[0]),
		Type:     NotifyType(binary.BigEndian.Uint16(body[2:])),
		SPI:      body[4 : 4+size],
		Data:     body[4+size:],
	}, nil
}

// AppendNotify appends the body of a Notify payload. SPIs over 255 octets can't
// be sent.
func AppendNotify(b []byte, n Notify) []byte {
	b = append(b, byte(n.Protocol), byte(len(n.SPI)))
	b = binary.BigEndian.AppendUint16(b, uint16(n.Type))
	b = append(b, n.SPI...)
	return append(b, n.Data...)
}

// NotifyPayload returns a Notify payload about the IKE SA.
func NotifyPayload(t NotifyType, data []byte) Payload {
	return Payload{Type: PayloadNotify, Body: AppendNotify(nil, Notify{Type: t, Data: data})}
}

// wants returns an error unless the data of n has size octets.
func (n Notify) wants(size int) error {
	if len(n.Data) != size {
		return parseError(4+len(n.SPI), n.Type.String(), "has %d octets of data, not %d", len(n.Data), size)
	}
	return nil
}

// Group returns the key exchange method that INVALID_KE_PAYLOAD asks for (RFC
// 7296 §1.3).
func (n Notify) Group() (Group, error) {
	if err := n.wants(2); err != nil {
		return 0, err
	}
	return Group(binary.BigEndian.Uint16(n.Data)), nil
}

// Uint32 returns the number that SET_WINDOW_SIZE, AUTH_LIFETIME and
// INVALID_MESSAGE_ID tell.
func (n Notify) Uint32() (uint32, error) {
	if err := n.wants(4); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(n.Data), nil
}

// Addr returns the address that ADDITIONAL_IP4_ADDRESS and
// ADDITIONAL_IP6_ADDRESS tell (RFC 4555 §4.2).
func (n Notify) Addr() (netip.Addr, error) {
	size := 4
	if n.Type == NotifyAdditionalIPv6 {
		size = 16
	}
	if err := n.wants(size); err != nil {
		return netip.Addr{}, err
	}
	a, _ := netip.AddrFromSlice(n.Data)
	return a, nil
}

// Hashes returns what SIGNATURE_HASH_ALGORITHMS tells (RFC 7427 §4).
func (n Notify) Hashes() ([]HashAlgorithm, error) {
	if len(n.Data)%2 != 0 {
		return nil, parseError(4+len(n.SPI), n.Type.String(), "has %d octets of data, an odd number", len(n.Data))
	}
	hs := make([]HashAlgorithm, 0, len(n.Data)/2)
	for b := n.Data; len(b) > 0; b = b[2:] {
		hs = append(hs, HashAlgorithm(binary.BigEndian.Uint16(b)))
	}
	return hs, nil
}

// AppendHashes appends the data of SIGNATURE_HASH_ALGORITHMS.
func AppendHashes(b []byte, hashes ...HashAlgorithm) []byte {
	for _, h := range hashes {
		b = binary.BigEndian.AppendUint16(b, uint16(h))
	}
	return b
}

// A Redirect is the data of REDIRECT and REDIRECTED_FROM (RFC 5685 §7.2, §7.3):
//
//	0  type of gateway identity (1)  1  its length (1)  2  it, then in REDIRECT the nonce
type Redirect struct {
	// Type says what Gateway is.
	Type RedirectType
	// Gateway is an address or a name; part of what was parsed.
	Gateway []byte
	// Nonce is the client's, in REDIRECT as an answer to IKE_SA_INIT; part of
	// what was parsed.
	Nonce []byte
}

// Redirect reads the data of REDIRECT and REDIRECTED_FROM, copying nothing.
func (n Notify) Redirect() (Redirect, error) {
	at := 4 + len(n.SPI)
	if len(n.Data) < 2 {
		return Redirect{}, parseError(at, n.Type.String(), "has %d octets of data, 2 are needed", len(n.Data))
	}
	size := int(n.Data[1])
	if size > len(n.Data)-2 {
		return Redirect{}, parseError(at+1, "gateway identity length", "%d is more than the %d octets left", size, len(n.Data)-2)
	}
	r := Redirect{Type: RedirectType(n.Data[0]), Gateway: n.Data[2 : 2+size], Nonce: n.Data[2+size:]}
	if r.Type == RedirectIPv4 && size != 4 || r.Type == RedirectIPv6 && size != 16 {
		return Redirect{}, parseError(at+1, "gateway identity length", "%d isn't that of an %v address", size, r.Type)
	}
	return r, nil
}

// AppendRedirect appends the data of REDIRECT or REDIRECTED_FROM. A gateway over
// 255 octets can't be sent.
func AppendRedirect(b []byte, r Redirect) []byte {
	b = append(b, byte(r.Type), byte(len(r.Gateway)))
	return append(append(b, r.Gateway...), r.Nonce...)
}

// String shows the gateway: an address as such, a name in quotes.
func (r Redirect) String() string {
	if r.Type != RedirectFQDN {
		if a, ok := netip.AddrFromSlice(r.Gateway); ok {
			return a.String()
		}
	}
	return strconv.QuoteToASCII(string(r.Gateway))
}

// A PPKIdentity is the data of PPK_IDENTITY (RFC 8784 §5.1): which post-quantum
// preshared key the client has.
type PPKIdentity struct {
	// Type is 1 for an opaque ID, 2 for a fixed one.
	Type uint8
	// ID is part of what was parsed.
	ID []byte
}

// PPKIdentity reads the data of PPK_IDENTITY, copying nothing.
func (n Notify) PPKIdentity() (PPKIdentity, error) {
	if len(n.Data) < 1 {
		return PPKIdentity{}, parseError(4+len(n.SPI), n.Type.String(), "has no data")
	}
	return PPKIdentity{Type: n.Data[0], ID: n.Data[1:]}, nil
}

// AppendPPKIdentity appends the data of PPK_IDENTITY.
func AppendPPKIdentity(b []byte, p PPKIdentity) []byte { return append(append(b, p.Type), p.ID...) }

// NATDetection returns the data of NAT_DETECTION_SOURCE_IP or
// NAT_DETECTION_DESTINATION_IP for an end of the path as its sender sees it (RFC
// 7296 §2.23). If it differs from what a peer sent, there is a NAT, or a balancer
// that has another address than its gateways.
func NATDetection(initiator, responder SPI, end netip.AddrPort) [HashLen]byte {
	var b [16 + 16 + 2]byte
	binary.BigEndian.PutUint64(b[:], uint64(initiator))
	binary.BigEndian.PutUint64(b[8:], uint64(responder))
	n := 16
	if a := end.Addr().Unmap(); a.Is4() {
		v := a.As4()
		n += copy(b[n:], v[:])
	} else {
		v := a.As16()
		n += copy(b[n:], v[:])
	}
	binary.BigEndian.PutUint16(b[n:], end.Port())
	return sha1.Sum(b[:n+2])
}
