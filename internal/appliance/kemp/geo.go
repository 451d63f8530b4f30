package kemp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// An fqdn is a name that GEO answers for.
type fqdn struct {
	name   string
	fields map[string]string
	maps   []*geoMap
}

// A geoMap is an address of a name.
type geoMap struct {
	ip     string
	fields map[string]string
	places []place
}

type place struct {
	code      string
	continent bool
}

// fqdnKinds are the parameters of modfqdn.
var fqdnKinds = []kind{
	oneOf("SelectionCriteria", "rr", "rr", "wrr", "fw", "rsr", "prx", "lb", "all"), number("FailTime", 0, 1440, "0"), oneOf("SiteRecoveryMode", "auto", "auto", "manual"),
	flagKind("LocalSettings", "N"), number("LocalTTL", 1, 86400, "10"), number("LocalSticky", 0, 86400, "60"), flagKind("UnanimousChecks", "N"),
}

// mapKinds are the parameters of modmap.
var mapKinds = []kind{
	oneOf("Checker", "icmp", "none", "icmp", "tcp", "clust", "http", "https"), number("Weight", 1, 65535, "1000"), flagKind("Enable", "Y"),
	text("CheckerURL", 126), text("CheckerHost", 255), oneOf("CheckerHTTPMethod", "", "HEAD", "GET", "POST"),
	{name: "CheckerCodes", check: codes},
}

// Disable has GEO not answer at all, nor be asked about names.
func (b *Box) Disable() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noGEO = true
}

// AddName adds a name of somebody else's.
func (b *Box) AddName(name, ip string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fqdns = append(b.fqdns, &fqdn{name: name, fields: defaults(fqdnKinds), maps: []*geoMap{{ip: ip, fields: defaults(mapKinds)}}})
}

// SetAddress alters a field of an address of a name, as a person would.
func (b *Box) SetAddress(name, ip, field, value string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.fqdns {
		for _, m := range n.maps {
			if n.name == name && m.ip == ip {
				m.fields[field] = value
				return true
			}
		}
	}
	return false
}

// Names shows the names that end in a suffix, or the others.
func (b *Box) Names(suffix string, ours bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names(suffix, ours)
}

func (b *Box) names(suffix string, ours bool) string {
	var out strings.Builder
	for _, n := range b.fqdns {
		if strings.HasSuffix(n.name, suffix) != ours {
			continue
		}
		fmt.Fprintf(&out, "name %s %s\n", n.name, fieldText(n.fields))
		for _, m := range n.maps {
			fmt.Fprintf(&out, "  address %s %s %v\n", m.ip, fieldText(m.fields), m.places)
		}
	}
	return out.String()
}

func (b *Box) listNames(a *args) (answer, *fault) {
	if b.noGEO {
		return nil, bad("GEO is not enabled")
	}
	var out answer
	for _, n := range b.fqdns {
		x := answer{{"Status", "Up"}, {"FullyQualifiedDomainName", n.name + "."}}
		x = append(x, fieldEntries(fqdnKinds, n.fields)...)
		for i, m := range n.maps {
			y := answer{{"Status", "Up"}, {"Index", i + 1}, {"IPAddress", m.ip}, {"checkerAddr", cmp.Or(m.fields["checkerip"], m.ip)}, {"CheckerPort", cmp.Or(m.fields["port"], "0")}}
			y = append(y, fieldEntries(mapKinds, m.fields)...)
			for _, p := range m.places {
				y = append(y, entry{map[bool]string{true: "continent", false: "country"}[p.continent], answer{{"code", p.code}}})
			}
			x = append(x, entry{"Map", y})
		}
		out = append(out, entry{"fqdn", x})
	}
	return out, a.rest()
}

// fqdn returns the name that a command is about.
func (b *Box) fqdn(a *args) (*fqdn, *fault) {
	if b.noGEO {
		return nil, bad("GEO is not enabled")
	}
	name := a.take("fqdn")
	for _, n := range b.fqdns {
		if n.name == name {
			return n, nil
		}
	}
	return nil, bad("Unknown FQDN")
}

