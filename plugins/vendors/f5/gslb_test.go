package f5

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	appliance "github.com/aovlb/aovlb/internal/appliance/f5"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

func answering(s *Settings) { s.GSLB = true }

// named is a box for tests of names.
func named(box *appliance.Box) plugintest.Target {
	return plugintest.Target{Driver: func(t *testing.T) plugins.Driver { return configured(t, box, nil, answering) }, BreakAfter: box.BreakAfter}
}

// item returns an object that was declared.
func item(box *appliance.Box, tenant, app, name string) map[string]any {
	a, _ := box.Tenant(tenant)[app].(map[string]any)
	x, _ := a[name].(map[string]any)
	return x
}

// domains are the wide IPs that are declared, by name and type of record.
func domains(box *appliance.Box) map[string]map[string]any {
	out := make(map[string]map[string]any)
	app, _ := box.Tenant("aovlb_hq")["gslb"].(map[string]any)
	for _, v := range app {
		if x, ok := v.(map[string]any); ok && x["class"] == "GSLB_Domain" {
			out[x["domainName"].(string)+" "+x["resourceRecordType"].(string)] = x
		}
	}
	return out
}

// poolsOf are the pools of a wide IP, in their order, with what is declared of them.
func poolsOf(box *appliance.Box, domain map[string]any) (list []map[string]any, ratios []any) {
	pools, _ := domain["pools"].([]any)
	for _, p := range pools {
		p := p.(map[string]any)
		list, ratios = append(list, item(box, "aovlb_hq", "gslb", p["use"].(string))), append(ratios, p["ratio"])
	}
	return list, ratios
}

// TestNames looks at what is declared, and what of it is where others have a part.
func TestNames(t *testing.T) {
	box := newBox(t)
	box.Share("dc_of_others", map[string]any{"class": "GSLB_Data_Center"})
	d := configured(t, box, nil, answering)
	apply(t, d, plugintest.WithNames(t, "names, by weight", func(g *plugins.Geo) { g.Names[0].Name = "*.vpn.example.com." }))
	all := domains(box)
	if len(all) != 4 {
		t.Fatalf("wide IPs are %v", all)
	}
	x := all["*.vpn.example.com AAAA"]
	pools, ratios := poolsOf(box, x)
	if x["poolLbMode"] != "ratio" || len(pools) != 2 || !slices.Equal(ratios, []any{3.0, 2.0}) || pools[0]["maxAnswersReturned"] != 2.0 || pools[0]["ttl"] != 60.0 {
		t.Errorf("%v\n%v %v", x, pools, ratios)
	}
	server := item(box, "Common", "Shared", "aovlb_hq_gslb_server_berlin")
	list := server["virtualServers"].([]any)
	if len(list) != 4 || server["serverType"] != "generic-host" {
		t.Errorf("%v", server)
	}
	check := item(box, "Common", "Shared", "aovlb_hq_gslb_check_berlin_sstp")
	if check["target"] != "*:443" || check["receive"] != "HTTP/1.1 401" || check["timeout"] != 16.0 {
		t.Errorf("the check: %v", check)
	}
	if s := item(box, "aovlb_hq", "gslb", "dns_udp_1"); s["virtualPort"] != 53.0 || s["class"] != "Service_UDP" {
		t.Errorf("queries: %v", s)
	}
	// Names go while the sites stay.
	apply(t, d, plugintest.WithNames(t, "names, by weight", func(g *plugins.Geo) { g.Names = g.Names[1:] }))
	if all := domains(box); len(all) != 2 {
		t.Errorf("wide IPs are %v", all)
	}
	apply(t, d, nil)
	shared := box.Tenant("Common")["Shared"].(map[string]any)
	if diff := cmp.Diff(map[string]any{"class": "Application", "template": "shared", "dc_of_others": map[string]any{"class": "GSLB_Data_Center"}}, shared); diff != "" {
		t.Error(diff)
	}
}

// TestAllDown has each answer for the time when no site is left.
func TestAllDown(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, answering)
	for down, want := range map[string]func(domain, pool map[string]any) bool{
		"": func(d, p map[string]any) bool {
			return d["lastResortPool"] != nil && p["lbModeFallback"] == "round-robin"
		},
		"nodata": func(d, p map[string]any) bool {
			return d["failureRcode"] == "noerror" && d["failureRcodeResponse"] == true && d["lastResortPool"] == nil && p["lbModeFallback"] == "none"
		},
		"servfail": func(d, _ map[string]any) bool { return d["failureRcode"] == "servfail" },
		"last-resort": func(d, p map[string]any) bool {
			return d["lastResortPool"] != nil && p["lbModeFallback"] == "fallback-ip" && p["fallbackIP"] == "198.51.100.99"
		},
	} {
		apply(t, d, plugintest.WithNames(t, "names", func(g *plugins.Geo) {
			g.Names[0].AllDown = down
			if down == "last-resort" {
				g.Names[0].LastResort = []netip.Addr{netip.MustParseAddr("198.51.100.99")}
			}
		}))
		x := domains(box)["gw.vpn.example.com A"]
		if pools, _ := poolsOf(box, x); !want(x, pools[0]) {
			t.Errorf("%q: %v\n%v", down, x, pools[0])
		}
	}
}

