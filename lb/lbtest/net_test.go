package lbtest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func addr(s string) netip.Addr         { return netip.MustParseAddr(s) }
func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func mustListen(t *testing.T, n *Net, at string) *Conn {
	t.Helper()
	a := addrPort(at)
	c, err := Host{n, a.Addr()}.Listen(a.Port())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// receive reads one datagram, or returns "" when there is none.
func receive(t *testing.T, c *Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	d, err := c.Receive()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(d.Payload)
}

func send(t *testing.T, c *Conn, to, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), addrPort(to)); err != nil {
		t.Fatal(err)
	}
}

func TestNetDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		a, b := mustListen(t, n, "192.0.2.1:500"), mustListen(t, n, "[2001:db8::1]:500")
		send(t, a, "[2001:db8::1]:500", "one")
		send(t, a, "[2001:db8::1]:500", "two")
		buf := make([]byte, 2)
		got, from, err := b.ReadFrom(buf)
		if err != nil || string(buf[:got]) != "on" || from.String() != "192.0.2.1:500" {
			t.Errorf("read %q from %v, %v", buf[:got], from, err)
		}
		if got := receive(t, b); got != "two" {
			t.Errorf("then %q, want two: the rest of a datagram is lost, not read later", got)
		}
		send(t, a, "192.0.2.9:500", "nobody is there")
		if s := n.Stats(); s != (Stats{Passed: 2, Lost: 1}) {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestNetMappedAddress(t *testing.T) {
	n := new(Net)
	a, b := mustListen(t, n, "192.0.2.1:500"), mustListen(t, n, "192.0.2.2:500")
	// What package net makes of an IPv4 address has 16 bytes.
	if _, err := a.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP("192.0.2.2"), Port: 500}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, b); got != "x" {
		t.Errorf("got %q", got)
	}
	if _, err := a.WriteTo(nil, new(net.TCPAddr)); err == nil {
		t.Error("a TCP address was taken")
	}
}

func TestNetPorts(t *testing.T) {
	n := new(Net)
	h := Host{n, addr("192.0.2.1")}
	a := mustListen(t, n, "192.0.2.1:500")
	if _, err := h.Listen(500); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the same port again: %v", err)
	}
	any1, err1 := h.Listen(0)
	any2, err2 := h.Listen(0)
	if err1 != nil || err2 != nil || any1.Addr() == any2.Addr() || any1.Addr().Port() == 0 {
		t.Errorf("any ports: %v, %v, %v, %v", any1.Addr(), err1, any2.Addr(), err2)
	}
	if got := n.Sockets(); got != 3 {
		t.Errorf("%d sockets, want 3", got)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	mustListen(t, n, "192.0.2.1:500")
	if _, err := (Host{Net: n}).Listen(1); err == nil {
		t.Error("a host without an address could listen")
	}
	if _, err := h.Dial(netip.AddrPort{}, netip.AddrPort{}); err == nil {
		t.Error("nobody was dialed")
	}
}

func TestNetConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		server, stranger := mustListen(t, n, "10.0.0.1:500"), mustListen(t, n, "10.0.0.2:500")
		c, err := Host{n, addr("10.0.0.9")}.Dial(netip.AddrPort{}, addrPort("10.0.0.1:500"))
		if err != nil {
			t.Fatal(err)
		}
		me := c.LocalAddr().String()
		send(t, stranger, me, "from a stranger")
		send(t, server, me, "from the server")
		buf := make([]byte, 64)
		if got, err := c.Read(buf); err != nil || string(buf[:got]) != "from the server" {
			t.Errorf("read %q, %v", buf[:got], err)
		}
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Error(err)
		}
		if got := receive(t, server); got != "hello" {
			t.Errorf("the server got %q", got)
		}
		if _, err := c.(*Conn).WriteTo(nil, c.RemoteAddr()); !errors.Is(err, net.ErrWriteToConnected) {
			t.Errorf("WriteTo of a connected socket: %v", err)
		}
		if _, err := server.Write(nil); !errors.Is(err, syscall.EDESTADDRREQ) {
			t.Errorf("Write of one that isn't: %v", err)
		}
		if _, err := server.WriteToUDPAddrPort(make([]byte, maxPayload+1), addrPort(me)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("a datagram that is too large: %v", err)
		}
	})
}

