package plugintest

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
)

// Names, for tests of a driver's own: what holds for each that answers for names, and is
// no part of the suite, since other drivers don't.

// follow returns a run for a test of a driver's own.
func (x Target) follow(t *testing.T) *run {
	t.Helper()
	r := &run{T: t, Target: x, ctx: t.Context()}
	t.Cleanup(r.close)
	r.reopen()
	return r
}

// settle applies dep by a new program, which must leave nothing to do.
func (r *run) settle(dep *plugins.Deployment) {
	r.Helper()
	r.reopen()
	p := r.plan(dep)
	if plugins.HasError(p.Diagnostics) {
		r.Fatal(p.Diagnostics)
	}
	r.apply(p)
	r.unchanged("after Apply", dep)
}

// NamesBrokenOff has the balancer stop after each write on the way from names to other
// names, to none, and back: a new program makes it good, and leaves alone what isn't the
// driver's. It takes a Target's Driver, Foreign and BreakAfter.
func NamesBrokenOff(t *testing.T, x Target) {
	t.Helper()
	r := x.follow(t)
	foreign := r.foreign()
	a := WithNames(t, "names, one site after the other", nil)
	b := WithNames(t, "names of sites and gateways that are called otherwise, and have each other's addresses", func(g *plugins.Geo) { g.Names[0].Name = "else.vpn.example.com" })
	for _, to := range []*plugins.Deployment{a, b, nil, b, a, nil} {
		const most = 200
		for n := range most {
			r.reopen()
			p := r.plan(to)
			r.BreakAfter(n)
			err := r.try(p)
			r.BreakAfter(-1)
			if err == nil {
				break
			}
			if n == most-1 {
				t.Fatal(err)
			}
		}
		r.settle(to)
		if diff := cmp.Diff(foreign, r.foreign()); diff != "" {
			t.Fatal(diff)
		}
	}
}

// UndrainBrokenOff has the balancer stop after each write of the end of a drain: a new
// program makes it good by applying dep, which is in effect. In the end ref isn't drained.
// It takes a Target's Driver and BreakAfter.
func UndrainBrokenOff(t *testing.T, x Target, dep *plugins.Deployment, ref plugins.BackendRef) {
	t.Helper()
	r := x.follow(t)
	const most = 40
	for n := range most {
		r.BreakAfter(n)
		err := r.d.Undrain(r.ctx, ref)
		r.BreakAfter(-1)
		r.settle(dep)
		if err == nil {
			r.drained(ref, false)
			return
		}
		if err := r.d.Drain(r.ctx, plugins.DrainRequest{BackendRef: ref}); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("an Undrain takes more than %d writes", most)
}

// OnlyNames has a balancer answer for names, and do nothing else, by a driver that isn't
// configured for a site. The names are those of an intent of [Names]. It takes a Target's
// Driver and Foreign.
func OnlyNames(t *testing.T, x Target, intent string) {
	t.Helper()
	r := x.follow(t)
	foreign := r.foreign()
	same := func(when string) {
		t.Helper()
		if diff := cmp.Diff(foreign, r.foreign()); diff != "" {
			t.Errorf("%s, what isn't the driver's has changed: %s", when, diff)
		}
	}
	dep := &plugins.Deployment{Geo: WithNames(t, intent, nil).Geo}
	r.settle(dep)
	r.reopen()
	r.unchanged("to a new program", dep)
	same("after Apply")
	ref := plugins.GeoRef("lyon")
	if err := r.d.Drain(r.ctx, plugins.DrainRequest{BackendRef: ref}); err != nil {
		t.Error(err)
	}
	r.drained(ref, true)
	if s := r.read(); s.Applied != dep.Revision() || len(s.Objects) == 0 || len(s.Drained) != 1 {
		t.Errorf("%+v", s)
	}
	if s, err := r.d.Stats(r.ctx); err != nil || len(s.Pools) > 0 {
		t.Errorf("%+v, %v", s, err)
	}
	r.settle(nil)
	if s := r.read(); len(s.Objects) > 0 {
		t.Errorf("there is still %+v", s)
	}
	same("after the removal")
}

// Advised checks that a driver says something of a path, in a level. What says what the
// deployment is about.
func Advised(t *testing.T, d plugins.Driver, what string, dep *plugins.Deployment, path string, level plugins.Severity) {
	t.Helper()
	list, err := d.Validate(t.Context(), dep)
	if err != nil || !slices.ContainsFunc(list, func(g plugins.Diagnostic) bool { return g.Path == path && g.Severity == level }) {
		t.Errorf("%s: nothing is said of %s: %v, %v", what, path, list, err)
	}
}

// Shows checks that a text holds each of some.
func Shows(t *testing.T, text string, each ...string) {
	t.Helper()
	for _, s := range each {
		if !strings.Contains(text, s) {
			t.Errorf("%q is missing in\n%s", s, text)
		}
	}
}
