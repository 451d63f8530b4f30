//go:build linux && (amd64 || arm64)

package radius

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/aovlb/aovlb/lb/udp"
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
	for _, run := range [][2]int{{1, 100}, {70, 120}, {2, 119}, {1, 118}, {1, 117}, {1, 121}, {3, trainPacket}, {3, trainPacket + 1}, {2, MaxLen}, {70, 1000}} {
		for range run[0] {
			b := bytes.Repeat([]byte{byte(len(bufs))}, run[1])
			copy(b, fmt.Sprintf("%04d", len(bufs)))
			bufs = append(bufs, b)
		}
	}
	return bufs
}

// Where the kernel doesn't know trains, it takes one for a long packet. Sockets for
// pings are such, and so are those for UDP before Linux 4.18.
func TestTrainsUnknown(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, syscall.IPPROTO_ICMP)
	if err != nil {
		t.Skipf("net.ipv4.ping_group_range forbids this user's pings: %v", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	c, err := net.FilePacketConn(file)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	u, ok := c.(*net.UDPConn)
	if !ok {
		t.Fatalf("it is a %T", c)
	}
	b := newBatch(u)
	to := dest{to: netip.MustParseAddrPort("127.0.0.1:0")}
	var bufs [][]byte
	for i := range 3 { // echo requests
		bufs = append(bufs, []byte{8, 0, 0, 0, 0, 0, 0, byte(i), 1, 2, 3, 4})
	}
	var s post
	s.load(b, bufs, []dest{to, to, to})
	if s.n != len(bufs) {
		t.Errorf("%d packets leave as %d messages", len(bufs), s.n)
	}
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

// A train ends with the first packet that is shorter than the others.
func TestTrainsEnd(t *testing.T) {
	b := trainSocket(t, netip.MustParseAddrPort("127.0.0.1:9"), true)
	for _, tt := range []struct {
		lengths []int
		want    []int
	}{
		{[]int{50, 50, 50}, []int{3}},
		{[]int{50, 50, 40}, []int{3}},
		{[]int{50, 40, 40}, []int{2, 1}},
		{[]int{50, 40, 30, 20}, []int{2, 2}},
		{[]int{40, 50}, []int{1, 1}},
		{[]int{trainPacket + 1, trainPacket, 20}, []int{1, 2}},
		{[]int{50, 0, 50}, []int{1, 1, 1}},
	} {
		var s post
		var bufs [][]byte
		for _, n := range tt.lengths {
			bufs = append(bufs, make([]byte, n))
		}
		s.load(b, bufs, nil)
		if got := s.count[:s.n]; !slices.Equal(got, tt.want) {
			t.Errorf("lengths %v leave as %v packets, want %v", tt.lengths, got, tt.want)
		}
	}
}

// Trains that arrive are taken apart, each packet with whence and whereto it came,
// among packets by themselves, empty ones, and those that are too large.
func TestInboxTakesTrains(t *testing.T) {
	for at, by := range map[string]string{"0.0.0.0:0": "127.0.0.1", "[::]:0": "::1"} {
		t.Run(at, func(t *testing.T) { takeTrains(t, netip.MustParseAddrPort(at), netip.MustParseAddr(by)) })
	}
}

func takeTrains(t *testing.T, at netip.AddrPort, by netip.Addr) {
	conns, err := udp.Listen(t.Context(), at, udp.ListenConfig{})
	if err != nil {
		t.Skip(err)
	}
	defer conns[0].Close()
	to := conns[0].(*net.UDPConn)
	prepare(to)
	target := netip.AddrPortFrom(by, to.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	shelf := newShelf(1)
	in := newBatch(to).inbox(shelf, true).(*mmsgInbox)
	out := trainSocket(t, target, true)
	want := slices.Concat(trainPackets(), [][]byte{{}, bytes.Repeat([]byte{1}, 9000)}, trainPackets())
	var s post
	if n, err := s.sendBatch(out, want, nil); n != len(want) || err != nil {
		t.Fatalf("sent %d of %d: %v", n, len(want), err)
	}
	from := out.conn.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = to.SetReadDeadline(time.Now().Add(10 * time.Second))
	messages := 0
	for len(want) > 0 {
		n, err := in.recv()
		if err != nil {
			t.Fatalf("%d packets are missing: %v", len(want), err)
		}
		messages += in.n
		for i := range n {
			if !bytes.Equal(in.at(i), want[i]) || in.from(i) != from || in.local(i) != by {
				t.Fatalf("got %d bytes from %v to %v; want %d from %v to %v", len(in.at(i)), in.from(i), in.local(i), len(want[i]), from, by)
			}
		}
		want = want[n:]
	}
	if all := 2*len(trainPackets()) + 2; messages > all/2 {
		t.Errorf("%d packets came in %d messages: no trains", all, messages)
	}
	_ = to.SetReadDeadline(time.Now())
	if n, err := in.recv(); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received %d, %v", n, err)
	}
	if in.s != nil || len(shelf) != 1 {
		t.Error("the room wasn't given back")
	}
}

// Receiving and sending trains doesn't allocate.
func TestTrainsDoNotAllocate(t *testing.T) {
	to, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Skip(err)
	}
	defer to.Close()
	in := newBatch(to).inbox(newShelf(1), true)
	h := &hand{}
	target := to.LocalAddr().(*net.UDPAddr).AddrPort()
	b := trainSocket(t, target, true)
	packets := [][]byte{make([]byte, 90), make([]byte, 100), make([]byte, 100)}
	if n := testing.AllocsPerRun(100, func() {
		h.mail = h.mail[:0]
		for _, p := range packets {
			h.mail = append(h.mail, letter{b: p})
		}
		h.order()
		if _, err := h.post.sendBatch(b, h.bufs, nil); err != nil {
			t.Error(err)
		}
		for got := 0; got < len(packets); {
			n, err := in.recv()
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever the kernel says of a message, its packets lie within it.
func FuzzSplit(f *testing.F) {
	f.Add(300, uint64(20), int32(syscall.IPPROTO_UDP), int32(udpGRO), []byte{100, 0, 0, 0})
	f.Add(300, uint64(20), int32(syscall.IPPROTO_UDP), int32(udpGRO), []byte{0, 0, 0, 0})
	f.Add(0, uint64(20), int32(syscall.IPPROTO_UDP), int32(udpGRO), []byte{255, 255, 255, 255})
	f.Add(99, uint64(28), int32(syscall.IPPROTO_IP), int32(syscall.IP_PKTINFO), make([]byte, 12))
	s := newSlots()
	f.Fuzz(func(t *testing.T, whole int, size uint64, level, kind int32, data []byte) {
		s.wipe()
		s.dirty = 1
		s.hdrs[0].n = uint32(min(max(whole, 0), slotLen))
		c := (*syscall.Cmsghdr)(unsafe.Pointer(&s.control[0]))
		c.Len, c.Level, c.Type = size, level, kind
		n := copy(s.control[0][syscall.SizeofCmsghdr:], data)
		s.hdrs[0].SetControllen(syscall.SizeofCmsghdr + n)
		end := 0
		for _, p := range s.packets[:s.split(1, true)] {
			if p.msg != 0 || p.at != end || p.end < p.at {
				t.Fatalf("%+v behind %d", p, end)
			}
			end = p.end
		}
		if end != int(s.hdrs[0].n) {
			t.Fatalf("%d of %d bytes", end, s.hdrs[0].n)
		}
	})
}

// What goes to one client goes together, and the long ones first; what accounting
// there is stays as it came.
func TestOrder(t *testing.T) {
	one, two := dest{to: netip.MustParseAddrPort("192.0.2.1:1")}, dest{to: netip.MustParseAddrPort("192.0.2.2:1")}
	letters := func(first Code) (all []letter) {
		for i, n := range []int{30, 50, 40, 50, 40} {
			b := make([]byte, n)
			b[0], b[1] = byte(AccessAccept), byte(i)
			all = append(all, letter{b, []dest{two, one}[i%2]})
		}
		all[0].b[0] = byte(first)
		return all
	}
	for first, want := range map[Code][]byte{AccessAccept: {1, 3, 2, 4, 0}, AccountingRequest: {0, 1, 2, 3, 4}} {
		h := &hand{mail: letters(first)}
		h.order()
		var got []byte
		for i, b := range h.bufs {
			got = append(got, b[1])
			if h.tos[i] != []dest{two, one}[b[1]%2] {
				t.Errorf("packet %d goes to %v", b[1], h.tos[i])
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("with %v: %v, want %v", first, got, want)
		}
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
