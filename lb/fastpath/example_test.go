package fastpath_test

import (
	"fmt"

	"github.com/aovlb/aovlb/lb/fastpath"
)

// What of a carried flow was left to the engine, as a status page shows it.
func ExampleReasons() {
	stats := fastpath.Stats{Passed: map[string]uint64{"control": 12, "spi": 3}}
	for _, why := range fastpath.Reasons() {
		if n := stats.Passed[why]; n > 0 {
			fmt.Printf("%s: %d\n", why, n)
		}
	}
	// Output:
	// control: 12
	// spi: 3
}
