package geo

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Criterion says what makes a site better than another for a client.
type Criterion uint8

const (
	// ByPriority prefers sites with a lower Site.Priority, whoever asks.
	ByPriority Criterion = iota + 1
	// ByNetwork prefers the sites whose Area has the longest network that
	// holds the client.
	ByNetwork
	// ByASN prefers sites for the client's autonomous system.
	ByASN
	// BySubdivision prefers sites for the client's state or province.
	BySubdivision
	// ByCountry prefers sites for the client's country.
	ByCountry
	// ByContinent prefers sites for the client's continent.
	ByContinent
	// ByDistance prefers sites that are nearer, or whose Region is. Clients
	// and sites without coordinates are as far as can be.
	ByDistance
)

// ByLocation is the usual chain of criteria for clients at known locations, each
// of which decides only where the ones before don't.
func ByLocation() []Criterion {
	return []Criterion{ByNetwork, ByASN, BySubdivision, ByCountry, ByContinent}
}

var criterionNames = [...]string{
	ByPriority: "priority", ByNetwork: "network", ByASN: "asn", BySubdivision: "subdivision",
	ByCountry: "country", ByContinent: "continent", ByDistance: "distance",
}

// String returns the name, such as distance.
func (c Criterion) String() string {
	if c == 0 || int(c) >= len(criterionNames) {
		return fmt.Sprintf("criterion %d", c)
	}
	return criterionNames[c]
}

// ParseCriterion returns the Criterion of a name.
func ParseCriterion(name string) (Criterion, error) {
	if i := slices.Index(criterionNames[1:], name); i >= 0 {
		return Criterion(i + 1), nil
	}
	return 0, fmt.Errorf("geo: no criterion %q: there are %s", name, strings.Join(criterionNames[1:], ", "))
}

// A Method says how to choose among the sites of one tier.
type Method uint8

const (
	// RoundRobin takes each in turn. What turn it is depends on the time and
	// on who asks, so that many servers share it out alike.
	RoundRobin Method = iota
	// Weighted takes each as often as its Weight says.
	Weighted
	// Hash gives each client always the same, as many clients to each as its
	// Weight says; if a site is lost only its own clients move.
	Hash
	// LeastLoad takes the one that has the least of its capacity in use.
	LeastLoad
	// First takes the first by Priority and then by name.
	First
	// All answers with several at once.
	All
)

var methodNames = [...]string{RoundRobin: "round-robin", Weighted: "weighted", Hash: "hash", LeastLoad: "least-load", First: "first", All: "all"}

// String returns the name, such as round-robin.
func (m Method) String() string {
	if int(m) >= len(methodNames) {
		return fmt.Sprintf("method %d", m)
	}
	return methodNames[m]
}

// ParseMethod returns the Method of a name.
func ParseMethod(name string) (Method, error) {
	if i := slices.Index(methodNames[:], name); i >= 0 {
		return Method(i), nil
	}
	return 0, fmt.Errorf("geo: no method %q: there are %s", name, strings.Join(methodNames[:], ", "))
}

// AllDown says what to answer when no site is left.
type AllDown uint8

const (
	// AsIfUp answers what would be answered if all sites were up, but for
	// those an administrator has closed.
	AsIfUp AllDown = iota
	// LastResort answers Policy.LastResort.
	LastResort
	// NoData says that there is no address, for a short while.
	NoData
	// ServFail says that it can't tell: resolvers ask another server, or use
	// what they had before.
	ServFail
)

var allDownNames = [...]string{AsIfUp: "as-if-up", LastResort: "last-resort", NoData: "nodata", ServFail: "servfail"}

// String returns the name, such as as-if-up.
func (a AllDown) String() string {
	if int(a) >= len(allDownNames) {
		return fmt.Sprintf("all-down %d", a)
	}
	return allDownNames[a]
}

// ParseAllDown returns the AllDown of a name.
func ParseAllDown(name string) (AllDown, error) {
	if i := slices.Index(allDownNames[:], name); i >= 0 {
		return AllDown(i), nil
	}
	return 0, fmt.Errorf("geo: no answer %q when all are down: there are %s", name, strings.Join(allDownNames[:], ", "))
}

// A Horizon is a group of clients who get other addresses than the world: the
// [Gateway.Inside] ones of its name, and only the sites that have such.
type Horizon struct {
	// Name identifies it.
	Name string
	// Networks are its clients' addresses.
	Networks []netip.Prefix
}

// Policy says how sites are chosen for one service. Its zero value takes all
// sites in turn.
type Policy struct {
	// Order sorts sites into tiers: each Criterion divides the tiers that the
	// ones before have made. The first tier with a site that is up serves.
	// Empty makes one tier of all.
	Order []Criterion
	// Method chooses within the tier.
	Method Method
	// Nearest is how many distances ByDistance tells apart, the others being
	// equal; it bounds how many rankings there are. 0 means 3.
	Nearest int
	// HashBits4 and HashBits6 are how much of a client's address Hash looks
	// at; 0 means 24 and 56.
	HashBits4, HashBits6 int
	// Answers is how many sites All answers with, the best first, also from
	// later tiers; 0 means all of the tier.
	Answers int
	// AllDown says what to answer when no site is left.
	AllDown AllDown
	// LastResort are the addresses for it.
	LastResort []netip.Addr
	// Slot is how long a turn of RoundRobin and Weighted lasts; 0 means 30 s.
	// The time to live of the answers is a good choice.
	Slot time.Duration
	// Horizons divide the clients.
	Horizons []Horizon
}

