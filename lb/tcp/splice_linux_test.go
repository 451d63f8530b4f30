package tcp_test

import (
	"net"
	"os"
	"testing"

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
