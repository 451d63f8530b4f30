package udp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// segments is the control message for trains of datagrams of that size.
func segments(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
	return b
}

// sendTrain sends datagrams as one, which the loopback interface hands on as one. All
// but the last must be of one size. to is invalid for a connected socket.
func sendTrain(t testing.TB, c *net.UDPConn, to netip.AddrPort, datagrams [][]byte) {
	t.Helper()
	var oob []byte
	if len(datagrams) > 1 {
		oob = segments(len(datagrams[0]))
	}
	var err error
	if to.IsValid() {
		_, _, err = c.WriteMsgUDPAddrPort(bytes.Join(datagrams, nil), oob, to)
	} else {
		_, _, err = c.WriteMsgUDP(bytes.Join(datagrams, nil), oob, nil)
	}
	if errors.Is(err, unix.EINVAL) && len(datagrams) > 64 { // older kernels take no more
		sendTrain(t, c, to, datagrams[:64])
		sendTrain(t, c, to, datagrams[64:])
		return
	}
	if err != nil {
		t.Fatalf("%d datagrams of %d bytes: %v", len(datagrams), len(datagrams[0]), err)
	}
}

// train makes n datagrams of a size, and then one of another if that isn't negative.
func train(size, n, last int, seed byte) (list [][]byte) {
	for i := range n {
		list = append(list, pattern(size, seed+byte(i)))
	}
	if last >= 0 {
		list = append(list, pattern(last, seed+byte(n)))
	}
	return list
}

// largeBuffer lets c hold the small datagrams of a burst, each of which is charged
// for as a page.
func largeBuffer(t testing.TB, c *net.UDPConn) {
	t.Helper()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<20)
		}
	})
}

func listenUDP(t testing.TB, addr string) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	largeBuffer(t, c)
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	at := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return c, netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// want reads datagrams and returns where the last came from.
func want(t testing.TB, c *net.UDPConn, datagrams [][]byte) (from netip.AddrPort) {
	t.Helper()
	b := make([]byte, 1<<16)
	for i, d := range datagrams {
		n, at, err := c.ReadFromUDPAddrPort(b)
		if err != nil || !bytes.Equal(b[:n], d) {
			t.Fatalf("datagram %d of %d, of %d bytes: got %d bytes, %v", i, len(datagrams), len(d), n, err)
		}
		from = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	}
	return from
}

