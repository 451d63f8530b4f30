package f5

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	appliance "github.com/aovlb/aovlb/internal/appliance/f5"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// gateways is a deployment of IKEv2 and SSTP.
func gateways() *plugins.Deployment {
	at := netip.MustParseAddrPort
	return &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}, {Name: "ras2", Address: netip.MustParseAddr("10.0.1.12")}},
			Checks: []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}},
		}},
		Groups: []plugins.Group{{
			Name: "vpn", Pool: "ras", ClientAddress: plugins.ClientAddressTransparent, Listeners: []plugins.Listener{
				{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: at("192.0.2.10:500")},
				{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: at("192.0.2.10:4500")},
				{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: at("192.0.2.10:443")},
			},
		}},
	}}}
}

func apply(t *testing.T, d *Driver, dep *plugins.Deployment) {
	t.Helper()
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
}

// TestServed looks at what the box serves, beyond AS3's word.
func TestServed(t *testing.T) {
	box := newBox(t)
	apply(t, configured(t, box, nil, nil), gateways())
	box.Do(func(virtuals map[string]*appliance.Virtual, pools map[string]*appliance.Pool, _ *[]appliance.Flow) {
		for _, name := range []string{"listener_ike", "listener_nat_t_" + nameHash(t, "nat-t")} {
			v := virtuals["/aovlb_hq/group_vpn/"+name]
			if v == nil {
				t.Fatalf("there is no %s", name)
			}
			if v.Snat != "none" || v.Persist != "persist_source" || v.Protocol != "udp" {
				t.Errorf("%s: %+v", name, v)
			}
		}
		if v := virtuals["/aovlb_hq/group_vpn/listener_sstp"]; v.Persist != "" || v.Protocol != "tcp" || v.Destination != "/aovlb_hq/192.0.2.10:443" {
			t.Errorf("sstp: %+v", v)
		}
		var names []string
		for _, m := range pools["/aovlb_hq/group_vpn/pool_4500"].Members {
			names = append(names, m.Name)
		}
		if diff := cmp.Diff([]string{"10.0.1.11:4500", "10.0.1.12:4500"}, names); diff != "" {
			t.Error(diff)
		}
	})
	group := box.Tenant("aovlb_hq")["group_vpn"].(map[string]any)
	persist := group["persist_source"].(map[string]any)
	if persist["matchAcrossVirtualPorts"] != true || persist["matchAcrossPools"] != true || persist["duration"] != 2100.0 {
		t.Errorf("the ports of a client don't lead to one server: %v", persist)
	}
	if got := group["check_sstp"].(map[string]any); got["send"] != `HEAD /sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/ HTTP/1.1\r\nHost: vpn.example.com\r\nConnection: close\r\n\r\n` ||
		got["receive"] != "HTTP/1.1 401" || got["targetPort"] != 443.0 || got["timeout"] != 16.0 {
		t.Errorf("the check: %v", got)
	}
}

// nameHash returns what a name that was altered ends in.
func nameHash(t *testing.T, name string) string {
	t.Helper()
	n := plugins.Owner("").Name("hq", 0, name)
	return n[strings.LastIndexByte(n, '_')+1:]
}

// TestRADIUS has users kept together by an attribute, whose number is a number.
func TestRADIUS(t *testing.T) {
	for user, want := range map[plugins.RADIUSUser]float64{"": 31, plugins.RADIUSByStation: 31, plugins.RADIUSByName: 1} {
		box := newBox(t)
		dep := deployments(t)["radius"]
		dep.Sites[0].Groups[0].RADIUS = &plugins.RADIUS{User: user}
		secret := secretFile(t, "login")
		apply(t, configured(t, box, nil, func(s *Settings) { s.RADIUSPassword = plugins.Secret{File: secret} }), dep)
		group := box.Tenant("aovlb_hq")["group_nps"].(map[string]any)
		if got := group["radius"].(map[string]any)["persistAttribute"]; got != want {
			t.Errorf("%s: attribute %v, want %v", user, got, want)
		}
		if got := group["listener_auth"].(map[string]any); len(got["persistenceMethods"].([]any)) > 0 || got["snat"] != "auto" {
			t.Errorf("the listener: %v", got)
		}
		if got := group["check_radius"].(map[string]any); got["monitorType"] != "radius" || got["username"] != "ping" {
			t.Errorf("the check: %v", got)
		}
	}
}

