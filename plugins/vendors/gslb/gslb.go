package gslb

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// A Name is a name to answer for.
type Name struct {
	// Path is where it is in the deployment: geo.names[0].
	Path string
	// Spec is what the deployment says of it.
	Spec *plugins.GeoName
	// FQDN is its name in lower case, without a dot at its end.
	FQDN string
	// TTL is how long an answer lives.
	TTL time.Duration
	// Tiers are its sites, in the order in which they serve: the second only while
	// the first is down.
	Tiers [][]*plugins.GeoSite
	// By says what brings clients to sites within a tier; nil if nothing does but
	// the method.
	By []string
}

// usualTTL is that of names that say nothing.
const usualTTL = 30 * time.Second

// Names returns the names of g, which is valid.
func Names(g *plugins.Geo) []Name {
	if g == nil {
		return nil
	}
	out := make([]Name, 0, len(g.Names))
	for i := range g.Names {
		spec := &g.Names[i]
		n := Name{Path: index("geo.names", i), Spec: spec, FQDN: Domain(spec.Name), TTL: cmp.Or(spec.TTL.D(), usualTTL)}
		for _, o := range spec.Order {
			if o != "priority" {
				n.By = append(n.By, o)
			}
		}
		n.Tiers = tiers(g, spec)
		out = append(out, n)
	}
	return out
}

// Domain returns a domain name in the form in which appliances have it.
func Domain(s string) string { return strings.ToLower(strings.TrimSuffix(s, ".")) }

// tiers sorts the sites of a name. Those of no weight come after those of some, where
// weights count.
func tiers(g *plugins.Geo, n *plugins.GeoName) [][]*plugins.GeoSite {
	var list []*plugins.GeoSite
	for i := range g.Sites {
		if s := &g.Sites[i]; len(n.Sites) == 0 || slices.Contains(n.Sites, s.Name) {
			list = append(list, s)
		}
	}
	if len(n.Sites) > 0 {
		slices.SortStableFunc(list, func(a, b *plugins.GeoSite) int { return slices.Index(n.Sites, a.Name) - slices.Index(n.Sites, b.Name) })
	}
	weighs := n.Method == "weighted" || n.Method == "hash"
	rank := func(s *plugins.GeoSite) [2]int {
		var r [2]int
		if slices.Contains(n.Order, "priority") {
			r[0] = s.Priority
		}
		if weighs && Weight(s) == 0 {
			r[1] = 1
		}
		return r
	}
	slices.SortStableFunc(list, func(a, b *plugins.GeoSite) int {
		x, y := rank(a), rank(b)
		return cmp.Or(cmp.Compare(x[0], y[0]), cmp.Compare(x[1], y[1]))
	})
	var out [][]*plugins.GeoSite
	for i, s := range list {
		if i == 0 || n.Method == "first" || rank(s) != rank(list[i-1]) {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], s)
	}
	return out
}

// Weight returns a site's weight.
func Weight(s *plugins.GeoSite) int {
	if s.Weight == nil {
		return 1
	}
	return *s.Weight
}

// Located reports whether where a client is has a say in its site.
func (n *Name) Located() bool { return len(n.By) > 0 }

// Sites returns the sites of all tiers.
func (n *Name) Sites() []*plugins.GeoSite { return slices.Concat(n.Tiers...) }

// A Member is an address of a gateway that clients get.
type Member struct {
	// Gateway is whose it is, Address the address.
	Gateway *plugins.GeoGateway
	Address netip.Addr
	// Nth counts the addresses of the same family that the gateway has, from 0.
	Nth int
}

// Probe returns the address at which the member is checked.
func (m *Member) Probe() netip.Addr {
	if m.Gateway.CheckAddress.IsValid() {
		return m.Gateway.CheckAddress
	}
	return m.Address
}

// Label is a name for the member within its site.
func (m *Member) Label() string {
	out := m.Gateway.Name
	if m.Address.Is6() {
		out += "_v6"
	}
	if m.Nth > 0 {
		out += "_" + string(rune('a'+min(m.Nth, 25)))
	}
	return out
}

// Families are the types of records that addresses are told by.
func Families() []string { return []string{"A", "AAAA"} }

// Members returns the addresses of a site for a type of record, A or AAAA.
func Members(s *plugins.GeoSite, record string) []Member {
	var out []Member
	for i := range s.Gateways {
		n := 0
		for _, a := range s.Gateways[i].Addresses {
			if (record == "AAAA") == a.Is6() {
				out = append(out, Member{Gateway: &s.Gateways[i], Address: a, Nth: n})
				n++
			}
		}
	}
	return out
}

// Has reports whether a name has an address of a type of record.
func (n *Name) Has(record string) bool {
	return slices.ContainsFunc(n.Sites(), func(s *plugins.GeoSite) bool { return len(Members(s, record)) > 0 })
}

// Weighs reports whether the weights of sites count for a name.
func (n *Name) Weighs() bool { return n.Spec.Method == "weighted" || n.Spec.Method == "hash" }

// Share returns the weight of each member of a site within its tier, from 1 to most, so
// that the site as a whole has its share however many gateways it has.
func Share(n *Name, tier []*plugins.GeoSite, s *plugins.GeoSite, record string, most int) int {
	of := func(s *plugins.GeoSite) float64 {
		w := 1.0
		if n.Weighs() && Weight(s) > 0 {
			w = float64(Weight(s))
		}
		return w / float64(max(len(Members(s, record)), 1))
	}
	least, greatest := math.Inf(1), 0.0
	whole := true
	for _, x := range tier {
		if len(Members(x, record)) == 0 {
			continue
		}
		least, greatest = min(least, of(x)), max(greatest, of(x))
		whole = whole && of(x) == math.Trunc(of(x))
	}
	switch {
	case least == greatest:
		return 1
	case whole && greatest <= float64(most):
		return int(of(s))
	}
	return max(int(math.Round(of(s)*float64(most)/greatest)), 1)
}

// Sites returns the sites that the names of g use, each once, in the order of g.
func Sites(g *plugins.Geo) []*plugins.GeoSite {
	if g == nil {
		return nil
	}
	used := make(map[string]bool)
	for _, n := range Names(g) {
		for _, s := range n.Sites() {
			used[s.Name] = true
		}
	}
	var out []*plugins.GeoSite
	for i := range g.Sites {
		if used[g.Sites[i].Name] {
			out = append(out, &g.Sites[i])
		}
	}
	return out
}

// Checks returns the checks of a site that decide, with what their zero fields mean.
// Those of kinds that the appliance only pings for are left out where another decides.
func Checks(s *plugins.GeoSite, pings ...plugins.CheckType) []plugins.Check {
	var out []plugins.Check
	for i := range s.Checks {
		if !s.Checks[i].Advisory {
			out = append(out, s.Checks[i].Usual())
		}
	}
	weak := func(c plugins.Check) bool { return slices.Contains(pings, c.Type) }
	if slices.ContainsFunc(out, func(c plugins.Check) bool { return !weak(c) }) {
		out = slices.DeleteFunc(out, weak)
	}
	return out
}

// Drained returns the sites of geo that a list of drains names.
func Drained(list []plugins.DrainRequest) map[string]bool {
	out := make(map[string]bool)
	for _, r := range list {
		if name, ok := r.GeoSite(); ok {
			out[name] = true
		}
	}
	return out
}
