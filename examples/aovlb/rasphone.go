package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/profilexml"
	"github.com/aovlb/aovlb/profilexml/rasphone"
	"github.com/aovlb/aovlb/profilexml/rasphone/watch"
)

var rasphoneCommand = command{
	name: "rasphone", usage: "get|set|watch|check …", short: "read and edit the phone book of Windows", run: runRasphone,
}

// rasphoneCommands are what comes after rasphone.
func rasphoneCommands() []command {
	return []command{rasphoneGetCommand, rasphoneSetCommand, rasphoneWatchCommand, rasphoneCheckCommand}
}

func runRasphone(ctx context.Context, env *environment, args []string) error {
	if len(args) > 0 {
		for _, c := range rasphoneCommands() {
			if c.name != args[0] {
				continue
			}
			err := c.run(ctx, env, args[1:])
			if wrong := (*usageError)(nil); errors.As(err, &wrong) {
				return &usageError{fmt.Sprintf("%s: %v (call it as: aovlb rasphone %s %s)", c.name, wrong, c.name, c.usage)}
			}
			return err
		}
		if args[0] != "help" && args[0] != "-h" && args[0] != "--help" {
			return &usageError{fmt.Sprintf("there is no command %q", args[0])}
		}
	}
	fmt.Fprintln(env.stdout, "aovlb rasphone reads and edits rasphone.pbk, where Windows keeps VPN connections.")
	fmt.Fprintln(env.stdout)
	for _, c := range rasphoneCommands() {
		fmt.Fprintf(env.stdout, "  aovlb rasphone %-52s %s\n", strings.TrimSpace(c.name+" "+c.usage), c.short)
	}
	return nil
}

// phonebooks are the flags that say which phone books are meant.
type phonebooks struct {
	files    verbatim
	user     bool
	allUsers bool
}

func (p *phonebooks) flags(fs *flag.FlagSet) {
	fs.Var(&p.files, "file", "a phone book (`file`); may be repeated; without it, those of this computer")
	fs.BoolVar(&p.user, "user", false, "the phone book of this user")
	fs.BoolVar(&p.allUsers, "all-users", false, "the phone book of all users, where device tunnels are too")
}

// paths returns the files that are meant. Those of the computer needn't be there.
func (p *phonebooks) paths(env *environment) ([]string, error) {
	if len(p.files) > 0 {
		return p.files, nil
	}
	either := p.user || p.allUsers
	var list []string
	for _, place := range rasphone.Places(env.getenv) {
		if !place.Hidden && (!either || place.AllUsers == p.allUsers || !place.AllUsers == p.user) {
			list = append(list, place.Path)
		}
	}
	if len(list) == 0 {
		return nil, &usageError{"this is no Windows, where phone books have a place: give --file"}
	}
	return list, nil
}

// present returns the paths that there are, or an error if there are none.
func (p *phonebooks) present(env *environment) ([]string, error) {
	paths, err := p.paths(env)
	if err != nil || len(p.files) > 0 {
		return paths, err
	}
	there := slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, os.ErrNotExist)
	})
	if len(there) == 0 {
		return nil, fmt.Errorf("there is no phone book: neither %s", strings.Join(paths, " nor "))
	}
	return there, nil
}

// entries are the flags that say which entries are meant.
type entries struct {
	names verbatim
	all   bool
	force bool
}

func (e *entries) flags(fs *flag.FlagSet) {
	fs.Var(&e.names, "entry", "the exact `name` of a connection; may be repeated")
	fs.BoolVar(&e.all, "all", false, "all connections of the phone book")
	fs.BoolVar(&e.force, "force", false, "set also what belongs to Windows, and what does harm")
}

// edit makes an edit of settings such as VpnStrategy=Ikev2Sstp.
func (e *entries) edit(args []string) (rasphone.Edit, error) {
	if e.all == (len(e.names) > 0) {
		return rasphone.Edit{}, &usageError{"say which connections are meant: --entry NAME, or --all"}
	}
	edit := rasphone.Edit{Entries: e.names, All: e.all, Force: e.force}
	for _, a := range args {
		s, err := parsePhonebookSetting(a)
		if err != nil {
			return edit, &usageError{err.Error()}
		}
		edit.Set = append(edit.Set, s)
	}
	return edit, nil
}

