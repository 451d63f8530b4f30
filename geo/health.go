package geo

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnknownSite says that there is no site, or no gateway, of that name.
var ErrUnknownSite = errors.New("geo: unknown site or gateway")

// Health knows how sites are. It is where facts (Set, Mark, Report) and wishes
// (Drain, Force, FailbackNow) meet and become an immutable [View]. The zero
// Health has no sites and is ready for use; it is safe for concurrent use.
//
// Durations are measured by the monotonic clock, so that setting the wall clock
// shortens or lengthens none of them.
type Health struct {
	// HoldDown is how long a site that went down stays down at least.
	HoldDown time.Duration
	// Failback says when a site that was down is used again.
	Failback Failback
	// FailbackDelay is how long such a site must have been up with
	// FailbackDelayed.
	FailbackDelay time.Duration
	// Settle is how long a site counts as unstable after a change; 0 means
	// 5 minutes.
	Settle time.Duration
	// LoadLimit is how old a report of load may be; 0 means 1 minute.
	LoadLimit time.Duration
	// OnChange, if not nil, is called with each new View, one at a time and
	// in order. It must not call methods of the Health that change it.
	OnChange func(old, now *View)

	view atomic.Pointer[View]

	mu      sync.Mutex // below
	sites   []*siteHealth
	byName  map[string]*siteHealth
	timer   *time.Timer
	epoch   uint64
	changed chan struct{}
}

const (
	defaultSettle    = 5 * time.Minute
	defaultLoadLimit = time.Minute
)

// siteHealth is what Health knows of one site.
type siteHealth struct {
	Site
	gateways []GatewayStatus

	well      State     // what the gateways make it
	wellSince time.Time // since when
	downSince time.Time // when it last went down, while it isn't back
	away      bool      // it was down and has not returned
	release   bool      // FailbackNow was called

	admin Admin
	until time.Time

	clients  int
	reported time.Time // zero: never

	status Status // as last published
	moved  time.Time
	fails  uint64
	next   State // to be published
}

// A View is how all sites are at one moment. It is immutable.
type View struct {
	// Sites are all of them, in the order in which they were set.
	Sites []Status
	// Epoch counts the views.
	Epoch uint64
	// At is when it was made.
	At time.Time

	known bool
}

// Known reports whether every gateway has been asked, or was told about by
// [Health.Restore]: before that, a server should not answer.
func (v *View) Known() bool { return v.known }

// Site returns the Status of a site, or nil.
func (v *View) Site(name string) *Status {
	i := slices.IndexFunc(v.Sites, func(s Status) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &v.Sites[i]
}

var noSites = &View{known: true}

// View returns how the sites are now. It is never nil, and costs one atomic load.
func (h *Health) View() *View {
	if v := h.view.Load(); v != nil {
		return v
	}
	return noSites
}

// Changed returns a channel that is closed when View changes. To miss nothing,
// call Changed before View.
func (h *Health) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.changed == nil {
		h.changed = make(chan struct{})
	}
	return h.changed
}

// Set makes Health know exactly these sites. Of sites and gateways that it knows
// already, by name, it keeps what it knows. Nothing changes if a site is invalid.
func (h *Health) Set(sites ...Site) error {
	if err := Validate(sites...); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	old := h.byName
	h.sites, h.byName = nil, make(map[string]*siteHealth)
	for _, s := range sites {
		r := &siteHealth{Site: s, wellSince: now}
		r.status.Since = now
		if was := old[s.Name]; was != nil {
			*r = *was
			r.Site = s
		}
		var gateways []GatewayStatus
		for _, g := range s.Gateways {
			st := GatewayStatus{Name: g.Name, Since: now}
			if i := slices.IndexFunc(r.gateways, func(o GatewayStatus) bool { return o.Name == g.Name }); i >= 0 {
				st = r.gateways[i]
			}
			gateways = append(gateways, st)
		}
		r.gateways = gateways
		h.sites = append(h.sites, r)
		h.byName[s.Name] = r
	}
	h.publish(now)
	return nil
}

// Configure calls f with the Health locked. It is the one place where exported
// fields may be changed while it is in use; f must call nothing of the Health.
func (h *Health) Configure(f func(h *Health)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
	h.publish(time.Now())
}

