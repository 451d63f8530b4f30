package sstp

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// How a certificate is changed under way, one gateway after the other. Of each
// gateway:
//
//	waiting ──▶ draining ──▶ emptying ──▶ setting ──▶ verifying ──▶ returning ──▶ proving ──▶ done
//	   │            │            │           │            │             │            │
//	 can the     no new      until its    the hash     does it        new        if that was
//	 others     clients     clients are    is set     expect the     clients    only said: is
//	 serve?                  gone, or         ▲       new hash?      again     it so? ──┐
//	                        time is up        └────────── sessions are aborted ─────────┘
//	├── its clients are shown the old leaf ──┼──── none at all ────┼────── the new leaf ──────▶
//
// A phase is saved before what belongs to it is done. Whoever finds a saved
// Renewal does the work of its phase again: all of it can be repeated. So a process
// may end at any point, and no client is ever shown a leaf that its gateway
// doesn't expect.

// A Phase is how far a gateway is in a [Renewal].
type Phase uint8

const (
	// PhaseWaiting waits until the other gateways can do without this one.
	PhaseWaiting Phase = iota
	// PhaseDraining stops new clients from coming.
	PhaseDraining
	// PhaseEmptying waits for the clients that are there to leave.
	PhaseEmptying
	// PhaseSetting sets the new hash.
	PhaseSetting
	// PhaseVerifying looks whether the gateway expects it.
	PhaseVerifying
	// PhaseReturning lets clients come again: they are shown the new leaf.
	PhaseReturning
	// PhaseProving waits for a session that proves it, if nobody could look what
	// the gateway expects. The next gateway isn't touched before that.
	PhaseProving
	// PhaseDone has nothing left to do.
	PhaseDone
)

var phases = []string{"waiting", "draining", "emptying", "setting", "verifying", "returning", "proving", "done"}

func (p Phase) String() string {
	if int(p) < len(phases) {
		return phases[p]
	}
	return fmt.Sprintf("phase %d", uint8(p))
}

// MarshalText returns what String does.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Phase) UnmarshalText(b []byte) error {
	i := slices.Index(phases, string(b))
	if i < 0 {
		return fmt.Errorf("sstp: a renewal has no phase %.20q", b)
	}
	*p = Phase(i)
	return nil
}

// A Renewal is the change of a certificate at all gateways, as far as it has come.
// It is plain data, which is saved; a [Renewer] carries it out.
type Renewal struct {
	// To is the hash of the new leaf.
	To Fingerprint `json:"to"`
	// Began is when it began, Ended when it was done; zero if it isn't.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended,omitzero"`
	// Paused says that somebody has stopped it: it isn't resumed by itself.
	Paused bool `json:"paused,omitempty"`
	// Away is the hash of the leaf that somebody turned away from, if this is the
	// way back: that one isn't brought to the gateways by itself again.
	Away Fingerprint `json:"away,omitzero"`
	// Gateways are changed in this order.
	Gateways []GatewayRenewal `json:"gateways"`
}

// A GatewayRenewal is how far one gateway has come.
type GatewayRenewal struct {
	// Gateway is its name.
	Gateway string `json:"gateway"`
	// From is the hash it had; zero if that wasn't known.
	From Fingerprint `json:"from"`
	// Phase is what is being done, Since since when.
	Phase Phase     `json:"phase"`
	Since time.Time `json:"since,omitzero"`
	// Until is when the phase ends at the latest, if what it waits for doesn't come
	// before; zero if it waits for as long as it takes, or for nothing.
	Until time.Time `json:"until,omitzero"`
	// Tries counts how often the work of the phase has failed; Error is why it
	// did the last time, or what is being waited for.
	Tries int    `json:"tries,omitempty"`
	Error string `json:"error,omitempty"`
	// Evidence is what proved that the gateway expects the new leaf.
	Evidence *Evidence `json:"evidence,omitempty"`
}

