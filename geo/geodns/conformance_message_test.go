package geodns_test

import (
	"bytes"
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"
)

// flagged makes a query whose flags are those given too.
func flagged(q string, flags uint16) []byte {
	b := pack(q)
	binary.BigEndian.PutUint16(b[2:], binary.BigEndian.Uint16(b[2:])|flags)
	return b
}

// named makes a query for A of a name as on the wire.
func named(wire string) []byte {
	b := append([]byte{0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, wire...)
	return append(b, 0, 1, 0, 1)
}

const (
	apex = "\x07example\x03com\x00"
	mail = "\x04mail" + apex
)

func headerRules() []rule {
	return []rule{
		{"RFC 1035 4.1.1", "the ID comes back", "", func(c *conf) {
			each(c, []uint16{0, 1, 0x8000, 0xffff}, func(c *conf, id uint16) {
				c.ask("mail.example.com A", func(m *dns.Msg) { m.Id = id })
			})
		}},
		{"RFC 1035 4.1.1", "a response isn't answered", "", func(c *conf) {
			c.is(c.send(flagged("mail.example.com A", 0x8000)) == nil, "it is")
		}},
		{"RFC 1035 4.1.1", "inverse queries aren't implemented", "", func(c *conf) { c.opcode(1) }},
		{"RFC 1035 4.1.1", "status isn't implemented", "", func(c *conf) { c.opcode(2) }},
		{"RFC 1035 4.1.1", "opcode 3 isn't implemented", "", func(c *conf) { c.opcode(3) }},
		{"RFC 1996 3.12", "a NOTIFY of anybody isn't accepted", "", func(c *conf) { c.opcode(4) }},
		{"RFC 2136 3.1", "an UPDATE of anybody isn't accepted", "", func(c *conf) { c.opcode(5) }},
		{"RFC 8490 5.1", "stateful operations aren't implemented", "", func(c *conf) { c.opcode(6) }},
		{"RFC 6895 2.2", "unassigned opcodes aren't implemented", "", func(c *conf) {
			each(c, []int{7, 8, 9, 10, 11, 12, 13, 14, 15}, (*conf).opcode)
		}},
		{"RFC 1035 4.1.1", "AA says that an answer is authoritative", "", func(c *conf) {
			c.is(c.ask("mail.example.com A").Authoritative, "it is 0")
		}},
		{"RFC 1035 4.1.1", "AA is clear for what isn't served", "", func(c *conf) {
			c.is(!c.ask("example.org A").Authoritative, "it is 1")
		}},
		{"RFC 1035 4.1.1", "AA in a query means nothing", "", func(c *conf) {
			m := c.answer(flagged("example.org A", 0x0400))
			c.is(!m.Authoritative, "it comes back")
		}},
		{"RFC 1035 4.1.1", "RD comes back", "", func(c *conf) {
			c.is(c.answer(flagged("mail.example.com A", 0x0100)).RecursionDesired, "it is 0")
			c.is(!c.ask("mail.example.com A").RecursionDesired, "it is 1 unasked")
		}},
		{"RFC 1035 4.1.1", "RA is clear, whatever is desired", "", func(c *conf) {
			c.is(!c.answer(flagged("mail.example.com A", 0x0180)).RecursionAvailable, "it is 1")
		}},
		{"RFC 1035 4.1.1", "Z is ignored and clear", "", func(c *conf) {
			c.only(c.answer(flagged("mail.example.com A", 0x0040)), "A 192.0.2.25")
		}},
		{"RFC 4035 3.1.6", "AD is clear in an authoritative answer", "", func(c *conf) {
			m := c.answer(flagged("mail.example.com A", 0x0020))
			c.only(m, "A 192.0.2.25")
			c.is(!m.AuthenticatedData, "it is 1")
		}},
		{"RFC 4035 3.1.6", "CD is clear in an authoritative answer", "", func(c *conf) {
			m := c.answer(flagged("mail.example.com A", 0x0010))
			c.only(m, "A 192.0.2.25")
			c.is(!m.CheckingDisabled, "it is 1")
		}},
		{"RFC 1035 4.1.1", "a response code in a query means nothing", "", func(c *conf) {
			c.only(c.code(c.answer(flagged("mail.example.com A", 3)), 0), "A 192.0.2.25")
		}},
		{"RFC 9619 4", "two questions are a format error", "", func(c *conf) {
			b := pack("mail.example.com A")
			b[5] = 2
			c.code(c.answer(append(b, b[12:]...)), dns.RcodeFormatError)
		}},
		{"RFC 9619 4", "no question is a format error", "", func(c *conf) {
			c.code(c.answer([]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}), dns.RcodeFormatError)
		}},
		{"RFC 9619 4", "65,535 questions are a format error", "", func(c *conf) {
			b := pack("mail.example.com A")
			b[4], b[5] = 255, 255
			c.code(c.answer(b), dns.RcodeFormatError)
		}},
		{"RFC 1035 4.1.1", "what is shorter than a header isn't answered", "", func(c *conf) {
			each(c, []int{0, 1, 2, 5, 11}, func(c *conf, n int) {
				c.is(c.send(pack("mail.example.com A")[:n]) == nil, "%d octets are answered", n)
			})
		}},
		{"RFC 1035 4.1.2", "a question that is cut short is never answered with data", "", func(c *conf) {
			whole := pack("mail.example.com A")
			for n := 12; n < len(whole); n++ {
				if res := c.send(whole[:n:n]); res != nil {
					c.is(res[3]&15 == dns.RcodeFormatError, "cut to %d octets: % x", n, res)
				}
			}
		}},
		{"RFC 1035 4.1.1", "records that are counted but missing are a format error", "strict", func(c *conf) {
			for at := 7; at <= 11; at += 2 {
				b := pack("mail.example.com A")
				b[at] = 1
				c.code(c.answer(b), dns.RcodeFormatError)
			}
		}},
		{"RFC 1035 4.1.4", "no response is longer than the query without data", "", func(c *conf) {
			b := pack("example.org A")
			c.is(len(c.send(b)) <= len(b), "REFUSED is longer than its query")
		}},
	}
}

