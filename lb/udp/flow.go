package udp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// This file is the flow logic, which both drivers share. A shard holds the flows
// of one worker, and isn't safe for concurrent use: the Linux driver has one for
// each thread, the portable driver one under a lock. A driver tells it of every
// datagram, and does the sending:
//
//	client datagram ──fromClient──▶ flow: send to flow.up, or to each of flow.asks
//	backend datagram ─fromBackend─▶ whether to send it to the client of the flow
//
// A flow's life:
//
//	            answer that proves nothing
//	               ┌────┐
//	               ▼    │  half-open answer      established answer
//	 new ──────▶ unanswered ─────────────▶ half-open ─────────────▶ established
//	                │ oldest of too many       │ silent                │ silent
//	                │ or silent                │ or no room            │ or no room
//	                ▼                          ▼                       ▼
//	              gone                        gone                    gone
//
// A change of backend makes a flow unanswered again.

const (
	// touchEvery is how often a flow that is alive says so to the Table.
	touchEvery = 30 * time.Second
	// freshFor is how long a name that was looked up for a flow needn't be
	// looked up again.
	freshFor = time.Second
	// listEvery is how stale a flow's place in its list may be.
	listEvery = time.Second
	// keepFor is for how long an established flow that is silent isn't evicted:
	// three times what an IKE peer lets pass between NAT keepalives (RFC 3948
	// §2.3, §4).
	keepFor = time.Minute
	// learnMax names may be learned for a flow each learnEvery.
	learnMax   = 4
	learnEvery = time.Second
	// namesKept is how many names a flow remembers having told the Table.
	namesKept = 8
)

// endpoint is one of our addresses, at one listener.
type endpoint struct {
	id       uint16
	addr     netip.AddrPort // to answer from
	listener int            // the driver's number of it
	raw      rawEndpoint    // what the Linux driver needs to answer from it
}

// flow is one client address and port at one endpoint.
type flow struct {
	key  flowKey
	flow lb.Flow
	name lb.Key // lb.FlowKey(flow)
	end  *endpoint

	up     *upstream   // nil while several are asked
	asks   []*upstream // who is asked
	others []*upstream // of a shared flow: all, up among them; see shared.go
	home   *upstream   // among asks, if another backend claims an established flow
	member *lb.Member  // of up
	view   *lb.View    // in which member is known to be usable
	stage  lb.Stage
	why    lb.Why

	// Times are since the shard began.
	seen     time.Duration // a packet in either direction
	listed   time.Duration // put at the head of its list
	touched  time.Duration // the Table heard that it is alive
	told     time.Duration // Answered was called
	recorded bool          // the Table took it

	last    lb.Key // the strongest name that was looked up last
	lastAt  time.Duration
	pending [lb.MaxKeys]lb.Key // names that wait for an answer
	waiting bool               // there are such
	spoke   bool               // member has answered, whatever that proves
	names   [namesKept]lb.Key  // names the Table knows, latest overwriting oldest
	nnames  uint8

	exchanges *lb.Exchanges // of a shared flow
	fast      fast

	learnedAt time.Duration // when counting learned names began
	learned   uint32        // since then

	prev, next *flow
	list       *flowList
	addr       net.Addr // of the client, for the portable driver
	raw        rawPeer  // the same for the Linux driver
}

// upstream is a socket towards one backend.
type upstream struct {
	flow   *flow
	member *lb.Member
	conn   net.Conn  // the portable driver's socket
	raw    rawSocket // the Linux driver's
}

// counters are one shard's; the driver that owns it adds, anyone may read.
type counters struct {
	flows, unanswered, halfOpen, sockets                     atomic.Int64
	clientPackets, clientBytes, backendPackets, backendBytes atomic.Uint64
	sent, replied, dropped, hidden, refused, full, closing   atomic.Uint64
	sendErrors, openErrors, unreachable, overflow, trains    atomic.Uint64
	merged, batches                                          atomic.Uint64
	fast                                                     atomic.Int64
	fastPackets, fastBytes                                   atomic.Uint64
	opened, expired, recycled, evicted, moved                atomic.Uint64
}

