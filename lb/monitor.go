package lb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The defaults of a Check.
const (
	DefaultInterval = 5 * time.Second
	DefaultTimeout  = 2 * time.Second
	DefaultRise     = 2
	DefaultFall     = 3
)

// A Check says how, and how often, a backend is asked whether it serves.
type Check struct {
	// Name identifies the check within its Monitor.
	Name string
	// Prober asks. It must not be nil.
	Prober Prober
	// Port is where the backend is asked.
	Port uint16
	// Interval is the time between probes, give or take a tenth; 0 means
	// DefaultInterval.
	Interval time.Duration
	// Timeout bounds one probe; 0 means DefaultTimeout.
	Timeout time.Duration
	// Rise is how many probes in a row must succeed before a failed check
	// passes again; 0 means DefaultRise.
	Rise int
	// Fall is how many in a row must fail before a passing check fails; 0
	// means DefaultFall. The first probe of a backend decides alone.
	Fall int
	// Advisory keeps the check from bringing a backend down: it is only
	// reported.
	Advisory bool
}

// Need says how many of a backend's checks must pass.
type Need uint8

const (
	// NeedAll has a backend up while all of its checks pass.
	NeedAll Need = iota
	// NeedAny has it up while one of them passes.
	NeedAny
)

// A Monitor asks every backend of a Pool whether it truly serves, and marks it.
// Until its first probe is answered, a backend counts as up.
type Monitor struct {
	// Pool is what is watched. It must not be nil.
	Pool *Pool
	// Checks are made of every backend.
	Checks []Check
	// Need says how many of the checks must pass.
	Need Need
	// Logger hears when a check changes; nil is silent.
	Logger *slog.Logger
	// Probed, if not nil, is called after each probe, from its goroutine.
	Probed func(backend, check string, took time.Duration, err error)

	mu       sync.Mutex // below
	backends map[ID]*watched
}

// watched is what is known of one backend.
type watched struct {
	name    string
	checks  []*checkState
	suspect Failure
	stop    context.CancelFunc
	marked  State
	once    bool // marked has been said to the Pool
}

// checkState is one Check of one backend.
type checkState struct {
	check  Check
	now    chan struct{} // asks for a probe at once
	status CheckStatus
	run    int // results in a row that differ from status.Passing
}

// A Failure is an error and its time.
type Failure struct {
	// Err is the error's text, shortened if it is long.
	Err string `json:"error,omitempty"`
	// At is when it happened; zero if nothing has.
	At time.Time `json:"at,omitzero"`
}

// A CheckStatus says how a check of a backend stands.
type CheckStatus struct {
	// Name is the check's, Target is what is asked.
	Name   string         `json:"check"`
	Target netip.AddrPort `json:"target"`
	// Known is false until the first probe has been answered or has failed.
	Known bool `json:"known"`
	// Passing is the state after Rise and Fall, Advisory that it doesn't
	// count.
	Passing  bool `json:"passing"`
	Advisory bool `json:"advisory,omitempty"`
	// Last is how long the last probe took, At when it ended.
	Last time.Duration `json:"last_ns"`
	At   time.Time     `json:"at,omitzero"`
	// Failure is the last failure there was, even if it is over.
	Failure Failure `json:"failure,omitzero"`
	// Probes and Failures count.
	Probes   uint64 `json:"probes"`
	Failures uint64 `json:"failures"`
}

// A BackendStatus says what a Monitor knows of a backend.
type BackendStatus struct {
	// Backend is its name.
	Backend string `json:"backend"`
	// Checks are how its checks stand, in the order of Monitor.Checks.
	Checks []CheckStatus `json:"checks"`
	// Suspect is what was last heard of it without asking; see
	// [Monitor.Suspect].
	Suspect Failure `json:"suspect,omitzero"`
}

// Run probes until ctx is done, and returns its cause. Backends that the Pool
// gains or loses meanwhile are followed.
func (mo *Monitor) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for {
		changed := mo.Pool.Changed()
		mo.follow(ctx, &wg)
		select {
		case <-changed:
		case <-ctx.Done():
			mo.mu.Lock()
			mo.backends = nil
			mo.mu.Unlock()
			return context.Cause(ctx)
		}
	}
}

// follow starts and ends probing as the Pool's backends say.
func (mo *Monitor) follow(ctx context.Context, wg *sync.WaitGroup) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	view := mo.Pool.View()
	for id, w := range mo.backends {
		if view.Member(id) == nil {
			w.stop()
			delete(mo.backends, id)
		}
	}
	if mo.backends == nil {
		mo.backends = make(map[ID]*watched)
	}
	for _, m := range view.Members {
		if mo.backends[m.ID] != nil {
			continue
		}
		ctx, stop := context.WithCancel(ctx)
		w := &watched{name: m.Name, stop: stop}
		mo.backends[m.ID] = w
		for _, c := range mo.Checks {
			s := newCheckState(c, m.Addr)
			w.checks = append(w.checks, s)
			wg.Go(func() { mo.probeLoop(ctx, w, s) })
		}
	}
}

