package f5

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/setup"
)

// version is the driver's own.
const version = "1"

// A Driver puts a deployment onto an F5 BIG-IP. Its zero value is to be configured.
type Driver struct {
	// Logger is told of what is done; nil means nobody.
	Logger *slog.Logger
	// Client makes the requests; nil means one that verifies the BIG-IP's
	// certificate. It isn't to be changed after Configure.
	Client *http.Client

	// pause is for tests; 0 means what is usual.
	pause time.Duration
	looks time.Duration

	once    sync.Once
	writing chan struct{} // holds something while somebody writes
	setUp   setup.Setup[Settings, *client]
}

// target is what a driver was configured with.
type target struct {
	config   plugins.Config
	settings Settings
	client   *client
}

// errConfigure says that the driver has no BIG-IP yet.
var errConfigure = errors.New("f5: the driver was not configured")

// Info says what the driver is.
func (d *Driver) Info(ctx context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "f5", Version: version, Product: "F5 BIG-IP with AS3"}, context.Cause(ctx)
}

// Schema returns the schema of [Settings].
func (d *Driver) Schema(ctx context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), context.Cause(ctx)
}

// Configure tells the driver where the BIG-IP is.
func (d *Driver) Configure(ctx context.Context, c plugins.Config) error {
	if err := setup.Check(ctx, &c); err != nil {
		return err
	}
	s, err := readSettings(&c)
	if err != nil {
		return err
	}
	client, err := newClient(s, d.Client)
	if err != nil {
		return &plugins.FieldError{Path: "settings.ca_file", Err: err}
	}
	if d.pause > 0 {
		client.pause = d.pause
	}
	d.setUp.Set(c, s, client)
	return nil
}

func (d *Driver) setup(ctx context.Context) (*target, error) {
	c, s, box, err := d.setUp.Get(ctx, errConfigure)
	if err != nil {
		return nil, err
	}
	return &target{c, s, box}, nil
}

// write waits until nobody else writes.
func (d *Driver) write(ctx context.Context) (done func(), err error) {
	d.once.Do(func() { d.writing = make(chan struct{}, 1) })
	select {
	case d.writing <- struct{}{}:
		return func() { <-d.writing }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (d *Driver) log() *slog.Logger { return setup.Log(d.Logger) }

// Validate says what a BIG-IP can't do of a deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, s, _ := d.setUp.Peek()
	return check(dep, c, d.asked(s)), nil
}

// asked returns the settings with what a driver that isn't configured could do.
func (d *Driver) asked(s Settings) Settings {
	if _, _, client := d.setUp.Peek(); client == nil {
		s.GSLB = true
	}
	return s
}

// siteName returns the name of the site that is served: that of the configuration,
// or of the only site of dep, or of the only tenant of ours.
func (s *target) siteName(ctx context.Context, dep *plugins.Deployment) (string, error) {
	if s.config.Site != "" {
		return s.config.Site, nil
	}
	if dep != nil {
		if x := dep.Served(""); x != nil {
			return x.Name, nil
		}
	}
	var doc map[string]any
	if _, err := s.client.get(ctx, strings.TrimSuffix(declarePath, "/"), nil, &doc); err != nil && statusOf(err) != http.StatusNotFound {
		return "", fmt.Errorf("f5: read the declaration: %w", err)
	}
	site := ""
	for name, v := range doc {
		t, _ := v.(map[string]any)
		memory, _ := t["constants"].(map[string]any)
		mark, _ := memory["owner"].(string)
		for word := range strings.FieldsSeq(mark) {
			is, ok := strings.CutPrefix(word, "site=")
			if !ok || tenantName(s.config.Owner, is) != name {
				continue
			}
			if site != "" {
				return "", fmt.Errorf("f5: the BIG-IP serves sites %s and %s: name one in the configuration", site, is)
			}
			site = is
		}
	}
	return site, nil
}

// read finds what is there for dep.
func (s *target) read(ctx context.Context, dep *plugins.Deployment) (*found, error) {
	site, err := s.siteName(ctx, dep)
	if err != nil {
		return nil, err
	}
	return s.find(ctx, site)
}

// want renders dep, with the drains that are in effect or without them.
func (s *target) want(dep *plugins.Deployment, f *found, drained map[plugins.BackendRef]state) (*wanted, error) {
	r := &renderer{dep: dep.Of(f.site), owner: s.config.Owner, settings: s.settings, files: disk{}, drained: drained}
	if dep != nil {
		r.site, r.geo = dep.Served(f.site), dep.Geo
		r.sites = maps.Clone(f.sites)
		maps.DeleteFunc(r.sites, func(name string, _ bool) bool { return len(dep.Refs("", plugins.GeoRef(name))) == 0 })
	}
	w, err := r.all(f.name)
	if err != nil {
		return nil, fmt.Errorf("f5: %w", err)
	}
	return w, nil
}

// Plan says what Apply would change, and has AS3 try it.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	s, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep, Diagnostics: check(dep, s.config, s.settings)}
	if plugins.HasError(p.Diagnostics) {
		return p, nil
	}
	for range 4 {
		f, err := s.read(ctx, dep)
		if err != nil {
			return nil, err
		}
		w, err := s.want(dep, f, nil)
		if err != nil {
			return nil, err
		}
		p.Base, p.Changes = plugins.RevisionOf(f.objects), changes(f, w)
		if len(p.Changes) == 0 || s.settings.NoDryRun {
			return p, nil
		}
		if err := d.try(ctx, s, dep, f); err != nil {
			return nil, err
		}
		// AS3 may have worked on something until then.
		after, err := s.find(ctx, f.site)
		if err != nil {
			return nil, err
		}
		if plugins.RevisionOf(after.objects) == p.Base {
			break
		}
	}
	return p, nil
}

