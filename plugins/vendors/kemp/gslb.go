package kemp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// Kinds of objects of GEO, in the LoadMaster's words.
const (
	kindName    = "FQDN"
	kindAddress = "FQDN address"
	kindPlace   = "FQDN location"
)

const (
	mostTTL     = 24 * time.Hour
	mostGeo     = 65535 // the greatest weight
	sticky      = "3600"
	anyPriority = 100 // between the weights of two sites that serve one after the other
)

// pinged are the checks that GEO replaces by a ping.
var pinged = []plugins.CheckType{plugins.CheckIKEv2, plugins.CheckRADIUS, plugins.CheckRadSec}

// limits are what GEO can do.
func limits() gslb.Limits {
	const decides = "what the LoadMaster's GEO does then is its own: it may answer with nothing"
	return gslb.Limits{
		Product: "the LoadMaster", MostTTL: mostTTL, By: []string{"country", "continent", "distance"},
		Near: map[string]string{
			"subdivision": "GEO knows countries and continents: these decide",
			"network":     "GEO knows countries and continents: these decide",
			"asn":         "GEO knows countries and continents: these decide",
		},
		AllDown: map[string]string{"": decides, "as-if-up": decides, "nodata": decides, "servfail": decides, "last-resort": decides},
	}
}

func gslbSupport() []plugins.Support {
	const check = "geo.sites.checks"
	const global = "GEO asks all addresses by one rhythm, which is left as it is"
	return slices.Concat(gslb.Support("the LoadMaster"),
		plugins.Full("geo.failback=manual", "geo.sites.continent", "geo.sites.country", "geo.sites.serves.countries", "geo.sites.serves.continents",
			"geo.sites.gateways.check_address", "geo.names.method=weighted,all"),
		[]plugins.Support{
			plugins.Partial("geo.listen", "GEO answers at the LoadMaster's own addresses, on the interfaces that an administrator let it use for DNS"),
			plugins.Partial("geo.sites.latitude", "GEO has coordinates of its own for the gateways' addresses"),
			plugins.Partial("geo.sites.longitude", "GEO has coordinates of its own for the gateways' addresses"),
			plugins.Partial("geo.sites.serves.networks", "GEO knows countries and continents"),
			plugins.Partial("geo.sites.serves.asns", "GEO knows countries and continents"),
			plugins.Partial("geo.sites.serves.subdivisions", "GEO knows countries and continents"),
			plugins.Partial("geo.sites.unanimous", "the addresses of a name stand or fall together if all of its sites ask for it, and else by themselves"),
			plugins.Partial("geo.sites.check_need=any", "an address has one check, which decides"),
			plugins.Partial(check+".interval", global),
			plugins.Partial(check+".timeout", global),
			plugins.Partial(check+".rise", global),
			plugins.Partial(check+".fall", global),
			plugins.Partial("geo.names.method=hash", "sites share by weight, and a client's resolver is given the same one again for an hour"),
			plugins.Partial("geo.names.method=least-load", "sites take turns: their load isn't known"),
			plugins.Partial("geo.names.all_down", "the LoadMaster decides what is answered then"),
			plugins.Partial("geo.names.last_resort", "the LoadMaster decides what is answered then"),
		},
	)
}

// adviseGeo says what only this driver knows of geo.
func (a *adviser) adviseGeo(g *plugins.Geo) {
	l := limits()
	a.out = append(a.out, l.Advise(g)...)
	located := false
	for _, n := range gslb.Names(g) {
		located = located || n.Located()
		if n.Located() && len(n.Tiers) > 1 {
			a.add(plugins.SeverityError, n.Path+".order", "sites of different priority can't be chosen by where a client is, too", "GEO has one way to choose for a name", "leave out priority, or the rest")
		}
		a.out.Alone(&n)
		if len(n.By) > 1 && slices.Contains(n.By, "distance") {
			a.add(plugins.SeverityWarning, n.Path+".order", "distances aren't measured beside countries and continents", "GEO goes by either", "order by distance alone, or leave it out")
		}
		if len(n.Tiers) > 1 && slices.ContainsFunc(n.Sites(), func(s *plugins.GeoSite) bool {
			return len(gslb.Members(s, "A")) > 1 || len(gslb.Members(s, "AAAA")) > 1
		}) {
			a.add(plugins.SeverityWarning, n.Path, "gateways of one site serve one after the other, too", "fixed weighting orders single addresses", "")
		}
	}
	for i := range g.Sites {
		s, at := &g.Sites[i], fmt.Sprintf("geo.sites[%d]", i)
		if !located && (s.Continent != "" || s.Country != "" || len(s.Serves.Countries)+len(s.Serves.Continents) > 0) {
			a.add(plugins.SeverityInfo, at, "no name goes by places, so where the site is has no effect, nor whom it serves", "", "")
		}
		main, found := geoCheck(s)
		for k := range s.Checks {
			c, path := s.Checks[k].Usual(), fmt.Sprintf("%s.checks[%d]", at, k)
			if found && !c.Advisory && !slices.Contains(pinged, c.Type) && c.Name != main.Name {
				a.add(plugins.SeverityWarning, path, fmt.Sprintf("it isn't asked: an address has one check, and %s says more", main.Name), "", "")
				continue
			}
			a.web(path, c)
		}
	}
}

