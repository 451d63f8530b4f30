package main

import (
	"context"
	"flag"
	"fmt"

	"github.com/aovlb/aovlb/profilexml"
)

var profileFmtCommand = command{
	name: "fmt", usage: "[--for editor|intune|wmi|schema] [--write] FILE", short: "lay a profile out for people or for a channel", run: runProfileFmt,
}

func runProfileFmt(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile fmt", flag.ContinueOnError)
	use := fs.String("for", "editor", "what it is `for`: editor (indented), intune or wmi (one line, without comments, spelt as Windows reads it back), schema (the order of Microsoft's XSD)")
	write := fs.Bool("write", false, "write it to the file in place of standard output")
	keep := fs.Bool("keep-comments", false, "keep comments where they would be dropped")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	d, err := openProfile(env, args[0])
	if err != nil {
		return err
	}
	if d, err = formatFor(d, *use, *keep); err != nil {
		return err
	}
	if *write && args[0] != "-" {
		return replaceFile(args[0], d.Bytes())
	}
	_, err = env.stdout.Write(d.Bytes())
	return err
}

// formatFor formats a profile for a purpose.
func formatFor(d *profilexml.Document, use string, keepComments bool) (*profilexml.Document, error) {
	style := profilexml.EditorStyle()
	switch use {
	case "editor":
	case "schema":
		style.Order = profilexml.OrderSchema
	case "intune", "wmi":
		style = profilexml.ChannelStyle()
		c := &profilexml.Checker{}
		if use == "wmi" {
			c.Channel = profilexml.WMI
		}
		if keepComments {
			c.Ignore = []string{"AOV004"}
		}
		fixed, _, err := c.Fix(d)
		if err != nil {
			return nil, err
		}
		d = fixed
	default:
		return nil, &usageError{fmt.Sprintf("--for can't be %q: it can be editor, intune, wmi or schema", use)}
	}
	style.DropComments = style.DropComments && !keepComments
	return profilexml.Format(d, style), nil
}

var profileDiffCommand = command{
	name: "diff", usage: "[--readback] [--exact] [--json] OLD NEW", short: "say how two profiles differ", run: runProfileDiff,
}

func runProfileDiff(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile diff", flag.ContinueOnError)
	var o profilexml.DiffOptions
	fs.BoolVar(&o.Readback, "readback", false, "NEW is what Windows reads back of OLD: leave out what Windows adds by itself")
	fs.BoolVar(&o.Exact, "exact", false, "say what differs and means the same too")
	asJSON := fs.Bool("json", false, "print JSON")
	args, err := parse(env, fs, args, 2)
	if err != nil {
		return err
	}
	a, err := openProfile(env, args[0])
	if err != nil {
		return err
	}
	b, err := openProfile(env, args[1])
	if err != nil {
		return err
	}
	list := profilexml.Diff(a, b, o)
	if *asJSON {
		if list == nil {
			list = []profilexml.Difference{}
		}
		if err := printJSON(env.stdout, list); err != nil {
			return err
		}
	} else {
		for _, d := range list {
			fmt.Fprintln(env.stdout, printableLine(d.Text))
		}
		if len(list) == 0 {
			fmt.Fprintln(env.stdout, "they say the same")
		}
	}
	if len(list) > 0 {
		return errSilent
	}
	return nil
}
