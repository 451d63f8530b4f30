package plugins

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
)

// RADIUS says how a Group of ProtocolRADIUS serves.
type RADIUS struct {
	// Mode is how requests are carried; empty means RADIUSForward.
	Mode RADIUSMode `json:"mode,omitempty"`
	// User says by what a server is picked for a user; empty means
	// RADIUSByStationAndName.
	User RADIUSUser `json:"user,omitempty"`
	// Class has accounting follow the Class that a server gave with its accept,
	// besides session and user. It is for servers that give each session one of
	// its own, as NPS does if its policies give none.
	Class bool `json:"class,omitempty"`
	// SecretFile or SecretEnv refer to the secret shared with the servers;
	// RADIUSProxy needs one of them.
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
	// RequireMessageAuthenticator drops, with RADIUSProxy, answers of servers
	// without a Message-Authenticator; with RADIUSForward, Access-Requests
	// without one.
	RequireMessageAuthenticator bool `json:"require_message_authenticator,omitempty"`
	// Transport is what servers are spoken to over; empty means TransportUDP.
	// With TransportRadSec there is no secret. It is for RADIUSProxy.
	Transport RADIUSTransport `json:"transport,omitempty"`
	// RadSec says by what certificates RADIUS is spoken over TLS, with servers
	// and with clients. It is for RADIUSProxy.
	RadSec *RadSec `json:"radsec,omitempty"`
	// MaxOutstanding is how many requests may wait for one server before new
	// users go to others; 0 means no limit. It is for RADIUSProxy.
	MaxOutstanding int `json:"max_outstanding,omitempty"`
	// Servers are backends to which something else applies. They are for
	// RADIUSProxy.
	Servers []RADIUSServer `json:"servers,omitempty"`
	// Clients are who may ask. RADIUSProxy needs some; RADIUSForward leaves it
	// to the servers.
	Clients []RADIUSClient `json:"clients,omitempty"`
	// Hold is how long a request waits for its answer; 0 means 75 s.
	Hold Duration `json:"hold,omitempty"`
	// Remember is how long an answer is kept for repetitions of its request; 0
	// means 30 s.
	Remember Duration `json:"remember,omitempty"`
	// Accounting has accounting kept on disk until a server takes it; nil leaves
	// it to clients to repeat what no server takes. It is for RADIUSProxy.
	Accounting *RADIUSAccounting `json:"accounting,omitempty"`
	// ShowUsers has the status name users whose logins fail, rather than
	// hashes of their names.
	ShowUsers bool `json:"show_users,omitempty"`
}

// A RADIUSMode is a way to carry RADIUS.
type RADIUSMode string

const (
	// RADIUSForward sends datagrams on unchanged. It needs no secret, and
	// servers know their clients by the secrets they always had.
	RADIUSForward RADIUSMode = "forward"
	// RADIUSProxy ends the clients' RADIUS and speaks its own with the
	// servers: it needs the secrets of both.
	RADIUSProxy RADIUSMode = "proxy"
)

// A RADIUSUser says by what a server is picked for a user.
type RADIUSUser string

const (
	// RADIUSByStationAndName is by Calling-Station-Id and User-Name together.
	RADIUSByStationAndName RADIUSUser = "station-and-name"
	// RADIUSByStation is by Calling-Station-Id, without one by User-Name.
	RADIUSByStation RADIUSUser = "station"
	// RADIUSByName is by User-Name, without one by Calling-Station-Id.
	RADIUSByName RADIUSUser = "name"
)

// A RADIUSServer says what else applies to a backend.
type RADIUSServer struct {
	// Backend is its name in the Group's Pool.
	Backend string `json:"backend"`
	// SecretFile or SecretEnv refer to its secret; without them it is that of
	// the others.
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
	// Transport is what it is spoken to over; empty means that of the others.
	Transport RADIUSTransport `json:"transport,omitempty"`
	// Names and Fingerprints are as in RadSec, for this server alone.
	Names        []string `json:"names,omitempty"`
	Fingerprints []string `json:"fingerprints,omitempty"`
	// RequireMessageAuthenticator and MaxOutstanding are as in RADIUS, and
	// are taken from there if they are false and 0.
	RequireMessageAuthenticator bool `json:"require_message_authenticator,omitempty"`
	MaxOutstanding              int  `json:"max_outstanding,omitempty"`
}

