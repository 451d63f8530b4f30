package haproxy

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// TestOnPaper holds the driver to what all drivers promise, without an HAProxy.
func TestOnPaper(t *testing.T) {
	plugintest.Suite{
		Site: "hq",
		Open: func(*testing.T) plugintest.Target {
			p, logs := &paper{states: make(map[string]string)}, new(plugintest.Log)
			c := &counting{box: p, left: -1}
			return plugintest.Target{
				Driver: func(*testing.T) plugins.Driver {
					d := &Driver{Logger: slog.New(slog.NewTextHandler(logs, nil))}
					d.setUp.Set(plugins.Config{Site: "hq"}, Settings{}.usual(), c)
					return d
				},
				Writes: c.count, BreakAfter: c.breakAfter, Logs: logs.String,
				Tamper: func(t *testing.T) {
					p.mu.Lock()
					defer p.mu.Unlock()
					was := string(p.file)
					if p.file = []byte(strings.Replace(was, "weight 1", "weight 7", 1)); string(p.file) == was {
						t.Fatal("there is nothing to alter")
					}
				},
			}
		},
	}.Run(t)
}

// real is an HAProxy with a file of somebody else and one of the driver's.
type real struct {
	*process
	foreign string
}

func startHAProxy(t *testing.T) *real {
	t.Helper()
	program := needHAProxy(t)
	dir, err := os.MkdirTemp("", "haproxy") // HAProxy takes no comma in the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &real{
		process: &process{Settings{
			File: filepath.Join(dir, "aovlb.cfg"), Beside: []string{filepath.Join(dir, "haproxy.cfg")},
			Master: filepath.Join(dir, "master.sock"), Program: program,
		}.usual()},
		foreign: filepath.Join(dir, "haproxy.cfg"),
	}
	const other = "global\n\tmaxconn 2000\n\thard-stop-after 30s\ndefaults others\n\tmode http\n\ttimeout client 5s\n\ttimeout server 5s\n\ttimeout connect 5s\n" +
		"frontend theirs from others\n\tbind unix@theirs.sock\n\tdefault_backend theirs\nbackend theirs from others\n"
	for name, text := range map[string]string{r.foreign: strings.Replace(other, "unix@theirs", "unix@"+dir+"/theirs", 1), r.settings.File: ""} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command(program, "-W", "-S", r.settings.Master, "-f", r.foreign, "-f", r.settings.File)
	logs := new(plugintest.Log)
	c.Stdout, c.Stderr = logs, logs
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait() // it ends by the signal
		if t.Failed() {
			t.Log(logs.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, err := r.workers(ctx); err == nil {
			return r
		} else if ctx.Err() != nil {
			t.Fatalf("HAProxy doesn't start: %v: %s", err, logs)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func needHAProxy(t *testing.T) string {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("set AOVLB_PEERS=1 to run HAProxy")
	}
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("there is no HAProxy:", err)
	}
	return program
}

// TestReal holds the driver to what all drivers promise, on a real HAProxy.
func TestReal(t *testing.T) {
	needHAProxy(t)
	plugintest.Suite{
		Site: "hq",
		Layout: plugintest.Layout{
			Front: netip.AddrFrom4([4]byte{127, 62, byte(os.Getpid() >> 8), byte(os.Getpid()) | 1}), Back: netip.MustParseAddr("127.63.0.10"), PortOffset: 20000,
		},
		Skip: func(name string) string {
			if strings.Contains(name, "client's address") && os.Getuid() != 0 {
				return "it takes privileges to send from another's address"
			}
			return ""
		},
		Open: func(t *testing.T) plugintest.Target {
			r, logs := startHAProxy(t), new(plugintest.Log)
			c := &counting{box: r, left: -1}
			return plugintest.Target{
				Driver: func(*testing.T) plugins.Driver {
					d := &Driver{Logger: slog.New(slog.NewTextHandler(logs, nil))}
					d.setUp.Set(plugins.Config{Site: "hq"}, r.settings, c)
					return d
				},
				Writes: c.count, BreakAfter: c.breakAfter, Logs: logs.String,
				Foreign: func() string {
					b, err := os.ReadFile(r.foreign)
					if err != nil {
						t.Error(err)
					}
					return string(b)
				},
				Tamper: func(t *testing.T) {
					was, err := r.readFile()
					if err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(r.settings.File, bytes.Replace(was, []byte("weight 1"), []byte("weight 7"), 1), 0o600); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	}.Run(t)
}
