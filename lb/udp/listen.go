package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// A ListenConfig says how [Listen] opens sockets.
type ListenConfig struct {
	// Sockets is how many sockets share the address, so that as many threads
	// can serve it; the kernel keeps each client at one of them. 0 means 1.
	// More than one takes Linux.
	Sockets int
	// Transparent allows addresses that this machine doesn't have but is sent
	// traffic for. It takes Linux and CAP_NET_ADMIN (or CAP_NET_RAW).
	Transparent bool
	// Buffer is how many bytes may wait in each socket; 0 means
	// DefaultBuffer. What the system doesn't permit is not an error.
	Buffer int
}

// DefaultBuffer is a listener's buffer: some milliseconds of traffic, so that a
// thread that is held up loses nothing.
const DefaultBuffer = 8 << 20

// Listen opens the sockets of a listener. The address may be a wildcard: on Linux,
// answers leave from the address the client sent to, by whatever interface the
// routes say; elsewhere the system chooses the address, so that a machine with
// several needs a listener for each. [::] is both IPv4 and IPv6. Every socket has
// the same port, also if that is given as 0.
func Listen(ctx context.Context, address netip.AddrPort, c ListenConfig) ([]net.PacketConn, error) {
	if !address.IsValid() {
		return nil, errors.New("udp: listen: no valid address given")
	}
	if c.Buffer <= 0 {
		c.Buffer = DefaultBuffer
	}
	network := "udp4"
	switch {
	case address.Addr() == netip.IPv6Unspecified():
		network = "udp"
	case address.Addr().Is6() && !address.Addr().Is4In6():
		network = "udp6"
	}
	if c.Sockets > 1 {
		if err := c.unused(ctx, network, address); err != nil {
			return nil, err
		}
	}
	var conns []net.PacketConn
	for range max(c.Sockets, 1) {
		lc := net.ListenConfig{Control: c.control(address.Addr().IsUnspecified(), c.Sockets > 1)}
		conn, err := lc.ListenPacket(ctx, network, address.String())
		if err != nil {
			for _, c := range conns {
				err = errors.Join(err, c.Close())
			}
			return nil, fmt.Errorf("udp: listen: %w", err)
		}
		conns = append(conns, conn)
		if a, err := addrPort(conn.LocalAddr()); err == nil {
			address = netip.AddrPortFrom(address.Addr(), a.Port())
		}
	}
	return conns, nil
}

// unused reports an error if a socket has the address already. Sockets that share
// an address on purpose would not notice, and another process that was started by
// mistake would silently get part of the clients.
func (c ListenConfig) unused(ctx context.Context, network string, address netip.AddrPort) error {
	if address.Port() == 0 {
		return nil
	}
	lc := net.ListenConfig{Control: c.control(false, false)}
	conn, err := lc.ListenPacket(ctx, network, address.String())
	if err != nil {
		return fmt.Errorf("udp: listen: %w", err)
	}
	return conn.Close()
}
