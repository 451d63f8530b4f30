package lb

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// ErrUnknownBackend says that a Pool has no backend of that name.
var ErrUnknownBackend = errors.New("lb: unknown backend")

// A Failback says when clients that are new return to a preferred priority
// that works again.
type Failback uint8

const (
	// FailbackAutomatic returns at once.
	FailbackAutomatic Failback = iota
	// FailbackDelayed returns when it has worked for Pool.FailbackDelay.
	FailbackDelayed
	// FailbackManual stays until [Pool.FailbackNow] is called or the
	// priority that serves fails too.
	FailbackManual
)

// A Pool is the set of backends that can serve the same clients, and what is
// known of each. It is the one place where facts (Set, Mark, Drain) become what
// decisions are made from: an immutable [View] behind an atomic pointer. The
// zero Pool is empty and ready for use.
type Pool struct {
	// SlowStart is how long a backend that returns takes to reach its full
	// share of new clients. Zero gives it the full share at once.
	SlowStart time.Duration
	// Failback says when a preferred priority is used again.
	Failback Failback
	// FailbackDelay is how long a preferred priority must have worked with
	// FailbackDelayed.
	FailbackDelay time.Duration
	// NoPanic refuses clients when every backend is down. By default the
	// checks are then disbelieved, and all backends that aren't drained are
	// used as if they were up.
	NoPanic bool
	// Trace, if not nil, hears of changes.
	Trace *Trace

	view atomic.Pointer[View]

	mu       sync.Mutex // below
	backends map[string]*record
	nextID   ID
	active   int       // the priority in use
	chosen   bool      // active has been set
	better   time.Time // since when a preferred priority has worked
	failback bool      // FailbackNow was called
	timer    *time.Timer
	epoch    uint64
	changed  chan struct{} // closed at the next publish; nil if nobody waits
}

// record is what a Pool knows of one backend.
type record struct {
	Backend
	id   ID
	load *load

	down      bool // by its checks
	downCause string
	returned  time.Time // when it last came back up; zero if it never was down
	drain     bool
	drainEnd  time.Time // zero: no deadline
	drainWhy  string

	state State // as last published
	cause string
	since time.Time
}

// A View is a Pool at one moment. It is immutable and may be kept.
type View struct {
	// Members are all backends, by name.
	Members []*Member
	// Ready are those that take new clients now: up, with a share, and of
	// the active priority.
	Ready []*Member
	// Spare are further backends that are up, of other priorities, preferred
	// ones first: for when everything in Ready is full.
	Spare []*Member
	// Usable are those that may have clients: up or draining.
	Usable []*Member
	// Panic says that no backend with a share is up and that the checks are
	// disbelieved: Ready and Usable then hold backends that are down.
	Panic bool
	// Priority is the active priority.
	Priority int
	// Epoch counts the views of the Pool.
	Epoch uint64

	byID []*Member
}

// Member returns the backend with that ID, or nil.
func (v *View) Member(id ID) *Member {
	if int(id) < len(v.byID) {
		return v.byID[id]
	}
	return nil
}

// ByName returns the backend of that name, or nil.
func (v *View) ByName(name string) *Member {
	i, ok := slices.BinarySearchFunc(v.Members, name, func(m *Member, n string) int { return cmp.Compare(m.Name, n) })
	if !ok {
		return nil
	}
	return v.Members[i]
}

// usable reports whether m, of any earlier view, may keep its clients, and
// returns what it is now.
func (v *View) usable(id ID) *Member {
	m := v.Member(id)
	if m == nil || (m.State == Down && !(v.Panic && slices.Contains(v.Usable, m))) {
		return nil
	}
	return m
}

// Changed returns a channel that is closed when View changes. To miss nothing,
// call Changed before View.
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.changed == nil {
		p.changed = make(chan struct{})
	}
	return p.changed
}

var emptyView = new(View)

// Reconfigure calls f with the Pool locked. It is the one place where exported
// fields of a Pool may be changed while it is in use; f must call nothing of the
// Pool.
func (p *Pool) Reconfigure(f func(p *Pool)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
	p.publish()
}

