package plugins

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Validate returns every fault of d at once: an error that joins a [*FieldError]
// for each, which [FieldErrors] returns one by one. It is nil if there is none.
//
// Besides values out of range it reports contradictions: things that are right
// in themselves but can't hold together, such as two listeners at one address.
func (d *Deployment) Validate() error {
	v := new(validator)
	if len(d.Sites) == 0 && d.Geo == nil {
		v.add("sites", "there is none")
	}
	if d.Geo != nil {
		v.geo("geo", d.Geo)
	}
	names := make(map[string]string)
	for i := range d.Sites {
		at := index("", "sites", i)
		v.name(at, d.Sites[i].Name, "site", names)
		v.site(at, &d.Sites[i])
	}
	return errors.Join(v.errs...)
}

// validator collects faults.
type validator struct{ errs []error }

func (v *validator) add(path, format string, args ...any) {
	v.errs = append(v.errs, &FieldError{Path: path, Err: fmt.Errorf(format, args...)})
}

// name checks the name of the thing at path, and that none in seen has it too.
func (v *validator) name(path, name, what string, seen map[string]string) {
	const most = 63
	path += ".name"
	switch {
	case name == "":
		v.add(path, "a %s needs a name", what)
		return
	case len(name) > most:
		v.add(path, "the name has %d characters, the most is %d", len(name), most)
	case strings.ContainsFunc(name, notNameRune):
		v.add(path, "%q may hold only letters, digits, dot, dash and underscore", name)
	}
	if first, dup := seen[name]; dup {
		v.add(path, "the name %q is taken by %s", name, first)
		return
	}
	seen[name] = strings.TrimSuffix(path, ".name")
}

func notNameRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

// between checks a number; zero, which means the default, is always right.
func (v *validator) between(path string, n, low, high int) {
	if n != 0 && (n < low || n > high) {
		v.add(path, "%d is not between %d and %d", n, low, high)
	}
}

// span checks a duration in the same way.
func (v *validator) span(path string, d Duration, low, high time.Duration) {
	if d != 0 && (d.D() < low || d.D() > high) {
		v.add(path, "%v is not between %v and %v", d, Duration(low), Duration(high))
	}
}

// oneOf checks a word; empty, which means the default, is always right.
func oneOf[T ~string](v *validator, path string, got T, want ...T) {
	if got == "" || slices.Contains(want, got) {
		return
	}
	v.add(path, "%q is unknown, it can be %s", string(got), words(want))
}

func words[T ~string](list []T) string {
	text := make([]string, len(list))
	for i, w := range list {
		text[i] = string(w)
	}
	if n := len(text); n > 1 {
		return strings.Join(text[:n-1], ", ") + " or " + text[n-1]
	}
	return strings.Join(text, "")
}

func (v *validator) site(at string, s *Site) {
	if len(s.Pools) == 0 {
		v.add(at+".pools", "there is none")
	}
	pools := make(map[string]string)
	for i := range s.Pools {
		path := index(at, ".pools", i)
		v.name(path, s.Pools[i].Name, "pool", pools)
		v.pool(path, &s.Pools[i])
	}
	v.certificates(at, s)
	v.storeFolders(at, s)
	v.fastPath(at, s)
	if len(s.Groups) == 0 {
		v.add(at+".groups", "there is none")
	}
	groups, listeners := make(map[string]string), make(map[string]string)
	var open []opened
	for i := range s.Groups {
		path := index(at, ".groups", i)
		g := &s.Groups[i]
		v.name(path, g.Name, "group", groups)
		v.group(path, g, s)
		for j := range g.Listeners {
			path := index(path, ".listeners", j)
			v.name(path, g.Listeners[j].Name, "listener", listeners)
			open = v.address(path, &g.Listeners[j], open)
		}
	}
}

