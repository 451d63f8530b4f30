package builtin

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// ICMP's types (RFC 792, RFC 4443).
const (
	echoRequest, echoReply   = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// probeICMP sends an echo request and waits for its answer. It needs the right to
// open raw sockets, or on Linux net.ipv4.ping_group_range to have the group.
func probeICMP(ctx context.Context, target netip.AddrPort) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	addr := target.Addr().Unmap()
	c, err := openICMP(addr)
	if err != nil {
		return fmt.Errorf("an echo request can't be sent: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	msg := echo(addr.Is4())
	if _, err := c.Write(msg); err != nil {
		return err
	}
	want := byte(echoReply)
	if addr.Is6() {
		want = echoReply6
	}
	b := make([]byte, 1500)
	for {
		n, err := c.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			return errors.New("no answer to an echo request")
		}
		if err != nil {
			return err
		}
		// What is random in the request comes back; the rest may have been
		// written by the system.
		if r := payload(b[:n], addr.Is4()); len(r) >= len(msg) && r[0] == want && r[1] == 0 && bytes.Equal(r[8:len(msg)], msg[8:]) {
			return nil
		}
	}
}

// echo makes an echo request. The checksum of ICMPv6 is the system's to fill in.
func echo(v4 bool) []byte {
	b := make([]byte, 8+16)
	b[0] = echoRequest6
	_, _ = rand.Read(b[4:]) // it never fails
	if v4 {
		b[0] = echoRequest
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// payload returns the ICMP message of what a socket has read: some systems leave
// the header of IPv4 before it.
func payload(b []byte, v4 bool) []byte {
	if v4 && len(b) >= 20 && b[0]>>4 == 4 {
		if n := int(b[0]&15) * 4; n >= 20 && n <= len(b) {
			return b[n:]
		}
	}
	return b
}

// checksum is that of RFC 1071.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// openRaw opens a raw socket, for those who may.
func openRaw(addr netip.Addr) (net.Conn, error) {
	network := "ip4:icmp"
	if addr.Is6() {
		network = "ip6:ipv6-icmp"
	}
	return net.DialIP(network, nil, &net.IPAddr{IP: addr.AsSlice(), Zone: addr.Zone()})
}
