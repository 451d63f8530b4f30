package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// running opens a spool and runs it until the returned function is called.
func running(t *testing.T, c Config, deliver Deliverer) (*Spool, func()) {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx, deliver) }) // it ends with ctx
	return s, sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// put appends a record and returns what became of it.
func put(s *Spool, r Record) error {
	c := make(chan error, 1)
	s.Append(r, func(err error) { c <- err })
	return <-c
}

func never(context.Context, Delivery) error { return ErrNotSent }

func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var serve atomic.Bool
		s, stop := running(t, Config{Dir: "test", MaxBytes: 10_000, SegmentBytes: 2000, disk: newFakeDisk()}, func(context.Context, Delivery) error {
			if serve.Load() {
				return nil
			}
			return ErrNotSent
		})
		defer stop()
		n := 0
		for ; n < 1000; n++ {
			if err := put(s, Record{Data: make([]byte, 440)}); errors.Is(err, ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if n < 16 || n > 20 {
			t.Errorf("%d records of 500 bytes fit into 10,000 bytes", n)
		}
		serve.Store(true)
		s.Wake()
		time.Sleep(time.Minute)
		if st := s.Stats(); st.Waiting != 0 || st.Delivered != uint64(n) || st.Full != 1 {
			t.Errorf("when servers are back: %+v", st)
		}
		if err := put(s, Record{Data: make([]byte, 440)}); err != nil {
			t.Errorf("when all is delivered: %v", err)
		}
	})
}

func TestTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, stop := running(t, Config{Dir: "test", MaxAge: time.Hour, disk: newFakeDisk()}, never)
		defer stop()
		if err := put(s, Record{Data: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if err := put(s, Record{Data: []byte("b")}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if err := put(s, Record{Data: []byte("c")}); !errors.Is(err, ErrFull) {
			t.Errorf("with a record that waits too long: %v", err)
		}
		if st := s.Stats(); st.Waiting != 2 || time.Since(st.Oldest) < time.Hour {
			t.Errorf("%+v", st)
		}
	})
}

// A record that nobody takes is set aside, and the others pass it by.
func TestSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk()
		var log bytes.Buffer
		var mu sync.Mutex
		good := 0
		s, stop := running(t, Config{Dir: "test", SetAside: 5, Logger: slog.New(slog.NewTextHandler(&log, nil)), disk: d}, func(_ context.Context, r Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			if string(r.Data) == "poison" {
				return errors.New("no answer")
			}
			good++
			return nil
		})
		if err := put(s, Record{Key: 1, Data: []byte("poison")}); err != nil {
			t.Fatal(err)
		}
		for n := range 300 {
			if err := put(s, Record{Key: uint64(n), Data: []byte("good")}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		stop()
		st := s.Stats()
		if good != 300 || st.Refused != 1 || st.Waiting != 0 {
			t.Errorf("%d delivered, %+v", good, st)
		}
		b, err := d.read(refusedFile)
		if err != nil || !strings.Contains(string(b), "poison") {
			t.Errorf("refused holds %q, %v", b, err)
		}
		if !strings.Contains(log.String(), "set aside") || strings.Contains(log.String(), "poison") {
			t.Errorf("log: %s", &log)
		}
	})
}

// A record that comes again is kept once, also after a restart.
func TestKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newFakeDisk()
		var got []string
		take := func(_ context.Context, r Delivery) error { got = append(got, string(r.Data)); return nil }
		r := Record{ID: [16]byte{1}, Data: []byte("a")}
		for range 3 {
			s, stop := running(t, Config{Dir: "test", disk: d}, take)
			for range 2 {
				if err := put(s, r); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			stop()
		}
		if len(got) != 1 {
			t.Errorf("delivered: %q", got)
		}
		if s, err := Open(Config{Dir: "test", disk: d}); err != nil || s.Idle() || !s.Holds(0, r.ID) || s.Holds(0, [16]byte{2}) {
			t.Errorf("after a restart: %v", err)
		}
		// What is remembered isn't kept for ever: personal data goes.
		s, stop := running(t, Config{Dir: "test", disk: d}, take)
		defer stop()
		time.Sleep(DefaultRemember + time.Minute)
		if st := s.Stats(); st.Bytes != 0 {
			t.Errorf("after %v: %+v", DefaultRemember, st)
		}
	})
}

func TestDamage(t *testing.T) {
	fill := func(t *testing.T, dir string) {
		s, stop := running(t, Config{Dir: dir, SegmentBytes: 1000}, never)
		for n := range 30 {
			if err := put(s, Record{Key: uint64(n), Data: fmt.Appendf(nil, "record %d", n)}); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
	tests := []struct {
		name   string
		file   string
		change func([]byte) []byte
		lost   int
		marked bool
		report bool
	}{
		{"nothing", "0000000000000001.seg", func(b []byte) []byte { return b }, 0, false, false},
		{"a bit in a record", "0000000000000001.seg", func(b []byte) []byte { b[400] ^= 1; return b }, 1, false, true},
		{"a segment that isn't one", "0000000000000001.seg", func(b []byte) []byte { return append([]byte("rubbish"), b...) }, 14, false, true},
		{"a segment cut off", "0000000000000001.seg", func(b []byte) []byte { return b[:len(b)-10] }, 1, false, false},
		{"progress gone", "progress", func([]byte) []byte { return nil }, 0, true, true},
		{"progress changed", "progress", func(b []byte) []byte { b[20] ^= 1; return b }, 0, true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool")
			fill(t, dir)
			path := filepath.Join(dir, tt.file)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.change(b), 0o600); err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var got []Delivery
			came := make(chan bool, 100)
			s, stop := running(t, Config{Dir: dir}, func(_ context.Context, d Delivery) error {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, d)
				came <- true
				return nil
			})
			for range 30 - tt.lost {
				select {
				case <-came:
				case <-time.After(10 * time.Second):
					t.Fatal("not all records came")
				}
			}
			stop()
			if len(got) != 30-tt.lost {
				t.Errorf("%d records are left, want %d", len(got), 30-tt.lost)
			}
			for _, d := range got {
				if tt.marked && d.Attempt == 0 {
					t.Errorf("record %d isn't marked", d.Seq)
				}
			}
			if reported := s.Stats().Damaged > 0; reported != tt.report {
				t.Errorf("damage reported: %v", reported)
			}
			if _, err := os.Stat(path + badSuffix); (err == nil) != tt.report {
				t.Errorf("a copy of the damaged file: %v", err)
			}
		})
	}
}

