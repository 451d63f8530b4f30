package wire_test

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// A driver is offered at one end of a connection and used at the other.
func Example() {
	l := bufconn.Listen(1 << 16)
	s := grpc.NewServer(wire.ServerOptions()...)
	wire.Serve(s, new(filebox.Driver), nil)
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///memory", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := wire.Dial(context.Background(), conn, "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	info, err := d.Info(context.Background())
	fmt.Println(info.Name, info.Product, err)
	s.Stop()
	fmt.Println(conn.Close(), <-done)
	// Output:
	// filebox a file, for tests <nil>
	// <nil> <nil>
}
