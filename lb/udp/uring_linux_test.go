package udp

import (
	"bytes"
	"net"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// testRing makes a ring for the test's thread.
func testRing(t *testing.T) *ring {
	t.Helper()
	if a, b, c := unsafe.Sizeof(sqe{}), unsafe.Sizeof(cqe{}), unsafe.Sizeof(ringParams{}); a != 64 || b != 16 || c != 120 {
		t.Fatalf("the kernel's structures have %d, %d and %d bytes here", a, b, c)
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	r, err := newRing()
	if err != nil {
		t.Skip("this machine has no io_uring for us: ", err)
	}
	t.Cleanup(func() {
		if err := r.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// pair returns a socket connected to another one on the loopback interface.
func pair(t *testing.T) (fd int, peer *net.UDPConn) {
	t.Helper()
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := connect(fd, peer.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	return fd, peer
}

// TestRing wants each operation to have its own result, also where others fail, and
// none to wait, although the sockets would.
func TestRing(t *testing.T) {
	r := testRing(t)
	fd, peer := pair(t)
	dead, gone := pair(t)
	to := gone.LocalAddr()
	gone.Close()
	s, err := newSlab()
	if err != nil {
		t.Fatal(err)
	}
	defer s.free()
	if e := send(dead, []byte("x")); e != 0 {
		t.Fatalf("first to %v: %v", to, e)
	}
	copy(s.at(0, 5), "hello")
	for turn := range 3 * ringSize { // several times round
		r.send(fd, s.at(0, 5), 10)
		r.send(-1, s.at(0, 5), 11)
		r.send(dead, s.at(0, 5), 12)
		r.send(fd, s.at(0, 0), 13)
		r.send(fd, s.at(1, maxDatagram), 14)
		r.recv(fd, s.at(2, maxDatagram), 15)
		if n, e := r.submit(6); n != 6 || e != 0 {
			t.Fatalf("turn %d: %d submitted, %v", turn, n, e)
		}
		want := []struct {
			n int
			e unix.Errno
		}{{5, 0}, {0, unix.EBADF}, {0, unix.ECONNREFUSED}, {0, 0}, {0, unix.EMSGSIZE}, {0, unix.EAGAIN}}
		if turn%2 == 1 {
			want[2] = want[0] // what has been reported is over
			want[2].n = 5
		}
		for range want {
			id, n, e, broken := r.next()
			if w := want[id-10]; broken != 0 || n != w.n || e != w.e {
				t.Errorf("turn %d, operation %d: %d, %v, want %d, %v", turn, id, n, e, w.n, w.e)
			}
		}
		b := make([]byte, 100)
		for _, want := range []string{"hello", ""} {
			n, from, err := peer.ReadFromUDPAddrPort(b)
			if err != nil || string(b[:n]) != want {
				t.Fatalf("turn %d: the peer got %q, %v", turn, b[:n], err)
			}
			if want != "" {
				continue
			}
			if _, err := peer.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
		}
		r.recv(fd, s.at(2, maxDatagram), 16)
		if n, e := r.submit(1); n != 1 || e != 0 {
			t.Fatalf("turn %d: %d submitted, %v", turn, n, e)
		}
		if id, n, e, _ := r.next(); id != 16 || e != 0 || !bytes.Equal(s.at(2, n), []byte("answer")) {
			t.Errorf("turn %d: operation %d received %q, %v", turn, id, s.at(2, n), e)
		}
		if t.Failed() {
			return
		}
	}
}

// TestRingBroken wants an end, not a hang, when a ring's file is closed.
func TestRingBroken(t *testing.T) {
	r := testRing(t)
	fd, _ := pair(t)
	s, err := newSlab()
	if err != nil {
		t.Fatal(err)
	}
	defer s.free()
	good := r.fd
	r.fd = -1
	r.send(fd, s.at(0, 5), 1)
	if n, e := r.submit(1); n != 0 || e != unix.EBADF {
		t.Errorf("%d submitted, %v", n, e)
	}
	if _, _, _, broken := r.next(); broken != unix.EBADF {
		t.Errorf("the next result: %v", broken)
	}
	r.fd = good
	r.send(fd, s.at(0, 4), 2) // what wasn't submitted has gone
	if n, e := r.submit(1); n != 1 || e != 0 {
		t.Fatalf("%d submitted, %v", n, e)
	}
	if id, n, e, _ := r.next(); id != 2 || n != 4 || e != 0 {
		t.Errorf("operation %d sent %d bytes, %v", id, n, e)
	}
}