// Mark tells what the checks of a gateway say. cause says why it is down.
func (h *Health) Mark(site, gateway string, state State, cause string) error {
	return h.change(site, func(s *siteHealth, now time.Time) error {
		i := slices.IndexFunc(s.gateways, func(g GatewayStatus) bool { return g.Name == gateway })
		if i < 0 {
			return fmt.Errorf("%w: site %q has no gateway %q", ErrUnknownSite, site, gateway)
		}
		g := &s.gateways[i]
		if g.State != state {
			g.State, g.Since = state, now
		}
		if g.Cause = cause; state != Down {
			g.Cause = ""
		}
		return nil
	})
}

// Report tells how many clients a site has.
func (h *Health) Report(site string, clients int) error {
	return h.change(site, func(s *siteHealth, now time.Time) error {
		s.clients, s.reported = max(0, clients), now
		return nil
	})
}

// Drain keeps new clients from a site until the time given, which a zero time
// never is. No fallback overrides it.
func (h *Health) Drain(site string, until time.Time) error {
	return h.want(site, AdminDrain, until)
}

// Force has a site count as up or down until the time given, which a zero time
// never is, whatever its checks say. Forced down, no fallback uses it.
func (h *Health) Force(site string, state State, until time.Time) error {
	switch state {
	case Up:
		return h.want(site, AdminUp, until)
	case Down:
		return h.want(site, AdminDown, until)
	case Unknown:
	}
	return fmt.Errorf("geo: a site can be forced up or down, not %v", state)
}

// Release ends Drain and Force.
func (h *Health) Release(site string) error { return h.want(site, AdminNone, time.Time{}) }

func (h *Health) want(site string, a Admin, until time.Time) error {
	return h.change(site, func(s *siteHealth, now time.Time) error {
		if !until.IsZero() && !until.After(now) {
			return fmt.Errorf("geo: site %q: %s is over already", site, until.Format(time.RFC3339))
		}
		s.admin, s.until = a, until
		return nil
	})
}

// FailbackNow has a site that was down return without more ado once its
// gateways are up, whatever Failback and HoldDown say.
func (h *Health) FailbackNow(site string) error {
	return h.change(site, func(s *siteHealth, _ time.Time) error {
		if !s.away {
			return fmt.Errorf("geo: site %q is not away", site)
		}
		s.release = true
		return nil
	})
}

func (h *Health) change(site string, f func(*siteHealth, time.Time) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.byName[site]
	if s == nil {
		return fmt.Errorf("%w: %q; there are %s", ErrUnknownSite, site, strings.Join(slices.Sorted(maps.Keys(h.byName)), ", "))
	}
	now := time.Now()
	if err := f(s, now); err != nil {
		return err
	}
	h.publish(now)
	return nil
}

// publish works out the View, and when to do so again. Its caller holds mu.
func (h *Health) publish(now time.Time) {
	var next time.Time // when something ends by itself
	wake := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, s := range h.sites {
		h.work(s, now, wake)
	}
	h.depend()
	old := h.View()
	v := &View{At: now, known: true, Epoch: h.epoch + 1}
	for _, s := range h.sites {
		h.finish(s, now, wake)
		v.Sites = append(v.Sites, s.status)
		for _, g := range s.gateways {
			v.known = v.known && (g.State != Unknown || s.admin != AdminNone)
		}
	}
	h.sleep(now, next)
	if same(old, v) && h.view.Load() != nil {
		return
	}
	h.epoch++
	h.view.Store(v)
	if h.changed != nil {
		close(h.changed)
		h.changed = nil
	}
	if h.OnChange != nil {
		h.OnChange(old, v)
	}
}

// same reports whether two views say the same of all sites.
func same(a, b *View) bool {
	return a.known == b.known && slices.EqualFunc(a.Sites, b.Sites, func(x, y Status) bool {
		gx, gy := x.Gateways, y.Gateways
		x.Gateways, y.Gateways = nil, nil
		return x.Name == y.Name && x.State == y.State && x.Admin == y.Admin && x.Until.Equal(y.Until) && x.Cause == y.Cause &&
			x.Held == y.Held && x.Unstable == y.Unstable && x.Load == y.Load && x.Since.Equal(y.Since) && slices.Equal(gx, gy)
	})
}

// sleep has publish called at a time.
func (h *Health) sleep(now, next time.Time) {
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if next.IsZero() {
		return
	}
	h.timer = time.AfterFunc(next.Sub(now), func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.publish(time.Now())
	})
}

// Close ends the timers of a Health that is no longer used.
func (h *Health) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sleep(time.Time{}, time.Time{})
}

