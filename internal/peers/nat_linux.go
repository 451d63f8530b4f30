package peers

import (
	"fmt"
	"net/netip"
)

// A NAT is a router that hides the hosts of its Inside behind its outside
// addresses, as a home router or a carrier does:
//
//	inside host ──┐                         outside
//	inside host ──┴── Inside ── eth1 Host eth0 ──
//
// Source ports are always changed, so nothing can rely on 500 or 4500.
type NAT struct {
	Host   *Host
	Inside *Segment

	gateway netip.Prefix
	outside []netip.Prefix
	ports   int // which range of source ports is in use
	split   bool
}

// NAT makes a router with an Inside of its own. gateway is its address there
// ("192.168.1.1/24"), outside are its addresses on public; the first is used.
func (n *Net) NAT(name string, public *Segment, gateway string, outside ...string) *NAT {
	n.t.Helper()
	r := &NAT{Host: n.Host(name), Inside: n.Segment(name), gateway: netip.MustParsePrefix(gateway)}
	for _, o := range outside {
		r.outside = append(r.outside, netip.MustParsePrefix(o))
	}
	r.Host.Attach(public, outside...)
	r.Host.Attach(r.Inside, gateway)
	r.Host.Sysctl("ipv4/ip_forward", "1")
	r.load()
	return r
}

// Join attaches h to the inside by interface eth0 or the next free, with the
// router as its default route. addr is as "192.168.1.2/24".
func (r *NAT) Join(h *Host, addr string) {
	h.net.t.Helper()
	dev := h.Attach(r.Inside, addr)
	h.IP("route add default via " + r.gateway.Addr().String() + " dev " + dev)
}

// Remap forgets all mappings, and gives flows source ports that it hasn't given
// before: to a server, every client behind it comes from a new port.
func (r *NAT) Remap() {
	r.Host.net.t.Helper()
	r.ports++
	r.load()
	r.Host.FlushConntrack()
}

// Readdress forgets all mappings, and uses the outside addresses in another
// order from now on: every client behind it comes from a new address.
func (r *NAT) Readdress() {
	r.Host.net.t.Helper()
	r.outside = append(r.outside[1:], r.outside[0])
	r.Remap()
}

// Split sends what goes to UDP port 500 from the first outside address, and
// what goes to 4500 from the second: carrier NAT without paired pooling.
func (r *NAT) Split() {
	r.Host.net.t.Helper()
	r.split = true
	r.Remap()
}

func (r *NAT) load() {
	// Ten ranges of 2,000 ports, then from the first again.
	low := 20000 + 2000*(r.ports%10)
	first, to4500 := r.outside[0].Addr(), r.outside[0].Addr()
	if r.split {
		to4500 = r.outside[1].Addr()
	}
	r.Host.NFT(fmt.Sprintf(`
table ip peers
delete table ip peers
table ip peers {
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth0" udp dport 4500 snat to %[1]s:%[3]d-%[4]d random
		oifname "eth0" meta l4proto { tcp, udp } snat to %[2]s:%[3]d-%[4]d random
		oifname "eth0" snat to %[2]s
	}
}`, to4500, first, low, low+1999))
}
