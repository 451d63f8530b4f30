package vendors_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors"
)

// TestFieldsAreNamed: what a driver does of a field it says of that field by itself,
// so that a field which is added to the model, below one that is done, isn't taken for
// done: until somebody has thought of it, it is refused.
func TestFieldsAreNamed(t *testing.T) {
	for _, v := range vendors.All() {
		c, err := v.New().Capabilities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range plugins.Fields() {
			if slices.ContainsFunc(c.Support, func(s plugins.Support) bool { return s.Field == f }) {
				continue
			}
			if s, ok := c.Lookup(f, ""); ok && s.Level == plugins.LevelFull {
				t.Errorf("%s does all of what is within %s, whatever that will be: name %s itself", v.Name, s.Field, f)
			}
		}
	}
}

// usual are values that mean the same as none.
var usual = map[string]string{"groups.listeners.tls.mode": `"passthrough"`, "groups.radius.mode": `"forward"`}

// unseen reports whether nobody need see what a field says: names are for people and
// check is to need all, and the name of a zone is what its names end in.
func unseen(field string, d *plugins.Deployment) bool {
	checks := d.Sites[0].Pools[0].Checks
	if field == "geo.zones.origin" || field == "geo.sites.check_need" && len(d.Geo.Sites[0].Checks) < 2 {
		return true
	}
	return field == "name" || strings.HasSuffix(field, ".name") || field == "pools.need" && (len(checks) < 2 || checks[0].Type == plugins.CheckIKEv2)
}

