package ikev2_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers"
)

// TestPathMTUStrongSwan measures ways with small links to a real gateway:
//
//	client 198.51.100.7 ── 1500 ── router ── 1400 or 1300 ── gateway 203.0.113.11
//
// with a router that says so by ICMP, and with one that doesn't.
func TestPathMTUStrongSwan(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	net := peers.New(t)
	internet, dc := net.Segment("internet"), net.Segment("dc")
	router, client, gw := net.Host("router"), net.Host("client"), net.Host("gw")
	router.Attach(internet, "198.51.100.1/24", "2001:db8:1::1/64")
	router.Attach(dc, "203.0.113.1/24", "2001:db8:2::1/64")
	router.Sysctl("ipv4/ip_forward", "1")
	router.Sysctl("ipv6/conf/all/forwarding", "1")
	client.Attach(internet, "198.51.100.7/24", "2001:db8:1::7/64")
	client.IP("route add default via 198.51.100.1", "route add default via 2001:db8:1::1")
	gw.Attach(dc, "203.0.113.11/24", "2001:db8:2::11/64")
	gw.IP("route add default via 203.0.113.1", "route add default via 2001:db8:2::1")
	gw.Gateway(peers.Gateway{ID: 1, PKI: peers.NewPKI(t, 2048)})
	peers.Eventually(t, 10*time.Second, "the way by IPv6", func() error {
		_, err := client.Run("ping", "-c", "1", "-W", "1", "2001:db8:2::11")
		return err
	})

	measure := func(t *testing.T, target string, mtu int, quiet bool) {
		t.Helper()
		router.IP(fmt.Sprintf("link set eth1 mtu %d", mtu))
		var r ikev2.MTUResult
		err := client.Do(func() (err error) {
			r, err = ikev2.PathMTU{Timeout: 300 * time.Millisecond}.Measure(t.Context(), netip.MustParseAddrPort(target))
			return err
		})
		t.Logf("%v: %v, %d sent, reports %v, round trip %v", target, r, r.Sent, r.Reports, r.RoundTrip)
		lost := mtu + 1
		if mtu == 1500 {
			lost = 0
		}
		if err != nil || r.MTU != mtu || r.Lost != lost {
			t.Errorf("got %+v, %v, want %d", r, err, mtu)
		}
		if mtu < 1500 && r.Blackhole() != quiet {
			t.Errorf("reports %v, of a router that says nothing: %v", r.Reports, quiet)
		}
	}
	targets := []string{"203.0.113.11:500", "203.0.113.11:4500", "[2001:db8:2::11]:500", "[2001:db8:2::11]:4500"}
	for _, target := range targets {
		t.Run(target, func(t *testing.T) {
			for _, mtu := range []int{1500, 1400, 1300} {
				measure(t, target, mtu, false)
			}
		})
	}
	router.NFT("table inet quiet {\n\tchain out {\n\t\ttype filter hook output priority 0\n\t\ticmp type destination-unreachable drop\n\t\ticmpv6 type packet-too-big drop\n\t}\n}\n")
	for _, target := range targets[1:3] {
		t.Run("quiet "+target, func(t *testing.T) { measure(t, target, 1400, true) })
	}
}
