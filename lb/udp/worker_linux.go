package udp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The Linux driver.
//
// Each worker is one goroutine locked to its thread, with a shard of its own, so
// that no packet takes a lock or waits for another thread. It waits with epoll of
// its own for its listeners and upstreams; the sockets are taken out of the Go
// runtime's poller, which would otherwise be woken by every packet too.
//
//	              recvmmsg, up to 64                 io_uring, or sendmsg with GSO
//	 listener ────────────────────▶ slab, shard ───────────────────▶ upstream of
//	          ◀──────────────────── slab, shard ◀───────────────────  each flow
//	            sendmmsg, with GSO               recvmmsg
//
// Towards backends each flow has its own socket, so most sends are of one
// datagram. Where the kernel has io_uring those of a batch are made by one system
// call: that is a fifth less work. What several datagrams of a flow came in one batch leave together: a
// train of the same size (the last may be smaller) is given to the kernel as one,
// by UDP GSO, straight from where it was received. Towards clients all answers of
// a round leave with one sendmmsg.
//
// UDP GRO is used only if asked for: the kernel doesn't coalesce datagrams without a
// checksum, which is what ESP in UDP is (RFC 3948 §2.1), and trying costs a search
// for the socket. With it a buffer may have many datagrams, each of which is judged
// by itself. Those that lie one behind the other and go the same way are a run, and
// leave as they lie.
//
// Waiting. Calls that never block are made without telling the Go scheduler. Waiting
// is not: a worker that waits untold for a moment after traffic, to save itself the
// way through the scheduler, was measured to be no faster, while a few such workers
// kept all other goroutines of the process from running.
//
// Lulls. To wake a waiting worker costs the processor that a datagram has come to more
// than the rest of its way to the socket. Where a FastPath carries clients, that is time
// of theirs, and what comes to the sockets is in no such hurry. So, there, a worker that gets
// one new client after the other, and has nothing else to do, looks for them twice in a
// millisecond, rather than be woken by each.
//
// Buffers. A datagram may have up to 64 KiB: an IKE_AUTH with certificates arrives
// here reassembled from IP fragments. Every buffer is that large, so nothing is
// ever truncated; memory that isn't used isn't there. Path MTU discovery is off on
// both sides: what arrived in fragments leaves in fragments.
//
// Files. Enlarging the table of open files makes a process with several threads
// wait for all processors to pass through the scheduler, tens of milliseconds at a
// time, and that when many clients come at once. So it is enlarged at the start.

const (
	// upstreamBuffer is how many bytes may wait in an upstream's socket: a
	// gateway sends trains.
	upstreamBuffer = 1 << 20
	maxEvents      = 256
	sweepEvery     = time.Second
	// lull is how long a worker sleeps between two looks.
	lull     = 500 * time.Microsecond
	wakeSlot = -1 // in events: the eventfd; listeners are below
)

type rawSocket struct {
	fd         int
	slot       uint32
	head, tail int16 // of its queue in the batch in hand
	queued     int16
	habit      habit
	noTrains   bool
	v6, again  bool   // it may serve another flow later, of that family
	maxSegment uint16 // larger ones must not be sent by GSO; 0: no limit known
	restored   bool
}

// habit is how a socket's datagrams come: asking for more than there are is some work.
type habit struct {
	round uint32 // of waiting, in which there were some last
	many  bool   // at once, the last time
}

// long reports whether there may be many at once in this round: as there were last
// time, or because not all were taken in the round before.
func (h *habit) long(round uint32) bool {
	last := h.round
	h.round = round
	return h.many || last == round-1
}

// had notes how many there were.
func (h *habit) had(n int) { h.many = n > 1 }

type rawPeer struct {
	sa         unix.RawSockaddrInet6
	size       uint32
	maxSegment uint16
}

type rawEndpoint struct {
	ctl  [40]byte // control messages to answer from it
	size int
}

type listener struct {
	fd       int
	addr     netip.AddrPort
	v6       bool
	wildcard bool
	end      *endpoint // of the address used last
	endAddr  arrival
	lost     uint32 // how many datagrams its socket has lost
	unasked  bool   // there were datagrams since lost was asked for
	plain    bool   // nothing but the datagrams and their senders is of interest
	noTrains bool
	habit    habit
	out      *replies
}

