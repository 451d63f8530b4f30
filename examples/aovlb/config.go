package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// A Config is the program's file: a deployment, and around it what concerns this
// process alone.
type Config struct {
	plugins.Deployment
	// Site is the site that this process serves; needed if there are several.
	Site string `json:"site,omitempty"`
	// Admin is where status, drain and the like connect to.
	Admin AdminAPI `json:"admin,omitzero"`
	// Metrics is where Prometheus collects metrics.
	Metrics Metrics `json:"metrics,omitzero"`
	// State is a directory that keeps clients and flows across restarts.
	State string `json:"state,omitempty"`
	// Log says what is logged, to standard error.
	Log Log `json:"log,omitzero"`
	// Grace is how long open TCP connections may stay when the process ends.
	Grace plugins.Duration `json:"grace,omitempty"`
	// Targets are balancers of others that the deployment is put onto, by plan,
	// apply, drift and drain. serve has nothing to do with them.
	Targets []Target `json:"targets,omitempty"`
	// Plugins says where the plugins are that drive them.
	Plugins Plugins `json:"plugins,omitzero"`
}

// A Target is a balancer of somebody else's.
type Target struct {
	// Name is what commands call it.
	Name string `json:"name"`
	// Driver is what drives it: one that comes with aovlb, or a plugin; see
	// aovlb plugin list.
	Driver string `json:"driver"`
	// Site is the site that it serves; needed if there are several.
	Site string `json:"site,omitempty"`
	// Owner is what names of the objects there begin with, letters and digits;
	// empty means aovlb.
	Owner plugins.Owner `json:"owner,omitempty"`
	// Settings are the driver's own, as aovlb plugin list --schema says. Secrets
	// are references: {file: PATH} or {env: NAME}.
	Settings map[string]any `json:"settings,omitempty"`
}

// Plugins says where plugins are.
type Plugins struct {
	// Dirs are folders with programs named aovlb-plugin-NAME; none means
	// /usr/local/lib/aovlb/plugins and /usr/lib/aovlb/plugins.
	Dirs []string `json:"dirs,omitempty"`
	// Lock is a file with what their content must be, which aovlb plugin lock
	// writes; empty means /etc/aovlb/plugins.lock.
	Lock string `json:"lock,omitempty"`
}

// AdminAPI says where the admin API listens.
type AdminAPI struct {
	// Listen is unix:PATH or an address and port; empty has no API.
	Listen string `json:"listen,omitempty"`
	// TokenFile is a file with the bearer token that callers must show. It is
	// needed unless Listen is a unix socket.
	TokenFile string `json:"token_file,omitempty"`
}

// Metrics says where the Prometheus endpoint listens.
type Metrics struct {
	// Listen is an address and port; empty has no endpoint.
	Listen string `json:"listen,omitempty"`
}

// Log says what is logged.
type Log struct {
	// Level is debug, info, warn or error; empty means info.
	Level string `json:"level,omitempty"`
	// Format is text or json; empty means text.
	Format string `json:"format,omitempty"`
}

// A Fault is something wrong with a file, and where.
type Fault struct {
	// Line and Column count from 1; they are 0 if the whole file is meant.
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Path   string `json:"path,omitempty"`
	Text   string `json:"text"`
}

// Faults are all that is wrong with a file.
type Faults struct {
	File string
	List []Fault
}

func (f *Faults) Error() string {
	lines := make([]string, len(f.List))
	for i := range f.List {
		lines[i] = f.line(i)
	}
	return strings.Join(lines, "\n")
}

func (f *Faults) line(i int) string {
	e := f.List[i]
	at := f.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", f.File, e.Line, e.Column)
	}
	if e.Path == "" {
		return at + ": " + e.Text
	}
	return at + ": " + e.Path + ": " + e.Text
}

// maxConfig bounds a file, in bytes.
const maxConfig = 1 << 20

// maxFaults bounds what is said of one file.
const maxFaults = 1000

