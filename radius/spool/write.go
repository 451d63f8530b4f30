package spool

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxBatch bounds what shares one sync, in bytes.
	maxBatch = 4 << 20
	// tidyEvery is how often files that nobody needs are looked for.
	tidyEvery = 30 * time.Second
)

// write syncs what is appended until ctx is done, and then the rest.
func (s *Spool) write(ctx context.Context) {
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for {
		for s.commit(s.batch()) {
		}
		select {
		case <-s.wakeWriter:
		case <-tidy.C:
			s.tidy(false)
		case <-ctx.Done():
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
			for s.commit(s.batch()) {
			}
			return
		}
	}
}

// batch takes what shares the next sync.
func (s *Spool) batch() []appending {
	s.mu.Lock()
	defer s.mu.Unlock()
	size, n := 0, 0
	for n < len(s.queue) && size < maxBatch {
		size += recordHead + len(s.queue[n].rec.Data)
		n++
	}
	batch := s.queue[:n:n]
	if s.queue = s.queue[n:]; len(s.queue) == 0 {
		s.queue = nil
	}
	return batch
}

// commit syncs a batch and calls back. It reports whether there was one.
func (s *Spool) commit(batch []appending) bool {
	if len(batch) == 0 {
		return false
	}
	s.mu.Lock()
	first := s.next
	s.mu.Unlock()
	s.buf = s.buf[:0]
	next, newest := first, time.Time{}
	for i := range batch {
		if a := &batch[i]; !a.known {
			s.buf = appendRecord(s.buf, next, &a.rec)
			newest = later(newest, a.rec.Time)
			next++
		}
	}
	err := s.room(int64(len(s.buf)))
	if err == nil && next > first {
		err = s.store(first, next, newest)
	}
	s.conclude(batch, err)
	return true
}

// errLost is for a record that came again while it wasn't synced, and then wasn't.
var errLost = errors.New("spool: the same record, which came before, could not be kept")

// conclude tells those who wait for a batch.
func (s *Spool) conclude(batch []appending, err error) {
	lost := make([]bool, len(batch)) // known of a record that wasn't kept
	s.mu.Lock()
	for i := range batch {
		switch a := &batch[i]; {
		case a.known:
			lost[i] = !s.known[a.rec.ID]
		case err != nil:
			delete(s.known, a.rec.ID)
			s.leave(a.rec.Key)
		case s.isKnown(a.rec.ID):
			s.known[a.rec.ID] = true
		}
	}
	s.mu.Unlock()
	for i := range batch {
		switch {
		case batch[i].known && lost[i]:
			s.n.failed.Add(1)
			batch[i].done(errLost)
			continue
		case batch[i].known:
			s.n.known.Add(1)
			batch[i].done(nil)
			continue
		case err == nil:
			s.n.appended.Add(1)
		case errors.Is(err, ErrFull):
			s.n.full.Add(1)
		default:
			s.n.failed.Add(1)
		}
		batch[i].done(err)
	}
}

// room sees to it that n bytes more may be kept.
func (s *Spool) room(n int64) error {
	fits := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return n == 0 || s.bytes+n+int64(segmentHead) <= s.c.MaxBytes
	}
	if fits() {
		return nil
	}
	s.tidy(true)
	if fits() {
		return nil
	}
	return fmt.Errorf("%w: %d bytes may be kept", ErrFull, s.c.MaxBytes)
}

// store writes s.buf, the records from first to before next, and syncs it.
func (s *Spool) store(first, next uint64, newest time.Time) error {
	seg, err := s.segmentFor(first)
	if err == nil {
		if _, err = s.active.Write(s.buf); err == nil {
			err = s.active.Sync()
		}
	}
	s.n.syncs.Add(1)
	if err != nil {
		s.abandon(seg, first, next)
		s.complain(err)
		return fmt.Errorf("spool: write to disk: %w", err)
	}
	s.mu.Lock()
	if seg.last < seg.first { // it was empty
		s.segments = append(s.segments, seg)
		s.bytes += seg.size
	}
	seg.last, seg.newest = next-1, later(seg.newest, newest)
	seg.size += int64(len(s.buf))
	s.bytes += int64(len(s.buf))
	s.next = next
	s.waiting += next - first
	s.mu.Unlock()
	wake(s.wakeDelivery)
	return nil
}

// segmentFor returns the segment to append to, and begins one if need be.
func (s *Spool) segmentFor(first uint64) (*segment, error) {
	if s.active != nil {
		s.mu.Lock()
		seg := s.segments[len(s.segments)-1]
		s.mu.Unlock()
		if seg.size+int64(len(s.buf)) <= s.c.SegmentBytes {
			return seg, nil
		}
		err := s.active.Close()
		s.active = nil
		if err != nil {
			return nil, err
		}
	}
	f, err := s.disk.open(segmentName(first))
	if err != nil {
		return nil, err
	}
	s.active = f
	seg := &segment{name: segmentName(first), first: first, last: first - 1, size: int64(segmentHead)}
	// A failed batch may have left a file of this name.
	if err := f.Truncate(0); err != nil {
		return seg, err
	}
	if _, err := f.Write([]byte(segmentMagic)); err != nil {
		return seg, err
	}
	// The file's name must be as durable as what it holds.
	return seg, s.disk.sync()
}

// abandon cuts off what a failed write may have left. After a failed sync nobody
// knows what is on disk, so no further record goes into the same file, nor has
// one of the same numbers.
func (s *Spool) abandon(seg *segment, first, next uint64) {
	if s.active != nil {
		size := int64(0)
		if seg != nil && seg.last >= seg.first {
			size = seg.size
		}
		err := s.active.Truncate(size)
		if err = errors.Join(err, s.active.Close()); err != nil {
			s.log.Warn("the accounting spool couldn't undo a write", "err", err)
		}
		s.active = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = next
	s.lost = append(s.lost, span{first, next - 1})
	wake(s.wakeDelivery)
}

// complain logs a failing disk, once a minute.
func (s *Spool) complain(err error) {
	if now := time.Now(); s.failedLog.IsZero() || now.Sub(s.failedLog) >= time.Minute {
		s.failedLog = now
		s.log.Error("the accounting spool can't write: records aren't acknowledged", "dir", s.c.Dir, "err", err)
	}
}

// tidy removes segments of which all is dealt with: those that nobody will ask
// about again, and with pressed all.
func (s *Spool) tidy(pressed bool) {
	s.mu.Lock()
	var old []*segment
	for len(s.segments) > 0 {
		seg := s.segments[0]
		if seg.last >= s.low || (!pressed && time.Since(seg.newest) < s.c.Remember) {
			break
		}
		if len(s.segments) == 1 && s.active != nil {
			s.active.Close() // nothing in it matters
			s.active = nil
		}
		old = append(old, seg)
		s.segments = s.segments[1:]
		s.bytes -= seg.size
	}
	s.mu.Unlock()
	for _, seg := range old {
		if err := s.disk.remove(seg.name); err != nil {
			s.log.Warn("the accounting spool couldn't remove a file", "file", seg.name, "err", err)
		}
	}
}
