package keepalived

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Capabilities says what keepalived 2.2 and later can do with IPVS. With a script or
// a probe in the settings it can check more.
func (d *Driver) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	_, s, _ := d.setUp.Peek()
	return capabilities(s), nil
}

const elsewhere = "serve it with another driver, such as builtin"

func capabilities(s Settings) plugins.Capabilities {
	return plugins.Capabilities{
		Support:     slices.Concat(pools(), checks(s), groups(), tls()),
		MinInterval: plugins.Duration(1), ExactExpect: true,
	}
}

func pools() []plugins.Support {
	return append(
		plugins.Full("pools.picker=round-robin,least-clients", "pools.failback=automatic", "pools.panic=false", "pools.need=all",
			"pools.backends.weight", "pools.backends.admin"),
		plugins.Partial("pools.picker=maglev", "clients are spread by a consistent hash of IPVS's own; another balancer chooses otherwise"),
		plugins.Partial("pools.picker=least-outstanding", "the backend with the fewest connections gets the next one"),
		plugins.Partial("pools.failback=delayed,manual", "preferred backends are used again as soon as they work"),
		plugins.Partial("pools.failback_delay", "preferred backends are used again as soon as they work"),
		plugins.Partial("pools.slow_start", "a backend that returns has its full share at once"),
		plugins.Partial("pools.panic=true", "when all backends fail their checks, nobody is served"),
		plugins.Partial("pools.need=any", "all checks must pass"),
		plugins.Partial("pools.backends.priority", "one backend of the second priority stands by; it isn't checked, and serves when all of the first fail"),
		plugins.Partial("pools.backends.max_clients", "connections are counted: a backend that has so many gets no new ones"),
	)
}

func checks(s Settings) []plugins.Support {
	const left = "these checks are left out, the others decide"
	out := append(
		plugins.Full("pools.checks.type=ikev2,sstp,tcp,https,icmp", "pools.checks.port", "pools.checks.interval", "pools.checks.timeout",
			"pools.checks.fall", "pools.checks.host", "pools.checks.path", "pools.checks.expect", "pools.checks.plain_http"),
		plugins.Partial("pools.checks.rise", "one probe that succeeds is enough"),
		plugins.Partial("pools.checks.strict", "any answer is taken as proof"),
		plugins.Partial("pools.checks.ask=call,ip-https", "gateways are asked for the resource of SSTP"),
		plugins.Partial("pools.checks.advisory", "advisory checks are left out"),
		plugins.Partial("pools.checks.type=radsec", "keepalived doesn't speak RADIUS over TLS: "+left),
		plugins.Partial("pools.checks.radsec", "keepalived doesn't speak RADIUS over TLS: "+left),
		plugins.Partial("pools.checks.password_file", "the user isn't let in, any answer is taken as proof"),
		plugins.Partial("pools.checks.password_env", "the user isn't let in, any answer is taken as proof"),
		plugins.Partial("pools.checks.status_server", "servers are asked by an Access-Request"),
		plugins.Partial("pools.checks.secret_env", "keepalived has other environment variables: "+left),
	)
	if s.Script != "" {
		out = append(out, plugins.Full("pools.checks.ask=head", "pools.checks.verify_tls")...)
	} else {
		out = append(out, plugins.Partial("pools.checks.ask=head", "keepalived itself asks by GET; it asks by HEAD with a script in the settings"),
			plugins.None("pools.checks.verify_tls", "keepalived accepts any certificate", "name a script in the settings of the driver"))
	}
	fields := []string{"type=radius", "user", "secret_file", "accounting", "require_message_authenticator"}
	for _, f := range fields {
		if s.Probe != "" {
			out = append(out, plugins.Full("pools.checks."+f)...)
			continue
		}
		out = append(out, plugins.Partial("pools.checks."+f, "keepalived doesn't speak RADIUS without probe in the settings of the driver: "+left))
	}
	return out
}

