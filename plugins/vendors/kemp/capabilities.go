package kemp

import (
	"context"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/gslb"
)

// What the LoadMaster's own numbers may be.
const (
	leastPort, mostPort   = 3, 65530
	mostWeight            = 65530
	mostLimit             = 100000
	mostPersist           = 7 * 24 * time.Hour
	mostIdle              = 24 * time.Hour
	mostURL, mostCodes    = 126, 127
	leastInterval         = 9 * time.Second
	mostInterval          = 120 * time.Second
	leastProbe, mostProbe = 4 * time.Second, 60 * time.Second
	leastTries, mostTries = 2, 15
)

// Capabilities says what a LoadMaster can do.
func (d *Driver) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	if err := ctx.Err(); err != nil {
		return plugins.Capabilities{}, context.Cause(ctx)
	}
	_, s, _ := d.setUp.Peek()
	return capabilities(d.asked(s)), nil
}

func capabilities(s Settings) plugins.Capabilities {
	geo := gslb.Off("it takes the LoadMaster's GEO")
	if s.GSLB {
		geo = gslbSupport()
	}
	return plugins.Capabilities{
		Support:     slices.Concat(poolSupport(s), groupSupport(), tlsSupport(), certificateSupport(), geo),
		SameAddress: true, MinInterval: plugins.Duration(leastInterval),
	}
}

func poolSupport(s Settings) []plugins.Support {
	const least = "the backend with the fewest connections gets the next client"
	out := slices.Concat(
		plugins.Full(
			"pools.picker=round-robin,least-clients", "pools.failback=automatic", "pools.panic=false", "pools.need=all",
			"pools.backends.weight", "pools.backends.priority", "pools.backends.max_clients", "pools.backends.admin=enabled,disabled",
			"pools.checks.type=sstp,https,tcp,icmp", "pools.checks.port", "pools.checks.host", "pools.checks.path", "pools.checks.expect",
			"pools.checks.plain_http", "pools.checks.ask=head",
		),
		[]plugins.Support{
			plugins.Partial("pools.picker=maglev,least-outstanding", least),
			plugins.Partial("pools.failback=delayed,manual", "a backend is used again as soon as its check passes"),
			plugins.Partial("pools.failback_delay", "a backend is used again as soon as its check passes"),
			plugins.Partial("pools.slow_start", "the LoadMaster has one slow start for all its services, which is left as it is"),
			plugins.Partial("pools.panic=true", "when all backends fail their checks, clients are refused"),
			plugins.Partial("pools.need=any", "a virtual service has one check, which decides"),
			plugins.Partial("pools.backends.admin=draining", "the backend is disabled in each virtual service: it keeps its clients as long as the LoadMaster's own drain time says"),
			plugins.Partial("pools.checks.type=ikev2,radius,radsec", "the LoadMaster only pings servers of UDP, which proves that there is a machine and no more"),
			plugins.Partial("pools.checks", "the LoadMaster's checks have nothing like it, so it doesn't apply"),
			plugins.Partial("pools.checks.ask=call,ip-https", "a HEAD for the resource of SSTP is asked"),
			plugins.Partial("pools.checks.advisory", "advisory checks are left out"),
			plugins.Partial("pools.checks.verify_tls", "the LoadMaster's check takes any certificate"),
			plugins.Partial("pools.checks.rise", "one success counts"),
		},
	)
	const global = "the LoadMaster asks all its servers by one rhythm, which is left as it is"
	if s.ServiceTimers {
		return append(out, plugins.Full("pools.checks.interval", "pools.checks.timeout", "pools.checks.fall")...)
	}
	for _, f := range []string{"interval", "timeout", "fall"} {
		p := plugins.Partial("pools.checks."+f, global)
		p.Fix = "newer firmware has these times in each virtual service: set service_timers in the driver's settings"
		out = append(out, p)
	}
	return out
}

