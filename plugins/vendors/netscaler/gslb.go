package netscaler

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// GSLB says how the appliance answers for the names of a deployment's geo.
type GSLB struct {
	// Address is the appliance's own as a GSLB site, a SNIP or a GSLB site IP; not
	// valid if it has such a site already, which is used and left alone.
	Address netip.Addr `json:"address,omitzero"`
}

const (
	// anyPort is how NITRO says *.
	anyPort = 65535
	// siteAddress stands for the address of the GSLB site where nobody says it.
	siteAddress = "<the appliance's own address as a GSLB site>"
)

// limits are what NetScaler's GSLB can do.
func limits() gslb.Limits {
	return gslb.Limits{
		Product: "NetScaler", WideTiers: true, MostTTL: 7 * 24 * time.Hour,
		By: []string{"subdivision", "country", "continent"},
		Near: map[string]string{
			"network":  "static proximity goes by the places of geo.networks, not by what sites serve",
			"asn":      "static proximity knows places, not providers",
			"distance": "static proximity prefers a site in the client's subdivision, country or continent; distances aren't measured",
		},
		AllDown: map[string]string{"servfail": "the answer is empty"},
	}
}

func gslbSupport() []plugins.Support {
	const check = "geo.sites.checks"
	return slices.Concat(gslb.Support("NetScaler"),
		plugins.Full("geo.listen", "geo.failback=manual", "geo.networks.name", "geo.networks.prefix", "geo.networks.continent", "geo.networks.country", "geo.networks.subdivision",
			"geo.sites.continent", "geo.sites.country", "geo.sites.subdivision", "geo.sites.gateways.check_address", "geo.sites.check_need=all,any",
			check+".type=radius", check+".interval", check+".timeout", check+".rise", check+".fall", check+".user", check+".secret_file", check+".secret_env", check+".accounting",
			"geo.names.method=weighted,all", "geo.names.all_down=as-if-up,nodata,last-resort", "geo.names.last_resort"),
		[]plugins.Support{
			plugins.Partial("geo.networks.asn", "static proximity knows places, not providers"),
			plugins.Partial("geo.networks.latitude", "distances aren't measured"),
			plugins.Partial("geo.networks.longitude", "distances aren't measured"),
			plugins.Partial("geo.databases", "the appliance uses the location file that an administrator gave it (add locationFile)"),
			plugins.Partial(check+".type=ikev2", "NetScaler can't ask for it: another check of the site decides, or else an echo request (ICMP)"),
			plugins.Partial(check+".type=radsec", "NetScaler can't ask for it: another check of the site decides, or else a TCP connection is opened"),
			plugins.None(check+".status_server", "NetScaler's monitor asks by Access-Request", "leave it out"),
			plugins.Partial("geo.names.method=hash", "a hash of the resolver's address picks the site, whatever the weights"),
			plugins.Partial("geo.names.method=least-load", "the site with the fewest connections is answered, of those that the appliance counts itself; others share"),
			plugins.Partial("geo.names.all_down=servfail", "the answer is empty"),
		},
	)
}

