package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/miekg/dns"
)

func TestNames(t *testing.T) {
	sites, err := parseSites("hq=192.0.2.1,192.0.2.254 dr=192.0.2.2")
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewResponder("da.example.com", netip.MustParseAddr("fd00:7777::7f00:1"), sites)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.DNS.ServePacket(t.Context(), pc) }()
	t.Cleanup(func() { <-done })
	ask := func(name string, typ uint16) string {
		t.Helper()
		m := new(dns.Msg)
		m.SetQuestion(name+".da.example.com.", typ)
		res, _, err := (&dns.Client{Timeout: 5 * time.Second}).Exchange(m, pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, rr := range res.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				return rr.A.String()
			case *dns.AAAA:
				return rr.AAAA.String()
			}
		}
		return dns.RcodeToString[res.Rcode]
	}
	mark := func(site string, s geo.State) {
		t.Helper()
		if err := r.Health.Mark(site, "web", s, ""); err != nil {
			t.Fatal(err)
		}
		r.Update()
	}
	mark("hq", geo.Up)
	mark("dr", geo.Up)
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"directaccess-WebProbeHost", dns.TypeA, "192.0.2.1"},
		{"DIRECTACCESS-webprobehost", dns.TypeA, "192.0.2.1"},
		{"nls", dns.TypeA, "192.0.2.1"},
		{"isatap", dns.TypeA, "192.0.2.254"},
		{"isatap", dns.TypeAAAA, "NOERROR"},
		{"directaccess-corpConnectivityHost", dns.TypeA, "127.0.0.1"},
		{"directaccess-corpConnectivityHost", dns.TypeAAAA, "fd00:7777::7f00:1"},
		{"other", dns.TypeA, "NXDOMAIN"},
	} {
		if got := ask(c.name, c.typ); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	mark("hq", geo.Down)
	if got := ask("nls", dns.TypeA); got != "192.0.2.2" {
		t.Errorf("with hq down: %s", got)
	}
}

func TestPage(t *testing.T) {
	s := httptest.NewServer(Page())
	defer s.Close()
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodHead, "/", http.StatusOK},
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/etc/passwd", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, s.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, res.StatusCode, c.want)
		}
	}
	if err := probe(t.Context(), netip.MustParseAddrPort(s.Listener.Addr().String())); err != nil {
		t.Error(err)
	}
}

func TestSites(t *testing.T) {
	for _, bad := range []string{"", "hq", "hq=", "hq=1.2.3", "hq=192.0.2.1,x"} {
		if list, err := parseSites(bad); err == nil {
			t.Errorf("%q: %v", bad, list)
		}
	}
}
