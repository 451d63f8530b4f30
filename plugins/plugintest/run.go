package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
)

// prompt is how long a call may take that has been called off.
const prompt = 10 * time.Second

// run is one test with a balancer of its own.
type run struct {
	*testing.T
	Target
	d    plugins.Driver
	site string
	ctx  context.Context

	mu   sync.Mutex
	said strings.Builder // all that the driver has said
}

func (s Suite) run(t *testing.T, test func(*run)) {
	t.Helper()
	r := &run{T: t, Target: s.Open(t), site: s.Site, ctx: t.Context()}
	r.reopen()
	defer r.close()
	test(r)
	if r.Logs != nil {
		r.hear(r.Logs(), nil)
	}
	if i := strings.Index(r.said.String(), Canary); i >= 0 {
		text := r.said.String()
		t.Errorf("a secret was said: …%s…", text[max(i-80, 0):min(i+60, len(text))])
	}
}

// reopen has a new program take over.
func (r *run) reopen() {
	r.Helper()
	r.close()
	r.d = r.Driver(r.T)
}

func (r *run) close() {
	if c, ok := r.d.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			r.Errorf("close: %v", err)
		}
	}
	r.d = nil
}

// hear remembers what the driver said.
func (r *run) hear(v any, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, jsonErr := json.Marshal(v)
	if jsonErr != nil {
		r.Errorf("%T can't be marshalled: %v", v, jsonErr)
	}
	r.said.Write(b)
	fmt.Fprintf(&r.said, "%v\n%#v\n", v, v)
	if err != nil {
		fmt.Fprintf(&r.said, "%v\n%+v\n", err, err)
	}
}

func (r *run) plan(d *plugins.Deployment) *plugins.Plan {
	r.Helper()
	p, err := r.d.Plan(r.ctx, d)
	r.hear(p, err)
	if err != nil {
		r.Fatalf("plan: %v", err)
	}
	if diff := cmp.Diff(d.Revision(), p.Deployment.Revision()); diff != "" {
		r.Fatalf("the plan is of another deployment: %s", diff)
	}
	for _, c := range p.Changes {
		if c.Kind == "" || c.Name == "" || !slices.Contains([]plugins.Action{plugins.ActionAdd, plugins.ActionChange, plugins.ActionReplace, plugins.ActionRemove}, c.Action) {
			r.Errorf("a change nobody can read: %#v", c)
		}
	}
	return p
}

func (r *run) read() *plugins.State {
	r.Helper()
	s, err := r.d.Read(r.ctx)
	r.hear(s, err)
	if err != nil {
		r.Fatalf("read: %v", err)
	}
	return s
}

// try applies p, and checks what is told of its progress.
func (r *run) try(p *plugins.Plan) error {
	r.Helper()
	last := 0
	err := r.d.Apply(r.ctx, p, func(g plugins.Progress) {
		r.hear(g, nil)
		if g.Done < last || g.Done > g.Total {
			r.Errorf("progress went from %d to %d of %d", last, g.Done, g.Total)
		}
		last = g.Done
	})
	r.hear(p, err)
	return err
}

func (r *run) apply(p *plugins.Plan) {
	r.Helper()
	if err := r.try(p); err != nil {
		r.Fatalf("apply: %v", err)
	}
}

// unchanged reports whether nothing is left to do for d, and says what is.
func (r *run) unchanged(when string, d *plugins.Deployment) {
	r.Helper()
	p := r.plan(d)
	for _, c := range p.Changes {
		r.Errorf("%s there is still to do: %v", when, c)
	}
}

func (r *run) foreign() string {
	if r.Foreign == nil {
		return ""
	}
	return r.Foreign()
}

func (r *run) writes() int {
	if r.Writes == nil {
		return 0
	}
	return r.Writes()
}

// can returns the first n intents that the driver can do. It skips the test if
// there are fewer.
func (r *run) can(intents []Intent, n int) []Intent {
	r.Helper()
	var out []Intent
	for _, in := range intents {
		if len(out) == n {
			break
		}
		if !in.tried() || in.Deployment == nil || plugins.HasError(r.plan(in.Deployment).Diagnostics) {
			continue
		}
		out = append(out, in)
	}
	if len(out) < n {
		r.Skipf("it takes %d intents that the driver can do, and it can do %d", n, len(out))
	}
	return out
}

func (r *run) introduces() {
	info, err := r.d.Info(r.ctx)
	r.hear(info, err)
	if err != nil || info.Name == "" || info.Version == "" || info.Product == "" {
		r.Errorf("Info: %+v, %v", info, err)
	}
	schema, err := r.d.Schema(r.ctx)
	r.hear(schema, err)
	var object map[string]any
	if err != nil || json.Unmarshal(schema, &object) != nil || object["type"] != "object" {
		r.Errorf("Schema is not the schema of an object: %s, %v", schema, err)
	}
	c, err := r.d.Capabilities(r.ctx)
	r.hear(c, err)
	if err != nil {
		r.Fatal(err)
	}
	for _, f := range c.Faults() {
		r.Errorf("Capabilities: %s", f)
	}
	able := false
	for _, p := range []plugins.Protocol{plugins.ProtocolIKEv2, plugins.ProtocolSSTP, plugins.ProtocolRADIUS, plugins.ProtocolUDP, plugins.ProtocolTCP} {
		s, ok := c.Lookup("groups.listeners.protocol", string(p))
		able = able || ok && s.Level != plugins.LevelNone
	}
	if !able {
		r.Log("the driver can balance no protocol at all")
	}
	if s := r.read(); len(s.Objects) > 0 || len(s.Drained) > 0 {
		r.Errorf("the balancer isn't empty: %+v", s)
	}
}

