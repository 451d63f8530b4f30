package f5

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// maxRatio is the greatest weight of a pool member.
const maxRatio = 100

// part is an object of the declaration, and what an administrator would type for it.
type part struct {
	name string
	note string
	body map[string]any
	tmsh []string
}

// app is an application of the tenant: a group.
type app struct {
	name  string
	note  string
	parts []part
}

func (a *app) add(p part) { a.parts = append(a.parts, p) }

// wanted is a tenant as it is to be.
type wanted struct {
	name   string
	tenant map[string]any
	apps   []app
	shared []part   // what AS3 has in an application with that of others
	hide   []string // secrets that are in it
}

// state is what a member is to be, as AS3 calls it.
type state string

const (
	stateEnable  state = "enable"
	stateDisable state = "disable"
	stateOffline state = "offline"
)

// renderer makes the declaration of a site.
type renderer struct {
	dep      *plugins.Deployment
	site     *plugins.Site
	owner    plugins.Owner
	settings Settings
	files    files
	// drained says what becomes of backends that are drained.
	drained map[plugins.BackendRef]state
	// geo are names to answer for; nil if there are none. sites are those of it
	// that are drained.
	geo   *plugins.Geo
	sites map[string]bool

	hide []string
}

// files is where secrets and certificates come from.
type files interface {
	// secret returns a secret, and what stands for it where it may be seen.
	secret(s plugins.Secret) (value, shown string, err error)
	// certificate returns a certificate, its chain and its key, as PEM.
	certificate(c *plugins.Certificate) (cert, chain, key string, err error)
	// bundle returns what a file of CAs or revoked certificates holds.
	bundle(name string) (string, error)
}

// tenantName returns the name of the tenant of a site.
func tenantName(o plugins.Owner, site string) string {
	return strings.TrimSuffix(o.Prefix(site), "_")
}

// plain returns a name for what is within the tenant.
func (r *renderer) plain(kind string, parts ...string) string {
	return kind + "_" + strings.TrimPrefix(r.owner.Name(r.site.Name, 120, parts...), r.owner.Prefix(r.site.Name))
}

func (r *renderer) appName(g *plugins.Group) string        { return r.plain("group", g.Name) }
func (r *renderer) serviceName(l *plugins.Listener) string { return r.plain("listener", l.Name) }
func poolName(port uint16) string                          { return "pool_" + strconv.Itoa(int(port)) }

// all renders the whole tenant. A nil Deployment is a tenant with nothing in it,
// which AS3 removes.
func (r *renderer) all(tenant string) (*wanted, error) {
	w := &wanted{name: tenant, tenant: map[string]any{"class": "Tenant"}}
	if r.dep == nil {
		return w, nil
	}
	memory, err := json.Marshal(r.dep)
	if err != nil {
		return nil, err
	}
	w.tenant["label"] = "aovlb"
	constants := map[string]any{"class": "Constants", "owner": r.owner.Mark(r.site.Name, r.dep.Revision()), "deployment": string(memory)}
	if len(r.sites) > 0 {
		constants["drained_sites"] = strings.Join(slices.Sorted(maps.Keys(r.sites)), " ")
	}
	w.tenant["constants"] = constants
	for i := range r.site.Groups {
		a, err := r.group(&r.site.Groups[i])
		if err != nil {
			return nil, err
		}
		body := map[string]any{"class": "Application", "template": "generic"}
		for _, p := range a.parts {
			body[p.name] = p.body
		}
		w.tenant[a.name] = body
		w.apps = append(w.apps, *a)
	}
	r.answers(w)
	w.hide = r.hide
	return w, nil
}

