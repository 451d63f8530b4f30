// Command aovlb is a complete load balancer for Always On VPN: IKEv2, SSTP and
// NPS.
//
//	aovlb demo                  see it at work, without any set-up
//	aovlb check FILE            say all that is wrong with a file
//	aovlb serve FILE            serve it
//	aovlb status --watch        what is going on
//	aovlb drain ras1            no new clients for ras1
//	aovlb explain 203.0.113.7   which gateway a client has, and why
//	aovlb probe ikev2 HOST      ask a gateway
//	aovlb diagnose FILE         say what a capture shows
//	aovlb profile check FILE    say all that is wrong with a client's profile
//	aovlb sessions --problems   why sessions of SSTP ended
//	aovlb rasphone set …        edit the phone book of Windows
//
// See aovlb help for the rest, and docs/ for the file and the admin API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// A command is one of the program's subcommands: each has a file of its own.
type command struct {
	name  string
	usage string // what comes after the name
	short string
	run   func(ctx context.Context, env *environment, args []string) error
}

// commands are all there are.
func commands() []command {
	return []command{
		demoCommand, serveCommand, checkCommand, statusCommand, drainCommand, undrainCommand,
		explainCommand, failbackCommand, reloadCommand, probeCommand, cryptoCommand, npsCommand,
		diagnoseCommand, mtuCommand, certCommand, renewCommand, profileCommand, geoCommand,
		sessionsCommand, rasphoneCommand, auditCommand, planCommand, applyCommand, driftCommand,
		pluginCommand, renderCommand, schemaCommand, versionCommand,
	}
}

// environment is what a command may use of the process.
type environment struct {
	stdin          *os.File // nil where nobody can be asked
	stdout, stderr io.Writer
	getenv         func(string) string
	release        func() // gives signals back their usual effect; nil where they have it
}

// interruptible has Ctrl-C end the program at once, for nothing else ends a read of
// standard input.
func (e *environment) interruptible() {
	if e.release != nil {
		e.release()
	}
}

// errSilent has the program fail without a further word.
var errSilent = errors.New("")

// A usageError says that the program was called wrongly.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env := &environment{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, release: stop}
	code := run(ctx, env, os.Args[1:])
	stop()
	os.Exit(code)
}

// run runs the command that args name, and returns the exit code: 0 for success,
// 1 for failure, 2 for a wrong call.
func run(ctx context.Context, env *environment, args []string) int {
	asked := len(args) > 1 && args[0] == "help"
	switch {
	case asked:
		args = append(slices.Clone(args[1:]), "--help")
	case len(args) == 0 || args[0] == "help" || helps(args):
		usage(env.stdout)
		return 0
	}
	if args[0] == "--version" || args[0] == "-version" {
		args = []string{versionCommand.name}
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		if asked = asked || helps(args[1:]); asked {
			fmt.Fprintf(env.stdout, "usage: aovlb %s\n%s\n\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
		}
		err := c.run(ctx, env, args[1:])
		var wrong *usageError
		switch {
		case helps(args[1:]) && errors.As(err, &wrong):
			return 0 // all there is to say is said
		case err == nil || errors.Is(err, flag.ErrHelp):
			return 0
		case errors.As(err, &wrong):
			fmt.Fprintf(env.stderr, "aovlb %s: %v\nusage: aovlb %s %s\n", c.name, err, c.name, c.usage)
			return 2
		case !errors.Is(err, errSilent):
			fmt.Fprintf(env.stderr, "aovlb %s: %v\n", c.name, err)
		}
		return 1
	}
	fmt.Fprintf(env.stderr, "aovlb: there is no command %q\n", args[0])
	usage(env.stderr)
	return 2
}

// helps reports whether nothing but help is asked for.
func helps(args []string) bool {
	return len(args) == 1 && (args[0] == "-h" || args[0] == "-help" || args[0] == "--help")
}

func usage(w io.Writer) {
	fmt.Fprintln(w, "aovlb is a load balancer for Always On VPN. aovlb help COMMAND says more of a command.")
	fmt.Fprintln(w)
	for _, c := range commands() {
		fmt.Fprintf(w, "  aovlb %-38s %s\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
	}
}

// anyNumber has parse take as many arguments as there are.
const anyNumber = -1 << 16

// parse reads the flags among args, which may stand before, between and after
// the other arguments, of which there must be n, or at least -n if n is negative.
func parse(env *environment, fs *flag.FlagSet, args []string, n int) ([]string, error) {
	fs.SetOutput(io.Discard)
	var rest []string
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fs.SetOutput(env.stdout)
				fmt.Fprintf(env.stdout, "aovlb %s has these options:\n", fs.Name())
				fs.PrintDefaults()
				return nil, err
			}
			return nil, &usageError{err.Error()}
		}
		args = fs.Args()
		if len(args) == 0 {
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	switch {
	case n == anyNumber:
	case n >= 0 && len(rest) != n:
		return nil, &usageError{fmt.Sprintf("it takes %s, not %d", arguments(n), len(rest))}
	case n < 0 && len(rest) < -n:
		return nil, &usageError{fmt.Sprintf("it takes at least %s, not %d", arguments(-n), len(rest))}
	}
	return rest, nil
}

// arguments says how many.
func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}
