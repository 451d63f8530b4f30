package udp_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// A balancer in front of one backend that answers everything with "pong".
func ExampleEngine() {
	backend, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := backend.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			_, _ = backend.WriteToUDPAddrPort([]byte("pong"), from)
		}
	}()

	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "one", Addr: netip.MustParseAddr("127.0.0.1")}); err != nil {
		log.Fatal(err)
	}
	conns, err := udp.Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{})
	if err != nil {
		log.Fatal(err)
	}
	engine := &udp.Engine{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)},
		Port:     backend.LocalAddr().(*net.UDPAddr).AddrPort().Port(),
	}
	at := conns[0].LocalAddr().(*net.UDPAddr)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- engine.Serve(ctx, conns...) }()

	client, err := net.DialUDP("udp", nil, at)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("ping")); err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := client.Read(b)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d flow\n", b[:n], engine.Stats().Flows)
	cancel()
	fmt.Println(errors.Is(<-ended, context.Canceled))
	// Output:
	// pong, 1 flow
	// true
}
