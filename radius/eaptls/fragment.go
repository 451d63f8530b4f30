package eaptls

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/aovlb/aovlb/radius"
)

// The data of EAP-TLS behind the type (RFC 5216 §3.1), and of PEAP, which keeps its
// version in the lowest bits:
//
//	0        1                 1 or 5
//	flags(1) length(4, if L)   TLS data
const (
	flagLength  = 0x80
	flagMore    = 0x40
	flagStart   = 0x20
	maskVersion = 0x07
)

const (
	// maxMessage bounds what a server may send in one flight, in bytes. A chain
	// of certificates with keys of 4096 bits has some 8 kB.
	maxMessage = 64 << 10
	eapHeader  = 4
)

var (
	errFragment = errors.New("eaptls: malformed fragment")
	errTooLong  = fmt.Errorf("eaptls: the server sends more than %d bytes at once", maxMessage)
)

// An assembly puts a message of TLS together from fragments.
type assembly struct {
	b    []byte
	want int // what the server says it has, or 0
}

// add takes the data of a request behind the type. It reports whether the message
// is whole, which then is in b.
func (a *assembly) add(data []byte) (whole bool, err error) {
	if len(data) < 1 {
		return false, errFragment
	}
	flags, rest := data[0], data[1:]
	if flags&flagLength != 0 {
		if len(rest) < 4 {
			return false, errFragment
		}
		n := binary.BigEndian.Uint32(rest)
		rest = rest[4:]
		if n > maxMessage {
			return false, errTooLong
		}
		// The length is in the first fragment, and some servers say it in each.
		if a.want != 0 && a.want != int(n) || a.want == 0 && len(a.b) > 0 {
			return false, fmt.Errorf("%w: its message has two lengths", errFragment)
		}
		a.want = int(n)
	}
	if len(a.b)+len(rest) > maxMessage {
		return false, errTooLong
	}
	if a.b = append(a.b, rest...); a.want != 0 && len(a.b) > a.want {
		return false, fmt.Errorf("%w: its message is longer than it says", errFragment)
	}
	switch {
	case flags&flagMore == 0:
		if a.want != 0 && len(a.b) != a.want {
			return false, fmt.Errorf("%w: its message is shorter than it says", errFragment)
		}
		return true, nil
	case len(rest) == 0:
		return false, fmt.Errorf("%w: it is empty, and more is said to follow", errFragment)
	}
	return false, nil
}

// split cuts a message into the data of responses, each no longer than most.
func split(message []byte, version byte, most int) [][]byte {
	var all [][]byte
	first := true
	for first || len(message) > 0 {
		head := []byte{version}
		if first && len(message) > most-1 {
			head[0] |= flagLength
			head = binary.BigEndian.AppendUint32(head, uint32(len(message)))
		}
		n := min(len(message), most-len(head))
		if n < len(message) {
			head[0] |= flagMore
		}
		all = append(all, append(head, message[:n]...))
		message = message[n:]
		first = false
	}
	return all
}

// An eapRequest is what a server asks.
type eapRequest struct {
	id   byte
	kind byte
	data []byte // behind the type
}

func parseRequest(b []byte) (r eapRequest, code radius.EAPCode, err error) {
	if len(b) < eapHeader || int(binary.BigEndian.Uint16(b[2:])) != len(b) {
		return r, 0, errors.New("eaptls: malformed EAP packet")
	}
	code = radius.EAPCode(b[0])
	if code != radius.EAPRequest {
		return r, code, nil
	}
	if len(b) < eapHeader+1 {
		return r, code, errors.New("eaptls: an EAP request without a type")
	}
	return eapRequest{id: b[1], kind: b[4], data: b[5:]}, code, nil
}

// response makes an EAP response.
func response(id, kind byte, data []byte) []byte {
	n := eapHeader + 1 + len(data)
	b := append(make([]byte, 0, n), byte(radius.EAPResponse), id, byte(n>>8), byte(n), kind)
	return append(b, data...)
}
