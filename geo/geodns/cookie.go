package geodns

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"time"
)

// CookieSecret is the secret of cookies (RFC 9018), of 16 octets. Servers behind
// one address need the same. The zero secret stands for none.
type CookieSecret [16]byte //nolint:recvcheck // its reading methods take it by value, as its users do

// String hides the secret.
func (CookieSecret) String() string { return "(secret)" }

const (
	serverCookie = 16               // RFC 9018 section 4
	cookieOld    = time.Hour        // and older ones are refused
	cookieRenew  = 30 * time.Minute // and older ones are replaced
	cookieAhead  = 5 * time.Minute  // ones further in the future are refused
)

// make returns the server's part of a cookie for a client.
func (s *CookieSecret) make(client []byte, from netip.Addr, now uint32) (c [serverCookie]byte) {
	c[0] = 1 // the version; three octets are reserved
	binary.BigEndian.PutUint32(c[4:], now)
	var in [8 + 8 + 16]byte
	n := copy(in[:], client[:8])
	n += copy(in[n:], c[:8])
	if from = from.Unmap(); from.Is4() {
		a := from.As4()
		n += copy(in[n:], a[:])
	} else {
		a := from.As16()
		n += copy(in[n:], a[:])
	}
	binary.LittleEndian.PutUint64(c[8:], sipHash(s, in[:n]))
	return c
}

// check judges the server's part of a query's cookie.
func (s *CookieSecret) check(c *cookie, from netip.Addr, now uint32) (ok, renew bool) {
	if c.n != 8+serverCookie || c.b[8] != 1 {
		return false, true
	}
	at := binary.BigEndian.Uint32(c.b[12:])
	age := time.Duration(int32(now-at)) * time.Second // RFC 1982: it may wrap
	if age > cookieOld || age < -cookieAhead {
		return false, true
	}
	want := s.make(c.b[:8], from, at)
	var diff byte
	for i, b := range want {
		if i < 1 || i > 3 { // what is reserved is as the client has it, and hashed
			diff |= b ^ c.b[8+i]
		} else {
			diff |= c.b[8+i]
		}
	}
	return diff == 0, diff != 0 || age > cookieRenew
}

// sipHash is SipHash-2-4 of data.
func sipHash(key *CookieSecret, data []byte) uint64 {
	k0, k1 := binary.LittleEndian.Uint64(key[:]), binary.LittleEndian.Uint64(key[8:])
	v0, v1, v2, v3 := k0^0x736f6d6570736575, k1^0x646f72616e646f6d, k0^0x6c7967656e657261, k1^0x7465646279746573
	round := func() {
		v0 += v1
		v1 = bits.RotateLeft64(v1, 13) ^ v0
		v0 = bits.RotateLeft64(v0, 32)
		v2 += v3
		v3 = bits.RotateLeft64(v3, 16) ^ v2
		v0 += v3
		v3 = bits.RotateLeft64(v3, 21) ^ v0
		v2 += v1
		v1 = bits.RotateLeft64(v1, 17) ^ v2
		v2 = bits.RotateLeft64(v2, 32)
	}
	last := uint64(len(data)) << 56
	for ; len(data) >= 8; data = data[8:] {
		m := binary.LittleEndian.Uint64(data)
		v3 ^= m
		round()
		round()
		v0 ^= m
	}
	for i, b := range data {
		last |= uint64(b) << (8 * i)
	}
	v3 ^= last
	round()
	round()
	v0 ^= last
	v2 ^= 0xff
	round()
	round()
	round()
	round()
	return v0 ^ v1 ^ v2 ^ v3
}