// adviseGeo says what only NetScaler's driver knows of geo.
func adviseGeo(g *plugins.Geo) gslb.Advice {
	l := limits()
	out := l.Advise(g)
	tiers, located := false, false
	for _, n := range gslb.Names(g) {
		tiers, located = tiers || len(n.Tiers) > 1, located || n.Located()
		out.Alone(&n)
		if len(n.Spec.LastResort) > 0 && len(lastResort(&n, "A"))+len(lastResort(&n, "AAAA")) < len(n.Spec.LastResort) {
			out.Say(plugins.SeverityWarning, n.Path+".last_resort", "a name has one address of last resort here for each address family", "the first of each family is answered", "")
		}
		if n.Spec.Method == "weighted" && heavy(&n) {
			out.Say(plugins.SeverityInfo, n.Path+".method", fmt.Sprintf("weights are scaled to at most %d, NetScaler's greatest", mostWeight), "", "")
		}
	}
	if g.Failback == plugins.FailbackManual && !tiers {
		out.Say(plugins.SeverityWarning, "geo.failback", "sites that serve at the same time come back by themselves", "only the return from one tier to the one before waits for an administrator", "")
	}
	for i, n := range g.Networks {
		if located && n.Prefix.Addr().Is6() {
			out.Say(plugins.SeverityWarning, fmt.Sprintf("geo.networks[%d].prefix", i), "locations of IPv6 come from a file only", "clients of this network count as being nowhere", "")
		}
		if !located {
			out.Say(plugins.SeverityInfo, fmt.Sprintf("geo.networks[%d]", i), "no name goes by places, so it isn't used", "", "")
		}
	}
	for i := range g.Sites {
		s, at := &g.Sites[i], fmt.Sprintf("geo.sites[%d]", i)
		if !located && (s.Continent != "" || s.Country != "" || s.Subdivision != "") {
			out.Say(plugins.SeverityInfo, at, "no name goes by places, so where the site is has no effect", "", "")
		}
		for k := range s.Checks {
			adviseGeoCheck(&out, fmt.Sprintf("%s.checks[%d]", at, k), s.Checks[k].Usual())
		}
	}
	for i, l := range g.Listen {
		if l.Addr().IsUnspecified() {
			out.Say(plugins.SeverityError, fmt.Sprintf("geo.listen[%d]", i), "an ADNS service has an address of its own", "", "name the address, rather than "+l.Addr().String())
		}
	}
	return out
}

func adviseGeoCheck(out *gslb.Advice, at string, c plugins.Check) {
	if c.Rise > mostRise {
		out.Say(plugins.SeverityWarning, at+".rise", fmt.Sprintf("NetScaler counts to %d at most", mostRise), "", "")
	}
	if c.Timeout >= c.Interval {
		out.Say(plugins.SeverityInfo, at+".timeout", "it is shortened by 100ms, since NetScaler wants it to be less than the interval", "", "")
	}
	if !oneLine(c.Host) || strings.Contains(c.Host, `"`) {
		out.Say(plugins.SeverityError, at+".host", "it isn't the name of a host", "", "")
	}
}

// heavy reports whether the sites of a name have weights that must be scaled.
func heavy(n *gslb.Name) bool {
	return slices.ContainsFunc(n.Sites(), func(s *plugins.GeoSite) bool { return gslb.Weight(s) > mostWeight })
}

// lastResort returns the first address of last resort for a type of record.
func lastResort(n *gslb.Name, record string) []string {
	for _, a := range n.Spec.LastResort {
		if n.Spec.AllDown == "last-resort" && a.Is6() == (record == "AAAA") {
			return []string{a.String()}
		}
	}
	return nil
}

// answers renders what answers for names.
func (r *renderer) answers() error {
	if r.geo == nil {
		return nil
	}
	local := r.localSite()
	if local == "" {
		return errors.New("the appliance has no GSLB site of its own: name its address as gslb.address in the settings, or add the site by: add gslb site … LOCAL …")
	}
	monitors := make(map[string][]*item)
	for _, s := range gslb.Sites(r.geo) {
		for _, record := range gslb.Families() {
			for _, m := range gslb.Members(s, record) {
				if err := r.geoService(s, &m, local, monitors); err != nil {
					return err
				}
			}
		}
	}
	located := false
	for _, n := range gslb.Names(r.geo) {
		located = located || n.Located()
		for _, record := range gslb.Families() {
			if n.Has(record) {
				r.geoName(&n, record)
			}
		}
	}
	if located {
		r.locations()
	}
	for _, l := range r.geo.Listen {
		r.listener(l)
	}
	return nil
}

// localSite returns the name of the appliance's own GSLB site, of which it has one at
// most; empty if there is none, and none can be made.
func (r *renderer) localSite() string {
	if r.local != "" && !r.owner.Owns(r.site.Name, r.local) {
		return r.local
	}
	it := &item{kind: kindOf("gslbsite"), keys: []any{r.name("gslb", "site")}, note: "the appliance itself"}
	it.fix("sitetype", "LOCAL")
	switch {
	case r.address.IsValid():
		it.fix("siteipaddress", r.address.Unmap().String())
	case r.paper:
		it.fix("siteipaddress", siteAddress)
	default:
		return ""
	}
	r.add(it)
	return plain(it.keys[0])
}

