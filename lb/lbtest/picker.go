package lbtest

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/lb"
)

// TestPicker holds the Pickers that fresh returns against what [lb.Picker]
// promises; each promise gets a fresh one. Tolerance is how far the share of a
// backend may be off what its weight says, as a fraction of all clients: 0.02
// suits a hash or a rotation. Zero leaves weights out, for a Picker that chooses
// by something else.
//
// It can't be run in parallel with other tests, for it counts allocations.
func TestPicker(t *testing.T, fresh func() lb.Picker, tolerance float64) {
	t.Helper()
	hold(t, pickerPromises(fresh, tolerance))
}

func pickerPromises(fresh func() lb.Picker, tolerance float64) []promise {
	k := picked{fresh, tolerance}
	all := []promise{
		{"picks nobody of nobody", "when all backends are down there is still somebody who asks", k.empty},
		{"picks who is ready", "who isn't in Ready is down, drains, stands by or takes no clients", k.ready},
		{"picks from the view at hand", "a view is a moment; a backend of another moment may be gone", k.stale},
		{"leaves the view alone", "everybody reads the same view", k.changes},
		{"is safe for many goroutines", "an engine has a worker for each processor, and one Picker", k.races},
		{"allocates nothing", "a flood of new clients must cost no more than its packets", k.allocates},
	}
	if tolerance > 0 {
		all = append(all, promise{"keeps to weights", "a gateway that is half as strong breaks under as many clients as the others", k.weights})
	}
	return all
}

type picked struct {
	fresh     func() lb.Picker
	tolerance float64
}

// name returns the n-th client's name.
func name(n int) lb.Key { return lb.Uint64Key(128, uint64(n)) }

// poolOf makes a pool of b00, b01 and so on with these weights.
func poolOf(weights ...int) (*lb.Pool, error) {
	p := new(lb.Pool)
	var backends []lb.Backend
	for i, w := range weights {
		backends = append(backends, lb.Backend{
			Name: fmt.Sprintf("b%02d", i), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), Weight: w,
		})
	}
	if err := p.Set(backends...); err != nil {
		return nil, fmt.Errorf("lbtest: %w", err)
	}
	return p, nil
}

func (k picked) empty() error {
	down, err := poolOf(1, 1)
	if err != nil {
		return err
	}
	down.NoPanic = true
	for _, n := range []string{"b00", "b01"} {
		if err := down.Mark(n, lb.Down, "unplugged"); err != nil {
			return err
		}
	}
	for _, v := range []*lb.View{new(lb.View), new(lb.Pool).View(), down.View()} {
		for n := range 10 {
			var m *lb.Member
			if err := caught(func() { m = k.fresh().Pick(name(n), v) }); err != nil {
				return fmt.Errorf("of a view with %d backends and none ready: %w", len(v.Members), err)
			}
			if m != nil {
				return fmt.Errorf("picked %s of a view in which nobody is ready", m.Name)
			}
		}
	}
	return nil
}

// mixed returns a pool in which b00 to b02 are ready and others aren't, each for
// a reason of its own.
func mixed() (*lb.Pool, error) {
	p := new(lb.Pool)
	var all []lb.Backend
	for i, b := range []lb.Backend{{}, {Weight: 3}, {Weight: 2}, {}, {}, {Weight: -1}, {Priority: 7}} {
		b.Name, b.Addr = fmt.Sprintf("b%02d", i), netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		all = append(all, b)
	}
	if err := errors.Join(p.Set(all...), p.Mark("b03", lb.Down, "unplugged"), p.Mark("b04", lb.Draining, "leaving")); err != nil {
		return nil, fmt.Errorf("lbtest: %w", err)
	}
	if n := len(p.View().Ready); n != 3 {
		return nil, fmt.Errorf("lbtest: %d backends are ready, not the three meant to be", n)
	}
	return p, nil
}

// inReady picks for many clients and looks at what comes.
func inReady(p lb.Picker, v *lb.View, from, to int) error {
	for n := from; n < to; n++ {
		m := p.Pick(name(n), v)
		switch {
		case m == nil && len(v.Ready) > 0:
			return fmt.Errorf("picked nobody, though %d backends are ready", len(v.Ready))
		case m != nil && !slices.Contains(v.Ready, m):
			return fmt.Errorf("picked %s, which isn't in this view's Ready (it is %v, its share is %d, its priority %d)", m.Name, m.State, m.Share, m.Priority)
		}
	}
	return nil
}

