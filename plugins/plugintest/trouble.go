package plugintest

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// stale has an old plan refused.
func (r *run) stale(intents []Intent) {
	two := r.can(intents, 2)
	old := r.plan(two[0].Deployment)
	if old.Base == "" {
		r.Error("the plan doesn't say what it is based on")
	}
	r.apply(r.plan(two[1].Deployment))
	before := r.writes()
	if err := r.try(old); !errors.Is(err, plugins.ErrStale) {
		r.Errorf("Apply of an old plan: %v, want ErrStale", err)
	}
	if r.writes() != before {
		r.Error("Apply of an old plan wrote something")
	}
	r.unchanged("after an old plan", two[1].Deployment)
}

// drift has what a person altered found and put right.
func (r *run) drift(intents []Intent) {
	if r.Tamper == nil {
		r.Skip("the target has no Tamper")
	}
	in := r.can(intents, 1)[0]
	r.apply(r.plan(in.Deployment))
	revision := r.read().Revision
	r.Tamper(r.T)
	if r.read().Revision == revision {
		r.Error("Read sees no drift")
	}
	p := r.plan(in.Deployment)
	if len(p.Changes) == 0 {
		r.Fatal("Plan sees no drift")
	}
	r.apply(p)
	r.unchanged("after putting it right", in.Deployment)
}

// otherSite has a change of another site be none of the driver's, whose balancer serves
// one of several.
func (r *run) otherSite(intents []Intent) {
	if r.site == "" {
		r.Skip("the driver isn't configured for a site")
	}
	dep := r.can(intents, 1)[0].Deployment.Clone()
	other := dep.Clone().Sites[0]
	other.Name = "elsewhere"
	both := func(change func(*plugins.Site)) *plugins.Deployment {
		d := dep.Clone()
		d.Sites = append([]plugins.Site{other}, d.Sites...)
		d = d.Clone()
		for i := range d.Sites[0].Groups {
			for k := range d.Sites[0].Groups[i].Listeners {
				at := &d.Sites[0].Groups[i].Listeners[k].Address
				*at = netip.AddrPortFrom(at.Addr().Next(), at.Port())
			}
		}
		if change != nil {
			change(&d.Sites[0])
		}
		return d
	}
	r.apply(r.plan(both(nil)))
	before, w := r.read(), r.writes()
	for name, d := range map[string]*plugins.Deployment{
		"a backend of another site moved": both(func(s *plugins.Site) {
			b := s.Pools[0].Backends
			b[0].Address = b[len(b)-1].Address.Next()
		}),
		"another site got a name": both(func(s *plugins.Site) { s.Name = "somewhere" }),
		"another site went":       dep,
	} {
		r.unchanged("when "+name, d)
		r.apply(r.plan(d))
		after := r.read()
		if after.Revision != before.Revision || after.Applied != before.Applied || r.writes() != w {
			r.Errorf("when %s, %d writes were made, revision %s → %s, applied %s → %s", name, r.writes()-w, before.Revision, after.Revision, before.Applied, after.Applied)
		}
		if after.Applied != "" && after.Applied != d.Of(r.site).Revision() {
			r.Errorf("when %s, what is applied isn't the revision of the site", name)
		}
	}
}

// broken has an Apply end after each of its writes in turn, and the next program
// make it good. What was there before must be whole again in the end, as must what
// is not the driver's.
func (r *run) broken(intents []Intent) {
	if r.BreakAfter == nil || r.Writes == nil {
		r.Skip("the target has no BreakAfter or no Writes")
	}
	two := r.can(intents, 2)
	foreign := r.foreign()
	const most = 400
	for n := range most {
		r.BreakAfter(-1)
		r.apply(r.plan(nil))
		from := n % 2
		if n >= 2 {
			r.apply(r.plan(two[from].Deployment))
		}
		p := r.plan(two[1-from].Deployment)
		r.BreakAfter(n / 2)
		err := r.try(p)
		r.BreakAfter(-1)
		if err == nil && n/2 > 0 {
			if n%2 == 1 {
				return // it has been broken everywhere
			}
			continue
		}
		r.reopen()
		r.apply(r.plan(two[1-from].Deployment))
		r.unchanged("after it was broken off and made again", two[1-from].Deployment)
		if now := r.foreign(); now != foreign {
			r.Fatalf("broken off after %d writes, what isn't the driver's has changed", n/2)
		}
	}
	r.Errorf("an Apply takes more than %d writes", most/2)
}