// TestDrainOfASite disables its pools in all names, and an Apply leaves them so.
func TestDrainOfASite(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, answering)
	dep := plugintest.WithNames(t, "names", nil)
	apply(t, d, dep)
	disabled := func() (n int, last any) {
		box.Names(func(names map[string]*appliance.Name, _ *int) {
			for _, x := range names {
				if x.Disabled {
					n++
				}
			}
		})
		return n, domains(box)["gw.vpn.example.com A"]["lastResortPool"]
	}
	ref := plugins.GeoRef("berlin")
	_, first := disabled()
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: ref}); err != nil {
		t.Fatal(err)
	}
	if n, last := disabled(); n != 4 || cmp.Equal(first, last) {
		t.Errorf("%d pools are disabled, the last resort is %v", n, last)
	}
	d = configured(t, box, nil, answering)
	s, err := d.Read(t.Context())
	if err != nil || len(s.Drained) != 1 || s.Drained[0].BackendRef != ref {
		t.Errorf("%+v, %v", s, err)
	}
	w := box.Writes()
	apply(t, d, dep)
	if n, _ := disabled(); n != 4 || box.Writes() != w {
		t.Errorf("an Apply undoes the drain: %d", n)
	}
	plugintest.UndrainBrokenOff(t, named(box), dep, ref)
	d = configured(t, box, nil, answering)
	if n, last := disabled(); n != 0 || !cmp.Equal(first, last) {
		t.Errorf("%d pools are disabled, the last resort is %v", n, last)
	}
	if err := d.Undrain(t.Context(), ref); !errors.Is(err, plugins.ErrNotDrained) {
		t.Error(err)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.GeoRef("rome")}); !errors.Is(err, plugins.ErrNotFound) {
		t.Error(err)
	}
}

// TestTopology has clients led by where they are, and leaves the records of others alone.
func TestTopology(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, answering)
	dep := plugintest.WithNames(t, "names, near the client", func(g *plugins.Geo) {
		g.Sites[0].Serves.Networks = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}
	})
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology = 2 })
	if _, err := d.Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), "2 topology records that AS3 wasn't told of") {
		t.Errorf("with records of others: %v", err)
	}
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology = 0 })
	apply(t, d, dep)
	if x := domains(box)["gw.vpn.example.com A"]; x["poolLbMode"] != "topology" {
		t.Error(x)
	}
	n := 0
	box.Names(func(_ map[string]*appliance.Name, topology *int) { n = *topology })
	if n != 7 { // a network, and a country and a continent for each site
		t.Errorf("%d records", n)
	}
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology++ })
	dep.Geo.Names[0].TTL = plugins.Duration(90e9)
	if _, err := d.Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), "1 topology records") {
		t.Errorf("with one more of others: %v", err)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.GeoRef("berlin")}); err == nil || !strings.Contains(err.Error(), "1 topology records") {
		t.Errorf("a drain with one more of others: %v", err)
	}
	// Ours can't go either, while AS3 would take theirs along.
	for _, to := range []*plugins.Deployment{plugintest.WithNames(t, "names", nil), nil} {
		p, err := d.Plan(t.Context(), to)
		if err == nil {
			err = d.Apply(t.Context(), p, nil)
		}
		box.Names(func(_ map[string]*appliance.Name, topology *int) { n = *topology })
		if err == nil || !strings.Contains(err.Error(), "1 topology records") || n != 8 {
			t.Errorf("without ours: %v, and there are %d records", err, n)
		}
	}
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology-- })
	apply(t, d, nil)
	// Names without any are no better: AS3 would find records that it wasn't told of.
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology++ })
	if _, err := d.Plan(t.Context(), plugintest.WithNames(t, "names", nil)); err == nil || !strings.Contains(err.Error(), "1 topology records") {
		t.Errorf("names that go by no place: %v", err)
	}
	// What others declared is declared again.
	box.Names(func(_ map[string]*appliance.Name, topology *int) { *topology = 1 })
	box.Share("their_dc", map[string]any{"class": "GSLB_Data_Center"})
	box.Share("their_topology", map[string]any{"class": "GSLB_Topology_Records", "records": []any{map[string]any{
		"source": map[string]any{"matchType": "country", "matchValue": "SE"}, "destination": map[string]any{"matchType": "datacenter", "matchValue": map[string]any{"use": "their_dc"}},
	}}})
	apply(t, d, dep)
	apply(t, d, nil)
	box.Names(func(_ map[string]*appliance.Name, topology *int) { n = *topology })
	if n != 1 {
		t.Errorf("%d records are left of somebody's one", n)
	}
}

