package main

import (
	"context"
	"flag"
	"fmt"
)

var reloadCommand = command{
	name: "reload", usage: "", short: "have the file read again", run: runReload,
}

func runReload(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("reload", flag.ContinueOnError)
	r := env.flags(fs)
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	var out reloadReply
	if err := r.call(ctx, "POST", "/v1/reload", struct{}{}, &out); err != nil {
		return err
	}
	for _, w := range out.Warnings {
		fmt.Fprintln(env.stdout, w)
	}
	for _, c := range out.Changes {
		fmt.Fprintln(env.stdout, c)
	}
	if len(out.Changes) == 0 {
		fmt.Fprintln(env.stdout, "nothing has changed in the file, nor in zones and tables that it names; secrets and certificates were read again")
	}
	return nil
}
