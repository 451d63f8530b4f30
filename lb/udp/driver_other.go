//go:build !linux

package udp

import (
	"errors"
	"net"
)

type (
	rawSocket   struct{}
	rawPeer     struct{}
	rawEndpoint struct{}
)

func (e *Engine) newDriver(conns []net.PacketConn) (driver, error) {
	if e.Transparent && e.Dial == nil {
		return nil, errors.New("udp: transparent mode needs Linux")
	}
	n := e.MaxFlows
	if n <= 0 {
		n = DefaultMaxFlows
	}
	return newPortable(e, conns, n)
}
