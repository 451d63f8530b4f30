package standin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" // IKE has it as a PRF and in NAT detection
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"slices"

	"github.com/aovlb/aovlb/ikev2"
)

// A suite is what a proposal was narrowed to.
type suite struct {
	encr, bits, prf, integ uint16
	group                  ikev2.Group
}

var prfs = map[uint16]func() hash.Hash{2: sha1.New, 5: sha256.New, 6: sha512.New384, 7: sha512.New}

// integs: transform id to hash and length of the tag (RFC 2404, RFC 4868).
var integs = map[uint16]struct {
	hash func() hash.Hash
	key  int
	tag  int
}{
	2:  {sha1.New, 20, 12},
	12: {sha256.New, 32, 16},
	13: {sha512.New384, 48, 24},
	14: {sha512.New, 64, 32},
}

// choose narrows the first proposal of the offer that can be met: one transform
// of each kind it has. groups are those accepted, preferred ones first.
func choose(offer []ikev2.Proposal, groups []ikev2.Group) (suite, ikev2.Proposal, bool) {
	for _, p := range offer {
		if p.Protocol != ikev2.ProtocolIKE {
			continue
		}
		if s, chosen, ok := narrow(p, groups); ok {
			return s, chosen, true
		}
	}
	return suite{}, ikev2.Proposal{}, false
}

func narrow(p ikev2.Proposal, groups []ikev2.Group) (s suite, out ikev2.Proposal, ok bool) {
	out = ikev2.Proposal{Number: p.Number, Protocol: p.Protocol}
	pick := func(kind ikev2.TransformType, ok func(ikev2.Transform) bool) ikev2.Transform {
		for _, t := range p.Transforms {
			if t.Type == kind && ok(t) {
				out.Transforms = append(out.Transforms, t)
				return t
			}
		}
		return ikev2.Transform{}
	}
	encr := pick(ikev2.TransformEncr, func(t ikev2.Transform) bool {
		return (t.ID == ikev2.EncrAESGCM16 || t.ID == ikev2.EncrAESCBC) && (t.KeyBits == 128 || t.KeyBits == 192 || t.KeyBits == 256)
	})
	prf := pick(ikev2.TransformPRF, func(t ikev2.Transform) bool { return prfs[t.ID] != nil })
	s = suite{encr: encr.ID, bits: encr.KeyBits, prf: prf.ID}
	if encr.ID == ikev2.EncrAESCBC {
		s.integ = pick(ikev2.TransformInteg, func(t ikev2.Transform) bool { return integs[t.ID].hash != nil }).ID
	}
	for _, g := range groups {
		if s.group == 0 {
			s.group = ikev2.Group(pick(ikev2.TransformKE, func(t ikev2.Transform) bool { return t.ID == uint16(g) }).ID)
		}
	}
	for _, t := range p.Transforms {
		if t.Type > ikev2.TransformESN && t.ID != 0 {
			return s, out, false // more key exchanges (RFC 9370)
		}
	}
	return s, out, s.encr != 0 && s.prf != 0 && s.group != 0 && (s.integ != 0) == (s.encr == ikev2.EncrAESCBC)
}

// A dh is one side of a key exchange.
type dh struct {
	public []byte
	shared func(peer []byte) ([]byte, error)
}

// modp2048 is the prime of RFC 3526 section 3: 2^2048 - 2^1984 - 1 +
// 2^64 * ([2^1918 pi] + 124476).
var modp2048, _ = new(big.Int).SetString(
	"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74"+
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437"+
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED"+
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05"+
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB"+
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B"+
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"+
		"3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF", 16)

func newDH(group ikev2.Group) (dh, error) {
	switch group {
	case ikev2.GroupMODP2048:
		return newMODP(modp2048, 256)
	case ikev2.GroupECP256:
		return newECDH(ecdh.P256(), true)
	case ikev2.GroupECP384:
		return newECDH(ecdh.P384(), true)
	case ikev2.GroupX25519:
		return newECDH(ecdh.X25519(), false)
	}
	return dh{}, fmt.Errorf("standin: no key exchange group %v", group)
}

