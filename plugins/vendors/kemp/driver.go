package kemp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/rest"
	"github.com/aovlb/aovlb/plugins/vendors/setup"
)

// version is the driver's own.
const version = "1"

// A Driver puts a deployment onto a LoadMaster. Its zero value is to be configured.
type Driver struct {
	// Logger is told of what is done; nil means nobody.
	Logger *slog.Logger
	// HTTP makes the calls; nil means a client that trusts the CAs of the
	// settings. It is set before Configure.
	HTTP *http.Client

	mu      sync.Mutex    // held by who writes
	altered atomic.Uint64 // how often this driver altered something
	setUp   setup.Setup[Settings, *client]
}

// errConfigure says that the driver has no LoadMaster yet.
var errConfigure = errors.New("kemp: the driver was not configured")

// Info says what the driver is.
func (d *Driver) Info(ctx context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "kemp", Version: version, Product: "Kemp LoadMaster 7.2.50 or later"}, context.Cause(ctx)
}

// Schema returns the schema of [Settings].
func (d *Driver) Schema(ctx context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), context.Cause(ctx)
}

// Configure tells the driver where the LoadMaster is. It doesn't go there.
func (d *Driver) Configure(ctx context.Context, c plugins.Config) error {
	if err := setup.Check(ctx, &c); err != nil {
		return err
	}
	s, err := readSettings(&c)
	if err != nil {
		return err
	}
	use, err := rest.Client(d.HTTP, s.CAFile, "")
	if err != nil {
		return &plugins.FieldError{Path: "settings.ca_file", Err: err}
	}
	if _, _, old := d.setUp.Peek(); old != nil && d.HTTP == nil {
		old.http.CloseIdleConnections()
	}
	d.setUp.Set(c, s, &client{settings: s, http: use, pace: rest.Pace{PerSecond: s.Rate}})
	return nil
}

// setup returns what the driver was configured with.
func (d *Driver) setup(ctx context.Context) (plugins.Config, Settings, *client, error) {
	return d.setUp.Get(ctx, errConfigure)
}

func (d *Driver) log() *slog.Logger { return setup.Log(d.Logger) }

// Validate says what a LoadMaster can't do of a deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, s, _ := d.setUp.Peek()
	return check(dep, c.Site, d.asked(s)), nil
}

// asked returns the settings with what a driver that isn't configured could do.
func (d *Driver) asked(s Settings) Settings {
	if _, _, box := d.setUp.Peek(); box == nil {
		s.GSLB = true
	}
	return s
}

// siteOf returns the name of the site that is served.
func siteOf(c plugins.Config, dep *plugins.Deployment) string {
	if s := dep.Served(c.Site); c.Site == "" && s != nil {
		return s.Name
	}
	return c.Site
}

// work is a plan in the making.
type work struct {
	*found
	renderer *renderer // nil if nothing is to be served
	dep      *plugins.Deployment
	want     []plugins.Object
	changes  []plugins.Change
	drained  []drain // those that are left
}

// prepare compares what is there with what is wanted.
func prepare(ctx context.Context, c plugins.Config, s Settings, box *client, dep *plugins.Deployment) (*work, error) {
	site := siteOf(c, dep)
	f, err := find(ctx, box, c.Owner, site)
	if err != nil {
		return nil, err
	}
	dep = dep.Of(site)
	w := &work{found: f, dep: dep}
	if dep == nil {
		w.changes = order(plugins.DiffObjects(f.objects, nil))
		return w, nil
	}
	w.drained = slices.DeleteFunc(slices.Clone(f.memory.Drained), func(d drain) bool {
		return len(dep.Refs(site, plugins.BackendRef{Pool: d.Pool, Backend: d.Backend})) == 0
	})
	w.renderer = &renderer{site: dep.Served(site), geo: dep.Geo, owner: c.Owner, settings: s, drained: w.drained}
	if err := w.renderer.readSums(); err != nil {
		return nil, err
	}
	if err := f.taken(w.renderer.services()); err != nil {
		return nil, err
	}
	if err := f.takenNames(dep.Geo); err != nil {
		return nil, err
	}
	w.want = append(w.renderer.objects(), memoryObject(dep.Revision(), memoryWhole))
	w.changes = order(plugins.DiffObjects(f.objects, w.want))
	return w, nil
}

// Plan says what Apply would change.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	c, s, box, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep, Diagnostics: check(dep, c.Site, s)}
	if plugins.HasError(p.Diagnostics) {
		return p, nil
	}
	w, err := prepare(ctx, c, s, box, dep)
	if err != nil {
		return nil, fmt.Errorf("kemp: %w", err)
	}
	p.Base, p.Changes = plugins.RevisionOf(w.objects), w.changes
	return p, nil
}

// Apply makes the changes one after the other.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	c, s, box, err := d.setup(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("kemp: there is no plan")
	}
	if plugins.HasError(check(p.Deployment, c.Site, s)) {
		return plugins.ErrInvalid
	}
	if progress == nil {
		progress = func(plugins.Progress) {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w, err := prepare(ctx, c, s, box, p.Deployment)
	if err != nil {
		return fmt.Errorf("kemp: %w", err)
	}
	if p.Base != "" && p.Base != plugins.RevisionOf(w.objects) {
		return plugins.ErrStale
	}
	if err := d.claim(ctx, box, w); err != nil {
		return fmt.Errorf("kemp: keep which names are ours: %w", err)
	}
	for i, x := range w.changes {
		if x.Kind == kindACME && x.Action != plugins.ActionRemove {
			progress(plugins.Progress{Done: i, Total: len(w.changes), Text: "the LoadMaster gets a certificate from the CA"})
		}
		if err := d.change(ctx, box, w, x); err != nil {
			return fmt.Errorf("kemp: %s %s: %w", x.Kind, x.Name, err)
		}
		d.altered.Add(1)
		d.log().Info("changed", "change", x.String())
		progress(plugins.Progress{Done: i + 1, Total: len(w.changes), Change: x})
	}
	return nil
}

// Read returns what is there.
func (d *Driver) Read(ctx context.Context) (*plugins.State, error) {
	c, _, box, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := d.find(ctx, c, box)
	if err != nil {
		return nil, err
	}
	out := &plugins.State{Revision: plugins.RevisionOf(f.objects), Objects: f.objects, Applied: f.memory.Revision}
	for _, x := range f.memory.Drained {
		out.Drained = append(out.Drained, plugins.DrainRequest{BackendRef: plugins.BackendRef{Pool: x.Pool, Backend: x.Backend}, Deadline: x.Deadline})
	}
	return out, nil
}

// find reads what is there of the site in the configuration.
func (d *Driver) find(ctx context.Context, c plugins.Config, box *client) (*found, error) {
	f, err := find(ctx, box, c.Owner, c.Site)
	if err != nil {
		return nil, fmt.Errorf("kemp: %w", err)
	}
	return f, nil
}
