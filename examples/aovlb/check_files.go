package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os/exec"
	"os/user"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/geo/mmdb"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// judgeFiles reads what the file names, by the same functions as serve, and adds
// what is wrong with it to out. What serve would refuse is a fault; what would only
// be found out later, or may be otherwise for the process that serves, is a warning.
// With targets all are warnings: it is for drivers to say what they need.
func (s *source) judgeFiles(ctx context.Context, out *checked) error {
	list, err := s.readFiles(ctx)
	if err != nil {
		return err
	}
	for _, e := range list {
		f := s.fault(e.Path, unreadable(e.Err))
		switch {
		case errors.Is(e.Err, plugins.ErrUnset):
			f.Text = "warning: " + strings.TrimPrefix(f.Text, "read secret: ") + "; serve needs it"
			out.Warnings = append(out.Warnings, f)
		case len(s.config.Targets) > 0:
			f.Text = "warning: " + f.Text
			out.Warnings = append(out.Warnings, f)
		default:
			out.Faults = append(out.Faults, f)
		}
	}
	for _, w := range s.doubts() {
		f := s.fault(w.Path, "warning: "+unreadable(w.Err))
		out.Warnings = append(out.Warnings, f)
	}
	inOrder(out.Faults)
	inOrder(out.Warnings)
	out.Valid = len(out.Faults) == 0
	return nil
}

// unreadable is the text of an error. That somebody may not read a file says nothing
// of whether somebody else may.
func unreadable(err error) string {
	text := err.Error()
	if !errors.Is(err, fs.ErrPermission) {
		return text
	}
	who := "this user"
	if u, err := user.Current(); err == nil {
		who = "the user " + u.Username
	}
	return text + "; check was run by " + who + ": run it as the user that serve runs as"
}

// readFiles returns everything that serve would refuse of the files and secrets that
// s names.
func (s *source) readFiles(ctx context.Context) (list []*plugins.FieldError, _ error) {
	c := s.config
	for _, site := range s.served() {
		d := &builtin.Driver{StateDir: c.State}
		if err := d.Configure(ctx, plugins.Config{Site: site}); err != nil {
			return nil, err
		}
		list = append(list, plugins.FieldErrors(d.ReadFiles(&c.Deployment))...)
		_, err := s.readCAs(site)
		list = append(list, plugins.FieldErrors(err)...)
	}
	if c.Geo != nil {
		errs, err := readGeo(ctx, c.Geo)
		if err != nil {
			return nil, err
		}
		list = append(list, errs...)
	}
	_, err := c.Admin.token()
	return append(list, plugins.FieldErrors(err)...), nil
}

// served returns the sites that are served here, or by targets.
func (s *source) served() []string {
	sites := map[string]bool{}
	for i := range s.config.Targets {
		sites[s.config.Targets[i].Site] = true
	}
	if s.config.Site != "" || len(sites) == 0 {
		sites[s.config.Site] = true
	}
	return slices.Sorted(maps.Keys(sites))
}

// readGeo reads the files of a DNS server but its databases, and makes of them what
// is served.
func readGeo(ctx context.Context, spec *plugins.Geo) ([]*plugins.FieldError, error) {
	b := &geoBuilt{spec: spec, checks: make(map[string][]lb.Check), contents: make(contents), serials: make(map[string]uint32)}
	errs := b.read()
	if len(errs) == 0 {
		err := b.make()
		if err == nil {
			// Who is nearest to whom takes long to work out with databases, and
			// can't fail for them.
			_, err = newGeoServer(slog.New(slog.DiscardHandler), "", nil).compile(ctx, b.names, b.networks, nil, nil)
		}
		errs = append(errs, err)
	}
	return plugins.FieldErrors(errors.Join(errs...)), context.Cause(ctx)
}

// doubts are files that serve starts without, and misses later.
func (s *source) doubts() (list []*plugins.FieldError) {
	add := func(err error, path string, args ...any) {
		if err != nil {
			list = append(list, &plugins.FieldError{Path: fmt.Sprintf(path, args...), Err: err})
		}
	}
	for i := range s.config.Sites {
		site := &s.config.Sites[i]
		for j := range site.Certificates {
			r := &site.Certificates[j].Renewal
			add(runnable(r.Set), "sites[%d].certificates[%d].renewal.set", i, j)
			add(runnable(r.Read), "sites[%d].certificates[%d].renewal.read", i, j)
		}
	}
	if g := s.config.Geo; g != nil {
		for i, name := range g.Databases {
			if _, err := (&mmdb.File{Name: name}).Reload(); err != nil {
				add(fmt.Errorf("clients are not located by it: %w", err), "geo.databases[%d]", i)
			}
		}
		for i := range g.Peers {
			if name := g.Peers[i].TokenFile; name != "" {
				_, err := plugins.Secret{File: name}.Read()
				add(err, "geo.peers[%d].token_file", i)
			}
		}
	}
	for i := range s.config.Targets {
		for _, e := range readSecrets(s.config.Targets[i].Settings) {
			add(e.Err, "targets[%d].settings.%s", i, e.Path)
		}
	}
	return list
}

// runnable reports an error if the program that a renewal runs isn't there.
func runnable(argv []string) error {
	if len(argv) == 0 || strings.Contains(argv[0], "{") {
		return nil
	}
	if _, err := exec.LookPath(argv[0]); err != nil {
		return fmt.Errorf("a renewal would fail: %w", err)
	}
	return nil
}

// readSecrets reads the files that a driver's settings refer to by {file: PATH}.
// Variables are those of whoever calls aovlb plan.
func readSecrets(settings map[string]any) (list []*plugins.FieldError) {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		inner, ok := settings[name].(map[string]any)
		if !ok {
			continue
		}
		if file, ok := inner["file"].(string); ok && len(inner) == 1 {
			if _, err := (plugins.Secret{File: file}).Read(); err != nil {
				list = append(list, &plugins.FieldError{Path: name, Err: err})
			}
			continue
		}
		for _, e := range readSecrets(inner) {
			e.Path = name + "." + e.Path
			list = append(list, e)
		}
	}
	return list
}
