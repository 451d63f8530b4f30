package haproxy_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/haproxy"
)

// What an administrator would otherwise write.
func ExampleDriver_Render() {
	files, err := new(haproxy.Driver).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Picker: plugins.PickLeastClients,
			Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
			Checks:   []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{
			{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: netip.MustParseAddrPort("192.0.2.1:443")},
		}}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(files[0].Content)) {
		if strings.Contains(line, "http-check") || strings.Contains(line, "server ") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// timeout server 600s
	// http-check connect port 443 ssl alpn http/1.1 sni vpn.example.com
	// http-check send meth HEAD uri /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ ver HTTP/1.1 hdr Host vpn.example.com
	// http-check expect status 401
	// server ras1 10.0.1.11:443 weight 1 verify none check inter 5s rise 2 fall 3
	// timeout server 600s
	// server ras1 10.0.1.11:443 weight 1
}
