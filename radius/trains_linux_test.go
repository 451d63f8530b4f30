//go:build linux && (amd64 || arm64)

package radius

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// Packets of all lengths arrive as they are, in order, whether they leave in trains
// or not.
func TestTrains(t *testing.T) {
	for _, way := range []struct {
		name          string
		linked, alone bool
		listen        string
	}{
		{name: "link", linked: true, listen: "127.0.0.1:0"},
		{name: "link without", linked: true, alone: true, listen: "127.0.0.1:0"},
		{name: "front", listen: "127.0.0.1:0"},
		{name: "IPv6 front", listen: "[::1]:0"},
	} {
		t.Run(way.name, func(t *testing.T) {
			to, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(way.listen)))
			if err != nil {
				t.Skip(err)
			}
			defer to.Close()
			prepare(to)
			target := to.LocalAddr().(*net.UDPAddr).AddrPort()
			b := trainSocket(t, target, way.linked)
			b.noTrains.Store(way.alone)
			bufs := trainPackets()
			var tos []dest
			for range bufs {
				tos = append(tos, dest{to: target, local: target.Addr()})
			}
			if way.linked {
				tos = nil
			}
			var s post
			if n, err := s.sendBatch(b, bufs, tos); n != len(bufs) || err != nil {
				t.Fatalf("sent %d of %d: %v", n, len(bufs), err)
			}
			if b.noTrains.Load() != way.alone {
				t.Error("trains can't be sent here")
			}
			buf := make([]byte, 5000)
			for i, want := range bufs {
				_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
				n, err := to.Read(buf)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(buf[:n], want) {
					t.Fatalf("packet %d has %d bytes, %q; want %d, %q", i, n, buf[:4], len(want), want[:4])
				}
			}
		})
	}
}

// trainSocket makes what packets are sent to target with.
func trainSocket(t *testing.T, target netip.AddrPort, linked bool) *batch {
	t.Helper()
	var c *net.UDPConn
	var err error
	if linked {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(target))
	} else {
		c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(target.Addr(), 0)))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	prepare(c)
	return newBatch(c)
}

// trainPackets makes packets in runs of one length: short and long ones, more than
// fit in a train, and some that are in none.
func trainPackets() (bufs [][]byte) {
	for _, run := range [][2]int{{1, 100}, {70, 120}, {2, 119}, {1, 121}, {3, trainPacket}, {3, trainPacket + 1}, {2, MaxLen}, {70, 1000}} {
		for range run[0] {
			b := bytes.Repeat([]byte{byte(len(bufs))}, run[1])
			copy(b, fmt.Sprintf("%04d", len(bufs)))
			bufs = append(bufs, b)
		}
	}
	return bufs
}

// What goes to different clients, or comes from different addresses of ours, isn't
// one train.
func TestTrainsPart(t *testing.T) {
	b := trainSocket(t, netip.MustParseAddrPort("127.0.0.1:9"), false)
	var s post
	bufs := make([][]byte, 4)
	for i := range bufs {
		bufs[i] = make([]byte, 50)
	}
	one, two := dest{to: netip.MustParseAddrPort("127.0.0.1:1")}, dest{to: netip.MustParseAddrPort("127.0.0.1:2")}
	other := dest{to: two.to, local: netip.MustParseAddr("127.0.0.3")}
	s.load(b, bufs, []dest{one, one, two, other})
	if s.n != 3 || s.count[0] != 2 || s.count[1] != 1 || s.count[2] != 1 {
		t.Errorf("%d messages of %v packets", s.n, s.count[:s.n])
	}
	s.load(b, bufs, []dest{one, two, one, two})
	if s.n != 4 {
		t.Errorf("%d messages, want 4", s.n)
	}
}

// A socket that trains can't be sent with sends the same packets by themselves.
func TestTrainsRefused(t *testing.T) {
	to, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	b := trainSocket(t, to.LocalAddr().(*net.UDPAddr).AddrPort(), true)
	const soNoCheck = 11 // without checksums the kernel takes no trains
	if err := b.raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soNoCheck, 1)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	var s post
	bufs := [][]byte{[]byte("one"), []byte("two"), []byte("and 3")}
	if n, err := s.sendBatch(b, bufs, nil); n != 3 || err != nil {
		t.Fatalf("sent %d: %v", n, err)
	}
	if !b.noTrains.Load() {
		t.Error("trains are still tried")
	}
	buf := make([]byte, 100)
	for _, want := range bufs {
		_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := to.Read(buf); err != nil || string(buf[:n]) != string(want) {
			t.Fatalf("got %q, %v; want %q", buf[:n], err, want)
		}
	}
}
