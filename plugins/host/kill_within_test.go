//go:build unix

package host_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// holding is a filebox driver that is held within one call, until it is killed. A
// file beside the box says within which: "Plan before" holds it as Plan begins, "Plan
// after" when Plan has done its work, and nobody knows yet. As soon as it is held, the
// file is one with its process's number, so that the next one isn't held.
type holding struct {
	filebox.Driver

	file  string
	stats atomic.Int64
}

func (d *holding) hold(name, when string) {
	b, err := os.ReadFile(d.file + ".hold")
	if err != nil || string(b) != name+" "+when {
		return
	}
	if os.WriteFile(d.file+".pid", []byte(strconv.Itoa(os.Getpid())), 0o600) != nil || os.Rename(d.file+".pid", d.file+".held") != nil ||
		os.Remove(d.file+".hold") != nil {
		return
	}
	select {}
}

// held does a call, and is held there if it is to be.
func held[T any](d *holding, name string, call func() (T, error)) (T, error) {
	d.hold(name, "before")
	v, err := call()
	d.hold(name, "after")
	return v, err
}

// nothing is for calls that return nothing.
func nothing(err error) (struct{}, error) { return struct{}{}, err }

func (d *holding) Info(ctx context.Context) (plugins.Info, error) {
	return held(d, "Info", func() (plugins.Info, error) { return d.Driver.Info(ctx) })
}

func (d *holding) Schema(ctx context.Context) (json.RawMessage, error) {
	return held(d, "Schema", func() (json.RawMessage, error) { return d.Driver.Schema(ctx) })
}

func (d *holding) Configure(ctx context.Context, c plugins.Config) error {
	var s filebox.Settings
	if err := json.Unmarshal(c.Settings, &s); err != nil {
		return err
	}
	d.file = s.File
	_, err := held(d, "Configure", func() (struct{}, error) { return nothing(d.Driver.Configure(ctx, c)) })
	return err
}

func (d *holding) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	return held(d, "Capabilities", func() (plugins.Capabilities, error) { return d.Driver.Capabilities(ctx) })
}

func (d *holding) Validate(ctx context.Context, dep *plugins.Deployment) ([]plugins.Diagnostic, error) {
	return held(d, "Validate", func() ([]plugins.Diagnostic, error) { return d.Driver.Validate(ctx, dep) })
}

func (d *holding) Plan(ctx context.Context, dep *plugins.Deployment) (*plugins.Plan, error) {
	return held(d, "Plan", func() (*plugins.Plan, error) { return d.Driver.Plan(ctx, dep) })
}

func (d *holding) Apply(ctx context.Context, p *plugins.Plan, f func(plugins.Progress)) error {
	_, err := held(d, "Apply", func() (struct{}, error) { return nothing(d.Driver.Apply(ctx, p, f)) })
	return err
}

func (d *holding) Read(ctx context.Context) (*plugins.State, error) {
	return held(d, "Read", func() (*plugins.State, error) { return d.Driver.Read(ctx) })
}

func (d *holding) Stats(ctx context.Context) (*plugins.Stats, error) {
	if d.stats.Add(1) == 2 {
		d.hold("StreamStats", "under way")
	}
	return held(d, "Stats", func() (*plugins.Stats, error) { return d.Driver.Stats(ctx) })
}

func (d *holding) Drain(ctx context.Context, r plugins.DrainRequest) error {
	_, err := held(d, "Drain", func() (struct{}, error) { return nothing(d.Driver.Drain(ctx, r)) })
	return err
}

// Undrain says if there is nothing to do, as drivers should.
func (d *holding) Undrain(ctx context.Context, r plugins.BackendRef) error {
	_, err := held(d, "Undrain", func() (struct{}, error) {
		s, err := d.Driver.Read(ctx)
		if err != nil {
			return nothing(err)
		}
		if len(s.Drained) == 0 {
			return nothing(plugins.ErrNotDrained)
		}
		return nothing(d.Driver.Undrain(ctx, r))
	})
	return err
}

func (d *holding) Watch(ctx context.Context, f func(plugins.Event)) error {
	_, err := held(d, "Watch", func() (struct{}, error) { return nothing(d.Driver.Watch(ctx, f)) })
	return err
}

func (d *holding) Render(ctx context.Context, dep *plugins.Deployment) ([]plugins.File, error) {
	return held(d, "Render", func() ([]plugins.File, error) { return d.Driver.Render(ctx, dep) })
}

// moments are all calls and where in them something may die: as they begin, and where
// they have done something that nobody knows of yet.
func moments() (out [][2]string) {
	for _, c := range append(calls(), named("Configure", nil), named("Watch", nil)) {
		if c.name == "StreamStats" {
			out = append(out, [2]string{c.name, "under way"}) // its second ones; the first are as Stats
			continue
		}
		out = append(out, [2]string{c.name, "before"})
		switch c.name {
		case "Apply", "Drain", "Undrain", "Configure":
			out = append(out, [2]string{c.name, "after"})
		}
	}
	return out
}

func named(name string, call func(context.Context, plugins.Driver) error) struct {
	name string
	call func(context.Context, plugins.Driver) error
} {
	return struct {
		name string
		call func(context.Context, plugins.Driver) error
	}{name, call}
}

