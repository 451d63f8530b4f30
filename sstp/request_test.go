package sstp

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const guid = "{6D064D1A-DC78-4F89-7BC9-F8480D064D1A}"

func TestParseRequest(t *testing.T) {
	for _, tc := range []struct {
		name, head string
		want       Request
		resource   Resource
	}{
		{
			"Windows", "SSTP_DUPLEX_POST " + Path + " HTTP/1.1\r\nSSTPCORRELATIONID: " + guid + "\r\nContent-Length: " + ContentLength + "\r\nHost: vpn.example\r\n\r\n",
			Request{Method, Path, 1, "vpn.example", guid, ContentLength},
			ResourceSSTP,
		},
		{
			"Debian's sstpc", "SSTP_DUPLEX_POST " + Path + " HTTP/1.1\r\nHost: 192.0.2.1\r\nSSTPCORRELATIONID: {6D064D1-DC78-AF89-7BC9F848}\r\nContent-Length: " + ContentLength + "\r\n\r\n",
			Request{Method, Path, 1, "192.0.2.1", "{6D064D1-DC78-AF89-7BC9F848}", ContentLength},
			ResourceSSTP,
		},
		{
			"with a tenant", "SSTP_DUPLEX_POST " + Path + "?tenantid=x HTTP/1.1\nhost:  a \n\n",
			Request{Method: Method, Target: Path + "?tenantid=x", Minor: 1, Host: "a"},
			ResourceSSTP,
		},
		{
			"a monitor", "HEAD /SRA_%7Bba195980-CD49-458b-9E23-C84EE0ADCD75%7d/ HTTP/1.0\r\n\r\n",
			Request{Method: "HEAD", Target: "/SRA_%7Bba195980-CD49-458b-9E23-C84EE0ADCD75%7d/"},
			ResourceSSTP,
		},
		{
			"nmap, of DirectAccess", "POST /IPHTTPS HTTP/1.1\r\nHost: da\r\nContent-Length: " + ContentLength + "\r\n\r\n",
			Request{"POST", "/IPHTTPS", 1, "da", "", ContentLength},
			ResourceIPHTTPS,
		},
		{"by a proxy", "GET https://a/iptls HTTP/1.1\r\n\r\n", Request{Method: "GET", Target: "https://a/iptls", Minor: 1}, ResourceIPHTTPS},
		{"a browser", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", Request{Method: "GET", Target: "/", Minor: 1, Host: "a"}, ResourceOther},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, n, err := ParseRequest([]byte(tc.head + "and more"))
			if err != nil || n != len(tc.head) {
				t.Fatalf("%d of %d bytes, %v", n, len(tc.head), err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Error(d)
			}
			if r := got.Resource(); r != tc.resource {
				t.Errorf("resource %v, want %v", r, tc.resource)
			}
			if got.Tunnel() != (got.Method == Method) {
				t.Errorf("tunnel: %v", got.Tunnel())
			}
			for cut := range len(tc.head) {
				if _, _, err := ParseRequest([]byte(tc.head[:cut])); !errors.Is(err, ErrShort) {
					t.Fatalf("cut to %d: %v", cut, err)
				}
			}
			again, _, err := ParseRequest(got.Append(nil))
			if d := cmp.Diff(got, again); d != "" || err != nil {
				t.Error(err, d)
			}
		})
	}
}

func TestParseRequestRefuses(t *testing.T) {
	for name, head := range map[string]string{
		"TLS":            "\x16\x03\x01\x02\x00",
		"SSH":            "SSH-2.0-OpenSSH\r\n\r\n",
		"blank first":    " GET / HTTP/1.1\r\n\r\n",
		"HTTP/2":         "PRI * HTTP/2.0\r\n\r\n",
		"HTTP/1.10":      "GET / HTTP/1.10\r\n\r\n",
		"HTTP/1.x":       "GET / HTTP/1.x\r\n\r\n",
		"no target":      "GET HTTP/1.1\r\n\r\n",
		"four words":     "GET / b HTTP/1.1\r\n\r\n",
		"endless":        "GET / HTTP/1.1\r\n" + strings.Repeat("a: b\r\n", 2000),
		"endless method": strings.Repeat("A", 40),
	} {
		if _, _, err := ParseRequest([]byte(head)); !errors.Is(err, ErrHead) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResponse(t *testing.T) {
	r := Response{Status: 200, Length: ContentLength, Server: "Microsoft-HTTPAPI/2.0", Date: "Sat, 21 Nov 2026 12:00:00 GMT"}
	b := r.Append(nil)
	want := "HTTP/1.1 200\r\nContent-Length: 18446744073709551615\r\nServer: Microsoft-HTTPAPI/2.0\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\r\n"
	if string(b) != want {
		t.Errorf("%q, want %q", b, want)
	}
	for cut := range len(want) {
		if _, _, err := ParseResponse(b[:cut]); !errors.Is(err, ErrShort) {
			t.Fatalf("cut to %d: %v", cut, err)
		}
	}
	got, n, err := ParseResponse(append(b, 0x10, 1))
	if d := cmp.Diff(r, got); d != "" || n != len(want) || err != nil {
		t.Error(n, err, d)
	}
	if got, _, err := ParseResponse([]byte("HTTP/1.1 503 Service Unavailable\r\n\r\n")); got.Status != 503 || got.Reason != "Service Unavailable" || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"SSTP", "HTTP/1.1 20\r\n\r\n", "HTTP/1.1 200\r\n" + strings.Repeat("a: b\r\n", 2000)} {
		if _, _, err := ParseResponse([]byte(bad)); !errors.Is(err, errNotHTTP) {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	r := TunnelRequest("vpn.example", guid)
	f.Add(r.Append(nil))
	f.Add([]byte("GET / HTTP/1.1\nhost:a\n\n"))
	f.Add([]byte("HTTP/1.1 200\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, n, err := ParseResponse(b); err == nil && (n > len(b) || n > MaxHead || r.Status < 100) {
			t.Fatalf("%+v, %d of %d bytes", r, n, len(b))
		}
		r, n, err := ParseRequest(b)
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrHead) {
				t.Fatalf("error of an unknown kind: %v", err)
			}
			return
		}
		if n > len(b) || n > MaxHead || headEnd(b) != n {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		_ = r.Resource()
		again, _, err := ParseRequest(r.Append(nil))
		if d := cmp.Diff(r, again); d != "" || err != nil {
			t.Fatal(err, d)
		}
	})
}
