package sstp

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoLeaf says that a client can't be shown any certificate that its gateway
// would accept.
var ErrNoLeaf = errors.New("sstp: no certificate that the gateway expects")

// acmeALPN is the protocol by which a CA looks for its challenge (RFC 8737).
const acmeALPN = "acme-tls/1"

// A Keyring holds the certificates of a listener, and knows which of them each
// gateway expects: it is the [Leaves] that makes a renewal possible without an
// outage, as gateways learn of a new certificate one after the other.
//
// The rule it keeps: a client is shown the certificate whose hash its gateway is
// configured with, and if that isn't known, or is being changed, none at all. A
// session that begins with another is torn down only after the user has logged
// in, which is worse than a connection that fails at once.
//
// A zero Keyring holds nothing. All methods may be called at any time; Leaf, which
// handshakes call, takes no lock and allocates nothing.
type Keyring struct {
	// Trusting has gateways of which nothing was ever said expect the current
	// certificate. It is right where an administrator has set their hashes
	// before: with a certificate that comes from a file.
	Trusting bool
	// Challenge, if not nil, answers a CA that looks for its challenge by
	// TLS-ALPN-01. Other handshakes don't come to it.
	Challenge func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	view atomic.Pointer[ringView]

	mu       sync.Mutex // of what changes view
	held     map[Fingerprint]*heldLeaf
	past     []PastLeaf // oldest first
	gateways map[string]gatewayState
	current  Fingerprint
}

// heldLeaf is a certificate that can be shown.
type heldLeaf struct {
	cert   *Certificate
	tls    tls.Certificate
	since  time.Time
	served atomic.Uint64
	last   atomic.Int64 // Unix seconds
}

type gatewayState struct {
	hash    Fingerprint
	unsure  string // why, if hash doesn't count
	refused *atomic.Uint64
}

// ringView is what handshakes see: immutable but for counters.
type ringView struct {
	current  *heldLeaf
	gateways map[string]ringGate
	trusting bool
}

type ringGate struct {
	leaf    *heldLeaf
	err     error
	refused *atomic.Uint64
}

// Leaf returns the certificate that a gateway expects, or an error with
// [ErrNoLeaf] that says why there is none. For the backend "" it is the current
// certificate, which need not be one that gateways know.
func (k *Keyring) Leaf(backend string, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if k.Challenge != nil && hello != nil && len(hello.SupportedProtos) == 1 && hello.SupportedProtos[0] == acmeALPN {
		return k.Challenge(hello)
	}
	v := k.view.Load()
	if v == nil {
		return nil, fmt.Errorf("%w: there is no certificate yet", ErrNoLeaf)
	}
	leaf := v.current
	if backend != "" {
		g, known := v.gateways[backend]
		switch {
		case known && g.err != nil:
			g.refused.Add(1)
			return nil, g.err
		case known:
			leaf = g.leaf
		case !v.trusting:
			return nil, fmt.Errorf("%w: nothing is known of the hash that %s is configured with", ErrNoLeaf, backend)
		}
	}
	if leaf == nil {
		return nil, fmt.Errorf("%w: there is no certificate yet", ErrNoLeaf)
	}
	leaf.served.Add(1)
	// Exact to a second is exact enough, and one second has many handshakes.
	if now := time.Now().Unix(); leaf.last.Load() != now {
		leaf.last.Store(now)
	}
	return &leaf.tls, nil
}

// Hold adds a certificate, which must have its key, to those that can be shown.
// By itself this changes nothing for any client, but that the first one held
// becomes the current one.
func (k *Keyring) Hold(c *Certificate) (Fingerprint, error) {
	if c == nil || c.Leaf == nil {
		return Fingerprint{}, errors.New("sstp: no certificate")
	}
	if c.Key == nil {
		return Fingerprint{}, fmt.Errorf("sstp: the certificate for %s has no key: it can't be shown", subject(c.Leaf))
	}
	if !belongs(c.Key, c.Leaf) {
		return Fingerprint{}, fmt.Errorf("sstp: the key isn't that of the certificate for %s", subject(c.Leaf))
	}
	f := c.SHA256()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held[f] != nil {
		return f, nil
	}
	if k.held == nil {
		k.held = make(map[Fingerprint]*heldLeaf)
	}
	k.held[f] = &heldLeaf{cert: c, tls: c.TLS(), since: time.Now()}
	if k.current.IsZero() {
		k.current = f
	}
	k.publish()
	return f, nil
}

