package sstp

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// The crypto binding (MS-SSTP §3.2.5.2) is what makes SSTP fail behind a load
// balancer that doesn't know of it. It proves that the TLS connection and the
// PPP authentication within it have the same two ends: the client sends the hash
// of the certificate that it saw, and a MAC over it, whose key comes from the
// authentication. The server compares the hash with the one that it knows.
//
//	HLAK  higher layer authentication key, 32 bytes, from the authentication
//	CMK   HMAC(HLAK, "SSTP inner method derived CMK" | length of the hash, 2
//	      bytes, the lower first | 1)
//	CMAC  HMAC(CMK, CALL_CONNECTED with the MAC's 32 bytes zero)
//
// A SHA-1 and its MAC have 20 bytes, which stand in the 32 with zeros behind.

// A Key is the higher-layer authentication key, HLAK. After MS-CHAPv2 it is two
// MPPE keys (RFC 3079) of 16 bytes: for the client the send and then the receive
// key, for the server the receive and then the send key, which are the same
// bytes. After an EAP method it is the first 32 bytes of the method's MSK. The
// zero Key is what holds when the authentication gives none, such as PAP.
type Key [32]byte

// String tells nothing of the key.
func (Key) String() string { return "(secret)" }

// GoString tells nothing of the key.
func (Key) GoString() string { return "sstp.Key(secret)" }

// A BindingRequest is the value of AttrBindingRequest: what a server wants to be
// bound to, in a CALL_CONNECT_ACK.
type BindingRequest struct {
	// Hashes are those that the client may choose from.
	Hashes Hashes
	// Nonce is to come back in the Binding.
	Nonce [nonceLen]byte
}

// ParseBindingRequest reads the value of an AttrBindingRequest.
func ParseBindingRequest(value []byte) (BindingRequest, error) {
	var r BindingRequest
	if len(value) != 4+nonceLen {
		return r, fmt.Errorf("%w: CRYPTO_BINDING_REQ of %d bytes", ErrPacket, len(value))
	}
	r.Hashes = Hashes(value[3])
	copy(r.Nonce[:], value[4:])
	return r, nil
}

// AppendConnectAck appends a CALL_CONNECT_ACK with r to b.
func AppendConnectAck(b []byte, r *BindingRequest) []byte {
	const n = controlLen + attrLen + 4 + nonceLen
	b = append(b, Version, 1, 0, n, 0, byte(CallConnectAck), 0, 1,
		0, byte(AttrBindingRequest), 0, n-controlLen, 0, 0, 0, byte(r.Hashes))
	return append(b, r.Nonce[:]...)
}

// A Binding is the value of AttrBinding: what a client binds the call to, in its
// CALL_CONNECTED.
type Binding struct {
	// Hash is the one hash protocol that it has chosen.
	Hash Hashes
	// Nonce is that of the BindingRequest.
	Nonce [nonceLen]byte
	// CertHash is the hash of the certificate that the client saw, and MAC the
	// compound MAC. With HashSHA1, 12 zeros follow the hash in each.
	CertHash, MAC [32]byte
}

const (
	bindingLen   = 4 + nonceLen + 32 + 32
	connectedLen = controlLen + attrLen + bindingLen // 112
)

// ParseBinding reads the value of an AttrBinding.
func ParseBinding(value []byte) (Binding, error) {
	var r Binding
	if len(value) != bindingLen {
		return r, fmt.Errorf("%w: CRYPTO_BINDING of %d bytes", ErrPacket, len(value))
	}
	r.Hash = Hashes(value[3])
	copy(r.Nonce[:], value[4:])
	copy(r.CertHash[:], value[36:])
	copy(r.MAC[:], value[68:])
	return r, nil
}

// NewBinding returns the Binding of a client that saw the certificate whose DER
// this is, after the authentication gave key. Of the hashes in r it takes the
// strongest.
func NewBinding(r *BindingRequest, der []byte, key Key) (Binding, error) {
	b := Binding{Nonce: r.Nonce}
	switch {
	case r.Hashes&HashSHA256 != 0:
		b.Hash, b.CertHash = HashSHA256, sha256.Sum256(der)
	case r.Hashes&HashSHA1 != 0:
		sum := sha1.Sum(der)
		b.Hash = HashSHA1
		copy(b.CertHash[:], sum[:])
	default:
		return b, fmt.Errorf("sstp: none of the hashes offered is known: %v", r.Hashes)
	}
	b.MAC = b.mac(key)
	return b, nil
}