// newECDH: on the wire, a point of a NIST curve is x and y without the leading
// 4 (RFC 5903 section 7).
func newECDH(curve ecdh.Curve, point bool) (dh, error) {
	key, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		return dh{}, err
	}
	public := key.PublicKey().Bytes()
	if point {
		public = public[1:]
	}
	return dh{public, func(peer []byte) ([]byte, error) {
		if point {
			peer = append([]byte{4}, peer...)
		}
		pub, err := curve.NewPublicKey(peer)
		if err != nil {
			return nil, err
		}
		return key.ECDH(pub)
	}}, nil
}

func newMODP(p *big.Int, size int) (dh, error) {
	// An exponent of 256 bits matches the group's strength (RFC 3526 section 8).
	x, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 256))
	if err != nil {
		return dh{}, err
	}
	public := new(big.Int).Exp(big.NewInt(2), x, p).FillBytes(make([]byte, size))
	return dh{public, func(peer []byte) ([]byte, error) {
		y := new(big.Int).SetBytes(peer)
		one := big.NewInt(1)
		if len(peer) != size || y.Cmp(one) <= 0 || y.Cmp(new(big.Int).Sub(p, one)) >= 0 {
			return nil, fmt.Errorf("%w: key exchange value out of range", errMalformed)
		}
		return y.Exp(y, x, p).FillBytes(make([]byte, size)), nil
	}}, nil
}

