package plugins

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// A Driver puts a Deployment into effect on one balancer: this process, a
// vendor's box, or another program.
//
// The order of calls is Configure once, then any of the others. All but
// Configure may be called from several goroutines at once; a driver does one
// Apply at a time. Every call ends soon after its ctx does.
//
// A call returns an error if it could not do its work. What it thinks of a
// Deployment it says as Diagnostics instead. Errors, diagnostics, plans and
// events never hold a secret. A call that did no more than half of its work may
// be made again: every call is idempotent.
//
// A driver may have more to offer; see [Renderer].
type Driver interface {
	// Info says what the driver is. It needs no Configure.
	Info(ctx context.Context) (Info, error)
	// Schema returns a JSON Schema of Config.Settings. It needs no Configure.
	Schema(ctx context.Context) (json.RawMessage, error)
	// Configure tells the driver how to reach its balancer. It changes
	// nothing there, and may not even go there. Faults in the settings are a
	// [*FieldError] each, joined. A driver whose program was started again is
	// configured again.
	Configure(ctx context.Context, c Config) error
	// Capabilities says what the balancer can do. It needs no Configure, and
	// may know more after it.
	Capabilities(ctx context.Context) (Capabilities, error)
	// Validate says what can't be done, or only in part, and what is unwise.
	// It reaches nothing beyond the driver. The faults that d.Validate finds
	// are among them, and all that [Judge] says of its Capabilities.
	Validate(ctx context.Context, d *Deployment) ([]Diagnostic, error)
	// Plan says what Apply would change now. It changes nothing. A Deployment
	// with an error among its Diagnostics has no changes. Nil asks for nothing
	// to be served: all that the driver owns is removed.
	Plan(ctx context.Context, d *Deployment) (*Plan, error)
	// Apply makes the balancer serve p.Deployment. It touches only what
	// differs and only what this driver owns, adds before it removes, and
	// may be repeated after it failed half way. Applying twice changes
	// nothing the second time. It returns [ErrStale] if p.Base isn't what is
	// there. progress, which may be nil, hears of each change.
	Apply(ctx context.Context, p *Plan, progress func(Progress)) error
	// Read returns what is there now, so far as this driver owns it. It is
	// how drift is found.
	Read(ctx context.Context) (*State, error)
	// Drain lets a backend keep its clients and gives it no new ones, until
	// the deadline if there is one. A deadline that has passed moves its clients
	// away at once. A driver without Capabilities.DrainDeadline begins the drain
	// and leaves the deadline to its caller; see [DrainWithin].
	Drain(ctx context.Context, r DrainRequest) error
	// Undrain ends a Drain. Where there is none it changes nothing, and may
	// say so with [ErrNotDrained].
	Undrain(ctx context.Context, b BackendRef) error
	// Stats returns counts and states.
	Stats(ctx context.Context) (*Stats, error)
	// Watch calls f for each event until ctx is done, and returns its cause.
	// The events of one Watch come one at a time; if f is too slow, some are
	// left out, and the next one that comes says how many in Missed.
	Watch(ctx context.Context, f func(Event)) error
}

// A Renderer is a Driver that can also write what an administrator would
// otherwise type or click: the balancer's own configuration files and commands,
// with comments. It reaches nothing beyond the driver, and needs no Configure.
type Renderer interface {
	// Render returns the files for d, of which the first is the one to begin
	// with. A Deployment with errors among its Diagnostics is refused with
	// [ErrInvalid]. Secrets are placeholders that say where they come from.
	Render(ctx context.Context, d *Deployment) ([]File, error)
}

// A File is a file that Render writes.
type File struct {
	// Name is its name, without a folder: haproxy.cfg.
	Name string `json:"name"`
	// Summary says in a line what it is for, and how it is put into effect.
	Summary string `json:"summary,omitempty"`
	// Content is the file.
	Content []byte `json:"content"`
}

// ErrStale says that the balancer isn't as it was when a Plan was made.
var ErrStale = errors.New("plugins: the plan is out of date, make it again")

// ErrUnsupported says that a driver can't do what it was asked.
var ErrUnsupported = errors.New("plugins: the driver does not support this")

// ErrInvalid says that a Deployment has errors among its Diagnostics.
var ErrInvalid = errors.New("plugins: the deployment is invalid")