const (
	defaultNearest   = 3
	defaultHashBits4 = 24
	defaultHashBits6 = 56
	defaultSlot      = 30 * time.Second
)

// Validate returns every fault of a Policy, joined.
func (p *Policy) Validate() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf("geo: policy: "+format, args...)) }
	seen := make(map[Criterion]bool)
	for _, c := range p.Order {
		if c == 0 || int(c) >= len(criterionNames) {
			add("%v is unknown", c)
		}
		if seen[c] {
			add("order has %v twice", c)
		}
		seen[c] = true
	}
	if int(p.Method) >= len(methodNames) {
		add("%v is unknown", p.Method)
	}
	if int(p.AllDown) >= len(allDownNames) {
		add("%v is unknown", p.AllDown)
	}
	if (p.AllDown == LastResort) != (len(p.LastResort) > 0) {
		add("addresses of last resort and all-down %v need each other", LastResort)
	}
	if p.Nearest < 0 || p.Answers < 0 || p.Slot < 0 {
		add("nearest, answers and slot can't be less than 0")
	}
	if p.HashBits4 < 0 || p.HashBits4 > 32 || p.HashBits6 < 0 || p.HashBits6 > 128 {
		add("a hash looks at 0 to 32 bits of IPv4 and 0 to 128 of IPv6")
	}
	names := make(map[string]bool)
	for _, h := range p.Horizons {
		if h.Name == "" || names[h.Name] {
			add("horizon %q needs a name of its own", h.Name)
		}
		names[h.Name] = true
		if len(h.Networks) == 0 {
			add("horizon %q has no networks", h.Name)
		}
	}
	return errors.Join(errs...)
}

// facts are what decides about the ranking of a client.
type facts struct {
	place   Place
	horizon int // 0 is the world
	network int // the longest network of a site that holds the client; 0 is none
}

// score says how good a site is by one criterion: less is better.
func (pl *Plan) score(c Criterion, site int, f *facts) float64 {
	s := &pl.sites[site]
	match := func(ok bool) float64 {
		if ok {
			return 0
		}
		return 1
	}
	switch c {
	case ByPriority:
		return float64(s.Priority)
	case ByNetwork:
		return -float64(pl.networkBits(f.network, site))
	case ByASN:
		return match(f.place.ASN != 0 && in(f.place.ASN, s.Serves.ASNs, s.Place.ASN))
	case BySubdivision:
		return match(f.place.Subdivision != "" && in(f.place.Subdivision, s.Serves.Subdivisions, s.Place.Subdivision))
	case ByCountry:
		return match(f.place.Country != "" && in(f.place.Country, s.Serves.Countries, s.Place.Country))
	case ByContinent:
		return match(f.place.Continent != "" && in(f.place.Continent, s.Serves.Continents, s.Place.Continent))
	case ByDistance:
		return pl.distance(site, f)
	}
	return 0
}

// in reports whether v is in list, or is own if the list is empty.
func in[T comparable](v T, list []T, own T) bool {
	if len(list) == 0 {
		return v == own
	}
	return slices.Contains(list, v)
}

// distance is that of the site's region, in whole kilometres.
func (pl *Plan) distance(site int, f *facts) float64 {
	if !f.place.Located {
		return math.Inf(1)
	}
	near := math.Inf(1)
	for _, i := range pl.regions[site] {
		if s := &pl.sites[i]; s.Place.Located {
			near = min(near, math.Round(Distance(s.Place.Coordinates, f.place.Coordinates)))
		}
	}
	return near
}

// outside reports whether a site is not for a client at all.
func (pl *Plan) outside(site int, f *facts) bool {
	s := &pl.sites[site]
	if !s.Only {
		return false
	}
	a, p := &s.Serves, &f.place
	return pl.networkBits(f.network, site) < 0 &&
		!(p.ASN != 0 && slices.Contains(a.ASNs, p.ASN)) &&
		!(p.Subdivision != "" && slices.Contains(a.Subdivisions, p.Subdivision)) &&
		!(p.Country != "" && slices.Contains(a.Countries, p.Country)) &&
		!(p.Continent != "" && slices.Contains(a.Continents, p.Continent))
}

// rank sorts the sites into tiers.
func (pl *Plan) rank(f *facts) (tiers [][]int) {
	type scored struct {
		site   int
		scores []float64
	}
	var list []scored
	for i := range pl.sites {
		if !pl.answers(i, f.horizon) || pl.outside(i, f) {
			continue
		}
		s := scored{site: i}
		for _, c := range pl.policy.Order {
			s.scores = append(s.scores, pl.score(c, i, f))
		}
		list = append(list, s)
	}
	if at := slices.Index(pl.policy.Order, ByDistance); at >= 0 {
		var all []float64
		for _, s := range list {
			all = append(all, s.scores[at])
		}
		slices.Sort(all)
		all = slices.Compact(all)
		if len(all) > pl.nearest {
			for i := range list {
				list[i].scores[at] = min(list[i].scores[at], all[pl.nearest])
			}
		}
	}
	slices.SortStableFunc(list, func(a, b scored) int {
		return cmp.Or(slices.Compare(a.scores, b.scores), cmp.Compare(pl.sites[a.site].Priority, pl.sites[b.site].Priority),
			cmp.Compare(pl.sites[a.site].Name, pl.sites[b.site].Name))
	})
	for i, s := range list {
		if i == 0 || !slices.Equal(s.scores, list[i-1].scores) {
			tiers = append(tiers, nil)
		}
		last := len(tiers) - 1
		tiers[last] = append(tiers[last], s.site)
	}
	return tiers
}
