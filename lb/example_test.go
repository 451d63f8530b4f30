package lb_test

import (
	"fmt"
	"net/netip"

	"github.com/aovlb/aovlb/lb"
)

// A balancer decides by names: once a gateway has answered a client, the client
// is found by any of its names.
func ExampleBalancer() {
	pool := new(lb.Pool)
	err := pool.Set(
		lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")},
		lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("10.0.1.12")},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}

	const spaceSPI = 128 // a space of our own
	home := lb.Flow{Client: netip.MustParseAddrPort("203.0.113.7:4500"), Service: 4500}
	v := lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{lb.Uint64Key(spaceSPI, 0x1122), lb.FlowKey(home)}}
	first, _ := b.Route(&v, home)
	b.Answered(first.Member, home, lb.StageEstablished, first.Why, v.Keys[:]...)

	// The client moves to another network: another flow, the same SPI.
	mobile := lb.Flow{Client: netip.MustParseAddrPort("198.51.100.9:61000"), Service: 4500}
	v.Keys[1] = lb.FlowKey(mobile)
	then, _ := b.Route(&v, mobile)
	fmt.Println(first.Why, then.Why, first.Member.Name == then.Member.Name)
	// Output: picked known true
}

func ExamplePool_Drain() {
	pool := new(lb.Pool)
	addr := netip.MustParseAddr("10.0.1.11")
	if err := pool.Set(lb.Backend{Name: "ras1", Addr: addr}, lb.Backend{Name: "ras2", Addr: addr.Next()}); err != nil {
		fmt.Println(err)
	}
	// A backend that drains keeps its clients and gets no new ones.
	if err := pool.Mark("ras1", lb.Draining, "maintenance"); err != nil {
		fmt.Println(err)
	}
	v := pool.View()
	fmt.Println(len(v.Usable), "may have clients,", len(v.Ready), "takes new ones:", v.Ready[0].Name)
	// Output: 2 may have clients, 1 takes new ones: ras2
}

func ExampleHashKey() {
	// Names of any length, of several parts, become keys of one size.
	user := lb.HashKey(128, []byte(`CORP\alice`), []byte("00-11-22-33-44-55"))
	again := lb.HashKey(128, []byte(`CORP\alice`), []byte("00-11-22-33-44-55"))
	fmt.Println(user == again, user == lb.HashKey(128, []byte(`CORP\alice00-11-22-33-44-55`)))
	// Output: true false
}
