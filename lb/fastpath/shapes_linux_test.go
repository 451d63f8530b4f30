package fastpath_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// These tests have packets that no socket sends by itself.

// sendFragments sends a datagram without a checksum in IP fragments, the last one first.
func sendFragments(t *testing.T, ns string, src, dst netip.AddrPort, b []byte) {
	t.Helper()
	u := binary.BigEndian.AppendUint16(nil, src.Port())
	u = binary.BigEndian.AppendUint16(u, dst.Port())
	u = binary.BigEndian.AppendUint16(u, uint16(8+len(b)))
	u = append(append(u, 0, 0), b...)
	netns.Do(t, ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		const size = 1480
		for at := (len(u) - 1) / size * size; at >= 0; at -= size {
			part, more := u[at:], uint16(0)
			if len(part) > size {
				part, more = part[:size], 0x2000
			}
			p := []byte{0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
			binary.BigEndian.PutUint16(p[6:], more|uint16(at/8))
			p = append(append(append(p, src.Addr().AsSlice()...), dst.Addr().AsSlice()...), part...)
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Fragments come whole to where they belong, in whatever order, while the flow is carried.
func TestFragmentsReversed(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range []scenario{
		natCase,
		{client: natCase.client, vip: natCase.vip, gateway: natCase.gateway, transparent: true},
		{client: natCase.client, vip: natCase.vip, gateway: natCase.gateway, hook: fastpath.HookXDP},
	} {
		l := newLab(t, false)
		c := startChild(t, l.balancer, s.config(l))
		n := s.tunnel(l)
		n.establish()
		n.flow(3)
		got := make([]byte, 1<<16)
		up, down := esp(n.up, 4000), esp(n.down, 4000)
		sendFragments(t, l.client, netip.MustParseAddrPort(s.client), n.vip, up)
		if size, at, err := n.gateway.ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:size], up) || netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) != n.at {
			t.Errorf("%+v: the gateway got %d bytes from %v, %v; want %d from %v", s, size, at, err, len(up), n.at)
		}
		sendFragments(t, l.gateway, netip.MustParseAddrPort(s.gateway), n.at, down)
		if size, at, err := n.client.ReadFromUDPAddrPort(got); err != nil || !bytes.Equal(got[:size], down) || netip.AddrPortFrom(at.Addr().Unmap(), at.Port()) != n.vip {
			t.Errorf("%+v: the client got %d bytes from %v, %v; want %d from %v", s, size, at, err, len(down), n.vip)
		}
		if r := c.report(); r.Path.Passed["fragment"] < 6 {
			t.Errorf("%+v: %v was left, want 6 fragments", s, r.Path.Passed)
		}
	}
}

// ICMP errors of each kind that a router sends are copied, with what they say; the packet
// that they quote is that which the client sent, or the gateway. Others are not.
func TestICMPKinds(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	type kind struct {
		typ, code byte
		copied    bool
	}
	for _, c := range []struct {
		s      scenario
		router string // another address at the gateways' end
		kinds  []kind
	}{
		{natCase, "10.82.2.3", []kind{{3, 4, true}, {3, 1, true}, {11, 0, true}, {12, 0, true}, {5, 0, false}, {8, 0, false}}},
		{natCase6, "fd82:2::3", []kind{{1, 0, true}, {2, 0, true}, {3, 0, true}, {4, 1, true}, {128, 0, false}}},
	} {
		l := newLab(t, false)
		child := startChild(t, l.balancer, c.s.config(l))
		n := c.s.tunnel(l)
		n.establish()
		n.flow(3)
		client, gateway := netip.MustParseAddrPort(c.s.client), netip.MustParseAddrPort(c.s.gateway)
		network := "ip4:icmp"
		if client.Addr().Is6() {
			network = "ip6:ipv6-icmp"
		}
		open := func(ns, at string) (conn net.PacketConn) {
			netns.Do(t, ns, func() (err error) {
				conn, err = net.ListenPacket(network, at)
				return err
			})
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
		there, router := open(l.client, client.Addr().String()), open(l.gateway, c.router)
		copied := uint64(0)
		for _, k := range c.kinds {
			label := fmt.Sprintf("%s, type %d, code %d", c.s.client, k.typ, k.code)
			more := []byte{0, 0, 4, 0xb0} // an MTU of 1200, for those that have one
			b := append([]byte{k.typ, k.code, 0, 0}, more...)
			b = append(b, quoted(n.at, gateway)...)
			if client.Addr().Is4() {
				binary.BigEndian.PutUint16(b[2:], internetSum(b))
			}
			if _, err := router.WriteTo(b, &net.IPAddr{IP: n.at.Addr().AsSlice()}); err != nil {
				t.Fatal(err)
			}
			if k.copied {
				copied++
				got, want := make([]byte, 2000), quoted(client, n.vip)
				_ = there.SetReadDeadline(time.Now().Add(5 * time.Second))
				size, from, err := there.ReadFrom(got)
				if err != nil {
					t.Fatalf("%s: %v", label, err)
				}
				got = got[:size]
				if from.String() != c.router || size < 8+len(want) || got[0] != k.typ || got[1] != k.code || !bytes.Equal(got[4:8], more) {
					t.Errorf("%s: the client got %x from %v", label, got, from)
				} else if client.Addr().Is4() && internetSum(got) != 0 { // the socket looks at that of IPv6
					t.Errorf("%s: its checksum is wrong: %x", label, got)
				} else if !bytes.Equal(got[8:8+len(want)], want) {
					t.Errorf("%s: it quotes\n%x, want\n%x", label, got[8:], want)
				}
			}
			child.report()
		}
		if r := child.report(); r.Path.Passed["icmp copied"] != copied {
			t.Errorf("%s: %d were copied, want %d", c.s.client, r.Path.Passed["icmp copied"], copied)
		}
	}
}

// quoted is the beginning of a packet without a UDP checksum.
func quoted(src, dst netip.AddrPort) (b []byte) {
	if src.Addr().Is4() {
		b = []byte{0x45, 0, 0, 128, 0, 7, 0, 0, 63, unix.IPPROTO_UDP, 0, 0}
		b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(b[10:], internetSum(b))
	} else {
		b = []byte{0x60, 0, 0, 0, 0, 108, unix.IPPROTO_UDP, 63}
		b = append(append(b, src.Addr().AsSlice()...), dst.Addr().AsSlice()...)
	}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	return append(b, 0, 108, 0, 0)
}

// internetSum is the checksum of IP and ICMP (RFC 1071).
func internetSum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
