package udp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// toy is a protocol for tests. A datagram is a kind, an 8-byte number and
// anything:
//
//	'N' starts client number n        answers: 'h' half-open, 'e' established,
//	'C' continues client number n              's' proves nothing, 'x' to be hidden
//	'E' is data of the flow, with n as its weaker name
//	'Q' continues n; if unknown, all backends are to be asked
//	'R' is request number b[9] of user n, on a flow that users share
//
// Everything else is dropped.
type toy struct{}

const (
	toyNumber = lb.SpaceProtocol + 200
	toyData   = toyNumber + 1
	toyUser   = toyNumber + 2
)

func (toy) Classify(b []byte, f lb.Flow) lb.Verdict {
	if len(b) < 9 {
		return lb.Verdict{Drop: true, Reason: "short"}
	}
	n := binary.BigEndian.Uint64(b[1:])
	flow, number := lb.FlowKey(f), lb.Uint64Key(toyNumber, n)
	switch b[0] {
	case 'N':
		return lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{number, flow}}
	case 'C':
		return lb.Verdict{Miss: lb.MissDrop, Keys: [lb.MaxKeys]lb.Key{number, flow}}
	case 'Q':
		return lb.Verdict{Miss: lb.MissAsk, Keys: [lb.MaxKeys]lb.Key{number, flow}}
	case 'E':
		return lb.Verdict{Miss: lb.MissDrop, Keys: [lb.MaxKeys]lb.Key{flow, lb.Uint64Key(toyData, n)}}
	case 'R':
		return lb.Verdict{Exchange: uint16(b[9]) + 1, Keys: [lb.MaxKeys]lb.Key{lb.Uint64Key(toyUser, n)}}
	}
	return lb.Verdict{Drop: true, Reason: "unknown kind"}
}

func (toy) Answer(b []byte, _ lb.Flow) lb.Verdict {
	if len(b) == 0 {
		return lb.Verdict{}
	}
	switch b[0] {
	case 'h':
		return lb.Verdict{Stage: lb.StageHalfOpen}
	case 'e':
		return lb.Verdict{Stage: lb.StageEstablished}
	case 'r':
		return lb.Verdict{Stage: lb.StageEstablished, Exchange: uint16(b[9]) + 1}
	case 'x':
		return lb.Verdict{Drop: true, Reason: "hidden"}
	}
	return lb.Verdict{}
}

func datagram(kind byte, n uint64, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{kind}, n), rest...)
}

// world is an engine on a network in memory, with gateways.
type world struct {
	t        *testing.T
	net      *memory
	pool     *lb.Pool
	balancer *lb.Balancer
	engine   *udp.Engine
	gateways map[string]*gateway
	served   chan error
	cancel   context.CancelFunc
	wg       sync.WaitGroup
}

const service = "192.0.2.1:4500"

// newWorld makes gateways gw0, gw1, … and, unless tests set more, an engine that
// isn't serving yet.
func newWorld(t *testing.T, gateways int) *world {
	w := &world{
		t: t, net: newMemory(), pool: new(lb.Pool), gateways: make(map[string]*gateway),
		served: make(chan error, 1),
	}
	w.balancer = &lb.Balancer{Pool: w.pool, Table: new(lb.Table)}
	w.engine = &udp.Engine{Balancer: w.balancer, Classifier: toy{}, Dial: w.net.dial}
	var backends []lb.Backend
	for i := range gateways {
		name, addr := fmt.Sprintf("gw%d", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		backends = append(backends, lb.Backend{Name: name, Addr: addr})
		w.gateways[name] = w.newGateway(name, netip.AddrPortFrom(addr, 4500))
	}
	if err := w.pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) serve() *world {
	ctx, cancel := context.WithCancel(w.t.Context())
	w.cancel = cancel
	l := w.net.listen(service)
	w.wg.Go(func() { w.served <- w.engine.Serve(ctx, l) })
	return w
}

// stop ends everything and checks that nothing is left.
func (w *world) stop(clients ...*client) {
	w.t.Helper()
	w.cancel()
	for _, c := range clients {
		c.Close()
	}
	for _, g := range w.gateways {
		g.Close()
	}
	w.wg.Wait()
	if err := <-w.served; !errors.Is(err, context.Canceled) && !errors.Is(err, udp.ErrClosed) {
		w.t.Errorf("Serve: %v", err)
	}
	if n := w.net.open(); n != 0 {
		w.t.Errorf("%d sockets left open", n)
	}
}

// gateway answers datagrams of the clients that began with it.
type gateway struct {
	*memSocket
	name  string
	mu    sync.Mutex
	seen  map[uint64]netip.AddrPort // number → from where last
	got   int
	mute  bool
	takes time.Duration // for an answer
}

func (w *world) newGateway(name string, at netip.AddrPort) *gateway {
	s, err := w.net.bind(at, netip.AddrPort{})
	if err != nil {
		w.t.Fatal(err)
	}
	g := &gateway{memSocket: s, name: name, seen: make(map[uint64]netip.AddrPort)}
	w.wg.Go(g.run)
	return g
}

func (g *gateway) run() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := g.recv(b)
		if err != nil {
			return
		}
		if a := g.answer(b[:n], from); a != nil {
			time.Sleep(g.thinks())
			_ = g.send(a, from)
		}
	}
}

