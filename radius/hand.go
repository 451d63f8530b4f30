package radius

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A hand is what one goroutine needs to work: nothing in it is shared. What is to
// be sent is collected in it, and sent when no lock is held.
type hand struct {
	p     *Proxy
	sign  *signer
	at    time.Time
	now   int64  // at, as Proxy.now has it
	arena []byte // what out refers to
	out   []outgoing
	avoid []lb.ID
	keys  [2 * lb.MaxKeys]lb.Key
	post  post
	mail  []letter
	bufs  [][]byte
	tos   []dest
}

// letter is a packet and where a front sends it to.
type letter struct {
	b  []byte
	to dest
}

// outgoing is a packet to be sent.
type outgoing struct {
	link  *link // to a server, or
	front *front
	via   Replier
	flow  lb.Flow
	local netip.Addr
	at, n int // in the arena
	sent  bool
}

// dest is where a front sends a packet to, and from which of its addresses.
type dest struct {
	to    netip.AddrPort
	local netip.Addr
}

func (p *Proxy) newHand() *hand {
	h := &hand{p: p, sign: newSigner()}
	h.tick()
	return h
}

// tick looks at the clock.
func (h *hand) tick() {
	h.at = time.Now()
	h.now = int64(h.at.Sub(h.p.epoch)) + 1
}

// borrow returns a hand for a short time.
func (p *Proxy) borrow() *hand {
	h, ok := p.hands.Get().(*hand)
	if !ok {
		h = p.newHand()
	}
	h.tick()
	return h
}

func (p *Proxy) giveBack(h *hand) {
	h.flush()
	p.hands.Put(h)
}

// now is the time since the Proxy began to serve, in nanoseconds, and is never 0.
func (p *Proxy) now() int64 { return int64(time.Since(p.epoch)) + 1 }

// reply has b, an answer to r, sent.
func (h *hand) reply(r *request, b []byte) {
	at := len(h.arena)
	h.arena = append(h.arena, b...)
	h.replyAt(r, at)
}

// replyAt is reply for what stands at the end of the arena already.
func (h *hand) replyAt(r *request, at int) {
	h.out = append(h.out, outgoing{front: r.front, via: r.via, flow: r.flow, local: r.local, at: at, n: len(h.arena) - at})
}

// flushMany sends what has been collected if it is much, so that what came first in a
// large batch doesn't wait for all of it.
func (h *hand) flushMany() {
	if len(h.out) >= 64 {
		h.flush()
	}
}

// flush sends what has been collected. No lock may be held.
func (h *hand) flush() {
	for i := 0; i < len(h.out); i++ { //nolint:intrange // flushing one may add more
		o := &h.out[i]
		switch {
		case o.sent:
		case o.link != nil:
			h.flushLink(i)
		case o.front != nil:
			h.flushFront(i)
		default:
			o.via.Reply(h.arena[o.at:o.at+o.n], o.flow)
		}
	}
	clear(h.out) // it must not keep links alive
	h.out, h.arena = h.out[:0], h.arena[:0]
}

// flushLink sends the ith packet, and all others for the same link.
func (h *hand) flushLink(i int) {
	l := h.out[i].link
	h.mail = h.mail[:0]
	for j := i; j < len(h.out); j++ {
		if o := &h.out[j]; o.link == l && !o.sent {
			o.sent = true
			h.mail = append(h.mail, letter{b: h.arena[o.at : o.at+o.n]})
		}
	}
	h.order()
	for sent, tries := 0, 0; sent < len(h.bufs); tries++ {
		n, err := h.post.write(&l.io, h.bufs[sent:])
		sent += n
		if err == nil {
			continue
		}
		// An error of an earlier packet comes out at the next call, whatever
		// that is for: what was to be sent then hasn't been.
		if !unreachable(err) || tries > 2 {
			h.p.count.sendErrors.Add(uint64(len(h.bufs) - sent))
			return
		}
		l.failed(h, err)
	}
}

// flushFront is flushLink for a front.
func (h *hand) flushFront(i int) {
	f := h.out[i].front
	h.mail = h.mail[:0]
	for j := i; j < len(h.out); j++ {
		if o := &h.out[j]; o.front == f && !o.sent {
			o.sent = true
			h.mail = append(h.mail, letter{h.arena[o.at : o.at+o.n], dest{o.flow.Client, o.local}})
		}
	}
	h.order()
	for sent := 0; sent < len(h.bufs); {
		n, err := h.post.writeTo(f, h.bufs[sent:], h.tos[sent:])
		sent += n
		if err != nil {
			h.p.count.sendErrors.Add(1)
			sent++ // that one can't be sent; the others may
		}
	}
}

// order puts the letters in the order they are sent in: by where they go, and there
// the long ones first, which makes for long trains. Of packets that arrive at one
// moment none depends on another, but for the records of a session.
func (h *hand) order() {
	h.bufs, h.tos = h.bufs[:0], h.tos[:0]
	records := false
	for i := range h.mail {
		records = records || Code(h.mail[i].b[0]) == AccountingRequest
	}
	if !records {
		slices.SortStableFunc(h.mail, compareLetters)
	}
	for i := range h.mail {
		h.bufs = append(h.bufs, h.mail[i].b)
		h.tos = append(h.tos, h.mail[i].to)
	}
}

func compareLetters(a, b letter) int {
	if a.to != b.to {
		if c := a.to.to.Compare(b.to.to); c != 0 {
			return c
		}
		if c := a.to.local.Compare(b.to.local); c != 0 {
			return c
		}
	}
	return len(b.b) - len(a.b)
}

// rare limits how often something is logged: the first time at once, then once a
// while with how often it has happened.
type rare struct {
	last  atomic.Int64
	times atomic.Uint64
}

// rareEvery is the least time between two warnings of one kind.
const rareEvery = int64(30 * time.Second)

// warn logs a warning, at most now and then if w isn't nil.
func (p *Proxy) warn(w *rare, msg string, args ...any) {
	if p.Logger == nil || !p.Logger.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	if w != nil {
		n := w.times.Add(1)
		now, was := p.now(), w.last.Load()
		if was != 0 && now-was < rareEvery || !w.last.CompareAndSwap(was, now) {
			return
		}
		args = append(args, "times", n)
	}
	p.Logger.Warn("radius: "+msg, args...)
}