// ErrNotFound says that there is no such backend, pool, group or listener.
var ErrNotFound = errors.New("plugins: not found")

// ErrNotDrained says that a backend isn't being drained.
var ErrNotDrained = errors.New("plugins: the backend isn't being drained")

// Info says what a driver is.
type Info struct {
	// Name is the driver's, such as "builtin"; Version its own version.
	Name    string `json:"name"`
	Version string `json:"version"`
	// Product is what it drives, in words.
	Product string `json:"product"`
}

// Config tells a driver where and what it serves.
type Config struct {
	// Site names the site of a Deployment that this driver serves; empty
	// means the only one.
	Site string `json:"site,omitempty"`
	// Owner marks what the driver makes, so that it can tell its own objects
	// from others on the same balancer; empty means DefaultOwner. Two
	// deployments on one balancer have different owners or sites.
	Owner Owner `json:"owner,omitempty"`
	// Settings are the driver's own, as its Schema says. Secrets in it are
	// references, of type [Secret].
	Settings json.RawMessage `json:"settings,omitempty"`
}

// ReadSettings reads c.Settings into into, a pointer to a struct. Fields that it
// doesn't have, and anything behind it, are a *FieldError.
func (c *Config) ReadSettings(into any) error {
	raw := c.Settings
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return &FieldError{Path: "settings", Err: err}
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return &FieldError{Path: "settings", Err: errors.New("something follows them")}
	}
	return nil
}

// A Severity says how bad a Diagnostic is.
type Severity string

const (
	// SeverityError forbids Apply.
	SeverityError Severity = "error"
	// SeverityWarning says that what was asked is done only in part, or is
	// unwise.
	SeverityWarning Severity = "warning"
	// SeverityInfo is good to know.
	SeverityInfo Severity = "info"
)

// A Diagnostic says what a driver thinks of a Deployment.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	// Path leads to the field, as in [FieldError]; empty if there is none.
	Path string `json:"path,omitempty"`
	// Summary says in one line what is the matter.
	Summary string `json:"summary"`
	// Detail says what happens instead, or why it matters.
	Detail string `json:"detail,omitempty"`
	// Fix says what to do.
	Fix string `json:"fix,omitempty"`
}

// String returns d in one line.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString(string(d.Severity) + ": ")
	if d.Path != "" {
		b.WriteString(d.Path + ": ")
	}
	b.WriteString(d.Summary)
	for _, more := range []string{d.Detail, d.Fix} {
		if more != "" {
			b.WriteString("; " + more)
		}
	}
	return b.String()
}

// Errors returns what Validate found, as diagnostics. It is the part of a
// driver's Validate that all drivers share.
func Errors(err error) []Diagnostic {
	var out []Diagnostic
	for _, e := range FieldErrors(err) {
		out = append(out, Diagnostic{Severity: SeverityError, Path: e.Path, Summary: e.Err.Error()})
	}
	return out
}

// HasError reports whether one of the diagnostics forbids Apply.
func HasError(list []Diagnostic) bool {
	for _, d := range list {
		if d.Severity == SeverityError {
			return true
		}
	}
	return false
}

// An Action says what a Change does to an object.
type Action string

const (
	// ActionAdd makes an object, ActionChange alters one in place,
	// ActionReplace makes it anew, ActionRemove removes it.
	ActionAdd     Action = "add"
	ActionChange  Action = "change"
	ActionReplace Action = "replace"
	ActionRemove  Action = "remove"
)

// A Change is one step of a Plan.
type Change struct {
	Action Action `json:"action"`
	// Kind is what is changed: certificate, pool, backend, check, group, listener
	// or fastpath; or a kind of object of the balancer's own, in its words.
	Kind string `json:"kind"`
	// Name is the object's, with those of its parents: ras/ras1.
	Name string `json:"name"`
	// Fields are what differs.
	Fields []FieldChange `json:"fields,omitempty"`
	// Effect says what clients notice; empty means nothing.
	Effect string `json:"effect,omitempty"`
}

