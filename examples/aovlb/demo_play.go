package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/plugins"
)

// demoPlay is what happens in the demo, act by act. Each act leaves what the
// judge needs: a copy of all books, and when.
type demoPlay struct {
	world *demoWorld
	unit  time.Duration
	view  demoView
	began time.Time

	// The books before and after what was done.
	arrived, travelled, drained, undrained, killed, returned, ended demoBooks
	late, fresh                                                     []string // new clients while ras1 drained, after ras2 was revived
	drainee, victim                                                 *demoHost

	mu    sync.Mutex
	title string
}

// demoVisit is a session in the books of a host.
type demoVisit struct {
	standin.Session
	host string
}

// demoBooks are the books of all gateways, or of all servers, at one moment.
type demoBooks struct {
	at     time.Time
	visits []demoVisit // of gateways
	logins []demoVisit // of RADIUS servers
}

// books copies the books of all hosts, dead ones too.
func (w *demoWorld) books() demoBooks {
	b := demoBooks{at: time.Now()}
	for _, h := range w.hosts() {
		if h.nps != nil {
			for _, s := range h.nps.Sessions() {
				b.logins = append(b.logins, demoVisit{s, h.name})
			}
			continue
		}
		for _, s := range append(h.ike.Sessions(), h.sstp.Sessions()...) {
			b.visits = append(b.visits, demoVisit{s, h.name})
		}
	}
	return b
}

// of returns the visits of a client, the oldest first.
func (b demoBooks) of(client string) []demoVisit {
	var list []demoVisit
	for _, v := range b.visits {
		if v.Client == client {
			list = append(list, v)
		}
	}
	slices.SortStableFunc(list, func(a, b demoVisit) int { return a.Established.Compare(b.Established) })
	return list
}

// now returns the last visit of a client that hasn't ended.
func (b demoBooks) now(client string) (demoVisit, bool) {
	list := b.of(client)
	for _, v := range slices.Backward(list) {
		if v.Ended.IsZero() {
			return v, true
		}
	}
	return demoVisit{}, false
}

// where returns the host each client is at.
func (b demoBooks) where() map[string]string {
	m := make(map[string]string)
	for _, v := range b.visits {
		if _, seen := m[v.Client]; !seen {
			if now, ok := b.now(v.Client); ok {
				m[v.Client] = now.host
			}
		}
	}
	return m
}

// began counts the visits of a client that weren't a mere rekeying.
func (b demoBooks) began(client string) int {
	n := 0
	for _, v := range b.of(client) {
		if !v.Rekeyed {
			n++
		}
	}
	return n
}

func (p *demoPlay) event(format string, args ...any) {
	if p.view != nil {
		p.view.Event(time.Since(p.began), fmt.Sprintf(format, args...))
	}
}

func (p *demoPlay) act(title string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.title = title
}

// until waits until ok, at most that many units. Only what ends the demo is an
// error.
func (p *demoPlay) until(ctx context.Context, units float64, ok func() bool) (bool, error) {
	// Checks run once a second at most, and clients repeat twice a second,
	// however short the demo is.
	end := time.NewTimer(time.Duration(units * float64(max(p.unit, time.Second))))
	defer end.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case err := <-p.world.failed:
			return false, err
		case <-end.C:
			return ok(), nil
		case <-tick.C:
		}
	}
	return true, nil
}

func (p *demoPlay) pause(ctx context.Context, units float64) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case err := <-p.world.failed:
		return err
	case <-time.After(time.Duration(units * float64(p.unit))):
		return nil
	}
}

func (p *demoPlay) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{p.arrive, p.travel, p.drain, p.kill, p.revive, p.finish} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// names returns the names of all tunnels and calls.
func (p *demoPlay) names() []string {
	w := p.world
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, t := range w.crowd.tunnels {
		list = append(list, t.Name)
	}
	for _, c := range w.crowd.sstp {
		list = append(list, c.Name)
	}
	return list
}

// all reports whether each of these clients is at a gateway.
func (p *demoPlay) all(clients []string) bool {
	where := p.world.books().where()
	return !slices.ContainsFunc(clients, func(c string) bool { return where[c] == "" })
}

// send lets n more computers and some SSTP clients come within a unit, and
// returns their names.
func (p *demoPlay) send(ctx context.Context, n, calls int, kind string) []string {
	before := len(p.names())
	w := p.world
	w.mu.Lock()
	machines, called := w.crowd.more(n, kind), w.crowd.call(calls)
	w.mu.Unlock()
	w.run(ctx, p.unit, machines, called)
	after := p.names()
	var list []string
	// names lists tunnels before calls, so what is new isn't all at the end.
	for _, m := range machines {
		for _, t := range m.Tunnels {
			list = append(list, t.Name)
		}
	}
	for _, c := range called {
		list = append(list, c.Name)
	}
	if len(after) != before+len(list) {
		panic("demo: a client has no name")
	}
	return list
}

