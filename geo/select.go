package geo

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// A Selector is a Plan in the light of a View: for each ranking, the tier that
// serves. It is immutable; make a new one for each View.
type Selector struct {
	// Plan is what it was made from.
	Plan *Plan
	// View is the state it was made from.
	View *View

	choices []Choice // by class
	seed    uint64
	slot    int64 // of the Policy, in nanoseconds
}

// Why says how a Choice came about.
type Why uint8

const (
	// Serving is the normal case: a tier with sites that are up.
	Serving Why = iota
	// Guessing takes sites that have not been asked yet, as none is up.
	Guessing
	// AllAreDown is what Policy.AllDown says for the case.
	AllAreDown
	// NoSite has nobody: no site is for such clients, or administrators have
	// closed all that are.
	NoSite
)

// String returns serving, guessing, all-down or no-site.
func (w Why) String() string {
	return [...]string{"serving", "guessing", "all-down", "no-site"}[min(int(w), 3)]
}

// A Choice is what there is to choose from for the clients of one class.
type Choice struct {
	// Sites are the numbers of the sites.
	Sites []int
	// Tier is the index of the tier they are from; -1 if there is none.
	Tier int
	// Why says how it came about.
	Why Why
	// Unstable says that a site of these, or of a better tier, changed
	// lately: the answer should not live long.
	Unstable bool

	weights []int // of Sites; nil if all are alike
	total   int
}

// Select joins a Plan with a View. name is that of the service: different names
// don't take turns in step.
func (pl *Plan) Select(v *View, name string) *Selector {
	s := &Selector{Plan: pl, View: v, choices: make([]Choice, len(pl.rankings)), seed: hashString(name), slot: int64(pl.policy.Slot)}
	status := make([]*Status, len(pl.sites))
	for i := range pl.sites {
		status[i] = v.Site(pl.sites[i].Name)
	}
	for i := range pl.rankings {
		s.choices[i] = pl.choose(&pl.rankings[i], status)
	}
	return s
}

// Choice returns what there is to choose from for a class.
func (s *Selector) Choice(class uint32) *Choice { return &s.choices[class] }

// choose finds the tier that serves.
func (pl *Plan) choose(r *Ranking, status []*Status) Choice {
	pass := func(want func(*Status) bool) (c Choice, ok bool) {
		for t, tier := range r.Tiers {
			for _, site := range tier {
				if st := status[site]; st != nil && st.Unstable {
					c.Unstable = true
				}
				if st := status[site]; st != nil && !st.barred() && want(st) {
					c.Sites = append(c.Sites, site)
				}
			}
			if len(c.Sites) > 0 {
				c.Tier = t
				return c, true
			}
		}
		return c, false
	}
	up := func(st *Status) bool { return st.State == Up }
	unknown := func(st *Status) bool { return st.State == Unknown }
	whatever := func(*Status) bool { return true }
	c, ok := pass(up)
	if ok {
		c = pl.more(c, r, status, up)
	} else if c, ok = pass(unknown); ok {
		c.Why = Guessing
		c = pl.more(c, r, status, unknown)
	} else if c, ok = pass(whatever); ok && pl.policy.AllDown == AsIfUp {
		c.Why, c.Unstable = AllAreDown, true
		c = pl.more(c, r, status, whatever)
	} else if pl.policy.AllDown != AsIfUp && len(r.Tiers) > 0 {
		// Also where administrators have closed all: what is answered then is
		// none of these.
		return Choice{Tier: -1, Why: AllAreDown, Unstable: true}
	} else {
		return Choice{Tier: -1, Why: NoSite, Unstable: true}
	}
	pl.weigh(&c, status)
	return c
}

// more adds sites of later tiers for All, until there are Answers.
func (pl *Plan) more(c Choice, r *Ranking, status []*Status, want func(*Status) bool) Choice {
	n := pl.policy.Answers
	if pl.policy.Method != All || n == 0 {
		return c
	}
	for _, tier := range r.Tiers[c.Tier+1:] {
		for _, site := range tier {
			if st := status[site]; len(c.Sites) < n && st != nil && !st.barred() && want(st) {
				c.Sites = append(c.Sites, site)
			}
		}
	}
	c.Sites = c.Sites[:min(n, len(c.Sites))]
	return c
}

// weigh leaves those sites that the Method may choose, with their weights.
func (pl *Plan) weigh(c *Choice, status []*Status) {
	switch pl.policy.Method {
	case First:
		c.Sites = c.Sites[:min(1, len(c.Sites))]
	case LeastLoad:
		pl.leastLoad(c, status)
	case Weighted, Hash:
		for _, i := range c.Sites {
			c.weights = append(c.weights, pl.sites[i].weight())
			c.total += pl.sites[i].weight()
		}
		if c.total == 0 { // all alike
			c.weights = nil
		}
	case RoundRobin, All:
	}
}

// leastLoad leaves the site with the least load. If the load of one of them
// isn't known, they share by weight, as nothing can be compared.
func (pl *Plan) leastLoad(c *Choice, status []*Status) {
	best, least := -1, math.Inf(1)
	for _, i := range c.Sites {
		load := status[i].Load
		if load < 0 {
			for _, i := range c.Sites {
				c.weights = append(c.weights, pl.sites[i].weight())
				c.total += pl.sites[i].weight()
			}
			if c.total == 0 {
				c.weights = nil
			}
			return
		}
		if load < least {
			best, least = i, load
		}
	}
	if best >= 0 {
		c.Sites = []int{best}
	}
}

