package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/vendors"
)

// A target is a balancer of somebody else's that the deployment is put onto by a
// driver: one that comes with aovlb, or a plugin. Either runs as a program of its
// own.

// The places where plugins are, unless the file says otherwise.
var (
	pluginDirs = []string{"/usr/local/lib/aovlb/plugins", "/usr/lib/aovlb/plugins"}
	pluginLock = "/etc/aovlb/plugins.lock"
)

func (c *Config) pluginDirs() []string {
	if len(c.Plugins.Dirs) > 0 {
		return c.Plugins.Dirs
	}
	return pluginDirs
}

func (c *Config) pluginLock() string {
	if c.Plugins.Lock != "" {
		return c.Plugins.Lock
	}
	return pluginLock
}

// validateTargets says what is wrong with the targets, as far as the file can
// tell; the settings are for the driver to judge.
func (c *Config) validateTargets(add func(path, format string, args ...any)) {
	names := make(map[string]bool)
	for i := range c.Targets {
		t, at := &c.Targets[i], fmt.Sprintf("targets[%d]", i)
		switch {
		case t.Name == "":
			add(at+".name", "a target needs a name")
		case names[t.Name]:
			add(at+".name", "there is another target %q", t.Name)
		}
		names[t.Name] = true
		switch {
		case t.Driver == "":
			add(at+".driver", "a target needs a driver: see aovlb plugin list")
		case t.Driver == "builtin":
			add(at+".driver", "the built-in driver serves in aovlb serve, which needs no target")
		case strings.ContainsAny(t.Driver, `/\`):
			add(at+".driver", "%q is not the name of a driver: plugins.dirs says where plugins are", t.Driver)
		}
		switch {
		case t.Site == "" && len(c.Sites) > 1:
			add(at+".site", "there are %d sites: say which one this balancer serves", len(c.Sites))
		case t.Site != "" && c.Deployment.Site(t.Site) == nil:
			add(at+".site", "there is no site %q", t.Site)
		}
		if err := t.Owner.Check(); err != nil {
			add(at+".owner", "%v", err)
		}
	}
}

// target returns the target of that name and its place; an empty name means the
// only one.
func (s *source) target(name string) (*Target, string, error) {
	list := s.config.Targets
	switch {
	case len(list) == 0:
		return nil, "", fmt.Errorf("%s has no targets: the deployment is served by aovlb serve", s.file)
	case name == "" && len(list) > 1:
		return nil, "", fmt.Errorf("%s has %d targets: say which one, %s", s.file, len(list), strings.Join(targetNames(list), ", "))
	}
	for i := range list {
		if name == "" || list[i].Name == name {
			return &list[i], fmt.Sprintf("targets[%d]", i), nil
		}
	}
	return nil, "", fmt.Errorf("%s has no target %q, it has %s", s.file, name, strings.Join(targetNames(list), ", "))
}

func targetNames(list []Target) []string {
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].Name
	}
	return out
}

// A balancer is a target whose driver runs and is configured.
type balancer struct {
	*host.Plugin
	src    *source
	target *Target
	site   string // that it serves
}

// openTarget reads a file and starts the driver of one of its targets. The caller
// closes it.
func openTarget(ctx context.Context, env *environment, file, name string) (*balancer, error) {
	src, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	t, at, err := src.target(name)
	if err != nil {
		return nil, err
	}
	p, err := src.config.plugin(t.Driver)
	if err != nil {
		return nil, err
	}
	p.Host = "aovlb " + version()
	// What the driver has to say beside its answers is for people who look for
	// trouble.
	c := src.config.Log
	if c.Level == "" {
		c.Level = "warn"
	}
	p.Logger = logger(env, c)
	p.Env = variables(src.config)
	site := t.Site
	if site == "" && len(src.config.Sites) == 1 {
		site = src.config.Sites[0].Name
	}
	conf, err := configOf(t, site)
	if err != nil {
		return nil, err
	}
	err = p.Configure(ctx, conf)
	if err != nil {
		return nil, errors.Join(src.targetFault(at, err), p.Close())
	}
	return &balancer{Plugin: p, src: src, target: t, site: site}, nil
}

// configOf returns what the driver of a target is told.
func configOf(t *Target, site string) (plugins.Config, error) {
	settings, err := json.Marshal(t.settings())
	return plugins.Config{Site: site, Owner: t.Owner, Settings: settings}, err
}

func (t *Target) settings() map[string]any {
	if t.Settings == nil {
		return map[string]any{}
	}
	return t.Settings
}

// targetFault says where in the file the settings are that a driver doesn't like.
func (s *source) targetFault(at string, err error) error {
	var list []Fault
	var field *plugins.FieldError
	if !errors.As(err, &field) {
		return err
	}
	for _, e := range plugins.FieldErrors(err) {
		path := at
		if e.Path != "" {
			path = at + "." + e.Path
		}
		list = append(list, s.fault(path, e.Err.Error()))
	}
	return &Faults{File: s.file, List: list}
}

// plugin returns the driver of that name, not started. One that comes with aovlb
// is this program itself.
func (c *Config) plugin(name string) (*host.Plugin, error) {
	if _, ok := vendors.Find(name); ok {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return nil, err
		}
		sum, err := host.Sum(self)
		if err != nil {
			return nil, err
		}
		return &host.Plugin{Name: name, Path: self, Args: []string{"plugin", "serve", name}, SHA256: sum}, nil
	}
	found, err := host.Find(c.pluginDirs()...)
	if err != nil {
		return nil, err
	}
	lock, err := host.ReadLock(c.pluginLock())
	if err != nil {
		return nil, err
	}
	return lock.Plugin(found, name)
}

// variables are the environment variables that the file refers to for secrets.
// A driver gets these, and no others.
func variables(c *Config) []string {
	b, err := json.Marshal(c)
	if err != nil {
		return nil
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil
	}
	names := make(map[string]bool)
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for k, e := range v {
				if s, ok := e.(string); ok && (k == "env" || strings.HasSuffix(k, "_env")) {
					names[s] = true
				}
				walk(e)
			}
		}
	}
	walk(doc)
	return slices.Sorted(maps.Keys(names))
}

// free reads a value of which only somebody else knows what it must be.
func (d *decoder) free(n ast.Node, path string) any {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.fault(n, path, "there are more than %d values, aliases written out", maxNodes)
		}
		return nil
	}
	if n = d.resolve(n, path); n == nil {
		return nil
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		d.at[path] = position{t.Position.Line, t.Position.Column}
	}
	switch v := n.(type) {
	case *ast.NullNode:
		return nil
	case *ast.BoolNode:
		return v.Value
	case *ast.IntegerNode:
		return v.Value
	case *ast.FloatNode:
		return v.Value
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.SequenceNode:
		list := make([]any, len(v.Values))
		for i, e := range v.Values {
			list[i] = d.free(e, fmt.Sprintf("%s[%d]", path, i))
		}
		return list
	}
	entries, ok := d.entries(n, path)
	if !ok {
		return nil
	}
	out := make(map[string]any, len(entries))
	for _, e := range entries {
		name := e.Key.GetToken().Value
		if _, twice := out[name]; twice {
			d.fault(e.Key, join(path, name), "it is there twice")
			continue
		}
		out[name] = d.free(e.Value, join(path, name))
	}
	return out
}
