package tcp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
)

// TestMain runs the tests and then looks for goroutines that were left behind; or
// it is an engine for another process.
func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// A bench is an engine between a client and two backends, in memory.
type bench struct {
	t      *testing.T
	net    *network
	engine *tcp.Engine
	pool   *lb.Pool
	front  *listener
	backs  map[string]*listener

	stop   context.CancelCauseFunc
	served chan error

	mu          sync.Mutex // below
	unreachable []string
	refused     []tcp.Refusal
	closed      []tcp.Summary
}

// newBench starts it with the given engine; backends listen on port 443 unless
// named in dead.
func newBench(t *testing.T, e *tcp.Engine, dead ...string) *bench {
	t.Helper()
	b := &bench{
		t: t, net: newNetwork(), engine: e, pool: new(lb.Pool),
		backs: make(map[string]*listener), served: make(chan error, 1),
	}
	var backends []lb.Backend
	for name, addr := range map[string]string{"b1": "10.0.0.1", "b2": "10.0.0.2"} {
		backends = append(backends, lb.Backend{Name: name, Addr: netip.MustParseAddr(addr)})
		if !strings.Contains(strings.Join(dead, " "), name) {
			b.backs[name] = b.net.listen(addr + ":443")
		}
	}
	if err := b.pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	e.Balancer = &lb.Balancer{Pool: b.pool, Table: new(lb.Table)}
	e.Dial = b.net.Dial
	e.Trace = &tcp.Trace{
		Unreachable: func(m *lb.Member, _ netip.AddrPort, _ error) {
			b.note(func() { b.unreachable = append(b.unreachable, m.Name) })
		},
		Refused: func(_ lb.Flow, why tcp.Refusal, _ error) {
			b.note(func() { b.refused = append(b.refused, why) })
		},
		Closed: func(s tcp.Summary) { b.note(func() { b.closed = append(b.closed, s) }) },
	}
	b.front = b.net.listen("192.0.2.1:443")
	ctx, stop := context.WithCancelCause(context.Background())
	b.stop = stop
	go func() { b.served <- e.Serve(ctx, b.front) }()
	return b
}

func (b *bench) note(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// end stops the engine and lets what lives longer than it end too.
func (b *bench) end() {
	b.t.Helper()
	cause := errors.New("the test is over")
	b.stop(cause)
	if err := <-b.served; err != cause && err != tcp.ErrClosed {
		b.t.Errorf("Serve returned %v", err)
	}
	if s := b.engine.Stats(); s.Open != 0 || s.Sniffing != 0 {
		b.t.Errorf("after the end: %d open, %d sniffing", s.Open, s.Sniffing)
	}
	for _, m := range b.pool.View().Members {
		if m.Clients() > 0 && b.engine.Sniffer == nil {
			b.t.Errorf("after the end: %s has %d clients", m.Name, m.Clients())
		}
	}
}

// client connects to the front.
func (b *bench) client() *conn {
	b.t.Helper()
	c, err := b.net.dialFrom(b.t.Context(), "203.0.113.7", "192.0.2.1:443")
	if err != nil {
		b.t.Fatal(err)
	}
	return c.(*conn)
}

// backend returns the connection that came to a backend, and to which one.
func (b *bench) backend() (*conn, string) {
	b.t.Helper()
	synctest.Wait()
	for name, l := range b.backs {
		select {
		case c := <-l.queue:
			return c, name
		default:
		}
	}
	b.t.Fatal("no backend was connected to")
	return nil, ""
}

// stream returns both ends of a stream, and its backend.
func (b *bench) stream() (client, backend *conn, name string) {
	b.t.Helper()
	client = b.client()
	backend, name = b.backend()
	return client, backend, name
}

func wantReset(t testing.TB, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d bytes, %v; want a reset", n, err)
	}
}

// alive checks that bytes pass both ways.
func alive(t testing.TB, a, b net.Conn) {
	t.Helper()
	send(t, a, "ping")
	want(t, b, "ping")
	send(t, b, "pong")
	want(t, a, "pong")
}