// TestTamperingWithNames finds what a person alters behind AS3's back.
func TestTamperingWithNames(t *testing.T) {
	for what, alter := range map[string]func(map[string]*appliance.Name){
		"ttl":  func(n map[string]*appliance.Name) { one(n, "pool").TTL = 3 },
		"off":  func(n map[string]*appliance.Name) { one(n, "pool").Disabled = true },
		"mode": func(n map[string]*appliance.Name) { one(n, "wideip").Mode = "topology" },
		"gone": func(n map[string]*appliance.Name) {
			x := one(n, "wideip")
			delete(n, x.Path+" wideip "+x.Record)
		},
	} {
		box := newBox(t)
		d := configured(t, box, nil, answering)
		dep := plugintest.WithNames(t, "names", nil)
		apply(t, d, dep)
		box.Names(func(n map[string]*appliance.Name, _ *int) { alter(n) })
		p, err := d.Plan(t.Context(), dep)
		if err != nil || len(p.Changes) != 1 {
			t.Fatalf("%s: %v, %v", what, p, err)
		}
		apply(t, d, dep)
		if p, err = d.Plan(t.Context(), dep); err != nil || len(p.Changes) > 0 {
			t.Errorf("%s: %v, %v", what, p.Changes, err)
		}
	}
}

// one returns the first of a kind.
func one(names map[string]*appliance.Name, kind string) *appliance.Name {
	for _, k := range slices.Sorted(func(yield func(string) bool) {
		for k := range names {
			if !yield(k) {
				return
			}
		}
	}) {
		if names[k].Kind == kind {
			return names[k]
		}
	}
	return nil
}

// TestPartialFailure has AS3 take one tenant and not the other: the next Apply does what
// is left.
func TestPartialFailure(t *testing.T) {
	for _, tenant := range []string{"aovlb_hq", "Common"} {
		box := newBox(t)
		d := configured(t, box, nil, answering)
		dep := plugintest.WithNames(t, "names", nil)
		p, err := d.Plan(t.Context(), dep)
		if err != nil {
			t.Fatal(err)
		}
		box.FailTenant(tenant, "01070734:3: Configuration error: out of memory")
		err = d.Apply(t.Context(), p, nil)
		if err == nil || !strings.Contains(err.Error(), "out of memory") || !strings.Contains(err.Error(), "tenant "+tenant) {
			t.Errorf("%s fails: %v", tenant, err)
		}
		apply(t, d, dep)
		if p, err = d.Plan(t.Context(), dep); err != nil || len(p.Changes) > 0 {
			t.Errorf("%s has failed before: there is still to do %v, %v", tenant, p, err)
		}
	}
}

// TestMultiStatus reads an answer at once, by which some tenants were taken and others
// not (HTTP 207).
func TestMultiStatus(t *testing.T) {
	for body, want := range map[string]string{
		`{"results": [{"code": 200, "message": "success", "tenant": "Common"}, {"code": 422, "message": "declaration failed", "response": "no room for it", "tenant": "aovlb_hq"}]}`: "tenant aovlb_hq: the BIG-IP answers 422: declaration failed no room for it",
		`{"results": [{"code": 200, "message": "success", "tenant": "Common"}, {"code": 200, "message": "no change", "tenant": "aovlb_hq"}]}`:                                        "",
		`{"results": []}`: "doesn't say what became",
		`{}`:              "doesn't say what became",
	} {
		srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/login") {
				_, _ = w.Write([]byte(`{"token": {"token": "t"}}`)) // the other side may have gone
				return
			}
			if r.URL.Path != declarePath+"Common,aovlb_hq" {
				t.Errorf("asked for %s", r.URL.Path)
			}
			w.WriteHeader(http.StatusMultiStatus)
			_, _ = w.Write([]byte(body))
		}))
		c, err := newClient(Settings{URL: srv.URL, Username: "admin", Password: plugins.Secret{File: secretFile(t, "p")}, Rate: 1000}, srv.Client())
		if err != nil {
			t.Fatal(err)
		}
		err = c.post(t.Context(), map[string]map[string]any{"aovlb_hq": {"class": "Tenant"}, "Common": {"class": "Tenant"}}, false, nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
		srv.Close()
	}
}

