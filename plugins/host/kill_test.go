//go:build unix

package host_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// intent is what is served in these tests: sstp with round robin.
func intent() *plugins.Deployment { return plugintest.Intents(plugintest.Layout{}, "")[1].Deployment }

func alive(pid int) bool { return pid > 0 && syscall.Kill(pid, 0) == nil && !zombie(pid) }

// zombie reports whether a process is dead and its parent hasn't looked yet.
func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(b), ") ")
	return err == nil && ok && strings.HasPrefix(rest, "Z")
}

// kill ends the plugin's process as if power had failed, and checks that this is
// noticed at once.
func kill(t *testing.T, p *host.Plugin) {
	t.Helper()
	died := p.Died()
	if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-died:
	case <-time.After(30 * time.Second):
		t.Fatal("its death isn't noticed")
	}
}

// calls are all calls of a driver, in an order in which each has something to do.
func calls() []struct {
	name string
	call func(context.Context, plugins.Driver) error
} {
	ref := plugins.BackendRef{Pool: "ras", Backend: "ras1"}
	return []struct {
		name string
		call func(context.Context, plugins.Driver) error
	}{
		{"Info", func(ctx context.Context, d plugins.Driver) error { _, err := d.Info(ctx); return err }},
		{"Schema", func(ctx context.Context, d plugins.Driver) error { _, err := d.Schema(ctx); return err }},
		{"Capabilities", func(ctx context.Context, d plugins.Driver) error { _, err := d.Capabilities(ctx); return err }},
		{"Validate", func(ctx context.Context, d plugins.Driver) error { _, err := d.Validate(ctx, intent()); return err }},
		{"Plan", func(ctx context.Context, d plugins.Driver) error { _, err := d.Plan(ctx, intent()); return err }},
		{"Apply", func(ctx context.Context, d plugins.Driver) error {
			p, err := d.Plan(ctx, intent())
			if err != nil {
				return err
			}
			return d.Apply(ctx, p, nil)
		}},
		{"Read", func(ctx context.Context, d plugins.Driver) error { _, err := d.Read(ctx); return err }},
		{"Stats", func(ctx context.Context, d plugins.Driver) error { _, err := d.Stats(ctx); return err }},
		{"StreamStats", func(ctx context.Context, d plugins.Driver) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			n := 0
			err := d.(wire.StatsStreamer).StreamStats(ctx, time.Millisecond, func(*plugins.Stats) {
				if n++; n == 2 {
					cancel()
				}
			})
			if n == 2 && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}},
		{"Drain", func(ctx context.Context, d plugins.Driver) error {
			return d.Drain(ctx, plugins.DrainRequest{BackendRef: ref})
		}},
		{"Undrain", func(ctx context.Context, d plugins.Driver) error { return d.Undrain(ctx, ref) }},
		{"Render", func(ctx context.Context, d plugins.Driver) error {
			_, err := d.(plugins.Renderer).Render(ctx, intent())
			return err
		}},
	}
}

// Whatever was called before the plugin is killed, the next call finds a new one
// that is configured as the old one was, and one life later all is as it should be.
func TestKillPluginBetweenCalls(t *testing.T) {
	p := install(t, "filebox")
	p.Deaths = 1000
	box := filepath.Join(t.TempDir(), "box.json")
	if err := p.Configure(t.Context(), configOf(t, box)); err != nil {
		t.Fatal(err)
	}
	for _, c := range calls() {
		pid := p.PID()
		kill(t, p)
		if err := c.call(t.Context(), p); err != nil {
			t.Errorf("%s after the plugin was killed: %v", c.name, err)
		}
		if now := p.PID(); now == pid || now == 0 {
			t.Errorf("%s: process %d, it was %d", c.name, now, pid)
		}
	}
	settled(t, p, box)
	if n, _ := filepath.Glob(filepath.Join(p.Dir, "*")); len(n) != 1 {
		t.Errorf("folders that are left: %q", n)
	}
}

// settled checks that nothing is left to do.
func settled(t *testing.T, d plugins.Driver, box string) {
	t.Helper()
	plan, err := d.Plan(t.Context(), intent())
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.Changes) > 0 {
		t.Errorf("left to do: %v", plan.Changes)
	}
	b, err := filebox.Load(box)
	if err != nil || len(b.Objects) == 0 {
		t.Errorf("the box has %d objects, %v", len(b.Objects), err)
	}
}