// serviceName names a gateway by its address, since NITRO takes an address once: what a
// gateway and its site are called may change, and the service stays.
func (r *renderer) serviceName(m *gslb.Member) string {
	return r.name("gslb", m.Address.String())
}

// geoService renders a gateway of a site. Its checks are shared by the gateways of the
// site that are asked at their own addresses.
func (r *renderer) geoService(s *plugins.GeoSite, m *gslb.Member, local string, monitors map[string][]*item) error {
	it := &item{kind: kindOf("gslbservice"), keys: []any{r.serviceName(m)}, note: "gateway " + m.Gateway.Name + " of site " + s.Name}
	it.fix("servername", r.server(m.Address, "gateway "+m.Gateway.Name+" of site "+s.Name))
	it.fix("servicetype", "ANY")
	it.fix("port", anyPort)
	it.fix("sitename", local)
	list := gslb.Checks(s, plugins.CheckIKEv2)
	it.set("healthmonitor", yesNo(len(list) > 0))
	threshold := 0 // all
	if s.CheckNeed == plugins.NeedAny && len(list) > 1 {
		threshold = 1
	}
	it.set("monthreshold", threshold)
	it.set("comment", r.owner.Mark(r.site.Name, ""))
	r.add(it)
	key := s.Name
	elsewhere := m.Probe() != m.Address
	if elsewhere {
		key += " " + m.Probe().String()
	}
	if _, made := monitors[key]; !made {
		monitors[key] = nil
		for _, c := range list {
			parts := []string{"gslb", s.Name, c.Name}
			if elsewhere {
				parts = append(parts, m.Probe().String())
			}
			mon, err := r.monitorOf(c, parts, s.Name+" "+c.Name, "check "+c.Name+" of site "+s.Name)
			if err != nil {
				return fmt.Errorf("check %s of site %s: %w", c.Name, s.Name, err)
			}
			if elsewhere {
				mon.set("destip", m.Probe().Unmap().String())
			}
			monitors[key] = append(monitors[key], mon)
		}
		r.add(monitors[key]...)
	}
	for _, mon := range monitors[key] {
		r.add(&item{kind: kindOf("gslbservice_lbmonitor_binding"), keys: []any{it.keys[0], mon.keys[0]}})
	}
	return nil
}

func (r *renderer) answerName(n *gslb.Name, record string, tier int) string {
	parts := []string{"gslb", n.FQDN, record}
	if tier > 0 {
		parts = append(parts, "tier"+strconv.Itoa(tier+1))
	}
	return r.name(parts...)
}

// geoName renders a name: a virtual server for each tier, of which the first has the
// domain.
func (r *renderer) geoName(n *gslb.Name, record string) {
	var tiers [][]*plugins.GeoSite
	for _, t := range n.Tiers {
		if slices.ContainsFunc(t, func(s *plugins.GeoSite) bool { return len(gslb.Members(s, record)) > 0 }) {
			tiers = append(tiers, t)
		}
	}
	for i := len(tiers) - 1; i >= 0; i-- { // what stands by comes first
		v := &item{kind: kindOf("gslbvserver"), keys: []any{r.answerName(n, record, i)}, note: "name " + n.FQDN}
		if i > 0 {
			v.note += ", while the sites before are down"
		}
		v.fix("servicetype", "ANY")
		v.fix("dnsrecordtype", record)
		method, backup := geoMethod(n)
		v.set("lbmethod", method)
		if backup != "" {
			v.set("backuplbmethod", backup)
		}
		v.set("edr", onOff(n.Spec.AllDown == "nodata" || n.Spec.AllDown == "servfail"))
		v.set("mir", onOff(n.Spec.Method == "all"))
		v.set("ecs", "ENABLED")
		v.set("ecsaddrvalidation", "ENABLED")
		v.set("disableprimaryondown", onOff(r.geo.Failback == plugins.FailbackManual))
		next := ""
		if i+1 < len(tiers) {
			next = r.answerName(n, record, i+1)
		}
		v.set("backupvserver", next)
		v.set("comment", r.owner.Mark(r.site.Name, ""))
		r.add(v)
		for _, s := range tiers[i] {
			r.bindSite(n, v, tiers[i], s, record)
		}
	}
	d := &item{kind: kindOf("gslbvserver_domain_binding"), keys: []any{r.answerName(n, record, 0), n.FQDN}}
	l := limits()
	d.set("ttl", l.Seconds(n))
	if list := lastResort(n, record); len(list) > 0 {
		d.set("backupip", list[0])
	} else {
		d.set("backupip", "")
	}
	r.add(d)
}

