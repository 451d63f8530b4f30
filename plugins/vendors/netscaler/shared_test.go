package netscaler

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// TestOthersUseOurs has somebody use what we made, since NetScaler has it once: our
// removal leaves it to them, and takes it once they are gone.
func TestOthersUseOurs(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	first, dep := b.driver(t), plugintest.WithNames(t, "names", nil)
	before := b.Except("nothing")
	apply(t, first, dep)
	second := new(Driver)
	if err := second.Configure(t.Context(), plugins.Config{Site: "lab", Owner: "second", Settings: b.settings}); err != nil {
		t.Fatal(err)
	}
	// The same gateways behind another address, and names with gateways of their own.
	theirs := dep.Clone()
	theirs.Sites[0].Name = "lab"
	for i := range theirs.Sites[0].Groups[0].Listeners {
		l := &theirs.Sites[0].Groups[0].Listeners[i]
		l.Address = later(l.Address, 40)
	}
	theirs.Geo.Listen[0] = later(theirs.Geo.Listen[0], 40)
	for i := range theirs.Geo.Names {
		theirs.Geo.Names[i].Name = "lab-" + theirs.Geo.Names[i].Name
	}
	for i := range theirs.Geo.Sites {
		for k := range theirs.Geo.Sites[i].Gateways {
			for n, a := range theirs.Geo.Sites[i].Gateways[k].Addresses {
				theirs.Geo.Sites[i].Gateways[k].Addresses[n] = later(netip.AddrPortFrom(a, 0), 40).Addr()
			}
		}
	}
	apply(t, second, theirs)
	want(t, "the site of their services", b.Get("gslbservice", b.Names("gslbservice")[len(b.Names("gslbservice"))-1], "sitename"), "aovlb_hq_gslb_site")

	p, err := first.Plan(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	said := ""
	for _, g := range p.Diagnostics {
		said += g.Summary + "\n"
	}
	if strings.Count(said, " stays: second_lab_") != 3 || !strings.Contains(said, "gslbsite aovlb_hq_gslb_site stays") || !strings.Contains(said, "server aovlb_hq_10_0_1_11") {
		t.Errorf("it says %q", said)
	}
	apply(t, first, nil)
	if p := apply(t, second, theirs); len(p.Changes) > 0 {
		t.Errorf("what is the second one's has changed: %v", p.Changes)
	}
	apply(t, second, nil)
	apply(t, first, nil)
	if diff := cmp.Diff(before, b.Except("nothing")); diff != "" {
		t.Error(diff)
	}
}

// later returns an address that is n after another, with its port.
func later(a netip.AddrPort, n int) netip.AddrPort {
	addr := a.Addr()
	for range n {
		addr = addr.Next()
	}
	return netip.AddrPortFrom(addr, a.Port())
}
