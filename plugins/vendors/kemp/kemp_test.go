package kemp

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	appliance "github.com/aovlb/aovlb/internal/appliance/kemp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// vpn is IKEv2 and SSTP at one address, for three gateways.
func vpn(change func(*plugins.Site)) *plugins.Deployment {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr("192.0.2.10"), port) }
	s := plugins.Site{Name: "hq"}
	p := plugins.Pool{Name: "ras", Picker: plugins.PickLeastClients, Checks: []plugins.Check{{Type: plugins.CheckSSTP, Host: "vpn.example.com"}}}
	for i, name := range []string{"ras1", "ras2", "ras3"} {
		p.Backends = append(p.Backends, plugins.Backend{Name: name, Address: netip.AddrFrom4([4]byte{10, 0, 1, byte(11 + i)})})
	}
	s.Pools = []plugins.Pool{p}
	s.Groups = []plugins.Group{
		{
			Name: "ike", Pool: "ras", Affinity: plugins.AffinitySource, Idle: plugins.Duration(8 * time.Hour), ClientAddress: plugins.ClientAddressTransparent,
			Listeners: []plugins.Listener{{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: at(500)}, {Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: at(4500)}},
		},
		{Name: "sstp", Pool: "ras", Listeners: []plugins.Listener{{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: at(443)}}},
	}
	if change != nil {
		change(&s)
	}
	return &plugins.Deployment{Sites: []plugins.Site{s}}
}

