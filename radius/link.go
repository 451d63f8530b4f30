package radius

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/lb"
)

// A link is a connection to a server, with an Identifier space of its own: 256
// requests can wait for answers. It belongs to a cell, whose lock guards it.
type link struct {
	cell   *cell
	member *lb.Member
	server *server
	conf   *serverConf // as when it was opened: its Dial
	conn   net.Conn
	io     linkIO

	slots [256]slot
	// The Identifiers that aren't in use are a ring, the one that has been free
	// longest first: an answer that comes too late is then most likely not
	// taken for one to another request. n is how many there are.
	first byte
	n     int
	dead  bool
	used  int64 // when it was last used
}

// slot is one Identifier of a link.
type slot struct {
	r          *request
	left       int64 // when it was last given up without an answer; 0 never
	prev, next byte  // in the ring of those that are free
}

// maxLinks bounds the links of a cell to one port of a server.
const maxLinks = 64

// linkIdle is after how long a link without requests is closed.
const linkIdle = int64(2 * time.Minute)

// linkTo returns a link to v with a free Identifier, opened if need be, or nil.
func (c *cell) linkTo(h *hand, v *server, m *lb.Member) *link {
	open, way := 0, v.conf.Load().way
	for _, l := range c.links {
		if l.server != v || l.dead || l.conf.way != way {
			continue
		}
		open++
		if l.n > 0 {
			return l
		}
	}
	if open >= maxLinks {
		return nil
	}
	l, err := c.p.open(c, v, m)
	if err != nil {
		c.p.warn(&c.p.reasons.dial, "no link to a server can be opened", "backend", v.name, "port", v.port, "error", err)
		if v.conf.Load().Dial != nil {
			c.p.shunned(h, v, err) // it was tried a moment ago
		}
		return nil
	}
	c.links = append(c.links, l)
	return l
}

// open makes a link, and starts its reader.
func (p *Proxy) open(c *cell, v *server, m *lb.Member) (*link, error) {
	if p.state.Load() >= stateClosing {
		return nil, ErrClosed
	}
	conf := v.conf.Load()
	dial := conf.Dial
	if dial == nil {
		dial = dialUDP
	}
	conn, err := dial(m, v.port)
	if err != nil {
		return nil, err
	}
	l := &link{cell: c, member: m, server: v, conf: conf, conn: conn, n: len(link{}.slots)}
	for i := range l.slots {
		l.slots[i].prev, l.slots[i].next = byte(i-1), byte(i+1)
	}
	l.io.init(conn, p.shelf)
	p.wg.Go(func() { p.readLink(l) })
	return l, nil
}

// recently is for how long an answer is waited for that comes too late.
const recently = int64(2 * time.Minute)

// take takes an Identifier for r: that which its client uses, if it is free, for
// where the secrets are the same too, nothing has to be signed anew. But not so
// soon after it was given up, for what may come too late.
func (l *link) take(r *request, now int64) byte {
	id := r.key.id
	if s := &l.slots[id]; s.r != nil || s.left != 0 && now-s.left < recently {
		id = l.first
	}
	s := &l.slots[id]
	l.slots[s.prev].next, l.slots[s.next].prev = s.next, s.prev
	if id == l.first {
		l.first = s.next
	}
	l.n--
	s.r = r
	return id
}

// release gives Identifier id back. left is when it was given up without an
// answer, or 0.
func (l *link) release(id byte, left int64) {
	s := &l.slots[id]
	*s = slot{left: left, prev: id, next: id}
	if l.n == 0 {
		l.first = id
	} else {
		s.next = l.first
		s.prev = l.slots[s.next].prev
		l.slots[s.prev].next, l.slots[s.next].prev = id, id
	}
	l.n++
}

// readLink reads answers until l ends.
func (p *Proxy) readLink(l *link) {
	h := p.newHand()
	for {
		n, err := l.io.recv()
		h.tick()
		for i := range n {
			p.answered(h, l, l.io.in.at(i))
			h.flushMany()
		}
		h.flush()
		if err == nil {
			continue
		}
		if !l.failed(h, err) {
			h.flush()
			return
		}
		h.flush()
	}
}

// failed takes note of an error of l, and reports whether it can be read on.
func (l *link) failed(h *hand, err error) bool {
	p := l.cell.p
	l.cell.mu.Lock()
	defer l.cell.mu.Unlock()
	if l.dead {
		return false
	}
	if isDatagram(l.conn) && unreachable(err) {
		l.server.count.refused.Add(1)
		p.shunned(h, l.server, err)
		l.cell.flee(h, l.server)
		return true
	}
	l.cell.close(l, h.now)
	if p.state.Load() < stateClosing {
		p.suspect(l.server, err)
		l.cell.flee(h, l.server)
	}
	return false
}

// unreachable reports whether err is one that ICMP brings.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// isDatagram reports whether c stands for a datagram socket.
func isDatagram(c net.Conn) bool {
	_, ok := c.LocalAddr().(*net.UDPAddr)
	return ok
}

// close ends l. The requests that wait on it are left to whoever calls.
func (c *cell) close(l *link, now int64) {
	if l.dead {
		return
	}
	l.dead = true
	_ = l.conn.Close() // nothing is lost with it
	for id := range l.slots {
		if r := l.slots[id].r; r != nil {
			r.leave(now)
		}
	}
	for i, o := range c.links {
		if o == l {
			c.links = append(c.links[:i], c.links[i+1:]...)
			break
		}
	}
}

func dialUDP(m *lb.Member, port uint16) (net.Conn, error) {
	conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: m.Addr.AsSlice(), Port: int(port), Zone: m.Addr.Zone()})
	if err != nil {
		return nil, err
	}
	prepare(conn)
	return conn, nil
}
