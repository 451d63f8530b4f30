package npscert_test

import (
	"fmt"
	"strings"

	"github.com/aovlb/aovlb/radius/npscert"
)

// What one server of a cluster asks AD CS for.
func ExampleRequest_INF() {
	r := &npscert.Request{Cluster: "nps.corp.example", Hosts: []string{"nps1.corp.example"}}
	inf, err := r.INF()
	if err != nil {
		fmt.Println(err)
		return
	}
	for line := range strings.Lines(string(inf)) {
		if strings.HasPrefix(line, "Subject") || strings.HasPrefix(line, "_continue_") {
			fmt.Println(strings.TrimSpace(line))
		}
	}
	// Output:
	// Subject = "CN=nps.corp.example"
	// _continue_ = "dns=nps.corp.example&"
	// _continue_ = "dns=nps1.corp.example"
}
