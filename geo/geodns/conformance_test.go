package geodns_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/miekg/dns"
)

// A rule is what a section of an RFC, or an agreement of those who run DNS, has a
// server do.
type rule struct {
	section string // where it is said
	says    string
	needs   string // what a server must have for it: one of the words of a subject
	check   func(c *conf)
}

// A subject is a server to which rules are applied.
type subject struct {
	name, addr string
	has        []string          // of: geo, ecs, signed, compact, cookies, nsid, keepalive
	own        map[string]string // why a rule, by what it says, isn't followed
	key        *dns.DNSKEY
}

// rules returns all of them.
func rules() []rule {
	return slices.Concat(headerRules(), nameRules(), typeRules(), zoneRules(), ednsRules(), cookieRules(), subnetRules(), streamRules(), signedRules(), denialRules(), redirectRules())
}

// conf applies one rule to one subject.
type conf struct {
	*testing.T
	s *subject
}

func (s *subject) run(t *testing.T) {
	for _, r := range rules() {
		t.Run(r.section+": "+r.says, func(t *testing.T) {
			if why := s.own[r.says]; why != "" {
				t.Skip("it has its own way:", why)
			}
			if r.needs != "" && !slices.Contains(s.has, r.needs) {
				t.Skip("it doesn't have " + r.needs)
			}
			r.check(&conf{t, s})
		})
	}
}

const moreZone = `
host.wild A 192.0.2.30
*.wc      CNAME mail
tonx      CNAME nope
two       A 192.0.2.41
two       A 192.0.2.42
six       AAAA 2001:db8::6
moved     DNAME elsewhere.example.net.
old       DNAME c
far       DNAME aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.c
`

// TestConformance applies all rules to this server, unsigned and signed.
func TestConformance(t *testing.T) {
	all := rules()
	t.Logf("%d rules", len(all))
	if len(all) < 120 {
		t.Errorf("%d rules are fewer than 120", len(all))
	}
	seen := make(map[string]bool)
	for _, r := range all {
		if seen[r.says] {
			t.Errorf("%q is said twice", r.says)
		}
		seen[r.says] = true
	}
	ours := []string{"geo", "geo both", "geo chain", "ds", "dname", "https", "rings", "ecs", "ecs strict", "cookies", "nsid", "keepalive", "strict"}
	t.Run("unsigned", func(t *testing.T) {
		w := newWorld(t, conforming(t, nil))
		(&subject{name: "geodns", addr: w.addr, has: ours}).run(t)
	})
	t.Run("signed", func(t *testing.T) {
		key, err := geodns.GenerateKey("example.com")
		if err != nil {
			t.Fatal(err)
		}
		key.Active, key.Announce = true, true
		w := newWorld(t, conforming(t, key))
		s := &subject{name: "geodns", addr: w.addr, has: append(ours, "signed", "compact")}
		s.key = w.ask("example.com", "DNSKEY").Answer[0].(*dns.DNSKEY)
		s.run(t)
	})
}

func conforming(t *testing.T, key *geodns.Key) func(*world, *geo.Policy) {
	return func(w *world, _ *geo.Policy) {
		w.server.CookieSecret = geodns.CookieSecret{1, 2, 3}
		w.zone = parseZone(t, "example.com", zoneText+moreZone)
		if key != nil {
			w.zone.Keys = &geodns.Keys{Keys: []*geodns.Key{key}}
		}
	}
}