type worker struct {
	d         *linux
	number    int
	shard     shard
	ep, wake  int
	listeners []*listener
	ends      map[arrival]*endpoint // of wildcard listeners; listener tells which
	lastEnd   uint16

	ups    []*upstream // by slot; nil: it rests, or the slot is spare
	gens   []uint32    // of what has the slot
	spare  []uint32
	rested rested

	rx       slab
	rxHdr    [batch]mmsghdr
	rxIov    [batch]unix.Iovec
	rxName   [batch]unix.RawSockaddrInet6
	rxCtl    [batch][rxCtlSize]byte
	rxPlain  bool // control messages aren't to be received
	runs     [maxRuns]run
	nruns    int
	touched  [maxRuns]*upstream
	ntouched int
	out      trains // of the upstream in hand
	ring     *ring  // nil: each send is a system call

	ready  [batch]*upstream // have answers
	nready int
	res    [batch]int32 // how long these are
	round  uint32       // of waiting

	tx    slab // answers
	upHdr [batch]mmsghdr
	upIov [batch]unix.Iovec
	upCtl [batch][rxCtlSize]byte
	used  int // of tx

	events [maxEvents]unix.EpollEvent
	sweep  time.Duration // when to look for silent flows, if awake
	lulls  lulls
	more   bool // in this turn there was more to receive than was taken

	mu    sync.Mutex // below
	inbox []func()
	over  bool
}

// run is one or more datagrams for the same upstream that lie one behind the other,
// where they were received.
type run struct {
	b    []byte
	size int // of each; the last may be smaller
	n    int
	next int16
}

// extend adds b to r, if it comes right behind, and was received in one piece with
// it: each buffer has only datagrams of one size, of which the last may be smaller.
func (r *run) extend(b []byte) bool {
	end := unsafe.Add(unsafe.Pointer(unsafe.SliceData(r.b)), len(r.b))
	if len(b) == 0 || len(b) > r.size || unsafe.Pointer(unsafe.SliceData(b)) != end || len(r.b) != r.n*r.size ||
		r.n >= maxSegments || (r.n+1)*r.size > maxTrain {
		return false
	}
	r.b = unsafe.Slice(unsafe.SliceData(r.b), len(r.b)+len(b))
	r.n++
	return true
}

// replies are datagrams that wait to be sent by a listener.
type replies struct {
	trains
	flow [batch]*flow
}

func newWorker(d *linux, number int) (*worker, error) {
	w := &worker{d: d, number: number, ep: -1, wake: -1, ends: make(map[arrival]*endpoint)}
	var err error
	if w.rx, err = newSlab(); err != nil {
		return w, os.NewSyscallError("mmap", err)
	}
	if w.tx, err = newSlab(); err != nil {
		return w, os.NewSyscallError("mmap", err)
	}
	for i := range batch {
		w.rxIov[i] = unix.Iovec{Base: &w.rx[i*slotSize]}
		w.rxIov[i].SetLen(maxDatagram)
		w.upIov[i] = unix.Iovec{Base: &w.tx[i*slotSize]}
		w.upIov[i].SetLen(maxDatagram)
		h := &w.rxHdr[i]
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&w.rxName[i])), nameSize
		h.Control = &w.rxCtl[i][0]
		h.SetControllen(rxCtlSize)
		h.Iov = &w.rxIov[i]
		h.SetIovlen(1)
		h = &w.upHdr[i]
		h.Iov = &w.upIov[i]
		h.SetIovlen(1)
		if d.e.GRO {
			h.Control = &w.upCtl[i][0]
			h.SetControllen(rxCtlSize)
		}
	}
	w.out.init()
	if w.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return w, os.NewSyscallError("epoll_create1", err)
	}
	if w.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return w, os.NewSyscallError("eventfd", err)
	}
	return w, w.watch(w.wake, wakeSlot, 0)
}

func (w *worker) watch(fd int, slot int32, gen uint32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: slot, Pad: int32(gen)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(w.ep, unix.EPOLL_CTL_ADD, fd, &ev))
}

func (w *worker) addListener(l *listener) error {
	l.out = new(replies)
	l.out.init()
	w.listeners = append(w.listeners, l)
	if !l.wildcard {
		l.end = w.newEndpoint(len(w.listeners)-1, l.addr)
	}
	return w.watch(l.fd, wakeSlot-int32(len(w.listeners)), 0)
}

func (w *worker) newEndpoint(number int, addr netip.AddrPort) *endpoint {
	end := &endpoint{id: w.lastEnd, addr: addr, listener: number}
	w.lastEnd++
	return end
}

// close releases what isn't a socket of a listener.
func (w *worker) close() error {
	var errs []error
	for w.rested.n > 0 {
		w.discard(w.rested.pop())
	}
	for _, fd := range []int{w.ep, w.wake} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	for _, s := range []slab{w.rx, w.tx} {
		if s != nil {
			errs = append(errs, s.free())
		}
	}
	return errors.Join(errs...)
}