// TestSPI has an iRule only where it is asked for, and the capabilities say which.
func TestSPI(t *testing.T) {
	for _, asked := range []bool{false, true} {
		box := newBox(t)
		d := configured(t, box, nil, func(s *Settings) { s.IKESPI = asked })
		apply(t, d, gateways())
		group := box.Tenant("aovlb_hq")["group_vpn"].(map[string]any)
		_, rule := group["ike_spi"]
		_, source := group["persist_source"]
		if rule != asked || source == asked {
			t.Errorf("asked %t: a rule %t, by source %t", asked, rule, source)
		}
		c, err := d.Capabilities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s, ok := c.Lookup("groups.affinity", "spi")
		if !ok || s.Level != plugins.LevelPartial || strings.Contains(s.Instead, "an iRule knows") != asked {
			t.Errorf("asked %t: %+v", asked, s)
		}
		if !asked {
			continue
		}
		persist := group["persist_spi"].(map[string]any)
		if persist["persistenceMethod"] != "universal" || persist["iRule"] != "ike_spi" || persist["matchAcrossVirtualPorts"] != true {
			t.Errorf("%v", persist)
		}
	}
}

// TestLimits says what a BIG-IP can't do rather than leave it out.
func TestLimits(t *testing.T) {
	set := Settings{}.usual()
	for name, c := range map[string]struct {
		change func(*plugins.Deployment)
		path   string
		level  plugins.Severity
	}{
		"any address": {func(d *plugins.Deployment) {
			d.Sites[0].Groups[0].Listeners[0].Address = netip.MustParseAddrPort("0.0.0.0:500")
		}, "sites[0].groups[0].listeners[0].address", plugins.SeverityError},
		"two addresses": {func(d *plugins.Deployment) {
			d.Sites[0].Groups[0].Listeners[1].Address = netip.MustParseAddrPort("192.0.2.11:4500")
		}, "sites[0].groups[0].listeners[1].address", plugins.SeverityError},
		"nat":            {func(d *plugins.Deployment) { d.Sites[0].Groups[0].ClientAddress = "" }, "sites[0].groups[0].client_address", plugins.SeverityWarning},
		"only pings":     {func(d *plugins.Deployment) { d.Sites[0].Pools[0].Checks = []plugins.Check{{Type: plugins.CheckIKEv2}} }, "sites[0].pools[0].checks", plugins.SeverityWarning},
		"slow start":     {func(d *plugins.Deployment) { d.Sites[0].Pools[0].SlowStart = plugins.Duration(time.Hour) }, "sites[0].pools[0].slow_start", plugins.SeverityError},
		"a strange host": {func(d *plugins.Deployment) { d.Sites[0].Pools[0].Checks[0].Host = "a`reboot`" }, "sites[0].pools[0].checks[0].host", plugins.SeverityError},
		"great weights":  {func(d *plugins.Deployment) { d.Sites[0].Pools[0].Backends[0].Weight = new(1000) }, "sites[0].pools[0].backends", plugins.SeverityInfo},
		"panic":          {func(d *plugins.Deployment) { d.Sites[0].Pools[0].Panic = new(true) }, "sites[0].pools[0].panic", plugins.SeverityWarning},
		"a PROXY header": {func(d *plugins.Deployment) { d.Sites[0].Groups[0].Listeners[2].ProxyProtocol = plugins.ProxyV1 }, "sites[0].groups[0].listeners[2].proxy_protocol", plugins.SeverityError},
		"long memory":    {func(d *plugins.Deployment) { d.Sites[0].Groups[0].Idle = plugins.Duration(8 * 24 * time.Hour) }, "sites[0].groups[0].idle", plugins.SeverityInfo},
	} {
		d := gateways()
		c.change(d)
		found := false
		for _, g := range check(d, plugins.Config{Site: "hq"}, set) {
			found = found || g.Path == c.path && g.Severity == c.level
		}
		if !found {
			t.Errorf("%s: nothing is said of %s", name, c.path)
		}
	}
}