// TestNothingIsSilent: whatever is said in a field of the model, it shows in what is
// rendered for a product, or a diagnostic says why not. It goes through all fields that
// there are, so that it fails for a new one that a driver takes for done and does
// nothing with.
func TestNothingIsSilent(t *testing.T) {
	dir := t.TempDir()
	bases := basesOf(t, dir)
	for _, product := range vendors.Renderers() {
		t.Run(product, func(t *testing.T) {
			t.Parallel()
			tried, refused := make(map[string]bool), make(map[string]bool)
			for _, base := range bases {
				before, list := shown(t, product, base.dep)
				if plugins.HasError(list) {
					continue // it can't be done at all
				}
				for _, field := range plugins.Fields() {
					if refused[field] {
						continue // everywhere
					}
					list := base.other[field]
					tried[field] = tried[field] || len(list) > 0
					var said string
					refused[field], said = silent(t, product, before, field, list)
					if said != "" && !unseen(field, base.dep) {
						t.Errorf("%s: %s", base.name, said)
					}
				}
			}
			v, ok := vendors.Find(product)
			if !ok {
				return
			}
			c, err := v.New().Capabilities(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range plugins.Fields() {
				if s, ok := c.Lookup(f, ""); ok && s.Level == plugins.LevelFull && !tried[f] {
					t.Errorf("%s is done, and this test has no deployment where it means anything", f)
				}
			}
		})
	}
}

type base struct {
	name  string
	dep   *plugins.Deployment
	other map[string][]meant // by field
}

// shown is all that a product makes of a deployment.
func shown(t *testing.T, product string, d *plugins.Deployment) (string, []plugins.Diagnostic) {
	t.Helper()
	r, ok := vendors.FindRenderer(product)
	if !ok {
		t.Fatal("it isn't there")
	}
	list, err := r.Validate(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	out := fmt.Sprint(list)
	if plugins.HasError(list) {
		return out, list
	}
	files, err := r.Render(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		out += f.Name + "\n" + string(f.Content)
	}
	return out, list
}

// A meant is a deployment that says something else in one field.
type meant struct {
	dep         *plugins.Deployment
	value, path string
}

// meants gives a field of a deployment other values, and returns those that are valid.
func meants(d *plugins.Deployment, field, dir string) []meant {
	var out []meant
	for i := 0; len(out) < 3 || takesWords(field); i++ {
		x := d.Clone()
		value, path, more := vary(x, field, i, dir)
		if !more {
			break
		}
		if value != "" && value != usual[field] && x.Validate() == nil && x.Revision() != d.Revision() {
			out = append(out, meant{x, value, path})
		}
	}
	return out
}

// silent shows a product other values of a field. It says whether the field is refused
// as such, and what if none shows.
func silent(t *testing.T, product, before, field string, list []meant) (refused bool, said string) {
	t.Helper()
	for _, m := range list {
		now, list := shown(t, product, m.dep)
		if now != before || slices.ContainsFunc(list, func(g plugins.Diagnostic) bool { return judges(g.Path, m.path) }) {
			return !takesWords(field) && slices.ContainsFunc(list, func(g plugins.Diagnostic) bool {
				return g.Severity == plugins.SeverityError && judges(g.Path, m.path)
			}), ""
		}
		said = fmt.Sprintf("%s: %s changes nothing, and nobody says so", field, m.value)
	}
	return false, said
}

// takesWords reports whether a field has a few words for values, of which some may be
// refused and others not.
func takesWords(field string) bool {
	for _, name := range []string{"type", "protocol", "mode", "affinity", "picker", "failback", "need", "admin", "client_address", "min_version", "ask", "proxy_protocol", "check_need", "method", "all_down"} {
		if strings.HasSuffix(field, "."+name) {
			return true
		}
	}
	return false
}

// judges reports whether what is said of one field says all of another: of what it is
// in, or of a whole check by what kind of check it is.
func judges(said, of string) bool {
	within := func(p string) bool { return of == p || strings.HasPrefix(of, p+".") || strings.HasPrefix(of, p+"[") }
	for _, field := range []string{".type", ".advisory"} {
		if parent, ok := strings.CutSuffix(said, field); ok && within(parent) {
			return true
		}
	}
	return within(said)
}

// vary gives the field its ith other value, and returns that as text and where it is;
// false if there is none.
func vary(d *plugins.Deployment, field string, i int, dir string) (value, path string, more bool) {
	v, path := reflect.ValueOf(&d.Sites[0]).Elem(), "sites[0]"
	if strings.HasPrefix(field, "geo") {
		v, path = reflect.ValueOf(d).Elem(), ""
	}
	optional := false // whether its zero value isn't as if nothing were said
	for name := range strings.SplitSeq(field, ".") {
		f, ok := byTag(v, name)
		if !ok {
			return "", "", false
		}
		v, path, optional = f, strings.TrimPrefix(path+"."+name, "."), f.Kind() == reflect.Pointer
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Slice {
			switch {
			case v.Kind() == reflect.Pointer && v.IsNil():
				v.Set(reflect.New(v.Type().Elem()))
			case v.Kind() == reflect.Slice && v.Len() == 0:
				v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			}
			if v.Kind() == reflect.Pointer {
				v = v.Elem()
			} else {
				v, path = v.Index(0), path+"[0]"
			}
		}
	}
	list := others(v.Type(), dir)
	if i >= len(list) {
		return "", "", false
	}
	was := v.IsZero() && !optional
	if err := json.Unmarshal([]byte(list[i]), v.Addr().Interface()); err != nil || was && v.IsZero() {
		return "", path, true
	}
	return list[i], path, true
}

func byTag(v reflect.Value, name string) (reflect.Value, bool) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == name {
			return v.Field(i), true
		}
		if f.Anonymous && tag == "" {
			if inner, ok := byTag(v.Field(i), name); ok {
				return inner, true
			}
		}
	}
	return reflect.Value{}, false
}

// others are values of a type, as JSON.
func others(t reflect.Type, dir string) []string {
	switch t {
	case reflect.TypeFor[plugins.Duration]():
		return []string{`"40s"`, `"7s"`, `"1100ms"`, `"3m"`, `"2h"`}
	case reflect.TypeFor[netip.Addr]():
		return []string{`"10.0.9.9"`, `"127.0.0.9"`}
	case reflect.TypeFor[netip.AddrPort]():
		return []string{`"10.0.9.9:80"`, `"192.0.2.99:4500"`}
	case reflect.TypeFor[netip.Prefix]():
		return []string{`"10.9.0.0/16"`}
	}
	switch t.Kind() {
	case reflect.Bool:
		return []string{"true", "false"}
	case reflect.Int, reflect.Int64, reflect.Uint32, reflect.Float64:
		return []string{"7", "1", "0", "204", "8443", "-1"}
	case reflect.Map:
		return []string{`{"x":"y"}`, `{"x":1}`, `{}`}
	case reflect.String:
		var out []string
		for _, w := range []string{
			"other", "maglev", "least-clients", "round-robin", "least-outstanding", "automatic", "delayed", "manual", "all", "any", "ikev2", "sstp", "radius",
			"radsec", "tcp", "udp", "https", "icmp", "head", "call", "ip-https", "spi", "source", "user", "nat", "transparent", "enabled", "draining", "disabled",
			"v1", "v2", "passthrough", "offload", "reencrypt", "1.2", "1.3", "forward", "proxy", "off", "auto", "on", "nftables", "vpn2.example.com", "/health",
			"weighted", "hash", "first", "least-load", "as-if-up", "nodata", "servfail", "priority", "network", "country", "continent", "distance", "subdivision", "EU", "DE", "US-WA", "x.vpn2.example.com",
			filepath.Join(dir, "other.pem"), filepath.Join(dir, "secret"), "OTHER_SECRET", strings.Repeat("ab", 32), "10.9.0.0/16",
		} {
			out = append(out, fmt.Sprintf("%q", w))
		}
		return out
	}
	return nil
}

