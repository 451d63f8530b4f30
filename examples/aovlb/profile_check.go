package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/profilexml"
)

var profileCheckCommand = command{
	name: "check", usage: "[--fix] FILE…", short: "say all that is wrong with profiles", run: runProfileCheck,
}

// profileCheck are the options of profile check.
type profileCheck struct {
	checker              profilexml.Checker
	windows, channel     string
	scope, ignore        string
	policies, probe      string
	fix, dry, why, asked bool
	strict, together     bool
	timeout              time.Duration
	asking               *suiteProbe
	judges               []func(profilexml.Suite) error
}

func (c *profileCheck) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.windows, "windows", "11-25H2", "the oldest `release` that it must work on, such as 10-1809 or 11-24H2")
	fs.StringVar(&c.channel, "channel", "intune", "how it gets to clients: intune or wmi (`channel`)")
	fs.StringVar(&c.scope, "scope", "any", "whose it is: user or device (`scope`)")
	fs.StringVar(&c.checker.Name, "name", "", "what the profile is called (`name`)")
	fs.StringVar(&c.policies, "server-policy", "", "the gateways' `policy`: a name that aovlb crypto knows, such as rras, six Name=value with commas, or a file such as the output of Get-VpnServerConfiguration")
	fs.StringVar(&c.probe, "probe", "", "ask this gateway whether it takes the suite (`host`)")
	fs.DurationVar(&c.timeout, "timeout", 5*time.Second, "how `long` to wait for the gateway")
	fs.StringVar(&c.ignore, "ignore", "", "`rules` that aren't wanted, such as AOV231,AOV004")
	fs.BoolVar(&c.fix, "fix", false, "set right what can be set right safely, in the files")
	fs.BoolVar(&c.dry, "dry-run", false, "with --fix: show what would be changed, change nothing, and fail if the file has errors")
	fs.BoolVar(&c.why, "why", false, "say why it matters and what to do")
	fs.BoolVar(&c.strict, "strict", false, "fail for warnings too")
	fs.BoolVar(&c.together, "together", false, "the files are for the same computers, such as a user and a device tunnel")
	fs.BoolVar(&c.asked, "json", false, "print JSON")
}

// prepare makes a Checker of the options.
func (c *profileCheck) prepare(ctx context.Context) (err error) {
	if c.checker.Windows, err = profilexml.ParseWindows(c.windows); err != nil {
		return &usageError{err.Error()}
	}
	if c.checker.Channel, err = profilexml.ParseChannel(c.channel); err != nil {
		return &usageError{err.Error()}
	}
	if c.checker.Scope, err = profilexml.ParseScope(c.scope); err != nil {
		return &usageError{err.Error()}
	}
	if c.ignore != "" {
		known := profilexml.Rules()
		for id := range strings.SplitSeq(c.ignore, ",") {
			id = strings.ToUpper(strings.TrimSpace(id))
			if !slices.ContainsFunc(known, func(r profilexml.Rule) bool { return r.ID == id }) {
				return &usageError{fmt.Sprintf("there is no rule %q: aovlb profile rules lists them", id)}
			}
			c.checker.Ignore = append(c.checker.Ignore, id)
		}
	}
	if c.policies != "" {
		if err := c.serverPolicy(); err != nil {
			return err
		}
	}
	if c.timeout <= 0 {
		return &usageError{"--timeout has to be above zero"}
	}
	if c.probe != "" {
		targets, err := new(asked).resolve(ctx, c.probe, 500)
		if err != nil {
			return err
		}
		c.asking = &suiteProbe{host: c.probe, targets: targets, timeout: c.timeout}
		c.judges = append(c.judges, func(s profilexml.Suite) error { return c.asking.negotiate(ctx, s) })
	}
	if len(c.judges) > 0 {
		c.checker.Negotiate = func(s profilexml.Suite) error {
			var errs []error
			for _, judge := range c.judges {
				errs = append(errs, judge(s))
			}
			return errors.Join(errs...)
		}
	}
	return nil
}

// serverPolicy takes what --server-policy says: six values, with which a profile's
// are compared, or another policy, with which they must negotiate.
func (c *profileCheck) serverPolicy() error {
	s, err := parseServerPolicy(c.policies)
	if err == nil {
		c.checker.Server = append(c.checker.Server, s)
		return nil
	}
	if p, known := parsePolicy(c.policies); known == nil && p.Custom == nil {
		c.judges = append(c.judges, judgeBy(c.policies, p))
		return nil
	}
	return err
}

// checkedProfile is what profile check --json prints of a file.
type checkedProfile struct {
	File     string               `json:"file"`
	Findings []profilexml.Finding `json:"findings"`
	Fixed    []profilexml.Finding `json:"fixed,omitempty"`

	doc, fixedDoc *profilexml.Document
	judged        []profilexml.Finding // what decides on the exit code
}

