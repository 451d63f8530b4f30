package spool

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

var errCrash = errors.New("the power is gone")

// A fakeDisk is a disk that stops at a given operation, and then has kept what was
// synced, and of the rest what chance lets it.
type fakeDisk struct {
	mu      sync.Mutex
	ops     int // done so far
	crashAt int // the operation that fails, with all after it; 0 is never
	failAt  map[int]bool
	names   map[string]*inode
	durable map[string]*inode // as of the last sync of names
	history []map[string]*inode
}

type inode struct{ cur, synced []byte }

type fakeFile struct {
	d *fakeDisk
	i *inode
}

func newFakeDisk() *fakeDisk {
	return &fakeDisk{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// op counts an operation that changes something.
func (d *fakeDisk) op() error {
	d.ops++
	if d.crashAt > 0 && d.ops >= d.crashAt || d.failAt[d.ops] {
		return errCrash
	}
	return nil
}

// count returns how many operations were done.
func (d *fakeDisk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

func (d *fakeDisk) renamed() { d.history = append(d.history, maps.Clone(d.names)) }

func (d *fakeDisk) list() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), nil
}

func (d *fakeDisk) open(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		if err := d.op(); err != nil {
			return nil, err
		}
		d.names[name] = &inode{}
		d.renamed()
	}
	return &fakeFile{d, d.names[name]}, nil
}

func (d *fakeDisk) read(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(d.names[name].cur), nil
}

func (d *fakeDisk) rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	d.renamed()
	return nil
}

func (d *fakeDisk) remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.names[name] == nil {
		return fs.ErrNotExist
	}
	if err := d.op(); err != nil {
		return err
	}
	delete(d.names, name)
	d.renamed()
	return nil
}

func (d *fakeDisk) sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.op(); err != nil {
		return err
	}
	d.durable, d.history = maps.Clone(d.names), nil
	return nil
}

func (f *fakeFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op(); err != nil {
		n := len(b) / 2 // a disk that is full takes the beginning
		f.i.cur = append(f.i.cur, b[:n]...)
		return n, err
	}
	f.i.cur = append(f.i.cur, b...)
	return len(b), nil
}

func (f *fakeFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op(); err != nil {
		return err
	}
	f.i.synced = slices.Clone(f.i.cur)
	return nil
}

func (f *fakeFile) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.op(); err != nil {
		return err
	}
	f.i.cur = slices.Clone(f.i.cur[:min(int(size), len(f.i.cur))])
	return nil
}

func (f *fakeFile) ReadAt(b []byte, at int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if at > int64(len(f.i.cur)) {
		return 0, errors.New("beyond the end")
	}
	n := copy(b, f.i.cur[at:])
	if n < len(b) {
		return n, errors.New("beyond the end")
	}
	return n, nil
}

func (f *fakeFile) Close() error { return nil }

// crashed returns what the disk holds when the power is back.
func (d *fakeDisk) crashed(r *rand.Rand) *fakeDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	names := d.durable
	if n := len(d.history); n > 0 && r.IntN(2) == 0 {
		names = d.history[r.IntN(n)]
	}
	out := newFakeDisk()
	for name, i := range names {
		b := i.left(r)
		out.names[name] = &inode{cur: b, synced: slices.Clone(b)}
	}
	out.durable = maps.Clone(out.names)
	return out
}

// left is what a crash leaves of a file: all, what was synced, or something in
// between, perhaps with a hole.
func (i *inode) left(r *rand.Rand) []byte {
	switch r.IntN(4) {
	case 0:
		return slices.Clone(i.cur)
	case 1:
		return slices.Clone(i.synced)
	}
	if len(i.cur) <= len(i.synced) {
		return slices.Clone(i.synced)
	}
	from := len(i.synced)
	b := slices.Clone(i.cur[:from+r.IntN(len(i.cur)-from+1)])
	if len(b) > from && r.IntN(2) == 0 {
		at := from + r.IntN(len(b)-from)
		clear(b[at:min(len(b), at+64)])
	}
	return b
}
