package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// The defaults of a Config.
const (
	DefaultMaxBytes     = 1 << 30
	DefaultMaxAge       = 7 * 24 * time.Hour
	DefaultMaxQueue     = 8192
	DefaultSegmentBytes = 16 << 20
	DefaultRemember     = 5 * time.Minute
	DefaultWindow       = 256
	DefaultRetry        = time.Second
	DefaultSetAside     = 20
)

// maxRetry is the longest wait between two attempts to deliver a record, maxPause
// that after failures of whatever record, and maxKnown is how many IDs are
// remembered.
const (
	maxRetry = 30 * time.Second
	maxPause = 5 * time.Second
	maxKnown = 1 << 20
	// maxRefused bounds the file of records that nobody takes, in bytes.
	maxRefused = 64 << 20
)

// What [Spool.Append] refuses a record with.
var (
	// ErrFull says that the spool holds as much as it may, or that its oldest
	// record waits too long.
	ErrFull = errors.New("spool: full")
	// ErrBusy says that too many records wait to be synced.
	ErrBusy = errors.New("spool: the disk doesn't keep up")
	// ErrClosed says that the spool is at its end.
	ErrClosed = errors.New("spool: closed")
	// ErrTooLong says that a record is longer than MaxData.
	ErrTooLong = errors.New("spool: record is too long")
)

// ErrNotSent is what a Deliverer returns, alone or wrapped, if it handed the
// record to nobody: it doesn't count as an attempt.
var ErrNotSent = errors.New("not sent")

// A Config says how a spool is kept.
type Config struct {
	// Dir is the folder. It is made if need be, and must be the spool's alone.
	Dir string
	// MaxBytes bounds the records on disk, in bytes; 0 means DefaultMaxBytes.
	// At the bound nothing more is acknowledged.
	MaxBytes int64
	// MaxAge is how long the oldest record may wait; while one waits longer,
	// nothing more is acknowledged. 0 means DefaultMaxAge, less than 0 no
	// bound.
	MaxAge time.Duration
	// MaxQueue is how many records may wait to be synced; 0 means
	// DefaultMaxQueue.
	MaxQueue int
	// SegmentBytes is how long a file gets before the next is begun; 0 means
	// DefaultSegmentBytes.
	SegmentBytes int64
	// Remember is how long the ID of a record is known, and for how long what
	// was delivered stays on disk so that it is known after a restart too. 0
	// means DefaultRemember. At MaxBytes it is forgotten sooner.
	Remember time.Duration
	// Window is how many records are delivered at once; 0 means
	// DefaultWindow. It shrinks while deliveries fail, down to one.
	Window int
	// Retry is after how long a record that wasn't taken is tried again. It
	// doubles with each attempt, up to 30 seconds. 0 means DefaultRetry.
	Retry time.Duration
	// SetAside is how often a record may be refused, while others are taken
	// in between, before it is set aside; 0 means DefaultSetAside, less than 0
	// never.
	SetAside int
	// Logger, if not nil, hears of damage, of records set aside and of a
	// failing disk. It never hears what is in a record.
	Logger *slog.Logger

	disk disk // of tests
}

// A Delivery is a record that is to be delivered.
type Delivery struct {
	Record
	// Seq is the number of the record: 1 and up.
	Seq uint64
	// Attempt counts how often the record may have reached somebody before. 0
	// means that it can't have; with more it must be marked as repeated.
	Attempt int
}

// A Deliverer hands a record to who wants it, and returns nil once it is taken
// for good. It is called from many goroutines at once, and must end with ctx.
type Deliverer func(ctx context.Context, d Delivery) error

// Stats are what a spool has counted since it was opened, and what it holds.
type Stats struct {
	// Appended counts records acknowledged, Known those that were known
	// already, Full and Busy those refused with ErrFull and ErrBusy, Failed
	// those that the disk failed for.
	Appended, Known, Full, Busy, Failed uint64
	// Syncs counts how often records were synced.
	Syncs uint64
	// Delivered counts records taken, Repeated those handed out again, Refused
	// those set aside.
	Delivered, Repeated, Refused uint64
	// Damaged counts damage found.
	Damaged uint64
	// Waiting is how many records are on disk that nobody took.
	Waiting uint64
	// Bytes is what the records on disk take, in bytes.
	Bytes int64
	// Oldest is when the oldest record that waits came in, if one does.
	Oldest time.Time
}

