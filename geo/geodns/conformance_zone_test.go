package geodns_test

import (
	"strings"

	"github.com/miekg/dns"
)

func zoneRules() []rule {
	return []rule{
		{"RFC 1034 4.3.2", "a record is answered", "", func(c *conf) { c.only(c.code(c.ask("mail.example.com A"), 0), "A 192.0.2.25") }},
		{"RFC 3596 2.2", "an address of IPv6 is answered", "", func(c *conf) { c.only(c.code(c.ask("mail.example.com AAAA"), 0), "AAAA 2001:db8::25") }},
		{"RFC 1034 3.6", "a set is answered as a whole", "", func(c *conf) { c.only(c.ask("two.example.com A"), "A 192.0.2.41", "A 192.0.2.42") }},
		{"RFC 2181 5.2", "records of a set live equally long", "", func(c *conf) {
			m := c.ask("two.example.com A")
			c.is(m.Answer[0].Header().Ttl == m.Answer[1].Header().Ttl, "%v", m.Answer)
		}},
		{"RFC 1034 4.3.4", "the SOA of the zone is answered", "", func(c *conf) {
			m := c.ask("example.com SOA")
			c.is(m.Answer[0].(*dns.SOA).Serial >= 2026112101, "%v", m)
		}},
		{"RFC 1034 4.2.1", "the servers of the zone are answered", "", func(c *conf) {
			c.only(c.ask("example.com NS"), "NS ns1.example.com.", "NS ns2.example.com.")
		}},
		{"RFC 2308 2.2", "no such type: NOERROR, and the SOA", "", func(c *conf) { c.nodata(c.ask("mail.example.com TXT")) }},
		{"RFC 2308 2.1", "no such name: NXDOMAIN, and the SOA", "", func(c *conf) { c.nxdomain(c.ask("nope.example.com A")) }},
		{"RFC 2308 3", "a negative answer lives as long as the SOA's minimum", "", func(c *conf) {
			// gdnsd and others bound it by one of the two, as RFC 2308 section 5 has it.
			c.is(c.soa(c.ask("nope.example.com A")).Hdr.Ttl == 60, "NXDOMAIN lives %d s", c.soa(c.ask("nope.example.com A")).Hdr.Ttl)
			c.is(c.soa(c.ask("mail.example.com TXT")).Hdr.Ttl == 60, "NODATA lives longer than 60 s")
		}},
		{"RFC 8020 2", "a name with names below it is there", "", func(c *conf) {
			c.nodata(c.ask("b.c.example.com A"))
			c.nodata(c.ask("c.example.com A"))
		}},
		{"RFC 8020 2", "below a name without children there is none", "", func(c *conf) { c.nxdomain(c.ask("x.y.mail.example.com A")) }},
		{"RFC 1034 4.3.2", "beside the name below another there is none", "", func(c *conf) { c.nxdomain(c.ask("x.b.c.example.com TXT")) }},
		{"RFC 1034 3.6.2", "an alias to elsewhere is answered by itself", "", func(c *conf) {
			m := c.code(c.ask("www.example.com A"), 0)
			c.only(m, "CNAME web.example.net.")
			c.is(m.Authoritative, "AA is 0")
		}},
		{"RFC 2308 2.2", "an alias to elsewhere has no SOA behind it", "", func(c *conf) {
			for _, rr := range c.ask("www.example.com A").Ns {
				c.is(rr.Header().Rrtype != dns.TypeSOA, "it has, which means no such type")
			}
		}},
		{"RFC 1034 3.6.2", "an alias within the zone is followed", "", func(c *conf) {
			c.only(c.ask("alias.example.com A"), "CNAME mail.example.com.", "A 192.0.2.25")
		}},
		{"RFC 1034 3.6.2", "an alias itself can be asked for", "", func(c *conf) { c.only(c.ask("alias.example.com CNAME"), "CNAME mail.example.com.") }},
		{"RFC 2308 2.2.1", "an alias to a name without the type has the SOA behind it", "", func(c *conf) {
			m := c.code(c.ask("alias.example.com TXT"), 0)
			c.only(m, "CNAME mail.example.com.")
			c.soa(m)
		}},
		{"RFC 6604 3", "an alias to no name is NXDOMAIN", "", func(c *conf) {
			m := c.code(c.ask("tonx.example.com A"), dns.RcodeNameError)
			c.only(m, "CNAME nope.example.com.")
			c.soa(m)
		}},
		{"RFC 1034 3.6.2", "a ring of aliases ends", "rings", func(c *conf) {
			m := c.ask("loop1.example.com A")
			c.is(len(m.Answer) > 0 && len(m.Answer) < 20, "%d records", len(m.Answer))
		}},
		{"RFC 4592 3.3.1", "a wildcard makes a name", "", func(c *conf) {
			m := c.ask("x.wild.example.com TXT")
			c.only(m, `TXT "synthesized"`)
			c.is(strings.EqualFold(m.Answer[0].Header().Name, "x.wild.example.com."), "its owner is %s", m.Answer[0].Header().Name)
		}},
		{"RFC 4592 3.3.1", "a wildcard makes a name of several labels", "", func(c *conf) { c.only(c.ask("x.y.z.wild.example.com TXT"), `TXT "synthesized"`) }},
		{"RFC 4592 2.2.2", "a wildcard has its types only", "", func(c *conf) { c.nodata(c.ask("x.wild.example.com A")) }},
		{"RFC 4592 2.2.1", "a name that is there isn't made", "", func(c *conf) { c.nodata(c.ask("host.wild.example.com TXT")) }},
		{"RFC 4592 2.2.1", "below a name that is there nothing is made", "", func(c *conf) { c.nxdomain(c.ask("x.host.wild.example.com TXT")) }},
		{"RFC 4592 2.2.2", "a wildcard's parent is there", "", func(c *conf) { c.nodata(c.ask("wild.example.com TXT")) }},
		{"RFC 4592 2.3", "a wildcard can be asked for by itself", "", func(c *conf) { c.only(c.ask("*.wild.example.com TXT"), `TXT "synthesized"`) }},
		{"RFC 4592 4.3", "a wildcard makes an alias", "", func(c *conf) {
			m := c.ask("q.wc.example.com A")
			c.only(m, "CNAME mail.example.com.", "A 192.0.2.25")
		}},
		{"RFC 1034 4.3.2", "a delegation is a referral", "", func(c *conf) { c.referral("sub.example.com A", "sub.example.com.") }},
		{"RFC 1034 4.3.2", "below a delegation there is a referral", "", func(c *conf) { c.referral("x.y.sub.example.com A", "sub.example.com.") }},
		{"RFC 2181 5.4.1", "glue isn't answered as data", "", func(c *conf) { c.referral("ns.sub.example.com A", "sub.example.com.") }},
		{"RFC 1034 4.2.2", "the NS of a delegation aren't authoritative", "", func(c *conf) { c.referral("sub.example.com NS", "sub.example.com.") }},
		{"RFC 9471 2.1", "a referral has the addresses below it", "", func(c *conf) {
			m := c.ask("sub.example.com A")
			found := false
			for _, rr := range m.Extra {
				if a, ok := rr.(*dns.A); ok {
					found = found || a.A.String() == "192.0.2.99"
				}
			}
			c.is(found, "no glue:\n%v", m)
		}},
		{"RFC 4035 3.1.4.1", "the parent answers for DS", "ds", func(c *conf) {
			m := c.code(c.ask("signed.example.com DS"), 0)
			c.is(len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeDS && m.Authoritative, "it doesn't:\n%v", m)
		}},
		{"RFC 4035 3.1.4.1", "the parent answers that there is no DS", "ds", func(c *conf) { c.nodata(c.ask("sub.example.com DS")) }},
		{"RFC 1034 4.3.2", "what isn't served is refused, without data", "", func(c *conf) {
			for _, q := range []string{"example.org A", "com NS", "example.com.example.net SOA", "notexample.com A"} {
				m := c.code(c.ask(q), dns.RcodeRefused)
				c.is(len(m.Answer)+len(m.Ns) == 0, "%s: there is data", q)
			}
		}},
		{"RFC 9460 2", "HTTPS records are served", "https", func(c *conf) {
			m := c.code(c.ask("vpn.example.com HTTPS"), 0)
			c.is(len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeHTTPS, "%v", m)
		}},
		{"RFC 1034 4.3.2", "a geo name has no other types", "geo", func(c *conf) { c.nodata(c.ask("vpn.example.com MX")) }},
		{"RFC 1034 4.3.2", "below a geo name there is none", "geo", func(c *conf) { c.nxdomain(c.ask("x.vpn.example.com A")) }},
	}
}

// referral wants to be sent to the servers of a zone.
func (c *conf) referral(q, zone string) {
	c.Helper()
	m := c.code(c.ask(q), 0)
	c.is(!m.Authoritative, "AA is 1")
	c.only(m)
	n := 0
	for _, rr := range m.Ns {
		switch rr.Header().Rrtype {
		case dns.TypeNS:
			n++
			c.is(strings.EqualFold(rr.Header().Name, zone), "%v", rr)
		case dns.TypeSOA:
			c.Error("there is a SOA")
		}
	}
	c.is(n == 2, "%d NS:\n%v", n, m)
}
