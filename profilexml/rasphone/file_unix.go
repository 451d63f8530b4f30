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
// such: then it holds what somebody writes at the last moment, too.
func replaceFile(path, with, backup string) error {
	if os.Link(path, backup) != nil {
		b, err := readFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(backup, b, 0o600); err != nil {
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
