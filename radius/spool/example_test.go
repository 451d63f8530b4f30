package spool_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/aovlb/aovlb/radius/spool"
)

// A record is acknowledged once it is on disk, and then delivered.
func Example() {
	dir, err := os.MkdirTemp("", "spool")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s, err := spool.Open(spool.Config{Dir: filepath.Join(dir, "accounting")})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.Append(spool.Record{Data: []byte("alice has come")}, func(err error) {
		fmt.Println("synced:", err == nil)
	})
	err = s.Run(ctx, func(_ context.Context, d spool.Delivery) error {
		fmt.Printf("%s, sent before: %v\n", d.Data, d.Attempt > 0)
		cancel()
		return nil
	})
	fmt.Println(err, s.Close())
	// Output:
	// synced: true
	// alice has come, sent before: false
	// context canceled <nil>
}
