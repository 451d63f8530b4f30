package filebox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Settings are those of a Driver.
type Settings struct {
	// File is the balancer.
	File string `json:"file"`
	// Password is what it is reached with; filebox only reads it.
	Password plugins.Secret `json:"password,omitzero"`
}

const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "file": {"type": "string", "description": "The file that is the balancer."},
    "password": {
      "type": "object",
      "description": "Where the password is: in a file, or in an environment variable.",
      "properties": {"file": {"type": "string"}, "env": {"type": "string"}},
      "additionalProperties": false
    }
  },
  "required": ["file"],
  "additionalProperties": false
}`

// A Driver keeps a deployment in a file. The zero value is ready for Configure.
type Driver struct {
	applying sync.Mutex
	mu       sync.Mutex // below
	config   plugins.Config
	settings Settings
	watchers map[chan plugins.Event]bool
}

var (
	_ plugins.Driver   = (*Driver)(nil)
	_ plugins.Renderer = (*Driver)(nil)
)

// errUnconfigured is what calls say that come before Configure.
var errUnconfigured = errors.New("filebox: it isn't configured")

// Info says what this driver is.
func (d *Driver) Info(context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "filebox", Version: "1", Product: "a file, for tests"}, nil
}

// Schema returns the schema of Settings.
func (d *Driver) Schema(context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), nil
}

// Configure takes the settings.
func (d *Driver) Configure(_ context.Context, c plugins.Config) error {
	var s Settings
	if err := c.ReadSettings(&s); err != nil {
		return err
	}
	var errs []error
	if s.File == "" {
		errs = append(errs, &plugins.FieldError{Path: "settings.file", Err: errors.New("it is needed")})
	}
	if err := c.Owner.Check(); err != nil {
		errs = append(errs, &plugins.FieldError{Path: "owner", Err: err})
	}
	if !s.Password.IsZero() {
		if _, err := s.Password.Read(); err != nil {
			errs = append(errs, &plugins.FieldError{Path: "settings.password", Err: err})
		}
	}
	if errs != nil {
		return errors.Join(errs...)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.config, d.settings = c, s
	return nil
}

func (d *Driver) configured() (plugins.Config, string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.settings.File == "" {
		return d.config, "", errUnconfigured
	}
	return d.config, d.settings.File, nil
}

// Capabilities says what this driver does.
func (d *Driver) Capabilities(context.Context) (plugins.Capabilities, error) {
	return plugins.Capabilities{
		Support: append(plugins.Full(
			"pools.picker=round-robin,least-clients", "pools.failback=automatic", "pools.need=all",
			"pools.backends.weight", "pools.backends.max_clients", "pools.backends.admin",
			"pools.checks.type=sstp,radius,tcp", "pools.checks",
			"groups.affinity=source,user", "groups.client_address", "groups.idle",
			"groups.listeners.protocol=sstp,radius,tcp,udp", "groups.listeners.backend_port", "groups.listeners.idle_timeout",
		),
			plugins.Partial("pools.picker=maglev", "backends take turns"),
			plugins.Partial("pools.panic", "with all backends down, nobody is served"),
			plugins.None("groups.affinity=spi", "a file doesn't read IKE", "use affinity: source"),
		),
		MinInterval: plugins.Duration(time.Second), ExactExpect: true, KeepsClients: true,
	}, nil
}

// Validate says what is wrong with a Deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if dep == nil {
		return nil, nil
	}
	c, _, err := d.configured()
	if err != nil {
		return nil, err
	}
	caps, err := d.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	list := plugins.Errors(dep.Validate())
	if dep.Site(c.Site) == nil {
		list = append(list, plugins.Diagnostic{Severity: plugins.SeverityError, Path: "sites", Summary: fmt.Sprintf("there is no site %q", c.Site), Fix: "name one that is there"})
	}
	return append(list, plugins.Judge(dep, c.Site, caps)...), nil
}

// found returns the objects in the file that are ours.
func found(b *Box, c plugins.Config, site string) []plugins.Object {
	var out []plugins.Object
	for _, o := range b.Objects {
		if c.Owner.Owns(site, o.Name) {
			out = append(out, o)
		}
	}
	return out
}

// siteName is the site that is configured, or the one that dep has.
func siteName(c plugins.Config, dep *plugins.Deployment) string {
	if c.Site == "" && dep != nil && len(dep.Sites) == 1 {
		return dep.Sites[0].Name
	}
	return c.Site
}

// Plan compares the file with dep.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	c, file, err := d.configured()
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep.Clone()}
	if p.Diagnostics, err = d.Validate(ctx, dep); err != nil {
		return nil, err
	}
	b, err := Load(file)
	if err != nil {
		return nil, err
	}
	have := found(b, c, siteName(c, dep))
	p.Base = plugins.RevisionOf(have)
	if !plugins.HasError(p.Diagnostics) {
		p.Changes = plugins.DiffObjects(have, render(c, dep))
	}
	return p, nil
}

// Apply makes the changes of a Plan, one write each.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	now, err := d.Plan(ctx, p.Deployment)
	if err != nil {
		return err
	}
	c, file, err := d.configured()
	switch {
	case err != nil:
		return err
	case plugins.HasError(now.Diagnostics):
		return plugins.ErrInvalid
	case p.Base != "" && p.Base != now.Base:
		return plugins.ErrStale
	}
	want := render(c, p.Deployment)
	for i, ch := range now.Changes {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		err := change(file, func(b *Box) bool {
			if ch.Action == plugins.ActionRemove {
				b.remove(ch.Kind, ch.Name)
				return true
			}
			b.put(want[slices.IndexFunc(want, func(o plugins.Object) bool { return o.Kind == ch.Kind && o.Name == ch.Name })])
			return true
		})
		if err != nil {
			return fmt.Errorf("filebox: %v: %w", ch, err)
		}
		if progress != nil {
			progress(plugins.Progress{Done: i + 1, Total: len(now.Changes), Change: ch})
		}
	}
	if err := d.forget(file, want); err != nil {
		return err
	}
	d.tell("apply", siteName(c, p.Deployment), "applied")
	return nil
}

// forget ends the drains of backends that aren't there any more.
func (d *Driver) forget(file string, want []plugins.Object) error {
	gone := func(r plugins.DrainRequest) bool {
		return !slices.ContainsFunc(want, func(o plugins.Object) bool {
			return o.Kind == "backend" && o.Get("pool") == r.Pool && o.Get("backend") == r.Backend
		})
	}
	return change(file, func(b *Box) bool {
		n := len(b.Drained)
		b.Drained = slices.DeleteFunc(b.Drained, gone)
		return len(b.Drained) != n
	})
}

// Read returns what the file has of ours.
func (d *Driver) Read(context.Context) (*plugins.State, error) {
	c, file, err := d.configured()
	if err != nil {
		return nil, err
	}
	b, err := Load(file)
	if err != nil {
		return nil, err
	}
	have := found(b, c, c.Site)
	s := &plugins.State{Revision: plugins.RevisionOf(have), Objects: have, Drained: b.Drained}
	for i := range have {
		if have[i].Kind == "site" {
			s.Applied = have[i].Get("revision")
		}
	}
	return s, nil
}
