package standin

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/lb/lbtest"
)

// A network is a lbtest.Net that loses what a test chooses. It must be made in
// the bubble in which it is used.
type network struct {
	lbtest.Net

	mu sync.Mutex
	// lose is called with mu held; nil loses nothing.
	lose func(from, to netip.AddrPort, b []byte) bool
}

func newNetwork() *network {
	n := new(network)
	n.Link = func(d lbtest.Datagram) lbtest.Fate {
		n.mu.Lock()
		defer n.mu.Unlock()
		return lbtest.Fate{Drop: n.lose != nil && n.lose(d.From, d.To, d.Payload)}
	}
	return n
}

func (n *network) listen(t *testing.T, addr string) Conn {
	t.Helper()
	a := netip.MustParseAddrPort(addr)
	c, err := lbtest.Host{Net: &n.Net, Addr: a.Addr()}.Listen(a.Port())
	if err != nil {
		t.Errorf("listen: %v", err) // not Fatal: clients open sockets of their own accord
	}
	return c
}

// loseFirst loses each datagram of a kind the first time it is sent.
func (n *network) loseFirst(kind func(from, to netip.AddrPort, b []byte) bool) {
	seen := make(map[string]bool)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lose = func(from, to netip.AddrPort, b []byte) bool {
		first := !seen[string(b)]
		seen[string(b)] = true
		return first && kind(from, to, b)
	}
}
