package keepalived

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
	"github.com/aovlb/aovlb/plugins/vendors/setup"
)

// version is the driver's own.
const version = "1"

// A Driver puts a deployment onto the keepalived of this machine. Its zero value is
// to be configured.
type Driver struct {
	// Logger is told of what is done; nil means nobody.
	Logger *slog.Logger

	mu    sync.Mutex // held by who writes
	setUp setup.Setup[Settings, box]
}

// box is the keepalived that is driven, with the kernel under it.
type box interface {
	read() (files, error)
	// write writes the files that differ, those first that others use.
	write(ctx context.Context, f files) error
	// check has keepalived and nft check the files that are there.
	check(ctx context.Context, f files) error
	state(ctx context.Context, table string) (state, error)
	// mark loads the ruleset's file.
	mark(ctx context.Context) error
	// reload has keepalived load its files, waits until it has the services, and
	// keeps the edition for state.
	reload(ctx context.Context, edition string, services []string) error
	services(ctx context.Context) ([]service, error)
}

// state is what is in effect.
type state struct {
	// running says that keepalived runs, why what is the matter if it doesn't.
	running bool
	why     string
	// edition is that of the file which keepalived has loaded; current says that
	// it began after the file was written, so that it has that one.
	edition string
	current bool
	// marks is the edition of the ruleset in the kernel; empty if there is none.
	marks string
}

// errConfigure says that the driver has no box yet.
var errConfigure = errors.New("keepalived: the driver was not configured")

// Info says what the driver is.
func (d *Driver) Info(ctx context.Context) (plugins.Info, error) {
	return plugins.Info{Name: "keepalived", Version: version, Product: "keepalived 2.2 or later, with IPVS"}, context.Cause(ctx)
}

// Schema returns the schema of [Settings].
func (d *Driver) Schema(ctx context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), context.Cause(ctx)
}

// Configure tells the driver where keepalived is.
func (d *Driver) Configure(ctx context.Context, c plugins.Config) error {
	if err := setup.Check(ctx, &c); err != nil {
		return err
	}
	s, err := readSettings(&c)
	if err != nil {
		return err
	}
	d.setUp.Set(c, s, &process{settings: s, proc: "/proc", exec: run})
	return nil
}

// setup returns what the driver was configured with.
func (d *Driver) setup(ctx context.Context) (plugins.Config, Settings, box, error) {
	return d.setUp.Get(ctx, errConfigure)
}

func (d *Driver) log() *slog.Logger { return setup.Log(d.Logger) }

// Validate says what keepalived can't do of a deployment.
func (d *Driver) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return d.check(ctx, dep), nil
}

// found is what is there.
type found struct {
	*content
	files
	state
	site    string
	marking bool // the ruleset's file marks something
	objects []plugins.Object
}

// The kinds of the objects that aren't in a file.
const (
	processKind = "process"
	rulesetKind = "ruleset"
	scriptKind  = "script"
)

// find reads the files, and what is in effect.
func find(ctx context.Context, c plugins.Config, s Settings, b box, dep *plugins.Deployment) (*found, error) {
	raw, err := b.read()
	if err != nil {
		return nil, fmt.Errorf("keepalived: %w", err)
	}
	f := &found{files: raw, site: ownfile.Site(c, dep, raw.conf)}
	if f.content, err = readConf(c.Owner, f.site, raw.conf); err != nil {
		return nil, fmt.Errorf("keepalived: %s: %w", s.File, err)
	}
	marks, edition, err := readMarks(c.Owner, f.site, raw.marks)
	if err != nil {
		return nil, fmt.Errorf("keepalived: %s: %w", s.Marks, err)
	}
	if raw.script != nil && !ownfile.Ours(c.Owner, f.site, raw.script, 1) {
		return nil, fmt.Errorf("keepalived: %s: %w", s.Script, ownfile.ErrForeign)
	}
	if f.state, err = b.state(ctx, table(c.Owner, f.site)); err != nil {
		return nil, fmt.Errorf("keepalived: %w", err)
	}
	f.marking = len(marks) > 0
	f.objects = append(scriptObjects(raw.script), append(objects(marks), objects(f.blocks)...)...)
	if f.state.marks != "" {
		f.objects = append(f.objects, loads(rulesetKind, "nftables", f.state.marks == edition))
	}
	if now := revision(f.blocks); f.running && (len(f.blocks) > 0 || !f.current && f.state.edition != "" && f.state.edition != now) {
		f.objects = append(f.objects, loads(processKind, "keepalived", f.current || f.state.edition == now))
	}
	return f, nil
}

func scriptObjects(raw []byte) []plugins.Object {
	if raw == nil {
		return nil
	}
	sum := sha256.Sum256(raw)
	return []plugins.Object{{Kind: scriptKind, Name: "check", Fields: []plugins.Field{{Name: "sha256", Value: hex.EncodeToString(sum[:8])}}}}
}

// loads is the object that says which edition of a file is in effect.
func loads(kind, name string, this bool) plugins.Object {
	value := "this file"
	if !this {
		value = "an earlier file"
	}
	return plugins.Object{Kind: kind, Name: name, Fields: []plugins.Field{{Name: "loaded", Value: value}}}
}

// wanted is what is to be there.
type wanted struct {
	blocks, marks []block
	script        []byte
}

