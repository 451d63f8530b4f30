//go:build unix

package host_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/host"
	"github.com/aovlb/aovlb/plugins/plugintest"
)

// jsonBox is the file of the example.
type jsonBox struct {
	Objects []map[string]any `json:"objects"`
	Drained [][]string       `json:"drained"`
	Writes  int              `json:"writes"`
	Break   *int             `json:"break"`
}

// The example in Python keeps what every driver promises, over the same wire.
func TestPython(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes a while to start Python again and again")
	}
	const source = "../../examples/plugin-python"
	if out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import grpc, google.protobuf").CombinedOutput(); err != nil {
		t.Skipf("python3-grpcio or python3-protobuf isn't here: %v: %.200s", err, out)
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("the openssl command isn't here")
	}
	dir := t.TempDir()
	for _, name := range []string{"driver_pb2.py", host.Prefix + "jsonfile"} {
		copyFile(t, filepath.Join(source, name), filepath.Join(dir, name))
	}
	program := filepath.Join(dir, host.Prefix+"jsonfile")
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	sum, err := host.Sum(program)
	if err != nil {
		t.Fatal(err)
	}
	plugintest.Suite{Site: "hq", Open: func(t *testing.T) plugintest.Target {
		file := filepath.Join(t.TempDir(), "box.json")
		log := new(logs)
		edit := func(f func(*jsonBox)) {
			var b jsonBox
			text, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(text, &b)
			}
			if err != nil {
				t.Fatal(err)
			}
			f(&b)
			text, _ = json.Marshal(b)
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(file, []byte(`{"objects":[{"kind":"server","name":"theirs","fields":{}}],"drained":[],"writes":0,"break":null}`), 0o600); err != nil {
			t.Fatal(err)
		}
		settings, _ := json.Marshal(map[string]string{"file": file})
		p := &host.Plugin{Name: "jsonfile", Path: program, SHA256: sum, Dir: shortDir(t), Logger: log.logger()}
		t.Cleanup(func() { p.Close() })
		return plugintest.Target{
			// One process serves the whole test: Python takes its time to start.
			Driver: func(t *testing.T) plugins.Driver {
				if err := p.Configure(t.Context(), plugins.Config{Site: "hq", Settings: settings}); err != nil {
					t.Fatalf("%v\n%s", err, log.String())
				}
				return unclosed{p}
			},
			Writes: func() (n int) { edit(func(b *jsonBox) { n = b.Writes }); return n },
			Foreign: func() (s string) {
				edit(func(b *jsonBox) { text, _ := json.Marshal(b.Objects[0]); s = string(text) })
				return s
			},
			BreakAfter: func(n int) {
				edit(func(b *jsonBox) {
					b.Break = &n
					if n < 0 {
						b.Break = nil
					}
				})
			},
			Tamper: func(*testing.T) {
				edit(func(b *jsonBox) { b.Objects[1]["fields"].(map[string]any)["weight"] = "17" })
			},
			Logs: log.String,
		}
	}}.Run(t)
}
