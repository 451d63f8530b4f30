package udp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// echo is a backend on a real socket: it returns what it gets.
type echo struct {
	*net.UDPConn
	mu   sync.Mutex
	seen map[netip.AddrPort]int
}

func newEcho(t *testing.T, addr string) *echo {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	e := &echo{UDPConn: c, seen: make(map[netip.AddrPort]int)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			e.mu.Lock()
			e.seen[from]++
			e.mu.Unlock()
			_, _ = c.WriteToUDPAddrPort(b[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return e
}

func (e *echo) addr() netip.AddrPort {
	a := e.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func (e *echo) peers() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.seen)
}

// serveLoop serves listen in front of backend until the test ends, and returns the
// engine and where it listens.
func serveLoop(t *testing.T, e *udp.Engine, listen string, c udp.ListenConfig, backend netip.AddrPort) netip.AddrPort {
	t.Helper()
	if e.Balancer == nil {
		pool := new(lb.Pool)
		if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.Addr()}); err != nil {
			t.Fatal(err)
		}
		e.Balancer = &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	}
	e.Port = backend.Port()
	conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort(listen), c)
	if err != nil {
		t.Fatal(err)
	}
	at := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, conns...) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; !errors.Is(err, context.Canceled) && !errors.Is(err, udp.ErrClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

func dial(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// roundTrip sends b and wants it back.
func roundTrip(t *testing.T, c *net.UDPConn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	n, err := c.Read(got)
	if err != nil {
		t.Fatalf("%d bytes: %v", len(b), err)
	}
	if !bytes.Equal(got[:n], b) {
		t.Fatalf("sent %d bytes, got %d others back", len(b), n)
	}
}

// await waits until what e counts is as ok says.
func await(t *testing.T, e *udp.Engine, ok func(udp.Stats) bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !ok(e.Stats()); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("stats %+v", e.Stats())
		}
	}
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i*7)
	}
	return b
}

func TestLoopback(t *testing.T) {
	for _, c := range []struct{ name, listen, backend string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.2:0"},
		{"IPv6", "[::1]:0", "[::1]:0"},
		{"IPv4 to IPv6", "127.0.0.1:0", "[::1]:0"},
		{"IPv6 to IPv4", "[::1]:0", "127.0.0.2:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := new(udp.Engine)
			at := serveLoop(t, e, c.listen, udp.ListenConfig{}, newEcho(t, c.backend).addr())
			cl := dial(t, at)
			for _, n := range []int{64, 0, 1, 1400, 2048, 2049, 9000, 60000, 65000, 0, 64} {
				roundTrip(t, cl, pattern(n, byte(n)))
			}
			await(t, e, func(s udp.Stats) bool { return s.Replied == 11 })
			if s := e.Stats(); s.Flows != 1 || s.ClientPackets != 11 || s.SendErrors != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// Answers leave from the address that was sent to, whichever that is.
func TestWildcard(t *testing.T) {
	for _, c := range []struct {
		listen string
		to     []string
	}{
		{"0.0.0.0:0", []string{"127.0.0.1", "127.0.0.5", "127.1.2.3"}},
		{"[::]:0", []string{"::1", "127.0.0.5", "127.0.0.1"}},
	} {
		t.Run(c.listen, func(t *testing.T) {
			e := new(udp.Engine)
			backend := newEcho(t, "127.0.0.2:0")
			at := serveLoop(t, e, c.listen, udp.ListenConfig{}, backend.addr())
			// A connected socket takes no answer from elsewhere.
			for _, a := range c.to {
				cl := dial(t, netip.AddrPortFrom(netip.MustParseAddr(a), at.Port()))
				for _, n := range []int{64, 9000, 0} {
					roundTrip(t, cl, pattern(n, 1))
				}
			}
			// One client socket, two of our addresses: two flows.
			cl, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Close()
			for _, to := range []string{"127.0.0.7", "127.0.0.8", "127.0.0.7"} {
				to := netip.AddrPortFrom(netip.MustParseAddr(to), at.Port())
				if _, err := cl.WriteToUDPAddrPort([]byte("hello"), to); err != nil {
					t.Fatal(err)
				}
				_ = cl.SetReadDeadline(time.Now().Add(30 * time.Second))
				_, from, err := cl.ReadFromUDPAddrPort(make([]byte, 100))
				if err != nil || from != to {
					t.Errorf("answer from %v, %v, want %v", from, err, to)
				}
			}
			if s := e.Stats(); s.Flows != 5 {
				t.Errorf("%d flows, want 5", s.Flows)
			}
		})
	}
}

// A closed port is told to the Trace, and the client gets nothing.
func TestRefused(t *testing.T) {
	for _, addr := range []string{"127.0.0.2:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			backend := newEcho(t, addr)
			at := backend.addr()
			backend.Close()
			errs := make(chan error, 100)
			e := &udp.Engine{Trace: &udp.Trace{Unreachable: func(_ *lb.Member, err error) { errs <- err }}}
			cl := dial(t, serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{}, at))
			for range 20 {
				if _, err := cl.Write([]byte("hello")); err != nil {
					t.Fatal(err)
				}
			}
			if err := <-errs; !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("told %v", err)
			}
			await(t, e, func(s udp.Stats) bool { return s.ClientPackets == 20 && s.Unreachable > 0 })
			if len(errs) != 0 {
				t.Errorf("told %d times more of the same burst", len(errs))
			}
			_ = cl.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if n, err := cl.Read(make([]byte, 10)); err == nil {
				t.Errorf("the client got %d bytes", n)
			}
			// It goes on when the backend comes back, over the same upstream.
			c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := cl.Write([]byte("again")); err != nil {
				t.Fatal(err)
			}
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			b := make([]byte, 10)
			if n, err := c.Read(b); err != nil || string(b[:n]) != "again" {
				t.Errorf("the backend got %q, %v", b[:n], err)
			}
		})
	}
}

