package netscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/rest"
	"github.com/aovlb/aovlb/plugins/vendors/setup"
)

// version is the driver's own.
const version = "1"

// A Driver puts a deployment onto a NetScaler. Its zero value is to be configured.
type Driver struct {
	// Logger is told of what is done; nil means nobody.
	Logger *slog.Logger
	// Client makes the requests; nil means one that verifies the appliance's
	// certificate as the settings say.
	Client *http.Client

	mu      sync.Mutex    // held by who writes
	altered atomic.Uint64 // how often this driver altered something
	setUp   setup.Setup[Settings, *client]
}

var errConfigure = errors.New("netscaler: the driver was not configured")

// Info says what the driver is.
func (d *Driver) Info(ctx context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "netscaler", Version: version, Product: "NetScaler ADC 13.1 or later"}, context.Cause(ctx)
}

// Schema returns the schema of [Settings].
func (d *Driver) Schema(ctx context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), context.Cause(ctx)
}

// Configure tells the driver where the NetScaler is.
func (d *Driver) Configure(ctx context.Context, c plugins.Config) error {
	if err := setup.Check(ctx, &c); err != nil {
		return err
	}
	s, err := readSettings(&c)
	if err != nil {
		return err
	}
	web, err := rest.Client(d.Client, s.CAFile, s.ServerName)
	if err != nil {
		return &plugins.FieldError{Path: "settings.ca_file", Err: err}
	}
	d.setUp.Set(c, s, &client{http: web, base: strings.TrimRight(s.URL, "/"), user: s.User, password: s.Password, pace: rest.Pace{PerSecond: s.Rate}})
	return nil
}

// Close ends the driver's session at the appliance.
func (d *Driver) Close() error {
	_, _, c := d.setUp.Peek()
	if c == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.logout(ctx); err != nil {
		d.log().Debug("the session was not ended", "err", err)
	}
	if d.Client == nil {
		c.http.CloseIdleConnections()
	}
	return nil
}

// setup returns what the driver was configured with.
func (d *Driver) setup(ctx context.Context) (plugins.Config, Settings, *client, error) {
	return d.setUp.Get(ctx, errConfigure)
}

// answers reports whether the appliance is to answer for names. A driver that isn't
// configured says what it could do.
func (d *Driver) answers() bool {
	_, s, c := d.setUp.Peek()
	return c == nil || s.GSLB != nil
}

func (d *Driver) log() *slog.Logger { return setup.Log(d.Logger) }

// Validate says what a NetScaler can't do of a deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, _, _ := d.setUp.Peek()
	return check(dep, c, d.answers()), nil
}

// kept returns the drains of backends that dep still has.
func (f *found) kept(dep *plugins.Deployment) []plugins.DrainRequest {
	if f.memory == nil || dep == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.memory.Drained), func(r plugins.DrainRequest) bool { return len(dep.Refs(f.site, r.BackendRef)) == 0 })
}

// renderAll renders what is wanted of a deployment, beside what is there.
func renderAll(conf plugins.Config, s Settings, dep *plugins.Deployment, f *found, drained []plugins.DrainRequest) ([]*item, error) {
	r := &renderer{owner: conf.Owner, site: dep.Served(f.site), drained: drained, servers: f.servers, geo: dep.Geo, local: f.local}
	if s.GSLB != nil {
		r.address = s.GSLB.Address
	}
	return r.render()
}

// compare reads what is there, and says what is to be done for dep.
func (c *client) compare(ctx context.Context, conf plugins.Config, s Settings, dep *plugins.Deployment) (*found, []step, error) {
	f, err := c.find(ctx, conf.Owner, siteOf(conf, dep))
	if err != nil {
		return nil, nil, err
	}
	var want []*item
	if dep != nil {
		if dep.Geo != nil && !f.balances {
			return nil, nil, errors.New("GSLB is turned off on the appliance, for everybody; an administrator turns it on by: enable ns feature GSLB")
		}
		if want, err = renderAll(conf, s, dep, f, f.kept(dep)); err != nil {
			return nil, nil, err
		}
	}
	list, err := c.spare(ctx, conf.Owner, f, steps(f.items, want))
	return f, list, err
}

// Plan says what Apply would change.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	conf, s, c, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep, Diagnostics: check(dep, conf, s.GSLB != nil)}
	if plugins.HasError(p.Diagnostics) {
		return p, nil
	}
	f, list, err := c.compare(ctx, conf, s, dep)
	if err != nil {
		return nil, where(err)
	}
	p.Diagnostics = append(p.Diagnostics, f.spared...)
	p.Base = plugins.RevisionOf(objects(f.items))
	for i := range list {
		p.Changes = append(p.Changes, list[i].Change)
	}
	return p, nil
}

// Apply makes the changes one by one. NITRO undoes nothing: after a failure the next
// plan has what is left.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	conf, s, c, err := d.setup(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("netscaler: there is no plan")
	}
	if plugins.HasError(check(p.Deployment, conf, s.GSLB != nil)) {
		return plugins.ErrInvalid
	}
	if progress == nil {
		progress = func(plugins.Progress) {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, list, err := c.compare(ctx, conf, s, p.Deployment)
	if err != nil {
		return where(err)
	}
	if p.Base != "" && p.Base != plugins.RevisionOf(objects(f.items)) {
		return plugins.ErrStale
	}
	return where(d.carryOut(ctx, conf, s, c, f, p.Deployment.Of(f.site), list, progress))
}

// carryOut makes the changes, has them saved, and then says so on the appliance:
// whatever is broken off is found by the next one.
func (d *Driver) carryOut(ctx context.Context, conf plugins.Config, s Settings, c *client, f *found, dep *plugins.Deployment, list []step, progress func(plugins.Progress)) error {
	m := f.memory
	same := m != nil && m.Deployment.Revision() == dep.Revision() && dep != nil || m == nil && len(f.notes) == 0 && dep == nil
	if len(list) == 0 && same && (m == nil || !m.Pending) {
		return nil
	}
	if len(list) > 0 && same && m != nil && !m.Pending {
		// It looks as if all had been done and saved; from now on that isn't so.
		if err := c.remember(ctx, conf.Owner, f, &memory{Deployment: dep, Drained: m.Drained, Pending: true}); err != nil {
			return err
		}
	}
	drained := f.kept(dep)
	for i := range list {
		if err := c.take(ctx, &list[i]); err != nil {
			return fmt.Errorf("change %d of %d: %w", i+1, len(list), err)
		}
		d.altered.Add(1)
		d.log().Info("changed", "change", list[i].String())
		progress(plugins.Progress{Done: i + 1, Total: len(list), Change: list[i].Change})
	}
	if s.saves() {
		progress(plugins.Progress{Done: len(list), Total: len(list), Text: "the configuration is saved"})
		if err := c.save(ctx); err != nil {
			return err
		}
	}
	if dep == nil {
		return c.remember(ctx, conf.Owner, f, nil)
	}
	return c.remember(ctx, conf.Owner, f, &memory{Deployment: dep, Drained: drained})
}

// Read returns what is there.
func (d *Driver) Read(ctx context.Context) (*plugins.State, error) {
	conf, _, c, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := c.find(ctx, conf.Owner, conf.Site)
	if err != nil {
		return nil, where(err)
	}
	out := &plugins.State{Objects: objects(f.items)}
	out.Revision = plugins.RevisionOf(out.Objects)
	if f.memory != nil {
		out.Deployment, out.Drained = f.memory.Deployment, f.memory.Drained
		out.Applied = f.memory.Deployment.Revision()
	}
	return out, nil
}
