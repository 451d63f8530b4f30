package builtin

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests serve on loopback: gateways are at 127.0.9.1 and up, clients at
// 127.0.8.1 and up. A gateway answers each datagram, and each line of a stream,
// with its name and the address and port it sees.

// world is what a test has besides the driver.
type world struct {
	t    *testing.T
	port uint16 // of the gateways
	lb   uint16 // of the listeners
}

func newWorld(t *testing.T, gateways int) *world {
	w := &world{t: t, port: freePort(t), lb: freePort(t)}
	for i := 1; i <= gateways; i++ {
		w.gateway(i)
	}
	return w
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Skip("no sockets:", err)
	}
	return port
}

func gatewayAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 9, byte(i)}) }

func (w *world) gateway(i int) {
	w.t.Helper()
	at := netip.AddrPortFrom(gatewayAddr(i), w.port).String()
	u, err := net.ListenPacket("udp", at)
	if err != nil {
		w.t.Skip("loopback has but one address here:", err)
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	w.t.Cleanup(func() { u.Close(); l.Close(); wg.Wait() })
	wg.Go(func() {
		b := make([]byte, 2048)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			fmt.Fprintf(writerTo{u, from}, "gw%d %v", i, from)
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				for r := bufio.NewScanner(c); r.Scan(); {
					fmt.Fprintf(c, "gw%d %v\n", i, c.RemoteAddr())
				}
			})
		}
	})
}

type writerTo struct {
	c  net.PacketConn
	to net.Addr
}

func (w writerTo) Write(b []byte) (int, error) { return w.c.WriteTo(b, w.to) }

// deployment has n gateways, and a UDP and a TCP listener in one group.
func (w *world) deployment(n int) *plugins.Deployment {
	p := plugins.Pool{Name: "ras"}
	for i := 1; i <= n; i++ {
		p.Backends = append(p.Backends, plugins.Backend{Name: fmt.Sprintf("gw%d", i), Address: gatewayAddr(i)})
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.lb)
	return &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq", Pools: []plugins.Pool{p},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{
			{Name: "u", Protocol: plugins.ProtocolUDP, Address: at, BackendPort: int(w.port), Workers: 1},
			{Name: "t", Protocol: plugins.ProtocolTCP, Address: at, BackendPort: int(w.port)},
		}}},
	}}}
}

// client is a UDP client at 127.0.8.i.
type client struct {
	t *testing.T
	*net.UDPConn
}

func (w *world) client(i int) *client {
	w.t.Helper()
	from := &net.UDPAddr{IP: net.IPv4(127, 0, 8, byte(i))}
	c, err := net.DialUDP("udp", from, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(w.lb)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &client{w.t, c}
}

// try asks once, and returns the answer, or "" if none comes.
func (c *client) try() string {
	c.t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		return ""
	}
	c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	b := make([]byte, 2048)
	n, err := c.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

// ask is try, but there must be an answer: "gw1 127.0.0.1:4711".
func (c *client) ask() string {
	c.t.Helper()
	for range 6 {
		if a := c.try(); a != "" {
			return a
		}
	}
	c.t.Fatal("no answer")
	return ""
}

func gatewayOf(answer string) string { name, _, _ := strings.Cut(answer, " "); return name }

// stream is a TCP client.
type stream struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (w *world) stream(i int) *stream {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 8, byte(i))}, Timeout: 2 * time.Second}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.lb))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return &stream{w.t, c, bufio.NewReader(c)}
}

func (s *stream) ask() string {
	s.t.Helper()
	fmt.Fprintln(s, "hello")
	s.SetReadDeadline(time.Now().Add(30 * time.Second))
	a, err := s.r.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(a)
}

// start returns a driver that serves dep.
func start(t *testing.T, d *Driver, dep *plugins.Deployment) *Driver {
	t.Helper()
	apply(t, d, dep)
	t.Cleanup(func() { stop(t, d) })
	return d
}

