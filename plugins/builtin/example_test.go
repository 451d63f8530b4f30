package builtin_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// A site is planned, served, and changed while it is served.
func ExampleDriver() {
	ctx := context.Background()
	dep := &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{Name: "ras", Backends: []plugins.Backend{
			{Name: "ras1", Address: netip.MustParseAddr("127.0.9.1")},
		}}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{
			{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("127.0.0.1:50500"), BackendPort: 500},
			{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("127.0.0.1:54500"), BackendPort: 4500},
		}}},
	}}}
	d := new(builtin.Driver)
	apply := func() {
		plan, err := d.Plan(ctx, dep)
		if err != nil {
			fmt.Println(err)
			return
		}
		if err := d.Apply(ctx, plan, func(p plugins.Progress) { fmt.Println(p.Change) }); err != nil {
			fmt.Println(err)
		}
	}
	apply()
	dep.Sites[0].Pools[0].Backends[0].MaxClients = 500
	apply()
	fmt.Println(d.Shutdown(ctx))
	// Output:
	// + pool ras
	// + backend ras/ras1: address 127.0.9.1
	// + group vpn: pool ras
	// + listener vpn/ike: protocol ikev2, address 127.0.0.1:50500, backend_port 500
	// + listener vpn/nat-t: protocol ikev2, address 127.0.0.1:54500, backend_port 4500
	// ~ backend ras/ras1: max_clients none → 500
	// <nil>
}
