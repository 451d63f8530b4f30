package gslb

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Limits are what an appliance can do of names.
type Limits struct {
	// Product is what it is called in sentences: NetScaler.
	Product string
	// Wildcards says that it answers for *.example.com.
	Wildcards bool
	// WideTiers says that several sites may be equal in a tier while there are
	// further tiers.
	WideTiers bool
	// By are the criteria of order besides priority that it knows, and Near are
	// those that it does in part, with what happens instead.
	By   []string
	Near map[string]string
	// MostTTL is the longest time to live.
	MostTTL time.Duration
	// Together says that an answer holds all gateways of a site.
	Together bool
	// AllDown says what is answered when no site is left, by what was asked for, if
	// that is something else; as-if-up is what names that say nothing ask for.
	AllDown map[string]string
}

// Advice is what is said of a deployment's geo; nil is ready for use.
type Advice []plugins.Diagnostic

// Say adds a diagnostic of what path names.
func (a *Advice) Say(severity plugins.Severity, path, summary, detail, fix string) {
	*a = append(*a, plugins.Diagnostic{Severity: severity, Path: path, Summary: summary, Detail: detail, Fix: fix})
}

// Alone says that the method of n counts for nothing where clients are led by where they
// are, if so: that holds for appliances whose names have one way to choose a site.
func (a *Advice) Alone(n *Name) {
	if n.Located() && !slices.Contains([]string{"", "round-robin", "first"}, n.Spec.Method) {
		a.Say(plugins.SeverityWarning, n.Path+".method", "where a client is decides alone", "sites that are equally near take turns, whatever the method", "leave out order or method")
	}
}

func index(at string, i int) string { return fmt.Sprintf("%s[%d]", at, i) }

// Advise says what becomes of names and sites that a list of fields can't say.
func (l *Limits) Advise(g *plugins.Geo) Advice {
	a := &adviser{Limits: l}
	for _, n := range Names(g) {
		a.name(&n)
	}
	a.once(g)
	a.unused(g)
	for i := range g.Sites {
		s, at := &g.Sites[i], index("geo.sites", i)
		for k := range s.Gateways {
			if gw := &s.Gateways[k]; len(gw.Addresses) == 0 {
				a.Say(plugins.SeverityWarning, index(at+".gateways", k)+".addresses", "it has none for clients outside", "clients never get it", "")
			}
		}
	}
	return a.Advice
}

type adviser struct {
	*Limits
	Advice
}

func (a *adviser) name(n *Name) {
	switch {
	case strings.HasPrefix(n.FQDN, "*.") && !a.Wildcards:
		a.Say(plugins.SeverityError, n.Path+".name", a.Product+" answers for single names only", "", "name each of them")
	case !strings.Contains(n.FQDN, "."):
		a.Say(plugins.SeverityError, n.Path+".name", a.Product+" wants a name with a dot in it", "", "write the whole name")
	}
	if !n.Has("A") && !n.Has("AAAA") {
		a.Say(plugins.SeverityError, n.Path+".sites", "none of its sites has an address for clients outside", "there would be nothing to answer with", "give a gateway addresses")
	}
	a.order(n)
	switch {
	case n.TTL > a.MostTTL && a.MostTTL > 0:
		a.Say(plugins.SeverityWarning, n.Path+".ttl", fmt.Sprintf("%v is longer than %s can say", plugins.Duration(n.TTL), a.Product), fmt.Sprintf("it is %v", plugins.Duration(a.MostTTL)), "")
	case n.TTL%time.Second != 0:
		a.Say(plugins.SeverityInfo, n.Path+".ttl", "it is rounded up to whole seconds", "", "")
	}
	if is, other := a.AllDown[n.Spec.AllDown]; other {
		severity := plugins.SeverityWarning
		if n.Spec.AllDown == "" {
			severity = plugins.SeverityInfo
		}
		a.Say(severity, n.Path+".all_down", "when no site is left it isn't answered so", is, "")
	}
	if several := func(s *plugins.GeoSite) bool { return len(Members(s, "A")) > 1 || len(Members(s, "AAAA")) > 1 }; !a.Together && n.Spec.Method != "all" && slices.ContainsFunc(n.Sites(), several) {
		a.Say(plugins.SeverityInfo, n.Path, "an answer has the address of one gateway", "gateways of a site that are up share its clients", "")
	}
}

// unused says what sites say that no name asks for.
func (a *adviser) unused(g *plugins.Geo) {
	weighs, ordered := false, false
	for _, n := range Names(g) {
		weighs, ordered = weighs || n.Weighs(), ordered || slices.Contains(n.Spec.Order, "priority")
	}
	for i := range g.Sites {
		s, at := &g.Sites[i], index("geo.sites", i)
		if s.Weight != nil && !weighs {
			a.Say(plugins.SeverityInfo, at+".weight", "no name goes by weight, so it has no effect", "", "")
		}
		if s.Priority != 0 && !ordered {
			a.Say(plugins.SeverityInfo, at+".priority", "no name goes by priority, so it has no effect", "", "")
		}
	}
}

// once says which gateways are of several sites: an appliance knows an address once.
func (a *adviser) once(g *plugins.Geo) {
	seen := make(map[netip.Addr]string)
	for i := range g.Sites {
		for k, gw := range g.Sites[i].Gateways {
			for j, addr := range gw.Addresses {
				at := fmt.Sprintf("geo.sites[%d].gateways[%d].addresses[%d]", i, k, j)
				if first, dup := seen[addr]; dup {
					a.Say(plugins.SeverityError, at, fmt.Sprintf("%v is %s already", addr, first), a.Product+" knows each address of a gateway once", "give names the sites that have it")
				}
				seen[addr] = strings.TrimSuffix(at, fmt.Sprintf(".addresses[%d]", j))
			}
		}
	}
}

// order judges what brings clients to sites.
func (a *adviser) order(n *Name) {
	for i, o := range n.Spec.Order {
		at := index(n.Path+".order", i)
		switch near, ok := a.Near[o]; {
		case o == "priority" && len(n.By) > 0 && i > 0:
			a.Say(plugins.SeverityWarning, at, "priority comes first here", "another priority serves only while all sites of the one before it are down, wherever the client is", "put priority first")
		case o == "priority" || slices.Contains(a.By, o):
		case ok:
			a.Say(plugins.SeverityWarning, at, o+" is done only in part", near, "")
		default:
			a.Say(plugins.SeverityError, at, a.Product+" knows nothing of it", "", "leave it out")
		}
	}
	if len(n.Tiers) < 2 || a.WideTiers {
		return
	}
	for _, t := range n.Tiers {
		if len(t) > 1 {
			a.Say(plugins.SeverityError, n.Path+".order", fmt.Sprintf("%s and %s serve at the same time, and others only after them", t[0].Name, t[1].Name),
				a.Product+" has sites either one after the other, or all at once", "give each site a priority of its own, or all the same; a weight of 0 counts as a lower priority")
			return
		}
	}
}

// Seconds returns a time to live in seconds, as far as the appliance can say it.
func (l *Limits) Seconds(n *Name) int {
	d := n.TTL
	if l.MostTTL > 0 {
		d = min(d, l.MostTTL)
	}
	return int((d + time.Second - 1) / time.Second)
}