// run serves until the driver stops it.
func (w *worker) run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	w.openRing()
	defer w.closeRing()
	for {
		if err := w.turn(); err != nil {
			return err
		}
		w.mu.Lock()
		over := w.over
		w.mu.Unlock()
		if over {
			return nil
		}
	}
}

// turn waits for events and handles them.
func (w *worker) turn() error {
	n, err := w.wait()
	if err != nil {
		return fmt.Errorf("udp: waiting for datagrams: %w", os.NewSyscallError("epoll_wait", err))
	}
	w.rested.waited(w.shard.now, n > 0 && n < maxEvents)
	w.shard.now = time.Since(w.d.start)
	w.round++
	w.more = n == maxEvents
	for i := range w.events[:n] {
		if err := w.event(&w.events[i], n > 1); err != nil {
			return err
		}
	}
	w.readReady()
	w.flush()
	if w.shard.now >= w.sweep {
		w.sweep = w.shard.now + sweepEvery
		w.shard.expire()
		w.countLosses()
		w.forgetRested(w.shard.now - sweepEvery)
	}
	if w.shard.draining && w.shard.table.used == 0 {
		w.d.drained(w)
	}
	if (w.d.e.Calm || w.d.e.FastPath != nil) && w.lulls.due(w.shard.now, w.shard.strangers) && !w.more {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(lull)}, nil)
	}
	return nil
}

// lulls tells when a worker sleeps.
type lulls struct {
	strangers uint64        // how many there had been
	last      time.Duration // when the last of them came
}

// due reports whether new clients come in quick succession: there have been so many now,
// and the last before these came just now too.
func (l *lulls) due(now time.Duration, strangers uint64) bool {
	if strangers == l.strangers {
		return false
	}
	often := l.strangers > 0 && now-l.last < 2*lull
	l.strangers, l.last = strangers, now
	return often
}

// wait returns how many events there are.
func (w *worker) wait() (int, error) {
	timeout := -1
	due := w.shard.due()
	todo := w.rested.n > 0
	for _, l := range w.listeners {
		todo = todo || l.unasked
	}
	if todo && (due == 0 || due > w.sweep) {
		due = w.sweep
	}
	if due != 0 {
		timeout = int(max(due-w.shard.now, 0)/time.Millisecond) + 1
	}
	n, err := unix.EpollWait(w.ep, w.events[:], timeout)
	if errors.Is(err, unix.EINTR) {
		return 0, nil
	}
	return n, err
}

// event handles one event, of several or not.
func (w *worker) event(ev *unix.EpollEvent, several bool) error {
	switch {
	case ev.Fd == wakeSlot:
		w.receiveInbox()
	case ev.Fd < wakeSlot:
		l := w.listeners[wakeSlot-1-ev.Fd]
		if ev.Events&unix.EPOLLERR != 0 {
			drainErrors(l.fd)
		}
		return w.readListener(l)
	case w.gens[ev.Fd] != uint32(ev.Pad): // it has been closed
	case w.ups[ev.Fd] == nil:
		w.rested.empty(uint32(ev.Fd))
	default:
		u := w.ups[ev.Fd]
		if ev.Events&unix.EPOLLERR != 0 {
			if e := drainErrors(u.raw.fd); e != 0 {
				w.shard.failed(u, e)
			}
		}
		if ev.Events&unix.EPOLLIN != 0 {
			w.answers(u, several)
		}
	}
	return nil
}

// do has f called by the worker.
func (w *worker) do(f func()) {
	w.mu.Lock()
	w.inbox = append(w.inbox, f)
	w.mu.Unlock()
	w.kick()
}

func (w *worker) stop() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.kick()
}

func (w *worker) kick() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// It can fail only if the worker has 2⁶⁴-2 kicks to hear of already.
	_, _ = unix.Write(w.wake, one[:])
}

func (w *worker) receiveInbox() {
	var count [8]byte
	_, _ = unix.Read(w.wake, count[:])
	w.mu.Lock()
	todo := w.inbox
	w.inbox = nil
	w.mu.Unlock()
	for _, f := range todo {
		f()
	}
}

// receive receives a batch of clients' datagrams.
func (w *worker) receive(l *listener) (int, unix.Errno) {
	many := l.habit.long(w.round)
	l.unasked = true
	if l.plain != w.rxPlain {
		w.rxPlain = l.plain
		for i := range w.rxHdr {
			w.rxHdr[i].SetControllen(w.rxControl())
		}
	}
	n, e := 1, unix.Errno(0)
	switch h := &w.rxHdr[0]; {
	case many:
		n, e = recvmmsg(l.fd, w.rxHdr[:])
	case l.plain:
		h.n, e = recvfrom(l.fd, w.rx.at(0, maxDatagram), &w.rxName[0])
	default:
		n, e = recvmmsg(l.fd, w.rxHdr[:1])
	}
	l.habit.had(n)
	return n, e
}

