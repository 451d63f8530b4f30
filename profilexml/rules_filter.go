package profilexml

import (
	"net/netip"
	"strconv"
	"strings"
)

// filterRules are about traffic filters.
func filterRules() []Rule {
	return []Rule{
		{
			ID: "AOV501", Severity: Error, Title: "A traffic filter has ports without a protocol that has ports",
			Why:    "Ports mean something with Protocol 6 (TCP) or 17 (UDP) only; otherwise the filter is refused.",
			Remedy: "Add Protocol 6 or 17, one filter for each.",
			run:    checkFilterPorts,
		},
		{
			ID: "AOV502", Severity: Error, Title: "A list of ports isn't one",
			Why:    "Ports are numbers from 0 to 65535, ranges with a hyphen, and commas between them.",
			Remedy: "Write 80,443,8000-8100.",
			run:    checkPortLists,
		},
		{
			ID: "AOV503", Severity: Warning, Title: "A traffic filter's local addresses are ignored",
			Why:    "Of LocalAddressRanges and RemoteAddressRanges in one filter, Windows takes the remote ones alone.",
			Remedy: "Make two filters.",
			run:    checkFilterAddresses,
		},
		{
			ID: "AOV504", Severity: Error, Title: "A list of addresses isn't one",
			Why:    "Addresses, prefixes such as 10.0.0.0/8, and ranges such as 10.0.0.1-10.0.0.9, with commas between them.",
			Remedy: "Correct what is named.",
			run:    checkAddressLists,
		},
		{
			ID: "AOV505", Severity: Warning, Title: "Traffic filters and IPv6 don't go together",
			Why:    "A client with an IPv6 address in the tunnel doesn't connect, or nothing passes, if there are traffic filters.",
			Remedy: "Have gateways give out IPv4 addresses alone, or do without the filters.",
			run:    checkFilterIPv6,
		},
		{
			ID: "AOV506", Severity: Warning, Title: "A traffic filter's routing policy means nothing",
			Why:    "RoutingPolicyType in a filter says how the traffic of an app goes; without App there is none.",
			Remedy: "Add App, or remove RoutingPolicyType.",
			run:    checkFilterRouting,
		},
		{
			ID: "AOV507", Severity: Info, Title: "Traffic filters block all else",
			Why:    "As soon as there is one filter, what no filter allows is blocked, both ways: management of the client from inside included.",
			Remedy: "Add a filter with Direction Inbound for what must reach the client.",
			run:    checkFilterBlocks,
		},
		{
			ID: "AOV508", Severity: Error, Title: "A traffic filter says nothing",
			Why:    "A filter without a condition allows everything, or isn't taken.",
			Remedy: "Say what it is for, or remove it.",
			run:    checkFilterEmpty,
		},
	}
}

func checkFilterPorts(k *check) {
	for _, f := range k.filters {
		if k.is(f.child("Protocol"), "6") || k.is(f.child("Protocol"), "17") {
			continue
		}
		for _, name := range []string{"LocalPortRanges", "RemotePortRanges"} {
			if n := f.child(name); n != nil {
				k.report(n, nil, "<%s> needs <Protocol> 6 or 17", name)
			}
		}
	}
}

func checkPortLists(k *check) {
	for _, f := range k.filters {
		for _, name := range []string{"LocalPortRanges", "RemotePortRanges"} {
			n := f.child(name)
			for _, s := range k.items(n, ",") {
				if !isPortRange(s) {
					k.reportValue(n, nil, "%.40q is neither a port nor a range", s)
				}
			}
		}
	}
}

func isPortRange(s string) bool {
	first, last, isRange := strings.Cut(s, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil || !isRange {
		return err == nil
	}
	b, err := strconv.ParseUint(last, 10, 16)
	return err == nil && a <= b
}

func checkFilterAddresses(k *check) {
	for _, f := range k.filters {
		if n := f.child("LocalAddressRanges"); n != nil && f.child("RemoteAddressRanges") != nil {
			k.report(n, nil, "<LocalAddressRanges> is ignored beside <RemoteAddressRanges>")
		}
	}
}

func checkAddressLists(k *check) {
	for _, f := range k.filters {
		for _, name := range []string{"LocalAddressRanges", "RemoteAddressRanges"} {
			n := f.child(name)
			for _, s := range k.items(n, ",") {
				if !isAddressRange(s) {
					k.reportValue(n, nil, "%.60q is neither an address, a prefix nor a range", s)
				}
			}
		}
	}
}

func isAddressRange(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil || isAddr(s) {
		return true
	}
	first, last, _ := strings.Cut(s, "-")
	a, err := netip.ParseAddr(first)
	b, err2 := netip.ParseAddr(last)
	return err == nil && err2 == nil && a.BitLen() == b.BitLen() && !b.Less(a)
}

func checkFilterIPv6(k *check) {
	if len(k.filters) == 0 {
		return
	}
	for _, r := range k.routes {
		if p, ok := r.network, r.valid; ok && p.Addr().Is6() {
			k.report(k.filters[0], nil, "there are traffic filters, and an IPv6 Route at %v", k.doc.Position(r.Start))
			return
		}
	}
}

func checkFilterRouting(k *check) {
	for _, f := range k.filters {
		if n := f.child("RoutingPolicyType"); n != nil && f.child("App") == nil {
			k.report(n, nil, "<RoutingPolicyType> means nothing without <App>")
		}
	}
}

func checkFilterBlocks(k *check) {
	if len(k.filters) == 0 {
		return
	}
	for _, f := range k.filters {
		if k.is(f.child("Direction"), "Inbound") {
			return
		}
	}
	k.report(k.filters[0], nil, "what no filter allows is blocked, and none is for inbound traffic")
}

func checkFilterEmpty(k *check) {
	for _, f := range k.filters {
		if !f.hasElements() {
			k.report(f, nil, "<TrafficFilter> says nothing")
		}
	}
}
