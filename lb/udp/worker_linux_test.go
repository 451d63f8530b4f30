package udp

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb"
)

// testWorker is a worker without listeners, whose turns the test takes.
func testWorker(t *testing.T, e *Engine, backends ...*net.UDPConn) (w *worker, members []*lb.Member) {
	t.Helper()
	pool := new(lb.Pool)
	var list []lb.Backend
	for i, c := range backends {
		a := c.LocalAddr().(*net.UDPAddr).AddrPort()
		list = append(list, lb.Backend{Name: string(rune('a' + i)), Addr: a.Addr()})
		e.Port = a.Port()
	}
	if err := pool.Set(list...); err != nil {
		t.Fatal(err)
	}
	e.Balancer = &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	d := &linux{e: e, start: time.Now(), idle: make(map[*worker]bool), orphans: make(map[orphan]keeper)}
	w, err := newWorker(d, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	w.shard.init(e, w, 1, 100)
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	w.openRing()
	t.Cleanup(w.closeRing)
	for i := range backends {
		members = append(members, pool.View().ByName(string(rune('a'+i))))
	}
	return w, members
}

func (w *worker) testUpstream(t *testing.T, m *lb.Member) *upstream {
	t.Helper()
	u := w.shard.open(&flow{end: &endpoint{}}, m, netip.AddrPort{})
	if u == nil {
		t.Fatal("no upstream")
	}
	return u
}

// testTurns lets some time pass, and the worker take a few turns.
func (w *worker) testTurns(t *testing.T, d time.Duration) {
	t.Helper()
	w.d.start = w.d.start.Add(-d)
	for range 3 {
		w.kick()
		if err := w.turn(); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitInput waits until there is something for a socket.
func awaitInput(t *testing.T, fd int) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 10000); n != 1 || err != nil {
		t.Fatalf("nothing arrives: %d, %v", n, err)
	}
}

func localPort(t *testing.T, fd int) netip.AddrPort {
	t.Helper()
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fromSockaddr(sa)
}

func testBackend(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRest wants a socket to serve another flow, and that flow to get nothing that was
// for the one before: neither datagrams nor errors.
func TestRest(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			backend := testBackend(t, addr)
			w, members := testWorker(t, new(Engine), backend)
			old := w.testUpstream(t, members[0])
			fd, port := old.raw.fd, localPort(t, old.raw.fd)
			for range 100 {
				if _, err := backend.WriteToUDPAddrPort([]byte("late"), port); err != nil {
					t.Fatal(err)
				}
			}
			awaitInput(t, fd)
			w.shard.close(old)
			if w.rested.n != 1 {
				t.Fatalf("%d sockets rest, want 1", w.rested.n)
			}

			hasty := w.testUpstream(t, members[0])
			if hasty.raw.fd == fd {
				t.Fatal("a socket is used again at once")
			}
			w.testTurns(t, restFor)
			next := w.testUpstream(t, members[0])
			if next.raw.fd != fd || w.rested.n != 0 {
				t.Fatalf("a new socket though one has rested; %d rest", w.rested.n)
			}
			if e := recvNothing(fd); e != unix.EAGAIN {
				t.Errorf("there is something of the flow before: %v", e)
			}
			if p := localPort(t, fd); p == port {
				t.Logf("the port is %v again", p) // once in some 28,000 times
			}

			w.send(next, []byte("new"))
			b := make([]byte, 10)
			n, from, err := backend.ReadFromUDPAddrPort(b)
			if err != nil || string(b[:n]) != "new" {
				t.Fatalf("the backend got %q, %v", b[:n], err)
			}
			if _, err := backend.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			awaitInput(t, fd)
			if e := drainErrors(fd); e != 0 {
				t.Errorf("an error of the flow before: %v", e)
			}
			if n, e := recvmmsg(fd, w.upHdr[:]); n != 1 || e != 0 || string(w.tx.at(0, int(w.upHdr[0].n))) != "answer" {
				t.Errorf("received %d, %v", n, e)
			}
		})
	}
}

// TestRestError lays a socket aside that has an error to report, of a backend that
// isn't the next flow's.
func TestRestError(t *testing.T) {
	dead := testBackend(t, "127.0.0.1:0")
	alive := testBackend(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), dead.LocalAddr().(*net.UDPAddr).AddrPort().Port()).String())
	w, members := testWorker(t, new(Engine), dead, alive)
	dead.Close()
	u := w.testUpstream(t, members[0])
	fd := u.raw.fd
	w.send(u, []byte("x"))
	awaitInput(t, fd) // the error
	w.shard.close(u)
	w.testTurns(t, restFor)
	if u = w.testUpstream(t, members[1]); u.raw.fd != fd {
		t.Fatal("a new socket though one has rested")
	}
	w.send(u, []byte("y"))
	w.testTurns(t, 0)
	if n := w.shard.counters.unreachable.Load(); n != 0 {
		t.Errorf("%d errors counted of a backend that is there", n)
	}
}

