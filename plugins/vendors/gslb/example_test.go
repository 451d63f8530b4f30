package gslb_test

import (
	"fmt"
	"net/netip"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// A driver goes through names, tiers, sites and their gateways.
func Example() {
	g := &plugins.Geo{
		Names: []plugins.GeoName{{Name: "GW.vpn.example.com.", Order: []string{"priority"}}},
		Sites: []plugins.GeoSite{
			{Name: "seattle", Priority: 1, Gateways: []plugins.GeoGateway{{Name: "ras1", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.21")}}}},
			{Name: "berlin", Gateways: []plugins.GeoGateway{{Name: "ras1", Addresses: []netip.Addr{netip.MustParseAddr("198.51.100.1")}}}},
		},
	}
	for _, n := range gslb.Names(g) {
		for i, tier := range n.Tiers {
			for _, s := range tier {
				for _, m := range gslb.Members(s, "A") {
					fmt.Println(n.FQDN, n.TTL, i+1, s.Name, m.Label(), m.Address)
				}
			}
		}
	}
	// Output:
	// gw.vpn.example.com 30s 1 berlin ras1 198.51.100.1
	// gw.vpn.example.com 30s 2 seattle ras1 198.51.100.21
}
