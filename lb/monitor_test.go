package lb

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// health is a Prober whose answers a test sets.
type health struct {
	mu    sync.Mutex
	err   map[netip.AddrPort]error
	asked map[netip.AddrPort]int
}

func (h *health) Probe(ctx context.Context, at netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asked == nil {
		h.asked = make(map[netip.AddrPort]int)
	}
	h.asked[at]++
	if err := h.err[at]; err != errHang {
		return err
	}
	h.mu.Unlock()
	<-ctx.Done()
	h.mu.Lock()
	return ctx.Err()
}

func (h *health) set(at string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = make(map[netip.AddrPort]error)
	}
	h.err[netip.MustParseAddrPort(at)] = err
}

func (h *health) count(at string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked[netip.MustParseAddrPort(at)]
}

var (
	errHang = errors.New("hang")
	errSick = errors.New("503 Service Unavailable")
)

// monitored runs f while a Monitor with these checks watches backends a and b at
// 10.0.1.11 and .12, in virtual time.
func monitored(t *testing.T, mo *Monitor, f func(p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := new(Pool)
		p.Set(backends("a", "b")...)
		mo.Pool = p
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- mo.Run(ctx) }()
		synctest.Wait()
		f(p)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestMonitorRiseFall(t *testing.T) {
	var h health
	mo := &Monitor{Checks: []Check{{Name: "ike", Prober: &h, Port: 500, Interval: 9 * time.Second, Rise: 2, Fall: 3}}}
	monitored(t, mo, func(p *Pool) {
		state := func(want State) {
			t.Helper()
			synctest.Wait()
			if got := p.View().ByName("a").State; got != want {
				t.Errorf("a is %v, want %v", got, want)
			}
		}
		const at = "10.0.1.11:500"
		// probes lets n more probes be made, and returns how long that took.
		probes := func(n int) time.Duration {
			begin := time.Now()
			for want := h.count(at) + n; h.count(at) < want; synctest.Wait() {
				time.Sleep(10 * time.Millisecond)
			}
			return time.Since(begin)
		}
		time.Sleep(time.Minute)
		state(Up)
		h.set(at, errSick)
		probes(2)
		state(Up)
		if d := probes(1); d < 2600*time.Millisecond || d > 3400*time.Millisecond {
			t.Errorf("a doubtful backend is asked again after %v, want a third of the interval", d)
		}
		state(Down)
		if c := p.View().ByName("a").Cause; c != "check ike: 503 Service Unavailable" {
			t.Errorf("cause %q", c)
		}
		h.set(at, nil)
		if d := probes(1); d < 8*time.Second || d > 10*time.Second {
			t.Errorf("a backend that is down is asked again after %v", d)
		}
		state(Down)
		probes(1)
		state(Up)
		if s := mo.Status(); len(s) != 2 || s[0].Backend != "a" || s[0].Checks[0].Failure.Err != errSick.Error() ||
			s[0].Checks[0].Failures < 3 || !s[1].Checks[0].Passing {
			t.Errorf("status %+v", s)
		}
	})
}

func TestMonitorFirstProbeDecides(t *testing.T) {
	var h health
	h.set("10.0.1.12:500", errHang)
	var log bytes.Buffer
	mo := &Monitor{
		Checks: []Check{{Name: "ike", Prober: &h, Port: 500, Timeout: time.Second}},
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
	}
	monitored(t, mo, func(p *Pool) {
		if p.View().ByName("b").State != Up {
			t.Error("a backend that isn't known yet is not up")
		}
		time.Sleep(1001 * time.Millisecond)
		synctest.Wait()
		if m := p.View().ByName("b"); m.State != Down || !strings.Contains(m.Cause, "no answer within 1s") {
			t.Errorf("after its first probe: %v, %q", m.State, m.Cause)
		}
	})
	if !strings.Contains(log.String(), "backend=b check=ike target=10.0.1.12:500") {
		t.Errorf("log: %s", &log)
	}
}

func TestMonitorCombines(t *testing.T) {
	for _, c := range []struct {
		name     string
		need     Need
		advisory bool
		ike, tls error
		want     State
	}{
		{"all pass", NeedAll, false, nil, nil, Up},
		{"one of all fails", NeedAll, false, nil, errSick, Down},
		{"one of any fails", NeedAny, false, nil, errSick, Up},
		{"all of any fail", NeedAny, false, errSick, errSick, Down},
		{"an advisory check fails", NeedAll, true, nil, errSick, Up},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h health
			h.set("10.0.1.11:500", c.ike)
			h.set("10.0.1.11:443", c.tls)
			mo := &Monitor{Need: c.need, Checks: []Check{
				{Name: "ike", Prober: &h, Port: 500}, {Name: "tls", Prober: &h, Port: 443, Advisory: c.advisory},
			}}
			monitored(t, mo, func(p *Pool) {
				time.Sleep(time.Second)
				synctest.Wait()
				if got := p.View().ByName("a").State; got != c.want {
					t.Errorf("a is %v, want %v", got, c.want)
				}
			})
		})
	}
}

func TestMonitorSuspect(t *testing.T) {
	var h health
	mo := &Monitor{Checks: []Check{{Name: "ike", Prober: &h, Port: 500, Interval: time.Minute, Fall: 3}}}
	monitored(t, mo, func(p *Pool) {
		time.Sleep(30 * time.Second)
		h.set("10.0.1.11:500", errSick)
		before := h.count("10.0.1.11:500")
		for range 1000 {
			mo.Suspect("a", errors.New("connection refused"))
			mo.Suspect("nobody", errSick)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if n := h.count("10.0.1.11:500") - before; n != 1 {
			t.Errorf("a thousand suspicions made %d probes, want 1 at once", n)
		}
		if s := mo.Status()[0].Suspect; s.Err != "connection refused" || s.At.IsZero() {
			t.Errorf("suspect %+v", s)
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		if p.View().ByName("a").State != Down {
			t.Error("a suspected backend that fails isn't down within its interval")
		}
	})
}

func TestMonitorFollowsPool(t *testing.T) {
	var h health
	mo := &Monitor{Checks: []Check{{Name: "ike", Prober: &h, Port: 500}}}
	monitored(t, mo, func(p *Pool) {
		p.Set(backends("b", "c", "d")...) // b is at .11 now, a has gone
		h.set("10.0.1.13:500", errSick)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if p.View().ByName("d").State != Down {
			t.Error("a backend that came later isn't probed")
		}
		if s := mo.Status(); len(s) != 3 || s[0].Checks[0].Target.String() != "10.0.1.11:500" {
			t.Errorf("status %+v", s)
		}
		n := h.count("10.0.1.12:500")
		if n < 5 {
			t.Errorf("c was asked %d times", n)
		}
	})
}
