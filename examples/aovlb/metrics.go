package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/aovlb/aovlb/lb/lbotel"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// metrics opens the Prometheus endpoint. docs/metrics.md lists what it shows.
func (s *server) metrics(m Metrics) (net.Listener, http.Handler, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&radiusMetrics{s.driver}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registry.MustRegister(certificateMetrics{s.driver}, sessionMetrics{s.driver}, fastPathMetrics{s.driver.Stats})
	if s.geo != nil {
		registry.MustRegister(geoMetrics{s.geo})
	}
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return nil, nil, fmt.Errorf("metrics: %w", err)
	}
	provider := sdk.NewMeterProvider(sdk.WithReader(exporter))
	x := &lbotel.Exporter{
		Meter:  provider.Meter("github.com/aovlb/aovlb/lb/lbotel"),
		Groups: func() []lbotel.Group { return groups(s.driver) }, Listeners: func() []lbotel.Listener { return listeners(s.driver) },
	}
	if _, err := x.Register(); err != nil {
		return nil, nil, fmt.Errorf("metrics: %w", err)
	}
	if err := handshakeMetrics(provider.Meter("github.com/aovlb/aovlb/examples/aovlb"), s.driver); err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("tcp", m.Listen)
	if err != nil {
		return nil, nil, fmt.Errorf("metrics.listen: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return l, mux, nil
}

// groups says how the metrics of the groups are read.
func groups(d *builtin.Driver) []lbotel.Group {
	var out []lbotel.Group
	for _, g := range d.Groups() {
		out = append(out, lbotel.Group{Name: g.Name, Balancer: g.Balancer, Checks: func() []lbotel.Check { return checks(g) }})
	}
	return out
}

func checks(g builtin.Group) []lbotel.Check {
	var out []lbotel.Check
	for _, b := range g.Checks() {
		for _, c := range b.Checks {
			out = append(out, lbotel.Check{
				Backend: b.Backend, Name: c.Name, Known: c.Known, Passing: c.Passing,
				Took: c.Last, Probes: c.Probes, Failures: c.Failures,
			})
		}
	}
	return out
}

// listeners says how the metrics of the listeners are read.
func listeners(d *builtin.Driver) []lbotel.Listener {
	var out []lbotel.Listener
	for _, l := range d.Listeners() {
		m := lbotel.Listener{Group: l.Group, Name: l.Name, Transport: "tcp", Read: func() lbotel.Traffic { return streams(l.TCP) }}
		if l.RADIUS != nil {
			continue // see radiusMetrics
		}
		if l.UDP != nil {
			m.Transport, m.Read = "udp", func() lbotel.Traffic { return datagrams(l.UDP) }
		}
		out = append(out, m)
	}
	return out
}

func datagrams(e *udp.Engine) lbotel.Traffic {
	s := e.Stats()
	return lbotel.Traffic{
		ClientBytes: s.ClientBytes, BackendBytes: s.BackendBytes, Unreachable: s.Unreachable,
		Errors: []lbotel.Count{{Reason: "send", N: s.SendErrors}, {Reason: "open", N: s.OpenErrors}},
		Datagrams: &lbotel.Datagrams{
			FromClients: s.ClientPackets, FromBackends: s.BackendPackets, ToClients: s.Replied, ToBackends: s.Sent,
			Dropped: []lbotel.Count{
				{Reason: "protocol", N: s.Dropped},
				{Reason: "hidden", N: s.Hidden},
				{Reason: "no_backend", N: s.Refused},
				{Reason: "full", N: s.Full},
				{Reason: "closing", N: s.Closing},
				{Reason: "overflow", N: s.Overflow},
			},
			Unanswered: s.Unanswered, HalfOpen: s.HalfOpen, Established: s.Flows - s.Unanswered - s.HalfOpen,
			Opened: s.Opened,
			Closed: []lbotel.Count{{Reason: "expired", N: s.Expired}, {Reason: "recycled", N: s.Recycled}, {Reason: "evicted", N: s.Evicted}},
		},
	}
}

func streams(e *tcp.Engine) lbotel.Traffic {
	s := e.Stats()
	out := &lbotel.Streams{Open: s.Open, Sniffing: s.Sniffing, Accepted: s.Accepted, Opened: s.Opened, Retries: s.Retried}
	for why, n := range s.Refused {
		out.Refused = append(out.Refused, lbotel.Count{Reason: word(tcp.Refusal(why).String()), N: n})
	}
	for how, n := range s.Ended {
		out.Closed = append(out.Closed, lbotel.Count{Reason: word(tcp.End(how).String()), N: n})
	}
	return lbotel.Traffic{
		ClientBytes: s.Sent, BackendBytes: s.Received, Unreachable: s.Unreachable,
		Errors:  []lbotel.Count{{Reason: "accept", N: s.AcceptErrors}},
		Streams: out,
	}
}

// word joins the words of a reason.
func word(s string) string { return strings.ReplaceAll(s, " ", "_") }
