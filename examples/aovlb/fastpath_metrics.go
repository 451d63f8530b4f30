package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/plugins"
)

// fastPathMetrics collects what the kernel carries, what it leaves, and why; nothing
// if no fast path was asked for.
type fastPathMetrics struct {
	stats func(context.Context) (*plugins.Stats, error)
}

var (
	descFastActive = prometheus.NewDesc("aovlb_fastpath_active",
		"1 while there is a fast path, 0 while this program carries everything, as \"aovlb status\" says why.", nil, nil)
	descFastDevice = prometheus.NewDesc("aovlb_fastpath_attached",
		"1 for each network device whose packets it takes, and where.", []string{"device", "hook"}, nil)
	descFastFlows   = prometheus.NewDesc("aovlb_fastpath_flows", "Flows that the kernel carries now.", nil, nil)
	descFastWaiting = prometheus.NewDesc("aovlb_fastpath_waiting", "Those of them that an earlier process left, and that this one has not gone on with yet.", nil, nil)
	descFastMost    = prometheus.NewDesc("aovlb_fastpath_max_flows", "How many flows it can carry.", nil, nil)
	descFastRefused = prometheus.NewDesc("aovlb_fastpath_refused_total",
		"Times that a flow was not taken: full (max_flows), or failed (there was no place, as too many had come and gone within a moment).", []string{"reason"}, nil)
	descFastLeft = prometheus.NewDesc("aovlb_fastpath_left_total",
		"Packets that were left to this program, by reason.", []string{"reason"}, nil)
	descFastDropped = prometheus.NewDesc("aovlb_fastpath_dropped_total",
		"First messages of new clients that were dropped, as more came than first_messages lets through.", nil, nil)
	descFastPackets = prometheus.NewDesc("aovlb_fastpath_packets_total",
		"Packets of a listener both ways, by who carried them: kernel, program.", []string{"group", "listener", "by"}, nil)
	descFastBytes = prometheus.NewDesc("aovlb_fastpath_bytes_total",
		"Bytes of a listener both ways, likewise.", []string{"group", "listener", "by"}, nil)
)

// Describe says what Collect collects.
func (fastPathMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descFastActive, descFastDevice, descFastFlows, descFastWaiting, descFastMost, descFastRefused, descFastLeft,
		descFastDropped, descFastPackets, descFastBytes,
	} {
		ch <- d
	}
}

// Collect reads the driver.
func (m fastPathMetrics) Collect(ch chan<- prometheus.Metric) {
	s, err := m.stats(context.Background())
	if err != nil || s.FastPath == nil {
		return
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	f := s.FastPath
	if !f.Active {
		gauge(descFastActive, 0)
		return
	}
	gauge(descFastActive, 1)
	for device, hook := range f.Attached {
		gauge(descFastDevice, 1, device, hook)
	}
	gauge(descFastFlows, f.Flows)
	gauge(descFastWaiting, f.Waiting)
	gauge(descFastMost, f.MaxFlows)
	counter(descFastRefused, f.Full, "full")
	counter(descFastRefused, f.Failed, "failed")
	for _, why := range fastpath.Reasons() {
		counter(descFastLeft, f.Left[why], word(why))
	}
	counter(descFastDropped, f.Dropped)
	for i := range s.Listeners {
		l := &s.Listeners[i]
		if l.Carried == nil || l.In == nil || l.Out == nil {
			continue
		}
		counter(descFastPackets, l.Carried.Packets, l.Group, l.Name, "kernel")
		counter(descFastBytes, l.Carried.Bytes, l.Group, l.Name, "kernel")
		// What is carried is counted in moments of its own, so it may be ahead.
		counter(descFastPackets, others(l.In.Packets+l.Out.Packets, l.Carried.Packets), l.Group, l.Name, "program")
		counter(descFastBytes, others(l.In.Bytes+l.Out.Bytes, l.Carried.Bytes), l.Group, l.Name, "program")
	}
}

func others(all, some uint64) uint64 { return max(all, some) - some }
