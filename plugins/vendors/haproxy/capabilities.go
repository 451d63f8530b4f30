package haproxy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

const noUDP = "HAProxy has no UDP"

// Capabilities says what HAProxy 2.6 and later can do.
func (d *Driver) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	return capabilities(), nil
}

func capabilities() plugins.Capabilities {
	const elsewhere = "serve it with another driver, such as builtin"
	return plugins.Capabilities{
		Support: slices.Concat(
			plugins.Full(
				"pools.picker=round-robin,least-clients", "pools.failback=automatic", "pools.slow_start", "pools.panic", "pools.need=all",
				"pools.backends.weight", "pools.backends.priority", "pools.backends.admin", "pools.checks.type=sstp,tcp",
				"pools.checks.port", "pools.checks.interval", "pools.checks.timeout", "pools.checks.rise", "pools.checks.fall",
				"pools.checks.host", "pools.checks.expect", "pools.checks.plain_http", "pools.checks.verify_tls",
			),
			[]plugins.Support{
				plugins.Partial("pools.picker=maglev", "clients known by their addresses are spread by a consistent hash, connections at random; another balancer chooses otherwise"),
				plugins.Partial("pools.picker=least-outstanding", "the backend with the fewest connections gets the next one"),
				plugins.Partial("pools.failback=delayed,manual", "preferred backends are used again as soon as they work"),
				plugins.Partial("pools.failback_delay", "preferred backends are used again as soon as they work"),
				plugins.Partial("pools.need=any", "all checks must pass"),
				plugins.Partial("pools.backends.max_clients", "what is more waits in a queue for 5 s, and is then refused"),
				plugins.Partial("pools.checks.type=ikev2,radius", noUDP+": these checks are left out, the others decide"),
				plugins.Partial("pools.checks", "the check doesn't apply"),
				plugins.Partial("pools.checks.advisory", "advisory checks are left out"),
				plugins.None("groups.listeners.protocol=ikev2,radius,udp", noUDP, elsewhere),
				plugins.None("groups.affinity=spi,user", noUDP, elsewhere),
				plugins.None("groups.radius", noUDP, elsewhere),
				plugins.None("geo", "HAProxy is no DNS server", elsewhere),
				plugins.Partial("groups.half_open", "connections are opened within 5 s"),
				plugins.Partial("groups.listeners.workers", "HAProxy has as many threads as its own configuration says"),
				plugins.Partial("groups.limits.max_half_open_per_source", "there is no such limit"),
				plugins.Partial("groups.limits.max_hinted", "only clients known by their addresses stay together"),
				plugins.Partial("groups.limits.ask_rate", "TCP needs no asking"),
				plugins.Partial("groups.limits.max_clients", "each listener takes so many connections"),
			},
			plugins.Full(
				"groups.affinity=source", "groups.client_address=nat,transparent", "groups.idle", "groups.limits.max_per_source",
				"groups.listeners.protocol=sstp,tcp", "groups.listeners.backend_port", "groups.listeners.proxy_protocol=v1,v2",
				"groups.listeners.idle_timeout",
			),
			tlsSupport(),
		),
		MinInterval: plugins.Duration(1), ExactExpect: true, Transactional: true, KeepsClients: true,
	}
}

func tlsSupport() []plugins.Support {
	const at = "groups.listeners.tls"
	return slices.Concat(
		plugins.Full(at+".mode=passthrough,offload,reencrypt", at+".min_version=1.2,1.3", at+".gateway.server_name", at+".gateway.ca_file",
			at+".gateway.insecure", at+".tickets", at+".clients.ca_file", at+".clients.optional", at+".clients.crl_file", at+".clients.need_crl",
			"certificates.cert_file", "certificates.key_file"),
		[]plugins.Support{
			plugins.Partial(at+".gateway.port", "it is for what can't be offloaded, which is refused"),
			plugins.None(at+".gateway.pins", "HAProxy knows certificates by their CA", "name a ca_file that holds only these certificates' CA"),
			plugins.None(at+".web", "what isn't SSTP can't be told apart while the connection is passed on as it is", "give the web site another address or name"),
			plugins.None(at+".web_tls.server_name", "there is no web server beside SSTP", "give the web site another address or name"),
			plugins.None(at+".web_tls.ca_file", "there is no web server beside SSTP", "give the web site another address or name"),
			plugins.Partial(at+".ip_https", "what clients ask for isn't looked at, so they go to gateways anyway"),
			plugins.Partial(at+".pass_null", "clients without encryption are refused"),
			plugins.Partial(at+".handshake_rate", "handshakes are bounded by max_per_source only"),
			plugins.Partial(at+".handshake_burst", "handshakes are bounded by max_per_source only"),
			plugins.Partial(at+".max_handshakes", "handshakes are bounded by max_clients only"),
			plugins.None("certificates.acme", "HAProxy doesn't get certificates", "have another program get them, and name its files"),
			plugins.Partial("certificates.renewal", "all clients are shown a new certificate at once: gateways that offload or re-encrypt must know its hash before"),
		},
	)
}

// check says what is wrong with d, or unwise, for this balancer.
func (d *Driver) check(dep *plugins.Deployment, site string) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	out := plugins.Errors(dep.Validate())
	if dep.Site(site) == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", site), Fix: "name one of its sites in the driver's configuration",
		})
	}
	out = append(out, plugins.Judge(dep, site, capabilities())...)
	if s := dep.Site(site); s != nil && !plugins.HasError(out) {
		out = append(out, advise(dep, s)...)
	}
	return out
}

