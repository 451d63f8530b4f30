package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckSaysWhoMayNotRead tells a file that isn't there from one that somebody
// else may well read.
func TestCheckSaysWhoMayNotRead(t *testing.T) {
	err := fmt.Errorf("vpn.key: %w", &fs.PathError{Op: "open", Path: "vpn.key", Err: fs.ErrPermission})
	if got := unreadable(err); !strings.Contains(got, "permission") || !strings.Contains(got, "run it as the user that serve runs as") {
		t.Errorf("got %q", got)
	}
	if got := unreadable(errors.New("it is empty")); got != "it is empty" {
		t.Errorf("got %q", got)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may read everything")
	}
	dir := t.TempDir()
	token, file := filepath.Join(dir, "token"), filepath.Join(dir, "aovlb.yaml")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`
admin: {listen: "127.0.0.1:9443", token_file: %q}
sites: [{name: hq, pools: [{name: p, backends: [{name: a, address: 10.0.0.1}]}]}]
`, token)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := runWith(t, "check", file); code != 1 || !strings.Contains(said, "admin.token_file") || !strings.Contains(said, "run it as the user") {
		t.Errorf("%d, %s", code, said)
	}
}

// TestCheckReadsSecretsOfTargets finds references to files within the settings of
// drivers, and takes no other file for one.
func TestCheckReadsSecretsOfTargets(t *testing.T) {
	list := readSecrets(map[string]any{
		"file":     "written.cfg",
		"password": map[string]any{"file": "no-password"},
		"token":    map[string]any{"env": "TOKEN"},
		"more":     map[string]any{"key": map[string]any{"file": "no-key"}, "to": map[string]any{"file": "out", "mode": 1}},
	})
	var got []string
	for _, e := range list {
		got = append(got, e.Path)
	}
	if strings.Join(got, " ") != "more.key password" {
		t.Errorf("got %v", got)
	}
}