// Datagrams of many sizes in trains, in both directions, come out as they went in,
// in order.
func TestTrains(t *testing.T) {
	for _, c := range []struct {
		name   string
		engine *udp.Engine
	}{{"GSO", &udp.Engine{}}, {"no GSO", &udp.Engine{NoGSO: true}}} {
		t.Run(c.name, func(t *testing.T) {
			e := c.engine
			backend := newEcho(t, "127.0.0.2:0")
			at := serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{}, backend.addr())
			cl := dial(t, at)
			roundTrip(t, cl, []byte("first"))
			var sizes []int
			for range 40 {
				sizes = append(sizes, 1200)
			}
			sizes = append(sizes, 600, 600, 600, 30, 1, 0, 0, 5, 1400, 1400, 900, 9000, 9000, 65000, 40000, 40000, 0, 1200)
			for round := range 30 {
				for i, n := range sizes {
					if _, err := cl.Write(pattern(n, byte(i+round))); err != nil {
						t.Fatal(err)
					}
				}
				b := make([]byte, 1<<16)
				for i, n := range sizes {
					got, err := cl.Read(b)
					if err != nil {
						t.Fatalf("round %d, datagram %d: %v; %+v", round, i, err, e.Stats())
					}
					if !bytes.Equal(b[:got], pattern(n, byte(i+round))) {
						t.Fatalf("round %d, datagram %d: got %d bytes, want %d", round, i, got, n)
					}
				}
			}
			// The last answers may be read before they are counted.
			await(t, e, func(s udp.Stats) bool { return s.ClientPackets == s.Replied })
			s := e.Stats()
			if s.SendErrors != 0 {
				t.Errorf("stats %+v", s)
			}
			if c.engine.NoGSO && s.Trains != 0 {
				t.Errorf("%d trains without GSO", s.Trains)
			}
		})
	}
}