// geoCheck returns the check of a site that says most, and false if it has none.
func geoCheck(s *plugins.GeoSite) (plugins.Check, bool) {
	list := gslb.Checks(s, pinged...)
	for _, t := range []plugins.CheckType{plugins.CheckSSTP, plugins.CheckHTTPS, plugins.CheckTCP, plugins.CheckICMP} {
		for _, c := range list {
			if c.Type == t {
				return c, true
			}
		}
	}
	if len(list) > 0 {
		return list[0], true
	}
	return plugins.Check{}, false
}

// nameObjects renders names, their addresses, and where these serve.
func (r *renderer) nameObjects() []plugins.Object {
	var out []plugins.Object
	for _, n := range gslb.Names(r.geo) {
		l := limits()
		unanimous := !slices.ContainsFunc(n.Sites(), func(s *plugins.GeoSite) bool { return !s.Unanimous })
		mode := "auto"
		if r.geo.Failback == plugins.FailbackManual {
			mode = "manual"
		}
		stick := "0"
		if n.Spec.Method == "hash" {
			stick = sticky
		}
		out = append(out, plugins.Object{Kind: kindName, Name: n.FQDN, Fields: []plugins.Field{
			{Name: "SelectionCriteria", Value: selection(&n)},
			{Name: "SiteRecoveryMode", Value: mode},
			{Name: "LocalSettings", Value: "Y"},
			{Name: "LocalTTL", Value: strconv.Itoa(l.Seconds(&n))},
			{Name: "LocalSticky", Value: stick},
			{Name: "UnanimousChecks", Value: yesNo(unanimous)},
		}})
		for tier, sites := range n.Tiers {
			for _, s := range sites {
				for _, record := range gslb.Families() {
					for i, m := range gslb.Members(s, record) {
						weight := gslb.Share(&n, sites, s, record, mostGeo)
						if len(n.Tiers) > 1 {
							weight = max((len(n.Tiers)-tier)*anyPriority-i, 1)
						}
						out = append(out, plugins.Object{Kind: kindAddress, Name: n.FQDN + " " + m.Address.String(), Fields: r.addressFields(s, &m, weight)})
						if selection(&n) == "lb" {
							out = append(out, places(n.FQDN+" "+m.Address.String(), s)...)
						}
					}
				}
			}
		}
	}
	return out
}

// selection is how a name chooses: round robin, weighted, fixed weighting, proximity,
// by location, or all.
func selection(n *gslb.Name) string {
	switch {
	case n.Located() && !slices.ContainsFunc(n.By, func(o string) bool { return o != "distance" }):
		return "prx"
	case n.Located():
		return "lb"
	case len(n.Tiers) > 1:
		return "fw"
	case n.Spec.Method == "all":
		return "all"
	}
	for _, t := range n.Tiers {
		for _, s := range t {
			for _, record := range gslb.Families() {
				if len(gslb.Members(s, record)) > 0 && gslb.Share(n, t, s, record, mostGeo) != 1 {
					return "wrr"
				}
			}
		}
	}
	return "rr"
}