func (v *validator) pool(at string, p *Pool) {
	oneOf(v, at+".picker", p.Picker, PickMaglev, PickLeastClients, PickRoundRobin, PickLeastOutstanding)
	oneOf(v, at+".failback", p.Failback, FailbackAutomatic, FailbackDelayed, FailbackManual)
	oneOf(v, at+".need", p.Need, NeedAll, NeedAny)
	v.span(at+".slow_start", p.SlowStart, time.Second, 24*time.Hour)
	v.span(at+".failback_delay", p.FailbackDelay, time.Second, 7*24*time.Hour)
	switch {
	case p.Failback == FailbackDelayed && p.FailbackDelay == 0:
		v.add(at+".failback_delay", "failback: delayed needs it")
	case p.Failback != FailbackDelayed && p.FailbackDelay != 0:
		v.add(at+".failback_delay", "it is only for failback: delayed")
	}
	v.backends(at, p)
	checks := make(map[string]string)
	for i := range p.Checks {
		c := p.Checks[i]
		path := index(at, ".checks", i)
		if c.Name == "" {
			c.Name = string(c.Type)
		}
		if c.Name != "" {
			v.name(path, c.Name, "check", checks)
		}
		v.check(path, &c)
	}
	if n := len(p.Checks); n > 0 && !slices.ContainsFunc(p.Checks, func(c Check) bool { return !c.Advisory }) {
		v.add(at+".checks", "all %d are advisory, so that nothing could be found down", n)
	}
}

func (v *validator) backends(at string, p *Pool) {
	if len(p.Backends) == 0 {
		v.add(at+".backends", "there is none")
	}
	names, addrs := make(map[string]string), make(map[netip.Addr]string)
	for i := range p.Backends {
		b := &p.Backends[i]
		path := index(at, ".backends", i)
		v.name(path, b.Name, "backend", names)
		v.unicast(path+".address", b.Address)
		if first, dup := addrs[b.Address.Unmap()]; dup && b.Address.IsValid() {
			v.add(path+".address", "%v is %s already", b.Address, first)
		} else {
			addrs[b.Address.Unmap()] = path
		}
		if b.Weight != nil && (*b.Weight < 0 || *b.Weight > 65535) {
			v.add(path+".weight", "%d is not between 0 and 65535", *b.Weight)
		}
		v.between(path+".priority", b.Priority, 0, 65535)
		v.between(path+".max_clients", b.MaxClients, 0, 1<<30)
		oneOf(v, path+".admin", b.Admin, AdminEnabled, AdminDraining, AdminDisabled)
	}
	if n := len(p.Backends); n > 0 && !slices.ContainsFunc(p.Backends, func(b Backend) bool { return b.Weight == nil || *b.Weight != 0 }) {
		v.add(at+".backends", "all %d have weight 0, so that none would get a client", n)
	}
}

// unicast checks that a can be the address of a server.
func (v *validator) unicast(path string, a netip.Addr) {
	switch {
	case !a.IsValid():
		v.add(path, "it is needed")
	case a.IsUnspecified():
		v.add(path, "%v stands for any address, a backend has one of its own", a)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		v.add(path, "%v is not the address of a single server", a)
	}
}

// checkFields are the fields of a Check that only some types have.
var checkFields = []struct {
	name  string
	types []CheckType
	set   func(*Check) bool
}{
	{"strict", []CheckType{CheckIKEv2}, func(c *Check) bool { return c.Strict }},
	{"host", []CheckType{CheckSSTP, CheckHTTPS}, func(c *Check) bool { return c.Host != "" }},
	{"expect", []CheckType{CheckSSTP, CheckHTTPS}, func(c *Check) bool { return c.Expect != 0 }},
	{"plain_http", []CheckType{CheckSSTP, CheckHTTPS}, func(c *Check) bool { return c.PlainHTTP }},
	{"path", []CheckType{CheckHTTPS}, func(c *Check) bool { return c.Path != "" }},
	{"verify_tls", []CheckType{CheckSSTP, CheckHTTPS}, func(c *Check) bool { return c.VerifyTLS }},
	{"ask", []CheckType{CheckSSTP}, func(c *Check) bool { return c.Ask != "" }},
	{"user", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.User != "" }},
	{"secret_file", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.SecretFile != "" }},
	{"secret_env", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.SecretEnv != "" }},
	{"accounting", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.Accounting }},
	{"require_message_authenticator", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.RequireMessageAuthenticator }},
	{"password_file", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.PasswordFile != "" }},
	{"password_env", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.PasswordEnv != "" }},
	{"status_server", []CheckType{CheckRADIUS}, func(c *Check) bool { return c.StatusServer }},
	{"radsec", []CheckType{CheckRadSec}, func(c *Check) bool { return c.RadSec != nil }},
}

