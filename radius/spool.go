package radius

import "sync/atomic"

// maxStoring bounds the calls of Spool.Store under way at once. Many may wait for
// one write to the disk.
const maxStoring = 512

// spooler gives requests to a Spool.
type spooler struct {
	busy            atomic.Int64
	stored, refused atomic.Uint64
}

// spools reports whether accounting must go the way of the Spool: behind others,
// or since every server is down, whatever hope there may be.
func (p *Proxy) spools(pkt Packet) bool {
	if p.Spool == nil {
		return false
	}
	view := p.Balancer.Pool.View()
	return view.Panic || len(view.Usable) == 0 || p.Spool.Behind(pkt)
}

// store gives r to the Spool, without the cell's lock, and answers it when the
// Spool has it. If it can't be had, r goes on waiting, and is given to the Spool
// again when its client repeats it.
func (c *cell) store(r *request) {
	p := c.p
	if p.spooler.busy.Add(1) > maxStoring || p.state.Load() >= stateClosing {
		p.spooler.busy.Add(-1)
		return
	}
	r.storing = true
	k, auth := r.key, r.auth
	rec := Record{Packet: Packet{b: append([]byte(nil), r.buf...)}, Client: r.peer.Name, Flow: r.flow, Sent: r.tried}
	p.wg.Go(func() {
		defer p.spooler.busy.Add(-1)
		err := p.Spool.Store(rec)
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
