package netscaler

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// target is b for tests of names, with drivers for a site whose objects' names begin with
// own.
func (b *box) target(site, own string) plugintest.Target {
	return plugintest.Target{
		Driver: func(t *testing.T) plugins.Driver {
			d := new(Driver)
			if err := d.Configure(t.Context(), plugins.Config{Site: site, Settings: b.settings}); err != nil {
				t.Fatal(err)
			}
			return d
		},
		BreakAfter: b.BreakAfter, Foreign: func() string { return b.Except(own) },
	}
}

func bound(b *box, v string) []string { return b.Bound("gslbvserver_gslbservice_binding", v) }

// TestNames looks at what the appliance answers with.
func TestNames(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	d := b.driver(t)
	apply(t, d, plugintest.WithNames(t, "names, two sites and one after them", nil))
	v4, v6, eu := "", "", ""
	for _, n := range b.Names("gslbvserver") {
		domain := strings.Join(b.Bound("gslbvserver_domain_binding", n), " ")
		switch record := b.Get("gslbvserver", n, "dnsrecordtype"); {
		case strings.HasPrefix(domain, "domainname=gw.vpn.example.com ttl=30") && record == "A":
			v4 = n
		case strings.HasPrefix(domain, "domainname=gw.vpn.example.com ttl=30"):
			v6 = n
		case strings.HasPrefix(domain, "domainname=eu.vpn.example.com ttl=30") && record == "A":
			eu = n
		}
	}
	if v4 == "" || v6 == "" || eu == "" {
		t.Fatalf("names are %v", b.Names("gslbvserver"))
	}
	service := func(addr string) string { return plugins.DefaultOwner.Name("hq", 127, "gslb", addr) }
	ras1, ras2, lyon := "servicename="+service("198.51.100.1"), "servicename="+service("198.51.100.2"), "servicename="+service("198.51.100.31")
	if diff := cmp.Diff([]string{ras1 + " weight=1", ras2 + " weight=1"}, bound(b, v4)); diff != "" {
		t.Error(diff)
	}
	// Berlin has two gateways of both, Seattle one of IPv6: the sites share alike.
	if got := strings.Join(bound(b, v6), "; "); strings.Count(got, "weight=50") != 2 || strings.Count(got, "weight=100") != 1 {
		t.Error(got)
	}
	standby := b.Get("gslbvserver", v4, "backupvserver")
	if diff := cmp.Diff([]string{lyon + " weight=1"}, bound(b, standby)); diff != "" {
		t.Error(diff)
	}
	want(t, "two sites of one name", strings.Join(bound(b, eu), "; "), ras1+" weight=50; "+ras2+" weight=50; "+lyon+" weight=100")
	if got := b.Bound("gslbservice_lbmonitor_binding", service("198.51.100.1")); len(got) != 1 || !strings.Contains(got[0], "sstp") {
		t.Errorf("the checks are %v", got)
	}
	want(t, "health of what isn't checked", b.Get("gslbservice", service("198.51.100.31"), "healthmonitor"), "NO")
	want(t, "the site", b.Get("gslbsite", "aovlb_hq_gslb_site", "siteipaddress"), "10.0.0.5")
	if got := b.Names("service"); len(got) != 2 {
		t.Errorf("queries are answered by %v", got)
	}
	apply(t, d, nil)
	if got := b.Names("gslbvserver"); len(got) != 1 {
		t.Errorf("there are still %v", got)
	}
}

