package builtin

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// The defaults of a Driver.
const (
	// DefaultLinger is how long the clients of a removed listener may stay.
	DefaultLinger = 10 * time.Minute
	// DefaultSaveInterval is the time between two saves of the state: what is
	// newer than that is forgotten if the program is killed.
	DefaultSaveInterval = 5 * time.Second
	// DefaultReviveInterval is the time after which a failed listener is
	// opened again.
	DefaultReviveInterval = 5 * time.Second
)

// A Driver serves one site in this process. The zero value serves a Deployment
// that has one site, and keeps no state. Its fields must not be changed after its
// first use. It must not be copied.
type Driver struct {
	// Version is reported by Info; empty means "devel".
	Version string
	// Logger hears of what an administrator should know; nil is silent.
	Logger *slog.Logger
	// StateDir is a directory that keeps tables, flows and drains across
	// restarts. It is made if need be, for this user only. Empty keeps none.
	StateDir string
	// SaveInterval is the time between two saves while Run runs; 0 means
	// DefaultSaveInterval.
	SaveInterval time.Duration
	// Linger is how long the clients of a removed listener may stay; 0 means
	// DefaultLinger, less than 0 not at all.
	Linger time.Duration
	// Inherited are sockets that were opened for this process, by systemd
	// say. A listener whose address is among them takes it instead of opening
	// its own. The Driver owns them.
	Inherited []*os.File

	// Challenge, if not nil, answers CAs for certificates that come from one.
	Challenge Challenger

	applying sync.Mutex // one Apply, save or Shutdown at a time
	config   plugins.Config
	fronts   fronts
	loaded   bool // the state directory has been read

	now    atomic.Pointer[running]
	events hub
	drains drains
	rings  atomic.Pointer[[]*ring]
	site   atomic.Pointer[plugins.Site] // what is, or is about to be, served
	wg     sync.WaitGroup               // engines, monitors and lingering listeners
	closed bool                         // under applying

	retired []*dialing // under applying
	since   atomic.Pointer[time.Time]

	endMu sync.Mutex
	end   chan struct{} // closed by Shutdown
}

var _ plugins.Driver = (*Driver)(nil)

// running is what is served at one moment. It is immutable, though its parts
// live on.
type running struct {
	deployment *plugins.Deployment
	site       *plugins.Site // of deployment
	pools      []*pool
	groups     []*group
	listeners  []*listener
	lingering  []*listener
	rings      []*ring
	ledgers    []*ledger
	fast       *fast
}

var nothing = &running{site: new(plugins.Site)}

func (d *Driver) current() *running {
	if r := d.now.Load(); r != nil {
		return r
	}
	return nothing
}

// base identifies r for Plan.Base.
func (r *running) base() string {
	site := ""
	if r.site != nil {
		site = r.site.Name
	}
	return cmp.Or(r.deployment.Of(site).Revision(), "nothing")
}

func (d *Driver) siteNow() *plugins.Site { return d.site.Load() }

func (d *Driver) logger() *slog.Logger {
	if d.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Logger
}

// Info says what this driver is.
func (d *Driver) Info(context.Context) (plugins.Info, error) {
	return plugins.Info{
		Name: "builtin", Version: cmp.Or(d.Version, "devel"),
		Product: "aovlb in this process, on " + runtime.GOOS,
	}, nil
}