func want(c plugins.Config, s Settings, dep *plugins.Deployment, site string, drained []plugins.DrainRequest) wanted {
	if dep == nil {
		return wanted{}
	}
	r := newRenderer(c, s, dep.Site(site), drained)
	w := wanted{blocks: r.blocks(), marks: r.ruleset()}
	if r.usesScript() {
		w.script = writeScript(c.Owner, site)
	}
	return w
}

// changes compares what is there with what is wanted.
func (w *wanted) changes(f *found) []plugins.Change {
	list := append(scriptObjects(w.script), append(objects(w.marks), objects(w.blocks)...)...)
	list = ownfile.Complete(list, f.objects)
	if len(w.marks) > 0 && (f.running || f.state.marks != "") {
		list = append(list, loads(rulesetKind, "nftables", true))
	}
	if len(w.blocks) > 0 && f.running {
		list = append(list, loads(processKind, "keepalived", true))
	}
	out := plugins.DiffObjects(f.objects, list)
	for i := range out {
		out[i].Effect = effect(&out[i])
	}
	return out
}

// effect says what clients notice of a change.
func effect(c *plugins.Change) string {
	switch {
	case c.Kind == "virtual_server" && c.Action == plugins.ActionRemove:
		return "its clients are cut off"
	case c.Kind == "real_server" && c.Action == plugins.ActionRemove:
		return "its clients go to others"
	}
	return ""
}

// files returns the files for what is wanted.
func (w *wanted) files(c plugins.Config, f *found, m memory) (files, error) {
	conf, err := writeConf(c.Owner, f.site, m, w.blocks)
	out := files{conf: conf, script: w.script}
	if len(w.marks) > 0 || f.files.marks != nil {
		out.marks = writeMarks(c.Owner, f.site, w.marks)
	}
	return out, err
}

// Plan says what Apply would change.
func (d *Driver) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return nil, err
	}
	p := &plugins.Plan{Deployment: dep, Diagnostics: d.check(ctx, dep)}
	if plugins.HasError(p.Diagnostics) {
		return p, nil
	}
	f, err := find(ctx, c, s, b, dep)
	if err != nil {
		return nil, err
	}
	p.Base = plugins.RevisionOf(f.objects)
	w := want(c, s, dep, f.site, ownfile.Kept(f.memory.Drained, dep, f.site))
	p.Changes = w.changes(f)
	return p, nil
}

// Apply writes the files, has them checked, loads the ruleset, and reloads
// keepalived. If that fails, the files are as they were before.
func (d *Driver) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	c, s, b, err := d.setup(ctx)
	if err != nil {
		return err
	}
	if p == nil {
		return errors.New("keepalived: there is no plan")
	}
	if plugins.HasError(d.check(ctx, p.Deployment)) {
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
	m := memory{Deployment: p.Deployment.Of(f.site), Drained: ownfile.Kept(f.memory.Drained, p.Deployment, f.site)}
	w := want(c, s, p.Deployment, f.site, m.Drained)
	list := w.changes(f)
	if len(list) == 0 && f.memory.Deployment.Revision() == m.Deployment.Revision() {
		return nil
	}
	if progress == nil {
		progress = func(plugins.Progress) {}
	}
	if f.running && len(list) > 0 {
		progress(plugins.Progress{Total: len(list), Text: "keepalived loads the file"})
	}
	if err := d.put(ctx, c, b, f, &w, m, len(list) > 0); err != nil {
		return err
	}
	for i, x := range list {
		d.log().Info("changed", "change", x.String())
		progress(plugins.Progress{Done: i + 1, Total: len(list), Change: x})
	}
	return nil
}

// put brings what is wanted into effect, and what was there before back if that
// fails.
func (d *Driver) put(ctx context.Context, c plugins.Config, b box, f *found, w *wanted, m memory, differs bool) error {
	now, err := w.files(c, f, m)
	if err != nil {
		return fmt.Errorf("keepalived: %w", err)
	}
	if err := b.write(ctx, now); err != nil {
		return fmt.Errorf("keepalived: %w", err)
	}
	if !differs {
		return nil
	}
	err = b.check(ctx, now)
	if err == nil {
		err = load(ctx, b, f, now, w.blocks)
	}
	if err == nil {
		return nil
	}
	d.log().Error("the files can't be put into effect", "err", err)
	err = fmt.Errorf("keepalived: %w", err)
	if ctx.Err() != nil {
		return err // the next call goes on
	}
	before := f.files
	if before.marks == nil && now.marks != nil {
		before.marks = writeMarks(c.Owner, f.site, nil)
	}
	back := b.write(ctx, before)
	if back == nil {
		back = load(ctx, b, f, before, f.blocks)
	}
	if back != nil {
		return errors.Join(err, fmt.Errorf("and the earlier files could not be brought back: %w", back))
	}
	return fmt.Errorf("%w; the earlier files are back", err)
}

// load puts the files into effect that are there. The marks come first: what is
// marked and has no service by its mark is still found by its address.
func load(ctx context.Context, b box, f *found, now files, list []block) error {
	if now.marks != nil && (f.running || f.state.marks != "") {
		if err := b.mark(ctx); err != nil {
			return err
		}
	}
	if !f.running {
		return nil
	}
	return b.reload(ctx, revision(list), keysOf(list))
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
