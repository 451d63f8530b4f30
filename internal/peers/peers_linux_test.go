package peers

import (
	"net/netip"
	"testing"
	"time"
)

// TestDirect proves the harness itself, without a balancer: client - NAT or not -
// gateway.
func TestDirect(t *testing.T) {
	Need(t, SwanPrograms...)
	n := New(t)
	public := n.Segment("public")
	pki := NewPKI(t, 2048)
	gw := n.Host("ras7")
	gw.Attach(public, "198.18.0.100/16")
	gw.Gateway(Gateway{ID: 7, PKI: pki})
	nat := n.NAT("nat", public, "192.168.1.1/24", "198.18.2.1/16")
	pc := n.Host("pc")
	nat.Join(pc, "192.168.1.2/24")
	server := netip.MustParseAddr("198.18.0.100")
	c := pc.Client(pki,
		Tunnel{Name: "user", Server: server, User: "user1"},
		Tunnel{Name: "device", Server: server, Machine: "pc.example.com", Device: true},
	)
	for _, name := range []string{"user", "device"} {
		if err := c.Up(name, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if id := c.MustPing(t, name, 5*time.Second); id != 7 {
			t.Errorf("tunnel %s is at gateway %d, want 7", name, id)
		}
		sa, err := c.SA(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", sa)
	}
}
