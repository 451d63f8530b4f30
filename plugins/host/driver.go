package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// Info says what the plugin is.
func (p *Plugin) Info(ctx context.Context) (i plugins.Info, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { i, err = d.Info(ctx); return err })
	return i, err
}

// Schema returns the schema of the plugin's settings.
func (p *Plugin) Schema(ctx context.Context) (b json.RawMessage, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { b, err = d.Schema(ctx); return err })
	return b, err
}

// Configure configures the plugin, and remembers how if that went well.
func (p *Plugin) Configure(ctx context.Context, c plugins.Config) error {
	c.Settings = slices.Clone(c.Settings)
	err := p.again(ctx, func(d plugins.Driver) error { return d.Configure(ctx, c) })
	if err == nil {
		p.mu.Lock()
		p.config = &c
		p.mu.Unlock()
	}
	return err
}

// Capabilities says what the plugin can do.
func (p *Plugin) Capabilities(ctx context.Context) (c plugins.Capabilities, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { c, err = d.Capabilities(ctx); return err })
	return c, err
}

// Validate says what the plugin thinks of a Deployment.
func (p *Plugin) Validate(ctx context.Context, dep *plugins.Deployment) (list []plugins.Diagnostic, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { list, err = d.Validate(ctx, dep); return err })
	return list, err
}

// Plan says what Apply would change.
func (p *Plugin) Plan(ctx context.Context, dep *plugins.Deployment) (plan *plugins.Plan, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { plan, err = d.Plan(ctx, dep); return err })
	return plan, err
}

// Apply puts a plan into effect. If the plugin dies meanwhile, its error is a
// [*wire.UnavailableError]: make a new plan and apply that.
func (p *Plugin) Apply(ctx context.Context, plan *plugins.Plan, progress func(plugins.Progress)) error {
	return p.once(ctx, func(d plugins.Driver) error { return d.Apply(ctx, plan, progress) })
}

// Read returns what is there now.
func (p *Plugin) Read(ctx context.Context) (s *plugins.State, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { s, err = d.Read(ctx); return err })
	return s, err
}

// Drain has a backend get no new clients.
func (p *Plugin) Drain(ctx context.Context, r plugins.DrainRequest) error {
	return p.again(ctx, func(d plugins.Driver) error { return d.Drain(ctx, r) })
}

// Undrain ends a Drain.
func (p *Plugin) Undrain(ctx context.Context, r plugins.BackendRef) error {
	tries := 0
	return p.again(ctx, func(d plugins.Driver) error {
		err := d.Undrain(ctx, r)
		if tries++; tries > 1 && errors.Is(err, plugins.ErrNotDrained) {
			return nil // the plugin that died has done it
		}
		return err
	})
}

// Stats returns counts and states.
func (p *Plugin) Stats(ctx context.Context) (s *plugins.Stats, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) { s, err = d.Stats(ctx); return err })
	return s, err
}

// Watch calls f for each event, until ctx is done. That the plugin died is an
// event too, and Watch goes on with the next process.
func (p *Plugin) Watch(ctx context.Context, f func(plugins.Event)) error {
	for {
		err := p.once(ctx, func(d plugins.Driver) error { return d.Watch(ctx, f) })
		var lost *wire.UnavailableError
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.As(err, &lost) {
			return err
		}
		f(plugins.Event{
			At: time.Now().Round(0), Severity: plugins.SeverityError, Kind: "plugin", Name: p.Name,
			Text: "the plugin died, and is started again; events may be missing",
		})
	}
}

// Render has the plugin write files; it is an error if it can't.
func (p *Plugin) Render(ctx context.Context, dep *plugins.Deployment) (list []plugins.File, err error) {
	err = p.again(ctx, func(d plugins.Driver) (err error) {
		r, ok := d.(plugins.Renderer)
		if !ok {
			return fmt.Errorf("%w: plugin %s writes no files", plugins.ErrUnsupported, p.Name)
		}
		list, err = r.Render(ctx, dep)
		return err
	})
	return list, err
}

// StreamStats calls f with statistics each interval, until ctx is done. If the plugin
// dies, it goes on with the next process.
func (p *Plugin) StreamStats(ctx context.Context, every time.Duration, f func(*plugins.Stats)) error {
	for {
		err := p.once(ctx, func(d plugins.Driver) error {
			s, ok := d.(wire.StatsStreamer)
			if !ok {
				return plugins.ErrUnsupported
			}
			return s.StreamStats(ctx, every, f)
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var lost *wire.UnavailableError
		if !errors.As(err, &lost) {
			return err
		}
	}
}
