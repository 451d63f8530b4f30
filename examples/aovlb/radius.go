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
	printRADIUSFailures(w, proxies)
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
	for _, l := range m.driver.Listeners() {
		if l.RADIUS == nil {
			continue
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
