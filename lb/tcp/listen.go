package tcp

import (
	"context"
	"net"
	"net/netip"
)

// A ListenConfig opens listeners for an Engine. The zero value is fine.
type ListenConfig struct {
	// ReusePort lets several listeners have the same address (SO_REUSEPORT,
	// Linux): those of an old and a new process, say. The kernel spreads
	// connections over them.
	ReusePort bool
	// Transparent accepts connections to addresses that aren't local
	// (IP_TRANSPARENT, Linux, CAP_NET_ADMIN), if routing delivers them here.
	Transparent bool
}

// Listen opens a listener at addr. The address [::] takes IPv4 too. Multipath TCP
// is off: its sockets can't be spliced.
func (c *ListenConfig) Listen(ctx context.Context, addr netip.AddrPort) (*net.TCPListener, error) {
	network := "tcp"
	if addr.Addr().Unmap().Is4() {
		network = "tcp4"
	}
	lc := net.ListenConfig{Control: c.control, KeepAlive: -1} // the Engine sets keepalive
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, network, addr.String())
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}
