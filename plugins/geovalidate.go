package plugins

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The words of the policy of names. Package geo, which this one doesn't import,
// has them too; a test of the program compares them.
var (
	// GeoOrders are the criteria of GeoName.Order.
	GeoOrders = []string{"priority", "network", "asn", "subdivision", "country", "continent", "distance"}
	// GeoMethods are the methods of GeoName.Method.
	GeoMethods = []string{"round-robin", "weighted", "hash", "least-load", "first", "all"}
	// GeoAllDowns are what GeoName.AllDown can say.
	GeoAllDowns = []string{"as-if-up", "last-resort", "nodata", "servfail"}
)

func (v *validator) geo(at string, g *Geo) {
	if len(g.Listen) == 0 {
		v.add(at+".listen", "there is no address to answer at")
	}
	taken := make(map[netip.AddrPort]string) // DNS over TCP and over TLS can't share one
	for i, a := range g.Listen {
		v.listen(index(at, ".listen", i), a, taken)
	}
	if t := g.TLS; t != nil {
		for i, a := range t.Listen {
			v.listen(index(at, ".tls.listen", i), a, taken)
		}
		if len(t.Listen) == 0 {
			v.add(at+".tls.listen", "there is no address to answer at")
		}
		if t.CertificateFile == "" {
			v.add(at+".tls.certificate_file", "TLS needs a certificate")
		}
		if t.KeyFile == "" {
			v.add(at+".tls.key_file", "TLS needs a key")
		}
	}
	if len(g.NSID) > 128 {
		v.add(at+".nsid", "it has %d characters, the most is 128", len(g.NSID))
	}
	v.between(at+".rate_limit", g.RateLimit, 1, 1_000_000)
	v.span(at+".hold_down", g.HoldDown, time.Second, 24*time.Hour)
	v.span(at+".failback_delay", g.FailbackDelay, time.Second, 24*time.Hour)
	oneOf(v, at+".failback", g.Failback, FailbackAutomatic, FailbackDelayed, FailbackManual)
	if (g.Failback == FailbackDelayed) != (g.FailbackDelay > 0) {
		v.add(at+".failback_delay", "failback delayed and a delay need each other")
	}
	v.between(at+".quorum", g.Quorum, 1, len(g.Peers)+1)
	for i, p := range g.Peers {
		if u, err := url.Parse(p.URL); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			v.add(index(at, ".peers", i)+".url", "%q is no URL such as https://dns2.example.com:9443", p.URL)
		}
	}
	horizons := v.geoClients(at, g)
	v.geoZones(at, g)
	sites := v.geoSites(at, g, horizons)
	v.geoNames(at, g, sites)
}

func (v *validator) listen(path string, a netip.AddrPort, taken map[netip.AddrPort]string) {
	if !a.IsValid() || a.Port() == 0 {
		v.add(path, "%v is no address and port", a)
		return
	}
	if first, ok := taken[a]; ok {
		v.add(path, "%v is %s already", a, first)
		return
	}
	taken[a] = path
}

// ValidateNetworks returns every fault of a table of networks that is a file of its
// own, as Validate does of [Geo.Networks].
func ValidateNetworks(list []GeoNetwork) error {
	v := new(validator)
	v.geoClients("", &Geo{Networks: list})
	return errors.Join(v.errs...)
}

// geoClients checks networks and horizons, and returns the horizons' names.
func (v *validator) geoClients(at string, g *Geo) map[string]string {
	seen := make(map[netip.Prefix]int)
	for i, n := range g.Networks {
		path := strings.TrimPrefix(index(at, ".networks", i), ".")
		v.prefix(path+".prefix", n.Prefix)
		if j, dup := seen[n.Prefix]; dup {
			v.add(path+".prefix", "%v is %s already", n.Prefix, strings.TrimPrefix(index(at, ".networks", j), "."))
		}
		seen[n.Prefix] = i
		v.place(path, &n.GeoPlace)
	}
	names := make(map[string]string)
	for i, h := range g.Horizons {
		path := index(at, ".horizons", i)
		v.name(path, h.Name, "horizon", names)
		if len(h.Networks) == 0 {
			v.add(path+".networks", "there is none")
		}
		for j, n := range h.Networks {
			v.prefix(index(path, ".networks", j), n)
		}
	}
	return names
}

