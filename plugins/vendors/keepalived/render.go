package keepalived

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// markBase begins the numbers of marks, so that they are seldom somebody else's.
const markBase = 0xa100000

// renderer makes the blocks of a site.
type renderer struct {
	site     *plugins.Site
	owner    plugins.Owner
	settings Settings
	drained  []plugins.DrainRequest
	now      time.Time
	marks    map[string]uint32 // by group
}

func newRenderer(c plugins.Config, s Settings, site *plugins.Site, drained []plugins.DrainRequest) *renderer {
	return &renderer{site: site, owner: c.Owner, settings: s, drained: drained, now: time.Now(), marks: marksOf(site)}
}

// marksOf gives each group that has one a number. It depends on the group's name, so
// that other groups may come and go.
func marksOf(s *plugins.Site) map[string]uint32 {
	var names []string
	for i := range s.Groups {
		if marked(&s.Groups[i]) {
			names = append(names, s.Groups[i].Name)
		}
	}
	slices.Sort(names)
	out, taken := make(map[string]uint32), make(map[uint32]bool)
	for _, n := range names {
		h := fnv.New32a()
		h.Write([]byte(n))
		m := h.Sum32() & 0xffff
		for taken[m] {
			m = (m + 1) & 0xffff
		}
		taken[m] = true
		out[n] = markBase | m
	}
	return out
}

// persistent reports whether clients of a group are known by their addresses. IPVS
// knows nothing finer of UDP.
func persistent(g *plugins.Group) bool {
	return slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return g.BySource(&l) || l.Protocol.Network() == "udp" })
}

// marked reports whether packets of a group are marked: where several listeners
// agree on where a client lives, or where one is at all addresses.
func marked(g *plugins.Group) bool {
	return persistent(g) && len(g.Listeners) > 1 ||
		slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return l.Address.Addr().IsUnspecified() })
}

// shared reports whether a group has one virtual server for all its listeners.
func shared(g *plugins.Group) bool { return marked(g) }

// blocks returns keepalived's part.
func (r *renderer) blocks() []block {
	var out []block
	if r.settings.isMain() {
		global := block{head: "global_defs", note: "keepalived as a whole: this file is all that it loads"}
		if r.scripts() {
			global.add("enable_script_security")
			global.add("script_user %s", r.settings.User)
		}
		global.add("dynamic_interfaces")
		out = append(out, global)
	}
	out = append(out, r.vrrp()...)
	for i := range r.site.Groups {
		out = append(out, r.group(&r.site.Groups[i])...)
	}
	return out
}

// scripts reports whether a check runs a program.
func (r *renderer) scripts() bool {
	for i := range r.site.Pools {
		for _, c := range r.site.Pools[i].Checks {
			if r.settings.byScript(&c) || r.settings.byProbe(&c) {
				return true
			}
		}
	}
	return false
}

// vrrp has the listeners' addresses be on one of a pair.
func (r *renderer) vrrp() []block {
	v := r.settings.VRRP
	if v == nil {
		return nil
	}
	name := r.owner.Name(r.site.Name, 0, "pair")
	var out []block
	if v.Sync != "" {
		sync := block{head: "global_defs", note: "tells the other machine which client is where"}
		sync.add("lvs_sync_daemon %s %s id %d", v.Sync, name, v.Router)
		out = append(out, sync)
	}
	b := block{head: "vrrp_instance " + name, note: "the machine of a pair that has the listeners' addresses"}
	b.add("state BACKUP")
	b.add("interface %s", v.Interface)
	b.add("virtual_router_id %d", v.Router)
	b.add("priority %d", cmp.Or(v.Priority, 100))
	b.add("advert_int 1")
	if !v.Preempt {
		b.add("nopreempt")
	}
	if v.Self.IsValid() {
		b.add("unicast_src_ip %v", v.Self.Unmap())
		b.blocks = append(b.blocks, block{head: "unicast_peer", lines: []string{v.Peer.Unmap().String()}})
	}
	// Those of one family are announced; the others go along.
	addresses := r.addresses()
	first, others := block{head: "virtual_ipaddress"}, block{head: "virtual_ipaddress_excluded"}
	for _, a := range addresses {
		if a.Is4() == v.speaksIPv4(addresses) {
			first.lines = append(first.lines, a.String())
		} else {
			others.lines = append(others.lines, a.String())
		}
	}
	b.blocks = append(b.blocks, first)
	if len(others.lines) > 0 {
		b.blocks = append(b.blocks, others)
	}
	if len(addresses) == 0 {
		return nil
	}
	return append(out, b)
}

// speaksIPv4 reports whether a pair speaks by IPv4: as its own addresses are, or as
// those that it shares.
func (v *VRRP) speaksIPv4(shared []netip.Addr) bool {
	if v.Self.IsValid() {
		return v.Self.Unmap().Is4()
	}
	return slices.ContainsFunc(shared, netip.Addr.Is4)
}

// addresses are those of listeners, each once.
func (r *renderer) addresses() []netip.Addr { return addressesOf(r.site) }

