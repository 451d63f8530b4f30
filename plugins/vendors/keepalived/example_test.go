package keepalived_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/keepalived"
)

// What an administrator would otherwise write.
func ExampleDriver_Render() {
	files, err := new(keepalived.Driver).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
			Checks:   []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, Listeners: []plugins.Listener{
			{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
			{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
		}}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, f := range files {
		fmt.Println(f.Name)
		for line := range strings.Lines(string(f.Content)) {
			if strings.Contains(line, "fwmark") || strings.Contains(line, "meta mark") || strings.Contains(line, "real_server") || strings.Contains(line, "path") {
				fmt.Println("  " + strings.TrimSpace(line))
			}
		}
	}
	// Output:
	// keepalived.conf
	//   virtual_server fwmark 168877775 {
	//   real_server 10.0.1.11 0 {
	//   path "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/"
	// marks.nft
	//   ip daddr 192.0.2.1 udp dport 500 meta mark set 0xa10decf
	//   ip daddr 192.0.2.1 udp dport 4500 meta mark set 0xa10decf
	// sysctl.conf
}