func (r *renderer) addressFields(s *plugins.GeoSite, m *gslb.Member, weight int) []plugins.Field {
	c, ok := geoCheck(s)
	checker := "icmp"
	switch {
	case !ok:
		checker = "none"
	case (c.Type == plugins.CheckSSTP || c.Type == plugins.CheckHTTPS) && c.PlainHTTP:
		checker = "http"
	case c.Type == plugins.CheckSSTP || c.Type == plugins.CheckHTTPS:
		checker = "https"
	case c.Type == plugins.CheckTCP:
		checker = "tcp"
	}
	drained := slices.ContainsFunc(r.drained, func(d drain) bool { return d.Pool == "" && d.Backend == plugins.GeoRef(s.Name).Backend })
	out := []plugins.Field{{Name: "Weight", Value: strconv.Itoa(weight)}, {Name: "Enable", Value: yesNo(!drained)}, {Name: "Checker", Value: checker}}
	if checker == "http" || checker == "https" {
		r.webCheck(c, func(name, value string) {
			switch name {
			case "CheckUrl":
				out = append(out, plugins.Field{Name: "CheckerURL", Value: value})
			case "CheckHost":
				out = append(out, plugins.Field{Name: "CheckerHost", Value: value})
			case "CheckCodes":
				out = append(out, plugins.Field{Name: "CheckerCodes", Value: value})
			case "CheckUseGet":
				out = append(out, plugins.Field{Name: "CheckerHTTPMethod", Value: map[string]string{"0": "HEAD", "1": "GET"}[value]})
			}
		})
	}
	if checker == "none" {
		return out
	}
	port := "0"
	if checker != "icmp" {
		port = strconv.Itoa(c.Port)
	}
	return append(out, plugins.Field{Name: "CheckerAddr", Value: m.Probe().String()}, plugins.Field{Name: "CheckerPort", Value: port})
}

// places render whose clients an address serves.
func places(name string, s *plugins.GeoSite) []plugins.Object {
	or := func(list []string, own string) []string {
		if len(list) == 0 && own != "" {
			return []string{own}
		}
		return slices.Compact(slices.Sorted(slices.Values(list)))
	}
	var out []plugins.Object
	for _, c := range or(s.Serves.Countries, s.Country) {
		out = append(out, plugins.Object{Kind: kindPlace, Name: name + " country " + c})
	}
	for _, c := range or(s.Serves.Continents, s.Continent) {
		out = append(out, plugins.Object{Kind: kindPlace, Name: name + " continent " + c})
	}
	return out
}

// readNames reads the names that are ours, which the memory says, and all that there
// are.
func (f *found) readNames(list *node) {
	f.fqdns = make(map[string]bool)
	for _, n := range list.all("fqdn") {
		name := gslb.Domain(n.get("FullyQualifiedDomainName"))
		f.fqdns[name] = slices.Contains(f.memory.Names, name)
		if !f.fqdns[name] {
			continue
		}
		o := plugins.Object{Kind: kindName, Name: name}
		for _, field := range []string{"SelectionCriteria", "SiteRecoveryMode", "LocalSettings", "LocalTTL", "LocalSticky", "UnanimousChecks"} {
			value := n.get(field)
			if field == "LocalSettings" || field == "UnanimousChecks" {
				value = yesNo(isYes(value))
			}
			o.Fields = append(o.Fields, plugins.Field{Name: field, Value: value})
		}
		f.objects = append(f.objects, o)
		for _, m := range n.all("Map") {
			at := name + " " + m.get("IPAddress")
			o := plugins.Object{Kind: kindAddress, Name: at}
			for _, field := range []string{"Weight", "Enable", "Checker", "CheckerURL", "CheckerHost", "CheckerCodes", "CheckerHTTPMethod", "CheckerAddr", "CheckerPort"} {
				value := m.get(field)
				if field == "Enable" {
					value = yesNo(isYes(value))
				}
				o.Fields = append(o.Fields, plugins.Field{Name: field, Value: value})
			}
			f.objects = append(f.objects, o)
			for _, kind := range []string{"country", "continent"} {
				for _, c := range m.all(kind) {
					f.objects = append(f.objects, plugins.Object{Kind: kindPlace, Name: at + " " + kind + " " + c.get("code")})
				}
			}
		}
	}
}

// findNames reads names, if some are to be answered or were.
func (f *found) findNames(ctx context.Context, c *client) error {
	if !c.settings.GSLB && len(f.memory.Names) == 0 {
		return nil
	}
	list, err := c.ask(ctx, "listfqdns", nil)
	if err != nil {
		return err
	}
	f.readNames(list)
	return nil
}

// ourNames are the names that geo has, as the LoadMaster has them.
func ourNames(g *plugins.Geo) []string {
	var out []string
	for _, n := range gslb.Names(g) {
		out = append(out, n.FQDN)
	}
	return out
}

// takenNames says which of the names that are wanted are somebody else's.
func (f *found) takenNames(g *plugins.Geo) error {
	for _, n := range gslb.Names(g) {
		if ours, there := f.fqdns[n.FQDN]; there && !ours {
			return fmt.Errorf("%s is an FQDN of the LoadMaster already that isn't ours", n.FQDN)
		}
	}
	return nil
}

