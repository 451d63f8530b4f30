package gslb

import (
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// TestAlone has a method that counts for nothing named, and no other.
func TestAlone(t *testing.T) {
	for method, want := range map[string]bool{"": false, "round-robin": false, "first": false, "weighted": true, "hash": true, "all": true} {
		for _, by := range [][]string{nil, {"country"}} {
			var a Advice
			a.Alone(&Name{Path: "geo.names[0]", Spec: &plugins.GeoName{Method: method}, By: by})
			said := len(a) == 1 && a[0].Severity == plugins.SeverityWarning && a[0].Path == "geo.names[0].method"
			if said != (want && by != nil) || !said && len(a) > 0 {
				t.Errorf("method %q, by %v: %v", method, by, a)
			}
		}
	}
}
