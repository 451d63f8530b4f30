package peers

import (
	"net/netip"
	"strings"
	"testing"
)

// TestDirectRADIUS proves the harness itself, without a balancer.
func TestDirectRADIUS(t *testing.T) {
	Need(t, RADIUSPrograms...)
	n := New(t)
	s := n.Segment("dc")
	pki := NewPKI(t, 2048)
	server, nas := n.Host("nps1"), n.Host("nas")
	server.Attach(s, "10.1.0.11/24")
	nas.Attach(s, "10.1.0.50/24")
	f := server.FreeRADIUS(RADIUSServer{Name: "nps1", PKI: pki})
	auth := netip.MustParseAddrPort("10.1.0.11:1812")

	out, err := nas.Radclient(auth, "auth", `User-Name = "user1"`, `User-Password = "`+Password+`"`)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "Access-Accept") || !strings.Contains(out, "nps1") {
		t.Errorf("radclient printed:\n%s", out)
	}
	for i, m := range EAPMethods() {
		r, err := nas.EAP(EAP{Server: auth, User: "user1.example.com", Station: 1 + i, PKI: pki, Method: m, Fragment: 500})
		if err != nil {
			t.Fatalf("%s: %v", m, err)
		}
		t.Logf("%s: %d rounds", m, r.Rounds)
	}
	out, err = nas.Radclient(netip.MustParseAddrPort("10.1.0.11:1813"), "acct", `User-Name = "user1"`,
		`Acct-Status-Type = Start`, `Acct-Session-Id = "s1"`, `Calling-Station-Id = "02-00-00-00-00-01"`)
	if err != nil {
		t.Fatal(err, out)
	}
	auths, err := f.Authenticated()
	if err != nil {
		t.Fatal(err)
	}
	accts, err := f.Accounted()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("auth %+v\nacct %+v", auths, accts)
	if len(auths) != 1+len(EAPMethods()) || len(accts) != 1 || accts[0].Status != "Start" || accts[0].Station != auths[1].Station {
		t.Errorf("logs: auth %+v, acct %+v", auths, accts)
	}
}
