package fastpath

import (
	"encoding/binary"
	"net"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb/udp"
)

// wire is a raw socket at the far end of one of the devices.
type wire struct {
	t  *testing.T
	fd int
}

func newWire(t *testing.T, device string) *wire {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in the order of the network
	i, err := net.InterfaceByName(device)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: all}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return &wire{t, fd}
}

func (w *wire) send(b []byte) {
	w.t.Helper()
	if _, err := unix.Write(w.fd, b); err != nil {
		w.t.Fatal(err)
	}
}

// receive returns the next frame from a device, with its tag, which the kernel has put
// beside it.
func (w *wire) receive(from [6]byte) []byte {
	w.t.Helper()
	b, beside := make([]byte, 2048), make([]byte, 128)
	for {
		n, m, _, _, err := unix.Recvmsg(w.fd, b, beside, 0)
		if err != nil {
			w.t.Errorf("nothing came: %v", err)
			return nil
		}
		if n < 24 || [6]byte(b[6:12]) != from {
			continue
		}
		// The device's own kernel sends by it, too: ARP, and of IPv6 who listens to what.
		switch binary.BigEndian.Uint16(b[12:]) {
		case unix.ETH_P_IP:
			if b[23] != unix.IPPROTO_UDP {
				continue
			}
		case unix.ETH_P_IPV6:
			if b[20] != unix.IPPROTO_UDP {
				continue
			}
		default:
			continue
		}
		list, err := unix.ParseSocketControlMessage(beside[:m])
		if err != nil {
			w.t.Fatal(err)
		}
		for _, c := range list {
			// struct tpacket_auxdata: its status first, the tag at 16.
			if c.Header.Type != unix.PACKET_AUXDATA || binary.NativeEndian.Uint32(c.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
				continue
			}
			tag := []byte{0x81, 0, 0, 0}
			binary.BigEndian.PutUint16(tag[2:], binary.NativeEndian.Uint16(c.Data[16:]))
			return append(append(append([]byte(nil), b[:12]...), tag...), b[12:n]...)
		}
		return b[:n]
	}
}

// Frames with tags, from one wire to another, both ways: XDP is at devices that carry
// VLANs, takes their tags off, puts them on and changes them. The VLANs' own devices are
// made up: they matter only by what the table of devices says of them.
func TestVLANWire(t *testing.T) {
	if _, err := exec.LookPath("ethtool"); err != nil {
		t.Skip("needs ethtool")
	}
	x := newBench(t)
	sh(t, "ethtool -K pa gro on; ethtool -K pb gro on") // else nothing is sent there by XDP
	p, err := Open(Config{Hook: HookXDP, Interfaces: []string{"va", "vb"}, MaxFlows: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(false); err != nil {
			t.Error(err)
		}
	}()
	y := &bench{t: t, p: p, c: p.Carrier(), a: x.a, b: x.b}
	ends := map[string]*wire{"up": newWire(t, "pa"), "down": newWire(t, "pb")}
	for name, f := range map[string]udp.FastFlow{"IPv4": natFlow4, "IPv6": natFlow6} {
		id := y.carry(f)
		sent := uint64(0)
		for _, d := range directions(f) {
			here, there, to := ends["up"], ends["down"], y.b
			if d.name == "down" {
				here, there, to = there, here, y.a
			}
			for _, c := range []struct{ in, out uint16 }{{0, 0}, {0, 6}, {5, 0}, {5, 6}, {0x6005, 0x6006}} {
				binary.NativeEndian.PutUint16(p.devices[to*deviceSize+4:], c.out&0xfff)
				in, out := d.in, d.out
				in.vlan, out.vlan = c.in, c.out
				here.send(in.bytes())
				sent++
				if diff := cmp.Diff(out.bytes(), there.receive(d.out.from)); diff != "" {
					t.Errorf("%s, %s: tag %x to %x: (-want +got)\n%s", name, d.name, c.in, c.out, diff)
				}
			}
		}
		if u := y.c.Carried(id); u.ClientPackets+u.BackendPackets != sent {
			t.Errorf("%s: %+v were carried, want %d", name, u, sent)
		}
	}
}
