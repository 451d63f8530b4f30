package geodns

import (
	"encoding/binary"
	"net/netip"
)

// Options of EDNS.
const (
	optionNSID      = 3  // RFC 5001
	optionSubnet    = 8  // RFC 7871
	optionCookie    = 10 // RFC 7873
	optionKeepalive = 11 // RFC 7828
	optionEDE       = 15 // RFC 8914
)

const (
	optFixed = 11      // of an OPT record without options
	flagDO   = 1 << 15 // in the lower half of its TTL
	flagCO   = 1 << 14
)

// edns is what the OPT of a query says (RFC 6891).
type edns struct {
	present   bool
	size      int // at least 512
	version   uint8
	do        bool
	compactOK bool // RFC 9824 section 5.1
	nsid      bool
	keepalive bool
	cookie    cookie
	subnet    subnet
}

// A cookie is what a query has as one (RFC 7873 section 4).
type cookie struct {
	n int // octets; 0 is none
	b [40]byte
}

// A subnet is the client's, as a query tells it (RFC 7871 section 6).
type subnet struct {
	present bool
	family  uint16
	source  uint8
	n       int // octets of the address
	addr    [16]byte
}

// prefix returns the subnet; it isn't valid with a SOURCE of 0, which says that
// nothing is to be made of it.
func (s *subnet) prefix() netip.Prefix {
	if s.source == 0 {
		return netip.Prefix{}
	}
	if s.family == 1 {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(s.addr[:4])), int(s.source))
	}
	return netip.PrefixFrom(netip.AddrFrom16(s.addr), int(s.source))
}

// parse reads an OPT: its fixed part without the name, and its options.
func (e *edns) parse(rr, options []byte) verdict {
	e.present = true
	e.size = max(512, int(binary.BigEndian.Uint16(rr[2:])))
	e.version = rr[5]
	flags := binary.BigEndian.Uint16(rr[6:])
	e.do, e.compactOK = flags&flagDO != 0, flags&flagCO != 0
	if e.version != 0 {
		return badVers // whose options mean something else
	}
	for len(options) > 0 {
		if len(options) < 4 {
			return badOption
		}
		code, n := binary.BigEndian.Uint16(options), int(binary.BigEndian.Uint16(options[2:]))
		options = options[4:]
		if n > len(options) {
			return badOption
		}
		if !e.option(code, options[:n]) {
			return badOption
		}
		options = options[n:]
	}
	return answerIt
}

// option reads one option; what isn't known is ignored.
func (e *edns) option(code uint16, b []byte) bool {
	switch code {
	case optionNSID:
		e.nsid = true
	case optionKeepalive:
		e.keepalive = true
	case optionCookie:
		// RFC 7873 section 5.2.2: 8 octets of the client, none or 8 to 32 of
		// the server. Of several cookies the first counts.
		if len(b) != 8 && (len(b) < 16 || len(b) > 40) {
			return false
		}
		if e.cookie.n == 0 {
			e.cookie.n = copy(e.cookie.b[:], b)
		}
	case optionSubnet:
		return !e.subnet.present && e.subnet.parse(b)
	}
	return true
}

// parse reads the option, strictly: an address too long, too short or with bits
// behind its length would be echoed wrongly or not match.
func (s *subnet) parse(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	s.present = true
	s.family, s.source = binary.BigEndian.Uint16(b), b[2]
	most := 0
	switch s.family {
	case 1:
		most = 32
	case 2:
		most = 128
	default:
		return false // RFC 7871 section 7.2.1
	}
	addr := b[4:]
	if b[3] != 0 || int(s.source) > most || len(addr) != (int(s.source)+7)/8 {
		return false
	}
	s.n = copy(s.addr[:], addr)
	if r := s.source % 8; r != 0 && addr[s.n-1]&(0xff>>r) != 0 {
		return false
	}
	return true
}

// append appends the option as a response has it.
func (s *subnet) append(b []byte, scope int) []byte {
	b = binary.BigEndian.AppendUint16(b, optionSubnet)
	b = binary.BigEndian.AppendUint16(b, uint16(4+s.n))
	b = binary.BigEndian.AppendUint16(b, s.family)
	b = append(b, s.source, uint8(scope))
	return append(b, s.addr[:s.n]...)
}