// Many clients at once over several workers: each gets its own answers.
func TestManyFlows(t *testing.T) {
	const clients, each = 300, 20
	e := &udp.Engine{Workers: 3}
	backend := newEcho(t, "127.0.0.2:0")
	at := serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{Sockets: 3}, backend.addr())
	var wg sync.WaitGroup
	limit := make(chan struct{}, 30)
	for i := range clients {
		cl := dial(t, at)
		wg.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			b := make([]byte, 2000)
			for j := range each {
				want := pattern(100+j, byte(i))
				if _, err := cl.Write(want); err != nil {
					t.Error(err)
					return
				}
				n, err := cl.Read(b)
				if err != nil || !bytes.Equal(b[:n], want) {
					t.Errorf("client %d, datagram %d: %d bytes, %v", i, j, n, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if s := e.Stats(); s.Flows != clients || backend.peers() != clients {
		t.Errorf("%d flows, the backend saw %d ports; want %d", s.Flows, backend.peers(), clients)
	}
}

// Another engine goes on from the same ports, whichever worker a client's packets
// come to.
func TestRestorePorts(t *testing.T) {
	const clients = 40
	backend := newEcho(t, "127.0.0.2:0")
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
		t.Fatal(err)
	}
	serve := func(e *udp.Engine, at netip.AddrPort) (netip.AddrPort, func()) {
		conns, err := udp.Listen(t.Context(), at, udp.ListenConfig{Sockets: 3})
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- e.Serve(context.Background(), conns...) }()
		return conns[0].LocalAddr().(*net.UDPAddr).AddrPort(), func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = e.Shutdown(ctx)
			if err := <-ended; !errors.Is(err, udp.ErrClosed) {
				t.Errorf("Serve: %v", err)
			}
		}
	}
	engine := func() *udp.Engine {
		return &udp.Engine{
			Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port(), Workers: 3,
		}
	}
	first := engine()
	at, stop := serve(first, netip.MustParseAddrPort("127.0.0.1:0"))
	var cls []*net.UDPConn
	for i := range clients {
		cl := dial(t, at)
		roundTrip(t, cl, pattern(50, byte(i)))
		cls = append(cls, cl)
	}
	stop()
	flows := slices.Collect(first.Flows())
	if len(flows) != clients {
		t.Fatalf("%d flows, want %d", len(flows), clients)
	}
	next := engine()
	next.Restore(flows)
	_, stop = serve(next, at)
	defer stop()
	await(t, next, func(s udp.Stats) bool { return s.Restored == clients })
	// The backend speaks first.
	for _, f := range flows {
		if _, err := backend.WriteToUDPAddrPort([]byte("push"), f.Local); err != nil {
			t.Fatal(err)
		}
	}
	for i, cl := range cls {
		b := make([]byte, 10)
		if n, err := cl.Read(b); err != nil || string(b[:n]) != "push" {
			t.Errorf("client %d got %q, %v", i, b[:n], err)
		}
		roundTrip(t, cl, pattern(60, byte(i)))
		roundTrip(t, cl, pattern(70, byte(i)))
	}
	if n := backend.peers(); n != clients {
		t.Errorf("the backend saw %d ports, want %d", n, clients)
	}
	await(t, next, func(s udp.Stats) bool { return s.Flows == clients && s.Sockets == clients })
}

// realGateway is a gateway of engine_test.go on a real socket.
// TestRestoreImpossible restores flows that no listener can have.
func TestRestoreImpossible(t *testing.T) {
	backend := newEcho(t, "127.0.0.2:0")
	for _, client := range []netip.AddrPort{{}, netip.MustParseAddrPort("[2001:db8::1]:500")} {
		conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		pool := new(lb.Pool)
		if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
			t.Fatal(err)
		}
		e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port()}
		e.Restore([]udp.FlowState{{
			Client: client, Backend: "echo", Listener: conns[0].LocalAddr().(*net.UDPAddr).AddrPort(),
		}})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := e.Serve(ctx, conns...); !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
		if s := e.Stats(); s.Restored != 0 || s.Skipped != 1 {
			t.Errorf("client %v: restored %d, skipped %d", client, s.Restored, s.Skipped)
		}
	}
}

// TestShutdownRestored moves a restored flow to a worker that had none when the
// drain began.
func TestShutdownRestored(t *testing.T) {
	backend := newEcho(t, "127.0.0.2:0")
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
		t.Fatal(err)
	}
	for i := range 10 { // half of the clients come to that worker
		conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{Sockets: 2})
		if err != nil {
			t.Fatal(err)
		}
		at := conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
		cl := dial(t, at)
		e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port(), Workers: 2}
		e.Restore([]udp.FlowState{{Client: cl.LocalAddr().(*net.UDPAddr).AddrPort(), Listener: at, Backend: "echo"}})
		served := make(chan error, 1)
		go func() { served <- e.Serve(context.Background(), conns...) }()
		await(t, e, func(s udp.Stats) bool { return s.Restored == 1 })
		ctx, cancel := context.WithCancel(t.Context())
		ended, waits := make(chan error, 1), make(chan struct{}, 9)
		go func() { ended <- e.Shutdown(doneContext{ctx, waits}) }()
		<-waits
		for range 2 { // each worker has gone once round
			e.Flows()
		}
		roundTrip(t, cl, pattern(50, byte(i)))
		select {
		case err := <-served:
			t.Errorf("round %d: Serve returned %v while a flow lives", i, err)
		case <-time.After(50 * time.Millisecond):
		}
		cancel()
		<-ended
		if t.Failed() {
			return
		}
		<-served
	}
}

