package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/aovlb/aovlb/profilexml"
)

var profileCommand = command{
	name: "profile", usage: "new|check|fmt|diff|deliver|from-deployment|rules …", short: "make, check and compare the profiles of clients", run: runProfile,
}

// profileCommands are what comes after profile. Each has a file of its own.
func profileCommands() []command {
	return []command{
		profileNewCommand, profileCheckCommand, profileFmtCommand, profileDiffCommand, profileDeliverCommand, profileFromCommand, profileRulesCommand,
	}
}

func runProfile(ctx context.Context, env *environment, args []string) error {
	if len(args) > 0 {
		for _, c := range profileCommands() {
			if c.name != args[0] {
				continue
			}
			err := c.run(ctx, env, args[1:])
			if wrong := (*usageError)(nil); errors.As(err, &wrong) {
				return &usageError{fmt.Sprintf("%s: %v (call it as: aovlb profile %s %s)", c.name, wrong, c.name, c.usage)}
			}
			return err
		}
		if args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
			return &usageError{fmt.Sprintf("there is no command %q", args[0])}
		}
	}
	fmt.Fprintln(env.stdout, "aovlb profile makes, checks and compares ProfileXML, the profile of a Windows client.")
	fmt.Fprintln(env.stdout)
	for _, c := range profileCommands() {
		fmt.Fprintf(env.stdout, "  aovlb profile %-42s %s\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
	}
	return nil
}

// readProfileFile reads a file, or standard input if its name is a hyphen.
func readProfileFile(env *environment, name string) ([]byte, error) {
	if name == "-" {
		if env.stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		env.interruptible()
		return io.ReadAll(io.LimitReader(env.stdin, profilexml.DefaultMaxBytes+1))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, profilexml.DefaultMaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return b, nil
}

// openProfile reads and parses a file.
func openProfile(env *environment, name string) (*profilexml.Document, error) {
	b, err := readProfileFile(env, name)
	if err != nil {
		return nil, err
	}
	d, err := profilexml.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s:%w", name, err)
	}
	return d, nil
}

// replaceFile writes a file so that it is either as it was or whole, and keeps
// its permissions. It follows links, and what is no file, such as a pipe or
// /dev/null, is written to.
func replaceFile(name string, b []byte) error {
	if there, err := filepath.EvalSymlinks(name); err == nil {
		name = there
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(name); err == nil {
		if !info.Mode().IsRegular() {
			return os.WriteFile(name, b, 0o644)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".aovlb-*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // it is gone if all went well
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

var profileRulesCommand = command{
	name: "rules", usage: "[--json] [--xsd] [--elements] [--markdown]", short: "print what check looks for, or the content table", run: runProfileRules,
}

func runProfileRules(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile rules", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print the rules as JSON, for editors")
	asXSD := fs.Bool("xsd", false, "print a schema of all elements, for editors")
	elements := fs.Bool("elements", false, "print the content table as JSON")
	markdown := fs.Bool("markdown", false, "print the rules as Markdown, as in docs/rules.md")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	switch {
	case *asJSON:
		return printJSON(env.stdout, profilexml.Rules())
	case *elements:
		return printJSON(env.stdout, profilexml.Content())
	case *asXSD:
		_, err := fmt.Fprint(env.stdout, profilexml.XSD())
		return err
	case *markdown:
		_, err := fmt.Fprint(env.stdout, profilexml.RulesMarkdown())
		return err
	}
	for _, r := range profilexml.Rules() {
		fix := "   "
		if r.Fixable {
			fix = "fix"
		}
		fmt.Fprintf(env.stdout, "%s  %-7v  %s  %s\n", r.ID, r.Severity, fix, r.Title)
	}
	return nil
}
