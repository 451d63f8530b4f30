package radius

import (
	"crypto/md5"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"hash"
)

// key is a Secret made ready for signing.
type key struct {
	secret []byte
	// inner and outer are the states of MD5 behind the first blocks of HMAC's
	// two sums, which are the same for all packets (RFC 2104 §4).
	inner, outer []byte
}

func newKey(s Secret) *key {
	k := &key{secret: s.bytes()}
	block := k.secret
	if len(block) > md5.BlockSize {
		sum := md5.Sum(block)
		block = sum[:]
	}
	k.inner, k.outer = padState(block, 0x36), padState(block, 0x5c)
	return k
}

// padState returns the state of MD5 behind a key, padded to a block, every byte of
// which is changed by with.
func padState(block []byte, with byte) []byte {
	var pad [md5.BlockSize]byte
	copy(pad[:], block)
	for i := range pad {
		pad[i] ^= with
	}
	h := md5.New()
	h.Write(pad[:])
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // package md5 says it never is
	}
	return state
}

func (k *key) equal(o *key) bool {
	return k == o || subtle.ConstantTimeCompare(k.secret, o.secret) == 1
}

// A signer computes authenticators without allocating. What it hands to the hash
// stands in the signer, for a hash.Hash lets its arguments escape.
type signer struct {
	h     hash.Hash
	state encoding.BinaryUnmarshaler // h's
	auth  [16]byte
	sum   [md5.Size]byte
	buf   [MaxLen]byte
}

func newSigner() *signer {
	h := md5.New()
	return &signer{h: h, state: h.(encoding.BinaryUnmarshaler)}
}

// hmac returns the sum of b, as it is.
func (s *signer) hmac(b []byte, k *key) [16]byte {
	_ = s.state.UnmarshalBinary(k.inner) // MarshalBinary made it
	s.h.Write(b)
	s.h.Sum(s.sum[:0])
	_ = s.state.UnmarshalBinary(k.outer)
	s.h.Write(s.sum[:])
	s.h.Sum(s.sum[:0])
	return s.sum
}

// message computes the Message-Authenticator of packet b, whose attribute of that
// name begins at at, with authenticator auth in the place of its own.
func (s *signer) message(b []byte, at int, k *key, auth [16]byte) [16]byte {
	q := s.buf[:copy(s.buf[:], b)]
	copy(q[4:], auth[:])
	clear(q[at+2 : at+18])
	return s.hmac(q, k)
}

// packet computes the Authenticator that an answer, or an Accounting-Request,
// must have, with auth in its place.
func (s *signer) packet(b []byte, k *key, auth [16]byte) [16]byte {
	q := s.buf[:copy(s.buf[:], b)]
	copy(q[4:], auth[:])
	s.h.Reset()
	s.h.Write(q)
	s.h.Write(k.secret)
	s.h.Sum(s.sum[:0])
	return s.sum
}

// rightMessage reports whether p's Message-Authenticator, if it has one, is right.
func (s *signer) rightMessage(p Packet, k *key, auth [16]byte) bool {
	at := p.find(MessageAuthenticator)
	if at == 0 {
		return true
	}
	if p.b[at+1] != 18 || p.Count(MessageAuthenticator) != 1 {
		return false
	}
	want := s.message(p.b, at, k, auth)
	return subtle.ConstantTimeCompare(want[:], p.b[at+2:at+18]) == 1
}

// rightRequest reports whether p comes from who has the secret, as far as can be
// told.
func (s *signer) rightRequest(p Packet, k *key) bool {
	if p.Code() == AccessRequest || p.Code() == StatusServer {
		return s.rightMessage(p, k, p.Authenticator())
	}
	want := s.packet(p.b, k, [16]byte{})
	return subtle.ConstantTimeCompare(want[:], p.b[4:20]) == 1 && s.rightMessage(p, k, [16]byte{})
}

// rightAnswer reports whether p answers the request with authenticator auth and
// comes from who has the secret. Accounting's answers hardly ever have a
// Message-Authenticator, and servers don't agree on what it covers.
func (s *signer) rightAnswer(p Packet, k *key, auth [16]byte) bool {
	want := s.packet(p.b, k, auth)
	if subtle.ConstantTimeCompare(want[:], p.b[4:20]) != 1 {
		return false
	}
	return s.rightMessage(p, k, auth) || p.Code() == AccountingResponse && s.rightMessage(p, k, [16]byte{})
}