// group renders an application.
func (r *renderer) group(g *plugins.Group) (*app, error) {
	a := &app{name: r.appName(g), note: "group " + g.Name}
	p := r.site.Pool(g.Pool)
	monitors, err := r.monitors(a, p)
	if err != nil {
		return nil, err
	}
	made := map[uint16]bool{}
	for i := range g.Listeners {
		if port := g.Listeners[i].TargetPort(); !made[port] {
			made[port] = true
			a.add(r.pool(p, port, monitors))
		}
	}
	persist := r.persistence(a, g)
	for i := range g.Listeners {
		if err := r.service(a, g, &g.Listeners[i], persist); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// pool renders a pool as the listeners that go to a port use it.
func (r *renderer) pool(p *plugins.Pool, port uint16, monitors []string) part {
	method := method(p)
	members := make([]any, 0, len(p.Backends))
	text := make([]string, 0, len(p.Backends))
	for i := range p.Backends {
		m, line := r.member(p, &p.Backends[i], port)
		members, text = append(members, m), append(text, line)
	}
	uses := make([]any, 0, len(monitors))
	for _, m := range monitors {
		uses = append(uses, map[string]any{"use": m})
	}
	active := 0
	if levels := priorities(p); len(levels) > 1 {
		active = 1
	}
	body := map[string]any{
		"class": "Pool", "loadBalancingMode": method, "slowRampTime": seconds(p.SlowStart.D()), "serviceDownAction": "none",
		"minimumMembersActive": active, "members": members, "remark": "pool " + short(p.Name),
	}
	monitor := ""
	if len(uses) > 0 {
		body["monitors"] = uses
		body["minimumMonitors"] = any("all")
		monitor = " monitor " + strings.Join(monitors, " and ")
		if p.Need == plugins.NeedAny {
			body["minimumMonitors"] = 1
			monitor = " monitor min 1 of { " + strings.Join(monitors, " ") + " }"
		}
	}
	line := fmt.Sprintf("create ltm pool %s { load-balancing-mode %s min-active-members %d slow-ramp-time %d%s members replace-all-with {\n    %s\n} }",
		poolName(port), method, active, seconds(p.SlowStart.D()), monitor, strings.Join(text, "\n    "))
	return part{name: poolName(port), note: "pool " + p.Name + ", for clients of port " + strconv.Itoa(int(port)), body: body, tmsh: []string{line}}
}

func (r *renderer) member(p *plugins.Pool, b *plugins.Backend, port uint16) (body map[string]any, tmsh string) {
	admin := r.admin(p, b)
	ratio, priority := ratioOf(p, b), priorityOf(p, b)
	body = map[string]any{
		"servicePort": int(port), "serverAddresses": []any{b.Address.String()}, "shareNodes": true, "ratio": ratio, "priorityGroup": priority,
		"connectionLimit": b.MaxClients, "adminState": string(admin), "remark": "backend " + short(b.Name),
	}
	session := map[state]string{
		stateEnable: "session user-enabled", stateDisable: "session user-disabled", stateOffline: "session user-disabled state user-down",
	}[admin]
	return body, fmt.Sprintf("%s { address %s ratio %d priority-group %d connection-limit %d %s }", memberName(b.Address, port), b.Address, ratio, priority, b.MaxClients, session)
}

// memberName is what BIG-IP calls a member.
func memberName(a netip.Addr, port uint16) string {
	if a.Is6() {
		return fmt.Sprintf("%s.%d", a, port)
	}
	return fmt.Sprintf("%s:%d", a, port)
}

// declared is what the deployment wants of a backend, drains aside.
func declared(b *plugins.Backend) state {
	switch {
	case b.Admin == plugins.AdminDisabled:
		return stateOffline
	case b.Admin == plugins.AdminDraining, b.Weight != nil && *b.Weight == 0:
		return stateDisable
	}
	return stateEnable
}

func (r *renderer) admin(p *plugins.Pool, b *plugins.Backend) state {
	s := declared(b)
	if d, ok := r.drained[plugins.BackendRef{Pool: p.Name, Backend: b.Name}]; ok && s == stateEnable {
		return d
	}
	return s
}

// method is how a pool chooses.
func method(p *plugins.Pool) string {
	weighted := slices.ContainsFunc(p.Backends, func(b plugins.Backend) bool { return b.Weight != nil && *b.Weight > 1 })
	switch p.Picker {
	case plugins.PickLeastClients, plugins.PickLeastOutstanding:
		if weighted {
			return "ratio-least-connections-member"
		}
		return "least-connections-member"
	}
	if weighted {
		return "ratio-member"
	}
	return "round-robin"
}

// scale is by what weights are multiplied.
func scale(p *plugins.Pool) float64 {
	most := 0
	for _, b := range p.Backends {
		if b.Weight != nil {
			most = max(most, *b.Weight)
		}
	}
	if most <= maxRatio {
		return 1
	}
	return maxRatio / float64(most)
}

func ratioOf(p *plugins.Pool, b *plugins.Backend) int {
	w := 1
	if b.Weight != nil {
		w = *b.Weight
	}
	return max(1, int(math.Round(float64(w)*scale(p))))
}

// priorities returns the priorities of a pool, the one that serves first last.
func priorities(p *plugins.Pool) []int {
	var out []int
	for _, b := range p.Backends {
		out = append(out, b.Priority)
	}
	slices.Sort(out)
	out = slices.Compact(out)
	slices.Reverse(out)
	return out
}

// priorityOf returns the priority group of a member: here the greatest number serves.
func priorityOf(p *plugins.Pool, b *plugins.Backend) int {
	levels := priorities(p)
	if len(levels) < 2 {
		return 0
	}
	return slices.Index(levels, b.Priority) + 1
}

// idle is how long a silent client of a group is remembered.
func idle(g *plugins.Group) time.Duration { return cmp.Or(g.Idle.D(), 35*time.Minute) }

// persistence renders how clients of a group are known, and returns the name for
// each listener; empty if each connection is a client.
func (r *renderer) persistence(a *app, g *plugins.Group) func(*plugins.Listener) string {
	by := make(map[string]string)
	for i := range g.Listeners {
		by[g.Listeners[i].Name] = r.key(g, &g.Listeners[i])
	}
	uses := func(key string) int {
		n := 0
		for _, k := range by {
			if k == key {
				n++
			}
		}
		return n
	}
	for _, key := range []string{"persist_source", "persist_spi"} {
		n := uses(key)
		if n == 0 {
			continue
		}
		age, across := min(seconds(idle(g)), 604800), n > 1
		body := map[string]any{
			"class": "Persist", "persistenceMethod": "source-address", "duration": age, "matchAcrossVirtualPorts": across, "matchAcrossPools": across,
			"mirror": r.settings.Mirror, "remark": "who lives where",
		}
		kind, defaults, rule := "source-addr", "source_addr", ""
		if key == "persist_spi" {
			a.add(part{
				name: "ike_spi", note: "names a client of IKEv2 by the SPI that it began with", tmsh: []string{
					"# tmsh has an editor for iRules: before what follows, type create ltm rule ike_spi, and give it this text",
					"#   " + strings.ReplaceAll(strings.TrimSpace(spiRule(age)), "\n", "\n#   "),
				},
				body: map[string]any{"class": "iRule", "expand": false, "iRule": map[string]any{"base64": base64.StdEncoding.EncodeToString([]byte(spiRule(age)))}},
			})
			body["persistenceMethod"], body["iRule"] = "universal", "ike_spi"
			kind, defaults, rule = "universal", "universal", " rule ike_spi"
		}
		line := fmt.Sprintf("create ltm persistence %s %s { defaults-from %s timeout %d match-across-services %s match-across-pools %s mirror %s%s }",
			kind, key, defaults, age, enabled(across), enabled(across), enabled(r.settings.Mirror), rule)
		a.add(part{name: key, note: "has all ports of a client lead to one server", body: body, tmsh: []string{line}})
	}
	if uses("radius") > 0 {
		n := attribute(g)
		a.add(part{
			name: "radius", note: "keeps the requests of a user at one server",
			body: map[string]any{"class": "Radius_Profile", "persistAttribute": n},
			tmsh: []string{fmt.Sprintf("create ltm profile radius radius { defaults-from radiusLB persist-avp %d }", n)},
		})
	}
	return func(l *plugins.Listener) string { return by[l.Name] }
}

// key says by what clients of a listener are known.
func (r *renderer) key(g *plugins.Group, l *plugins.Listener) string {
	switch {
	case g.BySource(l):
		return "persist_source"
	case l.Protocol == plugins.ProtocolRADIUS:
		return "radius"
	case l.Protocol == plugins.ProtocolSSTP:
		return "" // each connection is a client
	case r.settings.IKESPI:
		return "persist_spi"
	}
	return "persist_source"
}

// attribute is the RADIUS attribute that names a user: 31 is Calling-Station-Id, 1
// User-Name.
func attribute(g *plugins.Group) int {
	if g.RADIUS != nil && g.RADIUS.User == plugins.RADIUSByName {
		return 1
	}
	return 31
}

// spiRule is the iRule that names clients of IKEv2. Port 4500 has four zero bytes
// before IKE; what has others there is ESP, whose SPI is another one.
func spiRule(age int) string {
	return `when CLIENT_DATA {
    # The initiator's SPI is the first thing in a datagram of IKE. On port 4500, four
    # zero bytes come before it; anything else there is ESP, whose client is known by
    # the flow, and if that was forgotten, by the address.
    set name ""
    if { [UDP::local_port] == 4500 } {
        if { [binary scan [UDP::payload] IH16 marker name] != 2 || $marker != 0 } { set name "" }
    } else {
        binary scan [UDP::payload] H16 name
    }
    if { [string length $name] != 16 } { set name [IP::client_addr] }
    persist uie $name ` + strconv.Itoa(age) + `
    # The flow has its gateway now: what follows need not be looked at.
    event CLIENT_DATA disable
}
`
}

func enabled(b bool) string {
	if b {
		return "enabled"
	}
	return "disabled"
}

// seconds rounds up, for a BIG-IP knows nothing less.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }

// short cuts a name to what a remark has room for.
func short(s string) string {
	const most = 40
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
