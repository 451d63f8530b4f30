package lbotel_test

import (
	"context"
	"fmt"
	"net/netip"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/lbotel"
	"github.com/aovlb/aovlb/lb/tcp"
)

// streams says how an engine for streams is read.
func streams(e *tcp.Engine) func() lbotel.Traffic {
	return func() lbotel.Traffic {
		s := e.Stats()
		out := &lbotel.Streams{
			Open: s.Open, Sniffing: s.Sniffing, Accepted: s.Accepted, Opened: s.Opened, Retries: s.Retried,
		}
		for why, n := range s.Refused {
			out.Refused = append(out.Refused, lbotel.Count{Reason: tcp.Refusal(why).String(), N: n})
		}
		for how, n := range s.Ended {
			out.Closed = append(out.Closed, lbotel.Count{Reason: tcp.End(how).String(), N: n})
		}
		return lbotel.Traffic{
			ClientBytes: s.Sent, BackendBytes: s.Received, Unreachable: s.Unreachable,
			Errors:  []lbotel.Count{{Reason: "accept", N: s.AcceptErrors}},
			Streams: out,
		}
	}
}

// A balancer and its engine become metrics. A program would have an exporter
// where this has a reader.
func ExampleExporter() {
	pool := new(lb.Pool)
	pool.Set(lb.Backend{Name: "ras1", Addr: netip.MustParseAddr("10.0.0.1")})
	balancer := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	engine := &tcp.Engine{Balancer: balancer}

	reader := sdk.NewManualReader()
	exporter := &lbotel.Exporter{
		Meter:  sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("example"),
		Groups: func() []lbotel.Group { return []lbotel.Group{{Name: "vpn", Balancer: balancer}} },
		Listeners: func() []lbotel.Listener {
			return []lbotel.Listener{{Group: "vpn", Name: "sstp", Transport: "tcp", Read: streams(engine)}}
		},
	}
	registration, err := exporter.Register()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer registration.Unregister()

	var out metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &out); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range out.ScopeMetrics[0].Metrics {
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "aovlb.backend.status" {
			for _, p := range sum.DataPoints {
				if state, _ := p.Attributes.Value("aovlb.backend.state"); p.Value == 1 {
					fmt.Println("ras1 is", state.AsString())
				}
			}
		}
	}
	// Output:
	// ras1 is up
}
