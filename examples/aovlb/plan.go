package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

var (
	planCommand = command{
		name: "plan", usage: "[--remove] [--json] FILE [TARGET]", short: "say what apply would change on a balancer", run: runPlan,
	}
	applyCommand = command{
		name: "apply", usage: "[--remove] FILE [TARGET]", short: "put a deployment onto a balancer", run: runApply,
	}
	driftCommand = command{
		name: "drift", usage: "[--json] FILE [TARGET]", short: "say how a balancer differs from a file; exit 1 if it does", run: runDrift,
	}
)

// fileAndTarget are the arguments of the commands about targets.
func fileAndTarget(env *environment, fs *flag.FlagSet, args []string) (file, target string, err error) {
	rest, err := parse(env, fs, args, -1)
	switch {
	case err != nil:
		return "", "", err
	case len(rest) > 2:
		return "", "", &usageError{fmt.Sprintf("it takes a file and a target, not %d arguments", len(rest))}
	case len(rest) == 2:
		target = rest[1]
	}
	return rest[0], target, nil
}

// plan plans what is to be served; nothing if remove is true. DNS for all sites is
// served by aovlb serve, unless the driver can, and then that is said.
func (b *balancer) plan(ctx context.Context, remove bool) (*plugins.Plan, error) {
	if remove {
		return b.Plan(ctx, nil)
	}
	dep := b.src.config.Deployment
	c, err := b.Capabilities(ctx)
	if err != nil {
		return nil, err
	}
	elsewhere := geoElsewhere(&dep, c)
	p, err := b.Plan(ctx, &dep)
	if err == nil {
		p.Diagnostics = append(p.Diagnostics, elsewhere...)
	}
	return p, err
}

// geoElsewhere takes geo out of a deployment with sites for a balancer that can't
// serve it, and says so.
func geoElsewhere(dep *plugins.Deployment, c plugins.Capabilities) []plugins.Diagnostic {
	can := slices.ContainsFunc(c.Support, func(s plugins.Support) bool {
		return (s.Field == "geo" || strings.HasPrefix(s.Field, "geo.")) && s.Level != plugins.LevelNone
	})
	if dep.Geo == nil || len(dep.Sites) == 0 || can {
		return nil
	}
	dep.Geo = nil
	return []plugins.Diagnostic{{Severity: plugins.SeverityInfo, Path: "geo", Summary: "this balancer has no part in it", Detail: "aovlb serve serves it"}}
}

