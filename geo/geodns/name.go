package geodns

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/geo"
)

// A Name is a domain name whose addresses depend on who asks and on which sites
// serve. Beside A and AAAA it may have records of other types in its zone. Its
// exported fields must not be changed once a Server has it.
type Name struct {
	// Name is the domain name. Its first label may be *.
	Name string
	// TTL is how long an answer lives; 0 means 30 s.
	TTL time.Duration
	// UnstableTTL is how long it lives while a site that matters to it
	// changes; 0 means a quarter of TTL, at least 5 s.
	UnstableTTL time.Duration
	// Targets are names to answer with, as a CNAME, instead of addresses, by
	// the name of the site. Such names must be in zones of others.
	Targets map[string]string
	// MaxAddresses is how many addresses of a family an answer has at most;
	// 0 means 16.
	MaxAddresses int

	state atomic.Pointer[nameState]

	mu     sync.Mutex // below
	counts map[string]*atomic.Uint64
}

const (
	defaultTTL       = 30 * time.Second
	leastUnstableTTL = 5 * time.Second
	defaultAddresses = 16
)

// nameState is what a name answers in one state of its sites.
type nameState struct {
	sel           *geo.Selector
	ttl, unstable uint32

	bySite  [][]answer             // by horizon, then site
	byClass map[*geo.Choice]answer // where an answer has several sites
	last    answer                 // of last resort

	noA, noAAAA bool // no client has any such address

	counts []*atomic.Uint64 // by site
	other  *atomic.Uint64   // answers with several sites or none
}

// answer is what there is to say, by type.
type answer struct {
	a, aaaa, cname *rrset // nil if there is none
}

