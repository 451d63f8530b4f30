package remote_test

import (
	"fmt"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/plugintest/remote"
)

// A driver is as good over the wire as it is in the same process.
func TestConformance(t *testing.T) {
	plugintest.Suite{Site: "hq", Open: func(t *testing.T) plugintest.Target {
		return filebox.Target(t, func(t *testing.T, c plugins.Config) plugins.Driver {
			d := remote.Driver(t, new(filebox.Driver), nil)
			if err := d.Configure(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return d
		})
	}}.Run(t)
}

// In the Driver func of a plugintest.Target.
func ExampleDriver() {
	open := func(t *testing.T) plugins.Driver { return remote.Driver(t, new(filebox.Driver), nil) }
	fmt.Println(open != nil)
	// Output: true
}
