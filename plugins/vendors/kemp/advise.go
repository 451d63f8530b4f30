package kemp

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// check says what is wrong with dep, or unwise, for this balancer.
func check(dep *plugins.Deployment, site string, s Settings) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	out := plugins.Errors(dep.Validate())
	if dep.Served(site) == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", site), Fix: "name one of its sites in the driver's configuration",
		})
	}
	broken := len(out) > 0
	out = append(out, plugins.Judge(dep, site, capabilities(s))...)
	if x := dep.Served(site); x != nil && !broken {
		a := &adviser{site: x, settings: s}
		for i := range dep.Sites {
			if &dep.Sites[i] == x {
				a.at = fmt.Sprintf("sites[%d]", i)
			}
		}
		a.advise()
		if dep.Geo != nil && s.GSLB {
			a.adviseGeo(dep.Geo)
		}
		out = append(out, a.out...)
	}
	return out
}

// adviser says what only this driver knows.
type adviser struct {
	site     *plugins.Site
	settings Settings
	at       string
	out      gslb.Advice
}

func (a *adviser) add(severity plugins.Severity, path, summary, detail, fix string) {
	a.out.Say(severity, path, summary, detail, fix)
}

func (a *adviser) advise() {
	for i := range a.site.Pools {
		a.pool(fmt.Sprintf("%s.pools[%d]", a.at, i), &a.site.Pools[i])
	}
	for i := range a.site.Groups {
		a.group(fmt.Sprintf("%s.groups[%d]", a.at, i), &a.site.Groups[i])
	}
	for i := range a.site.Certificates {
		c, at := &a.site.Certificates[i], fmt.Sprintf("%s.certificates[%d]", a.at, i)
		if c.ACME != nil && c.ACME.Challenge == "" {
			a.add(plugins.SeverityInfo, at+".acme.challenge", "the LoadMaster proves the name by http-01",
				"it answers at port 80 of the virtual service's address", "let port 80 through to it")
		}
		if c.ACME != nil && c.ACME.KeyType == "" {
			a.add(plugins.SeverityInfo, at+".acme.key_type", "the certificate has an RSA key of 2048 bits", "", "")
		}
	}
}

// serves reports whether a listener of a network uses a pool.
func (a *adviser) serves(p *plugins.Pool, network string) bool {
	return slices.ContainsFunc(a.site.Groups, func(g plugins.Group) bool {
		return g.Pool == p.Name && slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return l.Protocol.Network() == network })
	})
}

func (a *adviser) pool(at string, p *plugins.Pool) {
	a.priorities(at, p)
	for i := range p.Backends {
		b, path := &p.Backends[i], fmt.Sprintf("%s.backends[%d]", at, i)
		if b.MaxClients > mostLimit {
			a.add(plugins.SeverityWarning, path+".max_clients", fmt.Sprintf("%d is more than the LoadMaster can count", b.MaxClients),
				fmt.Sprintf("the backend takes %d connections", mostLimit), "")
		}
		if b.Weight != nil && *b.Weight > mostWeight {
			a.add(plugins.SeverityInfo, path+".weight", fmt.Sprintf("the greatest weight here is %d", mostWeight), "", "")
		}
		if b.Weight != nil && *b.Weight == 0 {
			a.add(plugins.SeverityInfo, path+".weight", "the LoadMaster has no weight 0: the backend is disabled", "", "")
		}
	}
	a.checks(at, p)
}

// priorities says which orders of backends the LoadMaster can't do.
func (a *adviser) priorities(at string, p *plugins.Pool) {
	if levels(p) < 2 {
		return
	}
	if levels(p) != len(p.Backends) {
		a.add(plugins.SeverityError, at+".backends", "several backends share a priority while others have another one",
			"the LoadMaster's fixed weighting orders single servers: one serves, the next one when it is gone",
			"give each backend a priority of its own, or all the same")
		return
	}
	a.add(plugins.SeverityInfo, at+".backends", "priorities are done by fixed weighting, so that picker and weights don't matter",
		"the first backend that is up gets all clients", "")
}