func TestIdle(t *testing.T) {
	tests := []struct {
		name string
		idle time.Duration
		hold time.Duration // silence that must do no harm
		cut  time.Duration // silence that must
	}{
		// A silent SSTP tunnel has an echo request within 60 s, and its peer
		// is given up after 60 s more.
		{"default", 0, tcp.DefaultIdle - time.Second, tcp.DefaultIdle * 65 / 64},
		{"short", time.Minute, 59 * time.Second, 62 * time.Second},
		{"never", -1, 24 * time.Hour, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, &tcp.Engine{Idle: tt.idle})
				defer b.end()
				client, backend, _ := b.stream()
				// One direction is enough to keep it, whichever it is.
				for i := range 20 {
					from, to := client, backend
					if i%4 < 2 {
						from, to = backend, client
					}
					time.Sleep(tt.hold)
					send(t, from, "x")
					want(t, to, "x")
				}
				if tt.cut == 0 {
					return
				}
				time.Sleep(tt.cut + time.Second)
				wantReset(t, client)
				wantReset(t, backend)
				synctest.Wait()
				if len(b.closed) != 1 || b.closed[0].End != tcp.EndIdle {
					t.Errorf("closed %+v", b.closed)
				}
			})
		})
	}
}

// TestDay keeps a tunnel with hellos every minute for a day.
func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		defer b.end()
		client, backend, _ := b.stream()
		for range 24 * 60 {
			time.Sleep(time.Minute)
			alive(t, client, backend)
		}
		if s := b.engine.Stats(); s.Sent != 24*60*4 || s.Received != s.Sent || s.Open != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestRetry(t *testing.T) {
	tests := []struct {
		name        string
		dead, hangs []string
		took        time.Duration
		refused     bool
	}{
		{name: "first choice"},
		{name: "b1 refuses", dead: []string{"b1"}},
		{name: "b2 refuses", dead: []string{"b2"}},
		{name: "b1 hangs", hangs: []string{"b1"}, took: tcp.DefaultDialTimeout},
		{name: "b2 hangs", hangs: []string{"b2"}, took: tcp.DefaultDialTimeout},
		{name: "all refuse", dead: []string{"b1", "b2"}, refused: true},
		{name: "all hang", hangs: []string{"b1", "b2"}, took: 2 * tcp.DefaultDialTimeout, refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				// Many clients, so that the dead one is the first choice of some.
				b := newBench(t, &tcp.Engine{}, tt.dead...)
				defer b.end()
				for _, name := range tt.hangs {
					b.net.hang(map[string]string{"b1": "10.0.0.1:443", "b2": "10.0.0.2:443"}[name])
				}
				failed := 0
				for range 16 {
					start := time.Now()
					client := b.client()
					if tt.refused {
						// The answer may come before the question.
						_, _ = io.WriteString(client, "first bytes")
						time.Sleep(tt.took + time.Millisecond)
						wantReset(t, client)
						failed += 2
						continue
					}
					send(t, client, "first bytes")
					time.Sleep(tt.took + time.Millisecond)
					backend, name := b.backend()
					want(t, backend, "first bytes")
					if strings.Contains(strings.Join(append(tt.dead, tt.hangs...), " "), name) {
						t.Fatalf("%s answered", name)
					}
					alive(t, client, backend)
					if took := time.Since(start); took > tt.took+time.Second {
						t.Errorf("took %v", took)
					}
				}
				s := b.engine.Stats()
				bad := len(tt.dead) + len(tt.hangs)
				switch {
				case bad == 0 && s.Unreachable != 0, bad == 1 && (s.Unreachable == 0 || s.Unreachable != s.Retried):
					t.Errorf("%d unreachable, %d retried", s.Unreachable, s.Retried)
				case tt.refused && (int(s.Unreachable) != failed || s.Refused[tcp.RefusedUnreachable] != 16):
					t.Errorf("%d unreachable, refused %v", s.Unreachable, s.Refused)
				case len(b.unreachable) != int(s.Unreachable):
					t.Errorf("the trace heard of %d, stats of %d", len(b.unreachable), s.Unreachable)
				}
			})
		})
	}
}

