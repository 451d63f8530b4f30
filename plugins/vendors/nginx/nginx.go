package nginx

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// A Renderer writes configurations of nginx. Its zero value is ready.
type Renderer struct {
	// Site names the site to write for; empty means the only one.
	Site string
	// Owner begins the names of upstreams; empty means plugins.DefaultOwner.
	Owner plugins.Owner
}

const passive = "nginx asks no server: one to which TCP connections can't be opened is left out for a while, and a dead one isn't noticed by UDP"

const elsewhere = "serve it with another driver, such as builtin"

// Capabilities says what open source nginx 1.22 and later can do.
func (r *Renderer) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	return capabilities(), nil
}

func capabilities() plugins.Capabilities {
	return plugins.Capabilities{
		Support: slices.Concat(
			plugins.Full("pools.failback=automatic", "pools.backends.weight", "pools.backends.admin=enabled,disabled",
				"groups.affinity=source", "groups.client_address=nat,transparent", "groups.idle", "groups.limits.max_per_source",
				"groups.listeners.protocol=ikev2,sstp,radius,udp,tcp", "groups.listeners.backend_port", "groups.listeners.proxy_protocol=v1",
				"groups.listeners.idle_timeout", "fastpath=off"),
			[]plugins.Support{
				plugins.Partial("pools.checks", passive),
				plugins.Partial("pools.picker=round-robin,least-clients", "clients known by their addresses are spread by a hash, connections as asked"),
				plugins.Partial("pools.picker=maglev", "clients known by their addresses are spread by another hash, connections in turn"),
				plugins.Partial("pools.picker=least-outstanding", "clients known by their addresses are spread by a hash, others go to the server with the fewest connections"),
				plugins.Partial("pools.failback=delayed,manual", "preferred servers are used again as soon as they work"),
				plugins.Partial("pools.failback_delay", "preferred servers are used again as soon as they work"),
				plugins.Partial("pools.slow_start", "a server that returns has its full share at once"),
				plugins.Partial("pools.panic=true,false", passive),
				plugins.Partial("pools.need=all,any", passive),
				plugins.Partial("pools.backends.admin=draining", "it gets no new clients; its TCP connections go on, its UDP clients move at once"),
				plugins.Partial("pools.backends.priority", "standby servers serve connections only; where clients are known by their addresses they are written as down"),
				plugins.Partial("pools.backends.max_clients", "connections and flows are counted, for each listener by itself"),
				plugins.None("groups.affinity=spi,user", "nginx knows clients by their addresses only", "set affinity: source; "+elsewhere),
				plugins.Partial("groups.half_open", "connections are opened within 5 s"),
				plugins.Partial("groups.limits.max_clients", "worker_connections bounds each process"),
				plugins.Partial("groups.limits.max_half_open_per_source", "there is no such limit"),
				plugins.Partial("groups.limits.max_hinted", "all clients of one address stay together"),
				plugins.Partial("groups.limits.ask_rate", "nobody is asked where a client is"),
				plugins.None("groups.listeners.protocol=radsec", "nginx doesn't read RADIUS", elsewhere),
				plugins.None("groups.listeners.proxy_protocol=v2", "nginx writes version 1 only", "use v1"),
				plugins.Partial("groups.listeners.workers", "nginx has as many processes as worker_processes says"),
				plugins.None("groups.radius", "nginx doesn't read RADIUS", elsewhere),
				plugins.None("geo", "nginx is no DNS server", elsewhere),
				plugins.Partial("fastpath=auto", "nginx carries everything by itself"),
				plugins.None("fastpath=require", "nginx carries everything by itself", "leave it out"),
				plugins.Partial("fastpath_options", "nginx carries everything by itself"),
			},
			tlsSupport(),
		),
		MinInterval: plugins.Duration(1), ExactExpect: true, KeepsClients: true,
	}
}

func tlsSupport() []plugins.Support {
	const at = "groups.listeners.tls"
	return append(
		plugins.Full(at+".mode=passthrough,offload,reencrypt", at+".min_version", at+".gateway.server_name", at+".gateway.ca_file", at+".gateway.insecure",
			at+".tickets", at+".clients.ca_file", at+".clients.optional", at+".clients.crl_file", at+".clients.need_crl",
			"certificates.cert_file", "certificates.key_file"),
		plugins.Partial(at+".gateway.port", "it is for what can't be offloaded, which is refused"),
		plugins.None(at+".gateway.pins", "nginx knows certificates by their CA", "name a ca_file that holds only these certificates' CA"),
		plugins.None(at+".web", "what isn't SSTP can't be told apart while the connection is passed on as it is", "give the web site another address or name"),
		plugins.None(at+".web_tls.server_name", "there is no web server beside SSTP", "give the web site another address or name"),
		plugins.None(at+".web_tls.ca_file", "there is no web server beside SSTP", "give the web site another address or name"),
		plugins.Partial(at+".ip_https", "what clients ask for isn't looked at, so they go to gateways anyway"),
		plugins.Partial(at+".pass_null", "clients without encryption are refused"),
		plugins.Partial(at+".handshake_rate", "handshakes are bounded by max_per_source only"),
		plugins.Partial(at+".handshake_burst", "handshakes are bounded by max_per_source only"),
		plugins.Partial(at+".max_handshakes", "worker_connections bounds each process"),
		plugins.None("certificates.acme", "nginx doesn't get certificates", "have another program get them, and name its files"),
		plugins.Partial("certificates.renewal", "all clients are shown a new certificate at once: gateways that offload or re-encrypt must know its hash before"),
	)
}

