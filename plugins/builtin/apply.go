package builtin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
)

// ErrClosed is what a Driver says after Shutdown.
var ErrClosed = errors.New("builtin: driver closed")

// Apply has the driver serve p.Deployment. It returns with all listeners open,
// or with an error and nothing changed; see the package comment for what a change
// costs. The engines it starts run until they are replaced, or until Shutdown or
// Run ends them.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.closed {
		return ErrClosed
	}
	old := d.current()
	if p.Base != "" && p.Base != old.base() {
		return plugins.ErrStale
	}
	if list := d.validate(p.Deployment); plugins.HasError(list) {
		return invalid(list)
	}
	dep := p.Deployment.Clone()
	site, at, err := d.siteOf(dep)
	if err != nil {
		return err
	}
	if err := d.begin(); err != nil {
		return err
	}
	next, err := d.prepare(ctx, old, dep, site, fmt.Sprintf("sites[%d]", at))
	if err != nil {
		return err
	}
	done := counter(plugins.Diff(old.site, site), progress)
	if err := d.commit(old, next, done); err != nil {
		return err
	}
	d.events.send(plugins.SeverityInfo, "apply", site.Name, "applied")
	if err := d.save(); err != nil {
		d.logger().Error("the state was not saved", "error", err)
	}
	return nil
}

// counter returns a function that tells progress of the changes of some kinds.
func counter(changes []plugins.Change, progress func(plugins.Progress)) func(kinds ...string) {
	n := 0
	return func(kinds ...string) {
		for _, c := range changes {
			if progress != nil && slices.Contains(kinds, c.Kind) {
				n++
				progress(plugins.Progress{Done: n, Total: len(changes), Change: c})
			}
		}
	}
}

// staged is what is to be served next, and how it comes about.
type staged struct {
	running
	specs   []plugins.Pool // of pools
	checks  []checkSet     // of pools
	radius  []parties      // of groups
	reopen  []*listener    // whose sockets can be opened only when others are closed
	opened  []*front       // for nothing, if all is called off
	fresh   []*listener    // not yet served
	heirs   map[*group]*group
	renamed []rename

	old       *running
	freshFast bool   // nobody else has fast
	shutFast  *fast  // old's, closed for the new one
	keptFast  func() // has old's be as is asked for

	ringSpecs []stagedRing

	newLedgers  []*ledger // opened for nothing, if all is called off
	ledgerSpecs []stagedLedger
}

type rename struct {
	l    *listener
	name string
}

// prepare makes everything that can fail, and changes nothing that runs.
func (d *Driver) prepare(ctx context.Context, old *running, dep *plugins.Deployment, site *plugins.Site, at string) (*staged, error) {
	next := &staged{running: running{deployment: dep, site: site}, old: old, heirs: make(map[*group]*group)}
	if err := d.stageRings(old, next, site, at); err != nil {
		return nil, err
	}
	pools := make(map[string]*pool)
	for i := range site.Pools {
		spec := site.Pools[i]
		own, err := ownSecretsOf(site, at, &spec)
		if err != nil {
			return nil, err
		}
		checks, err := checksOf(&spec, fmt.Sprintf("%s.pools[%d]", at, i), own)
		if err != nil {
			return nil, err
		}
		p := find(old.pools, func(p *pool) bool { return p.name == spec.Name })
		if p == nil {
			p = d.newPool(spec.Name)
		}
		pools[spec.Name] = p
		next.pools, next.specs, next.checks = append(next.pools, p), append(next.specs, spec), append(next.checks, checks)
	}
	if err := d.stageFast(old, next, at); err != nil {
		next.callOff(d)
		return nil, err
	}
	for i := range site.Groups {
		spec := &site.Groups[i]
		ledger, err := d.stageLedger(old, next, spec, fmt.Sprintf("%s.groups[%d]", at, i))
		if err != nil {
			next.callOff(d)
			return nil, err
		}
		g := find(old.groups, func(g *group) bool {
			return g.name == spec.Name && g.ledger == ledger && g.pool == pools[spec.Pool] && g.made == partsOf(spec)
		})
		if g == nil {
			g = d.newGroup(spec, pools[spec.Pool])
			g.ledger = ledger
			if was := find(old.groups, func(g *group) bool { return g.name == spec.Name }); was != nil {
				g.ike = was.ike // handshakes go on, and so does counting
			}
			if err := mayBeTransparent(ctx, g, fmt.Sprintf("%s.groups[%d]", at, i)); err != nil {
				next.callOff(d)
				return nil, err
			}
		}
		parties, err := d.partiesOf(g, spec, fmt.Sprintf("%s.groups[%d]", at, i))
		if err != nil {
			next.callOff(d)
			return nil, err
		}
		next.groups = append(next.groups, g)
		next.radius = append(next.radius, parties)
		for j := range spec.Listeners {
			if err := d.stage(ctx, old, next, g, &spec.Listeners[j], fmt.Sprintf("%s.groups[%d].listeners[%d]", at, i, j)); err != nil {
				next.callOff(d)
				return nil, err
			}
		}
	}
	for _, g := range next.groups {
		if !slices.Contains(old.groups, g) {
			next.heirs[g] = predecessor(old, next, g)
		}
	}
	return next, nil
}