// holdAt has the driver of a box be held, and returns what waits until it is, and
// tells its process.
func holdAt(t *testing.T, box string, moment [2]string) func() int {
	t.Helper()
	if err := os.WriteFile(box+".hold", []byte(moment[0]+" "+moment[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() int {
		t.Helper()
		pid := 0
		eventually(t, "held within "+moment[0], 10*time.Second, func() bool {
			b, err := os.ReadFile(box + ".held")
			if err != nil {
				return false
			}
			pid, err = strconv.Atoi(string(b))
			return err == nil
		})
		return pid
	}
}

// ready returns a box where everything has something to do: the intent is served, and
// a backend is drained.
func ready(t *testing.T, p *host.Plugin, box string) {
	t.Helper()
	err := p.Configure(t.Context(), configOf(t, box))
	for _, c := range calls() {
		if err == nil && (c.name == "Apply" || c.name == "Drain") {
			err = c.call(t.Context(), p)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// alone checks that of the plugins that p had only the one that runs now is left, and
// of their folders only its.
func alone(t *testing.T, p *host.Plugin, dead int) {
	t.Helper()
	eventually(t, "the plugin that was killed is gone", 3*time.Second, func() bool { return !alive(dead) })
	if n, _ := filepath.Glob(filepath.Join(p.Dir, "*")); len(n) != 1 {
		t.Errorf("folders that are left: %q", n)
	}
	if now := p.PID(); now == dead || now == 0 {
		t.Errorf("process %d, it was %d", now, dead)
	}
}

// A plugin that is killed within a call, whichever it is, is started again and asked
// again, with its settings. Only an Apply isn't: who called it plans anew.
func TestKillPluginWithinEveryCall(t *testing.T) {
	for _, m := range moments() {
		t.Run(m[0]+" "+m[1], func(t *testing.T) {
			p := install(t, "holding")
			box := filepath.Join(t.TempDir(), "box.json")
			ready(t, p, box)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			heard := make(chan plugins.Event, 100)
			call := func() error { return p.Configure(ctx, configOf(t, box)) }
			if m[0] == "Watch" {
				call = func() error { return p.Watch(ctx, func(e plugins.Event) { heard <- e }) }
			}
			for _, c := range calls() {
				if c.name == m[0] {
					call = func() error { return c.call(ctx, p) }
				}
			}
			if m[0] == "Apply" {
				// There must be something to do.
				if err := new(filebox.Box).Save(box); err != nil {
					t.Fatal(err)
				}
			}
			wait := holdAt(t, box, m)
			ended := make(chan error, 1)
			go func() { ended <- call() }()
			pid := wait()
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if m[0] == "Watch" {
				if e := <-heard; e.Kind != "plugin" {
					t.Errorf("heard %+v", e)
				}
				cancel()
			}
			var err error
			select {
			case err = <-ended:
			case <-time.After(30 * time.Second):
				t.Fatal("the call goes on")
			}
			var lost *wire.UnavailableError
			switch {
			case m[0] == "Watch":
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			case m[0] == "Apply":
				if !errors.As(err, &lost) {
					t.Errorf("%v, want an UnavailableError", err)
				}
				err = call()
				if err != nil {
					t.Errorf("again: %v", err)
				}
			case err != nil:
				t.Error(err)
			}
			settled(t, p, box)
			alone(t, p, pid)
			b, err := filebox.Load(box)
			if want := m[0] != "Undrain" && m[0] != "Apply"; err != nil || len(b.Drained) > 0 != want {
				t.Errorf("drained: %v, %v", b.Drained, err)
			}
		})
	}
}

// A host that is killed within a call, whichever it is, takes its plugin along, though
// that is busy with the call, and the plugin's folder.
func TestKillHostWithinEveryCall(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range moments() {
		if m[0] == "Watch" {
			continue // the victim doesn't watch
		}
		t.Run(m[0]+" "+m[1], func(t *testing.T) {
			p := install(t, "holding")
			box := filepath.Join(t.TempDir(), "box.json")
			spec, err := json.Marshal(map[string]string{"Path": p.Path, "Sum": p.SHA256, "Box": box, "Dir": p.Dir, "Call": m[0]})
			if err != nil {
				t.Fatal(err)
			}
			wait := holdAt(t, box, m)
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), "AOVLB_TEST_HOST="+string(spec))
			var said strings.Builder
			cmd.Stderr = &said
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			pid := wait()
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if lines.Text() == "done" {
					t.Error("the call had ended")
				}
			}
			_ = cmd.Wait() // it was killed
			eventually(t, "the plugin is gone: "+said.String(), 3*time.Second, func() bool { return !alive(pid) })
			eventually(t, "its folder is gone", 3*time.Second, func() bool {
				left, _ := os.ReadDir(p.Dir)
				return len(left) == 0
			})
			ready(t, p, box)
			settled(t, p, box)
			if n, _ := filepath.Glob(filepath.Join(p.Dir, "*")); len(n) != 1 {
				t.Errorf("folders that are left: %q", n)
			}
		})
	}
}
