// Package remote puts gRPC between a test and a driver, without a program of its
// own: what a driver's test does with the driver itself, it can do with [Driver]
// of it, and so see that nothing depends on being in one process.
package remote

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// Driver returns d as it is seen at the other end of a connection, until the test
// ends. log hears of panics, and may be nil.
func Driver(t *testing.T, d plugins.Driver, log *slog.Logger) plugins.Driver {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(wire.ServerOptions()...)
	wire.Serve(s, d, log)
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///test", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		if err := errors.Join(<-served, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	far, err := wire.Dial(t.Context(), conn, "test")
	if err != nil {
		t.Fatal(err)
	}
	return far
}
