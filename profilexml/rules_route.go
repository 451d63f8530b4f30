package profilexml

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// routeRules are about what goes through the VPN.
func routeRules() []Rule {
	return []Rule{
		{
			ID: "AOV301", Severity: Error, Title: "ForceTunnel doesn't go with DisableClassBasedDefaultRoute", Fixable: true,
			Why:    "With ForceTunnel everything goes through the VPN; a profile that turns the class-based route off as well is refused.",
			Remedy: "Remove DisableClassBasedDefaultRoute.",
			run:    checkForceClassBased,
		},
		{
			ID: "AOV302", Severity: Error, Title: "ForceTunnel doesn't go with a Route",
			Why:    "With ForceTunnel everything goes through the VPN already. Only exclusions make sense.",
			Remedy: "Remove the Route, make it an ExclusionRoute, or use SplitTunnel.",
			run:    checkForceRoutes,
		},
		{
			ID: "AOV303", Severity: Error, Title: "Nothing goes through the VPN",
			Why:    "With SplitTunnel and DisableClassBasedDefaultRoute only the networks in Route go through the VPN, and there are none: it connects, and nothing can be reached.",
			Remedy: "Add a Route for each network, or remove DisableClassBasedDefaultRoute.",
			run:    checkNoRoutes,
		},
		{
			ID: "AOV304", Severity: Info, Title: "The routes depend on the VPN's address",
			Why:    "With SplitTunnel, Windows adds a route to the class A, B or C network of the address that the client gets: 10.0.0.0/8 for 10.1.2.3, and 192.168.5.0/24 for 192.168.5.7. That is rarely what was meant.",
			Remedy: "Set DisableClassBasedDefaultRoute to true, with a Route for each network.",
			run:    checkClassBased,
		},
		{
			ID: "AOV305", Severity: Error, Title: "A Route isn't to an address",
			Why:    "Address holds the address of a network, and PrefixSize its length. Names, masks and address/length in one aren't understood.",
			Remedy: "Write an address such as 10.0.0.0, and the length into PrefixSize.",
			run:    checkRouteAddress,
		},
		{
			ID: "AOV306", Severity: Error, Title: "The address of a Route isn't that of a network", Fixable: true,
			Why:    "There are bits beyond PrefixSize, so that it is a host and a network at once, and not what was meant.",
			Remedy: "Write the first address of the network.",
			run:    checkHostBits,
		},
		{
			ID: "AOV307", Severity: Error, Title: "The prefix of a Route is too long",
			Why:    "An IPv4 address has 32 bits, an IPv6 address 128.",
			Remedy: "Correct PrefixSize. A mask such as 255.255.255.0 is 24.",
			run:    checkPrefixSize,
		},
	}
}

// routeListRules are about what routes make together.
func routeListRules() []Rule {
	return []Rule{
		{
			ID: "AOV308", Severity: Warning, Title: "A Route is there twice",
			Why:    "One of the two has no effect, and if one is an exclusion, nobody says which.",
			Remedy: "Remove one.",
			run:    checkRouteTwice,
		},
		{
			ID: "AOV309", Severity: Warning, Title: "There is an IPv6 Route",
			Why:    "On clients that get no IPv6 address from the gateway, the whole connection fails.",
			Remedy: "Give clients IPv6 addresses at every gateway, or remove the route.",
			run:    checkIPv6Route,
		},
		{
			ID: "AOV310", Severity: Warning, Title: "A Route for everything is in a split tunnel",
			Why:    "A default route as a Route competes with that of the local network by metric. It doesn't make a force tunnel: DNS and local traffic stay outside.",
			Remedy: "Use RoutingPolicyType ForceTunnel.",
			run:    checkDefaultRoute,
		},
		{
			ID: "AOV311", Severity: Info, Title: "An exclusion excludes nothing",
			Why:    "With SplitTunnel only networks in Route go through the VPN; this exclusion is in none of them.",
			Remedy: "Remove it, or add the Route that it is an exception from.",
			run:    checkExclusion,
		},
		{
			ID: "AOV312", Severity: Error, Title: "A Route leads the gateway's own address into the tunnel",
			Why:    "The tunnel's packets would have to go through the tunnel. Windows protects the gateway that it is connected to, but not the others, and name lookups of split DNS show internal addresses.",
			Remedy: "Exclude the address of the gateway, or make the networks smaller.",
			run:    checkGatewayRoute,
		},
		{
			ID: "AOV313", Severity: Info, Title: "There is no RoutingPolicyType", Fixable: true,
			Why:    "SplitTunnel is what Windows takes. The CSP calls it required, and Windows reads it back.",
			Remedy: "Say SplitTunnel.",
			run:    checkRoutingMissing,
		},
		{
			ID: "AOV314", Severity: Warning, Title: "A Route has no Metric", Fixable: true,
			Why:    "Windows reads Metric 1 back then. Intune on Windows 11 takes that for a difference and applies the profile again and again.",
			Remedy: "Add Metric 1.",
			run:    checkMetricMissing,
		},
	}
}