func (v *validator) prefix(path string, p netip.Prefix) {
	switch {
	case !p.IsValid():
		v.add(path, "it is no network, such as 192.0.2.0/24")
	case p != p.Masked():
		v.add(path, "%v has bits behind its length; is %v meant?", p, p.Masked())
	case p.Addr().Is4In6():
		v.add(path, "write %v as a network of IPv4", p)
	}
}

func (v *validator) place(path string, p *GeoPlace) {
	code := func(field, s string, n int) {
		if s != "" && (len(s) != n || strings.ToUpper(s) != s) {
			v.add(path+"."+field, "%q is not %d capital letters", s, n)
		}
	}
	code("continent", p.Continent, 2)
	code("country", p.Country, 2)
	if s := p.Subdivision; s != "" && (len(s) < 4 || s[2] != '-') {
		v.add(path+".subdivision", "%q is not like US-WA", s)
	}
	switch {
	case (p.Latitude == nil) != (p.Longitude == nil):
		v.add(path+".latitude", "latitude and longitude need each other")
	case p.Latitude != nil && (*p.Latitude < -90 || *p.Latitude > 90):
		v.add(path+".latitude", "%v is not between -90 and 90", *p.Latitude)
	case p.Longitude != nil && (*p.Longitude < -180 || *p.Longitude > 180):
		v.add(path+".longitude", "%v is not between -180 and 180", *p.Longitude)
	}
}

func (v *validator) geoZones(at string, g *Geo) {
	if len(g.Zones) == 0 {
		v.add(at+".zones", "there is none")
	}
	seen := make(map[string]int)
	for i, z := range g.Zones {
		path := index(at, ".zones", i)
		v.domain(path+".origin", z.Origin)
		if j, dup := seen[domain(z.Origin)]; dup {
			v.add(path+".origin", "%s is %s already", z.Origin, index(at, ".zones", j))
		}
		seen[domain(z.Origin)] = i
		if z.File == "" {
			v.add(path+".file", "a zone needs a file with its SOA and NS records")
		}
		active := 0
		for j, k := range z.Keys {
			if k.File == "" {
				v.add(index(path, ".keys", j)+".file", "a key needs a file")
			}
			if !k.Published {
				active++
			}
		}
		if len(z.Keys) > 0 && active == 0 {
			v.add(path+".keys", "all of them are only published: none signs")
		}
	}
}

