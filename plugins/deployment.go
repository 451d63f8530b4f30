package plugins

import "net/netip"

// A Deployment is everything one organisation balances: its sites, and in each
// the pools of servers and the groups of listeners before them.
type Deployment struct {
	// Name is for people; it may be empty.
	Name string `json:"name,omitempty"`
	// Sites are places with gateways of their own. A driver serves one.
	Sites []Site `json:"sites,omitempty"`
	// Geo is a DNS server for clients of all sites. Without Sites, it is all
	// that is served.
	Geo *Geo `json:"geo,omitempty"`
}

// A Site is one place.
type Site struct {
	// Name identifies the site within the Deployment.
	Name string `json:"name"`
	// Pools are the sets of servers.
	Pools []Pool `json:"pools"`
	// Groups are the affinity groups.
	Groups []Group `json:"groups"`
	// Certificates are what clients of SSTP are shown.
	Certificates []Certificate `json:"certificates,omitempty"`
	// FastPath says whether the kernel carries established clients of ikev2
	// listeners; empty means FastPathOff.
	FastPath FastPath `json:"fastpath,omitempty"`
	// FastPathOptions say how; nil means that all have their defaults.
	FastPathOptions *FastPathOptions `json:"fastpath_options,omitempty"`
}

// A Pool is a set of servers of which each can serve any client.
type Pool struct {
	// Name identifies the pool within its Site.
	Name string `json:"name"`
	// Backends are the servers.
	Backends []Backend `json:"backends"`
	// Picker chooses for new clients; empty means PickMaglev.
	Picker Picker `json:"picker,omitempty"`
	// Failback says when backends of a preferred priority are used again;
	// empty means FailbackAutomatic.
	Failback Failback `json:"failback,omitempty"`
	// FailbackDelay is how long a preferred priority must have worked with
	// FailbackDelayed, which needs it.
	FailbackDelay Duration `json:"failback_delay,omitempty"`
	// SlowStart is how long a backend that returns takes to reach its full
	// share of new clients; 0 gives it the full share at once.
	SlowStart Duration `json:"slow_start,omitempty"`
	// Panic says that clients are served by backends that fail their checks
	// when all do, rather than by none; nil means true.
	Panic *bool `json:"panic,omitempty"`
	// Need says how many of the checks must pass; empty means NeedAll.
	Need Need `json:"need,omitempty"`
	// Checks ask whether a backend serves. Without any, all count as up.
	Checks []Check `json:"checks,omitempty"`
}

// A Backend is one server: an RRAS gateway, an NPS server. It has no port,
// because a listener's clients go to the listener's own port, so that all ports
// of one client lead to one server.
type Backend struct {
	// Name identifies the backend within its Pool.
	Name string `json:"name"`
	// Address is where it is reached.
	Address netip.Addr `json:"address"`
	// Weight is its share of new clients beside the others of its Priority,
	// 0 to 65535. Nil means 1. With 0 it gets no new clients.
	Weight *int `json:"weight,omitempty"`
	// Priority orders active and passive backends, 0 to 65535: those with the
	// lowest number serve, the others stand by.
	Priority int `json:"priority,omitempty"`
	// MaxClients is how many clients it takes; 0 means no limit.
	MaxClients int `json:"max_clients,omitempty"`
	// Admin is what the administrator wants of it; empty means AdminEnabled.
	Admin Admin `json:"admin,omitempty"`
}

// An Admin says what an administrator wants of a backend, whatever its health.
type Admin string

const (
	// AdminEnabled has it serve.
	AdminEnabled Admin = "enabled"
	// AdminDraining has it keep its clients and take no new ones.
	AdminDraining Admin = "draining"
	// AdminDisabled moves its clients away at once.
	AdminDisabled Admin = "disabled"
)

// A Picker names a way to choose a backend for a new client.
type Picker string

const (
	// PickMaglev hashes the client's name: every balancer with the same
	// backends chooses the same.
	PickMaglev Picker = "maglev"
	// PickLeastClients takes the backend with the fewest clients for its
	// weight.
	PickLeastClients Picker = "least-clients"
	// PickRoundRobin takes each in turn, as often as its weight says.
	PickRoundRobin Picker = "round-robin"
	// PickLeastOutstanding takes the backend with the fewest requests under
	// way for its weight and its speed. Only a RADIUS proxy knows these.
	PickLeastOutstanding Picker = "least-outstanding"
)