// A Client is who asks.
type Client struct {
	// Addr is the client's address, or any of its network: what a resolver
	// tells as the client's subnet, or the resolver's own. An address of IPv4
	// that is mapped into IPv6 is taken as one of IPv4, as is the Scope.
	Addr netip.Addr
	// Resolver is who sent the query. Turns are taken per resolver, since it
	// gives the same answer to all of its clients for a while.
	Resolver netip.Addr
}

// A Pick is what one client gets.
type Pick struct {
	// Class is that of the client.
	Class uint32
	// Choice is what there was to choose from.
	Choice *Choice
	// Site is the number of the site; -1 for all of Choice.Sites, or if that
	// is empty.
	Site int
	// Scope is the length of the prefix around Client.Addr all of whose
	// clients would have got the same from this state, at this moment, by
	// this resolver.
	Scope int
}

// Pick chooses for one client. It allocates nothing, takes no lock, and depends
// on nothing but its arguments and the Selector.
func (s *Selector) Pick(c Client, now time.Time) Pick {
	addr := c.Addr.Unmap()
	class, scope := s.Plan.classMap.find(addr)
	ch := &s.choices[class]
	p := Pick{Class: class, Choice: ch, Site: -1, Scope: scope}
	pol := &s.Plan.policy
	if pol.Method == Hash {
		// Also where there is nothing to choose just now: the scope must not
		// depend on that, or prefixes of different answers would overlap.
		p.Scope = max(scope, hashBits(pol, addr))
	}
	switch len(ch.Sites) {
	case 0:
		return p
	case 1:
		p.Site = ch.Sites[0]
		return p
	}
	switch pol.Method {
	case All:
	case Hash:
		p.Site = s.rendezvous(ch, mask(addr, hashBits(pol, addr)))
	case Weighted, LeastLoad:
		turn, _ := s.turn(c.Resolver, now)
		p.Site = s.weighted(ch, turn)
	case RoundRobin, First:
		_, n := s.turn(c.Resolver, now)
		p.Site = ch.Sites[n%uint64(len(ch.Sites))]
	}
	return p
}

func hashBits(p *Policy, a netip.Addr) int {
	if a.Is4() {
		return p.HashBits4
	}
	return p.HashBits6
}

// turn returns a number that is random, and one that counts up, from slot to
// slot, for a resolver.
//
// Each resolver has a beginning of its own, so that not all change at once.
func (s *Selector) turn(resolver netip.Addr, now time.Time) (random, count uint64) {
	h := mask(resolver.Unmap(), 128) ^ s.seed
	h = mix(h)
	n := uint64(now.UnixNano()+int64(h%uint64(s.slot))) / uint64(s.slot)
	return mix(h ^ mix(n)), h>>32 + n
}

func (s *Selector) weighted(ch *Choice, turn uint64) int {
	if ch.weights == nil {
		return ch.Sites[turn%uint64(len(ch.Sites))]
	}
	at, _ := bits.Mul64(turn, uint64(ch.total))
	for i, w := range ch.weights {
		if at < uint64(w) {
			return ch.Sites[i]
		}
		at -= uint64(w)
	}
	return ch.Sites[len(ch.Sites)-1]
}

// rendezvous gives each site a score for the client, weighted so that each wins
// as often as its weight says, and takes the highest. A site that leaves takes
// only its own clients along.
func (s *Selector) rendezvous(ch *Choice, key uint64) int {
	best, high := ch.Sites[0], math.Inf(-1)
	for i, site := range ch.Sites {
		w := 1.0
		if ch.weights != nil {
			w = float64(ch.weights[i])
		}
		if w == 0 {
			continue
		}
		h := mix(key ^ s.seed ^ s.Plan.keys[site])
		u := (float64(h>>11) + 0.5) / (1 << 53)
		if score := w / -math.Log(u); score > high {
			best, high = site, score
		}
	}
	return best
}

// mask returns a number for the first n bits of an address.
func mask(a netip.Addr, n int) uint64 {
	b := a.As16()
	if a.Is4() {
		n += 96
	}
	hi, lo := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
	switch {
	case n >= 128:
	case n > 64:
		lo &= ^uint64(0) << (128 - n)
	case n == 64:
		lo = 0
	default:
		lo, hi = 0, hi&^(^uint64(0)>>n)
	}
	return mix(hi) ^ lo
}

// mix is the finalizer of SplitMix64: each bit of v changes half of the result's.
func mix(v uint64) uint64 {
	v += 0x9e3779b97f4a7c15
	v = (v ^ v>>30) * 0xbf58476d1ce4e5b9
	v = (v ^ v>>27) * 0x94d049bb133111eb
	return v ^ v>>31
}

// hashString is FNV-1a, mixed.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// Gateways returns the addresses to answer with for a site and a horizon, one
// slice a gateway: those of the gateways that are up or, if the site is
// unanimous, of all; and of all, too, if none is up.
func (s *Selector) Gateways(site, horizon int) [][]netip.Addr {
	st := s.View.Site(s.Plan.sites[site].Name)
	all := s.Plan.sites[site].Gateways
	name := s.Plan.horizonName(horizon)
	var up, list [][]netip.Addr
	for i := range all {
		a := all[i].addrs(name)
		if len(a) == 0 {
			continue
		}
		list = append(list, a)
		if st != nil && i < len(st.Gateways) && st.Gateways[i].State == Up {
			up = append(up, a)
		}
	}
	if len(up) == 0 || all == nil || s.Plan.sites[site].Unanimous {
		return list
	}
	return slices.Clip(up)
}