// Validate says what nginx can't do of a deployment.
func (r *Renderer) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	out := plugins.Errors(dep.Validate())
	s := dep.Site(r.Site)
	if s == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", r.Site), Fix: "name one of its sites",
		}), nil
	}
	out = append(out, once(plugins.Judge(dep, r.Site, capabilities()))...)
	if s == nil || plugins.HasError(out) {
		return out, nil
	}
	at := slices.IndexFunc(dep.Sites, func(x plugins.Site) bool { return x.Name == s.Name })
	return append(out, advise(s, fmt.Sprintf("sites[%d]", at))...), nil
}

// once says of each check but once that it isn't made.
func once(list []plugins.Diagnostic) []plugins.Diagnostic {
	return slices.DeleteFunc(list, func(g plugins.Diagnostic) bool {
		_, field, ok := strings.Cut(g.Path, ".checks[")
		return ok && g.Detail == passive && !strings.HasSuffix(field, ".type")
	})
}

// advise says what only nginx's renderer knows.
func advise(s *plugins.Site, at string) []plugins.Diagnostic {
	var out []plugins.Diagnostic
	for i := range s.Groups {
		g := &s.Groups[i]
		for k := range g.Listeners {
			l, path := &g.Listeners[k], fmt.Sprintf("%s.groups[%d].listeners[%d]", at, i, k)
			if l.TLS.Terminated() && certificateOf(s, g.Pool) == nil {
				out = append(out, plugins.Diagnostic{
					Severity: plugins.SeverityError, Path: path + ".tls.mode",
					Summary: "there is no certificate from a file for its pool to end TLS with", Fix: "add one to certificates, with cert_file",
				})
			}
			if c := l.TLS.Clients; c.CRLFile != "" && !c.NeedCRL {
				out = append(out, plugins.Diagnostic{
					Severity: plugins.SeverityInfo, Path: path + ".tls.clients.crl_file",
					Summary: "certificates whose issuer has no current list there are refused too", Detail: "nginx has no other way, so that need_crl counts as set",
				})
			}
			for _, f := range []struct{ name, value string }{
				{"clients.ca_file", l.TLS.Clients.CAFile},
				{"clients.crl_file", l.TLS.Clients.CRLFile},
				{"gateway.ca_file", l.TLS.Gateway.CAFile},
				{"gateway.server_name", l.TLS.Gateway.ServerName},
			} {
				out = append(out, unwritable(path+".tls."+f.name, f.value)...)
			}
		}
		if g.Idle > 0 && !slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return l.Protocol.Network() == "udp" }) {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityInfo, Path: fmt.Sprintf("%s.groups[%d].idle", at, i),
				Summary: "clients are found by a hash of their addresses, which forgets nobody", Detail: "idle is the time of flows over UDP",
			})
		}
		if p := s.Pool(g.Pool); g.ClientAddress == plugins.ClientAddressTransparent && mixed(g, p) {
			out = append(out, plugins.Diagnostic{
				Severity: plugins.SeverityError, Path: fmt.Sprintf("%s.groups[%d].client_address", at, i),
				Summary: "a client's address can't be shown to servers of another address family", Fix: "make a pool and a group for each family",
			})
		}
	}
	for i := range s.Certificates {
		path := fmt.Sprintf("%s.certificates[%d]", at, i)
		out = append(out, unwritable(path+".cert_file", s.Certificates[i].CertFile)...)
		out = append(out, unwritable(path+".key_file", s.Certificates[i].KeyFile)...)
	}
	return out
}

// mixed reports whether listeners and servers are of several families.
func mixed(g *plugins.Group, p *plugins.Pool) bool {
	for _, l := range g.Listeners {
		for _, b := range p.Backends {
			if b.Address.Unmap().Is4() != l.Address.Addr().Unmap().Is4() {
				return true
			}
		}
	}
	return false
}

// unwritable refuses a word that nginx would take for something else.
func unwritable(path, value string) []plugins.Diagnostic {
	if !strings.ContainsAny(value, "\x00\r\n\"\\$") {
		return nil
	}
	return []plugins.Diagnostic{{
		Severity: plugins.SeverityError, Path: path, Summary: fmt.Sprintf("%q can't be written in nginx's file", value), Fix: "use a name without quotes, backslashes and dollars",
	}}
}

// certificateOf returns the certificate from a file for a pool, or nil.
func certificateOf(s *plugins.Site, pool string) *plugins.Certificate {
	for i := range s.Certificates {
		if c := &s.Certificates[i]; c.Pool == pool && c.CertFile != "" {
			return c
		}
	}
	return nil
}

// Render writes the configuration for a deployment.
func (r *Renderer) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	list, err := r.Validate(ctx, dep)
	if err != nil {
		return nil, err
	}
	if dep == nil || plugins.HasError(list) {
		return nil, fmt.Errorf("%w for nginx", plugins.ErrInvalid)
	}
	w := &writer{site: dep.Site(r.Site), owner: r.Owner}
	return []plugins.File{{
		Name: "nginx.conf", Summary: "for nginx with its stream module: check it by nginx -t -c nginx.conf, put it into /etc/nginx, then systemctl reload nginx",
		Content: []byte(w.all()),
	}}, nil
}