// A Failback says when a preferred priority is used again after it has failed.
type Failback string

const (
	// FailbackAutomatic returns at once.
	FailbackAutomatic Failback = "automatic"
	// FailbackDelayed returns after Pool.FailbackDelay.
	FailbackDelayed Failback = "delayed"
	// FailbackManual waits for an administrator.
	FailbackManual Failback = "manual"
)

// A Need says how many checks of a backend must pass.
type Need string

const (
	// NeedAll has a backend up while all of its checks pass.
	NeedAll Need = "all"
	// NeedAny has it up while one passes.
	NeedAny Need = "any"
)

// A CheckType names a way to ask a backend whether it serves.
type CheckType string

const (
	// CheckIKEv2 has a real IKE_SA_INIT answered.
	CheckIKEv2 CheckType = "ikev2"
	// CheckSSTP has a HEAD request to the SSTP resource answered.
	CheckSSTP CheckType = "sstp"
	// CheckRADIUS has an Access-Request answered.
	CheckRADIUS CheckType = "radius"
	// CheckRadSec has a Status-Server request answered over TLS.
	CheckRadSec CheckType = "radsec"
	// CheckTCP opens a TCP connection. It proves little.
	CheckTCP CheckType = "tcp"
	// CheckHTTPS has a GET request for Path answered.
	CheckHTTPS CheckType = "https"
	// CheckICMP has an echo request answered. It proves that there is a
	// machine, no more.
	CheckICMP CheckType = "icmp"
)

// A Check says how the backends of a pool are asked whether they serve.
type Check struct {
	// Name identifies the check within its Pool; empty means its Type.
	Name string `json:"name,omitempty"`
	// Type says how to ask.
	Type CheckType `json:"type"`
	// Port is where to ask; 0 means the Type's usual port: 500, 443, 1812, 2083.
	// CheckTCP has none and needs one; CheckICMP has none at all.
	Port int `json:"port,omitempty"`
	// Interval is the time between probes; 0 means 5 s, the least is 1 s.
	Interval Duration `json:"interval,omitempty"`
	// Timeout bounds one probe; 0 means 2 s, or Interval if that is less.
	Timeout Duration `json:"timeout,omitempty"`
	// Rise and Fall are how many probes in a row must succeed, or fail,
	// before the result counts, 1 to 100; 0 means 2 and 3.
	Rise int `json:"rise,omitempty"`
	Fall int `json:"fall,omitempty"`
	// Advisory has the check reported, and nothing else.
	Advisory bool `json:"advisory,omitempty"`

	// Strict has CheckIKEv2 fail a gateway that lives but refuses all the
	// proposals that Windows clients make.
	Strict bool `json:"strict,omitempty"`

	// Host is the name CheckSSTP and CheckHTTPS ask for, in TLS and in HTTP;
	// empty means the backend's address.
	Host string `json:"host,omitempty"`
	// Path is what CheckHTTPS asks for; empty means /.
	Path string `json:"path,omitempty"`
	// Expect is the one HTTP status that CheckSSTP and CheckHTTPS take as
	// proof; 0 means 401 for CheckSSTP, and any of 200 to 399 for CheckHTTPS.
	Expect int `json:"expect,omitempty"`
	// PlainHTTP has CheckSSTP and CheckHTTPS ask without TLS, for gateways
	// whose TLS is ended before them.
	PlainHTTP bool `json:"plain_http,omitempty"`
	// Ask is what CheckSSTP asks; empty means AskHead.
	Ask SSTPQuestion `json:"ask,omitempty"`
	// VerifyTLS has these refuse a certificate that isn't valid for Host.
	VerifyTLS bool `json:"verify_tls,omitempty"`

	// User is whom CheckRADIUS asks about; empty means "aovlb-probe". It needs
	// no account: a reject is an answer. NPS rejects the name in its registry
	// value "ping user-name" without work and without logging it.
	User string `json:"user,omitempty"`
	// SecretFile or SecretEnv refer to the RADIUS secret CheckRADIUS shares
	// with the servers; it needs one of them.
	SecretFile string `json:"secret_file,omitempty"`
	SecretEnv  string `json:"secret_env,omitempty"`
	// Accounting has CheckRADIUS ask by an Accounting-Request, at port 1813
	// if Port is 0.
	Accounting bool `json:"accounting,omitempty"`
	// RequireMessageAuthenticator has CheckRADIUS take no answer without one.
	RequireMessageAuthenticator bool `json:"require_message_authenticator,omitempty"`
	// PasswordFile or PasswordEnv refer to the password of User, who then must
	// be let in: which proves the directory behind the server too. Such a check
	// must be advisory, since a slow directory would bring all servers down. A
	// password that is rejected isn't tried again for a long time.
	PasswordFile string `json:"password_file,omitempty"`
	PasswordEnv  string `json:"password_env,omitempty"`
	// StatusServer has CheckRADIUS ask by Status-Server, for servers that have
	// it; NPS hasn't.
	StatusServer bool `json:"status_server,omitempty"`

	// RadSec says by what certificates CheckRadSec asks; it needs it.
	RadSec *RadSec `json:"radsec,omitempty"`
}

