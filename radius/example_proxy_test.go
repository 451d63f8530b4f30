package radius_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// A server with one secret and a gateway with another, and a Proxy between them.
func ExampleProxy() {
	nps := listen()
	server := layeh.PacketServer{
		SecretSource: layeh.StaticSecretSource([]byte("the server's secret")),
		Handler: layeh.HandlerFunc(func(w layeh.ResponseWriter, r *layeh.Request) {
			code := layeh.CodeAccessReject
			if rfc2865.UserName_GetString(r.Packet) == "ada" && rfc2865.UserPassword_GetString(r.Packet) == "lovelace" {
				code = layeh.CodeAccessAccept
			}
			w.Write(r.Response(code))
		}),
	}

	pool := new(lb.Pool)
	pool.Set(lb.Backend{Name: "nps1", Addr: netip.MustParseAddr("127.0.0.1")})
	proxy := &radius.Proxy{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)},
		AuthPort: uint16(nps.LocalAddr().(*net.UDPAddr).Port),
	}
	err := errors.Join(
		proxy.SetClients(radius.Client{
			Name: "ras1", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
			Secret: radius.NewSecret([]byte("the gateway's secret")),
		}),
		proxy.SetServers(radius.Server{Secret: radius.NewSecret([]byte("the server's secret"))}, nil),
	)
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx := context.Background()
	var wg sync.WaitGroup
	front := listen()
	wg.Go(func() { server.Serve(nps) })
	wg.Go(func() { fmt.Println(proxy.Serve(ctx, front)) })

	for _, password := range []string{"lovelace", "byron"} {
		p := layeh.New(layeh.CodeAccessRequest, []byte("the gateway's secret"))
		rfc2865.UserName_SetString(p, "ada")
		rfc2865.UserPassword_SetString(p, password)
		answer, err := layeh.Exchange(ctx, p, front.LocalAddr().String())
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(answer.Code)
	}
	for _, c := range proxy.Stats().Clients {
		fmt.Println(c.Name, c.Requests, c.Accepts, c.Rejects)
	}
	proxy.Shutdown(ctx)
	server.Shutdown(ctx)
	wg.Wait()
	// Output:
	// Access-Accept
	// Access-Reject
	// ras1 2 1 1
	// radius: proxy closed
}

func listen() net.PacketConn {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return c
}
