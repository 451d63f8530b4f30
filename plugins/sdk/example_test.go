package sdk_test

import (
	"fmt"

	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/sdk"
)

// The main function of a plugin.
func ExampleServe() {
	main := func() { sdk.Serve(new(filebox.Driver)) }
	fmt.Println(main != nil) // it is called by the program that hosts plugins
	// Output: true
}