// opcode wants an opcode refused.
func (c *conf) opcode(op int) {
	c.Helper()
	m := c.answer(flagged("example.com SOA", uint16(op)<<11))
	c.code(m, dns.RcodeNotImplemented, dns.RcodeRefused, dns.RcodeNotAuth)
	c.is(len(m.Answer)+len(m.Ns) == 0, "there is data")
}

func nameRules() []rule {
	label := func(n int) string { return string(rune(n)) + strings.Repeat("x", n) }
	return []rule{
		{"RFC 4343 3", "letters of either case are equal", "", func(c *conf) {
			c.only(c.ask("MAIL.eXample.COM A"), "A 192.0.2.25")
		}},
		{"RFC 4343 4.1", "the question comes back in its own case", "", func(c *conf) {
			c.ask("mAiL.ExAmPlE.cOm A") // sane compares
		}},
		{"RFC 1034 3.1", "octets beside letters have no case", "", func(c *conf) {
			c.code(c.answer(named("\x04m\x41i\x6c"+apex)), 0)
			c.code(c.answer(named("\x04mai\x2c"+apex)), dns.RcodeNameError) // l without its bit 6
		}},
		{"RFC 1035 2.3.4", "a label of 63 octets is one", "", func(c *conf) {
			c.nxdomain(c.answer(named(label(63) + apex)))
		}},
		{"RFC 1035 2.3.4", "a name of 255 octets is one", "", func(c *conf) {
			// 13 octets are the zone's.
			c.nxdomain(c.answer(named(label(63) + label(63) + label(63) + label(49) + apex)))
		}},
		{"RFC 1035 2.3.4", "a name of 256 octets is none", "", func(c *conf) {
			c.bad(named(label(63) + label(63) + label(63) + label(50) + apex))
		}},
		{"RFC 1035 2.3.4", "a name of 128 labels is one", "", func(c *conf) {
			c.nxdomain(c.answer(named(strings.Repeat("\x01a", 121) + apex)))
		}},
		{"RFC 6891 5", "labels of the extended kind are refused", "", func(c *conf) { c.bad(named("\x41" + strings.Repeat("x", 65) + apex)) }},
		{"RFC 1035 4.1.4", "labels of the reserved kind are refused", "", func(c *conf) { c.bad(named("\x84mail" + apex)) }},
		{"RFC 1035 4.1.4", "a question that points to itself is refused", "", func(c *conf) { c.bad(named("\xc0\x0c")) }},
		{"RFC 1035 4.1.4", "a question that points forward is refused", "", func(c *conf) { c.bad(named("\xc0\x20")) }},
		{"RFC 1035 4.1.4", "a question that points into the header is refused", "", func(c *conf) { c.bad(named("\x04mail\xc0\x00")) }},
		{"RFC 1035 4.1.4", "a pointer that is cut short is refused", "", func(c *conf) { c.bad(named("\x04mail\xc0")[:18]) }},
		{"RFC 2181 11", "a label may hold a dot", "", func(c *conf) {
			c.nxdomain(c.answer(named("\x05ma.il" + apex)))
			c.nxdomain(c.answer(named("\x03b.c" + apex))) // b.c is there as two labels
		}},
		{"RFC 2181 11", "a label may hold an octet 0", "", func(c *conf) { c.nxdomain(c.answer(named("\x05mai\x00l" + apex))) }},
		{"RFC 2181 11", "a label may hold any octet", "", func(c *conf) {
			for o := 0; o < 256; o += 5 {
				c.nxdomain(c.answer(named("\x03q" + string([]byte{byte(o)}) + "q" + apex)))
			}
		}},
		{"RFC 1035 4.1.4", "the owner in an answer is the name asked", "", func(c *conf) {
			b := c.send(named("\x04MaIl" + apex))
			m := new(dns.Msg)
			if err := m.Unpack(b); err != nil {
				c.Fatal(err)
			}
			c.is(strings.EqualFold(m.Answer[0].Header().Name, "mail.example.com."), "it is %s", m.Answer[0].Header().Name)
		}},
		{"RFC 1034 4.3.1", "the root is refused", "", func(c *conf) {
			m := c.code(c.ask(". NS"), dns.RcodeRefused)
			c.is(len(m.Ns) == 0, "with a referral upwards")
		}},
	}
}

