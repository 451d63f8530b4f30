package f5

import (
	"context"
	"fmt"
	"slices"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// Capabilities says what a BIG-IP with LTM and AS3 can do.
func (d *Driver) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	_, s, _ := d.setUp.Peek()
	return capabilities(d.asked(s)), nil
}

func capabilities(s Settings) plugins.Capabilities {
	geo := gslb.Off("it takes BIG-IP DNS, and a part in /Common/Shared")
	if s.GSLB {
		geo = gslbSupport()
	}
	return plugins.Capabilities{
		Support:     slices.Concat(poolSupport(s), groupSupport(s), tlsSupport(), radiusSupport(), geo),
		SameAddress: true, MinInterval: plugins.Duration(1e9), ExactExpect: true, Transactional: true, KeepsClients: true,
	}
}

func poolSupport(s Settings) []plugins.Support {
	const at = "pools.checks"
	ping := "the server is pinged only"
	radius := plugins.Partial(at+".type=radius", ping+", for a BIG-IP takes a reject for a failure; with radius_password in the settings it logs in")
	account := []plugins.Support{plugins.Partial(at+".user", ping), plugins.Partial(at+".secret_file", ping), plugins.Partial(at+".secret_env", ping)}
	if !s.RADIUSPassword.IsZero() {
		account = plugins.Full(at+".user", at+".secret_file", at+".secret_env")
		radius = plugins.Partial(at+".type=radius", "it logs in with radius_password, and the user must be let in; accounting and Status-Server are replaced by a ping")
	}
	return slices.Concat(
		plugins.Full("pools.picker=round-robin,least-clients", "pools.failback=automatic", "pools.panic=false", "pools.need=all,any",
			"pools.backends.weight", "pools.backends.priority", "pools.backends.admin=enabled,draining",
			at+".type=sstp,https,tcp,icmp", at+".port", at+".interval", at+".host", at+".path", at+".expect", at+".plain_http"),
		[]plugins.Support{
			plugins.Partial("pools.picker=maglev", "new clients are spread in turn by weight, and are then remembered; another balancer chooses otherwise"),
			plugins.Partial("pools.picker=least-outstanding", "the backend with the fewest connections for its weight gets the next one"),
			plugins.Partial("pools.failback=delayed,manual", "preferred backends are used again as soon as they work"),
			plugins.Partial("pools.failback_delay", "preferred backends are used again as soon as they work"),
			plugins.Full("pools.slow_start")[0],
			plugins.Partial("pools.panic=true", "when all backends fail their checks nobody is served"),
			plugins.Partial("pools.backends.max_clients", "it bounds the connections at each port"),
			plugins.Partial("pools.backends.admin=disabled", "connections that are open go on until they end; aovlb drain with a deadline that has passed ends them"),
			plugins.Partial(at+".type=ikev2", ping+": a BIG-IP has no check of IKEv2"),
			radius,
			plugins.Partial(at+".type=radsec", "a TCP connection is opened only"),
			plugins.Partial(at, "the check leaves it out"),
			plugins.Partial(at+".rise", "a server is up when it has answered for as long as so many probes take"),
			plugins.Partial(at+".fall", "a server is down when nothing good came for as long as so many probes take"),
			plugins.Partial(at+".timeout", "a probe may take until the server counts as down"),
			plugins.Partial(at+".advisory", "advisory checks are left out"),
			plugins.Partial(at+".verify_tls", "the certificate isn't verified"),
			plugins.Partial(at+".ask", "a HEAD is sent for the resource of SSTP"),
		},
		account,
	)
}

func groupSupport(s Settings) []plugins.Support {
	spi := "clients of IKEv2 are known by their addresses, so that those behind one NAT share a gateway; with ike_spi in the settings an iRule tells them apart"
	if s.IKESPI {
		spi = "an iRule knows clients of IKEv2 by the SPI that they begin with; a client whose flow was forgotten, or whose address has changed, is known by its address until its next IKE_SA_INIT"
	}
	const serve = "serve it with another driver, such as builtin"
	return slices.Concat(
		plugins.Full("groups.affinity=source", "groups.client_address=nat,transparent", "groups.idle",
			"groups.listeners.protocol=ikev2,sstp,radius,tcp,udp", "groups.listeners.backend_port", "groups.listeners.idle_timeout"),
		[]plugins.Support{
			plugins.Partial("groups.affinity=spi", spi),
			plugins.Partial("groups.affinity=user", "requests are kept together by one attribute, at each port by itself"),
			plugins.None("groups.listeners.protocol=radsec", "a BIG-IP doesn't speak RADIUS over TLS", serve),
			plugins.None("groups.listeners.proxy_protocol", "a BIG-IP writes no PROXY header without an iRule of your own", "use client_address: transparent"),
			plugins.Partial("groups.half_open", "flows are kept as long as the others"),
			plugins.Partial("groups.listeners.workers", "the BIG-IP has as many as its processors"),
			plugins.Partial("groups.limits.max_clients", "it bounds the connections of each listener"),
			plugins.None("groups.limits.max_per_source", "a BIG-IP counts the connections of one source only with AFM", "leave it out, and set an AFM DoS profile"),
			plugins.Partial("groups.limits.max_half_open_per_source", "there is no such limit"),
			plugins.Partial("groups.limits.max_hinted", "clients of one address stay together anyway"),
			plugins.Partial("groups.limits.ask_rate", "backends aren't asked"),
			plugins.Partial("fastpath", "the BIG-IP carries all packets itself"),
			plugins.Partial("fastpath_options", "the BIG-IP carries all packets itself"),
		},
	)
}

