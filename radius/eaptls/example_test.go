package eaptls_test

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/eaptls"
)

// A look at a server's certificate, for a user that a policy lets in.
func ExampleClient_Look() {
	c := &eaptls.Client{Secret: radius.NewSecret([]byte("the shared secret")), User: `CORP\probe`}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	seen, err := c.Look(ctx, netip.MustParseAddrPort("127.0.0.1:9")) // nothing listens there
	fmt.Println(len(seen.Chain), err != nil)
	// Output: 0 true
}