func (c *counters) addTo(s *Stats) {
	s.Flows += int(c.flows.Load())
	s.Unanswered += int(c.unanswered.Load())
	s.HalfOpen += int(c.halfOpen.Load())
	s.Sockets += int(c.sockets.Load())
	s.Carried += int(c.fast.Load())
	for _, p := range [...]struct {
		to   *uint64
		from *atomic.Uint64
	}{
		{&s.ClientPackets, &c.clientPackets},
		{&s.ClientBytes, &c.clientBytes},
		{&s.BackendPackets, &c.backendPackets},
		{&s.BackendBytes, &c.backendBytes},
		{&s.Sent, &c.sent},
		{&s.Replied, &c.replied},
		{&s.Dropped, &c.dropped},
		{&s.Hidden, &c.hidden},
		{&s.Refused, &c.refused},
		{&s.Full, &c.full},
		{&s.Closing, &c.closing},
		{&s.SendErrors, &c.sendErrors},
		{&s.OpenErrors, &c.openErrors},
		{&s.Unreachable, &c.unreachable},
		{&s.Overflow, &c.overflow},
		{&s.Trains, &c.trains},
		{&s.Merged, &c.merged},
		{&s.Batches, &c.batches},
		{&s.CarriedPackets, &c.fastPackets},
		{&s.CarriedBytes, &c.fastBytes},
		{&s.Opened, &c.opened},
		{&s.Expired, &c.expired},
		{&s.Recycled, &c.recycled},
		{&s.Evicted, &c.evicted},
		{&s.Moved, &c.moved},
	} {
		*p.to += p.from.Load()
	}
}

// plumbing is what a driver does for its shard.
type plumbing interface {
	// open makes an upstream socket to m for f, bound to local if that is
	// valid.
	open(u *upstream, f *flow, local netip.AddrPort) error
	// shut closes an upstream, after what is queued on it has been sent.
	shut(u *upstream)
	// greet prepares what is needed to send to the client of f.
	greet(f *flow)
	// part is called before a flow is forgotten.
	part(f *flow)
	// inherit adds the flow k, if another shard keeps it for this one, and
	// reports whether it did.
	inherit(k flowKey, fl lb.Flow, end *endpoint) bool
	// localOf returns the address and port of an upstream, if it is known.
	localOf(u *upstream) netip.AddrPort
}

type shard struct {
	e             *Engine
	b             *lb.Balancer
	classifier    lb.Classifier
	plumbing      plumbing
	maxSockets    int
	maxUnanswered int
	maxHalf       int
	draining      bool

	now        time.Duration // set by the driver before each call
	table      flowTable
	sockets    int
	unanswered flowList      // by when they were made
	half       flowList      // by when they were seen last
	full       flowList      // likewise
	free       *flow         // for reuse, by next
	carried    []*flow       // by the FastPath
	nextFast   int           // of carried, to be looked after next
	swept      time.Duration // when they were
	closing    bool          // flows end because the Engine does
	strangers  uint64        // datagrams that came of no flow
	counters   counters
}

func (s *shard) init(e *Engine, p plumbing, shards, maxFlows int) {
	s.e, s.b, s.classifier, s.plumbing = e, e.Balancer, e.classifier(), p
	s.maxSockets = max(maxFlows/shards, 1)
	s.maxUnanswered = e.MaxUnanswered
	if s.maxUnanswered <= 0 {
		s.maxUnanswered = DefaultMaxUnanswered
	}
	s.maxHalf = e.MaxHalfOpen
	if s.maxHalf <= 0 {
		s.maxHalf = 4 * s.maxUnanswered
	}
	s.maxUnanswered = max(s.maxUnanswered/shards, 1)
	s.maxHalf = max(s.maxHalf/shards, 1)
}

