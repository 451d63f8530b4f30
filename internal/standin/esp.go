package standin

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
)

// An espSA is one direction of a child SA: AES-128-GCM (RFC 4106). On the
// wire: SPI (4), sequence number (4), IV (8), ciphertext with padding, pad length
// and next header, tag (16).
type espSA struct {
	spi  uint32
	aead cipher.AEAD
	salt []byte
	seq  uint32 // last sent, or highest received
	seen uint64 // which of the 64 numbers up to seq were received
}

const (
	espKeyLen = 16 + 4
	// espNext is a protocol number for experiments (RFC 3692): what travels
	// inside isn't IP.
	espNext = 253
)

var (
	errReplay = errors.New("standin: ESP sequence number seen before")
	errESP    = errors.New("standin: malformed ESP packet")
)

// deriveChild makes both directions of a child SA (RFC 7296 section 2.17). in is
// what the side with that role receives by.
func deriveChild(k *ikeKeys, ni, nr []byte, initiator bool, spiIn, spiOut uint32) (in, out *espSA) {
	b := prfPlus(prfs[k.prf], k.d, slices.Concat(ni, nr), 2*espKeyLen)
	make1 := func(key []byte, spi uint32) *espSA {
		return &espSA{spi: spi, aead: newGCM(key[:16]), salt: key[16:]}
	}
	fromI, fromR := b[:espKeyLen], b[espKeyLen:]
	if initiator {
		return make1(fromR, spiIn), make1(fromI, spiOut)
	}
	return make1(fromI, spiIn), make1(fromR, spiOut)
}

func (s *espSA) seal(data []byte) []byte {
	s.seq++
	b := binary.BigEndian.AppendUint32(make([]byte, 0, 64+len(data)), s.spi)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	iv := binary.BigEndian.AppendUint64(nil, uint64(s.seq))
	pad := (4 - (len(data)+2)%4) % 4
	plain := slices.Clone(data)
	for i := range pad {
		plain = append(plain, byte(i+1))
	}
	plain = append(plain, byte(pad), espNext)
	aad := b[:8:8]
	b = append(b, iv...)
	return s.aead.Seal(b, slices.Concat(s.salt, iv), plain, aad)
}

func (s *espSA) open(b []byte) ([]byte, error) {
	if len(b) < 16+2+s.aead.Overhead() {
		return nil, errESP
	}
	plain, err := s.aead.Open(nil, slices.Concat(s.salt, b[8:16]), b[16:], b[:8])
	if err != nil {
		return nil, err
	}
	pad := int(plain[len(plain)-2]) + 2
	if pad > len(plain) || plain[len(plain)-1] != espNext {
		return nil, errESP
	}
	if !s.fresh(binary.BigEndian.Uint32(b[4:])) {
		return nil, errReplay
	}
	return plain[:len(plain)-pad], nil
}

// fresh is the replay window of RFC 4303 section 3.4.3.
func (s *espSA) fresh(seq uint32) bool {
	switch {
	case seq > s.seq:
		s.seen = s.seen<<min(seq-s.seq, 64) | 1
		s.seq = seq
		return true
	case s.seq-seq >= 64 || s.seen>>(s.seq-seq)&1 == 1:
		return false
	}
	s.seen |= 1 << (s.seq - seq)
	return true
}