// mayBeTransparent reports an error if this process may not use the clients' own
// addresses, as g asks for. Otherwise it would be found out client by client.
func mayBeTransparent(ctx context.Context, g *group, at string) error {
	if g.made.client != plugins.ClientAddressTransparent {
		return nil
	}
	conns, err := udp.Listen(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0), udp.ListenConfig{Transparent: true})
	if err != nil {
		return &plugins.FieldError{
			Path: at + ".client_address",
			Err:  fmt.Errorf("transparent can't be had here, it takes Linux and CAP_NET_ADMIN: %w", err),
		}
	}
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// stage finds or makes the listener for spec, with its sockets.
func (d *Driver) stage(ctx context.Context, old *running, next *staged, g *group, spec *plugins.Listener, at string) error {
	tls, err := loadTLS(spec, at+".tls")
	if err != nil {
		return err
	}
	if l := find(old.listeners, func(l *listener) bool {
		return l.group == g && l.equal(spec) && l.tls.equal(tls) && l.path == next.fast.fastFor(spec) && l.failed() == nil
	}); l != nil {
		next.renamed = append(next.renamed, rename{l, spec.Name})
		next.listeners = append(next.listeners, l)
		return nil
	}
	l := d.newListener(spec, g, tls)
	l.accelerate(next.fast.fastFor(spec))
	next.listeners, next.fresh = append(next.listeners, l), append(next.fresh, l)
	n := sockets(spec)
	if f := d.fronts.find(l.key()); f != nil {
		if f.fits(n) {
			l.front = f
		} else {
			next.reopen = append(next.reopen, l)
		}
		return nil
	}
	f, err := openFront(ctx, spec.Protocol.Network(), spec.Address, n)
	if err != nil {
		return &plugins.FieldError{Path: at + ".address", Err: err}
	}
	d.fronts.add(f)
	next.opened = append(next.opened, f)
	l.front = f
	return nil
}

// callOff closes what prepare opened.
func (s *staged) callOff(d *Driver) {
	for _, f := range s.opened {
		d.fronts.release(f, nil)
	}
	for _, l := range s.newLedgers {
		l.close()
	}
	if s.freshFast {
		d.closeFast(s.fast, false)
	}
	if s.shutFast != nil {
		d.reopenFast(s.old)
	}
}

// predecessor returns the group whose clients the new group g takes over: the
// one of its name, else the one that had its addresses and has them no more.
func predecessor(old *running, next *staged, g *group) *group {
	if p := find(old.groups, func(o *group) bool { return o.name == g.name }); p != nil {
		return p
	}
	for _, l := range next.listeners {
		if l.group != g {
			continue
		}
		p := find(old.listeners, func(o *listener) bool { return o.key() == l.key() && !slices.Contains(next.groups, o.group) })
		if p != nil {
			return p.group
		}
	}
	return nil
}

