// Package watch keeps settings of phone books as they are meant to be, when
// Windows rewrites them.
//
// Windows changes VpnStrategy when a connection succeeds with another protocol
// than the first, and makes an entry anew when a profile is delivered. A
// [Watcher] notices that the file has changed, waits until it is quiet, and
// makes its edit again; with care not to fight with another program that wants
// something else.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/aovlb/aovlb/profilexml/rasphone"
)

// How a Watcher behaves unless it says otherwise.
const (
	// DefaultSettle is how long a file must have been quiet.
	DefaultSettle = 2 * time.Second
	// DefaultInterval is the time between two edits of a file.
	DefaultInterval = 30 * time.Second
	// DefaultPoll is how often files are looked at in any case.
	DefaultPoll = 5 * time.Minute
	// MaxInterval is how far the interval grows while somebody else keeps
	// changing the settings.
	MaxInterval = time.Hour
)

// A Watcher makes an edit in phone books, and again whenever it is undone. It must
// not be changed while it runs, and runs once.
type Watcher struct {
	// Files are the phone books. One that isn't there yet is waited for.
	Files []string
	// Edit is what must hold. An entry that isn't there yet is waited for.
	Edit rasphone.Edit
	// Settle is how long a file must have been quiet before it is edited; 0 is
	// DefaultSettle.
	Settle time.Duration
	// Interval is the least time between two edits of a file; 0 is
	// DefaultInterval. It doubles with each edit, up to MaxInterval, as long as
	// they follow upon each other within twice its length.
	Interval time.Duration
	// Poll is how often files are looked at without a notice, for file systems
	// that give none; 0 is DefaultPoll.
	Poll time.Duration
	// Retry and Backups are those of [rasphone.File].
	Retry   time.Duration
	Backups int
	// Log is told of edits, and of what is in their way; nil is silent.
	Log *slog.Logger
	// Trace is called on events.
	Trace Trace
}

// A Trace is called while a Watcher runs, by one goroutine. Each may be nil.
type Trace struct {
	// Looked is called after a file was looked at, with what was done, which is
	// nothing if it was as it should be.
	Looked func(path string, r rasphone.Result, err error)
	// Delayed is called when an edit is put off, because the last was so short a
	// time ago.
	Delayed func(path string, until time.Time)
}

// Run makes the edit and keeps it, until ctx ends; then it returns the cause. It
// fails at once if it can't watch at all.
func (w *Watcher) Run(ctx context.Context) error {
	if len(w.Files) == 0 {
		return errors.New("there is no phone book to watch")
	}
	n, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch files: %w", err)
	}
	events := make(chan string)
	done := make(chan struct{})
	ctx, stop := context.WithCancel(ctx)
	go func() {
		defer close(done)
		w.notices(ctx, n, events)
	}()
	err = w.loop(ctx, events, func(path string) { w.listen(n, path) })
	stop()
	<-done
	return errors.Join(err, n.Close())
}

// listen watches the folder of a file: the file itself is replaced, so that a
// watch on it would end. It may be called again and again.
func (w *Watcher) listen(n *fsnotify.Watcher, path string) {
	if err := n.Add(filepath.Dir(path)); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.logger().Debug("the folder gives no notice of changes; it is polled", "folder", filepath.Dir(path), "error", err)
	}
}

// notices passes on which files have changed.
func (w *Watcher) notices(ctx context.Context, n *fsnotify.Watcher, events chan<- string) {
	for {
		var name string
		select {
		case <-ctx.Done():
			return
		case e, ok := <-n.Events:
			if !ok {
				return
			}
			name = e.Name
		case err, ok := <-n.Errors:
			if !ok {
				return
			}
			w.logger().Warn("notices of changes were lost; files are looked at", "error", err)
		}
		select {
		case events <- name:
		case <-ctx.Done():
			return
		}
	}
}

