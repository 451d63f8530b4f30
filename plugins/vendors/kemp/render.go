package kemp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Kinds of objects, in the LoadMaster's words.
const (
	kindCertificate = "certificate"
	kindService     = "virtual service"
	kindACME        = "ACME certificate"
	kindTLS         = "SSL acceleration"
	kindServer      = "real server"
	kindMemory      = "content rules"
)

const (
	usualIdle       = 35 * time.Minute
	usualConnection = 10 * time.Minute
)

// mostName bounds names on the LoadMaster.
const mostName = 63

// service is a virtual service as it is wanted.
type service struct {
	group    *plugins.Group
	listener *plugins.Listener
	pool     *plugins.Pool
	nick     string
	leader   string // the name of the service that it follows
	persists bool
}

func (s *service) network() string { return s.listener.Protocol.Network() }

func (s *service) address() netip.AddrPort {
	return netip.AddrPortFrom(s.listener.Address.Addr().Unmap(), s.listener.Address.Port())
}

// name identifies a virtual service by where it is: there can be only one, and one
// that moves is made anew before the old one goes. Its nickname may change.
func (s *service) name() string { return serviceName(s.address(), s.network()) }

func serviceName(at netip.AddrPort, network string) string { return at.String() + "/" + network }

// server returns the address of a backend in s, and its name.
func (s *service) server(b *plugins.Backend) (at netip.AddrPort, name string) {
	at = netip.AddrPortFrom(b.Address.Unmap(), s.listener.TargetPort())
	return at, s.name() + " " + at.String()
}

// renderer makes objects of a site.
type renderer struct {
	site     *plugins.Site
	owner    plugins.Owner
	settings Settings
	drained  []drain
	geo      *plugins.Geo      // names to answer for; nil if there are none
	sums     map[string]string // SHA-256 of certificates from files, by their names here
}

func (r *renderer) services() []service {
	var out []service
	for i := range r.site.Groups {
		g := &r.site.Groups[i]
		first := map[string]string{}
		for k := range g.Listeners {
			l := &g.Listeners[k]
			s := service{group: g, listener: l, pool: r.site.Pool(g.Pool), nick: r.owner.Name(r.site.Name, mostName, g.Name, l.Name)}
			s.leader = first[s.network()]
			if s.leader == "" {
				first[s.network()] = s.name()
			}
			pair := slices.ContainsFunc(g.Listeners, func(o plugins.Listener) bool { return o.Name != l.Name && o.Protocol.Network() == s.network() })
			s.persists = pair || g.BySource(l) || s.network() == "udp"
			out = append(out, s)
		}
	}
	return out
}

// certificate returns the name here of the certificate for a pool, and what it is.
func (r *renderer) certificate(pool string) (string, *plugins.Certificate) {
	for i := range r.site.Certificates {
		if c := &r.site.Certificates[i]; c.Pool == pool {
			return r.certificateName(c), c
		}
	}
	return "", nil
}

func (r *renderer) certificateName(c *plugins.Certificate) string {
	word := "file"
	if c.ACME != nil {
		word = "acme"
	}
	return r.owner.Name(r.site.Name, mostName, word, c.Name)
}

// objects returns all but the memory, what is used before what uses it.
func (r *renderer) objects() []plugins.Object {
	var out []plugins.Object
	services := r.services()
	for i := range r.site.Certificates {
		if c := &r.site.Certificates[i]; c.ACME == nil {
			name := r.certificateName(c)
			out = append(out, plugins.Object{Kind: kindCertificate, Name: name, Fields: []plugins.Field{{Name: "sha256", Value: r.sums[name]}}})
		}
	}
	for i := range services {
		out = append(out, plugins.Object{Kind: kindService, Name: services[i].name(), Fields: r.fields(&services[i])})
	}
	for i := range r.site.Certificates {
		if c := &r.site.Certificates[i]; c.ACME != nil && r.prover(services, c) != nil {
			out = append(out, plugins.Object{Kind: kindACME, Name: r.certificateName(c), Fields: []plugins.Field{{Name: "host", Value: strings.ToLower(c.ACME.Host)}}})
		}
	}
	for i := range services {
		if s := &services[i]; s.listener.TLS.Terminated() {
			out = append(out, plugins.Object{Kind: kindTLS, Name: s.name(), Fields: r.tls(s)})
		}
		for k := range services[i].pool.Backends {
			if o, ok := r.serverObject(&services[i], &services[i].pool.Backends[k]); ok {
				out = append(out, o)
			}
		}
	}
	return append(out, r.nameObjects()...)
}

