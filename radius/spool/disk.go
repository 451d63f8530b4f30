package spool

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A disk is a folder. Tests put one in its place that fails and loses what wasn't
// synced, as a real one does when the power goes.
type disk interface {
	// list returns the names of all files.
	list() ([]string, error)
	// open opens a file for appending and reading, and makes it if need be.
	open(name string) (file, error)
	// read returns what a file holds, or an fs.ErrNotExist.
	read(name string) ([]byte, error)
	rename(from, to string) error
	remove(name string) error
	// sync makes the making, renaming and removing of files durable.
	sync() error
}

type file interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// folder is a real disk.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

func (f folder) list() ([]string, error) {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (f folder) open(name string) (file, error) {
	return os.OpenFile(f.path(name), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
}

func (f folder) read(name string) ([]byte, error) { return os.ReadFile(f.path(name)) }
func (f folder) rename(from, to string) error     { return os.Rename(f.path(from), f.path(to)) }
func (f folder) remove(name string) error         { return os.Remove(f.path(name)) }

func (f folder) sync() error {
	d, err := os.Open(string(f))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// replace gives a file a new content, all of it or nothing.
func replace(d disk, name string, b []byte) error {
	tmp := name + ".tmp"
	if err := d.remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := d.open(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.rename(tmp, name); err != nil {
		return err
	}
	return d.sync()
}