// fromClient says where a datagram from a client goes: to the flow's upstream, or
// to those it asks; nil means nowhere.
func (s *shard) fromClient(k *flowKey, end *endpoint, b []byte) *flow {
	f := s.table.find(k)
	if f == nil {
		return s.newcomer(k, end, b)
	}
	v := s.classifier.Classify(b, f.flow)
	if v.Drop {
		s.dropped(f.flow, &v)
		return nil
	}
	if v.Exchange != 0 {
		return s.request(f, &v)
	}
	s.heard(f)
	if f.stage == lb.StageEstablished && s.stays(f) && s.knows(f, &v) {
		if v.Control {
			s.control(f.flow, f.member, b, false)
		} else if s.fastOver(f, &v) {
			s.offer(f, b, false)
		}
		return f
	}
	r, err := s.b.Route(&v, f.flow)
	if err != nil {
		s.refuse(f.flow, err)
		if v.Control {
			s.control(f.flow, nil, b, false)
		}
		return nil
	}
	f.touched = s.now // Route has touched the client
	if !(r.Why == lb.WhyPicked && s.awaits(f, &v)) && !s.direct(f, r) {
		return nil
	}
	s.looked(f, &v)
	if v.Control {
		s.control(f.flow, f.member, b, false)
	}
	return f
}

// control tells of a datagram that is about a session.
func (s *shard) control(f lb.Flow, m *lb.Member, b []byte, answer bool) {
	if t := s.e.Trace; t != nil && t.Control != nil {
		t.Control(f, m, b, answer)
	}
}

// awaits reports whether f's backend has told the client of v to come again: with
// a cookie, say. It proves nothing, so the Table doesn't know; and a Picker that
// takes turns would send the client elsewhere each time.
func (s *shard) awaits(f *flow, v *lb.Verdict) bool {
	return f.spoke && f.up != nil && f.last == v.Keys[0] && s.stays(f)
}

// knows reports whether f may go on without the Table: its strongest name is the
// flow itself, or one just looked up. Weaker names that are new are learned.
func (s *shard) knows(f *flow, v *lb.Verdict) bool {
	switch v.Keys[0] {
	case f.name:
		if f.last.IsZero() {
			f.last = f.name // it was restored, and has looked up nothing yet
		}
	case f.last:
		return s.now-f.lastAt < freshFor && !f.last.IsZero()
	default:
		return false
	}
	for _, k := range v.Keys[1:] {
		if !k.IsZero() && !f.knows(k) && s.mayLearn(f) {
			s.b.Learn(f.member, f.name, k)
			f.learn(k)
		}
	}
	return true
}

// mayLearn limits how often f may ask the Table to learn a name. An honest client
// has a few new ones an hour; one that makes them up must not keep the Table busy.
func (s *shard) mayLearn(f *flow) bool {
	if s.now-f.learnedAt >= learnEvery {
		f.learnedAt, f.learned = s.now, 0
	}
	f.learned++
	return f.learned <= learnMax
}

// stays reports whether f's backend may still have clients.
func (s *shard) stays(f *flow) bool {
	view := s.b.Pool.View()
	if view == f.view {
		return f.member != nil
	}
	if f.member == nil {
		return false
	}
	m := view.Member(f.member.ID)
	if m == nil || !slices.Contains(view.Usable, m) {
		return false
	}
	f.member, f.view = m, view
	return true
}

// heard notes that f is alive.
func (s *shard) heard(f *flow) {
	f.seen = s.now
	if s.now-f.listed >= listEvery {
		f.listed = s.now
		// The unanswered stay in the order they came: sending again and
		// again must not be a way to outlast others.
		if l := f.list; l != &s.unanswered && l.head != f {
			l.remove(f)
			l.push(f)
		}
	}
	if s.now-f.touched >= touchEvery && f.recorded {
		f.touched = s.now
		f.recorded = s.b.Touch(f.name) || s.b.Touch(f.last)
	}
}

// looked notes that v's names have been routed, and wait for an answer.
func (s *shard) looked(f *flow, v *lb.Verdict) {
	f.last, f.lastAt = v.Keys[0], s.now
	f.pending, f.waiting = v.Keys, true
}