// Update has the name answered as a Selector decides. Before the first Update it
// is answered with SERVFAIL, so that resolvers ask another server. It packs all
// answers, and is safe while queries are answered.
func (n *Name) Update(sel *geo.Selector) {
	st := &nameState{sel: sel, ttl: seconds(n.TTL, defaultTTL), byClass: make(map[*geo.Choice]answer)}
	st.unstable = min(st.ttl, seconds(n.UnstableTTL, max(leastUnstableTTL, time.Duration(st.ttl)*time.Second/4)))
	pl := sel.Plan
	for h := range len(pl.Policy().Horizons) + 1 {
		var sites []answer
		for i, s := range pl.Sites() {
			if t := n.Targets[s.Name]; t != "" {
				sites = append(sites, packTarget(t))
				continue
			}
			sites = append(sites, n.pack(sel.Gateways(i, h)))
		}
		st.bySite = append(st.bySite, sites)
	}
	for class, r := range pl.Rankings() {
		c := sel.Choice(uint32(class))
		if pl.Policy().Method == geo.All && len(c.Sites) > 1 {
			var all [][]netip.Addr
			for _, i := range c.Sites {
				all = append(all, sel.Gateways(i, r.Horizon)...)
			}
			st.byClass[c] = n.pack(all)
		}
	}
	if p := pl.Policy(); len(p.LastResort) > 0 {
		st.last = n.pack([][]netip.Addr{p.LastResort})
	}
	st.noA, st.noAAAA = true, true
	for _, sites := range slices.Concat(st.bySite, [][]answer{{st.last}}) {
		for _, a := range sites {
			st.noA, st.noAAAA = st.noA && a.a == nil && a.cname == nil, st.noAAAA && a.aaaa == nil && a.cname == nil
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range pl.Sites() {
		st.counts = append(st.counts, n.counter(s.Name))
	}
	st.other = n.counter("")
	n.state.Store(st)
}

func (n *Name) counter(site string) *atomic.Uint64 {
	c := n.counts[site]
	if c == nil {
		if n.counts == nil {
			n.counts = make(map[string]*atomic.Uint64)
		}
		c = new(atomic.Uint64)
		n.counts[site] = c
	}
	return c
}

// Answers returns how many answers there were for each site; under the empty
// name are those that had several sites or none.
func (n *Name) Answers() map[string]uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := make(map[string]uint64, len(n.counts))
	for site, c := range n.counts {
		m[site] = c.Load()
	}
	return m
}

// Selector returns what the name is answered by; nil before the first Update.
func (n *Name) Selector() *geo.Selector {
	if st := n.state.Load(); st != nil {
		return st.sel
	}
	return nil
}

func seconds(d, zero time.Duration) uint32 {
	if d == 0 {
		d = zero
	}
	return uint32(min(max(d.Round(time.Second)/time.Second, 0), 1<<31-1))
}

// pack makes an answer of addresses. It takes one of each gateway, then the
// second, and so on, until there are enough.
func (n *Name) pack(gateways [][]netip.Addr) answer {
	most := n.MaxAddresses
	if most == 0 {
		most = defaultAddresses
	}
	var v4, v6 []netip.Addr
	for round := 0; ; round++ {
		more := false
		for _, g := range gateways {
			if round >= len(g) {
				continue
			}
			more = true
			switch a := g[round]; {
			case slices.Contains(v4, a), slices.Contains(v6, a):
				// Two gateways behind one address: no record twice (RFC 2181 section 5).
			case a.Is4() && len(v4) < most:
				v4 = append(v4, a)
			case a.Is6() && len(v6) < most:
				v6 = append(v6, a)
			}
		}
		if !more {
			return answer{a: packAddrs(typeA, v4), aaaa: packAddrs(typeAAAA, v6)}
		}
	}
}

func packAddrs(typ uint16, addrs []netip.Addr) *rrset {
	if len(addrs) == 0 {
		return nil
	}
	s := &rrset{typ: typ}
	for _, a := range addrs {
		s.start = append(s.start, uint16(len(s.wire)))
		s.wire = appendAddr(s.wire, 0xc00c, 0, a)
	}
	return s
}

// packTarget makes an answer of a name. What isn't one was refused when the name
// was set up.
func packTarget(name string) answer {
	wire, err := packName(name)
	if err != nil {
		return answer{}
	}
	s := &rrset{typ: typeCNAME, start: []uint16{0}}
	s.wire = binary.BigEndian.AppendUint16(s.wire, 0xc00c)
	s.wire = binary.BigEndian.AppendUint16(s.wire, typeCNAME)
	s.wire = binary.BigEndian.AppendUint16(s.wire, classIN)
	s.wire = binary.BigEndian.AppendUint32(s.wire, 0)
	s.wire = binary.BigEndian.AppendUint16(s.wire, uint16(len(wire)))
	s.wire = append(s.wire, wire...)
	return answer{cname: s}
}

// decision is what a name answers to one client.
type decision struct {
	answer
	ttl   uint32
	scope int
	fail  bool // SERVFAIL
	state *nameState
}

// none reports whether nobody gets an answer of a type.
func (d *decision) none(qtype uint16) bool {
	return d.state != nil && (qtype == typeA && d.state.noA || qtype == typeAAAA && d.state.noAAAA)
}

// decide chooses for a client.
func (n *Name) decide(c geo.Client, now time.Time) decision {
	st := n.state.Load()
	if st == nil {
		return decision{fail: true}
	}
	p := st.sel.Pick(c, now)
	d := decision{ttl: st.ttl, scope: p.Scope, state: st}
	if p.Choice.Unstable {
		d.ttl = st.unstable
	}
	switch {
	case p.Site >= 0:
		d.answer = st.bySite[st.sel.Plan.Rankings()[p.Class].Horizon][p.Site]
		st.counts[p.Site].Add(1)
		return d
	case len(p.Choice.Sites) > 0:
		d.answer = st.byClass[p.Choice]
	case p.Choice.Why == geo.AllAreDown:
		switch st.sel.Plan.Policy().AllDown {
		case geo.LastResort:
			d.answer = st.last
		case geo.ServFail:
			d.fail = true
		case geo.AsIfUp, geo.NoData:
		}
	}
	st.other.Add(1)
	return d
}
