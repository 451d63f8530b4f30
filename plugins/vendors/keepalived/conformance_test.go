package keepalived

import (
	"bytes"
	"log/slog"
	"os"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// suite holds the driver to what all drivers promise.
func suite(runs bool) plugintest.Suite {
	return plugintest.Suite{
		Site: "hq",
		Open: func(t *testing.T) plugintest.Target {
			m, logs := startMachine(t, runs), new(plugintest.Log)
			c := &counting{box: m, left: -1}
			return plugintest.Target{
				Driver: func(*testing.T) plugins.Driver {
					d := &Driver{Logger: slog.New(slog.NewTextHandler(logs, nil))}
					d.setUp.Set(plugins.Config{Site: "hq"}, m.settings, c)
					return d
				},
				Writes: c.count, BreakAfter: c.breakAfter, Logs: logs.String,
				Foreign: func() string { return m.others(t) },
				Tamper: func(t *testing.T) {
					was, err := os.ReadFile(m.settings.File)
					if err != nil {
						t.Fatal(err)
					}
					now := bytes.Replace(was, []byte("weight 1"), []byte("weight 7"), 1)
					if bytes.Equal(was, now) {
						t.Fatal("there is nothing to alter")
					}
					if err := os.WriteFile(m.settings.File, now, 0o600); err != nil {
						t.Fatal(err)
					}
				},
			}
		},
	}
}

func TestConformance(t *testing.T) { suite(true).Run(t) }

// TestConfigOnly has the driver write files where keepalived doesn't run.
func TestConfigOnly(t *testing.T) { suite(false).Run(t) }