func (b *Box) addName(a *args) (answer, *fault) {
	name := a.take("fqdn")
	switch {
	case b.noGEO:
		return nil, bad("GEO is not enabled")
	case !strings.Contains(name, ".") || strings.HasSuffix(name, ".") || strings.ToLower(name) != name || strings.ContainsAny(name, "* "):
		return nil, bad("Invalid FQDN")
	case slices.ContainsFunc(b.fqdns, func(n *fqdn) bool { return n.name == name }):
		return nil, bad("FQDN already exists")
	}
	b.fqdns = append(b.fqdns, &fqdn{name: name, fields: defaults(fqdnKinds)})
	return nil, a.rest()
}

// set sets what is said, one after the other, until something is wrong.
func set(fields map[string]string, kinds []kind, a *args) *fault {
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for k := range a.values {
			if !yield(k) {
				return
			}
		}
	}) {
		k, ok := find(kinds, name)
		if !ok {
			return bad("Unknown parameter %s", name)
		}
		if !k.check(a.values[name]) {
			return bad("Invalid value for %s", k.name)
		}
		if (k.name == "LocalTTL" || k.name == "LocalSticky") && fields["LocalSettings"] != "Y" {
			return bad("%s needs LocalSettings", k.name)
		}
		fields[k.name] = k.canonical(a.values[name])
	}
	return nil
}

func (b *Box) modName(a *args) (answer, *fault) {
	n, f := b.fqdn(a)
	if f != nil {
		return nil, f
	}
	return nil, set(n.fields, fqdnKinds, a)
}

func (b *Box) delName(a *args) (answer, *fault) {
	n, f := b.fqdn(a)
	if f != nil {
		return nil, f
	}
	b.fqdns = slices.DeleteFunc(b.fqdns, func(x *fqdn) bool { return x == n })
	return nil, a.rest()
}

// geoMap returns the address that a command is about.
func (b *Box) geoMap(a *args) (*fqdn, *geoMap, *fault) {
	n, f := b.fqdn(a)
	if f != nil {
		return nil, nil, f
	}
	ip := a.take("ip")
	for _, m := range n.maps {
		if m.ip == ip {
			return n, m, nil
		}
	}
	return n, nil, bad("Unknown IP address for this FQDN")
}

func (b *Box) addMap(a *args) (answer, *fault) {
	n, f := b.fqdn(a)
	if f != nil {
		return nil, f
	}
	ip := a.take("ip")
	a.take("clust")
	switch {
	case !isAddr(ip):
		return nil, bad("Invalid IP address")
	case slices.ContainsFunc(n.maps, func(m *geoMap) bool { return m.ip == ip }):
		return nil, bad("IP address already exists")
	}
	n.maps = append(n.maps, &geoMap{ip: ip, fields: defaults(mapKinds)})
	return nil, a.rest()
}

func (b *Box) modMap(a *args) (answer, *fault) {
	_, m, f := b.geoMap(a)
	if f != nil {
		return nil, f
	}
	return nil, set(m.fields, mapKinds, a)
}

func (b *Box) delMap(a *args) (answer, *fault) {
	n, m, f := b.geoMap(a)
	if f != nil {
		return nil, f
	}
	n.maps = slices.DeleteFunc(n.maps, func(x *geoMap) bool { return x == m })
	return nil, a.rest()
}

func (b *Box) checkerAddress(a *args) (answer, *fault) {
	_, m, f := b.geoMap(a)
	if f != nil {
		return nil, f
	}
	ip, port := a.take("checkerip"), a.take("port")
	if _, err := netip.ParseAddr(ip); err != nil || !orZero(number("port", 3, 65530, "")).check(cmp.Or(port, "0")) {
		return nil, bad("Invalid checker address")
	}
	m.fields["checkerip"], m.fields["port"] = ip, cmp.Or(port, "0")
	return nil, a.rest()
}

func (b *Box) addPlace(a *args) (answer, *fault)    { return b.place(a, false) }
func (b *Box) removePlace(a *args) (answer, *fault) { return b.place(a, true) }

func (b *Box) place(a *args, remove bool) (answer, *fault) {
	_, m, f := b.geoMap(a)
	if f != nil {
		return nil, f
	}
	p := place{a.take("countrycode"), a.take("iscontinent") == "yes"}
	i := slices.Index(m.places, p)
	switch {
	case len(p.code) != 2:
		return nil, bad("Invalid country code")
	case remove && i < 0:
		return nil, bad("Unknown location")
	case remove:
		m.places = slices.Delete(m.places, i, i+1)
	case i >= 0:
		return nil, bad("Location already exists")
	default:
		m.places = append(m.places, p)
	}
	return nil, a.rest()
}