type counters struct {
	appended, known, full, busy, failed, syncs, delivered, repeated, refused, damaged atomic.Uint64
}

// A Spool keeps records until they are delivered. Open makes it, Run works it.
// Its methods may be called from several goroutines at once.
type Spool struct {
	c    Config
	log  *slog.Logger
	disk disk
	lock io.Closer
	n    counters

	wakeWriter, wakeDelivery chan struct{}

	mu       sync.Mutex
	queue    []appending
	closed   bool
	running  bool
	known    map[[16]byte]bool // true once synced
	recent   []remembered
	keys     map[uint64]int // how many records of a key wait
	segments []*segment
	bytes    int64     // of all segments, synced
	next     uint64    // the number of the next record
	low      uint64    // the first record that isn't dealt with
	waiting  uint64    // records synced and not dealt with
	oldest   time.Time // of those that wait
	lost     []span    // numbers of writes that failed

	// The writer's own:
	active    file
	buf       []byte
	failedLog time.Time

	// The delivery's own; see deliver.go.
	deliver delivery
}

// appending is a record that waits to be synced. One without a number is known
// already, and only waits for the one that is.
type appending struct {
	rec   Record
	known bool
	done  func(error)
}

type remembered struct {
	id [16]byte
	at time.Time
}

// A segment is a file of records. It is guarded by Spool.mu.
type segment struct {
	name        string
	first, last uint64 // last is before first if it is empty
	size        int64  // synced
	newest      time.Time
}

// Open opens the spool in a folder, and reads all that is in it.
func Open(c Config) (*Spool, error) {
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.MaxAge = cmp.Or(c.MaxAge, DefaultMaxAge)
	c.MaxQueue = cmp.Or(c.MaxQueue, DefaultMaxQueue)
	c.SegmentBytes = cmp.Or(c.SegmentBytes, DefaultSegmentBytes)
	c.Remember = cmp.Or(c.Remember, DefaultRemember)
	c.Window = cmp.Or(c.Window, DefaultWindow)
	c.Retry = cmp.Or(c.Retry, DefaultRetry)
	c.SetAside = cmp.Or(c.SetAside, DefaultSetAside)
	s := &Spool{
		c: c, log: c.Logger, disk: c.disk,
		wakeWriter: make(chan struct{}, 1), wakeDelivery: make(chan struct{}, 1),
		known: make(map[[16]byte]bool), keys: make(map[uint64]int),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.disk == nil {
		if err := s.openFolder(); err != nil {
			return nil, err
		}
	}
	if err := s.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("spool: open %s: %w", c.Dir, err), s.Close())
	}
	return s, nil
}

func (s *Spool) openFolder() error {
	if s.c.Dir == "" {
		return errors.New("spool: no folder is given")
	}
	if err := os.MkdirAll(s.c.Dir, 0o700); err != nil {
		return fmt.Errorf("spool: make the folder: %w", err)
	}
	l, err := lock(filepath.Join(s.c.Dir, "lock"))
	if err != nil {
		return err
	}
	s.lock, s.disk = l, folder(s.c.Dir)
	return nil
}

// Append takes a record. It calls done once: without an error when the record is
// synced to disk, otherwise with what prevents it. It doesn't block, keeps no
// part of r.Data, and may call done before it returns. Records are synced by Run.
func (s *Spool) Append(r Record, done func(error)) {
	if err := s.enqueue(&r, done); err != nil {
		done(err)
		return
	}
	wake(s.wakeWriter)
}