// View returns the Pool as it is now. It never returns nil, and it costs one
// atomic load.
func (p *Pool) View() *View {
	if v := p.view.Load(); v != nil {
		return v
	}
	return emptyView
}

// Set makes the Pool hold exactly these backends. Backends that it holds
// already, by name, keep their state, their clients and what is being measured
// of them; setting the same backends again changes nothing. Nothing is changed
// if one of them is invalid: the error then names each fault.
func (p *Pool) Set(backends ...Backend) error {
	var errs []error
	seen := make(map[string]bool, len(backends))
	for _, b := range backends {
		if err := b.validate(); err != nil {
			errs = append(errs, err)
		}
		if seen[b.Name] {
			errs = append(errs, fmt.Errorf("lb: backend %q is there twice", b.Name))
		}
		seen[b.Name] = true
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.backends == nil {
		p.backends = make(map[string]*record)
	}
	for name := range p.backends {
		if !seen[name] {
			delete(p.backends, name)
		}
	}
	for _, b := range backends {
		r := p.backends[b.Name]
		if r == nil || r.Addr != b.Addr {
			// Another address is another server, whatever its name.
			r = &record{id: p.nextID, load: new(load), since: time.Now()}
			p.nextID++
			p.backends[b.Name] = r
		}
		r.Backend = b
	}
	p.publish()
	return nil
}

// Mark says what is known of a backend's health: [Up] or [Down], with the cause
// in words. Marking it [Draining] is the same as Drain without a deadline.
func (p *Pool) Mark(name string, s State, cause string) error {
	if s == Draining {
		return p.drain(name, time.Time{}, cause)
	}
	return p.update(name, func(r *record) {
		if r.down && s == Up {
			r.returned = time.Now()
		}
		r.down, r.downCause = s == Down, cause
	})
}

// Drain lets a backend keep its clients and gives it no new ones. At the
// deadline the clients it still has are moved, as if it were down; a zero
// deadline never comes. Draining a backend again replaces the deadline.
func (p *Pool) Drain(name string, deadline time.Time) error {
	return p.drain(name, deadline, "drained")
}

func (p *Pool) drain(name string, deadline time.Time, why string) error {
	return p.update(name, func(r *record) { r.drain, r.drainEnd, r.drainWhy = true, deadline, why })
}

// Undrain ends a Drain.
func (p *Pool) Undrain(name string) error {
	return p.update(name, func(r *record) { r.drain, r.drainEnd, r.drainWhy = false, time.Time{}, "" })
}

// FailbackNow returns to the most preferred priority that works, whatever
// Failback says.
func (p *Pool) FailbackNow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failback = true
	p.publish()
}

func (p *Pool) update(name string, f func(*record)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.backends[name]
	if r == nil {
		return fmt.Errorf("%w: %q", ErrUnknownBackend, name)
	}
	f(r)
	p.publish()
	return nil
}

// publish makes the View of what is known now, and sees to it that the next
// one is made when time alone changes something. p.mu is held.
func (p *Pool) publish() {
	now := time.Now()
	next := time.Time{}
	at := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	p.epoch++
	v := &View{Epoch: p.epoch, byID: make([]*Member, p.nextID)}
	sick := false // some backend is down by its checks
	for _, r := range p.backends {
		m := r.member(now)
		sick = sick || r.down
		if m.State == Up && p.SlowStart > 0 && !r.returned.IsZero() {
			m.Share = r.slowShare(now, p.SlowStart, at)
		}
		if r.drain {
			at(r.drainEnd)
		}
		v.Members = append(v.Members, m)
		v.byID[m.ID] = m
	}
	slices.SortFunc(v.Members, func(a, b *Member) int { return cmp.Compare(a.Name, b.Name) })
	p.choosePriority(v, now, at)
	for _, m := range v.Members {
		if m.Usable() {
			v.Usable = append(v.Usable, m)
		}
		switch {
		case m.State != Up || m.Share <= 0:
		case m.Priority == v.Priority:
			v.Ready = append(v.Ready, m)
		default:
			v.Spare = append(v.Spare, m)
		}
	}
	slices.SortStableFunc(v.Spare, func(a, b *Member) int { return cmp.Compare(a.Priority, b.Priority) })
	if len(v.Ready) == 0 && sick && !p.NoPanic {
		p.panicView(v)
	}
	old := p.View()
	p.view.Store(v)
	p.wake(now, next)
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
	p.Trace.changes(old, v)
}

