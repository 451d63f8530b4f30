package nginx_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/nginx"
)

// What an administrator would otherwise write.
func ExampleRenderer_Render() {
	files, err := new(nginx.Renderer).Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
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
	for line := range strings.Lines(string(files[0].Content)) {
		if strings.Contains(line, "hash") || strings.Contains(line, "server ") || strings.Contains(line, "listen ") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// hash $remote_addr;
	// server 10.0.1.11:500 max_fails=0; # ras1
	// server {
	// listen 192.0.2.1:500 udp reuseport;
	// hash $remote_addr;
	// server 10.0.1.11:4500 max_fails=0; # ras1
	// server {
	// listen 192.0.2.1:4500 udp reuseport;
}
