package builtin

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

func TestHTTPSCheck(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "vpn.example.com" && r.URL.RawQuery == "deep=1" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		http.Error(w, "no", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("GET /away", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/nowhere", http.StatusFound) })
	mux.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	secure, plain := httptest.NewTLSServer(mux), httptest.NewServer(mux)
	defer secure.Close()
	defer plain.Close()
	for _, c := range []struct {
		name, want string
		check      plugins.Check
	}{
		{"a good page", "", plugins.Check{Path: "/health?deep=1", Host: "vpn.example.com"}},
		{"another host", "it answers 503", plugins.Check{Path: "/health?deep=1"}},
		{"no page", "it answers 404", plugins.Check{}},
		{"no page is what is expected", "", plugins.Check{Expect: 404}},
		{"another status is expected", "it answers 204, not 200", plugins.Check{Path: "/health?deep=1", Host: "vpn.example.com", Expect: 200}},
		{"a redirection isn't followed", "", plugins.Check{Path: "/away"}},
		{"a certificate of nobody", "certificate", plugins.Check{Path: "/away", Host: "vpn.example.com", VerifyTLS: true}},
		{"no answer in time", "deadline exceeded", plugins.Check{Path: "/slow"}},
		{"plain", "", plugins.Check{Path: "/away", PlainHTTP: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.check.Type = plugins.CheckHTTPS
			p, err := prober(&c.check, nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			target := secure.Listener.Addr().String()
			if c.check.PlainHTTP {
				target = plain.Listener.Addr().String()
			}
			limit := time.Minute
			if c.check.Path == "/slow" {
				limit = 50 * time.Millisecond // it is to run out, however far the probe comes by then
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err = p.Probe(ctx, netip.MustParseAddrPort(target))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestICMPCheck(t *testing.T) {
	p, err := prober(&plugins.Check{Type: plugins.CheckICMP}, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"127.0.0.1", "::1"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := p.Probe(ctx, netip.AddrPortFrom(netip.MustParseAddr(a), 0))
		cancel()
		if errors.Is(err, os.ErrPermission) {
			t.Skip("needs the right to send echo requests:", err)
		}
		if err != nil && !(a == "::1" && strings.Contains(err.Error(), "cannot assign")) {
			t.Errorf("%s: %v", a, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Probe(ctx, netip.MustParseAddrPort("127.0.0.1:0")); err == nil {
		t.Error("it passes though there was no time for an answer")
	}
}

func TestChecksum(t *testing.T) {
	b := echo(true)
	if got := checksum(b); got != 0 {
		t.Errorf("over a whole request it is %04x", got)
	}
	if got := payload(append([]byte{0x45, 19: 0}, b...), true); string(got) != string(b) {
		t.Errorf("behind a header: % x", got)
	}
}
