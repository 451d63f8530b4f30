package haproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
	"github.com/aovlb/aovlb/plugins/vendors/setup"
)

// version is the driver's own.
const version = "1"

// A Driver puts a deployment onto an HAProxy of this machine. Its zero value is to
// be configured.
type Driver struct {
	// Logger is told of what is done; nil means nobody.
	Logger *slog.Logger

	mu    sync.Mutex // held by who writes
	setUp setup.Setup[Settings, box]
}

// box is the HAProxy that is driven.
type box interface {
	readFile() ([]byte, error)
	writeFile(ctx context.Context, b []byte, check bool) error
	serving(ctx context.Context, prefix string) (edition string, others bool, err error)
	reload(ctx context.Context, prefix, edition string) error
	set(ctx context.Context, commands []string) error
	workers(ctx context.Context) ([]string, error)
	table(ctx context.Context, worker string) ([]row, error)
}

// errConfigure says that the driver has no box yet.
var errConfigure = errors.New("haproxy: the driver was not configured")

// Info says what the driver is.
func (d *Driver) Info(ctx context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "haproxy", Version: version, Product: "HAProxy 2.6 or later"}, context.Cause(ctx)
}

// Schema returns the schema of [Settings].
func (d *Driver) Schema(ctx context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), context.Cause(ctx)
}

// Configure tells the driver where HAProxy is.
func (d *Driver) Configure(ctx context.Context, c plugins.Config) error {
	if err := setup.Check(ctx, &c); err != nil {
		return err
	}
	s, err := readSettings(&c)
	if err != nil {
		return err
	}
	d.setUp.Set(c, s, &process{s})
	return nil
}

// setup returns what the driver was configured with.
func (d *Driver) setup(ctx context.Context) (plugins.Config, Settings, box, error) {
	return d.setUp.Get(ctx, errConfigure)
}

func (d *Driver) log() *slog.Logger { return setup.Log(d.Logger) }

// Validate says what HAProxy can't do of a deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, _, _ := d.setUp.Peek()
	return d.check(dep, c.Site), nil
}

// found is what is there.
type found struct {
	*content
	raw     []byte
	site    string // whose file it is
	serves  string // the edition that HAProxy serves
	others  bool   // it serves sections of ours
	objects []plugins.Object
}

// processKind is the kind of the object that HAProxy's process is.
const processKind = "process"

// find reads the file, and what HAProxy serves. dep, which may be nil, is what is to
// be served.
func find(ctx context.Context, c plugins.Config, s Settings, b box, dep *plugins.Deployment) (*found, error) {
	raw, err := b.readFile()
	if err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	f := &found{raw: raw, site: ownfile.Site(c, dep, raw)}
	if f.content, err = read(c.Owner, f.site, raw); err != nil {
		return nil, fmt.Errorf("haproxy: %s: %w", s.File, err)
	}
	if f.serves, f.others, err = b.serving(ctx, c.Owner.Prefix(f.site)); err != nil {
		return nil, fmt.Errorf("haproxy: %w", err)
	}
	f.objects = objects(f.sections)
	if f.serves != "" || f.others {
		is := "this file"
		if f.serves != f.edition || f.edition == "" {
			is = "an earlier file"
		}
		f.objects = append(f.objects, processObject(is))
	}
	return f, nil
}

func processObject(serves string) plugins.Object {
	return plugins.Object{Kind: processKind, Name: "haproxy", Fields: []plugins.Field{{Name: "serves", Value: serves}}}
}

// want returns the sections for dep.
func want(c plugins.Config, s Settings, dep *plugins.Deployment, site string, drained []plugins.DrainRequest) []section {
	if dep == nil {
		return nil
	}
	r := &renderer{site: dep.Site(site), owner: c.Owner, settings: s, drained: drained, now: time.Now()}
	return r.sections()
}

// changes compares what is there with what is wanted.
func changes(f *found, sections []section) []plugins.Change {
	list := ownfile.Complete(objects(sections), f.objects)
	if len(sections) > 0 {
		list = append(list, processObject("this file"))
	}
	out := plugins.DiffObjects(f.objects, list)
	for i := range out {
		if out[i].Kind == processKind {
			out[i].Effect = "connections go on in the process that was there before"
		}
	}
	return out
}

