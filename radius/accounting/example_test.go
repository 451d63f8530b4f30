package accounting_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/accounting"
	"github.com/aovlb/aovlb/radius/spool"
)

// printer takes the place of a radius.Proxy.
type printer struct{ done context.CancelFunc }

func (p printer) Forward(_ context.Context, client string, r radius.Packet, _ lb.Flow) ([]byte, error) {
	user, _ := r.Lookup(radius.UserName)
	late, _ := r.Lookup(radius.AcctDelayTime)
	fmt.Printf("%s: %s, may have come before: %v\n", client, user, binary.BigEndian.Uint32(late) > 0)
	p.done()
	return nil, nil
}

// A Store is given to a Proxy as its Spool. Here it is worked by hand.
func Example() {
	dir, err := os.MkdirTemp("", "accounting")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s, err := accounting.Open(accounting.Config{Spool: spool.Config{Dir: filepath.Join(dir, "store")}})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx, printer{cancel}) }()
	request := []byte{4, 1, 0, 27, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 7, 'a', 'l', 'i', 'c', 'e'}
	packet, err := radius.Parse(request)
	if err != nil {
		fmt.Println(err)
		return
	}
	err = s.Store(radius.Record{Packet: packet, Client: "ras1", Flow: lb.Flow{Client: netip.MustParseAddrPort("10.1.0.1:1813")}})
	fmt.Println("acknowledged:", err == nil)
	fmt.Println(<-ended, s.Close())
	// Unordered output:
	// acknowledged: true
	// ras1: alice, may have come before: false
	// context canceled <nil>
}