// prover returns the service at whose address a certificate's name is proved: the
// first that shows it.
func (r *renderer) prover(services []service, c *plugins.Certificate) *service {
	for i := range services {
		if s := &services[i]; s.group.Pool == c.Pool && s.listener.TLS.Terminated() {
			return s
		}
	}
	return nil
}

// fields are those of a virtual service, as the API names them.
func (r *renderer) fields(s *service) []plugins.Field {
	g, l := s.group, s.listener
	idle := cmp.Or(l.IdleTimeout.D(), usualConnection)
	if s.network() == "udp" {
		idle = cmp.Or(g.Idle.D(), usualIdle)
	}
	out := []plugins.Field{
		{Name: "NickName", Value: s.nick},
		{Name: "Enable", Value: "Y"},
		{Name: "ForceL7", Value: "Y"},
		{Name: "Transparent", Value: yesNo(g.ClientAddress == plugins.ClientAddressTransparent)},
		{Name: "Idletime", Value: seconds(min(idle, mostIdle))},
		{Name: "Schedule", Value: schedule(s.pool)},
	}
	if s.persists {
		out = append(out, plugins.Field{Name: "Persist", Value: "src"},
			plugins.Field{Name: "PersistTimeout", Value: seconds(min(cmp.Or(g.Idle.D(), usualIdle), mostPersist))},
			plugins.Field{Name: "RefreshPersist", Value: "Y"})
	} else {
		out = append(out, plugins.Field{Name: "Persist", Value: "none"})
	}
	if g.Limits.MaxClients > 0 {
		out = append(out, plugins.Field{Name: "MaxConnsLimit", Value: strconv.Itoa(g.Limits.MaxClients)})
	} else {
		out = append(out, plugins.Field{Name: "MaxConnsLimit"})
	}
	out = append(out, plugins.Field{Name: "FollowVSID", Value: s.leader})
	return append(out, r.checkFields(s)...)
}

// checkFields are those of the check of a virtual service.
func (r *renderer) checkFields(s *service) []plugins.Field {
	c, ok := mainCheck(s.pool)
	var out []plugins.Field
	add := func(name, value string) { out = append(out, plugins.Field{Name: name, Value: value}) }
	switch {
	case len(s.pool.Checks) == 0:
		add("CheckType", "none")
		return out
	case !ok || s.network() == "udp" || c.Type == plugins.CheckICMP:
		add("CheckType", "icmp")
	case c.Type == plugins.CheckTCP:
		add("CheckType", "tcp")
		add("CheckPort", strconv.Itoa(c.Port))
	default:
		r.webCheck(c, add)
	}
	if !r.settings.ServiceTimers {
		return out
	}
	if !ok {
		c = s.pool.Checks[0].Usual()
	}
	t := timersOf(&c)
	add("ChkInterval", seconds(t.interval))
	add("ChkTimeout", seconds(t.timeout))
	add("ChkRetryCount", strconv.Itoa(t.tries))
	return out
}

func (r *renderer) webCheck(c plugins.Check, add func(name, value string)) {
	kind, path, method, codes := "https", plugins.SSTPPath, "0", strconv.Itoa(c.Expect)
	if c.PlainHTTP {
		kind = "http"
	}
	if c.Type == plugins.CheckHTTPS {
		path, method = cmp.Or(c.Path, "/"), "1"
	}
	switch {
	case c.Expect == 0:
		codes = "300 301 302 303 304 305 306 307 308"
	case c.Expect < 300:
		codes = "" // 2xx are always good
	}
	add("CheckType", kind)
	add("CheckPort", strconv.Itoa(c.Port))
	add("CheckUrl", path)
	add("CheckHost", c.Host)
	add("CheckUse1.1", "Y")
	add("CheckUseGet", method)
	add("CheckCodes", codes)
}