// TestRenderRule has the iRule rendered as a comment, for tmsh takes it by an editor.
func TestRenderRule(t *testing.T) {
	d := new(Driver)
	d.setUp.Set(plugins.Config{}, Settings{IKESPI: true}, nil)
	list, err := d.Render(t.Context(), gateways())
	if err != nil {
		t.Fatal(err)
	}
	text := string(list[0].Content)
	if !strings.Contains(text, "#   when CLIENT_DATA {") || !strings.Contains(text, "persistence universal persist_spi") {
		t.Error(text)
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, "persist uie") && line[0] != '#' {
			t.Errorf("tmsh would take this for a command: %s", line)
		}
	}
}

// TestChangedSecret has a new secret brought to the box, which doesn't tell the old one.
func TestChangedSecret(t *testing.T) {
	box := newBox(t)
	dep := deployments(t)["radius"]
	for i, password := range []string{"one", "two"} {
		secret := secretFile(t, password)
		d := configured(t, box, nil, func(s *Settings) { s.RADIUSPassword = plugins.Secret{File: secret} })
		p, err := d.Plan(t.Context(), dep)
		if err != nil || len(p.Changes) == 0 || i == 1 && len(p.Changes) != 1 {
			t.Fatalf("%s: %v, %v", password, p, err)
		}
		apply(t, d, dep)
	}
}

// TestCut ends the connections of one backend, and nobody else's.
func TestCut(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, nil)
	apply(t, d, gateways())
	box.Do(func(_ map[string]*appliance.Virtual, _ map[string]*appliance.Pool, flows *[]appliance.Flow) {
		*flows = append(*flows, appliance.Flow{Client: "203.0.113.1:500", Virtual: "192.0.2.10:4500", Server: "10.0.1.11:4500"},
			appliance.Flow{Client: "203.0.113.2:500", Virtual: "192.0.2.10:4500", Server: "10.0.1.12:4500"})
	})
	foreign := box.Foreign("aovlb_hq")
	ref := plugins.BackendRef{Pool: "ras", Backend: "ras1"}
	active := func() (n int64, state string) {
		t.Helper()
		s, err := d.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b := s.Pools[0].Backends[0]
		return *b.Active, b.State
	}
	if n, state := active(); n != 1 || state != "up" {
		t.Errorf("before: %d connections, %s", n, state)
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: ref}); err != nil {
		t.Fatal(err)
	}
	if n, state := active(); n != 1 || state != "draining" || !box.Saved() {
		t.Errorf("drained: %d connections, %s, saved %t", n, state, box.Saved())
	}
	// A change while it is drained doesn't end the drain.
	dep := gateways()
	dep.Sites[0].Groups[0].Idle = plugins.Duration(time.Hour)
	apply(t, d, dep)
	if n, state := active(); n != 1 || state != "draining" {
		t.Errorf("after a change: %d connections, %s", n, state)
	}
	if err := plugins.DrainWithin(t.Context(), d, plugins.DrainRequest{BackendRef: ref, Deadline: time.Now().Add(50 * time.Millisecond)}, 10*time.Millisecond, nil); err != nil {
		t.Fatal(err)
	}
	if n, state := active(); n != 0 || state != "down" {
		t.Errorf("cut off: %d connections, %s", n, state)
	}
	left := 0
	box.Do(func(_ map[string]*appliance.Virtual, _ map[string]*appliance.Pool, flows *[]appliance.Flow) {
		left = len(*flows)
	})
	if left != 2 {
		t.Errorf("%d flows are left, want that of the other backend and the foreign one", left)
	}
	if diff := cmp.Diff(foreign, box.Foreign("aovlb_hq")); diff != "" {
		t.Error(diff)
	}
	if err := d.Undrain(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, state := active(); state != "up" {
		t.Errorf("after the end: %s", state)
	}
}