// checks says which checks are asked, and how.
func (a *adviser) checks(at string, p *plugins.Pool) {
	tcp, udp := a.serves(p, "tcp"), a.serves(p, "udp")
	main, found := mainCheck(p)
	if udp && len(p.Checks) > 0 {
		a.add(plugins.SeverityWarning, at+".checks", "for listeners of UDP the LoadMaster only pings the backends",
			"a gateway whose IKEv2 or RADIUS service has died gets clients as long as its machine answers pings",
			"let backends answer pings from the LoadMaster, and watch their services by other means")
	}
	if tcp && !found && len(p.Checks) > 0 {
		a.add(plugins.SeverityWarning, at+".checks", "no check of this pool can be asked for its listeners of TCP",
			"the backends are pinged", "add a check of type sstp, https or tcp")
	}
	for i := range p.Checks {
		c, path := p.Checks[i].Usual(), fmt.Sprintf("%s.checks[%d]", at, i)
		if tcp && found && isAsked(&p.Checks[i]) && c.Name != main.Name {
			a.add(plugins.SeverityWarning, path, fmt.Sprintf("it isn't asked: a virtual service has one check, and %s says more", main.Name), "", "")
			continue
		}
		a.web(path, c)
		a.timers(path, &p.Checks[i])
	}
}

// web says how exactly a check over HTTP can be asked.
func (a *adviser) web(at string, c plugins.Check) {
	if c.Type != plugins.CheckSSTP && c.Type != plugins.CheckHTTPS {
		return
	}
	if len(c.Path) > mostURL {
		a.add(plugins.SeverityError, at+".path", fmt.Sprintf("it has %d characters, the LoadMaster takes %d", len(c.Path), mostURL), "", "ask for a shorter one")
	}
	if c.Port != 0 && (c.Port < leastPort || c.Port > mostPort) {
		a.add(plugins.SeverityError, at+".port", fmt.Sprintf("the LoadMaster's ports are from %d to %d", leastPort, mostPort), "", "use another port")
	}
	switch {
	case c.Expect != 0 && c.Expect < 200:
		a.add(plugins.SeverityError, at+".expect", "the LoadMaster can't wait for it", "", "it can be from 200 to 599")
	case c.Expect != 0 && c.Expect < 300:
		a.add(plugins.SeverityWarning, at+".expect", "for the LoadMaster any status from 200 to 299 is good, and with none of 300 to 599 named, 301, 302 and 401 too", "", "")
	case c.Expect != 0:
		a.add(plugins.SeverityInfo, at+".expect", fmt.Sprintf("for the LoadMaster any status from 200 to 299 is as good as %d", c.Expect),
			"a web server that answers in place of the gateway counts as up", "")
	}
}

// timers says which times of a check are brought into the LoadMaster's bounds.
func (a *adviser) timers(at string, c *plugins.Check) {
	if !a.settings.ServiceTimers {
		return
	}
	tell := func(name string, is, can any) {
		a.add(plugins.SeverityInfo, at+"."+name, fmt.Sprintf("%v becomes %v, within the LoadMaster's bounds", is, can), "", "")
	}
	if t := timersOf(c); c.Interval != 0 && c.Interval.D() > mostInterval {
		tell("interval", c.Interval, plugins.Duration(t.interval))
	}
	if t := timersOf(c); c.Timeout != 0 && c.Timeout.D() != t.timeout {
		tell("timeout", c.Timeout, plugins.Duration(t.timeout))
	}
	if t := timersOf(c); c.Fall != 0 && c.Fall != t.tries {
		tell("fall", c.Fall, t.tries)
	}
}