func checkMetricMissing(k *check) {
	if !k.strict() {
		return
	}
	for _, r := range k.routes {
		if r.metric != nil {
			continue
		}
		last := r.child("ExclusionRoute")
		if last == nil {
			last = r.size
		}
		if last != nil {
			k.report(r.Node, k.insertAfter(last, "<Metric>1</Metric>"), "the Route to %s has no <Metric>, and Windows reads 1 back", k.routeText(r))
		}
	}
}

func checkForceClassBased(k *check) {
	if n := k.native.child("DisableClassBasedDefaultRoute"); k.forces() && k.isTrue(n) {
		k.report(n, k.remove(n), "DisableClassBasedDefaultRoute is no use with ForceTunnel")
	}
}

func checkForceRoutes(k *check) {
	if !k.forces() {
		return
	}
	for _, r := range k.routes {
		if !r.excluded {
			k.report(r.Node, nil, "a Route to %s doesn't go with ForceTunnel", k.routeText(r))
		}
	}
}

func (k *check) routeText(r routeEntry) string {
	return k.text(r.address) + "/" + k.text(r.size)
}

// A routeEntry is a Route, understood once for all rules.
type routeEntry struct {
	*Node
	network  netip.Prefix
	valid    bool // network makes sense
	excluded bool // from the VPN
	address  *Node
	size     *Node
	metric   *Node
}

// readRoutes understands the routes.
func (k *check) readRoutes() {
	nodes := k.root.all("Route")
	k.routes = make([]routeEntry, 0, len(nodes))
	for _, n := range nodes {
		r := routeEntry{Node: n}
		for _, c := range n.Children {
			if c.Kind != ElementNode {
				continue
			}
			switch {
			case c.Local == "Address" && r.address == nil:
				r.address = c
			case c.Local == "PrefixSize" && r.size == nil:
				r.size = c
			case c.Local == "Metric" && r.metric == nil:
				r.metric = c
			case c.Local == "ExclusionRoute":
				r.excluded = r.excluded || k.isTrue(c)
			}
		}
		if r.network, r.valid = k.network(r.address, r.size); !r.excluded {
			k.inclusions++
		}
		k.routes = append(k.routes, r)
	}
}

// network is what Address and PrefixSize say, and false if it makes no sense.
func (k *check) network(address, size *Node) (netip.Prefix, bool) {
	a, err := netip.ParseAddr(k.text(address))
	bits, err2 := strconv.Atoi(k.text(size))
	if err != nil || err2 != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, bits)
	return p, p.IsValid()
}

func checkNoRoutes(k *check) {
	n := k.native.child("DisableClassBasedDefaultRoute")
	if !k.forces() && k.isTrue(n) && k.inclusions == 0 && !k.isTrue(k.native.child("PlumbIKEv2TSAsRoutes")) {
		k.reportValue(n, nil, "there is no class-based route and no <Route>, so that nothing goes through the VPN")
	}
}

