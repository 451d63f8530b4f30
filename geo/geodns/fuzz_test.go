package geodns

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// fuzzKeys are keys whose making needn't be repeated.
func fuzzKeys(t testing.TB) *Keys {
	k, err := GenerateKey("example.com")
	if err != nil {
		t.Fatal(err)
	}
	k.Active = true
	return &Keys{Keys: []*Key{k}}
}

// seeds are requests of every kind.
func seeds(t testing.TB) (list [][]byte) {
	for _, q := range queries(t) {
		list = append(list, q)
	}
	list = append(list,
		request(t, "vpn.example.com.", dns.TypeANY, true),
		request(t, "nope.example.com.", dns.TypeA, true),
		request(t, "*.example.com.", dns.TypeDS, true),
		request(t, ".", dns.TypeNS, false),
		request(t, "vpn.example.com.", dns.TypeAAAA, false, &dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 2, SourceNetmask: 33, Address: net.ParseIP("2a02:d180::")}),
		request(t, strings.Repeat("x", 63)+".example.com.", 128, true),
		[]byte("\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x0c\x00\x0a\x00\x08abcdefgh"),
		[]byte("\x00\x01\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"),
		[]byte("\x00\x01\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"),
	)
	return list
}

// FuzzRespond sends datagrams to a server, unsigned and signed. Whatever comes,
// it answers with something that fits and can be read, or not at all.
func FuzzRespond(f *testing.F) {
	for _, q := range seeds(f) {
		f.Add(q)
	}
	plain, signed := newResponder(f, nil), newResponder(f, fuzzKeys(f))
	f.Fuzz(func(t *testing.T, m []byte) {
		for _, r := range []*responder{plain, signed} {
			for _, stream := range []bool{false, true} {
				prefix := []byte("before")
				res := r.respond(prefix, bytes.Clone(m), client, stream)
				if !bytes.HasPrefix(res, prefix) {
					t.Fatal("it wrote over what was there")
				}
				judge(t, m, res[len(prefix):], stream)
			}
		}
	})
}

// judge looks at a response.
func judge(t *testing.T, req, res []byte, stream bool) {
	t.Helper()
	if len(res) == 0 {
		return
	}
	if len(req) < 12 || req[2]&0x80 != 0 {
		t.Fatalf("it answers % x", req)
	}
	if !bytes.Equal(req[:2], res[:2]) || res[2]&0x80 == 0 || res[3]&0x70 != 0 {
		t.Fatalf("% x is answered with % x", req, res)
	}
	most := defaultMaxUDP
	if stream {
		most = 65535
	}
	if len(res) > most {
		t.Fatalf("%d octets", len(res))
	}
	var m dns.Msg
	if err := m.Unpack(res); err != nil {
		t.Fatalf("% x is answered with % x: %v", req, res, err)
	}
	if !stream && m.IsEdns0() == nil && len(res) > 512 {
		t.Fatalf("%d octets without EDNS", len(res))
	}
}

// FuzzStream sends what a TCP connection may carry, in pieces of some length.
func FuzzStream(f *testing.F) {
	var all []byte
	for _, q := range seeds(f) {
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(q)))
		framed = append(framed, q...)
		f.Add(framed, uint8(0))
		f.Add(framed, uint8(1))
		all = append(all, framed...)
	}
	f.Add(all, uint8(7))
	f.Add([]byte{0, 0, 0, 0, 0, 1, 9, 0xff, 0xff}, uint8(3))
	s := newResponder(f, nil).s
	s.StreamIdle = time.Second
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		c := &scripted{rest: b, piece: int(piece)}
		s.serveStream(context.Background(), &stream{Conn: c})
		for b := c.said; len(b) > 0; {
			if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
				t.Fatalf("half an answer: % x", b)
			}
			var m dns.Msg
			n := 2 + int(binary.BigEndian.Uint16(b))
			if err := m.Unpack(b[2:n]); err != nil {
				t.Fatalf("% x: %v", b[2:n], err)
			}
			b = b[n:]
		}
	})
}