func stop(t *testing.T, d *Driver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	if err := d.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// apply returns the changes made.
func apply(t *testing.T, d *Driver, dep *plugins.Deployment) []plugins.Change {
	t.Helper()
	p, err := d.Plan(t.Context(), dep)
	if err != nil {
		t.Fatal(err)
	}
	var seen []plugins.Change
	if err := d.Apply(t.Context(), p, func(p plugins.Progress) { seen = append(seen, p.Change) }); err != nil {
		t.Fatal(err)
	}
	return p.Changes
}

func stats(t *testing.T, d *Driver) *plugins.Stats {
	t.Helper()
	s, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Clients are spread, stay, and are counted; the ports of a group agree.
func TestServe(t *testing.T) {
	w := newWorld(t, 2)
	d := start(t, new(Driver), w.deployment(2))
	seen := make(map[string]int)
	for i := 1; i <= 16; i++ {
		c := w.client(i)
		first := c.ask()
		if again := c.ask(); again != first {
			t.Errorf("client %d: %s, then %s", i, first, again)
		}
		if s := w.stream(i).ask(); gatewayOf(s) != gatewayOf(first) {
			t.Errorf("client %d: UDP at %s, TCP at %s", i, first, s)
		}
		seen[gatewayOf(first)]++
	}
	if len(seen) != 2 {
		t.Errorf("all at one gateway: %v", seen)
	}
	s := stats(t, d)
	if n := *s.Groups[0].Clients; n != 16 {
		t.Errorf("%d clients, want 16", n)
	}
	for _, b := range s.Pools[0].Backends {
		if *b.Clients != seen[b.Name] || b.State != "up" || b.Share != 0.5 {
			t.Errorf("%+v, want %d clients", b, seen[b.Name])
		}
	}
	for _, l := range s.Listeners {
		if l.State != "open" || *l.Total != 16 || l.In.Bytes == 0 || l.Out.Bytes == 0 {
			t.Errorf("%+v", l)
		}
	}
}

// What changes in the pool, and what a listener is called, costs no client its
// socket; what makes a listener be replaced costs it nothing either.
func TestReloadKeepsFlows(t *testing.T) {
	w := newWorld(t, 3)
	d := start(t, new(Driver), w.deployment(2))
	c, s := w.client(1), w.stream(1)
	first, firstStream := c.ask(), s.ask()
	steps := []struct {
		name     string
		change   func(*plugins.Site)
		replaced bool
	}{
		{"nothing", func(*plugins.Site) {}, false},
		{"backend added", func(s *plugins.Site) { s.Pools[0].Backends = w.deployment(3).Sites[0].Pools[0].Backends }, false},
		// From here on only the table leads to the client's gateway.
		{"weights", func(s *plugins.Site) {
			for i := range s.Pools[0].Backends {
				if b := &s.Pools[0].Backends[i]; b.Name == gatewayOf(first) {
					b.Weight = new(0)
				}
			}
		}, false},
		{"picker", func(s *plugins.Site) { s.Pools[0].Picker = plugins.PickLeastClients }, false},
		{"failback", func(s *plugins.Site) {
			s.Pools[0].Failback, s.Pools[0].SlowStart = plugins.FailbackManual, plugins.Duration(time.Minute)
		}, false},
		{"checks", func(s *plugins.Site) {
			s.Pools[0].Checks = []plugins.Check{{Type: plugins.CheckTCP, Port: int(w.port)}}
		}, false},
		{"no checks", func(s *plugins.Site) { s.Pools[0].Checks = nil }, false},
		{"names", func(s *plugins.Site) { s.Groups[0].Listeners[0].Name = "renamed" }, false},
		{"idle", func(s *plugins.Site) { s.Groups[0].Idle = plugins.Duration(time.Hour) }, true},
		{"limits", func(s *plugins.Site) { s.Groups[0].Limits.MaxPerSource = 9 }, true},
		{"group renamed", func(s *plugins.Site) { s.Groups[0].Name = "other" }, true},
		{"pool renamed", func(s *plugins.Site) { s.Pools[0].Name, s.Groups[0].Pool = "other", "other" }, true},
		{"listener", func(s *plugins.Site) { s.Groups[0].Listeners[1].IdleTimeout = plugins.Duration(time.Hour) }, false},
		{"workers", func(s *plugins.Site) { s.Groups[0].Listeners[0].Workers = 2 }, true},
	}
	dep := w.deployment(2)
	engine := d.Listeners()[0].UDP
	for _, step := range steps {
		dep = dep.Clone()
		step.change(&dep.Sites[0])
		apply(t, d, dep)
		if got := c.ask(); got != first {
			t.Errorf("%s: was %s, is %s", step.name, first, got)
		}
		if got := s.ask(); got != firstStream {
			t.Errorf("%s: stream was %s, is %s", step.name, firstStream, got)
		}
		if got := w.client(1).ask(); gatewayOf(got) != gatewayOf(first) {
			t.Errorf("%s: a new flow of the client went to %s, not %s", step.name, got, first)
		}
		if got := w.stream(1).ask(); gatewayOf(got) != gatewayOf(first) {
			t.Errorf("%s: a new stream of the client went to %s, not %s", step.name, got, first)
		}
		if now := d.Listeners()[0].UDP; (now != engine) != step.replaced {
			t.Errorf("%s: engine replaced: %v, want %v", step.name, now != engine, step.replaced)
		} else {
			engine = now
		}
	}
	if changes := apply(t, d, dep); len(changes) != 0 {
		t.Errorf("the second time: %v", changes)
	}
}

// An Apply that can't be done changes nothing.
func TestApplyFailsWhole(t *testing.T) {
	w := newWorld(t, 2)
	d := start(t, new(Driver), w.deployment(2))
	c := w.client(1)
	first := c.ask()
	before, _ := d.Read(t.Context())

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := w.deployment(1)
	busy.Sites[0].Groups[0].Idle = plugins.Duration(time.Hour)
	busy.Sites[0].Groups[0].Listeners = append(busy.Sites[0].Groups[0].Listeners,
		plugins.Listener{Name: "free", Protocol: plugins.ProtocolUDP, Address: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))},
		plugins.Listener{Name: "busy", Protocol: plugins.ProtocolTCP, Address: taken.Addr().(*net.TCPAddr).AddrPort()})
	secret := w.deployment(1)
	secret.Sites[0].Pools[0].Checks = []plugins.Check{{Type: plugins.CheckRADIUS, SecretFile: filepath.Join(t.TempDir(), "none")}}
	invalid := w.deployment(1)
	invalid.Sites[0].Pools[0].Picker = "x"

	for _, tt := range []struct {
		dep  *plugins.Deployment
		path string
	}{
		{busy, "sites[0].groups[0].listeners[3].address"},
		{secret, "sites[0].pools[0].checks[0].secret_file"},
		{invalid, "sites[0].pools[0].picker"},
	} {
		err := d.Apply(t.Context(), &plugins.Plan{Deployment: tt.dep}, nil)
		if err == nil || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("error %v doesn't name %s", err, tt.path)
		}
		if after, _ := d.Read(t.Context()); after.Revision != before.Revision {
			t.Errorf("%s: another revision", tt.path)
		}
		if got := c.ask(); got != first {
			t.Errorf("%s: was %s, is %s", tt.path, first, got)
		}
	}
	if free, err := net.ListenPacket("udp", busy.Sites[0].Groups[0].Listeners[2].Address.String()); err != nil {
		t.Errorf("a socket was left open: %v", err)
	} else {
		free.Close()
	}
	if err := d.Apply(t.Context(), &plugins.Plan{Deployment: w.deployment(1), Base: "other"}, nil); !errors.Is(err, plugins.ErrStale) {
		t.Errorf("a stale plan: %v", err)
	}
}