// TestUnits has bits counted as bytes.
func TestUnits(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, nil)
	apply(t, d, gateways())
	box.Do(func(_ map[string]*appliance.Virtual, _ map[string]*appliance.Pool, flows *[]appliance.Flow) {
		*flows = append(*flows, appliance.Flow{Client: "203.0.113.1:500", Virtual: "192.0.2.10:443", Server: "10.0.1.11:443"})
	})
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := s.Listeners[2]
	if *l.Active != 1 || *l.Total != 3 || *l.In != (plugins.Traffic{Packets: 10, Bytes: 1000}) || *l.Out != (plugins.Traffic{Packets: 20, Bytes: 4000}) {
		t.Errorf("%+v in %v out %v", l, l.In, l.Out)
	}
}

// TestTampering finds whatever a person alters behind AS3's back.
func TestTampering(t *testing.T) {
	for name, alter := range map[string]func(map[string]*appliance.Virtual, map[string]*appliance.Pool){
		"snat": func(v map[string]*appliance.Virtual, _ map[string]*appliance.Pool) {
			v["/aovlb_hq/group_vpn/listener_ike"].Snat = "automap"
		},
		"persistence": func(v map[string]*appliance.Virtual, _ map[string]*appliance.Pool) {
			v["/aovlb_hq/group_vpn/listener_ike"].Persist = ""
		},
		"disabled": func(v map[string]*appliance.Virtual, _ map[string]*appliance.Pool) {
			v["/aovlb_hq/group_vpn/listener_sstp"].Disabled = true
		},
		"address": func(v map[string]*appliance.Virtual, _ map[string]*appliance.Pool) {
			v["/aovlb_hq/group_vpn/listener_sstp"].Destination = "/aovlb_hq/192.0.2.11:443"
		},
		"listener gone": func(v map[string]*appliance.Virtual, _ map[string]*appliance.Pool) {
			delete(v, "/aovlb_hq/group_vpn/listener_sstp")
		},
		"method": func(_ map[string]*appliance.Virtual, p map[string]*appliance.Pool) {
			p["/aovlb_hq/group_vpn/pool_500"].Method = "least-connections-member"
		},
		"member gone": func(_ map[string]*appliance.Virtual, p map[string]*appliance.Pool) {
			x := p["/aovlb_hq/group_vpn/pool_500"]
			x.Members = x.Members[1:]
		},
		"member more": func(_ map[string]*appliance.Virtual, p map[string]*appliance.Pool) {
			x := p["/aovlb_hq/group_vpn/pool_500"]
			x.Members = append(x.Members, &appliance.Member{Name: "10.9.9.9:500", Address: "10.9.9.9", Ratio: 1})
		},
	} {
		t.Run(name, func(t *testing.T) {
			box := newBox(t)
			d := configured(t, box, nil, nil)
			apply(t, d, gateways())
			box.Do(func(v map[string]*appliance.Virtual, p map[string]*appliance.Pool, _ *[]appliance.Flow) { alter(v, p) })
			p, err := d.Plan(t.Context(), gateways())
			if err != nil || len(p.Changes) != 1 {
				t.Fatalf("changes %v, %v", p, err)
			}
			if err := d.Apply(t.Context(), p, nil); err != nil {
				t.Fatal(err)
			}
			if p, err = d.Plan(t.Context(), gateways()); err != nil || len(p.Changes) > 0 {
				t.Errorf("left to do: %v, %v", p.Changes, err)
			}
		})
	}
}