func groups() []plugins.Support {
	return append(
		plugins.Full("groups.affinity=source", "groups.client_address=transparent", "groups.idle", "groups.listeners.protocol=ikev2,sstp,radius,udp,tcp",
			"groups.listeners.backend_port", "fastpath=off"),
		plugins.None("groups.affinity=spi", "IPVS knows clients by their addresses only", "set affinity: source; "+elsewhere),
		plugins.None("groups.affinity=user", "IPVS knows clients by their addresses only, so that all that comes from one gateway goes to one server", "set affinity: source; "+elsewhere),
		plugins.Partial("groups.client_address=nat", "backends see the clients' own addresses; with the method nat they must route their answers through this machine"),
		plugins.None("groups.listeners.protocol=radsec", "IPVS ends no TLS", elsewhere),
		plugins.None("groups.listeners.proxy_protocol", "IPVS changes no content", "backends see the clients' own addresses anyway: leave it out"),
		plugins.None("groups.radius", "IPVS doesn't read RADIUS", elsewhere),
		plugins.None("geo", "keepalived is no DNS server", elsewhere),
		plugins.Partial("groups.half_open", "IPVS has one time for all connections of the machine that aren't established"),
		plugins.Partial("groups.listeners.idle_timeout", "IPVS has one time for all TCP connections of the machine, 15 minutes unless ipvsadm --set says otherwise"),
		plugins.Partial("groups.listeners.workers", "the kernel has its own"),
		plugins.Partial("groups.limits.max_clients", "there is no such limit"),
		plugins.Partial("groups.limits.max_per_source", "there is no such limit"),
		plugins.Partial("groups.limits.max_half_open_per_source", "there is no such limit"),
		plugins.Partial("groups.limits.max_hinted", "all clients of one address stay together"),
		plugins.Partial("groups.limits.ask_rate", "nobody is asked where a client is"),
		plugins.Partial("fastpath=auto,require", "IPVS carries everything in the kernel"),
		plugins.Partial("fastpath_options", "IPVS carries everything in the kernel"),
	)
}

func tls() []plugins.Support {
	const at = "groups.listeners.tls"
	return append(plugins.Full(at+".mode=passthrough"),
		plugins.None(at+".mode=offload,reencrypt", "IPVS ends no TLS", "pass it through, or "+elsewhere),
		plugins.Partial("certificates", "TLS is passed through: gateways show their own certificates"),
	)
}

// check says what is wrong with dep, or unwise, for this balancer.
func (d *Driver) check(ctx context.Context, dep *plugins.Deployment) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	c, s, b := d.setUp.Peek()
	s = s.usual()
	site, owner := c.Site, c.Owner
	out := plugins.Errors(dep.Validate())
	if dep.Site(site) == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", site), Fix: "name one of its sites in the driver's configuration",
		})
	}
	out = append(out, plugins.Judge(dep, site, capabilities(s))...)
	x := dep.Site(site)
	if x == nil || plugins.HasError(out) {
		return out
	}
	at := slices.IndexFunc(dep.Sites, func(y plugins.Site) bool { return y.Name == x.Name })
	a := &adviser{site: x, settings: s, at: fmt.Sprintf("sites[%d]", at)}
	a.pools()
	a.groups()
	a.pair()
	if b != nil {
		if state, err := b.state(ctx, table(owner, x.Name)); err == nil && !state.running {
			a.idle(state.why)
		}
	}
	return append(out, a.out...)
}

// adviser says what only keepalived's driver knows.
type adviser struct {
	site     *plugins.Site
	settings Settings
	at       string
	out      []plugins.Diagnostic
}

func (a *adviser) add(severity plugins.Severity, path, summary, detail, fix string) {
	a.out = append(a.out, plugins.Diagnostic{Severity: severity, Path: path, Summary: summary, Detail: detail, Fix: fix})
}

// idle says that nothing is served.
func (a *adviser) idle(why string) {
	if a.settings.ConfigOnly {
		a.add(plugins.SeverityInfo, "", "files are written, and nothing is done with them", why, "")
		return
	}
	a.add(plugins.SeverityWarning, "", "files are written, and nothing is served by them yet", "keepalived doesn't run here: "+why,
		"start keepalived, which reads them then, and load "+a.settings.Marks+" by nft -f, or put them onto the machine where it runs")
}