// parsePhonebookSetting knows suites by name, besides what rasphone knows.
func parsePhonebookSetting(s string) (rasphone.Setting, error) {
	if name, value, ok := strings.Cut(s, "="); ok && strings.EqualFold(name, "suite") && value != "none" {
		suite, err := profilexml.ParseSuite(value)
		if err != nil {
			return rasphone.Setting{}, err
		}
		s = "Suite=" + suite.String()
	}
	return rasphone.ParseSetting(s)
}

var rasphoneSetCommand = command{
	name: "set", usage: "[--file F] --entry NAME|--all [--dry-run] KEY=VALUE…", short: "change connections, and nothing else", run: runRasphoneSet,
}

func runRasphoneSet(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("rasphone set", flag.ContinueOnError)
	var books phonebooks
	var which entries
	books.flags(fs)
	which.flags(fs)
	dry := fs.Bool("dry-run", false, "show what would be changed, and change nothing")
	retry := fs.Duration("retry", rasphone.DefaultRetry, "how `long` to wait while Windows has the file locked")
	script := fs.String("script", "", "print a script that does this where there is no aovlb: detect or remediate, the two `halves` of a remediation of Intune")
	backups := fs.Int("backups", rasphone.DefaultBackups, "how `many` backups to keep beside the file; -1 for none")
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	edit, err := which.edit(args)
	if err != nil {
		return err
	}
	if *script != "" {
		return phonebookScript(env, *script, books.allUsers, edit)
	}
	paths, err := books.present(env)
	if err != nil {
		return err
	}
	var errs []error
	found := false
	for _, path := range paths {
		f := rasphone.File{Path: path, DryRun: *dry, Retry: *retry, Backups: *backups}
		r, err := f.Edit(ctx, edit)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = true
		printEdit(env, path, r, *dry)
	}
	// A connection is in one of the phone books of the computer, not in each.
	if found && len(books.files) == 0 {
		errs = slices.DeleteFunc(errs, func(err error) bool { return errors.Is(err, rasphone.ErrNoEntry) })
	}
	return errors.Join(errs...)
}

// phonebookScript prints half of a remediation.
func phonebookScript(env *environment, half string, allUsers bool, edit rasphone.Edit) error {
	if len(edit.Entries) != 1 || len(edit.Set) != 1 || edit.Set[0].List != nil {
		return &usageError{"a script is for one connection and one setting, which is no list"}
	}
	if k, ok := rasphone.LookupKey(edit.Set[0].Key); ok && k.Secret {
		return &usageError{fmt.Sprintf("%s is a secret, which has no place in a script", k.Name)}
	}
	// What set refuses, a script mustn't do either.
	if err := refused(edit); err != nil {
		return err
	}
	s := profilexml.PhonebookSetting{Connection: edit.Entries[0], AllUsers: allUsers, Key: edit.Set[0].Key, Value: edit.Set[0].Value}
	write := s.DetectScript
	switch half {
	case "detect":
	case "remediate":
		write = s.RemediateScript
	default:
		return &usageError{fmt.Sprintf("--script can't be %q: it can be detect or remediate", half)}
	}
	text, err := write()
	if err != nil {
		return err
	}
	_, err = io.WriteString(env.stdout, text)
	return err
}

// refused says why an edit would be refused in any phone book, or nothing.
func refused(edit rasphone.Edit) error {
	book, err := rasphone.Parse([]byte("[" + edit.Entries[0] + "]\r\n"))
	if err != nil {
		return err
	}
	if _, _, err := book.Apply(edit); errors.Is(err, rasphone.ErrRefused) {
		return err
	}
	return nil
}

func printEdit(env *environment, path string, r rasphone.Result, dry bool) {
	switch {
	case len(r.Changes) == 0:
		fmt.Fprintf(env.stdout, "%s: it is so already\n", path)
		return
	case dry:
		fmt.Fprint(env.stdout, rasphone.Diff(r.Before, r.After, path, path+" (not written)"))
		return
	}
	for _, c := range r.Changes {
		fmt.Fprintf(env.stdout, "%s:%d: %s\n", path, c.Line, printableLine(c.String()))
	}
	if r.Backup != "" {
		fmt.Fprintf(env.stdout, "what was there is in %s\n", r.Backup)
	}
}

var rasphoneCheckCommand = command{
	name: "check", usage: "[--json] [--strict] [FILE…]", short: "say what is wrong with phone books", run: runRasphoneCheck,
}

