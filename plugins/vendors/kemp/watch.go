package kemp

import (
	"context"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// looks is how often Watch looks.
const looks = 2 * time.Second

// Watch tells of backends and listeners that change their state, and of what is
// altered, whoever did it. It looks every 2 s, since a LoadMaster doesn't call.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	if _, _, _, err := d.setup(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(looks)
	defer tick.Stop()
	before, err := d.view(ctx)
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		now, nowErr := d.view(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		event := func(severity plugins.Severity, kind, name, text string) {
			f(plugins.Event{At: time.Now(), Severity: severity, Kind: kind, Name: name, Text: text})
		}
		switch {
		case nowErr != nil && err == nil:
			event(plugins.SeverityError, "balancer", "kemp", nowErr.Error())
		case nowErr == nil && err != nil:
			event(plugins.SeverityInfo, "balancer", "kemp", "the LoadMaster answers again")
		}
		if known := err == nil; nowErr == nil {
			if known {
				tell(before, now, event)
			}
			before = now
		}
		err = nowErr
	}
}

// view is what Watch compares.
type view struct {
	revision string
	altered  uint64               // what was altered and put back is told, too, if this driver did it
	states   map[[2]string]string // by kind and name
	names    [][2]string
}

func (d *Driver) view(ctx context.Context) (view, error) {
	altered := d.altered.Load()
	s, revision, err := d.look(ctx)
	if err != nil {
		return view{}, err
	}
	out := view{revision: revision, altered: altered, states: make(map[[2]string]string)}
	add := func(kind, name, state string) {
		out.names = append(out.names, [2]string{kind, name})
		out.states[[2]string{kind, name}] = state
	}
	for i := range s.Pools {
		for _, b := range s.Pools[i].Backends {
			add("backend", s.Pools[i].Name+"/"+b.Name, b.State)
		}
	}
	for _, l := range s.Listeners {
		add("listener", l.Group+"/"+l.Name, l.State)
	}
	return out, nil
}

func tell(before, now view, event func(severity plugins.Severity, kind, name, text string)) {
	if before.revision != now.revision || before.altered != now.altered {
		event(plugins.SeverityInfo, "apply", "kemp", "what the LoadMaster serves was altered")
	}
	for _, id := range now.names {
		was, ok := before.states[id]
		if state := now.states[id]; ok && was != state {
			severity := plugins.SeverityInfo
			if state == "down" || state == "failed" {
				severity = plugins.SeverityWarning
			}
			event(severity, id[0], id[1], was+" → "+state)
		}
	}
}
