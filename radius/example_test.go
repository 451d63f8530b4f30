package radius_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

// requestOf makes an Access-Request, as a VPN gateway would.
func requestOf(user, station string) []byte {
	p := layeh.New(layeh.CodeAccessRequest, []byte("the secret isn't needed"))
	rfc2865.UserName_SetString(p, user)
	rfc2865.CallingStationID_SetString(p, station)
	b, err := p.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func ExampleParse() {
	p, err := radius.Parse(requestOf("ada", "198.51.100.7"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Code())
	for t, v := range p.Attributes() {
		fmt.Println(t == radius.UserName, string(v))
	}
	// Output:
	// Access-Request
	// true ada
	// false 198.51.100.7
}

// The users of one gateway, whose requests all come from one address and port,
// spread over the servers.
func ExampleClassifier() {
	pool := new(lb.Pool)
	pool.Set(
		lb.Backend{Name: "nps1", Addr: netip.MustParseAddr("10.0.2.11")},
		lb.Backend{Name: "nps2", Addr: netip.MustParseAddr("10.0.2.12")},
	)
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	f := lb.Flow{Client: netip.MustParseAddrPort("10.0.1.11:50000"), Service: 1812}

	got := map[string]int{}
	for i := range 1000 {
		v := radius.Classifier{}.Classify(requestOf("ada", fmt.Sprintf("198.51.100.%d", i)), f)
		r, err := b.Route(&v, f)
		if err != nil {
			fmt.Println(err)
			return
		}
		got[r.Member.Name]++
	}
	fmt.Println(got["nps1"] > 400, got["nps2"] > 400)

	v := radius.Classifier{}.Classify([]byte("not RADIUS"), f)
	fmt.Println(v.Drop, v.Reason)
	// Output:
	// true true
	// true radius: cut off
}

func ExampleProber() {
	p := &radius.Prober{Secret: radius.NewSecret([]byte("don't tell")), User: "ping-user"}
	fmt.Println("secret:", p.Secret)

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	// Nobody serves RADIUS there.
	err := p.Probe(ctx, netip.MustParseAddrPort("127.0.0.1:9"))
	fmt.Println(err != nil && !errors.Is(err, context.Canceled))
	// Output:
	// secret: [secret]
	// true
}
