// Command ikev2only balances IKEv2 over two gateways: this is all it takes.
package main

import (
	"context"
	"log"
	"net"
	"net/netip"
	"sync"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

func main() {
	all, ras1, ras2 := netip.IPv4Unspecified(), netip.MustParseAddr("10.0.1.11"), netip.MustParseAddr("10.0.1.12")
	log.Fatal(serve(context.Background(), all, [2]uint16{500, 4500}, lb.Backend{Name: "ras1", Addr: ras1}, lb.Backend{Name: "ras2", Addr: ras2}))
}

func serve(ctx context.Context, addr netip.Addr, ports [2]uint16, gateways ...lb.Backend) error {
	pool := new(lb.Pool)
	if err := pool.Set(gateways...); err != nil {
		return err
	}
	var conns []net.PacketConn // of both ports: one engine and one table, so that they agree where a client is
	for _, port := range ports {
		c, err := udp.Listen(ctx, netip.AddrPortFrom(addr, port), udp.ListenConfig{})
		if err != nil {
			return err
		}
		conns = append(conns, c...)
	}
	monitor := &lb.Monitor{Pool: pool, Checks: []lb.Check{{Name: "ike", Prober: ikev2.Prober{}, Port: ports[0]}}}
	engine := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Classifier: ikev2.Classifier{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	wg.Go(func() { cancel(monitor.Run(ctx)) })
	wg.Go(func() { cancel(engine.Serve(ctx, conns...)) })
	wg.Wait() // the first that ends has ended the other, which has closed its sockets
	return context.Cause(ctx)
}
