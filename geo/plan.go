package geo

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// A Plan is a Policy worked out for a set of sites and all addresses. It is
// immutable.
type Plan struct {
	policy  Policy
	sites   []Site
	locator Locator
	nearest int

	keys     []uint64       // of each site, a number made from its name
	regions  [][]int        // of each site, the sites of its region
	networks []network      // from 1: those of the sites' areas
	byNet    blocks[int]    // to networks
	horizons blocks[int]    // to horizon, from 1
	rankings []Ranking      // by class
	classes  map[string]int // rankings by what they are, while compiling
	classMap *prefixMap
}

// network is a network of one or more sites' areas.
type network struct {
	prefix netip.Prefix
	sites  map[int]bool
	parent int // the next longer one that holds it
}

// A Ranking is an order of sites, as numbers in Plan.Sites.
type Ranking struct {
	// Horizon is the number of the horizon from 1; 0 is the world.
	Horizon int
	// Tiers are the sites, the best tier first, and in each by priority and
	// name.
	Tiers [][]int
}

// Compile works out the policy for a set of sites. locator knows where
// addresses are; nil means [Nowhere].
//
// It asks locator for every block of addresses, which takes seconds with a
// database of cities: progress, if not nil, is called now and then with the
// part done, 0 to 1; an error from it ends the work and is returned.
func (p *Policy) Compile(sites []Site, locator Locator, progress func(done float64) error) (*Plan, error) {
	if err := errors.Join(p.Validate(), Validate(sites...)); err != nil {
		return nil, err
	}
	if locator == nil {
		locator = Nowhere{}
	}
	pl := &Plan{policy: *p, sites: slices.Clone(sites), locator: locator, nearest: p.Nearest, classes: make(map[string]int)}
	if pl.nearest == 0 {
		pl.nearest = defaultNearest
	}
	if pl.policy.HashBits4 == 0 {
		pl.policy.HashBits4 = defaultHashBits4
	}
	if pl.policy.HashBits6 == 0 {
		pl.policy.HashBits6 = defaultHashBits6
	}
	if pl.policy.Slot == 0 {
		pl.policy.Slot = defaultSlot
	}
	if err := pl.index(); err != nil {
		return nil, err
	}
	memo := make(map[facts]uint32)
	var failed error
	m, err := buildMap(func(a netip.Addr) (uint32, netip.Prefix) {
		f, block := pl.facts(a)
		class, ok := memo[f]
		if !ok {
			var err error
			if class, err = pl.class(&f); err != nil {
				failed = err
				return 0, whole(a)
			}
			memo[f] = class
		}
		return class, block
	}, progress)
	if err = errors.Join(failed, err); err != nil {
		return nil, err
	}
	pl.classMap, pl.classes = m, nil
	return pl, nil
}

// index prepares what ranking needs.
func (pl *Plan) index() error {
	byRegion := make(map[string][]int)
	for i := range pl.sites {
		pl.keys = append(pl.keys, hashString(pl.sites[i].Name))
		r := pl.sites[i].Region
		byRegion[r] = append(byRegion[r], i)
	}
	for i := range pl.sites {
		if r := pl.sites[i].Region; r != "" {
			pl.regions = append(pl.regions, byRegion[r])
		} else {
			pl.regions = append(pl.regions, []int{i})
		}
	}
	var errs []error
	for i, h := range pl.policy.Horizons {
		for _, n := range h.Networks {
			if err := pl.horizons.add(n, i+1); err != nil {
				errs = append(errs, fmt.Errorf("horizon %q: %w", h.Name, err))
			}
		}
	}
	errs = append(errs, pl.indexNetworks()...)
	return errors.Join(errs...)
}

