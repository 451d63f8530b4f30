package builtin

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"
)

// stopped returns a channel that Shutdown closes.
func (d *Driver) stopped() chan struct{} {
	d.endMu.Lock()
	defer d.endMu.Unlock()
	if d.end == nil {
		d.end = make(chan struct{})
	}
	return d.end
}

// begin prepares the driver for its first Apply.
func (d *Driver) begin() error {
	if d.since.Load() != nil {
		return nil
	}
	if err := d.fronts.inherit(d.Inherited); err != nil {
		return err
	}
	now := time.Now()
	d.since.Store(&now)
	return nil
}

// Run saves the state now and then, and opens listeners again that have failed,
// until ctx is done or Shutdown is called. Then it closes everything, as Shutdown
// with no time left does, and returns the cause of ctx; or ErrClosed.
func (d *Driver) Run(ctx context.Context) error {
	save := time.NewTimer(cmp.Or(d.SaveInterval, DefaultSaveInterval))
	defer save.Stop()
	revive := time.NewTicker(DefaultReviveInterval)
	defer revive.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), d.Shutdown(ctx))
		case <-d.stopped():
			return ErrClosed
		case <-save.C:
			took, ok := d.saveNow()
			if !ok {
				return ErrClosed
			}
			// However large the state, no more than a twentieth of the time
			// is spent on saving it.
			save.Reset(max(cmp.Or(d.SaveInterval, DefaultSaveInterval), 20*took))
		case <-revive.C:
			if !d.revive(ctx) {
				return ErrClosed
			}
		}
	}
}

func (d *Driver) saveNow() (time.Duration, bool) {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.closed {
		return 0, false
	}
	begin := time.Now()
	if err := d.save(); err != nil {
		d.logger().Error("the state was not saved", "error", err)
	}
	return time.Since(begin), true
}

// revive opens listeners again that have failed.
func (d *Driver) revive(ctx context.Context) bool {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.closed {
		return false
	}
	d.reviveLedgers()
	old := d.current()
	if find(old.listeners, func(l *listener) bool { return l.failed() != nil }) == nil {
		return true
	}
	next, err := d.prepare(ctx, old, old.deployment, old.site, "sites")
	if err == nil {
		err = d.commit(old, next, func(...string) {})
	}
	if err != nil {
		d.logger().Error("a listener that failed can't be opened again", "error", err)
	}
	return true
}

// Shutdown ends everything. TCP listeners accept no more, and their streams have
// until ctx ends; UDP is served meanwhile, and its flows are saved, so that the
// next process goes on with them. It returns when no goroutine is left. Later
// calls of Apply fail with ErrClosed.
func (d *Driver) Shutdown(ctx context.Context) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.stopped())
	r := d.current()
	for _, g := range r.rings {
		g.close()
	}
	var wg sync.WaitGroup
	for _, l := range r.listeners {
		if !l.datagrams() {
			d.fronts.release(l.front, l)
			wg.Go(func() { l.shutdown(ctx) })
		}
	}
	wg.Wait()
	for _, l := range append(r.listeners, r.lingering...) {
		if l.datagrams() {
			l.stop()
		}
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	for _, l := range r.lingering {
		l.shutdown(now)
	}
	err := d.save()
	for _, l := range r.ledgers {
		l.close()
	}
	d.closeDialers(r)
	d.closeFast(r.fast, err == nil && d.StateDir != "")
	for _, p := range r.pools {
		p.close()
	}
	d.wg.Wait()
	d.fronts.closeAll()
	return err
}