// claim keeps that names are ours before they are made: they bear no mark, and would be
// taken for somebody else's if this ended half way.
func (d *Driver) claim(ctx context.Context, box *client, w *work) error {
	if w.renderer == nil {
		return nil
	}
	m := w.memory
	for _, name := range ourNames(w.renderer.geo) {
		if !slices.Contains(m.Names, name) {
			m.Names = append(slices.Clone(m.Names), name)
		}
	}
	if len(m.Names) == len(w.memory.Names) {
		return nil
	}
	if err := d.remember(ctx, box, w.found, &m); err != nil {
		return err
	}
	w.memory = m
	return nil
}

// name makes a change of a name, an address of it, or whose clients that serves.
func (w *work) name(ctx context.Context, box *client, x plugins.Change, remove bool) error {
	part := strings.Fields(x.Name)
	p := params{"fqdn": part[0]}
	command := map[string]string{kindName: "fqdn", kindAddress: "map"}[x.Kind]
	if x.Kind != kindName {
		p["ip"] = part[1]
	}
	switch {
	case x.Kind == kindPlace && len(part) != 4:
		return errors.New("nobody knows where this is")
	case x.Kind == kindPlace:
		p["countrycode"], p["iscontinent"] = part[3], map[bool]string{true: "yes", false: "no"}[part[2] == "continent"]
		_, err := box.do(ctx, map[bool]string{true: "removecountry", false: "addcountry"}[remove], p)
		return err
	case remove:
		_, err := box.do(ctx, "del"+command, p)
		return err
	case x.Action == plugins.ActionAdd:
		if _, err := box.do(ctx, "add"+command, p); err != nil {
			return err
		}
	}
	ask := params{"fqdn": part[0], "ip": p["ip"]}
	for _, f := range x.Fields {
		switch f.Name {
		case "CheckerAddr", "CheckerPort":
			ask["checkerip"], ask["port"] = w.asked(x.Name)
		case "Enable", "LocalSettings", "UnanimousChecks":
			p[f.Name] = flag(isYes(f.After))
		default:
			p[f.Name] = f.After
		}
	}
	if len(p) > map[bool]int{true: 1, false: 2}[x.Kind == kindName] {
		if _, err := box.do(ctx, "mod"+command, p); err != nil {
			return err
		}
	}
	if ask["checkerip"] == nil {
		return nil
	}
	_, err := box.do(ctx, "changecheckeraddr", ask)
	return err
}

// asked returns where an address is to be checked.
func (w *work) asked(name string) (addr, port string) {
	for i := range w.want {
		if o := &w.want[i]; o.Kind == kindAddress && o.Name == name {
			return o.Get("CheckerAddr"), o.Get("CheckerPort")
		}
	}
	return "", "0"
}

// rememberedGeo returns what has to be kept of geo: names and where they lead.
func rememberedGeo(g *plugins.Geo) *plugins.Geo {
	if g == nil {
		return nil
	}
	out := &plugins.Geo{Failback: g.Failback}
	for _, n := range g.Names {
		out.Names = append(out.Names, plugins.GeoName{Name: n.Name, Sites: n.Sites, Order: n.Order, Method: n.Method})
	}
	for i := range g.Sites {
		s := &g.Sites[i]
		x := plugins.GeoSite{Name: s.Name, Weight: s.Weight, Priority: s.Priority}
		for _, gw := range s.Gateways {
			x.Gateways = append(x.Gateways, plugins.GeoGateway{Name: gw.Name, Addresses: gw.Addresses})
		}
		out.Sites = append(out.Sites, x)
	}
	return out
}

// drainSite enables or disables the addresses of a site in all names.
func (w *work) drainSite(ctx context.Context, box *client, name string) error {
	for _, n := range gslb.Names(w.renderer.geo) {
		for _, s := range n.Sites() {
			if s.Name != name {
				continue
			}
			for _, record := range gslb.Families() {
				for _, m := range gslb.Members(s, record) {
					at := n.FQDN + " " + m.Address.String()
					want := plugins.Object{Fields: w.renderer.addressFields(s, &m, 0)}
					i := slices.IndexFunc(w.objects, func(o plugins.Object) bool { return o.Kind == kindAddress && o.Name == at })
					if i < 0 || w.objects[i].Get("Enable") == want.Get("Enable") {
						continue // a plan makes it again
					}
					p := params{"fqdn": n.FQDN, "ip": m.Address.String(), "Enable": flag(want.Get("Enable") == "Y")}
					if _, err := box.do(ctx, "modmap", p); err != nil {
						return fmt.Errorf("%s: %w", at, err)
					}
				}
			}
		}
	}
	return nil
}
