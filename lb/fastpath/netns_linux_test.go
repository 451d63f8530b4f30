package fastpath_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// esp is an ESP datagram of n octets.
func esp(spi uint32, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	for i := len(b); i < n; i++ {
		b = append(b, byte(i*7+int(spi)))
	}
	return b
}

// ike is a protected IKE message behind its marker.
func ike(flags ikev2.Flags, exchange ikev2.ExchangeType, spi ikev2.SPI) []byte {
	return ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: spi, SPIr: spi + 1, Exchange: exchange, Flags: flags},
		ikev2.Payload{Type: ikev2.PayloadSK, Body: make([]byte, 40)})
}

// tunnel is a client with an established flow.
type tunnel struct {
	t               testing.TB
	client, gateway *net.UDPConn
	vip             netip.AddrPort
	at              netip.AddrPort // where the gateway sees it
	up, down        uint32         // SPIs
}

func (n *tunnel) send(b []byte) {
	n.t.Helper()
	if _, err := n.client.WriteToUDPAddrPort(b, n.vip); err != nil {
		n.t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	size, at, err := n.gateway.ReadFromUDPAddrPort(got)
	if err != nil {
		n.t.Fatalf("at the gateway, of %d bytes: %v", len(b), err)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !bytes.Equal(got[:size], b) {
		n.t.Fatalf("the gateway got %d bytes, want %d: other ones", size, len(b))
	}
	if n.at.IsValid() && at != n.at {
		n.t.Fatalf("the gateway sees %v, want %v", at, n.at)
	}
	n.at = at
}

func (n *tunnel) answer(b []byte) {
	n.t.Helper()
	if _, err := n.gateway.WriteToUDPAddrPort(b, n.at); err != nil {
		n.t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	size, from, err := n.client.ReadFromUDPAddrPort(got)
	if err != nil {
		n.t.Fatalf("at the client, of %d bytes: %v", len(b), err)
	}
	if from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); from != n.vip || !bytes.Equal(got[:size], b) {
		n.t.Fatalf("the client got %d bytes from %v, want %d from %v", size, from, len(b), n.vip)
	}
}

// establish has the engine know the client, and the kernel carry it.
func (n *tunnel) establish() {
	n.t.Helper()
	n.send(ike(ikev2.FlagInitiator, ikev2.ExchangeAuth, ikev2.SPI(n.up)<<8))
	n.answer(ike(ikev2.FlagResponse, ikev2.ExchangeAuth, ikev2.SPI(n.up)<<8))
	n.carry()
}

// carry sends what the engine must see once for the kernel to carry it.
func (n *tunnel) carry() {
	n.t.Helper()
	n.send(esp(n.up, 100))
	n.answer(esp(n.down, 100))
	time.Sleep(20 * time.Millisecond) // the engine has sent it, and tells the kernel next
}

// flow sends datagrams both ways, of many sizes that one packet takes.
func (n *tunnel) flow(rounds int) (packets int) {
	n.t.Helper()
	for i := range rounds {
		size := 12 + (i*37)%1400
		n.send(esp(n.up, size))
		n.answer(esp(n.down, size))
		packets += 2
	}
	return packets
}

// hasVLAN reports whether the kernel has VLAN devices.
func hasVLAN(t *testing.T) bool {
	ns := fmt.Sprintf("fastpv%d", os.Getpid())
	run(t, "ip netns add "+ns)
	defer run(t, "ip netns del "+ns)
	return exec.Command("ip", "-n", ns, "link", "add", "link", "lo", "name", "v5", "type", "vlan", "id", "5").Run() == nil
}

type scenario struct {
	name        string
	client, vip string
	gateway     string
	transparent bool
	vlan        bool
	hook        fastpath.Hook
}

var scenarios = []scenario{
	{name: "IPv4", client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500"},
	{name: "IPv6", client: "[fd82:1::2]:1234", vip: "[fd82:1::1]:4500", gateway: "[fd82:2::2]:4500"},
	{name: "IPv4 transparent", client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", transparent: true},
	{name: "IPv6 transparent", client: "[fd82:1::2]:1234", vip: "[fd82:1::1]:4500", gateway: "[fd82:2::2]:4500", transparent: true},
	{name: "VLAN", client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", vlan: true},
	{name: "XDP", client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", hook: fastpath.HookXDP},
	{name: "XDP IPv6", client: "[fd82:1::2]:1234", vip: "[fd82:1::1]:4500", gateway: "[fd82:2::2]:4500", hook: fastpath.HookXDP},
	{name: "XDP IPv6 transparent", client: "[fd82:1::2]:1234", vip: "[fd82:1::1]:4500", gateway: "[fd82:2::2]:4500", hook: fastpath.HookXDP, transparent: true},
	{name: "XDP VLAN", client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", hook: fastpath.HookXDP, vlan: true},
}

func (s *scenario) config(l *lab) childConfig {
	c := childConfig{
		Listen:      []netip.AddrPort{netip.MustParseAddrPort(s.vip)},
		Backends:    []netip.Addr{netip.MustParseAddrPort(s.gateway).Addr()},
		Transparent: s.transparent, Hook: s.hook, MaxFlows: 100,
	}
	if s.vlan {
		c.Interfaces = []string{"fa", "fb", "fa.5", "fb.6"}
	}
	return c
}

func (s *scenario) tunnel(l *lab) *tunnel {
	return &tunnel{
		t: l.t, client: l.listen(l.client, s.client), gateway: l.listen(l.gateway, s.gateway),
		vip: netip.MustParseAddrPort(s.vip), up: 0x12345678, down: 0x87654321,
	}
}

// redirected counts what XDP has sent on at the balancer.
func (l *lab) redirected() (sum int) {
	for line := range strings.SplitSeq(l.sh("for d in fa fb; do nsenter --net=/run/netns/NL ethtool -S $d; done"), "\n") {
		var queue, n int
		if _, err := fmt.Sscanf(strings.TrimSpace(line), "rx_queue_%d_xdp_redirect: %d", &queue, &n); err == nil {
			sum += n
		}
	}
	return sum
}

// ESP goes by the kernel, both ways, unchanged and from the right addresses; IKE,
// keepalives, ESP of an unknown SPI and fragments by the engine.
func TestCarry(t *testing.T) {
	needRoot(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if s.vlan && !hasVLAN(t) {
				t.Skip("this kernel has no VLAN devices")
			}
			l := newLab(t, s.vlan)
			c := startChild(t, l.balancer, s.config(l))
			n := s.tunnel(l)
			n.establish()
			if s.transparent && n.at != netip.MustParseAddrPort(s.client) {
				t.Errorf("the gateway sees %v, want %v", n.at, s.client)
			}
			sent := n.flow(200)
			r := c.report()
			if r.Engine.Carried != 1 || r.Engine.CarriedPackets != uint64(sent) || r.Path.Flows != 1 {
				t.Fatalf("of %d packets %d were carried, of %d flows, %d in the kernel; left: %v", sent, r.Engine.CarriedPackets, r.Engine.Carried, r.Path.Flows, r.Path.Passed)
			}
			if got := r.Path.Attached[l.fa]; s.hook == fastpath.HookTC && got != s.hook {
				t.Errorf("attached %v", r.Path.Attached)
			}
			if got := l.redirected(); (got >= sent) != (s.hook == fastpath.HookXDP && !s.vlan) {
				t.Errorf("XDP sent %d of %d packets", got, sent)
			}
			control := r.Control
			n.send(ike(ikev2.FlagInitiator, ikev2.ExchangeInformational, 7))
			n.answer(ike(ikev2.FlagResponse, ikev2.ExchangeInformational, 7))
			n.send([]byte{0xff})
			n.send(esp(n.up, 3000)) // in fragments
			n.answer(esp(n.down, 3000))
			r = c.report()
			if r.Control != control+2 || r.Engine.CarriedPackets != uint64(sent) {
				t.Errorf("the engine saw %d messages about sessions, want 2; %d packets were carried, want still %d", r.Control-control, r.Engine.CarriedPackets, sent)
			}
			time.Sleep(150 * time.Millisecond)    // the flow has been offered just now
			n.up, n.down = 0x11111111, 0x22222222 // a rekey
			n.carry()
			sent += n.flow(50)
			r = c.tell(command{End: true})
			if r.Engine.CarriedPackets != uint64(sent) {
				t.Errorf("after a rekey %d packets were carried, want %d; left: %v", r.Engine.CarriedPackets, sent, r.Path.Passed)
			}
		})
	}
}