func radiusSupport() []plugins.Support {
	const serve = "serve it with another driver, such as builtin"
	const at = "groups.radius"
	return []plugins.Support{
		plugins.Full(at + ".mode=forward")[0],
		plugins.None(at+".mode=proxy", "a BIG-IP sends RADIUS on, and doesn't speak it", serve),
		plugins.Full(at + ".user=station,name")[0],
		plugins.Partial(at+".user=station-and-name", "requests are kept together by Calling-Station-Id"),
		plugins.Partial(at+".class", "accounting follows Calling-Station-Id or User-Name only"),
		plugins.Partial(at+".hold", "the flow is kept for idle"),
		plugins.Partial(at+".remember", "a repeated request is answered by the server"),
		plugins.Partial(at+".show_users", "there is no such status"),
		plugins.None(at+".require_message_authenticator", "a BIG-IP doesn't look for a Message-Authenticator", "have the servers require it"),
		plugins.None(at+".clients", "a BIG-IP leaves it to the servers who may ask", "name the clients at the servers"),
	}
}

func tlsSupport() []plugins.Support {
	const at = "groups.listeners.tls"
	return slices.Concat(
		plugins.Full(at+".mode=passthrough,offload,reencrypt", at+".min_version=1.2,1.3", at+".gateway.server_name", at+".gateway.ca_file",
			at+".gateway.insecure", at+".clients.ca_file", at+".clients.optional", "certificates.cert_file", "certificates.key_file"),
		[]plugins.Support{
			plugins.Partial(at+".gateway.port", "it is for what can't be offloaded, which is refused"),
			plugins.None(at+".gateway.pins", "a BIG-IP knows certificates by their CA", "name a ca_file that holds only these certificates' CA"),
			plugins.None(at+".web", "what isn't SSTP can't be told apart while the connection is passed on as it is", "give the web site another address or name"),
			plugins.None(at+".web_tls.server_name", "there is no web server beside SSTP", "give the web site another address or name"),
			plugins.None(at+".web_tls.ca_file", "there is no web server beside SSTP", "give the web site another address or name"),
			plugins.Partial(at+".ip_https", "what clients ask for isn't looked at, so they go to gateways anyway"),
			plugins.Partial(at+".pass_null", "clients without encryption are refused"),
			plugins.Partial(at+".tickets", "sessions are resumed from the BIG-IP's cache"),
			plugins.None(at+".clients.crl_file", "lists of revoked certificates grow old in a declaration", "set an OCSP responder or a CRL distribution point on the BIG-IP"),
			plugins.None(at+".clients.need_crl", "lists of revoked certificates grow old in a declaration", "set an OCSP responder on the BIG-IP"),
			plugins.Partial(at+".handshake_rate", "there is no such limit"),
			plugins.Partial(at+".handshake_burst", "there is no such limit"),
			plugins.Partial(at+".max_handshakes", "there is no such limit"),
			plugins.None("certificates.acme", "a BIG-IP doesn't get certificates by ACME", "have another program get them, and name its files"),
			plugins.Partial("certificates.renewal", "all clients are shown a new certificate at once: gateways that offload or re-encrypt must know its hash before"),
		},
	)
}

// check says what is wrong with dep, or unwise, for a BIG-IP.
func check(dep *plugins.Deployment, c plugins.Config, s Settings) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	out := plugins.Errors(dep.Validate())
	valid := len(out) == 0
	if dep.Served(c.Site) == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", c.Site), Fix: "name one of its sites in the driver's configuration",
		})
	}
	out = append(out, plugins.Judge(dep, c.Site, capabilities(s))...)
	if site := dep.Served(c.Site); site != nil && valid {
		a := &adviser{site: site, at: siteIndex(dep, site), settings: s}
		if a.all(); dep.Geo != nil && s.GSLB {
			a.out = append(a.out, adviseGeo(dep.Geo)...)
		}
		out = append(out, a.out...)
	}
	return out
}

func siteIndex(dep *plugins.Deployment, s *plugins.Site) int {
	return slices.IndexFunc(dep.Sites, func(x plugins.Site) bool { return x.Name == s.Name })
}

// adviser says what only this driver knows.
type adviser struct {
	site     *plugins.Site
	at       int
	settings Settings
	out      []plugins.Diagnostic
}

