package fastpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb/udp"
)

// These tests run the kernel's programs on single packets (BPF_PROG_TEST_RUN), in a
// network namespace with two devices:
//
//	clients ── va 02:…:0a 192.0.2.1 2001:db8:1::1     vb 02:…:0b 198.51.100.1 2001:db8:2::1 ── gateways
//	           192.0.2.9 is at 02:…:c1                  198.51.100.9 is at 02:…:d1

var (
	macA, macB = [6]byte{2, 0, 0, 0, 0, 0x0a}, [6]byte{2, 0, 0, 0, 0, 0x0b}
	macC, macG = [6]byte{2, 0, 0, 0, 0, 0xc1}, [6]byte{2, 0, 0, 0, 0, 0xd1}
)

const deviceSize = 16 // of struct device

type bench struct {
	t    *testing.T
	p    *Path
	c    *Carrier
	a, b uint32 // devices
}

// newBench makes the namespace, and has the calling thread be in it.
func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") == "" {
		t.Skip("AOVLB_PEERS is not set")
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip")
	}
	runtime.LockOSThread() // and never unlock: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	sh(t, `
ip link set lo up
for d in a b; do ip link add name v$d type veth peer name p$d; ip link set v$d address 02:00:00:00:00:0$d; ip link set p$d up; ip link set v$d up; done
ip addr add 192.0.2.1/24 dev va; ip addr add 2001:db8:1::1/64 dev va nodad
ip addr add 198.51.100.1/24 dev vb; ip addr add 2001:db8:2::1/64 dev vb nodad
for i in 9 10; do
 ip neigh add 192.0.2.$i lladdr 02:00:00:00:00:c1 dev va; ip neigh add 2001:db8:1::$i lladdr 02:00:00:00:00:c1 dev va
 ip neigh add 198.51.100.$i lladdr 02:00:00:00:00:d1 dev vb; ip neigh add 2001:db8:2::$i lladdr 02:00:00:00:00:d1 dev vb
