// Package lbotel offers the counters of balancers and engines as OpenTelemetry
// metrics.
//
// Nothing is measured twice: the packet path counts with atomics, and what is
// registered here reads them when metrics are collected, which costs the path
// nothing. The package uses the OpenTelemetry API only; which SDK and exporter
// stand behind the Meter is the program's affair.
//
// It doesn't know the engines. A program says how to read each listener by a
// function that returns [Traffic]:
//
//	exporter := &lbotel.Exporter{
//		Meter:  provider.Meter("github.com/aovlb/aovlb/lb/lbotel"),
//		Groups: func() []lbotel.Group { return []lbotel.Group{{Name: "vpn", Balancer: balancer}} },
//		Listeners: func() []lbotel.Listener {
//			return []lbotel.Listener{{Group: "vpn", Name: "sstp", Transport: "tcp", Read: func() lbotel.Traffic {
//				s := engine.Stats()
//				…
//			}}}
//		},
//	}
//	registration, err := exporter.Register()
//
// Groups and Listeners are called at each collection, so a program that changes
// its configuration has nothing to register anew.
//
// docs/metrics.md lists all metrics; a test holds it against this package.
package lbotel