// A RADIUSClient is a NAS that may ask, or a network of them with one secret.
type RADIUSClient struct {
	// Name identifies the client within its Group.
	Name string `json:"name"`
	// Addresses are where it sends from by UDP: addresses, or networks such as
	// 192.0.2.0/24.
	Addresses []string `json:"addresses,omitempty"`
	// SecretFile or SecretEnv refer to the secret shared with it; it needs one
	// of them.
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
	// Names and Fingerprints are of a client that comes over TLS, in place of
	// Addresses and a secret: its certificate, issued by who is in the CAFile
	// of RadSec, must have one of these names, or have such a SHA-256.
	Names        []string `json:"names,omitempty"`
	Fingerprints []string `json:"fingerprints,omitempty"`
	// MessageAuthenticator says what is asked of it; empty means MessageAdd.
	MessageAuthenticator MessageAuthenticator `json:"message_authenticator,omitempty"`
	// LimitProxyState drops its Access-Requests with a Proxy-State and without
	// a Message-Authenticator, as NPS's option of that name does.
	LimitProxyState bool `json:"limit_proxy_state,omitempty"`
}

// A MessageAuthenticator says what is asked of a RADIUS client's
// Message-Authenticators.
type MessageAuthenticator string

const (
	// MessageAdd takes requests without one, and adds one to requests and
	// answers.
	MessageAdd MessageAuthenticator = "add"
	// MessageRequire drops Access-Requests without one.
	MessageRequire MessageAuthenticator = "require"
	// MessageLegacy adds one to answers only if the request had one.
	MessageLegacy MessageAuthenticator = "legacy"
)

// Secret refers to the secret shared with the servers.
func (r *RADIUS) Secret() Secret { return Secret{File: r.SecretFile, Env: r.SecretEnv} }

// Secret refers to the secret shared with the server.
func (r *RADIUSServer) Secret() Secret { return Secret{File: r.SecretFile, Env: r.SecretEnv} }

// Secret refers to the secret shared with the client.
func (r *RADIUSClient) Secret() Secret { return Secret{File: r.SecretFile, Env: r.SecretEnv} }

