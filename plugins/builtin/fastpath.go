package builtin

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
)

// fast is the fast path of a site, or why there is none. Listeners keep the one
// they were made with: one that is made anew replaces them, and their clients go
// on.
type fast struct {
	opts plugins.FastPathOptions // under Driver.applying

	mu   sync.Mutex // below, which is written under Driver.applying
	mode plugins.FastPath
	path *fastpath.Path // nil: there is none
	why  string

	cancel  context.CancelFunc
	running sync.WaitGroup
}

// carrier is what a listener has of a fast path, which may be opened again while the
// listener is served.
type carrier struct {
	now atomic.Pointer[fastpath.Carrier]
}

var _ udp.FastPath = (*carrier)(nil)

// Carry implements [udp.FastPath], and so do those below.
func (c *carrier) Carry(f udp.FastFlow, b []byte, answer bool) (uint64, bool) {
	return c.now.Load().Carry(f, b, answer)
}

func (c *carrier) Carried(id uint64) udp.FastUse { return c.now.Load().Carried(id) }

func (c *carrier) End(id uint64) udp.FastUse { return c.now.Load().End(id) }

func (c *carrier) Revoke(backend netip.Addr) { c.now.Load().Revoke(backend) }

func (c *carrier) close() { c.now.Load().Close() }

// stageFast finds or opens what site asks for. One with other options can't be open
// beside it, so it is closed first: until it is replaced, nobody's clients notice.
func (d *Driver) stageFast(old *running, next *staged, at string) error {
	site := next.site
	want := &fast{mode: site.FastPath}
	if site.FastPathOptions != nil {
		want.opts = *site.FastPathOptions
	}
	sockets, backends := fastAddresses(site)
	if was := old.fast; was != nil && was.path != nil {
		if want.mode.On() && goesOn(was.opts, want.opts) {
			next.fast = was
			next.keptFast = func() {
				was.mu.Lock()
				defer was.mu.Unlock()
				was.mode, was.opts = want.mode, want.opts
				was.path.Watch(sockets, backends)
				was.path.Bound(want.opts.FirstMessages)
			}
			return nil
		}
		d.closeFast(was, false)
		next.shutFast = was
	}
	next.fast = want
	if !want.mode.On() {
		want.why = "it is off"
		if err := fastpath.Clean(want.opts.Pin); err != nil {
			d.logger().Warn("what an earlier fast path left can't be removed", "error", err)
		}
		return nil
	}
	if len(sockets) == 0 {
		want.why = "there is no ikev2 listener on a port other than 500"
		return nil
	}
	err := d.openFast(want, sockets, backends)
	switch {
	case err != nil && want.mode == plugins.FastPathRequire:
		return &plugins.FieldError{Path: at + ".fastpath", Err: err}
	case err != nil:
		d.noFast(site, err)
		return nil
	}
	next.freshFast = true
	return nil
}

// goesOn reports whether a fast path with some options can go on with others.
func goesOn(was, want plugins.FastPathOptions) bool {
	was.FirstMessages = want.FirstMessages
	return reflect.DeepEqual(was, want)
}

// noFast tells that there is none, and why.
func (d *Driver) noFast(site *plugins.Site, err error) {
	d.logger().Warn("no fast path: this program carries everything", "error", err)
	d.events.send(plugins.SeverityWarning, "fastpath", site.Name, "off: "+err.Error())
}