// checkedBook is what rasphone check --json prints of a file.
type checkedBook struct {
	File     string             `json:"file"`
	Findings []rasphone.Finding `json:"findings"`
}

func runRasphoneCheck(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("rasphone check", flag.ContinueOnError)
	var books phonebooks
	books.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	strict := fs.Bool("strict", false, "fail for warnings too")
	args, err := parse(env, fs, args, anyNumber)
	if err != nil {
		return err
	}
	books.files = append(books.files, args...)
	paths, err := books.present(env)
	if err != nil {
		return err
	}
	list := []checkedBook{}
	failed := false
	for _, path := range paths {
		p, err := (&rasphone.File{Path: path}).Read(ctx)
		if err != nil {
			return err
		}
		found := checkedBook{File: path, Findings: append([]rasphone.Finding{}, rasphone.Check(p)...)}
		list = append(list, found)
		for _, f := range found.Findings {
			failed = failed || f.Severity == rasphone.Error || *strict && f.Severity == rasphone.Warning
			if !*asJSON {
				fmt.Fprintf(env.stdout, "%s:%v\n    do: %s\n", path, f, f.Do)
			}
		}
		if len(found.Findings) == 0 && !*asJSON {
			fmt.Fprintf(env.stdout, "%s: nothing to say against it, with %d %s\n", path, p.Len(), plural(p.Len(), "connection", "connections"))
		}
	}
	if *asJSON {
		if err := printJSON(env.stdout, list); err != nil {
			return err
		}
	}
	if failed {
		return errSilent
	}
	return nil
}

var rasphoneWatchCommand = command{
	name: "watch", usage: "[--file F] --entry NAME|--all KEY=VALUE…", short: "set them, and again when Windows changes them", run: runRasphoneWatch,
}

func runRasphoneWatch(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("rasphone watch", flag.ContinueOnError)
	var books phonebooks
	var which entries
	books.flags(fs)
	which.flags(fs)
	w := watch.Watcher{}
	fs.DurationVar(&w.Settle, "settle", watch.DefaultSettle, "how `long` a phone book must have been quiet")
	fs.DurationVar(&w.Interval, "interval", watch.DefaultInterval, "the least `time` between two edits; it grows while something else keeps changing it")
	fs.DurationVar(&w.Poll, "poll", watch.DefaultPoll, "how `often` to look without a notice")
	task := fs.String("task", "", "print the PowerShell that has Windows run this at its start, as the scheduled task `name`, and end")
	given := args
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	if w.Edit, err = which.edit(args); err != nil {
		return err
	}
	if *task != "" {
		script, err := scheduledTask(*task, withoutFlag(given, "task"))
		if err != nil {
			return err
		}
		_, err = io.WriteString(env.stdout, script)
		return err
	}
	if w.Files, err = books.paths(env); err != nil {
		return err
	}
	w.Log = slog.New(slog.NewTextHandler(env.stderr, nil))
	w.Log.Info("watching", "files", strings.Join(w.Files, ", "))
	began := time.Now()
	err = w.Run(ctx)
	if ctx.Err() != nil { // it was asked to end
		w.Log.Info("ended", "after", time.Since(began).Round(time.Second))
		return nil
	}
	return err
}

// withoutFlag returns arguments without a flag and its value.
func withoutFlag(args []string, name string) []string {
	var list []string
	for i := 0; i < len(args); i++ {
		bare := strings.TrimLeft(args[i], "-")
		switch {
		case args[i] == bare:
		case bare == name:
			i++
			continue
		case strings.HasPrefix(bare, name+"="):
			continue
		}
		list = append(list, args[i])
	}
	return list
}

// scheduledTask returns the PowerShell that registers the watch as a task of
// SYSTEM.
func scheduledTask(name string, args []string) (string, error) {
	command := []string{"rasphone", "watch"}
	for _, a := range append(command, args...) {
		if strings.ContainsAny(a, "\"\r\n\x00") || strings.HasSuffix(a, `\`) {
			return "", &usageError{fmt.Sprintf("%q can't be in the command of a task", a)}
		}
	}
	var line []string
	for _, a := range append(command, args...) {
		if strings.ContainsAny(a, " \t") || a == "" {
			a = `"` + a + `"`
		}
		line = append(line, a)
	}
	return profilexml.ScheduledTask(name, `C:\Program Files\aovlb\aovlb.exe`, strings.Join(line, " "))
}
