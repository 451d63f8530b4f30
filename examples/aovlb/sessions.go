package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/sstp"
)

var sessionsCommand = command{
	name: "sessions", usage: "[--json] [--problems] [-n N]", short: "the last sessions of SSTP, and why they ended", run: runSessions,
}

// Sessions is what GET /v1/sessions returns.
type Sessions struct {
	// Sessions are the latest: those that last first.
	Sessions []builtin.Session `json:"sessions"`
	// Counts say how often something was found since the program began.
	Counts []builtin.SessionCount `json:"counts"`
}

const defaultSessions = 20

func runSessions(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("sessions", flag.ContinueOnError)
	r := env.flags(fs)
	asJSON := fs.Bool("json", false, "print JSON")
	problems := fs.Bool("problems", false, "only those that have ended for a reason worth knowing")
	n := fs.Int("n", defaultSessions, "how many, 0 for all that are kept")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	q := url.Values{"n": {strconv.Itoa(*n)}}
	if *problems {
		q.Set("problems", "true")
	}
	if *asJSON {
		var raw any
		if err := r.call(ctx, "GET", "/v1/sessions?"+q.Encode(), nil, &raw); err != nil {
			return err
		}
		return printJSON(env.stdout, raw)
	}
	var told sessionsText
	if err := r.call(ctx, "GET", "/v1/sessions?"+q.Encode(), nil, &told); err != nil {
		return err
	}
	told.problems = *problems
	printSessions(env.stdout, &told, time.Now())
	return nil
}

// sessionsText is of Sessions what is shown to people, with words as they come.
type sessionsText struct {
	Sessions []struct {
		Client, Backend, Mode, Stage, Finding, Correlation, What, Fix string

		Start, End time.Time
	}
	Counts []struct {
		Pool, Backend, Finding string
		N                      uint64
	}
	problems bool // only those were asked for
}

func printSessions(w io.Writer, s *sessionsText, now time.Time) {
	switch {
	case len(s.Sessions) > 0:
	case s.problems:
		fmt.Fprintln(w, "no session had a problem")
	default:
		fmt.Fprintln(w, "no session yet")
	}
	for _, x := range s.Sessions {
		end, took := "lasts", now.Sub(x.Start)
		if !x.End.IsZero() {
			end, took = "ended "+ago(x.End)+" ago", x.End.Sub(x.Start)
		}
		fmt.Fprintf(w, "%s at %s, %s, %s after %s", x.Client, orNone(x.Backend), x.Mode, end, round(took))
		if x.Finding != sstp.FindingNone.String() {
			fmt.Fprintf(w, ": %s", x.Finding)
		}
		fmt.Fprintf(w, "\n  %s\n", printableLine(x.What))
		if x.Fix != "" {
			fmt.Fprintf(w, "  to do: %s\n", printableLine(x.Fix))
		}
		if x.Correlation != "" {
			fmt.Fprintf(w, "  CoId=%s\n", printable(x.Correlation))
		}
	}
	if len(s.Counts) == 0 {
		return
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POOL\tGATEWAY\tFOUND\tSESSIONS")
	for _, c := range s.Counts {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", c.Pool, orNone(c.Backend), strings.ReplaceAll(c.Finding, "none", "nothing"), c.N)
	}
	t.Flush()
}

func round(d time.Duration) time.Duration {
	if d < time.Minute {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

func (s *server) handleSessions(w http.ResponseWriter, r *http.Request) {
	n := defaultSessions
	if text := r.URL.Query().Get("n"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 0 {
			reply(w, http.StatusBadRequest, problem{Error: "n is not a number of sessions"})
			return
		}
	}
	reply(w, http.StatusOK, Sessions{
		Sessions: s.driver.Sessions(n, r.URL.Query().Get("problems") == "true"), Counts: s.driver.SessionCounts(),
	})
}

// sessionMetrics collects what was found in sessions of SSTP, and what listeners
// do that end TLS.
type sessionMetrics struct{ driver *builtin.Driver }

var (
	descSessions = prometheus.NewDesc("aovlb_sstp_sessions_total",
		"Sessions of SSTP that have ended, by what was found.", []string{"pool", "backend", "finding"}, nil)
	descHandshakes = prometheus.NewDesc("aovlb_sstp_handshakes_total",
		"TLS handshakes with clients, by how they ended: done, resumed, failed, limited.", []string{"group", "listener", "result"}, nil)
	descRequests = prometheus.NewDesc("aovlb_sstp_requests_total",
		"Connections by what they asked for: tunnel, probe, ip_https, web, not_found, null_cipher, acme.", []string{"group", "listener", "kind"}, nil)
	descWaiting = prometheus.NewDesc("aovlb_sstp_pending",
		"Connections whose request isn't there yet.", []string{"group", "listener"}, nil)
)

// Describe says what Collect collects.
func (sessionMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSessions, descHandshakes, descRequests, descWaiting} {
		ch <- d
	}
}

// Collect reads the driver.
func (m sessionMetrics) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for _, c := range m.driver.SessionCounts() {
		counter(descSessions, c.N, c.Pool, c.Backend, c.Finding.String())
	}
	for _, l := range m.driver.Listeners() {
		if l.SSTP == nil {
			continue
		}
		s := l.SSTP.Stats()
		for _, x := range []struct {
			result string
			n      uint64
		}{{"done", s.Handshakes - s.Resumed}, {"resumed", s.Resumed}, {"failed", s.Failed}, {"limited", s.Limited}} {
			counter(descHandshakes, x.n, l.Group, l.Name, x.result)
		}
		for _, x := range []struct {
			kind string
			n    uint64
		}{
			{"tunnel", s.Tunnels},
			{"probe", s.Probes},
			{"ip_https", s.IPHTTPS},
			{"web", s.Web},
			{"not_found", s.NotFound},
			{"null_cipher", s.Null},
			{"acme", s.ACME},
		} {
			counter(descRequests, x.n, l.Group, l.Name, x.kind)
		}
		ch <- prometheus.MustNewConstMetric(descWaiting, prometheus.GaugeValue, float64(s.Pending), l.Group, l.Name)
	}
}
