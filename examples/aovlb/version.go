package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"
)

var versionCommand = command{name: "version", short: "say which version this is", run: runVersion}

func runVersion(_ context.Context, env *environment, args []string) error {
	if _, err := parse(env, flag.NewFlagSet("version", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "aovlb %s, %s, %s/%s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// version is that of the module, or of the working tree it was built in.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	v := info.Main.Version
	if v == "(devel)" {
		v = ""
	}
	return cmp.Or(v, "devel")
}
