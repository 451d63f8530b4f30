package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// printHandshakes prints what became of the handshakes of IKEv2 clients.
func printHandshakes(w io.Writer, s *plugins.Stats) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	lines := 0
	for i := range s.Groups {
		g := &s.Groups[i]
		if g.IKEv2 == nil {
			continue
		}
		if lines == 0 {
			fmt.Fprintln(t, "\nIKEV2\tGATEWAY\tBEGUN\tFINISHED\tFAILED\tWEAK\tNO FRAGMENTATION\tSLOW")
		}
		for _, x := range g.IKEv2.Gateways {
			lines++
			name := x.Gateway
			if name == "" {
				name = "none"
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%d\n", g.Name, name, x.Begun, x.Finished, causes(x.Failed), x.WeakSuites, x.WithoutFragmentation, x.Slow)
		}
	}
	t.Flush()
	for i := range s.Groups {
		if ike := s.Groups[i].IKEv2; ike != nil {
			printProblems(w, ike.Problems)
		}
	}
}

// shownProblems is how many problems status prints; JSON has more.
const shownProblems = 8

func printProblems(w io.Writer, list []plugins.IKEv2Problem) {
	for i, p := range list {
		if i == shownProblems {
			fmt.Fprintf(w, "and %d more: see aovlb status --json\n", len(list)-i)
			return
		}
		if i == 0 {
			fmt.Fprintln(w)
		}
		windows := ""
		if len(p.Windows) > 0 {
			windows = " (Windows: " + strings.Join(p.Windows, ", ") + ")"
		}
		fmt.Fprintf(w, "%s ago, client %v at %s: %s: %s%s\n", ago(p.At), p.Client, orNone(p.Gateway), p.ID, p.Title, windows)
	}
}

func orNone(s string) string {
	if s == "" {
		return "no gateway"
	}
	return s
}

// causes lists how many failed why.
func causes(m map[string]uint64) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[k], k))
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// handshakeMetrics adds the metrics of IKEv2 handshakes: what lb/lbotel doesn't
// know, since it knows no protocol. docs/metrics.md lists them.
func handshakeMetrics(m metric.Meter, d *builtin.Driver) error {
	counter := func(name, what string) metric.Int64ObservableCounter {
		c, err := m.Int64ObservableCounter(name, metric.WithUnit("{handshake}"), metric.WithDescription(what))
		if err != nil {
			return nil // RegisterCallback says it
		}
		return c
	}
	begun := counter("aovlb.ikev2.handshake.begun", "IKEv2 handshakes that clients began.")
	ended := counter("aovlb.ikev2.handshake.ended", "IKEv2 handshakes that are over, by result: finished, or the finding that says why they failed.")
	weak := counter("aovlb.ikev2.handshake.weak", "Finished IKEv2 handshakes whose algorithms are weak.")
	whole := counter("aovlb.ikev2.handshake.unfragmented", "Finished IKEv2 handshakes of clients that don't announce IKE fragmentation.")
	slow := counter("aovlb.ikev2.handshake.slow", "IKEv2 handshakes in which answers took seconds.")
	_, err := m.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for name, s := range d.IKEv2() {
			for _, g := range s.Gateways {
				at := []attribute.KeyValue{attribute.String("aovlb.group.name", name), attribute.String("aovlb.backend.name", g.Gateway)}
				set := metric.WithAttributes(at...)
				o.ObserveInt64(begun, int64(g.Begun), set)
				o.ObserveInt64(weak, int64(g.WeakSuites), set)
				o.ObserveInt64(whole, int64(g.WithoutFragmentation), set)
				o.ObserveInt64(slow, int64(g.Slow), set)
				o.ObserveInt64(ended, int64(g.Finished), metric.WithAttributes(append(at, attribute.String("aovlb.reason", "finished"))...))
				for id, n := range g.Failed {
					o.ObserveInt64(ended, int64(n), metric.WithAttributes(append(slices.Clone(at), attribute.String("aovlb.reason", id))...))
				}
			}
		}
		return nil
	}, begun, ended, weak, whole, slow)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