// A SSTPQuestion is what a check of SSTP asks.
type SSTPQuestion string

const (
	// AskHead sends a HEAD, which costs a gateway nothing.
	AskHead SSTPQuestion = "head"
	// AskCall begins a call and aborts it, which proves more, takes a port for a
	// moment, and is logged by the gateway.
	AskCall SSTPQuestion = "call"
	// AskIPHTTPS asks for the resource of DirectAccess.
	AskIPHTTPS SSTPQuestion = "ip-https"
)

// Secret refers to the RADIUS secret.
func (c *Check) Secret() Secret { return Secret{File: c.SecretFile, Env: c.SecretEnv} }

// Password refers to the password of User.
func (c *Check) Password() Secret { return Secret{File: c.PasswordFile, Env: c.PasswordEnv} }

// A Group is an affinity group: listeners that agree where a client lives.
// Other products call it port following (Kemp), match across services (F5) or a
// persistency group (NetScaler).
type Group struct {
	// Name identifies the group within its Site.
	Name string `json:"name"`
	// Pool names the pool that serves it.
	Pool string `json:"pool"`
	// Affinity says what makes a client; empty means the finest its
	// listeners' protocols have: AffinitySPI for ikev2 and sstp, AffinityUser
	// for radius, AffinitySource for udp and tcp.
	Affinity Affinity `json:"affinity,omitempty"`
	// ClientAddress says which address a backend sees; empty means
	// ClientAddressNAT.
	ClientAddress ClientAddress `json:"client_address,omitempty"`
	// Idle is how long an established client may be silent before it is
	// forgotten; 0 means 35 minutes.
	Idle Duration `json:"idle,omitempty"`
	// HalfOpen is how long a client may take to be established; 0 means 30 s.
	HalfOpen Duration `json:"half_open,omitempty"`
	// Limits bound what clients can cost.
	Limits Limits `json:"limits,omitzero"`
	// RADIUS says how radius listeners serve; nil means that they forward.
	RADIUS *RADIUS `json:"radius,omitempty"`
	// Listeners are where clients come to.
	Listeners []Listener `json:"listeners"`
}

// An Affinity names what makes a client.
type Affinity string

const (
	// AffinitySPI has each IKE SA and each SSTP connection be a client. It
	// spreads clients behind one NAT and survives a change of address; what
	// little comes from one address still stays together.
	AffinitySPI Affinity = "spi"
	// AffinitySource has each source address be a client.
	AffinitySource Affinity = "source"
	// AffinityUser has each RADIUS conversation and user be a client.
	AffinityUser Affinity = "user"
)

// A ClientAddress says which source address backends see.
type ClientAddress string

const (
	// ClientAddressNAT shows them the balancer's address.
	ClientAddressNAT ClientAddress = "nat"
	// ClientAddressTransparent shows them the client's own. The backends must
	// route their answers through the balancer.
	ClientAddressTransparent ClientAddress = "transparent"
)

// Limits bound what the clients of a Group can cost. Zero means the default.
type Limits struct {
	// MaxClients bounds all clients; 0 means 1,048,576.
	MaxClients int `json:"max_clients,omitempty"`
	// MaxPerSource bounds the clients of one address; 0 means no bound.
	MaxPerSource int `json:"max_per_source,omitempty"`
	// MaxHalfOpenPerSource bounds those that aren't established; 0 means 256.
	MaxHalfOpenPerSource int `json:"max_half_open_per_source,omitempty"`
	// MaxHinted is how many clients at one address a new one at that address
	// follows to its backend; 0 means 4, -1 none.
	MaxHinted int `json:"max_hinted,omitempty"`
	// AskRate is how many packets a second may be sent to all backends to
	// find a client's; 0 means 200, -1 none.
	AskRate int `json:"ask_rate,omitempty"`
}

