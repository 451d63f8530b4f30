package radius

import (
	"encoding/binary"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A request's life:
//
//	         ┌──── moved: its server is down ────┐
//	         ▼                                   │
//	new ── waiting ── answered: kept ── forgotten after Remember
//	         │
//	         └── no answer for Hold, or its client uses its Identifier
//	             for another one: forgotten
//
// A client repeats a request until it is answered. While it waits, the
// repetition is sent on: from the same link with the same Identifier, so that the
// server takes it for one. Once it is answered, the answer is repeated.

// requestKey tells requests of clients apart. That, and the Request
// Authenticator, makes a repetition (RFC 5080 §2.2.2).
type requestID struct {
	from    netip.AddrPort
	service uint16
	id      byte
	acct    bool
	own     uint32 // not 0 for requests of Forward
}

// request is one that waits, or whose answer is kept.
type request struct {
	key   requestID
	auth  [16]byte // as the client has it
	code  Code
	peer  *peer
	flow  lb.Flow
	via   Replier // or
	front *front
	local netip.Addr // where it was sent to, if the front has many addresses

	// What the Classifier said, to be recorded when the server answers.
	keys  [lb.MaxKeys]lb.Key
	pick  lb.Key
	scope lb.Key
	why   lb.Why
	bound bool // only its server can answer it
	sign  bool // its answer gets a Message-Authenticator

	member *lb.Member // where it is
	link   *link      // nil: nowhere
	id     byte       // of link
	signed *key       // with which it was signed
	asked  [16]byte   // its Request Authenticator there

	born, sent, heard int64  // when it came, went to its server, was repeated
	delay             uint32 // Acct-Delay-Time as the client has it
	offered           int64  // when it was last given to the Spool
	moves             int
	counted           bool // among what its server is busy with
	tried, storing    bool
	marked            bool // buf isn't as the client has it
	done              bool
	buf               []byte // the request; once it is done, the answer

	prev, next *request
	list       *queue
}

// queue is a list of requests, the oldest first.
type queue struct {
	head, tail *request
	n          int
}

func (q *queue) push(r *request) {
	r.list, r.prev, r.next = q, q.tail, nil
	if q.tail != nil {
		q.tail.next = r
	} else {
		q.head = r
	}
	q.tail = r
	q.n++
}

func (q *queue) remove(r *request) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		q.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	} else {
		q.tail = r.prev
	}
	r.prev, r.next, r.list = nil, nil, nil
	q.n--
}

// A cell holds the requests of some flows, and the links they go by. What one
// goroutine does with a cell keeps others from it only for the time that signing
// takes; sending is done without its lock.
type cell struct {
	p *Proxy

	mu      sync.Mutex // below
	byKey   map[requestID]*request
	waiting queue
	kept    queue // answered, in the order they were
	links   []*link
	free    *request
	bufs    [len(bufSizes)][][]byte
	view    *lb.View // when requests were last looked through for ones to move
	max     int
}

var bufSizes = [...]int{256, 512, 1536, MaxLen}

// grab returns a copy of b in a buffer of the cell.
func (c *cell) grab(b []byte) []byte {
	for i, size := range bufSizes {
		if len(b) > size {
			continue
		}
		var buf []byte
		if n := len(c.bufs[i]); n > 0 {
			buf, c.bufs[i] = c.bufs[i][n-1], c.bufs[i][:n-1]
		} else {
			buf = make([]byte, 0, size)
		}
		return append(buf[:0], b...)
	}
	return append([]byte(nil), b...)
}

func (c *cell) give(b []byte) {
	for i, size := range bufSizes {
		if cap(b) == size && len(c.bufs[i]) < 1024 {
			c.bufs[i] = append(c.bufs[i], b)
		}
	}
}

// add makes a request, or returns nil if there is no room.
func (c *cell) add(k requestID, now int64) *request {
	if c.waiting.n+c.kept.n >= c.max && !c.makeRoom(now) {
		return nil
	}
	r := c.free
	if r != nil {
		c.free = r.next
		*r = request{}
	} else {
		r = new(request)
	}
	r.key, r.born, r.heard = k, now, now
	c.byKey[k] = r
	c.waiting.push(r)
	return r
}

// patience is after how long without a repetition a client is taken to have given
// up a request, where room is needed.
const patience = int64(10 * time.Second)

func (c *cell) makeRoom(now int64) bool {
	switch {
	case c.kept.head != nil:
		c.forget(c.kept.head, now)
	case c.waiting.head != nil && now-c.waiting.head.heard > patience:
		c.timeout(c.waiting.head, now)
	default:
		return false
	}
	return true
}

