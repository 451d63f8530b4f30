package netscaler_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/netscaler"
)

// What an administrator would otherwise type.
func ExampleDriver_Render() {
	files, err := new(netscaler.Driver).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
			Checks:   []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{
			Name: "vpn", Pool: "ras", Affinity: plugins.AffinitySource, ClientAddress: plugins.ClientAddressTransparent,
			Listeners: []plugins.Listener{
				{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
				{Name: "natt", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:4500")},
			},
		}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(files[0].Content)) {
		if strings.Contains(line, "add lb monitor") || strings.Contains(line, "lb group") {
			fmt.Print(line)
		}
	}
	// Output:
	// add lb monitor aovlb_hq_ras_sstp HTTP -interval 5 -resptimeout 2 -retries 3 -successRetries 2 -destPort 443 -httpRequest "HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/" -respCode 401 -secure YES -customHeaders "Host: vpn.example.com\r\n"
	// add lb group aovlb_hq_vpn_persistency_SOURCEIP0 -persistenceType SOURCEIP -timeout 35
	// bind lb group aovlb_hq_vpn_persistency_SOURCEIP0 aovlb_hq_vpn_ike
	// bind lb group aovlb_hq_vpn_persistency_SOURCEIP0 aovlb_hq_vpn_natt
}
