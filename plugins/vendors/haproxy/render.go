package haproxy

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// opening is how long a connection to a gateway may take to open, and how long one
// waits for room.
const opening = 5 * time.Second

// maxWeight is the greatest weight of a server.
const maxWeight = 256

// A section is a part of a configuration: a line that begins it, and those within.
type section struct {
	kind, name string
	rest       string // what follows the name
	lines      []string
	note       string // for people, above it
}

func (s *section) add(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// renderer makes sections of a site.
type renderer struct {
	site     *plugins.Site
	owner    plugins.Owner
	settings Settings
	drained  []plugins.DrainRequest
	now      time.Time
}

// name returns the name of a section.
func (r *renderer) name(parts ...string) string { return r.owner.Name(r.site.Name, 0, parts...) }

func (r *renderer) sections() []section {
	base := section{kind: "defaults", name: r.name("defaults"), note: "what all sections below have in common"}
	base.add("mode tcp")
	base.add("timeout connect %s", ms(opening))
	base.add("timeout queue %s", ms(opening))
	base.add("retries 2")
	base.add("option redispatch 1")
	out := []section{base}
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		p := r.site.Pool(g.Pool)
		for k := range g.Listeners {
			l := &g.Listeners[k]
			back := r.backend(g, l, p)
			if disbelieves(p) {
				out = append(out, back, r.unchecked(g, l, p), r.frontend(g, l, true))
				continue
			}
			out = append(out, back, r.frontend(g, l, false))
		}
	}
	return out
}

func (r *renderer) frontend(g *plugins.Group, l *plugins.Listener, panics bool) section {
	s := section{kind: "frontend", name: r.name(g.Name, l.Name), rest: "from " + r.name("defaults"), note: "listener " + l.Name + " of group " + g.Name}
	s.add("bind %s", r.bind(g, l))
	s.add("timeout client %s", ms(idle(l)))
	if n := g.Limits.MaxClients; n > 0 {
		s.add("maxconn %d", n)
	}
	if n := g.Limits.MaxPerSource; n > 0 {
		s.add("stick-table type ipv6 size 1m expire 1h store conn_cur")
		s.add("tcp-request connection track-sc0 src")
		s.add("tcp-request connection reject if { sc0_conn_cur gt %d }", n)
	}
	back := r.name(g.Name, l.Name, "to")
	if panics {
		s.add("use_backend %s if { nbsrv(%s) lt 1 }", r.name(g.Name, l.Name, "panic"), back)
	}
	s.add("default_backend %s", back)
	return s
}

// bind is where a listener listens, and how it ends TLS.
func (r *renderer) bind(g *plugins.Group, l *plugins.Listener) string {
	at := l.Address.String()
	if l.Address.Addr() == netip.IPv6Unspecified() {
		at += " v4v6"
	}
	if !l.TLS.Terminated() {
		return at
	}
	at += " ssl"
	for _, f := range certificatesOf(r.site, g.Pool) {
		at += " crt " + quote(f)
	}
	at += " alpn http/1.1 ssl-min-ver TLSv" + string(cmp.Or(l.TLS.MinVersion, plugins.TLS12)) + " ciphers ECDHE+AESGCM:ECDHE+CHACHA20"
	if !l.TLS.Tickets {
		at += " no-tls-tickets"
	}
	if c := l.TLS.Clients; c.CAFile != "" {
		need := "required"
		if c.Optional {
			need = "optional"
		}
		at += " ca-file " + quote(c.CAFile) + " verify " + need
		if c.CRLFile != "" {
			at += " crl-file " + quote(c.CRLFile)
		}
	}
	return at
}

// backend is a pool as a listener uses it.
func (r *renderer) backend(g *plugins.Group, l *plugins.Listener, p *plugins.Pool) section {
	s := section{kind: "backend", name: r.name(g.Name, l.Name, "to"), rest: "from " + r.name("defaults"), note: "pool " + p.Name + " for listener " + l.Name}
	source := g.BySource(l)
	switch {
	case p.Picker == plugins.PickRoundRobin:
		s.add("balance roundrobin")
	case p.Picker == plugins.PickLeastClients || p.Picker == plugins.PickLeastOutstanding:
		s.add("balance leastconn")
	case source:
		s.add("balance source")
		s.add("hash-type consistent")
	default:
		s.add("balance random")
	}
	if source && (p.Picker == plugins.PickRoundRobin || p.Picker == plugins.PickLeastClients || p.Picker == plugins.PickLeastOutstanding || len(g.Listeners) > 1) {
		r.stick(&s, g)
	}
	s.add("timeout server %s", ms(idle(l)))
	if g.ClientAddress == plugins.ClientAddressTransparent {
		s.add("source 0.0.0.0 usesrc clientip")
	}
	checks := checksOf(p)
	r.checks(&s, p, checks)
	for i := range p.Backends {
		r.server(&s, l, p, &p.Backends[i], len(checks) > 0)
	}
	if levels(p) > 1 && onlyTwo(p) {
		s.lines = slices.Insert(s.lines, 0, "option allbackups")
	}
	return s
}

