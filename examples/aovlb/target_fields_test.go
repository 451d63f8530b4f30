package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestConfigOfTargets: each field of a file is either the deployment's, which drivers
// judge, or about targets, or about the process that serves. A new one must be thought
// of: a driver never sees it.
func TestConfigOfTargets(t *testing.T) {
	places := map[string][]string{
		"judged by drivers":      {"sites", "geo"},
		"for people":             {"name"},
		"about targets":          {"targets", "plugins"},
		"about aovlb serve":      {"site", "admin", "metrics", "state", "grace"},
		"about all of the above": {"log"},
	}
	var known []string
	for _, list := range places {
		known = append(known, list...)
	}
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				walk(f.Type)
				continue
			}
			i := slices.Index(known, name)
			if i < 0 {
				t.Errorf("%s: say whose business it is; if a balancer's, have drivers judge it", name)
				continue
			}
			known = slices.Delete(known, i, i+1)
		}
	}
	walk(reflect.TypeFor[Config]())
	if len(known) > 0 {
		t.Errorf("there are no %q any more", known)
	}
}
