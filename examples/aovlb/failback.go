package main

import (
	"context"
	"flag"
	"fmt"
)

var failbackCommand = command{
	name: "failback", usage: "POOL", short: "use a pool's preferred backends again", run: runFailback,
}

func runFailback(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("failback", flag.ContinueOnError)
	r := env.flags(fs)
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	if err := r.call(ctx, "POST", "/v1/failback", failbackBody{Pool: args[0]}, &struct{}{}); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s uses its most preferred backends that work\n", args[0])
	return nil
}