// newcomer handles a datagram of a flow that isn't known.
func (s *shard) newcomer(k *flowKey, end *endpoint, b []byte) *flow {
	fl := lb.Flow{Client: k.client(), Service: end.addr.Port()}
	if s.plumbing.inherit(*k, fl, end) {
		return s.fromClient(k, end, b)
	}
	s.strangers++
	v := s.classifier.Classify(b, fl)
	if v.Drop {
		s.dropped(fl, &v)
		return nil
	}
	if s.draining {
		s.counters.closing.Add(1)
		return nil
	}
	if v.Exchange != 0 {
		return s.newShared(k, fl, end, &v)
	}
	r, err := s.b.Route(&v, fl)
	if err != nil {
		s.refuse(fl, err)
		if v.Control {
			s.control(fl, nil, b, false)
		}
		return nil
	}
	if !s.room(max(1, len(r.Ask))) {
		s.refuseFull(fl)
		return nil
	}
	f := s.add(k, fl, end, lb.StageNone)
	if !s.direct(f, r) {
		s.remove(f)
		return nil
	}
	s.looked(f, &v)
	if v.Control {
		s.control(fl, f.member, b, false)
	}
	return f
}

// add makes a flow without an upstream.
func (s *shard) add(k *flowKey, fl lb.Flow, end *endpoint, stage lb.Stage) *flow {
	f := s.free
	if f == nil {
		f = new(flow)
	} else {
		s.free = f.next
	}
	*f = flow{
		key: *k, flow: fl, name: lb.FlowKey(fl), end: end, asks: f.asks[:0], others: f.others[:0],
		seen: s.now, listed: s.now, touched: s.now, told: -touchEvery, learnedAt: -learnEvery, stage: stage,
	}
	s.plumbing.greet(f)
	s.table.insert(f)
	s.listOf(stage).push(f)
	s.counters.opened.Add(1)
	s.count()
	return f
}

func (s *shard) listOf(stage lb.Stage) *flowList {
	switch stage {
	case lb.StageEstablished:
		return &s.full
	case lb.StageHalfOpen:
		return &s.half
	}
	return &s.unanswered
}

// remove forgets f and closes its upstreams.
func (s *shard) remove(f *flow) {
	s.plumbing.part(f)
	s.closeAll(f, nil)
	s.table.remove(f)
	f.list.remove(f)
	f.next, f.member, f.view, f.end = s.free, nil, nil, nil
	s.free = f
	s.count()
}

func (s *shard) count() {
	s.counters.flows.Store(int64(s.table.used))
	s.counters.unanswered.Store(int64(s.unanswered.n))
	s.counters.halfOpen.Store(int64(s.half.n))
}

// room makes room for a new flow with n upstreams, and reports whether there is.
func (s *shard) room(n int) bool {
	if s.unanswered.n >= s.maxUnanswered {
		s.counters.recycled.Add(1)
		s.remove(s.unanswered.tail)
	}
	for s.sockets+n > s.maxSockets {
		if !s.evict(nil) {
			return false
		}
	}
	return true
}

// evict removes the flow that is missed least, but not keep.
func (s *shard) evict(keep *flow) bool {
	for f := s.full.tail; f != nil && f.fast.on && s.now-f.seen >= keepFor; f = s.full.tail {
		if s.catchUp(f); f == s.full.tail {
			break // it has been silent indeed
		}
	}
	for _, f := range [...]*flow{s.half.tail, s.full.tail, s.unanswered.tail} {
		silent := f != nil && s.now-f.seen >= keepFor
		if f == nil || f == keep || f.list == &s.full && !silent {
			continue
		}
		s.counters.evicted.Add(1)
		s.remove(f)
		return true
	}
	return false
}

