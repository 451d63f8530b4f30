package builtin

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Capabilities says that everything in the model can be done, on Linux. A new
// field of the model isn't done until it is named here.
func (d *Driver) Capabilities(context.Context) (plugins.Capabilities, error) {
	c := plugins.Capabilities{
		Support: slices.Concat(
			plugins.Full(
				"pools.picker=maglev,least-clients,round-robin,least-outstanding",
				"pools.failback", "pools.failback_delay", "pools.slow_start", "pools.panic", "pools.need",
				"pools.backends.weight", "pools.backends.priority", "pools.backends.max_clients", "pools.backends.admin",
				"pools.checks.type=ikev2,sstp,radius,radsec,tcp,https,icmp", "pools.checks",
			),
			plugins.Full(
				"groups.affinity=spi,source,user", "groups.client_address=nat", "groups.idle", "groups.half_open",
				"groups.limits", "groups.radius",
				"groups.listeners.protocol=ikev2,sstp,radius,radsec,udp,tcp", "groups.listeners.backend_port", "groups.listeners.workers",
				"groups.listeners.proxy_protocol=v1,v2", "groups.listeners.idle_timeout", "groups.listeners.tls",
			),
			// The program serves these beside the driver.
			plugins.Full("certificates", "geo", "fastpath", "fastpath_options"),
		),
		MinInterval: plugins.Duration(time.Second), ExactExpect: true, DrainDeadline: true, KeepsClients: true,
	}
	if runtime.GOOS == "linux" {
		c.Support = append(c.Support, plugins.Full("groups.client_address=transparent")...)
	} else {
		c.Support = append(c.Support, plugins.None("groups.client_address=transparent",
			"only Linux lets a program send from another's address", "serve on Linux, or leave it out"))
	}
	return c, nil
}