// doneContext tells when somebody begins to wait for its end.
type doneContext struct {
	context.Context
	waits chan struct{}
}

func (c doneContext) Done() <-chan struct{} {
	c.waits <- struct{}{}
	return c.Context.Done()
}

// hookContext calls a function when a Serve looks at it first.
type hookContext struct {
	context.Context
	once *sync.Once
	hook func()
}

func (c hookContext) Done() <-chan struct{} {
	c.once.Do(c.hook)
	return c.Context.Done()
}

// TestShutdownAtStart wants the deadline of a Shutdown to count while Serve begins.
func TestShutdownAtStart(t *testing.T) {
	backend := newEcho(t, "127.0.0.2:0")
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
		t.Fatal(err)
	}
	conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port()}
	e.Restore([]udp.FlowState{{
		Client: netip.MustParseAddrPort("127.0.0.9:9"), Backend: "echo",
		Listener: conns[0].LocalAddr().(*net.UDPAddr).AddrPort(),
	}})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	hook := func() {
		go func() { ended <- e.Shutdown(over) }()
		time.Sleep(20 * time.Millisecond)
	}
	served := make(chan error, 1)
	go func() { served <- e.Serve(hookContext{ctx, new(sync.Once), hook}, conns...) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("Shutdown waits though its time is over")
		stop()
	}
	<-served
}

// TestNothingAfterServe wants all that a cancelled Serve began to have ended when
// it returns: a late kick would write to a file that may be another's by then.
func TestNothingAfterServe(t *testing.T) {
	pool := new(lb.Pool)
	for range 300 {
		conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{Sockets: 2})
		if err != nil {
			t.Fatal(err)
		}
		e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Workers: 2}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, conns...) }()
		cancel()
		<-served
		b := make([]byte, 1<<16)
		if b = b[:runtime.Stack(b, true)]; bytes.Contains(b, []byte("udp.(*linux).stopAll")) {
			t.Fatalf("still running:\n%s", b)
		}
	}
}