// A restart loses nobody: neither where clients are nor what gateways see.
func TestRestart(t *testing.T) {
	w := newWorld(t, 2)
	dir := t.TempDir()
	d := start(t, &Driver{StateDir: dir}, w.deployment(2))
	var clients []*client
	var first []string
	for i := 1; i <= 8; i++ {
		c := w.client(i)
		clients, first = append(clients, c), append(first, c.ask())
	}
	if err := d.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.ParseBackendRef("gw2")}); err != nil {
		t.Fatal(err)
	}
	stop(t, d)

	d = start(t, &Driver{StateDir: dir}, w.deployment(2))
	for i, c := range clients {
		if got := c.ask(); got != first[i] {
			t.Errorf("client %d: was %s, is %s", i+1, first[i], got)
		}
	}
	if s := stats(t, d); s.Pools[0].Backends[1].State != "draining" {
		t.Errorf("the drain is forgotten: %+v", s.Pools[0].Backends[1])
	}
	for i := 101; i <= 116; i++ {
		if got := w.client(i).ask(); gatewayOf(got) != "gw1" {
			t.Errorf("a new client went to %s, which is drained", got)
		}
	}
}

// Damaged state is set aside, and does no harm.
func TestDamagedState(t *testing.T) {
	w := newWorld(t, 1)
	dir := t.TempDir()
	d := start(t, &Driver{StateDir: dir}, w.deployment(1))
	w.client(1).ask()
	stop(t, d)
	files, err := filepath.Glob(filepath.Join(dir, "hq", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("state files: %v, %v", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v", f, info.Mode())
		}
		if err := os.WriteFile(f, b[:len(b)/2], 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = start(t, &Driver{StateDir: dir}, w.deployment(1))
	w.client(1).ask()
	for _, f := range files {
		if _, err := os.Stat(f + ".damaged"); err != nil {
			t.Error(err)
		}
	}
	stop(t, d)
}

func TestDrain(t *testing.T) {
	w := newWorld(t, 2)
	d := start(t, new(Driver), w.deployment(2))
	bound := make(map[string]*client) // one at each gateway
	for i := 1; len(bound) < 2; i++ {
		c := w.client(i)
		bound[gatewayOf(c.ask())] = c
	}
	ctx := t.Context()
	ref := plugins.BackendRef{Pool: "ras", Backend: "gw1"}
	if err := d.Drain(ctx, plugins.DrainRequest{BackendRef: ref}); err != nil {
		t.Fatal(err)
	}
	if got := bound["gw1"].ask(); gatewayOf(got) != "gw1" {
		t.Errorf("draining: its client went to %s", got)
	}
	for i := 101; i <= 110; i++ {
		if got := w.client(i).ask(); gatewayOf(got) != "gw2" {
			t.Errorf("draining: a new client went to %s", got)
		}
	}
	apply(t, d, w.deployment(2))
	if s := stats(t, d); s.Pools[0].Backends[0].State != "draining" {
		t.Error("an Apply ended the drain")
	}
	past := time.Now().Add(-time.Second)
	if err := d.Drain(ctx, plugins.DrainRequest{BackendRef: ref, Deadline: past}); err != nil {
		t.Fatal(err)
	}
	if got := bound["gw1"].ask(); gatewayOf(got) != "gw2" {
		t.Errorf("the deadline has passed: the client is still at %s", got)
	}
	if err := d.Undrain(ctx, ref); err != nil {
		t.Fatal(err)
	}
	if s := stats(t, d); s.Pools[0].Backends[0].State != "up" {
		t.Errorf("undrained: %+v", s.Pools[0].Backends[0])
	}
	if err := d.Undrain(ctx, ref); err == nil {
		t.Error("undrained twice")
	}
	if err := d.Drain(ctx, plugins.DrainRequest{BackendRef: plugins.ParseBackendRef("gw9")}); !errors.Is(err, plugins.ErrNotFound) {
		t.Errorf("gw9: %v", err)
	}
}

// What the deployment says of a backend, it says in place of Undrain.
func TestAdmin(t *testing.T) {
	w := newWorld(t, 2)
	dep := w.deployment(2)
	dep.Sites[0].Pools[0].Backends[0].Admin = plugins.AdminDisabled
	d := start(t, new(Driver), dep)
	for i := 1; i <= 8; i++ {
		if got := w.client(i).ask(); gatewayOf(got) != "gw2" {
			t.Errorf("a client went to %s, which is disabled", got)
		}
	}
	if err := d.Undrain(t.Context(), plugins.ParseBackendRef("gw1")); err == nil || !strings.Contains(err.Error(), "deployment says so") {
		t.Errorf("undrain: %v", err)
	}
	dep = dep.Clone()
	dep.Sites[0].Pools[0].Backends[0].Admin = ""
	apply(t, d, dep)
	if s := stats(t, d); s.Pools[0].Backends[0].State != "up" {
		t.Errorf("enabled again: %+v", s.Pools[0].Backends[0])
	}
}

// A removed listener keeps its clients for a while, and gives them to one that
// comes back at its address.
func TestRemovedListener(t *testing.T) {
	w := newWorld(t, 1)
	d := start(t, &Driver{Linger: time.Minute}, w.deployment(1))
	c, s := w.client(1), w.stream(1)
	first, firstStream := c.ask(), s.ask()

	other := w.deployment(1)
	other.Sites[0].Groups[0].Listeners = other.Sites[0].Groups[0].Listeners[:1]
	other.Sites[0].Groups[0].Listeners[0].Address = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	apply(t, d, other)
	if got := c.ask(); got != first {
		t.Errorf("its client: was %s, is %s", first, got)
	}
	if got := s.ask(); got != firstStream {
		t.Errorf("its stream: was %s, is %s", firstStream, got)
	}
	if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.lb)); err == nil {
		conn.Close()
		t.Error("new connections are still accepted")
	}
	// An engine of UDP is told while Apply returns: soon, not at once.
	for i := 2; w.client(i).try() != ""; i++ {
		if i == 50 {
			t.Fatal("new clients are still served")
		}
	}
	states := make(map[string]int)
	for _, l := range stats(t, d).Listeners {
		states[l.State]++
	}
	if states["open"] != 1 || states["draining"] != 2 {
		t.Errorf("listeners: %v", states)
	}
	apply(t, d, w.deployment(1))
	if got := c.ask(); got != first {
		t.Errorf("back again: was %s, is %s", first, got)
	}
	if got := s.ask(); got != firstStream {
		t.Errorf("back again: stream was %s, is %s", firstStream, got)
	}
	w.client(100).ask()
	w.stream(100).ask()
}

// Once Apply has returned, new connections are served as it says, by nobody else: what
// served before, with other certificates maybe, accepts no more.
func TestOnlyTheNewAccepts(t *testing.T) {
	w := newWorld(t, 1)
	dep := w.deployment(1)
	dep.Sites[0].Groups[0].Listeners = dep.Sites[0].Groups[0].Listeners[1:]
	d := start(t, new(Driver), dep)
	w.stream(1).ask()
	for i := range 20 {
		old := d.current().listeners[0]
		before := old.tcp.Stats().Accepted
		dep = dep.Clone()
		dep.Sites[0].Groups[0].Listeners[0].IdleTimeout = plugins.Duration(time.Hour + time.Duration(i)*time.Second)
		apply(t, d, dep)
		w.stream(2).ask()
		if n := old.tcp.Stats().Accepted - before; d.current().listeners[0] == old || n > 0 {
			t.Errorf("change %d: what served before took %d connections", i, n)
		}
	}
	none := w.deployment(1)
	none.Sites[0].Groups[0].Listeners = none.Sites[0].Groups[0].Listeners[:1]
	for i := range 5 {
		apply(t, d, none)
		if conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.lb)); err == nil {
			conn.Close()
			t.Errorf("removal %d: a connection was accepted", i)
		}
		apply(t, d, dep)
	}
}