func (p *demoPlay) arrive(ctx context.Context) error {
	w := p.world
	p.act("clients arrive")
	w.mu.Lock()
	machines, calls := w.crowd.begin(), w.crowd.call(demoSSTP)
	w.mu.Unlock()
	p.event("%d simulated gateways, %d RADIUS servers; the balancer is real", len(w.gateways), len(w.servers))
	p.event("%d IKEv2 tunnels and %d SSTP calls begin; two NASes log users in", w.crowd.first, demoSSTP)
	w.run(ctx, 2*p.unit, machines, calls)
	if err := w.startLogins(ctx); err != nil {
		return err
	}
	names := p.names()
	if _, err := p.until(ctx, 5, func() bool { return p.all(names) }); err != nil {
		return err
	}
	p.arrived = w.books()
	p.event("%d of %d are connected", len(p.arrived.where()), len(names))
	p.cast()
	return p.pause(ctx, 1)
}

// cast chooses who is killed: the gateway of the computer with two tunnels, which
// must come back together. Another one is drained.
func (p *demoPlay) cast() {
	p.victim, p.drainee = p.world.gateways[1], p.world.gateways[0]
	where := p.arrived.where()[p.world.crowd.pair[0]]
	for i, h := range p.world.gateways {
		if h.name == where {
			p.victim, p.drainee = h, p.world.gateways[(i+1)%len(p.world.gateways)]
		}
	}
}

// travel has some computers change their address. One of them has replaced its IKE
// SA just before: no packet has shown its new SPI yet.
func (p *demoPlay) travel(ctx context.Context) error {
	p.act("some clients change to another network")
	movers := p.world.crowd.movers
	for _, m := range movers {
		if m.rekeys {
			m.tunnel.Rekey()
		}
	}
	_, err := p.until(ctx, 2, func() bool {
		return !slices.ContainsFunc(movers, func(m *mover) bool { return m.rekeys && m.tunnel.Status().Rekeyed == 0 })
	})
	if err != nil {
		return err
	}
	for _, m := range movers {
		m.machine.Move()
	}
	p.event("%d clients change their address, one of them right after rekeying", len(movers))
	_, err = p.until(ctx, 2, func() bool {
		return !slices.ContainsFunc(movers, func(m *mover) bool { return m.tunnel.Status().Moves == 0 })
	})
	if err != nil {
		return err
	}
	err = p.pause(ctx, 1.5)
	p.travelled = p.world.books()
	return err
}

// drain takes a gateway and a RADIUS server out of service, as an administrator
// does for maintenance.
func (p *demoPlay) drain(ctx context.Context) error {
	w := p.world
	p.act(p.drainee.name + " and nps1 are drained: they take no new clients")
	for _, name := range []string{p.drainee.name, "nps1"} {
		if err := w.driver.Drain(ctx, plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: name}}); err != nil {
			return err
		}
	}
	p.drained = w.books()
	p.event("%s and nps1 are drained", p.drainee.name)
	p.late = p.send(ctx, 6, 2, "late")
	p.event("%d new clients begin", len(p.late))
	if _, err := p.until(ctx, 3, func() bool { return p.all(p.late) }); err != nil {
		return err
	}
	err := p.pause(ctx, 2)
	p.undrained = w.books()
	return err
}

// kill ends a gateway without a word.
func (p *demoPlay) kill(ctx context.Context) error {
	w := p.world
	victim := p.victim
	p.act(victim.name + " is dead; " + p.drainee.name + " still drains")
	p.killed = w.books()
	victim.kill()
	var lost []string
	for client, host := range p.killed.where() {
		if host == victim.name {
			lost = append(lost, client)
		}
	}
	p.event("%s dies; %d clients were there", victim.name, len(lost))
	ok, err := p.until(ctx, 7, func() bool { return p.all(lost) })
	if err != nil {
		return err
	}
	if ok {
		p.event("they are all back, at another gateway")
	}
	err = p.pause(ctx, 1)
	p.returned = w.books()
	return err
}

// revive starts the dead gateway again and ends the drains.
func (p *demoPlay) revive(ctx context.Context) error {
	w := p.world
	name := p.victim.name
	p.act(name + " lives again, and nothing is drained any more")
	if err := p.victim.start(); err != nil {
		return fmt.Errorf("%s can't be revived: %w", name, err)
	}
	for _, name := range []string{p.drainee.name, "nps1"} {
		if err := w.driver.Undrain(ctx, plugins.BackendRef{Backend: name}); err != nil {
			return err
		}
	}
	p.event("%s is revived, %s and nps1 take new clients again", name, p.drainee.name)
	if _, err := p.until(ctx, 4, func() bool { return w.state(ctx, name) == "up" }); err != nil {
		return err
	}
	p.event("%s is %s", name, w.state(ctx, name))
	p.fresh = p.send(ctx, 6, 1, "new")
	_, err := p.until(ctx, 3, func() bool { return p.all(p.fresh) })
	return err
}

func (p *demoPlay) finish(ctx context.Context) error {
	p.act("the last users log out")
	err := p.pause(ctx, 1)
	p.world.endLogins()
	p.ended = p.world.books()
	return err
}

// state returns what the driver says of a backend.
func (w *demoWorld) state(ctx context.Context, name string) string {
	s, err := w.driver.Stats(ctx)
	if err != nil {
		return ""
	}
	for _, pool := range s.Pools {
		for _, b := range pool.Backends {
			if b.Name == name {
				return b.State
			}
		}
	}
	return ""
}