// drain drains a backend and ends it.
func (r *run) drain(intents []Intent) {
	in := r.can(intents, 1)[0]
	r.apply(r.plan(in.Deployment))
	pool := &in.Deployment.Sites[0].Pools[0]
	ref := plugins.BackendRef{Pool: pool.Name, Backend: pool.Backends[0].Name}
	err := r.d.Drain(r.ctx, plugins.DrainRequest{BackendRef: ref})
	r.hear(nil, err)
	if errors.Is(err, plugins.ErrUnsupported) {
		r.Skip("the driver says that it can't drain")
	}
	if err != nil {
		r.Fatal(err)
	}
	r.drained(ref, true)
	r.unchanged("after Drain", in.Deployment)
	w := r.writes()
	r.apply(r.plan(in.Deployment))
	if r.writes() != w {
		r.Error("Apply wrote something because of a drain")
	}
	r.reopen()
	r.drained(ref, true)
	for range 2 { // the second is for nothing
		if err := r.d.Undrain(r.ctx, ref); err != nil && !errors.Is(err, plugins.ErrNotDrained) {
			r.Errorf("Undrain: %v", err)
		}
		r.drained(ref, false)
	}
	r.unchanged("after Undrain", in.Deployment)
	// A deadline that has passed moves the clients at once.
	if err := r.d.Drain(r.ctx, plugins.DrainRequest{BackendRef: ref, Deadline: time.Now().Add(-time.Second)}); err != nil {
		r.Errorf("Drain with no time: %v", err)
	}
	r.drained(ref, true)
	if err := r.d.Undrain(r.ctx, plugins.BackendRef{Backend: ref.Backend}); err != nil {
		r.Errorf("Undrain in all pools: %v", err)
	}
	r.drained(ref, false)
	for _, no := range []plugins.BackendRef{{Backend: "nobody"}, {Pool: "nobody", Backend: ref.Backend}, {}} {
		if err := r.d.Drain(r.ctx, plugins.DrainRequest{BackendRef: no}); !errors.Is(err, plugins.ErrNotFound) {
			r.Errorf("Drain of %q: %v, want ErrNotFound", no, err)
		}
		if err := r.d.Undrain(r.ctx, no); !errors.Is(err, plugins.ErrNotFound) {
			r.Errorf("Undrain of %q: %v, want ErrNotFound", no, err)
		}
	}
}

func (r *run) drained(ref plugins.BackendRef, want bool) {
	r.Helper()
	got := false
	for _, d := range r.read().Drained {
		got = got || d.BackendRef == ref
	}
	if got != want {
		r.Errorf("Read says that %v is drained: %t, want %t", ref, got, want)
	}
	s, err := r.d.Stats(r.ctx)
	r.hear(s, err)
	if err != nil {
		r.Fatal(err)
	}
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			if p.Name == ref.Pool && b.Name == ref.Backend && want && b.State == "up" {
				r.Errorf("Stats says that %v, which is drained, is %q", ref, b.State)
			}
		}
	}
}

