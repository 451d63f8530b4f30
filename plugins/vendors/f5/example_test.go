package f5_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/f5"
)

// What an administrator would otherwise type.
func ExampleDriver_Render() {
	files, err := new(f5.Driver).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
			Checks:   []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, ClientAddress: plugins.ClientAddressTransparent, Listeners: []plugins.Listener{
			{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
			{Name: "nat", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
		}}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(files[0].Content)) {
		if strings.Contains(line, "monitor https") || strings.Contains(line, "persistence source") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// create ltm monitor https check_sstp { destination *:443 interval 5 timeout 16 time-until-up 5 send "HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\nHost: vpn.example.com\r\nConnection: close\r\n\r\n" recv "HTTP/1.1 401" }
	// create ltm persistence source-addr persist_source { defaults-from source_addr timeout 2100 match-across-services enabled match-across-pools enabled mirror disabled }
}
