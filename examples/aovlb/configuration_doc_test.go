package main

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestConfigurationHasEveryField: each field of the schema is named, as code, on the
// page about the file; those of geo in the section about it.
func TestConfigurationHasEveryField(t *testing.T) {
	var schema struct {
		Properties map[string]json.RawMessage `json:"properties"`
		Defs       map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"$defs"`
	}
	b, err := os.ReadFile("aovlb.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	all := string(page)
	_, geo, ok := strings.Cut(all, "\n## geo\n")
	if !ok {
		t.Fatal("docs/configuration.md has no section about geo")
	}
	fields := 0
	has := func(where, text string, list map[string]json.RawMessage) {
		for _, name := range slices.Sorted(maps.Keys(list)) {
			if fields++; !named(text, name) {
				t.Errorf("docs/configuration.md doesn't name %s, of %s", name, where)
			}
		}
	}
	has("the file", all, schema.Properties)
	for _, def := range slices.Sorted(maps.Keys(schema.Defs)) {
		text := all
		if strings.HasPrefix(def, "Geo") {
			text = geo
		}
		has(def, text, schema.Defs[def].Properties)
	}
	if fields < 200 {
		t.Errorf("the schema has only %d fields", fields)
	}
}

// named reports whether a page has a field as code: by itself, with what it is in,
// or in an example of YAML.
func named(page, field string) bool {
	for _, s := range []string{"`" + field + "`", "." + field + "`", "`" + field + ":", "{" + field + ":", ", " + field + ":", "\n" + field + ":", " " + field + ": ", "- " + field + ":", " " + field + ":\n"} {
		if strings.Contains(page, s) {
			return true
		}
	}
	return false
}