// rxControl is how many bytes of control messages to receive with each datagram.
func (w *worker) rxControl() int {
	if w.rxPlain {
		return 0
	}
	return rxCtlSize
}

// countLosses asks the kernel how many datagrams it has dropped because there was no
// room in a listener's buffer. To have it told with each datagram costs more.
func (w *worker) countLosses() {
	for _, l := range w.listeners {
		if !l.unasked {
			continue
		}
		l.unasked = false
		if lost, ok := losses(l.fd); ok {
			w.shard.counters.overflow.Add(uint64(lost - l.lost))
			l.lost = lost
		}
	}
}

// readListener carries one batch of clients' datagrams.
func (w *worker) readListener(l *listener) error {
	n, e := w.receive(l)
	switch e {
	case 0:
	case unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL:
		return fmt.Errorf("udp: reading from %v: %w", l.addr, os.NewSyscallError("recvmmsg", e))
	default: // nothing there, or the network's error of an earlier datagram
		return nil
	}
	w.more = w.more || n == batch
	c := &w.shard.counters
	var packets, bytes uint64
	for i := range n {
		h := &w.rxHdr[i]
		b := w.rx.at(i, int(h.n))
		size := 0
		if !l.plain {
			a := parseArrival(w.rxCtl[i][:h.Controllen])
			size = a.segment
			w.arrived(l, a)
		}
		cut := h.Flags&unix.MSG_CTRUNC != 0 && size == 0
		h.SetControllen(w.rxControl())
		h.Namelen = nameSize
		count := w.datagrams(b, size)
		packets += count
		bytes += uint64(len(b))
		if l.end == nil || cut && w.d.e.GRO {
			// A wildcard listener that wasn't told the address; or nobody
			// told how many datagrams these are.
			c.dropped.Add(count)
			continue
		}
		k := keyOfRaw(&w.rxName[i], l.end.id)
		for {
			var d []byte
			d, b = cutOne(b, size)
			w.fromClient(l, &k, d)
			if len(b) == 0 {
				break
			}
		}
	}
	w.flushUpstreams()
	c.clientPackets.Add(packets)
	c.clientBytes.Add(bytes)
	return nil
}

// datagrams returns how many datagrams there are in b, which the kernel has merged
// if size isn't 0. It is a matter of counting only.
func (w *worker) datagrams(b []byte, size int) uint64 {
	if size == 0 || size >= len(b) {
		return 1
	}
	w.shard.counters.merged.Add(1)
	return uint64((len(b) + size - 1) / size)
}

// cutOne cuts the first datagram off b, of which size is that of all but the last,
// or 0 if b is only one.
func cutOne(b []byte, size int) (first, rest []byte) {
	if size == 0 || size > len(b) {
		size = len(b)
	}
	return b[:size:size], b[size:]
}

// fromClient carries one datagram.
func (w *worker) fromClient(l *listener, k *flowKey, b []byte) {
	f := w.shard.fromClient(k, l.end, b)
	switch {
	case f == nil:
	case f.up != nil:
		w.queue(f.up, b)
	default:
		for _, u := range f.asks {
			w.flushUpstream(u)
			w.send(u, b)
		}
	}
}

// arrived takes note of a datagram's control messages: l.end is where it came to.
func (w *worker) arrived(l *listener, a arrival) {
	if !l.wildcard {
		return
	}
	a.segment = 0
	if !linkLocal(netip.AddrFrom16(a.addr)) {
		a.ifindex = 0
	}
	if l.end != nil && a == l.endAddr {
		return
	}
	l.end, l.endAddr = nil, a
	if !a.to {
		return
	}
	id := a
	for i, other := range w.listeners {
		if other == l {
			id.listener = i
		}
	}
	if l.end = w.ends[id]; l.end != nil {
		return
	}
	if len(w.ends) >= 1<<15 {
		return // addresses of this machine are not that many
	}
	addr := netip.AddrFrom16(a.addr).Unmap()
	end := w.newEndpoint(id.listener, netip.AddrPortFrom(addr, l.addr.Port()))
	end.raw.size = putPktinfo(end.raw.ctl[:], addr, a.ifindex, l.v6)
	w.ends[id], l.end = end, end
}

