package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/aovlb/aovlb/plugins"
)

func TestFastPathMetrics(t *testing.T) {
	full := plugins.Stats{
		FastPath: &plugins.FastPathStats{
			Mode: plugins.FastPathAuto, Active: true, Attached: map[string]string{"eth0": "xdp"}, Flows: 7, MaxFlows: 100, Waiting: 2, Full: 3, Failed: 4, Dropped: 8,
			Left: map[string]uint64{"control": 5, "no route": 6},
		},
		Listeners: []plugins.ListenerStats{
			{Group: "vpn", Name: "ike"},
			{
				Group: "vpn", Name: "nat-t", In: &plugins.Traffic{Packets: 60, Bytes: 600}, Out: &plugins.Traffic{Packets: 40, Bytes: 400},
				Carried: &plugins.Traffic{Packets: 90, Bytes: 1001},
			},
		},
	}
	stats := &full
	m := fastPathMetrics{func(context.Context) (*plugins.Stats, error) { return stats, nil }}
	got := show(t, m)
	for _, want := range []string{
		`aovlb_fastpath_active 1`,
		`aovlb_fastpath_attached{device="eth0",hook="xdp"} 1`,
		`aovlb_fastpath_flows 7`, `aovlb_fastpath_waiting 2`, `aovlb_fastpath_max_flows 100`,
		`aovlb_fastpath_refused_total{reason="failed"} 4`, `aovlb_fastpath_refused_total{reason="full"} 3`,
		`aovlb_fastpath_dropped_total 8`, `aovlb_fastpath_left_total{reason="control"} 5`, `aovlb_fastpath_left_total{reason="no_route"} 6`, `aovlb_fastpath_left_total{reason="ttl"} 0`,
		`aovlb_fastpath_packets_total{by="kernel",group="vpn",listener="nat-t"} 90`,
		`aovlb_fastpath_packets_total{by="program",group="vpn",listener="nat-t"} 10`,
		`aovlb_fastpath_bytes_total{by="kernel",group="vpn",listener="nat-t"} 1001`,
		`aovlb_fastpath_bytes_total{by="program",group="vpn",listener="nat-t"} 0`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("there is no %s in\n%s", want, got)
		}
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	names := 0
	for line := range strings.SplitSeq(got, "\n") {
		rest, ok := strings.CutPrefix(line, "# TYPE ")
		name, kind, _ := strings.Cut(rest, " ")
		if !ok {
			continue
		}
		if names++; !strings.Contains(string(page), "| `"+name+"` | "+kind+" |") {
			t.Errorf("docs/metrics.md has no %s that is a %s", name, kind)
		}
	}
	if names != 10 {
		t.Errorf("%d metrics, want 10", names)
	}
	stats = &plugins.Stats{FastPath: &plugins.FastPathStats{Mode: plugins.FastPathAuto, Reason: "no BPF"}}
	if got := show(t, m); !strings.Contains(got, "\naovlb_fastpath_active 0\n") || strings.Count(got, "# TYPE") != 1 {
		t.Errorf("of one that is not active:\n%s", got)
	}
	stats = &plugins.Stats{}
	if got := show(t, m); got != "" {
		t.Errorf("of none:\n%s", got)
	}
}

// show returns what Prometheus would get.
func show(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != 200 {
		t.Fatal(w.Body)
	}
	return w.Body.String()
}
