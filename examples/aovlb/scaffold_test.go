package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What aovlb plugin new writes builds, and passes the suite, with what it doesn't
// do refused; and the program is a plugin that aovlb can start.
func TestScaffold(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds programs")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	dir := filepath.Join(work, "aovlb-plugin-mybox")
	var out bytes.Buffer
	env := &environment{stdout: &out, stderr: &out, getenv: os.Getenv}
	if code := run(t.Context(), env, []string{"plugin", "new", "--dir", dir, "--aovlb", root, "mybox"}); code != 0 {
		t.Fatalf("plugin new: %d, %s", code, &out)
	}
	// Without a network: all modules are those of this one, and in the cache.
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go.sum"), sum, 0o644); err != nil {
		t.Fatal(err)
	}
	gocmd := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
		b, err := cmd.CombinedOutput()
		return string(b), err
	}
	if text, err := gocmd("build", "-o", filepath.Join(work, "plugins", "aovlb-plugin-mybox"), "."); err != nil {
		if strings.Contains(text, "module lookup disabled") || strings.Contains(text, "missing go.sum entry") {
			t.Skipf("the modules aren't all in the cache: %s", text)
		}
		t.Fatalf("%v\n%s", err, text)
	}
	if text, err := gocmd("vet", "./..."); err != nil {
		t.Errorf("vet: %v\n%s", err, text)
	}
	text, err := gocmd("test", "-v", "./...")
	if err != nil || !strings.Contains(text, "--- PASS: TestConformance/intents/ikev2_and_sstp") {
		t.Errorf("test: %v\n%s", err, text)
	}
	if err := os.Chmod(filepath.Join(work, "plugins"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(work, "a.yaml")
	config, err := os.ReadFile("testdata/good/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config = append(config, []byte("\nplugins:\n  dirs: ["+filepath.Join(work, "plugins")+"]\n  lock: "+filepath.Join(work, "lock")+
		"\ntargets:\n  - {name: box, driver: mybox}\n")...)
	if err := os.WriteFile(file, config, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"plugin", "lock", "--file", file, "mybox"}, 0, "is pinned to"},
		{[]string{"plugin", "test", "--file", file, "mybox"}, 0, "the plugin starts, answers"},
		{[]string{"plan", file}, 1, "can't be done here"},
		{[]string{"apply", file}, 1, "nothing was changed"},
	} {
		out.Reset()
		if code := run(context.Background(), env, c.args); code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("%q: %d, want %d and %q\n%s", c.args, code, c.code, c.want, &out)
		}
	}
}
