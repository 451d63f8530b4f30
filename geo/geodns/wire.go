package geodns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Types, classes, codes and flags of DNS (RFC 1035 section 3.2 and 4.1.1).
const (
	typeA      = 1
	typeNS     = 2
	typeCNAME  = 5
	typeSOA    = 6
	typeAAAA   = 28
	typeDNAME  = 39
	typeOPT    = 41
	typeDS     = 43
	typeRRSIG  = 46
	typeNSEC   = 47
	typeDNSKEY = 48
	typeCDS    = 59
	typeCDNSK  = 60
	typeNXNAME = 128 // RFC 9824
	typeIXFR   = 251
	typeAXFR   = 252
	typeANY    = 255

	classIN = 1

	rcodeSuccess   = 0
	rcodeFormErr   = 1
	rcodeServFail  = 2
	rcodeNXDomain  = 3
	rcodeNotImp    = 4
	rcodeRefused   = 5
	rcodeYXDomain  = 6 // RFC 6672: what is redirected would be too long
	rcodeBadVers   = 16
	rcodeBadCookie = 23

	flagQR = 1 << 15
	flagAA = 1 << 10
	flagTC = 1 << 9
	flagRD = 1 << 8
)

const (
	headerLen = 12
	maxName   = 255
	maxLabel  = 63
	// maxRecords bounds the records that are walked to find a query's OPT.
	maxRecords = 32
)

// A query is what a request asks.
type query struct {
	id     uint16
	opcode uint8
	rd     bool
	name   qname
	qtype  uint16
	qclass uint16
	end    int  // of the question in the message
	bare   bool // there is none: a cookie is all that is wanted (RFC 7873 section 5.4)
	edns
}

// A qname is a name in lower case, as on the wire with its last octet 0, and
// where it stands in a message.
type qname struct {
	b      [maxName]byte
	n      int
	labels [128]uint8 // where each label begins, the root included
	count  int
	at     int // offset in the message of its first label
}

func (q *qname) bytes() []byte { return q.b[:q.n] }

// from returns the name without its first i labels.
func (q *qname) from(i int) []byte { return q.b[q.labels[i]:q.n] }

// pointer returns a compression pointer to the name without its first i labels.
func (q *qname) pointer(i int) uint16 { return 0xc000 | uint16(q.at+int(q.labels[i])) }

// set takes a name that is known to be good, in any case, standing at an offset.
func (q *qname) set(wire []byte, at int) {
	q.at, q.n, q.count = at, 0, 0
	for {
		l := int(wire[q.n])
		q.labels[q.count] = uint8(q.n)
		q.count++
		q.b[q.n] = byte(l)
		for i := q.n + 1; i <= q.n+l; i++ {
			q.b[i] = lower(wire[i])
		}
		q.n += l + 1
		if l == 0 {
			return
		}
	}
}

func lower(c byte) byte {
	if c-'A' < 26 {
		return c + 'a' - 'A'
	}
	return c
}

// parse reads the question's name of a message at an offset and returns the
// offset behind it, or -1. A pointer has nothing to point to there.
func (q *qname) parse(m []byte, at int) int {
	q.at, q.n, q.count = at, 0, 0
	for {
		if at >= len(m) {
			return -1
		}
		l := int(m[at])
		if l > maxLabel || q.n+l+1 > maxName || at+1+l > len(m) {
			return -1
		}
		q.labels[q.count] = uint8(q.n)
		q.count++
		q.b[q.n] = byte(l)
		q.n++
		at++
		if l == 0 {
			return at
		}
		for _, c := range m[at : at+l] {
			q.b[q.n] = lower(c)
			q.n++
		}
		at += l
	}
}

// verdict says what is to be done with a message.
type verdict uint8

const (
	answerIt  verdict = iota
	dropIt            // say nothing
	formErr           // answer with the code
	notImp            // answer with the code
	badEDNS           // answer with FORMERR and an OPT
	badVers           // answer with BADVERS
	badOption         // answer with FORMERR and an OPT, echoing nothing
)