// The plugin is killed within each call, and within Apply after each of its
// writes. The call says so at once, or is made again, and the next plan makes it
// good.
func TestKillPluginWithinCalls(t *testing.T) {
	box := filepath.Join(t.TempDir(), "box.json")
	p := install(t, "filebox")
	p.Deaths = 1000
	if err := p.Configure(t.Context(), configOf(t, box)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for n := 0; n <= total; n++ {
		// The write after the nth never ends, so that it is sure to be killed there.
		empty := &filebox.Box{Hang: []int{n + 1}}
		if err := empty.Save(box); err != nil {
			t.Fatal(err)
		}
		plan, err := p.Plan(t.Context(), intent())
		if err != nil {
			t.Fatal(err)
		}
		total = len(plan.Changes)
		killed, ended := time.Now(), make(chan error, 1)
		var done atomic.Int64
		go func() {
			ended <- p.Apply(t.Context(), plan, func(g plugins.Progress) {
				if done.Store(int64(g.Done)); g.Done == total {
					_ = syscall.Kill(p.PID(), syscall.SIGKILL)
				}
			})
		}()
		if n < total {
			eventually(t, "it has told of what is done, and the next write hangs", 10*time.Second, func() bool {
				b, err := filebox.Load(box)
				return err == nil && b.Writes == n+1 && done.Load() == int64(n)
			})
			killed = time.Now()
			if err := syscall.Kill(p.PID(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		err = <-ended
		var lost *wire.UnavailableError
		if n < total && !errors.As(err, &lost) {
			t.Fatalf("killed after %d of %d changes: %v", n, total, err)
		}
		if took := time.Since(killed); took > 3*time.Second {
			t.Errorf("it took %v to notice", took)
		}
		if plan, err = p.Plan(t.Context(), intent()); err == nil {
			err = p.Apply(t.Context(), plan, nil)
		}
		if err != nil {
			t.Fatalf("killed after %d of %d changes, then: %v", n, total, err)
		}
		settled(t, p, box)
	}
}

// Watch tells of the death, and goes on with the next process.
func TestWatchOutlivesThePlugin(t *testing.T) {
	p := install(t, "filebox")
	if err := p.Configure(t.Context(), configOf(t, filepath.Join(t.TempDir(), "box"))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, ended := make(chan plugins.Event, 100), make(chan error, 1)
	go func() { ended <- p.Watch(ctx, func(e plugins.Event) { events <- e }) }()
	// Apply until the watcher hears of it.
	hear := func(kind string) {
		t.Helper()
		deployments := []*plugins.Deployment{intent(), nil}
		for i := range 100 {
			if kind == "apply" {
				plan, err := p.Plan(ctx, deployments[i%2])
				if err == nil {
					err = p.Apply(ctx, plan, nil)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			select {
			case e := <-events:
				if e.Kind == kind {
					return
				}
			case <-time.After(50 * time.Millisecond):
			}
		}
		t.Fatalf("no event of kind %s", kind)
	}
	hear("apply")
	kill(t, p)
	hear("plugin")
	hear("apply")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch: %v", err)
	}
}

// victim is a host that is killed: it makes all calls up to the one that is named,
// says what it has, and waits within that call or after it.
func victim(spec string) {
	var v struct{ Path, Sum, Box, Dir, Call string }
	if err := json.Unmarshal([]byte(spec), &v); err != nil {
		panic(err)
	}
	p := &host.Plugin{Name: "filebox", Path: v.Path, SHA256: v.Sum, Dir: v.Dir}
	settings, _ := json.Marshal(filebox.Settings{File: v.Box})
	ctx := context.Background()
	if err := p.Configure(ctx, plugins.Config{Site: "hq", Settings: settings}); err != nil {
		panic(err)
	}
	say := func() { fmt.Printf("%d\n", p.PID()) }
	for _, c := range calls() {
		if c.name == v.Call {
			say()
			_ = c.call(ctx, p)
			fmt.Println("done")
			select {}
		}
		if v.Call == "within Apply" && c.name == "Apply" {
			plan, err := p.Plan(ctx, intent())
			if err != nil {
				panic(err)
			}
			_ = p.Apply(ctx, plan, func(g plugins.Progress) {
				if g.Done == 2 {
					say()
					fmt.Println("done")
				}
			})
			select {}
		}
		if err := c.call(ctx, p); err != nil {
			panic(err)
		}
	}
}

// When the host is killed, before or after a call, and within one, the plugin ends
// too, its folder goes with its socket, and another host finds nothing in its way.
func TestKillHost(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"within Apply"}
	for _, c := range calls() {
		names = append(names, c.name)
	}
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			p := install(t, "filebox")
			box := filepath.Join(t.TempDir(), "box.json")
			pause := &filebox.Box{Pause: plugins.Duration(time.Millisecond)}
			if name == "within Apply" {
				pause.Pause = plugins.Duration(100 * time.Millisecond)
			}
			if err := pause.Save(box); err != nil {
				t.Fatal(err)
			}
			spec, err := json.Marshal(map[string]string{"Path": p.Path, "Sum": p.SHA256, "Box": box, "Dir": p.Dir, "Call": name})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), self)
			cmd.Env = append(os.Environ(), "AOVLB_TEST_HOST="+string(spec))
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			var pid int
			if !lines.Scan() {
				t.Fatal("the host says nothing")
			}
			if _, err := fmt.Sscan(lines.Text(), &pid); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 { // after the call, or as soon as it begins
				lines.Scan()
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // it was killed
			eventually(t, "the plugin is gone", 3*time.Second, func() bool { return !alive(pid) })
			eventually(t, "its folder is gone", 3*time.Second, func() bool {
				left, _ := os.ReadDir(p.Dir)
				return len(left) == 0
			})
			if err := p.Configure(t.Context(), configOf(t, box)); err != nil {
				t.Fatal(err)
			}
			plan, err := p.Plan(t.Context(), intent())
			if err == nil {
				err = p.Apply(t.Context(), plan, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			settled(t, p, box)
		})
	}
}
