package tcp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
)

// A balancer for SSTP, which passes TLS through to the gateways. Here there is
// one gateway, which only says hello.
func ExampleEngine() {
	gateway, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer gateway.Close()
	go func() {
		c, err := gateway.Accept()
		if err == nil {
			io.WriteString(c, "hello from the gateway")
			c.Close()
		}
	}()

	pool := new(lb.Pool)
	pool.Set(lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("127.0.0.1")})
	engine := &tcp.Engine{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)},
		Sniffer:  lb.ByAddr{}, // a client keeps its gateway
		Port:     uint16(gateway.Addr().(*net.TCPAddr).Port),
	}
	listener, err := new(tcp.ListenConfig).Listen(context.Background(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- engine.Serve(context.Background(), listener) }()

	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	text, err := io.ReadAll(client)
	fmt.Println(string(text), err)
	client.Close()

	fmt.Println(engine.Shutdown(context.Background()), errors.Is(<-served, tcp.ErrClosed))
	// Output:
	// hello from the gateway <nil>
	// <nil> true
}

// A header as a proxy in front of the balancer, or the balancer itself, sends it.
func ExampleProxyHeader() {
	h := tcp.ProxyHeader{
		Source:      netip.MustParseAddrPort("198.51.100.7:51234"),
		Destination: netip.MustParseAddrPort("192.0.2.1:443"),
	}
	line := h.Append(nil, tcp.ProxyV1)
	fmt.Printf("%q\n", line)
	again, n, err := tcp.ParseProxy(append(line, "the stream"...))
	fmt.Println(again.Source, n, err)
	// Output:
	// "PROXY TCP4 198.51.100.7 192.0.2.1 51234 443\r\n"
	// 198.51.100.7:51234 45 <nil>
}
