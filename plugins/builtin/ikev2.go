package builtin

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
)

// An ikeWatch is the Watch of a group, which outlives it where the next group of
// that name takes over.
type ikeWatch struct {
	ikev2.Watch
	table atomic.Pointer[lb.Table] // of the group that was heard last
}

func newIKEWatch() *ikeWatch {
	w := &ikeWatch{}
	w.Carried = func(spi ikev2.SPI) (yes, known bool) {
		t := w.table.Load()
		if t == nil {
			return false, false
		}
		return ikev2.Carried(t, spi)
	}
	return w
}

// watchIKE returns what tells g's Watch of the IKE messages of a listener at addr,
// or nil if it isn't for IKEv2.
func (g *group) watchIKE(spec *plugins.Listener) func(lb.Flow, *lb.Member, []byte, bool) {
	if spec.Protocol != plugins.ProtocolIKEv2 {
		return nil
	}
	addr := netip.AddrPortFrom(spec.Address.Addr().Unmap(), spec.Address.Port())
	w, table := g.ike, g.balancer.Table
	return func(f lb.Flow, m *lb.Member, b []byte, answer bool) {
		e := ikev2.Event{Time: time.Now(), From: f.Client, To: addr, Data: b}
		if answer {
			e.From, e.To = addr, f.Client
		}
		if m != nil {
			e.Gateway = m.Name
		}
		w.table.Store(table)
		w.Observe(&e)
	}
}

// ikeStats are what is known of the handshakes of g; nil if it has none.
func (g *group) ikeStats(now time.Time) *plugins.IKEv2Stats {
	counts := g.ike.Handshakes(now)
	if len(counts) == 0 {
		return nil
	}
	s := &plugins.IKEv2Stats{}
	for _, c := range counts {
		x := plugins.IKEv2GatewayStats{
			Gateway: c.Gateway, Begun: c.Begun, Finished: c.Finished,
			WeakSuites: c.Weak, WithoutFragmentation: c.Unfragmented, Slow: c.Slow,
		}
		for id, n := range c.Failed {
			if x.Failed == nil {
				x.Failed = make(map[string]uint64)
			}
			x.Failed[string(id)] = n
		}
		s.Gateways = append(s.Gateways, x)
	}
	for _, p := range g.ike.Problems(now) {
		s.Problems = append(s.Problems, ikeProblem(&p))
	}
	return s
}

func ikeProblem(p *ikev2.Problem) plugins.IKEv2Problem {
	f := &p.Finding
	x := plugins.IKEv2Problem{
		At: p.Time.Round(0), Gateway: p.Gateway, ID: string(f.ID), Severity: f.Severity.String(),
		Title: f.Title, What: f.What, Windows: f.Windows,
	}
	if len(f.Clients) > 0 {
		x.Client = f.Clients[0]
	}
	if len(f.SPIs) > 0 {
		x.SPI = f.SPIs[0]
	}
	for _, a := range f.Advice {
		text := string(a.Where) + ": " + a.Do
		if len(a.Commands) > 0 {
			text += "\n" + strings.Join(a.Commands, "\n")
		}
		x.Advice = append(x.Advice, text)
	}
	return x
}