// direct gives f the upstreams that r says.
func (s *shard) direct(f *flow, r lb.Route) bool {
	if r.Member == nil {
		return s.ask(f, r)
	}
	view := s.b.Pool.View()
	if f.up != nil && f.up.member.ID == r.Member.ID {
		f.member, f.view = r.Member, view
		return true
	}
	if h := s.incumbent(f); h != nil && r.Why == lb.WhyKnown && h.member.ID != r.Member.ID {
		// A NAT may have given the port to another client; but anybody can
		// send a name of his own from a false address. The one who takes the
		// client for its own has it.
		f.home = h
		return s.ask(f, lb.Route{Ask: []*lb.Member{h.member, r.Member}, Why: r.Why})
	}
	var u *upstream
	for _, a := range f.asks {
		if a.member.ID == r.Member.ID {
			u = a
		}
	}
	if u == nil {
		if u = s.open(f, r.Member, s.e.local(f.flow)); u == nil {
			return false
		}
	}
	old, stage := f.member, lb.StageNone
	if u == f.home {
		stage = lb.StageEstablished // nobody has taken it
	}
	s.closeAll(f, u)
	f.up, f.member, f.view, f.why = u, r.Member, view, r.Why
	f.recorded, f.spoke = false, false
	f.nnames = 0
	f.names = [namesKept]lb.Key{}
	s.relist(f, stage)
	if old != nil {
		s.moved(f, old, r.Member)
	}
	return true
}

// incumbent returns the upstream of an established flow, also while another
// backend is asked whether it has the flow now; nil if it may have no clients.
func (s *shard) incumbent(f *flow) *upstream {
	u := f.home
	if u == nil && f.stage == lb.StageEstablished {
		u = f.up
	}
	if u == nil || !slices.ContainsFunc(s.b.Pool.View().Usable, func(m *lb.Member) bool { return m.ID == u.member.ID }) {
		return nil
	}
	return u
}

// ask gives f an upstream to each backend that is to be asked.
func (s *shard) ask(f *flow, r lb.Route) bool {
	s.uncarry(f)
	if f.up != nil {
		f.asks = append(f.asks, f.up)
		f.up, f.member = nil, nil
		s.relist(f, lb.StageNone)
	}
	f.asks = slices.DeleteFunc(f.asks, func(u *upstream) bool {
		for _, m := range r.Ask {
			if m.ID == u.member.ID {
				return false
			}
		}
		if f.home == u {
			f.home = nil
		}
		s.close(u)
		return true
	})
	for _, m := range r.Ask {
		if !slices.ContainsFunc(f.asks, func(u *upstream) bool { return u.member.ID == m.ID }) {
			if u := s.open(f, m, s.e.local(f.flow)); u != nil {
				f.asks = append(f.asks, u)
			}
		}
	}
	f.why, f.recorded = r.Why, false
	return len(f.asks) > 0
}

// settle makes u, which was asked and has answered, the upstream of f.
func (s *shard) settle(f *flow, u *upstream) {
	s.closeAll(f, u)
	f.up, f.member, f.view = u, u.member, s.b.Pool.View()
}

// kept notes that f is still with the backend that had it before another was asked
// too. Anybody can have sent that question: the backend's answer, half-open for one,
// takes nothing from f, and doesn't give it the names in the question.
func (s *shard) kept(f *flow) {
	f.last, f.waiting = f.name, false
	s.relist(f, lb.StageEstablished)
}

// closeAll closes the upstreams of f, except keep.
func (s *shard) closeAll(f *flow, keep *upstream) {
	s.uncarry(f)
	for i, u := range f.others {
		if u != keep && u != f.up {
			s.close(u)
		}
		f.others[i] = nil
	}
	f.others = f.others[:0]
	if f.up != nil && f.up != keep {
		s.close(f.up)
	}
	for i, u := range f.asks {
		if u != keep {
			s.close(u)
		}
		f.asks[i] = nil
	}
	f.up, f.home, f.asks = keep, nil, f.asks[:0]
}

func (s *shard) close(u *upstream) {
	s.plumbing.shut(u)
	u.flow = nil
	s.countSocket(-1)
}

func (s *shard) countSocket(d int) {
	s.sockets += d
	s.counters.sockets.Store(int64(s.sockets))
}

func (s *shard) open(f *flow, m *lb.Member, local netip.AddrPort) *upstream {
	u := &upstream{flow: f, member: m}
	err := s.plumbing.open(u, f, local)
	if err != nil && outOfRoom(err) && s.evict(f) {
		err = s.plumbing.open(u, f, local)
	}
	if err != nil {
		s.counters.openErrors.Add(1)
		s.log(slog.LevelWarn, "upstream not opened", f.flow, err)
		return nil
	}
	s.countSocket(1)
	return u
}

