//go:build !linux

package builtin

import (
	"net"
	"net/netip"
)

// openICMP opens a socket for echo requests.
func openICMP(addr netip.Addr) (net.Conn, error) { return openRaw(addr) }
