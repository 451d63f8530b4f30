package standin

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// A network carries datagrams between in-memory sockets, so that loss and
// time-outs can be tested in virtual time.
type network struct {
	mu    sync.Mutex
	socks map[netip.AddrPort]*memConn
	// lose, if not nil, says whether a datagram is lost.
	lose func(from, to netip.AddrPort, b []byte) bool
}

type memConn struct {
	net   *network
	addr  netip.AddrPort
	in    chan datagram
	done  chan struct{}
	close sync.Once
}

type datagram struct {
	b    []byte
	from netip.AddrPort
}

func (n *network) listen(addr string) *memConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.socks == nil {
		n.socks = make(map[netip.AddrPort]*memConn)
	}
	c := &memConn{net: n, addr: netip.MustParseAddrPort(addr), in: make(chan datagram, 64), done: make(chan struct{})}
	n.socks[c.addr] = c
	return c
}

func (c *memConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-c.in:
		return copy(b, d.b), d.from, nil
	case <-c.done:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (c *memConn) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	peer := c.net.socks[to]
	if peer == nil || c.net.lose != nil && c.net.lose(c.addr, to, b) {
		return len(b), nil
	}
	select {
	case peer.in <- datagram{append([]byte(nil), b...), c.addr}:
	default:
	}
	return len(b), nil
}

func (c *memConn) Close() error {
	c.close.Do(func() {
		close(c.done)
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		if c.net.socks[c.addr] == c {
			delete(c.net.socks, c.addr)
		}
	})
	return nil
}

func TestNetworkLoses(t *testing.T) {
	n := &network{lose: func(_, _ netip.AddrPort, b []byte) bool { return b[0] == 'x' }}
	a, b := n.listen("10.0.0.1:1"), n.listen("10.0.0.2:2")
	a.WriteToUDPAddrPort([]byte("x"), b.addr)
	a.WriteToUDPAddrPort([]byte("y"), b.addr)
	buf := make([]byte, 8)
	if k, from, err := b.ReadFromUDPAddrPort(buf); string(buf[:k]) != "y" || from != a.addr || err != nil {
		t.Errorf("got %q from %v, %v; want only y", buf[:k], from, err)
	}
}