func (r *record) member(now time.Time) *Member {
	s, cause := Up, ""
	switch {
	case r.drain && !r.drainEnd.IsZero() && !r.drainEnd.After(now):
		s, cause = Down, "drained, the deadline has passed"
	case r.down:
		s, cause = Down, r.downCause
	case r.drain:
		s, cause = Draining, r.drainWhy
	}
	if s != r.state {
		r.state, r.since = s, now
		if s == Down {
			r.load.lost()
		}
	}
	r.cause = cause
	weight := max(r.Weight, 0)
	if r.Weight == 0 {
		weight = 1
	}
	return &Member{
		Backend: r.Backend, ID: r.id, State: s, Cause: cause, Since: r.since,
		Share: weight * fullShare, load: r.load,
	}
}

// fullShare is the Share of a backend of weight 1.
const fullShare = 100

// slowSteps is in how many steps a share grows.
const slowSteps = 10

// slowShare returns the share of a backend that came back at r.returned.
func (r *record) slowShare(now time.Time, d time.Duration, at func(time.Time)) int {
	full := max(r.Weight, 1) * fullShare
	if r.Weight < 0 {
		return 0
	}
	step := 1 + int(now.Sub(r.returned)*slowSteps/d)
	if step >= slowSteps || step < 1 {
		return full
	}
	at(r.returned.Add(d * time.Duration(step) / slowSteps))
	return full * step / slowSteps
}

// choosePriority sets v.Priority: the most preferred one with a backend that
// takes clients, unless Failback holds on to the one in use.
func (p *Pool) choosePriority(v *View, now time.Time, at func(time.Time)) {
	best, found, holds := 0, false, false
	for _, m := range v.Members {
		if m.State != Up || m.Share <= 0 {
			continue
		}
		if !found || m.Priority < best {
			best, found = m.Priority, true
		}
		holds = holds || m.Priority == p.active
	}
	if !found {
		v.Priority = p.active
		return
	}
	stay := p.chosen && holds && best < p.active && !p.failback
	if !stay || p.Failback == FailbackAutomatic {
		p.active, p.chosen, p.better = best, true, time.Time{}
		p.failback = false
		v.Priority = best
		return
	}
	if p.better.IsZero() {
		p.better = now
	}
	if p.Failback == FailbackDelayed {
		if back := p.better.Add(p.FailbackDelay); back.After(now) {
			at(back)
		} else {
			p.active, p.better = best, time.Time{}
		}
	}
	v.Priority = p.active
}

// panicView fills v when no backend is up although some are only sick: those
// that drain but live first, else all whose drain hasn't ended.
func (p *Pool) panicView(v *View) {
	for _, m := range v.Usable {
		if m.Share > 0 {
			v.Ready = append(v.Ready, m)
		}
	}
	if len(v.Ready) > 0 {
		return
	}
	for _, m := range v.Members {
		if r := p.backends[m.Name]; !r.drain && m.Share > 0 {
			v.Ready = append(v.Ready, m)
		}
	}
	v.Usable, v.Panic = append(v.Usable, v.Ready...), len(v.Ready) > 0
}

// wake has the view made again at next, when it isn't zero.
func (p *Pool) wake(now, next time.Time) {
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	if next.IsZero() {
		return
	}
	epoch := p.epoch
	p.timer = time.AfterFunc(next.Sub(now), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.epoch == epoch {
			p.publish()
		}
	})
}