// TestRetryMoves checks that a client whose backend refuses a stream gets another
// one for that stream, but lives where it lived, with what other ports it has
// there, until that backend is down.
func TestRetryMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{Sniffer: lb.ByAddr{}})
		defer b.end()
		_, _, home := b.stream()
		b.backs[home].Close()
		b.net.mu.Lock()
		delete(b.net.listeners, b.backs[home].at.(*net.TCPAddr).AddrPort())
		b.net.mu.Unlock()
		_, _, now := b.stream()
		if now == home {
			t.Fatalf("still at %s", home)
		}
		place := func(want int) {
			t.Helper()
			before := len(b.net.dials())
			b.stream()
			if n := len(b.net.dials()) - before; n != want {
				t.Errorf("%d connections to place the client, want %d", n, want)
			}
		}
		place(3) // the client's, one that is refused, and one that isn't
		b.engine.Balancer.Pool.Mark(home, lb.Down, "test")
		place(2)
		b.engine.Balancer.Pool.Mark(home, lb.Up, "")
		place(2)
	})
}

func TestAffinity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{Sniffer: lb.ByAddr{}})
		defer b.end()
		_, _, home := b.stream()
		for range 10 {
			if _, _, name := b.stream(); name != home {
				t.Fatalf("at %s and %s", home, name)
			}
		}
		c, ok := b.engine.Balancer.Table.Lookup(lb.AddrKey(netip.MustParseAddr("203.0.113.7")))
		if !ok || c.Streams != 11 || c.Stage != lb.StageEstablished {
			t.Errorf("client %+v, %v", c, ok)
		}
	})
}

func TestBackendLost(t *testing.T) {
	tests := []struct {
		name string
		lose func(p *lb.Pool, name string)
		keep bool
	}{
		{"down", func(p *lb.Pool, name string) { p.Mark(name, lb.Down, "test") }, false},
		{"drained", func(p *lb.Pool, name string) { p.Drain(name, time.Time{}) }, true},
		{"drain deadline", func(p *lb.Pool, name string) { p.Drain(name, time.Now().Add(500*time.Millisecond)) }, false},
		{"drain deadline to come", func(p *lb.Pool, name string) { p.Drain(name, time.Now().Add(time.Hour)) }, true},
		{"removed", func(p *lb.Pool, name string) {
			for _, m := range p.View().Members {
				if m.Name != name {
					p.Set(m.Backend)
				}
			}
		}, false},
		{"all down is disbelieved", func(p *lb.Pool, _ string) {
			p.Mark("b1", lb.Down, "test")
			p.Mark("b2", lb.Down, "test")
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, &tcp.Engine{})
				defer b.end()
				client, backend, name := b.stream()
				var others []*conn
				for len(others) == 0 {
					c, s, n := b.stream()
					if n != name {
						others = append(others, c, s)
					}
				}
				time.Sleep(3 * time.Second)
				tt.lose(b.pool, name)
				time.Sleep(1600 * time.Millisecond)
				if tt.keep {
					alive(t, client, backend)
				} else {
					wantReset(t, client)
					wantReset(t, backend)
					if _, _, now := b.stream(); now == name {
						t.Errorf("a new stream went to %s", now)
					}
				}
				alive(t, others[0], others[1])
				if tt.keep && !strings.Contains(tt.name, "all down") {
					for range 8 {
						if _, _, now := b.stream(); now == name {
							t.Errorf("a new stream went to %s", now)
						}
					}
				}
			})
		})
	}
}

// TestLostWhileDialing has a backend go down while it is connected to.
func TestLostWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		defer b.end()
		b.engine.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := b.net.Dial(ctx, network, addr)
			name := map[string]string{"10.0.0.1:443": "b1", "10.0.0.2:443": "b2"}[addr]
			b.pool.Mark(name, lb.Down, "test")
			time.Sleep(3 * time.Second) // the sweeper looks meanwhile
			return c, err
		}
		client := b.client()
		time.Sleep(5 * time.Second)
		wantReset(t, client)
	})
}

func TestReset(t *testing.T) {
	for _, first := range []string{"client", "backend"} {
		t.Run(first, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, &tcp.Engine{})
				defer b.end()
				x, y, _ := b.stream()
				if first == "backend" {
					x, y = y, x
				}
				alive(t, x, y)
				x.SetLinger(0)
				x.Close()
				wantReset(t, y)
				synctest.Wait()
				if len(b.closed) != 1 || b.closed[0].End != tcp.EndReset || b.closed[0].First.String() != first ||
					!errors.Is(b.closed[0].Err, syscall.ECONNRESET) {
					t.Errorf("closed %+v", b.closed)
				}
			})
		})
	}
}