// TestDrainOfASite takes a site out of all names, and an Apply leaves it out.
func TestDrainOfASite(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	d := b.driver(t)
	dep := plugintest.WithNames(t, "names", nil)
	apply(t, d, dep)
	count := func() (berlin, others int) {
		for _, n := range b.Names("gslbvserver") {
			for _, x := range bound(b, n) {
				if strings.Contains(x, "_198_51_100_1_") || strings.Contains(x, "_198_51_100_2_") || strings.Contains(x, "_db8_b_") {
					berlin++
				} else {
					others++
				}
			}
		}
		return berlin, others
	}
	before, rest := count()
	ref := plugins.ParseBackendRef("geo:berlin")
	if err := plugins.DrainWithin(t.Context(), d, plugins.DrainRequest{BackendRef: ref, Deadline: time.Now().Add(time.Hour)}, time.Millisecond, nil); err != nil {
		t.Fatal(err)
	}
	if now, others := count(); now != 0 || others != rest || before != 8 {
		t.Errorf("Berlin is bound %d times, was %d; others %d, were %d", now, before, others, rest)
	}
	s, err := d.Read(t.Context())
	if err != nil || len(s.Drained) != 1 || s.Drained[0].BackendRef != ref {
		t.Errorf("%+v, %v", s, err)
	}
	w := b.Writes()
	if p := apply(t, d, dep); len(p.Changes) > 0 || b.Writes() != w {
		t.Errorf("an Apply undoes the drain: %v", p.Changes)
	}
	// A name more, without the drained site.
	more := dep.Clone()
	more.Geo.Names = append(more.Geo.Names, plugins.GeoName{Name: "x.vpn.example.com"})
	apply(t, d, more)
	if now, _ := count(); now != 0 {
		t.Errorf("Berlin is bound %d times", now)
	}
	// Broken off anywhere, it is made good.
	plugintest.UndrainBrokenOff(t, b.target("hq", "aovlb_hq"), more, ref)
	d = b.driver(t)
	if now, _ := count(); now != 12 {
		t.Errorf("Berlin is bound %d times again", now)
	}
	for _, no := range []string{"geo:rome", "geo:", "geo/berlin", "berlin"} {
		if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.ParseBackendRef(no)}); !errors.Is(err, plugins.ErrNotFound) {
			t.Errorf("%s: %v", no, err)
		}
	}
	if err := d.Undrain(t.Context(), ref); !errors.Is(err, plugins.ErrNotDrained) {
		t.Errorf("what isn't drained: %v", err)
	}
}

// TestOnlyNames has an appliance answer for names, and do nothing else.
func TestOnlyNames(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	plugintest.OnlyNames(t, b.target("", "aovlb_geo_"), "names, near the client")
}

// TestGSLBIsOff: names are refused unless the settings ask for them, and while the
// appliance has the feature turned off, or no site of its own.
func TestGSLBIsOff(t *testing.T) {
	b := newBox(t)
	dep := plugintest.WithNames(t, "names", nil)
	p, err := b.driver(t).Plan(t.Context(), dep)
	if err != nil || !slices.ContainsFunc(p.Diagnostics, func(g plugins.Diagnostic) bool { return g.Path == "geo" && g.Severity == plugins.SeverityError }) {
		t.Errorf("%v, %v", p, err)
	}
	b.withGSLB(t, `{}`)
	if _, err := b.driver(t).Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), "gslb.address") {
		t.Errorf("without a site: %v", err)
	}
	b.SetFeatures("LB", "SSL")
	if _, err := b.driver(t).Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), "enable ns feature GSLB") {
		t.Errorf("without the feature: %v", err)
	}
	list, err := new(Driver).Validate(context.Background(), dep)
	if err != nil || plugins.HasError(list) {
		t.Errorf("a driver that isn't configured: %v, %v", list, err)
	}
	err = new(Driver).Configure(t.Context(), plugins.Config{Settings: json.RawMessage(`{"url":"https://ns","user":"u","password":{"env":"P"},"gslb":{"address":"0.0.0.0"}}`)})
	if l := plugins.FieldErrors(err); len(l) != 1 || l[0].Path != "settings.gslb.address" {
		t.Errorf("%v", err)
	}
}