// slowly is a listener whose Close takes its time, and says when it is through.
type slowly struct {
	net.Listener
	closed atomic.Bool
}

func (s *slowly) Close() error {
	<-time.After(50 * time.Millisecond)
	err := s.Listener.Close()
	s.closed.Store(true)
	return err
}

// A listener that makes way for another is closed before that one is opened, however
// long it takes.
func TestLingerAcceptsNoMore(t *testing.T) {
	w := newWorld(t, 1)
	dep := w.deployment(1)
	d := start(t, new(Driver), dep)
	conn, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	slow := &slowly{Listener: conn}
	l := d.newListener(&dep.Sites[0].Groups[0].Listeners[1], d.current().groups[0], nil)
	l.front, l.cancel = new(front), func() {}
	l.doors = []*door{newDoor(slow)}
	go func() {
		defer close(l.done)
		if err := l.tcp.Serve(t.Context(), l.doors[0]); !errors.Is(err, tcp.ErrClosed) {
			t.Error(err)
		}
	}()
	d.linger(l)
	if !slow.closed.Load() {
		t.Error("it accepts still")
	}
	<-l.done
}

// A listener whose address was taken while its sockets were opened anew has none: it can
// be removed all the same.
func TestRemovedWithoutSockets(t *testing.T) {
	w := newWorld(t, 1)
	dep := w.deployment(1)
	d := start(t, new(Driver), dep)
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	spec := dep.Clone().Sites[0].Groups[0].Listeners[0]
	spec.Name, spec.Address = "late", taken.LocalAddr().(*net.UDPAddr).AddrPort()
	l := d.newListener(&spec, d.current().groups[0], nil)
	d.reopen(&staged{reopen: []*listener{l}})
	if l.front != nil || l.failed() == nil {
		t.Fatalf("its sockets could be opened: %v", l.failed())
	}
	d.linger(l) // what it leaves to do is waited for when d ends
}