// relist puts f in the list for stage.
func (s *shard) relist(f *flow, stage lb.Stage) {
	f.stage = stage
	if l := s.listOf(stage); f.list != l {
		f.list.remove(f)
		l.push(f)
		f.listed = s.now
		s.count()
	}
}

// fromBackend reports whether a datagram from u goes to the client of u.flow.
func (s *shard) fromBackend(u *upstream, b []byte) bool {
	f := u.flow
	v := s.classifier.Answer(b, f.flow)
	if v.Drop {
		s.counters.hidden.Add(1)
		return false
	}
	if f.exchanges != nil {
		s.heard(f)
		s.reply(f, u, &v)
		return true
	}
	if f.up == nil {
		if f.home != nil && f.home != u && v.Stage != lb.StageEstablished {
			return true // that anybody can have it say
		}
		keeps := f.home == u
		s.settle(f, u)
		if keeps {
			s.kept(f)
		}
	}
	f.spoke = true
	s.heard(f)
	if v.Control {
		s.control(f.flow, u.member, b, true)
	}
	if v.Stage != lb.StageNone {
		s.answered(f, &v)
	}
	if s.fastOver(f, &v) && u == f.up && v.Stage == lb.StageEstablished && s.stays(f) {
		s.offer(f, b, true)
	}
	return true
}

// answered records what an answer proves, if that is news.
func (s *shard) answered(f *flow, v *lb.Verdict) {
	news := v.Stage > f.stage || f.waiting
	if !f.recorded && s.now-f.told >= freshFor {
		news = true // refused, or forgotten since
	}
	for _, k := range v.Keys {
		news = news || (!k.IsZero() && !f.knows(k))
	}
	if !news {
		return
	}
	var keys [2*lb.MaxKeys + 1]lb.Key
	// What the backend says comes first: it speaks only of clients it has,
	// whereas the client's datagram may have been about another.
	n := copy(keys[:], v.Keys[:])
	if f.waiting {
		n += copy(keys[n:], f.pending[:])
	}
	keys[n] = f.last // or nothing might name the client
	n++
	f.told, f.touched, f.waiting = s.now, s.now, false
	if slices.ContainsFunc(keys[:n], func(k lb.Key) bool { return !k.IsZero() }) {
		f.recorded = s.b.Answered(f.member, f.flow, v.Stage, f.why, keys[:n]...)
	}
	for _, k := range keys[:n] {
		if !k.IsZero() && !f.knows(k) {
			f.learn(k)
		}
	}
	if v.Stage > f.stage {
		s.relist(f, v.Stage)
	}
	if s.half.n > s.maxHalf {
		s.counters.recycled.Add(1)
		s.remove(s.half.tail) // not f, which is at the head
	}
}

func (f *flow) knows(k lb.Key) bool {
	for i := range f.names {
		if f.names[i] == k {
			return true
		}
	}
	return false
}

func (f *flow) learn(k lb.Key) {
	f.names[f.nnames%namesKept] = k
	f.nnames++
}

// failed notes an error that the network reported of u's backend.
func (s *shard) failed(u *upstream, err error) {
	s.counters.unreachable.Add(1)
	s.e.unreachable(u.member, err)
}

// expire removes the flows that have been silent for too long.
func (s *shard) expire() {
	unanswered, half, idle := s.limits()
	for f := s.unanswered.tail; f != nil; {
		older := f
		f = f.prev
		if s.now-older.seen >= unanswered {
			s.expired(older)
		}
	}
	for f := s.half.tail; f != nil && s.now-f.seen >= half; f = s.half.tail {
		s.expired(f)
	}
	for f := s.full.tail; f != nil && s.now-f.seen >= idle; f = s.full.tail {
		if s.catchUp(f); s.now-f.seen >= idle {
			s.expired(f)
		}
	}
	if len(s.carried) > 0 {
		s.sweepFast(s.now - s.swept)
	}
	s.swept = s.now
}