// TestRefusal tells what AS3 says, before and while it works.
func TestRefusal(t *testing.T) {
	box := newBox(t)
	d := configured(t, box, nil, nil)
	taken := gateways()
	taken.Sites[0].Groups[0].Listeners[2].Address = netip.MustParseAddrPort("198.51.100.8:443")
	taken.Sites[0].Groups[0].Listeners = taken.Sites[0].Groups[0].Listeners[2:]
	if _, err := d.Plan(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "illegally shares destination address") {
		t.Errorf("an address of somebody else: %v", err)
	}
	p, err := d.Plan(t.Context(), gateways())
	if err != nil {
		t.Fatal(err)
	}
	box.FailNext("01070734:3: Configuration error: out of memory")
	if err := d.Apply(t.Context(), p, nil); err == nil || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("a task that fails: %v", err)
	}
	if box.Tenant("aovlb_hq") != nil {
		t.Error("half of it is there")
	}
	apply(t, d, gateways())
}

// TestRefusalHoldsNoSecret: what AS3 says may repeat what it was sent, and does not come
// through.
func TestRefusalHoldsNoSecret(t *testing.T) {
	box, logs := newBox(t), new(plugintest.Log)
	password := secretFile(t, "correct horse/battery")
	d := configured(t, box, logs, func(s *Settings) { s.RADIUSPassword = plugins.Secret{File: password} })
	dep := deployments(t)["radius"]
	tls := offloading(t, plugins.TLSOffload)
	key, err := os.ReadFile(tls.Sites[0].Certificates[0].KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(key), "\n")
	for _, c := range []struct {
		name, says, hidden string
		dep                *plugins.Deployment
	}{
		{"a password", `password "correct horse/battery" is too simple`, "horse", dep},
		{"a password as AS3 gets it", "ciphertext " + base64.RawURLEncoding.EncodeToString([]byte("correct horse/battery")), "Y29ycmVjd", dep},
		{"a password where the text is cut", strings.Repeat("x", 980) + " correct horse/battery", "horse", dep},
		{"a key", "can't load " + strings.Join(lines, " "), lines[1][:20], tls},
		{"a key as JSON", "can't load " + strings.Join(lines, `\n`), lines[1][:20], tls},
	} {
		p, err := d.Plan(t.Context(), c.dep)
		if err != nil || plugins.HasError(p.Diagnostics) {
			t.Fatalf("%s: %v, %v", c.name, err, p)
		}
		box.FailNext("01070734:3: " + c.says)
		err = d.Apply(t.Context(), p, nil)
		if err == nil || !strings.Contains(err.Error(), "01070734:3: ") || strings.Contains(err.Error(), c.hidden) {
			t.Errorf("%s: %v", c.name, err)
		}
		if strings.Contains(logs.String(), c.hidden) {
			t.Errorf("%s was logged", c.name)
		}
	}
}

// TestNotOurs leaves a tenant alone that only has our name.
func TestNotOurs(t *testing.T) {
	box := newBox(t)
	apply(t, configured(t, box, nil, nil), gateways())
	delete(box.Tenant("aovlb_hq"), "constants")
	d := configured(t, box, nil, nil)
	if _, err := d.Plan(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "isn't marked as ours") {
		t.Errorf("%v", err)
	}
	if _, err := d.Read(t.Context()); err == nil {
		t.Error("it is read as ours")
	}
}

