package geodns_test

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// signed asks with DO over TCP and has each set verified.
func (c *conf) signed(q string, change ...func(*dns.Msg)) *dns.Msg {
	c.Helper()
	m := c.tcp(q, append([]func(*dns.Msg){withDO}, change...)...)
	if err := verify(m, c.s.key); err != nil {
		c.Errorf("%s: %v\n%v", q, err, m)
	}
	return m
}

// nsec returns the NSEC of a name in the authority section.
func (c *conf) nsec(m *dns.Msg, name string) *dns.NSEC {
	c.Helper()
	for _, rr := range m.Ns {
		if n, ok := rr.(*dns.NSEC); ok && strings.EqualFold(n.Hdr.Name, dns.Fqdn(name)) {
			return n
		}
	}
	c.Fatalf("no NSEC of %s:\n%v", name, m)
	return nil
}

// compactOK sets the flag of RFC 9824 section 5.1.
func compactOK(m *dns.Msg) { m.IsEdns0().Hdr.Ttl |= 1 << 14 }

func signedRules() []rule {
	security := []uint16{dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3}
	return []rule{
		{"RFC 4035 3.1", "without DO there are no signatures", "signed", func(c *conf) {
			for _, q := range []string{"mail.example.com A", "nope.example.com A", "sub.example.com A", "example.com SOA"} {
				m := c.ask(q, with())
				for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
					c.is(!slices.Contains(security, rr.Header().Rrtype), "%s: %v", q, rr)
				}
			}
		}},
		{"RFC 4035 3.1", "with DO a set has its signature", "signed", func(c *conf) {
			m := c.signed("mail.example.com A")
			c.only(m, "A 192.0.2.25")
			c.is(len(signatures(m.Answer, "mail.example.com", dns.TypeA)) > 0, "it has none")
		}},
		{"RFC 4034 2.1", "the keys of the zone are served", "signed", func(c *conf) {
			k := c.signed("example.com DNSKEY").Answer[0].(*dns.DNSKEY)
			c.is(k.Protocol == 3 && k.Flags&dns.ZONE != 0, "%v", k)
		}},
		{"RFC 6605 4", "signatures are of ECDSA P-256", "compact", func(c *conf) {
			m := c.signed("mail.example.com A")
			c.is(signatures(m.Answer, "mail.example.com", dns.TypeA)[0].Algorithm == dns.ECDSAP256SHA256, "%v", m)
		}},
		{"RFC 4034 3.1.3", "a signature counts the labels of the owner", "signed", func(c *conf) {
			m := c.signed("a.b.c.example.com TXT")
			c.is(signatures(m.Answer, "a.b.c.example.com", dns.TypeTXT)[0].Labels == 5, "%v", m)
		}},
		{"RFC 4034 3.1.4", "a signature has the set's time to live", "signed", func(c *conf) {
			m := c.signed("mail.example.com A")
			s := signatures(m.Answer, "mail.example.com", dns.TypeA)[0]
			c.is(s.OrigTtl == 300 && s.Hdr.Ttl == 300, "%v", s)
		}},
		{"RFC 4034 3.1.5", "signatures are valid now, and a while from now", "signed", func(c *conf) {
			s := signatures(c.signed("mail.example.com A").Answer, "mail.example.com", dns.TypeA)[0]
			c.is(s.ValidityPeriod(time.Now()) && s.ValidityPeriod(time.Now().Add(24*time.Hour)), "%v", s)
		}},
		{"RFC 4035 2.2", "signatures begin in the past, for slow clocks", "signed", func(c *conf) {
			s := signatures(c.signed("mail.example.com A").Answer, "mail.example.com", dns.TypeA)[0]
			c.is(s.ValidityPeriod(time.Now().Add(-50*time.Minute)), "%v", s)
		}},
		{"RFC 4034 3.1.7", "the signer is the zone", "signed", func(c *conf) {
			s := signatures(c.signed("mail.example.com A").Answer, "mail.example.com", dns.TypeA)[0]
			c.is(strings.EqualFold(s.SignerName, "example.com."), "%v", s)
		}},
		{"RFC 4034 6.2", "a name in capitals has a valid signature", "signed", func(c *conf) { c.signed("MAIL.EXAMPLE.COM A") }},
		{"RFC 4035 2.2", "the NS of a delegation aren't signed", "signed", func(c *conf) {
			m := c.signed("sub.example.com A")
			c.is(len(signatures(m.Ns, "sub.example.com", dns.TypeNS)) == 0, "they are")
			for _, rr := range m.Extra {
				c.is(rr.Header().Rrtype != dns.TypeRRSIG, "glue is: %v", rr)
			}
		}},
		{"RFC 4035 3.1.4", "a signed delegation has its DS", "signed", func(c *conf) {
			m := c.signed("x.signed.example.com A")
			c.is(slices.ContainsFunc(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeDS }), "%v", m)
			c.is(len(signatures(m.Ns, "signed.example.com", dns.TypeDS)) == 1, "it isn't signed")
		}},
		{"RFC 4035 3.1.4", "an unsigned delegation has proof of that", "signed", func(c *conf) {
			n := c.nsec(c.signed("x.sub.example.com A"), "sub.example.com")
			c.is(slices.Contains(n.TypeBitMap, dns.TypeNS) && !slices.Contains(n.TypeBitMap, dns.TypeDS) && !slices.Contains(n.TypeBitMap, dns.TypeSOA), "%v", n)
		}},
		{"RFC 7344 4", "the parent is told what to point to", "compact", func(c *conf) {
			cds := c.signed("example.com CDS").Answer[0].(*dns.CDS)
			want := c.s.key.ToDS(dns.SHA256)
			c.is(strings.EqualFold(cds.Digest, want.Digest) && cds.KeyTag == want.KeyTag, "%v, not %v", cds, want)
			k := c.signed("example.com CDNSKEY").Answer[0].(*dns.CDNSKEY)
			c.is(k.PublicKey == c.s.key.PublicKey, "%v", k)
		}},
		{"RFC 4035 3.1.6", "AD is clear in a signed answer", "signed", func(c *conf) { c.is(!c.signed("mail.example.com A").AuthenticatedData, "it is 1") }},
		{"RFC 8482 4", "ANY has one set and its signature", "signed", func(c *conf) {
			m := c.signed("mail.example.com ANY")
			types := make(map[uint16]bool)
			for _, rr := range m.Answer {
				if rr.Header().Rrtype != dns.TypeRRSIG {
					types[rr.Header().Rrtype] = true
				}
			}
			c.is(len(types) == 1, "%v", m)
		}},
		{"RFC 7871 9", "a signed geo answer has the scope of an unsigned one", "compact", func(c *conf) {
			plain, _ := c.scope("vpn.example.com A", "216.160.83.0/24")
			m := c.signed("vpn.example.com A", with(subnetOf(prefix("216.160.83.0/24"))))
			c.is(int(option[*dns.EDNS0_SUBNET](m).SourceScope) == plain, "%v", m)
		}},
		{"RFC 4035 3.1", "a geo answer is signed for each site", "compact", func(c *conf) {
			for _, p := range []string{"93.1.2.0/24", "81.2.69.0/24", "216.160.83.56/29"} {
				c.signed("vpn.example.com A", with(subnetOf(prefix(p))))
				c.signed("vpn.example.com AAAA", with(subnetOf(prefix(p))))
			}
		}},
		{"RFC 4035 3.1.1", "what is too long with its signature is truncated", "compact", func(c *conf) {
			m := c.ask("big.example.com TXT", func(m *dns.Msg) { m.SetEdns0(700, true) })
			c.is(m.Truncated && len(m.Answer) == 0, "%v", m)
			c.edns(m)
		}},
		{"RFC 4592 4.7", "a wildcard's answer is signed", "signed", func(c *conf) { c.only(c.signed("x.wild.example.com TXT"), `TXT "synthesized"`) }},
		{"RFC 4035 3.1", "an alias and its target are signed", "signed", func(c *conf) {
			m := c.signed("alias.example.com A")
			c.is(len(signatures(m.Answer, "alias.example.com", dns.TypeCNAME)) == 1 && len(signatures(m.Answer, "mail.example.com", dns.TypeA)) == 1, "%v", m)
		}},
	}
}

