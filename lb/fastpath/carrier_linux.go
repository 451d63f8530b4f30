package fastpath

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/lb/udp"
)

// A Carrier is what one Engine has of a Path: revoking a backend ends the flows of
// that Engine, and not those that another has to the same address.
type Carrier struct {
	p        *Path
	backends map[netip.Addr]uint32 // under p.mu
	closed   bool
}

var _ udp.FastPath = (*Carrier)(nil)

// Carrier returns a new Carrier for an Engine. It must be closed when that has
// ended.
func (p *Path) Carrier() *Carrier {
	return &Carrier{p: p, backends: make(map[netip.Addr]uint32)}
}

// Close leaves what is carried as it is, for the Carrier of another Engine that goes
// on with the flows. What none has gone on with after some seconds ends.
func (c *Carrier) Close() {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	for i := range p.slots {
		if s := &p.slots[i]; s.used && s.owner == c {
			s.owner = nil
			p.waiting++
		}
	}
	for _, n := range c.backends {
		p.backends[n].owner = nil
		p.letGo(n, 0)
	}
	clear(c.backends)
	p.began = time.Now()
}

// Carry implements [udp.FastPath].
func (c *Carrier) Carry(f udp.FastFlow, b []byte, answer bool) (id uint64, ok bool) {
	p := c.p
	f, ok = fits(f)
	if !ok {
		p.unfit.Add(1)
		return 0, false
	}
	side := fromClient
	if answer {
		side = fromBackend
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || c.closed {
		return 0, false
	}
	n, known := p.index[ends{f.Client, f.Listener}]
	if known && p.slots[n].flow != f {
		p.remove(n)
		known = false
	}
	if b == nil {
		if !known {
			return 0, false
		}
		return p.goOn(c, n)
	}
	spi, esp := spiOf(b)
	switch {
	case known && !esp:
		return p.goOn(c, n)
	case !esp:
		return 0, false
	case known:
		s := &p.slots[n]
		switch isNew := s.known[side].add(spi); {
		case s.owner != c || !p.current(s):
			return p.update(c, n)
		case isNew:
			p.write(n)
		}
		return s.id(n), true
	}
	return p.add(c, f, side, spi)
}

// goOn has c be the owner of a slot.
func (p *Path) goOn(c *Carrier, n uint32) (uint64, bool) {
	if s := &p.slots[n]; s.owner == c {
		return s.id(n), true
	}
	return p.update(c, n)
}

// current reports whether the entries of s count.
func (p *Path) current(s *slot) bool {
	return s.written == uint32(atomic.LoadUint64(&p.gens[s.backend]))
}

func (s *slot) id(n uint32) uint64 { return uint64(s.serial)<<32 | uint64(n) }

// add makes a slot. p.mu is held, here and below.
func (p *Path) add(c *Carrier, f udp.FastFlow, side int, spi uint32) (uint64, bool) {
	n, ok := p.take()
	if !ok {
		p.full.Add(1)
		return 0, false
	}
	b, ok := p.backend(c, f.Backend.Addr())
	if !ok {
		p.free = append(p.free, n)
		p.full.Add(1)
		return 0, false
	}
	s := &p.slots[n]
	*s = slot{used: true, flow: f, owner: c, serial: s.serial + 1, backend: b}
	s.known[side].add(spi)
	p.backends[b].flows++
	p.index[ends{f.Client, f.Listener}] = n
	if err := p.enter(n); err != nil {
		if errors.Is(err, errTaken) {
			// Two flows of a client's port to one backend, in transparent
			// mode: nobody could tell the answers apart.
			p.unfit.Add(1)
		} else {
			p.failed.Add(1)
		}
		p.forget(n)
		return 0, false
	}
	return s.id(n), true
}

// take returns a slot that isn't used.
func (p *Path) take() (uint32, bool) {
	if last := len(p.free) - 1; last >= 0 {
		n := p.free[last]
		p.free = p.free[:last]
		return n, true
	}
	if len(p.slots) >= p.c.MaxFlows {
		return 0, false
	}
	// Not at 0, so that an Engine that goes on with another Path takes no new flow for
	// one that it had.
	p.slots = append(p.slots, slot{serial: rand.Uint32()})
	return uint32(len(p.slots) - 1), true
}

// backend returns the number of a backend of c's.
func (p *Path) backend(c *Carrier, a netip.Addr) (uint32, bool) {
	if n, ok := c.backends[a]; ok {
		return n, true
	}
	for n := 1; n < maxBackends; n++ {
		if n == len(p.backends) {
			p.backends = append(p.backends, backend{})
		}
		if !p.backends[n].used {
			p.backends[n] = backend{addr: a, owner: c, used: true}
			c.backends[a] = uint32(n)
			return uint32(n), true
		}
	}
	return 0, false
}

// letGo takes n flows from a backend.
func (p *Path) letGo(number uint32, n int) {
	b := &p.backends[number]
	b.flows -= n
	if b.flows == 0 && b.owner == nil {
		b.used = false
	}
}

// update writes a slot anew, for c.
func (p *Path) update(c *Carrier, n uint32) (uint64, bool) {
	s := &p.slots[n]
	if s.owner != c {
		b, ok := p.backend(c, s.flow.Backend.Addr())
		if !ok {
			return 0, false
		}
		if s.owner == nil {
			p.waiting--
		}
		p.backends[b].flows++
		p.letGo(s.backend, 1)
		s.owner, s.backend = c, b
		s.serial++
	}
	p.write(n)
	return s.id(n), true
}

// enter makes the records of a slot: the answers' first, so that none has to be asked for
// twice.
func (p *Path) enter(n uint32) (err error) {
	s := &p.slots[n]
	s.written = uint32(atomic.LoadUint64(&p.gens[s.backend]))
	dirs := paths(&s.flow)
	for _, side := range [2]int{fromBackend, fromClient} {
		if s.at[side], err = p.table.put(&dirs[side], s.status(side), s.known[side].spi); err != nil {
			return err
		}
		s.there[side] = true
	}
	return nil
}

// status returns what the status of a record of s is.
func (s *slot) status(side int) uint64 {
	family := uint8(family6)
	if s.flow.Client.Addr().Is4() {
		family = family4
	}
	return status(family, uint8(side), s.backend, s.written)
}

// write brings the records of a slot up to date.
func (p *Path) write(n uint32) {
	s := &p.slots[n]
	s.written = uint32(atomic.LoadUint64(&p.gens[s.backend]))
	for _, side := range [2]int{fromBackend, fromClient} {
		p.table.change(s.at[side], s.status(side), &s.known[side].spi)
	}
}

// erase takes the records of a slot out.
func (p *Path) erase(n uint32) {
	s := &p.slots[n]
	for side := range s.there {
		if s.there[side] {
			s.there[side] = false
			p.table.drop(s.at[side])
		}
	}
}

// remove ends a slot.
func (p *Path) remove(n uint32) {
	p.erase(n)
	if p.slots[n].owner == nil {
		p.waiting--
	}
	p.forget(n)
}

// forget gives a slot's number back.
func (p *Path) forget(n uint32) {
	p.erase(n)
	s := &p.slots[n]
	delete(p.index, ends{s.flow.Client, s.flow.Listener})
	p.letGo(s.backend, 1)
	*s = slot{serial: s.serial}
	p.free = append(p.free, n)
}

// slotOf returns the number of the slot that c knows by id.
func (c *Carrier) slotOf(id uint64) (uint32, bool) {
	n := uint32(id)
	if c.p.closed || int(n) >= len(c.p.slots) {
		return 0, false
	}
	s := &c.p.slots[n]
	return n, s.used && s.owner == c && s.serial == uint32(id>>32)
}

// Carried implements [udp.FastPath].
func (c *Carrier) Carried(id uint64) (u udp.FastUse) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if n, ok := c.slotOf(id); ok {
		u = c.p.table.use(c.p.slots[n].at)
	}
	return u
}

// End implements [udp.FastPath].
func (c *Carrier) End(id uint64) (u udp.FastUse) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	if n, ok := c.slotOf(id); ok {
		c.p.erase(n)
		u = c.p.table.use(c.p.slots[n].at)
		c.p.remove(n)
	}
	return u
}

// Revoke implements [udp.FastPath].
func (c *Carrier) Revoke(addr netip.Addr) {
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	addr = addr.Unmap()
	for n := range p.backends {
		if b := &p.backends[n]; b.used && b.addr == addr && (b.owner == c || b.owner == nil) {
			atomic.AddUint64(&p.gens[n], 1)
		}
	}
}
