package gslb

import (
	"slices"

	"github.com/aovlb/aovlb/plugins"
)

// Off is what a driver says of geo while its settings don't ask for it.
func Off(what string) []plugins.Support {
	return []plugins.Support{plugins.None("geo", "this target isn't asked to answer for names: "+what,
		"set gslb in the target's settings, or serve the names with another driver, such as builtin")}
}

// Support is what holds for all appliances: fields that each has, and what none of them
// does. A driver adds what is its own; of what is said of a field, the last counts.
func Support(product string) []plugins.Support {
	return slices.Concat(
		plugins.Full("geo.sites.name", "geo.sites.gateways.name", "geo.sites.gateways.addresses", "geo.sites.weight", "geo.sites.priority",
			"geo.names.name", "geo.names.sites", "geo.names.order", "geo.names.ttl", "geo.failback=automatic", "geo.zones.origin", "geo.sites.checks.name"),
		server(product), sites(product), checks(product), names(product),
	)
}

func server(product string) []plugins.Support {
	return []plugins.Support{
		plugins.Partial("geo.tls", "queries over TLS aren't answered; others are"),
		plugins.Partial("geo.nsid", "the server doesn't say its name"),
		plugins.Partial("geo.cookie_secret_file", "DNS cookies are as "+product+" does them"),
		plugins.Partial("geo.rate_limit", "answers aren't bounded by it"),
		plugins.Partial("geo.databases", product+" has a database of its own"),
		plugins.Partial("geo.networks", product+" doesn't get to know these networks"),
		plugins.Partial("geo.network_files", "the tables aren't read"),
		plugins.None("geo.horizons", "clients inside would get addresses from outside", "serve the names inside with another driver, such as builtin"),
		plugins.None("geo.sites.gateways.inside", "clients inside would get addresses from outside", "serve the names inside with another driver, such as builtin"),
		plugins.Partial("geo.hold_down", "a site is used again as soon as its checks pass"),
		plugins.Partial("geo.failback=delayed", "a site is used again as soon as its checks pass"),
		plugins.Partial("geo.failback_delay", "a site is used again as soon as its checks pass"),
		plugins.Partial("geo.quorum", product+" believes its own checks"),
		plugins.Partial("geo.peers", product+" believes its own checks"),
		plugins.Partial("geo.zones.file", "the names are answered, and nothing else of the zone: its SOA, NS and other records stay where they are, with a delegation or a CNAME to these names"),
		plugins.None("geo.zones.keys", "what is answered isn't signed with these keys, and a signed zone's clients would refuse it", "leave them out, and have the parent zone not say that this one is signed"),
	}
}

func sites(product string) []plugins.Support {
	const place = "where the site is has no effect: "
	return []plugins.Support{
		plugins.Partial("geo.sites.continent", place+product+" goes by other things"),
		plugins.Partial("geo.sites.country", place+product+" goes by other things"),
		plugins.Partial("geo.sites.subdivision", place+product+" goes by other things"),
		plugins.Partial("geo.sites.asn", place+"clients aren't told apart by their provider"),
		plugins.Partial("geo.sites.latitude", place+"distances aren't measured"),
		plugins.Partial("geo.sites.longitude", place+"distances aren't measured"),
		plugins.Partial("geo.sites.region", place+"distances aren't measured"),
		plugins.Partial("geo.sites.serves", "clients aren't told apart by it"),
		plugins.None("geo.sites.only", "the site would be answered to anybody", "leave the site out of the names"),
		plugins.Partial("geo.sites.capacity", "the load of sites isn't known"),
		plugins.Partial("geo.sites.load_of", "the load of sites isn't known"),
		plugins.Partial("geo.sites.need", "a site serves as long as one gateway is up"),
		plugins.Partial("geo.sites.unanimous", "gateways are answered as long as they are up themselves"),
		plugins.Partial("geo.sites.requires", "a site serves whatever the state of others"),
	}
}

func checks(product string) []plugins.Support {
	const at = "geo.sites.checks"
	ping := product + " can't ask for it: another check of the site decides, or else an echo request (ICMP)"
	return slices.Concat(
		plugins.Full("geo.sites.check_need=all", at+".type=sstp,https,tcp,icmp", at+".port", at+".host", at+".path", at+".expect", at+".plain_http", at+".ask=head"),
		[]plugins.Support{
			plugins.Partial(at, "the check leaves it out"),
			plugins.Partial(at+".type=ikev2,radius,radsec", ping),
			plugins.Partial(at+".advisory", "advisory checks are left out"),
			plugins.Partial(at+".ask=call,ip-https", "a HEAD is sent for the resource of SSTP"),
			plugins.Partial(at+".verify_tls", "any certificate is taken"),
		},
	)
}

func names(product string) []plugins.Support {
	return []plugins.Support{
		plugins.Full("geo.names.method=round-robin,first")[0],
		plugins.Partial("geo.names.nearest", "distances aren't measured"),
		plugins.Partial("geo.names.answers", "how many addresses an answer has is "+product+"'s to say"),
		plugins.Partial("geo.names.unstable_ttl", "answers live as long as ttl says, also while a site changes"),
		plugins.None("geo.names.targets", "names are answered with addresses", "give the sites' gateways addresses"),
	}
}
