package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb"
)

// linux is the driver for real sockets; see worker_linux.go.
type linux struct {
	e       *Engine
	start   time.Time
	workers []*worker
	conns   []net.PacketConn
	// noTrains: datagrams are sent one by one. It doesn't change while workers run.
	noTrains bool

	mu      sync.Mutex // below
	closed  bool
	last    []FlowState
	idle    map[*worker]bool // drained
	orphans map[orphan]keeper
	waiting atomic.Int64 // len(orphans)
}

// orphan names a flow that was restored. The kernel decides which worker's socket
// its client's next packet comes to; until that has come, one worker keeps it,
// and then the right one takes it over.
type orphan struct{ client, listener netip.AddrPort }

// keeper is who keeps an orphan.
type keeper struct {
	w   *worker
	key flowKey
	up  *upstream
}

// reserve is how many open files are left to the rest of the process.
const reserve = 256

// fileLimit returns how many upstreams the limit of open files leaves room for.
func fileLimit() int {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil {
		return DefaultMaxFlows
	}
	return int(min(r.Cur, 1<<30)) - reserve
}

func (e *Engine) newDriver(conns []net.PacketConn) (driver, error) {
	files := max(fileLimit(), 16)
	limit := e.MaxFlows
	if limit <= 0 {
		limit = min(DefaultMaxFlows, files/2)
	}
	limit = min(limit, files)
	for _, c := range conns {
		if _, ok := c.(*net.UDPConn); !ok || e.Dial != nil {
			if e.Transparent && e.Dial == nil {
				return nil, fmt.Errorf("udp: transparent mode needs UDP sockets, not %T", c)
			}
			return newPortable(e, conns, limit)
		}
	}
	return newLinux(e, conns, limit)
}

func newLinux(e *Engine, conns []net.PacketConn, limit int) (driver, error) {
	d := &linux{
		e: e, start: time.Now(), conns: conns, idle: make(map[*worker]bool),
		orphans: make(map[orphan]keeper),
	}
	if err := growFiles(limit + reserve); err != nil {
		return nil, err
	}
	n := e.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	n = min(n, len(conns))
	err := d.addWorkers(n, limit)
	if err == nil {
		err = d.addListeners()
	}
	if err != nil {
		return nil, errors.Join(err, d.closeWorkers())
	}
	return d, nil
}

// growFiles enlarges the process's table of open files to n; see worker_linux.go.
func growFiles(n int) error {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, n-1)
	if err == nil {
		err = unix.Close(high)
	} else {
		err = nil // a matter of speed only
	}
	return errors.Join(err, unix.Close(fd))
}

func (d *linux) addWorkers(n, limit int) error {
	for i := range n {
		w, err := newWorker(d, i)
		d.workers = append(d.workers, w)
		if err != nil {
			return fmt.Errorf("udp: worker: %w", err)
		}
		w.shard.init(d.e, w, n, limit)
	}
	return nil
}

// addListeners hands the sockets to the workers: in turn, so that those that share
// an address go to different ones.
func (d *linux) addListeners() error {
	for i, c := range d.conns {
		l, err := newListener(c.(*net.UDPConn), d.e)
		if err != nil {
			return err
		}
		d.noTrains = d.noTrains || l.noTrains
		w := d.workers[i%len(d.workers)]
		if err := w.addListener(l); err != nil {
			return errors.Join(err, unix.Close(l.fd))
		}
	}
	return nil
}

// newListener takes the socket of c out of the Go runtime's poller.
func newListener(c *net.UDPConn, e *Engine) (*listener, error) {
	addr, err := addrPort(c.LocalAddr())
	if err != nil {
		return nil, err
	}
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("udp: socket %v: %w", addr, err)
	}
	l := &listener{addr: addr, wildcard: addr.Addr().IsUnspecified(), noTrains: e.NoGSO, fd: -1, unasked: true}
	l.plain = !l.wildcard && !e.GRO
	ctlErr := rc.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		if sa, err = unix.Getsockname(int(fd)); err != nil {
			return
		}
		_, l.v6 = sa.(*unix.SockaddrInet6)
		l.noTrains = l.noTrains || !knowsTrains(int(fd))
		if l.wildcard {
			// Sockets that were given to us may not have it set.
			if err = wantAddress(int(fd), l.v6); err != nil {
				return
			}
		}
		if e.GRO {
			mergeReads(int(fd))
		}
		l.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(ctlErr, err); err != nil {
		return nil, fmt.Errorf("udp: socket %v: %w", addr, err)
	}
	if err := c.Close(); err != nil {
		return nil, errors.Join(fmt.Errorf("udp: socket %v: %w", addr, err), unix.Close(l.fd))
	}
	return l, nil
}

