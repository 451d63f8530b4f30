package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/sdk"
	"github.com/aovlb/aovlb/plugins/vendors"
)

var pluginCommand = command{
	name: "plugin", usage: "list|lock|test|new …", short: "the drivers for other balancers, and new ones", run: runPlugin,
}

const pluginUsage = `list [--schema] [--file FILE]       the drivers there are
  aovlb plugin lock [--file FILE] NAME…          pin the content of plugins
  aovlb plugin test [--file FILE] NAME           start one, and ask what it can
  aovlb plugin new [--dir DIR] [--aovlb DIR] NAME   write the beginning of one`

func runPlugin(ctx context.Context, env *environment, args []string) error {
	if len(args) == 0 {
		return &usageError{"it takes a word: list, lock, test or new\n  aovlb plugin " + pluginUsage}
	}
	word, args := args[0], args[1:]
	switch word {
	case "list":
		return pluginList(ctx, env, args)
	case "lock":
		return pluginLockNames(env, args)
	case "test":
		return pluginTest(ctx, env, args)
	case "new":
		return pluginNew(env, args)
	case "serve":
		return pluginServe(args)
	}
	return &usageError{fmt.Sprintf("it takes list, lock, test or new, not %q\n  aovlb plugin %s", word, pluginUsage)}
}

// pluginServe is the program of a driver that comes with aovlb. Only aovlb starts
// it.
func pluginServe(args []string) error {
	if len(args) != 1 {
		return &usageError{"plugin serve is for aovlb itself"}
	}
	v, ok := vendors.Find(args[0])
	if !ok {
		return fmt.Errorf("there is no driver %q here", args[0])
	}
	sdk.Serve(v.New())
	return nil
}

// pluginConfig reads the file that --file names, for where plugins are.
func pluginConfig(file string) (*Config, error) {
	if file == "" {
		return new(Config), nil
	}
	src, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	return src.config, nil
}

func pluginFlags(name string) (fs *flag.FlagSet, file *string) {
	fs = flag.NewFlagSet("plugin "+name, flag.ContinueOnError)
	return fs, fs.String("file", "", "a `file` of aovlb whose plugins are meant; else those of the system")
}

// question asks a driver something, and ends it.
func question(p *host.Plugin, f func(plugins.Driver) error) error {
	return errors.Join(f(p), p.Close())
}

func pluginList(ctx context.Context, env *environment, args []string) error {
	fs, file := pluginFlags("list")
	schema := fs.Bool("schema", false, "print the JSON Schema of each driver's settings")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	c, err := pluginConfig(*file)
	if err != nil {
		return err
	}
	show := func(name, text string, p *host.Plugin) error {
		fmt.Fprintf(env.stdout, "%-14s %s\n", name, text)
		if !*schema || p == nil {
			return nil
		}
		return question(p, func(d plugins.Driver) error {
			b, err := d.Schema(ctx)
			fmt.Fprintf(env.stdout, "%s\n", b)
			return err
		})
	}
	for _, v := range vendors.All() {
		var p *host.Plugin
		if *schema {
			if p, err = c.plugin(v.Name); err != nil {
				return err
			}
		}
		if err := show(v.Name, v.Product+", comes with aovlb", p); err != nil {
			return err
		}
	}
	found, err := host.Find(c.pluginDirs()...)
	if err != nil {
		return err
	}
	lock, err := host.ReadLock(c.pluginLock())
	if err != nil {
		return err
	}
	for _, f := range found {
		text := f.Path
		p, err := lock.Plugin(found, f.Name)
		if _, taken := vendors.Find(f.Name); taken {
			err = errors.New("the driver of that name that comes with aovlb is used")
		}
		if err != nil {
			text, p = text+": "+strings.TrimPrefix(err.Error(), "host: "), nil
		}
		if err := show(f.Name, text, p); err != nil {
			return err
		}
	}
	return nil
}

// pluginLockNames pins plugins.
func pluginLockNames(env *environment, args []string) error {
	fs, file := pluginFlags("lock")
	names, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	c, err := pluginConfig(*file)
	if err != nil {
		return err
	}
	found, err := host.Find(c.pluginDirs()...)
	if err != nil {
		return err
	}
	lock, err := host.ReadLock(c.pluginLock())
	if err != nil {
		return err
	}
	for _, name := range names {
		sum := ""
		for _, f := range found {
			if f.Name == name {
				if f.Err != nil {
					return fmt.Errorf("%s: %w", name, f.Err)
				}
				sum = f.SHA256
			}
		}
		if sum == "" {
			return fmt.Errorf("there is no plugin %q in %s", name, strings.Join(c.pluginDirs(), " or "))
		}
		was := lock.Plugins[name]
		lock.Plugins[name] = sum
		switch was {
		case sum:
			fmt.Fprintf(env.stdout, "%s is pinned to %s already\n", name, sum)
		case "":
			fmt.Fprintf(env.stdout, "%s is pinned to %s\n", name, sum)
		default:
			fmt.Fprintf(env.stdout, "%s is pinned to %s, and was to %s\n", name, sum, was)
		}
	}
	return lock.Write()
}

// pluginTest starts a driver, and says what it is and can.
func pluginTest(ctx context.Context, env *environment, args []string) error {
	fs, file := pluginFlags("test")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	c, err := pluginConfig(*file)
	if err != nil {
		return err
	}
	p, err := c.plugin(args[0])
	if err != nil {
		return err
	}
	p.Host, p.Deaths = "aovlb "+version(), 1
	p.Logger = logger(env, Log{Level: "warn"})
	return question(p, func(d plugins.Driver) error {
		begin := time.Now()
		info, err := d.Info(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(env.stdout, "%s %s, for %s; it was ready in %v\n", info.Name, info.Version, info.Product, time.Since(begin).Round(time.Millisecond))
		caps, err := d.Capabilities(ctx)
		if err != nil {
			return err
		}
		for _, s := range caps.Support {
			line := s.Field
			if len(s.Values) > 0 {
				line += ": " + strings.Join(s.Values, ", ")
			}
			switch s.Level {
			case plugins.LevelPartial:
				line = "in part  " + line + ": " + s.Instead
			case plugins.LevelNone:
				line = "not      " + line + ": " + s.Instead
			default:
				line = "yes      " + line
			}
			fmt.Fprintln(env.stdout, line)
		}
		faults := caps.Faults()
		if _, err := d.Schema(ctx); err != nil {
			faults = append(faults, err.Error())
		}
		if info.Name == "" || info.Version == "" || info.Product == "" {
			faults = append(faults, "it doesn't say its name, version and product")
		}
		for _, f := range faults {
			fmt.Fprintln(env.stdout, "wrong:", f)
		}
		if len(faults) > 0 {
			return errSilent
		}
		fmt.Fprintln(env.stdout, "the plugin starts, answers, and says what it can; its own tests hold it to the rest")
		return nil
	})
}