func runProfileCheck(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile check", flag.ContinueOnError)
	c := new(profileCheck)
	c.flags(fs)
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	if err := c.prepare(ctx); err != nil {
		return err
	}
	if c.fix && !c.dry && c.asked && slices.Contains(args, "-") {
		return &usageError{"--fix writes what comes from standard input to standard output, where --json has no place: give a file, or --dry-run"}
	}
	var list []*checkedProfile
	for _, name := range args {
		b, err := readProfileFile(env, name)
		if err != nil {
			return err
		}
		p := &checkedProfile{File: name}
		p.doc, p.Findings = c.checker.CheckBytes(b)
		list = append(list, p)
	}
	for _, p := range list {
		if c.together {
			c.checker.Beside = nil
			for _, o := range list {
				if o != p && o.doc != nil {
					c.checker.Beside = append(c.checker.Beside, o.doc)
				}
			}
		}
		if err := c.one(env, p); err != nil {
			return err
		}
	}
	if c.asked {
		for _, p := range list {
			p.hideSecrets()
		}
		if err := printJSON(env.stdout, list); err != nil {
			return err
		}
	}
	if c.asking != nil && c.asking.silent != nil {
		return fmt.Errorf("check: %w", c.asking.silent)
	}
	if c.failed(list) {
		return errSilent
	}
	return nil
}

// hideSecrets leaves out fixes whose text holds a secret: what moves one, or the
// element around it, would show it.
func (p *checkedProfile) hideSecrets() {
	if p.doc == nil || p.doc.Root == nil {
		return
	}
	var secrets []string
	var walk func(*profilexml.Node)
	walk = func(n *profilexml.Node) {
		if n.Kind == profilexml.ElementNode && (strings.EqualFold(n.Local, "L2tpPsk") || strings.EqualFold(n.Local, "Password")) {
			inner := strings.TrimSpace(p.doc.Text[n.OpenEnd:n.CloseStart])
			for _, v := range []string{inner, strings.TrimSpace(p.doc.Value(n))} {
				if v != "" {
					secrets = append(secrets, v)
				}
			}
		}
		for _, c := range n.Children {
			walk(c)
		}
	}
	walk(p.doc.Root)
	for _, list := range [][]profilexml.Finding{p.Findings, p.Fixed} {
		for i := range list {
			if slices.ContainsFunc(list[i].Fix, func(e profilexml.Edit) bool {
				return slices.ContainsFunc(secrets, func(v string) bool { return strings.Contains(e.Text, v) })
			}) {
				list[i].Fix = nil
			}
		}
	}
}

// one checks a file, beside the others, and fixes and prints it.
func (c *profileCheck) one(env *environment, p *checkedProfile) error {
	if p.doc != nil {
		if c.asking != nil {
			c.asking.consulted = false
		}
		p.Findings = c.checker.Check(p.doc)
		if c.asking != nil && !c.asking.consulted {
			fmt.Fprintf(env.stderr, "%s: %s wasn't asked: the profile has no CryptographySuite of six values for IKEv2\n", p.File, c.asking.host)
		}
		if c.fix {
			if err := c.repair(env, p); err != nil {
				return err
			}
		}
	}
	if p.judged == nil {
		p.judged = p.Findings
	}
	if p.Findings == nil {
		p.Findings = []profilexml.Finding{}
	}
	if !c.asked {
		c.print(env, p)
	}
	return nil
}

func (c *profileCheck) repair(env *environment, p *checkedProfile) (err error) {
	if c.dry {
		p.judged = p.Findings // for the file stays as it is
	}
	if p.fixedDoc, p.Fixed, err = c.checker.Fix(p.doc); err != nil {
		return fmt.Errorf("%s: %w", p.File, err)
	}
	p.Findings = c.checker.Check(p.fixedDoc)
	if len(p.Fixed) == 0 || c.dry {
		return nil
	}
	if p.File == "-" {
		_, err = env.stdout.Write(p.fixedDoc.Bytes())
		return err
	}
	return replaceFile(p.File, p.fixedDoc.Bytes())
}

func (c *profileCheck) print(env *environment, p *checkedProfile) {
	out := env.stdout
	if p.File == "-" && c.fix {
		out = env.stderr
	}
	for _, f := range p.Fixed {
		verb := "fixed"
		if c.dry {
			verb = "would fix"
		}
		fmt.Fprintf(out, "%s:%v: %s %s: %s\n", p.File, f.Position, verb, f.Rule, f.Text)
	}
	fixable := 0
	for _, f := range p.Findings {
		at := p.File
		if f.Position.Line > 0 {
			at = fmt.Sprintf("%s:%v", p.File, f.Position)
		}
		fmt.Fprintf(out, "%s: %v %s: %s\n", at, f.Severity, f.Rule, printableLine(f.Text))
		if c.why {
			fmt.Fprintf(out, "    why: %s\n    do:  %s\n", f.Why(), f.Remedy())
		}
		if f.Fixable() {
			fixable++
		}
	}
	n := len(p.Findings)
	switch {
	case n == 0:
		fmt.Fprintf(out, "%s: nothing to say against it, for %v by %v\n", p.File, c.checker.Windows, c.checker.Channel)
	case fixable > 0:
		fmt.Fprintf(out, "%s: %d %s, of which --fix sets %d right%s\n", p.File, n, plural(n, "finding", "findings"), fixable, c.hint())
	default:
		fmt.Fprintf(out, "%s: %d %s%s\n", p.File, n, plural(n, "finding", "findings"), c.hint())
	}
}

func (c *profileCheck) hint() string {
	if c.why {
		return ""
	}
	return "; --why explains"
}

// printableLine keeps what is in a file from commanding the terminal.
func printableLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

func (c *profileCheck) failed(list []*checkedProfile) bool {
	for _, p := range list {
		for _, f := range p.judged {
			if f.Severity == profilexml.Error || c.strict && f.Severity == profilexml.Warning {
				return true
			}
		}
	}
	return false
}
