package radius

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb"
)

// peer is a Client that is served, and what is counted of it.
type peer struct {
	Client
	key   *key
	count *clientCounters
}

// clientSet is all clients at one time. It is immutable.
type clientSet struct {
	byName map[string]*peer
	exact  map[netip.Addr]*peer
	nets   []clientNet // longest first
}

type clientNet struct {
	netip.Prefix
	peer *peer
}

// at returns the client that has address a, or nil.
func (s *clientSet) at(a netip.Addr) *peer {
	if s == nil {
		return nil
	}
	a = a.Unmap()
	if p := s.exact[a]; p != nil {
		return p
	}
	a = a.WithZone("")
	for i := range s.nets {
		if s.nets[i].Contains(a) {
			return s.nets[i].peer
		}
	}
	return nil
}

func (s *clientSet) named(name string) *peer {
	if s == nil {
		return nil
	}
	return s.byName[name]
}

// SetClients has the Proxy serve exactly these clients. Those that it serves
// already, by name, keep what is counted of them; their waiting requests go on,
// and are answered with the secret they came with. Nothing is changed if
// something is wrong: the error then names each fault.
func (p *Proxy) SetClients(clients ...Client) error {
	p.setMu.Lock()
	defer p.setMu.Unlock()
	old := p.clients.Load()
	s := &clientSet{byName: make(map[string]*peer), exact: make(map[netip.Addr]*peer)}
	var errs []error
	seen := make(map[netip.Prefix]string)
	for _, c := range clients {
		switch {
		case c.Name == "":
			errs = append(errs, errors.New("radius: a client has no name"))
			continue
		case s.byName[c.Name] != nil:
			errs = append(errs, fmt.Errorf("radius: client %q is there twice", c.Name))
			continue
		case c.Secret.IsZero():
			errs = append(errs, fmt.Errorf("radius: client %q has no secret", c.Name))
			continue
		case c.Message > MessageLegacy:
			errs = append(errs, fmt.Errorf("radius: client %q has an unknown message policy, %d", c.Name, c.Message))
		}
		q := &peer{Client: c, key: newKey(c.Secret)}
		q.Prefixes = slices.Clone(c.Prefixes)
		if was := old.named(c.Name); was != nil {
			q.count = was.count
		} else {
			q.count = new(clientCounters)
		}
		s.byName[c.Name] = q
		errs = append(errs, s.place(q, seen)...)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	slices.SortStableFunc(s.nets, func(a, b clientNet) int { return cmp.Compare(b.Bits(), a.Bits()) })
	p.clients.Store(s)
	return nil
}

// place enters the prefixes of q.
func (s *clientSet) place(q *peer, seen map[netip.Prefix]string) (errs []error) {
	for _, n := range q.Prefixes {
		if !n.IsValid() {
			errs = append(errs, fmt.Errorf("radius: client %q has an invalid prefix", q.Name))
			continue
		}
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		n = n.Masked()
		if other, ok := seen[n]; ok {
			errs = append(errs, fmt.Errorf("radius: clients %q and %q both have %v", other, q.Name, n))
			continue
		}
		seen[n] = q.Name
		if n.IsSingleIP() {
			s.exact[n.Addr()] = q
		} else {
			s.nets = append(s.nets, clientNet{n, q})
		}
	}
	return errs
}

// serverID tells apart what is spoken to: a backend's authentication may be dead
// while its accounting lives.
type serverID struct {
	backend lb.ID
	port    uint16
}

// server is one port of a backend.
type server struct {
	serverID
	name  string
	conf  atomic.Pointer[serverConf]
	count serverCounters

	heard atomic.Int64 // when it last answered, as Proxy.now has it
	shun  atomic.Int64 // until when it gets no new users
}

// serverConf is a Server made ready.
type serverConf struct {
	Server
	key *key
	// way numbers the Dials there have been: a link that another one has
	// opened gets no new requests.
	way int
}

// serverSet is what is known of servers at one time. It is immutable.
type serverSet struct {
	common *serverConf
	named  map[string]*serverConf
	used   map[serverID]*server
	all    []*server // of used
	ways   int
}

func (s *serverSet) conf(name string) *serverConf {
	if c := s.named[name]; c != nil {
		return c
	}
	return s.common
}

// SetServers says how the backends of the Balancer's Pool are spoken to: those in
// named, by name, as it says there, all others as common says. A zero field
// Secret in named means that of common. A secret that changes counts for requests
// that are sent from then on. A link that was opened by another Dial is used for
// the requests that wait on it, and closed when there are none.
func (p *Proxy) SetServers(common Server, named map[string]Server) error {
	p.setMu.Lock()
	defer p.setMu.Unlock()
	old := p.servers.Load()
	s := &serverSet{common: &serverConf{Server: common, key: newKey(common.Secret)}, named: make(map[string]*serverConf)}
	var errs []error
	for name, c := range named {
		if c.Secret.IsZero() {
			c.Secret = common.Secret
		}
		if c.Secret.IsZero() {
			errs = append(errs, fmt.Errorf("radius: server %q has no secret", name))
		}
		s.named[name] = &serverConf{Server: c, key: newKey(c.Secret)}
	}
	if common.Secret.IsZero() && len(named) == 0 {
		errs = append(errs, errors.New("radius: the servers have no secret"))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	s.used = make(map[serverID]*server)
	if old != nil {
		s.used, s.all, s.ways = old.used, old.all, old.ways+1
	}
	for _, c := range s.named {
		c.way = s.wayOf(c)
	}
	s.common.way = s.wayOf(s.common)
	for _, v := range s.used {
		v.conf.Store(s.conf(v.name))
	}
	p.servers.Store(s)
	return nil
}

// wayOf returns the number of c's Dial. UDP is always the same; of two functions
// it can't be said.
func (s *serverSet) wayOf(c *serverConf) int {
	if c.Dial == nil {
		return -1
	}
	return s.ways
}

// server returns what is known of port of backend m, or nil if it can't be spoken
// to.
func (p *Proxy) server(m *lb.Member, port uint16) *server {
	s := p.servers.Load()
	if s == nil {
		return nil
	}
	if v := s.used[serverID{m.ID, port}]; v != nil {
		return v
	}
	return p.newServer(m, port)
}

func (p *Proxy) newServer(m *lb.Member, port uint16) *server {
	p.setMu.Lock()
	defer p.setMu.Unlock()
	s := *p.servers.Load()
	id := serverID{m.ID, port}
	if v := s.used[id]; v != nil {
		return v
	}
	c := s.conf(m.Name)
	if c.Secret.IsZero() {
		return nil
	}
	v := &server{serverID: id, name: m.Name}
	v.conf.Store(c)
	view := p.Balancer.Pool.View()
	used := maps.Clone(s.used)
	maps.DeleteFunc(used, func(id serverID, _ *server) bool { return view.Member(id.backend) == nil })
	used[id] = v
	s.used, s.all = used, slices.Collect(maps.Values(used))
	p.servers.Store(&s)
	return v
}
