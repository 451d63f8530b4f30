package kemp

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
)

// A Box is a LoadMaster. Its methods may be called from several goroutines.
type Box struct {
	// Key, User and Password are what it accepts. They are set before it is used.
	Key, User, Password string
	// ServiceTimers says that its firmware has the times of checks in each
	// virtual service.
	ServiceTimers bool

	mu       sync.Mutex
	server   *httptest.Server
	services []*service
	rules    []*rule
	certs    []*cert
	fqdns    []*fqdn
	noGEO    bool
	health   map[string]string
	account  bool // it has an ACME account
	writes   int
	left     int // negative: any number
	breaks   int
	unheard  bool // the write that breaks is done, and its answer lost
	commands []string
	lost     map[string]bool // addresses that don't answer
}

type service struct {
	addr, port, prot string
	fields           map[string]string // by canonical name; booleans are Y and N
	leader           *service
	servers          []*server
}

type server struct {
	addr, port string
	fields     map[string]string
	persist    int
}

type rule struct{ name, pattern string }

type cert struct {
	name, pem string
	acme      bool
}

// New starts a Box, which Close ends.
func New() *Box {
	b := &Box{
		Key: "key", User: "bal", Password: "password", left: -1, account: true, lost: make(map[string]bool),
		health: map[string]string{"RetryInterval": "9", "Timeout": "4", "RetryCount": "2"},
	}
	b.server = httptest.NewTLSServer(b)
	return b
}

// Close ends it.
func (b *Box) Close() { b.server.Close() }

// URL is its address, and CA its certificate as PEM.
func (b *Box) URL() string { return b.server.URL }

// CA returns the certificate that it shows, as PEM.
func (b *Box) CA() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.server.Certificate().Raw})
}

// Seed adds what others have on it.
func (b *Box) Seed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	add := func(nick, addr, port, prot string, rs ...string) *service {
		s := newService(addr, port, prot)
		s.fields["NickName"] = nick
		for _, a := range rs {
			x := newServer(a, port)
			x.fields["Weight"] = "1000"
			s.servers = append(s.servers, x)
		}
		b.services = append(b.services, s)
		return s
	}
	add("Web", "192.0.2.80", "443", "tcp", "10.0.1.11", "10.0.1.80")
	main := add("aovlbX_hq", "192.0.2.81", "8000", "udp", "10.0.1.12")
	add("follower", "192.0.2.81", "8001", "udp", "10.0.1.12").leader = main
	b.certs = append(b.certs, &cert{name: "wildcard", pem: "none"})
	b.rules = append(b.rules, &rule{"redirect", "/^\\/$/"})
	b.fqdns = append(b.fqdns, &fqdn{name: "www.example.net", fields: defaults(fqdnKinds), maps: []*geoMap{{ip: "198.51.100.1", fields: defaults(mapKinds)}}})
}

// Writes returns how often it was written to.
func (b *Box) Writes() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

// BreakAfter has it hang up on whoever writes, after n further writes; a negative n
// heals it. Each second time the write that breaks is done, and only its answer is lost.
func (b *Box) BreakAfter(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left = n; n >= 0 {
		b.breaks++
		b.unheard = b.breaks%4 > 1 // for both of two directions
	}
}

// Lose has an address not answer checks, or answer them again.
func (b *Box) Lose(addr string, gone bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost[addr] = gone
}

// Serve has real servers of an address have so many connections.
func (b *Box) Serve(addr string, connections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.services {
		for _, r := range s.servers {
			if r.addr == addr {
				r.persist = connections
			}
		}
	}
}

// Commands returns the commands that it was given, without those that only read.
func (b *Box) Commands() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.commands)
}

// Others shows all whose name doesn't begin with prefix, without indexes.
func (b *Box) Others(prefix string) string { return b.show(prefix, false) }

// Ours shows all whose name begins with prefix.
func (b *Box) Ours(prefix string) string { return b.show(prefix, true) }

func (b *Box) show(prefix string, ours bool) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out strings.Builder
	want := func(name string) bool { return strings.HasPrefix(name, prefix) == ours }
	for _, s := range b.services {
		if !want(s.fields["NickName"]) {
			continue
		}
		fmt.Fprintf(&out, "service %s:%s/%s %s\n", s.addr, s.port, s.prot, fieldText(s.fields))
		if s.leader != nil {
			fmt.Fprintf(&out, "  follows %s\n", s.leader.fields["NickName"])
		}
		for _, r := range s.servers {
			fmt.Fprintf(&out, "  server %s:%s %s\n", r.addr, r.port, fieldText(r.fields))
		}
	}
	for _, c := range b.certs {
		if want(c.name) {
			fmt.Fprintf(&out, "certificate %s %d\n", c.name, len(c.pem))
		}
	}
	for _, r := range b.rules {
		if want(r.name) {
			fmt.Fprintf(&out, "rule %s %s\n", r.name, r.pattern)
		}
	}
	if !ours {
		out.WriteString(b.names(".vpn.example.com", false))
		fmt.Fprintf(&out, "health %s account %t\n", fieldText(b.health), b.account)
	}
	return out.String()
}

func fieldText(m map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}

// Set alters a field of the virtual service of a nickname, as a person would.
func (b *Box) Set(nick, field, value string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.services {
		if s.fields["NickName"] == nick {
			s.fields[field] = value
			return true
		}
	}
	return false
}

// SetServer alters a field of a real server, wherever it is in services whose
// nickname begins with prefix.
func (b *Box) SetServer(prefix, addr, field, value string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	done := false
	for _, s := range b.services {
		for _, r := range s.servers {
			if r.addr == addr && strings.HasPrefix(s.fields["NickName"], prefix) {
				r.fields[field], done = value, true
			}
		}
	}
	return done
}

// PutCertificate replaces the text of a certificate.
func (b *Box) PutCertificate(name, text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.certs {
		if c.name == name {
			c.pem = text
			return true
		}
	}
	return false
}

// validPair reports whether PEM has a certificate and its key.
func validPair(text []byte) bool {
	_, err := tls.X509KeyPair(text, text)
	return err == nil
}
