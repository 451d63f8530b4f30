package udp_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
)

// forwarder is the least that a balancer with sockets can do: it reads as many datagrams
// as there are by one system call, and sends each by the socket of its client, connected
// beforehand, by another. It knows nothing and checks nothing.
type forwarder struct {
	tid  atomic.Int64
	stop atomic.Bool
	done chan struct{}
}

func (l *speedLab) startForwarder(port uint16, clients int) *forwarder {
	l.t.Helper()
	f := &forwarder{done: make(chan struct{})}
	var in int
	out := make([]int, clients)
	netns.Do(l.t, l.ns("l"), func() (err error) {
		open := func() (fd int) {
			if err == nil {
				fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			}
			return fd
		}
		in = open()
		if err != nil {
			return err
		}
		_ = unix.SetsockoptInt(in, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
		if err := unix.SetsockoptTimeval(in, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}); err != nil {
			return err
		}
		if err := unix.Bind(in, &unix.SockaddrInet4{Port: int(port)}); err != nil {
			return err
		}
		for i := range out {
			if out[i] = open(); err != nil {
				return err
			}
			if err := unix.Connect(out[i], &unix.SockaddrInet4{Addr: [4]byte{10, 71, 11 + byte(i%2), 1}, Port: 4500}); err != nil {
				return err
			}
		}
		return nil
	})
	go f.forward(in, out)
	l.t.Cleanup(f.end)
	for f.tid.Load() == 0 {
		runtime.Gosched()
	}
	return f
}

func (f *forwarder) end() {
	f.stop.Store(true)
	<-f.done
}

// forward does so on CPU 1. The client's number is its port's.
func (f *forwarder) forward(in int, out []int) {
	defer close(f.done)
	runtime.LockOSThread() // and never unlock, since it stays on that CPU
	var set unix.CPUSet
	set.Set(1)
	_ = unix.SchedSetaffinity(0, &set)
	f.tid.Store(int64(unix.Gettid()))
	const batch = 64
	var hdr [batch]struct {
		unix.Msghdr
		n uint32
	}
	var iov [batch]unix.Iovec
	var from [batch]unix.RawSockaddrInet4
	buf := make([][2048]byte, batch)
	for i := range hdr {
		iov[i].Base = &buf[i][0]
		iov[i].SetLen(len(buf[i]))
		hdr[i].Iov = &iov[i]
		hdr[i].SetIovlen(1)
		hdr[i].Name = (*byte)(unsafe.Pointer(&from[i]))
	}
	for !f.stop.Load() {
		for i := range hdr {
			hdr[i].Namelen = unix.SizeofSockaddrInet4
		}
		n, _, e := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(in), uintptr(unsafe.Pointer(&hdr[0])), batch, unix.MSG_WAITFORONE, 0, 0)
		if e != 0 {
			continue
		}
		for i := range int(n) {
			port := int(from[i].Port<<8|from[i].Port>>8) - 1024
			if port >= 0 && port < len(out) {
				_, _, _ = unix.RawSyscall6(unix.SYS_SENDTO, uintptr(out[port]), uintptr(unsafe.Pointer(&buf[i][0])), uintptr(hdr[i].n), unix.MSG_DONTWAIT, 0, 0)
			}
		}
	}
	for _, fd := range append(out, in) {
		_ = unix.Close(fd)
	}
}

// TestFloor compares what a datagram of an established client costs the engine with what
// it costs the kernel alone to route it, and the least that it costs to receive it by a
// socket and to send it by another.
func TestFloor(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "nft", "ethtool", "taskset", "ip")
	const clients = 1000
	l := newSpeedLab(t)
	l.startEngine(t, false)
	f := l.startForwarder(4503, clients)
	for _, size := range []int{64, 1400} {
		routed := newFrames(clients, size, 4500)
		for _, b := range routed {
			copy(b[30:34], netip.MustParseAddr("10.71.11.1").AsSlice())
			binary.BigEndian.PutUint16(b[24:], 0)
			binary.BigEndian.PutUint16(b[24:], ^sum16(0, b[14:34]))
		}
		engine := newFrames(clients, size, speedPorts["engine"])
		l.warm(t, "engine", engine)
		all := []struct {
			name   string
			frames [][]byte
			pids   []int
		}{
			{"routed", routed, nil},
			{"least", newFrames(clients, size, 4503), nil},
			{"engine", engine, []int{l.pids["engine"]}},
		}
		l.sink(true)
		cost := make([]*spread, len(all))
		against := new(spread)
		for i := range cost {
			cost[i] = new(spread)
		}
		for range 5 {
			var each [3]float64
			for _, i := range rand.Perm(len(all)) {
				b := all[i]
				pids := append(slices.Clone(l.napi), b.pids...)
				before, own := ran(pids...), f.ran()
				sent, got := l.load(b.frames, window, 1, time.Second)
				used := ran(pids...) - before
				if b.name == "least" {
					used += f.ran() - own
				}
				if got < sent*9/10 {
					t.Errorf("%s: %d of %d datagrams lost", b.name, sent-got, sent)
				}
				each[i] = float64(used.Nanoseconds()) / float64(got)
				cost[i].add(each[i])
			}
			against.add(each[2] / each[1])
		}
		l.sink(false)
		t.Logf("%d octets: routed %s ns; by two sockets %s ns; engine %s ns, %s times the latter", size, cost[0], cost[1], cost[2], against)
	}
}

// ran returns how long the forwarder has.
func (f *forwarder) ran() time.Duration {
	return taskRan(int(f.tid.Load()))
}

// taskRan returns how long a thread of this process has run.
func taskRan(tid int) (d time.Duration) {
	b, err := os.ReadFile("/proc/self/task/" + strconv.Itoa(tid) + "/schedstat")
	if err != nil {
		return 0
	}
	ns, _, _ := strings.Cut(string(b), " ")
	n, _ := strconv.ParseInt(ns, 10, 64)
	return time.Duration(n)
}