func (a *adviser) group(at string, g *plugins.Group) {
	count := map[string]int{}
	for i := range g.Listeners {
		l := &g.Listeners[i]
		count[l.Protocol.Network()]++
		a.listener(fmt.Sprintf("%s.listeners[%d]", at, i), g, l)
	}
	for _, network := range []string{"udp", "tcp"} {
		if n := count[network]; n > 2 {
			a.add(plugins.SeverityError, at+".listeners", fmt.Sprintf("there are %d of %s, and port following joins one with another", n, network), "",
				"make several groups of them")
		}
	}
	if count["udp"] > 0 && count["tcp"] > 0 {
		a.add(plugins.SeverityWarning, at+".listeners", "listeners of TCP don't follow those of UDP",
			"a client that comes by SSTP may live at another gateway than it does by IKEv2", "")
	}
	a.addresses(at, g)
	if p := cmp.Or(g.Idle.D(), usualIdle); p > mostPersist {
		a.add(plugins.SeverityWarning, at+".idle", fmt.Sprintf("%v is longer than the LoadMaster remembers a client", g.Idle),
			fmt.Sprintf("a silent client is forgotten after %v", plugins.Duration(mostPersist)), "")
	}
}

// addresses says what the way to backends means.
func (a *adviser) addresses(at string, g *plugins.Group) {
	ike := slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return l.Protocol == plugins.ProtocolIKEv2 })
	if g.ClientAddress == plugins.ClientAddressTransparent {
		a.add(plugins.SeverityInfo, at+".client_address", "backends must route their answers through the LoadMaster",
			"LoadMasters in a cluster can't be transparent: use a pair, active and standby", "make the LoadMaster's address the backends' gateway")
		return
	}
	if ike {
		a.add(plugins.SeverityWarning, at+".client_address", "gateways see all clients of IKEv2 at the LoadMaster's address",
			"Windows bounds how many clients it takes from one address: new ones are refused with error 809 while the others go on",
			"use client_address: transparent, or raise IkeNumEstablishedForInitialQuery of IKEEXT at each gateway")
	}
}

func (a *adviser) listener(at string, g *plugins.Group, l *plugins.Listener) {
	if l.Address.Addr().IsUnspecified() {
		a.add(plugins.SeverityError, at+".address", "a virtual service has an address of its own", "", "name it")
	}
	for name, port := range map[string]int{"address": int(l.Address.Port()), "backend_port": int(l.TargetPort())} {
		if port < leastPort || port > mostPort {
			a.add(plugins.SeverityError, at+"."+name, fmt.Sprintf("port %d can't be had: the LoadMaster's are from %d to %d", port, leastPort, mostPort), "", "use another port")
		}
	}
	if l.IdleTimeout.D() > mostIdle {
		a.add(plugins.SeverityWarning, at+".idle_timeout", fmt.Sprintf("%v is more than the LoadMaster waits", l.IdleTimeout),
			fmt.Sprintf("silent connections end after %v", plugins.Duration(mostIdle)), "")
	}
	if l.TLS.Mode == plugins.TLSReencrypt && !l.TLS.Gateway.Insecure {
		a.add(plugins.SeverityWarning, at+".tls.gateway", "the LoadMaster doesn't verify the certificates of gateways",
			"somebody between them could pose as one; SSTP itself would notice, since it binds each session to its certificate",
			"set insecure to say that you know")
	}
	if l.TLS.Terminated() {
		a.add(plugins.SeverityInfo, at+".tls.mode", "gateways must know the hash of the certificate that the LoadMaster shows",
			"a new certificate is shown to all clients at once", fmt.Sprintf("set it at the gateways of %s before: aovlb cert shows how", g.Pool))
	}
}

// timers are when a virtual service's own check is asked.
type timers struct {
	interval, timeout time.Duration
	tries             int
}

func timersOf(c *plugins.Check) timers {
	u := c.Usual()
	return timers{
		interval: min(max(whole(u.Interval.D()), leastInterval), mostInterval),
		timeout:  min(max(whole(u.Timeout.D()), leastProbe), mostProbe),
		tries:    min(max(u.Fall, leastTries), mostTries),
	}
}

// whole rounds up to seconds.
func whole(d time.Duration) time.Duration { return (d + time.Second - 1).Truncate(time.Second) }