func newCheckState(c Check, addr netip.Addr) *checkState {
	c.Interval = defaultTo(c.Interval, DefaultInterval)
	c.Timeout = defaultTo(c.Timeout, DefaultTimeout)
	c.Rise = defaultTo(c.Rise, DefaultRise)
	c.Fall = defaultTo(c.Fall, DefaultFall)
	target := netip.AddrPortFrom(addr, c.Port)
	return &checkState{
		check: c, now: make(chan struct{}, 1),
		status: CheckStatus{Name: c.Name, Target: target, Passing: true, Advisory: c.Advisory},
	}
}

// probeLoop probes one backend by one check. While results don't agree with the
// state, probes come three times as often.
func (mo *Monitor) probeLoop(ctx context.Context, w *watched, s *checkState) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.now:
			// However much is suspected, a backend isn't asked more than
			// three times per interval.
			timer.Reset(max(0, s.check.Interval/3-time.Since(last)))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		last = time.Now()
		err := mo.probe(ctx, w, s)
		if ctx.Err() != nil {
			return
		}
		wait := s.check.Interval
		if !mo.judge(w, s, time.Since(last), err) {
			wait /= 3
		}
		jitter := time.Duration(float64(wait) * (rand.Float64() - 0.5) / 5)
		timer.Reset(max(0, wait+jitter-time.Since(last)))
	}
}

func (mo *Monitor) probe(ctx context.Context, w *watched, s *checkState) error {
	pctx, cancel := context.WithTimeout(ctx, s.check.Timeout)
	defer cancel()
	begin := time.Now()
	err := s.check.Prober.Probe(pctx, s.status.Target)
	if mo.Probed != nil && ctx.Err() == nil {
		mo.Probed(w.name, s.check.Name, time.Since(begin), err)
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %v: %w", s.check.Timeout, err)
	}
	return &ProbeError{Backend: w.name, Check: s.check.Name, Target: s.status.Target, Err: err}
}

// judge takes a result in, and reports whether the check is settled.
func (mo *Monitor) judge(w *watched, s *checkState, took time.Duration, err error) bool {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	s.status.Probes++
	s.status.Last, s.status.At = took, time.Now()
	ok := err == nil
	if !ok {
		s.status.Failures++
		s.status.Failure = Failure{Err: causeText(err), At: s.status.At}
	}
	need := s.check.Fall
	if ok {
		need = s.check.Rise
	}
	switch {
	case ok == s.status.Passing:
		s.run = 0
	case !s.status.Known:
		s.run = need
	default:
		s.run++
	}
	s.status.Known = true
	if s.run >= need {
		s.run, s.status.Passing = 0, ok
		mo.logChange(w, s, err)
	}
	mo.mark(w)
	return s.run == 0
}

// causeText is what of a probe's error is kept and shown.
func causeText(err error) string {
	const most = 300
	var pe *ProbeError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	text := err.Error()
	if len(text) > most {
		text = text[:most] + "…"
	}
	return text
}

func (mo *Monitor) logChange(w *watched, s *checkState, err error) {
	if mo.Logger == nil {
		return
	}
	if s.status.Passing {
		mo.Logger.Info("check passes", "backend", w.name, "check", s.check.Name, "target", s.status.Target)
		return
	}
	mo.Logger.Warn("check fails", "backend", w.name, "check", s.check.Name, "target", s.status.Target, "cause", causeText(err))
}

// mark tells the Pool what the checks of w say together. mo.mu is held.
func (mo *Monitor) mark(w *watched) {
	state, cause := Up, ""
	counted, passing := 0, 0
	for _, s := range w.checks {
		switch {
		case s.status.Advisory:
		case s.status.Passing:
			counted, passing = counted+1, passing+1
		default:
			counted++
			if cause == "" {
				cause = "check " + s.check.Name + ": " + s.status.Failure.Err
			}
		}
	}
	if passing < counted && (mo.Need == NeedAll || passing == 0) {
		state = Down
	} else {
		cause = ""
	}
	if w.once && w.marked == state {
		return
	}
	w.marked, w.once = state, true
	// The backend may have left the Pool meanwhile: then nobody cares.
	_ = mo.Pool.Mark(w.name, state, cause)
}

// Suspect says that something bad was heard of a backend without asking, such
// as an ICMP error or a refused connection: its checks are made at once instead
// of in their time, so that a dead port is noticed before the next interval. It
// doesn't block and may be called for every such event.
func (mo *Monitor) Suspect(backend string, err error) {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	for _, w := range mo.backends {
		if w.name != backend {
			continue
		}
		w.suspect = Failure{Err: causeText(err), At: time.Now()}
		for _, s := range w.checks {
			select {
			case s.now <- struct{}{}:
			default:
			}
		}
	}
}

// Status returns what is known of each backend, by name.
func (mo *Monitor) Status() []BackendStatus {
	mo.mu.Lock()
	defer mo.mu.Unlock()
	out := make([]BackendStatus, 0, len(mo.backends))
	for _, w := range mo.backends {
		b := BackendStatus{Backend: w.name, Suspect: w.suspect}
		for _, s := range w.checks {
			b.Checks = append(b.Checks, s.status)
		}
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b BackendStatus) int { return cmp.Compare(a.Backend, b.Backend) })
	return out
}
