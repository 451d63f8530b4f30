package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// delivery is what the goroutine that delivers knows.
type delivery struct {
	progress progress
	reader   file
	reading  string // the segment that reader reads
	pos      int64
	chunk    []byte
	chunkAt  int64

	at    uint64  // the next record to read
	items []*item // read and not dealt with, in order
	gaps  []uint64
	width int // how many may be under way
	took  uint64
	fails int // in a row
	pause time.Time

	awake     atomic.Bool
	failedLog time.Time

	mu   sync.Mutex
	done []*item
}

// An item is a record in memory.
type item struct {
	Delivery
	before   sending // as it was before the attempt under way
	underway bool
	failed   int
	passed   int // failures while others were taken
	took     uint64
	notYet   time.Time
	err      error // of the attempt that has ended
}

// deliverAll hands out records until ctx is done.
func (s *Spool) deliverAll(ctx context.Context, deliver Deliverer) {
	d := &s.deliver
	d.width = min(8, s.c.Window)
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		// Written anew it also says what wasn't handed out after all.
		s.collect()
		if err := s.deliver.progress.compact(); err != nil {
			s.log.Warn("the accounting spool couldn't note what was delivered: some will be delivered as repeated", "err", err)
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		ready, wait, err := s.round(ctx)
		if err != nil {
			s.complainDelivery(err)
			ready, wait = nil, DefaultRetry
		}
		for _, it := range ready {
			wg.Go(func() { s.attempt(ctx, deliver, it) })
		}
		if len(ready) > 0 {
			continue
		}
		timer.Reset(wait)
		select {
		case <-s.wakeDelivery:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// round looks at what has ended, and returns what is to be handed out now: all
// that is known of either is durable then.
func (s *Spool) round(ctx context.Context) (ready []*item, wait time.Duration, err error) {
	taken := s.collect()
	if err = s.fill(); err != nil {
		return nil, 0, errors.Join(err, s.note(taken))
	}
	now := time.Now()
	if s.deliver.awake.Swap(false) {
		s.deliver.pause = time.Time{}
	}
	if ctx.Err() == nil {
		ready, wait = s.deliver.ready(now)
	}
	return ready, wait, s.announce(ready, taken, now)
}

// complainDelivery logs a failing disk, once a minute.
func (s *Spool) complainDelivery(err error) {
	if d, now := &s.deliver, time.Now(); d.failedLog.IsZero() || now.Sub(d.failedLog) >= time.Minute {
		d.failedLog = now
		s.log.Error("the accounting spool can't deliver what it holds", "dir", s.c.Dir, "err", err)
	}
}

func (s *Spool) attempt(ctx context.Context, deliver Deliverer, it *item) {
	it.err = deliver(ctx, it.Delivery)
	s.deliver.mu.Lock()
	s.deliver.done = append(s.deliver.done, it)
	s.deliver.mu.Unlock()
	wake(s.wakeDelivery)
}

// fill reads records until there is enough to choose from: more than may be under
// way, for some wait for others.
func (s *Spool) fill() error {
	d := &s.deliver
	for len(d.items) < 4*s.c.Window {
		f, ok, err := s.read()
		if err != nil || !ok {
			return err
		}
		if d.progress.taken[f.seq] {
			continue
		}
		it := &item{Delivery: Delivery{Record: f.Record, Seq: f.seq}}
		st := d.progress.state(f.seq)
		if st.attempt == 0 && !f.Last.IsZero() {
			st = sending{f.Last, 1}
		}
		it.Attempt, it.Last = st.attempt, later(st.last, f.Last)
		d.items = append(d.items, it)
	}
	return nil
}

// ready returns the records to hand out now, and if there is none, how long there
// can't be.
func (d *delivery) ready(now time.Time) (ready []*item, wait time.Duration) {
	wait = time.Hour
	if left := d.pause.Sub(now); left > 0 {
		return nil, left
	}
	underway := 0
	for _, it := range d.items {
		if it.underway {
			underway++
		}
	}
	busy := make(map[uint64]bool)
	for _, it := range d.items {
		if underway+len(ready) >= d.width {
			break
		}
		if !busy[it.Key] && !it.underway {
			if left := it.notYet.Sub(now); left > 0 {
				wait = min(wait, left)
			} else {
				ready = append(ready, it)
			}
		}
		busy[it.Key] = true
	}
	return ready, wait
}

// announce makes it durable that records are about to be handed out, along with
// what was taken meanwhile.
func (s *Spool) announce(ready []*item, taken []entry, now time.Time) error {
	p := &s.deliver.progress
	entries := taken
	for _, it := range ready {
		st := sending{now, it.Attempt + 1}
		entries = append(entries, entry{kind: entrySent, from: it.Seq, to: it.Seq, time: now, attempt: min(st.attempt, 1<<16-1)})
		it.before, p.sent[it.Seq] = p.sent[it.Seq], st
		it.underway = true
	}
	err := s.note(entries)
	if err != nil {
		for _, it := range ready {
			s.restore(it)
			it.underway = false
		}
	}
	return err
}

// restore undoes that a record is said to be handed out.
func (s *Spool) restore(it *item) {
	if p := &s.deliver.progress; it.before.attempt > 0 {
		p.sent[it.Seq] = it.before
	} else {
		delete(p.sent, it.Seq)
	}
}

// note makes entries durable.
func (s *Spool) note(entries []entry) error {
	p := &s.deliver.progress
	if len(entries) == 0 {
		return nil
	}
	if err := p.write(entries); err != nil {
		return fmt.Errorf("spool: write %s: %w", progressFile, err)
	}
	s.mu.Lock()
	s.low = p.low
	s.mu.Unlock()
	return nil
}

// collect looks at the attempts that have ended, and returns what is to be noted.
func (s *Spool) collect() []entry {
	d := &s.deliver
	d.mu.Lock()
	done := d.done
	d.done = nil
	d.mu.Unlock()
	var taken []entry
	for _, it := range done {
		it.underway = false
		if s.judge(it) {
			taken = append(taken, entry{kind: entryTaken, from: it.Seq, to: it.Seq})
		}
	}
	return append(taken, s.settle(taken)...)
}

// settle drops what was taken, and returns entries of numbers without a record.
func (s *Spool) settle(taken []entry) (lost []entry) {
	d := &s.deliver
	p := &d.progress
	s.mu.Lock()
	for _, n := range s.lost {
		lost = append(lost, entry{kind: entryLost, from: n.from, to: n.to})
		p.lose(n)
	}
	s.lost = nil
	s.mu.Unlock()
	for _, seq := range d.gaps {
		p.taken[seq] = true
	}
	d.gaps = nil
	if len(taken) == 0 && len(d.items) == 0 {
		return lost
	}
	for _, e := range taken {
		p.taken[e.from] = true
		delete(p.sent, e.from)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.items = slices.DeleteFunc(d.items, func(it *item) bool {
		if p.taken[it.Seq] {
			s.leave(it.Key)
		}
		return p.taken[it.Seq]
	})
	p.advance(s.next)
	s.waiting -= uint64(len(taken))
	s.oldest = time.Time{}
	if len(d.items) > 0 {
		s.oldest = d.items[0].Time
	}
	return lost
}

// judge says whether a record is dealt with after an attempt.
func (s *Spool) judge(it *item) bool {
	d := &s.deliver
	if it.Attempt > 0 && !errors.Is(it.err, ErrNotSent) {
		s.n.repeated.Add(1)
	}
	if it.err == nil {
		d.took++
		d.fails, d.pause = 0, time.Time{}
		d.width = min(s.c.Window, d.width*2)
		s.n.delivered.Add(1)
		return true
	}
	now := time.Now()
	d.width = max(1, d.width/2)
	if d.fails++; d.width == 1 {
		d.pause = now.Add(min(s.c.Retry<<min(d.fails-1, 10), maxPause))
	}
	if errors.Is(it.err, ErrNotSent) {
		s.restore(it)
		return false
	}
	st := d.progress.sent[it.Seq]
	it.Attempt, it.Last = st.attempt, st.last
	if d.took > it.took {
		it.passed++
	}
	it.took = d.took
	it.failed++
	it.notYet = now.Add(min(s.c.Retry<<min(it.failed-1, 10), maxRetry))
	return s.c.SetAside > 0 && it.passed >= s.c.SetAside && s.setAside(it)
}

// setAside moves a record that nobody takes out of the way. It reports whether it
// could: otherwise the record goes on being tried.
func (s *Spool) setAside(it *item) bool {
	b, err := s.disk.read(refusedFile)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte(segmentMagic), nil
	}
	if err == nil && len(b)+len(it.Data) > maxRefused {
		err = errors.New("the file is too long")
	}
	if err == nil {
		err = replace(s.disk, refusedFile, appendRecord(b, it.Seq, &it.Record))
	}
	if err != nil {
		s.complainDelivery(fmt.Errorf("spool: write %s: %w", refusedFile, err))
		return false
	}
	s.n.refused.Add(1)
	s.log.Error("an accounting record is taken by no server while others are, and was set aside",
		"file", refusedFile, "record", it.Seq, "attempts", it.Attempt, "came", it.Time, "err", it.err)
	return true
}

// chunkSize is how much is read at once, in bytes.
const chunkSize = 256 << 10

// read returns the next record that is synced, if there is one.
func (s *Spool) read() (found, bool, error) {
	d := &s.deliver
	for {
		s.mu.Lock()
		seg := s.segmentOf(d.at)
		var name string
		var size int64
		if seg != nil {
			name, size = seg.name, seg.size
		}
		s.mu.Unlock()
		if seg == nil {
			return found{}, false, nil
		}
		if err := s.turnTo(name); err != nil {
			return found{}, false, err
		}
		for d.pos < size {
			f, err := s.parse(size)
			if err != nil {
				return found{}, false, err
			}
			if f.n > 0 && f.seq >= d.at {
				s.gap(f.seq)
				d.at = f.seq + 1
				return f, true, nil
			}
		}
		// All of the segment is read, and yet the number isn't there.
		s.mu.Lock()
		last := seg.last
		s.mu.Unlock()
		s.gap(last + 1)
		d.at = last + 1
	}
}

// gap notes the numbers before seq that have no record.
func (s *Spool) gap(seq uint64) {
	d := &s.deliver
	for ; d.at < seq; d.at++ {
		if !d.progress.taken[d.at] {
			d.gaps = append(d.gaps, d.at)
		}
	}
}

// turnTo opens a segment for reading.
func (s *Spool) turnTo(name string) error {
	d := &s.deliver
	if d.reading == name {
		return nil
	}
	if d.reader != nil {
		if err := d.reader.Close(); err != nil {
			return err
		}
		d.reader = nil
	}
	f, err := s.disk.open(name)
	if err != nil {
		return fmt.Errorf("spool: open %s: %w", name, err)
	}
	d.reader, d.reading, d.pos, d.chunk, d.chunkAt = f, name, int64(segmentHead), d.chunk[:0], 0
	return nil
}

// parse reads what is at pos of a segment of that size, and moves on. The record
// has no length if there was damage.
func (s *Spool) parse(size int64) (found, error) {
	d := &s.deliver
	seq, r, n, err := parseRecord(d.view())
	if errors.Is(err, errTorn) {
		if err := d.load(size); err != nil {
			return found{}, fmt.Errorf("spool: read %s: %w", d.reading, err)
		}
		seq, r, n, err = parseRecord(d.view())
	}
	if err == nil {
		r.Data = bytes.Clone(r.Data)
		f := found{seq, d.pos, n, r}
		d.pos += int64(n)
		return f, nil
	}
	// It was whole when it was written, or when the spool was opened.
	b, rerr := s.disk.read(d.reading)
	if rerr != nil {
		return found{}, fmt.Errorf("spool: read %s: %w", d.reading, rerr)
	}
	if err := s.damage(d.reading, b, err.Error()); err != nil {
		return found{}, err
	}
	b = b[:min(int64(len(b)), size)]
	if next := bytes.Index(b[min(d.pos+1, int64(len(b))):], []byte(recordMark)); next >= 0 {
		d.pos += 1 + int64(next)
	} else {
		d.pos = size
	}
	return found{}, nil
}

// view is what is in memory of the segment from pos on.
func (d *delivery) view() []byte {
	if k := d.pos - d.chunkAt; k >= 0 && k < int64(len(d.chunk)) {
		return d.chunk[k:]
	}
	return nil
}

// load reads on from pos.
func (d *delivery) load(size int64) error {
	n := int(min(size-d.pos, chunkSize))
	if cap(d.chunk) < n {
		d.chunk = make([]byte, 0, chunkSize)
	}
	d.chunk = d.chunk[:n]
	d.chunkAt = d.pos
	k, err := d.reader.ReadAt(d.chunk, d.pos)
	d.chunk = d.chunk[:k]
	if k == n {
		return nil
	}
	return err
}
