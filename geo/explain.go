package geo

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// An Explanation says, step by step, which site a client gets and why.
type Explanation struct {
	// Client is the client's address, and Block the longest prefix around it
	// whose clients all have its ranking.
	Client netip.Addr   `json:"client"`
	Block  netip.Prefix `json:"block"`
	// Place is what is known of where it is.
	Place Place `json:"place"`
	// Horizon is the name of its horizon; empty is the world.
	Horizon string `json:"horizon,omitempty"`
	// Tiers are the sites in the order in which they are considered.
	Tiers [][]SiteExplanation `json:"tiers"`
	// Why says how the choice came about, and Method how it is made.
	Why    string `json:"why"`
	Method string `json:"method"`
	// Site is the site it gets now; empty if it gets several or none.
	Site string `json:"site,omitempty"`
	// Addresses are what the answer has, of both families.
	Addresses []netip.Addr `json:"addresses"`
	// Scope is the prefix around the client for which the answer holds.
	Scope netip.Prefix `json:"scope"`
}

// A SiteExplanation is a site in a ranking.
type SiteExplanation struct {
	Name string `json:"name"`
	// Reasons say what ranks it there, a criterion each.
	Reasons []string `json:"reasons,omitempty"`
	State   string   `json:"state"`
	// Cause says why it isn't used, if it isn't.
	Cause string `json:"cause,omitempty"`
	// Chosen says that it is one of those the choice is made among.
	Chosen bool `json:"chosen"`
}

// Explain says which site a client gets at a time, and why.
func (s *Selector) Explain(c Client, now time.Time) Explanation {
	addr := c.Addr.Unmap()
	p := s.Pick(c, now)
	f, _ := s.Plan.facts(addr)
	r := &s.Plan.rankings[p.Class]
	_, bits := s.Plan.Class(addr)
	e := Explanation{
		Client: addr, Place: f.place, Horizon: s.Plan.horizonName(r.Horizon), Method: s.Plan.policy.Method.String(),
		Why: s.because(p.Choice),
	}
	e.Block, _ = addr.Prefix(bits)
	e.Scope, _ = addr.Prefix(p.Scope)
	chosen := make(map[int]bool)
	for _, i := range p.Choice.Sites {
		chosen[i] = true
	}
	for _, tier := range r.Tiers {
		var list []SiteExplanation
		for _, i := range tier {
			x := SiteExplanation{Name: s.Plan.sites[i].Name, Reasons: s.Plan.reasons(i, &f), State: "not set up", Chosen: chosen[i]}
			if st := s.View.Site(x.Name); st != nil {
				x.State, x.Cause = st.State.String(), st.Cause
			}
			list = append(list, x)
		}
		e.Tiers = append(e.Tiers, list)
	}
	sites := p.Choice.Sites
	if p.Site >= 0 {
		e.Site = s.Plan.sites[p.Site].Name
		sites = []int{p.Site}
	}
	for _, i := range sites {
		for _, g := range s.Gateways(i, r.Horizon) {
			e.Addresses = append(e.Addresses, g...)
		}
	}
	if p.Choice.Why == AllAreDown && s.Plan.policy.AllDown == LastResort {
		e.Addresses = s.Plan.policy.LastResort
	}
	return e
}

// because says in words how a choice came about.
func (s *Selector) because(c *Choice) string {
	switch c.Why {
	case Serving:
		if c.Tier > 0 {
			return fmt.Sprintf("tier %d is the first with a site that is up", c.Tier+1)
		}
		return "the first tier has a site that is up"
	case Guessing:
		return "no site is up; some have not been asked yet, so they are tried"
	case AllAreDown:
		return "no site is up: " + [...]string{
			AsIfUp:     "the answer is what it would be if all were up",
			LastResort: "the answer is the addresses of last resort",
			NoData:     "the answer is that there is no address now",
			ServFail:   "the answer is that the server can't tell",
		}[s.Plan.policy.AllDown]
	case NoSite:
	}
	return "no site is for such clients, or administrators have closed all that are"
}

// reasons says what each criterion makes of a site.
func (pl *Plan) reasons(site int, f *facts) (list []string) {
	s := &pl.sites[site]
	for _, c := range pl.policy.Order {
		yes := pl.score(c, site, f) == 0
		switch c {
		case ByPriority:
			list = append(list, fmt.Sprintf("priority %d", s.Priority))
		case ByNetwork:
			if n := pl.networkBits(f.network, site); n >= 0 {
				list = append(list, fmt.Sprintf("its network of /%d", n))
			}
		case ByASN:
			list = match(list, yes, "for AS%d", f.place.ASN)
		case BySubdivision:
			list = match(list, yes, "for %s", f.place.Subdivision)
		case ByCountry:
			list = match(list, yes, "for country %s", f.place.Country)
		case ByContinent:
			list = match(list, yes, "for continent %s", f.place.Continent)
		case ByDistance:
			if d := pl.distance(site, f); d < 1e6 {
				list = append(list, fmt.Sprintf("%.0f km away", d))
			} else {
				list = append(list, "distance unknown")
			}
		}
	}
	return list
}

func match(list []string, ok bool, format string, v any) []string {
	if !ok {
		return list
	}
	return append(list, fmt.Sprintf(format, v))
}

// String tells the Explanation in lines for people.
func (e Explanation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %v is %s\n", e.Client, e.Place.describe())
	if e.Horizon != "" {
		fmt.Fprintf(&b, "it is of the horizon %s\n", e.Horizon)
	}
	fmt.Fprintf(&b, "all of %v are ranked alike:\n", e.Block)
	for i, tier := range e.Tiers {
		for _, s := range tier {
			mark := " "
			if s.Chosen {
				mark = "*"
			}
			line := fmt.Sprintf("%s tier %d  %-12s %-8s %s", mark, i+1, s.Name, s.State, strings.Join(s.Reasons, ", "))
			if s.Cause != "" {
				line += " (" + s.Cause + ")"
			}
			b.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	fmt.Fprintf(&b, "%s\n", e.Why)
	switch {
	case e.Site != "":
		fmt.Fprintf(&b, "site %s by %s: %v, the same for all of %v\n", e.Site, e.Method, e.Addresses, e.Scope)
	case len(e.Addresses) > 0:
		fmt.Fprintf(&b, "answered: %v, the same for all of %v\n", e.Addresses, e.Scope)
	default:
		b.WriteString("answered: no address\n")
	}
	return b.String()
}

// describe says where a place is.
func (p Place) describe() string {
	var list []string
	add := func(s string) {
		if s != "" {
			list = append(list, s)
		}
	}
	if p.Network != "" {
		list = append(list, "network "+p.Network)
	}
	add(p.Continent)
	add(p.Country)
	add(p.Subdivision)
	if p.Located {
		list = append(list, fmt.Sprintf("at %.2f, %.2f", p.Latitude, p.Longitude))
	}
	if p.ASN != 0 {
		list = append(list, fmt.Sprintf("AS%d", p.ASN))
	}
	if len(list) == 0 {
		return "nowhere that is known"
	}
	return strings.Join(list, ", ")
}