// due returns when a flow may have to be removed next, but no sooner than in a
// second: zero if there is none.
func (s *shard) due() (next time.Duration) {
	unanswered, half, idle := s.limits()
	note := func(f *flow, limit time.Duration) {
		if f == nil {
			return
		}
		if at := max(f.seen+limit, s.now+time.Second); next == 0 || at < next {
			next = at
		}
	}
	if len(s.carried) > 0 {
		next = s.now + time.Second
	}
	note(s.unanswered.tail, unanswered)
	note(s.half.tail, half)
	note(s.full.tail, idle)
	return next
}

func (s *shard) limits() (unanswered, half, idle time.Duration) {
	or := func(v, def time.Duration) time.Duration {
		if v <= 0 {
			return def
		}
		return v
	}
	t := s.b.Table
	return or(s.e.Unanswered, DefaultUnanswered), or(t.HalfOpen, lb.DefaultHalfOpen), or(t.Idle, lb.DefaultIdle)
}

func (s *shard) expired(f *flow) {
	s.counters.expired.Add(1)
	s.remove(f)
}

// resume continues a flow of another process.
func (s *shard) resume(st FlowState, end *endpoint) error {
	m := s.b.Pool.View().ByName(st.Backend)
	if m == nil {
		return errors.New("udp: its backend is gone")
	}
	if client := st.Client.Addr().Unmap(); !client.IsValid() || client.Is4() != end.addr.Addr().Is4() {
		return errors.New("udp: no client of its listener has such an address")
	}
	k := keyOf(st.Client, end.id)
	if s.table.find(&k) != nil {
		return errors.New("udp: the flow is there already")
	}
	if s.sockets >= s.maxSockets {
		return errors.New("udp: too many flows")
	}
	local := st.Local
	if s.e.Transparent {
		local = st.Client
	}
	f := s.add(&k, lb.Flow{Client: st.Client, Service: end.addr.Port()}, end, lb.StageEstablished)
	u := &upstream{flow: f, member: m}
	if err := s.plumbing.open(u, f, local); err != nil {
		s.remove(f)
		return err
	}
	s.countSocket(1)
	f.up, f.member, f.view, f.why = u, m, nil, lb.WhyRestored
	f.recorded = true // if the Table was restored, too; else Touch will say
	f.seen -= max(st.Idle, 0)
	s.count()
	if s.e.FastPath != nil {
		s.carry(f, nil, false)
	}
	return nil
}

// states lists the established flows. Those that are shared aren't among them:
// what they have under way is repeated by the client, and the Table knows where.
func (s *shard) states(list []FlowState, local func(*upstream) netip.AddrPort) []FlowState {
	for _, f := range s.carried {
		s.catchUp(f)
	}
	for f := s.full.head; f != nil; f = f.next {
		if f.up != nil && f.exchanges == nil {
			list = append(list, FlowState{
				Client: f.flow.Client, Listener: f.end.addr, Backend: f.member.Name,
				Local: local(f.up), Idle: s.now - f.seen,
			})
		}
	}
	return list
}

func (s *shard) dropped(f lb.Flow, v *lb.Verdict) {
	s.counters.dropped.Add(1)
	if l := s.e.Logger; l != nil && l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("datagram dropped", "client", f.Client, "service", f.Service, "reason", v.Reason)
	}
}

func (s *shard) refuse(f lb.Flow, err error) {
	s.counters.refused.Add(1)
	s.log(slog.LevelDebug, "datagram refused", f, err)
}

func (s *shard) refuseFull(f lb.Flow) {
	s.counters.full.Add(1)
	if t := s.e.Trace; t != nil && t.Full != nil {
		t.Full(f)
	}
}

func (s *shard) moved(f *flow, from, to *lb.Member) {
	s.counters.moved.Add(1)
	if t := s.e.Trace; t != nil && t.Moved != nil {
		t.Moved(f.flow, from, to)
	}
}

func (s *shard) log(level slog.Level, msg string, f lb.Flow, err error) {
	if l := s.e.Logger; l != nil && l.Enabled(context.Background(), level) {
		l.Log(context.Background(), level, msg, "client", f.Client, "service", f.Service, "error", err)
	}
}