// bad wants a format error, or silence.
func (c *conf) bad(req []byte) {
	c.Helper()
	if res := c.send(req); res != nil {
		c.is(len(res) >= 12 && res[3]&15 == dns.RcodeFormatError && bytes.Equal(res[6:8], []byte{0, 0}), "% x is answered with % x", req, res)
	}
}

func typeRules() []rule {
	classed := func(class uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.Question[0].Qclass = class } }
	noData := func(c *conf, m *dns.Msg) {
		c.Helper()
		c.only(m)
		c.is(m.Rcode != dns.RcodeServerFailure, "SERVFAIL")
	}
	return []rule{
		{"RFC 1035 3.2.4", "of class CH nothing is served", "strict", func(c *conf) {
			c.code(c.ask("version.bind TXT", classed(dns.ClassCHAOS)), dns.RcodeRefused)
		}},
		{"RFC 1035 3.2.4", "of class HS nothing is served", "", func(c *conf) {
			c.code(c.ask("mail.example.com A", classed(dns.ClassHESIOD)), dns.RcodeRefused, dns.RcodeNotImplemented)
		}},
		{"RFC 6895 3.2", "of class NONE nothing is served", "", func(c *conf) {
			noData(c, c.ask("mail.example.com A", classed(dns.ClassNONE)))
		}},
		{"RFC 6895 3.2", "of unassigned classes nothing is served", "", func(c *conf) {
			noData(c, c.ask("mail.example.com A", classed(0)))
			noData(c, c.ask("mail.example.com A", classed(0xfffe)))
		}},
		{"RFC 3597 3", "an unknown type is a type without data", "", func(c *conf) {
			c.nodata(c.ask("mail.example.com A", func(m *dns.Msg) { m.Question[0].Qtype = 65280 }))
		}},
		{"RFC 3597 3", "each type up to 300 is answered", "", func(c *conf) {
			for t := uint16(1); t <= 300; t++ {
				m := c.ask("mail.example.com A", func(m *dns.Msg) { m.Question[0].Qtype = t })
				c.is(m.Rcode != dns.RcodeServerFailure, "type %d: SERVFAIL", t)
			}
		}},
		{"RFC 6891 6.1.1", "OPT is no type to ask for", "", func(c *conf) { noData(c, c.ask("mail.example.com OPT")) }},
		{"RFC 8945 5", "TSIG and TKEY are no types to ask for", "", func(c *conf) {
			noData(c, c.ask("mail.example.com TSIG"))
			noData(c, c.ask("mail.example.com TKEY"))
		}},
		{"RFC 1035 3.2.3", "MAILA and MAILB have no data", "", func(c *conf) {
			noData(c, c.ask("mail.example.com MAILB"))
			noData(c, c.ask("mail.example.com MAILA"))
		}},
		{"RFC 8482 4", "ANY gets one set at most", "", func(c *conf) {
			m := c.code(c.ask("mail.example.com ANY"), 0)
			types := make(map[uint16]bool)
			for _, rr := range m.Answer {
				if t := rr.Header().Rrtype; t != dns.TypeRRSIG {
					types[t] = true
				}
			}
			c.is(len(types) == 1, "it gets %d", len(types))
		}},
		{"RFC 8482 4.1", "ANY of a geo name gets one set at most", "geo", func(c *conf) {
			m := c.code(c.ask("vpn.example.com ANY"), 0)
			for _, rr := range m.Answer {
				c.is(rr.Header().Rrtype == m.Answer[0].Header().Rrtype, "it gets %v", m.Answer)
			}
		}},
		{"RFC 8482 4", "ANY of no name is NXDOMAIN", "", func(c *conf) { c.nxdomain(c.ask("nope.example.com ANY")) }},
		{"RFC 5936 2.2.1", "a transfer is refused", "", func(c *conf) {
			m := c.tcp("example.com AXFR")
			c.is(m.Rcode != 0 && len(m.Answer) == 0, "it begins:\n%v", m)
		}},
		{"RFC 5936 4.2", "over UDP there is no transfer", "", func(c *conf) {
			c.is(len(c.ask("example.com AXFR").Answer) == 0, "there is data")
		}},
		{"RFC 1995 2", "an incremental transfer is refused", "", func(c *conf) {
			m := c.tcp("example.com IXFR", func(m *dns.Msg) {
				soa, _ := dns.NewRR("example.com. 60 SOA ns1.example.com. h.example.com. 1 2 3 4 5")
				m.Ns = []dns.RR{soa}
			})
			for _, rr := range m.Answer { // RFC 1995 section 2: the SOA alone would say that all is new
				c.is(rr.Header().Rrtype == dns.TypeSOA, "there is %v", rr)
			}
		}},
	}
}
