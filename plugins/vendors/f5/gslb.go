package f5

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

const (
	// common is the tenant in which AS3 has data centres, servers and monitors of
	// BIG-IP DNS, with those of others; shared is its only application.
	common, shared = "Common", "Shared"
	// answersApp is the application of ours that answers for names.
	answersApp = "gslb"
	maxPoolTTL = 30 * 24 * time.Hour
)

// pinged are the checks that BIG-IP DNS replaces by a ping.
var pinged = []plugins.CheckType{plugins.CheckIKEv2, plugins.CheckRADIUS}

// limits are what BIG-IP DNS can do.
func limits() gslb.Limits {
	return gslb.Limits{
		Product: "a BIG-IP", Wildcards: true, Together: true, MostTTL: maxPoolTTL, By: []string{"network", "country", "continent"},
		Near: map[string]string{
			"subdivision": "topology records have the names of states, not their codes: the country decides",
			"asn":         "topology records here know networks and places, not providers",
			"distance":    "a site in the client's country or continent is preferred; distances aren't measured",
		},
	}
}

func gslbSupport() []plugins.Support {
	const check = "geo.sites.checks"
	return slices.Concat(gslb.Support("a BIG-IP"),
		plugins.Full("geo.listen", "geo.failback=manual", "geo.sites.continent", "geo.sites.country", "geo.sites.serves.networks", "geo.sites.serves.countries",
			"geo.sites.serves.continents", "geo.sites.gateways.check_address", "geo.sites.check_need=all,any", check+".interval",
			"geo.names.method=weighted", "geo.names.all_down=nodata,servfail,last-resort,as-if-up", "geo.names.last_resort"),
		[]plugins.Support{
			plugins.Partial(check+".type=radsec", "a TCP connection is opened only"),
			plugins.Partial(check+".rise", "one success counts"),
			plugins.Partial(check+".fall", "a gateway is down when nothing good came for as long as so many probes take"),
			plugins.Partial(check+".timeout", "it is rounded up to whole seconds"),
			plugins.Partial("geo.sites.serves.asns", "topology records here know networks and places, not providers"),
			plugins.Partial("geo.sites.serves.subdivisions", "topology records have the names of states, not their codes"),
			plugins.Partial("geo.names.method=hash", "sites share by weight, and a resolver is given the same one again for an hour"),
			plugins.Partial("geo.names.method=least-load", "sites take turns: their load isn't known"),
			plugins.Partial("geo.names.method=all", "an answer has all gateways of one site; sites take turns"),
		},
	)
}

// adviseGeo says what only this driver knows of geo.
func adviseGeo(g *plugins.Geo) gslb.Advice {
	l := limits()
	out := l.Advise(g)
	located := false
	for _, n := range gslb.Names(g) {
		located = located || n.Located()
		if n.Located() && len(n.Tiers) > 1 {
			out.Say(plugins.SeverityError, n.Path+".order", "sites of different priority can't be chosen by where a client is, too", "a wide IP has one way to choose its pools", "leave out priority, or the rest")
		} else {
			out.Alone(&n)
		}
		if n.Located() {
			out.Say(plugins.SeverityInfo, n.Path+".order", "networks count more than countries, and these more than continents", "a BIG-IP takes the topology record that fits a client most closely, whatever the order here", "")
		}
		if slices.ContainsFunc([]string{"A", "AAAA"}, func(record string) bool { return len(lastResorts(&n, record)) > 1 }) {
			out.Say(plugins.SeverityWarning, n.Path+".last_resort", "a pool has one address of last resort", "the first of each address family is answered", "")
		}
		if n.Spec.AllDown == "" || n.Spec.AllDown == "as-if-up" {
			out.Say(plugins.SeverityInfo, n.Path+".all_down", "when no site is left, the first one is answered", "it is the wide IP's last resort pool", "")
		}
	}
	for i := range g.Sites {
		s, at := &g.Sites[i], fmt.Sprintf("geo.sites[%d]", i)
		if !located && (s.Continent != "" || s.Country != "" || len(s.Serves.Networks)+len(s.Serves.Countries)+len(s.Serves.Continents) > 0) {
			out.Say(plugins.SeverityInfo, at, "no name goes by places, so where the site is has no effect, nor whom it serves", "", "")
		}
		for k := range s.Checks {
			c := s.Checks[k].Usual()
			if unsafe(c.Host) || unsafe(c.Path) {
				out.Say(plugins.SeverityError, fmt.Sprintf("%s.checks[%d]", at, k), "its host or path holds characters that a BIG-IP reads as something else", "", "use plain names")
			}
			if c.Interval.D()%time.Second != 0 {
				out.Say(plugins.SeverityInfo, fmt.Sprintf("%s.checks[%d].interval", at, k), "a BIG-IP counts whole seconds: it is rounded up", "", "")
			}
		}
	}
	for i, l := range g.Listen {
		if l.Addr().IsUnspecified() || l.Addr().Zone() != "" {
			out.Say(plugins.SeverityError, fmt.Sprintf("geo.listen[%d]", i), "on a BIG-IP it would mean every address that is routed through it", "", "name the listener's address")
		}
	}
	if located {
		out.Say(plugins.SeverityWarning, "geo.names", "topology records of the BIG-IP go through AS3", "it keeps all of them together, and would remove those that it wasn't told of: a plan is refused while there are any", "")
	}
	return out
}