// scripted is a connection whose client says something, in pieces, and is gone.
type scripted struct {
	net.Conn
	rest, said []byte
	piece      int
}

func (c *scripted) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := len(c.rest)
	if c.piece > 0 {
		n = min(n, c.piece)
	}
	n = copy(b, c.rest[:n])
	c.rest = c.rest[n:]
	return n, nil
}

func (c *scripted) Write(b []byte) (int, error) {
	c.said = append(c.said, b...)
	return len(b), nil
}

func (c *scripted) Close() error                { return nil }
func (c *scripted) SetDeadline(time.Time) error { return nil }
func (c *scripted) RemoteAddr() net.Addr        { return net.TCPAddrFromAddrPort(client) }

// FuzzParseZone reads zone files, and asks for what is in those that are good.
func FuzzParseZone(f *testing.F) {
	for _, z := range []string{
		"@ 300 SOA ns h 1 2 3 4 60\n@ 300 NS ns\nns 300 A 192.0.2.1\n",
		"$TTL 300\n@ SOA ns h ( 1 2\n 3 4 60 ) ; a comment\n@ NS ns\n*.w TXT \"a\" \"b\"\nsub NS ns.sub\nns.sub A 192.0.2.9\nsub DS 1 13 2 00\nx CNAME x\n",
		"$ORIGIN com.\nexample 1 SOA . . 1 1 1 1 1\nexample 1 NS .\nexample 1 HTTPS 1 . alpn=h2\n",
		"$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\n$GENERATE 1-9 h$ A 192.0.2.$\n",
		"$INCLUDE /etc/passwd\n", "@ IN TYPE65280 \\# 2 abcd\n", "\\000 1 A 1.2.3.4\n", "@ 1 RRSIG A 8 2 1 20260101000000 20250101000000 1 example.com. AA==\n",
		"$TTL 1\n@ SOA a b 1 2 3 4 5\n@ NS a\nold DNAME new\na.new CNAME b.old\nx DNAME x.x\n",
	} {
		f.Add(z)
	}
	keys := fuzzKeys(f)
	f.Fuzz(func(t *testing.T, text string) {
		z, err := ParseZone(strings.NewReader(text), "example.com", "zone")
		if err != nil {
			return
		}
		z.Keys = keys
		var s Server
		if err := s.Set([]*Zone{z}, nil); err != nil {
			return
		}
		s.init()
		r := &responder{s: &s, now: time.Now()}
		n := 0
		for owner := range z.records {
			for _, name := range []string{owner, "\x01x" + owner} {
				if len(name) > maxName {
					continue
				}
				for _, typ := range []byte{typeA, typeNS, typeDS, typeANY} {
					m := append([]byte{0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1}, name...)
					m = append(m, 0, typ, 0, 1, 0, 0, typeOPT, 0x10, 0, 0, 0, 0x80, 0, 0, 0)
					judge(t, m, r.respond(nil, m, client, true), true)
				}
			}
			if n++; n == 20 {
				break
			}
		}
	})
}

// FuzzReadKey reads keys, which come from files.
func FuzzReadKey(f *testing.F) {
	var pub, priv bytes.Buffer
	if err := fuzzKeys(f).Keys[0].Write(&pub, &priv); err != nil {
		f.Fatal(err)
	}
	f.Add(pub.String(), priv.String())
	f.Add(pub.String(), "Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: AAAA\n")
	f.Add("example.com. DNSKEY 0 3 13 AAAA", "Algorithm: 8\n")
	f.Fuzz(func(t *testing.T, pub, priv string) {
		k, err := ReadKey(strings.NewReader(pub), strings.NewReader(priv), "k")
		if err == nil && k.Zone() == "" {
			t.Error("a key of no zone")
		}
	})
}
