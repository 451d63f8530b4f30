package plugintest_test

import (
	"fmt"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// What the suite asks of a driver can be had without it, to see what a balancer
// can and can't do.
func ExampleIntents() {
	modest := plugins.Capabilities{Support: plugins.Full(
		"pools.picker", "pools.failback", "pools.need", "pools.panic", "pools.backends.admin", "pools.checks",
		"groups.affinity=source", "groups.client_address=nat", "groups.listeners.protocol=tcp",
	)}
	for _, in := range plugintest.Intents(plugintest.Layout{}, "secret")[:2] {
		for _, g := range plugins.Judge(in.Deployment, "", modest) {
			if g.Severity == plugins.SeverityError {
				fmt.Println(in.Name, "·", g)
			}
		}
	}
	// Output:
	// sstp · error: sites[0].groups[0].listeners[0].protocol: protocol: sstp can't be done here; it can be tcp
	// sstp with round robin · error: sites[0].groups[0].listeners[0].protocol: protocol: sstp can't be done here; it can be tcp
}