// lastResorts returns the addresses of last resort for a type of record.
func lastResorts(n *gslb.Name, record string) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.Spec.LastResort {
		if a.Is6() == (record == "AAAA") {
			out = append(out, a)
		}
	}
	return out
}

// shared names what is ours in the application that is shared with others.
func (r *renderer) shared(parts ...string) string {
	return r.owner.Name(r.site.Name, 120, append([]string{"gslb"}, parts...)...)
}

// answers renders what answers for names: an application of the tenant, and what AS3
// has only in the shared one.
func (r *renderer) answers(w *wanted) {
	if r.geo == nil {
		return
	}
	for _, s := range gslb.Sites(r.geo) {
		w.shared = append(w.shared, r.dataCenter(s)...)
	}
	a := &app{name: answersApp, note: "names that lead to sites"}
	located := false
	for _, n := range gslb.Names(r.geo) {
		located = located || n.Located()
		for _, record := range gslb.Families() {
			if n.Has(record) {
				r.wideIP(a, &n, record)
			}
		}
	}
	if located {
		w.shared = append(w.shared, r.topology()...)
	}
	for i, l := range r.geo.Listen {
		r.dnsListener(a, i, l)
	}
	body := map[string]any{"class": "Application", "template": "generic"}
	for _, p := range a.parts {
		body[p.name] = p.body
	}
	w.tenant[a.name] = body
	w.apps = append(w.apps, *a)
}