func wantAddress(fd int, v6 bool) error {
	if v6 {
		return setAll(fd, []sockopt{{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"}})
	}
	return setAll(fd, []sockopt{{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"}})
}

func (d *linux) serve(ctx context.Context) error {
	d.resume()
	errs := make([]error, len(d.workers))
	var wg sync.WaitGroup
	for i, w := range d.workers {
		wg.Go(func() {
			errs[i] = w.run()
			d.stopAll() // one that failed ends all
		})
	}
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		d.stopAll()
		close(stopped)
	})
	wg.Wait()
	if !unhook() {
		<-stopped // it must not kick a worker whose files are closed
	}
	return errors.Join(errors.Join(errs...), d.close())
}

func (d *linux) stopAll() {
	for _, w := range d.workers {
		w.stop()
	}
}

// close ends all flows. The workers have returned.
func (d *linux) close() error {
	var last []FlowState
	for _, w := range d.workers {
		w.receiveInbox()
		w.countLosses()
		w.shard.now = time.Since(d.start)
		last = w.shard.states(last, w.localOf)
	}
	d.mu.Lock()
	d.closed, d.last = true, last
	d.mu.Unlock()
	for _, w := range d.workers {
		w.receiveInbox() // whoever still asked
		w.shard.closing = true
		for _, l := range []*flowList{&w.shard.unanswered, &w.shard.half, &w.shard.full} {
			for l.tail != nil {
				w.shard.remove(l.tail)
			}
		}
	}
	return d.closeWorkers()
}

func (d *linux) closeWorkers() error {
	var errs []error
	for _, w := range d.workers {
		for _, l := range w.listeners {
			errs = append(errs, unix.Close(l.fd))
		}
		errs = append(errs, w.close())
	}
	return errors.Join(errs...)
}

func (d *linux) drain() {
	for _, w := range d.workers {
		d.do(w, func() { w.shard.draining = true })
	}
}

// do has f called by w, and reports whether it will be.
func (d *linux) do(w *worker, f func()) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	w.do(f)
	return true
}

// drained notes that w has no flows left. When none has, serve returns; until
// then w keeps its sockets, or the kernel would give its clients to the others.
func (d *linux) drained(w *worker) {
	d.mu.Lock()
	d.idle[w] = true
	all := len(d.idle) == len(d.workers)
	d.mu.Unlock()
	if all {
		d.stopAll()
	}
}

func (d *linux) flows() []FlowState {
	var list []FlowState
	for _, w := range d.workers {
		got := make(chan []FlowState, 1)
		if !d.do(w, func() { got <- w.shard.states(nil, w.localOf) }) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.last
		}
		list = append(list, <-got...)
	}
	return list
}

func (d *linux) stats() Stats {
	var s Stats
	for _, w := range d.workers {
		w.shard.counters.addTo(&s)
	}
	return s
}

// resume continues what Restore was given, spread over the workers.
func (d *linux) resume() {
	for i, st := range d.e.takeRestore() {
		err := errNoListener
		for j := range d.workers {
			w := d.workers[(i+j)%len(d.workers)]
			if end := w.endpointFor(st.Listener); end != nil {
				err = w.resume(st, end)
				break
			}
		}
		d.e.resumed(st, err)
	}
}

// endpointFor returns the endpoint of an address of ours, or nil.
func (w *worker) endpointFor(a netip.AddrPort) *endpoint {
	for _, l := range w.listeners {
		if l.addr.Port() != a.Port() || l.v6 && !l.wildcard != a.Addr().Is6() {
			continue
		}
		if !l.wildcard && l.addr == a {
			return l.end
		}
		if l.wildcard && (l.v6 || a.Addr().Is4()) {
			w.arrived(l, arrival{addr: a.Addr().As16(), ifindex: zoneID(a.Addr().Zone()), to: true})
			return l.end
		}
	}
	return nil
}

func (w *worker) resume(st FlowState, end *endpoint) error {
	if err := w.shard.resume(st, end); err != nil {
		return err
	}
	if len(w.d.workers) > 1 {
		k := keyOf(st.Client, end.id)
		u := w.shard.table.find(&k).up
		u.raw.restored = true
		w.d.mu.Lock()
		w.d.orphans[orphan{st.Client, st.Listener}] = keeper{w, k, u}
		w.d.waiting.Add(1)
		w.d.mu.Unlock()
	}
	return nil
}

// disown forgets that u may be taken over by another worker.
func (d *linux) disown(u *upstream) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o := orphan{u.flow.flow.Client, u.flow.end.addr}
	if d.orphans[o].up == u {
		delete(d.orphans, o)
		d.waiting.Add(-1)
	}
}

// inherit takes over the flow of fl from the worker that restored it, and reports
// whether there was one.
func (w *worker) inherit(k flowKey, fl lb.Flow, end *endpoint) bool {
	d := w.d
	if d.waiting.Load() == 0 {
		return false
	}
	d.mu.Lock()
	o := orphan{fl.Client, end.addr}
	old, ok := d.orphans[o]
	if !ok {
		d.mu.Unlock()
		return false
	}
	delete(d.orphans, o)
	d.waiting.Add(-1)
	delete(d.idle, w) // it has a flow again
	// Its keeper closes it only after taking it out of orphans.
	fd, err := unix.FcntlInt(uintptr(old.up.raw.fd), unix.F_DUPFD_CLOEXEC, 0)
	d.mu.Unlock()
	d.do(old.w, func() {
		if f := old.w.shard.table.find(&old.key); f != nil && f.up == old.up {
			old.w.shard.remove(f)
		}
	})
	if err != nil {
		return false
	}
	m := old.up.member
	f := w.shard.add(&k, fl, end, lb.StageEstablished)
	u := &upstream{flow: f, member: m}
	if err := w.adopt(u, fd); err != nil {
		w.shard.remove(f)
		_ = unix.Close(fd)
		return false
	}
	w.shard.countSocket(1)
	f.up, f.member, f.why, f.recorded = u, m, lb.WhyRestored, true
	w.shard.count()
	return true
}