// forget ends r.
func (c *cell) forget(r *request, now int64) {
	r.leave(now)
	r.list.remove(r)
	if c.byKey[r.key] == r {
		delete(c.byKey, r.key)
	}
	c.give(r.buf)
	*r = request{next: c.free}
	c.free = r
}

// leave takes r from its link without an answer.
func (r *request) leave(now int64) {
	if r.link == nil {
		return
	}
	r.link.release(r.id, now)
	r.uncount()
	r.link.server.count.waiting.Add(-1)
	r.link = nil
}

// uncount takes r from what its server is busy with, as far as is known.
func (r *request) uncount() {
	if r.counted {
		r.counted = false
		r.member.Requests().Ended()
		r.link.server.count.busy.Add(-1)
	}
}

// timeout ends r, which nobody has answered.
func (c *cell) timeout(r *request, now int64) {
	r.peer.count.timeouts.Add(1)
	if r.link != nil {
		r.link.server.count.timeouts.Add(1)
		c.p.failures.add(c.p, r, "no answer from "+r.link.server.name)
	}
	c.forget(r, now)
}

// send gives r to backend m, and reports whether it could be.
func (c *cell) send(h *hand, r *request, m *lb.Member, why lb.Why) bool {
	port := c.p.portFor(r)
	v := c.p.server(m, port)
	if v == nil {
		return false
	}
	l := c.linkTo(h, v, m)
	if l == nil {
		v.count.noIdentifier.Add(1)
		return false
	}
	if r.tried && r.key.acct {
		c.mark(r, h.now)
	}
	conf := v.conf.Load()
	r.member, r.why, r.link, r.signed = m, why, l, conf.key
	r.id = l.take(r, h.now)
	r.sent, r.tried = h.now, true
	l.used = h.now
	r.counted = true
	m.Requests().Began()
	v.count.busy.Add(1)
	v.count.waiting.Add(1)
	v.count.requests.Add(1)
	c.transmit(h, r)
	return true
}

// mark raises Acct-Delay-Time of accounting that goes to a server after another
// one, or the same under another Identifier, may have taken it: by that it is known
// as the same record (RFC 2866 §5.2).
func (c *cell) mark(r *request, now int64) {
	late := uint32(max(now-r.born, int64(time.Second)) / int64(time.Second))
	r.marked = true
	b := r.buf
	at := Packet{b: b}.find(AcctDelayTime)
	switch {
	case at > 0 && b[at+1] == 6:
		v := b[at+2 : at+6]
		binary.BigEndian.PutUint32(v, uint32(min(uint64(r.delay)+uint64(late), math.MaxUint32)))
	case at == 0 && len(b)+6 <= MaxLen:
		b = append(b, byte(AcctDelayTime), 6)
		b = binary.BigEndian.AppendUint32(b, late)
		finish(b)
		was := r.buf
		r.buf = c.grab(b)
		c.give(was)
	}
}

// transmit sends r on its link: the same bytes each time.
func (c *cell) transmit(h *hand, r *request) {
	at := len(h.arena)
	h.arena, r.asked = h.sign.request(h.arena, Packet{b: r.buf}, r.id, r.peer.key, r.signed, r.key.own == 0 && !r.marked)
	h.out = append(h.out, outgoing{link: r.link, at: at, n: len(h.arena) - at})
	r.link.server.count.sent.Add(1)
}

// portFor returns the port of a server for r.
func (p *Proxy) portFor(r *request) uint16 {
	port := p.AuthPort
	if r.key.acct {
		port = p.AcctPort
	}
	if port == 0 {
		port = r.flow.Service
	}
	return port
}

// begin takes in a new request and sends it. It returns why it can't.
func (c *cell) begin(h *hand, r *request, v *lb.Verdict) string {
	m, why, err := c.p.route(h, r, v, true)
	if err != nil {
		return reasonNoServer
	}
	if c.send(h, r, m, why) {
		return ""
	}
	// It is shunned now if it can't be reached; then there is another to try.
	if other, why, err := c.p.route(h, r, v, true); err == nil && other.ID != m.ID && c.send(h, r, other, why) {
		return ""
	}
	return reasonNoServer
}

// repeat deals with a repetition of r.
func (c *cell) repeat(h *hand, r *request) {
	if r.key.own == 0 {
		r.peer.count.duplicates.Add(1)
	}
	r.heard = h.now
	switch {
	case r.done:
		r.list.remove(r)
		c.kept.push(r) // the longest unasked for is forgotten first
		h.reply(r, r.buf)
	case r.storing:
	case r.link != nil && !r.link.dead && (r.bound || c.p.alive(h, r)):
		r.link.server.count.resent.Add(1)
		c.transmit(h, r)
	default:
		c.redirect(h, r, true)
	}
}

