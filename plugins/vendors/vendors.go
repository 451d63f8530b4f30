// Package vendors lists the drivers for balancers of others that come with aovlb.
// Each has a folder of its own, and one line here.
package vendors

import (
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/f5"
	"github.com/aovlb/aovlb/plugins/vendors/haproxy"
	"github.com/aovlb/aovlb/plugins/vendors/keepalived"
	"github.com/aovlb/aovlb/plugins/vendors/kemp"
	"github.com/aovlb/aovlb/plugins/vendors/netscaler"
)

// A Vendor is a driver that comes with aovlb.
type Vendor struct {
	// Name is the driver's, as files name it, Product what it drives.
	Name, Product string
	// New returns a new driver, not configured.
	New func() plugins.Driver
}

// All returns the vendors, by name.
func All() []Vendor {
	return []Vendor{
		{"f5", "F5 BIG-IP", func() plugins.Driver { return new(f5.Driver) }},
		{"haproxy", "HAProxy", func() plugins.Driver { return new(haproxy.Driver) }},
		{"keepalived", "keepalived (IPVS)", func() plugins.Driver { return new(keepalived.Driver) }},
		{"kemp", "Kemp LoadMaster", func() plugins.Driver { return new(kemp.Driver) }},
		{"netscaler", "NetScaler ADC", func() plugins.Driver { return new(netscaler.Driver) }},
	}
}

// Find returns the vendor of that name.
func Find(name string) (Vendor, bool) {
	for _, v := range All() {
		if v.Name == name {
			return v, true
		}
	}
	return Vendor{}, false
}
