package geodns_test

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// rawSubnet is a client-subnet option as given.
func rawSubnet(family uint16, source, scope uint8, addr ...byte) dns.EDNS0 {
	return local(dns.EDNS0SUBNET, append([]byte{byte(family >> 8), byte(family), source, scope}, addr...)...)
}

// subnetOf is the option for a prefix, with its address cut as RFC 7871 section 6
// has it.
func subnetOf(p netip.Prefix) dns.EDNS0 {
	family := uint16(1)
	if p.Addr().Is6() {
		family = 2
	}
	return rawSubnet(family, uint8(p.Bits()), 0, p.Masked().Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

// scope asks about a subnet and returns the answer's scope and addresses.
func (c *conf) scope(q, subnet string) (scope int, addrs string) {
	c.Helper()
	m := c.ask(q, with(subnetOf(prefix(subnet))))
	s := option[*dns.EDNS0_SUBNET](m)
	if s == nil {
		c.Fatalf("%s %s: the answer has no subnet:\n%v", q, subnet, m)
	}
	return int(s.SourceScope), addrsOf(m)
}

// addrsOf returns the addresses of an answer, sorted.
func addrsOf(m *dns.Msg) string {
	var list []string
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			list = append(list, rr.A.String())
		case *dns.AAAA:
			list = append(list, rr.AAAA.String())
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func subnetRules() []rule {
	const vpn = "vpn.example.com A"
	formErr := func(c *conf, o dns.EDNS0) {
		c.Helper()
		m := c.code(c.ask(vpn, with(o)), dns.RcodeFormatError)
		c.only(m)
	}
	zero := func(c *conf, q string) {
		c.Helper()
		s, _ := c.scope(q, "93.1.2.0/24")
		c.is(s == 0, "%s: the scope is %d", q, s)
	}
	return []rule{
		{"RFC 7871 7.2.1", "there is no subnet unless the query has one", "ecs", func(c *conf) {
			c.is(option[*dns.EDNS0_SUBNET](c.ask(vpn, with())) == nil, "there is")
		}},
		{"RFC 7871 7.2.1", "family, source and address of IPv4 come back as they are", "ecs", func(c *conf) {
			each(c, []string{"93.1.2.0/24", "93.1.2.128/25", "93.1.2.3/32", "93.1.2.2/31", "93.0.0.0/8", "93.0.0.0/9", "80.0.0.0/5", "128.0.0.0/1", "93.1.2.0/23"}, (*conf).echo)
		}},
		{"RFC 7871 7.2.1", "family, source and address of IPv6 come back as they are", "ecs", func(c *conf) {
			each(c, []string{"2a02:d180::/56", "2a02:d180::/29", "2a02:d180:1:2:3:4:5:6/128", "2a02:d180:1::/48", "2a02:d180:1:1::/63", "2000::/3"}, (*conf).echo)
		}},
		{"RFC 7871 6", "the address has no more octets than the source needs", "ecs", func(c *conf) {
			res := c.send(pack(vpn, with(subnetOf(prefix("93.1.0.0/17")))))
			c.is(bytes.Contains(res, []byte{0, 8, 0, 7, 0, 1, 17}), "% x", res)
		}},
		{"RFC 7871 7.2.1", "clients of different places get different answers", "geo", func(c *conf) {
			_, de := c.scope(vpn, "93.1.2.0/24")
			_, gb := c.scope(vpn, "81.2.69.0/24")
			_, us := c.scope(vpn, "216.160.83.56/29")
			c.is(de != gb && gb != us && us != de && de != "" && gb != "" && us != "", "Germany %s, Britain %s, USA %s", de, gb, us)
		}},
		{"RFC 7871 7.2.1", "a scope may be longer than the source", "geo", func(c *conf) {
			s, _ := c.scope(vpn, "216.160.83.0/24")
			c.is(s == 27, "it is %d, though 216.160.83.56/29 gets another answer", s) // 216.160.83.0/27 is the longest without it
		}},
		{"RFC 7871 7.2.1", "a scope may be shorter than the source", "geo", func(c *conf) {
			s, _ := c.scope(vpn, "93.1.2.3/32")
			c.is(s < 32 && s > 0, "it is %d", s)
		}},
		{"RFC 7871 7.2.1", "all of a scope get the same", "geo", func(c *conf) {
			for _, a := range []string{"93.1.2.3", "81.2.69.142", "216.160.83.57", "216.160.83.1", "8.8.8.8", "1.0.0.1"} {
				s, want := c.scope(vpn, a+"/32")
				p, _ := addr(a).Prefix(s)
				for _, in := range samples(p) {
					got, have := c.scope(vpn, in.String()+"/32")
					c.is(have == want && got == s, "%s gets %s /%d, but %v, in its scope, %s /%d", a, want, s, in, have, got)
				}
			}
		}},
		{"RFC 7871 7.2.1", "both families get the same site", "geo both", func(c *conf) {
			s, _ := c.scope(vpn, "81.2.69.0/24")
			s6, _ := c.scope("vpn.example.com AAAA", "81.2.69.0/24")
			c.is(s == s6, "scope %d for A, %d for AAAA", s, s6)
		}},
		{"RFC 7871 7.1.2", "a source of 0 has scope 0", "ecs", func(c *conf) {
			for _, f := range []uint16{1, 2} {
				m := c.code(c.ask(vpn, with(rawSubnet(f, 0, 0))), 0)
				s := option[*dns.EDNS0_SUBNET](m)
				c.is(s != nil && s.SourceScope == 0 && s.SourceNetmask == 0 && s.Family == f, "%v", m)
				c.is(addrsOf(m) != "", "no answer")
			}
		}},
		{"RFC 7871 7.2.1", "an unknown family is a format error", "ecs", func(c *conf) {
			formErr(c, rawSubnet(3, 24, 0, 93, 1, 2))
			formErr(c, rawSubnet(0xffff, 8, 0, 93))
		}},
		{"RFC 7871 6", "an address that is too short is a format error", "ecs", func(c *conf) { formErr(c, rawSubnet(1, 24, 0, 93, 1)) }},
		{"RFC 7871 6", "an address that is too long is a format error", "ecs strict", func(c *conf) { formErr(c, rawSubnet(1, 24, 0, 93, 1, 2, 0)) }},
		{"RFC 7871 6", "bits behind the source are a format error", "ecs strict", func(c *conf) {
			formErr(c, rawSubnet(1, 23, 0, 93, 1, 3))
			formErr(c, rawSubnet(2, 33, 0, 0x2a, 2, 0xd1, 0x80, 0x40))
		}},
		{"RFC 7871 6", "a source longer than an address is a format error", "ecs", func(c *conf) {
			formErr(c, rawSubnet(1, 33, 0, 93, 1, 2, 3, 4))
			formErr(c, rawSubnet(2, 129, 0, make([]byte, 17)...))
		}},
		{"RFC 7871 6", "a scope in a query is a format error", "ecs strict", func(c *conf) { formErr(c, rawSubnet(1, 24, 24, 93, 1, 2)) }},
		{"RFC 7871 6", "an option without its fixed part is a format error", "ecs", func(c *conf) {
			for n := range 4 {
				formErr(c, local(dns.EDNS0SUBNET, make([]byte, n)...))
			}
		}},
		{"RFC 7871 7.2.1", "two subnets are a format error", "ecs strict", func(c *conf) {
			m := c.ask(vpn, with(subnetOf(prefix("93.1.2.0/24")), subnetOf(prefix("81.2.69.0/24"))))
			c.code(m, dns.RcodeFormatError)
		}},
		{"RFC 7871 7.2.1", "what is for all has scope 0", "ecs", func(c *conf) { zero(c, "mail.example.com A") }},
		{"RFC 7871 7.4", "no such name has scope 0", "ecs", func(c *conf) { zero(c, "nope.example.com A") }},
		{"RFC 7871 7.4", "no such type has scope 0", "ecs", func(c *conf) { zero(c, "mail.example.com MX") }},
		{"RFC 7871 7.4", "no such type of a geo name has scope 0", "geo", func(c *conf) { zero(c, "vpn.example.com MX") }},
		{"RFC 7871 7.2.1", "a referral has scope 0", "ecs", func(c *conf) { zero(c, "x.sub.example.com A") }},
		{"RFC 7871 9", "the records of the zone itself have scope 0", "ecs", func(c *conf) {
			for _, t := range []string{"SOA", "NS", "DNSKEY"} {
				zero(c, "example.com "+t)
			}
		}},
		{"RFC 7871 7.2.1", "an alias isn't followed to a geo name", "geo chain", func(c *conf) {
			m := c.ask("tovpn.example.com A", with(subnetOf(prefix("93.1.2.0/24"))))
			c.only(m, "CNAME vpn.example.com.")
			c.is(option[*dns.EDNS0_SUBNET](m).SourceScope == 0, "its scope is not 0")
		}},
	}
}

// echo wants a subnet to come back as it was.
func (c *conf) echo(subnet string) {
	c.Helper()
	o := subnetOf(prefix(subnet)).(*dns.EDNS0_LOCAL)
	want := append([]byte{0, 8, 0, byte(len(o.Data))}, o.Data[:3]...)
	res := c.send(pack("vpn.example.com A", with(o)))
	i := bytes.Index(res, want)
	c.is(i >= 0 && len(res) >= i+4+len(o.Data) && bytes.Equal(res[i+8:i+4+len(o.Data)], o.Data[4:]), "%s came back as % x", subnet, res)
}

// samples are addresses of a prefix: the first, the last and some between.
func samples(p netip.Prefix) (list []netip.Addr) {
	for _, fill := range [][]byte{{0}, {0xff}, {0x55}, {0xaa}, {0x0f}, {0xf0}, {1}, {0x80, 0}} {
		b := p.Masked().Addr().AsSlice()
		for i := p.Bits(); i < len(b)*8; i++ {
			b[i/8] |= fill[i/8%len(fill)] & (0x80 >> (i % 8))
		}
		a, _ := netip.AddrFromSlice(b)
		list = append(list, a)
	}
	return list
}
