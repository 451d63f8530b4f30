package geo

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Site is a place with gateways of its own, of which clients use any.
type Site struct {
	// Name identifies it.
	Name string
	// Place is where it is. Its country and so on are also what it serves
	// where Serves says nothing.
	Place Place
	// Region groups sites for [ByDistance]: those of one region are as near
	// as the nearest of them. Empty means that it is a region of its own.
	Region string
	// Serves says whose clients it is for.
	Serves Area
	// Only has it answer nobody outside what Serves names, not even when all
	// other sites are down.
	Only bool
	// Weight is its share beside other sites of its tier, 0 to 65535. Nil
	// means 1. With 0 it takes clients only where all others have 0 too or
	// are down.
	Weight *int
	// Priority orders sites for [ByPriority], 0 to 65535: the lowest serve.
	Priority int
	// Capacity is how many clients it can have, for [LeastLoad]; 0 means that
	// its Weight says it.
	Capacity int
	// Gateways are what it answers with.
	Gateways []Gateway
	// Need is how many of its gateways must be up for it to be up; 0 means 1,
	// less than 0 all of them.
	Need int
	// Unanimous has its gateways go together: while it is up all of them are
	// answered, while it is not none.
	Unanimous bool
	// Requires names sites without which it can't be up, such as the one
	// with its NPS servers.
	Requires []string
}

// A Gateway is one server of a site.
type Gateway struct {
	// Name identifies it within its site.
	Name string
	// Addrs are its addresses as clients reach them, of either family. What
	// is checked may be another one.
	Addrs []netip.Addr
	// Inside are its addresses for the clients of horizons, by the horizon's
	// name, instead of Addrs.
	Inside map[string][]netip.Addr
}

// An Area says which clients a site is for. Where a list is empty, the site's
// own Place says it.
type Area struct {
	// Networks are the addresses of clients.
	Networks []netip.Prefix
	// ASNs are numbers of their autonomous systems.
	ASNs []uint32
	// Subdivisions are their states or provinces, by ISO 3166-2.
	Subdivisions []string
	// Countries are two letters each, of ISO 3166-1.
	Countries []string
	// Continents are AF, AN, AS, EU, NA, OC or SA.
	Continents []string
}

func (a *Area) empty() bool {
	return len(a.Networks)+len(a.ASNs)+len(a.Subdivisions)+len(a.Countries)+len(a.Continents) == 0
}

// weight returns the Site's share.
func (s *Site) weight() int {
	if s.Weight == nil {
		return 1
	}
	return *s.Weight
}

// need returns how many gateways must be up.
func (s *Site) need() int {
	switch {
	case s.Need < 0:
		return len(s.Gateways)
	case s.Need == 0:
		return 1
	}
	return s.Need
}

// maxNumber bounds weights and priorities.
const maxNumber = 65535

// maxSites is how many sites there may be.
const maxSites = 1000

// Validate returns every fault of a set of sites, joined, each with the name of
// its site.
func Validate(sites ...Site) error {
	var errs []error
	names := make(map[string]int)
	for i := range sites {
		names[sites[i].Name]++
	}
	if len(sites) > maxSites {
		errs = append(errs, fmt.Errorf("geo: %d sites are more than %d", len(sites), maxSites))
	}
	for i := range sites {
		s := &sites[i]
		for _, f := range s.faults(names) {
			errs = append(errs, fmt.Errorf("geo: site %q: %s", s.Name, f))
		}
	}
	for _, loop := range loops(sites) {
		errs = append(errs, fmt.Errorf("geo: sites require each other in a ring: %s", strings.Join(loop, ", ")))
	}
	return errors.Join(errs...)
}

func (s *Site) faults(names map[string]int) (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if s.Name == "" {
		add("needs a name")
	}
	if names[s.Name] > 1 {
		add("is there %d times", names[s.Name])
	}
	if w := s.weight(); w < 0 || w > maxNumber {
		add("weight %d is not between 0 and %d", w, maxNumber)
	}
	if s.Priority < 0 || s.Priority > maxNumber {
		add("priority %d is not between 0 and %d", s.Priority, maxNumber)
	}
	if s.Capacity < 0 {
		add("capacity %d is less than 0", s.Capacity)
	}
	if c := s.Place.Coordinates; s.Place.Located && !c.valid() {
		add("latitude %v, longitude %v is no place: -90 to 90, -180 to 180", c.Latitude, c.Longitude)
	}
	if s.Only && s.Serves.empty() {
		add("is only for what it serves, but that names nothing")
	}
	if len(s.Gateways) == 0 {
		add("has no gateways")
	}
	if s.Need > len(s.Gateways) {
		add("needs %d gateways up, but has %d", s.Need, len(s.Gateways))
	}
	seen := make(map[string]bool)
	for _, g := range s.Gateways {
		if seen[g.Name] {
			add("gateway %q is there twice", g.Name)
		}
		seen[g.Name] = true
		if len(g.Addrs) == 0 && len(g.Inside) == 0 {
			add("gateway %q has no address", g.Name)
		}
		for _, a := range g.all() {
			if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
				add("gateway %q: %v is no address to answer with", g.Name, a)
			}
		}
	}
	for _, r := range s.Requires {
		if names[r] == 0 {
			add("requires site %q, which is not there", r)
		}
	}
	return list
}

