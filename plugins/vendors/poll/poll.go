// Package poll watches balancers that don't call: it looks again and again, and tells
// what has changed.
package poll

import (
	"cmp"
	"context"
	"maps"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// A View is what is compared with the one before it.
type View struct {
	// Stats are what the balancer says of backends and listeners.
	Stats *plugins.Stats
	// Marks are what else changes, the most telling first: of those that differ
	// only the first is told. Views of one Watcher have as many.
	Marks []Mark
	// Down says why the balancer doesn't serve, though it could be asked; empty if
	// it does.
	Down string
}

// A Mark stands for what is served as a whole.
type Mark struct {
	// Value is compared.
	Value string
	// Severity and Text are those of the event that tells of another value.
	Severity plugins.Severity
	Text     string
}

// A Watcher looks at one balancer.
type Watcher struct {
	// Name is the driver's; events about the whole balancer bear it.
	Name string
	// Every is how often it looks.
	Every time.Duration
	// Again is said when the balancer answers again, or serves again.
	Again string
	// Look looks. An error means that the balancer can't be asked, which is told
	// once, and not the end.
	Look func(context.Context) (View, error)
}

// Run looks until ctx ends, whose cause it returns, and tells f of each change. What
// was so at the first look is no change.
func (w *Watcher) Run(ctx context.Context, f func(plugins.Event)) error {
	tick := time.NewTicker(w.Every)
	defer tick.Stop()
	var before *View
	down, first := "", true
	for {
		now, err := w.Look(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		why := now.Down
		if err != nil {
			why = cmp.Or(err.Error(), "it can't be asked")
		}
		switch {
		case why != "" && down == "" && !first:
			tell(f, plugins.SeverityError, "listener", w.Name, why)
		case why == "" && down != "":
			tell(f, plugins.SeverityInfo, "listener", w.Name, w.Again)
		}
		down, first = why, false
		if err == nil {
			if before != nil {
				before.compare(&now, w.Name, f)
			}
			before = &now
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func tell(f func(plugins.Event), severity plugins.Severity, kind, name, text string) {
	f(plugins.Event{At: time.Now(), Severity: severity, Kind: kind, Name: name, Text: text})
}

// compare tells f what differs in now.
func (v *View) compare(now *View, driver string, f func(plugins.Event)) {
	for i, m := range now.Marks {
		if m.Value != v.Marks[i].Value {
			tell(f, m.Severity, "apply", driver, m.Text)
			break
		}
	}
	was := maps.Collect(v.states)
	for s, is := range now.states {
		old, ok := was[s]
		if !ok || old == is {
			continue
		}
		severity := plugins.SeverityInfo
		if is == "down" || is == "failed" {
			severity = plugins.SeverityWarning
		}
		tell(f, severity, s.kind, s.name, old+" → "+is)
	}
}

// state names something that has one.
type state struct{ kind, name string }

// states yields what has a state, in the order of the statistics, and the state.
func (v *View) states(yield func(state, string) bool) {
	if v.Stats == nil {
		return
	}
	for i := range v.Stats.Pools {
		p := &v.Stats.Pools[i]
		for k := range p.Backends {
			if !yield(state{"backend", p.Name + "/" + p.Backends[k].Name}, p.Backends[k].State) {
				return
			}
		}
	}
	for i := range v.Stats.Listeners {
		l := &v.Stats.Listeners[i]
		if !yield(state{"listener", l.Group + "/" + l.Name}, l.State) {
			return
		}
	}
}