done
ip route add 203.0.113.0/24 via 198.51.100.9 mtu lock 1000
`)
	p, err := Open(Config{
		Interfaces: []string{"va", "vb"}, MaxFlows: 16,
		At: []netip.AddrPort{ap("192.0.2.1:500"), ap("192.0.2.1:4500"), ap("[2001:db8:1::1]:500"), ap("[2001:db8:1::1]:4500")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(false); err != nil {
			t.Error(err)
		}
	})
	x := &bench{t: t, p: p, c: p.Carrier()}
	for i, a := range p.attached {
		switch a.name {
		case "va":
			x.a = i
		case "vb":
			x.b = i
		}
	}
	return x
}

func sh(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s\n%s%v", script, out, err)
	}
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

var (
	natFlow4 = udp.FastFlow{Client: ap("192.0.2.9:1234"), Listener: ap("192.0.2.1:4500"), Local: ap("198.51.100.1:40000"), Backend: ap("198.51.100.9:4500")}
	natFlow6 = udp.FastFlow{Client: ap("[2001:db8:1::9]:1234"), Listener: ap("[2001:db8:1::1]:4500"), Local: ap("[2001:db8:2::1]:40000"), Backend: ap("[2001:db8:2::9]:4500")}
	ownFlow4 = udp.FastFlow{Client: ap("192.0.2.10:1234"), Listener: ap("192.0.2.1:4500"), Local: ap("192.0.2.10:1234"), Backend: ap("198.51.100.9:4500")}
	ownFlow6 = udp.FastFlow{Client: ap("[2001:db8:1::10]:1234"), Listener: ap("[2001:db8:1::1]:4500"), Local: ap("[2001:db8:1::10]:1234"), Backend: ap("[2001:db8:2::9]:4500")}
)

const (
	spiUp   = 0x01020304
	spiDown = 0x0a0b0c0d
)

// carry has a flow be carried, with the SPIs above.
func (x *bench) carry(f udp.FastFlow) uint64 {
	x.t.Helper()
	id, ok := x.c.Carry(f, payload(spiUp, 20), false)
	if ok {
		id, ok = x.c.Carry(f, payload(spiDown, 20), true)
	}
	if !ok {
		x.t.Fatalf("%+v is refused", f)
	}
	return id
}

func payload(spi uint32, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	for i := len(b); i < n; i++ {
		b = append(b, byte(i*11))
	}
	return b[:n]
}

// packet is a UDP packet in an Ethernet frame.
type packet struct {
	from, to     [6]byte
	src, dst     netip.AddrPort
	ttl          byte
	tos          byte
	frag         uint16
	options      int // octets of IP options
	noChecksum   bool
	vlan         uint16
	proto        byte // if not 17
	extraUDP     int  // what the UDP length says too much
	badTransport bool // the checksum is wrong, and must stay as wrong
	b            []byte
}

func checksum(sum uint32, b []byte) uint16 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func sumOf(b ...[]byte) (sum uint32) {
	for _, p := range b {
		sum += uint32(^checksum(0, p))
	}
	return sum
}

// bytes makes the frame.
func (p packet) bytes() []byte {
	src, dst := p.src.Addr().AsSlice(), p.dst.Addr().AsSlice()
	u := binary.BigEndian.AppendUint16(nil, p.src.Port())
	u = binary.BigEndian.AppendUint16(u, p.dst.Port())
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(p.b)+p.extraUDP))
	u = append(append(u, 0, 0), p.b...)
	if !p.noChecksum {
		c := checksum(sumOf(src, dst)+17+uint32(8+len(p.b)+p.extraUDP), u)
		if c == 0 {
			c = 0xffff
		}
		if p.badTransport {
			c = checksum(uint32(^c), []byte{0x11, 0x11})
		}
		binary.BigEndian.PutUint16(u[6:], c)
	}
	proto := p.proto
	if proto == 0 {
		proto = 17
	}
	b := append(p.to[:6:6], p.from[:]...)
	if p.vlan != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), p.vlan)
	}
	if p.src.Addr().Is4() {
		h := []byte{0x45 + byte(p.options/4), p.tos, 0, 0, 0, 7, byte(p.frag >> 8), byte(p.frag), p.ttl, proto, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+p.options+len(u)))
		h = append(append(append(h, src...), dst...), bytes.Repeat([]byte{1}, p.options)...)
		binary.BigEndian.PutUint16(h[10:], checksum(0, h))
		return append(append(append(b, 8, 0), h...), u...)
	}
	h := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(p.tos)<<20|0x12345)
	h = append(binary.BigEndian.AppendUint16(h, uint16(len(u))), proto, p.ttl)
	return append(append(append(append(b, 0x86, 0xdd), append(h, src...)...), dst...), u...)
}

const (
	ranNext     = ^uint32(0)
	ranSend     = 7
	ranShot     = 2
	ranDrop     = 1
	ranPass     = 2
	ranRedirect = 4
)

// tc runs the program for TC on a frame that came to a device.
func (x *bench) tc(frame []byte, device uint32) (ret uint32, out []byte) {
	x.t.Helper()
	ctx := make([]byte, 192)
	binary.NativeEndian.PutUint32(ctx[40:], device) // __sk_buff.ifindex
	out = make([]byte, len(frame)+256)
	o := &ebpf.RunOptions{Data: frame, DataOut: out, Context: ctx}
	ret, err := x.p.tc.Run(o)
	if err != nil {
		x.t.Fatal(err)
	}
	return ret, o.DataOut
}

func (x *bench) xdp(frame []byte, device uint32) (ret uint32, out []byte) {
	x.t.Helper()
	ctx := struct{ Data, DataEnd, Meta, Ifindex, Queue, Egress uint32 }{DataEnd: uint32(len(frame)), Ifindex: device}
	out = make([]byte, len(frame)+256)
	o := &ebpf.RunOptions{Data: frame, DataOut: out, Context: ctx}
	ret, err := x.p.xdp.Run(o)
	if err != nil {
		x.t.Fatal(err)
	}
	return ret, o.DataOut
}

// enableXDP has the program believe that devices can be sent by.
func (x *bench) enableXDP() {
	for i := range 64 {
		if d := x.p.devices[i*deviceSize:]; d[6] == 1 {
			d[7] = 1
		}
	}
}

func (x *bench) passed(why string) uint64 { return x.p.Stats().Passed[why] }

// both directions of a flow: what comes in by device, and what must go out.
type direction struct {
	name    string
	device  func(*bench) uint32
	in, out packet
}

func directions(f udp.FastFlow) []direction {
	return []direction{
		{
			"up", func(x *bench) uint32 { return x.a },
			packet{from: macC, to: macA, src: f.Client, dst: f.Listener, ttl: 64, tos: 0xb9, b: payload(spiUp, 99)},
			packet{from: macB, to: macG, src: f.Local, dst: f.Backend, ttl: 63, tos: 0xb9, b: payload(spiUp, 99)},
		},
		{
			"down", func(x *bench) uint32 { return x.b },
			packet{from: macG, to: macB, src: f.Backend, dst: f.Local, ttl: 64, tos: 0xb9, b: payload(spiDown, 1400)},
			packet{from: macA, to: macC, src: f.Listener, dst: f.Client, ttl: 63, tos: 0xb9, b: payload(spiDown, 1400)},
		},
	}
}

// A packet of a flow is rewritten, with all checksums right, for each family, mode
// and hook; and counted.
func TestRewrite(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	for name, f := range map[string]udp.FastFlow{"NAT IPv4": natFlow4, "NAT IPv6": natFlow6, "transparent IPv4": ownFlow4, "transparent IPv6": ownFlow6} {
		id := x.carry(f)
		for _, d := range directions(f) {
			for _, v := range []struct {
				name string
				edit func(*packet)
			}{
				{"checksum", func(*packet) {}},
				{"no checksum", func(p *packet) { p.noChecksum = true }},
				{"wrong checksum", func(p *packet) { p.badTransport = true }},
				{"DF", func(p *packet) { p.frag = 0x4000 }},
				{"shortest", func(p *packet) { p.b = p.b[:12] }},
				{"checksum that becomes zero", func(p *packet) { p.b = zeroing(p, d.out) }},
			} {
				in, out := d.in, d.out
				v.edit(&in)
				v.edit(&out)
				out.b = in.b
				for hook, run := range map[string]func([]byte, uint32) (uint32, []byte){"tc": x.tc, "xdp": x.xdp} {
					before := x.c.Carried(id)
					ret, got := run(in.bytes(), d.device(x))
					label := fmt.Sprintf("%s, %s, %s, %s", name, d.name, v.name, hook)
					if want := map[string]uint32{"tc": ranSend, "xdp": ranRedirect}[hook]; ret != want {
						t.Errorf("%s: returned %d, want %d; left: %v", label, ret, want, x.p.Stats().Passed)
						continue
					}
					if diff := cmp.Diff(out.bytes(), got); diff != "" {
						t.Errorf("%s: (-want +got)\n%s", label, diff)
					}
					now := x.c.Carried(id)
					if up := now.ClientPackets - before.ClientPackets; (up == 1) != (d.name == "up") || now.BackendPackets-before.BackendPackets != 1-up ||
						now.ClientBytes-before.ClientBytes+now.BackendBytes-before.BackendBytes != uint64(len(in.b)) {
						t.Errorf("%s: counted %+v, before %+v", label, now, before)
					}
				}
			}
		}
	}
}

// zeroing returns the payload of in, changed so that the checksum of what goes out
// comes out as zero, which is then written as all ones.
func zeroing(in *packet, out packet) []byte {
	out.b = append([]byte(nil), in.b...)
	n := len(out.b) &^ 1
	binary.BigEndian.PutUint16(out.b[n-2:], 0)
	frame := out.bytes()
	at := 14 + 20 + 6
	if out.src.Addr().Is6() {
		at += 20
	}
	binary.BigEndian.PutUint16(out.b[n-2:], binary.BigEndian.Uint16(frame[at:]))
	return out.b
}

// What isn't to be carried is left as it is, for each reason.
func TestLeave(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	x.carry(natFlow4)
	x.carry(natFlow6)
	far := udp.FastFlow{Client: ap("192.0.2.9:1235"), Listener: ap("192.0.2.1:4500"), Local: ap("198.51.100.1:40001"), Backend: ap("203.0.113.5:4500")}
	x.carry(far)
	lost := udp.FastFlow{Client: ap("192.0.2.9:1236"), Listener: ap("192.0.2.1:4500"), Local: ap("198.51.100.1:40002"), Backend: ap("10.9.9.9:4500")}
	x.carry(lost)
	deaf := udp.FastFlow{Client: ap("192.0.2.9:1237"), Listener: ap("192.0.2.1:4500"), Local: ap("198.51.100.1:40003"), Backend: ap("198.51.100.77:4500")}
	x.carry(deaf)
	from := func(f udp.FastFlow) packet {
		return packet{from: macC, to: macA, src: f.Client, dst: f.Listener, ttl: 64, b: payload(spiUp, 100)}
	}
	for _, c := range []struct {
		name, why string
		six       bool // possible with IPv6 too
		edit      func(*packet)
	}{
		{"unknown client", "", true, func(p *packet) { p.src = netip.AddrPortFrom(p.src.Addr(), 99) }},
		{"marker", "control", true, func(p *packet) { copy(p.b, make([]byte, 4)) }},
		{"keepalive", "", true, func(p *packet) { p.b = []byte{0xff} }},
		{"eleven octets", "", true, func(p *packet) { p.b = p.b[:11] }},
		{"unknown SPI", "spi", true, func(p *packet) { p.b[3]++ }},
		{"SPI of the other direction", "spi", true, func(p *packet) { p.b = payload(spiDown, 50) }},
		{"keepalive and padding", "form", true, func(p *packet) { p.b = append([]byte{0xff}, make([]byte, 17)...); p.extraUDP = -17 }},
		{"lengths that disagree", "form", true, func(p *packet) { p.extraUDP = 4 }},
		{"time to live", "ttl", true, func(p *packet) { p.ttl = 1 }},
		{"options", "", false, func(p *packet) { p.options = 8 }},
		{"first fragment", "fragment", false, func(p *packet) { p.frag = 0x2000 }},
		{"last fragment", "fragment", false, func(p *packet) { p.frag = 100 }},
		{"reserved bit", "fragment", false, func(p *packet) { p.frag = 0x8000 }},
		{"fragment header", "fragment", true, func(p *packet) {
			if p.src.Addr().Is6() {
				p.proto = 44
			} else {
				p.frag = 0x2001
			}
		}},
		{"TCP", "", true, func(p *packet) { p.proto = 6 }},
		{"too big", "too big", false, func(p *packet) { *p = from(far); p.b = payload(spiUp, 1000-27) }},
		{"no route", "no route", false, func(p *packet) { *p = from(lost) }},
		{"no neighbour", "no neighbour", false, func(p *packet) { *p = from(deaf) }},
		{"for another machine", "", true, func(p *packet) { p.to[5]++ }},
	} {
		for _, f := range []udp.FastFlow{natFlow4, natFlow6} {
			if f == natFlow6 && !c.six {
				continue
			}
			p := from(f)
			c.edit(&p)
			frame := p.bytes()
			before := uint64(0)
			if c.why != "" {
				before = x.passed(c.why)
			}
			ret, out := x.tc(frame, x.a)
			if ret != ranNext || !bytes.Equal(out, frame) {
				t.Errorf("%s: TC returned %d, or it was changed", c.name, int32(ret))
			}
			if c.why != "" && x.passed(c.why) != before+1 {
				t.Errorf("%s: %q wasn't counted: %v", c.name, c.why, x.p.Stats().Passed)
			}
			if ret, out = x.xdp(frame, x.a); ret != ranPass || !bytes.Equal(out, frame) {
				t.Errorf("%s: XDP returned %d, or it was changed", c.name, ret)
			}
		}
	}
	p := from(far)
	p.b = payload(spiUp, 1000-28)
	if ret, _ := x.tc(p.bytes(), x.a); ret != ranSend {
		t.Errorf("a packet as large as the way takes: returned %d", int32(ret))
	}
}

// First messages to the listeners are dropped when too many have come, and nothing else
// is.
func TestFirstMessages(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	x.carry(natFlow4)
	x.carry(natFlow6)
	onFirstProcessor(t)
	seen := func(yes uint8) {
		d := &unsafe.Slice((*device)(unsafe.Pointer(unsafe.SliceData(x.p.devices))), maxDevices)[x.a]
		d.Seen = yes
	}
	hooks := map[string]struct {
		run        func([]byte, uint32) (uint32, []byte)
		pass, drop uint32
	}{"tc": {x.tc, ranNext, ranShot}, "xdp": {x.xdp, ranPass, ranDrop}}
	stranger4 := packet{from: macC, to: macA, src: ap("192.0.2.7:999"), dst: ap("192.0.2.1:4500"), ttl: 64, b: first(true)}
	stranger6 := packet{from: macC, to: macA, src: ap("[2001:db8:1::7]:999"), dst: ap("[2001:db8:1::1]:4500"), ttl: 64, b: first(true)}
	set500 := func(p *packet) { p.dst, p.b = netip.AddrPortFrom(p.dst.Addr(), 500), first(false) }
	for _, c := range []struct {
		name  string
		first bool
		four  bool // only of IPv4
		edit  func(*packet)
	}{
		{"first message at 4500", true, false, func(*packet) {}},
		{"first message at 500", true, false, set500},
		{"first message at 4500, without the marker", true, false, func(p *packet) { p.b = first(false) }},
		{"first message at 500, with the marker", true, false, func(p *packet) { p.dst = netip.AddrPortFrom(p.dst.Addr(), 500) }},
		{"from 500", true, false, func(p *packet) { p.src = netip.AddrPortFrom(p.src.Addr(), 500) }},
		{"answered already", false, false, func(p *packet) { p.b[4+8] = 1 }},
		{"answered already, the last octet", false, false, func(p *packet) { p.b[4+15] = 1 }},
		{"answered already, at 500", false, false, func(p *packet) { set500(p); p.b[12] = 1 }},
		{"answered already, without the marker", false, false, func(p *packet) { p.b = first(false); p.b[15] = 1 }},
		{"ESP with a zero IV", false, false, func(p *packet) { p.b = payload(spiUp, 100); clear(p.b[8:16]) }},
		{"ESP with a zero IV, like IKE but for the length", false, false, func(p *packet) { p.b = append(first(false), 0) }},
		{"ESP of nobody", false, false, func(p *packet) { p.b = payload(spiUp, 100) }},
		{"keepalive", false, false, func(p *packet) { p.b = []byte{0xff} }},
		{"cut short", false, false, func(p *packet) { p.b = p.b[:19] }},
		{"no listener's port", false, false, func(p *packet) { p.dst = netip.AddrPortFrom(p.dst.Addr(), 4501) }},
		{"no listener's address", false, false, func(p *packet) { p.dst = netip.AddrPortFrom(p.dst.Addr().Next(), 4500) }},
		{"for another machine", false, false, func(p *packet) { p.to[5]++ }},
		{"TCP", false, false, func(p *packet) { p.proto = 6 }},
		{"a client that is carried", false, false, func(p *packet) {
			p.src = natFlow6.Client
			if p.dst.Addr().Is4() {
				p.src = natFlow4.Client
			}
		}},
		{"options", false, true, func(p *packet) { p.options = 8 }},
		{"first fragment", false, true, func(p *packet) { p.frag = 0x2000 }},
	} {
		for _, p := range []packet{stranger4, stranger6} {
			if c.four && p.dst.Addr().Is6() {
				continue
			}
			p.b = bytes.Clone(p.b)
			c.edit(&p)
			for name, h := range hooks {
				label := fmt.Sprintf("%s, %v, %s", c.name, p.dst, name)
				x.p.state.Apart = 0
				if ret, _ := h.run(p.bytes(), x.a); ret != h.pass {
					t.Errorf("%s: without a bound, returned %d", label, int32(ret))
				}
				x.p.state.Apart = uint64(time.Hour)
				h.run(stranger4.bytes(), x.a) // the last for long
				before, want := x.p.Stats().Dropped, h.pass
				if c.first {
					want = h.drop
				}
				if ret, out := h.run(p.bytes(), x.a); ret != want || want == h.pass && !bytes.Equal(out, p.bytes()) {
					t.Errorf("%s: returned %d, want %d, or it was changed", label, int32(ret), int32(want))
				}
				if got := x.p.Stats().Dropped - before; (got == 1) != c.first || got > 1 {
					t.Errorf("%s: %d were counted as dropped", label, got)
				}
			}
		}
	}
	for n, apart := range map[int]time.Duration{0: time.Second / DefaultFirstMessages, 1: time.Second, 1000: time.Millisecond, 1 << 40: 1, -1: 0} {
		if x.p.Bound(n); x.p.state.Apart != uint64(apart) {
			t.Errorf("a bound of %d has first messages be %d ns apart, want %v", n, x.p.state.Apart, apart)
		}
	}
	x.p.state.Apart = uint64(time.Hour)
	x.p.state.Lease = 1 // over: whoever listens now has asked for no bound
	for name, h := range hooks {
		if ret, _ := h.run(stranger4.bytes(), x.a); ret != h.pass {
			t.Errorf("%s: returned %d after the lease was over", name, int32(ret))
		}
	}
	x.p.state.Lease = 0
	seen(1)
	if ret, _ := x.tc(stranger4.bytes(), x.a); ret != ranNext {
		t.Errorf("TC dropped what XDP had let through: %d", int32(ret))
	}
	if ret, _ := x.xdp(stranger4.bytes(), x.a); ret != ranDrop {
		t.Errorf("XDP returned %d", ret)
	}
	seen(0)
	if err := x.p.Close(false); err != nil {
		t.Fatal(err)
	}
}

// Ten seconds' first messages are let through at once, and then as many in a second as
// were asked for.
func TestFirstMessagesRate(t *testing.T) {
	x := newBench(t)
	frame := packet{from: macC, to: macA, src: ap("192.0.2.7:999"), dst: ap("192.0.2.1:4500"), ttl: 64, b: first(true)}.bytes()
	onFirstProcessor(t)
	let := func() bool {
		ret, _ := x.tc(frame, x.a)
		return ret == ranNext
	}
	const clock = 10 * time.Millisecond // that of the program has steps, of less
	atOnce, start := 0, time.Now()
	for x.p.state.Apart = uint64(100 * time.Millisecond); let(); atOnce++ {
	}
	if most := 100 + 1 + int((time.Since(start)+clock)/(100*time.Millisecond)); atOnce < 100 || atOnce > most {
		t.Errorf("%d were let through at once, want 100 to %d", atOnce, most)
	}
	turned := time.Now()
	x.p.state.Apart = uint64(time.Millisecond)
	for !let() { // the last had been let through by the other bound
	}
	later, start := 0, time.Now()
	var due time.Duration // of all that was due by then, none is left
	for due < 500*time.Millisecond {
		if due = time.Since(start); let() {
			later, due = later+1, 0
		}
	}
	if least, most := int((due-clock)/time.Millisecond), int((time.Since(turned)+clock)/time.Millisecond)+1; later < least || later > most {
		t.Errorf("%d were let through, want one in each millisecond: %d to %d", later, least, most)
	}
	if n := x.p.Stats().Dropped; n == 0 {
		t.Error("none was dropped")
	}
}

// onFirstProcessor has the test stay on one processor: each counts for itself.
func onFirstProcessor(t *testing.T) {
	t.Helper()
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
}

// The kernel knows the listeners, those that come and go too, and for an unspecified
// address all of the machine's.
func TestListeners(t *testing.T) {
	x := newBench(t)
	dropped := func(to string) bool {
		ret, _ := x.tc(packet{from: macC, to: macA, src: netip.AddrPortFrom(natFlow4.Client.Addr(), 99), dst: ap(to), ttl: 64, b: first(ap(to).Port() != 500)}.bytes(), x.a)
		return ret == ranShot
	}
	onFirstProcessor(t)
	x.p.state.Apart = uint64(time.Hour)
	dropped("192.0.2.1:4500") // the last for long
	for _, c := range []struct{ at, yes, no []string }{
		{[]string{"192.0.2.1:4500"}, []string{"192.0.2.1:4500"}, []string{"192.0.2.1:500", "198.51.100.1:4500"}},
		{[]string{"0.0.0.0:500", "198.51.100.1:4500"}, []string{"192.0.2.1:500", "198.51.100.1:500", "198.51.100.1:4500"}, []string{"192.0.2.1:4500", "192.0.2.99:500"}},
		{[]string{"[::]:4500"}, []string{"192.0.2.1:4500", "198.51.100.1:4500"}, []string{"192.0.2.1:500"}},
		{nil, nil, []string{"192.0.2.1:4500", "192.0.2.1:500"}},
	} {
		var at []netip.AddrPort
		for _, s := range c.at {
			at = append(at, ap(s))
		}
		x.p.Watch(at, nil)
		x.p.mu.Lock()
		err := x.p.refresh()
		x.p.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range c.yes {
			if !dropped(to) {
				t.Errorf("at %v: %s isn't known", c.at, to)
			}
		}
		for _, to := range c.no {
			if dropped(to) {
				t.Errorf("at %v: %s is known", c.at, to)
			}
		}
	}
}

// first is a first message, behind a marker or not.
func first(marker bool) []byte {
	b := make([]byte, 4+28, 100)
	copy(b[4:], "initiatr")
	b[4+17], b[4+18], b[4+19], b[4+27] = 0x20, 34, 8, 28
	if !marker {
		b = b[4:]
	}
	return b
}

// What is revoked, what has ended, what is leased for too short a time, and what
// leads to a device that can't be sent by, isn't carried.
func TestUntil(t *testing.T) {
	x := newBench(t)
	id := x.carry(natFlow4)
	other := x.p.Carrier()
	frame := packet{from: macC, to: macA, src: natFlow4.Client, dst: natFlow4.Listener, ttl: 64, b: payload(spiUp, 100)}.bytes()
	want := func(what string, carried bool) {
		t.Helper()
		if ret, _ := x.tc(frame, x.a); (ret == ranSend) != carried {
			t.Errorf("%s: returned %d", what, int32(ret))
		}
	}
	want("at first", true)
	other.Revoke(natFlow4.Backend.Addr())
	want("revoked by another", true)
	x.c.Revoke(netip.MustParseAddr("198.51.100.10"))
	want("another revoked", true)
	x.c.Revoke(natFlow4.Backend.Addr())
	want("revoked", false)
	if got, ok := x.c.Carry(natFlow4, payload(spiUp, 20), false); !ok || got != id {
		t.Errorf("carried again as %d, %v", got, ok)
	}
	want("carried again", true)
	x.p.state.Lease = 1
	want("after its lease", false)
	x.p.state.Lease = uint64(monotonic()) + 1e10
	want("within its lease", true)
	x.p.state.Lease = 0
	device := x.p.devices[x.b*deviceSize : (x.b+1)*deviceSize]
	was := append([]byte(nil), device...)
	clear(device)
	want("without a device", false)
	copy(device, was)
	want("with it", true)
	if u := x.c.End(id); u.ClientPackets != 6 {
		t.Errorf("carried %+v in all, want 6 packets", u)
	}
	want("ended", false)
	if u := x.c.Carried(id); u != (udp.FastUse{}) {
		t.Errorf("after its end: %+v", u)
	}
	x.c.End(id)
	if s := x.p.Stats(); s.Flows != 0 {
		t.Errorf("%d flows, want none", s.Flows)
	}
}

// A VLAN's tag is taken off, put on and changed by XDP, as the devices say. TC is at
// the VLAN's own device, where there is none, so a frame that has one isn't its.
func TestVLAN(t *testing.T) {
	x := newBench(t)
	x.enableXDP()
	tag := func(device uint32, v uint16) {
		binary.NativeEndian.PutUint16(x.p.devices[device*deviceSize+4:], v)
	}
	for name, f := range map[string]udp.FastFlow{"NAT IPv4": natFlow4, "NAT IPv6": natFlow6, "transparent IPv4": ownFlow4, "transparent IPv6": ownFlow6} {
		x.carry(f)
		for _, d := range directions(f) {
			in, out := d.in, d.out
			to := x.b
			if d.name == "down" {
				to = x.a
			}
			for _, c := range []struct{ in, out uint16 }{{0, 0}, {0, 6}, {5, 0}, {5, 6}, {0x6005, 0x6006}} {
				tag(to, c.out&0xfff)
				in.vlan, out.vlan = c.in, c.out
				ret, got := x.xdp(in.bytes(), d.device(x))
				if diff := cmp.Diff(out.bytes(), got); ret != ranRedirect || diff != "" {
					t.Errorf("%s, %s: tag %x to %x: returned %d (-want +got)\n%s", name, d.name, c.in, c.out, ret, diff)
				}
			}
			tag(to, 0)
			in.vlan = 5
			if ret, got := x.tc(in.bytes(), d.device(x)); ret != ranNext || !bytes.Equal(got, in.bytes()) {
				t.Errorf("%s, %s: TC returned %d for a frame with a tag, and made %x of %x", name, d.name, ret, got, in.bytes())
			}
			// Two tags are nobody's, and one that is cut off isn't either.
			twice := slices.Insert(in.bytes(), 12, 0x81, 0, 0, 9)
			for _, b := range [][]byte{twice, in.bytes()[:14+4+20]} {
				if ret, got := x.xdp(b, d.device(x)); ret != ranPass || !bytes.Equal(got, b) {
					t.Errorf("%s, %s: XDP returned %d for %x, and made %x of it", name, d.name, ret, b, got)
				}
			}
		}
	}
}

// The object that is committed is what the source makes, where there is the same
// clang.
func TestObject(t *testing.T) {
	for _, tool := range []string{"clang", "llvm-strip", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s", tool)
		}
	}
	if _, err := os.Stat("/usr/include/bpf/bpf_helpers.h"); err != nil {
		t.Skip("needs the headers of libbpf")
	}
	out, err := exec.Command("clang", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(out, []byte("Debian clang version 14.")) {
		t.Skipf("the object was made by Debian's clang 14, here is %s", bytes.SplitN(out, []byte("\n"), 2)[0])
	}
	made := filepath.Join(t.TempDir(), "made.o")
	if out, err := exec.Command("sh", "generate.sh", made).CombinedOutput(); err != nil {
		t.Fatalf("%s%v", out, err)
	}
	b, err := os.ReadFile(made)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, object) {
		t.Error("fastpath_bpfel.o isn't what bpf/fastpath.c makes: run go generate ./lb/fastpath")
	}
}

// A Hook that is none is refused before anything is looked at.
func TestUnknownHook(t *testing.T) {
	if _, err := Open(Config{Hook: 7}); err == nil || !strings.Contains(err.Error(), "Hook(7) is unknown") {
		t.Errorf("%v", err)
	}
}

// Run of a Path that is closed touches nothing of it.
func TestRunClosed(t *testing.T) {
	p := &Path{c: Config{Lease: 6 * time.Millisecond, Interfaces: []string{"lo"}}}
	if err := p.Close(false); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := p.Run(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("%v", err)
	}
}