var checkTypes = []CheckType{CheckIKEv2, CheckSSTP, CheckRADIUS, CheckRadSec, CheckTCP, CheckHTTPS, CheckICMP}

func (v *validator) check(at string, c *Check) {
	if c.Type == "" {
		v.add(at+".type", "a check needs a type: %s", words(checkTypes))
		return
	}
	oneOf(v, at+".type", c.Type, checkTypes...)
	v.between(at+".port", c.Port, 1, 65535)
	v.span(at+".interval", c.Interval, time.Second, time.Hour)
	v.span(at+".timeout", c.Timeout, 50*time.Millisecond, time.Minute)
	if interval := c.Usual().Interval; c.Timeout > interval {
		v.add(at+".timeout", "%v is longer than the interval, %v", c.Timeout, interval)
	}
	v.between(at+".rise", c.Rise, 1, 100)
	v.between(at+".fall", c.Fall, 1, 100)
	if !slices.Contains(checkTypes, c.Type) {
		return
	}
	for _, f := range checkFields {
		if f.set(c) && !slices.Contains(f.types, c.Type) {
			v.add(at+"."+f.name, "a check of type %s has no use for it, %s has", c.Type, words(f.types))
		}
	}
	switch c.Type {
	case CheckTCP:
		if c.Port == 0 {
			v.add(at+".port", "a check of type tcp needs it")
		}
	case CheckICMP:
		if c.Port != 0 {
			v.add(at+".port", "a check of type icmp has none")
		}
	case CheckHTTPS:
		if c.Path != "" && (c.Path[0] != '/' || strings.ContainsFunc(c.Path, func(r rune) bool { return r <= ' ' || r > '~' })) {
			v.add(at+".path", "%q is no path such as /health", c.Path)
		}
		v.checkSSTP(at, c)
	case CheckSSTP:
		v.checkSSTP(at, c)
	case CheckRADIUS:
		v.checkRADIUS(at, c)
	case CheckRadSec:
		v.checkRadSec(at, c)
	case CheckIKEv2:
	}
}

func (v *validator) checkSSTP(at string, c *Check) {
	v.between(at+".expect", c.Expect, 100, 599)
	if c.PlainHTTP && c.VerifyTLS {
		v.add(at+".verify_tls", "plain_http has no TLS to verify")
	}
	oneOf(v, at+".ask", c.Ask, AskHead, AskCall, AskIPHTTPS)
	if c.Ask == AskCall && c.Interval.D() < 30*time.Second {
		v.add(at+".interval", "a call takes a port of the gateway and is logged there: ask each 30s at most, and by another check more often")
	}
	if c.Expect != 0 && c.Ask != "" && c.Ask != AskHead {
		v.add(at+".expect", "a call, and IP-HTTPS, are answered by 200")
	}
	if strings.ContainsAny(c.Host, " /:\r\n\t") {
		v.add(at+".host", "%q is not a host name", c.Host)
	}
	if c.VerifyTLS && c.Host == "" {
		v.add(at+".host", "verify_tls needs the name that the certificate is for")
	}
}