// Prefixes returns the Addresses as networks.
func (r *RADIUSClient) Prefixes() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range r.Addresses {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			a, addrErr := netip.ParseAddr(s)
			if addrErr != nil || a.Zone() != "" {
				return nil, fmt.Errorf("%q is neither an address nor a network such as 192.0.2.0/24", s)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p.Masked() != p {
			return nil, fmt.Errorf("%s has bits behind its length, the network is %v", s, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

// Proxies reports whether g is to be served by a RADIUS proxy.
func (g *Group) Proxies() bool { return g.RADIUS != nil && g.RADIUS.Mode == RADIUSProxy }

// secret checks a reference to a secret that is needed if must says so.
func (v *validator) secret(at string, s Secret, must bool) {
	switch {
	case must && s.IsZero():
		v.add(at+".secret_file", "secret_file or secret_env is needed")
	case s.File != "" && s.Env != "":
		v.add(at+".secret_env", "there is secret_file too, only one can be")
	case s.Env != "" && !isVariable(s.Env):
		// It may be the secret itself, so it isn't repeated.
		v.add(at+".secret_env", "it isn't the name of an environment variable; the secret itself doesn't belong here")
	}
}

// checkPassword checks what a check says of a real account.
func (v *validator) checkPassword(at string, c *Check) {
	p := c.Password()
	switch {
	case c.StatusServer && (!p.IsZero() || c.User != ""):
		v.add(at+".status_server", "it is about no user")
	case p.IsZero():
		return
	case p.File != "" && p.Env != "":
		v.add(at+".password_env", "there is password_file too, only one can be")
	case p.Env != "" && !isVariable(p.Env):
		v.add(at+".password_env", "it isn't the name of an environment variable; the password itself doesn't belong here")
	case c.User == "":
		v.add(at+".user", "a password needs the user whose it is")
	case c.Accounting:
		v.add(at+".accounting", "accounting asks for no password")
	case !c.Advisory:
		v.add(at+".advisory", "a check with a real account must be advisory: a slow directory would bring all servers down at once")
	}
	if c.Interval != 0 && c.Interval.D() < 10*time.Second || c.Interval == 0 {
		v.add(at+".interval", "a real login every few seconds is a burden on the directory: it must be 10s or more")
	}
}

// radius checks what a group says of RADIUS.
func (v *validator) radius(at string, g *Group, pool *Pool) {
	r := g.RADIUS
	if r == nil {
		return
	}
	at += ".radius"
	if len(g.Listeners) > 0 && !slices.ContainsFunc(g.Listeners, func(l Listener) bool { return l.Protocol.radius() }) {
		v.add(at, "it needs a radius or radsec listener")
	}
	oneOf(v, at+".mode", r.Mode, RADIUSForward, RADIUSProxy)
	oneOf(v, at+".user", r.User, RADIUSByStationAndName, RADIUSByStation, RADIUSByName)
	v.span(at+".hold", r.Hold, time.Second, 10*time.Minute)
	v.span(at+".remember", r.Remember, time.Second, 5*time.Minute)
	v.between(at+".max_outstanding", r.MaxOutstanding, 1, 1<<16)
	if r.Mode != RADIUSProxy {
		v.forwardOnly(at, r)
		return
	}
	switch {
	case g.Affinity == AffinitySource:
		v.add(at+".mode", "proxy balances users, and can't go with affinity: source")
	case g.ClientAddress == ClientAddressTransparent:
		v.add(at+".mode", "proxy sends its own requests, and can't go with client_address: transparent")
	}
	v.secret(at, r.Secret(), !r.allOwnSecrets(pool))
	v.radiusServers(at, r, pool)
	v.radiusClients(at, r)
	v.radsec(at, g, pool)
	v.radiusAccounting(at, r.Accounting)
}

// allOwnSecrets reports whether every backend of pool has a secret of its own, or
// needs none.
func (r *RADIUS) allOwnSecrets(pool *Pool) bool {
	return pool != nil && !slices.ContainsFunc(pool.Backends, func(b Backend) bool {
		return !r.ByRadSec(b.Name) && !slices.ContainsFunc(r.Servers, func(s RADIUSServer) bool { return s.Backend == b.Name && !s.Secret().IsZero() })
	})
}

// forwardOnly names what only a proxy has a use for.
func (v *validator) forwardOnly(at string, r *RADIUS) {
	allowed := RADIUS{Mode: r.Mode, User: r.User, Class: r.Class, RequireMessageAuthenticator: r.RequireMessageAuthenticator}
	got, want := reflect.ValueOf(*r), reflect.ValueOf(allowed)
	for i := range got.NumField() {
		if !reflect.DeepEqual(got.Field(i).Interface(), want.Field(i).Interface()) {
			name, _, _ := strings.Cut(got.Type().Field(i).Tag.Get("json"), ",")
			v.add(at+"."+name, "only mode: proxy has a use for it")
		}
	}
}

func (v *validator) radiusServers(at string, r *RADIUS, pool *Pool) {
	seen := make(map[string]bool)
	for i := range r.Servers {
		s := &r.Servers[i]
		path := index(at, ".servers", i)
		v.secret(path, s.Secret(), false)
		v.between(path+".max_outstanding", s.MaxOutstanding, 1, 1<<16)
		switch {
		case s.Backend == "":
			v.add(path+".backend", "it is needed")
		case seen[s.Backend]:
			v.add(path+".backend", "%q is there twice", s.Backend)
		case pool != nil && !slices.ContainsFunc(pool.Backends, func(b Backend) bool { return b.Name == s.Backend }):
			v.add(path+".backend", "there is no backend %q in pool %s", s.Backend, pool.Name)
		}
		seen[s.Backend] = true
	}
}

func (v *validator) radiusClients(at string, r *RADIUS) {
	if len(r.Clients) == 0 {
		v.add(at+".clients", "mode: proxy serves only clients that it knows, and there is none")
	}
	names, taken := make(map[string]string), make(map[netip.Prefix]string)
	for i := range r.Clients {
		c := &r.Clients[i]
		path := index(at, ".clients", i)
		v.name(path, c.Name, "client", names)
		switch {
		case !c.ByRadSec():
			v.secret(path, c.Secret(), true)
		case !c.Secret().IsZero():
			v.add(path+".secret_file", "a client over TLS has no secret; if it sends by UDP too, that is another client")
		case len(c.Addresses) > 0:
			v.add(path+".addresses", "a client over TLS is known by its certificate; if it sends by UDP too, that is another client")
		}
		oneOf(v, path+".message_authenticator", c.MessageAuthenticator, MessageAdd, MessageRequire, MessageLegacy)
		if len(c.Addresses) == 0 && !c.ByRadSec() {
			v.add(path+".addresses", "there is none")
		}
		for j := range c.Addresses {
			at := index(path, ".addresses", j)
			one := RADIUSClient{Addresses: c.Addresses[j : j+1]}
			p, err := one.Prefixes()
			if err != nil {
				v.add(at, "%v", err)
				continue
			}
			if other, dup := taken[p[0]]; dup {
				v.add(at, "%s is at %s already", c.Addresses[j], other)
			}
			taken[p[0]] = at
		}
	}
}

// RADIUSStats is what is counted of a listener that is a RADIUS proxy.
type RADIUSStats struct {
	// Waiting is how many requests wait for an answer, Kept how many answers
	// are kept for repetitions.
	Waiting int `json:"waiting"`
	Kept    int `json:"kept"`
	// Stored and NotStored count accounting that was written to disk since no
	// server took it, and that couldn't be.
	Stored    uint64 `json:"stored,omitempty"`
	NotStored uint64 `json:"not_stored,omitempty"`
	// Clients and Servers are each one's.
	Clients []RADIUSClientStats `json:"clients"`
	Servers []RADIUSServerStats `json:"servers"`
	// Failures are the users whose logins failed most often.
	Failures []RADIUSFailure `json:"failures,omitempty"`
}

// RADIUSStoreStats is what a group's store of accounting holds, and has counted
// since it was opened.
type RADIUSStoreStats struct {
	// Directory is where it is.
	Directory string `json:"directory"`
	// Waiting is how many records no server has taken, since Oldest, and Bytes
	// what all that is kept takes.
	Waiting uint64    `json:"waiting"`
	Oldest  time.Time `json:"oldest,omitzero"`
	Bytes   int64     `json:"bytes"`
	// Kept counts records acknowledged, Delivered those that servers took,
	// Repeated those sent again, and Full those refused since there was no
	// room.
	Kept      uint64 `json:"kept"`
	Delivered uint64 `json:"delivered"`
	Repeated  uint64 `json:"repeated"`
	Full      uint64 `json:"full"`
	// SetAside counts records that no server would take, which stay in a file,
	// Damaged damage that was found, and Failed records the disk failed for.
	SetAside uint64 `json:"set_aside"`
	Damaged  uint64 `json:"damaged"`
	Failed   uint64 `json:"failed"`
}

// RADIUSAnswers counts answers by kind, and says how long they took.
type RADIUSAnswers struct {
	// Accepts, Rejects, Challenges and Accounting are answers by kind.
	Accepts uint64 `json:"accepts"`
	// Rejects are Access-Rejects.
	Rejects uint64 `json:"rejects"`
	// Challenges are Access-Challenges.
	Challenges uint64 `json:"challenges"`
	Accounting uint64 `json:"accounting"`
	// Timeouts counts requests without an answer.
	Timeouts uint64 `json:"timeouts"`
	// P50 and P99 are what half and 99 of 100 answers took at most, to a
	// factor of two; zero if there are none.
	P50 Duration `json:"p50"`
	P99 Duration `json:"p99"`
	// Buckets counts answers by what they took: those under 256 µs, 512 µs
	// and so on, each twice as long; the last counts all longer ones.
	Buckets []uint64 `json:"buckets,omitempty"`
	// Took is all their times together, in seconds.
	Took float64 `json:"took_seconds"`
	// Largest is the largest packet in bytes, Fragmented counts those that
	// IP had to fragment.
	Largest    int    `json:"largest"`
	Fragmented uint64 `json:"fragmented,omitempty"`
	// Advice says what the sizes mean, in words.
	Advice []string `json:"advice,omitempty"`
}

// RADIUSClientStats is what is counted of a client.
type RADIUSClientStats struct {
	Name string `json:"name"`
	// Requests counts requests, Duplicates their repetitions, Dropped what
	// wasn't taken, and BadAuthenticators what of that was wrongly signed.
	Requests          uint64 `json:"requests"`
	Duplicates        uint64 `json:"duplicates"`
	Dropped           uint64 `json:"dropped"`
	BadAuthenticators uint64 `json:"bad_authenticators"`
	RADIUSAnswers
}

// RADIUSServerStats is what is counted of one port of a backend.
type RADIUSServerStats struct {
	// Backend and Port say which.
	Backend string `json:"backend"`
	Port    uint16 `json:"port"`
	// Requests counts requests, Resent repetitions, Moved requests that were
	// sent elsewhere in the end, and Waiting those that wait now.
	Requests uint64 `json:"requests"`
	Resent   uint64 `json:"resent"`
	Moved    uint64 `json:"moved"`
	Waiting  int    `json:"waiting"`
	// BadAuthenticators counts wrongly signed answers, Late those that came
	// after their request was given up, Refused refusals of its port.
	BadAuthenticators uint64 `json:"bad_authenticators"`
	Late              uint64 `json:"late"`
	Refused           uint64 `json:"refused"`
	// Shunned says that new users are kept from it now, since it answers
	// nobody.
	Shunned bool `json:"shunned,omitempty"`
	RADIUSAnswers
}

// RADIUSFailure is a user whose logins failed.
type RADIUSFailure struct {
	// User is its name, or a hash of it.
	User string `json:"user"`
	// Client, Reason and At are of the last failure, Times counts them.
	Client string    `json:"client"`
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	Times  uint64    `json:"times"`
}