func realGateway(t *testing.T, name, addr string) (*gateway, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadBuffer(4 << 20)
	g := &gateway{name: name, seen: make(map[uint64]netip.AddrPort)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if a := g.answer(b[:n], from); a != nil {
				_, _ = c.WriteToUDPAddrPort(a, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return g, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// realWorld has three gateways on real sockets.
func realWorld(t *testing.T, e *udp.Engine) (*lb.Pool, map[string]*gateway, netip.AddrPort) {
	t.Helper()
	gateways := make(map[string]*gateway)
	var backends []lb.Backend
	addr := "127.0.0.2:0"
	var at netip.AddrPort
	for i := range 3 {
		name := fmt.Sprintf("gw%d", i)
		gateways[name], at = realGateway(t, name, addr)
		backends = append(backends, lb.Backend{Name: name, Addr: at.Addr()})
		addr = netip.AddrPortFrom(at.Addr().Next(), at.Port()).String()
	}
	pool := new(lb.Pool)
	if err := pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	e.Balancer, e.Classifier = &lb.Balancer{Pool: pool, Table: new(lb.Table)}, toy{}
	return pool, gateways, serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{}, at)
}

// answerFrom sends b and returns which gateway answers.
func answerFrom(t *testing.T, c *net.UDPConn, b []byte) string {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 2000)
	n, err := c.Read(got)
	if err != nil || n < 3 {
		t.Fatalf("%q: answer %q, %v", b, got[:n], err)
	}
	return string(got[n-3 : n])
}

func TestRealAskMoveDown(t *testing.T) {
	e := new(udp.Engine)
	pool, gateways, at := realWorld(t, e)
	gateways["gw2"].knows(42)
	cl := dial(t, at)
	if got := answerFrom(t, cl, datagram('Q', 42)); got != "gw2" {
		t.Fatalf("asked: answered by %q", got)
	}
	await(t, e, func(s udp.Stats) bool { return s.Sockets == 1 && s.Flows == 1 && s.Unanswered == 0 })
	if got := answerFrom(t, cl, datagram('E', 42)); got != "gw2" {
		t.Errorf("data: answered by %q", got)
	}
	if got := answerFrom(t, dial(t, at), datagram('C', 42)); got != "gw2" {
		t.Errorf("from a new port: answered by %q", got)
	}
	if err := pool.Mark("gw2", lb.Down, "test"); err != nil {
		t.Fatal(err)
	}
	if got := answerFrom(t, cl, datagram('N', 43)); got == "gw2" {
		t.Errorf("when gw2 is down: answered by %q", got)
	}
	await(t, e, func(s udp.Stats) bool { return s.Moved == 1 && s.Flows == 2 && s.Sockets == 2 })
}

// Sockets come and go in a flood; an established client notices nothing.
func TestRealFlood(t *testing.T) {
	e := &udp.Engine{MaxUnanswered: 20}
	_, gateways, at := realWorld(t, e)
	cl := dial(t, at)
	first := answerFrom(t, cl, datagram('N', 1))
	up := gateways[first].from(1)
	for _, g := range gateways {
		g.hush(true)
	}
	flood := make([]*net.UDPConn, 50)
	for i := range flood {
		flood[i] = dial(t, at)
	}
	for i := range 2000 {
		if _, err := flood[i%len(flood)].Write(datagram('N', uint64(100+i))); err != nil {
			t.Fatal(err)
		}
	}
	await(t, e, func(s udp.Stats) bool { return s.ClientPackets == 2001 })
	if s := e.Stats(); s.Unanswered > 20 || s.Sockets > 21 || s.Recycled < 1000 {
		t.Errorf("stats %+v", s)
	}
	for _, g := range gateways {
		g.hush(false)
	}
	if got := answerFrom(t, cl, datagram('E', 1)); got != first || gateways[first].from(1) != up {
		t.Errorf("answered by %q over %v, want %q over %v", got, gateways[first].from(1), first, up)
	}
}

// What the kernel drops because nobody reads is counted.
func TestOverflow(t *testing.T) {
	backend := newEcho(t, "127.0.0.2:0")
	conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{Buffer: 4096})
	if err != nil {
		t.Fatal(err)
	}
	cl := dial(t, conns[0].LocalAddr().(*net.UDPAddr).AddrPort())
	for range 100 {
		if _, err := cl.Write(pattern(1000, 1)); err != nil {
			t.Fatal(err)
		}
	}
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
		t.Fatal(err)
	}
	e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port()}
	served := make(chan error, 1)
	go func() { served <- e.Serve(context.Background(), conns...) }()
	// The kernel tells with the first datagram that comes after.
	await(t, e, func(s udp.Stats) bool { return s.ClientPackets > 0 })
	roundTrip(t, cl, pattern(1000, 1))
	await(t, e, func(s udp.Stats) bool { return s.Overflow > 50 && s.Overflow+s.ClientPackets == 101 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, udp.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
	if err := e.Serve(t.Context()); err == nil {
		t.Error("a second Serve: no error")
	}
}

// Without flows there is nothing to wait for.
func TestRealShutdown(t *testing.T) {
	e := &udp.Engine{Workers: 2}
	serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{Sockets: 2}, netip.MustParseAddrPort("127.0.0.2:9"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for range 2 {
		if err := e.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
}

func TestListenTaken(t *testing.T) {
	a := netip.MustParseAddrPort("127.0.0.1:0")
	conns, err := udp.Listen(t.Context(), a, udp.ListenConfig{Sockets: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	a = conns[0].LocalAddr().(*net.UDPAddr).AddrPort()
	if conns[1].LocalAddr().String() != conns[0].LocalAddr().String() {
		t.Errorf("sockets at %v and %v", conns[0].LocalAddr(), conns[1].LocalAddr())
	}
	for _, n := range []int{1, 2} {
		if again, err := udp.Listen(t.Context(), a, udp.ListenConfig{Sockets: n}); err == nil {
			t.Errorf("another %d sockets at %v: no error", n, a)
			for _, c := range again {
				c.Close()
			}
		}
	}
	if _, err := udp.Listen(t.Context(), netip.AddrPort{}, udp.ListenConfig{}); err == nil {
		t.Error("no address: no error")
	}
}

// Nothing is allocated for a packet of an established flow, in either direction.
func TestNoAllocs(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("coverage counts as allocation")
	}
	e := &udp.Engine{Classifier: asESP{}}
	backend := newEcho(t, "127.0.0.2:0")
	at := serveLoop(t, e, "0.0.0.0:0", udp.ListenConfig{}, backend.addr())
	cl := dial(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()))
	b, got := pattern(200, 9), make([]byte, 2000)
	exchange := func() {
		if _, err := cl.Write(b); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Read(got); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 {
		exchange()
	}
	const packets = 2000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range packets {
		exchange()
	}
	runtime.ReadMemStats(&after)
	// The backend, the runtime and the tests' own timers may have some.
	if n := after.Mallocs - before.Mallocs; n > packets/10 {
		t.Errorf("%d allocations for %d packets there and back", n, packets)
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	pool := new(lb.Pool)
	backend, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2)})
	if err != nil {
		b.Fatal(err)
	}
	at := backend.LocalAddr().(*net.UDPAddr).AddrPort()
	if err := pool.Set(lb.Backend{Name: "echo", Addr: at.Addr()}); err != nil {
		b.Fatal(err)
	}
	conns, err := udp.Listen(b.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{})
	if err != nil {
		b.Fatal(err)
	}
	e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Classifier: asESP{}, Port: at.Port()}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Serve(ctx, conns...) })
	wg.Go(func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := backend.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = backend.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	cl, err := net.DialUDP("udp4", nil, conns[0].LocalAddr().(*net.UDPAddr))
	if err != nil {
		b.Fatal(err)
	}
	buf := pattern(200, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := cl.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := cl.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	cl.Close()
	backend.Close()
	wg.Wait()
}

// TestBatches has datagrams of many clients wait for the engine, so that it carries them
// in batches: each must come to the right socket, and its answer to the right client.
func TestBatches(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoIOUring %v", plain), func(t *testing.T) {
			backend := newEcho(t, "127.0.0.2:0")
			pool := new(lb.Pool)
			if err := pool.Set(lb.Backend{Name: "echo", Addr: backend.addr().Addr()}); err != nil {
				t.Fatal(err)
			}
			conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{Buffer: 1 << 20})
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			e := &udp.Engine{
				Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Port: backend.addr().Port(), NoIOUring: plain,
				Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
			}
			const clients, rounds = 100, 20
			var cls []*net.UDPConn
			send := func(round int) {
				for i, cl := range cls {
					if _, err := cl.Write(pattern(20+round, byte(i))); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range clients {
				cls = append(cls, dial(t, conns[0].LocalAddr().(*net.UDPAddr).AddrPort()))
			}
			send(0)
			ctx, cancel := context.WithCancel(t.Context())
			served := make(chan error, 1)
			go func() { served <- e.Serve(ctx, conns...) }()
			b := make([]byte, 100)
			for round := range rounds {
				if round > 0 {
					send(round)
				}
				for i, cl := range cls {
					if n, err := cl.Read(b); err != nil || !bytes.Equal(b[:n], pattern(20+round, byte(i))) {
						t.Fatalf("round %d, client %d: got %x, %v", round, i, b[:n], err)
					}
				}
			}
			cancel()
			<-served
			s := e.Stats()
			if s.Sent != clients*rounds || s.Replied != clients*rounds || s.Sockets != 0 {
				t.Errorf("stats %+v", s)
			}
			switch refused := strings.Contains(log.String(), "without io_uring"); {
			case plain && (s.Batches != 0 || refused):
				t.Errorf("%d batches, log %q", s.Batches, log.String())
			case !plain && refused:
				t.Skip("this machine has no io_uring for us")
			case !plain && s.Batches == 0:
				t.Error("no batches")
			}
		})
	}
}