// intent has the driver do one thing, or say why not.
func (r *run) intent(in Intent) {
	dep := in.Deployment
	before, foreign := r.read(), r.foreign()
	if dep != nil {
		r.diagnosed(dep)
	}
	p := r.plan(dep)
	if plugins.HasError(p.Diagnostics) {
		r.refused(p, before)
		return
	}
	w := r.writes()
	if dep != nil && len(p.Changes) == 0 {
		r.Fatal("there is nothing on the balancer, and yet nothing to do")
	}
	if r.writes() != w {
		r.Error("Plan wrote to the balancer")
	}
	r.apply(p)
	r.unchanged("after Apply", dep)
	state := r.read()
	if dep != nil && state.Revision == before.Revision {
		r.Error("Apply left the revision as it was")
	}
	w = r.writes()
	r.apply(r.plan(dep))
	if r.writes() != w {
		r.Errorf("the second Apply wrote %d times", r.writes()-w)
	}
	if again := r.read(); again.Revision != state.Revision {
		r.Error("the second Apply changed the revision")
	}
	r.reopen()
	r.unchanged("to a new program", dep)
	if now := r.foreign(); now != foreign {
		r.Errorf("what isn't the driver's has changed: %s", cmp.Diff(foreign, now))
	}
	r.apply(r.plan(nil))
	if left := r.read(); len(left.Objects) > 0 || len(left.Drained) > 0 {
		r.Errorf("all was to be removed, and this is left: %+v", left)
	}
	r.unchanged("after the removal", nil)
	if now := r.foreign(); now != foreign {
		r.Errorf("what isn't the driver's has changed by the removal: %s", cmp.Diff(foreign, now))
	}
}

// diagnosed checks that what the driver's Capabilities don't cover is among its
// diagnostics.
func (r *run) diagnosed(dep *plugins.Deployment) {
	r.Helper()
	list, err := r.d.Validate(r.ctx, dep)
	r.hear(list, err)
	c, capErr := r.d.Capabilities(r.ctx)
	if err = errors.Join(err, capErr); err != nil {
		r.Fatal(err)
	}
	for _, g := range list {
		if g.Summary == "" || g.Severity != plugins.SeverityError && g.Severity != plugins.SeverityWarning && g.Severity != plugins.SeverityInfo {
			r.Errorf("a diagnostic nobody can read: %#v", g)
		}
	}
	rank := func(s plugins.Severity) int {
		return slices.Index([]plugins.Severity{plugins.SeverityInfo, plugins.SeverityWarning, plugins.SeverityError}, s)
	}
	for _, want := range plugins.Judge(dep, r.site, c) {
		if !slices.ContainsFunc(list, func(g plugins.Diagnostic) bool { return g.Path == want.Path && rank(g.Severity) >= rank(want.Severity) }) {
			r.Errorf("Validate leaves out: %v", want)
		}
	}
	p := r.plan(dep)
	if diff := cmp.Diff(list, p.Diagnostics); diff != "" && len(list)+len(p.Diagnostics) > 0 {
		r.Errorf("Plan says other things than Validate: %s", diff)
	}
	for _, g := range p.Diagnostics {
		r.Log(g)
	}
}

// refused checks that a plan with errors is no plan.
func (r *run) refused(p *plugins.Plan, before *plugins.State) {
	if len(p.Changes) > 0 {
		r.Errorf("a deployment that is refused has %d changes", len(p.Changes))
	}
	if err := r.try(p); !errors.Is(err, plugins.ErrInvalid) {
		r.Errorf("Apply of what is refused: %v, want ErrInvalid", err)
	}
	if after := r.read(); after.Revision != before.Revision {
		r.Error("Apply of what is refused changed something")
	}
}

// sequence has the driver go from each intent to the next.
func (r *run) sequence(intents []Intent) {
	foreign := r.foreign()
	for _, in := range intents {
		if !in.tried() {
			continue
		}
		p := r.plan(in.Deployment)
		if plugins.HasError(p.Diagnostics) {
			continue
		}
		if err := r.try(p); err != nil {
			r.Fatalf("%s: apply: %v", in.Name, err)
		}
		r.unchanged("after "+in.Name, in.Deployment)
	}
	if now := r.foreign(); now != foreign {
		r.Errorf("what isn't the driver's has changed: %s", cmp.Diff(foreign, now))
	}
}