// A whole connection can't be half closed.
type whole struct{ net.Conn }

func TestNoHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		defer b.end()
		dial := b.engine.Dial
		b.engine.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			return whole{c}, err
		}
		client, backend, _ := b.stream()
		alive(t, client, backend)
		client.CloseWrite()
		wantEnd(t, backend)
		wantEnd(t, client)
	})
}

// wordSniffer wants a line; the first word names the client, and "bad" drops it.
type wordSniffer struct{}

func (wordSniffer) Sniff(b []byte, f lb.Flow) (lb.Verdict, int) {
	line, _, ok := bytes.Cut(b, []byte("\n"))
	v := lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{lb.HashKey(200, line)}}
	if !ok {
		return lb.Verdict{Begin: true, Pick: lb.FlowKey(f)}, 1
	}
	if string(line) == "bad" {
		return lb.Verdict{Drop: true, Reason: "a bad word"}, 0
	}
	return v, 0
}

func TestSniff(t *testing.T) {
	tests := []struct {
		name     string
		do       func(c *conn)
		took     time.Duration // until a backend is connected to
		refusal  tcp.Refusal
		refused  bool
		forward  string
		timeouts uint64
		ended    bool
	}{
		{name: "at once", do: func(c *conn) { c.Write([]byte("hello\nand more")) }, forward: "hello\nand more"},
		{name: "in pieces", do: func(c *conn) {
			for _, s := range []string{"he", "l", "lo", "\n!"} {
				c.Write([]byte(s))
				time.Sleep(time.Second)
			}
		}, took: 3 * time.Second, forward: "hello\n!"},
		{name: "nothing", do: func(*conn) {}, took: 5 * time.Second, timeouts: 1},
		{name: "a byte a second", do: func(c *conn) {
			for range 8 {
				c.Write([]byte("x"))
				time.Sleep(time.Second)
			}
		}, took: 5 * time.Second, forward: "xxxxx", timeouts: 1},
		{name: "too much", do: func(c *conn) { c.Write(bytes.Repeat([]byte("y"), 40000)) }, forward: strings.Repeat("y", 40000)},
		{name: "bad", do: func(c *conn) { c.Write([]byte("bad\n")) }, refused: true, refusal: tcp.RefusedBytes},
		{name: "left", do: func(c *conn) { c.CloseWrite() }, refused: true, refusal: tcp.RefusedGone},
		{name: "reset", do: func(c *conn) { c.SetLinger(0); c.Close() }, refused: true, refusal: tcp.RefusedGone},
		{name: "half closed", do: func(c *conn) { c.Write([]byte("hel")); c.CloseWrite() }, forward: "hel", ended: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, &tcp.Engine{Sniffer: wordSniffer{}})
				defer b.end()
				client := b.client()
				go tt.do(client)
				if tt.took > 0 {
					time.Sleep(tt.took - time.Millisecond)
					synctest.Wait()
					if n := len(b.net.dials()); n != 1 {
						t.Fatalf("%d connections before the time", n)
					}
				}
				time.Sleep(2 * time.Millisecond)
				if tt.refused {
					synctest.Wait()
					if len(b.refused) != 1 || b.refused[0] != tt.refusal || len(b.net.dials()) != 1 {
						t.Errorf("refused %v, dialed %v", b.refused, b.net.dials())
					}
					return
				}
				backend, _ := b.backend()
				want(t, backend, tt.forward)
				if s := b.engine.Stats(); s.SniffTimeouts != tt.timeouts || s.Sniffing != 0 {
					t.Errorf("stats %+v", s)
				}
				send(t, backend, "answer")
				want(t, client, "answer")
				if tt.ended {
					wantEnd(t, backend)
				}
				time.Sleep(5 * time.Second) // the sniffing's time limit is gone
				send(t, backend, "later")
				want(t, client, "later")
			})
		})
	}
}

