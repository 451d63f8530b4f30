package builtin

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"sync"

	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/plugins"
)

// fast is the fast path of a site, or why there is none. Listeners keep the one
// they were made with: one that is made anew replaces them, and their clients go
// on.
type fast struct {
	mode plugins.FastPath
	opts plugins.FastPathOptions
	path *fastpath.Path // nil: there is none
	why  string

	cancel  context.CancelFunc
	running sync.WaitGroup
}

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
		if want.mode.On() && reflect.DeepEqual(was.opts, want.opts) {
			was.mode = want.mode
			was.path.Watch(sockets, backends)
			next.fast = was
			return nil
		}
		d.closeFast(was, false)
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
	hook := fastpath.HookTC
	if want.opts.Hook == plugins.FastPathXDP {
		hook = fastpath.HookXDP
	}
	pin := want.opts.Pin
	if d.StateDir == "" {
		pin = "" // the next process wouldn't know the clients
	}
	p, err := fastpath.Open(fastpath.Config{
		Hook: hook, Interfaces: want.opts.Interfaces, At: sockets, Toward: backends,
		MaxFlows: want.opts.MaxFlows, Pin: pin, Logger: d.logger(),
	})
	switch {
	case err != nil && want.mode == plugins.FastPathRequire:
		return &plugins.FieldError{Path: at + ".fastpath", Err: err}
	case err != nil:
		want.why = err.Error()
		d.logger().Warn("no fast path: this program carries everything", "error", err)
		d.events.send(plugins.SeverityWarning, "fastpath", site.Name, "off: "+want.why)
		return nil
	}
	want.path, next.freshFast = p, true
	ctx, cancel := context.WithCancel(context.Background())
	want.cancel = cancel
	want.running.Go(func() { _ = p.Run(ctx) })
	return nil
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

// fastAddresses returns the addresses of the listeners whose clients can be carried,
// and those of their backends.
func fastAddresses(s *plugins.Site) (sockets, backends []netip.Addr) {
	for i := range s.Groups {
		g := &s.Groups[i]
		some := false
		for j := range g.Listeners {
			if l := &g.Listeners[j]; mayBeFast(l) {
				sockets, some = append(sockets, l.Address.Addr()), true
			}
		}
		if p := s.Pool(g.Pool); some && p != nil {
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
	if f == nil || !f.mode.On() {
		return nil
	}
	s := &plugins.FastPathStats{Mode: f.mode, Active: f.path != nil, Reason: f.why}
	if f.path == nil {
		return s
	}
	p := f.path.Stats()
	s.Flows, s.Waiting, s.MaxFlows, s.Full, s.Failed = p.Flows, p.Waiting, p.MaxFlows, p.Full, p.Failed
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
		return fmt.Sprintf("%s, hook %q, interfaces %q, max_flows %d, pin %q", s.FastPath, o.Hook, slices.Clone(o.Interfaces), o.MaxFlows, o.Pin)
	}
	before, after := text(old), text(now)
	if before == after {
		return nil
	}
	return []plugins.Change{{
		Action: plugins.ActionChange, Kind: "fastpath", Name: now.Name,
		Fields: []plugins.FieldChange{{Name: "fastpath", Before: before, After: after}},
		Effect: effectFast,
	}}
}

const effectFast = "clients go on; this program carries them while the kernel doesn't"