func (a *adviser) say(severity plugins.Severity, path, summary, detail, fix string) {
	a.out = append(a.out, plugins.Diagnostic{Severity: severity, Path: fmt.Sprintf("sites[%d].", a.at) + path, Summary: summary, Detail: detail, Fix: fix})
}

func (a *adviser) all() {
	for i := range a.site.Pools {
		a.pool(i, &a.site.Pools[i])
	}
	for i := range a.site.Groups {
		a.group(i, &a.site.Groups[i])
	}
}

func (a *adviser) pool(i int, p *plugins.Pool) {
	at := fmt.Sprintf("pools[%d]", i)
	if scale(p) != 1 {
		a.say(plugins.SeverityInfo, at+".backends", "weights are scaled to at most 100, a BIG-IP's greatest", "", "")
	}
	if seconds(p.SlowStart.D()) > 900 {
		a.say(plugins.SeverityError, at+".slow_start", "a BIG-IP takes at most 15m", "", "make it 15m or less")
	}
	real := 0
	for k := range p.Checks {
		c, path := p.Checks[k].Usual(), fmt.Sprintf("%s.checks[%d]", at, k)
		kind := probe(&c, !a.settings.RADIUSPassword.IsZero())
		if kind != "" && (kind != "icmp" || c.Type == plugins.CheckICMP) {
			real++
		}
		if unsafe(c.Host) {
			a.say(plugins.SeverityError, path+".host", "it holds characters that a BIG-IP reads as something else", "", "name a host")
		}
		if c.Path != "" && unsafe(c.Path) {
			a.say(plugins.SeverityError, path+".path", "it holds characters that a BIG-IP reads as something else", "", "use a path without quotes, brackets and backslashes")
		}
		if c.Interval.D()%1e9 != 0 {
			a.say(plugins.SeverityInfo, path+".interval", "a BIG-IP counts whole seconds: it is rounded up", "", "")
		}
	}
	if len(p.Checks) > 0 && real == 0 {
		a.say(plugins.SeverityWarning, at+".checks", "its backends are pinged only", "a server whose services have stopped counts as up while its machine answers",
			"add a check of type sstp for gateways; for RADIUS name radius_password in the settings")
	}
}

func (a *adviser) group(i int, g *plugins.Group) {
	ike, terminated := false, false
	for k := range g.Listeners {
		l, path := &g.Listeners[k], fmt.Sprintf("groups[%d].listeners[%d]", i, k)
		ike = ike || l.Protocol == plugins.ProtocolIKEv2
		terminated = terminated || l.TLS.Terminated()
		if l.Address.Addr().IsUnspecified() {
			a.say(plugins.SeverityError, path+".address", "on a BIG-IP it would mean every address that is routed through it", "", "name the virtual server's address")
		}
		if l.Address.Addr().Zone() != "" {
			a.say(plugins.SeverityError, path+".address", "a BIG-IP has no zones of interfaces", "", "name an address without a zone")
		}
	}
	at := fmt.Sprintf("groups[%d]", i)
	if ike && g.ClientAddress != plugins.ClientAddressTransparent {
		a.say(plugins.SeverityWarning, at+".client_address", "gateways of IKEv2 see one address for all clients",
			"Windows bounds how many clients of one address may connect at once, which clients see as error 809", "use transparent, and have gateways route their answers through the BIG-IP")
	}
	if g.ClientAddress == plugins.ClientAddressTransparent {
		a.say(plugins.SeverityInfo, at+".client_address", "the gateways' default route must lead to a self IP of the BIG-IP", "", "")
	}
	if d := seconds(idle(g)); d > 604800 {
		a.say(plugins.SeverityInfo, at+".idle", "a BIG-IP remembers clients for at most 7 days", "", "")
	} else if d > 86400 {
		a.say(plugins.SeverityInfo, at+".idle", "a BIG-IP keeps silent flows of UDP for at most 1 day; it remembers clients for longer", "", "")
	}
	if g.RADIUS == nil || g.RADIUS.User == "" {
		for k := range g.Listeners {
			if g.Listeners[k].Protocol == plugins.ProtocolRADIUS && !g.BySource(&g.Listeners[k]) {
				a.say(plugins.SeverityInfo, at+".affinity", "requests are kept together by Calling-Station-Id", "what has none is balanced by itself", "")
				break
			}
		}
	}
	if terminated && len(certificates(a.site, g.Pool)) == 0 {
		a.say(plugins.SeverityError, at+".pool", "there is no certificate from a file for its pool to end TLS with", "", "add one to certificates, with cert_file")
	}
}

// certificates returns the certificates from files for a pool.
func certificates(s *plugins.Site, pool string) []plugins.Certificate {
	var out []plugins.Certificate
	for _, c := range s.Certificates {
		if c.Pool == pool && c.CertFile != "" {
			out = append(out, c)
		}
	}
	return out
}
