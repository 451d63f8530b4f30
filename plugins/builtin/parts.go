package builtin

import (
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
	"github.com/aovlb/aovlb/sstp"
)

// A Group is an affinity group that is served, for programs that read more of it
// than Stats tells, such as exporters of metrics.
type Group struct {
	// Name and Pool are its own name and that of its pool.
	Name, Pool string
	// Balancer decides for it. It must only be read.
	Balancer *lb.Balancer
	// Checks returns what is known of the backends' checks.
	Checks func() []lb.BackendStatus
}

// A Listener is one that is served, likewise.
type Listener struct {
	// Group and Name are the names of its group and its own.
	Group, Name string
	// UDP, TCP or RADIUS is what serves it; the others are nil. It must only be
	// read.
	UDP    *udp.Engine
	TCP    *tcp.Engine
	RADIUS *radius.Proxy
	// SSTP ends the TLS of TCP's clients; nil if nobody does.
	SSTP *sstp.Terminator
	// RadSec takes connections for RADIUS, if that is reached over TLS.
	RadSec *radsec.Server
}

// Groups returns the affinity groups that are served now.
func (d *Driver) Groups() []Group {
	var out []Group
	for _, g := range d.current().groups {
		out = append(out, Group{Name: g.name, Pool: g.pool.name, Balancer: g.balancer, Checks: g.pool.checkStatus})
	}
	return out
}

// Accounting returns what is kept of RADIUS accounting, by group. Groups that keep
// none are left out.
func (d *Driver) Accounting() map[string]*plugins.RADIUSStoreStats {
	out := make(map[string]*plugins.RADIUSStoreStats)
	for _, g := range d.current().groups {
		if s := g.ledger.stats(); s != nil {
			out[g.name] = s
		}
	}
	return out
}

// IKEv2 returns what became of the handshakes of IKEv2 clients, by group. Groups
// without any are left out.
func (d *Driver) IKEv2() map[string]*plugins.IKEv2Stats {
	out := make(map[string]*plugins.IKEv2Stats)
	now := time.Now()
	for _, g := range d.current().groups {
		if s := g.ikeStats(now); s != nil {
			out[g.name] = s
		}
	}
	return out
}

// Listeners returns the listeners that are served now, without those that were
// removed and still have clients.
func (d *Driver) Listeners() []Listener {
	var out []Listener
	for _, l := range d.current().listeners {
		x := Listener{Group: l.group.name, Name: l.name(), UDP: l.udp, TCP: l.tcp, RADIUS: l.rad, RadSec: l.sec}
		if l.tls != nil {
			x.SSTP = l.tls.engine
		}
		out = append(out, x)
	}
	return out
}

func (p *pool) checkStatus() []lb.BackendStatus {
	p.mu.Lock()
	m := p.monitor
	p.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.lb.Status()
}
