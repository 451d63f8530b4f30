package geodns_test

import (
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/miekg/dns"
)

func ednsRules() []rule {
	plain := pack("mail.example.com A")
	clone := func() []byte { return append([]byte(nil), plain...) }
	return []rule{
		{"RFC 6891 7", "there is no OPT unless the query has one", "", func(c *conf) { c.is(c.ask("mail.example.com A").IsEdns0() == nil, "there is") }},
		{"RFC 6891 6.1.1", "there is one OPT if the query has one", "", func(c *conf) { c.edns(c.ask("mail.example.com A", with())) }},
		{"RFC 6891 6.1.1", "NXDOMAIN has an OPT, too", "", func(c *conf) { c.edns(c.ask("nope.example.com A", with())) }},
		{"RFC 6891 6.1.1", "REFUSED has an OPT, too", "", func(c *conf) { c.edns(c.code(c.ask("example.org A", with()), dns.RcodeRefused)) }},
		{"RFC 6891 6.1.1", "a referral has an OPT, too", "", func(c *conf) { c.edns(c.ask("sub.example.com A", with())) }},
		{"RFC 6891 6.1.3", "a higher version is BADVERS, without data", "", func(c *conf) {
			each(c, []uint8{1, 2, 100, 255}, func(c *conf, v uint8) {
				m := c.ask("mail.example.com A", with(), func(m *dns.Msg) { m.IsEdns0().SetVersion(v) })
				c.code(m, dns.RcodeBadVers)
				c.only(m)
				c.edns(m)
			})
		}},
		{"RFC 6891 6.1.3", "the lower bits of BADVERS are 0", "", func(c *conf) {
			res := c.send(pack("mail.example.com A", with(), func(m *dns.Msg) { m.IsEdns0().SetVersion(1) }))
			c.is(len(res) > 12 && res[3]&15 == 0, "% x", res)
		}},
		{"RFC 6891 6.1.3", "options of a higher version mean nothing", "", func(c *conf) {
			c.code(c.answer(rawOPT(clone(), []byte{0}, 1<<16, []byte{0, 8, 0, 1, 9})), dns.RcodeBadVers)
		}},
		{"RFC 6891 6.1.2", "an unknown option is ignored, and not sent back", "", func(c *conf) {
			m := c.ask("mail.example.com A", with(local(100), local(65001, 1, 2, 3)))
			c.only(c.code(m, 0), "A 192.0.2.25")
			c.is(len(c.edns(m).Option) == 0, "%v", m)
		}},
		{"RFC 6891 6.1.4", "unknown flags are ignored and clear", "", func(c *conf) {
			m := c.answer(rawOPT(clone(), []byte{0}, 0x3fff, nil))
			c.only(c.code(m, 0), "A 192.0.2.25")
			c.is(c.edns(m).Hdr.Ttl&0x3fff == 0, "%x", c.edns(m).Hdr.Ttl)
		}},
		{"RFC 6891 6.1.3", "an extended code in a query means nothing", "", func(c *conf) {
			c.only(c.code(c.answer(rawOPT(clone(), []byte{0}, 0xff<<24, nil)), 0), "A 192.0.2.25")
		}},
		{"RFC 3225 3", "DO comes back", "", func(c *conf) {
			c.is(c.edns(c.ask("mail.example.com A", withDO)).Do(), "it is 0")
			c.is(!c.edns(c.ask("mail.example.com A", with())).Do(), "it is 1 unasked")
		}},
		{"RFC 6891 6.1.1", "two OPT are a format error", "", func(c *conf) {
			c.code(c.answer(rawOPT(rawOPT(clone(), []byte{0}, 0, nil), []byte{0}, 0, nil)), dns.RcodeFormatError)
		}},
		{"RFC 6891 6.1.2", "an OPT away from the root is a format error", "strict", func(c *conf) {
			c.code(c.answer(rawOPT(clone(), []byte("\x01x\x00"), 0, nil)), dns.RcodeFormatError)
		}},
		{"RFC 6891 6.1.1", "an OPT among the answers is a format error", "strict", func(c *conf) {
			b := rawOPT(clone(), []byte{0}, 0, nil)
			b[7], b[11] = 1, 0
			c.code(c.answer(b), dns.RcodeFormatError)
		}},
		{"RFC 6891 6.1.2", "an option that is longer than the OPT is a format error", "", func(c *conf) {
			c.code(c.answer(rawOPT(clone(), []byte{0}, 0, []byte{0, 100, 0, 9, 1})), dns.RcodeFormatError)
		}},
		{"RFC 6891 6.1.2", "an option that is cut short is a format error", "", func(c *conf) {
			for n := 1; n < 4; n++ {
				c.code(c.answer(rawOPT(clone(), []byte{0}, 0, make([]byte, n))), dns.RcodeFormatError)
			}
		}},
		{"RFC 6891 6.1.1", "an OPT is found wherever it is in its section", "", func(c *conf) {
			a := "\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x04\xc0\x00\x02\x01"
			before := append(clone(), a...)
			before[11]++
			c.edns(c.answer(rawOPT(before, []byte{0}, 0, nil)))
			behind := append(rawOPT(clone(), []byte{0}, 0, nil), a...)
			behind[11]++
			c.edns(c.answer(behind))
		}},
		{"RFC 6891 6.2.3", "less than 512 octets means 512", "", func(c *conf) {
			each(c, []uint16{0, 1, 100, 511}, func(c *conf, n uint16) {
				c.only(c.code(c.ask("mail.example.com A", withSize(n)), 0), "A 192.0.2.25")
			})
		}},
		{"RFC 6891 6.2.3", "a response has no more octets than the client takes", "", func(c *conf) {
			for _, n := range []uint16{512, 513, 600, 700, 800, 1232} {
				res := c.send(pack("big.example.com TXT", withSize(n)))
				c.is(len(res) <= int(n), "%d octets of %d", len(res), n)
			}
		}},
		{"RFC 6891 6.2.5", "more than 512 octets are sent to a client that takes them", "", func(c *conf) {
			m := c.ask("big.example.com TXT", withSize(1232))
			c.is(!m.Truncated && len(m.Answer) == 1, "TC")
		}},
		{"RFC 9715 3.1", "the size offered is one that nobody fragments", "", func(c *conf) {
			n := c.edns(c.ask("mail.example.com A", withSize(4096))).UDPSize()
			c.is(n >= 512 && n <= 1452, "it is %d", n)
		}},
		{"RFC 1035 4.2.1", "without EDNS a response has 512 octets at most", "", func(c *conf) {
			res := c.send(pack("big.example.com TXT"))
			c.is(len(res) <= 512 && res[2]&2 != 0, "it has %d, TC %x", len(res), res[2]&2)
		}},
		{"RFC 2181 9", "no set is sent in part", "", func(c *conf) {
			m := c.ask("big.example.com TXT")
			c.is(m.Truncated && len(m.Answer) == 0, "%v", m)
		}},
		{"RFC 6891 7", "a truncated response has an OPT, too", "", func(c *conf) {
			m := c.ask("big.example.com TXT", withSize(512))
			c.is(m.Truncated, "TC is 0")
			c.edns(m)
		}},
		{"RFC 7766 5", "over TCP a response is whole", "", func(c *conf) {
			m := c.tcp("big.example.com TXT")
			c.is(!m.Truncated && len(m.Answer) == 1, "%v", m)
		}},
		{"RFC 5001 2.1", "the server's name is told to those who ask", "nsid", func(c *conf) {
			n := option[*dns.EDNS0_NSID](c.ask("mail.example.com A", with(&dns.EDNS0_NSID{Code: dns.EDNS0NSID})))
			c.is(n != nil && n.Nsid == hex.EncodeToString([]byte("test")), "%v", n)
		}},
		{"RFC 5001 2.1", "the server's name is told to nobody else", "nsid", func(c *conf) {
			c.is(option[*dns.EDNS0_NSID](c.ask("mail.example.com A", with())) == nil, "it is")
		}},
		{"RFC 7830 4", "padding is ignored", "", func(c *conf) {
			c.only(c.code(c.ask("mail.example.com A", with(&dns.EDNS0_PADDING{Padding: make([]byte, 100)})), 0), "A 192.0.2.25")
		}},
		{"RFC 7828 3.2.1", "over UDP nothing is said of idle connections", "", func(c *conf) {
			m := c.ask("mail.example.com A", with(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}))
			c.is(option[*dns.EDNS0_TCP_KEEPALIVE](m) == nil, "it is")
		}},
		{"RFC 7828 3.3.2", "over TCP it is said how long a connection may be idle", "keepalive", func(c *conf) {
			m := c.tcp("mail.example.com A", with(&dns.EDNS0_TCP_KEEPALIVE{Code: dns.EDNS0TCPKEEPALIVE}))
			k := option[*dns.EDNS0_TCP_KEEPALIVE](m)
			c.is(k != nil && k.Timeout > 0, "%v", m)
		}},
		{"RFC 8914 3", "an extended error is sent to nobody without EDNS", "", func(c *conf) {
			c.is(c.ask("example.org A").IsEdns0() == nil, "it is")
		}},
	}
}