// TestRestEnds wants sockets that nobody needs to be closed: after a second, when
// there are too many, and never to be taken where they don't fit.
func TestRestEnds(t *testing.T) {
	v4 := testBackend(t, "127.0.0.1:0")
	port := v4.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	v6 := testBackend(t, netip.AddrPortFrom(netip.IPv6Loopback(), port).String())
	w, members := testWorker(t, new(Engine), v4, v6)
	var us []*upstream
	for range 90 {
		us = append(us, w.testUpstream(t, members[0]))
	}
	for _, u := range us {
		w.shard.close(u)
	}
	w.testTurns(t, restFor)
	if w.rested.n != 90 {
		t.Fatalf("%d sockets rest, want 90", w.rested.n)
	}
	us = us[:0]
	for range 20 { // of another family
		us = append(us, w.testUpstream(t, members[1]))
	}
	if n := w.rested.n + w.shard.sockets; n != 100 {
		t.Errorf("%d sockets, want 100, which is the limit", n)
	}
	fds := make(map[int]bool)
	for i := range w.rested.n {
		fds[w.rested.list[(w.rested.first+i)%maxRested].fd] = true
	}
	w.testTurns(t, sweepEvery)
	w.testTurns(t, sweepEvery)
	if w.rested.n != 0 {
		t.Errorf("%d sockets still rest", w.rested.n)
	}
	for fd := range fds {
		if _, err := unix.Getsockname(fd); err == nil {
			t.Errorf("file %d is still a socket", fd)
		}
	}
	for _, u := range us {
		w.shard.close(u)
	}

	bound := w.shard.open(&flow{end: &endpoint{}}, members[0], netip.MustParseAddrPort("127.0.0.1:0"))
	if bound == nil {
		t.Fatal("no upstream")
	}
	rests := w.rested.n
	w.shard.close(bound)
	if w.rested.n != rests {
		t.Error("a socket that was bound by us rests")
	}
}

// TestBatchError sends a batch in which one socket has an error to report: that is
// counted, its datagram is sent all the same, and so are the others.
func TestBatchError(t *testing.T) {
	for _, plain := range []bool{false, true} {
		dead := testBackend(t, "127.0.0.1:0")
		alive := testBackend(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), dead.LocalAddr().(*net.UDPAddr).AddrPort().Port()).String())
		w, members := testWorker(t, &Engine{NoIOUring: plain}, dead, alive)
		if w.ring == nil && !plain {
			t.Skip("this machine has no io_uring for us")
		}
		dead.Close()
		bad := w.testUpstream(t, members[0])
		w.send(bad, []byte("x"))
		awaitInput(t, bad.raw.fd) // the error
		const others = maxRuns - 1
		for i := range others + 1 {
			u := bad
			if i != 5 {
				w.shard.maxSockets = 1000
				u = w.testUpstream(t, members[1])
			}
			b := w.rx.at(i%batch, 1)
			b[0] = 'y'
			w.queue(u, b)
		}
		w.flushUpstreams()
		c := &w.shard.counters
		if sent, errs, bad := c.sent.Load(), c.sendErrors.Load(), c.unreachable.Load(); sent != others+2 || errs != 0 || bad != 1 {
			t.Errorf("io_uring %v: %d sent, %d not; %d unreachable", !plain, sent, errs, bad)
		}
		if n := c.batches.Load(); (n == 1) == plain {
			t.Errorf("io_uring %v: %d batches", !plain, n)
		}
		b := make([]byte, 10)
		for range others {
			if _, _, err := alive.ReadFromUDPAddrPort(b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A worker sleeps while new clients come one after the other, and only then.
func TestLulls(t *testing.T) {
	var l lulls
	var now time.Duration
	for i, c := range []struct {
		after     time.Duration
		strangers uint64
		want      bool
	}{
		{0, 0, false},                           // nobody has come
		{time.Hour, 1, false},                   // the first
		{100 * time.Microsecond, 2, true},       // another, right after
		{lull + 50*time.Microsecond, 15, true},  // some, while it slept
		{lull + 50*time.Microsecond, 15, false}, // none, though others' datagrams came
		{lull, 16, false},                       // one a while after the last
		{2 * lull, 17, false},                   // and so on
		{2*lull - time.Microsecond, 18, true},   // but now
		{time.Second, 18, false}, {time.Second, 19, false},
	} {
		now += c.after
		if got := l.due(now, c.strangers); got != c.want {
			t.Errorf("%d: after %v, of %d: %v, want %v", i, c.after, c.strangers, got, c.want)
		}
	}
}

// A worker that is to be calm sleeps after the second of two new clients, unless there is
// more to receive.
func TestCalm(t *testing.T) {
	backend := testBackend(t, "127.0.0.1:0")
	w, _ := testWorker(t, &Engine{Calm: true}, backend)
	conn := testBackend(t, "127.0.0.1:0")
	at := conn.LocalAddr().(*net.UDPAddr)
	l, err := newListener(conn, w.d.e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(l.fd) })
	if err := w.addListener(l); err != nil {
		t.Fatal(err)
	}
	newcomers := func(n int) (took time.Duration) {
		for range n {
			c := testBackend(t, "127.0.0.1:0")
			if _, err := c.WriteTo([]byte("hello"), at); err != nil {
				t.Fatal(err)
			}
		}
		awaitInput(t, l.fd)
		start := time.Now()
		if err := w.turn(); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	slept := false
	for i := 0; i < 50 && !slept; i++ { // the machine may be slow in between
		slept = newcomers(1) >= lull
	}
	if !slept {
		t.Error("it didn't sleep")
	}
	newcomers(batch + 10)
	l.habit.many = true // it has seen some at once
	newcomers(batch)
	if !w.more {
		t.Error("a full batch, and nothing more is expected")
	}
	for w.more {
		newcomers(1)
	}
}