// try has AS3 say whether it would take the declaration for dep.
func (d *Driver) try(ctx context.Context, s *target, dep *plugins.Deployment, f *found) error {
	done, err := d.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	w, err := s.want(dep, f, f.drained)
	if err != nil {
		return err
	}
	if err := s.free(ctx, w, f); err != nil {
		return err
	}
	if err := s.declare(ctx, w, f, true, nil); err != nil {
		return fmt.Errorf("f5: AS3 would not take the declaration: %w", err)
	}
	return nil
}

// Apply declares the tenant. AS3 makes it so wholly or not at all.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	s, err := d.setup(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("f5: there is no plan")
	}
	if plugins.HasError(check(p.Deployment, s.config, s.settings)) {
		return plugins.ErrInvalid
	}
	done, err := d.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	f, err := s.read(ctx, p.Deployment)
	if err != nil {
		return err
	}
	if p.Base != "" && p.Base != plugins.RevisionOf(f.objects) {
		return plugins.ErrStale
	}
	plain, err := s.want(p.Deployment, f, nil)
	if err != nil {
		return err
	}
	list := changes(f, plain)
	if same := p.Deployment == nil && f.tenant == nil || p.Deployment != nil && f.tenant != nil && f.applied == p.Deployment.Of(f.site).Revision(); same && len(list) == 0 {
		return nil
	}
	w, err := s.want(p.Deployment, f, f.drained)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(plugins.Progress) {}
	}
	progress(plugins.Progress{Total: len(list), Text: "AS3 gets the declaration"})
	if err := s.free(ctx, w, f); err != nil {
		return err
	}
	err = s.declare(ctx, w, f, false, func(text string) { progress(plugins.Progress{Total: len(list), Text: text}) })
	if err != nil {
		if errors.Is(err, plugins.ErrStale) {
			return err
		}
		d.log().Error("AS3 did not take the declaration", "tenant", w.name, "err", err)
		return fmt.Errorf("f5: tenant %s: %w", w.name, err)
	}
	for i, x := range list {
		d.log().Info("changed", "change", x.String())
		progress(plugins.Progress{Done: i + 1, Total: len(list), Change: x})
	}
	return nil
}

// Read returns what is there.
func (d *Driver) Read(ctx context.Context) (*plugins.State, error) {
	s, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.read(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := &plugins.State{Revision: plugins.RevisionOf(f.objects), Deployment: f.deployment, Applied: f.applied, Objects: f.objects}
	for ref := range f.drained {
		out.Drained = append(out.Drained, plugins.DrainRequest{BackendRef: ref})
	}
	for name := range f.sites {
		out.Drained = append(out.Drained, plugins.DrainRequest{BackendRef: plugins.GeoRef(name)})
	}
	slices.SortFunc(out.Drained, func(a, b plugins.DrainRequest) int {
		return strings.Compare(a.BackendRef.String(), b.BackendRef.String())
	})
	return out, nil
}
