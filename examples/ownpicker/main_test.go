package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/lbtest"
)

// It keeps the rules that all Pickers keep.
func TestPickerConforms(t *testing.T) {
	lbtest.TestPicker(t, func() lb.Picker {
		return &Branches{
			Gateways: map[netip.Prefix]string{netip.MustParsePrefix("198.51.100.0/24"): "ras1"},
			Other:    new(lb.Maglev),
		}
	}, 0.1)
}

// A computer of a branch gets the branch's gateway.
func TestServe(t *testing.T) {
	const ike, natt = 15501, 19501 // below those that systems give to sockets by themselves
	secret := []byte("a key for all")
	front := netip.MustParseAddr("127.0.5.1")
	picker := &Branches{Other: lb.LeastClients{}, Gateways: map[netip.Prefix]string{
		netip.MustParsePrefix("127.0.51.0/24"): "ras1", netip.MustParsePrefix("127.0.52.0/24"): "ras2",
	}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var gateways []lb.Backend
	for i := range 3 {
		g := &standin.IKEGateway{Name: fmt.Sprintf("ras%d", i+1), Secret: secret}
		a := netip.AddrFrom4([4]byte{127, 0, 5, byte(11 + i)})
		c, d := listen(t, a, ike), listen(t, a, natt)
		wg.Go(func() { g.Serve(ctx, c, d) })
		gateways = append(gateways, lb.Backend{Name: g.Name, Addr: a})
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, picker, front, ike, natt, gateways...) }()
	for _, pc := range []struct{ addr, want string }{
		{"127.0.51.7", "ras1"}, {"127.0.51.8", "ras1"}, {"127.0.52.7", "ras2"}, {"127.0.53.7", ""},
	} {
		tun := &standin.Tunnel{Name: pc.addr, Secret: secret, Every: 20 * time.Millisecond, Repeat: 200 * time.Millisecond}
		a, b := listen(t, netip.MustParseAddr(pc.addr), 0), listen(t, netip.MustParseAddr(pc.addr), 0)
		m := &standin.Machine{
			IKE: netip.AddrPortFrom(front, ike), NATT: netip.AddrPortFrom(front, natt), Tunnels: []*standin.Tunnel{tun},
			Open: func() (standin.Conn, standin.Conn, error) { return a, b, nil },
		}
		wg.Go(func() { m.Run(ctx) })
		tick, late := time.NewTicker(10*time.Millisecond), time.After(20*time.Second)
		for tun.Status().Received < 3 {
			select {
			case <-tick.C:
			case err := <-done:
				t.Fatal(err)
			case <-late:
				t.Fatalf("%s: %+v", pc.addr, tun.Status())
			}
		}
		tick.Stop()
		if got := tun.Status().Gateway; pc.want != "" && got != pc.want {
			t.Errorf("%s is at %s, want %s", pc.addr, got, pc.want)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func listen(t *testing.T, addr netip.Addr, port uint16) *net.UDPConn {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, port)))
	if err != nil {
		t.Skip("loopback can't be used for this:", err)
	}
	return c
}