// basesOf are deployments in which the fields of the model have a meaning.
func basesOf(t *testing.T, dir string) []base {
	t.Helper()
	cert := selfSigned(t, dir)
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"other.pem": text, "secret": []byte("s3cret\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	front := netip.MustParseAddr("192.0.2.1")
	var out []base
	add := func(name string, change func(*plugins.Site, *plugins.Pool, *plugins.Group)) {
		d := site()
		s := &d.Sites[0]
		s.Groups[0].Listeners = listeners(front)
		change(s, &s.Pools[0], &s.Groups[0])
		if err := d.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := base{name, d, make(map[string][]meant)}
		for _, field := range plugins.Fields() {
			b.other[field] = meants(d, field, dir)
		}
		out = append(out, b)
	}
	sstp := func(g *plugins.Group) *plugins.Listener {
		g.Listeners = g.Listeners[2:]
		return &g.Listeners[0]
	}
	ended := func(mode plugins.TLSMode, s *plugins.Site, g *plugins.Group) *plugins.TLS {
		l := sstp(g)
		l.TLS.Mode, l.TLS.Clients.CAFile = mode, cert
		s.Certificates = []plugins.Certificate{{Name: "vpn", Pool: "ras", CertFile: cert}}
		return &l.TLS
	}
	add("ikev2", func(*plugins.Site, *plugins.Pool, *plugins.Group) {})
	add("sstp", func(_ *plugins.Site, _ *plugins.Pool, g *plugins.Group) { sstp(g) })
	add("sstp offloaded", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) { ended(plugins.TLSOffload, s, g) })
	add("sstp encrypted anew", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) {
		ended(plugins.TLSReencrypt, s, g).Gateway = plugins.GatewayTLS{CAFile: cert, ServerName: "ras.example.com"}
	})
	add("sstp encrypted anew for anybody", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) {
		ended(plugins.TLSReencrypt, s, g).Gateway.Insecure = true
	})
	add("sstp offloaded for all", func(s *plugins.Site, p *plugins.Pool, g *plugins.Group) {
		ended(plugins.TLSOffload, s, g).Clients.CAFile = ""
		p.Checks = append(p.Checks, plugins.Check{Name: "again", Type: plugins.CheckTCP, Port: 443})
	})
	add("sstp encrypted anew for all", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) {
		x := ended(plugins.TLSReencrypt, s, g)
		x.Clients.CAFile, x.Gateway.ServerName = "", "ras.example.com"
	})
	add("sstp with a certificate from a CA", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) {
		ended(plugins.TLSOffload, s, g).Clients.CAFile = ""
		s.Certificates[0] = plugins.Certificate{Name: "vpn", Pool: "ras", ACME: &plugins.ACME{Host: "vpn.example.com"}}
	})
	add("sstp with revoked clients", func(s *plugins.Site, _ *plugins.Pool, g *plugins.Group) {
		ended(plugins.TLSOffload, s, g).Clients.CRLFile = cert
	})
	add("delayed failback", func(_ *plugins.Site, p *plugins.Pool, g *plugins.Group) {
		sstp(g)
		p.Backends[1].Priority, p.Failback, p.FailbackDelay = 1, plugins.FailbackDelayed, plugins.Duration(time.Minute)
	})
	for _, c := range []plugins.Check{
		{Type: plugins.CheckIKEv2}, {Type: plugins.CheckTCP, Port: 443}, {Type: plugins.CheckHTTPS, Host: "vpn.example.com"}, {Type: plugins.CheckICMP},
	} {
		add("checked by "+string(c.Type), func(_ *plugins.Site, p *plugins.Pool, g *plugins.Group) {
			sstp(g)
			p.Checks = []plugins.Check{c, {Name: "besides", Type: plugins.CheckTCP, Port: 443}}
		})
	}
	t.Setenv("RADIUS_SECRET", "s3cret")
	t.Setenv("OTHER_SECRET", "other")
	add("radius without accounting", func(_ *plugins.Site, p *plugins.Pool, g *plugins.Group) {
		p.Checks = []plugins.Check{{Type: plugins.CheckRADIUS, SecretEnv: "RADIUS_SECRET"}}
		g.Listeners = []plugins.Listener{{Name: "auth", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(front, 1812)}}
	})
	add("radius", func(_ *plugins.Site, p *plugins.Pool, g *plugins.Group) {
		g.Affinity = plugins.AffinityUser
		p.Checks = []plugins.Check{
			{Type: plugins.CheckRADIUS, SecretFile: filepath.Join(dir, "secret")}, {Type: plugins.CheckICMP},
		}
		g.Listeners = []plugins.Listener{
			{Name: "auth", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(front, 1812)},
			{Name: "acct", Protocol: plugins.ProtocolRADIUS, Address: netip.AddrPortFrom(front, 1813)},
		}
	})
	return append(out, namesOf(t, dir, cert)...)
}

