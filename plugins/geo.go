package plugins

import "net/netip"

// Geo is a DNS server that sends clients to the site that serves them best.
type Geo struct {
	// Listen are addresses and ports to answer at, over UDP and TCP.
	Listen []netip.AddrPort `json:"listen"`
	// TLS has it answer over TLS, too.
	TLS *GeoTLS `json:"tls,omitempty"`
	// NSID is what the server says is its name, to those who ask.
	NSID string `json:"nsid,omitempty"`
	// CookieSecretFile holds 32 hexadecimal digits, which servers behind one
	// address share; further lines hold secrets that are good besides, before
	// they are used or after. Empty makes a secret at each start.
	CookieSecretFile string `json:"cookie_secret_file,omitempty"`
	// RateLimit is how many equal answers a network gets a second over UDP, 1
	// to 1,000,000; 0 means no limit.
	RateLimit int `json:"rate_limit,omitempty"`

	// Databases are files in MaxMind's form: of cities, countries or
	// autonomous systems.
	Databases []string `json:"databases,omitempty"`
	// Networks are those the organisation knows better than a database.
	Networks []GeoNetwork `json:"networks,omitempty"`
	// NetworkFiles are tables of further such networks: values divided by
	// commas, with a first line of column names: prefix, name, continent,
	// country, subdivision, asn, latitude, longitude. A name that ends in .yaml
	// or .yml is one of YAML, with networks as here.
	NetworkFiles []string `json:"network_files,omitempty"`
	// Horizons are groups of clients who get other addresses than the world.
	Horizons []GeoHorizon `json:"horizons,omitempty"`

	// HoldDown is how long a site that went down stays away at least.
	HoldDown Duration `json:"hold_down,omitempty"`
	// Failback says when a site that was down is used again; empty means
	// FailbackAutomatic.
	Failback Failback `json:"failback,omitempty"`
	// FailbackDelay is how long such a site must have been up with
	// FailbackDelayed, which needs it.
	FailbackDelay Duration `json:"failback_delay,omitempty"`
	// Quorum is how many servers, this one and its Peers, must find a gateway
	// down before it counts as down; 0 means more than half of them.
	Quorum int `json:"quorum,omitempty"`
	// Peers are further servers whose view counts.
	Peers []GeoPeer `json:"peers,omitempty"`

	// Zones are what the server is the authority for.
	Zones []GeoZone `json:"zones"`
	// Sites are the sites to choose from.
	Sites []GeoSite `json:"sites"`
	// Names are the names whose addresses depend on who asks.
	Names []GeoName `json:"names"`
}

// GeoTLS is DNS over TLS (RFC 7858).
type GeoTLS struct {
	// Listen are addresses and ports, the usual port being 853.
	Listen []netip.AddrPort `json:"listen"`
	// CertificateFile and KeyFile are in PEM.
	CertificateFile string `json:"certificate_file"`
	KeyFile         string `json:"key_file"`
}

// GeoPlace is where something is.
type GeoPlace struct {
	// Continent is AF, AN, AS, EU, NA, OC or SA.
	Continent string `json:"continent,omitempty"`
	// Country is two letters, of ISO 3166-1.
	Country string `json:"country,omitempty"`
	// Subdivision is a state or province by ISO 3166-2, such as US-WA.
	Subdivision string `json:"subdivision,omitempty"`
	// ASN is the number of the autonomous system.
	ASN uint32 `json:"asn,omitempty"`
	// Latitude and Longitude are in degrees, to the north and east; there are
	// both or neither.
	Latitude  *float64 `json:"latitude,omitempty"`
	Longitude *float64 `json:"longitude,omitempty"`
}

// GeoNetwork is a network and where it is.
type GeoNetwork struct {
	// Name is for people.
	Name string `json:"name,omitempty"`
	// Prefix are its addresses.
	Prefix netip.Prefix `json:"prefix"`
	GeoPlace
}

// GeoHorizon is a group of clients.
type GeoHorizon struct {
	// Name identifies it.
	Name string `json:"name"`
	// Networks are its clients' addresses.
	Networks []netip.Prefix `json:"networks"`
}

// GeoPeer is another server.
type GeoPeer struct {
	// URL is its admin API, such as https://dns2.example.com:9443.
	URL string `json:"url"`
	// TokenFile holds the token of that API.
	TokenFile string `json:"token_file,omitempty"`
}

// GeoZone is a zone.
type GeoZone struct {
	// Origin is its name.
	Origin string `json:"origin"`
	// File has its records, in the form of RFC 1035. Those of Names aren't
	// among them.
	File string `json:"file"`
	// Keys are its DNSSEC keys; without any it is not signed.
	Keys []GeoKey `json:"keys,omitempty"`
}

