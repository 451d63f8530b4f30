package main

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// scaffold is what aovlb plugin new writes, with NAME for the plugin's name.
//
//go:embed scaffold
var scaffold embed.FS

// pluginName is what plugins may be called: it is a Go package, too.
var pluginName = regexp.MustCompile(`^[a-z][a-z0-9]{0,30}$`)

// moduleOf is the version of aovlb that a new plugin requires.
func moduleOf() string {
	if info, ok := debug.ReadBuildInfo(); ok && strings.HasPrefix(info.Main.Version, "v") && !strings.Contains(info.Main.Version, "+") {
		return info.Main.Version
	}
	return "v0.0.0"
}

// pluginNew writes the beginning of a plugin.
func pluginNew(env *environment, args []string) error {
	flags := flag.NewFlagSet("plugin new", flag.ContinueOnError)
	dir := flags.String("dir", "", "the new `folder`; empty means aovlb-plugin-NAME")
	module := flags.String("module", "", "its `path` as a Go module; empty means example.com/aovlb-plugin-NAME")
	source := flags.String("aovlb", "", "a `folder` with the source of aovlb, to build against instead of a release")
	args, err := parse(env, flags, args, 1)
	if err != nil {
		return err
	}
	name := args[0]
	if !pluginName.MatchString(name) {
		return &usageError{fmt.Sprintf("%q can't be a plugin's name: that is up to 31 small letters and digits, and begins with a letter", name)}
	}
	if *dir == "" {
		*dir = "aovlb-plugin-" + name
	}
	if *module == "" {
		*module = "example.com/aovlb-plugin-" + name
	}
	if entries, err := os.ReadDir(*dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is there already, and not empty", *dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	replace := ""
	if *source != "" {
		path, err := filepath.Abs(*source)
		if err != nil {
			return err
		}
		replace = "\nreplace github.com/aovlb/aovlb => " + path + "\n"
	}
	words := strings.NewReplacer("example.com/aovlb-plugin-NAME", *module, "NAME", name, "VERSION", moduleOf(), "REPLACE\n", replace)
	err = fs.WalkDir(scaffold, "scaffold", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := scaffold.ReadFile(path)
		if err != nil {
			return err
		}
		// The ending keeps the go command from taking them for its own.
		file := filepath.Join(*dir, strings.TrimSuffix(words.Replace(strings.TrimPrefix(path, "scaffold/")), ".txt"))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(words.Replace(string(b))), 0o644)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s is the beginning of a plugin: see its README.md\n", *dir)
	return nil
}
