package tcp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/lb/tcp"
)

func header(src, dst string) tcp.ProxyHeader {
	return tcp.ProxyHeader{Source: netip.MustParseAddrPort(src), Destination: netip.MustParseAddrPort(dst)}
}

// v2 returns a version 2 header with the given command, family and body.
func v2(command, family byte, body string) string {
	return "\r\n\r\n\x00\r\nQUIT\n" + string([]byte{command, family, byte(len(body) >> 8), byte(len(body))}) + body
}

func TestParseProxy(t *testing.T) {
	four := header("192.0.2.7:51234", "198.51.100.1:443")
	six := header("[2001:db8::7]:51234", "[2001:db8::1]:443")
	const fourBody = "\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb"
	sixBody := "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x07" +
		"\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + "\xc8\x22\x01\xbb"
	tests := []struct {
		name, in string
		want     tcp.ProxyHeader
		err      string // part of it
	}{
		// The lines of the specification, §2.1.
		{name: "v1 TCP4", in: "PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\n", want: four},
		{name: "v1 TCP6", in: "PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n", want: six},
		{name: "v1 longest", in: "PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", err: "address"},
		{name: "v1 UNKNOWN", in: "PROXY UNKNOWN\r\n"},
		{name: "v1 UNKNOWN with more", in: "PROXY UNKNOWN ffff:: ffff:: 65535 65535\r\n"},
		{name: "v1 mapped", in: "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 51234 443\r\n", want: four},
		{name: "v1 wrong family", in: "PROXY TCP4 2001:db8::7 2001:db8::1 51234 443\r\n", err: "address"},
		{name: "v1 zone", in: "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n", err: "address"},
		{name: "v1 port over 65535", in: "PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n", err: "port"},
		{name: "v1 port with zero", in: "PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n", err: "port"},
		{name: "v1 port with sign", in: "PROXY TCP4 1.2.3.4 1.2.3.4 +1 1\r\n", err: "port"},
		{name: "v1 two spaces", in: "PROXY TCP4  1.2.3.4 1.2.3.4 1 1\r\n", err: "isn't"},
		{name: "v1 no CR", in: "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n", err: "CRLF"},
		{name: "v1 too long", in: "PROXY UNKNOWN " + strings.Repeat("x", 107), err: "107"},
		{name: "v1 short", in: "PROXY TCP4 1.2.3.4", err: "incomplete"},
		{name: "v1 UDP", in: "PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n", err: "isn't"},
		{name: "v2 IPv4", in: v2(0x21, 0x11, fourBody), want: four},
		{name: "v2 IPv6", in: v2(0x21, 0x21, sixBody), want: six},
		{name: "v2 with records", in: v2(0x21, 0x11, fourBody+"\x04\x00\x03abc"), want: four},
		{name: "v2 local", in: v2(0x20, 0x11, fourBody), want: tcp.ProxyHeader{Local: true}},
		{name: "v2 unspecified", in: v2(0x21, 0, "")},
		{name: "v2 Unix", in: v2(0x21, 0x31, strings.Repeat("\x00", 216))},
		{name: "v2 datagram", in: v2(0x21, 0x12, fourBody)},
		{name: "v2 version 3", in: v2(0x31, 0x11, fourBody), err: "version"},
		{name: "v2 command 2", in: v2(0x22, 0x11, fourBody), err: "command"},
		{name: "v2 short addresses", in: v2(0x21, 0x11, fourBody[:11]), err: "too short"},
		{name: "v2 huge", in: v2(0x21, 0x11, fourBody+strings.Repeat("x", 4096)), err: "4096"},
		{name: "v2 short", in: v2(0x21, 0x11, fourBody)[:20], err: "incomplete"},
		{name: "nothing", in: "", err: "incomplete"},
		{name: "TLS", in: "\x16\x03\x01\x02\x00\x01", err: "no PROXY"},
		{name: "other CRLF", in: "\r\n\r\nx", err: "no PROXY"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, n, err := tcp.ParseProxy([]byte(tt.in + "after"))
			if tt.err == "incomplete" {
				got, n, err = tcp.ParseProxy([]byte(tt.in))
				if !errors.Is(err, tcp.ErrProxyShort) {
					t.Errorf("error %v isn't ErrProxyShort", err)
				}
			}
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v", err)
				}
				return
			}
			if err != nil || n != len(tt.in) {
				t.Fatalf("%d of %d bytes, %v", n, len(tt.in), err)
			}
			if d := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAppendProxy(t *testing.T) {
	mixed := header("192.0.2.7:1", "[2001:db8::1]:2")
	tests := []struct {
		name string
		h    tcp.ProxyHeader
		v    tcp.ProxyVersion
		want string
	}{
		{"none", header("192.0.2.7:1", "192.0.2.1:2"), tcp.ProxyNone, ""},
		{"v1", header("192.0.2.7:1", "192.0.2.1:2"), tcp.ProxyV1, "PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n"},
		{"v1 mixed", mixed, tcp.ProxyV1, "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 1 2\r\n"},
		{"v1 local", tcp.ProxyHeader{Local: true}, tcp.ProxyV1, "PROXY UNKNOWN\r\n"},
		{"v1 unknown", tcp.ProxyHeader{}, tcp.ProxyV1, "PROXY UNKNOWN\r\n"},
		{"v2 local", tcp.ProxyHeader{Local: true}, tcp.ProxyV2, v2(0x20, 0, "")},
		{"v2 unknown", tcp.ProxyHeader{}, tcp.ProxyV2, v2(0x21, 0, "")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(tt.h.Append([]byte("x"), tt.v)); got != "x"+tt.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

// FuzzProxy checks that no bytes make the parser fail but by an error, that it
// keeps its bounds, that it never judges an incomplete header, and that what it
// reads can be written and read again.
func FuzzProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.7 198.51.100.1 51234 443\r\nrest"))
	f.Add([]byte("PROXY TCP6 2001:db8::7 2001:db8::1 51234 443\r\n"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add([]byte(v2(0x21, 0x11, "\xc0\x00\x02\x07\xc6\x33\x64\x01\xc8\x22\x01\xbb\x04\x00\x00")))
	f.Add([]byte(v2(0x20, 0, "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := tcp.ParseProxy(b)
		if n < 0 || n > len(b) || n > tcp.MaxProxyHeader || (err == nil) != (n > 0) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		for cut := range min(len(b), 200) {
			_, m, e := tcp.ParseProxy(b[:cut])
			switch {
			case err == nil && cut < n && !errors.Is(e, tcp.ErrProxyShort):
				t.Fatalf("%d of %d bytes: %v", cut, n, e)
			case err == nil && cut >= n && m != n:
				t.Fatalf("%d bytes, then %d", n, m)
			case errors.Is(err, tcp.ErrProxyShort) && !errors.Is(e, tcp.ErrProxyShort):
				t.Fatalf("incomplete, but its start is %v", e)
			}
		}
		if err != nil {
			return
		}
		for _, v := range []tcp.ProxyVersion{tcp.ProxyV1, tcp.ProxyV2} {
			out := h.Append(nil, v)
			again, n, err := tcp.ParseProxy(append(bytes.Clone(out), b...))
			if v == tcp.ProxyV1 {
				h.Local, again.Local = false, false // it can't be said there
			}
			if err != nil || n != len(out) || again != h {
				t.Fatalf("%+v became %q, and then %+v, %v", h, out, again, err)
			}
			h, _, _ = tcp.ParseProxy(b)
		}
	})
}

func BenchmarkParseProxy(b *testing.B) {
	for _, v := range []tcp.ProxyVersion{tcp.ProxyV1, tcp.ProxyV2} {
		in := header("192.0.2.7:51234", "198.51.100.1:443").Append(nil, v)
		b.Run(map[tcp.ProxyVersion]string{1: "v1", 2: "v2"}[v], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := tcp.ParseProxy(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
