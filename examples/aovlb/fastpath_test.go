package main

import (
	"strings"
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// The status says what share of the packets the kernel carries, and why not the rest; or
// why it carries none.
func TestPrintFastPath(t *testing.T) {
	for _, c := range []struct {
		name  string
		stats plugins.Stats
		want  []string
	}{
		{"none asked for", plugins.Stats{}, nil},
		{"none to be had", plugins.Stats{FastPath: &plugins.FastPathStats{Mode: plugins.FastPathAuto, Reason: "the process lacks CAP_BPF"}}, []string{
			"fast path (auto): none, this program carries everything: the process lacks CAP_BPF",
		}},
		{"all of it", plugins.Stats{
			FastPath: &plugins.FastPathStats{
				Mode: plugins.FastPathRequire, Active: true, Attached: map[string]string{"eth1": "tc", "eth0": "xdp"}, Flows: 7, MaxFlows: 10, Waiting: 2,
				Full: 3, Failed: 4, Dropped: 5, Left: map[string]uint64{"control": 6, "forwarding": 1},
			},
			Listeners: []plugins.ListenerStats{
				{Name: "ike"},
				{Name: "nat-t", In: &plugins.Traffic{Packets: 60, Bytes: 600}, Out: &plugins.Traffic{Packets: 40, Bytes: 400}, Carried: &plugins.Traffic{Packets: 90, Bytes: 950}},
			},
		}, []string{
			"fast path (require): at eth0 (xdp), eth1 (tc), 7 of 10 flows, 2 of them of before, 3 refused for lack of room (max_flows), " +
				"4 that found no place, 5 first messages dropped (first_messages)",
			"  nat-t: 90.0 % of 100 packets, 95.0 % of ",
			"  left to this program: 6 control, 1 forwarding",
			"  the kernel looks up no routes: ",
		}},
	} {
		var b strings.Builder
		printFastPath(&b, &c.stats)
		lines := strings.Split(strings.Trim(b.String(), "\n"), "\n")
		if c.want == nil {
			if b.Len() > 0 {
				t.Errorf("%s: %q", c.name, b.String())
			}
			continue
		}
		if len(lines) != len(c.want) {
			t.Errorf("%s: %d lines, want %d:\n%s", c.name, len(lines), len(c.want), b.String())
			continue
		}
		for i, want := range c.want {
			if !strings.HasPrefix(lines[i], want) {
				t.Errorf("%s: line %d is %q, want %q", c.name, i, lines[i], want)
			}
		}
	}
}