// domain returns a domain name in the one form that can be compared.
func domain(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

func (v *validator) domain(path, s string) {
	name := domain(s)
	ok := len(name) > 0 && len(name) <= 253
	for i, label := range strings.Split(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && (label == "*" && i == 0 || !strings.ContainsFunc(label, notNameRune))
	}
	if !ok {
		v.add(path, "%q is no domain name", s)
	}
}

// geoSites checks the sites and returns their names.
func (v *validator) geoSites(at string, g *Geo, horizons map[string]string) map[string]string {
	if len(g.Sites) == 0 {
		v.add(at+".sites", "there is none")
	}
	names := make(map[string]string)
	for i := range g.Sites {
		v.name(index(at, ".sites", i), g.Sites[i].Name, "site", names)
	}
	for i := range g.Sites {
		s, path := &g.Sites[i], index(at, ".sites", i)
		v.place(path, &s.GeoPlace)
		for j, n := range s.Serves.Networks {
			v.prefix(fmt.Sprintf("%s.serves.networks[%d]", path, j), n)
		}
		if s.Weight != nil && (*s.Weight < 0 || *s.Weight > 65535) {
			v.add(path+".weight", "%d is not between 0 and 65535", *s.Weight)
		}
		v.between(path+".priority", s.Priority, 0, 65535)
		v.between(path+".capacity", s.Capacity, 1, 1<<30)
		v.between(path+".need", s.Need, -1, len(s.Gateways))
		for j, r := range s.Requires {
			if _, ok := names[r]; !ok || r == s.Name {
				v.add(index(path, ".requires", j), "there is no other site %q", r)
			}
		}
		if s.Only && s.Serves.empty() {
			v.add(path+".only", "it needs serves, which says for whom the site is")
		}
		v.geoGateways(path, s, horizons)
		oneOf(v, path+".check_need", s.CheckNeed, NeedAll, NeedAny)
		checks := make(map[string]string)
		for j := range s.Checks {
			c, cp := &s.Checks[j], index(path, ".checks", j)
			named := *c
			named.Name = checkName(c)
			v.name(cp, named.Name, "check", checks)
			v.check(cp, c)
		}
	}
	return names
}

func (a *GeoArea) empty() bool {
	return len(a.Networks)+len(a.ASNs)+len(a.Subdivisions)+len(a.Countries)+len(a.Continents) == 0
}

func (v *validator) geoGateways(path string, s *GeoSite, horizons map[string]string) {
	if len(s.Gateways) == 0 {
		v.add(path+".gateways", "there is none")
	}
	names := make(map[string]string)
	for j := range s.Gateways {
		gw, gp := &s.Gateways[j], index(path, ".gateways", j)
		v.name(gp, gw.Name, "gateway", names)
		if len(gw.Addresses)+len(gw.Inside) == 0 {
			v.add(gp+".addresses", "there is none")
		}
		for k, a := range gw.Addresses {
			v.answerable(index(gp, ".addresses", k), a)
		}
		for h, list := range gw.Inside {
			if _, ok := horizons[h]; !ok {
				v.add(gp+".inside."+h, "there is no horizon %q", h)
			}
			for k, a := range list {
				v.answerable(index(gp, ".inside."+h, k), a)
			}
		}
		if len(s.Checks) > 0 && !gw.CheckAddress.IsValid() && len(gw.Addresses) == 0 {
			v.add(gp+".check_address", "with inside addresses only, it must be told what to check")
		}
	}
}

func (v *validator) answerable(path string, a netip.Addr) {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		v.add(path, "%v is no address to answer with", a)
	}
}

func (v *validator) geoNames(at string, g *Geo, sites map[string]string) {
	if len(g.Names) == 0 {
		v.add(at+".names", "there is none")
	}
	seen := make(map[string]int)
	for i := range g.Names {
		n, path := &g.Names[i], index(at, ".names", i)
		v.domain(path+".name", n.Name)
		if j, dup := seen[domain(n.Name)]; dup {
			v.add(path+".name", "%s is %s already", n.Name, index(at, ".names", j))
		}
		seen[domain(n.Name)] = i
		if !slices.ContainsFunc(g.Zones, func(z GeoZone) bool {
			o := domain(z.Origin)
			return domain(n.Name) == o || strings.HasSuffix(domain(n.Name), "."+o)
		}) {
			v.add(path+".name", "%s is in none of the zones", n.Name)
		}
		for j, s := range n.Sites {
			if _, ok := sites[s]; !ok {
				v.add(index(path, ".sites", j), "there is no site %q", s)
			}
		}
		for j, o := range n.Order {
			oneOf(v, index(path, ".order", j), o, GeoOrders...)
			if o == "" || slices.Contains(n.Order[:j], o) {
				v.add(index(path, ".order", j), "%q is there twice or empty", o)
			}
		}
		oneOf(v, path+".method", n.Method, GeoMethods...)
		oneOf(v, path+".all_down", n.AllDown, GeoAllDowns...)
		if (n.AllDown == "last-resort") != (len(n.LastResort) > 0) {
			v.add(path+".last_resort", "all_down last-resort and addresses of last resort need each other")
		}
		for j, a := range n.LastResort {
			v.answerable(index(path, ".last_resort", j), a)
		}
		v.between(path+".nearest", n.Nearest, 1, 100)
		v.between(path+".answers", n.Answers, 1, 20)
		v.span(path+".ttl", n.TTL, time.Second, 24*time.Hour)
		v.span(path+".unstable_ttl", n.UnstableTTL, time.Second, 24*time.Hour)
		for s, t := range n.Targets {
			if _, ok := sites[s]; !ok {
				v.add(path+".targets."+s, "there is no site %q", s)
			}
			v.domain(path+".targets."+s, t)
			if strings.EqualFold(strings.TrimSuffix(t, "."), strings.TrimSuffix(n.Name, ".")) {
				v.add(path+".targets."+s, "%s would be answered with itself", n.Name)
			}
		}
	}
}
