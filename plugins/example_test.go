package plugins_test

import (
	"fmt"
	"net/netip"

	"github.com/aovlb/aovlb/plugins"
)

func ExampleDeployment_Validate() {
	d := &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{Name: "ras", Picker: "random", Backends: []plugins.Backend{
			{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")},
		}}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "rsa", Listeners: []plugins.Listener{
			{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
		}}},
	}}}
	for _, e := range plugins.FieldErrors(d.Validate()) {
		fmt.Println(e)
	}
	// Output:
	// sites[0].pools[0].picker: "random" is unknown, it can be maglev, least-clients, round-robin or least-outstanding
	// sites[0].groups[0].pool: there is no pool "rsa" in this site
}

func ExampleChange_String() {
	fmt.Println(plugins.Change{
		Action: plugins.ActionChange, Kind: "backend", Name: "ras/ras1",
		Fields: []plugins.FieldChange{{Name: "weight", Before: "1", After: "2"}},
	})
	// Output: ~ backend ras/ras1: weight 1 → 2
}
