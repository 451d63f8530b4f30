package lbtest

import (
	"net/netip"
)

// A NAT stands between hosts and a Net, and shows all of them as one address
// with many ports: a home router, a hotel, or a mobile provider. A socket gets
// its public port when it first sends, and keeps it until Rebind; until then
// everybody can reach it there.
type NAT struct {
	// Net is the network outside. It must not be nil.
	Net *Net
	// Addr is the public address to begin with.
	Addr netip.Addr

	// Net.mu guards what follows.
	now   netip.Addr // the public address, if it isn't Addr any more
	socks []*Conn
}

// Listen opens a socket of a host behind the NAT. Hosts behind different NATs,
// and outside, may have the same address and port.
func (t *NAT) Listen(inside netip.AddrPort) *Conn {
	t.Net.mu.Lock()
	defer t.Net.mu.Unlock()
	c := t.Net.newConn(inside, netip.AddrPort{})
	c.nat = t
	t.socks = append(t.socks, c)
	return c
}

// Rebind forgets all ports, as a NAT does when it is restarted: each socket has
// another one from its next datagram on, and what is sent to the old one is
// lost. If addr is valid it is the new public address, as for a client that
// goes from one network to another.
func (t *NAT) Rebind(addr netip.Addr) {
	t.Net.mu.Lock()
	defer t.Net.mu.Unlock()
	if addr.IsValid() {
		t.now = addr
	}
	for _, c := range t.socks {
		if t.Net.socks[c.at] == c {
			delete(t.Net.socks, c.at)
		}
		c.at = pair{}
	}
}

// outside returns the public address and port of a socket.
func (t *NAT) outside(c *Conn) (netip.AddrPort, error) {
	t.Net.mu.Lock()
	defer t.Net.mu.Unlock()
	if c.at.local.IsValid() {
		return c.at.local, nil
	}
	addr := t.Addr
	if t.now.IsValid() {
		addr = t.now
	}
	at, err := t.Net.free(netip.AddrPortFrom(addr, 0), netip.AddrPort{})
	if err != nil {
		return netip.AddrPort{}, err
	}
	c.at = at
	t.Net.socks[at] = c
	return at.local, nil
}