func TestMaxSniffing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{Sniffer: wordSniffer{}, MaxSniffing: 3})
		defer b.end()
		for range 3 {
			b.client() // sends nothing
		}
		synctest.Wait()
		if s := b.engine.Stats(); s.Sniffing != 3 || len(b.net.dials()) != 3 {
			t.Fatalf("%d wait, dialed %v", s.Sniffing, b.net.dials())
		}
		client := b.client()
		send(t, client, "not a line")
		time.Sleep(2 * time.Millisecond)
		backend, _ := b.backend()
		want(t, backend, "not a line")
		if s := b.engine.Stats(); s.SniffTimeouts != 1 || s.Sniffing != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{MaxStreams: 2})
		defer b.end()
		client, backend, _ := b.stream()
		b.stream()
		wantReset(t, b.client())
		client.Close()
		wantEnd(t, backend)
		backend.Close()
		synctest.Wait()
		b.stream()
		if s := b.engine.Stats(); s.Refused[tcp.RefusedLimit] != 1 || s.Open != 2 || s.Accepted != 4 || s.Opened != 3 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{Idle: -1})
		client, backend, _ := b.stream()
		done := make(chan error)
		go func() { done <- b.engine.Shutdown(context.Background()) }()
		synctest.Wait()
		if _, err := b.net.Dial(t.Context(), "tcp", "192.0.2.1:443"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while shutting down: %v", err)
		}
		time.Sleep(time.Hour)
		client.CloseWrite()
		wantEnd(t, backend)
		backend.CloseWrite()
		if err := <-done; err != nil {
			t.Errorf("Shutdown returned %v", err)
		}
		b.end()
		if err := b.engine.Serve(t.Context(), b.net.listen("192.0.2.1:443")); err != tcp.ErrClosed {
			t.Errorf("Serve after Shutdown returned %v", err)
		}
		if err := b.engine.Shutdown(t.Context()); err != nil {
			t.Errorf("the second Shutdown returned %v", err)
		}
	})
}

func TestShutdownCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		client, backend, _ := b.stream()
		b.net.hang("10.0.0.1:443")
		b.net.hang("10.0.0.2:443")
		dialing := b.client()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		err := b.engine.Shutdown(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("Shutdown returned %v after %v", err, time.Since(start))
		}
		for _, c := range []*conn{client, backend, dialing} {
			wantReset(t, c)
		}
		b.end()
		if len(b.closed) != 1 || b.closed[0].End != tcp.EndClosing || b.closed[0].Took != time.Second {
			t.Errorf("closed %+v", b.closed)
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{Sniffer: wordSniffer{}})
		sniffing := b.client()
		client := b.client()
		send(t, client, "word\n")
		backend, _ := b.backend()
		start := time.Now()
		b.end()
		for _, c := range []*conn{client, sniffing} {
			wantReset(t, c)
		}
		want(t, backend, "word\n")
		wantReset(t, backend)
		if d := time.Since(start); d != 0 {
			t.Errorf("it took %v", d)
		}
	})
}

func TestAcceptErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		client, _, _ := b.stream()
		for range 10 {
			b.front.fail <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		}
		time.Sleep(time.Second) // the longest pause
		b.stream()
		fatal := errors.New("listener is broken")
		b.front.fail <- fatal
		if err := <-b.served; !errors.Is(err, fatal) || !strings.Contains(err.Error(), "192.0.2.1:443") {
			t.Errorf("Serve returned %v", err)
		}
		wantReset(t, client)
		if s := b.engine.Stats(); s.AcceptErrors != 11 {
			t.Errorf("%d accept errors", s.AcceptErrors)
		}
	})
}