// Sockets that were opened for the process are used.
func TestInherited(t *testing.T) {
	w := newWorld(t, 1)
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.lb)
	conns, err := udp.Listen(t.Context(), at, udp.ListenConfig{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, c := range []interface{ File() (*os.File, error) }{conns[0].(*net.UDPConn), l.(*net.TCPListener)} {
		f, err := c.File()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	conns[0].Close()
	l.Close()
	dep := w.deployment(1)
	dep.Sites[0].Groups[0].Listeners[0].Workers = 0
	d := start(t, &Driver{Inherited: files}, dep)
	c := w.client(1)
	first := c.ask()
	w.stream(1).ask()
	dep = dep.Clone()
	dep.Sites[0].Groups[0].Idle = plugins.Duration(time.Hour)
	apply(t, d, dep)
	if got := c.ask(); got != first {
		t.Errorf("was %s, is %s", first, got)
	}
	w.stream(1).ask()
}

func TestWatch(t *testing.T) {
	w := newWorld(t, 1)
	d := start(t, new(Driver), w.deployment(1))
	ctx, cancel := context.WithCancel(t.Context())
	events := make(chan plugins.Event, 100)
	done := make(chan error, 1)
	go func() { done <- d.Watch(ctx, func(e plugins.Event) { events <- e }) }()
	// Watch begins some time after it is called: drain until it is heard of.
	for {
		if err := d.Drain(ctx, plugins.DrainRequest{BackendRef: plugins.ParseBackendRef("gw1")}); err != nil {
			t.Fatal(err)
		}
		select {
		case e := <-events:
			if e.Name != "ras/gw1" {
				t.Errorf("%+v", e)
			}
		case <-time.After(20 * time.Millisecond):
			continue
		}
		break
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A watcher that is too slow is told how much it missed.
func TestWatchMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h hub
		ctx, cancel := context.WithCancel(t.Context())
		block := make(chan struct{})
		var missed, got int
		done := make(chan error, 1)
		go func() {
			done <- h.watch(ctx, func(e plugins.Event) {
				missed += e.Missed
				got++
				<-block
			})
		}()
		synctest.Wait()
		const sent = waiting + 51 // one is in hand while others wait
		for range sent {
			h.send(plugins.SeverityInfo, "k", "n", "more")
			synctest.Wait()
		}
		close(block)
		synctest.Wait()
		h.send(plugins.SeverityInfo, "k", "n", "last")
		synctest.Wait()
		cancel()
		<-done
		if missed != 50 || got != sent-50+1 {
			t.Errorf("missed %d and got %d of %d, want 50 missed", missed, got, sent+1)
		}
	})
}

// The checks bring a backend down and up again, and its clients move.
func TestChecks(t *testing.T) {
	w := newWorld(t, 1) // gw2 isn't there
	dep := w.deployment(2)
	dep.Sites[0].Pools[0].Checks = []plugins.Check{{Type: plugins.CheckTCP, Port: int(w.port), Interval: plugins.Duration(time.Second), Rise: 1, Fall: 1}}
	d := start(t, new(Driver), dep)
	wait(t, d, "down")
	for i := 1; i <= 8; i++ {
		if got := w.client(i).ask(); gatewayOf(got) != "gw1" {
			t.Errorf("client %d: %s", i, got)
		}
	}
	b := stats(t, d).Pools[0].Backends[1]
	if len(b.Checks) != 1 || b.Checks[0].Passing || !strings.Contains(b.Cause, "refused") {
		t.Errorf("%+v", b)
	}
	w.gateway(2)
	wait(t, d, "up")
}

// wait returns when gw2 is in that state.
func wait(t *testing.T, d *Driver, state string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		changed := d.current().pools[0].lb.Changed()
		if stats(t, d).Pools[0].Backends[1].State == state {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("gw2 isn't %s", state)
		}
	}
}