// within reports whether path, or what it is in, is among the wrong.
func within(wrong map[string]bool, path string) bool {
	for path != "" {
		if wrong[path] {
			return true
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return wrong[""]
}

// A source is a file that has been read: what it says, and where.
type source struct {
	file   string
	config *Config
	at     positions
}

// readConfig reads a file and checks it. The error is *Faults if the file could
// be read.
func readConfig(name string) (*source, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return parseConfig(name, b)
}

// parseConfig decodes and checks the content of a file.
func parseConfig(name string, b []byte) (*source, error) {
	s := &source{file: name, config: new(Config)}
	var faults []Fault
	if len(b) > maxConfig {
		faults = []Fault{{Text: fmt.Sprintf("it is larger than %d bytes", maxConfig)}}
	} else {
		s.at, faults = decode(b, s.config)
	}
	if s.at != nil {
		// What could be read is checked even if something else could not be:
		// all faults at once. A field that is at fault already isn't named
		// again.
		wrong := make(map[string]bool, len(faults))
		for _, f := range faults {
			wrong[f.Path] = true
		}
		for _, e := range plugins.FieldErrors(s.config.validate()) {
			if len(faults) == maxFaults {
				break
			}
			if !within(wrong, e.Path) {
				faults = append(faults, s.fault(e.Path, e.Err.Error()))
			}
		}
	}
	if len(faults) == 0 {
		return s, nil
	}
	inOrder(faults)
	return nil, &Faults{File: name, List: faults}
}

// inOrder sorts faults by where they are.
func inOrder(faults []Fault) {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// fault places an error in the file.
func (s *source) fault(path, text string) Fault {
	p := s.at.find(path)
	return Fault{Line: p.line, Column: p.column, Path: path, Text: text}
}

// validate returns every fault, each a *plugins.FieldError.
func (c *Config) validate() error {
	errs := []error{c.Deployment.Validate()}
	add := func(path, format string, args ...any) {
		errs = append(errs, &plugins.FieldError{Path: path, Err: fmt.Errorf(format, args...)})
	}
	switch {
	case c.Site == "" && len(c.Sites) > 1 && len(c.Targets) == 0:
		add("site", "there are %d sites: say which one this process serves", len(c.Sites))
	case c.Site != "" && c.Deployment.Site(c.Site) == nil:
		add("site", "there is no site %q", c.Site)
	}
	if c.Admin.Listen != "" {
		network, _, err := listenAddr(c.Admin.Listen)
		if err != nil {
			add("admin.listen", "%v", err)
		}
		if network == "tcp" && c.Admin.TokenFile == "" {
			add("admin.token_file", "%s can be reached by others: a token is needed", c.Admin.Listen)
		}
	}
	if c.Metrics.Listen != "" {
		if _, err := netip.ParseAddrPort(c.Metrics.Listen); err != nil {
			add("metrics.listen", "%q is not an address and port, such as 127.0.0.1:9500", c.Metrics.Listen)
		}
	}
	if c.Log.Level != "" && !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		add("log.level", "%q is unknown, it can be debug, info, warn or error", c.Log.Level)
	}
	if c.Log.Format != "" && c.Log.Format != "text" && c.Log.Format != "json" {
		add("log.format", "%q is unknown, it can be text or json", c.Log.Format)
	}
	for i := range c.Sites {
		for j := range c.Sites[i].Certificates {
			if c.Sites[i].Certificates[j].ACME != nil && c.State == "" {
				add(fmt.Sprintf("sites[%d].certificates[%d].acme", i, j), "a certificate from a CA needs state: without it a new one would be asked for at each start, and gateways would know none of them")
			}
		}
	}
	c.validateTargets(add)
	if c.Grace < 0 {
		add("grace", "%v is negative", c.Grace)
	}
	return errors.Join(errs...)
}

// listenAddr reads unix:PATH, or an address and port.
func listenAddr(s string) (network, addr string, err error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" || len(path) > 107 {
			return "", "", fmt.Errorf("%q is no unix:PATH with a path of 1 to 107 bytes", s)
		}
		return "unix", path, nil
	}
	ap, err := netip.ParseAddrPort(s)
	if err != nil {
		return "", "", fmt.Errorf("%q is neither unix:PATH nor an address and port", s)
	}
	return "tcp", ap.String(), nil
}
