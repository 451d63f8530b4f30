package lbtest_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/lbtest"
	"github.com/aovlb/aovlb/lb/udp"
)

// A real engine on a network in memory. It serves both ports of two gateways, and
// whichever port a client comes to, its gateway is the same.
func Example_balancer() {
	network := new(lbtest.Net)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	pool := new(lb.Pool)
	gateways := []lb.Backend{
		{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")},
		{Name: "ras2", Addr: netip.MustParseAddr("10.0.1.12")},
	}
	if err := pool.Set(gateways...); err != nil {
		fmt.Println(err)
	}
	for _, b := range gateways {
		host := lbtest.Host{Net: network, Addr: b.Addr}
		ike, natt := listen(host, 500), listen(host, 4500)
		wg.Go(func() { _ = (&lbtest.Gateway{Name: b.Name}).Serve(ctx, ike, natt) })
	}

	front := lbtest.Host{Net: network, Addr: netip.MustParseAddr("192.0.2.1")}
	ike, natt := listen(front, 500), listen(front, 4500)
	engine := &udp.Engine{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)},
		Dial:     front.Dial,
	}
	wg.Go(func() {
		if err := engine.Serve(ctx, ike, natt); !errors.Is(err, context.Canceled) {
			fmt.Println(err)
		}
	})

	laptop := listen(lbtest.Host{Net: network, Addr: netip.MustParseAddr("203.0.113.7")}, 500)
	var before string
	for _, port := range []netip.AddrPort{ike.Addr(), natt.Addr()} {
		answer, err := lbtest.Ask(laptop, port, []byte("hello"), 0)
		if err != nil {
			fmt.Println(err)
		}
		gateway, _, _ := lbtest.Said(answer.Payload)
		fmt.Printf("from %v, the same gateway: %t\n", answer.From, before == "" || before == gateway)
		before = gateway
	}
	cancel()
	wg.Wait()
	fmt.Println("flows:", engine.Stats().Opened)
	// Output:
	// from 192.0.2.1:500, the same gateway: true
	// from 192.0.2.1:4500, the same gateway: true
	// flows: 2
}

func listen(h lbtest.Host, port uint16) *lbtest.Conn {
	c, err := h.Listen(port)
	if err != nil {
		panic(err)
	}
	return c
}
