package radius

import (
	"sync"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb"
)

// maxStoring bounds the calls of Spool.Store under way at once. Many may wait for
// one write to the disk.
const maxStoring = 512

// spooler gives requests to a Spool.
type spooler struct {
	busy            atomic.Int64
	stored, refused atomic.Uint64

	mu sync.Mutex // below
	// last has, for each session of which something is being stored, what is
	// closed when the latest of it is.
	last map[lb.Key]chan struct{}
}

// enter has a record of session stored after those before it. The caller waits for
// before, if it isn't nil, and leaves when it is done.
func (s *spooler) enter(session lb.Key) (before, done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		s.last = make(map[lb.Key]chan struct{})
	}
	before, done = s.last[session], make(chan struct{})
	s.last[session] = done
	return before, done
}

func (s *spooler) leave(session lb.Key, done chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(done)
	if s.last[session] == done {
		delete(s.last, session)
	}
}

// holds reports whether something of the session is being stored.
func (s *spooler) holds(session lb.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[session] != nil
}

// sessionOf names what must be stored in its order: the session of a NAS, or, where
// there is none, the NAS.
func sessionOf(p Packet, f lb.Flow) lb.Key {
	a := gather(p)
	nas := a.nasName(f)
	if k := a.sessionKey(&nas); !k.IsZero() {
		return k
	}
	return lb.HashKey(SpaceNAS, nas.bytes())
}

// spools reports whether accounting must go the way of the Spool: behind others,
// or since every server is down, whatever hope there may be.
func (p *Proxy) spools(pkt Packet, f lb.Flow) bool {
	if p.Spool == nil {
		return false
	}
	view := p.Balancer.Pool.View()
	return view.Panic || len(view.Usable) == 0 || p.Spool.Behind(pkt) ||
		p.spooler.busy.Load() > 0 && p.spooler.holds(sessionOf(pkt, f))
}

// store gives r to the Spool, without the cell's lock, and answers it when the
// Spool has it. If it can't be had, r goes on waiting, and is given to the Spool
// again after a while. Records of one session are stored in the order they came.
func (c *cell) store(r *request) {
	p := c.p
	if p.spooler.busy.Add(1) > maxStoring || p.state.Load() >= stateClosing {
		p.spooler.busy.Add(-1)
		return
	}
	r.storing, r.offered = true, p.now()
	k, auth := r.key, r.auth
	session := sessionOf(Packet{b: r.buf}, r.flow)
	before, done := p.spooler.enter(session)
	rec := Record{Packet: Packet{b: append([]byte(nil), r.buf...)}, Client: r.peer.Name, Flow: r.flow, Sent: r.tried}
	p.wg.Go(func() {
		defer p.spooler.busy.Add(-1)
		if before != nil {
			<-before
		}
		err := p.Spool.Store(rec)
		p.spooler.leave(session, done)
		h := p.borrow()
		defer p.giveBack(h)
		c.mu.Lock()
		defer c.mu.Unlock()
		if err != nil {
			p.spooler.refused.Add(1)
			p.warn(&p.reasons.spool, "an accounting request can't be stored", "client", rec.Client, "error", err)
		} else {
			p.spooler.stored.Add(1)
		}
		c.stored(h, k, auth, err)
	})
}

// stored ends what store began, if the request still waits.
func (c *cell) stored(h *hand, k requestID, auth [16]byte, err error) {
	r := c.byKey[k]
	if r == nil || r.auth != auth || r.done {
		return
	}
	r.storing = false
	if err != nil {
		return
	}
	r.leave(h.now)
	r.peer.count.spooled.Add(1)
	at := len(h.arena)
	h.arena = h.sign.short(h.arena, AccountingResponse, r.key.id, r.peer.key, r.auth, false)
	c.keep(h, r, at)
}
