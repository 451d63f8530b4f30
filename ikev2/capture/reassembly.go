package capture

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

// This file puts IP fragments together. What has been put together is told of as
// a datagram; what can't be, because fragments never came, too, if the first one
// did, since without it nobody knows the ports.

// Bounds of reassembly.
const (
	// maxPartial is how many datagrams may be incomplete at a time; the oldest
	// makes room.
	maxPartial = 256
	// maxPieces is how many fragments one may have.
	maxPieces = 256
	// maxDatagram is the longest IP payload.
	maxDatagram = 65535
	// partialFor is how long fragments are waited for, as long as Linux does.
	partialFor = 30 * time.Second
)

// reassembly holds the datagrams that aren't whole.
type reassembly struct {
	by    map[fragmentKey]*partial
	order []*partial // by when they began
}

type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
}

// a partial is a datagram some of whose fragments have come.
type partial struct {
	key    fragmentKey
	began  time.Time
	packet int // the last fragment's
	at     time.Time
	pieces []piece // by offset
	total  int     // 0 until the last fragment has come
	count  int     // fragments, each once
}

// a piece is one fragment: data is what was captured of its size octets.
type piece struct {
	offset, size int
	data         []byte
}

// fragment takes one fragment of UDP.
func (d *Decoder) fragment(p *Packet, h *ipHeader) {
	end := h.offset + h.size
	if h.size <= 0 || end > maxDatagram || h.more && h.size%8 != 0 {
		d.stats.Malformed++
		return
	}
	r := &d.parts
	if r.by == nil {
		r.by = make(map[fragmentKey]*partial)
	}
	k := fragmentKey{h.src, h.dst, h.id}
	q := r.by[k]
	if q == nil {
		if len(r.order) >= maxPartial {
			d.giveUp(r.order[0])
		}
		q = &partial{key: k, began: p.Time}
		r.by[k] = q
		r.order = append(r.order, q)
	}
	q.packet, q.at = p.Number, p.Time
	i, found := slices.BinarySearchFunc(q.pieces, h.offset, func(a piece, b int) int { return cmp.Compare(a.offset, b) })
	switch {
	case found: // again, or on another interface
		return
	case len(q.pieces) >= maxPieces, i > 0 && q.pieces[i-1].offset+q.pieces[i-1].size > h.offset,
		i < len(q.pieces) && end > q.pieces[i].offset, q.total > 0 && end > q.total:
		d.stats.Malformed++ // they overlap: nobody honest sends that
		return
	}
	q.pieces = slices.Insert(q.pieces, i, piece{h.offset, h.size, slices.Clone(h.payload)})
	q.count++
	if !h.more {
		q.total = end
	}
	if b, whole := q.whole(); whole {
		r.drop(q)
		hh := ipHeader{src: k.src, dst: k.dst}
		d.udp(p, &hh, b, q.total, q.count)
	}
}

// whole returns what was captured of the datagram up to the first gap, and whether
// all its fragments have come.
func (q *partial) whole() (b []byte, all bool) {
	next, cut := 0, false
	for _, p := range q.pieces {
		if p.offset != next {
			return b, false
		}
		if !cut {
			b = append(b, p.data...)
		}
		cut = cut || len(p.data) < p.size // the capture lacks the rest of it
		next += p.size
	}
	return b, q.total > 0 && next == q.total
}

// missing says which octets of the datagram never came.
func (q *partial) missing() string {
	var parts []string
	next := 0
	for _, p := range q.pieces {
		if p.offset > next {
			parts = append(parts, fmt.Sprintf("%d-%d", next, p.offset-1))
		}
		next = p.offset + p.size
	}
	switch {
	case q.total == 0:
		parts = append(parts, fmt.Sprintf("%d to the end", next))
	case next < q.total:
		parts = append(parts, fmt.Sprintf("%d-%d", next, q.total-1))
	}
	return strings.Join(parts, ", ")
}

func (r *reassembly) drop(q *partial) {
	delete(r.by, q.key)
	if i := slices.Index(r.order, q); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
}

// expire gives up what has waited for too long at the time of p.
func (d *Decoder) expire(p *Packet) {
	for len(d.parts.order) > 0 && p.Time.Sub(d.parts.order[0].began) > partialFor {
		d.giveUp(d.parts.order[0])
	}
}

// Flush tells of the datagrams of which fragments are still missing. It is to be
// called at the end of a capture.
func (d *Decoder) Flush() {
	for len(d.parts.order) > 0 {
		d.giveUp(d.parts.order[0])
	}
}

// giveUp tells of a datagram that will never be whole.
func (d *Decoder) giveUp(q *partial) {
	d.parts.drop(q)
	d.stats.Incomplete++
	b, _ := q.whole()
	if len(b) < 8 || q.pieces[0].offset != 0 {
		d.stats.Orphans++
		return
	}
	h := ipHeader{src: q.key.src, dst: q.key.dst}
	// How long it is in all only the UDP header knows.
	e, ok := datagram(&h, b, maxDatagram)
	if !ok || !interesting(e.From.Port()) && !interesting(e.To.Port()) {
		return
	}
	e.Kind, e.Missing, e.Fragments = ikev2.EventIncomplete, q.missing(), q.count
	d.emit(&Packet{Number: q.packet, Time: q.at}, &e)
}
