package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A world is a server that takes records, and a gateway that repeats those that
// aren't acknowledged.
type world struct {
	t    *testing.T
	r    *rand.Rand
	disk *fakeDisk

	mu    sync.Mutex
	acked map[uint32]bool
	got   map[uint32][]Delivery
	order map[uint64][]uint32 // by key, first deliveries
	flaky bool
	total uint32
}

func newWorld(t *testing.T, seed uint64) *world {
	return &world{
		t: t, r: rand.New(rand.NewPCG(seed, 1)), disk: newFakeDisk(),
		acked: map[uint32]bool{}, got: map[uint32][]Delivery{}, order: map[uint64][]uint32{},
	}
}

func (w *world) record(n uint32) Record {
	b := make([]byte, 40+int(n)%200)
	binary.BigEndian.PutUint32(b, n)
	r := Record{Key: uint64(n % 5), Data: b}
	binary.BigEndian.PutUint32(r.ID[:], n+1)
	return r
}

func (w *world) take(_ context.Context, d Delivery) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := binary.BigEndian.Uint32(d.Data)
	if w.flaky && w.r.IntN(4) == 0 {
		if w.r.IntN(2) == 0 {
			return ErrNotSent
		}
		w.got[n] = append(w.got[n], d) // it came, and the answer was lost
		w.first(n, d)
		return errors.New("no answer")
	}
	w.got[n] = append(w.got[n], d)
	w.first(n, d)
	return nil
}

func (w *world) first(n uint32, d Delivery) {
	if len(w.got[n]) == 1 {
		w.order[d.Key] = append(w.order[d.Key], n)
	}
}

// live runs a spool until all the records are acknowledged and delivered, or the
// disk has crashed.
func (w *world) live(crashAt int) {
	w.disk.crashAt = crashAt
	s, err := Open(Config{Dir: "test", SegmentBytes: 2000, MaxBytes: 1 << 20, Window: 8, disk: w.disk})
	if err != nil {
		if crashAt == 0 {
			w.t.Fatalf("open: %v", err)
		}
		return
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx, w.take) })
	for round := 0; ; round++ {
		w.appendAll(s)
		time.Sleep(time.Minute) // virtual: the retries are over
		st := s.Stats()
		if crashAt > 0 && w.disk.count() >= crashAt || w.acknowledged() == int(w.total) && st.Waiting == 0 {
			break
		}
		if round > 50 {
			w.t.Fatalf("after %d rounds %d of %d are acknowledged: %+v", round, len(w.acked), w.total, st)
		}
	}
	cancel()
	wg.Wait()
	_ = s.Close()
}

// appendAll appends what isn't acknowledged, in order, a few at a time.
func (w *world) appendAll(s *Spool) {
	for n := range w.total {
		w.mu.Lock()
		done := w.acked[n]
		w.mu.Unlock()
		if done {
			continue
		}
		s.Append(w.record(n), func(err error) {
			if err == nil {
				w.mu.Lock()
				w.acked[n] = true
				w.mu.Unlock()
			}
		})
		if n%4 == 3 {
			synctest.Wait()
		}
	}
	synctest.Wait()
}

func (w *world) acknowledged() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acked)
}

func (w *world) judge(name string) {
	for n := range w.total {
		ds := w.got[n]
		if w.acked[n] && len(ds) == 0 {
			w.t.Fatalf("%s: record %d was acknowledged and never delivered", name, n)
		}
		for i, d := range ds {
			if i > 0 && d.Attempt == 0 {
				w.t.Fatalf("%s: record %d was delivered %d times, and the %d. says that it can't have been before", name, n, len(ds), i+1)
			}
			if i > 0 && d.Last.Before(ds[i-1].Last) {
				w.t.Fatalf("%s: record %d: last went back", name, n)
			}
		}
	}
}

// TestCrashAnywhere crashes at every single operation on the disk in turn.
func TestCrashAnywhere(t *testing.T) {
	crashes := 0
	for at := 1; ; at++ {
		if testing.Short() && at%7 != 0 {
			continue
		}
		reached := false
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, uint64(at))
			w.total, w.flaky = 24, at%2 == 0
			w.live(at)
			reached = w.disk.count() >= at
			w.disk = w.disk.crashed(w.r)
			w.live(0)
			w.judge(fmt.Sprintf("crash at %d", at))
		})
		if !reached {
			break
		}
		crashes++
		if at > 2000 {
			t.Fatal("it never ends")
		}
	}
	if crashes < 10 {
		t.Errorf("only %d crashes were tried", crashes)
	}
	t.Logf("%d crashes", crashes)
}

// TestManyCrashes has lives that each crash somewhere, one after the other.
func TestManyCrashes(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.total, w.flaky = 60, seed%3 != 0
			for range 1 + w.r.IntN(6) {
				w.live(1 + w.r.IntN(80))
				w.disk = w.disk.crashed(w.r)
			}
			w.live(0)
			w.judge(fmt.Sprintf("seed %d", seed))
			if len(w.acked) != int(w.total) {
				t.Fatalf("%d of %d acknowledged", len(w.acked), w.total)
			}
		})
	}
}

// TestFailingDisk has single operations fail, and the process live on.
func TestFailingDisk(t *testing.T) {
	for seed := range uint64(100) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed)
			w.total = 60
			w.live(0) // creates the files
			w.total, w.disk.failAt = 120, map[int]bool{}
			for range 12 {
				w.disk.failAt[w.disk.ops+5+w.r.IntN(120)] = true
			}
			s, err := Open(Config{Dir: "test", SegmentBytes: 2000, Window: 8, disk: w.disk})
			if err != nil {
				return // a crash at opening; TestCrashAnywhere has those
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = s.Run(ctx, w.take) })
			for range 4 {
				w.appendAll(s)
				time.Sleep(time.Minute)
			}
			cancel()
			wg.Wait()
			if st := s.Stats(); st.Waiting != 0 || len(w.acked) != 120 {
				t.Fatalf("seed %d: %d acknowledged, %+v", seed, len(w.acked), st)
			}
			_ = s.Close()
			w.disk.failAt = nil
			w.disk = w.disk.crashed(w.r)
			w.live(0)
			w.judge(fmt.Sprintf("seed %d", seed))
		})
	}
}

// TestOrder: without failures, what is of one key comes in order.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.total = 500
		w.live(0)
		w.judge("order")
		for key, ns := range w.order {
			for i := 1; i < len(ns); i++ {
				if ns[i] < ns[i-1] {
					t.Errorf("key %d: %d after %d", key, ns[i], ns[i-1])
				}
			}
		}
	})
}
