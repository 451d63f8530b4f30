package kemp_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/kemp"
)

// What an administrator would otherwise click.
func ExampleDriver_Render() {
	files, err := new(kemp.Driver).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
		}},
		Groups: []plugins.Group{{
			Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, ClientAddress: plugins.ClientAddressTransparent,
			Listeners: []plugins.Listener{
				{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
				{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
			},
		}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(files[0].Content)) {
		if strings.Contains(line, "VirtualService =") || strings.Contains(line, "PortFollow") || strings.Contains(line, "New-AdcRealServer") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// VirtualService = '192.0.2.1'; VSPort = 500; VSProtocol = 'udp'
	// VirtualService = '192.0.2.1'; VSPort = 4500; VSProtocol = 'udp'
	// PortFollow         = 500  # a client's other port leads to the same backend
	// Confirm-Step (New-AdcRealServer -VirtualService '192.0.2.1' -VSPort 500 -VSProtocol udp -RealServer '10.0.1.11' -RealServerPort 500 -Weight 1) # ras1
	// Confirm-Step (New-AdcRealServer -VirtualService '192.0.2.1' -VSPort 4500 -VSProtocol udp -RealServer '10.0.1.11' -RealServerPort 4500 -Weight 1) # ras1
}
