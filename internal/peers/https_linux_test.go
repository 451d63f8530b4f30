package peers

import (
	"strings"
	"testing"
)

// TestDirectHTTPS proves the harness itself, without a balancer.
func TestDirectHTTPS(t *testing.T) {
	Need(t, "nginx")
	n := New(t)
	s := n.Segment("dc")
	pki := NewPKI(t, 2048)
	server, web, pc := n.Host("ras1"), n.Host("web"), n.Host("pc")
	server.Attach(s, "10.1.0.11/24")
	web.Attach(s, "10.1.0.12/24")
	pc.Attach(s, "10.1.0.50/24")
	ras := server.HTTPS("ras1", pki, Answers, 401)
	web.Nginx(pki, 401)

	c, err := pc.SSTP("10.1.0.11:443")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Echo("hello"); err != nil || c.Server != "ras1" || ras.Sessions.Load() != 1 {
		t.Errorf("session with %q: %v", c.Server, err)
	}
	if line, err := pc.Head("10.1.0.12:443"); err != nil || !strings.HasPrefix(line, "HTTP/1.1 401") {
		t.Errorf("nginx: %q, %v", line, err)
	}
	for _, m := range []Manner{Resets, Hangs} {
		ras.Set(m, 0)
		if c, err := pc.SSTP("10.1.0.11:443"); err == nil {
			c.Close()
			t.Errorf("a server of manner %d served", m)
		} else {
			t.Logf("manner %d: %v", m, err)
		}
	}
}