func apply(t *testing.T, d *Driver, dep *plugins.Deployment) {
	t.Helper()
	p, err := d.Plan(t.Context(), dep)
	if err == nil && plugins.HasError(p.Diagnostics) {
		t.Fatal(p.Diagnostics)
	}
	if err == nil {
		err = d.Apply(t.Context(), p, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if p, err = d.Plan(t.Context(), dep); err != nil || len(p.Changes) > 0 {
		t.Fatalf("after Apply there is still to do: %v, %v", p.Changes, err)
	}
}

// TestServices compares what is made for IKEv2 and SSTP, field by field.
func TestServices(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	apply(t, d, vpn(nil))
	got := map[string]map[string]string{}
	s, err := d.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range s.Objects {
		if o.Kind == kindMemory {
			continue
		}
		m := map[string]string{}
		for _, f := range o.Fields {
			if f.Value != "" && !slices.Contains([]string{"CheckUseGet", "CheckPort", "CheckUse1.1", "Enable", "ForceL7"}, f.Name) {
				m[f.Name] = f.Value
			}
		}
		got[o.Name] = m
	}
	ike := map[string]string{
		"NickName": "aovlb_hq_ike_ike", "Transparent": "Y", "Idletime": "28800", "Schedule": "lc", "Persist": "src", "PersistTimeout": "28800",
		"RefreshPersist": "Y", "CheckType": "icmp",
	}
	natT := map[string]string{"FollowVSID": "192.0.2.10:500/udp"}
	maps.Copy(natT, ike)
	natT["NickName"] = plugins.Owner("").Name("hq", mostName, "ike", "nat-t") // it ends in a hash, for the dash
	want := map[string]map[string]string{
		"192.0.2.10:500/udp": ike, "192.0.2.10:4500/udp": natT,
		"192.0.2.10:443/tcp": {
			"NickName": "aovlb_hq_sstp_sstp", "Transparent": "N", "Idletime": "600", "Schedule": "lc", "Persist": "none", "PersistTimeout": "0", "RefreshPersist": "N",
			"CheckType": "https", "CheckUrl": plugins.SSTPPath, "CheckHost": "vpn.example.com", "CheckCodes": "401",
		},
	}
	for _, vs := range []string{"500/udp", "4500/udp", "443/tcp"} {
		port, _, _ := strings.Cut(vs, "/")
		for _, rs := range []string{"10.0.1.11", "10.0.1.12", "10.0.1.13"} {
			want["192.0.2.10:"+vs+" "+rs+":"+port] = map[string]string{"Weight": "1", "Limit": "0"}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestIndexesChange has services before ours go, so that all indexes change.
func TestIndexesChange(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	one := vpn(func(s *plugins.Site) { s.Groups = s.Groups[1:] })
	apply(t, d, one)
	both := vpn(func(s *plugins.Site) { s.Groups[0], s.Groups[1] = s.Groups[1], s.Groups[0] })
	apply(t, d, both)
	apply(t, d, vpn(func(s *plugins.Site) { s.Groups = s.Groups[:1] }))
	if ours := b.Ours(prefix); !strings.Contains(ours, "follows aovlb_hq_ike_ike") {
		t.Errorf("4500 doesn't follow 500:\n%s", ours)
	}
	// A person points it elsewhere.
	for _, c := range b.Commands() {
		if c == "disablers" {
			t.Error("a command was used that touches the services of others")
		}
	}
}

// TestGlobalTimers sees to it that the times of all the LoadMaster's checks stay.
func TestGlobalTimers(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	dep := vpn(func(s *plugins.Site) { s.Pools[0].Checks[0].Interval = plugins.Duration(time.Minute) })
	list, err := d.Validate(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(g plugins.Diagnostic) bool {
		return g.Severity == plugins.SeverityWarning && g.Path == "sites[0].pools[0].checks[0].interval"
	}) {
		t.Error("nobody says that the interval is the LoadMaster's")
	}
	before := b.Others(prefix)
	apply(t, d, dep)
	if diff := cmp.Diff(before, b.Others(prefix)); diff != "" {
		t.Error(diff)
	}
	if slices.Contains(b.Commands(), "modhealth") {
		t.Error("the times of all checks were set")
	}
	n := newBench(t, func(s *Settings) { s.ServiceTimers = true })
	apply(t, n.driver(t), dep)
	if !strings.Contains(n.Ours(prefix), "ChkInterval=60") {
		t.Error("the service has no interval of its own")
	}
}

// certificate makes a certificate for a host, and returns the names of its files.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	c, k, err := appliance.Issue("vpn.example.com")
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for name, text := range map[string]string{cert: c, key: k} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestCertificate uploads a certificate, renews it, and removes it.
func TestCertificate(t *testing.T) {
	for _, mode := range []plugins.TLSMode{plugins.TLSOffload, plugins.TLSReencrypt} {
		t.Run(string(mode), func(t *testing.T) {
			b := newBench(t, nil)
			d := b.driver(t)
			cert, key := certificate(t)
			dep := vpn(func(s *plugins.Site) {
				s.Groups[1].Listeners[0].TLS.Mode = mode
				s.Certificates = []plugins.Certificate{{Name: "vpn", Pool: "ras", CertFile: cert, KeyFile: key}}
			})
			apply(t, d, dep)
			ours := b.Ours(prefix)
			for _, want := range []string{"SSLAcceleration=Y", "CertFile=aovlb_hq_file_vpn", "TlsType=7", "SSLReencrypt=" + yesNo(mode == plugins.TLSReencrypt)} {
				if !strings.Contains(ours, want) {
					t.Errorf("no %s in\n%s", want, ours)
				}
			}
			c, k := certificate(t)
			for from, to := range map[string]string{c: cert, k: key} {
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			p, err := d.Plan(t.Context(), dep)
			if err != nil || len(p.Changes) != 1 || p.Changes[0].Kind != kindCertificate || p.Changes[0].Action != plugins.ActionChange {
				t.Fatalf("a renewed certificate is %v, %v", p, err)
			}
			apply(t, d, dep)
			apply(t, d, vpn(nil)) // passed through again
			if ours := b.Ours(prefix); strings.Contains(ours, "SSLAcceleration=Y") || strings.Contains(ours, "certificate") {
				t.Errorf("TLS is still ended:\n%s", ours)
			}
		})
	}
}

// TestWrongCertificate refuses a key of another certificate, and shows none of it.
func TestWrongCertificate(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	cert, _ := certificate(t)
	_, key := certificate(t)
	dep := vpn(func(s *plugins.Site) {
		s.Groups[1].Listeners[0].TLS.Mode = plugins.TLSOffload
		s.Certificates = []plugins.Certificate{{Name: "vpn", Pool: "ras", CertFile: cert, KeyFile: key}}
	})
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Apply(t.Context(), p, nil); err == nil || !strings.Contains(err.Error(), "belong together") || strings.Contains(err.Error(), "BEGIN") {
		t.Errorf("a key of another certificate: %v", err)
	}
}

// TestACME has the LoadMaster get a certificate, and get another when the name
// changes.
func TestACME(t *testing.T) {
	for _, api := range []API{APIv2, APIv1} {
		t.Run(string(api), func(t *testing.T) {
			b := newBench(t, func(s *Settings) { s.API = api })
			d := b.driver(t)
			dep := func(host string) *plugins.Deployment {
				return vpn(func(s *plugins.Site) {
					s.Groups[1].Listeners[0].TLS.Mode = plugins.TLSOffload
					s.Certificates = []plugins.Certificate{{Name: "vpn", Pool: "ras", ACME: &plugins.ACME{Host: host, Challenge: plugins.ChallengeHTTP}}}
				})
			}
			apply(t, d, dep("vpn.example.com"))
			apply(t, d, dep("vpn2.example.com"))
			if ours := b.Ours(prefix); !strings.Contains(ours, "CertFile=aovlb_hq_acme_vpn") {
				t.Errorf("the certificate isn't shown:\n%s", ours)
			}
			apply(t, d, nil)
			if ours := b.Ours(prefix); ours != "" {
				t.Errorf("something is left:\n%s", ours)
			}
		})
	}
}

// TestDrain drains by name with a deadline of the caller's, and counts.
func TestDrain(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	apply(t, d, vpn(nil))
	b.Serve("10.0.1.12", 7)
	b.Lose("10.0.1.13", true)
	before := b.Others(prefix)
	go b.Serve("10.0.1.12", 3)
	ref := plugins.BackendRef{Pool: "ras", Backend: "ras2"}
	var seen []int64
	err := plugins.DrainWithin(t.Context(), d, plugins.DrainRequest{BackendRef: ref, Deadline: time.Now().Add(300 * time.Millisecond)}, 50*time.Millisecond,
		func(g plugins.Drainage) { seen = append(seen, *g.Left) })
	if err != nil || len(seen) < 2 {
		t.Fatalf("drain: %v, %v", seen, err)
	}
	if ours := b.Ours(prefix); strings.Contains(ours, "10.0.1.12") {
		t.Errorf("it wasn't cut off at the deadline:\n%s", ours)
	}
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, x := range s.Pools[0].Backends {
		states[x.Name] = x.State
	}
	if diff := cmp.Diff(map[string]string{"ras1": "up", "ras2": "down", "ras3": "down"}, states); diff != "" {
		t.Error(diff)
	}
	if err := d.Undrain(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	apply(t, d, vpn(nil))
	if diff := cmp.Diff(before, b.Others(prefix)); diff != "" {
		t.Error("what others have has changed: ", diff)
	}
}

// TestDrainIsBrokenOff has a drain end after each of its writes.
func TestDrainIsBrokenOff(t *testing.T) {
	b := newBench(t, nil)
	d := b.driver(t)
	for n := range 20 {
		apply(t, d, vpn(nil))
		b.BreakAfter(n)
		err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "ras1"}})
		b.BreakAfter(-1)
		d = b.driver(t)
		apply(t, d, vpn(nil))
		if s, readErr := d.Read(t.Context()); readErr != nil || err == nil && len(s.Drained) != 1 {
			t.Fatalf("after %d writes: %+v, %v", n, s, readErr)
		}
		if err == nil {
			return
		}
		if err := d.Undrain(t.Context(), plugins.BackendRef{Backend: "ras1"}); err != nil && !errors.Is(err, plugins.ErrNotDrained) {
			t.Fatal(err)
		}
	}
	t.Error("a drain takes more than 20 writes")
}

// TestTaken says so where somebody else has the address.
func TestTaken(t *testing.T) {
	b := newBench(t, nil)
	dep := vpn(func(s *plugins.Site) { s.Groups[1].Listeners[0].Address = netip.MustParseAddrPort("192.0.2.80:443") })
	if _, err := b.driver(t).Plan(t.Context(), dep); err == nil || !strings.Contains(err.Error(), `"Web"`) {
		t.Errorf("an address of somebody else's: %v", err)
	}
}

// TestWithoutSite finds the only site that is there.
func TestWithoutSite(t *testing.T) {
	b := newBench(t, nil)
	b.config.Site = ""
	d := b.driver(t)
	apply(t, d, vpn(nil))
	s, err := d.Stats(t.Context())
	if err != nil || s.Site != "hq" || len(s.Listeners) != 3 {
		t.Errorf("statistics without a site: %+v, %v", s, err)
	}
	apply(t, b.driver(t), nil)
	if ours := b.Ours(prefix); ours != "" {
		t.Errorf("something is left:\n%s", ours)
	}
}

// TestDiagnostics has what is done in part, or not at all, said at its field.
func TestDiagnostics(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*plugins.Site)
		want   string // the diagnostic's beginning
	}{
		"udp is pinged": {nil, "warning: sites[0].pools[0].checks: for listeners of UDP the LoadMaster only pings"},
		"2xx":           {nil, "info: sites[0].pools[0].checks[0].expect: for the LoadMaster any status from 200 to 299 is as good as 401"},
		"error 809":     {func(s *plugins.Site) { s.Groups[0].ClientAddress = "" }, "warning: sites[0].groups[0].client_address: gateways see all clients"},
		"spi":           {func(s *plugins.Site) { s.Groups[0].Affinity = plugins.AffinitySPI }, "warning: sites[0].groups[0].affinity: "},
		"three of udp": {func(s *plugins.Site) {
			l := s.Groups[0].Listeners[0]
			l.Name, l.Address = "x", netip.MustParseAddrPort("192.0.2.10:501")
			s.Groups[0].Listeners = append(s.Groups[0].Listeners, l)
		}, "error: sites[0].groups[0].listeners: there are 3 of udp"},
		"any address":       {func(s *plugins.Site) { s.Groups[1].Listeners[0].Address = netip.MustParseAddrPort("0.0.0.0:443") }, "error: sites[0].groups[1].listeners[0].address: "},
		"shared priorities": {func(s *plugins.Site) { s.Pools[0].Backends[2].Priority = 1 }, "error: sites[0].pools[0].backends: several backends share a priority"},
		"a priority each":   {func(s *plugins.Site) { s.Pools[0].Backends[1].Priority, s.Pools[0].Backends[2].Priority = 1, 2 }, "info: sites[0].pools[0].backends: priorities are done by fixed weighting"},
		"long memory":       {func(s *plugins.Site) { s.Groups[0].Idle = plugins.Duration(8 * 24 * time.Hour) }, "warning: sites[0].groups[0].idle: "},
		"two checks": {func(s *plugins.Site) {
			s.Pools[0].Checks = append(s.Pools[0].Checks, plugins.Check{Type: plugins.CheckTCP, Port: 443})
		}, "warning: sites[0].pools[0].checks[1]: it isn't asked"},
		"expects 200":        {func(s *plugins.Site) { s.Pools[0].Checks[0].Expect = 200 }, "warning: sites[0].pools[0].checks[0].expect: "},
		"expects 100":        {func(s *plugins.Site) { s.Pools[0].Checks[0].Expect = 100 }, "error: sites[0].pools[0].checks[0].expect: "},
		"PROXY":              {func(s *plugins.Site) { s.Groups[1].Listeners[0].ProxyProtocol = plugins.ProxyV2 }, "error: sites[0].groups[1].listeners[0].proxy_protocol: "},
		"an unusual port":    {func(s *plugins.Site) { s.Groups[1].Listeners[0].BackendPort = 65535 }, "error: sites[0].groups[1].listeners[0].backend_port: port 65535"},
		"more than it takes": {func(s *plugins.Site) { s.Pools[0].Backends[0].MaxClients = 200000 }, "warning: sites[0].pools[0].backends[0].max_clients: "},
	} {
		t.Run(name, func(t *testing.T) {
			d := newBench(t, nil).driver(t)
			list, err := d.Validate(t.Context(), vpn(c.change))
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range list {
				if strings.HasPrefix(g.String(), c.want) {
					return
				}
			}
			t.Errorf("no %q among %v", c.want, list)
		})
	}
	if g := plugins.Judge(&plugins.Deployment{Geo: new(plugins.Geo)}, "", capabilities(Settings{})); len(g) != 1 || g[0].Severity != plugins.SeverityError {
		t.Errorf("geo is judged %v", g)
	}
}

// TestSettings has each fault said at its field, and no secret in it.
func TestSettings(t *testing.T) {
	for raw, want := range map[string]string{
		``: "settings.address",
		`{"address":"http://lm","api_key":{"env":"K"}}`:                                "settings.address",
		`{"address":"https://bal:hunter2@lm","api_key":{"env":"K"}}`:                   "settings.address",
		`{"address":"https://lm"}`:                                                     "settings.api_key",
		`{"address":"https://lm","user":"bal"}`:                                        "settings.password",
		`{"address":"https://lm","api":"v1","api_key":{"env":"K"}}`:                    "settings.api_key",
		`{"address":"https://lm","api":"v3","api_key":{"env":"K"}}`:                    "settings.api",
		`{"address":"https://lm","api_key":{"env":"K"},"timeout":"1h"}`:                "settings.timeout",
		`{"address":"https://lm","api_key":{"env":"K"},"rate":-1}`:                     "settings.rate",
		`{"address":"https://lm","api_key":{"env":"K","file":"f"}}`:                    "settings.api_key",
		`{"address":"https://lm","api_key":{"env":"K"},"insecure":true}`:               "settings",
		`{"address":"https://lm","api_key":{"env":"K"},"ca_file":"/nonexistent/ca"}`:   "settings.ca_file",
		`{"address":"https://lm","api_key":{"env":"K"},"user":"bal"}`:                  "settings.api_key",
		`{"address":"https://lm","api_key":{"env":"K"}} {"address":"https://another"}`: "settings",
	} {
		err := new(Driver).Configure(t.Context(), plugins.Config{Settings: json.RawMessage(raw)})
		var paths []string
		for _, e := range plugins.FieldErrors(err) {
			paths = append(paths, e.Path)
		}
		if !slices.Contains(paths, want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want a fault of %s", raw, err, want)
		}
	}
}

// TestAnswers has answers of all sorts be errors that show no secret.
func TestAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status     int
		body, want string
	}{
		"a page":            {200, "<html>hello</html>", "no JSON"},
		"nothing":           {200, "", "no JSON"},
		"a list":            {200, "[]", "no JSON object"},
		"a secret":          {422, `{"code":422,"message":"no ` + plugintest.Canary + `-key here"}`, "no … here"},
		"a private key":     {422, `{"code":422,"message":"bad -----BEGIN PRIVATE KEY----- abc"}`, "bad …"},
		"unauthorized":      {401, `{"code":401,"message":"x"}`, "aren't accepted"},
		"a redirect":        {302, ``, "Found"},
		"an error as 200":   {200, `{"code":422,"message":"Unknown VS"}`, "Unknown VS"},
		"nested too deeply": {200, strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100), "too deeply"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			b := newBench(t, func(s *Settings) { s.Address = server.URL })
			d := &Driver{HTTP: server.Client()}
			d.HTTP.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			if err := d.Configure(t.Context(), b.config); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Read(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), plugintest.Canary) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestRetries asks again what changes nothing, and gives an order once.
func TestRetries(t *testing.T) {
	calls := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	b := newBench(t, func(s *Settings) { s.Address = server.URL })
	d := &Driver{HTTP: server.Client()}
	if err := d.Configure(t.Context(), b.config); err != nil {
		t.Fatal(err)
	}
	_, _, box := d.setUp.Peek()
	if _, err := box.ask(t.Context(), "listvs", nil); err == nil || calls != tries {
		t.Errorf("a question was asked %d times: %v", calls, err)
	}
	calls = 0
	if _, err := box.do(t.Context(), "delvs", nil); err == nil || calls != 1 {
		t.Errorf("an order was given %d times: %v", calls, err)
	}
}

// TestCertificateIsVerified refuses a LoadMaster that shows another certificate.
func TestCertificateIsVerified(t *testing.T) {
	b := newBench(t, func(s *Settings) { s.CAFile = "" })
	if _, err := b.driver(t).Read(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of an unknown CA: %v", err)
	}
}

// TestCapabilities names only fields that there are.
func TestCapabilities(t *testing.T) {
	for _, s := range []Settings{{}, {ServiceTimers: true}} {
		c := capabilities(s)
		for _, f := range c.Faults() {
			t.Error(f)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"code":200,"VS":[{"Index":1,"Rs":[{"Addr":"10.0.0.1"}]}]}`))
	f.Add([]byte(`<Response stat="200" code="ok"><Success><Data><VS><Index>1</Index></VS></Data></Success></Response>`))
	f.Add([]byte(`<Response stat="422"><Error>no</Error></Response>`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, n := range []*node{first(parseJSON(b)), firstOf4(parseXML(b))} {
			x := &found{prefix: prefix}
			x.readServices(n)
			x.arrange(nil)
			x.readRules(n)
		}
	})
}

func first(n *node, _ error) *node                     { return n }
func firstOf4(n *node, _ int, _ string, _ error) *node { return n }
