package radius

import "encoding/binary"

// What RADIUS hides with the secret. A chain of MD5 sums is laid over the text in
// blocks of 16 bytes (RFC 2865 §5.2), of which each sum depends on the block
// before it:
//
//	b1 = MD5(secret + authenticator [+ salt])   c1 = p1 XOR b1
//	b2 = MD5(secret + c1)                       c2 = p2 XOR b2 …
//
// With other secrets on the other side, hidden attributes are shown and hidden
// again, in place: none of them changes its length. CHAP needs nothing: it hides
// nothing with the secret.

// UserPassword and MS-CHAP-MPPE-Keys (RFC 2548 §2.4.1) have no salt.
// Tunnel-Password (RFC 2868 §3.5) has a tag before its salt, MS-MPPE-Send-Key and
// MS-MPPE-Recv-Key (RFC 2548 §2.4.2) have none.
const (
	tunnelPassword Type = 69
	vendorSpecific Type = 26

	vendorMicrosoft = 311
	msCHAPMPPEKeys  = 12
	msMPPESendKey   = 16
	msMPPERecvKey   = 17
)

// rehide shows what is hidden in packet q with key from and authenticator old,
// and hides it with key to and authenticator auth. What isn't of the right form
// is left as it is: nobody can read it.
func (s *signer) rehide(q []byte, from, to *key, old, auth [16]byte) {
	for at := HeaderLen; at < len(q); at += int(q[at+1]) {
		v := q[at+2 : at+int(q[at+1])]
		switch Type(q[at]) {
		case UserPassword:
			s.rechain(v, nil, from, to, old, auth)
		case tunnelPassword:
			if len(v) > 3 {
				s.rechain(v[3:], v[1:3], from, to, old, auth)
			}
		case vendorSpecific:
			if len(v) > 4 && binary.BigEndian.Uint32(v) == vendorMicrosoft {
				s.rehideMicrosoft(v[4:], from, to, old, auth)
			}
		}
	}
}

func (s *signer) rehideMicrosoft(v []byte, from, to *key, old, auth [16]byte) {
	for len(v) >= 2 && int(v[1]) >= 2 && int(v[1]) <= len(v) {
		w := v[2:v[1]]
		switch v[0] {
		case msCHAPMPPEKeys:
			s.rechain(w, nil, from, to, old, auth)
		case msMPPESendKey, msMPPERecvKey:
			if len(w) > 2 {
				s.rechain(w[2:], w[:2], from, to, old, auth)
			}
		}
		v = v[v[1]:]
	}
}

// rechain changes the chain over v. The blocks before are those that are hidden:
// under the old key for taking off, under the new one for putting on.
func (s *signer) rechain(v, salt []byte, from, to *key, old, auth [16]byte) {
	if len(v)%16 != 0 {
		return
	}
	was, is := old, auth
	for i := 0; i < len(v); i += 16 {
		block := v[i : i+16]
		if i > 0 {
			salt = nil
		}
		hidden := [16]byte(block)
		off := s.pad(from, was, salt)
		on := s.pad(to, is, salt)
		for j := range block {
			block[j] ^= off[j] ^ on[j]
		}
		was, is = hidden, [16]byte(block)
	}
}

func (s *signer) pad(k *key, before [16]byte, salt []byte) [16]byte {
	s.auth = before
	s.h.Reset()
	s.h.Write(k.secret)
	s.h.Write(s.auth[:])
	s.h.Write(salt)
	s.h.Sum(s.sum[:0])
	return s.sum
}