// dataCenter renders a site: a data centre, a server with the gateways, and its checks.
func (r *renderer) dataCenter(s *plugins.GeoSite) []part {
	center, server := r.shared("dc", s.Name), r.shared("server", s.Name)
	place := strings.Trim(strings.Join([]string{s.Continent, s.Country, s.Subdivision}, " "), " ")
	body := map[string]any{"class": "GSLB_Data_Center", "remark": "site " + short(s.Name)}
	if place != "" {
		body["location"] = place
	}
	out := []part{{name: center, note: "site " + s.Name, body: body, tmsh: []string{"create gtm datacenter " + center}}}
	made := make(map[string]bool)
	checks := gslb.Checks(s, pinged...)
	oneDoes := s.CheckNeed == plugins.NeedAny && len(checks) > 1
	var virtuals []any
	var lines []string
	first := ""
	for _, record := range gslb.Families() {
		for _, m := range gslb.Members(s, record) {
			first = cmp.Or(first, m.Address.String())
			var uses []any
			var names []string
			for i := range checks {
				p := r.geoMonitor(s, &checks[i], &m)
				if slices.ContainsFunc(uses, func(u any) bool { return u.(map[string]any)["use"] == p.name }) {
					continue // a ping like the other
				}
				if !made[p.name] {
					made[p.name] = true
					out = append(out, p)
				}
				uses, names = append(uses, map[string]any{"use": p.name}), append(names, p.name)
			}
			v := map[string]any{"name": m.Label(), "address": m.Address.String(), "port": 0, "remark": "gateway " + short(m.Gateway.Name)}
			line := fmt.Sprintf("%s { destination %s", m.Label(), strings.TrimSuffix(memberName(m.Address, 0), "0")+"any")
			if len(uses) > 0 {
				v["monitors"] = uses
				line += " monitor " + strings.Join(names, " and ")
			}
			if oneDoes && len(uses) > 1 {
				v["minimumMonitors"] = 1
				line = strings.Replace(line, " monitor "+strings.Join(names, " and "), " monitor min 1 of { "+strings.Join(names, " ")+" }", 1)
			}
			virtuals, lines = append(virtuals, v), append(lines, line+" }")
		}
	}
	if first == "" {
		return out // it has nothing for clients outside
	}
	return append(out, part{
		name: server, note: "gateways of site " + s.Name, body: map[string]any{
			"class": "GSLB_Server", "dataCenter": map[string]any{"use": center}, "serverType": "generic-host", "devices": []any{map[string]any{"address": first}},
			"virtualServers": virtuals, "virtualServerDiscoveryMode": "disabled",
		}, tmsh: []string{fmt.Sprintf("create gtm server %s { datacenter %s product generic-host virtual-server-discovery disabled devices add { %s { addresses add { %s { } } } } virtual-servers add {\n    %s\n} }",
			server, center, server, first, strings.Join(lines, "\n    "))},
	})
}

// geoMonitor renders a check of a site. Gateways that are checked at their own addresses
// share it.
func (r *renderer) geoMonitor(s *plugins.GeoSite, c *plugins.Check, m *gslb.Member) part {
	kind := probe(c, false)
	parts := []string{"check", s.Name, c.Name}
	if kind == "icmp" {
		kind, parts[2] = "gateway-icmp", "icmp"
	}
	host, port := "*", "*"
	if m.Probe() != m.Address {
		host = m.Probe().String()
		parts = append(parts, host)
	}
	if kind != "gateway-icmp" {
		port = fmt.Sprint(c.Port)
	}
	target := join(host, port)
	every := max(seconds(c.Interval.D()), 1)
	body := map[string]any{
		"class": "GSLB_Monitor", "monitorType": kind, "target": target, "interval": every, "timeout": max(every*c.Fall+1, every+seconds(c.Timeout.D())),
		"probeTimeout": max(seconds(c.Timeout.D()), 1),
	}
	name := r.shared(parts...)
	note, more := "check "+c.Name+" of site "+s.Name, ""
	switch kind {
	case "http", "https":
		ask, expect := question(c, cmp.Or(c.Host, m.Address.String()))
		body["send"], body["receive"] = ask, expect
		more = fmt.Sprintf(" send \"%s\" recv \"%s\"", ask, expect)
	case "gateway-icmp":
		if c.Type != plugins.CheckICMP {
			note += ": BIG-IP can only ping here"
		}
	}
	line := fmt.Sprintf("create gtm monitor %s %s { destination %s interval %d timeout %v probe-timeout %v%s }", kind, name, target, every, body["timeout"], body["probeTimeout"], more)
	return part{name: name, note: note, body: body, tmsh: []string{line}}
}

func (r *renderer) wideIPName(n *gslb.Name, record string) string {
	return r.plain("name", n.FQDN, record)
}

