package main

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins/builtin"
)

var explainCommand = command{
	name: "explain", usage: "[--json] ADDRESS|SPI|USER | --dns NAME --client ADDRESS", short: "say which backend a client has, or would get, and why", run: runExplain,
}

func runExplain(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("explain", flag.ContinueOnError)
	r := env.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	dns := fs.String("dns", "", "say which site --client gets for this `name`")
	client := fs.String("client", "", "the `address` of the client, with --dns")
	want := 1
	if slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(strings.TrimLeft(a, "-"), "dns") && strings.HasPrefix(a, "-")
	}) {
		want = 0
	}
	args, err := parse(env, fs, args, want)
	if err != nil {
		return err
	}
	if want == 0 {
		if *client == "" {
			return &usageError{"explain --dns needs --client, the address of a client"}
		}
		return runExplainDNS(ctx, env, r, *dns, *client, *asJSON)
	}
	var out []builtin.Explanation
	if err := r.call(ctx, "GET", "/v1/explain?client="+url.QueryEscape(args[0]), nil, &out); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(env.stdout, out)
	}
	if len(out) == 0 {
		fmt.Fprintf(env.stdout, "%s is not known, and says nothing of where a new client would go\n", args[0])
	}
	for _, e := range out {
		printExplanation(env, &e)
	}
	return nil
}

func printExplanation(env *environment, e *builtin.Explanation) {
	where := "its backend isn't settled"
	if e.Backend != "" {
		where = "at " + e.Backend
		if !e.Known {
			where = "would go to " + e.Backend
		}
	}
	fmt.Fprintf(env.stdout, "group %s, %s: %s\n", e.Group, e.Asked, where)
	for _, s := range e.Steps {
		fmt.Fprintf(env.stdout, "  - %s\n", s)
	}
	if c := e.Client; c != nil {
		fmt.Fprintf(env.stdout, "  %s, last heard of from %s %s ago, known for %s\n", c.Stage, c.Source, ago(c.Seen), ago(c.Since))
		fmt.Fprintf(env.stdout, "  names: %s\n", strings.Join(c.Names, "; "))
	}
}

// ago is the time since t, rounded for people.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}