// grace is what is given to a probe that was asked for, to be answered.
const grace = int64(2 * time.Second)

// alive reports whether the server of r is thought to answer. One that has been
// heard of since r was sent to it, by anybody, is at work on r, or has discarded
// it for a reason: another server would do no better. One that hasn't, although
// it was probed meanwhile, isn't.
func (p *Proxy) alive(h *hand, r *request) bool {
	m, v := p.Balancer.Pool.View().Member(r.member.ID), r.link.server
	if v.heard.Load() <= r.sent && h.now-r.sent > int64(orDefault(p.Silence, DefaultSilence))+grace {
		p.shunned(h, v, errSilent)
	}
	return m != nil && m.Usable() && v.shun.Load() <= h.now
}

// redirect sends r elsewhere. If settle, anywhere will do; else only where there
// is hope, for it isn't its client that asks.
func (c *cell) redirect(h *hand, r *request, settle bool) {
	if r.key.own != 0 && r.tried {
		return // who called Forward must mark it before another server gets it
	}
	v := c.p.Classifier.Classify(r.buf, r.flow)
	m, why, err := c.p.route(h, r, &v, settle)
	if err != nil {
		return
	}
	was := r.link
	if was != nil && was.member.ID == m.ID && !was.dead {
		if !settle {
			return
		}
		c.transmit(h, r)
		return
	}
	r.leave(h.now)
	if !c.send(h, r, m, why) {
		return
	}
	r.moves++
	if was != nil && was.member.ID != m.ID {
		r.why = lb.WhyMoved
		was.server.count.moved.Add(1)
		if t := c.p.Trace; t != nil && t.Moved != nil {
			t.Moved(was.server.name, m.Name, r.code)
		}
	}
}

// maxMoves bounds how often a request is moved without its client having
// repeated it, or two dead servers would have it for ever.
const maxMoves = 4

// flee sends requests that wait for v to other servers: those that another could
// answer.
func (c *cell) flee(h *hand, v *server) {
	for r, next := c.waiting.head, (*request)(nil); r != nil; r = next {
		next = r.next
		if r.storing || r.bound || r.moves >= maxMoves || r.link != nil && r.link.server != v {
			continue
		}
		if r.link == nil && r.member != nil && r.member.ID != v.backend {
			continue
		}
		c.redirect(h, r, false)
	}
}

// sweep does what time alone brings about.
func (c *cell) sweep(h *hand) {
	c.mu.Lock()
	defer c.mu.Unlock()
	hold, remember := int64(orDefault(c.p.Hold, DefaultHold)), int64(orDefault(c.p.Remember, DefaultRemember))
	for r := c.waiting.head; r != nil && h.now-r.born > hold; r = c.waiting.head {
		c.timeout(r, h.now)
	}
	for r := c.kept.head; r != nil && h.now-r.heard > remember; r = c.kept.head {
		c.forget(r, h.now)
	}
	if view := c.p.Balancer.Pool.View(); view != c.view {
		c.view = view
		c.follow(h, view)
	}
	c.listen(h)
	for i := 0; i < len(c.links); i++ {
		l := c.links[i]
		gone := c.p.Balancer.Pool.View().Member(l.member.ID) == nil
		if l.n == len(l.slots) && (gone || h.now-l.used > linkIdle || l.conf.way != l.server.conf.Load().way) {
			c.close(l, h.now)
			i--
		}
	}
}

// follow moves requests whose server is down or gone.
func (c *cell) follow(h *hand, view *lb.View) {
	for _, v := range c.p.servers.Load().list() {
		if m := view.Member(v.backend); m == nil || m.State == lb.Down {
			c.flee(h, v)
		}
	}
}

// storeAgain is after how long a record that could not be stored is offered again.
const storeAgain = int64(2 * time.Second)

// listen looks for servers that are silent, and for accounting to store.
func (c *cell) listen(h *hand) {
	silence := int64(orDefault(c.p.Silence, DefaultSilence))
	for r := c.waiting.head; r != nil && h.now-r.born > min(silence, int64(personal)); r = r.next {
		late := h.now-r.born > silence
		if late && c.p.Spool != nil && r.key.acct && !r.storing && r.key.own == 0 && (r.offered == 0 || h.now-r.offered > storeAgain) {
			c.store(r)
		}
		l := r.link
		switch {
		case l == nil || r.storing:
		case l.server.heard.Load() > r.sent:
			if h.now-r.sent > int64(personal) {
				r.uncount()
			}
		case h.now-r.sent > silence:
			l.server.silent(c.p, h, r.pick)
		}
	}
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}
