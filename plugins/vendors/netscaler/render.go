package netscaler

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

const (
	mostName    = 127 // characters of a name
	mostWeight  = 100
	mostMinutes = 1440 // of persistence
	// usualIdle and usualSilence are Group.Idle and Listener.IdleTimeout where
	// nothing is said.
	usualIdle    = 35 * time.Minute
	usualSilence = 10 * time.Minute
	// radiusIdle is how long a RADIUS exchange may take, in seconds.
	radiusIdle = 120
	// slowSteps are how many steps a slow start has.
	slowSteps = 10
	// user and station are what RADIUS users are known by.
	user    = "CLIENT.UDP.RADIUS.USERNAME"
	station = "CLIENT.UDP.RADIUS.ATTR_TYPE(31)"
)

// renderer makes the items of a site.
type renderer struct {
	owner   plugins.Owner
	site    *plugins.Site
	drained []plugins.DrainRequest
	servers map[netip.Addr]string // names that addresses have already
	paper   bool                  // for people: no secrets and no files are read
	geo     *plugins.Geo          // names to answer for; nil if there are none
	local   string                // the appliance's GSLB site, if it has one
	address netip.Addr            // where it is, if it is ours
	items   []*item
	cas     map[string][]string
}

func (r *renderer) name(parts ...string) string { return r.owner.Name(r.site.Name, mostName, parts...) }

// add adds items, each once.
func (r *renderer) add(list ...*item) {
	for _, it := range list {
		if !slices.ContainsFunc(r.items, func(x *item) bool { return x.kind == it.kind && x.name() == it.name() }) {
			r.items = append(r.items, it)
		}
	}
}

// render returns the items in the order in which they are made.
func (r *renderer) render() ([]*item, error) {
	r.cas = make(map[string][]string)
	if r.site == nil {
		return nil, nil
	}
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		if err := r.group(g, r.site.Pool(g.Pool)); err != nil {
			return nil, err
		}
	}
	if err := r.answers(); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.items, func(a, b *item) int { return slices.Index(kinds, a.kind) - slices.Index(kinds, b.kind) })
	return r.items, nil
}

