package builtin

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins"
)

// What the state directory holds, for each site in a directory of its name:
//
//	table-GROUP   the clients of a group, as lb.Balancer.Snapshot writes them
//	flows.json    the UDP flows of all listeners
//	drains.json   the backends that Drain was called for
//
// Each file is written beside the old one, and renamed over it.
const (
	tablePrefix = "table-"
	flowsFile   = "flows.json"
	drainsFile  = "drains.json"
)

// maxState bounds a JSON file that is read, in bytes.
const maxState = 256 << 20

// savedFlows is the content of flowsFile.
type savedFlows struct {
	Version int         `json:"version"`
	Made    time.Time   `json:"made"`
	Flows   []savedFlow `json:"flows"`
}

// savedFlow is a udp.FlowState, and the address its listener was opened at.
type savedFlow struct {
	Front    netip.AddrPort   `json:"front"`
	Client   netip.AddrPort   `json:"client"`
	Listener netip.AddrPort   `json:"listener"`
	Backend  string           `json:"backend"`
	Local    netip.AddrPort   `json:"local"`
	Idle     plugins.Duration `json:"idle"`
}

// savedDrains is the content of drainsFile.
type savedDrains struct {
	Version int                    `json:"version"`
	Drains  []plugins.DrainRequest `json:"drains"`
}

func (d *Driver) stateDir(site string) string { return filepath.Join(d.StateDir, site) }

// save writes the state of what is served now. d.applying is held.
func (d *Driver) save() error {
	r := d.current()
	if d.StateDir == "" || r.deployment == nil {
		return nil
	}
	dir := d.stateDir(r.site.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("builtin: save state: %w", err)
	}
	var errs []error
	for _, g := range r.groups {
		errs = append(errs, writeFile(filepath.Join(dir, tablePrefix+g.name), func(w io.Writer) error {
			_, err := g.balancer.Snapshot(w)
			return err
		}))
	}
	errs = append(errs, writeFile(filepath.Join(dir, flowsFile), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(r.flows())
	}))
	return errors.Join(append(errs, d.saveDrains())...)
}

// flows collects the UDP flows of all listeners.
func (r *running) flows() savedFlows {
	s := savedFlows{Version: 1, Made: time.Now().Round(0), Flows: []savedFlow{}}
	for _, l := range r.listeners {
		if l.udp == nil {
			continue
		}
		for f := range l.udp.Flows() {
			s.Flows = append(s.Flows, savedFlow{
				Front: l.spec.Address, Client: f.Client, Listener: f.Listener, Backend: f.Backend, Local: f.Local, Idle: plugins.Duration(f.Idle),
			})
		}
	}
	return s
}

// saveDrains writes the drains.
func (d *Driver) saveDrains() error {
	r := d.current()
	if d.StateDir == "" || r.deployment == nil {
		return nil
	}
	dir := d.stateDir(r.site.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("builtin: save drains: %w", err)
	}
	return writeFile(filepath.Join(dir, drainsFile), func(w io.Writer) error {
		return json.NewEncoder(w).Encode(savedDrains{Version: 1, Drains: d.drains.list()})
	})
}

// writeFile replaces a file by what write writes, wholly or not at all.
func writeFile(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("builtin: save state: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("builtin: save state: %w", err), os.Remove(f.Name()))
		}
	}()
	w := bufio.NewWriterSize(f, 1<<18)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	return err
}

// setAside renames a damaged file, so that it can be looked at, and does no harm.
func (d *Driver) setAside(name string, err error) {
	aside := name + ".damaged"
	if moveErr := os.Rename(name, aside); moveErr != nil {
		err = errors.Join(err, moveErr)
	}
	d.logger().Warn("a state file can't be used, it is set aside", "file", aside, "error", err)
	d.events.send(plugins.SeverityWarning, "state", filepath.Base(name), err.Error())
}

// readJSON reads a state file; it reports whether there was a good one.
func (d *Driver) readJSON(name string, into any) bool {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err == nil {
		defer f.Close()
		err = json.NewDecoder(io.LimitReader(f, maxState)).Decode(into)
	}
	if err != nil {
		d.setAside(name, err)
		return false
	}
	return true
}

// savedFlows returns the flows that were saved, by listener, when the process
// is new.
func (d *Driver) savedFlows(site string) map[frontKey][]udp.FlowState {
	out := make(map[frontKey][]udp.FlowState)
	if d.StateDir == "" || d.loaded {
		return out
	}
	name := filepath.Join(d.stateDir(site), flowsFile)
	var s savedFlows
	if !d.readJSON(name, &s) {
		return out
	}
	if s.Version != 1 {
		d.setAside(name, fmt.Errorf("it has version %d, this program knows 1", s.Version))
		return out
	}
	away := max(time.Since(s.Made), 0)
	for _, f := range s.Flows {
		state := udp.FlowState{
			Client: f.Client, Listener: f.Listener, Backend: f.Backend, Local: f.Local,
			Idle: f.Idle.D() + away,
		}
		k := keyOf("udp", f.Front)
		out[k] = append(out[k], state)
	}
	return out
}

// restoreTables reads the saved clients of groups, when the process is new.
func (d *Driver) restoreTables(site string, groups []*group) {
	if d.StateDir == "" || d.loaded {
		return
	}
	d.loaded = true
	for _, g := range groups {
		name := filepath.Join(d.stateDir(site), tablePrefix+g.name)
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var restored, skipped int
		if err == nil {
			restored, skipped, err = g.balancer.Restore(bufio.NewReader(f))
			f.Close()
		}
		if err != nil {
			d.setAside(name, err)
			continue
		}
		d.logger().Info("clients restored", "group", g.name, "clients", restored, "left_out", skipped)
	}
}

// restoreDrains reads the saved drains, when the process is new.
func (d *Driver) restoreDrains(site string, pools []*pool) {
	if d.StateDir == "" || d.loaded {
		return
	}
	var s savedDrains
	if !d.readJSON(filepath.Join(d.stateDir(site), drainsFile), &s) || s.Version != 1 {
		return
	}
	for _, r := range s.Drains {
		d.drains.set(r.BackendRef, r.Deadline)
		args := []any{"backend", r.BackendRef.String()}
		if !r.Deadline.IsZero() {
			args = append(args, "deadline", r.Deadline)
		}
		d.logger().Warn("backend is still to be drained", args...)
	}
	for _, p := range pools {
		d.enforce(p)
	}
}