// A secret that changes has the checks made anew, though no field differs.
func TestSecretChanges(t *testing.T) {
	w := newWorld(t, 1)
	file := filepath.Join(t.TempDir(), "secret")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	dep := w.deployment(1)
	dep.Sites[0].Pools[0].Checks = []plugins.Check{{Type: plugins.CheckRADIUS, SecretFile: file}}
	d := start(t, new(Driver), dep)
	first := d.current().pools[0].monitor
	apply(t, d, dep)
	if d.current().pools[0].monitor != first {
		t.Error("the same secret made new checks")
	}
	write("two")
	apply(t, d, dep)
	if d.current().pools[0].monitor == first {
		t.Error("a new secret didn't make new checks")
	}
}

func TestExplain(t *testing.T) {
	w := newWorld(t, 2)
	d := start(t, new(Driver), w.deployment(2))
	c := w.client(5)
	gw := gatewayOf(c.ask())
	for _, query := range []string{"127.0.8.5"} {
		list, err := d.Explain(query)
		if err != nil || len(list) == 0 {
			t.Fatal(err, list)
		}
		e := list[0]
		if !e.Known || e.Backend != gw || e.Client.Backend != gw || e.Client.Stage != "established" {
			t.Errorf("%s: %+v, %+v; want %s", query, e, e.Client, gw)
		}
	}
	list, err := d.Explain("127.0.8.77")
	if err != nil || len(list) == 0 || list[0].Known || list[0].Backend == "" {
		t.Fatal(err, list)
	}
	if got := gatewayOf(w.client(77).ask()); got != list[0].Backend {
		t.Errorf("it was said to go to %s, and went to %s", list[0].Backend, got)
	}
	if _, err := d.Explain(""); err == nil {
		t.Error("nobody was explained")
	}
}

