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
	"fmt"
	"hash"
	"math/big"
	"slices"
)

// Key exchange groups (IANA, transform type 4).
const (
	GroupMODP2048 = 14
	GroupP256     = 19
	GroupP384     = 20
	GroupX25519   = 31
)

const (
	encrCBC = 12
	encrGCM = 20
)

// A suite is what a proposal was narrowed to.
type suite struct {
	encr, bits, prf, integ, group uint16
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
func choose(offer []proposal, groups []uint16) (suite, proposal, bool) {
	for _, p := range offer {
		if p.protocol != protoIKE {
			continue
		}
		if s, chosen, ok := narrow(p, groups); ok {
			return s, chosen, true
		}
	}
	return suite{}, proposal{}, false
}

func narrow(p proposal, groups []uint16) (suite, proposal, bool) {
	encr, okE := pick(p, trEncr, func(t transform) bool {
		return (t.id == encrGCM || t.id == encrCBC) && (t.bits == 128 || t.bits == 192 || t.bits == 256)
	})
	prf, okP := pick(p, trPRF, func(t transform) bool { return prfs[t.id] != nil })
	integ, okI := pick(p, trInteg, func(t transform) bool { return integs[t.id].hash != nil })
	out := proposal{number: p.number, protocol: p.protocol, transforms: []transform{encr, prf}}
	s := suite{encr: encr.id, bits: encr.bits, prf: prf.id}
	if encr.id == encrCBC {
		out.transforms = append(out.transforms, integ)
		s.integ = integ.id
	} else {
		okI = true
	}
	for _, t := range p.transforms {
		if t.kind > trESN && t.id != 0 {
			return suite{}, proposal{}, false // more key exchanges (RFC 9370)
		}
	}
	for _, g := range groups {
		ke, ok := pick(p, trKE, func(t transform) bool { return t.id == g })
		if ok {
			out.transforms = append(out.transforms, ke)
			s.group = g
			return s, out, okE && okP && okI
		}
	}
	return suite{}, proposal{}, false
}

func pick(p proposal, kind uint8, ok func(transform) bool) (transform, bool) {
	for _, t := range p.transforms {
		if t.kind == kind && ok(t) {
			return t, true
		}
	}
	return transform{}, false
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

func newDH(group uint16) (dh, error) {
	switch group {
	case GroupMODP2048:
		return newMODP(modp2048, 256)
	case GroupP256:
		return newECDH(ecdh.P256(), true)
	case GroupP384:
		return newECDH(ecdh.P384(), true)
	case GroupX25519:
		return newECDH(ecdh.X25519(), false)
	}
	return dh{}, fmt.Errorf("standin: no key exchange group %d", group)
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
func deriveKeys(s suite, oldD, shared, ni, nr []byte, spiI, spiR uint64) ikeKeys {
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
	if s.encr == encrGCM {
		ek += 4 // the salt (RFC 5282 section 7.1)
	} else {
		ik = integs[s.integ].key
	}
	stream := nonces
	stream = binary.BigEndian.AppendUint64(stream, spiI)
	stream = binary.BigEndian.AppendUint64(stream, spiR)
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
	if k.encr == encrGCM {
		return 8, 16, 1
	}
	return aes.BlockSize, integs[k.integ].tag, aes.BlockSize
}

// seal builds one message with one SK payload.
func (k *ikeKeys) seal(h ikeHeader, list []payload, initiator bool) []byte {
	return k.sealPart(h, plSK, firstKind(list), nil, appendPayloads(nil, list), initiator)
}

// sealFragments builds one message for each size bytes of payloads, as SKF
// payloads (RFC 7383), or a single SK payload if all fits.
func (k *ikeKeys) sealFragments(h ikeHeader, list []payload, initiator bool, size int) [][]byte {
	plain := appendPayloads(nil, list)
	if size <= 0 || len(plain) <= size {
		return [][]byte{k.seal(h, list, initiator)}
	}
	parts := slices.Collect(slices.Chunk(plain, size))
	out := make([][]byte, 0, len(parts))
	first := firstKind(list)
	for i, p := range parts {
		n := binary.BigEndian.AppendUint16(nil, uint16(i+1))
		n = binary.BigEndian.AppendUint16(n, uint16(len(parts)))
		out = append(out, k.sealPart(h, plSKF, first, n, p, initiator))
		first = plNone
	}
	return out
}

func (k *ikeKeys) sealPart(h ikeHeader, kind, inner uint8, number, plain []byte, initiator bool) []byte {
	enc, integ := k.half(initiator)
	ivLen, tag, block := k.sizes()
	pad := (block - (len(plain)+1)%block) % block
	plain = append(slices.Clip(plain), make([]byte, pad+1)...)
	plain[len(plain)-1] = byte(pad)
	body := 4 + len(number) + ivLen + len(plain) + tag
	b := h.append(make([]byte, 0, ikeHeaderLen+body), kind, ikeHeaderLen+body)
	b = append(b, inner, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(body))
	b = append(b, number...)
	iv := make([]byte, ivLen)
	rand.Read(iv)
	if k.encr == encrGCM {
		aad := slices.Clone(b)
		b = append(b, iv...)
		key, salt := enc[:len(enc)-4], enc[len(enc)-4:]
		return newGCM(key).Seal(b, slices.Concat(salt, iv), plain, aad)
	}
	b = append(b, iv...)
	cipher.NewCBCEncrypter(newAES(enc), iv).CryptBlocks(plain, plain)
	b = append(b, plain...)
	return append(b, mac(integs[k.integ].hash, integ, b)[:tag]...)
}

// open checks and decrypts the SK or SKF payload that ends message b and whose
// body is p; initiator says who sent it. It returns what was inside.
func (k *ikeKeys) open(b []byte, p payload, initiator bool) ([]byte, error) {
	enc, integ := k.half(initiator)
	ivLen, tag, block := k.sizes()
	body := p.body
	if p.kind == plSKF {
		if len(body) < 4 {
			return nil, errMalformed
		}
		body = body[4:]
	}
	if len(body) < ivLen+tag+1 {
		return nil, errMalformed
	}
	iv, sealed := body[:ivLen], body[ivLen:]
	var plain []byte
	if k.encr == encrGCM {
		key, salt := enc[:len(enc)-4], enc[len(enc)-4:]
		var err error
		if plain, err = newGCM(key).Open(nil, slices.Concat(salt, iv), sealed, b[:len(b)-len(body)]); err != nil {
			return nil, err
		}
	} else {
		if !hmac.Equal(mac(integs[k.integ].hash, integ, b[:len(b)-tag])[:tag], b[len(b)-tag:]) {
			return nil, fmt.Errorf("standin: wrong integrity checksum")
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
func natHash(h ikeHeader, addr []byte, port uint16) []byte {
	b := binary.BigEndian.AppendUint64(nil, h.spiI)
	b = binary.BigEndian.AppendUint64(b, h.spiR)
	b = append(b, addr...)
	b = binary.BigEndian.AppendUint16(b, port)
	sum := sha1.Sum(b)
	return sum[:]
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func randomSPI() uint64 { return binary.BigEndian.Uint64(randomBytes(8)) | 1 }
