package filebox

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// Target returns a fresh balancer for a [plugintest.Suite] of the site hq. open
// returns a driver with a configuration.
func Target(t *testing.T, open func(*testing.T, plugins.Config) plugins.Driver) plugintest.Target {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "box.json")
	edit := func(f func(*Box)) {
		b, err := Load(file)
		if err != nil {
			t.Error(err)
			return
		}
		f(b)
		if err := b.Save(file); err != nil {
			t.Error(err)
		}
	}
	edit(func(b *Box) {
		b.Objects = []plugins.Object{{Kind: "pool", Name: "somebody_elses", Fields: []plugins.Field{{Name: "picker", Value: "rr"}}}}
	})
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte(plugintest.Canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(Settings{File: file, Password: plugins.Secret{File: password}})
	if err != nil {
		t.Fatal(err)
	}
	return plugintest.Target{
		Driver: func(t *testing.T) plugins.Driver { return open(t, plugins.Config{Site: "hq", Settings: settings}) },
		Writes: func() (n int) {
			edit(func(b *Box) { n = b.Writes })
			return n
		},
		Foreign: func() (text string) {
			edit(func(b *Box) {
				for _, o := range b.Objects {
					if !plugins.DefaultOwner.Owns("hq", o.Name) {
						line, _ := json.Marshal(o)
						text += string(line) + "\n"
					}
				}
			})
			return text
		},
		Tamper: func(*testing.T) {
			edit(func(b *Box) {
				for i := range b.Objects {
					if o := &b.Objects[i]; o.Kind == "backend" {
						o.Fields[3].Value = "17"
						return
					}
				}
			})
		},
		BreakAfter: func(n int) {
			edit(func(b *Box) {
				if b.Break = &n; n < 0 {
					b.Break = nil
				}
			})
		},
	}
}