// A NAS sends a name and a station, and only both together find the user.
func TestExplainUsers(t *testing.T) {
	sent := func(name, station string) lb.Key {
		v := radius.Classifier{}.Classify(accessRequest(name, station), lb.Flow{Service: 1812})
		return v.Keys[2]
	}
	for _, tt := range []struct {
		client, name, station string
		part                  bool
	}{
		{"alice", "alice", "", true},
		{"203.0.113.7", "", "203.0.113.7", true},
		{"alice 203.0.113.7", "alice", "203.0.113.7", false},
		{`CORP\Alice Doe 203.0.113.7`, `CORP\Alice Doe`, "203.0.113.7", false},
	} {
		found := false
		for _, q := range users(tt.client, 1812) {
			found = found || q.v.Keys[0] == sent(tt.name, tt.station) && q.part == tt.part
		}
		if !found {
			t.Errorf("%q doesn't find the user %q at %q", tt.client, tt.name, tt.station)
		}
	}
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "nps1", Addr: netip.MustParseAddr("127.0.3.31")}); err != nil {
		t.Fatal(err)
	}
	g := &group{name: "nps", balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}}
	for client, want := range map[string]string{"alice": "", "alice 203.0.113.7": "nps1"} {
		list := g.explain(client, map[plugins.Protocol]uint16{plugins.ProtocolRADIUS: 1812})
		if len(list) != 1 || list[0].Known || list[0].Backend != want {
			t.Errorf("%q: %+v, want the backend %q", client, list, want)
		}
	}
}