// TestAdviceOnNames has said what becomes of what NetScaler can't do.
func TestAdviceOnNames(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*plugins.Geo)
		path   string
		level  plugins.Severity
	}{
		"a wildcard":       {func(g *plugins.Geo) { g.Names[0].Name = "*.vpn.example.com" }, "geo.names[0].name", plugins.SeverityError},
		"distance":         {func(g *plugins.Geo) { g.Names[0].Order = []string{"distance"} }, "geo.names[0].order[0]", plugins.SeverityWarning},
		"priority at last": {func(g *plugins.Geo) { g.Names[0].Order = []string{"country", "priority"} }, "geo.names[0].order[1]", plugins.SeverityWarning},
		"a signed zone":    {func(g *plugins.Geo) { g.Zones[0].Keys = []plugins.GeoKey{{File: "K"}} }, "geo.zones[0].keys", plugins.SeverityError},
		"inside only":      {func(g *plugins.Geo) { g.Sites[2].Gateways[0].Addresses = nil }, "geo.sites[2].gateways[0].addresses", plugins.SeverityError},
		"an address twice": {func(g *plugins.Geo) { g.Sites[2].Gateways = g.Sites[0].Gateways[:1] }, "geo.sites[2].gateways[0].addresses[0]", plugins.SeverityError},
		"a long life":      {func(g *plugins.Geo) { g.Names[0].TTL = plugins.Duration(1500 * time.Millisecond) }, "geo.names[0].ttl", plugins.SeverityInfo},
		"an open door":     {func(g *plugins.Geo) { g.Listen[0] = netip.MustParseAddrPort("0.0.0.0:53") }, "geo.listen[0]", plugins.SeverityError},
		"who may be":       {func(g *plugins.Geo) { g.Sites[0].Only, g.Sites[0].Serves.Countries = true, []string{"DE"} }, "geo.sites[0].only", plugins.SeverityError},
		"a manual return":  {func(g *plugins.Geo) { g.Failback = plugins.FailbackManual }, "geo.failback", plugins.SeverityWarning},
		"a network of IPv6": {func(g *plugins.Geo) {
			g.Names[0].Order, g.Networks = []string{"country"}, []plugins.GeoNetwork{{Prefix: netip.MustParsePrefix("2001:db8::/32")}}
		}, "geo.networks[0].prefix", plugins.SeverityWarning},
	} {
		plugintest.Advised(t, new(Driver), what, plugintest.WithNames(t, "names", c.change), c.path, c.level)
	}
}

// TestRenderedNames has the commands for names, with what an administrator must know.
func TestRenderedNames(t *testing.T) {
	list, err := new(Driver).Render(t.Context(), plugintest.WithNames(t, "names, near the client", nil))
	if err != nil {
		t.Fatal(err)
	}
	text := string(list[0].Content)
	plugintest.Shows(t, text,
		"enable ns feature LB SSL GSLB\n",
		"add gslb site aovlb_hq_gslb_site LOCAL <the appliance's own address as a GSLB site>\n",
		"add location 198.51.100.31 198.51.100.31 EU.FR.*.*.*.aovlb_hq\n",
		"add gslb service aovlb_hq_gslb_198_51_100_1_", " ANY * -siteName aovlb_hq_gslb_site -healthMonitor YES",
		" ANY -dnsRecordType A -lbMethod STATICPROXIMITY -backupLBMethod ROUNDROBIN -EDR DISABLED",
		" -domainName gw.vpn.example.com -TTL 30\n", " ADNS 53 ",
	)
}

// TestTaken says what NITRO says of what is there already (error 273), and goes on once
// it isn't: an address of somebody else's, and a name.
func TestTaken(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	b.Put("lbvserver", "theirs", map[string]any{"servicetype": "TCP", "ipv46": "192.0.2.10", "port": 443})
	d := b.driver(t)
	dep := plugintest.WithNames(t, "names", nil)
	foreign := b.Get("lbvserver", "theirs", "servicetype")
	p, err := d.Plan(t.Context(), dep)
	if err != nil || plugins.HasError(p.Diagnostics) {
		t.Fatalf("%v, %v", p, err)
	}
	err = d.Apply(t.Context(), p, nil)
	if err == nil || !strings.Contains(err.Error(), "Resource already exists") || !strings.Contains(err.Error(), "error 273, HTTP 409") || !strings.Contains(err.Error(), "change ") {
		t.Errorf("an address of somebody else's: %v", err)
	}
	b.Put("lbvserver", "theirs", map[string]any{"ipv46": "192.0.2.99"})
	apply(t, d, dep)
	want(t, "what is theirs", b.Get("lbvserver", "theirs", "servicetype"), foreign)
	// Two targets that answer for the same name on one appliance.
	other := &Driver{}
	if err := other.Configure(t.Context(), plugins.Config{Site: "hq", Owner: "second", Settings: b.settings}); err != nil {
		t.Fatal(err)
	}
	if p, err = other.Plan(t.Context(), &plugins.Deployment{Sites: dep.Sites, Geo: dep.Geo}); err != nil {
		t.Fatal(err)
	}
	if err = other.Apply(t.Context(), p, nil); !hasCode(err, 273) {
		t.Errorf("a second one: %v", err)
	}
	apply(t, other, nil)
	if p := apply(t, d, dep); len(p.Changes) > 0 {
		t.Errorf("the second one has changed what is the first one's: %v", p.Changes)
	}
}