// stick keeps the clients of a group that are known by their addresses where they
// are. All listeners of a group share the table of the first.
func (r *renderer) stick(s *section, g *plugins.Group) {
	first := r.name(g.Name, g.Listeners[0].Name, "to")
	forget := cmp.Or(g.Idle.D(), 35*time.Minute)
	if s.name == first {
		s.add("stick-table type ipv6 size 1m expire %s", ms(forget))
		s.add("stick on src")
		return
	}
	s.add("stick on src table %s", first)
}

// unchecked is a pool all of whose backends fail their checks, disbelieved.
func (r *renderer) unchecked(g *plugins.Group, l *plugins.Listener, p *plugins.Pool) section {
	s := section{kind: "backend", name: r.name(g.Name, l.Name, "panic"), rest: "from " + r.name("defaults"), note: "the same, when all fail their checks"}
	s.add("balance random")
	s.add("timeout server %s", ms(idle(l)))
	if g.ClientAddress == plugins.ClientAddressTransparent {
		s.add("source 0.0.0.0 usesrc clientip")
	}
	for i := range p.Backends {
		r.server(&s, l, p, &p.Backends[i], false)
	}
	return s
}

// checks adds how servers are asked: all the pool's checks in one sequence.
func (r *renderer) checks(s *section, p *plugins.Pool, list []plugins.Check) {
	if len(list) == 0 {
		return
	}
	timeout := list[0].Timeout.D()
	http := false
	for _, c := range list {
		timeout = max(timeout, c.Timeout.D())
		http = http || c.Type == plugins.CheckSSTP
	}
	s.add("timeout check %s", ms(timeout))
	if !http {
		s.add("option tcp-check")
		for _, c := range list {
			s.add("tcp-check connect port %d", c.Port)
		}
		return
	}
	s.add("option httpchk")
	for _, c := range list {
		line := fmt.Sprintf("http-check connect port %d", c.Port)
		if c.Type == plugins.CheckSSTP && !c.PlainHTTP {
			line += " ssl alpn http/1.1"
			if c.Host != "" {
				line += " sni " + quote(c.Host)
			}
		}
		s.add("%s", line)
		if c.Type == plugins.CheckSSTP {
			s.add("http-check send meth HEAD uri %s ver HTTP/1.1 hdr Host %s", plugins.SSTPPath, quote(cmp.Or(c.Host, p.Backends[0].Address.String())))
			s.add("http-check expect status %d", c.Expect)
		}
	}
}

func (r *renderer) server(s *section, l *plugins.Listener, p *plugins.Pool, b *plugins.Backend, checked bool) {
	line := fmt.Sprintf("server %s %s", b.Name, netip.AddrPortFrom(b.Address, l.TargetPort()))
	weight := weightOf(p, b)
	admin := cmp.Or(b.Admin, plugins.AdminEnabled)
	if d, ok := r.drain(p.Name, b.Name); ok && admin == plugins.AdminEnabled {
		admin = plugins.AdminDraining
		if !d.Deadline.IsZero() && !d.Deadline.After(r.now) {
			admin = plugins.AdminDisabled
		}
	}
	if admin == plugins.AdminDraining {
		weight = 0
	}
	line += " weight " + strconv.Itoa(weight)
	if admin == plugins.AdminDisabled {
		line += " disabled"
	}
	if b.Priority > lowest(p) {
		line += " backup"
	}
	if b.MaxClients > 0 {
		line += fmt.Sprintf(" maxconn %d", b.MaxClients)
	}
	if v := l.ProxyProtocol; v == plugins.ProxyV1 {
		line += " send-proxy"
	} else if v == plugins.ProxyV2 {
		line += " send-proxy-v2"
	}
	line += r.gatewayTLS(l, p, checked)
	if checked {
		line += r.rhythm(p)
	}
	s.add("%s", line)
}

