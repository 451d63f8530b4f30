package udp_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

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
