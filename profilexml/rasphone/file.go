package rasphone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// How a File behaves unless it says otherwise.
const (
	// DefaultRetry is how long it goes on trying while the file is locked.
	DefaultRetry = 10 * time.Second
	// DefaultBackups is how many backups are kept.
	DefaultBackups = 3
)

// How long it waits between two tries at first, and at most.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 500 * time.Millisecond
)

// What can be in the way of editing a file. Errors wrap them.
var (
	// ErrLocked says that another program had the file open all the time.
	ErrLocked = errors.New("the phone book is in use by another program")
	// ErrBusy says that another program changed the file again and again.
	ErrBusy = errors.New("another program keeps changing the phone book")
)

// A File edits a phone book in a file. The zero File with a Path is ready for use.
//
// What it writes replaces the file in one step, so that nobody ever reads half of
// it. On Windows the replaced file's access control list, attributes and owner
// are kept (ReplaceFile); elsewhere its mode is, and its owner where that is
// allowed.
//
// Windows itself writes the file too. An edit is therefore made on what was read
// last, the file is read again just before it is replaced, and what was replaced
// is looked at afterwards: if that isn't what the edit was made on, it is made
// again, on that.
type File struct {
	// Path is the file.
	Path string
	// Retry is how long to go on while the file is locked; 0 is DefaultRetry,
	// less than 0 means not at all.
	Retry time.Duration
	// Backups is how many backups are kept beside the file, with a time in their
	// names; 0 is DefaultBackups, less than 0 means none.
	Backups int
	// DryRun changes nothing.
	DryRun bool

	sys *system // nil for the real one
}

// A system is what a File does to files.
type system struct {
	read    func(path string) ([]byte, error)
	replace func(path, with, backup string) error
	locked  func(error) bool
	now     func() time.Time
}

func realSystem() *system { return &system{readFile, replaceFile, isLocked, time.Now} }

// A Result is what an edit did to a file.
type Result struct {
	// Changes are what differs now; none if all was as it should be.
	Changes []Change
	// Before and After are the file as it was and as it is, or would be.
	Before, After *Phonebook
	// Backup is the file that holds what was replaced; empty if there is none.
	Backup string
	// Written says that the file was replaced.
	Written bool
}

// readFile reads a file of at most MaxBytes.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxBytes+1))
}

// Read reads the phone book, and waits while it is locked. A file that isn't
// there is an error.
func (f *File) Read(ctx context.Context) (*Phonebook, error) {
	var b []byte
	err := f.retry(ctx, func(sys *system) (err error) {
		b, err = sys.read(f.Path)
		return err
	})
	if err != nil {
		return nil, err
	}
	p, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	return p, nil
}

func (f *File) system() *system {
	if f.sys != nil {
		return f.sys
	}
	return realSystem()
}

// retry calls try until it doesn't fail for a lock, or time is up.
func (f *File) retry(ctx context.Context, try func(*system) error) error {
	sys := f.system()
	patience := f.Retry
	if patience == 0 {
		patience = DefaultRetry
	}
	deadline := sys.now().Add(patience)
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := try(sys)
		if err == nil || !sys.locked(err) {
			return err
		}
		if !sys.now().Add(pause).Before(deadline) {
			return fmt.Errorf("%s: %w, for %v: %w", f.Path, ErrLocked, max(patience, 0), err)
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		case <-t.C:
		}
	}
}

// maxRounds is how often an edit is made anew because the file has changed.
const maxRounds = 10

// Edit makes an edit in the file. If nothing has to be changed, the file isn't
// touched. The error may wrap ErrLocked, ErrBusy, and what [Phonebook.Apply]
// returns; then nothing of the edit is in the file, unless Result.Written says so.
func (f *File) Edit(ctx context.Context, e Edit) (Result, error) {
	if path, err := filepath.EvalSymlinks(f.Path); err == nil && path != f.Path {
		g := *f
		g.Path = path // so that the file is replaced, and not the link to it
		f = &g
	}
	for range maxRounds {
		p, err := f.Read(ctx)
		if err != nil {
			return Result{}, err
		}
		r, err := f.apply(p, e)
		if err != nil || len(r.Changes) == 0 || f.DryRun {
			return r, err
		}
		done, err := f.write(ctx, &r, e)
		if err != nil || done {
			return r, err
		}
	}
	return Result{}, fmt.Errorf("%s: %w", f.Path, ErrBusy)
}

func (f *File) apply(p *Phonebook, e Edit) (Result, error) {
	after, changes, err := p.Apply(e)
	if err != nil {
		return Result{}, fmt.Errorf("%s: %w", f.Path, err)
	}
	return Result{Changes: changes, Before: p, After: after}, nil
}