// request appends p to b as a server gets it: with Identifier id, signed with the
// key to, and what is hidden in it hidden with that. An Access-Request has its
// Message-Authenticator first, and one is added if it has none and there is room
// for it: it keeps its Request Authenticator, with which passwords are hidden. An
// Accounting-Request gets another. asIs says that p is signed with from as it is:
// then it may be that nothing has to be done.
func (s *signer) request(b []byte, p Packet, id byte, from, to *key, asIs bool) (out []byte, auth [16]byte) {
	if asIs && id == p.b[1] && settled(p, p.Code() == AccessRequest) && from.equal(to) {
		return append(b, p.b...), p.Authenticator()
	}
	start := len(b)
	has := p.find(MessageAuthenticator) > 0
	b = append(b, p.b[:HeaderLen]...)
	b[start+1] = id
	access := p.Code() == AccessRequest
	signed := has || access && len(p.b) <= MaxLen-18
	b = appendAttributes(b, p, signed)
	q := b[start:]
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	if access {
		auth = p.Authenticator()
		if !from.equal(to) {
			s.rehide(q, from, to, auth, auth)
		}
	}
	copy(q[4:20], auth[:])
	if signed {
		sum := s.hmac(q, to)
		copy(q[HeaderLen+2:], sum[:])
	}
	if !access {
		auth = s.inPlace(q, to)
	}
	return b, auth
}

// settled reports whether p has a Message-Authenticator first, and no other, if it
// is to have one, or else none at all.
func settled(p Packet, signed bool) bool {
	from := HeaderLen
	if signed {
		if len(p.b) < HeaderLen+18 || Type(p.b[HeaderLen]) != MessageAuthenticator {
			return false
		}
		from += int(p.b[HeaderLen+1])
	}
	for at := from; at < len(p.b); at += int(p.b[at+1]) {
		if Type(p.b[at]) == MessageAuthenticator {
			return false
		}
	}
	return true
}

// appendAttributes appends p's attributes, with a Message-Authenticator before
// them if signed says so, and any other left out.
func appendAttributes(b []byte, p Packet, signed bool) []byte {
	if signed {
		b = append(b, byte(MessageAuthenticator), 18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	from := HeaderLen
	if len(p.b) <= from {
		return b
	}
	for at := from; at < len(p.b); {
		end := at + int(p.b[at+1])
		if Type(p.b[at]) == MessageAuthenticator {
			b = append(b, p.b[from:at]...)
			from = end
		}
		at = end
	}
	return append(b, p.b[from:]...)
}

// answer appends p, an answer to the request that server and client know by
// authenticators asked and auth, to b as the client gets it. p must have been
// found right.
func (s *signer) answer(b []byte, p Packet, id byte, from, to *key, asked, auth [16]byte, signed bool) []byte {
	start := len(b)
	if p.Code() == AccountingResponse {
		signed = false
	}
	if len(p.b) > MaxLen-18 && p.find(MessageAuthenticator) == 0 {
		signed = false
	}
	same := asked == auth && from.equal(to)
	if same && id == p.b[1] && settled(p, signed) {
		return append(b, p.b...)
	}
	b = append(b, p.b[:HeaderLen]...)
	b = appendAttributes(b, p, signed)
	q := b[start:]
	q[1] = id
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	if p.Code() != AccountingResponse && !same {
		s.rehide(q, from, to, asked, auth)
	}
	s.seal(q, to, auth, signed)
	return b
}

// seal signs answer q, in place, whose Message-Authenticator is first if signed.
func (s *signer) seal(q []byte, to *key, auth [16]byte, signed bool) {
	copy(q[4:20], auth[:])
	if signed {
		sum := s.hmac(q, to)
		copy(q[HeaderLen+2:], sum[:])
	}
	s.inPlace(q, to)
}

// inPlace replaces what stands in the place of q's Authenticator by it.
func (s *signer) inPlace(q []byte, k *key) [16]byte {
	s.h.Reset()
	s.h.Write(q)
	s.h.Write(k.secret)
	s.h.Sum(s.sum[:0])
	copy(q[4:20], s.sum[:])
	return s.sum
}

// short appends an answer of this Proxy's own, without attributes but a
// Message-Authenticator.
func (s *signer) short(b []byte, c Code, id byte, to *key, auth [16]byte, signed bool) []byte {
	start := len(b)
	b = append(b, byte(c), id, 0, HeaderLen)
	b = append(b, auth[:]...)
	b = appendAttributes(b, Packet{}, signed)
	q := b[start:]
	binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
	s.seal(q, to, auth, signed)
	return b
}