func (k picked) ready() error {
	pool, err := mixed()
	if err != nil {
		return err
	}
	return inReady(k.fresh(), pool.View(), 0, 5000)
}

func (k picked) stale() error {
	pool, err := mixed()
	if err != nil {
		return err
	}
	p := k.fresh()
	before := pool.View()
	if err := inReady(p, before, 0, 100); err != nil {
		return err
	}
	if err := errors.Join(pool.Mark("b01", lb.Down, "unplugged"), pool.Mark("b03", lb.Up, "")); err != nil {
		return err
	}
	for range 3 {
		for _, v := range []*lb.View{pool.View(), before} {
			if err := inReady(p, v, 0, 100); err != nil {
				return fmt.Errorf("after the view has changed: %w", err)
			}
		}
	}
	return nil
}

func (k picked) changes() error {
	pool, err := mixed()
	if err != nil {
		return err
	}
	v := pool.View()
	members, ready, spare, usable := slices.Clone(v.Members), slices.Clone(v.Ready), slices.Clone(v.Spare), slices.Clone(v.Usable)
	p := k.fresh()
	for n := range 1000 {
		if err := inReady(p, v, n, n+1); err != nil {
			return err
		}
		if !slices.Equal(v.Members, members) || !slices.Equal(v.Ready, ready) || !slices.Equal(v.Spare, spare) || !slices.Equal(v.Usable, usable) {
			return errors.New("the lists of the view are in another order, or hold others, afterwards")
		}
	}
	return nil
}

func (k picked) races() error {
	const workers, rounds = 4, 50
	pool, err := mixed()
	if err != nil {
		return err
	}
	p := k.fresh()
	errs := make([]error, workers+1)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for r := range rounds {
				if errs[w] == nil {
					errs[w] = inReady(p, pool.View(), r*20, r*20+20)
				}
			}
		})
	}
	wg.Go(func() {
		for r := range rounds {
			state := lb.Up
			if r%2 == 0 {
				state = lb.Down
			}
			errs[workers] = errors.Join(errs[workers], pool.Mark("b01", state, "flapping"))
		}
	})
	wg.Wait()
	return errors.Join(errs...)
}

func (k picked) allocates() error {
	pool, err := mixed()
	if err != nil {
		return err
	}
	p, v, n := k.fresh(), pool.View(), 0
	p.Pick(name(0), v) // what a new view costs, once, is not counted
	if got := testing.AllocsPerRun(500, func() { p.Pick(name(n), v); n++ }); got > 0 {
		return fmt.Errorf("%v allocations a pick", got)
	}
	return nil
}

func (k picked) weights() error {
	for _, weights := range [][]int{{1}, {1, 1, 1}, {5, 1, 1}, {3, -1, 1}, {10, 1}, {7, 11, 13}} {
		if err := k.shares(weights); err != nil {
			return fmt.Errorf("weights %v: %w", weights, err)
		}
	}
	return nil
}

// shares has clients come and stay, through a Balancer, so that a Picker that
// goes by load sees one.
func (k picked) shares(weights []int) error {
	const clients = 6000
	pool, err := poolOf(weights...)
	if err != nil {
		return err
	}
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table), Picker: k.fresh(), MaxHinted: -1}
	total := 0
	for _, w := range weights {
		total += max(w, 0)
	}
	for n := range clients {
		f := lb.Flow{Client: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}), 500), Service: 500}
		v := lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{name(n)}}
		r, err := b.Route(&v, f)
		if err != nil {
			return err
		}
		b.Answered(r.Member, f, lb.StageEstablished, r.Why, name(n))
	}
	for i, w := range weights {
		want := float64(max(w, 0)) / float64(total)
		got := float64(pool.View().ByName(fmt.Sprintf("b%02d", i)).Clients()) / clients
		if math.Abs(got-want) > k.tolerance {
			return fmt.Errorf("the backend of weight %d has %.1f %% of the clients, and should have %.1f %%", w, 100*got, 100*want)
		}
	}
	return nil
}
