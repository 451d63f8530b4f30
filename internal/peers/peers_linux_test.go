package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// The tests here need root and AOVLB_PEERS=1, except those of text.

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

// TestSplit proves that a tunnel doesn't come up when a balancer sends ports 500
// and 4500 of a client to different gateways: what the harness shows of a good
// balancer is not true of any.
func TestSplit(t *testing.T) {
	Need(t, SwanPrograms...)
	n := New(t)
	public, dc := n.Segment("public"), n.Segment("dc")
	pki := NewPKI(t, 2048)
	lb := n.Host("lb")
	lb.Attach(public, "198.18.0.100/16")
	lb.Attach(dc, "10.1.0.1/24")
	lb.Sysctl("ipv4/ip_forward", "1")
	for id, addr := range map[int]string{1: "10.1.0.11/24", 2: "10.1.0.12/24"} {
		h := n.Host(fmt.Sprintf("ras%d", id))
		h.Attach(dc, addr)
		h.IP("route add default via 10.1.0.1")
		h.Gateway(Gateway{ID: id, PKI: pki})
	}
	balance := func(to4500 string) {
		lb.NFT(`
table ip split
delete table ip split
table ip split {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr 198.18.0.100 udp dport 500 dnat to 10.1.0.11
		ip daddr 198.18.0.100 udp dport 4500 dnat to ` + to4500 + `
	}
}`)
		lb.FlushConntrack()
	}
	pc := n.Host("pc")
	pc.Attach(public, "198.18.1.1/16")
	c := pc.Client(pki, Tunnel{Name: "user", Server: netip.MustParseAddr("198.18.0.100"), User: "user1"})

	balance("10.1.0.12")
	if err := c.Up("user", 4*time.Second); err == nil {
		t.Fatal("a tunnel came up with 500 and 4500 at different gateways")
	}
	balance("10.1.0.11")
	Eventually(t, 30*time.Second, "a tunnel with both at one gateway", func() error {
		_, err := c.Ping("user")
		return err
	})
	if id, err := c.Gateway("user"); id != 1 {
		t.Errorf("at gateway %d, %v", id, err)
	}
}

// TestParseSAs reads what swanctl prints of two SAs, of which one has no child.
func TestParseSAs(t *testing.T) {
	const text = `list-sa event {
  eap {
    uniqueid = 3
    version = 2
    state = ESTABLISHED
    local-host = 10.1.0.11
    local-port = 4500
    local-id = vpn.example.com
    remote-host = 2001:db8::7
    remote-port = 21989
    remote-id = O=some {odd} one, CN=pc
    initiator-spi = b3d5917d2a5c1665
    responder-spi = 474a0e7d474a0e7d
    remote-vips = [
      172.16.1.2
    ]
    child-sas {
      net-3 {
        name = net
        state = INSTALLED
        spi-in = 11111111
        spi-out = 22222222
        remote-ts = [
          172.16.1.2/32
        ]
      }
    }
  }
}
list-sa event {
  cert {
    state = CONNECTING
    child-sas {
    }
  }
}
list-sas reply {
}
`
	got := parseSAs(text)
	want := []SA{
		{
			Name: "eap", UniqueID: "3", State: "ESTABLISHED",
			InitiatorSPI: "b3d5917d2a5c1665", ResponderSPI: "474a0e7d474a0e7d",
			Local: netip.MustParseAddrPort("10.1.0.11:4500"), Remote: netip.MustParseAddrPort("[2001:db8::7]:21989"),
			RemoteID: "O=some {odd} one, CN=pc", VIP: netip.MustParseAddr("172.16.1.2"),
			Child: "net", ChildState: "INSTALLED", ChildSPI: "11111111", ChildSPIOut: "22222222",
			RemoteTS: "172.16.1.2/32",
		},
		{Name: "cert", State: "CONNECTING"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
