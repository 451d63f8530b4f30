package kemp

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	appliance "github.com/aovlb/aovlb/internal/appliance/kemp"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
	"github.com/aovlb/aovlb/plugins/plugintest/remote"
)

// bench is a driver and its LoadMaster.
type bench struct {
	*appliance.Box
	logs   *plugintest.Log
	config plugins.Config
}

// newBench starts a LoadMaster with what others have on it, which wants secrets
// that must not be seen.
func newBench(t *testing.T, change func(*Settings)) *bench {
	t.Helper()
	b := &bench{Box: appliance.New(), logs: new(plugintest.Log)}
	t.Cleanup(b.Close)
	b.Key, b.Password = plugintest.Canary+"-key", plugintest.Canary+"-password"
	b.Seed()
	dir := t.TempDir()
	s := Settings{Address: b.URL(), CAFile: filepath.Join(dir, "ca.pem"), Rate: 100000, APIKey: plugins.Secret{File: filepath.Join(dir, "key")}}
	if change != nil {
		change(&s)
	}
	if s.API == APIv1 {
		s.APIKey, s.User, s.Password = plugins.Secret{}, "bal", plugins.Secret{File: filepath.Join(dir, "password")}
	}
	b.ServiceTimers = s.ServiceTimers
	for name, text := range map[string]string{"ca.pem": string(b.CA()), "key": b.Key + "\n", "password": b.Password + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	b.config = plugins.Config{Site: "hq", Settings: raw}
	return b
}

func (b *bench) driver(t *testing.T) *Driver {
	t.Helper()
	d := &Driver{Logger: slog.New(slog.NewTextHandler(b.logs, nil))}
	if err := d.Configure(t.Context(), b.config); err != nil {
		t.Fatal(err)
	}
	return d
}

const prefix = "aovlb_hq_"

// TestConformance holds the driver to what all drivers promise, by both versions of
// the API; by the second also as a plugin, over gRPC.
func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"v2":          nil,
		"grpc":        nil,
		"v1":          func(s *Settings) { s.API = APIv1 },
		"timers":      func(s *Settings) { s.ServiceTimers = true },
		"names":       func(s *Settings) { s.GSLB = true },
		"names by v1": func(s *Settings) { s.API, s.GSLB = APIv1, true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var intents []plugintest.Intent
			if strings.HasPrefix(name, "names") {
				intents = plugintest.Names(plugintest.Layout{})
			}
			plugintest.Suite{
				Site: "hq", Intents: intents,
				Open: func(t *testing.T) plugintest.Target {
					b := newBench(t, change)
					return plugintest.Target{
						Driver: func(t *testing.T) plugins.Driver {
							if name == "grpc" {
								return remote.Driver(t, b.driver(t), nil)
							}
							return b.driver(t)
						},
						Writes: b.Writes, BreakAfter: b.BreakAfter, Logs: b.logs.String,
						Foreign: func() string { return b.Others(prefix) },
						Tamper: func(t *testing.T) {
							if !b.Set(prefix+"vpn_sstp", "Schedule", "rr") || !b.SetServer(prefix, "10.0.1.11", "Weight", "7") {
								t.Fatal("there is nothing to alter")
							}
						},
					}
				},
			}.Run(t)
		})
	}
}
