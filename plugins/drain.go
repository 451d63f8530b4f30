package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// A Drainage says how a drain gets on.
type Drainage struct {
	// Left is how many clients are left, if the balancer says; Remaining how
	// long they may stay, 0 if for ever.
	Left      *int64
	Remaining time.Duration
}

// DrainWithin drains a backend and waits until its clients are gone. When
// r.Deadline comes it has those that are left moved away, also on balancers that
// have no deadlines of their own. It looks each interval, 2 s if that is 0, and
// tells progress, which may be nil. If ctx ends first, the drain goes on, and on
// balancers without deadlines it does so for ever.
func DrainWithin(ctx context.Context, d Driver, r DrainRequest, interval time.Duration, progress func(Drainage)) error {
	c, err := d.Capabilities(ctx)
	if err != nil {
		return err
	}
	begin := r
	if !c.DrainDeadline && time.Until(r.Deadline) > 0 {
		begin.Deadline = time.Time{}
	}
	if err := d.Drain(ctx, begin); err != nil {
		return err
	}
	if _, ok := r.GeoSite(); ok {
		return nil // it has no clients that anybody counts: resolvers forget it by and by
	}
	tick := time.NewTicker(cmp.Or(interval, 2*time.Second))
	defer tick.Stop()
	var end <-chan time.Time // never, if there is no deadline
	if !r.Deadline.IsZero() {
		t := time.NewTimer(time.Until(r.Deadline))
		defer t.Stop()
		end = t.C
	}
	for {
		left, err := clientsOf(ctx, d, r.BackendRef)
		if err != nil {
			return err
		}
		now := Drainage{Left: left}
		if !r.Deadline.IsZero() {
			now.Remaining = max(time.Until(r.Deadline), 0)
		}
		if progress != nil {
			progress(now)
		}
		switch {
		case left != nil && *left == 0:
			return nil
		case !r.Deadline.IsZero() && now.Remaining == 0:
			return d.Drain(ctx, r) // the deadline has passed: this moves them
		case left == nil && r.Deadline.IsZero():
			return fmt.Errorf("%w: it doesn't say how many clients %v has: give a deadline", ErrUnsupported, r.BackendRef)
		}
		select {
		case <-tick.C:
		case <-end:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// clientsOf returns how many clients, flows or connections a backend has in all
// the pools that r means; nil if the balancer doesn't say.
func clientsOf(ctx context.Context, d Driver, r BackendRef) (*int64, error) {
	s, err := d.Stats(ctx)
	if err != nil {
		return nil, err
	}
	var left *int64
	found := false
	for i := range s.Pools {
		if r.Pool != "" && s.Pools[i].Name != r.Pool {
			continue
		}
		for k := range s.Pools[i].Backends {
			b := &s.Pools[i].Backends[k]
			if b.Name != r.Backend {
				continue
			}
			found = true
			n := b.Active
			if b.Clients != nil {
				n = new(int64(*b.Clients))
			}
			if n == nil {
				continue
			}
			if left == nil {
				left = new(int64)
			}
			*left += *n
		}
	}
	if !found {
		return nil, errors.Join(ErrNotFound, fmt.Errorf("there is no backend %v among the statistics", r))
	}
	return left, nil
}