// wideIP renders a name, with a pool for each site.
func (r *renderer) wideIP(a *app, n *gslb.Name, record string) {
	var pools []any
	var lines []string
	lb := "round-robin"
	switch {
	case n.Located():
		lb = "topology"
	case len(n.Tiers) > 1:
		lb = "global-availability"
	case n.Weighs():
		lb = "ratio"
	}
	usable := ""
	for _, s := range n.Sites() {
		if len(gslb.Members(s, record)) == 0 {
			continue
		}
		p := r.geoPool(n, record, s)
		a.add(p)
		weight := 1
		if lb == "ratio" {
			weight = max(gslb.Weight(s), 1)
		}
		lines = append(lines, fmt.Sprintf("%s { order %d ratio %d }", p.name, len(pools), weight))
		pools = append(pools, map[string]any{"use": p.name, "ratio": weight})
		if usable == "" && !r.sites[s.Name] {
			usable = p.name
		}
	}
	kind := strings.ToLower(record)
	body := map[string]any{
		"class": "GSLB_Domain", "domainName": n.FQDN, "resourceRecordType": record, "poolLbMode": lb, "pools": pools, "clientSubnetPreferred": true,
		"persistenceEnabled": n.Spec.Method == "hash", "failureRcodeResponse": false,
	}
	line := fmt.Sprintf("create gtm wideip %s %s { pool-lb-mode %s persistence %s pools add { %s }", kind, n.FQDN, lb, enabled(n.Spec.Method == "hash"), strings.Join(lines, " "))
	switch down := n.Spec.AllDown; {
	case down == "nodata" || down == "servfail":
		rcode := map[string]string{"nodata": "noerror", "servfail": "servfail"}[down]
		body["failureRcodeResponse"], body["failureRcode"] = true, rcode
		line += " failure-rcode-response enabled failure-rcode " + rcode
	case usable != "":
		body["lastResortPool"], body["lastResortPoolType"] = map[string]any{"use": usable}, record
		line += fmt.Sprintf(" last-resort-pool %s %s", kind, usable)
	}
	a.add(part{name: r.wideIPName(n, record), note: "name " + n.FQDN, body: body, tmsh: []string{line + " }"}})
}

// geoPool renders the gateways of a site as a name's answer.
func (r *renderer) geoPool(n *gslb.Name, record string, s *plugins.GeoSite) part {
	list := gslb.Members(s, record)
	name, server := r.plain("pool", n.FQDN, record, s.Name), r.shared("server", s.Name)
	l := limits()
	fallback := "round-robin"
	body := map[string]any{
		"class": "GSLB_Pool", "resourceRecordType": record, "lbModePreferred": "round-robin", "lbModeAlternate": "none", "ttl": l.Seconds(n), "enabled": !r.sites[s.Name],
		"manualResumeEnabled": r.geo.Failback == plugins.FailbackManual, "maxAnswersReturned": len(list), "remark": "site " + short(s.Name),
	}
	more := ""
	switch last := lastResorts(n, record); {
	case n.Spec.AllDown == "last-resort" && len(last) > 0:
		fallback = "fallback-ip"
		body["fallbackIP"] = last[0].String()
		more = " fallback-ip " + last[0].String()
	case n.Spec.AllDown != "" && n.Spec.AllDown != "as-if-up":
		fallback = "none"
	}
	body["lbModeFallback"] = fallback
	var members []any
	var lines []string
	for i, m := range list {
		members = append(members, map[string]any{"server": map[string]any{"use": "/" + common + "/" + shared + "/" + server}, "virtualServer": m.Label()})
		lines = append(lines, fmt.Sprintf("/Common/%s:%s { member-order %d }", server, m.Label(), i))
	}
	body["members"] = members
	state := "enabled"
	if r.sites[s.Name] {
		state = "disabled"
	}
	line := fmt.Sprintf("create gtm pool %s %s { %s load-balancing-mode round-robin alternate-mode none fallback-mode %s%s ttl %v max-answers-returned %d manual-resume %s members add {\n    %s\n} }",
		strings.ToLower(record), name, state, fallback, more, body["ttl"], len(list), enabled(r.geo.Failback == plugins.FailbackManual), strings.Join(lines, "\n    "))
	return part{name: name, note: "site " + s.Name + " of name " + n.FQDN, body: body, tmsh: []string{line}}
}