// A Protocol names what clients of a listener speak.
type Protocol string

const (
	// ProtocolIKEv2 is IKEv2 with ESP in UDP: ports 500 and 4500.
	ProtocolIKEv2 Protocol = "ikev2"
	// ProtocolSSTP is SSTP: TCP port 443.
	ProtocolSSTP Protocol = "sstp"
	// ProtocolRADIUS is RADIUS over UDP: ports 1812 and 1813.
	ProtocolRADIUS Protocol = "radius"
	// ProtocolRadSec is RADIUS over TLS: TCP port 2083, authentication and
	// accounting. Its Group must be a RADIUSProxy.
	ProtocolRadSec Protocol = "radsec"
	// ProtocolUDP and ProtocolTCP are anything else, by source address.
	ProtocolUDP Protocol = "udp"
	ProtocolTCP Protocol = "tcp"
)

// Network returns "udp" or "tcp", and "" for an unknown protocol.
func (p Protocol) Network() string {
	switch p {
	case ProtocolIKEv2, ProtocolRADIUS, ProtocolUDP:
		return "udp"
	case ProtocolSSTP, ProtocolRadSec, ProtocolTCP:
		return "tcp"
	}
	return ""
}

// radius reports whether RADIUS is spoken.
func (p Protocol) radius() bool { return p == ProtocolRADIUS || p == ProtocolRadSec }

// A Listener is one address and port that clients come to.
type Listener struct {
	// Name identifies the listener within its Site.
	Name string `json:"name"`
	// Protocol is what is spoken there.
	Protocol Protocol `json:"protocol"`
	// Address is the address and port. An unspecified address, 0.0.0.0 or
	// [::], means all of the machine's.
	Address netip.AddrPort `json:"address"`
	// BackendPort is the port of the backends; 0 means that of Address. For
	// ProtocolRadSec it is their port for authentication by UDP, 0 meaning
	// 1812, and the next one is that for accounting.
	BackendPort int `json:"backend_port,omitempty"`
	// Workers is how many sockets and threads share a UDP listener, 1 to 64;
	// 0 lets the driver choose. TCP listeners have none.
	Workers int `json:"workers,omitempty"`
	// ProxyProtocol has TCP backends told the client's address in a PROXY
	// header; empty means no header.
	ProxyProtocol ProxyProtocol `json:"proxy_protocol,omitempty"`
	// IdleTimeout is how long a TCP connection may be silent; 0 means 10
	// minutes. SSTP needs more than 2. For UDP there is Group.Idle.
	IdleTimeout Duration `json:"idle_timeout,omitempty"`
	// TLS says what is done with the TLS of SSTP.
	TLS TLS `json:"tls,omitzero"`
}

// TargetPort returns the port that l's clients go to at a backend.
func (l *Listener) TargetPort() uint16 {
	if l.BackendPort != 0 {
		return uint16(l.BackendPort)
	}
	return l.Address.Port()
}

// A ProxyProtocol is a version of the PROXY protocol.
type ProxyProtocol string

const (
	// ProxyV1 is the version in text, ProxyV2 the binary one.
	ProxyV1 ProxyProtocol = "v1"
	ProxyV2 ProxyProtocol = "v2"
)

// Site returns the site of that name, or nil. An empty name means the only
// site there is. A nil Deployment has no sites.
func (d *Deployment) Site(name string) *Site {
	if d == nil {
		return nil
	}
	if name == "" && len(d.Sites) == 1 {
		return &d.Sites[0]
	}
	for i := range d.Sites {
		if name != "" && d.Sites[i].Name == name {
			return &d.Sites[i]
		}
	}
	return nil
}

// Of returns what of d concerns the site of that name: all but the other sites. It
// shares that with d, and is d itself where there is nothing to leave out. It is what a
// driver compares, remembers and identifies, so that a change of one site is none of
// another's balancers.
func (d *Deployment) Of(site string) *Deployment {
	s := d.Site(site)
	if s == nil || len(d.Sites) == 1 {
		return d
	}
	out := *d
	out.Sites = []Site{*s}
	return &out
}

// Pool returns the pool of that name, or nil.
func (s *Site) Pool(name string) *Pool {
	for i := range s.Pools {
		if s.Pools[i].Name == name {
			return &s.Pools[i]
		}
	}
	return nil
}