// count returns how many gateways are up, and how many have not been asked.
func (s *siteHealth) count() (up, unknown int) {
	for _, g := range s.gateways {
		switch g.State {
		case Up:
			up++
		case Unknown:
			unknown++
		case Down:
		}
	}
	return up, unknown
}

// work decides on a site by itself: its gateways, its way back, its
// administrator.
func (h *Health) work(s *siteHealth, now time.Time, wake func(time.Time)) {
	if !s.until.IsZero() && !s.until.After(now) {
		s.admin, s.until = AdminNone, time.Time{}
	}
	wake(s.until)
	up, unknown := s.count()
	well := Down
	switch {
	case up >= s.need():
		well = Up
	case up+unknown >= s.need():
		well = Unknown
	}
	if well != s.well {
		s.well, s.wellSince = well, now
		if well == Down {
			s.away, s.downSince, s.release = true, now, false
		}
	}
	st := &s.status
	st.Held, st.Cause = false, ""
	state := s.well
	if s.well == Down {
		st.Cause = s.why(up)
	}
	if s.away && s.well == Up {
		if why, at := h.hold(s, now); why != "" {
			state, st.Held, st.Cause = Down, true, why
			wake(at)
		} else {
			s.away, s.release = false, false
		}
	}
	switch s.admin {
	case AdminNone:
	case AdminDrain:
		st.Cause = "drained by an administrator"
	case AdminUp:
		state, st.Cause = Up, ""
	case AdminDown:
		state, st.Cause = Down, "forced down by an administrator"
	}
	s.status.Name, s.next = s.Name, state
}

func (h *Health) setState(s *siteHealth, state State, now time.Time) {
	if s.status.State != state {
		if s.status.State != Unknown {
			s.moved = now
		}
		if state == Down && s.status.State == Up {
			s.fails++
		}
		s.status.State, s.status.Since = state, now
	}
}

// hold returns why a site whose gateways are up again must wait, and until when.
func (h *Health) hold(s *siteHealth, now time.Time) (why string, until time.Time) {
	if s.release {
		return "", time.Time{}
	}
	if h.Failback == FailbackManual {
		return "is up again and waits for an administrator", time.Time{}
	}
	if h.Failback == FailbackDelayed {
		if end := s.wellSince.Add(h.FailbackDelay); end.After(now) {
			return "is up again and must stay so for " + h.FailbackDelay.String(), end
		}
	}
	if end := s.downSince.Add(h.HoldDown); end.After(now) {
		return "is up again and stays away for " + h.HoldDown.String(), end
	}
	return "", time.Time{}
}

// why tells why a site's gateways are not enough.
func (s *siteHealth) why(up int) string {
	var list []string
	for _, g := range s.gateways {
		if g.State == Down {
			list = append(list, g.Name+": "+cmp.Or(g.Cause, "down"))
		}
	}
	return fmt.Sprintf("%d of %d gateways up, needs %d (%s)", up, len(s.gateways), s.need(), strings.Join(list, "; "))
}

// depend takes down the sites that require one that is down. There are no rings.
func (h *Health) depend() {
	for range h.sites { // no chain is longer
		var again bool
		for _, s := range h.sites {
			for _, r := range s.Requires {
				if q := h.byName[r]; q.next == Down && s.next != Down && s.admin != AdminUp {
					s.status.Cause = fmt.Sprintf("requires site %s, which is down", r)
					s.next, again = Down, true
				}
			}
		}
		if !again {
			return
		}
	}
}

// finish fills in the rest of a site's Status.
func (h *Health) finish(s *siteHealth, now time.Time, wake func(time.Time)) {
	h.setState(s, s.next, now)
	st := &s.status
	st.Admin, st.Until, st.Failovers = s.admin, s.until, s.fails
	st.Gateways = slices.Clone(s.gateways)
	settle := cmp.Or(h.Settle, defaultSettle)
	st.Unstable = st.Held || !s.moved.IsZero() && now.Sub(s.moved) < settle
	if st.Unstable && !s.moved.IsZero() {
		wake(s.moved.Add(settle))
	}
	st.Load = -1
	limit := cmp.Or(h.LoadLimit, defaultLoadLimit)
	if !s.reported.IsZero() && now.Sub(s.reported) < limit {
		capacity := s.Capacity
		if capacity == 0 {
			capacity = s.weight()
		}
		if capacity > 0 {
			st.Load = float64(s.clients) / float64(capacity)
		}
		wake(s.reported.Add(limit))
	}
}
