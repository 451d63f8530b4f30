package kemp

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

const zone = ".vpn.example.com"

func answering(s *Settings) { s.GSLB = true }

// target is b for tests of names; foreign shows what others have on it.
func (b *bench) target(foreign func() string) plugintest.Target {
	return plugintest.Target{Driver: func(t *testing.T) plugins.Driver { return b.driver(t) }, BreakAfter: b.BreakAfter, Foreign: foreign}
}

// TestNames looks at what GEO answers with.
func TestNames(t *testing.T) {
	b := newBench(t, answering)
	d := b.driver(t)
	apply(t, d, plugintest.WithNames(t, "names, one site after the other", nil))
	text := b.Names(zone, true)
	plugintest.Shows(t, text,
		"name gw.vpn.example.com FailTime=0 LocalSettings=Y LocalSticky=0 LocalTTL=30 SelectionCriteria=fw SiteRecoveryMode=manual UnanimousChecks=N",
		"address 198.51.100.1 Checker=https CheckerCodes=401 CheckerHTTPMethod=HEAD CheckerHost=vpn.example.com CheckerURL=/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ Enable=Y Weight=300 checkerip=198.51.100.1 port=443",
		"address 198.51.100.2", "Weight=299", "address 2001:db8:c::1 Checker=tcp Enable=Y Weight=200 checkerip=2001:db8:c::1 port=443",
		"address 198.51.100.31 Checker=none Enable=Y Weight=100",
	)
	apply(t, d, plugintest.WithNames(t, "names, by weight", func(g *plugins.Geo) { g.Names = g.Names[:1] }))
	if text = b.Names(zone, true); strings.Contains(text, "eu.vpn") || !strings.Contains(text, "SelectionCriteria=wrr") {
		t.Error(text)
	}
	apply(t, d, plugintest.WithNames(t, "names, near the client", nil))
	if text = b.Names(zone, true); !strings.Contains(text, "SelectionCriteria=lb") || !strings.Contains(text, "[{DE false} {EU true}]") {
		t.Error(text)
	}
	apply(t, d, plugintest.WithNames(t, "names, near the client", func(g *plugins.Geo) { g.Names[0].Order = []string{"distance"} }))
	if text = b.Names(zone, true); !strings.Contains(text, "SelectionCriteria=prx") || strings.Contains(text, "DE") {
		t.Error(text)
	}
	apply(t, d, nil)
	if text = b.Names(zone, true); text != "" {
		t.Errorf("there is still\n%s", text)
	}
}

// TestNamesOfOthers are left alone, also one that is wanted here.
func TestNamesOfOthers(t *testing.T) {
	b := newBench(t, answering)
	b.AddName("gw.vpn.example.com", "192.0.2.200")
	d := b.driver(t)
	if _, err := d.Plan(t.Context(), plugintest.WithNames(t, "names", nil)); err == nil || !strings.Contains(err.Error(), "isn't ours") {
		t.Errorf("%v", err)
	}
	dep := plugintest.WithNames(t, "names", func(g *plugins.Geo) { g.Names = g.Names[1:] })
	before := b.Names("gw"+zone, true)
	apply(t, d, dep)
	apply(t, d, nil)
	if diff := cmp.Diff(before, b.Names(zone, true)); diff != "" {
		t.Error(diff)
	}
	b.Disable()
	if _, err := d.Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), "GEO is not enabled") {
		t.Errorf("%v", err)
	}
}

// TestDrainOfASite disables its addresses in all names, and an Apply leaves them so.
func TestDrainOfASite(t *testing.T) {
	b := newBench(t, answering)
	d := b.driver(t)
	dep := plugintest.WithNames(t, "names", nil)
	apply(t, d, dep)
	ref := plugins.GeoRef("berlin")
	disabled := func() int { return strings.Count(b.Names(zone, true), "Enable=N") }
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: ref}); err != nil {
		t.Fatal(err)
	}
	if n := disabled(); n != 8 {
		t.Errorf("%d addresses are disabled", n)
	}
	s, err := d.Read(t.Context())
	if err != nil || len(s.Drained) != 1 || s.Drained[0].BackendRef != ref {
		t.Errorf("%+v, %v", s, err)
	}
	more := dep.Clone()
	more.Geo.Names = append(more.Geo.Names, plugins.GeoName{Name: "x.vpn.example.com", Sites: []string{"berlin"}})
	apply(t, d, more)
	if n := disabled(); n != 12 {
		t.Errorf("%d addresses are disabled", n)
	}
	plugintest.UndrainBrokenOff(t, b.target(nil), more, ref)
	d = b.driver(t)
	if n := disabled(); n != 0 {
		t.Errorf("%d addresses are disabled", n)
	}
	if err := d.Undrain(t.Context(), ref); !errors.Is(err, plugins.ErrNotDrained) {
		t.Error(err)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.GeoRef("rome")}); !errors.Is(err, plugins.ErrNotFound) {
		t.Error(err)
	}
	// What a person alters is put right.
	if !b.SetAddress("gw.vpn.example.com", "198.51.100.1", "Weight", "7") {
		t.Fatal("there is nothing to alter")
	}
	if p, err := d.Plan(t.Context(), more); err != nil || len(p.Changes) != 1 {
		t.Errorf("%v, %v", p, err)
	}
	apply(t, d, more)
}