// stats compares the names in statistics with those of the deployment.
func (r *run) stats(intents []Intent) {
	in := r.can(intents, 1)[0]
	r.apply(r.plan(in.Deployment))
	s, err := r.d.Stats(r.ctx)
	r.hear(s, err)
	if err != nil {
		r.Fatal(err)
	}
	site := &in.Deployment.Sites[0]
	var want, got []string
	for _, p := range site.Pools {
		for _, b := range p.Backends {
			want = append(want, p.Name+"/"+b.Name+" "+b.Address.String())
		}
	}
	for _, g := range site.Groups {
		for _, l := range g.Listeners {
			want = append(want, g.Name+"/"+l.Name+" "+string(l.Protocol)+" "+l.Address.String())
		}
	}
	for _, p := range s.Pools {
		for _, b := range p.Backends {
			got = append(got, p.Name+"/"+b.Name+" "+b.Address.String())
			if b.State != "up" && b.State != "draining" && b.State != "down" {
				r.Errorf("%s: state %q", b.Name, b.State)
			}
		}
	}
	for _, l := range s.Listeners {
		got = append(got, l.Group+"/"+l.Name+" "+string(l.Protocol)+" "+l.Address.String())
		if l.State != "open" && l.State != "draining" && l.State != "failed" {
			r.Errorf("%s: state %q", l.Name, l.State)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		r.Errorf("statistics are of\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if s.At.IsZero() || s.Site != site.Name {
		r.Errorf("statistics of site %q, at %v", s.Site, s.At)
	}
}

// watch hears of an Apply, and ends when told to.
func (r *run) watch(intents []Intent) {
	in := r.can(intents, 1)[0]
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	heard := make(chan plugins.Event, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- r.d.Watch(ctx, func(e plugins.Event) {
			select {
			case heard <- e:
			default:
			}
		})
	}()
	// Whoever watches is heard of a drain or an Apply; how soon Watch listens
	// isn't said, so it is done until it is heard.
	limit := time.After(30 * time.Second)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	deployments := []*plugins.Deployment{in.Deployment, nil}
	for i := 0; ; i++ {
		r.apply(r.plan(deployments[i%2]))
		select {
		case e := <-heard:
			r.hear(e, nil)
			if e.Text == "" || e.Kind == "" || e.At.IsZero() {
				r.Errorf("an event nobody can read: %#v", e)
			}
		case err := <-ended:
			r.Fatalf("Watch ended by itself: %v", err)
		case <-limit:
			r.Fatal("nothing was heard of an Apply")
		case <-tick.C:
			continue
		}
		break
	}
	cancel(cause)
	select {
	case err := <-ended:
		if !errors.Is(err, cause) {
			r.Errorf("Watch ended with %v, want the cause of its context", err)
		}
	case <-time.After(prompt):
		r.Fatal("Watch goes on")
	}
}

// atOnce has several goroutines call at once.
func (r *run) atOnce(intents []Intent) {
	two := r.can(intents, 2)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for k := range 3 {
				p, err := r.d.Plan(r.ctx, two[(i+k)%2].Deployment)
				r.hear(p, err)
				if err != nil {
					r.Errorf("Plan: %v", err)
					return
				}
				err = r.d.Apply(r.ctx, p, nil)
				if r.hear(nil, err); err != nil && !errors.Is(err, plugins.ErrStale) {
					r.Errorf("Apply: %v", err)
				}
			}
		})
		wg.Go(func() {
			for range 3 {
				_, err := r.d.Read(r.ctx)
				_, statsErr := r.d.Stats(r.ctx)
				_, valErr := r.d.Validate(r.ctx, two[0].Deployment)
				_, capErr := r.d.Capabilities(r.ctx)
				if err := errors.Join(err, statsErr, valErr, capErr); err != nil {
					r.Errorf("beside Apply: %v", err)
				}
			}
		})
	}
	wg.Wait()
	r.apply(r.plan(two[0].Deployment))
	r.unchanged("after calls at once", two[0].Deployment)
}

