package lbtest_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb/lbtest"
)

// A gateway answers a client that is behind a NAT, through a link that loses the
// first packet and takes its time with the second.
func ExampleNet() {
	sent := 0
	network := &lbtest.Net{Link: func(lbtest.Datagram) lbtest.Fate {
		sent++
		return lbtest.Fate{Drop: sent == 1, Delay: time.Millisecond}
	}}
	gateway := &lbtest.Gateway{Name: "ras1"}
	conn, err := lbtest.Host{Net: network, Addr: netip.MustParseAddr("10.0.1.11")}.Listen(4500)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = gateway.Serve(ctx, conn) })

	home := &lbtest.NAT{Net: network, Addr: netip.MustParseAddr("203.0.113.1")}
	laptop := home.Listen(netip.MustParseAddrPort("192.168.1.2:4500"))
	for range 2 {
		answer, err := lbtest.Ask(laptop, conn.Addr(), []byte("hello"), 100*time.Millisecond)
		if err != nil {
			fmt.Println("no answer")
			continue
		}
		who, what, _ := lbtest.Said(answer.Payload)
		fmt.Printf("%s heard %q from %v\n", who, what, gateway.Clients()[0].Addr())
	}
	cancel()
	wg.Wait()
	// Output:
	// no answer
	// ras1 heard "hello" from 203.0.113.1
}