func find[T any](list []*T, ok func(*T) bool) *T {
	if i := slices.IndexFunc(list, ok); i >= 0 {
		return list[i]
	}
	return nil
}

// commit has next served in place of old.
func (d *Driver) commit(old *running, next *staged, done func(kinds ...string)) error {
	d.site.Store(next.site)
	if next.keptFast != nil {
		next.keptFast()
	}
	d.commitRings(old, next)
	for i, p := range next.pools {
		if err := d.update(p, &next.specs[i], next.checks[i]); err != nil {
			return err
		}
		d.enforce(p)
	}
	d.restoreDrains(next.site.Name, next.pools)
	if err := d.meet(next); err != nil {
		return err
	}
	d.commitLedgers(next)
	done("certificate", "pool", "backend", "check")

	for _, r := range next.renamed {
		r.l.named.Store(&r.name)
	}
	flows := d.replace(old, next)
	for _, g := range next.groups {
		if from := next.heirs[g]; from != nil {
			if n, err := g.inherit(from); err != nil || n > 0 {
				d.logger().Info("clients taken over", "group", g.name, "clients", n, "error", err)
			}
		}
	}
	d.restoreTables(next.site.Name, next.groups)
	d.reopen(next)
	for _, l := range next.fresh {
		d.open(l, flows)
	}
	d.now.Store(&next.running)
	d.startRings(next)
	for _, l := range old.listeners {
		if !slices.Contains(next.listeners, l) && !l.draining.Load() {
			d.linger(l)
		}
	}
	for _, p := range old.pools {
		if !slices.Contains(next.pools, p) {
			p.close()
		}
	}
	d.dropLedgers(old, next)
	for _, g := range old.groups {
		if !slices.Contains(next.groups, g) {
			d.retire(g.dialing)
			g.dialing = nil
		}
	}
	d.drains.keep(next.pools)
	done("group", "listener")
	return nil
}

// replace ends the listeners whose sockets others take over, or whose group is
// made anew, and returns their flows, by address. Those that end on their own
// time are kept in next.lingering.
func (d *Driver) replace(old *running, next *staged) map[frontKey][]udp.FlowState {
	flows := d.savedFlows(next.site.Name)
	taken := func(k frontKey) bool {
		return slices.ContainsFunc(next.fresh, func(l *listener) bool { return l.key() == k })
	}
	for _, l := range next.fresh {
		if l.front != nil {
			d.fronts.claim(l.front, l) // before its last owner closes it
		}
	}
	for _, l := range slices.Concat(old.listeners, old.lingering) {
		switch {
		case slices.Contains(next.listeners, l):
		case l.datagrams() && taken(l.key()):
			flows[l.key()] = append(flows[l.key()], l.stop()...)
		case l.gone():
		default:
			next.lingering = append(next.lingering, l)
			if taken(l.key()) && !l.draining.Load() {
				d.linger(l) // its successor must be the only one to accept
			}
		}
	}
	return flows
}

// reopen opens the sockets that could not be opened beside older ones.
func (d *Driver) reopen(next *staged) {
	for _, l := range next.reopen {
		if f := d.fronts.find(l.key()); f != nil {
			d.fronts.claim(f, nil)
			d.fronts.release(f, nil)
		}
		f, err := openFront(context.Background(), l.spec.Protocol.Network(), l.spec.Address, sockets(&l.spec))
		if err != nil {
			close(l.done)
			d.ended(l, fmt.Errorf("builtin: listener %s: %w", l.name(), err))
			continue
		}
		d.fronts.add(f)
		l.front = f
	}
}

// open has l served, unless it has failed already.
func (d *Driver) open(l *listener, flows map[frontKey][]udp.FlowState) {
	if l.failed() != nil {
		return
	}
	if err := d.serve(l, flows[l.key()]); err != nil {
		close(l.done)
		d.ended(l, err)
		return
	}
	d.logger().Info("listening", "listener", l.name(), "protocol", l.spec.Protocol, "address", l.spec.Address, "sockets", len(l.front.files))
	d.events.send(plugins.SeverityInfo, "listener", l.name(), "listening at "+l.spec.Address.String())
}
