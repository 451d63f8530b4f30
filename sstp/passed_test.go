package sstp_test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/sstp"
)

// TestPassed: of a connection that is passed through unopened, its end is all that
// can be judged.
func TestPassed(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct {
		name  string
		quiet time.Duration
		c     lb.Carried
		want  sstp.Finding
		says  string
	}{
		{"it ends while bytes move", time.Millisecond, lb.Carried{End: "done", First: "client"}, sstp.FindingNone, "the client ended it, 0s after the last byte"},
		{"an idle timeout before the client", 4 * time.Minute, lb.Carried{End: "done", First: "client"}, sstp.FindingIdle, "by the client 4m0s after"},
		{"one that resets, at the gateway's side", 30 * time.Second, lb.Carried{End: "reset", First: "backend", Err: syscall.ECONNRESET}, sstp.FindingIdle, "by the gateway 30s after"},
		{"an odd silence", 41700 * time.Millisecond, lb.Carried{End: "done", First: "client"}, sstp.FindingNone, "41.7s after the last byte"},
		{"a reset while bytes move", 0, lb.Carried{End: "reset", First: "client", Err: syscall.ECONNRESET}, sstp.FindingNone, "the client ended it"},
		{"the balancer's own idle timeout", 5 * time.Minute, lb.Carried{End: "idle"}, sstp.FindingIdle, "ended by the balancer 5m0s after"},
		{"the gateway is taken out of service", 30 * time.Second, lb.Carried{End: "backend_down"}, sstp.FindingBalancer, "gateway ras1 went down"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.c.Sent, tc.c.Received = 10, 20
			s := sstp.Passed(lb.Flow{Client: netip.MustParseAddrPort("203.0.113.7:4711")}, "ras1", start, time.Hour, tc.quiet, tc.c)
			what, fix := s.Explain()
			if s.Finding != tc.want || !strings.Contains(what, tc.says) || (fix != "") != (tc.want == sstp.FindingIdle) {
				t.Errorf("%v: %s; %s\nwant %v: %s", s.Finding, what, fix, tc.want, tc.says)
			}
			if s.Mode != sstp.ModePassthrough || s.Stage != sstp.StageOpaque || s.Backend != "ras1" || s.Sent != 10 || s.Received != 20 ||
				!s.Start.Equal(start) || s.Took(time.Time{}) != time.Hour {
				t.Errorf("session %+v", s)
			}
			var all sstp.Sessions
			all.Add(s)
			if c := all.Counts(); len(c) != 1 || c[0] != (sstp.Count{Backend: "ras1", Finding: tc.want, N: 1}) {
				t.Errorf("counts %+v", c)
			}
		})
	}
}