func checkClassBased(k *check) {
	if k.native != nil && !k.forces() && !k.isTrue(k.native.child("DisableClassBasedDefaultRoute")) {
		k.report(k.native, nil, "Windows adds a route by the class of the VPN's address")
	}
}

func checkRouteAddress(k *check) {
	for _, r := range k.routes {
		n := r.address
		if r.valid || n == nil || k.text(n) == "" {
			continue
		}
		if a, err := netip.ParseAddr(k.text(n)); err != nil || a.Zone() != "" {
			k.reportValue(n, nil, "%.60q isn't the address of a network", k.text(n))
		}
	}
}

func checkHostBits(k *check) {
	for _, r := range k.routes {
		if p, ok := r.network, r.valid; ok && p.Masked().Addr() != p.Addr() {
			n := r.address
			k.reportValue(n, k.setValue(n, p.Masked().Addr().String()), "%v isn't a network: that is %v", p, p.Masked())
		}
	}
}

func checkPrefixSize(k *check) {
	for _, r := range k.routes {
		if r.valid {
			continue
		}
		n := r.size
		a, err := netip.ParseAddr(k.text(r.address))
		bits, err2 := strconv.Atoi(k.text(n))
		if err == nil && err2 == nil && bits > a.BitLen() && bits <= 128 {
			k.reportValue(n, nil, "%d is more than the %d bits of %v", bits, a.BitLen(), a)
		}
	}
}

func checkRouteTwice(k *check) {
	seen := make(map[netip.Prefix]*Node, len(k.routes))
	for _, r := range k.routes {
		p, ok := r.network, r.valid
		if !ok {
			continue
		}
		if first := seen[p.Masked()]; first != nil {
			k.report(r.Node, nil, "the Route to %v is there at %v too", p.Masked(), k.doc.Position(first.Start))
			continue
		}
		seen[p.Masked()] = r.Node
	}
}

func checkIPv6Route(k *check) {
	for _, r := range k.routes {
		if p, ok := r.network, r.valid; ok && p.Addr().Is6() && !r.excluded {
			k.report(r.Node, nil, "the Route to %v has the connection fail where the gateway gives no IPv6 address", p)
			return // once is enough
		}
	}
}

func checkDefaultRoute(k *check) {
	if k.forces() {
		return
	}
	for _, r := range k.routes {
		if p, ok := r.network, r.valid; ok && p.Bits() == 0 {
			k.report(r.Node, nil, "a Route to %v in a split tunnel isn't a force tunnel", p)
		}
	}
}

func checkExclusion(k *check) {
	if k.forces() || k.inclusions == 0 || k.inclusions == len(k.routes) {
		return
	}
	var inside []netip.Prefix
	for _, r := range k.routes {
		if r.valid && !r.excluded {
			inside = append(inside, r.network.Masked())
		}
	}
	inside = outermost(inside)
	for _, r := range k.routes {
		if r.valid && r.excluded && !overlapsAny(inside, r.network.Masked()) {
			k.report(r.Node, nil, "%v isn't in any <Route>, so that there is nothing to exclude it from", r.network.Masked())
		}
	}
}

// outermost sorts networks by their addresses, and leaves out those that are in
// others.
func outermost(list []netip.Prefix) []netip.Prefix {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	keep := list[:0]
	for _, p := range list {
		if n := len(keep); n == 0 || !keep[n-1].Overlaps(p) {
			keep = append(keep, p)
		}
	}
	return keep
}

// overlapsAny reports whether a network is in one of a list that outermost made,
// or one of them in it: then it is the one before or the one after its address.
func overlapsAny(list []netip.Prefix, p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(list, p.Addr(), func(o netip.Prefix, a netip.Addr) int { return o.Addr().Compare(a) })
	return i < len(list) && list[i].Overlaps(p) || i > 0 && list[i-1].Overlaps(p)
}