// TestNetTransparent: a balancer that shows servers the client's own address has
// a socket with the same address and port as the client's.
func TestNetTransparent(t *testing.T) {
	n := new(Net)
	client, server := mustListen(t, n, "203.0.113.5:4500"), mustListen(t, n, "10.0.0.1:4500")
	front := mustListen(t, n, "192.0.2.1:4500")
	back, err := Host{n, addr("10.0.0.9")}.Dial(client.Addr(), addrPort("10.0.0.1:4500"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := back.Write([]byte("up")); err != nil {
		t.Fatal(err)
	}
	d, err := server.Receive()
	if err != nil || d.From != client.Addr() {
		t.Errorf("the server sees %v, %v", d.From, err)
	}
	send(t, server, d.From.String(), "down, by the balancer")
	buf := make([]byte, 64)
	if got, err := back.Read(buf); err != nil || string(buf[:got]) != "down, by the balancer" {
		t.Errorf("the balancer got %q, %v", buf[:got], err)
	}
	send(t, front, d.From.String(), "to the client")
	if got := receive(t, client); got != "to the client" {
		t.Errorf("the client got %q", got)
	}
}

func TestNetRefuses(t *testing.T) {
	n := new(Net)
	c, err := Host{n, addr("10.0.0.9")}.Dial(netip.AddrPort{}, addrPort("10.0.0.1:500"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("the first write can't know yet: %v", err)
	}
	if _, err := c.Read(nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read: %v, want connection refused", err)
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("an error is told once: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("write: %v, want connection refused", err)
	}
}

func TestNetLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &Net{Link: func(d Datagram) Fate {
			switch string(d.Payload) {
			case "drop":
				return Fate{Drop: true}
			case "slow":
				return Fate{Delay: 300 * time.Millisecond}
			case "thrice":
				return Fate{Copies: 2}
			case "elsewhere":
				return Fate{From: addrPort("198.51.100.1:1")}
			}
			return Fate{}
		}}
		a, b := mustListen(t, n, "192.0.2.1:500"), mustListen(t, n, "192.0.2.2:500")
		for _, s := range []string{"drop", "slow", "thrice", "fast"} {
			send(t, a, "192.0.2.2:500", s)
		}
		start := time.Now()
		var got []string
		for s := receive(t, b); s != ""; s = receive(t, b) {
			got = append(got, s)
		}
		if want := []string{"thrice", "thrice", "thrice", "fast", "slow"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if took := time.Since(start); took != 1300*time.Millisecond {
			t.Errorf("it took %v of virtual time, want 300 ms, and a second of waiting for more", took)
		}
		if err := b.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		send(t, a, "192.0.2.2:500", "elsewhere")
		if d, err := b.Receive(); err != nil || d.From != addrPort("198.51.100.1:1") {
			t.Errorf("from %v, %v", d.From, err)
		}
	})
}

func TestNetKeepsNoPayload(t *testing.T) {
	n := new(Net)
	a, b := mustListen(t, n, "192.0.2.1:500"), mustListen(t, n, "192.0.2.2:500")
	buf := []byte("before")
	if _, err := a.WriteToUDPAddrPort(buf, b.Addr()); err != nil {
		t.Fatal(err)
	}
	copy(buf, "after!")
	if got := receive(t, b); got != "before" {
		t.Errorf("got %q: the sender's buffer is its own again once it has sent", got)
	}
}

func TestNetQueue(t *testing.T) {
	n := &Net{Queue: 2}
	a, b := mustListen(t, n, "192.0.2.1:500"), mustListen(t, n, "192.0.2.2:500")
	for range 5 {
		send(t, a, b.Addr().String(), "x")
	}
	if s := n.Stats(); s != (Stats{Passed: 2, Lost: 3}) {
		t.Errorf("stats %+v", s)
	}
}

func TestConnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		c := mustListen(t, n, "192.0.2.1:500")
		start := time.Now()
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(c.SetDeadline(time.Now().Add(time.Hour)))
		must(c.SetWriteDeadline(time.Now()))
		if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		var timeout net.Error
		if _, err := c.Receive(); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("a deadline stays: %v", err)
		}
		// Moved while somebody waits.
		must(c.SetReadDeadline(time.Now().Add(time.Hour)))
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("with an earlier deadline: %v", err)
			}
		})
		synctest.Wait()
		must(c.SetReadDeadline(time.Now()))
		wg.Wait()
		if took := time.Since(start); took != time.Hour {
			t.Errorf("the wait ended after %v, want an hour", took)
		}
		// And taken away.
		must(c.SetReadDeadline(time.Time{}))
		wg.Go(func() {
			if _, err := c.Receive(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("closed: %v", err)
			}
		})
		synctest.Wait()
		must(c.Close())
		wg.Wait()
		if err := c.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("deadline of a closed socket: %v", err)
		}
		if _, err := c.WriteToUDPAddrPort(nil, c.Addr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a closed socket: %v", err)
		}
	})
}

