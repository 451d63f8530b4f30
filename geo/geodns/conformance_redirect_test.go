package geodns_test

import (
	"strings"
	"testing"

	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

// redirectRules are about DNAME, which has all names below one be others.
func redirectRules() []rule {
	return []rule{
		{"RFC 6672 3.2", "below a DNAME there is an alias", "dname", func(c *conf) {
			m := c.code(c.ask("x.y.moved.example.com A"), 0)
			c.only(m, "DNAME elsewhere.example.net.", "CNAME x.y.elsewhere.example.net.")
			c.is(m.Authoritative, "AA is 0")
			c.is(strings.EqualFold(m.Answer[1].Header().Name, "x.y.moved.example.com."), "%v", m)
			c.is(m.Answer[1].Header().Ttl == m.Answer[0].Header().Ttl, "%v", m)
		}},
		{"RFC 6672 3.2", "an alias made of a DNAME is followed", "dname", func(c *conf) {
			c.only(c.ask("a.b.old.example.com TXT"), "DNAME c.example.com.", "CNAME a.b.c.example.com.", `TXT "deep"`)
		}},
		{"RFC 6672 3.2", "an alias made of a DNAME keeps the case", "dname", func(c *conf) {
			m := c.ask("FoO.moved.example.com A")
			c.is(m.Answer[1].(*dns.CNAME).Target == "FoO.elsewhere.example.net.", "%v", m)
		}},
		{"RFC 6672 3.2", "an alias made of a DNAME can be asked for", "dname", func(c *conf) {
			c.only(c.ask("a.b.old.example.com CNAME"), "DNAME c.example.com.", "CNAME a.b.c.example.com.")
		}},
		{"RFC 6672 2.3", "a DNAME doesn't redirect its own name", "dname", func(c *conf) {
			c.only(c.ask("moved.example.com DNAME"), "DNAME elsewhere.example.net.")
			c.nodata(c.ask("moved.example.com A"))
		}},
		{"RFC 6672 2.2", "what would be too long is YXDOMAIN", "dname", func(c *conf) {
			l := strings.Repeat("x", 63)
			m := c.code(c.ask(l+"."+l+".far.example.com A"), dns.RcodeYXDomain)
			c.is(len(m.Answer) == 1 && m.Answer[0].Header().Rrtype == dns.TypeDNAME, "%v", m)
		}},
		{"RFC 6672 5.3.1", "the alias made of a DNAME isn't signed, but all else", "signed", func(c *conf) {
			m := c.tcp("a.b.old.example.com TXT", withDO)
			var rest []dns.RR
			for _, rr := range m.Answer {
				switch rr := rr.(type) {
				case *dns.CNAME:
					continue
				case *dns.RRSIG:
					c.is(rr.TypeCovered != dns.TypeCNAME, "%v", rr)
				}
				rest = append(rest, rr)
			}
			c.is(len(rest) == 4, "%v", m)
			m.Answer = rest
			if err := verify(m, c.s.key); err != nil {
				c.Errorf("%v\n%v", err, m)
			}
		}},
	}
}

// TestZonesWithWrongRedirects are refused: some of their records nobody would get.
func TestZonesWithWrongRedirects(t *testing.T) {
	const head = "$TTL 60\n@ SOA ns h 1 2 3 4 60\n@ NS ns.example.net.\n"
	for text, want := range map[string]string{
		"old DNAME a.example.net.\nold DNAME b.example.net.\n": "old.example.com. has 2 DNAME",
		"old DNAME a.example.net.\nx.y.old A 192.0.2.1\n":      "x.y.old.example.com. is below old.example.com., which has a DNAME",
		"old DNAME a.example.net.\nold NS ns.example.net.\n":   "old.example.com. has a DNAME and is delegated",
		"old DNAME a.example.net.\nold CNAME b.example.net.\n": "CNAME beside other records",
		"@ DNAME example.net.\nwww A 192.0.2.1\n":              "www.example.com. is below example.com.",
	} {
		_, err := geodns.ParseZone(strings.NewReader(head+text), "example.com", "zone")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	z := parseZone(t, "example.com", head+"old DNAME a.example.net.\n")
	var s geodns.Server
	err := s.Set([]*geodns.Zone{z}, []*geodns.Name{{Name: "vpn.old.example.com"}})
	if err == nil || !strings.Contains(err.Error(), "below the DNAME of old.example.com.") {
		t.Error(err)
	}
	var many strings.Builder
	for i := range 300 {
		many.WriteString("sub NS " + strings.Repeat("x", 1+i%50) + strings.Repeat("y", 1+i/50) + ".example.net.\n")
	}
	if err := s.Set([]*geodns.Zone{parseZone(t, "example.com", head+many.String())}, nil); err == nil || !strings.Contains(err.Error(), "more name servers than") {
		t.Error(err)
	}
}
