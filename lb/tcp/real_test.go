package tcp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
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
