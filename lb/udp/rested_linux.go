package udp

import (
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets of flows that have gone are used again: to make one and to get rid of it is
// most of the work that a first packet from nowhere is, and in a flood of these as
// many go as come.
//
// A socket that is laid aside has lost its address and its port, so nothing reaches it
// any more, and it will get another port. But what came just before may still be in
// it, or be on its way through the kernel, and the next client must not get that. So
// it rests for a while, and then until epoll, which still watches it, has had nothing
// to say of it: whatever it does report of such a socket is thrown away.

const (
	// maxRested bounds the sockets that rest: enough for a flood of 100,000
	// first packets a second.
	maxRested = 1024
	// restFor is how long a socket rests. From the moment the kernel has found a
	// packet's socket until the packet is in its buffer takes microseconds.
	restFor = 10 * time.Millisecond
)

// rested are sockets without a flow, in the order they were laid aside.
type rested struct {
	list  [maxRested]restedSocket
	first int
	n     int
	// When the last wait for events began of which all have been handled; and
	// the one whose events are being handled now.
	quiet, quietNext time.Duration
}

type restedSocket struct {
	fd    int
	slot  uint32
	v6    bool
	since time.Duration
}

// waited notes when a wait for events began, and whether it has told all there were.
func (r *rested) waited(since time.Duration, all bool) {
	r.quiet = r.quietNext
	if all {
		r.quietNext = since
	}
}

// take returns the socket that has rested longest, if that was long enough.
func (r *rested) take(v6 bool) (s rawSocket, ok bool) {
	if f := &r.list[r.first]; r.n == 0 || f.v6 != v6 || f.since+restFor > r.quiet {
		return s, false
	}
	return r.pop(), true
}

func (r *rested) pop() rawSocket {
	s := &r.list[r.first]
	r.first = (r.first + 1) % maxRested
	r.n--
	return rawSocket{fd: s.fd, slot: s.slot, v6: s.v6, again: true}
}

// empty throws away what there is in the socket that has a slot.
func (r *rested) empty(slot uint32) {
	for i := range r.n {
		if s := &r.list[(r.first+i)%maxRested]; s.slot == slot {
			drainErrors(s.fd)
			for range batch {
				if recvNothing(s.fd) == unix.EAGAIN {
					return
				}
			}
			return // epoll will tell again
		}
	}
}

// rest lays a socket aside, and reports whether it could.
func (w *worker) rest(s rawSocket) bool {
	r := &w.rested
	if r.n == maxRested || disconnect(s.fd) != nil {
		return false
	}
	r.list[(r.first+r.n)%maxRested] = restedSocket{fd: s.fd, slot: s.slot, v6: s.v6, since: time.Since(w.d.start)}
	r.n++
	return true
}

// forgetRested closes the sockets that have rested since some time or longer.
func (w *worker) forgetRested(since time.Duration) {
	for r := &w.rested; r.n > 0 && r.list[r.first].since <= since; {
		w.discard(r.pop())
	}
}

var errNoneRested = errors.New("udp: no socket to be used again")

// reopen gives u a socket that has rested, if it may have such a one. It keeps its
// place in epoll.
func (w *worker) reopen(u *upstream, local, to netip.AddrPort) error {
	if local.IsValid() {
		return errNoneRested
	}
	s, ok := w.rested.take(to.Addr().Unmap().Is6())
	if !ok {
		return errNoneRested
	}
	if err := connect(s.fd, to); err != nil {
		w.discard(s)
		return err
	}
	s.noTrains = w.d.noTrains
	u.raw, w.ups[s.slot] = s, u
	return nil
}
