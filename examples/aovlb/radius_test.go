package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// docs/metrics.md has the metrics of RADIUS that there are, with the same labels
// and words.
func TestRADIUSMetricsAreDocumented(t *testing.T) {
	src, err := os.ReadFile("radius.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "<!-- radius metrics -->")
	if table, _, _ = strings.Cut(table, "<!-- /radius metrics -->"); !ok {
		t.Fatal("docs/metrics.md has no table of RADIUS metrics")
	}
	labels := map[string][]string{"radiusClientLabels": radiusClientLabels, "radiusServerLabels": radiusServerLabels}
	quoted := regexp.MustCompile(`"([a-z]+)"`)
	var names []string
	for _, m := range regexp.MustCompile(`NewDesc\("([a-z_]+)", "([^"]+)", (.*), nil\)`).FindAllStringSubmatch(string(src), -1) {
		var want []string
		for name, list := range labels {
			if strings.Contains(m[3], name) {
				want = append(want, list...)
			}
		}
		for _, q := range quoted.FindAllStringSubmatch(m[3], -1) {
			want = append(want, q[1])
		}
		row := regexp.MustCompile("(?m)^\\| `" + m[1] + "` \\| (?:gauge|counter|histogram) \\| `" + strings.Join(want, "`, `") + "` \\| " + regexp.QuoteMeta(m[2]) + " \\|$")
		if !row.MatchString(table) {
			t.Errorf("no row like %v", row)
		}
		names = append(names, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)`").FindAllStringSubmatch(table, -1) {
		if !slices.Contains(names, m[1]) {
			t.Errorf("there is no %s", m[1])
		}
	}
	if len(names) < 20 {
		t.Errorf("only %d metrics found", len(names))
	}
}