// schema is that of settings: there are none.
const schema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{},"additionalProperties":false}`

// Schema returns the schema of an empty object: all settings of the built-in
// driver are fields of Driver.
func (d *Driver) Schema(context.Context) (json.RawMessage, error) {
	return json.RawMessage(schema), nil
}

// Configure says which site to serve. It must be called before the first Apply,
// if at all.
func (d *Driver) Configure(_ context.Context, c plugins.Config) error {
	if s := bytes.TrimSpace(c.Settings); len(s) > 0 && !bytes.Equal(s, []byte("null")) {
		var fields map[string]json.RawMessage
		if err := json.Unmarshal(s, &fields); err != nil {
			return &plugins.FieldError{Path: "settings", Err: errors.New("it is not a JSON object")}
		}
		var errs []error
		for name := range fields {
			errs = append(errs, &plugins.FieldError{Path: "settings." + name, Err: errors.New("the built-in driver has no settings")})
		}
		if len(errs) > 0 {
			return errors.Join(errs...)
		}
	}
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.now.Load() != nil && c.Site != d.config.Site {
		return errors.New("builtin: configure: the site can't be changed while it is served")
	}
	d.config = c
	return nil
}

// siteOf returns the site of dep that this driver serves.
func (d *Driver) siteOf(dep *plugins.Deployment) (*plugins.Site, int, error) {
	if dep == nil {
		return new(plugins.Site), 0, nil
	}
	s := dep.Site(d.config.Site)
	if s == nil && len(dep.Sites) == 0 && dep.Geo != nil && d.config.Site == "" {
		return new(plugins.Site), 0, nil // it is a DNS server and nothing else
	}
	if s == nil && d.config.Site == "" {
		return nil, 0, &plugins.FieldError{Path: "sites", Err: fmt.Errorf("there are %d: the driver must be told which one it serves", len(dep.Sites))}
	}
	if s == nil {
		return nil, 0, &plugins.FieldError{Path: "sites", Err: fmt.Errorf("there is no site %q, which the driver is to serve", d.config.Site)}
	}
	for i := range dep.Sites {
		if &dep.Sites[i] == s {
			return s, i, nil
		}
	}
	return s, 0, nil
}

// Validate says what is wrong with a Deployment, and what is unwise.
func (d *Driver) Validate(_ context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	d.applying.Lock()
	defer d.applying.Unlock()
	return d.validate(dep), nil
}

func (d *Driver) validate(dep *plugins.Deployment) []plugins.Diagnostic {
	if dep == nil {
		return nil
	}
	list := plugins.Errors(dep.Validate())
	site, i, err := d.siteOf(dep)
	if err != nil {
		return append(list, plugins.Errors(err)...)
	}
	caps, _ := d.Capabilities(context.Background())
	list = append(list, plugins.Judge(dep, site.Name, caps)...)
	return append(list, advise(site, fmt.Sprintf("sites[%d]", i))...)
}

// Plan says what Apply would change.
func (d *Driver) Plan(_ context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	d.applying.Lock()
	defer d.applying.Unlock()
	return d.plan(dep), nil
}

func (d *Driver) plan(dep *plugins.Deployment) *plugins.Plan {
	now := d.current()
	p := &plugins.Plan{Deployment: dep.Clone(), Base: now.base(), Diagnostics: d.validate(dep)}
	if plugins.HasError(p.Diagnostics) {
		return p
	}
	site, _, err := d.siteOf(p.Deployment)
	if err != nil {
		return p // among the diagnostics already
	}
	p.Changes = effects(site, slices.Concat(plugins.Diff(now.site, site), fastChange(now.site, site)))
	return p
}

// Read returns what is served.
func (d *Driver) Read(context.Context) (*plugins.State, error) {
	r := d.current()
	return &plugins.State{
		Deployment: r.deployment.Clone(), Revision: r.base(), Drained: d.drains.list(),
	}, nil
}

// Watch calls f for each event.
func (d *Driver) Watch(ctx context.Context, f func(plugins.Event)) error {
	return d.events.watch(ctx, f)
}

// invalid returns the errors among list as one error.
func invalid(list []plugins.Diagnostic) error {
	var text []string
	for _, g := range list {
		if g.Severity == plugins.SeverityError {
			text = append(text, g.Path+": "+g.Summary)
		}
	}
	return fmt.Errorf("%w: %s", plugins.ErrInvalid, strings.Join(text, "; "))
}