// Release forgets a certificate that no gateway expects and that isn't the current
// one. Its hash is remembered, as sessions may still report it.
func (k *Keyring) Release(f Fingerprint) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[f]
	if h == nil {
		return nil
	}
	if f == k.current {
		return errors.New("sstp: the certificate is the current one")
	}
	for name, g := range k.gateways {
		if g.hash == f && g.unsure == "" {
			return fmt.Errorf("sstp: gateway %s still expects the certificate", name)
		}
	}
	delete(k.held, f)
	k.remember(PastLeaf{SHA256: f, Subject: subject(h.cert.Leaf), NotAfter: h.cert.Leaf.NotAfter, Last: time.Unix(h.last.Load(), 0)})
	k.publish()
	return nil
}

// maxPast is how many hashes of former certificates are remembered.
const maxPast = 32

func (k *Keyring) remember(p PastLeaf) {
	k.past = append(slices.DeleteFunc(k.past, func(q PastLeaf) bool { return q.SHA256 == p.SHA256 }), p)
	k.past = k.past[max(0, len(k.past)-maxPast):]
}

// SetCurrent says which of the certificates held is shown to clients that go to no
// gateway, and, if Trusting, to those of gateways of which nothing is known.
func (k *Keyring) SetCurrent(f Fingerprint) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held[f] == nil {
		return fmt.Errorf("sstp: no certificate with the hash %s is held", f)
	}
	k.current = f
	k.publish()
	return nil
}

// Current returns the current certificate, or nil.
func (k *Keyring) Current() *Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[k.current]; h != nil {
		return h.cert
	}
	return nil
}

// Certificate returns the certificate that is held with this hash, or nil.
func (k *Keyring) Certificate(f Fingerprint) *Certificate {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.held[f]; h != nil {
		return h.cert
	}
	return nil
}

// Expect says which hash a gateway is configured with. From now on its clients
// are shown that certificate, or none if it isn't held.
func (k *Keyring) Expect(gateway string, f Fingerprint) {
	k.setGateway(gateway, gatewayState{hash: f})
}

// Withhold has clients of a gateway shown nothing, because what it expects is
// being changed, or otherwise unknown. why says so, for errors and status.
func (k *Keyring) Withhold(gateway, why string) {
	k.setGateway(gateway, gatewayState{unsure: cmp.Or(why, "it isn't known what the gateway expects")})
}

func (k *Keyring) setGateway(gateway string, s gatewayState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.gateways == nil {
		k.gateways = make(map[string]gatewayState)
	}
	s.refused = k.gateways[gateway].refused
	if s.refused == nil {
		s.refused = new(atomic.Uint64)
	}
	k.gateways[gateway] = s
	k.publish()
}

// Forget removes a gateway that is no more.
func (k *Keyring) Forget(gateway string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.gateways, gateway)
	k.publish()
}

// Expected returns the hash that a gateway is configured with; ok is false if that
// isn't known.
func (k *Keyring) Expected(gateway string) (f Fingerprint, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g, known := k.gateways[gateway]
	switch {
	case known && g.unsure == "":
		return g.hash, true
	case !known && k.Trusting:
		return k.current, !k.current.IsZero()
	}
	return Fingerprint{}, false
}

// Told returns the hash that a gateway is configured with, as Expect was told it:
// unlike Expected it takes nothing on trust. ok is false if nothing was told.
func (k *Keyring) Told(gateway string) (f Fingerprint, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	g, known := k.gateways[gateway]
	return g.hash, known && g.unsure == ""
}

// publish makes what handshakes see. k.mu is held.
func (k *Keyring) publish() {
	v := &ringView{current: k.held[k.current], gateways: make(map[string]ringGate, len(k.gateways)), trusting: k.Trusting}
	for name, g := range k.gateways {
		gate := ringGate{leaf: k.held[g.hash], refused: g.refused}
		switch {
		case g.unsure != "":
			gate.err = fmt.Errorf("%w: %s: %s", ErrNoLeaf, name, g.unsure)
		case gate.leaf == nil:
			gate.err = fmt.Errorf("%w: %s is configured with the hash %s, which is none of ours", ErrNoLeaf, name, g.hash)
		}
		v.gateways[name] = gate
	}
	k.view.Store(v)
}