func TestProxyThrough(t *testing.T) {
	const v1 = "PROXY TCP4 198.51.100.9 192.0.2.1 5555 443\r\n"
	from := netip.MustParseAddrPort("198.51.100.9:5555")
	to := netip.MustParseAddrPort("192.0.2.1:443")
	v2 := string(tcp.ProxyHeader{Source: from, Destination: to}.Append(nil, tcp.ProxyV2))
	local := string(tcp.ProxyHeader{Local: true}.Append(nil, tcp.ProxyV2))
	tests := []struct {
		name, sent string
		out        tcp.ProxyVersion
		got        string // "ADDR" stands for the client's own address
		client     string
		refused    bool
	}{
		{name: "none", sent: v1 + "x", got: "x", client: "198.51.100.9"},
		{name: "v1 to v1", sent: v1 + "x", out: tcp.ProxyV1, got: v1 + "x", client: "198.51.100.9"},
		{name: "v1 to v2", sent: v1 + "x", out: tcp.ProxyV2, got: v2 + "x", client: "198.51.100.9"},
		{name: "v2 to v1", sent: v2 + "x", out: tcp.ProxyV1, got: v1 + "x", client: "198.51.100.9"},
		{
			name: "unknown", sent: "PROXY UNKNOWN\r\nx", out: tcp.ProxyV1,
			got: "PROXY TCP4 203.0.113.7 192.0.2.1 40001 443\r\nx", client: "203.0.113.7",
		},
		{name: "local", sent: local + "x", out: tcp.ProxyV2, got: local + "x", client: "203.0.113.7"},
		{name: "missing", sent: "GET / HTTP/1.1\r\n", refused: true},
		{name: "late", sent: "PROXY TCP4 ", refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, &tcp.Engine{
					ProxyFrom: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, ProxyTo: tt.out, Sniffer: lb.ByAddr{},
				})
				defer b.end()
				client := b.client()
				half := len(tt.sent) / 2
				send(t, client, tt.sent[:half])
				synctest.Wait()
				client.Write([]byte(tt.sent[half:])) // it may have been reset already
				if tt.refused {
					time.Sleep(tcp.DefaultSniffTimeout)
					wantReset(t, client)
					if s := b.engine.Stats(); s.Refused[tcp.RefusedProxy] != 1 {
						t.Errorf("stats %+v", s)
					}
					return
				}
				backend, _ := b.backend()
				want(t, backend, tt.got)
				alive(t, client, backend)
				if _, ok := b.engine.Balancer.Table.Lookup(lb.AddrKey(netip.MustParseAddr(tt.client))); !ok {
					t.Errorf("the client isn't known as %s", tt.client)
				}
				if s := b.engine.Stats(); s.Sent != 5 {
					t.Errorf("%d bytes sent", s.Sent)
				}
			})
		})
	}
}

func TestProxyUntrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		defer b.end()
		client, backend, _ := b.stream()
		send(t, client, "PROXY TCP4 198.51.100.9 192.0.2.1 5555 443\r\n")
		want(t, backend, "PROXY TCP4 198.51.100.9 192.0.2.1 5555 443\r\n") // it's just bytes
	})
}

// TestPressure checks that a slow reader stops its sender, and that nothing is
// lost.
func TestPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &tcp.Engine{})
		defer b.end()
		client, backend, _ := b.stream()
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		wrote := make(chan error, 1)
		go func() {
			_, err := client.Write(sent)
			client.CloseWrite()
			wrote <- err
		}()
		time.Sleep(time.Minute)
		select {
		case <-wrote:
			t.Error("a megabyte was taken though nobody reads")
		default:
		}
		got, err := io.ReadAll(backend)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got %d of %d bytes, %v", len(got), len(sent), err)
		}
	})
}

func TestWrongFields(t *testing.T) {
	good := func() *lb.Balancer { return &lb.Balancer{Pool: new(lb.Pool), Table: new(lb.Table)} }
	tests := []struct {
		name   string
		engine *tcp.Engine
		want   string
	}{
		{"no balancer", &tcp.Engine{}, "balancer"},
		{"no pool", &tcp.Engine{Balancer: &lb.Balancer{Table: new(lb.Table)}}, "pool"},
		{"transparent dial", &tcp.Engine{Balancer: good(), Transparent: true, Dial: newNetwork().Dial}, "Dial"},
		{"proxy", &tcp.Engine{Balancer: good(), ProxyTo: 3}, "PROXY"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newNetwork().listen("192.0.2.1:443")
			err := tt.engine.Serve(t.Context(), l)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve returned %v", err)
			}
			select {
			case <-l.closed:
			default:
				t.Error("the listener is still open")
			}
		})
	}
	if err := (&tcp.Engine{Balancer: good()}).Serve(t.Context()); err == nil {
		t.Error("Serve without a listener returned nil")
	}
}
