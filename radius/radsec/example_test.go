package radsec_test

import (
	"fmt"

	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
)

// A Dialer's Dial is what a Server of a radius.Proxy has in place of UDP.
func ExampleDialer() {
	d := &radsec.Dialer{All: radsec.Peer{Names: []string{"nps.corp.example"}}}
	server := radius.Server{Secret: radsec.Secret(), Dial: d.Dial}
	fmt.Println(server.Secret, d.Close())
	// Output: [secret] <nil>
}