// denialRules are about proofs that there is nothing. Those of RFC 9824 say so of
// one name at a time.
func denialRules() []rule {
	types := func(n *dns.NSEC, want ...uint16) bool {
		slices.Sort(want)
		return slices.Equal(n.TypeBitMap, want)
	}
	const nxname = 128
	return []rule{
		{"RFC 4035 3.1.3.1", "no such type has proof", "signed", func(c *conf) {
			n := c.nsec(c.signed("mail.example.com TXT"), "mail.example.com")
			c.is(!slices.Contains(n.TypeBitMap, dns.TypeTXT) && slices.Contains(n.TypeBitMap, dns.TypeA), "%v", n)
		}},
		{"RFC 4034 4.1.2", "a proof lists itself and its signature", "signed", func(c *conf) {
			n := c.nsec(c.signed("mail.example.com TXT"), "mail.example.com")
			c.is(slices.Contains(n.TypeBitMap, dns.TypeNSEC) && slices.Contains(n.TypeBitMap, dns.TypeRRSIG), "%v", n)
		}},
		{"RFC 9077 3", "a proof lives as long as a negative answer", "signed", func(c *conf) {
			m := c.signed("mail.example.com TXT")
			c.is(c.nsec(m, "mail.example.com").Hdr.Ttl == c.soa(m).Hdr.Ttl, "%v", m)
		}},
		{"RFC 9824 3.1", "no such type: the name's types but that", "compact", func(c *conf) {
			c.is(types(c.nsec(c.signed("mail.example.com TXT"), "mail.example.com"), dns.TypeA, dns.TypeAAAA, dns.TypeRRSIG, dns.TypeNSEC), "others")
		}},
		{"RFC 9824 3.1", "a proof ends directly behind its name", "compact", func(c *conf) {
			n := c.nsec(c.signed("mail.example.com TXT"), "mail.example.com")
			c.is(n.NextDomain == `\000.mail.example.com.`, "%v", n)
		}},
		{"RFC 9824 3.2", "no such name: NXNAME, and NOERROR", "compact", func(c *conf) {
			m := c.code(c.signed("nope.example.com A"), 0)
			n := c.nsec(m, "nope.example.com")
			c.is(types(n, dns.TypeRRSIG, dns.TypeNSEC, nxname), "%v", n)
		}},
		{"RFC 9824 3.3", "a name with names below it is none without a name", "compact", func(c *conf) {
			n := c.nsec(c.signed("b.c.example.com A"), "b.c.example.com")
			c.is(types(n, dns.TypeRRSIG, dns.TypeNSEC), "%v", n)
		}},
		{"RFC 9824 3.4", "no such type at a wildcard's name", "compact", func(c *conf) {
			n := c.nsec(c.signed("x.wild.example.com A"), "x.wild.example.com")
			c.is(types(n, dns.TypeTXT, dns.TypeRRSIG, dns.TypeNSEC), "%v", n)
		}},
		{"RFC 9824 3.5", "NXNAME is no type to ask for", "compact", func(c *conf) {
			m := c.ask("mail.example.com A", withDO, func(m *dns.Msg) { m.Question[0].Qtype = nxname })
			c.code(m, dns.RcodeFormatError)
			e := option[*dns.EDNS0_EDE](m)
			c.is(e != nil && e.InfoCode == 30, "%v", m)
		}},
		{"RFC 9824 5.1", "clients that know of it get NXDOMAIN", "compact", func(c *conf) {
			m := c.tcp("nope.example.com A", withDO, compactOK)
			c.nxdomain(m)
			c.is(types(c.nsec(m, "nope.example.com"), dns.TypeRRSIG, dns.TypeNSEC, nxname), "%v", m)
		}},
		{"RFC 9824 4", "without DO no such name is NXDOMAIN", "compact", func(c *conf) { c.nxdomain(c.ask("nope.example.com A", with())) }},
		{"RFC 4035 3.1.4.1", "no DS at a delegation has proof by the parent", "signed", func(c *conf) {
			n := c.nsec(c.signed("sub.example.com DS"), "sub.example.com")
			c.is(slices.Contains(n.TypeBitMap, dns.TypeNS) && !slices.Contains(n.TypeBitMap, dns.TypeDS), "%v", n)
		}},
		{"RFC 4035 2.3", "the proof at the zone's name lists its types", "compact", func(c *conf) {
			n := c.nsec(c.signed("example.com TXT"), "example.com")
			c.is(types(n, dns.TypeNS, dns.TypeSOA, dns.TypeMX, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY), "%v", n)
		}},
		{"RFC 9824 3.1", "the proof at a geo name lists addresses, too", "compact", func(c *conf) {
			n := c.nsec(c.signed("vpn.example.com MX"), "vpn.example.com")
			c.is(types(n, dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeHTTPS, dns.TypeRRSIG, dns.TypeNSEC), "%v", n)
		}},
		{"RFC 9824 3.1", "a site without addresses of a family denies that alone", "compact", func(c *conf) {
			m := c.signed("vpn.example.com AAAA", with(subnetOf(prefix("216.160.83.56/29"))))
			c.only(m)
			n := c.nsec(m, "vpn.example.com")
			c.is(slices.Contains(n.TypeBitMap, dns.TypeA) && !slices.Contains(n.TypeBitMap, dns.TypeAAAA), "%v", n)
		}},
		{"RFC 8198 5.3", "what one site hasn't is no proof for the clients of another", "compact", func(c *conf) {
			m := c.signed("vpn.example.com AAAA", with(subnetOf(prefix("216.160.83.56/29"))))
			c.is(c.nsec(m, "vpn.example.com").Hdr.Ttl == 0, "%v", m)
			m = c.signed("vpn.example.com MX") // what no site has may be kept
			c.is(c.nsec(m, "vpn.example.com").Hdr.Ttl == 60, "%v", m)
		}},
		{"RFC 4035 2.3", "the proof of a name can be asked for", "signed", func(c *conf) {
			m := c.code(c.signed("mail.example.com NSEC"), 0)
			c.is(len(m.Answer) == 2 && m.Answer[0].Header().Rrtype == dns.TypeNSEC && m.Answer[1].Header().Rrtype == dns.TypeRRSIG, "%v", m)
			m = c.code(c.signed("alias.example.com NSEC"), 0)
			c.is(len(m.Answer) == 2 && m.Answer[0].Header().Rrtype == dns.TypeNSEC, "an alias has one, too:\n%v", m)
		}},
		{"RFC 4035 2.2", "a signature can be asked for", "signed", func(c *conf) {
			m := c.code(c.tcp("mail.example.com RRSIG", withDO), 0)
			c.is(len(m.Answer) > 0 && m.Answer[0].Header().Rrtype == dns.TypeRRSIG, "%v", m)
		}},
		{"RFC 9824 3.2", "the proof of no name can be asked for", "compact", func(c *conf) {
			for _, name := range []string{"nope.example.com", "x.wild.example.com", "vpn.example.com"} {
				m := c.code(c.signed(name+" NSEC"), 0)
				c.is(len(m.Answer) == 2 && len(m.Ns) == 0, "%v", m)
				m = c.code(c.tcp(name+" RRSIG", withDO, compactOK), 0)
				c.is(len(m.Answer) == 1 && m.Answer[0].Header().Rrtype == dns.TypeRRSIG, "%v", m)
			}
		}},
		{"RFC 4035 5.4", "the longest name has its proof", "compact", func(c *conf) {
			l := strings.Repeat("x", 63)
			c.signed(l + "." + l + "." + l + "." + strings.Repeat("x", 49) + ".example.com A")
		}},
	}
}
