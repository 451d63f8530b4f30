package rasphone

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// What ReplaceFile of Windows says when it has come half way (winerror.h).
const (
	errUnableToRemoveReplaced = syscall.Errno(1175) // ERROR_UNABLE_TO_REMOVE_REPLACED: nothing has happened
	errUnableToMove           = syscall.Errno(1176) // ERROR_UNABLE_TO_MOVE_REPLACEMENT: nothing has happened
	errUnableToMove2          = syscall.Errno(1177) // ERROR_UNABLE_TO_MOVE_REPLACEMENT_2: the old file is the backup
)

// A replacer replaces files as Windows does it. It is here for every system, so
// that what it does when that goes wrong half way is tested on all.
type replacer struct {
	replace func(path, with, backup string) error // ReplaceFile, which overwrites a backup
	move    func(from, to string) error           // MoveFile, which overwrites nothing
}

// do replaces path with another file, and keeps what was there as backup. The
// name of the backup is taken first, by an empty file: two programs that choose
// the same one would else lose the backup of one of them. errChanged has another
// name tried.
func (r *replacer) do(path, with, backup string) error {
	switch err := writeNew(backup, nil); {
	case errors.Is(err, os.ErrExist):
		return errChanged
	case err != nil:
		return err
	}
	err := r.replace(path, with, backup)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, errUnableToMove2):
		r.release(backup)
		return err
	}
	// The old file has the name of the backup, and the new one hasn't that of the
	// old one. In between, another program may have made a file where there was
	// none, and that isn't overwritten.
	if undo := r.move(backup, path); undo != nil {
		return fmt.Errorf("%s was moved to %s, and can't be moved back (%w): look at both, and move it back by hand", path, backup, errors.Join(err, undo))
	}
	return errUnableToMove // nothing has happened, and it can be tried again
}

// release gives the name of a backup back, if nothing has come there.
func (r *replacer) release(backup string) {
	if info, err := os.Stat(backup); err == nil && info.Size() == 0 {
		_ = os.Remove(backup) // what can't be deleted is empty, and is pruned one day
	}
}

// writeNew writes a file that isn't there yet.
func writeNew(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