// cookie asks with a cookie of some octets and returns the response's.
func (c *conf) cookie(octets ...byte) (*dns.Msg, []byte) {
	c.Helper()
	m := c.ask("mail.example.com A", with(local(dns.EDNS0COOKIE, octets...)))
	if k := option[*dns.EDNS0_COOKIE](m); k != nil {
		b, err := hex.DecodeString(k.Cookie)
		if err != nil {
			c.Fatal(err)
		}
		return m, b
	}
	return m, nil
}

func cookieRules() []rule {
	own := []byte{1, 2, 3, 4, 5, 6, 7, 8}
	return []rule{
		{"RFC 7873 5.2.1", "there is no cookie unless the query has one", "", func(c *conf) {
			c.is(option[*dns.EDNS0_COOKIE](c.ask("mail.example.com A", with())) == nil, "there is")
		}},
		{"RFC 7873 5.2.3", "a client's cookie gets a server's", "cookies", func(c *conf) {
			m, k := c.cookie(own...)
			c.only(c.code(m, 0), "A 192.0.2.25")
			c.is(len(k) >= 16 && len(k) <= 40 && string(k[:8]) == string(own), "% x", k)
		}},
		{"RFC 9018 4", "a server's cookie has 16 octets, version 1", "cookies", func(c *conf) {
			_, k := c.cookie(own...)
			c.is(len(k) == 24 && k[8] == 1 && k[9]|k[10]|k[11] == 0, "% x", k)
		}},
		{"RFC 9018 4.3", "a server's cookie has the time", "cookies", func(c *conf) {
			_, k := c.cookie(own...)
			age := time.Since(time.Unix(int64(binary.BigEndian.Uint32(k[12:])), 0))
			c.is(age > -time.Minute && age < time.Minute, "it is %v old", age)
		}},
		{"RFC 7873 5.2.5", "a server's own cookie is good", "cookies", func(c *conf) {
			_, k := c.cookie(own...)
			m, again := c.cookie(k...)
			c.only(c.code(m, 0), "A 192.0.2.25")
			c.is(string(again[:8]) == string(own) && len(again) == 24, "% x", again)
		}},
		{"RFC 7873 5.2.4", "a wrong server's cookie gets a new one", "cookies", func(c *conf) {
			m, k := c.cookie(append(own, 1, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9)...)
			c.code(m, 0, dns.RcodeBadCookie)
			c.is(len(k) == 24 && k[12] != 9, "% x", k)
		}},
		{"RFC 7873 5.2.4", "a server's cookie of another size gets a new one", "cookies", func(c *conf) {
			m, k := c.cookie(append(own, 1, 2, 3, 4, 5, 6, 7, 8, 9)...)
			c.code(m, 0, dns.RcodeBadCookie)
			c.is(len(k) == 24, "% x", k)
		}},
		{"RFC 7873 6", "another client's cookie gets another server's", "cookies", func(c *conf) {
			_, a := c.cookie(own...)
			_, b := c.cookie(8, 7, 6, 5, 4, 3, 2, 1)
			c.is(string(a[16:]) != string(b[16:]), "they are equal")
		}},
		{"RFC 7873 5.2.2", "a cookie of 1 to 7 octets is a format error", "cookies", func(c *conf) { c.cookieSizes(1, 2, 6, 7) }},
		{"RFC 7873 5.2.2", "a cookie of 9 to 15 octets is a format error", "cookies", func(c *conf) { c.cookieSizes(9, 10, 14, 15) }},
		{"RFC 7873 5.2.2", "a cookie of more than 40 octets is a format error", "cookies", func(c *conf) { c.cookieSizes(41, 100) }},
		{"RFC 7873 5.2.2", "an empty cookie is a format error", "cookies", func(c *conf) { c.cookieSizes(0) }},
		{"RFC 7873 5.4", "a cookie can be had without a question", "cookies", func(c *conf) {
			b := rawOPT([]byte{1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, []byte{0}, 0, append([]byte{0, 10, 0, 8}, own...))
			m := c.code(c.answer(b), 0)
			k := option[*dns.EDNS0_COOKIE](m)
			c.is(k != nil && len(k.Cookie) == 48, "%v", m)
			c.is(len(m.Question)+len(m.Answer) == 0, "%v", m)
		}},
	}
}

func (c *conf) cookieSizes(sizes ...int) {
	c.Helper()
	for _, n := range sizes {
		m, _ := c.cookie(make([]byte, n)...)
		c.code(m, dns.RcodeFormatError)
	}
}
