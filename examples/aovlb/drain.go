package main

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

var (
	drainCommand = command{
		name: "drain", usage: "[--deadline 30m] [--file FILE] NAME", short: "give a backend no new clients", run: runDrain,
	}
	undrainCommand = command{name: "undrain", usage: "[--file FILE] NAME", short: "end a drain", run: runUndrain}
)

func runDrain(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("drain", flag.ContinueOnError)
	r := env.flags(fs)
	deadline := fs.Duration("deadline", 0, "how `long` its clients may stay; 0 means for ever")
	file, target := targetFlags(fs)
	noWait := fs.Bool("no-wait", false, "don't wait for the clients of a balancer that a target of --file is")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	if *file != "" {
		return drainTarget(ctx, env, *file, *target, args[0], *deadline, !*noWait)
	}
	var out plugins.DrainRequest
	if err := r.call(ctx, "POST", "/v1/drain", drainBody{Backend: args[0], Deadline: plugins.Duration(*deadline)}, &out); err != nil {
		return err
	}
	if out.Deadline.IsZero() {
		fmt.Fprintf(env.stdout, "%s gets no new clients and keeps those it has\n", args[0])
	} else {
		fmt.Fprintf(env.stdout, "%s gets no new clients; those it has may stay until %s\n", args[0], out.Deadline.Local().Format(time.DateTime))
	}
	return nil
}

func runUndrain(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("undrain", flag.ContinueOnError)
	r := env.flags(fs)
	file, target := targetFlags(fs)
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	if *file != "" {
		return undrainTarget(ctx, env, *file, *target, args[0])
	}
	if err := r.call(ctx, "POST", "/v1/undrain", drainBody{Backend: args[0]}, &struct{}{}); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s gets new clients again\n", args[0])
	return nil
}

// targetFlags are for what drains on another balancer.
func targetFlags(fs *flag.FlagSet) (file, target *string) {
	return fs.String("file", "", "drain on a target of this `file`, and not in the aovlb that runs here"),
		fs.String("target", "", "`name` of the target, if the file has several")
}
