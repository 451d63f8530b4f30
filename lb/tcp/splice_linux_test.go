package tcp_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb/tcp"
)

const spliceable = true

// descriptors returns how many file descriptors this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	return len(d)
}

// TestIdleHoldsNoPipe checks that a silent stream costs its two sockets only.
func TestIdleHoldsNoPipe(t *testing.T) {
	e := &tcp.Engine{Balancer: balancer(t)}
	back := loopback(t)
	defer back.Close()
	e.Port = port(back)
	addr := serve(t, e)
	const n = 100
	before := descriptors(t)
	for range n {
		c, err := net.DialTCP("tcp", nil, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := back.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		alive(t, c, s)
	}
	// Each stream has four sockets here, since both peers are us. The pipes are
	// those that were in use at one moment: a few.
	if got := descriptors(t) - before; got > 4*n+20 {
		t.Errorf("%d silent streams hold %d descriptors", n, got)
	}
}

// TestNothingLeft checks that an engine gives all descriptors back, whichever way
// its streams ended.
func TestNothingLeft(t *testing.T) {
	back := loopback(t)
	defer back.Close()
	net.Dial("tcp", "127.0.0.1:1") // what the runtime opens once is open now
	before := descriptors(t)
	e := &tcp.Engine{Balancer: balancer(t), Port: port(back)}
	l := loopback(t)
	served := make(chan error, 1)
	go func() { served <- e.Serve(context.Background(), l) }()
	var open []net.Conn
	for i := range 60 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := back.Accept()
		if err != nil {
			t.Fatal(err)
		}
		alive(t, c, s)
		ends := []net.Conn{c, s}
		if i%2 == 1 {
			ends[0], ends[1] = s, c
		}
		if i%3 == 0 {
			ends[0].(*net.TCPConn).SetLinger(0)
		}
		if i%5 > 0 { // the others are left to Shutdown
			ends[0].Close()
			ends[1].Close()
		} else {
			open = append(open, c, s)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
	runtime.KeepAlive(open) // or collecting them would close them before Shutdown
	if err := <-served; !errors.Is(err, tcp.ErrClosed) {
		t.Errorf("Serve returned %v", err)
	}
	runtime.GC() // closes the peers that are still open
	for deadline := time.Now().Add(30 * time.Second); descriptors(t) > before; {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
		runtime.GC()
	}
}

// TestNoPipes takes all descriptors away from a stream: its bytes are then copied.
func TestNoPipes(t *testing.T) {
	e := &tcp.Engine{Balancer: balancer(t)}
	client, backend := pair(t, e)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	less := was
	less.Cur = 0 // what is open stays open
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &less); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	for range 100 { // until the pipes that were made before are used up
		e.ClosePipes()
		alive(t, client, backend)
		if s := e.Stats(); s.Sent+s.Received > s.Spliced {
			return
		}
	}
	t.Errorf("stats %+v: everything is spliced, by what?", e.Stats())
}

// TestStalled has a client that takes nothing for longer than UserTimeout.
func TestStalled(t *testing.T) {
	e := &tcp.Engine{Balancer: balancer(t), UserTimeout: 200 * time.Millisecond}
	_, backend := pair(t, e)
	b := make([]byte, 1<<20)
	start := time.Now()
	for {
		if _, err := backend.Write(b); err != nil {
			break
		}
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v to notice", took)
	} else {
		t.Logf("noticed after %v", took)
	}
}

// BenchmarkIdleStreams says what a silent stream takes of Go's memory.
func BenchmarkIdleStreams(b *testing.B) {
	const n = 1000
	back := loopback(b)
	defer back.Close()
	addr := serve(b, &tcp.Engine{Balancer: balancer(b), Port: port(back)})
	var conns []net.Conn
	memory := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	for b.Loop() {
		before := memory()
		for range n {
			c, err1 := net.DialTCP("tcp", nil, addr)
			s, err2 := back.Accept()
			if err := errors.Join(err1, err2); err != nil {
				b.Fatal(err)
			}
			conns = append(conns, c, s)
			alive(b, c, s)
		}
		b.ReportMetric((memory()-before)/n, "B/stream")
		for _, c := range conns {
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		conns = nil
	}
}
