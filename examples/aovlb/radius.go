package main

import (
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/radius"
)

// printRADIUS shows what RADIUS proxies count, if there are any.
func printRADIUS(w io.Writer, s *Status) {
	var proxies []*plugins.ListenerStats
	for i := range s.Listeners {
		if s.Listeners[i].RADIUS != nil {
			proxies = append(proxies, &s.Listeners[i])
		}
	}
	if len(proxies) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nRADIUS\tSERVER\tREQUESTS\tWAITING\tACCEPTED\tREJECTED\tCHALLENGED\tACCOUNTED\tTIMEOUTS\tBAD\tP50\tP99")
	for _, l := range proxies {
		for _, v := range l.RADIUS.Servers {
			name := fmt.Sprintf("%s:%d", v.Backend, v.Port)
			if v.Shunned {
				name += " (silent: no new users)"
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", l.Name, name, v.Requests, v.Waiting, radiusCounts(&v.RADIUSAnswers, v.BadAuthenticators))
		}
	}
	fmt.Fprintln(t, "\nRADIUS\tCLIENT\tREQUESTS\tREPEATED\tACCEPTED\tREJECTED\tCHALLENGED\tACCOUNTED\tTIMEOUTS\tBAD\tP50\tP99")
	for _, l := range proxies {
		for _, c := range l.RADIUS.Clients {
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", l.Name, c.Name, c.Requests, c.Duplicates, radiusCounts(&c.RADIUSAnswers, c.BadAuthenticators))
		}
	}
	t.Flush()
	printAccounting(w, s)
	printRADIUSFailures(w, proxies)
}

// printAccounting shows what of accounting is on disk.
func printAccounting(w io.Writer, s *Status) {
	for i := range s.Groups {
		g := &s.Groups[i]
		a := g.Accounting
		if a == nil {
			continue
		}
		text := "none waits"
		if a.Waiting > 0 {
			text = fmt.Sprintf("%d wait since %s", a.Waiting, a.Oldest.Local().Format(time.DateTime))
		}
		fmt.Fprintf(w, "\naccounting of %s: %d records kept, %d delivered, %s", g.Name, a.Kept, a.Delivered, text)
		if a.Full > 0 {
			fmt.Fprintf(w, "; %d REFUSED for want of room", a.Full)
		}
		if a.SetAside > 0 {
			fmt.Fprintf(w, "; %d that no server takes are in %s", a.SetAside, a.Directory)
		}
		if a.Damaged+a.Failed > 0 {
			fmt.Fprintf(w, "; the disk FAILED or lost something %d times", a.Damaged+a.Failed)
		}
		fmt.Fprintln(w)
	}
}

func radiusCounts(a *plugins.RADIUSAnswers, bad uint64) string {
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%d\t%d\t%v\t%v", a.Accepts, a.Rejects, a.Challenges, a.Accounting, a.Timeouts, bad, a.P50, a.P99)
}

// printRADIUSFailures shows who fails most, and what is to be said of sizes.
func printRADIUSFailures(w io.Writer, proxies []*plugins.ListenerStats) {
	const most = 5
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range proxies {
		for i, f := range l.RADIUS.Failures {
			if i == 0 {
				fmt.Fprintln(t, "\nRADIUS\tFAILING USER\tTIMES\tLAST\tBY\tREASON")
			}
			if i == most {
				break
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", l.Name, f.User, f.Times, f.At.Local().Format(time.TimeOnly), f.Client, f.Reason)
		}
	}
	t.Flush()
	for _, l := range proxies {
		for _, c := range l.RADIUS.Clients {
			for _, text := range c.Advice {
				fmt.Fprintf(w, "\n%s, client %s: %s", l.Name, c.Name, text)
			}
		}
		for _, v := range l.RADIUS.Servers {
			for _, text := range v.Advice {
				fmt.Fprintf(w, "\n%s, server %s: %s", l.Name, v.Backend, text)
			}
		}
	}
}

// radiusMetrics collects what RADIUS proxies count. docs/metrics.md lists it.
type radiusMetrics struct{ driver *builtin.Driver }

var (
	radiusClientLabels = []string{"listener", "client"}
	radiusServerLabels = []string{"listener", "server", "port"}

	radiusWaiting        = prometheus.NewDesc("aovlb_radius_waiting", "Requests that wait for an answer.", []string{"listener"}, nil)
	radiusDropped        = prometheus.NewDesc("aovlb_radius_dropped_total", "Packets of clients that were not taken.", []string{"listener", "reason"}, nil)
	radiusStored         = prometheus.NewDesc("aovlb_radius_stored_total", "Accounting that was stored since no server took it.", []string{"listener"}, nil)
	radsecConnections    = prometheus.NewDesc("aovlb_radsec_connections", "Connections of clients over TLS.", []string{"listener"}, nil)
	radsecAccepted       = prometheus.NewDesc("aovlb_radsec_accepted_total", "Connections whose client is known.", []string{"listener"}, nil)
	radsecRefused        = prometheus.NewDesc("aovlb_radsec_refused_total", "Connections refused or cut, by reason.", []string{"listener", "reason"}, nil)
	radiusStoreWaiting   = prometheus.NewDesc("aovlb_radius_store_waiting", "Accounting records on disk that no server has taken.", []string{"group"}, nil)
	radiusStoreOldest    = prometheus.NewDesc("aovlb_radius_store_oldest_seconds", "How long the oldest of them waits.", []string{"group"}, nil)
	radiusStoreBytes     = prometheus.NewDesc("aovlb_radius_store_bytes", "What the records on disk take.", []string{"group"}, nil)
	radiusStoreRecords   = prometheus.NewDesc("aovlb_radius_store_records_total", "Accounting records, by what became of them.", []string{"group", "what"}, nil)
	radiusClientRequests = prometheus.NewDesc("aovlb_radius_client_requests_total", "Requests of a client.", radiusClientLabels, nil)
	radiusClientRepeats  = prometheus.NewDesc("aovlb_radius_client_duplicates_total", "Repetitions of a client's requests.", radiusClientLabels, nil)
	radiusClientBad      = prometheus.NewDesc("aovlb_radius_client_bad_authenticators_total", "Packets of a client that were wrongly signed.", radiusClientLabels, nil)
	radiusClientTimeouts = prometheus.NewDesc("aovlb_radius_client_timeouts_total", "Requests of a client that nobody answered.", radiusClientLabels, nil)
	radiusClientAnswers  = prometheus.NewDesc("aovlb_radius_client_answers_total", "Answers to a client.", append(radiusClientLabels, "code"), nil)
	radiusServerRequests = prometheus.NewDesc("aovlb_radius_server_requests_total", "Requests sent to a server.", radiusServerLabels, nil)
	radiusServerWaiting  = prometheus.NewDesc("aovlb_radius_server_waiting", "Requests that wait for a server.", radiusServerLabels, nil)
	radiusServerTimeouts = prometheus.NewDesc("aovlb_radius_server_timeouts_total", "Requests that a server left unanswered.", radiusServerLabels, nil)
	radiusServerBad      = prometheus.NewDesc("aovlb_radius_server_bad_authenticators_total", "Answers of a server that were wrongly signed.", radiusServerLabels, nil)
	radiusServerMoved    = prometheus.NewDesc("aovlb_radius_server_moved_total", "Requests that were moved away from a server.", radiusServerLabels, nil)
	radiusServerAnswers  = prometheus.NewDesc("aovlb_radius_server_answers_total", "Answers of a server.", append(radiusServerLabels, "code"), nil)
	radiusServerLatency  = prometheus.NewDesc("aovlb_radius_server_latency_seconds", "How long a server's answers took.", radiusServerLabels, nil)
)

// Describe says nothing beforehand: what there is changes with the file.
func (*radiusMetrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads the proxies.
func (m *radiusMetrics) Collect(to chan<- prometheus.Metric) {
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	answers := func(d *prometheus.Desc, a *radius.Answers, labels ...string) {
		for code, n := range map[string]uint64{"accept": a.Accepts, "reject": a.Rejects, "challenge": a.Challenges, "accounting": a.Accounting} {
			count(d, n, append(labels, code)...)
		}
	}
	m.stores(to)
	for _, l := range m.driver.Listeners() {
		if l.RADIUS == nil {
			continue
		}
		if l.RadSec != nil {
			c := l.RadSec.Stats()
			gauge(radsecConnections, c.Open, l.Name)
			count(radsecAccepted, c.Accepted, l.Name)
			for why, n := range map[string]uint64{"limit": c.Refused, "certificate": c.Failed, "framing": c.Framing, "slow": c.Slow} {
				count(radsecRefused, n, l.Name, why)
			}
		}
		s := l.RADIUS.Stats()
		gauge(radiusWaiting, s.Waiting, l.Name)
		count(radiusStored, s.Stored, l.Name)
		for why, n := range s.Dropped {
			count(radiusDropped, n, l.Name, why)
		}
		for i := range s.Clients {
			c := &s.Clients[i]
			count(radiusClientRequests, c.Requests, l.Name, c.Name)
			count(radiusClientRepeats, c.Duplicates, l.Name, c.Name)
			count(radiusClientBad, c.BadAuthenticators, l.Name, c.Name)
			count(radiusClientTimeouts, c.Timeouts, l.Name, c.Name)
			answers(radiusClientAnswers, &c.Answers, l.Name, c.Name)
		}
		for i := range s.Servers {
			v := &s.Servers[i]
			at := []string{l.Name, v.Name, strconv.Itoa(int(v.Port))}
			count(radiusServerRequests, v.Requests, at...)
			gauge(radiusServerWaiting, v.Waiting, at...)
			count(radiusServerTimeouts, v.Timeouts, at...)
			count(radiusServerBad, v.BadAuthenticators, at...)
			count(radiusServerMoved, v.Moved, at...)
			answers(radiusServerAnswers, &v.Answers, at...)
			to <- prometheus.MustNewConstHistogram(radiusServerLatency, v.Latency.Count(), v.Latency.Sum.Seconds(), buckets(&v.Latency), at...)
		}
	}
}

// stores collects what is kept of accounting.
func (m *radiusMetrics) stores(to chan<- prometheus.Metric) {
	for group, a := range m.driver.Accounting() {
		gauge := func(d *prometheus.Desc, v float64) {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, group)
		}
		age := 0.
		if a.Waiting > 0 {
			age = time.Since(a.Oldest).Seconds()
		}
		gauge(radiusStoreWaiting, float64(a.Waiting))
		gauge(radiusStoreOldest, age)
		gauge(radiusStoreBytes, float64(a.Bytes))
		for what, n := range map[string]uint64{
			"kept": a.Kept, "delivered": a.Delivered, "repeated": a.Repeated, "full": a.Full,
			"set aside": a.SetAside, "damaged": a.Damaged, "failed": a.Failed,
		} {
			to <- prometheus.MustNewConstMetric(radiusStoreRecords, prometheus.CounterValue, float64(n), group, what)
		}
	}
}

// buckets returns a Histogram's counts as Prometheus wants them: each with all
// before it.
func buckets(h *radius.Histogram) map[float64]uint64 {
	out := make(map[float64]uint64)
	sum := uint64(0)
	for i, n := range h.Counts {
		sum += n
		if bound := radius.HistogramBound(i); bound > 0 {
			out[bound.Seconds()] = sum
		}
	}
	return out
}
