package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

var checkCommand = command{
	name: "check", usage: "[--json] [--no-files] FILE", short: "say all that is wrong with a file, and with those it names", run: runCheck,
}

// checked is what check --json prints.
type checked struct {
	Valid    bool    `json:"valid"`
	Faults   []Fault `json:"faults"`
	Warnings []Fault `json:"warnings"`
}

func runCheck(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("check", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	noFiles := fs.Bool("no-files", false, "don't read the files that FILE names, which are on another machine")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	out := checked{Faults: []Fault{}, Warnings: []Fault{}}
	s, err := readConfig(args[0])
	var faults *Faults
	switch {
	case errors.As(err, &faults):
		out.Faults = faults.List
	case err != nil:
		return err
	default:
		if out.Faults, out.Warnings, err = s.judged(ctx); err != nil {
			return err
		}
		if !*noFiles {
			if err := s.judgeFiles(ctx, &out); err != nil {
				return err
			}
		}
		out.Valid = len(out.Faults) == 0
	}
	if *asJSON {
		if err := printJSON(env.stdout, out); err != nil {
			return err
		}
	} else {
		printChecked(env, args[0], out)
	}
	if !out.Valid {
		return errSilent
	}
	return nil
}

func printChecked(env *environment, file string, out checked) {
	f := &Faults{File: file, List: out.Faults}
	for i := range f.List {
		fmt.Fprintln(env.stdout, f.line(i))
	}
	w := &Faults{File: file, List: out.Warnings}
	for i := range w.List {
		fmt.Fprintln(env.stdout, w.line(i))
	}
	switch {
	case !out.Valid:
		fmt.Fprintf(env.stdout, "%s: %d %s\n", file, len(out.Faults), plural(len(out.Faults), "fault", "faults"))
	case len(out.Warnings) > 0:
		fmt.Fprintf(env.stdout, "%s: valid, with %d %s\n", file, len(out.Warnings), plural(len(out.Warnings), "warning", "warnings"))
	default:
		fmt.Fprintf(env.stdout, "%s: valid\n", file)
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// judged returns what the driver refuses, and what it thinks unwise. What is put
// onto other balancers is for their drivers to refuse.
func (s *source) judged(ctx context.Context) (faults, warnings []Fault, _ error) {
	d := new(builtin.Driver)
	if err := d.Configure(ctx, plugins.Config{Site: s.config.Site}); err != nil {
		return nil, nil, err
	}
	list, err := d.Validate(ctx, &s.config.Deployment)
	if err != nil {
		return nil, nil, err
	}
	faults, warnings = []Fault{}, []Fault{}
	for _, g := range list {
		f := s.fault(g.Path, "")
		g.Path = ""
		if f.Text = g.String(); g.Severity == plugins.SeverityError && len(s.config.Targets) == 0 {
			faults = append(faults, f)
			continue
		}
		warnings = append(warnings, f)
	}
	return faults, warnings, nil
}

func printJSON(w interface{ Write([]byte) (int, error) }, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
