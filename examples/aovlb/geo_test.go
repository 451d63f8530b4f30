package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/plugins"
)

// TestGeoWords: the model has the words of the policy as package geo has them.
func TestGeoWords(t *testing.T) {
	var orders, methods, allDowns []string
	for c := geo.Criterion(1); !strings.HasPrefix(c.String(), "criterion "); c++ {
		orders = append(orders, c.String())
	}
	for m := geo.Method(0); !strings.HasPrefix(m.String(), "method "); m++ {
		methods = append(methods, m.String())
	}
	for a := geo.AllDown(0); !strings.HasPrefix(a.String(), "all-down "); a++ {
		allDowns = append(allDowns, a.String())
	}
	for _, c := range []struct{ model, policy []string }{{plugins.GeoOrders, orders}, {plugins.GeoMethods, methods}, {plugins.GeoAllDowns, allDowns}} {
		if !slices.Equal(c.model, c.policy) || len(c.model) < 3 {
			t.Errorf("the model has %v, the policy %v", c.model, c.policy)
		}
	}
}

// TestGeoMetricsAreWritten: the page of metrics has what is collected.
func TestGeoMetricsAreWritten(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan *prometheus.Desc, 100)
	geoMetrics{}.Describe(ch)
	close(ch)
	n := 0
	for d := range ch {
		n++
		name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "`), `"`)
		if !strings.Contains(string(page), "| `"+name+"` |") {
			t.Errorf("docs/metrics.md has no %s", name)
		}
	}
	if n < 15 {
		t.Errorf("%d metrics", n)
	}
}

func TestMost(t *testing.T) {
	if got := most(map[string]uint64{"DE": 5, "": 7, "GB": 5, "US": 1, "JP": 2}, 3); got != "unknown 7, DE 5, GB 5, others 3" {
		t.Error(got)
	}
}

func TestRCodes(t *testing.T) {
	for code, want := range map[int]string{0: "noerror", 3: "nxdomain", 16: "badvers", 23: "badcookie", 99: "99"} {
		if got := rcode(code); got != want {
			t.Errorf("%d is %s, want %s", code, got, want)
		}
	}
}