// Standing says what a hash that a client reports is to us.
type Standing uint8

const (
	// StandingUnknown is none that was ever shown here.
	StandingUnknown Standing = iota
	// StandingHeld can be shown now.
	StandingHeld
	// StandingPast was shown before.
	StandingPast
)

// Standing returns what a hash is to k.
func (k *Keyring) Standing(f Fingerprint) Standing {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held[f] != nil {
		return StandingHeld
	}
	if slices.ContainsFunc(k.past, func(p PastLeaf) bool { return p.SHA256 == f }) {
		return StandingPast
	}
	return StandingUnknown
}

// A PastLeaf is a certificate that was held once.
type PastLeaf struct {
	SHA256 Fingerprint `json:"sha256"`
	// Subject is whom it was for, in words.
	Subject string `json:"subject"`
	// NotAfter is when it ends, Last when it was shown last.
	NotAfter time.Time `json:"not_after"`
	Last     time.Time `json:"last,omitzero"`
}

// KeyringStatus is what a Keyring knows, for people.
type KeyringStatus struct {
	// Current is the hash of the current certificate.
	Current Fingerprint `json:"current"`
	// Leaves are the certificates held, the newest first.
	Leaves []LeafStatus `json:"leaves"`
	// Gateways are those of which something is known, by name.
	Gateways []GatewayStatus `json:"gateways"`
	// Past are the certificates that were held before.
	Past []PastLeaf `json:"past,omitempty"`
}

// LeafStatus is what is known of a certificate that is held.
type LeafStatus struct {
	SHA256 Fingerprint     `json:"sha256"`
	SHA1   FingerprintSHA1 `json:"sha1"`
	// Names are whom it is for, Issuer who issued it.
	Names  []string `json:"names"`
	Issuer string   `json:"issuer"`
	// NotBefore and NotAfter bound its validity.
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	// Served counts the handshakes that were given it, of this process; Last is
	// when the last was.
	Served uint64    `json:"served"`
	Last   time.Time `json:"last,omitzero"`
}

// GatewayStatus is what is known of a gateway.
type GatewayStatus struct {
	// Gateway is its name.
	Gateway string `json:"gateway"`
	// Expects is the hash that it is configured with; zero if Unsure.
	Expects Fingerprint `json:"expects"`
	// Unsure says why it isn't known.
	Unsure string `json:"unsure,omitempty"`
	// Missing says that the certificate it expects isn't held.
	Missing bool `json:"missing,omitempty"`
	// Refused counts the handshakes that got no certificate.
	Refused uint64 `json:"refused"`
}

// Status returns what k knows.
func (k *Keyring) Status() KeyringStatus {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := KeyringStatus{Current: k.current, Past: slices.Clone(k.past), Leaves: []LeafStatus{}, Gateways: []GatewayStatus{}}
	for f, h := range k.held {
		x := h.cert.Leaf
		l := LeafStatus{
			SHA256: f, SHA1: h.cert.SHA1(), Names: namesOf(x), Issuer: cmp.Or(x.Issuer.CommonName, x.Issuer.String()),
			NotBefore: x.NotBefore, NotAfter: x.NotAfter, Served: h.served.Load(),
		}
		if at := h.last.Load(); at != 0 {
			l.Last = time.Unix(at, 0)
		}
		s.Leaves = append(s.Leaves, l)
	}
	slices.SortFunc(s.Leaves, func(a, b LeafStatus) int {
		return cmp.Or(b.NotBefore.Compare(a.NotBefore), slices.Compare(a.SHA256[:], b.SHA256[:]))
	})
	for _, name := range slices.Sorted(maps.Keys(k.gateways)) {
		g := k.gateways[name]
		s.Gateways = append(s.Gateways, GatewayStatus{
			Gateway: name, Expects: g.hash, Unsure: g.unsure,
			Missing: g.unsure == "" && k.held[g.hash] == nil, Refused: g.refused.Load(),
		})
	}
	return s
}