func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, stop := running(t, Config{Dir: dir}, never)
	defer stop()
	if err := put(s, Record{Data: []byte("who worked when")}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	st, err := os.Stat(dir)
	if err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", st.Mode(), err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) < 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if i, err := f.Info(); err != nil || i.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), i.Mode(), err)
		}
	}
}

func TestRefusals(t *testing.T) {
	s, err := Open(Config{Dir: filepath.Join(t.TempDir(), "a", "b"), MaxQueue: 2})
	if err != nil {
		t.Fatal(err)
	}
	drop := func(error) {}
	s.Append(Record{Data: []byte("1")}, drop)
	s.Append(Record{Data: []byte("2")}, drop)
	if err := put(s, Record{Data: []byte("3")}); !errors.Is(err, ErrBusy) {
		t.Errorf("third of two: %v", err)
	}
	if err := put(s, Record{Data: make([]byte, MaxData+1)}); !errors.Is(err, ErrTooLong) {
		t.Errorf("too long: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Run(ctx, never); !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
	if st := s.Stats(); st.Appended != 2 {
		t.Errorf("what was appended before the end isn't kept: %+v", st)
	}
	if err := put(s, Record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	if err := s.Run(ctx, never); !errors.Is(err, ErrClosed) {
		t.Errorf("run again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Open(Config{}); err == nil {
		t.Error("opened without a folder")
	}
}

func FuzzScanSegment(f *testing.F) {
	good := []byte(segmentMagic)
	for n := range 3 {
		good = appendRecord(good, uint64(n+1), &Record{Key: 7, Time: time.Unix(1, 0), Data: []byte("data")})
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append(bytes.Clone(good[:80]), good[90:]...))
	f.Add([]byte(segmentMagic + recordMark + recordMark))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := scanSegment(b)
		if err != nil {
			return
		}
		again, err := scanSegment(clean(b, s))
		if err != nil || len(again.records) != len(s.records) || again.damaged != 0 || again.torn {
			t.Errorf("a cleaned segment isn't clean: %v, %+v", err, again)
		}
		for _, r := range s.records {
			if out := appendRecord(nil, r.seq, &r.Record); !bytes.Equal(out, b[r.at:r.at+int64(r.n)]) {
				t.Errorf("record %d doesn't come out as it was", r.seq)
			}
		}
	})
}

func FuzzProgress(f *testing.F) {
	good := entry{kind: entryLow, to: 4}.append(nil)
	good = entry{kind: entrySent, from: 4, to: 9, time: time.Unix(9, 0), attempt: 2}.append(good)
	good = entry{kind: entryTaken, from: 5, to: 5}.append(good)
	f.Add(good)
	f.Add(good[:40])
	f.Add(entry{kind: entryDoubt, to: 1 << 60}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := newFakeDisk()
		d.names[progressFile] = &inode{cur: b}
		seg := []byte(segmentMagic)
		for n := range uint64(8) {
			seg = appendRecord(seg, n+1, &Record{Time: time.Unix(1, 0), Data: []byte("x")})
		}
		d.names[segmentName(1)] = &inode{cur: seg}
		s, err := Open(Config{Dir: "fuzz", disk: d})
		if err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.Waiting > 8 {
			t.Errorf("%+v", st)
		}
	})
}

// BenchmarkAppend measures how many records a second are acknowledged, each
// synced, with so many that come at once.
func BenchmarkAppend(b *testing.B) {
	for _, at := range []int{1, 64, 1024} {
		b.Run(fmt.Sprintf("outstanding=%d", at), func(b *testing.B) {
			s, err := Open(Config{Dir: filepath.Join(b.TempDir(), "spool")})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			var wg sync.WaitGroup
			wg.Go(func() { _ = s.Run(ctx, never) }) // it ends with ctx
			free := make(chan struct{}, at)
			data := make([]byte, 300)
			b.ReportAllocs()
			b.SetBytes(300)
			for b.Loop() {
				free <- struct{}{}
				s.Append(Record{Data: data}, func(err error) {
					if err != nil {
						b.Error(err)
					}
					<-free
				})
			}
			for range at {
				free <- struct{}{}
			}
			b.ReportMetric(float64(s.Stats().Appended)/float64(s.Stats().Syncs), "records/sync")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			cancel()
			wg.Wait()
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkDeliver measures how many records a second can be handed out.
func BenchmarkDeliver(b *testing.B) {
	s, err := Open(Config{Dir: filepath.Join(b.TempDir(), "spool")})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	free := make(chan struct{}, 4000)
	wg.Go(func() { _ = s.Run(ctx, func(context.Context, Delivery) error { <-free; return nil }) })
	data := make([]byte, 300)
	n := uint64(0)
	for b.Loop() {
		free <- struct{}{}
		s.Append(Record{Key: n, Data: data}, func(err error) {
			if err != nil {
				b.Error(err)
			}
		})
		n++
	}
	for s.Stats().Delivered < n {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
	cancel()
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}
