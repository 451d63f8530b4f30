package lb

import (
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// The defaults of a Table.
const (
	// DefaultIdle is how long an established client may be silent. A roaming
	// Windows client is given 30 minutes by default before its gateway gives
	// it up (the network outage time of RRAS); its names must outlive that.
	DefaultIdle = 35 * time.Minute
	// DefaultHalfOpen is how long a client may take from its first answered
	// message to being established.
	DefaultHalfOpen = 30 * time.Second
	// DefaultMaxClients bounds a Table.
	DefaultMaxClients = 1 << 20
	// DefaultMaxHalfOpenPerSource is how many half-open clients one address
	// may have.
	DefaultMaxHalfOpenPerSource = 256
	// DefaultMaxNames is how many names a client may have at once. IKE needs
	// about six: SPIs before and after a rekey, flows on two ports, ESP SPIs.
	DefaultMaxNames = 16
)

// A Table remembers clients: their names, and the backend each is at. All ports
// of an affinity group share one. It is bounded: when it is full, the half-open
// client that has been silent longest makes room, then, for an established one,
// the established client that has been silent longest. The zero Table is ready
// for use.
//
// An entry, which is a name of a client or an address that has clients, takes
// about 75 bytes with its share of everything: a million take 75 MB, and nothing
// in them for the garbage collector to look at.
//
// A Table takes one lock per operation. Engines therefore don't ask it for each
// packet of a flow they know: they do for packets that could change something,
// and now and then to say that a flow is alive ([Balancer.Touch]).
type Table struct {
	// Idle is how long an established client may be silent; 0 means
	// DefaultIdle.
	Idle time.Duration
	// HalfOpen is how long a client that isn't established may be silent; 0
	// means DefaultHalfOpen.
	HalfOpen time.Duration
	// MaxClients bounds the clients; 0 means DefaultMaxClients.
	MaxClients int
	// MaxPerSource bounds the clients of one address; 0 means no bound.
	MaxPerSource int
	// MaxHalfOpenPerSource bounds the half-open clients of one address; 0
	// means DefaultMaxHalfOpenPerSource.
	MaxHalfOpenPerSource int
	// MaxNames bounds the names of one client: the one that was used longest
	// ago is forgotten first.
	// 0 means DefaultMaxNames; values above 255 mean 255.
	MaxNames int

	mu      sync.Mutex // below
	start   time.Time
	index   index
	names   slab[name]
	clients slab[client]
	sources slab[source]
	half    list
	full    list // established
	loads   []*load
	ask     bucket
	shares  *[askShares]bucket // of it, by network
	serial  uint32
	timer   *time.Timer
	due     time.Time // when timer goes off; zero if it isn't set
	stats   TableStats
}

// TableStats counts what a Table holds and what has happened in it.
type TableStats struct {
	// Clients are all clients, HalfOpen those that aren't established.
	Clients, HalfOpen int
	// Names and Sources are the entries for names and source addresses.
	Names, Sources int
	// Bytes is the memory the entries and their index take.
	Bytes int
	// Expired, Evicted and Refused count clients that were silent for too
	// long, had to make room, and weren't recorded because of a limit.
	Expired, Evicted, Refused uint64
}

// A Client is what a Table knows of one client.
type Client struct {
	// Names are its names, latest first.
	Names []Key
	// Source is the address it was last heard from.
	Source Key
	// Backend is where it is.
	Backend ID
	// Stage is how far it has been proven.
	Stage Stage
	// Why is how it came to its backend.
	Why Why
	// Since is when it was recorded, Seen when it was last heard of, to a
	// tenth of a second.
	Since, Seen time.Time
	// Streams is how many open streams keep it.
	Streams int
}

// tick is the Table's time: tenths of a second since Table.start.
type tick uint32

const tickLen = 100 * time.Millisecond

// name is one entry of the index: a client's name, or that of a source
// address (see [Key.source]).
type name struct {
	key   Key
	owner uint32 // of clients, or of sources
	// link is the client's next newer name exclusive-or its next older one: a
	// list that can be walked from either end, in the room of one direction. A
	// client that has as many names as it may loses its oldest for each new one,
	// and to walk there is a cache miss for each name on the way.
	link uint32
}

// source returns the name of the entry for source address k. It is in no Space,
// so that no name of a client equals it, whoever made that up.
func (k Key) source() Key {
	k.meta = 1<<40 | k.meta&(1<<32-1)
	return k
}

type client struct {
	first      uint32 // its latest name
	last       uint32 // its oldest name
	prev, next uint32 // in its list
	source     uint32
	backend    ID
	seen       tick
	since      tick
	streams    uint32
	serial     uint32 // tells it from others that have had its number
	names      uint8
	stage      Stage
	why        Why
	losses     uint8 // of its backend, when it was last heard of
}

type source struct {
	name    uint32 // its entry
	clients uint32
	half    uint32
	last    uint32 // the client seen last; 0 if that one is gone
	hinted  uint32 // hints followed since hintAt that no client has come of
	hintAt  tick
}

// following returns how many new clients have been sent after those of s within
// the last second and haven't been answered.
func (s *source) following(now tick) int {
	if now-s.hintAt > tick(time.Second/tickLen) {
		return 0
	}
	return int(s.hinted)
}

// follow counts one more.
func (s *source) follow(now tick) {
	if s.following(now) == 0 {
		s.hinted, s.hintAt = 0, now
	}
	s.hinted++
}

// list is a list of clients, the one seen last first.
type list struct {
	head, tail uint32
	n          int
}

func (t *Table) idle() time.Duration     { return defaultTo(t.Idle, DefaultIdle) }
func (t *Table) halfOpen() time.Duration { return defaultTo(t.HalfOpen, DefaultHalfOpen) }

// positive is defaultTo for bounds, which can't be less than 1.
func positive(v, def int) int {
	if v <= 0 {
		return def
	}
	return v
}

func defaultTo[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// now returns the time, and makes the zero Table usable. t.mu is held.
func (t *Table) now() tick {
	if t.start.IsZero() {
		// Clients of a snapshot were heard of before now.
		t.start = time.Now().Add(-1000 * time.Hour)
		t.index.seed = rand.Uint64()
		// Number 0 means none in every slab.
		t.names.alloc()
		t.clients.alloc()
		t.sources.alloc()
	}
	return tick(time.Since(t.start) / tickLen)
}

func (t *Table) time(at tick) time.Time { return t.start.Add(time.Duration(at) * tickLen) }

// find returns the number of the entry with key k, or 0.
func (t *Table) find(k Key) uint32 {
	if k.IsZero() {
		return 0
	}
	return t.index.find(k, t.names.items)
}

// client returns the number of the client with name k, or 0. A client whose
// time is over is removed rather than found.
func (t *Table) client(k Key, now tick) uint32 {
	n := t.find(k)
	if n == 0 {
		return 0
	}
	c := t.names.items[n].owner
	if t.expired(&t.clients.items[c], now) {
		t.stats.Expired++
		t.remove(c)
		return 0
	}
	return c
}

func (t *Table) expired(c *client, now tick) bool {
	if c.streams > 0 {
		return false
	}
	limit := t.idle()
	if c.stage != StageEstablished {
		limit = t.halfOpen()
	}
	return time.Duration(now-c.seen)*tickLen > limit
}

// touch says that client c was heard of now.
func (t *Table) touch(c uint32, now tick) {
	r := &t.clients.items[c]
	s := &t.sources.items[r.source]
	s.last = c
	t.notStale(r)
	if r.seen == now {
		return
	}
	r.seen = now
	if l := t.list(r); l != nil && l.head != c {
		t.unlink(l, c)
		t.link(l, c)
	}
}

// list returns the list c is in, or nil if streams keep it out of both.
func (t *Table) list(c *client) *list {
	switch {
	case c.streams > 0:
		return nil
	case c.stage == StageEstablished:
		return &t.full
	}
	return &t.half
}

func (t *Table) link(l *list, c uint32) {
	r := &t.clients.items[c]
	r.prev, r.next = 0, l.head
	if l.head != 0 {
		t.clients.items[l.head].prev = c
	} else {
		l.tail = c
	}
	l.head = c
	l.n++
}

func (t *Table) unlink(l *list, c uint32) {
	r := &t.clients.items[c]
	if r.prev != 0 {
		t.clients.items[r.prev].next = r.next
	} else {
		l.head = r.next
	}
	if r.next != 0 {
		t.clients.items[r.next].prev = r.prev
	} else {
		l.tail = r.prev
	}
	l.n--
}

// bind records that backend m answered the client with these names, which was
// last heard from at src. It returns the client, or 0 if a limit forbade it, and
// the backend it was at before, if that was another.
func (t *Table) bind(m *Member, src Key, stage Stage, why Why, keys []Key) (c uint32, fresh bool, was ID, moved bool) {
	now := t.now()
	c = t.answeredFor(m, stage, why, keys, now)
	if c == 0 {
		if c = t.add(m, src, stage, why, now); c == 0 {
			return 0, false, 0, false
		}
		fresh = true
	}
	r := &t.clients.items[c]
	if r.backend == m.ID && stage < r.stage {
		// It answers the client's first message, which anybody who has seen
		// that can send again, from anywhere. Where it came from names nobody.
		t.touch(c, now)
		t.arm()
		return c, false, 0, false
	}
	if r.backend != m.ID {
		was, moved = r.backend, true
		t.notStale(r)
		t.count(r.backend, -1)
		r.backend, r.why, r.losses = m.ID, why, uint8(m.load.losses.Load())
		t.countAt(m, 1)
	}
	if stage > r.stage {
		t.promote(c, stage)
		fresh = true
	}
	t.resource(c, src)
	t.touch(c, now)
	for _, k := range keys {
		if stage != StageEstablished && why == WhyKnown && t.holds(k, m, now) {
			// Sent from another client's flow, but not led here by it.
			continue
		}
		t.addName(c, k, now)
	}
	if r = &t.clients.items[c]; r.names == 0 && r.streams == 0 {
		t.remove(c) // none of the names was to be had
		return 0, false, 0, false
	}
	t.arm()
	return c, fresh, was, moved
}

// answeredFor returns the client that an answer of backend m with these names is
// about, or 0 if it is about a new one. Anybody can start a handshake in a
// client's name without ever seeing an answer, so:
//   - a half-open answer doesn't join an established client by a weaker name;
//   - a half-open answer moves no client whose backend may still have it, by whatever
//     name, nor takes a name from it;
//   - a flow alone never moves a client: it may have changed hands, and the
//     backend that had it may still send. The flow's own name goes over.
//
// A client that becomes established on the flow of another one at the same
// backend is the same computer: one that reconnects, or starts a second tunnel.
func (t *Table) answeredFor(m *Member, stage Stage, why Why, keys []Key, now tick) (c uint32) {
	strongest := true
	for _, k := range keys {
		if k.IsZero() {
			continue
		}
		known := t.client(k, now)
		if known != 0 && known != c {
			r := &t.clients.items[known]
			here := r.backend == m.ID
			switch {
			case !here && stage != StageEstablished && why == WhyKnown:
			case c != 0 && here && r.stage == StageEstablished:
				t.remove(c)
				return known
			case c == 0 && (here && (strongest || stage >= r.stage) || strongest && k.Space() != SpaceFlow):
				c = known
				if !here || r.stage >= stage {
					return c
				}
			}
		}
		strongest = false
	}
	return c
}

// holds reports whether k is the name of a client that no half-open answer of m may
// take it from: an established one, or one that is at another backend.
func (t *Table) holds(k Key, m *Member, now tick) bool {
	c := t.client(k, now)
	return c != 0 && (t.clients.items[c].stage == StageEstablished || t.clients.items[c].backend != m.ID)
}

// add makes a client, if the limits allow it.
func (t *Table) add(m *Member, src Key, stage Stage, why Why, now tick) uint32 {
	s := t.sourceOf(src)
	if !t.room(s, stage) {
		t.stats.Refused++
		t.dropSource(s)
		return 0
	}
	c := t.clients.alloc()
	t.serial++
	t.clients.items[c] = client{
		backend: m.ID, seen: now, since: now, stage: stage, why: why, source: s, serial: t.serial,
		losses: uint8(m.load.losses.Load()),
	}
	r := &t.clients.items[c]
	so := &t.sources.items[s]
	so.clients++
	so.last = c
	if so.hinted > 0 {
		so.hinted--
	}
	if stage != StageEstablished {
		so.half++
	}
	t.link(t.list(r), c)
	t.countAt(m, 1)
	m.load.answered()
	return c
}

// room reports whether another client of source n may be recorded, and evicts
// one if that is what it takes.
func (t *Table) room(n uint32, stage Stage) bool {
	s := &t.sources.items[n]
	if t.MaxPerSource > 0 && int(s.clients) >= t.MaxPerSource {
		return false
	}
	if stage != StageEstablished && int(s.half) >= positive(t.MaxHalfOpenPerSource, DefaultMaxHalfOpenPerSource) {
		return false
	}
	if t.clients.used()-1 < positive(t.MaxClients, DefaultMaxClients) {
		return true
	}
	victim := t.half.tail
	if victim == 0 && stage == StageEstablished {
		victim = t.full.tail
	}
	if victim == 0 {
		return false
	}
	t.stats.Evicted++
	s.clients++ // or removing its last client would free the source in hand
	t.remove(victim)
	s.clients--
	return true
}

func (t *Table) promote(c uint32, stage Stage) {
	r := &t.clients.items[c]
	if r.stage != StageEstablished && stage == StageEstablished {
		t.sources.items[r.source].half--
	}
	l := t.list(r)
	if l != nil {
		t.unlink(l, c)
	}
	r.stage = stage
	if l != nil {
		t.link(t.list(r), c)
	}
}

// addName gives client c the name k. A name that another client has at the same
// backend stays where it is: a device tunnel and a user tunnel share one flow.
func (t *Table) addName(c uint32, k Key, now tick) {
	if k.IsZero() {
		return
	}
	r := &t.clients.items[c]
	if other := t.client(k, now); other != 0 {
		if other == c {
			t.nameFirst(c, t.find(k))
			return
		}
		if t.clients.items[other].backend == r.backend {
			return
		}
		t.dropName(t.find(k))
		if o := &t.clients.items[other]; o.names == 0 && o.streams == 0 {
			t.remove(other)
		}
	}
	if int(r.names) >= min(positive(t.MaxNames, DefaultMaxNames), 255) {
		t.dropName(r.last)
	}
	n := t.names.alloc()
	t.names.items[n] = name{key: k, owner: c}
	t.linkName(r, n)
	r.names++
	t.index.insert(n, t.names.items)
}

// linkName makes n the latest of the names of r.
func (t *Table) linkName(r *client, n uint32) {
	t.names.items[n].link = r.first
	if r.first != 0 {
		t.names.items[r.first].link ^= n
	} else {
		r.last = n
	}
	r.first = n
}

// unlinkName takes n out of the names of r.
func (t *Table) unlinkName(r *client, n uint32) {
	items := t.names.items
	newer := items[n].link // if it is the oldest
	if n != r.last {
		newer = 0
		for at := r.first; at != n; {
			newer, at = at, items[at].link^newer
		}
	}
	older := items[n].link ^ newer
	if newer != 0 {
		items[newer].link ^= n ^ older
	} else {
		r.first = older
	}
	if older != 0 {
		items[older].link ^= n ^ newer
	} else {
		r.last = newer
	}
}

// nameFirst makes n, a name of client c, its latest: a name in use isn't the one
// to be forgotten.
func (t *Table) nameFirst(c, n uint32) {
	if r := &t.clients.items[c]; r.first != n {
		t.unlinkName(r, n)
		t.linkName(r, n)
	}
}

// dropName takes a name from its client.
func (t *Table) dropName(n uint32) {
	r := &t.clients.items[t.names.items[n].owner]
	t.unlinkName(r, n)
	r.names--
	t.index.remove(n, t.names.items)
	t.names.release(n)
}

// remove forgets client c and its names.
func (t *Table) remove(c uint32) {
	r := &t.clients.items[c]
	for n, newer := r.first, uint32(0); n != 0; {
		older := t.names.items[n].link ^ newer
		t.index.remove(n, t.names.items)
		t.names.release(n)
		n, newer = older, n
	}
	if l := t.list(r); l != nil {
		t.unlink(l, c)
	}
	t.notStale(r)
	t.count(r.backend, -1)
	s := &t.sources.items[r.source]
	s.clients--
	if r.stage != StageEstablished {
		s.half--
	}
	if s.last == c {
		s.last = 0
	}
	src := r.source
	t.clients.release(c)
	t.dropSource(src)
}

// sourceOf returns the source for address k, made if need be.
func (t *Table) sourceOf(k Key) uint32 {
	k = k.source()
	if n := t.find(k); n != 0 {
		return t.names.items[n].owner
	}
	s := t.sources.alloc()
	n := t.names.alloc()
	t.names.items[n] = name{key: k, owner: s}
	t.sources.items[s] = source{name: n}
	t.index.insert(n, t.names.items)
	return s
}

// dropSource forgets source s if it has no client.
func (t *Table) dropSource(s uint32) {
	so := &t.sources.items[s]
	if so.clients > 0 {
		return
	}
	t.index.remove(so.name, t.names.items)
	t.names.release(so.name)
	t.sources.release(s)
}

// resource moves client c to the source at which it was heard last.
func (t *Table) resource(c uint32, src Key) {
	r := &t.clients.items[c]
	src = src.source()
	if t.names.items[t.sources.items[r.source].name].key == src {
		return
	}
	to := t.sourceOf(src)
	old := &t.sources.items[r.source]
	half := uint32(0)
	if r.stage != StageEstablished {
		half = 1
	}
	old.clients--
	old.half -= half
	if old.last == c {
		old.last = 0
	}
	from := r.source
	r.source = to
	t.sources.items[to].clients++
	t.sources.items[to].half += half
	t.dropSource(from)
}

func (t *Table) countAt(m *Member, d int64) {
	for int(m.ID) >= len(t.loads) {
		t.loads = append(t.loads, nil)
	}
	t.loads[m.ID] = m.load
	m.load.clients.Add(d)
}

// notStale counts r for its backend again, if it is one of those that weren't
// heard of since that was down.
func (t *Table) notStale(r *client) {
	if int(r.backend) >= len(t.loads) || t.loads[r.backend] == nil {
		return
	}
	l := t.loads[r.backend]
	if n := uint8(l.losses.Load()); n != r.losses {
		r.losses = n
		l.stale.Add(-1)
	}
}

func (t *Table) count(id ID, d int64) {
	if int(id) < len(t.loads) && t.loads[id] != nil {
		t.loads[id].clients.Add(d)
	}
}

// sweep removes the clients whose time is over, at most limit of each list.
func (t *Table) sweep(now tick, limit int) {
	for _, l := range []*list{&t.half, &t.full} {
		for i := 0; i < limit && l.tail != 0; i++ {
			if !t.expired(&t.clients.items[l.tail], now) {
				break
			}
			t.stats.Expired++
			t.remove(l.tail)
		}
	}
}

// arm has the Table swept when its oldest client's time is over, and at most
// once a second.
func (t *Table) arm() {
	if t.half.n+t.full.n == 0 {
		return
	}
	wait := max(min(t.remaining(&t.half, t.halfOpen()), t.remaining(&t.full, t.idle())), time.Second)
	due := time.Now().Add(wait)
	// A half-open client may be due long before the established ones that the
	// timer was set for.
	if !t.due.IsZero() && !due.Before(t.due) {
		return
	}
	t.due = due
	if t.timer == nil {
		t.timer = time.AfterFunc(wait, t.tidy)
		return
	}
	t.timer.Reset(wait)
}

// tidy is what the timer does.
func (t *Table) tidy() {
	const most = 4096
	t.mu.Lock()
	defer t.mu.Unlock()
	t.due = time.Time{}
	t.sweep(t.now(), most)
	t.arm()
}

func (t *Table) remaining(l *list, limit time.Duration) time.Duration {
	if l.tail == 0 {
		return time.Hour
	}
	return limit - time.Since(t.time(t.clients.items[l.tail].seen))
}

// Stats returns what the Table holds and what has happened in it.
func (t *Table) Stats() TableStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now()
	s := t.stats
	s.Clients, s.HalfOpen = t.clients.used()-1, t.half.n
	s.Sources = t.sources.used() - 1
	s.Names = t.names.used() - 1 - s.Sources
	s.Bytes = t.names.bytes() + t.clients.bytes() + t.sources.bytes() + t.index.bytes()
	return s
}

// Lookup returns the client with name k.
func (t *Table) Lookup(k Key) (Client, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.client(k, t.now())
	if c == 0 {
		return Client{}, false
	}
	return t.export(c), true
}

// Forget removes the client with name k, and all its names.
func (t *Table) Forget(k Key) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.client(k, t.now())
	if c != 0 {
		t.remove(c)
	}
	return c != 0
}

