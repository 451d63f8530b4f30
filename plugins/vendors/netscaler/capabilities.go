package netscaler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// Capabilities says what NetScaler 13.1 and later can do.
func (d *Driver) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	return capabilities(d.answers()), nil
}

const elsewhere = "serve it with another driver, such as builtin"

// capabilities says what can be done, with GSLB or without.
func capabilities(answers bool) plugins.Capabilities {
	geo := gslb.Off("GSLB needs a delegation, and concerns the whole appliance")
	if answers {
		geo = gslbSupport()
	}
	return plugins.Capabilities{
		Support:     slices.Concat(poolSupport(), groupSupport(), radiusSupport(), tlsSupport(), geo),
		MinInterval: plugins.Duration(time.Second), ExactExpect: true, DrainDeadline: true, KeepsClients: true,
	}
}

func poolSupport() []plugins.Support {
	const check = "pools.checks"
	return append(plugins.Full(
		"pools.picker=round-robin,least-clients", "pools.failback=automatic,manual", "pools.panic=false", "pools.need=all,any",
		"pools.backends.weight", "pools.backends.priority", "pools.backends.admin", check+".type=sstp,tcp,https,icmp,radius", check+".port",
		check+".interval", check+".timeout", check+".rise", check+".fall", check+".host", check+".path", check+".expect", check+".plain_http",
		check+".ask=head", check+".user", check+".secret_file", check+".secret_env", check+".accounting",
	),
		plugins.Partial("pools.picker=maglev", "clients are spread by a hash of their address or user, and connections of sstp by how many there are; another balancer chooses otherwise"),
		plugins.Partial("pools.picker=least-outstanding", "the backend with the fewest connections gets the next one"),
		plugins.Partial("pools.failback=delayed", "preferred backends are used again as soon as one works"),
		plugins.Partial("pools.failback_delay", "preferred backends are used again as soon as one works"),
		plugins.Partial("pools.slow_start", "a backend that returns gets its share in ten steps"),
		plugins.Partial("pools.panic=true", "where all backends fail their checks, nobody is served"),
		plugins.Partial("pools.backends.max_clients", "each of its ports takes so many connections, if all backends of its priority have the same limit"),
		plugins.Partial(check+".type=ikev2", "NetScaler can't ask for it: another check of the pool decides, or else an echo request (ICMP)"),
		plugins.None(check+".type=radsec", "NetScaler speaks no RADIUS over TLS", elsewhere),
		plugins.None(check+".radsec", "NetScaler speaks no RADIUS over TLS", elsewhere),
		plugins.Partial(check+".strict", "IKEv2 can't be asked"),
		plugins.Partial(check+".advisory", "advisory checks are left out: NetScaler's would bring backends down"),
		plugins.Partial(check+".verify_tls", "monitors accept any certificate"),
		plugins.None(check+".ask=call,ip-https", "monitors send one request and compare its status", "leave it out: head proves that the gateway answers"),
		plugins.None(check+".status_server", "NetScaler's monitor asks by Access-Request", "leave it out"),
		plugins.Partial(check+".require_message_authenticator", "monitors don't look for it"),
		plugins.Partial(check+".password_file", "it needs an advisory check, which is left out"),
		plugins.Partial(check+".password_env", "it needs an advisory check, which is left out"),
	)
}

func groupSupport() []plugins.Support {
	const limits = "groups.limits"
	return append(plugins.Full(
		"groups.affinity=source", "groups.client_address=nat,transparent", "groups.listeners.protocol=ikev2,sstp,radius,udp,tcp",
		"groups.listeners.backend_port", "groups.listeners.proxy_protocol=v1,v2", "groups.listeners.idle_timeout",
	),
		plugins.Partial("groups.affinity=spi", "clients of ikev2 are known by their source addresses, so that those behind one NAT share a gateway; each connection of sstp is a client"),
		plugins.Partial("groups.affinity=user", "users are known by User-Name or Calling-Station-Id alone, not by both"),
		plugins.Partial("groups.idle", "it is rounded up to minutes, of which there are 1440 at most"),
		plugins.Partial("groups.half_open", "half-open clients are remembered as long as others"),
		plugins.None("groups.listeners.protocol=radsec", "NetScaler speaks no RADIUS over TLS", elsewhere),
		plugins.Partial("groups.listeners.workers", "the appliance's packet engines share the work as they do"),
		plugins.Partial(limits+".max_clients", "each listener takes so many connections; what is more goes to backends that stand by, or is dropped"),
		plugins.None(limits+".max_per_source", "a virtual server has no such limit", "leave it out, and bind a responder policy with a limit identifier"),
		plugins.Partial(limits+".max_half_open_per_source", "there is no such limit"),
		plugins.Partial(limits+".max_hinted", "all clients at one address stay together anyway"),
		plugins.Partial(limits+".ask_rate", "backends are never asked whose a client is"),
		plugins.Partial("fastpath=auto", "the appliance carries packets in its own way"),
		plugins.Partial("fastpath=off", "the appliance carries packets in its own way"),
		plugins.None("fastpath=require", "the fast path is that of Linux", "leave it out"),
		plugins.None("fastpath_options", "the fast path is that of Linux", "leave it out"),
	)
}

