package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
)

func TestGoodFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		if _, err := readConfig(file); err != nil {
			t.Error(err)
		}
	}
}

// A bad file says what is wrong, and where: all of it, and nothing else.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err, files)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := readConfig(file)
			if err == nil {
				t.Fatal("the file is good")
			}
			faults, ok := err.(*Faults)
			if !ok {
				t.Fatalf("%T: %v", err, err)
			}
			got := strings.ReplaceAll(faults.Error(), "testdata/bad/", "") + "\n"
			golden := strings.TrimSuffix(file, ".yaml") + ".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is read is what is written.
func TestValues(t *testing.T) {
	s, err := readConfig("testdata/good/every-field.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := s.config
	site := c.Deployment.Site(c.Site)
	ras := site.Pool("ras")
	got := []any{
		c.Name, site.Name, ras.Picker, ras.FailbackDelay.String(), *ras.Panic, ras.Need, *ras.Backends[0].Weight, *ras.Backends[1].Weight,
		ras.Backends[2].Weight == nil, ras.Backends[2].Admin, ras.Checks[1].Host, ras.Checks[0].Timeout.String(), ras.Checks[0].Strict,
		site.Groups[0].Limits.MaxHinted, site.Groups[0].Listeners[0].Address.String(), site.Groups[0].Listeners[2].ProxyProtocol,
		c.Admin.TokenFile, c.Metrics.Listen, c.State, c.Log.Level, c.Grace.String(),
	}
	want := []any{
		"every field", "b", plugins.PickLeastClients, "5m", false, plugins.NeedAny, 10, 0,
		true, plugins.AdminDisabled, "vpn.example.com", "1.5s", true,
		-1, "0.0.0.0:500", plugins.ProxyV2,
		"/etc/aovlb/token", "[::1]:9500", "/var/lib/aovlb", "debug", "1m",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"pools", "polos", 1}, {"wieght", "weight", 1}, {"kitten", "sitting", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// What Windows editors write is read, or named.
func TestEncoding(t *testing.T) {
	good, err := os.ReadFile("testdata/good/every-field.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseConfig("x", append([]byte("\uFEFF"), good...)); err != nil {
		t.Error("with a byte order mark:", err)
	}
	for _, b := range []string{"\xff\xfen\x00a\x00m\x00e\x00", "name: x\n# caf\xe9\n", "\x00\x01"} {
		if _, err := parseConfig("x", []byte(b)); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%q: %v", b, err)
		}
	}
	if _, err := parseConfig("x", []byte("name: x\n# caf\xe9\n")); err == nil || !strings.HasPrefix(err.Error(), "x:2:1: ") {
		t.Error(err)
	}
}

// Common slips come with a way out.
func TestAdvice(t *testing.T) {
	for text, want := range map[string]string{
		"sites:\n\t- name: x\n":                                   "not tabs",
		"a:\n  - {x: 1}\n - {x: 2}\n":                             "indented",
		"a: {address: [::1]:500}\n":                               "needs quotes",
		"sites:\n  - name: x\n    site y\n    b: 1\n":             "colon",
		"sites: [{groups: [{listeners: [{address: ':500'}]}]}]\n": `":500" is not an address and port`,
	} {
		if _, err := parseConfig("x", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := parseConfig("x", bytes.Repeat([]byte("#"), maxConfig+1)); err == nil {
		t.Error("a huge file is good")
	}
}

// Aliases can't be used to make much of little.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("sites:\n- name: x\n  pools: &p\n")
	for range 300 {
		b.WriteString("  - {name: p, backends: [{name: b}]}\n")
	}
	b.WriteString(strings.Repeat("- {name: x, pools: *p}\n", 300))
	_, err := parseConfig("x", []byte(b.String()))
	if err == nil || !strings.Contains(err.Error(), "more than 100000 values") {
		t.Error("the bomb was read")
	}
}

// Whatever the file holds, it is read or refused: nothing panics, every fault has
// words, and what is accepted is valid.
func FuzzConfig(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseConfig("f", b)
		if err == nil {
			if err := s.config.validate(); err != nil {
				t.Errorf("accepted, and invalid: %v", err)
			}
			return
		}
		faults, ok := err.(*Faults)
		if !ok || len(faults.List) == 0 {
			t.Fatalf("%T: %v", err, err)
		}
		for _, e := range faults.List {
			if e.Text == "" {
				t.Errorf("a fault without words: %+v", e)
			}
		}
	})
}