func (v *validator) checkRADIUS(at string, c *Check) {
	if len(c.User) > 253 {
		v.add(at+".user", "it has %d bytes, the most is 253", len(c.User))
	}
	switch {
	case c.SecretFile == "" && c.SecretEnv == "":
		v.add(at+".secret_file", "a check of type radius needs secret_file or secret_env")
	case c.SecretFile != "" && c.SecretEnv != "":
		v.add(at+".secret_env", "there is secret_file too, only one can be")
	case c.SecretEnv != "" && !isVariable(c.SecretEnv):
		// It may be the secret itself, so it isn't repeated.
		v.add(at+".secret_env", "it isn't the name of an environment variable; the secret itself doesn't belong here")
	}
	if c.Accounting && c.RequireMessageAuthenticator {
		v.add(at+".require_message_authenticator", "answers to accounting have none")
	}
	v.checkPassword(at, c)
}

// isVariable reports whether s can name an environment variable: letters, digits
// and underscores, and no digit first.
func isVariable(s string) bool {
	for i, r := range s {
		if r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

func (v *validator) group(at string, g *Group, s *Site) {
	oneOf(v, at+".affinity", g.Affinity, AffinitySPI, AffinitySource, AffinityUser)
	oneOf(v, at+".client_address", g.ClientAddress, ClientAddressNAT, ClientAddressTransparent)
	v.span(at+".idle", g.Idle, time.Second, 31*24*time.Hour)
	v.span(at+".half_open", g.HalfOpen, time.Second, time.Hour)
	v.limits(at+".limits", g.Limits)
	if len(g.Listeners) == 0 {
		v.add(at+".listeners", "there is none")
	}
	for i := range g.Listeners {
		v.listener(index(at, ".listeners", i), &g.Listeners[i], g)
		v.tls(index(at, ".listeners", i)+".tls", &g.Listeners[i], g, s)
	}
	v.protocols(at, g)
	pool := s.Pool(g.Pool)
	v.radius(at, g, pool)
	switch {
	case g.Pool == "":
		v.add(at+".pool", "a group needs a pool")
	case pool == nil && len(s.Pools) == 0: // said already
	case pool == nil:
		v.add(at+".pool", "there is no pool %q in this site", g.Pool)
	default:
		v.reach(at, g, pool)
	}
}

func (v *validator) limits(at string, l Limits) {
	const most = 1 << 26
	v.between(at+".max_clients", l.MaxClients, 1, most)
	v.between(at+".max_per_source", l.MaxPerSource, 1, most)
	v.between(at+".max_half_open_per_source", l.MaxHalfOpenPerSource, 1, most)
	v.between(at+".max_hinted", l.MaxHinted, -1, most)
	v.between(at+".ask_rate", l.AskRate, -1, 1<<20)
	if l.MaxClients > 0 && l.MaxPerSource > l.MaxClients {
		v.add(at+".max_per_source", "%d is more than max_clients, %d", l.MaxPerSource, l.MaxClients)
	}
}

// protocols checks that the listeners of g and its affinity can go together.
func (v *validator) protocols(at string, g *Group) {
	has := func(p Protocol) bool {
		return slices.ContainsFunc(g.Listeners, func(l Listener) bool { return l.Protocol == p })
	}
	if has(ProtocolRadSec) && !g.Proxies() {
		v.add(at+".radius.mode", "a radsec listener needs mode: proxy, since TLS ends there")
	}
	if has(ProtocolRADIUS) || has(ProtocolRadSec) {
		for i, l := range g.Listeners {
			if !l.Protocol.radius() && l.Protocol.Network() != "" {
				v.add(index(at, ".listeners", i)+".protocol",
					"%s can't share a group with radius: RADIUS clients are not the clients of a gateway", l.Protocol)
				break
			}
		}
	}
	switch {
	case g.Affinity == AffinitySPI && !has(ProtocolIKEv2):
		v.add(at+".affinity", "spi needs an ikev2 listener")
	case g.Affinity == AffinityUser && !has(ProtocolRADIUS) && !has(ProtocolRadSec):
		v.add(at+".affinity", "user needs a radius listener")
	}
}

func (v *validator) listener(at string, l *Listener, g *Group) {
	if l.Protocol == "" {
		v.add(at+".protocol", "a listener needs a protocol")
	}
	oneOf(v, at+".protocol", l.Protocol, ProtocolIKEv2, ProtocolSSTP, ProtocolRADIUS, ProtocolRadSec, ProtocolUDP, ProtocolTCP)
	oneOf(v, at+".proxy_protocol", l.ProxyProtocol, ProxyV1, ProxyV2)
	v.between(at+".backend_port", l.BackendPort, 1, 65535)
	v.between(at+".workers", l.Workers, 1, 64)
	v.span(at+".idle_timeout", l.IdleTimeout, time.Second, 31*24*time.Hour)
	udp := l.Protocol.Network() == "udp"
	switch {
	case l.Protocol == ProtocolRadSec && l.ProxyProtocol != "":
		v.add(at+".proxy_protocol", "radsec ends here: servers are spoken to anew")
	case udp && l.ProxyProtocol != "":
		v.add(at+".proxy_protocol", "%s is over UDP, the PROXY protocol is for TCP", l.Protocol)
	case l.ProxyProtocol != "" && g.ClientAddress == ClientAddressTransparent:
		v.add(at+".proxy_protocol", "client_address: transparent shows the backend the client's address already")
	}
	if udp && l.IdleTimeout != 0 {
		v.add(at+".idle_timeout", "%s is over UDP: its clients last as long as idle of the group says", l.Protocol)
	}
	if l.Workers != 0 && !udp && l.Protocol.Network() != "" {
		v.add(at+".workers", "%s is over TCP, workers are for UDP", l.Protocol)
	}
	if least := Duration(2 * time.Minute); l.Protocol == ProtocolSSTP && l.IdleTimeout != 0 && l.IdleTimeout <= least {
		v.add(at+".idle_timeout", "%v would cut SSTP connections, whose keep-alives come each minute or two: it must be more than %v", l.IdleTimeout, least)
	}
}

// reach checks that the listeners of g can reach the backends of its pool.
func (v *validator) reach(at string, g *Group, p *Pool) {
	for i := range g.Listeners {
		l := &g.Listeners[i]
		path := index(at, ".listeners", i) + ".address"
		front := l.Address.Addr().Unmap()
		if !front.IsValid() {
			continue
		}
		for _, b := range p.Backends {
			back := b.Address.Unmap()
			if back == front && g.targetPort(l, b.Name) == l.Address.Port() {
				v.add(path, "%v is backend %s too: the listener would send to itself", l.Address, b.Name)
			}
			if g.ClientAddress != ClientAddressTransparent || !back.IsValid() || (front.Is6() && front.IsUnspecified()) {
				continue
			}
			if front.Is4() != back.Is4() {
				v.add(path, "client_address: transparent can't change the address family, and backend %s is at %v", b.Name, back)
			}
		}
	}
}

// opened is an address that a listener takes.
type opened struct {
	network string
	addr    netip.AddrPort
	path    string
}

// address checks the address of a listener against those before it.
func (v *validator) address(at string, l *Listener, open []opened) []opened {
	path := at + ".address"
	a := l.Address
	switch {
	case !a.IsValid():
		v.add(path, "a listener needs an address and port, such as 192.0.2.1:500")
		return open
	case a.Port() == 0:
		v.add(path, "%v has no port", a)
		return open
	case a.Addr().IsMulticast():
		v.add(path, "%v is a multicast address", a)
		return open
	}
	me := opened{l.Protocol.Network(), netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), at}
	if me.network == "" {
		return open
	}
	for _, o := range open {
		if o.network == me.network && o.addr.Port() == me.addr.Port() && overlap(o.addr.Addr(), me.addr.Addr()) {
			v.add(path, "%s %v is taken by %s, at %v", me.network, a, o.path, o.addr)
			break
		}
	}
	return append(open, me)
}

// overlap reports whether sockets at a and b would compete for packets. An
// unspecified IPv6 address stands for the IPv4 ones too.
func overlap(a, b netip.Addr) bool {
	if a == b {
		return true
	}
	all := func(x, y netip.Addr) bool { return x.IsUnspecified() && (x.Is6() || y.Is4()) }
	return all(a, b) || all(b, a)
}