func TestConfigure(t *testing.T) {
	d := new(Driver)
	ctx := t.Context()
	if err := d.Configure(ctx, plugins.Config{Settings: []byte(`{"x":1}`)}); err == nil || !strings.Contains(err.Error(), "settings.x") {
		t.Error(err)
	}
	if err := d.Configure(ctx, plugins.Config{Settings: []byte(`7`)}); err == nil {
		t.Error("7 is a setting")
	}
	w := newWorld(t, 1)
	dep := w.deployment(1)
	dep.Sites = append(dep.Sites, dep.Sites[0])
	dep.Sites[1].Name = "branch"
	p, err := d.Plan(ctx, dep)
	if err != nil || !plugins.HasError(p.Diagnostics) || p.Changes != nil {
		t.Errorf("two sites: %v, %+v", err, p)
	}
	if err := d.Configure(ctx, plugins.Config{Site: "branch", Settings: []byte(`{}`)}); err != nil {
		t.Fatal(err)
	}
	start(t, d, dep)
	if s := stats(t, d); s.Site != "branch" {
		t.Errorf("serves %q", s.Site)
	}
	if err := d.Configure(ctx, plugins.Config{Site: "hq"}); err == nil {
		t.Error("the site was changed")
	}
}

// Run ends with its context, and with Shutdown; nothing can be applied then.
func TestRun(t *testing.T) {
	w := newWorld(t, 1)
	d := new(Driver)
	apply(t, d, w.deployment(1))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	w.client(1).ask()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := d.Apply(t.Context(), &plugins.Plan{Deployment: w.deployment(1)}, nil); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	d = new(Driver)
	apply(t, d, w.deployment(1))
	go func() { done <- d.Run(t.Context()) }()
	stop(t, d)
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// What this process may not do is said before anything is changed.
func TestTransparentNeedsRight(t *testing.T) {
	conns, err := udp.Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"), udp.ListenConfig{Transparent: true})
	if err == nil {
		conns[0].Close()
		t.Skip("this process may use the addresses of others")
	}
	w := newWorld(t, 1)
	dep := w.deployment(1)
	dep.Sites[0].Groups[0].ClientAddress = plugins.ClientAddressTransparent
	err = new(Driver).Apply(t.Context(), &plugins.Plan{Deployment: dep}, nil)
	if err == nil || !strings.Contains(err.Error(), "groups[0].client_address: transparent can't be had here") {
		t.Error(err)
	}
}