func runPlan(ctx context.Context, env *environment, args []string) (err error) {
	fs := flag.NewFlagSet("plan", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	remove := fs.Bool("remove", false, "remove everything that aovlb made there")
	file, target, err := fileAndTarget(env, fs, args)
	if err != nil {
		return err
	}
	b, err := openTarget(ctx, env, file, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p, err := b.plan(ctx, *remove)
	if err != nil {
		return err
	}
	if *asJSON {
		err = printJSON(env.stdout, p)
	} else {
		b.printPlan(env, p)
	}
	if err == nil && plugins.HasError(p.Diagnostics) {
		return errSilent
	}
	return err
}

// printPlan says what a plan would do, and what the driver thinks of it.
func (b *balancer) printPlan(env *environment, p *plugins.Plan) {
	b.printDiagnostics(env, p.Diagnostics)
	for _, c := range p.Changes {
		printChange(env, c)
	}
	switch n := len(p.Changes); {
	case plugins.HasError(p.Diagnostics):
		fmt.Fprintf(env.stdout, "%s can't serve this\n", b.target.Name)
	case n == 0:
		fmt.Fprintf(env.stdout, "%s: nothing to change\n", b.target.Name)
	default:
		fmt.Fprintf(env.stdout, "%s: %d %s\n", b.target.Name, n, plural(n, "change", "changes"))
	}
}

func (b *balancer) printDiagnostics(env *environment, list []plugins.Diagnostic) {
	f := &Faults{File: b.src.file}
	for _, g := range list {
		path := g.Path
		g.Path = ""
		f.List = append(f.List, b.src.fault(path, g.String()))
	}
	for i := range f.List {
		fmt.Fprintln(env.stdout, f.line(i))
	}
}

// applyTries is how often a plan is made anew because the last one grew old, or
// the plugin died.
const applyTries = 4

func runApply(ctx context.Context, env *environment, args []string) (err error) {
	fs := flag.NewFlagSet("apply", flag.ContinueOnError)
	remove := fs.Bool("remove", false, "remove everything that aovlb made there")
	file, target, err := fileAndTarget(env, fs, args)
	if err != nil {
		return err
	}
	b, err := openTarget(ctx, env, file, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var made tally
	for try := 1; ; try++ {
		p, err := b.plan(ctx, *remove)
		if err != nil {
			return err
		}
		if try == 1 {
			b.printDiagnostics(env, p.Diagnostics)
		}
		if plugins.HasError(p.Diagnostics) {
			fmt.Fprintf(env.stdout, "%s can't serve this, nothing was changed\n", b.target.Name)
			return errSilent
		}
		err = b.Apply(ctx, p, steps(env))
		var lost *wire.UnavailableError
		switch {
		case err == nil:
			done := "serves it"
			if *remove {
				done = "has nothing of it any more"
			}
			n := made.add(p.Changes)
			fmt.Fprintf(env.stdout, "%s %s, %d %s\n", b.target.Name, done, n, plural(n, "change", "changes"))
			return nil
		case try < applyTries && errors.As(err, &lost):
			made.add(p.Changes) // those that the next plan hasn't are done
			fmt.Fprintf(env.stdout, "the driver died; what is left is planned anew\n")
		case try < applyTries && errors.Is(err, plugins.ErrStale):
			fmt.Fprintf(env.stdout, "%s was changed meanwhile; it is planned anew\n", b.target.Name)
		case ctx.Err() != nil:
			return fmt.Errorf("called off: %w; what was changed stays, and another aovlb apply does the rest", context.Cause(ctx))
		default:
			return b.placed(err)
		}
	}
}

// A tally counts the changes of plans of which each does what the one before left: by
// object, for what is half done is in both.
type tally map[string]int

// add counts those of one more plan, and returns how many there are.
func (t *tally) add(list []plugins.Change) int {
	if *t == nil {
		*t = make(tally)
	}
	here := make(tally)
	for _, c := range list {
		here[c.Kind+" "+c.Name]++
	}
	for name, n := range here {
		(*t)[name] = max((*t)[name], n)
	}
	total := 0
	for _, n := range *t {
		total += n
	}
	return total
}

// placed says where in the file the fields are that err is about.
func (b *balancer) placed(err error) error { return (&server{}).placed(b.src, err) }

// lineWidth is how much a line of a change may have.
const lineWidth = 120

// printChange shows a change in one line if it fits, and each field in a line of its
// own otherwise.
func printChange(env *environment, c plugins.Change) {
	line := c.String()
	if utf8.RuneCountInString(line) <= lineWidth {
		fmt.Fprintln(env.stdout, line)
		return
	}
	fmt.Fprintln(env.stdout, headline(c))
	for _, f := range c.Fields {
		before, after := cmp.Or(f.Before, "none"), cmp.Or(f.After, "none")
		switch {
		case c.Action == plugins.ActionAdd && f.Before == "":
			fmt.Fprintf(env.stdout, "    %s: %s\n", f.Name, after)
		case len(f.Name)+len(before)+len(after) > lineWidth:
			fmt.Fprintf(env.stdout, "    %s: %s\n    %*s %s\n", f.Name, before, utf8.RuneCountInString(f.Name)+1, "→", after)
		default:
			fmt.Fprintf(env.stdout, "    %s: %s → %s\n", f.Name, before, after)
		}
	}
}

// headline is a change without its fields.
func headline(c plugins.Change) string {
	c.Fields = nil
	return c.String()
}

// steps returns what prints progress, a line for each step.
func steps(env *environment) func(plugins.Progress) {
	last := ""
	return func(g plugins.Progress) {
		what := g.Text
		if what == "" {
			if what = g.Change.String(); utf8.RuneCountInString(what) > lineWidth {
				what = headline(g.Change)
			}
		}
		line := fmt.Sprintf("%d/%d %s", g.Done, g.Total, what)
		if line != last {
			fmt.Fprintln(env.stdout, line)
		}
		last = line
	}
}

// drifted is what drift --json prints.
type drifted struct {
	Target string `json:"target"`
	// Drift says whether there is any, Where who changed: balancer, file, or
	// nothing if that can't be told.
	Drift   bool             `json:"drift"`
	Where   string           `json:"where,omitempty"`
	Changes []plugins.Change `json:"changes"`
}

func runDrift(ctx context.Context, env *environment, args []string) (err error) {
	fs := flag.NewFlagSet("drift", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	file, target, err := fileAndTarget(env, fs, args)
	if err != nil {
		return err
	}
	b, err := openTarget(ctx, env, file, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	p, err := b.plan(ctx, false)
	if err != nil {
		return err
	}
	if plugins.HasError(p.Diagnostics) {
		b.printPlan(env, p)
		return errSilent
	}
	state, err := b.Read(ctx)
	if err != nil {
		return err
	}
	d := drifted{Target: b.target.Name, Drift: len(p.Changes) > 0, Changes: p.Changes}
	switch {
	case !d.Drift || state.Applied == "":
	case state.Applied == p.Deployment.Of(b.site).Revision():
		d.Where = "balancer"
	default:
		d.Where = "file"
	}
	if *asJSON {
		err = printJSON(env.stdout, d)
	} else {
		printDrift(env, d, state)
	}
	if err == nil && d.Drift {
		return errSilent
	}
	return err
}

func printDrift(env *environment, d drifted, s *plugins.State) {
	for _, c := range d.Changes {
		printChange(env, c)
	}
	for _, r := range s.Drained {
		fmt.Fprintf(env.stdout, "%s is drained, which is no drift\n", r.BackendRef)
	}
	switch {
	case !d.Drift:
		fmt.Fprintf(env.stdout, "%s is as the file says\n", d.Target)
	case d.Where == "balancer":
		fmt.Fprintf(env.stdout, "%s was changed there since the file was applied: aovlb apply puts it right\n", d.Target)
	case d.Where == "file":
		fmt.Fprintf(env.stdout, "the file was changed since it was applied to %s\n", d.Target)
	default:
		fmt.Fprintf(env.stdout, "%s differs from the file\n", d.Target)
	}
}

// drainTarget drains a backend of a target, and waits until its clients are gone.
func drainTarget(ctx context.Context, env *environment, file, target, name string, deadline time.Duration, wait bool) (err error) {
	b, err := openTarget(ctx, env, file, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	r := plugins.DrainRequest{BackendRef: plugins.ParseBackendRef(name)}
	if deadline > 0 {
		r.Deadline = time.Now().Add(deadline)
	}
	c, err := b.Capabilities(ctx)
	if err != nil {
		return err
	}
	if !wait {
		if deadline > 0 && !c.DrainDeadline {
			return fmt.Errorf("%s has no deadlines of its own: without --no-wait this command keeps it", b.target.Name)
		}
		if err := b.Drain(ctx, r); err != nil {
			return err
		}
		fmt.Fprintf(env.stdout, "%s gets no new clients\n", name)
		return nil
	}
	var left int64
	last := ""
	err = plugins.DrainWithin(ctx, b, r, drainInterval(env), func(g plugins.Drainage) {
		text := name + " gets no new clients"
		if g.Left != nil {
			left = *g.Left
			text += fmt.Sprintf(", %d left", left)
		}
		// The time alone is worth a line each minute.
		if key := text + g.Remaining.Round(time.Minute).String(); key != last {
			if g.Remaining >= time.Second {
				text += fmt.Sprintf(", for %v at most", g.Remaining.Round(time.Second))
			}
			fmt.Fprintln(env.stdout, text)
			last = key
		}
	})
	switch {
	case err == nil && left > 0:
		fmt.Fprintf(env.stdout, "%s is drained, %d %s cut off\n", name, left, plural(int(left), "client was", "clients were"))
	case err == nil:
		fmt.Fprintf(env.stdout, "%s is drained\n", name)
	case errors.Is(err, plugins.ErrUnsupported) && deadline == 0 && last != "":
		return fmt.Errorf("%s goes on draining, and %s doesn't say how many clients it has, so that this can't wait for the last: give a --deadline, or --no-wait",
			name, b.target.Name)
	case ctx.Err() != nil:
		return calledOff(name, b.target.Name, c, r)
	}
	return err
}

// calledOff says what becomes of a drain that nobody waits for any more.
func calledOff(name, target string, c plugins.Capabilities, r plugins.DrainRequest) error {
	switch {
	case r.Deadline.IsZero():
		return fmt.Errorf("called off: %s goes on draining, without an end; aovlb undrain ends it", name)
	case c.DrainDeadline:
		return fmt.Errorf("called off: %s goes on draining, and %s cuts off the clients that are left at %s; aovlb undrain ends it",
			name, target, r.Deadline.Local().Format(time.DateTime))
	}
	return fmt.Errorf("called off: %s goes on draining, and nobody keeps its deadline: it keeps the clients that are left; aovlb undrain ends it", name)
}

// drainInterval is the time between two looks at how many clients are left.
func drainInterval(env *environment) time.Duration {
	d, err := time.ParseDuration(env.getenv("AOVLB_DRAIN_INTERVAL"))
	if err != nil {
		return 0 // as DrainWithin has it
	}
	return d
}

func undrainTarget(ctx context.Context, env *environment, file, target, name string) (err error) {
	b, err := openTarget(ctx, env, file, target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := b.Undrain(ctx, plugins.ParseBackendRef(name)); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s gets new clients again\n", name)
	return nil
}