// Plan says what Apply would change.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep, Diagnostics: d.check(dep, c.Site)}
	if plugins.HasError(p.Diagnostics) {
		return p, nil
	}
	f, err := find(ctx, c, s, b, dep)
	if err != nil {
		return nil, err
	}
	p.Base = plugins.RevisionOf(f.objects)
	p.Changes = changes(f, want(c, s, dep, f.site, ownfile.Kept(f.memory.Drained, dep, f.site)))
	return p, nil
}

// Apply writes the file, has HAProxy check it, and reloads HAProxy. If that fails,
// the file is as it was before.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("haproxy: there is no plan")
	}
	if plugins.HasError(d.check(p.Deployment, c.Site)) {
		return plugins.ErrInvalid
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := find(ctx, c, s, b, p.Deployment)
	if err != nil {
		return err
	}
	if p.Base != "" && p.Base != plugins.RevisionOf(f.objects) {
		return plugins.ErrStale
	}
	dep := p.Deployment.Of(f.site)
	drained := ownfile.Kept(f.memory.Drained, dep, f.site)
	sections := want(c, s, dep, f.site, drained)
	list := changes(f, sections)
	if len(list) == 0 && f.memory.Deployment.Revision() == dep.Revision() {
		return nil
	}
	m := memory{Deployment: dep, Drained: drained, Edition: f.memory.Edition}
	edition := f.edition
	if len(list) > 0 {
		m.Edition++
		edition = editionName(c.Owner, f.site, m.Edition, sections)
	}
	if len(sections) == 0 {
		edition = ""
	}
	file, err := write(c.Owner, f.site, m, sections, edition)
	if err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	return d.put(ctx, c, b, f, file, edition, list, progress)
}

// put brings a file into effect.
func (d *Driver) put(ctx context.Context, c plugins.Config, b box, f *found, file []byte, edition string, list []plugins.Change, progress func(plugins.Progress)) error {
	if progress == nil {
		progress = func(plugins.Progress) {}
	}
	if err := b.writeFile(ctx, file, true); err != nil {
		return fmt.Errorf("haproxy: %w", err)
	}
	if len(list) == 0 {
		return nil
	}
	progress(plugins.Progress{Total: len(list), Text: "HAProxy loads the file"})
	if err := b.reload(ctx, c.Owner.Prefix(f.site), edition); err != nil {
		d.log().Error("HAProxy did not load the file", "err", err)
		return d.restore(ctx, c, b, f, fmt.Errorf("haproxy: %w", err))
	}
	for i, x := range list {
		d.log().Info("changed", "change", x.String())
		progress(plugins.Progress{Done: i + 1, Total: len(list), Change: x})
	}
	return nil
}

// restore puts the file back that was there before, unless the call was called off:
// then the next one goes on.
func (d *Driver) restore(ctx context.Context, c plugins.Config, b box, f *found, cause error) error {
	if ctx.Err() != nil {
		return cause
	}
	err := b.writeFile(ctx, f.raw, false)
	if err == nil {
		err = b.reload(ctx, c.Owner.Prefix(f.site), f.edition)
	}
	if err != nil {
		return errors.Join(cause, fmt.Errorf("and the earlier file could not be brought back: %w", err))
	}
	return fmt.Errorf("%w; the earlier file is back", cause)
}

// Read returns what is there.
func (d *Driver) Read(ctx context.Context) (*plugins.State, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	f, err := find(ctx, c, s, b, nil)
	if err != nil {
		return nil, err
	}
	out := &plugins.State{
		Revision: plugins.RevisionOf(f.objects), Deployment: f.memory.Deployment, Objects: f.objects, Drained: f.memory.Drained,
	}
	if f.memory.Deployment != nil {
		out.Applied = f.memory.Deployment.Revision()
	}
	return out, nil
}

// Render writes the sections for a deployment, for administrators who keep
// HAProxy's files themselves.
func (d *Driver) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	c, s, _ := d.setUp.Peek()
	s = s.usual()
	if list := d.check(dep, c.Site); plugins.HasError(list) || dep == nil {
		return nil, fmt.Errorf("%w for HAProxy", plugins.ErrInvalid)
	}
	head := "# What HAProxy 2.6 or later needs for Always On VPN, beside a file with its global section:\n" +
		"#   haproxy -c -f /etc/haproxy/haproxy.cfg -f aovlb.cfg\n"
	sections := want(c, s, dep, ownfile.Site(c, dep, nil), nil)
	return []plugins.File{{
		Name: "aovlb.cfg", Summary: "for HAProxy, beside its own file: check it by haproxy -c, then reload", Content: append([]byte(head), body(sections)...),
	}}, nil
}