// TestBusy waits while somebody else's declaration is worked on, and logs in anew.
func TestBusy(t *testing.T) {
	box := newBox(t)
	box.Polls, box.TokenUses = 6, 5
	d, other := configured(t, box, nil, nil), configured(t, box, nil, nil)
	p, err := d.Plan(t.Context(), gateways())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = d.Apply(ctx, p, func(g plugins.Progress) {
		if strings.Contains(g.Text, "works") {
			cancel() // the program ends while AS3 works
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("Apply that was called off: %v", err)
	}
	apply(t, other, gateways())
	if p, err = other.Plan(t.Context(), gateways()); err != nil || len(p.Changes) > 0 {
		t.Errorf("left to do: %v, %v", p, err)
	}
	box.ExpireTokens()
	if _, err := other.Read(t.Context()); err != nil {
		t.Errorf("with a token that has expired: %v", err)
	}
}

// TestSiteByItself finds the only site there is.
func TestSiteByItself(t *testing.T) {
	box := newBox(t)
	apply(t, configured(t, box, nil, nil), gateways())
	d := configured(t, box, nil, nil)
	c, settings, client := d.setUp.Peek()
	c.Site = ""
	d.setUp.Set(c, settings, client)
	s, err := d.Read(t.Context())
	if err != nil || s.Applied != gateways().Revision() {
		t.Fatalf("%+v, %v", s, err)
	}
	if diff := cmp.Diff(gateways().Revision(), s.Deployment.Revision()); diff != "" {
		t.Error(diff)
	}
}

// TestClient has requests repeated only where that is harmless.
func TestClient(t *testing.T) {
	for _, c := range []struct {
		name   string
		call   call
		status int
		want   int32
	}{
		{"a reading", call{method: http.MethodGet, path: "/x", again: true}, 502, tries},
		{"a writing", call{method: http.MethodPost, path: "/x"}, 502, 1},
		{"a writing to a busy box", call{method: http.MethodPost, path: "/x"}, 503, tries},
		{"a reading that is refused", call{method: http.MethodGet, path: "/x", again: true}, 400, 1},
		{"a reading of what isn't JSON", call{method: http.MethodGet, path: "/x", again: true}, 200, 1},
		{"a redirect", call{method: http.MethodGet, path: "/x", again: true}, 307, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var n atomic.Int32
			srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/x" {
					_, _ = w.Write([]byte(`{"token": {"token": "t"}}`))
					return
				}
				n.Add(1)
				w.Header().Set("Location", "https://elsewhere.example.com/")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte("<html>")) // the other side may have gone
			}))
			t.Cleanup(srv.Close)
			x, err := newClient(Settings{URL: srv.URL, Username: "admin", Password: plugins.Secret{File: secretFile(t, "p")}, Rate: 1000}, srv.Client())
			if err != nil {
				t.Fatal(err)
			}
			x.pause = time.Millisecond
			var out map[string]any
			if status, err := x.do(t.Context(), c.call, &out); err == nil || status != c.status || n.Load() != c.want {
				t.Errorf("%d requests, status %d, %v", n.Load(), status, err)
			}
		})
	}
}

// TestTrust reaches no BIG-IP whose certificate nobody vouches for.
func TestTrust(t *testing.T) {
	box := newBox(t)
	c, err := newClient(Settings{URL: box.Server.URL, Username: "admin", Password: plugins.Secret{File: secretFile(t, "p")}, Rate: 1000}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.pause = time.Millisecond
	if _, err := c.get(t.Context(), "/x", nil, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
}

// TestSettings has faults in settings said, and no secret.
func TestSettings(t *testing.T) {
	const good = `"username": "admin", "password": {"env": "P"}`
	for in, want := range map[string]string{
		`{}`: "settings.url",
		`{"url": "http://bigip.example.com", ` + good + `}`:              "settings.url",
		`{"url": "https://admin:hush@bigip.example.com", ` + good + `}`:  "settings.url",
		`{"url": "https://bigip.example.com/mgmt", ` + good + `}`:        "settings.url",
		`{"url": "https://bigip.example.com", "username": "admin"}`:      "settings.password",
		`{"url": "https://bigip.example.com", ` + good + `, "rate": -1}`: "settings.rate",
		`{"url": "https://bigip.example.com", ` + good + `, "oops": 1}`:  "settings",
		`{"url": "https://bigip.example.com", ` + good + `}`:             "",
	} {
		err := new(Driver).Configure(t.Context(), plugins.Config{Settings: json.RawMessage(in)})
		list := plugins.FieldErrors(err)
		switch {
		case want == "" && err != nil, want != "" && (len(list) == 0 || list[0].Path != want):
			t.Errorf("%s: %v, want %q", in, err, want)
		case err != nil && strings.Contains(err.Error(), "hush"):
			t.Errorf("a secret is said: %v", err)
		}
	}
}
