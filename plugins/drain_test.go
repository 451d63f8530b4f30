package plugins

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// leaving is a driver whose one backend loses a client a second, as long as it is
// drained.
type leaving struct {
	Driver

	clients  int64
	silent   bool // it doesn't say how many there are
	deadline bool // it keeps deadlines itself
	begun    time.Time
	drains   []DrainRequest
}

func (l *leaving) Capabilities(context.Context) (Capabilities, error) {
	return Capabilities{DrainDeadline: l.deadline}, nil
}

func (l *leaving) Drain(_ context.Context, r DrainRequest) error {
	if l.begun.IsZero() {
		l.begun = time.Now()
	}
	l.drains = append(l.drains, r)
	if !r.Deadline.IsZero() && !r.Deadline.After(time.Now()) {
		l.clients = 0
	}
	return nil
}

func (l *leaving) Stats(context.Context) (*Stats, error) {
	b := BackendStats{Name: "ras1"}
	if left := max(l.clients-int64(time.Since(l.begun)/time.Second), 0); !l.silent {
		b.Active = &left
	}
	return &Stats{Pools: []PoolStats{{Name: "ras", Backends: []BackendStats{b}}}}, nil
}

func TestDrainWithin(t *testing.T) {
	ref := BackendRef{Pool: "ras", Backend: "ras1"}
	for name, c := range map[string]struct {
		driver *leaving
		within time.Duration
		took   time.Duration
		drains int  // calls
		first  bool // the first has the deadline
		err    error
	}{
		"all leave":                  {&leaving{clients: 10}, 0, 10 * time.Second, 1, false, nil},
		"none is there":              {&leaving{}, time.Minute, 0, 1, false, nil},
		"time is up":                 {&leaving{clients: 100}, 31 * time.Second, 31 * time.Second, 2, false, nil},
		"the balancer has deadlines": {&leaving{clients: 100, deadline: true}, 31 * time.Second, 31 * time.Second, 2, true, nil},
		"the balancer doesn't say":   {&leaving{clients: 5, silent: true}, 30 * time.Second, 30 * time.Second, 2, false, nil},
		"nobody could tell":          {&leaving{clients: 5, silent: true}, 0, 0, 1, false, ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := DrainRequest{BackendRef: ref}
				if c.within > 0 {
					r.Deadline = time.Now().Add(c.within)
				}
				begin, told := time.Now(), 0
				err := DrainWithin(t.Context(), c.driver, r, 0, func(Drainage) { told++ })
				if !errors.Is(err, c.err) || time.Since(begin) != c.took {
					t.Errorf("%v after %v, want %v after %v", err, time.Since(begin), c.err, c.took)
				}
				if len(c.driver.drains) != c.drains || c.driver.drains[0].Deadline.IsZero() == c.first {
					t.Errorf("drains: %v", c.driver.drains)
				}
				if told == 0 {
					t.Error("nothing was told")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		d := &leaving{clients: 100}
		if err := DrainWithin(ctx, d, DrainRequest{BackendRef: ref}, time.Second, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err := DrainWithin(t.Context(), d, DrainRequest{BackendRef: BackendRef{Backend: "nobody"}}, 0, nil); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestRedrain(t *testing.T) {
	s := &Site{Name: "hq", Pools: []Pool{
		{Name: "ras", Backends: []Backend{{Name: "ras1"}, {Name: "ras2"}}},
		{Name: "more", Backends: []Backend{{Name: "ras1"}}},
	}}
	at := time.Unix(1e9, 0)
	other := DrainRequest{BackendRef: BackendRef{Pool: "ras", Backend: "ras2"}}
	both := []BackendRef{{Pool: "ras", Backend: "ras1"}, {Pool: "more", Backend: "ras1"}}
	refs, list, err := s.Redrain([]DrainRequest{other}, BackendRef{Backend: "ras1"}, &DrainRequest{Deadline: at})
	want := []DrainRequest{other, {BackendRef: both[0], Deadline: at}, {BackendRef: both[1], Deadline: at}}
	if err != nil || !slices.Equal(refs, both) || !slices.Equal(list, want) {
		t.Fatalf("a drain: %v, %v, %v", refs, list, err)
	}
	if _, again, err := s.Redrain(list, both[0], &DrainRequest{}); err != nil || len(again) != 3 || !again[2].Deadline.IsZero() {
		t.Errorf("another deadline: %v, %v", again, err)
	}
	if _, left, err := s.Redrain(list, both[1], nil); err != nil || !slices.Equal(left, want[:2]) {
		t.Errorf("an end: %v, %v", left, err)
	}
	if !slices.Equal(list, want) {
		t.Errorf("the list has changed: %v", list)
	}
	if _, _, err := s.Redrain(want[1:], other.BackendRef, nil); !errors.Is(err, ErrNotDrained) {
		t.Errorf("the end of none: %v", err)
	}
	for _, x := range []*Site{s, nil} {
		if _, _, err := x.Redrain(nil, BackendRef{Backend: "ras9"}, nil); !errors.Is(err, ErrNotFound) {
			t.Errorf("nobody's: %v", err)
		}
	}
}