// AppendConnected appends a CALL_CONNECTED with r to b.
func AppendConnected(b []byte, r *Binding) []byte {
	b = append(b, Version, 1, 0, connectedLen, 0, byte(CallConnected), 0, 1,
		0, byte(AttrBinding), 0, connectedLen-controlLen, 0, 0, 0, byte(r.Hash))
	b = append(b, r.Nonce[:]...)
	b = append(b, r.CertHash[:]...)
	return append(b, r.MAC[:]...)
}

// Why a Binding isn't accepted. On the wire they all look the same.
var (
	// ErrNonce says that it isn't the nonce that was asked for.
	ErrNonce = errors.New("sstp: the crypto binding has another nonce")
	// ErrHashProtocol says that the hash wasn't offered.
	ErrHashProtocol = errors.New("sstp: the crypto binding has a hash that was not offered")
	// ErrCertHash says that it is bound to another certificate.
	ErrCertHash = errors.New("sstp: the crypto binding is for another certificate")
	// ErrMAC says that the key of the authentication isn't that of the client.
	ErrMAC = errors.New("sstp: the crypto binding has a wrong MAC")
)

// Verify does what a server does with a Binding (MS-SSTP §3.3.5.2.3): r is what
// it asked for, want and want1 are the hashes that it knows, of which a zero one
// matches nothing, and key comes from the authentication. The error is ErrNonce,
// ErrHashProtocol, ErrCertHash, ErrMAC or nil.
func (b *Binding) Verify(r *BindingRequest, want Fingerprint, want1 FingerprintSHA1, key Key) error {
	if !hmac.Equal(b.Nonce[:], r.Nonce[:]) {
		return ErrNonce
	}
	if b.Hash.size() == 0 || b.Hash&r.Hashes == 0 {
		return ErrHashProtocol
	}
	if !b.Names(want, want1) {
		return ErrCertHash
	}
	mac := b.mac(key)
	if !hmac.Equal(b.MAC[:], mac[:]) {
		return ErrMAC
	}
	return nil
}

// Names reports whether the certificate with these hashes is the one that b is
// bound to. Only the hash that b has chosen counts, and a zero one matches
// nothing.
func (b *Binding) Names(f Fingerprint, f1 FingerprintSHA1) bool {
	switch b.Hash {
	case HashSHA256:
		return !f.IsZero() && hmac.Equal(b.CertHash[:], f[:])
	case HashSHA1:
		var padded [32]byte
		copy(padded[:], f1[:])
		return !f1.IsZero() && hmac.Equal(b.CertHash[:], padded[:])
	}
	return false
}

// mac returns the compound MAC that b should have.
func (b *Binding) mac(key Key) [32]byte {
	zeroed := *b
	zeroed.MAC = [32]byte{}
	cmk := CompoundMACKey(b.Hash, key)
	if cmk == nil {
		return [32]byte{}
	}
	m := hmac.New(b.Hash.new, cmk)
	m.Write(AppendConnected(make([]byte, 0, connectedLen), &zeroed))
	var out [32]byte
	copy(out[:], m.Sum(nil))
	return out
}

// CompoundMACKey returns the CMK: 32 bytes for HashSHA256, 20 for HashSHA1, nil
// for anything else.
func CompoundMACKey(h Hashes, key Key) []byte {
	n := h.size()
	if n == 0 {
		return nil
	}
	m := hmac.New(h.new, key[:])
	m.Write([]byte("SSTP inner method derived CMK"))
	m.Write(binary.LittleEndian.AppendUint16(nil, uint16(n)))
	m.Write([]byte{1})
	return m.Sum(nil)
}

// size returns the length of a hash; 0 for none or several.
func (h Hashes) size() int {
	switch h {
	case HashSHA1:
		return sha1.Size
	case HashSHA256:
		return sha256.Size
	}
	return 0
}

func (h Hashes) new() hash.Hash {
	if h == HashSHA1 {
		return sha1.New()
	}
	return sha256.New()
}