func addressesOf(s *plugins.Site) []netip.Addr {
	var out []netip.Addr
	for i := range s.Groups {
		for _, l := range s.Groups[i].Listeners {
			if a := l.Address.Addr().Unmap(); !a.IsUnspecified() && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	return out
}

// service is the head of a virtual server.
func (r *renderer) service(g *plugins.Group, l *plugins.Listener) string {
	if shared(g) {
		return "virtual_server fwmark " + strconv.FormatUint(uint64(r.marks[g.Name]), 10)
	}
	return fmt.Sprintf("virtual_server %v %d", l.Address.Addr().Unmap(), l.Address.Port())
}

// servicesOf returns the listeners of g that have a virtual server of their own: the
// first one, if they share it.
func servicesOf(g *plugins.Group) []plugins.Listener {
	if shared(g) {
		return g.Listeners[:1]
	}
	return g.Listeners
}

func (r *renderer) group(g *plugins.Group) []block {
	p := r.site.Pool(g.Pool)
	var out []block
	list := servicesOf(g)
	for k := range list {
		if b, ok := r.virtual(g, &list[k], p); ok {
			out = append(out, b)
		}
	}
	return out
}

// virtual is a virtual server. Without any server there is none: keepalived refuses
// it.
func (r *renderer) virtual(g *plugins.Group, l *plugins.Listener, p *plugins.Pool) (block, bool) {
	b := block{head: r.service(g, l), note: "listener " + l.Name + " of group " + g.Name + ", pool " + p.Name}
	if shared(g) {
		b.note = "group " + g.Name + ", whose packets are marked " + fmt.Sprintf("%#x", r.marks[g.Name]) + ", pool " + p.Name
		b.add("ip_family %s", map[bool]string{true: "inet", false: "inet6"}[family(p)])
	} else {
		b.add("protocol %s", strings.ToUpper(l.Protocol.Network()))
	}
	switch p.Picker {
	case plugins.PickRoundRobin:
		b.add("lvs_sched wrr")
	case plugins.PickLeastClients, plugins.PickLeastOutstanding:
		b.add("lvs_sched wlc")
	default:
		b.add("lvs_sched mh")
		b.add("mh-fallback")
		if !persistent(g) {
			b.add("mh-port") // each connection is a client
		}
	}
	b.add("lvs_method %s", strings.ToUpper(string(r.settings.Method)))
	if persistent(g) {
		b.add("persistence_timeout %d", seconds(cmp.Or(g.Idle.D(), 35*time.Minute)))
	}
	serving, standby := r.servers(p)
	for _, s := range serving {
		b.blocks = append(b.blocks, r.server(g, l, p, s))
	}
	if standby != nil {
		b.add("sorry_server %v %d", standby.Address.Unmap(), r.port(g, l))
	}
	return b, len(b.blocks) > 0
}

// port is that of the backends; 0 leaves it as it is.
func (r *renderer) port(g *plugins.Group, l *plugins.Listener) uint16 {
	if shared(g) {
		return 0
	}
	return l.TargetPort()
}

// a weighted is a backend with the weight that it has now.
type weighted struct {
	*plugins.Backend
	weight int
}

// servers returns the backends that serve, and the one that stands by. Those of the
// lowest number serve, with those of the next as long as none takes new clients.
func (r *renderer) servers(p *plugins.Pool) (serving []weighted, standby *plugins.Backend) {
	takes := false
	for _, level := range levels(p) {
		for i := range p.Backends {
			b := &p.Backends[i]
			if b.Priority != level {
				continue
			}
			w, ok := r.weight(p, b)
			switch {
			case !ok:
			case takes && levelOf(serving) != level:
				if standby == nil && w > 0 {
					standby = b
				}
			default:
				serving = append(serving, weighted{b, w})
			}
		}
		takes = takes || slices.ContainsFunc(serving, func(w weighted) bool { return w.weight > 0 })
	}
	return serving, standby
}

// levelOf is the last priority that serves.
func levelOf(list []weighted) int {
	if len(list) == 0 {
		return math.MinInt
	}
	return list[len(list)-1].Priority
}

// levels are the priorities of a pool, in their order.
func levels(p *plugins.Pool) []int {
	var out []int
	for _, b := range p.Backends {
		out = append(out, b.Priority)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// weight returns the weight that a backend has now, and false if it has no clients
// at all.
func (r *renderer) weight(p *plugins.Pool, b *plugins.Backend) (int, bool) {
	admin := cmp.Or(b.Admin, plugins.AdminEnabled)
	for _, d := range r.drained {
		if d.Pool != p.Name || d.Backend != b.Name || admin == plugins.AdminDisabled {
			continue
		}
		admin = plugins.AdminDraining
		if !d.Deadline.IsZero() && !d.Deadline.After(r.now) {
			admin = plugins.AdminDisabled
		}
	}
	switch {
	case admin == plugins.AdminDisabled:
		return 0, false
	case admin == plugins.AdminDraining:
		return 0, true
	case b.Weight != nil:
		return *b.Weight, true
	}
	return 1, true
}

func (r *renderer) server(g *plugins.Group, l *plugins.Listener, p *plugins.Pool, w weighted) block {
	b := block{head: fmt.Sprintf("real_server %v %d", w.Address.Unmap(), r.port(g, l)), note: "backend " + w.Name}
	b.add("weight %d", w.weight)
	if w.MaxClients > 0 {
		b.add("uthreshold %d", w.MaxClients)
	}
	for _, c := range r.settings.checks(p) {
		b.blocks = append(b.blocks, r.check(p, &c, w.Address.Unmap()))
	}
	return b
}

// family reports whether a pool's backends have IPv4 addresses.
func family(p *plugins.Pool) bool { return p.Backends[0].Address.Unmap().Is4() }

// seconds rounds up, and is at least 1.
func seconds(d time.Duration) int { return max(1, int(math.Ceil(d.Seconds()))) }

// timer writes a time as keepalived reads it.
func timer(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}
