package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
)

// schema is the JSON Schema of the file: made from the types and their comments
// by the tests, with -update, and also published in docs.
//
//go:embed aovlb.schema.json
var schema string

var schemaCommand = command{name: "schema", short: "print the JSON Schema of the file, for editors", run: runSchema}

func runSchema(_ context.Context, env *environment, args []string) error {
	if _, err := parse(env, flag.NewFlagSet("schema", flag.ContinueOnError), args, 0); err != nil {
		return err
	}
	_, err := fmt.Fprint(env.stdout, schema)
	return err
}