func (g *Gateway) all() []netip.Addr {
	list := slices.Clone(g.Addrs)
	for _, in := range g.Inside {
		list = append(list, in...)
	}
	return list
}

func (c Coordinates) valid() bool {
	return c.Latitude >= -90 && c.Latitude <= 90 && c.Longitude >= -180 && c.Longitude <= 180
}

// loops returns the rings in which sites require each other.
func loops(sites []Site) (rings [][]string) {
	requires := make(map[string][]string)
	for i := range sites {
		requires[sites[i].Name] = sites[i].Requires
	}
	done := make(map[string]bool)
	var path []string
	var visit func(name string)
	visit = func(name string) {
		if at := slices.Index(path, name); at >= 0 {
			rings = append(rings, slices.Clone(path[at:]))
			return
		}
		if done[name] {
			return
		}
		path = append(path, name)
		for _, r := range requires[name] {
			visit(r)
		}
		path = path[:len(path)-1]
		done[name] = true
	}
	for i := range sites {
		visit(sites[i].Name)
	}
	return rings
}

// A State is what is known of a gateway or a site.
type State uint8

const (
	// Unknown has not been asked yet.
	Unknown State = iota
	// Up serves.
	Up
	// Down does not.
	Down
)

// String returns unknown, up or down.
func (s State) String() string {
	switch s {
	case Unknown:
		return "unknown"
	case Up:
		return "up"
	case Down:
		return "down"
	}
	return fmt.Sprintf("state %d", s)
}

// An Admin is what an administrator wants of a site.
type Admin uint8

const (
	// AdminNone leaves it to the checks.
	AdminNone Admin = iota
	// AdminDrain gives it no more clients, whatever happens to the others.
	AdminDrain
	// AdminUp has it count as up, whatever the checks say.
	AdminUp
	// AdminDown has it count as down, whatever happens to the others.
	AdminDown
)

// String returns none, drain, up or down.
func (a Admin) String() string {
	switch a {
	case AdminNone:
		return "none"
	case AdminDrain:
		return "drain"
	case AdminUp:
		return "up"
	case AdminDown:
		return "down"
	}
	return fmt.Sprintf("admin %d", a)
}

// A Failback says when a site that was down is used again.
type Failback uint8

const (
	// FailbackAutomatic uses it as soon as it is up.
	FailbackAutomatic Failback = iota
	// FailbackDelayed uses it when it has been up for Health.FailbackDelay.
	FailbackDelayed
	// FailbackManual uses it when [Health.FailbackNow] is called.
	FailbackManual
)

// String returns automatic, delayed or manual.
func (f Failback) String() string {
	switch f {
	case FailbackAutomatic:
		return "automatic"
	case FailbackDelayed:
		return "delayed"
	case FailbackManual:
		return "manual"
	}
	return fmt.Sprintf("failback %d", f)
}

// Status is what a View knows of one site.
type Status struct {
	// Name is that of the Site.
	Name string
	// State is what counts: what the gateways' checks say, unless something
	// else does, as Admin and Cause tell.
	State State
	// Admin is what an administrator has said, until Until.
	Admin Admin
	// Until is when Admin ends; zero if it doesn't.
	Until time.Time
	// Cause says in words why it isn't up; it is empty if it is.
	Cause string
	// Since is when State became what it is.
	Since time.Time
	// Held says that its gateways are well, but that it may not return yet.
	Held bool
	// Failovers counts how often it went from up to down.
	Failovers uint64
	// Unstable says that it changed lately, or is about to.
	Unstable bool
	// Gateways are its gateways, in the order of the Site.
	Gateways []GatewayStatus
	// Load is how much of its capacity is used: 1 is all of it; less than 0
	// if it isn't known, or too old.
	Load float64
}

// GatewayStatus is what a View knows of one gateway.
type GatewayStatus struct {
	// Name is that of the Gateway.
	Name string
	// State is what its checks say.
	State State
	// Cause says why it is down.
	Cause string
	// Since is when State became what it is.
	Since time.Time
}

// Usable reports whether the site is to be used before others are worn out.
func (s *Status) Usable() bool { return s.State == Up }

// barred reports whether an administrator keeps clients from the site.
func (s *Status) barred() bool { return s.Admin == AdminDrain || s.Admin == AdminDown }