func mac(h func() hash.Hash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(h, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// prfPlus is prf+ of RFC 7296 section 2.13.
func prfPlus(h func() hash.Hash, key, seed []byte, n int) []byte {
	var out, t []byte
	for i := byte(1); len(out) < n; i++ {
		t = mac(h, key, t, seed, []byte{i})
		out = append(out, t...)
	}
	return out[:n]
}

// ikeKeys are the keys of an IKE SA (RFC 7296 section 2.14).
type ikeKeys struct {
	suite
	d, ai, ar, ei, er, pi, pr []byte
}

// deriveKeys makes the keys of an SA. oldD is SK_d of the SA that is rekeyed
// (section 2.18), or nil.
func deriveKeys(s suite, oldD, shared, ni, nr []byte, spiI, spiR ikev2.SPI) ikeKeys {
	h := prfs[s.prf]
	nonces := slices.Concat(ni, nr)
	var seed []byte
	if oldD == nil {
		seed = mac(h, nonces, shared)
	} else {
		seed = mac(h, oldD, shared, nonces)
	}
	length := h().Size()
	ik := 0
	ek := int(s.bits) / 8
	if s.encr == ikev2.EncrAESGCM16 {
		ek += 4 // the salt (RFC 5282 section 7.1)
	} else {
		ik = integs[s.integ].key
	}
	stream := slices.Concat(nonces, appendSPI(spiI), appendSPI(spiR))
	b := prfPlus(h, seed, stream, 3*length+2*ik+2*ek)
	cut := func(n int) []byte {
		k := b[:n:n]
		b = b[n:]
		return k
	}
	return ikeKeys{
		suite: s, d: cut(length), ai: cut(ik), ar: cut(ik), ei: cut(ek), er: cut(ek),
		pi: cut(length), pr: cut(length),
	}
}

// half returns the encryption and integrity keys of one direction.
func (k *ikeKeys) half(initiator bool) (enc, integ []byte) {
	if initiator {
		return k.ei, k.ai
	}
	return k.er, k.ar
}

// sign computes the shared-key AUTH of section 2.15: message is the side's own
// first message, nonce the peer's, id the body of its ID payload.
func (k *ikeKeys) sign(secret, message, nonce, id []byte, initiator bool) []byte {
	h := prfs[k.prf]
	p := k.pr
	if initiator {
		p = k.pi
	}
	return mac(h, mac(h, secret, []byte("Key Pad for IKEv2")), message, nonce, mac(h, p, id))
}

func (k *ikeKeys) sizes() (iv, tag, block int) {
	if k.encr == ikev2.EncrAESGCM16 {
		return 8, 16, 1
	}
	return aes.BlockSize, integs[k.integ].tag, aes.BlockSize
}

// seal builds messages of SK payloads, or of SKF payloads (RFC 7383) with size
// bytes each if size isn't 0 and one is too short.
func (k *ikeKeys) seal(h ikev2.Header, list []ikev2.Payload, initiator bool, size int) [][]byte {
	inner := ikev2.AppendMessage(nil, h, list...)
	first, plain := ikev2.PayloadType(inner[16]), inner[ikev2.HeaderLen:]
	if size <= 0 || len(plain) <= size {
		return [][]byte{k.sealPart(h, ikev2.Payload{Type: ikev2.PayloadSK, Inner: first}, plain, initiator)}
	}
	parts := slices.Collect(slices.Chunk(plain, size))
	out := make([][]byte, 0, len(parts))
	for i, part := range parts {
		n := binary.BigEndian.AppendUint16(nil, uint16(i+1))
		n = binary.BigEndian.AppendUint16(n, uint16(len(parts)))
		out = append(out, k.sealPart(h, ikev2.Payload{Type: ikev2.PayloadSKF, Inner: first, Body: n}, part, initiator))
		first = ikev2.PayloadNone
	}
	return out
}

// sealPart builds a message of one payload: p, whose body is what isn't
// encrypted, then IV, ciphertext and tag.
func (k *ikeKeys) sealPart(h ikev2.Header, p ikev2.Payload, plain []byte, initiator bool) []byte {
	enc, integ := k.half(initiator)
	ivLen, tag, block := k.sizes()
	pad := (block - (len(plain)+1)%block) % block
	iv := randomBytes(ivLen)
	p.Body = slices.Concat(p.Body, iv, plain, make([]byte, pad), []byte{byte(pad)}, make([]byte, tag))
	b := ikev2.AppendMessage(nil, h, p)
	sum := len(b) - tag
	at := sum - len(plain) - pad - 1
	if k.encr == ikev2.EncrAESGCM16 {
		key, salt := enc[:len(enc)-4], enc[len(enc)-4:]
		newGCM(key).Seal(b[:at], slices.Concat(salt, iv), b[at:sum], b[:at-ivLen])
		return b
	}
	cipher.NewCBCEncrypter(newAES(enc), iv).CryptBlocks(b[at:sum], b[at:sum])
	copy(b[sum:], mac(integs[k.integ].hash, integ, b[:sum]))
	return b
}

// open checks and decrypts the SK or SKF payload p that ends message b;
// initiator says who sent it. It returns what was inside.
func (k *ikeKeys) open(b []byte, p ikev2.Payload, initiator bool) ([]byte, error) {
	enc, integ := k.half(initiator)
	ivLen, tag, block := k.sizes()
	body := p.Body
	if p.Type == ikev2.PayloadSKF {
		body = body[min(4, len(body)):]
	}
	if len(body) < ivLen+tag+1 {
		return nil, errMalformed
	}
	iv, sealed := body[:ivLen], body[ivLen:]
	var plain []byte
	if k.encr == ikev2.EncrAESGCM16 {
		key, salt := enc[:len(enc)-4], enc[len(enc)-4:]
		var err error
		if plain, err = newGCM(key).Open(nil, slices.Concat(salt, iv), sealed, b[:len(b)-len(body)]); err != nil {
			return nil, err
		}
	} else {
		sum := len(b) - tag
		if !hmac.Equal(mac(integs[k.integ].hash, integ, b[:sum])[:tag], b[sum:]) {
			return nil, errors.New("standin: wrong integrity checksum")
		}
		plain = slices.Clone(sealed[:len(sealed)-tag])
		if len(plain) == 0 || len(plain)%block != 0 {
			return nil, errMalformed
		}
		cipher.NewCBCDecrypter(newAES(enc), iv).CryptBlocks(plain, plain)
	}
	pad := int(plain[len(plain)-1]) + 1
	if pad > len(plain) {
		return nil, errMalformed
	}
	return plain[:len(plain)-pad], nil
}

// newAES and newGCM are only given keys whose length deriveKeys chose.
func newAES(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	return b
}

func newGCM(key []byte) cipher.AEAD {
	a, err := cipher.NewGCM(newAES(key))
	if err != nil {
		panic(err)
	}
	return a
}

// natHash is the content of a NAT_DETECTION notification (section 2.23).
func natHash(h ikev2.Header, addr []byte, port uint16) []byte {
	b := slices.Concat(appendSPI(h.SPIi), appendSPI(h.SPIr), addr)
	b = binary.BigEndian.AppendUint16(b, port)
	sum := sha1.Sum(b)
	return sum[:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func randomSPI() ikev2.SPI { return ikev2.SPI(binary.BigEndian.Uint64(randomBytes(8)) | 1) }