// TestOnlyNames has a BIG-IP answer for names, and do nothing else.
func TestOnlyNames(t *testing.T) {
	box := newBox(t)
	x := named(box)
	x.Driver = func(t *testing.T) plugins.Driver {
		d := configured(t, box, nil, answering)
		c, s, client := d.setUp.Peek()
		c.Site = ""
		d.setUp.Set(c, s, client)
		return d
	}
	x.Foreign = func() string { return box.Foreign("aovlb_geo") }
	plugintest.OnlyNames(t, x, "names, one site after the other")
}

// TestAdviceOnNames has said what becomes of what a BIG-IP can't do, or not as asked.
func TestAdviceOnNames(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*plugins.Geo)
		path   string
		level  plugins.Severity
	}{
		"two in a tier":    {func(g *plugins.Geo) { g.Names[0].Order, g.Sites[2].Priority = []string{"priority"}, 1 }, "geo.names[0].order", plugins.SeverityError},
		"places and order": {func(g *plugins.Geo) { g.Names[1].Order, g.Sites[2].Priority = []string{"priority", "country"}, 1 }, "geo.names[1].order", plugins.SeverityError},
		"by place":         {func(g *plugins.Geo) { g.Names[0].Order = []string{"country"} }, "geo.names", plugins.SeverityWarning},
		"distance":         {func(g *plugins.Geo) { g.Names[0].Order = []string{"distance"} }, "geo.names[0].order[0]", plugins.SeverityWarning},
		"horizons": {func(g *plugins.Geo) {
			g.Horizons = []plugins.GeoHorizon{{Name: "x", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
		}, "geo.horizons", plugins.SeverityError},
		"any address":      {func(g *plugins.Geo) { g.Listen[0] = netip.MustParseAddrPort("0.0.0.0:53") }, "geo.listen[0]", plugins.SeverityError},
		"an injected host": {func(g *plugins.Geo) { g.Sites[0].Checks[1].Host = `a"b` }, "geo.sites[0].checks[1]", plugins.SeverityError},
		"no outside at all": {func(g *plugins.Geo) {
			g.Names[0].Sites = []string{"lyon"}
			g.Sites[2].Gateways[0].Addresses = nil
			g.Horizons = []plugins.GeoHorizon{{Name: "i", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
			g.Sites[2].Gateways[0].Inside = map[string][]netip.Addr{"i": {netip.MustParseAddr("10.0.0.1")}}
		}, "geo.names[0].sites", plugins.SeverityError},
	} {
		plugintest.Advised(t, new(Driver), what, plugintest.WithNames(t, "names", c.change), c.path, c.level)
	}
	// What can't be done at all needs no word on how.
	list, err := new(Driver).Validate(t.Context(), plugintest.WithNames(t, "names, one site after the other", func(g *plugins.Geo) {
		g.Names[0].Order, g.Names[0].Method = []string{"priority", "country"}, "weighted"
	}))
	if err != nil || !plugins.HasError(list) || slices.ContainsFunc(list, func(g plugins.Diagnostic) bool { return g.Path == "geo.names[0].method" }) {
		t.Errorf("%v, %v", list, err)
	}
	if list := check(plugintest.WithNames(t, "names", nil), plugins.Config{Site: "hq"}, Settings{}.usual()); !slices.ContainsFunc(list, func(g plugins.Diagnostic) bool { return g.Path == "geo" && g.Severity == plugins.SeverityError }) {
		t.Errorf("a target that isn't asked to: %v", list)
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
		"cd /Common\n", "create gtm datacenter aovlb_hq_gslb_dc_berlin\n", "create gtm monitor https aovlb_hq_gslb_check_berlin_sstp { destination *:443 interval 5 ",
		"ras1_v6 { destination 2001:db8:b::1.any monitor aovlb_hq_gslb_check_berlin_sstp }", "create gtm topology ldns: country DE server: datacenter /Common/aovlb_hq_gslb_dc_berlin score 2000\n",
		"create gtm wideip a gw.vpn.example.com { pool-lb-mode topology", "/Common/aovlb_hq_gslb_server_berlin:ras2 { member-order 1 }", "create ltm virtual dns_udp_1 ",
	)
	if !strings.Contains(string(list[1].Content), `"GSLB_Topology_Records"`) || !strings.Contains(list[1].Summary, "among what others declared") {
		t.Errorf("%s\n%s", list[1].Summary, list[1].Content)
	}
}