// parse reads a request. What it returns decides how much of q is valid.
func (q *query) parse(m []byte) verdict {
	if len(m) < headerLen {
		return dropIt
	}
	q.id = binary.BigEndian.Uint16(m)
	flags := binary.BigEndian.Uint16(m[2:])
	if flags&flagQR != 0 {
		return dropIt
	}
	q.opcode, q.rd = uint8(flags>>11)&15, flags&flagRD != 0
	q.edns = edns{}
	q.end, q.bare = headerLen, false
	if q.opcode != 0 {
		return notImp
	}
	an, ns, ar := int(binary.BigEndian.Uint16(m[6:])), int(binary.BigEndian.Uint16(m[8:])), int(binary.BigEndian.Uint16(m[10:]))
	if an+ns+ar > maxRecords {
		return formErr
	}
	// RFC 9619: a QUERY has one question, or none.
	switch binary.BigEndian.Uint16(m[4:]) {
	case 0:
		q.bare, q.qtype, q.qclass = true, 0, 0
		q.name.n, q.name.count = 0, 0
		v := q.records(m, headerLen, an+ns, ar)
		if v == answerIt && q.cookie.n == 0 {
			v = formErr
		}
		return v
	case 1:
	default:
		return formErr
	}
	at := q.name.parse(m, headerLen)
	if at < 0 || at+4 > len(m) {
		return formErr
	}
	q.qtype, q.qclass = binary.BigEndian.Uint16(m[at:]), binary.BigEndian.Uint16(m[at+2:])
	at += 4
	q.end = at
	return q.records(m, at, an+ns, ar)
}

// records walks the records behind the question, for the OPT among the last ar.
func (q *query) records(m []byte, at, before, ar int) verdict {
	v := answerIt
	for i := range before + ar {
		start := at
		at = skipName(m, at)
		if at < 0 || at+10 > len(m) {
			return formErr
		}
		typ, n := binary.BigEndian.Uint16(m[at:]), int(binary.BigEndian.Uint16(m[at+8:]))
		rr := m[at : at+10]
		at += 10
		if at+n > len(m) {
			return formErr
		}
		if typ == typeOPT {
			switch {
			case i < before || q.present || m[start] != 0:
				// RFC 6891 section 6.1.1: one, in the additional section, at the root.
				return formErr
			default:
				v = q.edns.parse(rr, m[at:at+n])
			}
		}
		at += n
	}
	if at != len(m) {
		return formErr
	}
	return v
}

// skipName returns the offset behind a name in a message, or -1.
func skipName(m []byte, at int) int {
	for n := 0; ; {
		if at >= len(m) {
			return -1
		}
		l := int(m[at])
		switch {
		case l == 0:
			return at + 1
		case l >= 0xc0:
			if at+2 > len(m) {
				return -1
			}
			return at + 2
		case l > maxLabel:
			return -1
		}
		if n += l + 1; n > maxName {
			return -1
		}
		at += l + 1
	}
}

// A wireName is a name as on the wire, in lower case.
type wireName = string

var errName = errors.New("is no domain name")

// packName returns a name in master file form as on the wire. It keeps the case.
func packName(s string) (wireName, error) {
	s = strings.TrimSuffix(s, ".")
	if s == "" {
		return "\x00", nil
	}
	var b []byte
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || strings.ContainsAny(label, "\\ \t") {
			return "", fmt.Errorf("%q %w", s, errName)
		}
		b = append(append(b, byte(len(label))), label...)
	}
	if b = append(b, 0); len(b) > maxName {
		return "", fmt.Errorf("%q %w", s, errName)
	}
	return string(b), nil
}

// lowerName returns a name on the wire in lower case.
func lowerName(s wireName) wireName {
	b := []byte(s)
	for i := 0; b[i] != 0; i += int(b[i]) + 1 {
		for j := i + 1; j <= i+int(b[i]); j++ {
			b[j] = lower(b[j])
		}
	}
	return string(b)
}

// parent returns a name without its first label.
func parent(s wireName) wireName { return s[int(s[0])+1:] }

// textName returns a name for people.
func textName(s wireName) string {
	var b strings.Builder
	for len(s) > 1 {
		for _, c := range []byte(s[1 : int(s[0])+1]) {
			if c <= ' ' || c > '~' || c == '.' || c == '\\' {
				fmt.Fprintf(&b, "\\%03d", c)
			} else {
				b.WriteByte(c)
			}
		}
		b.WriteByte('.')
		s = parent(s)
	}
	if b.Len() == 0 {
		return "."
	}
	return b.String()
}

// appendAddr appends the record of an address whose owner is a pointer.
func appendAddr(b []byte, owner uint16, ttl uint32, a netip.Addr) []byte {
	t := uint16(typeAAAA)
	if a.Is4() {
		t = typeA
	}
	data := a.AsSlice()
	b = binary.BigEndian.AppendUint16(b, owner)
	b = binary.BigEndian.AppendUint16(b, t)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}