// Scores of topology records: what fits more closely counts more.
const (
	byNetwork   = 3000
	byCountry   = 2000
	byContinent = 1000
)

// topology renders which clients are near which site. None is empty: AS3 has no list
// without a record.
func (r *renderer) topology() []part {
	var records []any
	var lines []string
	add := func(s *plugins.GeoSite, kind, value string, score int) {
		center := r.shared("dc", s.Name)
		records = append(records, map[string]any{
			"source":      map[string]any{"matchType": kind, "matchOperator": "equals", "matchValue": value},
			"destination": map[string]any{"matchType": "datacenter", "matchOperator": "equals", "matchValue": map[string]any{"use": center}}, "weight": score,
		})
		lines = append(lines, fmt.Sprintf("create gtm topology ldns: %s %s server: datacenter /Common/%s score %d", kind, value, center, score))
	}
	unique := func(list []string, own string) []string {
		if len(list) == 0 && own != "" {
			return []string{own}
		}
		return slices.Compact(slices.Sorted(slices.Values(list)))
	}
	for _, s := range gslb.Sites(r.geo) {
		for _, n := range s.Serves.Networks {
			add(s, "subnet", n.String(), byNetwork)
		}
		for _, c := range unique(s.Serves.Countries, s.Country) {
			add(s, "country", c, byCountry)
		}
		for _, c := range unique(s.Serves.Continents, s.Continent) {
			add(s, "continent", c, byContinent)
		}
	}
	if len(records) == 0 {
		return nil
	}
	return []part{{name: r.shared("topology"), note: "which clients are near which site", tmsh: lines, body: map[string]any{
		"class": "GSLB_Topology_Records", "longestMatchEnabled": true, "records": records,
	}}}
}

// dnsListener renders where queries are answered.
func (r *renderer) dnsListener(a *app, i int, l netip.AddrPort) {
	for _, network := range []string{"udp", "tcp"} {
		name := fmt.Sprintf("dns_%s_%d", network, i+1)
		class := map[string]string{"udp": "Service_UDP", "tcp": "Service_TCP"}[network]
		a.add(part{name: name, note: "where queries are answered: the parent zone delegates the names to here", body: map[string]any{
			"class": class, "virtualAddresses": []any{l.Addr().String()}, "virtualPort": int(l.Port()), "profileDNS": map[string]any{"bigip": "/Common/dns"},
			"snat": "none", "persistenceMethods": []any{}, "maxConnections": 0, "remark": "queries by " + network,
		}, tmsh: []string{fmt.Sprintf("create ltm virtual %s { destination %s ip-protocol %s profiles replace-all-with { %s dns } }", name, destination(l), network, network)}})
	}
}

// ours are the names of what is ours in the shared application.
func ours(o plugins.Owner, site string, tenant map[string]any) []string {
	app, _ := tenant[shared].(map[string]any)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(app)) {
		if _, ok := app[name].(map[string]any); ok && strings.HasPrefix(name, o.Prefix(site)+"gslb_") {
			out = append(out, name)
		}
	}
	return out
}

// withShared returns the tenant that is shared with others, in which what is ours is
// what is wanted. What others have there stays as AS3 gave it.
func (w *wanted) withShared(f *found, o plugins.Owner) map[string]any {
	mine := ours(o, f.site, f.common.tenant)
	if len(mine) == 0 && len(w.shared) == 0 {
		return nil
	}
	tenant := maps.Clone(f.common.tenant)
	if tenant == nil {
		tenant = map[string]any{"class": "Tenant"}
	}
	app, _ := tenant[shared].(map[string]any)
	if app = maps.Clone(app); app == nil {
		app = map[string]any{"class": "Application", "template": "shared"}
	}
	for _, name := range mine {
		delete(app, name)
	}
	for _, p := range w.shared {
		app[p.name] = p.body
	}
	tenant[shared] = app
	delete(tenant, "optimisticLockKey")
	return tenant
}