// gatewayTLS is how TLS goes on to a gateway, and what its check believes.
func (r *renderer) gatewayTLS(l *plugins.Listener, p *plugins.Pool, checked bool) string {
	if t := l.TLS.Gateway; l.TLS.Mode == plugins.TLSReencrypt {
		name := " sni ssl_fc_sni"
		if t.ServerName != "" {
			name = " sni str(" + t.ServerName + ")"
		}
		if t.Insecure {
			return " ssl alpn http/1.1 verify none" + name
		}
		return " ssl alpn http/1.1 verify required ca-file " + quote(cmp.Or(t.CAFile, r.settings.TrustedCAs)) + name
	}
	if !checked {
		return ""
	}
	for _, c := range checksOf(p) {
		if c.Type == plugins.CheckSSTP && c.VerifyTLS {
			verify := " verify required ca-file " + quote(r.settings.TrustedCAs)
			if c.Host != "" {
				verify += " verifyhost " + quote(c.Host)
			}
			return verify
		}
	}
	return " verify none"
}

// rhythm is how often a server is asked.
func (r *renderer) rhythm(p *plugins.Pool) string {
	list := checksOf(p)
	inter, rise, fall := list[0].Interval, list[0].Rise, list[0].Fall
	for _, c := range list[1:] {
		inter, rise, fall = min(inter, c.Interval), max(rise, c.Rise), min(fall, c.Fall)
	}
	out := fmt.Sprintf(" check inter %s rise %d fall %d", ms(inter.D()), rise, fall)
	if p.SlowStart > 0 {
		out += " slowstart " + ms(p.SlowStart.D())
	}
	return out
}

// drain returns the drain of a backend, if there is one.
func (r *renderer) drain(pool, backend string) (plugins.DrainRequest, bool) {
	for _, d := range r.drained {
		if d.Pool == pool && d.Backend == backend {
			return d, true
		}
	}
	return plugins.DrainRequest{}, false
}

// checksOf returns the checks that HAProxy can do, with their usual values.
func checksOf(p *plugins.Pool) []plugins.Check {
	var out []plugins.Check
	for _, c := range p.Checks {
		if (c.Type == plugins.CheckSSTP || c.Type == plugins.CheckTCP) && !c.Advisory {
			out = append(out, c.Usual())
		}
	}
	return out
}

// scale is by what weights are multiplied.
func scale(p *plugins.Pool) float64 {
	most := 0
	for _, b := range p.Backends {
		if b.Weight != nil {
			most = max(most, *b.Weight)
		}
	}
	if most <= maxWeight {
		return 1
	}
	return maxWeight / float64(most)
}

// weightOf returns the weight of a server.
func weightOf(p *plugins.Pool, b *plugins.Backend) int {
	switch {
	case b.Weight == nil:
		return max(1, int(math.Round(scale(p))))
	case *b.Weight == 0:
		return 0
	}
	return max(1, int(math.Round(float64(*b.Weight)*scale(p))))
}

// disbelieves reports whether a pool's checks don't count when all fail.
func disbelieves(p *plugins.Pool) bool { return (p.Panic == nil || *p.Panic) && len(checksOf(p)) > 0 }

func lowest(p *plugins.Pool) int {
	low := math.MaxInt
	for _, b := range p.Backends {
		low = min(low, b.Priority)
	}
	return low
}

// levels counts the priorities of a pool.
func levels(p *plugins.Pool) int {
	seen := map[int]bool{}
	for _, b := range p.Backends {
		seen[b.Priority] = true
	}
	return len(seen)
}

func onlyTwo(p *plugins.Pool) bool { return levels(p) == 2 }

func idle(l *plugins.Listener) time.Duration { return cmp.Or(l.IdleTimeout.D(), 10*time.Minute) }

// ms writes a time as HAProxy reads it.
func ms(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10) + "s"
	}
	return strconv.FormatInt(max(d.Milliseconds(), 1), 10) + "ms"
}

// quote writes a word so that HAProxy reads it as it is.
func quote(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-/:@+{}", c)
	}
	if s != "" && !strings.ContainsFunc(s, func(c rune) bool { return !plain(c) }) {
		return s
	}
	// Within single quotes, everything but a single quote is itself.
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
