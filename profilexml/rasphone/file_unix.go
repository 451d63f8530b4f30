//go:build !windows

package rasphone

import (
	"errors"
	"os"
	"syscall"
)

// isLocked reports whether it may succeed later. Elsewhere than on Windows,
// files that are open can be replaced.
func isLocked(err error) bool {
	return errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ETXTBSY)
}

// replaceFile replaces path with another file, and keeps what was there as
// backup, which is a second name of the file itself where the file system has
// such: then it holds what somebody writes at the last moment, too. A backup that
// is there already is another program's, and stays: then errChanged has it tried
// again with another name.
func replaceFile(path, with, backup string) error {
	switch err := os.Link(path, backup); {
	case errors.Is(err, os.ErrExist):
		return errChanged
	case err != nil:
		b, err := readFile(path)
		if err != nil {
			return err
		}
		if err := writeNew(backup, b); err != nil {
			return err
		}
		if err := inherit(path, backup); err != nil {
			return err
		}
	}
	if err := os.Rename(with, path); err != nil {
		return errors.Join(err, os.Remove(backup))
	}
	return nil
}

// inherit gives a file the mode of another, and its owner if that is allowed.
func inherit(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		_ = os.Chown(to, int(s.Uid), int(s.Gid)) // only root may give files away
	}
	return os.Chmod(to, info.Mode().Perm())
}
