package udp

import "net"

type (
	rawSocket   struct{}
	rawPeer     struct{}
	rawEndpoint struct{}
)

func (e *Engine) newDriver(conns []net.PacketConn) (driver, error) {
	n := e.MaxFlows
	if n <= 0 {
		n = DefaultMaxFlows
	}
	return newPortable(e, conns, n)
}