// advise says what only HAProxy's driver knows.
func advise(dep *plugins.Deployment, s *plugins.Site) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	at := 0
	for i := range dep.Sites {
		if &dep.Sites[i] == s {
			at = i
		}
	}
	for i := range s.Pools {
		p, path := &s.Pools[i], fmt.Sprintf("sites[%d].pools[%d]", at, i)
		levels := map[int]bool{}
		for _, b := range p.Backends {
			levels[b.Priority] = true
		}
		if len(levels) > 2 {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityWarning, Path: path + ".backends", Summary: fmt.Sprintf("there are %d priorities, and HAProxy has two", len(levels)),
				Detail: "all but the first stand by, and the next one of them serves alone when the first priority is gone", Fix: "use two priorities",
			})
		}
		if scale(p) != 1 {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityInfo, Path: path + ".backends", Summary: "weights are scaled to at most 256, HAProxy's greatest",
			})
		}
		if list := checksOf(p); slices.ContainsFunc(list, func(c plugins.Check) bool { return rhythmOf(&c) != rhythmOf(&list[0]) }) {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityInfo, Path: path + ".checks", Summary: "its checks ask at different times, and HAProxy makes them one after the other",
				Detail: "with the shortest interval, the longest timeout, the most successes and the fewest failures of them all",
			})
		}
		if ends := endless(s, p); ends != "" {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityWarning, Path: path + ".checks", Summary: "its backends are checked by the opening of a connection only",
				Detail: ends, Fix: "add a check of type sstp or tcp",
			})
		}
	}
	for i := range s.Certificates {
		c := &s.Certificates[i]
		if path := fmt.Sprintf("sites[%d].certificates[%d]", at, i); c.CertFile != "" && c.KeyFile != "" && c.KeyFile != c.CertFile && c.KeyFile != c.CertFile+".key" {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityError, Path: path + ".key_file", Summary: fmt.Sprintf("HAProxy looks for the key in %s or %s.key", c.CertFile, c.CertFile),
				Fix: "name or link it so",
			})
		}
	}
	return append(append(out, missingCertificates(s, at)...), adviseTLS(s, at)...)
}

// rhythmOf is when a check asks, and when it counts.
func rhythmOf(c *plugins.Check) [4]int64 {
	return [4]int64{int64(c.Interval), int64(c.Timeout), int64(c.Rise), int64(c.Fall)}
}

// adviseTLS says what HAProxy ties together in TLS.
func adviseTLS(s *plugins.Site, at int) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	for i := range s.Groups {
		g := &s.Groups[i]
		for k := range g.Listeners {
			t, path := &g.Listeners[k].TLS, fmt.Sprintf("sites[%d].groups[%d].listeners[%d].tls", at, i, k)
			if t.Clients.CRLFile != "" && !t.Clients.NeedCRL {
				out = append(out, plugins.Diagnostic{
					Severity: plugins.SeverityInfo, Path: path + ".clients.crl_file", Summary: "certificates whose issuer has no current list there are refused too",
					Detail: "HAProxy has no other way, so that need_crl counts as set",
				})
			}
			if t.Mode != plugins.TLSReencrypt {
				continue
			}
			for _, c := range checksOf(s.Pool(g.Pool)) {
				if c.Type != plugins.CheckSSTP || c.PlainHTTP || c.VerifyTLS == !t.Gateway.Insecure {
					continue
				}
				x := plugins.Diagnostic{
					Severity: plugins.SeverityInfo, Path: path + ".gateway", Summary: fmt.Sprintf("check %s verifies certificates, as connections to gateways do", c.Name),
				}
				if t.Gateway.Insecure {
					x.Severity, x.Summary = plugins.SeverityWarning, fmt.Sprintf("check %s doesn't verify certificates, though verify_tls is set", c.Name)
					x.Detail, x.Fix = "a server verifies for its checks and its connections, or for neither", "take insecure away"
				}
				out = append(out, x)
			}
		}
	}
	return out
}

// endless says why checks that can't be asked matter.
func endless(s *plugins.Site, p *plugins.Pool) string {
	if len(p.Checks) == 0 || len(checksOf(p)) > 0 {
		return ""
	}
	for i := range s.Groups {
		if s.Groups[i].Pool == p.Name {
			return "none of its checks can be done by HAProxy, so each backend counts as up while its port is open"
		}
	}
	return ""
}

func missingCertificates(s *plugins.Site, at int) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	for i := range s.Groups {
		g := &s.Groups[i]
		for k := range g.Listeners {
			if l := &g.Listeners[k]; l.TLS.Terminated() && len(certificatesOf(s, g.Pool)) == 0 {
				out = append(out, plugins.Diagnostic{
					Severity: plugins.SeverityError, Path: fmt.Sprintf("sites[%d].groups[%d].listeners[%d].tls.mode", at, i, k),
					Summary: "there is no certificate from a file for its pool to end TLS with", Fix: "add one to certificates, with cert_file",
				})
			}
		}
	}
	return out
}

// certificatesOf returns the files of the certificates for a pool.
func certificatesOf(s *plugins.Site, pool string) []string {
	var out []string
	for i := range s.Certificates {
		if c := &s.Certificates[i]; c.Pool == pool && c.CertFile != "" && !strings.ContainsAny(c.CertFile, "\r\n\x00") {
			out = append(out, c.CertFile)
		}
	}
	return out
}
