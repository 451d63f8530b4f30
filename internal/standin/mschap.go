package standin

import (
	"bytes"
	"crypto/des"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"

	"github.com/aovlb/aovlb/sstp"
)

// MS-CHAPv2 (RFC 2759) and the keys that come of it (RFC 3079): what most users of
// SSTP log in by. Both need MD4, which the standard library doesn't have.

// ntHash is the MD4 of a password in UTF-16.
func ntHash(password string) [16]byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(password)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return md4(b)
}

// ntResponse is what a client answers to a challenge (RFC 2759 §8.1).
func ntResponse(challenge, peer []byte, user, password string) []byte {
	hash := ntHash(password)
	c := challengeHash(challenge, peer, user)
	key := append(hash[:], make([]byte, 5)...) // three keys of 7 bytes
	var out []byte
	for i := range 3 {
		block, err := des.NewCipher(spread(key[7*i : 7*i+7]))
		if err != nil {
			panic(err) // the key has 8 bytes
		}
		out = append(out, make([]byte, 8)...)
		block.Encrypt(out[8*i:], c)
	}
	return out
}

// spread makes 8 bytes of 7, whose lowest bits, of parity, are unused.
func spread(k []byte) []byte {
	var x uint64
	for _, c := range k {
		x = x<<8 | uint64(c)
	}
	out := make([]byte, 8)
	for i := range out {
		out[i] = byte(x>>(49-7*i)) << 1
	}
	return out
}

func challengeHash(challenge, peer []byte, user string) []byte {
	h := sha1.New()
	h.Write(peer)
	h.Write(challenge)
	h.Write([]byte(user))
	return h.Sum(nil)[:8]
}

// authenticatorResponse is how a server proves that it knows the password too (RFC
// 2759 §8.7).
func authenticatorResponse(challenge, peer, response []byte, user, password string) string {
	hash := ntHash(password)
	twice := md4(hash[:])
	h := sha1.New()
	h.Write(twice[:])
	h.Write(response)
	h.Write([]byte("Magic server to client signing constant"))
	digest := h.Sum(nil)
	h.Reset()
	h.Write(digest)
	h.Write(challengeHash(challenge, peer, user))
	h.Write([]byte("Pad to make it do more than one iteration"))
	return fmt.Sprintf("S=%X", h.Sum(nil))
}

// chapKey returns the key that MS-CHAPv2 gives SSTP: the server's receive key and
// its send key, which are the client's send key and its receive key.
func chapKey(response []byte, password string) sstp.Key {
	var k sstp.Key
	copy(k[:16], mppeKey(response, password, false))
	copy(k[16:], mppeKey(response, password, true))
	return k
}

// mppeKey returns a key of 16 bytes of the server (RFC 3079 §3.4).
func mppeKey(response []byte, password string, send bool) []byte {
	hash := ntHash(password)
	twice := md4(hash[:])
	h := sha1.New()
	h.Write(twice[:])
	h.Write(response)
	h.Write([]byte("This is the MPPE Master Key"))
	master := h.Sum(nil)[:16]
	magic := "On the client side, this is the send key; on the server side, it is the receive key."
	if send {
		magic = "On the client side, this is the receive key; on the server side, it is the send key."
	}
	h.Reset()
	h.Write(master)
	h.Write(make([]byte, 40))
	h.Write([]byte(magic))
	h.Write(bytes.Repeat([]byte{0xf2}, 40))
	return h.Sum(nil)[:16]
}

// md4 is RFC 1320. It is broken, and what MS-CHAPv2 is made of.
func md4(b []byte) [16]byte {
	m := append(bytes.Clone(b), 0x80)
	for len(m)%64 != 56 {
		m = append(m, 0)
	}
	m = binary.LittleEndian.AppendUint64(m, uint64(len(b))*8)
	s := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	for ; len(m) > 0; m = m[64:] {
		md4Block(&s, m[:64])
	}
	var out [16]byte
	for i, x := range s {
		binary.LittleEndian.PutUint32(out[4*i:], x)
	}
	return out
}

func md4Block(s *[4]uint32, m []byte) {
	var x [16]uint32
	for i := range x {
		x[i] = binary.LittleEndian.Uint32(m[4*i:])
	}
	orders := [3][16]int{
		{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15},
		{0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15},
	}
	shifts := [3][4]int{{3, 7, 11, 19}, {3, 5, 9, 13}, {3, 9, 11, 15}}
	consts := [3]uint32{0, 0x5a827999, 0x6ed9eba1}
	a, b, c, d := s[0], s[1], s[2], s[3]
	for round := range 3 {
		for i, k := range orders[round] {
			var f uint32
			switch round {
			case 0:
				f = b&c | ^b&d
			case 1:
				f = b&c | b&d | c&d
			case 2:
				f = b ^ c ^ d
			}
			a = bits.RotateLeft32(a+f+x[k]+consts[round], shifts[round][i%4])
			a, b, c, d = d, a, b, c
		}
	}
	s[0] += a
	s[1] += b
	s[2] += c
	s[3] += d
}