// openFast opens what f is to be, and has it run.
func (d *Driver) openFast(f *fast, sockets []netip.AddrPort, backends []netip.Addr) error {
	hook := fastpath.HookTC
	if f.opts.Hook == plugins.FastPathXDP {
		hook = fastpath.HookXDP
	}
	pin := f.opts.Pin
	if d.StateDir == "" {
		pin = "" // the next process wouldn't know the clients
	}
	p, err := fastpath.Open(fastpath.Config{
		Hook: hook, Interfaces: f.opts.Interfaces, At: sockets, Toward: backends,
		MaxFlows: f.opts.MaxFlows, FirstMessages: f.opts.FirstMessages, Pin: pin, Logger: d.logger(),
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.path, f.why = nil, err.Error()
		return err
	}
	f.path = p
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.running.Go(func() { _ = p.Run(ctx) })
	return nil
}

// reopenFast has the fast path of what is still served be as before, which was closed
// for another that can't be had.
func (d *Driver) reopenFast(old *running) {
	was := old.fast.path
	sockets, backends := fastAddresses(old.site)
	if err := d.openFast(old.fast, sockets, backends); err != nil {
		d.noFast(old.site, err)
		return
	}
	for _, l := range slices.Concat(old.listeners, old.lingering) {
		if l.path == was && l.carrier != nil {
			l.path = old.fast.path
			l.carrier.now.Swap(l.path.Carrier()).Close()
		}
	}
}

// closeFast ends a fast path. With keep, what is pinned stays for the next process.
func (d *Driver) closeFast(f *fast, keep bool) {
	if f == nil || f.path == nil {
		return
	}
	f.cancel()
	f.running.Wait()
	if err := f.path.Close(keep); err != nil {
		d.logger().Warn("the fast path didn't close cleanly", "error", err)
	}
}

// fastAddresses returns the addresses and ports of all ikev2 listeners of groups with
// clients that can be carried, and the addresses of their backends.
func fastAddresses(s *plugins.Site) (sockets []netip.AddrPort, backends []netip.Addr) {
	for i := range s.Groups {
		g := &s.Groups[i]
		if !slices.ContainsFunc(g.Listeners, func(l plugins.Listener) bool { return mayBeFast(&l) }) {
			continue
		}
		for j := range g.Listeners {
			if l := &g.Listeners[j]; l.Protocol == plugins.ProtocolIKEv2 {
				sockets = append(sockets, l.Address)
			}
		}
		if p := s.Pool(g.Pool); p != nil {
			for _, b := range p.Backends {
				backends = append(backends, b.Address)
			}
		}
	}
	return sockets, backends
}

// mayBeFast reports whether clients of l can be carried: those of port 500 have
// nothing to carry.
func mayBeFast(l *plugins.Listener) bool {
	return l.Protocol == plugins.ProtocolIKEv2 && l.Address.Port() != 500
}

// fastFor returns what a listener has of the fast path; nil if it has nothing.
func (f *fast) fastFor(spec *plugins.Listener) *fastpath.Path {
	if f == nil || !mayBeFast(spec) {
		return nil
	}
	return f.path
}

// stats says what f does.
func (f *fast) stats() *plugins.FastPathStats {
	if f == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.mode.On() {
		return nil
	}
	s := &plugins.FastPathStats{Mode: f.mode, Active: f.path != nil, Reason: f.why}
	if f.path == nil {
		return s
	}
	p := f.path.Stats()
	s.Flows, s.Waiting, s.MaxFlows, s.Full, s.Failed, s.Dropped = p.Flows, p.Waiting, p.MaxFlows, p.Full, p.Failed, p.Dropped
	s.Attached, s.Left = make(map[string]string), make(map[string]uint64)
	for name, hook := range p.Attached {
		s.Attached[name] = hook.String()
	}
	for _, why := range fastpath.Reasons() {
		if n := p.Passed[why]; n > 0 {
			s.Left[why] = n
		}
	}
	return s
}

// fastChange returns what Plan says of the fast path; it is nil if nothing changes.
func fastChange(old, now *plugins.Site) []plugins.Change {
	text := func(s *plugins.Site) string {
		if s == nil || !s.FastPath.On() {
			return ""
		}
		if s.FastPathOptions == nil {
			return string(s.FastPath)
		}
		o := s.FastPathOptions
		return fmt.Sprintf("%s, hook %q, interfaces %q, max_flows %d, first_messages %d, pin %q",
			s.FastPath, o.Hook, slices.Clone(o.Interfaces), o.MaxFlows, o.FirstMessages, o.Pin)
	}
	options := func(s *plugins.Site) (o plugins.FastPathOptions) {
		if s.FastPathOptions != nil {
			o = *s.FastPathOptions
		}
		return o
	}
	before, after := text(old), text(now)
	if before == after {
		return nil
	}
	effect := effectFast
	if before != "" && after != "" && goesOn(options(old), options(now)) {
		effect = "" // the kernel goes on
	}
	return []plugins.Change{{
		Action: plugins.ActionChange, Kind: "fastpath", Name: now.Name,
		Fields: []plugins.FieldChange{{Name: "fastpath", Before: before, After: after}},
		Effect: effect,
	}}
}

const effectFast = "clients go on; this program carries them while the kernel doesn't"