func (pl *Plan) indexNetworks() (errs []error) {
	pl.networks = []network{{}} // none
	at := make(map[netip.Prefix]int)
	for i := range pl.sites {
		for _, n := range pl.sites[i].Serves.Networks {
			k, ok := at[n]
			if !ok {
				k = len(pl.networks)
				if err := pl.byNet.add(n, k); err != nil {
					errs = append(errs, fmt.Errorf("site %q: %w", pl.sites[i].Name, err))
					continue
				}
				pl.networks = append(pl.networks, network{prefix: n, sites: make(map[int]bool)})
				at[n] = k
			}
			pl.networks[k].sites[i] = true
		}
	}
	for k := 1; k < len(pl.networks); k++ {
		n := pl.networks[k].prefix
		for up := n.Bits() - 1; up >= 0; up-- {
			shorter, _ := n.Addr().Prefix(up)
			if j, ok := at[shorter]; ok {
				pl.networks[k].parent = j
				break
			}
		}
	}
	return errs
}

// networkBits returns the length of the longest network of a site's area that
// holds a client who is in network n; -1 if there is none.
func (pl *Plan) networkBits(n, site int) int {
	for ; n != 0; n = pl.networks[n].parent {
		if pl.networks[n].sites[site] {
			return pl.networks[n].prefix.Bits()
		}
	}
	return -1
}

// facts returns what decides about a client, and the block for which it is so.
func (pl *Plan) facts(a netip.Addr) (facts, netip.Prefix) {
	var f facts
	var block, b netip.Prefix
	f.place, block = pl.locator.Locate(a)
	f.horizon, _, b = pl.horizons.find(a)
	block = smaller(block, b)
	f.network, _, b = pl.byNet.find(a)
	return f, smaller(block, b)
}

func smaller(a, b netip.Prefix) netip.Prefix {
	if b.Bits() > a.Bits() {
		return b
	}
	return a
}

// class returns the number of the ranking for f.
func (pl *Plan) class(f *facts) (uint32, error) {
	r := Ranking{Horizon: f.horizon, Tiers: pl.rank(f)}
	key := binary.AppendUvarint(nil, uint64(r.Horizon))
	for _, t := range r.Tiers {
		key = binary.AppendUvarint(key, uint64(len(t)))
		for _, s := range t {
			key = binary.AppendUvarint(key, uint64(s))
		}
	}
	if n, ok := pl.classes[string(key)]; ok {
		return uint32(n), nil
	}
	n := len(pl.rankings)
	if n >= maxClasses {
		return 0, fmt.Errorf("geo: more than %d rankings: tell fewer distances apart", maxClasses)
	}
	pl.rankings = append(pl.rankings, r)
	pl.classes[string(key)] = n
	return uint32(n), nil
}

// answers reports whether a site has addresses for the clients of a horizon.
func (pl *Plan) answers(site, horizon int) bool {
	return len(pl.Addrs(site, horizon)) > 0
}

// Addrs returns the addresses of a site for a horizon, whatever their state,
// one slice a gateway that has any.
func (pl *Plan) Addrs(site, horizon int) (list [][]netip.Addr) {
	for _, g := range pl.sites[site].Gateways {
		if a := g.addrs(pl.horizonName(horizon)); len(a) > 0 {
			list = append(list, a)
		}
	}
	return list
}

func (pl *Plan) horizonName(h int) string {
	if h == 0 {
		return ""
	}
	return pl.policy.Horizons[h-1].Name
}

func (g *Gateway) addrs(horizon string) []netip.Addr {
	if horizon == "" {
		return g.Addrs
	}
	return g.Inside[horizon]
}

// Sites returns the sites, in the order of the numbers in a Ranking. It must
// not be changed.
func (pl *Plan) Sites() []Site { return pl.sites }

// Policy returns the policy, with its defaults filled in.
func (pl *Plan) Policy() Policy { return pl.policy }

// Rankings returns all rankings, by class. It must not be changed.
func (pl *Plan) Rankings() []Ranking { return pl.rankings }

// Prefixes returns how many prefixes of each family the map has.
func (pl *Plan) Prefixes() (v4, v6 int) { return len(pl.classMap.v4), len(pl.classMap.v6) }

// Class returns the class of a client, an index of [Plan.Rankings], and the
// length of the longest prefix around it of which all clients have that class.
// Prefixes of different classes never overlap. IPv4 addresses mapped into IPv6
// are IPv4. It doesn't allocate.
func (pl *Plan) Class(client netip.Addr) (class uint32, bits int) {
	return pl.classMap.find(client.Unmap())
}
