package profilexml

import (
	"net/netip"
	"strings"
)

// nameRules are about DNS.
func nameRules() []Rule {
	return []Rule{
		{
			ID: "AOV401", Severity: Error, Title: "A DNS server isn't an address",
			Why:    "DnsServers holds addresses. Names, and placeholders that were left in a sample, have the rule refused.",
			Remedy: "Write addresses with commas between them.",
			run:    checkDNSServers,
		},
		{
			ID: "AOV402", Severity: Warning, Title: "DNS rules decide which networks are trusted",
			Why:    "Without TrustedNetworkDetection, Windows takes the names of DomainNameInformation that have DNS servers for it. With a dot alone, which is every name, it never connects by itself.",
			Remedy: "Add TrustedNetworkDetection with the DNS suffix of the internal network.",
			run:    checkTrustedByNames,
		},
		{
			ID: "AOV403", Severity: Warning, Title: "There are two DNS rules for one name",
			Why:    "The second doesn't add servers to the first: one of the two counts.",
			Remedy: "Make one rule with all servers.",
			run:    checkNameTwice,
		},
		{
			ID: "AOV404", Severity: Error, Title: "The name of a DNS rule isn't one",
			Why:    "A rule is for a suffix (.example.com), a host (www.example.com) or everything (a dot). Wildcards and URLs match nothing.",
			Remedy: "Write .example.com for all that ends so.",
			run:    checkRuleName,
		},
		{
			ID: "AOV405", Severity: Info, Title: "The VPN connects inside the company too",
			Why:    "Without TrustedNetworkDetection, an always-on connection is made in the office as well, and hides what is local.",
			Remedy: "Add TrustedNetworkDetection with the DNS suffix of the internal network.",
			run:    checkTrustMissing,
		},
		{
			ID: "AOV406", Severity: Error, Title: "A DNS suffix isn't one",
			Why:    "TrustedNetworkDetection and DnsSuffix hold DNS suffixes, without a dot before them, wildcards or URLs. A suffix that no network has is never trusted.",
			Remedy: "Write corp.example.com.",
			run:    checkSuffixes,
		},
		{
			ID: "AOV407", Severity: Error, Title: "A DNS rule has several web proxies",
			Why:    "WebProxyServers takes one, in spite of its name.",
			Remedy: "Leave one.",
			run:    checkRuleProxies,
		},
		{
			ID: "AOV408", Severity: Info, Title: "A DNS rule keeps a name out of the VPN's DNS",
			Why:    "A rule without DnsServers is an exception: its names are looked up as if there were no VPN.",
			Remedy: "Nothing, if that is meant.",
			run:    checkExemption,
		},
		{
			ID: "AOV409", Severity: Info, Title: "A DNS rule for every name is in a split tunnel",
			Why:    "All lookups go to the VPN's servers, so that services nearby, and the names of the local network, aren't found.",
			Remedy: "Make rules for the names that are inside.",
			run:    checkEveryName,
		},
		{
			ID: "AOV410", Severity: Warning, Title: "A DNS server isn't behind the VPN",
			Why:    "With DisableClassBasedDefaultRoute only what is in a Route goes through the VPN. Questions to this server leave by the local network, where nobody answers them, and its names aren't found.",
			Remedy: "Add a Route to the DNS server.",
			run:    checkDNSRoute,
		},
		{
			ID: "AOV411", Severity: Warning, Title: "The gateway's own name is looked up inside",
			Why:    "A DNS rule covers the name that the client connects to. While the VPN is up, or with Persistent, the name is asked of servers inside, which know another address or none; reconnecting and MOBIKE then fail.",
			Remedy: "Add a DomainNameInformation for the gateway's name alone, without DnsServers.",
			run:    checkGatewayName,
		},
	}
}