// TestAnotherSiteAddress moves the appliance's own GSLB site: its services go with it
// and come again.
func TestAnotherSiteAddress(t *testing.T) {
	b := newBox(t)
	dep := plugintest.WithNames(t, "names, two sites and one after them", nil)
	for _, address := range []string{"10.0.0.5", "10.0.0.7"} {
		b.withGSLB(t, `{"address": "`+address+`"}`)
		d := b.driver(t)
		apply(t, d, dep)
		want(t, "the address", b.Get("gslbsite", "aovlb_hq_gslb_site", "siteipaddress"), address)
		if p := apply(t, d, dep); len(p.Changes) > 0 {
			t.Errorf("there is still to do %v", p.Changes)
		}
	}
}

// TestNamesMove goes from names to other names, at random: sites and gateways are called
// otherwise and have each other's addresses, and networks overlap those before.
func TestNamesMove(t *testing.T) {
	for seed := range uint64(4) {
		b := newBox(t)
		b.withGSLB(t, `{"address": "10.0.0.5"}`)
		foreign := b.Except("aovlb_hq_")
		d, w := b.driver(t), &walker{Rand: rand.New(rand.NewPCG(seed, 8))}
		for range 12 {
			dep := plugintest.WithNames(t, "names", w.move)
			apply(t, d, dep)
			if w.IntN(2) > 0 {
				site := dep.Geo.Sites[w.IntN(len(dep.Geo.Sites))].Name
				if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.GeoRef(site)}); err != nil {
					t.Fatal(err)
				}
				if p := apply(t, d, dep); len(p.Changes) > 0 {
					t.Fatalf("an Apply undoes a drain: %v", p.Changes)
				}
			}
		}
		apply(t, d, nil)
		if diff := cmp.Diff(foreign, b.Except("aovlb_hq_")); diff != "" {
			t.Error(diff)
		}
	}
}

// move moves gateways and sites at random.
func (w *walker) move(g *plugins.Geo) {
	swap := func(n int, f func(a, b *plugins.GeoSite)) {
		for range n {
			f(&g.Sites[w.IntN(len(g.Sites))], &g.Sites[w.IntN(len(g.Sites))])
		}
	}
	g.Names[1].Sites = nil
	swap(2, func(a, b *plugins.GeoSite) { a.Name, b.Name = b.Name, a.Name })
	swap(2, func(a, b *plugins.GeoSite) { a.Checks, b.Checks = b.Checks, a.Checks })
	swap(3, func(a, b *plugins.GeoSite) {
		x, y := &a.Gateways[w.IntN(len(a.Gateways))], &b.Gateways[w.IntN(len(b.Gateways))]
		x.Addresses, y.Addresses = y.Addresses, x.Addresses
	})
	g.Names[w.IntN(2)].Order = one(w, nil, []string{"country"}, []string{"priority"})
	g.Names[w.IntN(2)].Method = one(w, "", "weighted", "all", "first")
	for i := range g.Sites {
		g.Sites[i].Priority = w.IntN(2)
	}
	place := plugins.GeoPlace{Continent: "EU", Country: one(w, "DE", "FR")}
	g.Networks = []plugins.GeoNetwork{{Prefix: one(w, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/9"), netip.MustParsePrefix("198.51.100.0/24")), GeoPlace: place}}
	g.Listen = one(w, g.Listen, []netip.AddrPort{netip.AddrPortFrom(g.Listen[0].Addr().Next(), 53), g.Listen[0]}, []netip.AddrPort{netip.AddrPortFrom(g.Listen[0].Addr().Next(), 53)})
}

// TestNamesBrokenOff has the appliance stop after each write on the way from names to other
// names, to none, and back: a new program makes it good, and leaves alone what others have.
func TestNamesBrokenOff(t *testing.T) {
	b := newBox(t)
	b.withGSLB(t, `{"address": "10.0.0.5"}`)
	plugintest.NamesBrokenOff(t, b.target("hq", "aovlb_hq"))
}