// queue has a datagram of the batch sent on u with the others for it.
func (w *worker) queue(u *upstream, b []byte) {
	r := &u.raw
	if r.queued > 0 && w.runs[r.tail].extend(b) {
		return
	}
	if w.nruns == maxRuns {
		w.flushUpstreams()
	}
	i := int16(w.nruns)
	w.nruns++
	w.runs[i] = run{b: b, size: len(b), n: 1, next: -1}
	if r.queued == 0 {
		r.head = i
		w.touched[w.ntouched] = u
		w.ntouched++
	} else {
		w.runs[r.tail].next = i
	}
	r.tail = i
	r.queued++
}

// flushUpstreams sends what is queued: single datagrams together, if it can.
func (w *worker) flushUpstreams() {
	singles := 0
	for _, u := range w.touched[:w.ntouched] {
		if r := &u.raw; w.ring != nil && r.queued == 1 && w.runs[r.head].n == 1 {
			w.touched[singles] = u
			singles++
			continue
		}
		w.flushUpstream(u)
	}
	if singles > 1 {
		w.flushSingles(w.touched[:singles])
	} else if singles == 1 {
		w.flushUpstream(w.touched[0])
	}
	clear(w.touched[:w.ntouched])
	w.ntouched, w.nruns = 0, 0
}

// flushSingles sends the single datagram that is queued on each of us.
func (w *worker) flushSingles(us []*upstream) {
	for i, u := range us {
		u.raw.queued = 0
		w.ring.send(u.raw.fd, w.runs[u.raw.head].b, i)
	}
	taken, err := w.ring.submit(len(us))
	sent := uint64(0)
	for i := range taken {
		id, _, e, broken := w.ring.next()
		if broken != 0 {
			w.shard.counters.sendErrors.Add(uint64(taken - i))
			err = broken
			break
		}
		if e == 0 {
			sent++
			continue
		}
		u := us[id]
		w.sent(u, w.runs[u.raw.head].b, e)
	}
	w.shard.counters.sent.Add(sent)
	w.shard.counters.batches.Add(1)
	for _, u := range us[taken:] {
		w.send(u, w.runs[u.raw.head].b)
	}
	w.judgeRing(err)
}

// judgeRing goes on without a ring after an error that isn't of the moment.
func (w *worker) judgeRing(e unix.Errno) {
	switch e {
	case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY, unix.ENOMEM:
	default:
		w.d.e.ringFailed(os.NewSyscallError("io_uring_enter", e))
		w.closeRing()
	}
}

// openRing makes the calling thread's ring, if there may be one.
func (w *worker) openRing() {
	if w.d.e.NoIOUring {
		return
	}
	var err error
	if w.ring, err = newRing(); err != nil {
		w.ring = nil
		w.d.e.ringFailed(err)
	}
}

func (w *worker) closeRing() {
	if w.ring == nil {
		return
	}
	if err := w.ring.close(); err != nil {
		w.d.e.ringFailed(err)
	}
	w.ring = nil
}

// flushUpstream sends what is queued on u.
func (w *worker) flushUpstream(u *upstream) {
	r := &u.raw
	if r.queued == 0 {
		return
	}
	single := r.queued == 1
	r.queued = 0
	for i := r.head; i >= 0; i = w.runs[i].next {
		q := &w.runs[i]
		switch {
		case q.n > 1 && r.alone(q.size):
			for b := q.b; len(b) > 0; {
				var d []byte
				d, b = cutOne(b, q.size)
				w.add(u, d, len(d), 1)
			}
		case single && q.n == 1:
			w.send(u, q.b)
		default:
			w.add(u, q.b, q.size, q.n)
		}
	}
	w.sendAll(u)
}

// alone reports whether datagrams of that size must not be sent by GSO.
func (r *rawSocket) alone(size int) bool {
	return r.noTrains || r.maxSegment != 0 && size > int(r.maxSegment)
}

// add adds n datagrams in b to what will be sent on u.
func (w *worker) add(u *upstream, b []byte, size, n int) {
	o := &w.out
	if o.join(b, size, n, 0) {
		return
	}
	if o.crowded() {
		w.sendAll(u)
	}
	o.begin(b, size, n, 0, u.raw.alone(size))
}

// send sends one datagram on u.
func (w *worker) send(u *upstream, b []byte) { w.sent(u, b, send(u.raw.fd, b)) }

// sent takes note of how sending b on u went.
func (w *worker) sent(u *upstream, b []byte, e unix.Errno) {
	if e != 0 && networkError(e) {
		// It is of an earlier datagram; this one hasn't been sent yet.
		w.shard.failed(u, e)
		e = send(u.raw.fd, b)
	}
	if e != 0 {
		w.shard.counters.sendErrors.Add(1)
		return
	}
	w.shard.counters.sent.Add(1)
}