// dial connects to the subject.
func (c *conf) dial(network string) net.Conn {
	c.Helper()
	nc, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(c.Context(), network, c.s.addr)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

// send sends octets as a datagram, and a good query behind them. It returns what
// came back to the former; nil if that was nothing.
func (c *conf) send(req []byte) []byte {
	c.Helper()
	nc := c.dial("udp")
	fence := pack("example.com SOA")
	id := fence[:2]
	if len(req) >= 2 {
		binary.BigEndian.PutUint16(id, binary.BigEndian.Uint16(req)^0x5aa5)
	}
	for _, b := range [][]byte{req, fence} {
		if _, err := nc.Write(b); err != nil {
			c.Fatal(err)
		}
	}
	_ = nc.SetReadDeadline(time.Now().Add(5 * time.Second))
	var got []byte
	for fenced := false; !fenced || got == nil; {
		b := make([]byte, 65535)
		n, err := nc.Read(b)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && fenced {
				return got
			}
			c.Fatalf("the query behind % x is not answered: %v", req, err)
		}
		if n >= 2 && bytes.Equal(b[:2], id) {
			fenced = true
			_ = nc.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // others may have several threads
			continue
		}
		got = b[:n]
	}
	return got
}

// pack makes a query of "name type".
func pack(q string, change ...func(*dns.Msg)) []byte {
	name, typ, _ := strings.Cut(q, " ")
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.StringToType[typ])
	m.RecursionDesired = false
	for _, f := range change {
		f(m)
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

// answer sends a request as a datagram and returns the response, having looked at
// what must be right in each.
func (c *conf) answer(req []byte) *dns.Msg {
	c.Helper()
	res := c.send(req)
	if res == nil {
		c.Fatalf("no answer to % x", req)
	}
	return c.sane(req, res)
}

// sane unpacks a response and looks at what must be right in each.
func (c *conf) sane(req, res []byte) *dns.Msg {
	c.Helper()
	if len(res) < 12 {
		c.Fatalf("an answer of %d octets: % x", len(res), res)
	}
	flags, asked := binary.BigEndian.Uint16(res[2:]), binary.BigEndian.Uint16(req[2:])
	c.is(bytes.Equal(res[:2], req[:2]), "ID %x for %x", res[:2], req[:2])
	c.is(flags>>15 == 1, "QR is 0")
	c.is(flags>>11&15 == asked>>11&15, "opcode %d for %d", flags>>11&15, asked>>11&15)
	c.is(flags&0x00c0 == 0, "RA or Z is set: %04x", flags)
	if flags&15 != dns.RcodeFormatError && flags&15 != dns.RcodeNotImplemented && binary.BigEndian.Uint16(req[4:]) == 1 {
		end := 12
		for req[end] != 0 {
			end += int(req[end]) + 1
		}
		end += 5
		c.is(len(res) >= end && bytes.Equal(res[12:end], req[12:end]), "the question came back as % x", res[12:])
	}
	m := new(dns.Msg)
	if err := m.Unpack(res); err != nil {
		c.Fatalf("% x: %v", res, err)
	}
	return m
}

// ask sends a query over UDP and returns the response.
func (c *conf) ask(q string, change ...func(*dns.Msg)) *dns.Msg {
	c.Helper()
	return c.answer(pack(q, change...))
}

// tcp sends a query over TCP and returns the response.
func (c *conf) tcp(q string, change ...func(*dns.Msg)) *dns.Msg {
	c.Helper()
	nc := c.dial("tcp")
	req := pack(q, change...)
	frames(c, nc, req)
	return c.sane(req, frame(c, nc))
}

// frames writes messages with their lengths, in one go.
func frames(c *conf, w io.Writer, list ...[]byte) {
	c.Helper()
	var b []byte
	for _, m := range list {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
		b = append(b, m...)
	}
	if _, err := w.Write(b); err != nil {
		c.Fatal(err)
	}
}

// frame reads a message with its length.
func frame(c *conf, r io.Reader) []byte {
	c.Helper()
	var l [2]byte
	if _, err := io.ReadFull(r, l[:]); err != nil {
		c.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint16(l[:]))
	if _, err := io.ReadFull(r, b); err != nil {
		c.Fatal(err)
	}
	return b
}

func (c *conf) is(ok bool, format string, args ...any) {
	c.Helper()
	if !ok {
		c.Errorf(format, args...)
	}
}

// code wants one of some response codes.
func (c *conf) code(m *dns.Msg, want ...int) *dns.Msg {
	c.Helper()
	if !slices.Contains(want, m.Rcode) {
		var names []string
		for _, w := range want {
			names = append(names, dns.RcodeToString[w])
		}
		c.Errorf("got %s, want %s\n%v", dns.RcodeToString[m.Rcode], strings.Join(names, " or "), m)
	}
	return m
}

// only wants the records of the answer to be these, as "TYPE data", in any order.
func (c *conf) only(m *dns.Msg, want ...string) {
	c.Helper()
	var got []string
	for _, rr := range m.Answer {
		if rr.Header().Rrtype != dns.TypeRRSIG {
			got = append(got, dns.TypeToString[rr.Header().Rrtype]+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	c.is(slices.Equal(got, want), "answered %q, want %q", got, want)
}

// soa wants the authority section to have the SOA of the zone, and no NS.
func (c *conf) soa(m *dns.Msg) *dns.SOA {
	c.Helper()
	var s *dns.SOA
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			s = rr
		case *dns.NS:
			c.Errorf("an NS beside: %v", rr)
		}
	}
	if s == nil || !strings.EqualFold(s.Hdr.Name, "example.com.") {
		c.Fatalf("no SOA of the zone in the authority section:\n%v", m)
	}
	return s
}

// nodata wants "no such type", and nxdomain "no such name".
func (c *conf) nodata(m *dns.Msg) {
	c.Helper()
	c.code(m, dns.RcodeSuccess)
	c.is(m.Authoritative, "AA is 0")
	c.only(m)
	c.soa(m)
}

func (c *conf) nxdomain(m *dns.Msg) {
	c.Helper()
	c.code(m, dns.RcodeNameError)
	c.is(m.Authoritative, "AA is 0")
	c.soa(m)
}

// edns returns the OPT of a response, and no more than one may be there.
func (c *conf) edns(m *dns.Msg) *dns.OPT {
	c.Helper()
	var o *dns.OPT
	for _, rr := range m.Extra {
		if r, ok := rr.(*dns.OPT); ok {
			c.is(o == nil, "there are two OPT")
			o = r
		}
	}
	if o == nil {
		c.Fatalf("no OPT:\n%v", m)
	}
	c.is(o.Hdr.Name == ".", "the OPT is at %s", o.Hdr.Name)
	c.is(o.Version() == 0, "its version is %d", o.Version())
	return o
}

// option returns an option of a response; nil if it isn't there.
func option[T dns.EDNS0](m *dns.Msg) (found T) {
	if o := m.IsEdns0(); o != nil {
		for _, e := range o.Option {
			if v, ok := e.(T); ok {
				return v
			}
		}
	}
	return found
}

// each has f look at variants, each with a name for what it says.
func each[V any](c *conf, list []V, f func(c *conf, v V)) {
	c.Helper()
	for _, v := range list {
		f(c, v)
		if c.Failed() {
			c.Fatalf("that was of %s", fmt.Sprint(v))
		}
	}
}

// with returns a change of a query that adds EDNS options.
func with(opts ...dns.EDNS0) func(*dns.Msg) {
	return func(m *dns.Msg) {
		if m.IsEdns0() == nil {
			m.SetEdns0(1232, false)
		}
		o := m.IsEdns0()
		o.Option = append(o.Option, opts...)
	}
}

func withSize(n uint16) func(*dns.Msg) { return func(m *dns.Msg) { m.SetEdns0(n, false) } }

// local is an option of any code and content.
func local(code uint16, data ...byte) dns.EDNS0 { return &dns.EDNS0_LOCAL{Code: code, Data: data} }

// rawOPT adds an OPT, of any owner, to a packed query.
func rawOPT(b, owner []byte, ttl uint32, data []byte) []byte {
	binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])+1)
	b = append(b, owner...)
	b = binary.BigEndian.AppendUint16(b, dns.TypeOPT)
	b = binary.BigEndian.AppendUint16(b, 1232)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}