// answer returns what the gateway says to b: 'N' with an odd first byte after the
// number is only half-open, continuing ones are answered if it knows the number.
func (g *gateway) answer(b []byte, from netip.AddrPort) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.got++
	if len(b) < 9 || g.mute {
		return nil
	}
	n := binary.BigEndian.Uint64(b[1:])
	_, known := g.seen[n]
	reply := append([]byte{'e'}, b[1:]...)
	switch b[0] {
	case 'N':
		if len(b) > 9 {
			reply[0] = b[9] // as asked for
		}
	case 'R':
		reply[0] = 'r'
	case 'C', 'E', 'Q':
		if !known {
			return nil
		}
	}
	g.seen[n] = from
	return append(reply, g.name...)
}

// hush has the gateway receive and not answer, or answer again.
func (g *gateway) hush(mute bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mute = mute
}

// think has the gateway take that long for each answer.
func (g *gateway) think(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.takes = d
}

func (g *gateway) thinks() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.takes
}

// knows has the gateway know a client that it has never heard of.
func (g *gateway) knows(n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[n] = netip.AddrPort{}
}

func (g *gateway) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.got
}

func (g *gateway) from(n uint64) netip.AddrPort {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.seen[n]
}

type client struct {
	*memSocket
	w    *world
	kind byte // of the answer that came last
}

func (w *world) client(addr string) *client { return &client{memSocket: w.net.listen(addr), w: w} }

// ask sends b and returns the name of the gateway that answers, or "" if none does
// within a second.
func (c *client) ask(b []byte) string {
	c.w.t.Helper()
	c.tell(b)
	return c.next()
}

// tell sends b.
func (c *client) tell(b []byte) {
	c.w.t.Helper()
	if err := c.send(b, netip.MustParseAddrPort(service)); err != nil {
		c.w.t.Fatal(err)
	}
}

// data sends ESP of the client n and returns the name of the gateway that answers
// that, whatever else comes before: "" if none does within a second.
func (c *client) data(n uint64) string {
	c.w.t.Helper()
	for got := c.ask(datagram('E', n)); ; got = c.next() {
		if got == "" || c.kind == 'e' {
			return got
		}
	}
}

func (c *client) next() string {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case p := <-c.in:
		if p.from.String() != service {
			c.w.t.Errorf("answer from %v, want %v", p.from, service)
		}
		c.kind = p.b[0]
		if len(p.b) < 3 {
			return string(p.b)
		}
		return string(p.b[len(p.b)-3:])
	case <-timer.C:
		return ""
	}
}

func TestFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2).serve()
		c := w.client("198.51.100.1:1000")
		first := c.ask(datagram('N', 7))
		if first == "" {
			t.Fatal("no answer")
		}
		for _, kind := range []byte{'C', 'E', 'E', 'N'} {
			if got := c.ask(datagram(kind, 7)); got != first {
				t.Errorf("%c: answered by %q, want %q", kind, got, first)
			}
		}
		w.stop(c)
	})
}