// sendAll sends what has been added for u.
func (w *worker) sendAll(u *upstream) {
	o, c := &w.out, &w.shard.counters
	again := true
	for at := 0; at < o.n; {
		n, e := sendAll(u.raw.fd, o.hdr[at:o.n])
		if e == 0 {
			datagrams, trains := o.sum(at, n)
			c.sent.Add(datagrams)
			c.trains.Add(trains)
			at += n
			again = true
			continue
		}
		switch {
		case networkError(e) && again:
			again = false
			w.shard.failed(u, e)
			continue
		case o.count[at] > 1 && trainError(e):
			if e == unix.EIO {
				u.raw.noTrains = true
			} else {
				u.raw.maxSegment = uint16(max(o.size[at]-1, 1))
			}
			for b := range o.datagrams(at) {
				w.send(u, b)
			}
		default:
			c.sendErrors.Add(uint64(o.count[at]))
		}
		at++
		again = true
	}
	o.n, o.iovs = 0, 0
}

// networkError reports whether e says that the network couldn't deliver an earlier
// datagram.
func networkError(e unix.Errno) bool {
	switch e {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENOPROTOOPT, unix.EPROTO,
		unix.EACCES, unix.ENONET, unix.EOPNOTSUPP:
		return true
	}
	return false
}

// trainError reports whether e may mean that a train of datagrams can't be sent as
// one: the device can't make checksums (EIO), or the path takes only smaller
// packets, and GSO never makes fragments (EINVAL, EMSGSIZE).
func trainError(e unix.Errno) bool { return e == unix.EIO || e == unix.EINVAL || e == unix.EMSGSIZE }

// answers carries what there is from u, or does so later together with what there is
// from others: one datagram of each.
func (w *worker) answers(u *upstream, several bool) {
	r := &u.raw
	switch {
	case r.habit.long(w.round):
		w.readUpstream(u, batch)
	case !several || w.ring == nil || w.d.e.GRO:
		w.readUpstream(u, 1)
	default:
		w.ready[w.nready] = u
		if w.nready++; w.nready == batch {
			w.readReady()
		}
	}
}

// readReady carries one answer of each upstream that has some.
func (w *worker) readReady() {
	if w.nready == 0 {
		return
	}
	us := w.ready[:0]
	for _, u := range w.ready[:w.nready] {
		// An answer to one flow may have made another go.
		if w.ups[u.raw.slot] == u {
			us = append(us, u)
		}
	}
	w.nready = 0
	switch {
	case len(us) == 1:
		w.readUpstream(us[0], 1)
	case len(us) > 1:
		w.readTogether(us)
	}
	clear(w.ready[:])
}

// readTogether carries one answer of each of us.
func (w *worker) readTogether(us []*upstream) {
	if w.ring == nil { // it has failed meanwhile
		for _, u := range us {
			if w.ups[u.raw.slot] == u {
				w.readUpstream(u, 1)
			}
		}
		return
	}
	if w.used+len(us) > batch {
		w.flush()
	}
	at := w.used
	for i, u := range us {
		w.res[i] = -1
		w.ring.recv(u.raw.fd, w.tx.at(at+i, maxDatagram), i)
	}
	taken, err := w.ring.submit(len(us))
	for range taken {
		id, n, e, broken := w.ring.next()
		if broken != 0 {
			err = broken
			break
		}
		if e == 0 {
			w.res[id] = int32(n)
		} else if networkError(e) {
			w.shard.failed(us[id], e)
		}
	}
	c := &w.shard.counters
	var packets, bytes uint64
	for i, u := range us {
		if w.res[i] >= 0 && w.ups[u.raw.slot] == u {
			packets++
			bytes += uint64(w.res[i])
			w.fromBackend(u, w.tx.at(at+i, int(w.res[i])))
		}
	}
	w.used = at + len(us) // the loop may have flushed, but not the last ones
	c.backendPackets.Add(packets)
	c.backendBytes.Add(bytes)
	c.batches.Add(1)
	w.judgeRing(err)
}

// readUpstream carries up to most answers from u.
func (w *worker) readUpstream(u *upstream, most int) {
	if w.used > batch-16 {
		w.flush()
	}
	at := w.used
	n, e := recvmmsg(u.raw.fd, w.upHdr[at:min(at+most, batch)])
	u.raw.habit.had(n)
	w.more = w.more || n > 1 && n == most
	if e != 0 {
		if networkError(e) {
			w.shard.failed(u, e)
		}
		return
	}
	w.used += n
	c := &w.shard.counters
	var packets, bytes uint64
	for i := at; i < at+n; i++ {
		h := &w.upHdr[i]
		b := w.tx.at(i, int(h.n))
		size := 0
		if w.d.e.GRO {
			size = parseArrival(w.upCtl[i][:h.Controllen]).segment
			h.SetControllen(rxCtlSize)
		}
		packets += w.datagrams(b, size)
		bytes += uint64(len(b))
		for {
			var d []byte
			d, b = cutOne(b, size)
			w.fromBackend(u, d)
			if len(b) == 0 {
				break
			}
		}
	}
	w.used = at + n // the loop may have flushed, but not the last ones
	c.backendPackets.Add(packets)
	c.backendBytes.Add(bytes)
}

