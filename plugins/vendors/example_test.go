package vendors_test

import (
	"fmt"

	"github.com/aovlb/aovlb/plugins/vendors"
)

func ExampleFind() {
	_, ok := vendors.Find("abacus")
	fmt.Println(ok)
	// Output: false
}

func ExampleFindRenderer() {
	_, driver := vendors.Find("nginx")
	_, files := vendors.FindRenderer("nginx")
	fmt.Println(driver, files)
	// Output: false true
}