func TestNAT(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(Net)
		server := mustListen(t, n, "192.0.2.1:4500")
		home, hotel := &NAT{Net: n, Addr: addr("203.0.113.1")}, &NAT{Net: n, Addr: addr("203.0.113.2")}
		// Both laptops have the same address, as they do in life.
		a, b := home.Listen(addrPort("192.168.1.2:4500")), hotel.Listen(addrPort("192.168.1.2:4500"))
		seen := func(c *Conn) netip.AddrPort {
			t.Helper()
			send(t, c, "192.0.2.1:4500", "x")
			d, err := server.Receive()
			if err != nil {
				t.Fatal(err)
			}
			return d.From
		}
		if a.Addr().IsValid() {
			t.Errorf("%v before anything was sent", a.Addr())
		}
		first := seen(a)
		if first.Addr() != home.Addr || seen(a) != first || a.Addr() != first || a.LocalAddr().String() != "192.168.1.2:4500" {
			t.Errorf("%v is seen as %v, then as %v", a.LocalAddr(), first, seen(a))
		}
		if got := seen(b); got.Addr() != hotel.Addr {
			t.Errorf("the other is seen as %v", got)
		}
		send(t, server, first.String(), "answer")
		if got := receive(t, a); got != "answer" {
			t.Errorf("got %q", got)
		}

		home.Rebind(netip.Addr{})
		send(t, server, first.String(), "too late")
		if got := receive(t, a); got != "" {
			t.Errorf("%q came through a port that was forgotten", got)
		}
		second := seen(a)
		if second == first || second.Addr() != home.Addr {
			t.Errorf("seen as %v, then as %v", first, second)
		}
		home.Rebind(addr("198.51.100.7"))
		if got := seen(a); got.Addr() != addr("198.51.100.7") {
			t.Errorf("seen as %v in the other network", got)
		}
		if err := a.Close(); err != nil {
			t.Error(err)
		}
		if got := n.Sockets(); got != 2 {
			t.Errorf("%d sockets are open, want the server's and the hotel's", got)
		}
	})
}

// TestConnIsReader: what is written for connections works on these.
func TestConnIsReader(t *testing.T) {
	n := new(Net)
	server := mustListen(t, n, "10.0.0.1:500")
	c, err := Host{n, addr("10.0.0.9")}.Dial(netip.AddrPort{}, server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	send(t, server, c.LocalAddr().String(), "abc")
	b := make([]byte, 3)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "abc" {
		t.Errorf("%q, %v", b, err)
	}
}
