package geodns_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"

	"github.com/miekg/dns"
)

func streamRules() []rule {
	a, b := pack("mail.example.com A"), pack("nope.example.com A")
	return []rule{
		{"RFC 7766 5", "queries over TCP are answered", "", func(c *conf) { c.only(c.tcp("mail.example.com A"), "A 192.0.2.25") }},
		{"RFC 7766 6.2.1", "a connection carries several queries", "", func(c *conf) {
			nc := c.dial("tcp")
			for range 20 {
				frames(c, nc, a)
				c.sane(a, frame(c, nc))
			}
		}},
		{"RFC 7766 6.2.1.1", "queries may be sent before answers come", "", func(c *conf) {
			nc := c.dial("tcp")
			var reqs [][]byte
			want := make(map[uint16]bool)
			for i := range 50 {
				q := append([]byte(nil), a...)
				binary.BigEndian.PutUint16(q, uint16(i)*257)
				reqs, want[uint16(i)*257] = append(reqs, q), true
			}
			frames(c, nc, reqs...)
			for range reqs {
				delete(want, binary.BigEndian.Uint16(frame(c, nc)))
			}
			c.is(len(want) == 0, "without an answer: %v", want)
		}},
		{"RFC 7766 8", "a query may come in pieces", "", func(c *conf) {
			nc := c.dial("tcp")
			_ = nc.(*net.TCPConn).SetNoDelay(true)
			for _, o := range append([]byte{0, byte(len(a))}, a...) {
				if _, err := nc.Write([]byte{o}); err != nil {
					c.Fatal(err)
				}
			}
			c.sane(a, frame(c, nc))
		}},
		{"RFC 7766 8", "pieces need not end where queries do", "", func(c *conf) {
			var all bytes.Buffer
			frames(c, &all, a, b, a)
			nc := c.dial("tcp")
			for cut := 1; cut < all.Len(); cut += 7 {
				for _, piece := range [][]byte{all.Bytes()[:cut], all.Bytes()[cut:]} {
					if _, err := nc.Write(piece); err != nil {
						c.Fatal(err)
					}
				}
				for range 3 {
					frame(c, nc)
				}
			}
		}},
		{"RFC 7766 6.2.4", "a client that has no more to ask still gets its answer", "", func(c *conf) {
			nc := c.dial("tcp")
			frames(c, nc, a, b)
			_ = nc.(*net.TCPConn).CloseWrite()
			frame(c, nc)
			frame(c, nc)
			_, err := nc.Read(make([]byte, 1))
			c.is(err == io.EOF, "then %v", err)
		}},
		{"RFC 7766 8", "length and answer are sent as one", "", func(c *conf) {
			nc := c.dial("tcp")
			frames(c, nc, a)
			buf := make([]byte, 4096)
			n, err := nc.Read(buf)
			c.is(err == nil && n == 2+int(binary.BigEndian.Uint16(buf)), "%d octets come first: %v", n, err)
		}},
		{"RFC 7766 7", "answers carry the ID and the question of their query", "", func(c *conf) {
			nc := c.dial("tcp")
			q := append([]byte(nil), b...)
			binary.BigEndian.PutUint16(q, 0x7777)
			frames(c, nc, a, q)
			for range 2 {
				res := frame(c, nc)
				if binary.BigEndian.Uint16(res) == 0x7777 {
					c.sane(q, res)
				} else {
					c.sane(a, res)
				}
			}
		}},
		{"RFC 1035 4.2.2", "an empty message hurts nobody else", "", func(c *conf) {
			nc := c.dial("tcp")
			frames(c, nc, nil)
			c.only(c.tcp("mail.example.com A"), "A 192.0.2.25")
		}},
		{"RFC 7766 10", "a query that never ends hurts nobody else", "", func(c *conf) {
			nc := c.dial("tcp")
			if _, err := nc.Write([]byte{0xff, 0xff, 1, 2, 3}); err != nil {
				c.Fatal(err)
			}
			c.only(c.tcp("mail.example.com A"), "A 192.0.2.25")
		}},
		{"RFC 7766 5", "a format error is answered over TCP, too", "", func(c *conf) {
			nc := c.dial("tcp")
			q := append([]byte(nil), a...)
			q[5] = 2
			frames(c, nc, append(q, q[12:]...))
			res := frame(c, nc)
			c.is(res[3]&15 == dns.RcodeFormatError, "% x", res)
		}},
	}
}

// signatures returns the RRSIG of a section that cover a type at a name.
func signatures(section []dns.RR, name string, typ uint16) (list []*dns.RRSIG) {
	for _, rr := range section {
		if s, ok := rr.(*dns.RRSIG); ok && s.TypeCovered == typ && strings.EqualFold(s.Hdr.Name, dns.Fqdn(name)) {
			list = append(list, s)
		}
	}
	return list
}