func (a *adviser) pools() {
	for i := range a.site.Pools {
		p, path := &a.site.Pools[i], fmt.Sprintf("%s.pools[%d]", a.at, i)
		for k, b := range p.Backends {
			if b.Address.Unmap().Is4() != family(p) {
				a.add(plugins.SeverityError, fmt.Sprintf("%s.backends[%d].address", path, k), "IPVS balances one address family at a time",
					fmt.Sprintf("%s is at %v", p.Backends[0].Name, p.Backends[0].Address), "make a pool and a group for each family")
			}
		}
		able := a.settings.checks(p)
		if len(p.Checks) > 0 && len(able) == 0 {
			a.add(plugins.SeverityWarning, path+".checks", "none of its checks can be made by keepalived", "each backend counts as up",
				"add a check of type ikev2, sstp, tcp, https or icmp, or set probe in the settings of the driver")
		}
		for k := range p.Checks {
			a.check(fmt.Sprintf("%s.checks[%d]", path, k), &p.Checks[k])
		}
		if n := len(levels(p)); n > 2 {
			a.add(plugins.SeverityWarning, path+".backends", fmt.Sprintf("there are %d priorities, and keepalived has two", n),
				"one backend of the second stands by, the others do nothing", "use two priorities")
		}
	}
}

// check refuses what can't be written into a file of keepalived's.
func (a *adviser) check(at string, c *plugins.Check) {
	odd := func(r rune) bool { return notPlain(r) && !strings.ContainsRune("{}:?=&%~+,;[]()*", r) }
	if strings.ContainsFunc(c.Host, odd) {
		a.add(plugins.SeverityError, at+".host", fmt.Sprintf("%q can't be written in keepalived's file", c.Host), "", "use letters, digits, dots and dashes")
	}
	if strings.ContainsFunc(c.Path, odd) {
		a.add(plugins.SeverityError, at+".path", fmt.Sprintf("%q can't be written in keepalived's file", c.Path), "", "write unusual characters as %XX")
	}
	if a.settings.Probe != "" && c.Type == plugins.CheckRADIUS && !c.Advisory && c.SecretFile != "" && !a.settings.byProbe(c) {
		a.add(plugins.SeverityWarning, at, "the check is left out", "its secret_file or user has characters that keepalived doesn't take in a command",
			"use letters, digits, slashes, dots, dashes and underscores")
	}
}

func (a *adviser) groups() {
	for i := range a.site.Groups {
		g, path := &a.site.Groups[i], fmt.Sprintf("%s.groups[%d]", a.at, i)
		p := a.site.Pool(g.Pool)
		for k := range g.Listeners {
			a.listener(fmt.Sprintf("%s.listeners[%d]", path, k), g, &g.Listeners[k], p)
		}
		r := &renderer{site: a.site, settings: a.settings}
		if serving, _ := r.servers(p); !slices.ContainsFunc(serving, func(w weighted) bool { return w.weight > 0 }) {
			a.add(plugins.SeverityWarning, path+".pool", "none of its backends takes new clients", "", "")
		}
	}
}

// pair says which addresses a pair can't have.
func (a *adviser) pair() {
	v, list := a.settings.VRRP, addressesOf(a.site)
	switch {
	case v == nil:
	case len(list) == 0:
		a.add(plugins.SeverityWarning, a.at+".groups", "the pair has no address to share", "all listeners are at all addresses of the machine", "give them addresses of their own")
	case !slices.ContainsFunc(list, func(x netip.Addr) bool { return x.Is4() == v.speaksIPv4(list) }):
		a.add(plugins.SeverityError, a.at+".groups", fmt.Sprintf("no listener has an address of the family of %v, by which the pair speaks", v.Self), "",
			"set self and peer of vrrp to addresses of the listeners' family")
	}
}

func (a *adviser) listener(at string, g *plugins.Group, l *plugins.Listener, p *plugins.Pool) {
	addr := l.Address.Addr()
	switch six := addr.Unmap().Is6(); {
	case six && addr.IsUnspecified() && family(p):
		a.add(plugins.SeverityInfo, at+".address", "only IPv4 is served there, since the backends have IPv4 addresses", "", "")
	case six == family(p):
		a.add(plugins.SeverityError, at+".address", "IPVS doesn't change the address family",
			fmt.Sprintf("backend %s is at %v", p.Backends[0].Name, p.Backends[0].Address), "give it an address of the backends' family")
	}
	if l.TargetPort() == l.Address.Port() {
		return
	}
	switch {
	case shared(g):
		a.add(plugins.SeverityError, at+".backend_port", "listeners that share their clients keep their ports",
			"IPVS knows their packets by a mark, whatever the port, and leaves the port as it is", "leave it out, or make a group of this listener alone")
	case a.settings.Method != MethodNAT:
		a.add(plugins.SeverityError, at+".backend_port", fmt.Sprintf("the method %s changes no port", a.settings.Method), "", "leave it out, or use the method nat")
	}
}
