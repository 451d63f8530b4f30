package keepalived

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// keepalived sends a datagram that is the same each time, so the question that an
// IKEv2 gateway is asked is made once: an IKE_SA_INIT request (RFC 7296, 1.2) with a
// key exchange of a group that Windows doesn't have. A gateway of Windows asks for
// another group then, and keeps nothing of the question.

const (
	groupMODP1024 = 2
	groupMODP2048 = 14
	groupECP256   = 19
	groupECP384   = 20
	groupX25519   = 31
)

// ikeQuestion returns the request and the SPI that begins each answer, in
// hexadecimal digits. keepalived's lines have 1023 bytes at most.
func ikeQuestion(name string) (request, spi string) {
	seed := sha256.Sum256([]byte("aovlb " + name))
	nonce, key := sha256.Sum256(append(seed[:], 'n')), sha256.Sum256(append(seed[:], 'k'))
	const sa, ke, ni = 33, 34, 40
	body := payload(ke, proposals())
	body = append(body, payload(ni, append([]byte{0, groupX25519, 0, 0}, key[:]...))...)
	body = append(body, payload(0, nonce[:])...)
	head := append([]byte{}, seed[:8]...)
	head = append(head, make([]byte, 8)...)       // the gateway's SPI isn't known yet
	head = append(head, sa, 0x20, 34, 0x08)       // version 2.0, IKE_SA_INIT, from the initiator
	head = binary.BigEndian.AppendUint32(head, 0) // the first message
	head = binary.BigEndian.AppendUint32(head, uint32(28+len(body)))
	return hex.EncodeToString(append(head, body...)), hex.EncodeToString(seed[:8])
}

// payload puts the generic header before the content of a payload.
func payload(next byte, content []byte) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{next, 0}, uint16(4+len(content))), content...)
}

// transform is one of a proposal: its type, what it is, and the length of its key.
type transform struct {
	kind byte
	id   uint16
	bits uint16
}

// proposals are what Windows is configured for, by default and as guides advise.
func proposals() []byte {
	list := func(kind byte, ids ...uint16) []transform {
		var out []transform
		for _, id := range ids {
			out = append(out, transform{kind, id, 0})
		}
		return out
	}
	const encr, prf, integ, group = 1, 2, 3, 4
	const gcm, cbc, tripleDES = 20, 12, 3
	ends := append(list(prf, 5, 6, 2), list(group, groupECP256, groupECP384, groupMODP2048, groupX25519, groupMODP1024)...)
	hashes := list(integ, 12, 13, 2)
	all := [][]transform{
		append([]transform{{encr, gcm, 256}, {encr, gcm, 128}}, ends...),
		append(append([]transform{{encr, cbc, 256}, {encr, cbc, 128}}, hashes...), ends...),
		append(append([]transform{{encr, tripleDES, 0}}, hashes...), ends...),
	}
	var out []byte
	for i, p := range all {
		more := byte(2)
		if i == len(all)-1 {
			more = 0
		}
		out = append(out, proposal(more, byte(i+1), p)...)
	}
	return out
}

func proposal(more, number byte, list []transform) []byte {
	var body []byte
	for i, t := range list {
		next, size := byte(3), uint16(8)
		if i == len(list)-1 {
			next = 0
		}
		if t.bits != 0 {
			size = 12
		}
		body = binary.BigEndian.AppendUint16(append(body, next, 0), size)
		body = binary.BigEndian.AppendUint16(append(body, t.kind, 0), t.id)
		if t.bits != 0 {
			body = binary.BigEndian.AppendUint16(append(body, 0x80, 14), t.bits) // the attribute for lengths of keys
		}
	}
	head := binary.BigEndian.AppendUint16([]byte{more, 0}, uint16(8+len(body)))
	return append(append(head, number, 1, 0, byte(len(list))), body...)
}