func radiusSupport() []plugins.Support {
	const at = "groups.radius"
	const proxy = "NetScaler forwards RADIUS, it doesn't answer it"
	out := append(plugins.Full(at+".mode=forward", at+".user=station,name"),
		plugins.Partial(at+".user=station-and-name", "users are known by User-Name alone"),
		plugins.Partial(at+".class", "accounting follows the user alone"),
		plugins.None(at+".mode=proxy", proxy, elsewhere),
		plugins.None(at+".require_message_authenticator", "NetScaler passes requests on as they are", "have the servers require it"),
	)
	for _, f := range []string{
		"secret_file", "secret_env", "transport", "radsec", "max_outstanding", "servers", "clients", "hold", "remember", "accounting", "show_users",
	} {
		out = append(out, plugins.None(at+"."+f, proxy, elsewhere))
	}
	return out
}

func tlsSupport() []plugins.Support {
	const at = "groups.listeners.tls"
	return append(plugins.Full(at+".mode=passthrough,offload,reencrypt", at+".min_version=1.2,1.3", at+".gateway.ca_file", at+".gateway.insecure",
		at+".gateway.server_name", at+".tickets", at+".clients.ca_file", at+".clients.optional", "certificates.cert_file", "certificates.key_file"),
		plugins.Partial(at+".gateway.port", "it is for what can't be offloaded; here all is"),
		plugins.None(at+".gateway.pins", "NetScaler knows gateways by their CA", "name a ca_file that holds only their CA, or their certificate"),
		plugins.None(at+".web", "what isn't SSTP isn't told apart: connections are passed on as they are", "give the web site another address"),
		plugins.None(at+".web_tls.server_name", "there is no web server beside SSTP", "give the web site another address"),
		plugins.None(at+".web_tls.ca_file", "there is no web server beside SSTP", "give the web site another address"),
		plugins.Partial(at+".ip_https", "what clients ask for isn't looked at, so that they go to gateways anyway, in the way that those of SSTP do"),
		plugins.Partial(at+".pass_null", "TLS without encryption is ended here too (cipher "+nullCipher+"), and goes on as that of other clients does"),
		plugins.None(at+".clients.crl_file", "lists of revoked certificates are the appliance's own objects", "add it there: add ssl crl … -refresh ENABLED, then leave it out here"),
		plugins.None(at+".clients.need_crl", "lists of revoked certificates are the appliance's own objects", "leave it out"),
		plugins.Partial(at+".handshake_rate", "there is no such limit"),
		plugins.Partial(at+".handshake_burst", "there is no such limit"),
		plugins.Partial(at+".max_handshakes", "there is no such limit"),
		plugins.None("certificates.acme", "NITRO has no ACME", "have another program get the certificate, and name its files"),
		plugins.Partial("certificates.renewal", "all clients are shown a new certificate at once: gateways must know its hash before"),
	)
}

// check says what is wrong with dep, or unwise, for a NetScaler.
func check(dep *plugins.Deployment, conf plugins.Config, answers bool) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	out := plugins.Errors(dep.Validate())
	if dep.Served(conf.Site) == nil && len(out) == 0 {
		return append(out, plugins.Diagnostic{
			Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", conf.Site), Fix: "name one of its sites in the driver's configuration",
		})
	}
	out = append(out, plugins.Judge(dep, conf.Site, capabilities(answers))...)
	if s := dep.Served(conf.Site); s != nil && !plugins.HasError(out) {
		a := &adviser{site: s, owner: conf.Owner}
		for i := range dep.Sites {
			if &dep.Sites[i] == s {
				a.at = fmt.Sprintf("sites[%d]", i)
			}
		}
		out = append(out, a.advise(dep.Geo)...)
	}
	return out
}
