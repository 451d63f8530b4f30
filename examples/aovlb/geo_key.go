package main

import (
	"bytes"
	"flag"
	"fmt"
	"path/filepath"

	"github.com/aovlb/aovlb/geo/geodns"
)

// runGeoKey makes a DNSSEC key.
func runGeoKey(env *environment, args []string) error {
	fs := flag.NewFlagSet("geo key", flag.ContinueOnError)
	dir := fs.String("dir", ".", "`directory` for the two files")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	key, err := geodns.GenerateKey(args[0])
	if err != nil {
		return err
	}
	var public, private bytes.Buffer
	if err := key.Write(&public, &private); err != nil {
		return err
	}
	const algorithm = 13 // ECDSA P-256 with SHA-256
	base := filepath.Join(*dir, fmt.Sprintf("K%s+%03d+%05d", key.Zone(), algorithm, key.Tag()))
	if err := writeNew(base+".private", private.Bytes(), 0o600, false); err != nil {
		return err
	}
	if err := writeNew(base+".key", public.Bytes(), 0o644, false); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "wrote %s.key and %s.private\n\nin the file, under geo.zones[].keys:\n  - file: %s\n\nfor the parent zone, once resolvers see the key:\n%s\n", base, base, base, key.DS())
	return nil
}