// levels returns the priorities of a pool, the first to serve first.
func levels(p *plugins.Pool) []int {
	seen := make(map[int]bool)
	for _, b := range p.Backends {
		seen[b.Priority] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// persistence is how clients of a listener stay together.
type persistence struct{ method, rule string }

func persistenceOf(g *plugins.Group, l *plugins.Listener) persistence {
	switch {
	case g.BySource(l) || l.Protocol == plugins.ProtocolIKEv2:
		return persistence{method: "SOURCEIP"}
	case l.Protocol == plugins.ProtocolRADIUS:
		if g.RADIUS != nil && g.RADIUS.User == plugins.RADIUSByStation {
			return persistence{"RULE", station}
		}
		return persistence{"RULE", user}
	}
	return persistence{method: "NONE"} // each connection is a client
}

func (r *renderer) group(g *plugins.Group, p *plugins.Pool) error {
	var monitors []*item
	for _, c := range checksOf(p) {
		m, err := r.monitor(p, c)
		if err != nil {
			return err
		}
		monitors = append(monitors, m)
	}
	r.add(monitors...)
	shared := make(map[persistence]int)
	for k := range g.Listeners {
		shared[persistenceOf(g, &g.Listeners[k])]++
	}
	for k := range g.Listeners {
		l := &g.Listeners[k]
		how := persistenceOf(g, l)
		grouped := shared[how] > 1 && how.method != "NONE"
		all := levels(p)
		for i := len(all) - 1; i >= 0; i-- { // what stands by comes first
			v, err := r.level(g, l, p, i, monitors, grouped)
			if err != nil {
				return err
			}
			if grouped {
				r.together(g, how, i, v)
			}
		}
	}
	return nil
}

// together puts a virtual server into the persistency group of its level.
func (r *renderer) together(g *plugins.Group, how persistence, level int, v *item) {
	k := kindOf("lbgroup")
	it := &item{kind: k, note: "the listeners of group " + g.Name + " agree where a client lives"}
	it.keys = []any{r.name(g.Name, "persistency", how.method+strconv.Itoa(level))}
	it.set("persistencetype", how.method)
	if how.rule != "" {
		it.set("rule", how.rule)
	}
	it.set("timeout", minutes(g))
	r.add(it, &item{kind: kindOf("lbgroup_lbvserver_binding"), keys: []any{it.keys[0], v.keys[0]}})
}

// minutes is how long a client is remembered, rounded up.
func minutes(g *plugins.Group) int {
	d := cmp.Or(g.Idle.D(), usualIdle)
	return min(int((d+time.Minute-1)/time.Minute), mostMinutes)
}

// silence is how long a flow or connection may be silent, in seconds.
func silence(g *plugins.Group, l *plugins.Listener) int {
	var d time.Duration
	switch {
	case l.Protocol == plugins.ProtocolRADIUS:
		return radiusIdle
	case l.Protocol.Network() == "udp":
		d = cmp.Or(g.Idle.D(), usualIdle)
	default:
		d = cmp.Or(l.IdleTimeout.D(), usualSilence)
	}
	return int((d + time.Second - 1) / time.Second)
}

// types are what a virtual server and its servicegroup speak.
func types(l *plugins.Listener) (front, back string) {
	switch l.Protocol {
	case plugins.ProtocolRADIUS:
		return "RADIUS", "RADIUS"
	case plugins.ProtocolIKEv2, plugins.ProtocolUDP:
		return "UDP", "UDP"
	case plugins.ProtocolTCP, plugins.ProtocolRadSec:
		return "TCP", "TCP"
	case plugins.ProtocolSSTP:
	}
	switch {
	// SSTP is no HTTP after its first line, so the types that read HTTP won't do.
	case l.TLS.Mode == plugins.TLSOffload:
		return "SSL_TCP", "TCP"
	case l.TLS.Mode == plugins.TLSReencrypt:
		return "SSL_TCP", "SSL_TCP"
	case l.ProxyProtocol != "":
		return "TCP", "TCP" // a bridge adds no header
	}
	return "SSL_BRIDGE", "SSL_BRIDGE"
}

// level renders a listener and the backends of one priority.
func (r *renderer) level(g *plugins.Group, l *plugins.Listener, p *plugins.Pool, level int, monitors []*item, grouped bool) (*item, error) {
	names := []string{g.Name, l.Name}
	if level > 0 {
		names = append(names, "standby"+strconv.Itoa(level))
	}
	sg := r.serviceGroup(g, l, p, levels(p)[level], append(slices.Clone(names), "to"), len(monitors) > 0)
	for _, m := range monitors {
		r.add(&item{kind: kindOf("servicegroup_lbmonitor_binding"), keys: []any{sg.keys[0], m.keys[0]}})
	}
	v := r.virtualServer(g, l, p, level, names, grouped)
	if level+1 < len(levels(p)) {
		v.set("backupvserver", r.name(g.Name, l.Name, "standby"+strconv.Itoa(level+1)))
	} else {
		v.set("backupvserver", "")
	}
	r.add(v, &item{kind: kindOf("lbvserver_servicegroup_binding"), keys: []any{v.keys[0], sg.keys[0]}})
	if l.TLS.Terminated() {
		return v, r.tls(g, l, v, sg)
	}
	return v, nil
}

func (r *renderer) virtualServer(g *plugins.Group, l *plugins.Listener, p *plugins.Pool, level int, names []string, grouped bool) *item {
	front, _ := types(l)
	v := &item{kind: kindOf("lbvserver"), keys: []any{r.name(names...)}, note: "listener " + l.Name + " of group " + g.Name}
	v.fix("servicetype", front)
	if level == 0 {
		v.set("ipv46", l.Address.Addr().Unmap().String())
		v.fix("port", int(l.Address.Port()))
	} else {
		v.note += ", while those before are down"
		v.set("ipv46", "0.0.0.0")
		v.fix("port", 0)
	}
	how := persistenceOf(g, l)
	method := methodOf(p, how)
	v.set("lbmethod", method)
	if how.rule != "" {
		v.set("rule", how.rule)
	}
	if !grouped {
		v.set("persistencetype", how.method)
		if how.method != "NONE" {
			v.set("timeout", minutes(g))
		}
	}
	v.set("clttimeout", silence(g, l))
	v.set("disableprimaryondown", onOff(p.Failback == plugins.FailbackManual))
	over := "DISABLED"
	if front == "UDP" || front == "TCP" || front == "SSL_BRIDGE" {
		over = "STATEFUL"
	}
	v.set("connfailover", over)
	if n := g.Limits.MaxClients; n > 0 && level == 0 {
		v.set("somethod", "CONNECTION")
		v.set("sothreshold", n)
		v.set("sobackupaction", "DROP")
	} else {
		v.set("somethod", "NONE")
	}
	if d := p.SlowStart.D(); d > 0 {
		v.set("newservicerequest", 100/slowSteps)
		v.set("newservicerequestunit", "PERCENT")
		v.set("newservicerequestincrementinterval", min(int((d/slowSteps+time.Second-1)/time.Second), 3600))
	} else {
		v.set("newservicerequest", 0)
	}
	v.set("comment", r.owner.Mark(r.site.Name, ""))
	return v
}

// methodOf returns how a backend is picked for a new client.
func methodOf(p *plugins.Pool, how persistence) string {
	switch p.Picker {
	case plugins.PickRoundRobin:
		return "ROUNDROBIN"
	case plugins.PickLeastClients, plugins.PickLeastOutstanding:
		return "LEASTCONNECTION"
	case plugins.PickMaglev:
	}
	return map[string]string{"SOURCEIP": "SOURCEIPHASH", "RULE": "TOKEN", "NONE": "LEASTCONNECTION"}[how.method]
}

func onOff(on bool) string { return map[bool]string{true: "ENABLED", false: "DISABLED"}[on] }

func yesNo(yes bool) string { return map[bool]string{true: "YES", false: "NO"}[yes] }

func (r *renderer) serviceGroup(g *plugins.Group, l *plugins.Listener, p *plugins.Pool, priority int, names []string, checked bool) *item {
	_, back := types(l)
	sg := &item{kind: kindOf("servicegroup"), keys: []any{r.name(names...)}, note: "pool " + p.Name + " for listener " + l.Name}
	transparent := g.ClientAddress == plugins.ClientAddressTransparent
	sg.fix("servicetype", back)
	sg.set("usip", yesNo(transparent))
	sg.set("useproxyport", yesNo(!transparent || back != "UDP")) // IKE's ports mean something
	sg.set("healthmonitor", yesNo(checked))
	most, _ := mostClients(p, priority)
	sg.set("maxclient", most)
	sg.set("clttimeout", silence(g, l))
	sg.set("svrtimeout", silence(g, l))
	threshold := 0 // all
	if p.Need == plugins.NeedAny && len(checksOf(p)) > 1 {
		threshold = 1
	}
	sg.set("monthreshold", threshold)
	profile := ""
	if l.ProxyProtocol != "" {
		n := &item{kind: kindOf("netprofile"), keys: []any{r.name(g.Name, l.Name, "proxy")}, note: "backends are told the client's address"}
		n.set("proxyprotocol", "ENABLED")
		n.set("proxyprotocoltxversion", map[plugins.ProxyProtocol]string{plugins.ProxyV1: "V1", plugins.ProxyV2: "V2"}[l.ProxyProtocol])
		r.add(n)
		profile = plain(n.keys[0])
	}
	sg.set("netprofile", profile)
	sg.set("downstateflush", "ENABLED")
	sg.set("comment", r.owner.Mark(r.site.Name, ""))
	r.add(sg)
	for i := range p.Backends {
		if b := &p.Backends[i]; b.Priority == priority {
			r.add(r.member(sg, l, p, b))
		}
	}
	return sg
}

// mostClients returns how many connections a backend of a priority takes, and
// false if they differ: then none is bounded.
func mostClients(p *plugins.Pool, priority int) (int, bool) {
	first, most := true, 0
	for _, b := range p.Backends {
		switch {
		case b.Priority != priority:
		case first:
			first, most = false, b.MaxClients
		case b.MaxClients != most:
			return 0, false
		}
	}
	return most, true
}

// server returns the name of an address. It renders one if there is none.
func (r *renderer) server(addr netip.Addr, note string) string {
	addr = addr.Unmap()
	name := r.servers[addr]
	if name == "" || r.owner.Owns(r.site.Name, name) {
		name = r.name(addr.String())
		s := &item{kind: kindOf("server"), keys: []any{name}, note: note}
		s.fix("ipaddress", addr.String())
		s.set("comment", r.owner.Mark(r.site.Name, ""))
		r.add(s)
	}
	return name
}

// member renders a backend of a servicegroup, and its server.
func (r *renderer) member(sg *item, l *plugins.Listener, p *plugins.Pool, b *plugins.Backend) *item {
	name := r.server(b.Address, "backend "+b.Name+" of pool "+p.Name)
	m := &item{kind: kindOf("servicegroup_servicegroupmember_binding"), keys: []any{sg.keys[0], name, int(l.TargetPort())}, note: "backend " + b.Name}
	m.set("weight", weightOf(p, b))
	switch away := r.isDrained(p, b); {
	case b.Admin == plugins.AdminDisabled && !away:
		m.set("state", "DISABLED")
		m.set("graceful", "NO")
	case away || b.Admin == plugins.AdminDraining || b.Admin == plugins.AdminDisabled || b.Weight != nil && *b.Weight == 0:
		m.set("state", "DISABLED")
	default:
		m.set("state", "ENABLED")
	}
	return m
}

func (r *renderer) isDrained(p *plugins.Pool, b *plugins.Backend) bool {
	return slices.ContainsFunc(r.drained, func(d plugins.DrainRequest) bool { return d.Pool == p.Name && d.Backend == b.Name })
}

// weightOf returns a weight from 1 to 100.
func weightOf(p *plugins.Pool, b *plugins.Backend) int {
	if b.Weight == nil && heaviest(p) <= mostWeight {
		return 1
	}
	w := 1
	if b.Weight != nil {
		w = *b.Weight
	}
	if h := heaviest(p); h > mostWeight {
		w = (w*mostWeight + h/2) / h
	}
	return max(w, 1)
}

func heaviest(p *plugins.Pool) int {
	most := 1
	for _, b := range p.Backends {
		if b.Weight != nil {
			most = max(most, *b.Weight)
		}
	}
	return most
}

// tls renders the TLS of a listener that ends it.
func (r *renderer) tls(g *plugins.Group, l *plugins.Listener, v, sg *item) error {
	t := &l.TLS
	x := &item{kind: kindOf("sslvserver"), keys: v.keys}
	x.set("ssl3", "DISABLED")
	x.set("tls1", "DISABLED")
	x.set("tls11", "DISABLED")
	x.set("tls12", onOff(t.MinVersion != plugins.TLS13))
	x.set("tls13", "ENABLED")
	x.set("sessionticket", onOff(t.Tickets))
	x.set("clientauth", onOff(t.Clients.CAFile != ""))
	if t.Clients.CAFile != "" {
		x.set("clientcert", map[bool]string{true: "Optional", false: "Mandatory"}[t.Clients.Optional])
	}
	r.add(x)
	for i := range r.site.Certificates {
		if c := &r.site.Certificates[i]; c.Pool == g.Pool && c.CertFile != "" {
			name, err := r.certificate(c)
			if err != nil {
				return err
			}
			r.add(&item{kind: kindOf("sslvserver_sslcertkey_binding"), keys: []any{v.keys[0], name, false}, note: "what clients are shown"})
		}
	}
	if t.Clients.CAFile != "" {
		if err := r.trust("sslvserver_sslcertkey_binding", v, t.Clients.CAFile, "who issues clients' certificates"); err != nil {
			return err
		}
	}
	if t.PassNull {
		note := "DirectAccess clients want TLS without encryption, since IPsec is within"
		r.add(&item{kind: kindOf("sslvserver_sslcipher_binding"), keys: []any{v.keys[0], nullCipher}, note: note})
	}
	if t.Mode == plugins.TLSReencrypt {
		return r.onward(t, sg)
	}
	return nil
}

// onward renders the TLS that goes on to gateways.
func (r *renderer) onward(t *plugins.TLS, sg *item) error {
	y := &item{kind: kindOf("sslservicegroup"), keys: sg.keys}
	y.set("serverauth", onOff(!t.Gateway.Insecure))
	y.set("commonname", t.Gateway.ServerName)
	y.set("snienable", onOff(t.Gateway.ServerName != ""))
	r.add(y)
	if t.Gateway.CAFile == "" {
		return nil
	}
	return r.trust("sslservicegroup_sslcertkey_binding", sg, t.Gateway.CAFile, "who issues gateways' certificates")
}

func (r *renderer) trust(binding string, to *item, file, note string) error {
	names, err := r.authorities(file)
	if err != nil {
		return err
	}
	for _, n := range names {
		r.add(&item{kind: kindOf(binding), keys: []any{to.keys[0], n, true}, note: note})
	}
	return nil
}
