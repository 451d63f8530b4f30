package geodns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestRateLimitOfWildcards: names that a wildcard makes are one answer, or there
// were no limit for who makes up names.
func TestRateLimitOfWildcards(t *testing.T) {
	z, err := ParseZone(strings.NewReader("$TTL 60\n@ SOA ns h 1 2 3 4 60\n@ NS ns.example.net.\n*.w TXT x\nhost TXT x\n"), "example.com", "test")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{RateLimit: RateLimit{PerSecond: 5, Slip: 1 << 30}}
	if err := s.Set([]*Zone{z}, nil); err != nil {
		t.Fatal(err)
	}
	s.init()
	r := &responder{s: s, now: time.Now()}
	got := 0
	for i := range 100 {
		if len(r.respond(nil, request(t, fmt.Sprintf("x%d.a.w.example.com.", i), dns.TypeTXT, false), client, false)) > 0 {
			got++
		}
	}
	if got != 5*burst {
		t.Errorf("%d answers, want %d", got, 5*burst)
	}
	if len(r.respond(nil, request(t, "host.example.com.", dns.TypeTXT, false), client, false)) == 0 {
		t.Error("another name is limited, too")
	}
}