func groupSupport() []plugins.Support {
	const elsewhere = "serve it with another driver, such as builtin"
	return slices.Concat(
		plugins.Full(
			"groups.affinity=source", "groups.client_address=nat,transparent", "groups.idle",
			"groups.listeners.protocol=ikev2,sstp,radius,udp,tcp", "groups.listeners.backend_port", "groups.listeners.idle_timeout",
		),
		[]plugins.Support{
			plugins.Partial("groups.affinity=spi", "clients are known by their addresses: those behind one NAT share a backend"),
			plugins.Partial("groups.affinity=user", "clients are known by their addresses: all users of one gateway go to one server"),
			plugins.Partial("groups.half_open", "the LoadMaster doesn't tell clients that aren't established"),
			plugins.Partial("groups.limits.max_clients", "each virtual service takes so many connections, if its firmware can bound them"),
			plugins.Partial("groups.limits.max_per_source", "the LoadMaster bounds clients for all its services at once, which is left as it is"),
			plugins.Partial("groups.limits.max_half_open_per_source", "there is no such limit"),
			plugins.Partial("groups.limits.max_hinted", "all clients at one address stay together"),
			plugins.Partial("groups.limits.ask_rate", "backends aren't asked for clients"),
			plugins.Partial("groups.listeners.workers", "the LoadMaster has as many as it likes"),
			plugins.None("groups.radius", "a LoadMaster passes RADIUS on and doesn't read it", elsewhere),
			plugins.None("groups.listeners.protocol=radsec", "a LoadMaster speaks no RADIUS", elsewhere),
			plugins.None("groups.listeners.proxy_protocol", "its API has no PROXY header for real servers", "use client_address: transparent"),
			plugins.None("fastpath", "the LoadMaster has a kernel of its own", "leave it out"),
			plugins.None("fastpath_options", "the LoadMaster has a kernel of its own", "leave it out"),
		},
	)
}

func tlsSupport() []plugins.Support {
	const at, cas = "groups.listeners.tls", "the LoadMaster takes any certificate of a real server"
	return slices.Concat(
		plugins.Full(at+".mode=passthrough,offload,reencrypt", at+".min_version=1.2,1.3", at+".gateway.server_name", at+".gateway.insecure"),
		[]plugins.Support{
			plugins.Partial(at+".gateway.port", "it is for what can't be offloaded, which is refused"),
			plugins.None(at+".gateway.ca_file", cas, "set insecure, if the network between them is your own"),
			plugins.None(at+".gateway.pins", cas, "set insecure, if the network between them is your own"),
			plugins.None(at+".web", "what isn't SSTP isn't told apart while connections are passed on as they are", "give the web site another address"),
			plugins.None(at+".web_tls.server_name", "there is no web server beside SSTP", "give the web site another address"),
			plugins.None(at+".web_tls.ca_file", "there is no web server beside SSTP", "give the web site another address"),
			plugins.None(at+".clients", "the CAs of clients are the LoadMaster's own, for all its services", "set Client Certificates of the virtual service there"),
			plugins.Partial(at+".ip_https", "what clients ask for isn't looked at, so they go to gateways anyway"),
			plugins.Partial(at+".pass_null", "clients without encryption are refused"),
			plugins.Partial(at+".tickets", "the LoadMaster does as it likes"),
			plugins.Partial(at+".handshake_rate", "the LoadMaster bounds clients for all its services at once, which is left as it is"),
			plugins.Partial(at+".handshake_burst", "the LoadMaster bounds clients for all its services at once, which is left as it is"),
			plugins.Partial(at+".max_handshakes", "handshakes are bounded by max_clients only"),
		},
	)
}

func certificateSupport() []plugins.Support {
	const at = "certificates.acme"
	account := "the ACME account that the LoadMaster has is used: register it there once"
	return slices.Concat(
		plugins.Full("certificates.cert_file", "certificates.key_file", at+".host", at+".key_type=rsa2048,rsa4096", at+".challenge=http-01"),
		[]plugins.Support{
			plugins.Partial("certificates.renewal", "all clients are shown a new certificate at once: gateways that offload or re-encrypt must know its hash before"),
			plugins.Partial(at+".directory", account),
			plugins.Partial(at+".email", account),
			plugins.Partial(at+".eab_key_id", account),
			plugins.Partial(at+".eab_key_file", account),
			plugins.Partial(at+".eab_key_env", account),
			plugins.Partial(at+".key_type=p256,p384", "it has an RSA key of 2048 bits"),
			plugins.Partial(at+".listen", "the LoadMaster answers challenges at the address of the virtual service"),
			plugins.None(at+".challenge=tls-alpn-01", "the LoadMaster answers challenges by HTTP", "use http-01"),
			plugins.None(at+".http_port", "the LoadMaster answers challenges at port 80 of the virtual service", "let port 80 through as it is"),
			plugins.None(at+".tls_alpn_port", "the LoadMaster answers challenges by HTTP", "use http-01"),
			plugins.None(at+".ca_file", "the LoadMaster trusts the CAs that it has", "add the root to those of the LoadMaster"),
		},
	)
}