// tls are the fields of a virtual service that ends TLS.
func (r *renderer) tls(s *service) []plugins.Field {
	name, _ := r.certificate(s.group.Pool)
	t := &s.listener.TLS
	refused := "7" // SSLv3, TLS 1.0 and 1.1
	if t.MinVersion == plugins.TLS13 {
		refused = "15"
	}
	out := []plugins.Field{
		{Name: "SSLAcceleration", Value: "Y"},
		{Name: "SSLReencrypt", Value: yesNo(t.Mode == plugins.TLSReencrypt)},
		{Name: "CertFile", Value: name},
		{Name: "TlsType", Value: refused},
	}
	if t.Mode == plugins.TLSReencrypt {
		out = append(out, plugins.Field{Name: "ReverseSNIHostname", Value: t.Gateway.ServerName})
	}
	return out
}

// serverObject returns a real server, and false if it isn't to be there: what is
// disabled, or was drained long enough, is taken out, which ends its connections.
func (r *renderer) serverObject(s *service, b *plugins.Backend) (plugins.Object, bool) {
	_, name := s.server(b)
	enable := b.Admin != plugins.AdminDraining && (b.Weight == nil || *b.Weight > 0)
	if b.Admin == plugins.AdminDisabled {
		return plugins.Object{}, false
	}
	for _, d := range r.drained {
		if d.Pool == s.pool.Name && d.Backend == b.Name {
			if d.Cut {
				return plugins.Object{}, false
			}
			enable = false
		}
	}
	return plugins.Object{Kind: kindServer, Name: name, Fields: []plugins.Field{
		{Name: "Weight", Value: strconv.Itoa(weight(s.pool, b))},
		{Name: "Limit", Value: strconv.Itoa(min(b.MaxClients, mostLimit))},
		{Name: "Enable", Value: yesNo(enable)},
	}}, true
}

// schedule is how a service chooses.
func schedule(p *plugins.Pool) string {
	weighs := slices.ContainsFunc(p.Backends, func(b plugins.Backend) bool { return weightOf(&b) != weightOf(&p.Backends[0]) })
	switch {
	case levels(p) > 1:
		return "fixed"
	case p.Picker == plugins.PickRoundRobin && weighs:
		return "wrr"
	case p.Picker == plugins.PickRoundRobin:
		return "rr"
	case weighs:
		return "wlc"
	}
	return "lc"
}

// weight is that of a real server. With priorities the greatest serves.
func weight(p *plugins.Pool, b *plugins.Backend) int {
	if levels(p) < 2 {
		return weightOf(b)
	}
	behind := 0
	for i := range p.Backends {
		if p.Backends[i].Priority < b.Priority {
			behind++
		}
	}
	return max(1000-10*behind, 1)
}

func weightOf(b *plugins.Backend) int {
	if b.Weight == nil {
		return 1
	}
	return min(max(*b.Weight, 1), mostWeight)
}

// levels counts the priorities of a pool.
func levels(p *plugins.Pool) int {
	seen := map[int]bool{}
	for _, b := range p.Backends {
		seen[b.Priority] = true
	}
	return len(seen)
}

// isAsked reports whether a check can be asked by a virtual service of TCP.
func isAsked(c *plugins.Check) bool {
	switch c.Type {
	case plugins.CheckSSTP, plugins.CheckHTTPS, plugins.CheckTCP, plugins.CheckICMP:
		return !c.Advisory
	}
	return false
}

// mainCheck returns the check that says most, with its usual values; a virtual
// service has one.
func mainCheck(p *plugins.Pool) (plugins.Check, bool) {
	for _, t := range []plugins.CheckType{plugins.CheckSSTP, plugins.CheckHTTPS, plugins.CheckTCP, plugins.CheckICMP} {
		for i := range p.Checks {
			if c := &p.Checks[i]; c.Type == t && isAsked(c) {
				return c.Usual(), true
			}
		}
	}
	return plugins.Check{}, false
}

func yesNo(b bool) string {
	if b {
		return "Y"
	}
	return "N"
}

func seconds(d time.Duration) string { return fmt.Sprint(int64(whole(d) / time.Second)) }