// TestOnlyNames has a LoadMaster answer for names, and do nothing else.
func TestOnlyNames(t *testing.T) {
	b := newBench(t, answering)
	b.config.Site = ""
	plugintest.OnlyNames(t, b.target(func() string { return b.Others("aovlb_geo") }), "names")
	if text := b.Names(zone, true); text != "" {
		t.Errorf("there is still\n%s", text)
	}
}

// TestAdviceOnNames has said what becomes of what GEO can't do, or not as asked.
func TestAdviceOnNames(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*plugins.Geo)
		path   string
		level  plugins.Severity
	}{
		"two in a tier": {func(g *plugins.Geo) { g.Names[0].Order, g.Sites[2].Priority = []string{"priority"}, 1 }, "geo.names[0].order", plugins.SeverityError},
		"a wildcard":    {func(g *plugins.Geo) { g.Names[0].Name = "*.vpn.example.com." }, "geo.names[0].name", plugins.SeverityError},
		"a long life":   {func(g *plugins.Geo) { g.Names[0].TTL = plugins.Duration(1500e6) }, "geo.names[0].ttl", plugins.SeverityInfo},
		"a last resort": {func(g *plugins.Geo) {
			g.Names[0].AllDown, g.Names[0].LastResort = "last-resort", []netip.Addr{netip.MustParseAddr("192.0.2.1")}
		}, "geo.names[0].all_down", plugins.SeverityWarning},
		"places together": {func(g *plugins.Geo) { g.Names[0].Order = []string{"country", "distance"} }, "geo.names[0].order", plugins.SeverityWarning},
		"two checks": {func(g *plugins.Geo) {
			g.Sites[0].Checks = append(g.Sites[0].Checks, plugins.Check{Type: plugins.CheckTCP, Port: 443})
		}, "geo.sites[0].checks[2]", plugins.SeverityWarning},
		"what it listens to": {func(*plugins.Geo) {}, "geo.listen", plugins.SeverityWarning},
	} {
		plugintest.Advised(t, new(Driver), what, plugintest.WithNames(t, "names", c.change), c.path, c.level)
	}
}

// TestRenderedNames has the calls for names, with what an administrator must know.
func TestRenderedNames(t *testing.T) {
	list, err := new(Driver).Render(t.Context(), plugintest.WithNames(t, "names, near the client", nil))
	if err != nil {
		t.Fatal(err)
	}
	text := string(list[0].Content)
	plugintest.Shows(t, text,
		"function Invoke-LoadMaster", "cmd = 'addfqdn'; fqdn = 'gw.vpn.example.com' }", "cmd = 'modfqdn'; fqdn = 'gw.vpn.example.com'; SelectionCriteria = 'lb'",
		"cmd = 'addmap'; fqdn = 'gw.vpn.example.com'; ip = '2001:db8:c::1' }", "cmd = 'changecheckeraddr'; fqdn = 'gw.vpn.example.com'; ip = '198.51.100.1'; checkerip = '198.51.100.1'; port = '443' }",
		"; countrycode = 'DE'; iscontinent = 'no' }", "GEO must be enabled before",
	)
}

// TestNamesBrokenOff has the appliance stop after each write on the way from names to other
// names, to none, and back: a new program makes it good, and leaves alone what others have.
func TestNamesBrokenOff(t *testing.T) {
	b := newBench(t, answering)
	b.AddName("other.vpn.example.com", "192.0.2.200")
	plugintest.NamesBrokenOff(t, b.target(func() string { return b.Others("aovlb_hq") + b.Names("other"+zone, true) }))
}
