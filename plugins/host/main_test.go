//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"
	"go.uber.org/goleak"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/proto/wire"
	"github.com/aovlb/aovlb/plugins/sdk"
)

// The test's own program is the plugin, of the kind that its name says, and the
// host that is killed.
func TestMain(m *testing.M) {
	kind, isPlugin := strings.CutPrefix(filepath.Base(os.Args[0]), host.Prefix)
	switch {
	case isPlugin && os.Getenv(wire.CookieKey) != "":
		play(kind)
	case os.Getenv("AOVLB_TEST_HOST") != "":
		victim(os.Getenv("AOVLB_TEST_HOST"))
	default:
		goleak.VerifyTestMain(m)
	}
}

// play is the main function of plugins.
func play(kind string) {
	switch kind {
	case "filebox":
		sdk.Serve(new(filebox.Driver))
	case "holding":
		sdk.Serve(new(holding))
	case "mute":
		time.Sleep(time.Hour)
	case "chatty":
		fmt.Println("hello, I am a plugin")
		sdk.Serve(new(filebox.Driver))
	case "dead":
		os.Exit(3)
	case "odd":
		sdk.Serve(&odd{log: sdk.Logger()})
	case "future":
		plugin.Serve(&plugin.ServeConfig{
			HandshakeConfig:  plugin.HandshakeConfig{MagicCookieKey: wire.CookieKey, MagicCookieValue: wire.CookieValue},
			VersionedPlugins: map[int]plugin.PluginSet{7: {}},
			GRPCServer:       plugin.DefaultGRPCServer,
		})
	}
	os.Exit(0)
}

// odd is a driver that does what drivers shouldn't.
type odd struct {
	filebox.Driver

	log *slog.Logger
}

func (d *odd) Drain(_ context.Context, r plugins.DrainRequest) error {
	switch r.Backend {
	case "panic":
		done := make(chan int)
		go func() { panic("the driver's goroutine panicked") }()
		<-done
	case "log":
		d.log.Warn("a member is away", "member", "ras1", "times", 3)
		d.log.Info("all is well")
	case "environment":
		return fmt.Errorf("environment: %s", strings.Join(os.Environ(), "\n"))
	case "limits":
		b, err := os.ReadFile("/proc/self/limits")
		return fmt.Errorf("%s%w", b, err)
	case "print":
		fmt.Println(strings.Repeat("x", 200_000))
		fmt.Fprintln(os.Stderr, strings.Repeat("y", 200_000))
	}
	return nil
}

// install returns a plugin of a kind.
func install(t *testing.T, kind string) *host.Plugin {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), host.Prefix+kind)
	if err := os.Link(self, path); err != nil {
		copyFile(t, self, path)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := host.Sum(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &host.Plugin{Name: kind, Path: path, SHA256: sum, Host: "test", Dir: shortDir(t), Backoff: time.Millisecond}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// shortDir returns a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// logs collects what is logged.
type logs struct{ plugintest.Log }

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// configOf returns the configuration of a filebox driver.
func configOf(t *testing.T, file string) plugins.Config {
	t.Helper()
	b, err := json.Marshal(filebox.Settings{File: file})
	if err != nil {
		t.Fatal(err)
	}
	return plugins.Config{Site: "hq", Settings: b}
}

// eventually waits until f holds.
func eventually(t *testing.T, what string, within time.Duration, f func() bool) {
	t.Helper()
	end := time.Now().Add(within)
	for !f() {
		if time.Now().After(end) {
			t.Fatalf("after %v: not %s", within, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
