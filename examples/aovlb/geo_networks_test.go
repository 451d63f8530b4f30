package main

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// TestNetworkFiles: a table is read as YAML or as values divided by commas, by its
// name, and both say the same.
func TestNetworkFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "own.csv", "prefix,name,country,latitude,longitude\n10.1.0.0/16,plant,GB,51.5,-0.1\n")
	write(t, dir, "own.yaml", "networks:\n  - {prefix: 10.1.0.0/16, name: plant, country: GB, latitude: 51.5, longitude: -0.1}\n")
	var got [2][]geo.Network
	for i, name := range []string{"own.csv", "own.yaml"} {
		var err error
		if got[i], err = readNetworks(filepath.Join(dir, name), make(contents)); err != nil {
			t.Fatal(err)
		}
	}
	if len(got[0]) != 1 || len(got[1]) != 1 || got[0][0] != got[1][0] || got[0][0].Place.Country != "GB" {
		t.Errorf("by CSV %+v, by YAML %+v", got[0], got[1])
	}
}

// TestNetworkFileFaults: every fault of a table is told at once, with its line.
func TestNetworkFileFaults(t *testing.T) {
	for _, c := range []struct {
		text string
		want []string
	}{
		{"networks:\n  - {prefix: 10.1.0.1/16}\n  - {prefix: 10.2.0.0/16, country: Germany}\n  - {prefix: 10.2.0.0/16}\n", []string{
			"own.yaml:2:14: networks[0].prefix: 10.1.0.1/16 has bits behind its length", "own.yaml:3:36: networks[1].country", "own.yaml:4:14: networks[2].prefix: 10.2.0.0/16 is networks[1] already",
		}},
		{"networks:\n  - {prefix: ten, city: Berlin}\n", []string{"own.yaml:2:14: networks[0].prefix", "own.yaml:2:19"}},
		{"networks:\n  - {latitude: 1}\n", []string{"networks[0].prefix", "latitude"}},
		{"networks: 7\n", []string{"own.yaml:1:"}},
		{"nets: []\n", []string{"own.yaml:1:1", "nets"}},
		{"", []string{"own.yaml: it is empty"}},
		{"networks: [", []string{"own.yaml:1"}},
	} {
		_, err := parseNetworks("own.yaml", []byte(c.text))
		if err == nil {
			t.Errorf("%q was taken", c.text)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: got\n%v\nwant %q in it", c.text, err, w)
			}
		}
	}
}

// TestNetworkFileReload: a changed table is taken in, and told; a damaged one is
// refused with its field and line, and what was there stays.
func TestNetworkFileReload(t *testing.T) {
	dir := t.TempDir()
	spec := geoSpec(t, dir)
	spec.Databases, spec.NetworkFiles = nil, []string{filepath.Join(dir, "own.yml")}
	write(t, dir, "own.yml", "networks: [{prefix: 10.1.0.0/16, country: DE}]\n")
	g := serving(t, spec)
	site := func() string {
		t.Helper()
		a := netip.MustParseAddr("10.1.2.3")
		e, err := g.explain("gw.vpn.example.com", geo.Client{Addr: a, Resolver: a})
		if err != nil {
			t.Fatal(err)
		}
		return e.Tiers[0][0].Name
	}
	if got := site(); got != "berlin" {
		t.Fatalf("got %s", got)
	}
	write(t, dir, "own.yml", "networks: [{prefix: 10.1.0.0/16, country: Great Britain}]\n")
	_, err := g.build(t.Context(), spec)
	var field *plugins.FieldError
	if !errors.As(err, &field) || field.Path != "geo.network_files[0]" || !strings.Contains(err.Error(), "own.yml:1:") {
		t.Errorf("a damaged table: %v", err)
	}
	if got := site(); got != "berlin" {
		t.Errorf("after a damaged table: %s", got)
	}
	write(t, dir, "own.yml", "networks: [{prefix: 10.1.0.0/16, country: GB}]\n")
	b, err := g.build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if list := g.changes(b); len(list) != 1 || list[0].Kind != "network file" {
		t.Errorf("changes %+v", list)
	}
	if err := g.apply(b); err != nil {
		t.Fatal(err)
	}
	if got := site(); got != "london" {
		t.Errorf("after the change: %s", got)
	}
}

// FuzzNetworkFile: no table makes the program fail, whatever is in it.
func FuzzNetworkFile(f *testing.F) {
	f.Add([]byte("networks:\n  - {prefix: 10.1.0.0/16, name: plant, country: GB, latitude: 51.5, longitude: -0.1}\n"))
	f.Add([]byte("networks: [{prefix: '2001:db8::/32', asn: 64500, subdivision: US-WA, continent: NA}]"))
	f.Add([]byte("networks: &a [*a]"))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseNetworks("own.yaml", b)
		if err == nil {
			if _, err = geo.NewNetworks(list...); err != nil {
				t.Fatalf("taken, and of no use: %v", err)
			}
		}
	})
}

// TestCookieSecretReload: a new secret is taken in without a restart, and told; a
// damaged one is refused.
func TestCookieSecretReload(t *testing.T) {
	dir := t.TempDir()
	spec := geoSpec(t, dir)
	spec.Databases, spec.CookieSecretFile = nil, filepath.Join(dir, "cookies")
	one, two := strings.Repeat("1", 32), strings.Repeat("2", 32)
	write(t, dir, "cookies", one+"\n")
	g := serving(t, spec)
	for text, want := range map[string]string{"12\n": "line 1", one + "\n" + "xyz\n": "line 2", "": "empty"} {
		write(t, dir, "cookies", text)
		_, err := g.build(t.Context(), spec)
		var field *plugins.FieldError
		if !errors.As(err, &field) || field.Path != "geo.cookie_secret_file" || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), one) {
			t.Errorf("%d octets: %v", len(text), err)
		}
	}
	write(t, dir, "cookies", two+"\n"+one+"\n")
	b, err := g.build(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if list := g.changes(b); len(list) != 1 || list[0].Kind != "secret of cookies" || strings.Contains(list[0].Effect, two) {
		t.Errorf("changes %+v", list)
	}
	if err := g.apply(b); err != nil {
		t.Fatal(err)
	}
}