// fromBackend carries one answer.
func (w *worker) fromBackend(u *upstream, b []byte) {
	if w.shard.fromBackend(u, b) {
		w.answer(u.flow, b)
	}
}

// answer has a datagram sent to the client of f.
func (w *worker) answer(f *flow, b []byte) {
	l := w.listeners[f.end.listener]
	o, base := l.out, f.end.raw.size
	if i := o.n - 1; i >= 0 && o.flow[i] == f && o.join(b, len(b), 1, base) {
		return
	}
	if o.crowded() {
		w.reply(l)
	}
	i := o.n
	o.flow[i] = f
	h := &o.hdr[i]
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&f.raw.sa)), f.raw.size
	copy(o.ctl[i][:base], f.end.raw.ctl[:base])
	o.begin(b, len(b), 1, base, l.noTrains || f.raw.maxSegment != 0 && len(b) > int(f.raw.maxSegment))
}

// flush sends all answers that wait.
func (w *worker) flush() {
	if w.used == 0 {
		return
	}
	for _, l := range w.listeners {
		if l.out.n > 0 {
			w.reply(l)
		}
	}
	w.used = 0
}

// reply sends the answers that wait at l. None holds up the others: what the
// network doesn't take is counted and gone.
func (w *worker) reply(l *listener) {
	o, c := l.out, &w.shard.counters
	for at := 0; at < o.n; {
		n, e := sendAll(l.fd, o.hdr[at:o.n])
		if e == 0 {
			datagrams, trains := o.sum(at, n)
			c.replied.Add(datagrams)
			c.trains.Add(trains)
			at += n
			continue
		}
		if o.count[at] > 1 && trainError(e) {
			if e == unix.EIO {
				l.noTrains = true
			} else {
				o.flow[at].raw.maxSegment = uint16(max(o.size[at]-1, 1))
			}
			w.replySingly(l, at)
		} else {
			c.sendErrors.Add(uint64(o.count[at]))
		}
		at++
	}
	clear(o.flow[:o.n])
	o.n, o.iovs = 0, 0
}

// replySingly sends the datagrams of a train one by one.
func (w *worker) replySingly(l *listener, i int) {
	h := l.out.hdr[i].Msghdr
	base := l.out.flow[i].end.raw.size
	var iov unix.Iovec
	h.Iov = &iov
	h.SetIovlen(1)
	h.SetControllen(base)
	for b := range l.out.datagrams(i) {
		iov.Base = unsafe.SliceData(b)
		iov.SetLen(len(b))
		if e := sendmsg(l.fd, &h); e != 0 {
			w.shard.counters.sendErrors.Add(1)
		} else {
			w.shard.counters.replied.Add(1)
		}
	}
}

// open makes the upstream socket of u.
func (w *worker) open(u *upstream, f *flow, local netip.AddrPort) error {
	to := netip.AddrPortFrom(u.member.Addr, w.d.e.port(f.flow.Service))
	err := w.reopen(u, local, to)
	if err == errNoneRested {
		err = w.openNew(u, local, to)
	}
	if err != nil {
		return fmt.Errorf("udp: towards backend %s: %w", u.member.Name, err)
	}
	return nil
}

// openNew makes a new socket for u.
func (w *worker) openNew(u *upstream, local, to netip.AddrPort) error {
	if w.rested.n > 0 && w.shard.sockets+w.rested.n >= w.shard.maxSockets {
		w.discard(w.rested.pop())
	}
	const kind = unix.SOCK_DGRAM | unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	_, family := toSockaddr(to)
	fd, err := unix.Socket(family, kind, 0)
	if err != nil && w.rested.n > 0 {
		w.forgetRested(w.shard.now)
		fd, err = unix.Socket(family, kind, 0)
	}
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	if err = w.connect(fd, family, local, to); err == nil {
		err = w.adopt(u, fd)
	}
	if err != nil {
		return errors.Join(err, unix.Close(fd))
	}
	u.raw.v6, u.raw.again = family == unix.AF_INET6, !local.IsValid()
	return nil
}

