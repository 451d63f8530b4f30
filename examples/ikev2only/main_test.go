package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
)

// Two gateways and sixteen computers on loopback: each computer gets a tunnel, and
// keeps it.
func TestServe(t *testing.T) {
	ports := [2]uint16{15500, 19500} // below those that systems give to sockets by themselves
	front := netip.MustParseAddr("127.0.7.1")
	secret := []byte("a key for all")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var backends []lb.Backend
	for i := range 2 {
		g := &standin.IKEGateway{Name: fmt.Sprintf("ras%d", i+1), Secret: secret}
		addr := netip.AddrFrom4([4]byte{127, 0, 7, byte(11 + i)})
		ike, natt := listen(t, addr, ports[0]), listen(t, addr, ports[1])
		wg.Go(func() { g.Serve(ctx, ike, natt) })
		backends = append(backends, lb.Backend{Name: g.Name, Addr: addr})
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, front, ports, backends...) }()

	var tunnels []*standin.Tunnel
	for i := range 16 {
		addr := netip.AddrFrom4([4]byte{127, 0, 7, byte(101 + i)})
		tun := &standin.Tunnel{Name: fmt.Sprintf("pc%d", i), Secret: secret, Every: 20 * time.Millisecond, Repeat: 200 * time.Millisecond}
		tunnels = append(tunnels, tun)
		m := &standin.Machine{
			IKE: netip.AddrPortFrom(front, ports[0]), NATT: netip.AddrPortFrom(front, ports[1]), Tunnels: []*standin.Tunnel{tun},
			Open: func() (standin.Conn, standin.Conn, error) { return open(addr) },
		}
		wg.Go(func() { m.Run(ctx) })
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for _, tun := range tunnels {
		for tun.Status().Received < 10 {
			select {
			case <-tick.C:
			case err := <-done:
				t.Fatal(err)
			case <-late:
				t.Fatalf("%s: %+v", tun.Name, tun.Status())
			}
		}
	}
	at := make(map[string]int)
	for _, tun := range tunnels {
		s := tun.Status()
		if s.Alien != 0 || s.Established != 1 {
			t.Errorf("%s: %+v", tun.Name, s)
		}
		at[s.Gateway]++
	}
	if len(at) != 2 {
		t.Errorf("all tunnels are at one gateway: %v", at)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("serve returned nil")
	}
	// Nothing of it goes on: who calls it again gets its ports.
	for _, p := range ports {
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(front, p)))
		if err != nil {
			t.Fatal("it has ended, and its sockets are open:", err)
		}
		c.Close()
	}
}

// open opens a computer's sockets.
func open(addr netip.Addr) (ike, natt standin.Conn, err error) {
	a, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return nil, nil, err
	}
	b, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		a.Close()
		return nil, nil, err
	}
	return a, b, nil
}

func listen(t *testing.T, addr netip.Addr, port uint16) *net.UDPConn {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	if err != nil {
		t.Skip("loopback can't be used for this:", err)
	}
	return c
}