// checkDNSRoute looks each server up as Windows does: the longest route wins.
func checkDNSRoute(k *check) {
	if len(k.names) == 0 || k.forces() || k.inclusions == 0 || !k.isTrue(k.native.child("DisableClassBasedDefaultRoute")) || k.isTrue(k.native.child("PlumbIKEv2TSAsRoutes")) {
		return
	}
	inside := make(map[netip.Prefix]bool, len(k.routes))
	for _, r := range k.routes {
		if r.valid {
			inside[r.network.Masked()] = !r.excluded
		}
	}
	for _, d := range k.names {
		n := d.child("DnsServers")
		for _, s := range k.items(n, ",") {
			a, err := netip.ParseAddr(s)
			if err == nil && a.Zone() == "" && !routed(inside, a) {
				k.reportValue(n, nil, "no <Route> leads to the DNS server %v", a)
			}
		}
	}
}

func routed(inside map[netip.Prefix]bool, a netip.Addr) bool {
	for bits := a.BitLen(); bits >= 0; bits-- {
		if in, ok := inside[netip.PrefixFrom(a, bits).Masked()]; ok {
			return in
		}
	}
	return false
}

func checkGatewayName(k *check) {
	rules := make(map[string]*Node, len(k.names))
	for _, d := range k.names {
		name := strings.ToLower(k.text(d.child("DomainName")))
		if rules[name] == nil {
			rules[name] = d
		}
	}
	k.servers(func(_ *Node, address, _ string, _ bool) {
		host := strings.ToLower(strings.TrimSuffix(address, "."))
		if !hostName(host) || isAddr(host) {
			return
		}
		d := rules[host]
		for rest := "." + host; d == nil && rest != ""; {
			d = rules[rest]
			i := strings.IndexByte(rest[1:], '.')
			if i < 0 {
				break
			}
			rest = rest[1+i:]
		}
		if d != nil && d.child("DnsServers") != nil {
			k.report(d, nil, "%s, the gateway, is looked up at the servers of this rule", host)
		}
	})
}

func checkDNSServers(k *check) {
	for _, d := range k.names {
		n := d.child("DnsServers")
		for _, s := range k.items(n, ",") {
			if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
				k.reportValue(n, nil, "%.60q isn't the address of a DNS server", s)
			}
		}
	}
}

// connectsItself reports whether anything connects the profile unasked.
func (k *check) connectsItself() bool {
	if k.alwaysOn() || k.root.child("AppTrigger") != nil {
		return true
	}
	for _, d := range k.names {
		if k.isTrue(d.child("AutoTrigger")) {
			return true
		}
	}
	return false
}

func checkTrustedByNames(k *check) {
	if k.root.child("TrustedNetworkDetection") != nil || !k.connectsItself() || k.isDevice() {
		return
	}
	var named *Node
	for _, d := range k.names {
		if d.child("DnsServers") == nil {
			continue
		}
		if k.text(d.child("DomainName")) == "." {
			k.add(d.Start, d, Error, nil, "without <TrustedNetworkDetection> this rule for every name keeps the VPN from connecting by itself anywhere")
			return
		}
		if named == nil {
			named = d
		}
	}
	if named != nil {
		k.report(named, nil, "without <TrustedNetworkDetection> Windows trusts networks whose suffix is the name of a DNS rule, such as %.60q", k.text(named.child("DomainName")))
	}
}

func checkNameTwice(k *check) {
	seen := make(map[string]*Node, len(k.names))
	for _, d := range k.names {
		name := strings.ToLower(k.text(d.child("DomainName")))
		if first := seen[name]; first != nil && name != "" {
			k.report(d, nil, "the rule for %.60q is there at %v too", name, k.doc.Position(first.Start))
			continue
		}
		seen[name] = d
	}
}

func checkRuleName(k *check) {
	for _, d := range k.names {
		n := d.child("DomainName")
		s := k.text(n)
		if s != "" && s != "." && !hostName(strings.TrimPrefix(s, ".")) {
			k.reportValue(n, nil, "%.60q is neither a suffix such as .example.com, a host, nor a dot", s)
		}
	}
}

func checkTrustMissing(k *check) {
	n := k.root.child("AlwaysOn")
	if k.isTrue(n) && !k.isDevice() && !k.isTrue(k.root.child("LockDown")) && k.root.child("TrustedNetworkDetection") == nil && len(k.names) == 0 {
		k.report(n, nil, "it connects inside the company too: there is no <TrustedNetworkDetection>")
	}
}