// Clients iterates over the clients, in no order. Clients that come or go
// meanwhile may be seen or not. The Table is locked for short times only.
func (t *Table) Clients() iter.Seq[Client] {
	const chunk = 256
	return func(yield func(Client) bool) {
		var got []Client
		for from := 1; ; from += chunk {
			got = got[:0]
			t.mu.Lock()
			now := t.now()
			end := min(from+chunk, len(t.clients.items))
			for c := from; c < end; c++ {
				if r := &t.clients.items[c]; t.clients.live(uint32(c)) && !t.expired(r, now) {
					got = append(got, t.export(uint32(c)))
				}
			}
			done := end >= len(t.clients.items)
			t.mu.Unlock()
			for _, c := range got {
				if !yield(c) {
					return
				}
			}
			if done {
				return
			}
		}
	}
}

func (t *Table) export(c uint32) Client {
	r := &t.clients.items[c]
	k := t.names.items[t.sources.items[r.source].name].key
	out := Client{
		Source: k.as(SpaceAddr), Backend: r.backend, Stage: r.stage, Why: r.why,
		Since: t.time(r.since), Seen: t.time(r.seen), Streams: int(r.streams),
		Names: make([]Key, 0, r.names),
	}
	for n, newer := r.first, uint32(0); n != 0; {
		e := &t.names.items[n]
		out.Names = append(out.Names, e.key)
		n, newer = e.link^newer, n
	}
	return out
}

// Equal reports whether two Clients say the same, times aside.
func (c Client) Equal(o Client) bool {
	return c.Source == o.Source && c.Backend == o.Backend && c.Stage == o.Stage && slices.Equal(c.Names, o.Names)
}