func checkGatewayRoute(k *check) {
	var routes map[netip.Prefix]routeEntry // which few profiles need
	k.servers(func(_ *Node, address, _ string, _ bool) {
		a, err := netip.ParseAddr(address)
		if err != nil || a.Zone() != "" {
			return
		}
		if routes == nil {
			routes = k.routesByNetwork()
		}
		// The longest route wins, as in Windows.
		for bits := a.BitLen(); bits >= 0; bits-- {
			r, ok := routes[netip.PrefixFrom(a, bits).Masked()]
			if ok && !r.excluded {
				k.report(r.Node, nil, "the gateway %v is in %s", a, k.routeText(r))
			}
			if ok {
				return
			}
		}
	})
}

// routesByNetwork finds routes by where they lead.
func (k *check) routesByNetwork() map[netip.Prefix]routeEntry {
	routes := make(map[netip.Prefix]routeEntry, len(k.routes))
	for _, r := range k.routes {
		if r.valid {
			routes[r.network.Masked()] = r
		}
	}
	return routes
}

func checkRoutingMissing(k *check) {
	servers := k.native.child("Servers")
	if k.native == nil || k.native.child("RoutingPolicyType") != nil {
		return
	}
	var fix []Edit
	if servers != nil {
		fix = k.insertAfter(servers, "<RoutingPolicyType>SplitTunnel</RoutingPolicyType>")
	}
	k.report(k.native, fix, "there is no <RoutingPolicyType>, which means SplitTunnel")
}

// proxyRules are about the web proxy.
func proxyRules() []Rule {
	return []Rule{
		{
			ID: "AOV320", Severity: Warning, Title: "The proxy is ignored",
			Why:    "Windows uses the proxy of a profile with ForceTunnel only.",
			Remedy: "Use ForceTunnel, or a WebProxyServers in DomainNameInformation.",
			run:    checkProxySplit,
		},
		{
			ID: "AOV321", Severity: Warning, Title: "There are two proxies",
			Why:    "With both Manual and AutoConfigUrl, Manual counts.",
			Remedy: "Remove one.",
			run:    checkTwoProxies,
		},
		{
			ID: "AOV322", Severity: Error, Title: "The proxy isn't host:port, or the PAC file not a URL",
			Why:    "Windows doesn't understand it, and goes without a proxy, or nowhere.",
			Remedy: "Write proxy.example.com:8080, or https://example.com/proxy.pac.",
			run:    checkProxyForm,
		},
	}
}

func checkProxySplit(k *check) {
	if n := k.root.child("Proxy"); n != nil && k.native != nil && !k.forces() {
		k.report(n, nil, "the proxy is ignored with SplitTunnel")
	}
}

func checkTwoProxies(k *check) {
	proxy := k.root.child("Proxy")
	if n := proxy.child("AutoConfigUrl"); n != nil && proxy.child("Manual") != nil {
		k.report(n, nil, "AutoConfigUrl is ignored beside Manual")
	}
}

func checkProxyForm(k *check) {
	proxy := k.root.child("Proxy")
	if n := proxy.child("AutoConfigUrl"); k.text(n) != "" && !isWebURL(k.text(n)) {
		k.reportValue(n, nil, "%.60q isn't the URL of a PAC file", k.text(n))
	}
	n := proxy.at("Manual/Server")
	if n == nil || k.text(n) == "" {
		return
	}
	host, port, ok := strings.Cut(k.text(n), ":")
	p, err := strconv.Atoi(port)
	if !ok || err != nil || p < 1 || p > 65535 || !hostName(host) && !isAddr(host) {
		if _, err := netip.ParseAddrPort(k.text(n)); err != nil {
			k.reportValue(n, nil, "%.60q isn't host:port", k.text(n))
		}
	}
}