func checkSuffixes(k *check) {
	for _, name := range []string{"TrustedNetworkDetection", "DnsSuffix"} {
		n := k.root.child(name)
		for _, s := range k.items(n, ",") {
			// A network is also trusted by its name, which may be anything
			// but has no dots where it is one.
			plain := name == "TrustedNetworkDetection" && !strings.ContainsAny(s, ".*/;")
			if !hostName(s) && !plain {
				k.reportValue(n, nil, "%.60q isn't a DNS suffix", s)
			}
		}
	}
}

func checkRuleProxies(k *check) {
	for _, d := range k.names {
		if n := d.child("WebProxyServers"); strings.ContainsAny(k.text(n), ",;") {
			k.reportValue(n, nil, "%.60q is more than one web proxy", k.text(n))
		}
	}
}

func checkExemption(k *check) {
	for _, d := range k.names {
		if d.child("DnsServers") == nil && d.child("WebProxyServers") == nil && !k.isTrue(d.child("AutoTrigger")) {
			k.report(d, nil, "%.60q is kept out of the VPN's DNS", k.text(d.child("DomainName")))
		}
	}
}

func checkEveryName(k *check) {
	if k.native == nil || k.forces() {
		return
	}
	for _, d := range k.names {
		if k.text(d.child("DomainName")) == "." && d.child("DnsServers") != nil {
			k.report(d, nil, "every name is looked up through the VPN")
		}
	}
}

// triggerRules are about what connects the VPN.
func triggerRules() []Rule {
	return []Rule{
		{
			ID: "AOV420", Severity: Info, Title: "Nothing connects the VPN",
			Why:    "There is neither AlwaysOn nor a trigger by app or name, so that users connect by hand.",
			Remedy: "Set AlwaysOn to true, if it is to be always on.",
			run:    checkNoTrigger,
		},
		{
			ID: "AOV421", Severity: Warning, Title: "AlwaysOn makes triggers pointless",
			Why:    "An always-on connection is there already when an app starts or a name is looked up.",
			Remedy: "Remove AppTrigger and AutoTrigger, or AlwaysOn.",
			run:    checkTriggerToo,
		},
		{
			ID: "AOV422", Severity: Error, Title: "An app isn't named by its package family name or path",
			Why:    "Id is what the start of a program is compared with: the package family name of an app from the Store, or the whole path of a program. A program's name alone matches nothing.",
			Remedy: `Write C:\Program Files\App\app.exe, or the package family name that Get-AppxPackage shows.`,
			visit:  checkAppID,
		},
	}
}

func checkNoTrigger(k *check) {
	if k.root != nil && !k.connectsItself() && k.root.child("EdpModeId") == nil {
		k.report(k.root, nil, "nothing connects it: there is neither AlwaysOn nor a trigger")
	}
}

func checkTriggerToo(k *check) {
	if !k.isTrue(k.root.child("AlwaysOn")) {
		return
	}
	for _, n := range k.root.all("AppTrigger") {
		k.report(n, nil, "AlwaysOn connects before the app does")
	}
	for _, d := range k.names {
		if n := d.child("AutoTrigger"); k.isTrue(n) {
			k.report(n, nil, "AlwaysOn connects before the name is looked up")
		}
	}
}

func checkAppID(k *check, n *Node) {
	if n.spec == nil || n.spec.Name != "Id" {
		return
	}
	s := k.text(n)
	path := strings.ContainsAny(s, `\%`)
	family := isFamilyName(s)
	filter := n.spec.parent.parent.Name == "TrafficFilter" && strings.EqualFold(s, "SYSTEM")
	if s != "" && !path && !family && !filter {
		k.reportValue(n, nil, "%.60q is neither a package family name nor a path", s)
	}
}

// isFamilyName reports whether s looks like a package family name: a name, an
// underscore, and the 13 characters of the publisher's hash.
func isFamilyName(s string) bool {
	name, publisher, ok := strings.Cut(s, "_")
	return ok && name != "" && len(publisher) == 13 && strings.Trim(strings.ToLower(publisher), "abcdefghijklmnopqrstuvwxyz0123456789") == ""
}