func (w *Watcher) logger() *slog.Logger {
	if w.Log != nil {
		return w.Log
	}
	return slog.New(slog.DiscardHandler)
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// A book is a file and when it is next looked at.
type book struct {
	path     string
	next     time.Time     // zero: not before a notice or a poll
	changed  time.Time     // of the last edit
	interval time.Duration // that is kept now
	problem  string        // that was logged last
}

// loop looks at files at first, after notices (an empty one is for all), and now
// and then. listen is called before each look.
func (w *Watcher) loop(ctx context.Context, events <-chan string, listen func(string)) error {
	var books []*book
	for _, p := range w.Files {
		books = append(books, &book{path: p, next: time.Now(), interval: or(w.Interval, DefaultInterval)})
	}
	poll := time.NewTicker(or(w.Poll, DefaultPoll))
	defer poll.Stop()
	for {
		timer := time.NewTimer(untilNext(books))
		select {
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		case name := <-events:
			w.noticed(books, name)
		case <-poll.C:
			w.noticed(books, "")
		case <-timer.C:
			for _, b := range books {
				if !b.next.IsZero() && !time.Now().Before(b.next) {
					b.next = time.Time{}
					listen(b.path)
					w.look(ctx, b)
				}
			}
		}
		timer.Stop()
	}
}

// untilNext returns how long it is until a file is to be looked at.
func untilNext(books []*book) time.Duration {
	least := 24 * time.Hour
	for _, b := range books {
		if !b.next.IsZero() {
			least = min(least, max(0, time.Until(b.next)))
		}
	}
	return least
}

// noticed has a file looked at once it is quiet, and not too soon after the last
// edit.
func (w *Watcher) noticed(books []*book, name string) {
	for _, b := range books {
		if name != "" && !samePath(name, b.path) {
			continue
		}
		b.next = time.Now().Add(or(w.Settle, DefaultSettle))
	}
}

func samePath(a, b string) bool {
	// Folders have long and short names on Windows. To look at the file of the
	// same name in another folder does no harm.
	return strings.EqualFold(filepath.Base(a), filepath.Base(b))
}

// look makes the edit in a file if it is needed, and it is time.
func (w *Watcher) look(ctx context.Context, b *book) {
	f := rasphone.File{Path: b.path, Retry: w.Retry, Backups: w.Backups}
	if wait := b.changed.Add(b.interval); !b.changed.IsZero() && time.Now().Before(wait) {
		f.DryRun = true
		if r, err := f.Edit(ctx, w.Edit); err != nil || len(r.Changes) == 0 {
			w.looked(b, r, err)
			return
		}
		b.next = wait
		if w.Trace.Delayed != nil {
			w.Trace.Delayed(b.path, wait)
		}
		return
	}
	r, err := f.Edit(ctx, w.Edit)
	if r.Written {
		w.slower(b)
	}
	w.looked(b, r, err)
	if errors.Is(err, rasphone.ErrLocked) || errors.Is(err, rasphone.ErrBusy) {
		b.next = time.Now().Add(b.interval)
	}
}

// slower doubles the interval if the last edit was undone at once, and otherwise
// begins again.
func (w *Watcher) slower(b *book) {
	if !b.changed.IsZero() && time.Since(b.changed) < 2*b.interval {
		b.interval = min(2*b.interval, max(MaxInterval, w.Interval))
		w.logger().Warn("something keeps changing the phone book back; it is edited less often", "file", b.path, "interval", b.interval)
	} else {
		b.interval = or(w.Interval, DefaultInterval)
	}
	b.changed = time.Now()
}

func (w *Watcher) looked(b *book, r rasphone.Result, err error) {
	switch {
	case err != nil && b.problem != err.Error():
		w.logger().Warn("the phone book can't be edited; it is tried again when it changes", "file", b.path, "error", err)
	case r.Written:
		for _, c := range r.Changes {
			w.logger().Info("set", "file", b.path, "line", c.Line, "change", c.String())
		}
	}
	if b.problem = ""; err != nil {
		b.problem = err.Error()
	}
	if w.Trace.Looked != nil {
		w.Trace.Looked(b.path, r, err)
	}
}
