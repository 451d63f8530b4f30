package ownfile_test

import (
	"fmt"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// A driver writes a file, and knows it again.
func Example() {
	owner := plugins.DefaultOwner
	file, err := ownfile.Head(owner.Mark("hq", "r1"), "Written by a driver.", map[string]int{"edition": 7})
	if err != nil {
		fmt.Println(err)
		return
	}
	file = append(file, "backend aovlb_hq_vpn\n"...)
	var memory struct{ Edition int }
	err = ownfile.Recall(file, &memory)
	fmt.Println(memory.Edition, err)
	fmt.Println(ownfile.Site(plugins.Config{}, nil, file), ownfile.Ours(owner, "hq", file, 0), ownfile.Ours(owner, "branch", file, 0))
	// Output:
	// 7 <nil>
	// hq true false
}