// calledOff calls with contexts that are done.
func (r *run) calledOff(intents []Intent) {
	in := r.can(intents, 1)[0]
	p := r.plan(in.Deployment)
	gone, cancel := context.WithCancel(r.ctx)
	cancel()
	ref := plugins.BackendRef{Pool: "ras", Backend: "ras1"}
	for name, call := range map[string]func() error{
		"Info":         func() error { _, err := r.d.Info(gone); return err },
		"Schema":       func() error { _, err := r.d.Schema(gone); return err },
		"Capabilities": func() error { _, err := r.d.Capabilities(gone); return err },
		"Validate":     func() error { _, err := r.d.Validate(gone, in.Deployment); return err },
		"Plan":         func() error { _, err := r.d.Plan(gone, in.Deployment); return err },
		"Apply":        func() error { return r.d.Apply(gone, p, nil) },
		"Read":         func() error { _, err := r.d.Read(gone); return err },
		"Stats":        func() error { _, err := r.d.Stats(gone); return err },
		"Drain":        func() error { return r.d.Drain(gone, plugins.DrainRequest{BackendRef: ref}) },
		"Undrain":      func() error { return r.d.Undrain(gone, ref) },
		"Watch":        func() error { return r.d.Watch(gone, func(plugins.Event) {}) },
	} {
		done := make(chan error, 1)
		go func() { done <- call() }()
		select {
		case err := <-done:
			r.hear(nil, err)
			if name == "Watch" && err == nil {
				r.Error("Watch ended without an error")
			}
		case <-time.After(prompt):
			r.Fatalf("%s goes on though it is called off", name)
		}
	}
	// Whatever was done of it, the next ones put it right.
	_ = r.d.Undrain(r.ctx, ref)
	r.apply(r.plan(in.Deployment))
	r.unchanged("after calls that were called off", in.Deployment)
}

// nonsense gives the driver deployments that are none.
func (r *run) nonsense([]Intent) {
	good := Intents(Layout{}, "/nonexistent")[0].Deployment
	for name, d := range map[string]*plugins.Deployment{
		"empty":                 {},
		"a site without a name": {Sites: []plugins.Site{{}}},
		"no pool": {Sites: []plugins.Site{{Name: "hq", Groups: []plugins.Group{{
			Name: "vpn", Pool: "nobody", Listeners: []plugins.Listener{{Name: "x", Protocol: "quic"}},
		}}}}},
		"an invalid address": func() *plugins.Deployment {
			d := good.Clone()
			d.Sites[0].Pools[0].Backends[0].Address = netip.Addr{}
			d.Sites[0].Groups[0].Listeners[0].Address = netip.AddrPort{}
			return d
		}(),
		"strange words": func() *plugins.Deployment {
			d := good.Clone()
			d.Sites[0].Pools[0].Picker = "'; rm -rf / #\n\x00"
			d.Sites[0].Pools[0].Name = strings.Repeat("x", 10000)
			return d
		}(),
		"two sites": {Sites: []plugins.Site{good.Sites[0], good.Sites[0]}},
	} {
		before := r.read()
		p := r.plan(d)
		if !plugins.HasError(p.Diagnostics) {
			r.Errorf("%s is accepted", name)
			continue
		}
		r.refused(p, before)
	}
}

// files has the driver render what it can do, if it renders at all.
func (r *run) files(intents []Intent) {
	renderer, ok := r.d.(plugins.Renderer)
	if !ok {
		r.Skip("the driver doesn't render")
	}
	for _, in := range intents {
		if in.Deployment == nil {
			continue
		}
		list, err := renderer.Render(r.ctx, in.Deployment)
		for i := range list {
			r.hear(string(list[i].Content), nil)
		}
		r.hear(list, err)
		refused := plugins.HasError(r.plan(in.Deployment).Diagnostics)
		switch {
		case errors.Is(err, plugins.ErrUnsupported):
			r.Skip("the driver doesn't render")
		case refused && !errors.Is(err, plugins.ErrInvalid):
			r.Errorf("%s is refused by Plan, and Render says %v", in.Name, err)
		case !refused && (err != nil || len(list) == 0):
			r.Errorf("%s: %d files, %v", in.Name, len(list), err)
		}
		for _, f := range list {
			if f.Name == "" || strings.ContainsAny(f.Name, "/\\") || len(f.Content) == 0 {
				r.Errorf("%s: a file that can't be written: %q, %d bytes", in.Name, f.Name, len(f.Content))
			}
		}
	}
}