// write replaces the file with r.After. It returns false if the file has changed
// since it was read.
func (f *File) write(ctx context.Context, r *Result, e Edit) (bool, error) {
	for range maxRounds {
		replaced, err := f.replaceWith(ctx, r)
		switch {
		case errors.Is(err, errChanged):
			return false, nil
		case err != nil:
			return false, err
		case bytes.Equal(replaced, r.Before.data):
			r.Written = true
			f.prune(r)
			return true, nil
		}
		// Somebody wrote between the last look and the replacement. That is in
		// the backup, so make the edit on it, and replace what was just written.
		if err := f.again(r, e, replaced); err != nil {
			return false, err
		}
	}
	return false, fmt.Errorf("%s: %w", f.Path, ErrBusy)
}

// again makes the edit on what somebody wrote last, to replace what r has
// written.
func (f *File) again(r *Result, e Edit, theirs []byte) error {
	mine := r.After
	p, err := Parse(theirs)
	if err == nil {
		var next Result
		if next, err = f.apply(p, e); err == nil {
			*r = Result{Changes: next.Changes, Before: mine, After: next.After}
			return nil
		}
	}
	// The edit can't be made on theirs, and theirs must not be lost.
	restored := Result{Before: mine, After: &Phonebook{data: theirs}}
	if _, undo := f.replaceWith(context.Background(), &restored); undo != nil {
		return fmt.Errorf("%s: %w; what another program wrote is in %s: %w", f.Path, err, r.Backup, undo)
	}
	return err
}

var errChanged = errors.New("the file has changed")

// replaceWith puts r.After in place of r.Before, and returns what was replaced.
func (f *File) replaceWith(ctx context.Context, r *Result) ([]byte, error) {
	temp, err := f.temp(r.After.data)
	if err != nil {
		return nil, err
	}
	defer os.Remove(temp) //nolint:errcheck // it is gone if all went well
	backup, err := f.backupName()
	if err != nil {
		return nil, err
	}
	err = f.retry(ctx, func(sys *system) error {
		now, err := sys.read(f.Path)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, r.Before.data) {
			return errChanged
		}
		return sys.replace(f.Path, temp, backup)
	})
	if err != nil {
		return nil, err
	}
	r.Backup = backup
	var replaced []byte
	err = f.retry(ctx, func(sys *system) (err error) {
		replaced, err = sys.read(backup)
		return err
	})
	if err != nil {
		r.Written = true
		return nil, fmt.Errorf("%s was written, and nobody could see whether another program had written it just before, which would be in %s: %w", f.Path, backup, err)
	}
	return replaced, nil
}

// temp writes b to a file beside the phone book. Its name doesn't end in .pbk,
// since Windows takes every such file for a phone book.
func (f *File) temp(b []byte) (string, error) {
	t, err := os.CreateTemp(filepath.Dir(f.Path), ".aovlb-*.tmp")
	if err != nil {
		return "", fmt.Errorf("%s can't be replaced: %w", f.Path, err)
	}
	_, err = t.Write(b)
	if err = errors.Join(err, t.Sync(), t.Close(), inherit(f.Path, t.Name())); err != nil {
		return "", errors.Join(fmt.Errorf("%s can't be replaced: %w", f.Path, err), os.Remove(t.Name()))
	}
	return t.Name(), nil
}

// backupMark is in the names of backups, between that of the file and the time.
const backupMark = ".aovlb-"

// backupName returns a name that no backup has yet.
func (f *File) backupName() (string, error) {
	now := f.system().now().UTC()
	for n := range 1000 {
		name := fmt.Sprintf("%s%s%s", f.Path, backupMark, now.Format("20060102T150405.000"))
		if n > 0 {
			name += fmt.Sprintf("-%03d", n)
		}
		if _, err := os.Lstat(name + ".bak"); errors.Is(err, os.ErrNotExist) {
			return name + ".bak", nil
		}
	}
	return "", fmt.Errorf("%s: there are too many backups of this second", f.Path)
}

// prune deletes all but the newest backups. What can't be deleted stays.
func (f *File) prune(r *Result) {
	keep := f.Backups
	if keep == 0 {
		keep = DefaultBackups
	}
	list, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil {
		return
	}
	var names []string
	for _, d := range list {
		if strings.HasPrefix(d.Name(), filepath.Base(f.Path)+backupMark) && strings.HasSuffix(d.Name(), ".bak") {
			names = append(names, d.Name())
		}
	}
	slices.Sort(names)
	for _, n := range names[:max(0, len(names)-max(keep, 0))] {
		_ = os.Remove(filepath.Join(filepath.Dir(f.Path), n))
	}
	if keep < 0 {
		r.Backup = ""
	}
}