func (s *Spool) enqueue(r *Record, done func(error)) error {
	if len(r.Data) > MaxData {
		return ErrTooLong
	}
	now := time.Now()
	if r.Time.IsZero() {
		r.Time = now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return ErrClosed
	case len(s.queue) >= s.c.MaxQueue:
		s.n.busy.Add(1)
		return ErrBusy
	case s.isKnown(r.ID):
		s.queue = append(s.queue, appending{rec: Record{ID: r.ID}, known: true, done: done})
		return nil
	case s.tooOld(now):
		s.n.full.Add(1)
		return fmt.Errorf("%w: a record waits since %v", ErrFull, s.oldest.Format(time.DateTime))
	}
	r.Data = append([]byte(nil), r.Data...)
	s.remember(r.ID, r.Time, false)
	s.keys[r.Key]++
	s.queue = append(s.queue, appending{rec: *r, done: done})
	return nil
}

func (s *Spool) tooOld(now time.Time) bool {
	return s.c.MaxAge > 0 && !s.oldest.IsZero() && now.Sub(s.oldest) > s.c.MaxAge
}

// Holds reports whether a record of key waits, or one of id is known: a new one of
// that key has to wait behind it, and one of that id need not be kept.
func (s *Spool) Holds(key uint64, id [16]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[key] > 0 || s.isKnown(id)
}

// Idle reports whether no record waits and none is remembered: Holds is false for
// all.
func (s *Spool) Idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.keys) == 0 && len(s.known) == 0
}

// leave is for a record that waits no more.
func (s *Spool) leave(key uint64) {
	if s.keys[key]--; s.keys[key] <= 0 {
		delete(s.keys, key)
	}
}

func (s *Spool) isKnown(id [16]byte) bool {
	_, ok := s.known[id]
	return ok
}

// remember keeps an ID for a while.
func (s *Spool) remember(id [16]byte, at time.Time, synced bool) {
	if id == [16]byte{} {
		return
	}
	s.known[id] = synced
	s.recent = append(s.recent, remembered{id, at})
	k := 0
	for k < len(s.recent)-1 && (len(s.recent)-k > maxKnown || at.Sub(s.recent[k].at) > s.c.Remember) {
		delete(s.known, s.recent[k].id)
		k++
	}
	s.recent = s.recent[k:]
}

// Wake has the spool try to deliver at once, for whoever knows that there is
// somebody again to deliver to.
func (s *Spool) Wake() {
	s.deliver.awake.Store(true)
	wake(s.wakeDelivery)
}

// Run syncs what is appended, and has what is kept delivered, until ctx is done.
// It then syncs what is appended still, refuses all further records with
// ErrClosed, waits for the deliveries under way and returns why it ended. While
// the disk fails, it goes on trying. It can be called once.
func (s *Spool) Run(ctx context.Context, deliver Deliverer) error {
	s.mu.Lock()
	if s.running || s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.running = true
	s.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { s.write(ctx) })
	wg.Go(func() { s.deliverAll(ctx, deliver) })
	wg.Wait()
	return context.Cause(ctx)
}

// Close closes the files. Run must have returned, or never been called.
func (s *Spool) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, f := range []*file{&s.active, &s.deliver.reader, &s.deliver.progress.file} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Stats returns what has been counted, and what is kept.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Appended: s.n.appended.Load(), Known: s.n.known.Load(), Full: s.n.full.Load(), Busy: s.n.busy.Load(), Failed: s.n.failed.Load(),
		Syncs: s.n.syncs.Load(), Delivered: s.n.delivered.Load(), Repeated: s.n.repeated.Load(), Refused: s.n.refused.Load(),
		Damaged: s.n.damaged.Load(), Waiting: s.waiting, Bytes: s.bytes, Oldest: s.oldest,
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// damage reports damage to a file, and keeps a copy of it.
func (s *Spool) damage(name string, b []byte, what string) error {
	s.n.damaged.Add(1)
	s.log.Error("a file of the accounting spool is damaged; a copy of it is kept", "file", filepath.Join(s.c.Dir, name), "copy", name+badSuffix, "what", what)
	if _, err := s.disk.read(name + badSuffix); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err // the first copy is the one that shows what happened
	}
	return replace(s.disk, name+badSuffix, b)
}
