package lbtest

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		g := &Gateway{Name: "ras1"}
		ctx, cancel := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		end := errors.New("enough")
		ike, natt := mustListen(t, n, "10.0.0.1:500"), mustListen(t, n, "10.0.0.1:4500")
		wg.Go(func() {
			if err := g.Serve(ctx, ike, natt); !errors.Is(err, end) {
				t.Errorf("Serve returned %v, want the cause", err)
			}
		})
		c := mustListen(t, n, "203.0.113.1:500")
		for _, to := range []string{"10.0.0.1:500", "10.0.0.1:4500"} {
			d, err := Ask(c, addrPort(to), []byte("hello"), 0)
			if err != nil {
				t.Fatal(err)
			}
			who, what, ok := Said(d.Payload)
			if who != "ras1" || string(what) != "hello" || !ok || d.From != addrPort(to) {
				t.Errorf("%v: %q from %q, %t, at %v", to, what, who, ok, d.From)
			}
		}
		g.Silence(true)
		start := time.Now()
		if _, err := Ask(c, addrPort("10.0.0.1:500"), []byte("hello"), time.Minute); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Minute {
			t.Errorf("a silent gateway: %v after %v", err, time.Since(start))
		}
		g.Silence(false)
		if _, err := Ask(c, addrPort("10.0.0.1:500"), []byte("again"), 0); err != nil {
			t.Error(err)
		}
		if g.Heard() != 3 || len(g.Clients()) != 1 || g.Clients()[0] != c.Addr() {
			t.Errorf("heard %d of %v", g.Heard(), g.Clients())
		}
		cancel(end)
		wg.Wait()
		if got := n.Sockets(); got != 1 {
			t.Errorf("%d sockets are open, want the client's", got)
		}
	})
}

func TestGatewayAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		g := &Gateway{Answer: func(b []byte, from, to netip.AddrPort) []byte {
			if string(b) == "secret" {
				return nil
			}
			return []byte(from.String() + " asked " + to.String())
		}}
		server := mustListen(t, n, "10.0.0.1:500")
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := g.Serve(t.Context(), server); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Serve returned %v after its socket was closed", err)
			}
		})
		c := mustListen(t, n, "203.0.113.1:500")
		if d, err := Ask(c, server.Addr(), nil, 0); err != nil || string(d.Payload) != "203.0.113.1:500 asked 10.0.0.1:500" {
			t.Errorf("%q, %v", d.Payload, err)
		}
		if _, err := Ask(c, server.Addr(), []byte("secret"), 0); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an answer to what has none: %v", err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, _, ok := Said([]byte("nobody")); ok {
			t.Error("an answer of no gateway was taken for one")
		}
	})
}
