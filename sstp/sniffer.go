package sstp

import "github.com/aovlb/aovlb/lb"

// An Affinity says what keeps the connections of one client together.
type Affinity uint8

const (
	// AffinityConnection takes each connection for itself. Its source address
	// is only a hint towards the gateway of what else comes from there, and
	// only while that is little: see [lb.Balancer.MaxHinted]. Clients behind
	// one address spread.
	AffinityConnection Affinity = iota
	// AffinitySource keeps all that comes from one address at one gateway, as
	// the vendors' guides for Always On VPN do.
	AffinitySource
)

func (a Affinity) String() string {
	switch a {
	case AffinityConnection:
		return "connection"
	case AffinitySource:
		return "source"
	}
	return "unknown"
}

// Sniffer is the [lb.Sniffer] for connections that are passed through unopened.
// It waits for no byte: nothing in the ClientHello says more of a client than
// its address does. The zero Sniffer has [AffinityConnection].
type Sniffer struct {
	Affinity Affinity
}

// Sniff names the client of f. It looks at nothing else, and never asks for more
// bytes.
func (s Sniffer) Sniff(_ []byte, f lb.Flow) (v lb.Verdict, more int) {
	addr := lb.AddrKey(f.Client.Addr())
	if s.Affinity == AffinitySource {
		return lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{addr}}, 0
	}
	// No Keys: the name of a connection is of no use once it is closed, and
	// would count as a client of its gateway until its time is over.
	return lb.Verdict{Begin: true, Hints: [2]lb.Key{addr}, Pick: lb.FlowKey(f)}, 0
}