func (w *worker) connect(fd, family int, local, to netip.AddrPort) error {
	opts := upstreamOpts4
	if family == unix.AF_INET6 {
		opts = upstreamOpts6
	}
	if err := setAll(fd, opts[:]); err != nil {
		return err
	}
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, upstreamBuffer)
	if local.IsValid() {
		from, fam := toSockaddr(local)
		if fam != family {
			return fmt.Errorf("client %v and backend are of different address families", local)
		}
		if w.d.e.Transparent {
			if err := setAll(fd, transparentOpts(family)); err != nil {
				return err
			}
		}
		if err := unix.Bind(fd, from); err != nil {
			return fmt.Errorf("bind to %v: %w", local, os.NewSyscallError("bind", err))
		}
	}
	return connect(fd, to)
}

var (
	upstreamOpts4 = [...]sockopt{
		{unix.IPPROTO_IP, unix.IP_RECVERR, 1, "IP_RECVERR"},
		{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT, "IP_MTU_DISCOVER"},
	}
	upstreamOpts6 = [...]sockopt{
		{unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1, "IPV6_RECVERR"},
		{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT, "IPV6_MTU_DISCOVER"},
	}
)

func transparentOpts(family int) []sockopt {
	// The flows of a client's port to several of our ports share its address.
	opts := []sockopt{{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"}}
	if family == unix.AF_INET6 {
		return append(opts, sockopt{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT (it needs CAP_NET_ADMIN)"})
	}
	return append(opts, sockopt{unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT (it needs CAP_NET_ADMIN)"})
}

// adopt gives u its socket, and watches it.
func (w *worker) adopt(u *upstream, fd int) error {
	var slot uint32
	if n := len(w.spare); n > 0 {
		slot, w.spare = w.spare[n-1], w.spare[:n-1]
	} else {
		slot = uint32(len(w.ups))
		w.ups, w.gens = append(w.ups, nil), append(w.gens, 0)
	}
	w.gens[slot]++
	if err := w.watch(fd, int32(slot), w.gens[slot]); err != nil {
		w.spare = append(w.spare, slot)
		return err
	}
	w.ups[slot] = u
	u.raw = rawSocket{fd: fd, slot: slot, noTrains: w.d.noTrains}
	if w.d.e.GRO {
		mergeReads(fd)
	}
	return nil
}

// shut closes the socket of u, or lays it aside.
func (w *worker) shut(u *upstream) {
	w.flushUpstream(u)
	if u.raw.restored {
		w.d.disown(u)
		// Another worker may have a duplicate, which would keep it watched.
		_ = unix.EpollCtl(w.ep, unix.EPOLL_CTL_DEL, u.raw.fd, nil)
		u.raw.again = false
	}
	w.ups[u.raw.slot] = nil
	if !u.raw.again || !w.rest(u.raw) {
		w.discard(u.raw)
	}
}

// discard closes a socket.
func (w *worker) discard(r rawSocket) {
	w.ups[r.slot] = nil
	w.gens[r.slot]++ // what is still known of it is of nobody
	w.spare = append(w.spare, r.slot)
	if err := unix.Close(r.fd); err != nil && w.d.e.Logger != nil {
		w.d.e.Logger.Error("closing an upstream", "error", err)
	}
}

func (w *worker) greet(f *flow) {
	l := w.listeners[f.end.listener]
	f.raw = rawPeer{}
	f.raw.sa, f.raw.size = rawAddr(f.flow.Client, f.key.zone, l.v6)
}

// part sends the answers that refer to f, with all others.
func (w *worker) part(*flow) { w.flush() }

func (w *worker) localOf(u *upstream) netip.AddrPort {
	sa, err := unix.Getsockname(u.raw.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return fromSockaddr(sa)
}

// drainErrors reads what the network has reported for a socket, and returns the
// first of it.
func drainErrors(fd int) (first unix.Errno) {
	var oob [512]byte
	for range 64 {
		_, n, _, _, err := unix.Recvmsg(fd, nil, oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		if e := parseError(oob[:n]); first == 0 {
			first = e
		}
	}
	if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && first == 0 {
		first = unix.Errno(e)
	}
	return first
}

// parseError reads the control message that reports an error.
func parseError(b []byte) unix.Errno {
	const head = unix.SizeofCmsghdr
	for len(b) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		size := uint64(h.Len)
		if size < head || size > uint64(len(b)) {
			return 0
		}
		data := b[head:size]
		v4 := h.Level == unix.IPPROTO_IP && h.Type == unix.IP_RECVERR
		v6 := h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_RECVERR
		if (v4 || v6) && len(data) >= 4 {
			return unix.Errno(binary.NativeEndian.Uint32(data)) // ee_errno
		}
		b = b[min(uint64(unix.CmsgSpace(len(data))), uint64(len(b))):]
	}
	return 0
}