// NewRenewal begins the change to the leaf with the hash to. A gateway of which k
// knows that it expects it already is done at once. Those of which nothing is known
// come first, the others in the order given.
func NewRenewal(k *Keyring, to Fingerprint, gateways []string, now time.Time) (*Renewal, error) {
	if len(gateways) == 0 {
		return nil, errors.New("sstp: a renewal needs a gateway")
	}
	if k.Standing(to) != StandingHeld {
		return nil, fmt.Errorf("sstp: no certificate with the hash %s is held", to)
	}
	r := &Renewal{To: to, Began: now}
	for _, name := range gateways {
		if slices.ContainsFunc(r.Gateways, func(g GatewayRenewal) bool { return g.Gateway == name }) {
			return nil, fmt.Errorf("sstp: gateway %s is named twice", name)
		}
		g := GatewayRenewal{Gateway: name, Since: now}
		if f, ok := k.Expected(name); ok {
			g.From = f
			if f == to {
				g.Phase = PhaseDone
			}
		}
		r.Gateways = append(r.Gateways, g)
	}
	// One that an earlier renewal has left behind serves nobody: it comes first.
	slices.SortStableFunc(r.Gateways, func(a, b GatewayRenewal) int { return boolOrder(!a.From.IsZero(), !b.From.IsZero()) })
	if r.Done() {
		r.Ended = now
	}
	return r, nil
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Clone returns a copy that shares nothing.
func (r *Renewal) Clone() *Renewal {
	if r == nil {
		return nil
	}
	c := *r
	c.Gateways = slices.Clone(r.Gateways)
	for i := range c.Gateways {
		if e := c.Gateways[i].Evidence; e != nil {
			copied := *e
			c.Gateways[i].Evidence = &copied
		}
	}
	return &c
}

// Next returns the gateway whose turn it is, or nil if all are done. Only one is
// ever between waiting and done.
func (r *Renewal) Next() *GatewayRenewal {
	for i := range r.Gateways {
		if p := r.Gateways[i].Phase; p != PhaseDone && p != PhaseWaiting {
			return &r.Gateways[i]
		}
	}
	for i := range r.Gateways {
		if r.Gateways[i].Phase != PhaseDone {
			return &r.Gateways[i]
		}
	}
	return nil
}

// Done reports whether all gateways are done.
func (r *Renewal) Done() bool { return r.Next() == nil }

// Unproved returns the gateway whose hash still waits for a session to prove it, if
// that is all that is left to do: all gateways are changed then, and take clients.
// Otherwise it returns nil.
func (r *Renewal) Unproved() *GatewayRenewal {
	var last *GatewayRenewal
	for i := range r.Gateways {
		switch g := &r.Gateways[i]; {
		case g.Phase == PhaseProving:
			last = g
		case g.Phase != PhaseDone:
			return nil
		}
	}
	return last
}

// first reports whether no gateway was known to expect any certificate when r began:
// then nobody was served yet, and no gateway has clients to lose.
func (r *Renewal) first() bool {
	return !slices.ContainsFunc(r.Gateways, func(g GatewayRenewal) bool { return !g.From.IsZero() })
}

// enter has g go on to a phase.
func (g *GatewayRenewal) enter(p Phase, now time.Time) {
	g.Phase, g.Since, g.Until, g.Tries, g.Error = p, now, time.Time{}, 0, ""
}

// validate says what can't be true of a Renewal that was read from a file.
func (r *Renewal) validate() error {
	if r.To.IsZero() || len(r.Gateways) == 0 {
		return errors.New("sstp: a saved renewal has no certificate or no gateways")
	}
	busy := 0
	for i := range r.Gateways {
		g := &r.Gateways[i]
		if g.Gateway == "" {
			return errors.New("sstp: a saved renewal has a gateway without a name")
		}
		if g.Phase != PhaseWaiting && g.Phase != PhaseDone {
			busy++
		}
	}
	if busy > 1 {
		return errors.New("sstp: a saved renewal has several gateways under way at once")
	}
	return nil
}

// Evidence is what is known of whether a gateway expects a leaf. Nothing short of a
// session that somebody logs in to proves all of it: the gateway looks at the hash
// only after that. So each fact says what it is worth.
type Evidence struct {
	// Answers says that the gateway accepted a call, up to the point at which a
	// user would log in: the service runs, and the network between is right. Of
	// the hash it says nothing.
	Answers bool `json:"answers"`
	// Configured is the hash that was read back from the gateway's registry. It
	// counts once the service was restarted.
	Configured Fingerprint `json:"configured,omitzero"`
	// Shows is the hash of the leaf that the gateway itself shows in TLS. Where no
	// hash is set in the registry, this is what it expects.
	Shows Fingerprint `json:"shows,omitzero"`
	// Bound says that a session was logged in to, with this leaf, and survived its
	// crypto binding: the whole proof.
	Bound bool `json:"bound"`
	// Word is whose word was taken that the hash is set, if nobody looked:
	// "administrator", or the command that did it.
	Word string `json:"word,omitempty"`
}

// Judge returns nil if e is enough to let clients in that are shown the leaf with
// the hash want, and otherwise why not.
func (e *Evidence) Judge(want Fingerprint) error {
	switch {
	case !e.Answers && !e.Bound:
		return errors.New("sstp: the gateway doesn't answer")
	case e.Bound:
		return nil
	case !e.Configured.IsZero() && e.Configured != want:
		return fmt.Errorf("sstp: the gateway's registry holds the hash %s, not %s", e.Configured, want)
	case e.Configured == want:
		return nil
	case !e.Shows.IsZero() && e.Shows != want:
		return fmt.Errorf("sstp: the gateway shows the certificate %s, not %s, and nobody looked into its registry", e.Shows, want)
	case e.Shows == want:
		return nil
	case e.Word != "":
		return nil
	}
	return errors.New("sstp: nothing says which hash the gateway is configured with")
}

// Holds reports whether somebody has seen that the gateway holds the hash want,
// whether it answers or not: that somebody said so is not enough. It may be called
// on a nil Evidence.
func (e *Evidence) Holds(want Fingerprint) bool {
	switch {
	case e == nil:
		return false
	case e.Bound:
		return true
	case !e.Configured.IsZero():
		return e.Configured == want
	}
	return e.Shows == want
}

// String says what e is worth, in words.
func (e *Evidence) String() string {
	switch {
	case e.Bound:
		return "a session was logged in to with it"
	case !e.Configured.IsZero():
		return "its registry holds the hash, and it takes calls"
	case !e.Shows.IsZero():
		return "it shows the certificate itself, and takes calls"
	case e.Word != "":
		return "it takes calls; that the hash is set is the word of the " + e.Word
	case e.Answers:
		return "it takes calls"
	}
	return "nothing"
}