// Trains that arrive merged come out as they went in, both ways.
func TestMerged(t *testing.T) {
	type engine = udp.Engine
	for _, c := range []struct {
		listen, to, backend string
		engine              *engine
	}{
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.2:0", &engine{GRO: true}},
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.2:0", &engine{GRO: true, NoGSO: true}},
		{"127.0.0.1:0", "127.0.0.1", "127.0.0.2:0", &engine{}},
		{"0.0.0.0:0", "127.0.0.5", "[::1]:0", &engine{GRO: true}},
		{"[::]:0", "127.0.0.5", "127.0.0.2:0", &engine{GRO: true}},
		{"[::]:0", "::1", "[::1]:0", &engine{GRO: true}},
		{"[::1]:0", "::1", "127.0.0.2:0", &engine{GRO: true, NoGSO: true}},
	} {
		t.Run(fmt.Sprintf("%s GRO %v NoGSO %v", c.listen, c.engine.GRO, c.engine.NoGSO), func(t *testing.T) {
			e := c.engine
			backend, addr := listenUDP(t, c.backend)
			at := serveLoop(t, e, c.listen, udp.ListenConfig{Buffer: 4 << 20}, addr)
			cl := dial(t, netip.AddrPortFrom(netip.MustParseAddr(c.to), at.Port()))
			largeBuffer(t, cl)
			testMerged(t, e, cl, backend)
			if s := e.Stats(); e.NoGSO && s.Trains != 0 || e.GRO != (s.Merged > 0) {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func testMerged(t *testing.T, e *udp.Engine, cl, backend *net.UDPConn) {
	groups := [][][][]byte{
		{train(1200, 16, -1, 1), train(1200, 16, 7, 100), train(1200, 16, 1199, 30)},
		{train(100, 100, -1, 1), train(0, 1, -1, 0), train(100, 99, 1, 3)}, // more than a GSO send of the engine's
		{train(1, 60, -1, 1), train(2, 20, 1, 9), train(0, 1, -1, 0), train(0, 1, -1, 0), train(1, 1, -1, 5)},
		{train(9000, 7, -1, 1), train(30, 2, -1, 1), train(30, 2, 29, 7)},
		{train(65000, 1, -1, 1), train(600, 1, -1, 1), train(600, 5, -1, 1), train(300, 5, -1, 1)},
		{train(32000, 2, -1, 1), train(1400, 1, -1, 1), train(1400, 46, -1, 1)},
		{train(60, 64, -1, 9), train(60, 64, -1, 1), train(60, 64, 59, 8), train(60, 64, 3, 7)},
	}
	total := uint64(0)
	for range 10 {
		for _, g := range groups {
			all := slices.Concat(g...)
			for _, d := range g {
				sendTrain(t, cl, netip.AddrPort{}, d)
			}
			from := want(t, backend, all)
			for _, d := range g {
				sendTrain(t, backend, from, d)
			}
			want(t, cl, all)
			total += uint64(len(all))
		}
	}
	await(t, e, func(s udp.Stats) bool { return s.Replied >= total })
	s := e.Stats()
	if s.ClientPackets != total || s.Sent != total || s.BackendPackets != total || s.Replied != total ||
		s.ClientBytes != s.BackendBytes || s.SendErrors != 0 || s.Flows != 1 {
		t.Errorf("of %d datagrams: stats %+v", total, s)
	}
}

// mixed is a protocol of which a train has all sorts: 'd' is to be dropped, 'R' is a
// request of user b[1] numbered b[2:4], 'Q' is asked of all, 'E' is of the flow. Of
// answers, 'x' is hidden.
type mixed struct{}

func (mixed) Classify(b []byte, f lb.Flow) lb.Verdict {
	switch b[0] {
	case 'R':
		return lb.Verdict{Exchange: binary.BigEndian.Uint16(b[2:]) + 1, Keys: [lb.MaxKeys]lb.Key{lb.Uint64Key(toyUser, uint64(b[1]))}}
	case 'Q':
		return lb.Verdict{Miss: lb.MissAsk, Keys: [lb.MaxKeys]lb.Key{lb.FlowKey(f)}}
	case 'E':
		return lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{lb.FlowKey(f)}}
	}
	return lb.Verdict{Drop: true, Reason: "dropped"}
}

func (mixed) Answer(b []byte, _ lb.Flow) lb.Verdict {
	return lb.Verdict{Drop: b[0] == 'x', Stage: lb.StageEstablished}
}

// mixture makes datagrams of 40 bytes, of these kinds in turn.
func mixture(kinds string, first, n int) (list [][]byte) {
	for i := first; i < first+n; i++ {
		b := pattern(40, byte(i))
		b[0], b[1] = kinds[i%len(kinds)], byte(i/2%5)
		binary.BigEndian.PutUint16(b[2:], uint16(i))
		list = append(list, b)
	}
	return list
}

// of returns the datagrams of a kind.
func of(kind byte, list [][]byte) (r [][]byte) {
	for _, b := range list {
		if b[0] == kind {
			r = append(r, b)
		}
	}
	return r
}

// mixedWorld has three backends, which the test itself reads.
func mixedWorld(t *testing.T) (e *udp.Engine, backends []*net.UDPConn, client *net.UDPConn) {
	t.Helper()
	pool := new(lb.Pool)
	var list []lb.Backend
	first, at := listenUDP(t, "127.0.0.2:0")
	backends = append(backends, first)
	list = append(list, lb.Backend{Name: "gw0", Addr: at.Addr()})
	for i := range 2 {
		c, a := listenUDP(t, fmt.Sprintf("127.0.0.%d:%d", i+3, at.Port()))
		backends = append(backends, c)
		list = append(list, lb.Backend{Name: fmt.Sprintf("gw%d", i+1), Addr: a.Addr()})
	}
	if err := pool.Set(list...); err != nil {
		t.Fatal(err)
	}
	e = &udp.Engine{
		Balancer:   &lb.Balancer{Pool: pool, Table: new(lb.Table), Picker: new(lb.RoundRobin)},
		Classifier: mixed{}, GRO: true,
	}
	cl := dial(t, serveLoop(t, e, "127.0.0.1:0", udp.ListenConfig{Buffer: 4 << 20}, at))
	largeBuffer(t, cl)
	return e, backends, cl
}

// The datagrams of one train go where each belongs.
func TestMergedShared(t *testing.T) {
	e, backends, cl := mixedWorld(t)
	type got struct {
		backend int
		b       []byte
	}
	arrived := make(chan got, 1000)
	for i, c := range backends {
		go func() {
			for {
				b := make([]byte, 100)
				n, _, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				arrived <- got{i, b[:n]}
			}
		}()
	}
	all := mixture("RRdRRRdd", 0, 640)
	last := map[int]int{0: -1, 1: -1, 2: -1}
	for i := 0; i < len(all); i += 64 {
		sendTrain(t, cl, netip.AddrPort{}, all[i:i+64])
		for range of('R', all[i:i+64]) {
			var g got
			select {
			case g = <-arrived:
			case <-time.After(10 * time.Second):
				t.Fatalf("lost; %+v", e.Stats())
			}
			number := int(binary.BigEndian.Uint16(g.b[2:]))
			if number >= len(all) || !bytes.Equal(g.b, all[number]) || g.b[0] != 'R' {
				t.Fatalf("backend %d got %q", g.backend, g.b)
			}
			if number <= last[g.backend] {
				t.Errorf("backend %d got %d after %d", g.backend, number, last[g.backend])
			}
			last[g.backend] = number
		}
	}
	// What was sent is counted after it has been sent.
	await(t, e, func(s udp.Stats) bool {
		return s.Merged > 0 && s.Sockets == 3 && s.Dropped == 240 && s.Sent == 400 && s.ClientPackets == 640
	})
}

// Some of a train is dropped, or asked of all; of the answers some are hidden.
func TestMergedDrops(t *testing.T) {
	e, backends, cl := mixedWorld(t)
	ask := mixture("QdQQd", 0, 60)
	sendTrain(t, cl, netip.AddrPort{}, ask)
	var from netip.AddrPort
	for _, b := range backends {
		from = want(t, b, of('Q', ask))
	}
	backend := backends[2]
	for round := range 20 {
		answer := mixture("xEExxEEEE", round, 63)
		sendTrain(t, backend, from, answer)
		want(t, cl, of('E', answer))
		request := mixture("EEdEddEEE", round, 100)
		sendTrain(t, cl, netip.AddrPort{}, request)
		want(t, backend, of('E', request))
		// With what arrives by itself before and after.
		for _, d := range [][][]byte{request[:2], request[3:4], request[6:9], request[11:13]} {
			if len(of('E', d)) == len(d) {
				sendTrain(t, cl, netip.AddrPort{}, d)
				want(t, backend, d)
			}
		}
	}
	await(t, e, func(s udp.Stats) bool {
		return s.Merged > 0 && s.Hidden > 0 && s.Dropped > 0 && s.SendErrors == 0 && s.Sent+s.Dropped == s.ClientPackets+2*36
	})
}

// Nothing is allocated for merged datagrams.
func TestMergedNoAllocs(t *testing.T) {
	if testing.CoverMode() != "" {
		t.Skip("coverage counts as allocation")
	}
	e := &udp.Engine{Classifier: asESP{}, GRO: true}
	backend, addr := listenUDP(t, "127.0.0.2:0")
	at := serveLoop(t, e, "0.0.0.0:0", udp.ListenConfig{}, addr)
	cl := dial(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()))
	const size, count = 1400, 16
	b, oob, got := pattern(size*count, 9), segments(size), make([]byte, 2000)
	var from netip.AddrPort
	exchange := func() {
		if _, _, err := cl.WriteMsgUDP(b, oob, nil); err != nil {
			t.Fatal(err)
		}
		for range count {
			var err error
			if _, from, err = backend.ReadFromUDPAddrPort(got); err != nil {
				t.Fatal(err)
			}
		}
		if _, _, err := backend.WriteMsgUDPAddrPort(b, oob, from); err != nil {
			t.Fatal(err)
		}
		for range count {
			if _, err := cl.Read(got); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 20 {
		exchange()
	}
	const trains = 200
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range trains {
		exchange()
	}
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > trains*count/10 {
		t.Errorf("%d allocations for %d trains of %d there and back", n, trains, count)
	}
	if s := e.Stats(); s.Merged < 2*trains {
		t.Errorf("stats %+v", s)
	}
}
