package lb

import (
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// What Route says when it has no backend. These are values, not wrapped, so
// that refusing a packet allocates nothing.
var (
	// ErrNoBackend says that no backend takes new clients.
	ErrNoBackend = errors.New("lb: no backend takes new clients")
	// ErrBackendDown says that the client's backend is down, and that no
	// other could continue what it began.
	ErrBackendDown = errors.New("lb: the client's backend is down")
	// ErrUnknownClient says that a packet continues a client that isn't
	// known, and that no backend may be asked.
	ErrUnknownClient = errors.New("lb: unknown client")
	// ErrAskLimit says that too many packets of unknown clients came for all
	// backends to be asked about each.
	ErrAskLimit = errors.New("lb: too many unknown clients")
)

// The defaults of a Balancer.
const (
	// DefaultMaxHinted lets the tunnels of one computer find each other, and
	// still spreads a network of computers behind one address.
	DefaultMaxHinted = 4
	// DefaultAskRate is how many packets a second may be sent to all
	// backends.
	DefaultAskRate = 200
)

// A Why says how a client came to its backend.
type Why uint8

const (
	// WhyKnown: one of its names was known.
	WhyKnown Why = iota
	// WhyHint: a hint led to another client's backend.
	WhyHint
	// WhyPicked: the Picker chose.
	WhyPicked
	// WhyMoved: its backend was down or gone, and the Picker chose another.
	WhyMoved
	// WhyAsked: all backends were asked, and this one answered.
	WhyAsked
	// WhyRestored: it was read from a snapshot.
	WhyRestored
)

var whyText = [...]string{"known", "hint", "picked", "moved", "asked", "restored"}

func (w Why) String() string {
	if int(w) < len(whyText) {
		return whyText[w]
	}
	return "unknown"
}

// MarshalText returns the Why as String does.
func (w Why) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// MarshalText returns the Stage as String does.
func (s Stage) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Route says where the bytes of a Verdict go: to Member, or, if that is nil,
// to every backend in Ask.
type Route struct {
	Member *Member
	// Ask is shared and must not be changed.
	Ask []*Member
	Why Why
}

// A Balancer decides for one affinity group: the ports that agree where a
// client lives.
type Balancer struct {
	// Pool holds the backends. It must not be nil.
	Pool *Pool
	// Picker chooses for new clients; nil means Maglev.
	Picker Picker
	// Table remembers clients. It must not be nil, and must not be shared by
	// balancers with other Pools.
	Table *Table
	// MaxHinted is how many clients at one address a new client at that
	// address follows: 0 means DefaultMaxHinted, less than 0 none.
	MaxHinted int
	// AskRate is how many packets a second may be sent to all backends: 0
	// means DefaultAskRate, less than 0 none. No address, of IPv6 no /64, can
	// have so much of it that nothing is left to others.
	AskRate int
	// Trace, if not nil, hears of rare events.
	Trace *Trace

	maglev Maglev
	stats  [len(whyText)]atomic.Uint64
	refuse struct{ noBackend, down, unknown, askLimit atomic.Uint64 }
}

// Stats counts the decisions of a Balancer since it was made.
type Stats struct {
	// Known to Asked count routes by how they were found.
	Known, Hint, Picked, Moved, Asked uint64
	// NoBackend to AskLimit count what was refused, by its error.
	NoBackend, BackendDown, UnknownClient, AskLimit uint64
	// Table is what the Table holds.
	Table TableStats
}

// Stats returns what has been counted.
func (b *Balancer) Stats() Stats {
	return Stats{
		Known: b.stats[WhyKnown].Load(), Hint: b.stats[WhyHint].Load(), Picked: b.stats[WhyPicked].Load(),
		Moved: b.stats[WhyMoved].Load(), Asked: b.stats[WhyAsked].Load(),
		NoBackend: b.refuse.noBackend.Load(), BackendDown: b.refuse.down.Load(),
		UnknownClient: b.refuse.unknown.Load(), AskLimit: b.refuse.askLimit.Load(),
		Table: b.Table.Stats(),
	}
}

// Route decides where the bytes of v go, without recording anything. The
// backends in avoid aren't chosen: those a stream could not reach, say. The
// error is one of this package's own, unwrapped. Route doesn't allocate.
//
// The first name that is known decides, if its backend may still have clients.
// Otherwise a client that begins follows a hint, or is picked for; one that
// continues is treated as v.Miss says.
func (b *Balancer) Route(v *Verdict, f Flow, avoid ...ID) (Route, error) {
	r, err := b.route(v, f, b.Pool.View(), avoid, true)
	if err == nil {
		b.stats[r.Why].Add(1)
		switch r.Why {
		case WhyPicked, WhyMoved:
			r.Member.load.picked.Add(1)
			r.Member.load.wait(uint32(time.Now().Unix()))
		case WhyAsked:
			b.Trace.asked(v.pickKey(f), len(r.Ask))
		default:
		}
		return r, nil
	}
	switch err {
	case ErrNoBackend:
		b.refuse.noBackend.Add(1)
	case ErrBackendDown:
		b.refuse.down.Add(1)
	case ErrAskLimit:
		b.refuse.askLimit.Add(1)
	default:
		b.refuse.unknown.Add(1)
	}
	b.Trace.refused(v.pickKey(f), err)
	return Route{}, err
}

// route is Route, which counts. If real is false it takes no note of the client
// having been heard of, and no token for asking.
func (b *Balancer) route(v *Verdict, f Flow, view *View, avoid []ID, real bool) (Route, error) {
	m, why, lost := b.known(v, view, avoid, real)
	if m != nil {
		return Route{Member: m, Why: why}, nil
	}
	key := v.pickKey(f)
	if v.Begin || v.Miss == MissPick {
		if m = b.pick(key, view, avoid); m == nil {
			return Route{}, ErrNoBackend
		}
		if lost {
			return Route{Member: m, Why: WhyMoved}, nil
		}
		return Route{Member: m, Why: WhyPicked}, nil
	}
	switch {
	case lost:
		return Route{}, ErrBackendDown
	case v.Miss == MissDrop || b.AskRate < 0:
		return Route{}, ErrUnknownClient
	case len(view.Usable) == 0:
		return Route{}, ErrNoBackend
	case len(view.Usable) == 1:
		return Route{Member: view.Usable[0], Why: WhyPicked}, nil
	case real && !b.Table.mayAsk(defaultTo(b.AskRate, DefaultAskRate), f.Client.Addr()):
		return Route{}, ErrAskLimit
	}
	return Route{Ask: view.Usable, Why: WhyAsked}, nil
}

// known returns the backend of the first known name, else, for a client that
// begins, of a hint. It says whether a name was known whose backend is lost.
func (b *Balancer) known(v *Verdict, view *View, avoid []ID, real bool) (m *Member, why Why, lost bool) {
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i, k := range v.Keys {
		c := t.client(k, now)
		if c == 0 {
			continue
		}
		id := t.clients.items[c].backend
		if m := view.Member(id); v.Bound && i == 0 && m != nil {
			if real {
				t.touch(c, now)
			}
			return m, WhyKnown, false
		}
		if m := view.usable(id); m != nil && !slices.Contains(avoid, id) && !(v.Anew && m.State == Draining) {
			if real {
				t.touch(c, now)
			}
			return m, WhyKnown, false
		}
		lost = true
	}
	if !v.Begin {
		return nil, 0, lost
	}
	for _, k := range v.Hints {
		m := b.hinted(k, view, now)
		if m == nil || slices.Contains(avoid, m.ID) {
			continue
		}
		if n := t.find(k.source()); real && n != 0 && k.Space() == SpaceAddr {
			t.sources.items[t.names.items[n].owner].follow(now)
		}
		return m, WhyHint, lost
	}
	return nil, 0, lost
}

// hinted returns where hint k leads. The flow of a client is as good as the
// client: its backend may even be draining. An address is shared by strangers,
// so it counts only while they are few, and for what takes new clients.
func (b *Balancer) hinted(k Key, view *View, now tick) *Member {
	t := b.Table
	if k.Space() != SpaceAddr {
		if c := t.client(k, now); c != 0 {
			return view.usable(t.clients.items[c].backend)
		}
		return nil
	}
	n := t.find(k.source())
	if n == 0 {
		return nil
	}
	s := &t.sources.items[t.names.items[n].owner]
	// Those on their way there count: many may come before any is answered.
	if s.last == 0 || int(s.clients)+s.following(now) >= defaultTo(b.MaxHinted, DefaultMaxHinted) {
		return nil
	}
	m := view.usable(t.clients.items[s.last].backend)
	if m == nil || m.Full() || !slices.Contains(view.Ready, m) {
		return nil
	}
	return m
}

// pickKey is what a Picker hashes for v.
func (v *Verdict) pickKey(f Flow) Key {
	if !v.Pick.IsZero() {
		return v.Pick
	}
	for _, k := range v.Keys {
		if !k.IsZero() {
			return k
		}
	}
	return FlowKey(f)
}

// pick asks the Picker. If what it returns is full or to be avoided, it is asked
// again with another key made from the first, so that the clients of a full
// backend are spread over all others; then whatever is left is taken.
func (b *Balancer) pick(k Key, view *View, avoid []ID) *Member {
	p := b.Picker
	if p == nil {
		p = &b.maglev
	}
	if len(view.Ready) > 0 {
		const tries = 4
		again := k
		for range tries {
			m := p.Pick(again, view)
			if m != nil && !m.Full() && !slices.Contains(avoid, m.ID) {
				return m
			}
			again.hi = mix(again.hi + 1)
		}
	}
	for _, list := range [2][]*Member{view.Ready, view.Spare} {
		at := int(k.hash(0) % uint64(max(len(list), 1)))
		for i := range list {
			m := list[(at+i)%len(list)]
			if !m.Full() && !slices.Contains(avoid, m.ID) {
				return m
			}
		}
	}
	return nil
}

// Answered records that backend m answered a client: the client at f is known by
// keys from now on, and is at m. why is what Route said. The first key counts
// most: if it is known at another backend, that client is moved with all its
// names; of the other keys only the name itself is. Answered with [StageNone]
// records nothing. It reports whether the client is recorded: a limit of the
// Table may forbid it, which harms nothing but the client's affinity.
func (b *Balancer) Answered(m *Member, f Flow, stage Stage, why Why, keys ...Key) bool {
	if stage == StageNone {
		return false
	}
	t := b.Table
	t.mu.Lock()
	c, fresh, was, moved := t.bind(m, AddrKey(f.Client.Addr()), stage, why, keys)
	var out Client
	if fresh && b.Trace != nil && b.Trace.Bound != nil {
		out = t.export(c)
	}
	t.mu.Unlock()
	if fresh {
		b.Trace.bound(out, m)
	}
	if moved {
		b.Trace.moved(firstKey(keys), b.Pool.View().Member(was), m)
	}
	return c != 0
}

// Learn gives the client that is known by one of keys the others as names too,
// if its backend is m. Unlike Answered it never makes a client, and takes no name
// from another one: nothing has proven whose it is.
func (b *Balancer) Learn(m *Member, keys ...Key) bool {
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, k := range keys {
		c := t.client(k, now)
		if c == 0 || t.clients.items[c].backend != m.ID {
			continue
		}
		t.touch(c, now)
		for _, k := range keys {
			if other := t.client(k, now); other == 0 || other == c {
				t.addName(c, k, now)
			}
		}
		return true
	}
	return false
}

// Home returns the backend of the client that is known by the first of keys that
// is known at all, in whatever State the backend is, and takes note of the client
// having been heard of. It returns nil if none is known, or the backend has left
// the Pool. It is for a flow that has a backend already, to ask whether that is
// still right: Route would rather move the client.
func (b *Balancer) Home(keys ...Key) *Member {
	view := b.Pool.View()
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for _, k := range keys {
		if c := t.client(k, now); c != 0 {
			t.touch(c, now)
			return view.Member(t.clients.items[c].backend)
		}
	}
	return nil
}

// Touch says that the client with name k is alive, and reports whether it is
// known. Engines call it now and then for flows whose packets they don't Route.
func (b *Balancer) Touch(k Key) bool {
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	c := t.client(k, now)
	if c != 0 {
		t.touch(c, now)
	}
	return c != 0
}

// A Stream is the claim of an open stream on its backend; see
// [Balancer.Attach].
type Stream struct {
	b      *Balancer
	m      *Member
	client uint32 // the client it keeps; 0 if none
	serial uint32 // of the client
	done   atomic.Bool
}

// Attach records a stream to m that has been opened for the client at f. If v
// names the client, it is recorded as established, and lasts at least as long as
// the stream. Otherwise, or if the client is at another backend that is usable,
// only the load of m counts it. The caller must Close the
// Stream when it ends.
func (b *Balancer) Attach(m *Member, v *Verdict, f Flow, why Why) *Stream {
	s := &Stream{b: b, m: m}
	if k := firstKey(v.Keys[:]); !k.IsZero() && !b.livesElsewhere(k, m) && b.Answered(m, f, StageEstablished, why, v.Keys[:]...) {
		s.client, s.serial = b.Table.hold(k)
	}
	if s.client == 0 {
		m.load.streams.Add(1)
	}
	return s
}

// livesElsewhere reports whether the client with name k is at a usable backend
// other than m. A stream that had to avoid that backend, whose one port may be
// closed, must not take the client's other flows along.
func (b *Balancer) livesElsewhere(k Key, m *Member) bool {
	view := b.Pool.View()
	t := b.Table
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.client(k, t.now())
	return c != 0 && t.clients.items[c].backend != m.ID && view.usable(t.clients.items[c].backend) != nil
}

// Member returns the backend as it is now, or nil if it isn't in the Pool any
// more.
func (s *Stream) Member() *Member { return s.b.Pool.View().Member(s.m.ID) }

// Close ends the claim. Only the first call counts.
func (s *Stream) Close() {
	if s.done.Swap(true) {
		return
	}
	if s.client == 0 {
		s.m.load.streams.Add(-1)
		return
	}
	s.b.Table.letGo(s.client, s.serial)
}

// hold keeps the client with name k until letGo: it neither expires nor makes
// room. It returns the client, or 0 if there is none.
func (t *Table) hold(k Key) (c, serial uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c = t.client(k, t.now()); c == 0 {
		return 0, 0
	}
	r := &t.clients.items[c]
	if l := t.list(r); l != nil {
		t.unlink(l, c)
	}
	r.streams++
	return c, r.serial
}

// letGo ends one hold of client c, unless that client has gone.
func (t *Table) letGo(c, serial uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.clients.items[c]
	if !t.clients.live(c) || r.serial != serial {
		return
	}
	r.streams--
	if r.streams > 0 {
		return
	}
	if r.names == 0 {
		t.link(t.list(r), c)
		t.remove(c)
		return
	}
	r.seen = t.now()
	t.link(t.list(r), c)
	t.arm()
}

func firstKey(keys []Key) Key {
	for _, k := range keys {
		if !k.IsZero() {
			return k
		}
	}
	return Key{}
}

// bucket is a token bucket.
type bucket struct {
	tokens float64
	at     time.Time
}

// fill adds what has come since, at rate a second: a second's at most.
func (k *bucket) fill(now time.Time, rate float64) {
	if k.at.IsZero() {
		k.tokens = rate
	} else {
		k.tokens = min(k.tokens+now.Sub(k.at).Seconds()*rate, rate)
	}
	k.at = now
}

const (
	// askShares is how many networks are told apart in asking; those that
	// collide share.
	askShares = 1024
	// askShare is the part of the rate that is a network's share.
	askShare = 1. / 8
)

// mayAsk takes a token, of which rate come each second. While at least half a
// second's are left anybody may, then only networks that haven't had their share.
// So a lone network may take nearly all, and yet leaves enough for others.
func (t *Table) mayAsk(rate int, from netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shares == nil {
		t.shares = new([askShares]bucket)
	}
	now, all := time.Now(), float64(rate)
	share := &t.shares[networkKey(from).hash(t.index.seed)%askShares]
	share.fill(now, max(all*askShare, 1))
	t.ask.fill(now, all)
	if t.ask.tokens < 1 || t.ask.tokens <= all/2 && share.tokens < 1 {
		return false
	}
	t.ask.tokens--
	share.tokens = max(share.tokens-1, 0)
	return true
}

// networkKey names what one client can send from: an address, or a /64 of IPv6.
func networkKey(a netip.Addr) Key {
	if a = a.Unmap(); a.Is6() {
		a = netip.PrefixFrom(a.WithZone(""), 64).Masked().Addr()
	}
	return AddrKey(a)
}