// GeoKey is a DNSSEC key, in the form of BIND's tools.
type GeoKey struct {
	// File is the path of its two files without .key and .private.
	File string `json:"file"`
	// Published has it known to resolvers, but not sign yet or any more.
	Published bool `json:"published,omitempty"`
	// Announce has the parent asked to point to it (CDS, RFC 7344).
	Announce bool `json:"announce,omitempty"`
}

// GeoSite is a site to choose.
type GeoSite struct {
	// Name identifies it.
	Name string `json:"name"`
	GeoPlace
	// Region groups sites that are equally near.
	Region string `json:"region,omitempty"`
	// Serves says whose clients it is for; where it says nothing, the place
	// does.
	Serves GeoArea `json:"serves,omitzero"`
	// Only has it answer nobody else.
	Only bool `json:"only,omitempty"`
	// Weight is its share beside other sites, 0 to 65535; nil means 1.
	Weight *int `json:"weight,omitempty"`
	// Priority orders sites, 0 to 65535; the lowest serve.
	Priority int `json:"priority,omitempty"`
	// Capacity is how many clients it can have, for least-load.
	Capacity int `json:"capacity,omitempty"`
	// LoadOf names the site of this file whose clients are its load; empty
	// means the one of its own name, or that a peer serves.
	LoadOf string `json:"load_of,omitempty"`
	// Need is how many gateways must be up; 0 means 1, -1 all.
	Need int `json:"need,omitempty"`
	// Unanimous has all gateways answered, or none.
	Unanimous bool `json:"unanimous,omitempty"`
	// Requires names sites without which it is down.
	Requires []string `json:"requires,omitempty"`
	// Gateways are what clients are sent to.
	Gateways []GeoGateway `json:"gateways"`
	// CheckNeed says how many of the checks must pass; empty means NeedAll.
	CheckNeed Need `json:"check_need,omitempty"`
	// Checks ask whether a gateway serves. Without any, all count as up.
	Checks []Check `json:"checks,omitempty"`
}

// GeoArea says which clients a site is for.
type GeoArea struct {
	// Networks are addresses.
	Networks []netip.Prefix `json:"networks,omitempty"`
	// ASNs are numbers of autonomous systems.
	ASNs []uint32 `json:"asns,omitempty"`
	// Subdivisions, Countries and Continents are codes as in GeoPlace.
	Subdivisions []string `json:"subdivisions,omitempty"`
	Countries    []string `json:"countries,omitempty"`
	Continents   []string `json:"continents,omitempty"`
}

// GeoGateway is one server, or one balancer, of a site.
type GeoGateway struct {
	// Name identifies it within its site.
	Name string `json:"name"`
	// Addresses are what clients get.
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Inside are what clients of horizons get instead, by horizon.
	Inside map[string][]netip.Addr `json:"inside,omitempty"`
	// CheckAddress is what is checked; empty means the first of Addresses.
	CheckAddress netip.Addr `json:"check_address,omitzero"`
}

// GeoName is a name whose addresses depend on who asks.
type GeoName struct {
	// Name is the domain name.
	Name string `json:"name"`
	// Sites names those to choose from; empty means all.
	Sites []string `json:"sites,omitempty"`
	// Order sorts the sites into tiers, of which the first with a site that
	// is up serves: by priority, network, asn, subdivision, country, continent
	// or distance.
	Order []string `json:"order,omitempty"`
	// Method chooses within a tier: round-robin, weighted, hash, least-load,
	// first or all; empty means round-robin.
	Method string `json:"method,omitempty"`
	// Nearest is how many distances are told apart; 0 means 3.
	Nearest int `json:"nearest,omitempty"`
	// Answers is how many sites all answers with; 0 means those of a tier.
	Answers int `json:"answers,omitempty"`
	// AllDown says what to answer when no site is left: as-if-up, last-resort,
	// nodata or servfail; empty means as-if-up.
	AllDown string `json:"all_down,omitempty"`
	// LastResort are the addresses for last-resort.
	LastResort []netip.Addr `json:"last_resort,omitempty"`
	// TTL is how long an answer lives; 0 means 30 s.
	TTL Duration `json:"ttl,omitempty"`
	// UnstableTTL is how long it lives while a site changes; 0 means a
	// quarter of TTL.
	UnstableTTL Duration `json:"unstable_ttl,omitempty"`
	// Targets are names to answer with as a CNAME, by site.
	Targets map[string]string `json:"targets,omitempty"`
}
