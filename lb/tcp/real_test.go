package tcp_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
)

// loopback returns a listener on a free port of 127.0.0.1.
func loopback(t testing.TB) *net.TCPListener {
	t.Helper()
	l, err := (&tcp.ListenConfig{}).Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// balancer returns one for a single backend at 127.0.0.1.
func balancer(t testing.TB) *lb.Balancer {
	t.Helper()
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "b1", Addr: netip.MustParseAddr("127.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	return &lb.Balancer{Pool: pool, Table: new(lb.Table)}
}

// port returns the port of a listener.
func port(l net.Listener) uint16 { return l.Addr().(*net.TCPAddr).AddrPort().Port() }

// serve runs e until the test ends, and returns where.
func serve(t testing.TB, e *tcp.Engine) *net.TCPAddr {
	t.Helper()
	l := loopback(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, tcp.ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return l.Addr().(*net.TCPAddr)
}

// pair returns both ends of a stream through e, client first.
func pair(t testing.TB, e *tcp.Engine) (client, backend *net.TCPConn) {
	t.Helper()
	bl := loopback(t)
	t.Cleanup(func() { bl.Close() })
	e.Port = port(bl)
	client, err := net.DialTCP("tcp", nil, serve(t, e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	bl.SetDeadline(time.Now().Add(10 * time.Second))
	c, err := bl.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for _, c := range []net.Conn{client, c} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return client, c.(*net.TCPConn)
}

func send(t testing.TB, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func want(t testing.TB, c net.Conn, s string) {
	t.Helper()
	b := make([]byte, len(s))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != s {
		t.Fatalf("read %q, %v; want %q", b, err, s)
	}
}

func wantEnd(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

func TestHalfClose(t *testing.T) {
	for _, first := range []string{"client", "backend"} {
		t.Run(first, func(t *testing.T) {
			closed := make(chan tcp.Summary, 1)
			e := &tcp.Engine{Balancer: balancer(t), Trace: &tcp.Trace{Closed: func(s tcp.Summary) { closed <- s }}}
			a, b := pair(t, e)
			if first == "backend" {
				a, b = b, a
			}
			send(t, a, "last words")
			a.CloseWrite()
			want(t, b, "last words")
			wantEnd(t, b)
			send(t, b, "answer, after the end of the other direction")
			want(t, a, "answer, after the end of the other direction")
			b.CloseWrite()
			wantEnd(t, a)
			s := <-closed
			if s.End != tcp.EndDone || s.First.String() != first || s.Sent+s.Received != 54 || s.Err != nil {
				t.Errorf("summary %+v", s)
			}
			if st := e.Stats(); st.Spliced != 54 && spliceable {
				t.Errorf("%d of 54 bytes stayed in the kernel", st.Spliced)
			}
		})
	}
}

func TestRealReset(t *testing.T) {
	for _, first := range []string{"client", "backend"} {
		t.Run(first, func(t *testing.T) {
			closed := make(chan tcp.Summary, 1)
			e := &tcp.Engine{Balancer: balancer(t), Trace: &tcp.Trace{Closed: func(s tcp.Summary) { closed <- s }}}
			a, b := pair(t, e)
			if first == "backend" {
				a, b = b, a
			}
			alive(t, a, b)
			a.SetLinger(0)
			a.Close()
			wantReset(t, b)
			if s := <-closed; s.End != tcp.EndReset || s.First.String() != first || !errors.Is(s.Err, syscall.ECONNRESET) {
				t.Errorf("summary %+v", s)
			}
		})
	}
}

// TestRealResetWhileBlocked resets a stream whose receiver takes nothing.
func TestRealResetWhileBlocked(t *testing.T) {
	closed := make(chan tcp.Summary, 1)
	e := &tcp.Engine{Balancer: balancer(t), Trace: &tcp.Trace{Closed: func(s tcp.Summary) { closed <- s }}}
	client, backend := pair(t, e)
	wrote := make(chan error, 1)
	go func() {
		b := make([]byte, 1<<20)
		for {
			if _, err := backend.Write(b); err != nil {
				wrote <- err
				return
			}
		}
	}()
	for last := uint64(1); ; { // until nothing moves any more
		now := e.Stats().Received
		if now == last {
			break
		}
		last = now
		want(t, client, "\x00")
		client.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		client.Read(make([]byte, 16))
		client.SetReadDeadline(time.Now().Add(20 * time.Second))
	}
	client.SetLinger(0)
	client.Close()
	if err := <-wrote; !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("the backend's write ended with %v", err)
	}
	if s := <-closed; s.End != tcp.EndReset || s.First != tcp.SideClient {
		t.Errorf("summary %+v", s)
	}
}

// TestRealBytes sends random bytes both ways at once, in pieces of all sizes, and
// compares what arrives.
func TestRealBytes(t *testing.T) {
	e := &tcp.Engine{Balancer: balancer(t)}
	client, backend := pair(t, e)
	const total = 32 << 20
	sum := func(r io.Reader) [32]byte {
		h := sha256.New()
		if n, err := io.Copy(h, r); n != total || err != nil {
			t.Errorf("%d of %d bytes, %v", n, total, err)
		}
		return [32]byte(h.Sum(nil))
	}
	source := func(seed byte) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{seed}), total) }
	var all sync.WaitGroup
	for seed, way := range [][2]*net.TCPConn{{client, backend}, {backend, client}} {
		all.Go(func() {
			r, b, sizes := source(byte(seed)), make([]byte, 1<<18), rand.New(rand.NewPCG(1, uint64(seed)))
			for {
				n, err := r.Read(b[:1+sizes.IntN(1<<uint(sizes.IntN(18)))])
				if _, err := way[0].Write(b[:n]); err != nil {
					t.Error(err)
				}
				if err != nil {
					break
				}
			}
			way[0].CloseWrite()
		})
		all.Go(func() {
			if got, want := sum(way[1]), sum(source(byte(seed))); got != want {
				t.Errorf("way %d: the bytes differ", seed)
			}
		})
	}
	all.Wait()
	if s := e.Stats(); s.Sent != total || s.Received != total || spliceable && s.Spliced != 2*total {
		t.Errorf("stats %+v", s)
	}
}

// TestRealRefused has nothing listen at the backend.
func TestRealRefused(t *testing.T) {
	l := loopback(t)
	told := make(chan error, 1)
	e := &tcp.Engine{Balancer: balancer(t), Port: port(l), Trace: &tcp.Trace{
		Unreachable: func(_ *lb.Member, _ netip.AddrPort, err error) { told <- err },
	}}
	l.Close()
	c, err := net.DialTCP("tcp", nil, serve(t, e))
	switch {
	case err == nil:
		defer c.Close()
		wantReset(t, c)
	case !errors.Is(err, syscall.ECONNRESET): // it can be that quick
		t.Fatal(err)
	}
	if err := <-told; !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the trace heard %v", err)
	}
}

// TestNoAllocs checks that bytes of an open stream cost no memory.
func TestNoAllocs(t *testing.T) {
	client, backend := pair(t, &tcp.Engine{Balancer: balancer(t)})
	out, in := []byte("hello, gateway"), make([]byte, 64)
	trip := func(from, to net.Conn) {
		if _, err := from.Write(out); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Read(in); err != nil {
			t.Fatal(err)
		}
	}
	n := testing.AllocsPerRun(500, func() {
		trip(client, backend)
		trip(backend, client)
	})
	if n != 0 {
		t.Errorf("%v allocations for a message each way", n)
	}
}

// BenchmarkStream opens a stream through the engine, sends a byte each way and
// closes it. The client and the backend are counted too.
func BenchmarkStream(b *testing.B) {
	for _, sniffer := range []lb.Sniffer{nil, lb.ByAddr{}} {
		b.Run(fmt.Sprintf("%T", sniffer), func(b *testing.B) {
			back := loopback(b)
			defer back.Close()
			addr := serve(b, &tcp.Engine{Balancer: balancer(b), Port: port(back), Sniffer: sniffer})
			one := make([]byte, 1)
			b.ReportAllocs()
			for b.Loop() {
				c, err1 := net.DialTCP("tcp", nil, addr)
				s, err2 := back.Accept()
				if err := errors.Join(err1, err2); err != nil {
					b.Fatal(err)
				}
				for _, way := range [][2]net.Conn{{c, s}, {s, c}} {
					way[0].Write(one)
					if _, err := way[1].Read(one); err != nil {
						b.Fatal(err)
					}
				}
				c.SetLinger(0) // or ports run out
				c.Close()
				s.Close()
			}
		})
	}
}

// BenchmarkTrip is a byte there and back on an open stream.
func BenchmarkTrip(b *testing.B) {
	client, backend := pair(b, &tcp.Engine{Balancer: balancer(b)})
	client.SetDeadline(time.Time{})
	backend.SetDeadline(time.Time{})
	one := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		for _, way := range [][2]net.Conn{{client, backend}, {backend, client}} {
			way[0].Write(one)
			if _, err := way[1].Read(one); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// TestRealDrain drains a backend with a live stream, and then loses it.
func TestRealDrain(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8 to be local")
	}
	pool := new(lb.Pool)
	err := pool.Set(
		lb.Backend{Name: "127.0.0.1", Addr: netip.MustParseAddr("127.0.0.1")},
		lb.Backend{Name: "127.0.0.2", Addr: netip.MustParseAddr("127.0.0.2")},
	)
	if err != nil {
		t.Fatal(err)
	}
	back, err := (&tcp.ListenConfig{}).Listen(t.Context(), netip.MustParseAddrPort("0.0.0.0:0"))
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	e := &tcp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: port(back)}
	addr := serve(t, e)
	open := func() (client, backend *net.TCPConn, at string) {
		c, err1 := net.DialTCP("tcp", nil, addr)
		s, err2 := back.Accept()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		for _, c := range []net.Conn{c, s} {
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(20 * time.Second))
		}
		return c, s.(*net.TCPConn), s.LocalAddr().(*net.TCPAddr).IP.String()
	}
	client, backend, home := open()
	pool.Drain(home, time.Time{})
	for range 8 {
		_, _, at := open()
		if at == home {
			t.Fatalf("a new stream went to %s, which drains", at)
		}
	}
	alive(t, client, backend)
	start := time.Now()
	pool.Mark(home, lb.Down, "test")
	wantReset(t, client)
	wantReset(t, backend)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %v to cut the stream", took)
	}
}