// namesOf are deployments in which the fields of geo have a meaning.
func namesOf(t *testing.T, dir, cert string) []base {
	t.Helper()
	var out []base
	add := func(name string, change func(*plugins.Geo, *plugins.GeoName, *plugins.GeoSite)) {
		d := site()
		d.Sites[0].Groups[0].Listeners = listeners(netip.MustParseAddr("192.0.2.1"))
		gateway := func(name string, list ...string) plugins.GeoGateway {
			g := plugins.GeoGateway{Name: name}
			for _, a := range list {
				g.Addresses = append(g.Addresses, netip.MustParseAddr(a))
			}
			return g
		}
		d.Geo = &plugins.Geo{
			Listen: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")}, Zones: []plugins.GeoZone{{Origin: "example.com", File: cert}},
			Names: []plugins.GeoName{{Name: "gw.vpn2.example.com"}, {Name: "vpn2.example.com"}},
			Sites: []plugins.GeoSite{
				{Name: "other", Gateways: []plugins.GeoGateway{gateway("ras1", "198.51.100.1"), gateway("ras2", "198.51.100.2")}, Checks: []plugins.Check{{Type: plugins.CheckSSTP}}},
				{Name: "there", Gateways: []plugins.GeoGateway{gateway("ras1", "198.51.100.3")}},
			},
		}
		change(d.Geo, &d.Geo.Names[0], &d.Geo.Sites[0])
		if err := d.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		b := base{name, d, make(map[string][]meant)}
		for _, field := range plugins.Fields() {
			if strings.HasPrefix(field, "geo.") {
				b.other[field] = meants(d, field, dir)
			}
		}
		out = append(out, b)
	}
	add("names", func(*plugins.Geo, *plugins.GeoName, *plugins.GeoSite) {})
	add("names by weight", func(_ *plugins.Geo, n *plugins.GeoName, _ *plugins.GeoSite) { n.Method = "weighted" })
	add("names by priority", func(_ *plugins.Geo, n *plugins.GeoName, s *plugins.GeoSite) {
		n.Order, s.Priority = []string{"priority"}, 2
	})
	add("names by place", func(g *plugins.Geo, n *plugins.GeoName, s *plugins.GeoSite) {
		n.Order, s.Continent, s.Country = []string{"country"}, "EU", "DE"
		g.Networks = []plugins.GeoNetwork{{Prefix: netip.MustParsePrefix("203.0.113.0/24"), GeoPlace: plugins.GeoPlace{Country: "FR"}}}
	})
	add("names with a last resort", func(_ *plugins.Geo, n *plugins.GeoName, _ *plugins.GeoSite) {
		n.AllDown, n.LastResort = "last-resort", []netip.Addr{netip.MustParseAddr("198.51.100.9")}
	})
	for _, c := range []plugins.Check{
		{Type: plugins.CheckTCP, Port: 443},
		{Type: plugins.CheckHTTPS, Host: "vpn.example.com"},
		{Type: plugins.CheckICMP},
		{Type: plugins.CheckIKEv2},
		{Type: plugins.CheckRADIUS, SecretFile: filepath.Join(dir, "secret")},
		{Type: plugins.CheckRADIUS, SecretEnv: "RADIUS_SECRET"},
	} {
		add("names checked by "+string(c.Type), func(_ *plugins.Geo, _ *plugins.GeoName, s *plugins.GeoSite) { s.Checks = []plugins.Check{c} })
	}
	return out
}