// bindSite binds the gateways of a site, unless it is drained.
func (r *renderer) bindSite(n *gslb.Name, v *item, tier []*plugins.GeoSite, s *plugins.GeoSite, record string) {
	if gslb.Drained(r.drained)[s.Name] {
		return
	}
	for _, m := range gslb.Members(s, record) {
		b := &item{kind: kindOf("gslbvserver_gslbservice_binding"), keys: []any{v.keys[0], r.serviceName(&m)}}
		b.set("weight", gslb.Share(n, tier, s, record, mostWeight))
		r.add(b)
	}
}

// geoMethod returns how a site is chosen, and how where that says nothing.
func geoMethod(n *gslb.Name) (method, backup string) {
	method = map[string]string{"hash": "SOURCEIPHASH", "least-load": "LEASTCONNECTION"}[n.Spec.Method]
	method = cmp.Or(method, "ROUNDROBIN")
	if n.Located() {
		return "STATICPROXIMITY", "ROUNDROBIN"
	}
	return method, ""
}

// place is a location's qualifiers: continent, country, region, city, provider and
// organisation, of which the last is our mark.
func (r *renderer) place(p *plugins.GeoPlace) string {
	_, region, _ := strings.Cut(p.Subdivision, "-")
	return strings.Join([]string{cmp.Or(p.Continent, "*"), cmp.Or(p.Country, "*"), cmp.Or(region, "*"), "*", "*", locationMark(r.owner, r.site.Name)}, ".")
}

// locationMark is by what our locations are known: they have no names.
func locationMark(o plugins.Owner, site string) string {
	return strings.TrimSuffix(o.Prefix(site), "_")
}

// locations renders where gateways and the organisation's networks are.
func (r *renderer) locations() {
	location := func(from, to netip.Addr, p *plugins.GeoPlace, note string) {
		if !from.Is4() || p.Continent == "" && p.Country == "" && p.Subdivision == "" {
			return
		}
		it := &item{kind: kindOf("location"), keys: []any{from.String(), to.String()}, note: note}
		it.fix("preferredlocation", r.place(p))
		r.add(it)
	}
	for _, s := range gslb.Sites(r.geo) {
		for _, m := range gslb.Members(s, "A") {
			location(m.Address, m.Address, &s.GeoPlace, "where site "+s.Name+" is")
		}
	}
	for i := range r.geo.Networks {
		n := &r.geo.Networks[i]
		if n.Prefix.Addr().Is4() {
			location(n.Prefix.Addr(), last(n.Prefix), &n.GeoPlace, "where the organisation's own networks are")
		}
	}
}

// last returns the last address of a network of IPv4.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// listener renders where queries are answered. It is named by its address and port, since
// NITRO takes these once: another place in the list must not take those of the one before.
func (r *renderer) listener(l netip.AddrPort) {
	for _, kind := range []string{"ADNS", "ADNS_TCP"} {
		it := &item{kind: kindOf("service"), keys: []any{r.name("gslb", kind, l.Addr().String(), strconv.Itoa(int(l.Port())))}, note: "where queries are answered"}
		it.fix("servername", r.server(l.Addr(), "where queries are answered"))
		it.fix("servicetype", kind)
		it.fix("port", int(l.Port()))
		it.set("comment", r.owner.Mark(r.site.Name, ""))
		r.add(it)
	}
}
