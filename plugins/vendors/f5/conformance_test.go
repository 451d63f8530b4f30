package f5

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	appliance "github.com/aovlb/aovlb/internal/appliance/f5"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/remote"
)

// secretFile writes a file with a secret.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// configured returns a driver for a box. change alters the settings.
func configured(t *testing.T, box *appliance.Box, logs *plugintest.Log, change func(*Settings)) *Driver {
	t.Helper()
	s := Settings{URL: box.Server.URL, Username: appliance.User, Password: plugins.Secret{File: secretFile(t, appliance.Password)}, Rate: 1000}
	if change != nil {
		change(&s)
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{Client: box.Server.Client(), pause: 4 * time.Millisecond, looks: 20 * time.Millisecond}
	if logs != nil {
		d.Logger = slog.New(slog.NewTextHandler(logs, nil))
	}
	if err := d.Configure(t.Context(), plugins.Config{Site: "hq", Settings: raw}); err != nil {
		t.Fatal(err)
	}
	return d
}

func newBox(t *testing.T) *appliance.Box {
	t.Helper()
	box := appliance.New()
	t.Cleanup(box.Server.Close)
	return box
}

func conformance(t *testing.T, intents []plugintest.Intent, change func(*Settings), wrap func(*testing.T, plugins.Driver) plugins.Driver) {
	plugintest.Suite{
		Site: "hq", Intents: intents,
		Open: func(t *testing.T) plugintest.Target {
			box, logs := newBox(t), new(plugintest.Log)
			if intents != nil {
				box.Share("dc_of_others", map[string]any{"class": "GSLB_Data_Center"})
				box.Share("aovlb_hqX", map[string]any{"class": "GSLB_Data_Center"})
			}
			return plugintest.Target{
				Driver: func(t *testing.T) plugins.Driver { return wrap(t, configured(t, box, logs, change)) },
				Writes: box.Writes, BreakAfter: box.BreakAfter, Logs: logs.String,
				Foreign: func() string { return box.Foreign("aovlb_hq") },
				Tamper: func(t *testing.T) {
					box.Do(func(_ map[string]*appliance.Virtual, pools map[string]*appliance.Pool, _ *[]appliance.Flow) {
						for path, p := range pools {
							if path != "/Common/intranet" {
								p.Members[0].Ratio = 7
							}
						}
					})
				},
			}
		},
	}.Run(t)
}

// TestConformance holds the driver to what all drivers promise.
func TestConformance(t *testing.T) {
	conformance(t, nil, nil, func(_ *testing.T, d plugins.Driver) plugins.Driver { return d })
}

// TestConformanceWithAll does so over gRPC, with all that settings can add.
func TestConformanceWithAll(t *testing.T) {
	password := secretFile(t, plugintest.Canary)
	conformance(t, nil, func(s *Settings) {
		s.IKESPI, s.Mirror, s.RADIUSPassword, s.GSLB = true, true, plugins.Secret{File: password}, true
	}, func(t *testing.T, d plugins.Driver) plugins.Driver { return remote.Driver(t, d, nil) })
}

// TestConformanceOfNames does so where names lead to sites, beside others who declare
// theirs.
func TestConformanceOfNames(t *testing.T) {
	conformance(t, plugintest.Names(plugintest.Layout{}), func(s *Settings) { s.GSLB = true }, func(_ *testing.T, d plugins.Driver) plugins.Driver { return d })
}
