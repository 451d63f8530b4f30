package filebox

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// backends returns those of the file that ref means.
func (d *Driver) backends(ref plugins.BackendRef) (string, []plugins.BackendRef, error) {
	c, file, err := d.configured()
	if err != nil {
		return "", nil, err
	}
	b, err := Load(file)
	if err != nil {
		return "", nil, err
	}
	var out []plugins.BackendRef
	for _, o := range found(b, c, c.Site) {
		r := plugins.BackendRef{Pool: o.Get("pool"), Backend: o.Get("backend")}
		if o.Kind == "backend" && r.Backend == ref.Backend && (ref.Pool == "" || ref.Pool == r.Pool) {
			out = append(out, r)
		}
	}
	if out == nil {
		return "", nil, fmt.Errorf("%w: backend %q", plugins.ErrNotFound, ref)
	}
	return file, out, nil
}

// Drain marks a backend as drained. A file has no clients that could be moved.
func (d *Driver) Drain(_ context.Context, r plugins.DrainRequest) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	file, list, err := d.backends(r.BackendRef)
	if err != nil {
		return err
	}
	for _, ref := range list {
		now := plugins.DrainRequest{BackendRef: ref, Deadline: r.Deadline.Round(0).UTC()}
		err := change(file, func(b *Box) bool {
			b.Drained = append(slices.DeleteFunc(b.Drained, func(o plugins.DrainRequest) bool { return o.BackendRef == ref }), now)
			return true
		})
		if err != nil {
			return err
		}
		d.tell("drain", ref.String(), "no new clients")
	}
	return nil
}

// Undrain takes the mark away.
func (d *Driver) Undrain(_ context.Context, r plugins.BackendRef) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	file, list, err := d.backends(r)
	if err != nil {
		return err
	}
	for _, ref := range list {
		err := change(file, func(b *Box) bool {
			n := len(b.Drained)
			b.Drained = slices.DeleteFunc(b.Drained, func(o plugins.DrainRequest) bool { return o.BackendRef == ref })
			return len(b.Drained) != n
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Stats returns the names that the file has. Nothing is counted.
func (d *Driver) Stats(context.Context) (*plugins.Stats, error) {
	c, file, err := d.configured()
	if err != nil {
		return nil, err
	}
	b, err := Load(file)
	if err != nil {
		return nil, err
	}
	s := &plugins.Stats{At: time.Now().Round(0), Site: c.Site, Pools: []plugins.PoolStats{}, Groups: []plugins.GroupStats{}, Listeners: []plugins.ListenerStats{}}
	for _, o := range found(b, c, c.Site) {
		switch o.Kind {
		case "backend":
			addBackend(s, o, b.Drained)
		case "listener":
			addListener(s, o)
		}
	}
	return s, nil
}

func addBackend(s *plugins.Stats, o plugins.Object, drained []plugins.DrainRequest) {
	ref := plugins.BackendRef{Pool: o.Get("pool"), Backend: o.Get("backend")}
	addr, _ := netip.ParseAddr(o.Get("address"))
	state := plugins.BackendStats{Name: ref.Backend, Address: addr, State: "up", Active: new(int64)}
	if slices.ContainsFunc(drained, func(r plugins.DrainRequest) bool { return r.BackendRef == ref }) {
		state.State = "draining"
	}
	i := slices.IndexFunc(s.Pools, func(p plugins.PoolStats) bool { return p.Name == ref.Pool })
	if i < 0 {
		i = len(s.Pools)
		s.Pools = append(s.Pools, plugins.PoolStats{Name: ref.Pool})
	}
	s.Pools[i].Backends = append(s.Pools[i].Backends, state)
}

func addListener(s *plugins.Stats, o plugins.Object) {
	addr, _ := netip.ParseAddrPort(o.Get("address"))
	s.Listeners = append(s.Listeners, plugins.ListenerStats{
		Name: o.Get("listener"), Group: o.Get("group"), Protocol: plugins.Protocol(o.Get("protocol")), Address: addr, State: "open",
	})
}

// Watch calls f for what this driver does.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	ch := make(chan plugins.Event, 64)
	d.mu.Lock()
	if d.watchers == nil {
		d.watchers = make(map[chan plugins.Event]bool)
	}
	d.watchers[ch] = true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.watchers, ch)
		d.mu.Unlock()
	}()
	for {
		select {
		case e := <-ch:
			f(e)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *Driver) tell(kind, name, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for ch := range d.watchers {
		select {
		case ch <- plugins.Event{At: time.Now().Round(0), Severity: plugins.SeverityInfo, Kind: kind, Name: name, Text: text}:
		default: // nobody reads it
		}
	}
}
