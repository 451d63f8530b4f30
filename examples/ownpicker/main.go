// Command ownpicker balances with a Picker of its own: clients of the branch
// offices have a gateway each, all others are spread over what is left.
package main

import (
	"context"
	"log"
	"net/netip"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// Branches gives new clients of each network the gateway of that name.
//
// It sees a client by the Key that names it. That is its address only if the
// Classifier goes by addresses, as the one in serve does.
type Branches struct {
	Gateways map[netip.Prefix]string
	// Other chooses for everybody else, and where the gateway of a branch
	// takes no new clients.
	Other lb.Picker
}

// Pick returns the branch's gateway if it is ready.
func (b *Branches) Pick(k lb.Key, v *lb.View) *lb.Member {
	for network, name := range b.Gateways {
		if !network.Contains(k.Addr()) {
			continue
		}
		for _, m := range v.Ready {
			if m.Name == name {
				return m
			}
		}
	}
	return b.Other.Pick(k, v)
}

func main() {
	picker := &Branches{
		Gateways: map[netip.Prefix]string{
			netip.MustParsePrefix("198.51.100.0/24"): "ras1",
			netip.MustParsePrefix("203.0.113.0/24"):  "ras2",
		},
		Other: lb.LeastClients{},
	}
	log.Fatal(serve(context.Background(), picker, netip.IPv4Unspecified(), 500, 4500,
		lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")},
		lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("10.0.1.12")},
		lb.Backend{Name: "ras3", Addr: netip.MustParseAddr("10.0.1.13")}))
}

// serve balances IKEv2 by source address with the given Picker.
func serve(ctx context.Context, picker lb.Picker, addr netip.Addr, ike, natt uint16, gateways ...lb.Backend) error {
	pool := new(lb.Pool)
	if err := pool.Set(gateways...); err != nil {
		return err
	}
	conns, err := udp.Listen(ctx, netip.AddrPortFrom(addr, ike), udp.ListenConfig{})
	if err != nil {
		return err
	}
	more, err := udp.Listen(ctx, netip.AddrPortFrom(addr, natt), udp.ListenConfig{})
	if err != nil {
		return err
	}
	engine := &udp.Engine{
		Balancer:   &lb.Balancer{Pool: pool, Table: new(lb.Table), Picker: picker},
		Classifier: ikev2.Classifier{Affinity: ikev2.AffinitySource},
	}
	return engine.Serve(ctx, append(conns, more...)...)
}
