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
		name: "drain", usage: "[--deadline 30m] NAME", short: "give a backend no new clients", run: runDrain,
	}
	undrainCommand = command{name: "undrain", usage: "NAME", short: "end a drain", run: runUndrain}
)

func runDrain(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("drain", flag.ContinueOnError)
	r := env.flags(fs)
	deadline := fs.Duration("deadline", 0, "how `long` its clients may stay; 0 means for ever")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
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
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	if err := r.call(ctx, "POST", "/v1/undrain", drainBody{Backend: args[0]}, &struct{}{}); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s gets new clients again\n", args[0])
	return nil
}