// A FieldChange is one field that differs, as text.
type FieldChange struct {
	// Name is the field's, as in a file.
	Name string `json:"name"`
	// Before and After are its values; empty if it has none of its own.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// String returns c in one line, such as "~ backend ras/ras1: weight 1 → 2" or
// "+ backend ras/ras2: weight 2".
func (c Change) String() string {
	mark := map[Action]string{ActionAdd: "+", ActionChange: "~", ActionReplace: "±", ActionRemove: "-"}[c.Action]
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s", mark, c.Kind, c.Name)
	for i, f := range c.Fields {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + f.Name + " ")
		if c.Action != ActionAdd || f.Before != "" {
			b.WriteString(orNone(f.Before) + " → ")
		}
		b.WriteString(orNone(f.After))
	}
	if c.Effect != "" {
		b.WriteString(" (" + c.Effect + ")")
	}
	return b.String()
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// A Plan is what Apply would do.
type Plan struct {
	// Deployment is what is to be served; nil if nothing is.
	Deployment *Deployment `json:"deployment"`
	// Base identifies what was there when the plan was made; if empty, Apply
	// doesn't care.
	Base string `json:"base,omitempty"`
	// Changes are the steps, in their order. None means that nothing is to
	// be done.
	Changes []Change `json:"changes"`
	// Diagnostics are what Validate says.
	Diagnostics []Diagnostic `json:"diagnostics,omitempty"`
}

// Progress says how an Apply gets on.
type Progress struct {
	// Done of Total changes are done.
	Done  int `json:"done"`
	Total int `json:"total"`
	// Change is the one just done.
	Change Change `json:"change,omitzero"`
	// Text says what is waited for, where nothing was done yet.
	Text string `json:"text,omitempty"`
}

// State is what a driver finds on its balancer, of what it owns.
type State struct {
	// Revision identifies what is there, as Plan.Base does. It changes with
	// anything that a Plan would look at.
	Revision string `json:"revision,omitempty"`
	// Deployment is what is served, of the driver's site, if the driver can
	// tell; nil if it can't, or if nothing is.
	Deployment *Deployment `json:"deployment,omitempty"`
	// Applied is the Revision of what was applied last of the driver's site, see
	// [Deployment.Of], if the balancer keeps it. With it, a difference that a person
	// made there can be told from one in the file.
	Applied string `json:"applied,omitempty"`
	// Objects are the balancer's own objects, in its own words.
	Objects []Object `json:"objects,omitempty"`
	// Drained are the backends that Drain was called for.
	Drained []DrainRequest `json:"drained,omitempty"`
}

// A BackendRef names a backend.
type BackendRef struct {
	// Pool is the name of its pool; empty means every pool that has Backend.
	Pool string `json:"pool,omitempty"`
	// Backend is its name; or geo: and the name of a site of Geo, see [GeoRef].
	Backend string `json:"backend"`
}

// ParseBackendRef reads "ras1" or "ras/ras1".
func ParseBackendRef(s string) BackendRef {
	if pool, name, ok := strings.Cut(s, "/"); ok {
		return BackendRef{Pool: pool, Backend: name}
	}
	return BackendRef{Backend: s}
}

// String returns r as ParseBackendRef reads it.
func (r BackendRef) String() string {
	if r.Pool == "" {
		return r.Backend
	}
	return r.Pool + "/" + r.Backend
}

// Refs returns the backends of s that r means, each with its pool; none if s is nil.
func (s *Site) Refs(r BackendRef) []BackendRef {
	if s == nil {
		return nil
	}
	var out []BackendRef
	for i := range s.Pools {
		p := &s.Pools[i]
		if r.Pool != "" && r.Pool != p.Name {
			continue
		}
		if slices.ContainsFunc(p.Backends, func(b Backend) bool { return b.Name == r.Backend }) {
			out = append(out, BackendRef{Pool: p.Name, Backend: r.Backend})
		}
	}
	return out
}

// A DrainRequest says what to drain.
type DrainRequest struct {
	BackendRef
	// Deadline is when the clients that are left are moved away; zero means
	// never, a time that has passed means now.
	Deadline time.Time `json:"deadline,omitzero"`
}

// Redrain returns the backends of s that r means, and what list is once req, a drain
// of them, has begun, or theirs have ended if req is nil. The error is ErrNotFound if
// s has none of them, and ErrNotDrained if none had a drain to end. list is left as it
// is.
func (s *Site) Redrain(list []DrainRequest, r BackendRef, req *DrainRequest) (refs []BackendRef, after []DrainRequest, err error) {
	return redrain(s.Refs(r), list, r, req)
}
