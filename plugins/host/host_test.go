//go:build unix

package host_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
)

// A driver in a program of its own keeps what every driver promises. One process
// serves each test of the suite; that new ones do as well is tested by killing them.
func TestConformance(t *testing.T) {
	plugintest.Suite{Site: "hq", Open: func(t *testing.T) plugintest.Target {
		log := new(logs)
		p := install(t, "filebox")
		p.Logger = log.logger()
		target := filebox.Target(t, func(t *testing.T, c plugins.Config) plugins.Driver {
			if err := p.Configure(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			return unclosed{p}
		})
		target.Logs = log.String
		return target
	}}.Run(t)
}

// What goes wrong at the start is told in words.
func TestBadPrograms(t *testing.T) {
	for kind, c := range map[string]struct {
		spoil func(*host.Plugin)
		want  string
	}{
		"chatty": {want: "must print nothing to standard output"},
		"mute":   {spoil: func(p *host.Plugin) { p.StartTimeout = 300 * time.Millisecond }, want: "timeout"},
		"dead":   {want: "ended before it was ready"},
		"future": {want: "version"},
		"filebox": {spoil: func(p *host.Plugin) {
			p.SHA256 = strings.Repeat("ab", 32)
		}, want: "not what was pinned"},
		"unpinned": {spoil: func(p *host.Plugin) { p.SHA256 = "" }, want: "SHA-256 must be known"},
		"writable": {spoil: func(p *host.Plugin) {
			if err := os.Chmod(filepath.Dir(p.Path), 0o777); err != nil {
				panic(err)
			}
		}, want: "others may write"},
	} {
		t.Run(kind, func(t *testing.T) {
			p := install(t, kind)
			p.Deaths = 1
			if c.spoil != nil {
				c.spoil(p)
			}
			_, err := p.Info(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			// It doesn't try again at once, and again and again.
			if _, err := p.Info(t.Context()); !errors.Is(err, host.ErrResting) {
				t.Errorf("%v, want ErrResting", err)
			}
			if left, _ := os.ReadDir(p.Dir); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A call that is called off while the program starts ends then.
func TestStartIsCalledOff(t *testing.T) {
	p := install(t, "mute")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := p.Info(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// After a rest, a plugin that died too often is tried again.
func TestRest(t *testing.T) {
	p := install(t, "filebox")
	p.Deaths, p.Rest = 2, 200*time.Millisecond
	for range 2 {
		if _, err := p.Info(t.Context()); err != nil {
			t.Fatal(err)
		}
		kill(t, p)
	}
	if _, err := p.Info(t.Context()); !errors.Is(err, host.ErrResting) {
		t.Errorf("%v, want ErrResting", err)
	}
	eventually(t, "started again", 5*time.Second, func() bool {
		_, err := p.Info(t.Context())
		return err == nil
	})
}

// odd's lines reach our log with their levels, a panic is shown, and long lines do
// no harm.
func TestLogs(t *testing.T) {
	p, log := install(t, "odd"), new(logs)
	p.Logger = log.logger()
	drain := func(what string) error {
		return p.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: what}})
	}
	for _, what := range []string{"log", "print"} {
		if err := drain(what); err != nil {
			t.Fatal(err)
		}
	}
	has := func(parts ...string) func() bool {
		return func() bool {
			for line := range strings.SplitSeq(log.String(), "\n") {
				all := true
				for _, p := range parts {
					all = all && strings.Contains(line, p)
				}
				if all {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "the warning", 5*time.Second, has("level=WARN", `msg="a member is away"`, "member=ras1", "times=3", "plugin=odd"))
	eventually(t, "the information", 5*time.Second, has("level=INFO", `msg="all is well"`))
	p.Deaths = 1
	if err := drain("panic"); err == nil {
		t.Error("a call that panics in another goroutine goes well")
	}
	eventually(t, "the panic", 5*time.Second, has("level=ERROR", "the driver's goroutine panicked"))
}

// The plugin gets no more of our environment than it needs.
func TestEnvironment(t *testing.T) {
	t.Setenv("AWS_SECRET_ACCESS_KEY", "mine")
	t.Setenv("BOX_PASSWORD", "its own")
	p := install(t, "odd")
	p.Env = []string{"BOX_PASSWORD", "UNSET"}
	err := p.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "environment"}})
	if err == nil {
		t.Fatal("no error")
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "AWS") || name == "HOME" || name == "UNSET" {
			t.Errorf("it gets %s", line)
		}
	}
	if !strings.Contains(err.Error(), "BOX_PASSWORD=its own") {
		t.Error("it doesn't get what it was to get")
	}
}

func TestLimits(t *testing.T) {
	if _, err := os.Stat("/proc/self/limits"); err != nil {
		t.Skip("there is no /proc/self/limits here")
	}
	p := install(t, "odd")
	p.Files = 321
	err := p.Drain(t.Context(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: "limits"}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"Max core file size        0", "Max open files            321", "Max data size             4294967296"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in %v", want, err)
		}
	}
}

func TestFindAndLock(t *testing.T) {
	p := install(t, "filebox")
	dir := filepath.Dir(p.Path)
	for name, content := range map[string]string{"README": "no plugin", host.Prefix + "plain": "not executable"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found, err := host.Find(filepath.Join(dir, "nowhere"), dir)
	if err != nil || len(found) != 2 || found[0].Name != "filebox" || found[0].Err != nil || found[1].Err == nil {
		t.Fatalf("%+v, %v", found, err)
	}
	file := filepath.Join(dir, "plugins.lock")
	lock, err := host.ReadLock(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"filebox": "isn't in the lock file", "plain": "not a program", "nobody": "there is no plugin"} {
		if _, err := lock.Plugin(found, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	lock.Plugins["filebox"] = found[0].SHA256
	if err := lock.Write(); err != nil {
		t.Fatal(err)
	}
	if lock, err = host.ReadLock(file); err != nil {
		t.Fatal(err)
	}
	good, err := lock.Plugin(found, "filebox")
	if err != nil {
		t.Fatal(err)
	}
	good.Dir = shortDir(t)
	defer good.Close()
	if i, err := good.Info(t.Context()); err != nil || i.Name != "filebox" {
		t.Errorf("%+v, %v", i, err)
	}
	lock.Plugins["filebox"] = strings.Repeat("00", 32)
	if _, err := lock.Plugin(found, "filebox"); err == nil || !strings.Contains(err.Error(), "is not what") {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"{", `{"plugins":{"a":"xyz"}}`, `{"plugin":{}}`} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := host.ReadLock(file); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// The plugin's deadlines and its streams end with their contexts.
func TestClosed(t *testing.T) {
	p := install(t, "filebox")
	if err := p.Configure(t.Context(), configOf(t, filepath.Join(t.TempDir(), "box"))); err != nil {
		t.Fatal(err)
	}
	pid := p.PID()
	watch := make(chan error, 1)
	go func() { watch <- p.Watch(t.Context(), func(plugins.Event) {}) }()
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Read(t.Context()); !errors.Is(err, host.ErrClosed) {
		t.Errorf("%v", err)
	}
	select {
	case err := <-watch:
		if !errors.Is(err, host.ErrClosed) {
			t.Errorf("Watch: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("Watch goes on")
	}
	eventually(t, "the process is gone", 5*time.Second, func() bool { return !alive(pid) })
	if _, err := filebox.Load(filepath.Join(p.Dir, "x")); err != nil {
		t.Error(err)
	}
}

// unclosed is a plugin that goes on when the suite is done with it.
type unclosed struct{ *host.Plugin }

// Close is for the test that made the plugin to do.
func (unclosed) Close() error { return nil }
