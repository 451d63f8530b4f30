package rasphone

import (
	"errors"
	"os"
	"syscall"
	"unsafe"
)

// What Windows says when a file can't be used just now (winerror.h).
const (
	errSharingViolation = syscall.Errno(32)   // ERROR_SHARING_VIOLATION
	errLockViolation    = syscall.Errno(33)   // ERROR_LOCK_VIOLATION
	errUserMappedFile   = syscall.Errno(1224) // ERROR_USER_MAPPED_FILE
)

// isLocked reports whether another program has the file open in such a way that
// it may succeed later.
func isLocked(err error) bool {
	for _, e := range []error{errSharingViolation, errLockViolation, errUnableToRemoveReplaced, errUnableToMove, errUserMappedFile} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// replaceFile replaces path with another file, and keeps what was there as
// backup.
func replaceFile(path, with, backup string) error {
	return (&replacer{replace: callReplaceFile, move: moveFile}).do(path, with, backup)
}

// callReplaceFile calls ReplaceFile, which gives the new file the access control
// list, attributes and creation time of the old one, and fails if it can't.
func callReplaceFile(path, with, backup string) error {
	var names [3]*uint16
	for i, s := range []string{path, with, backup} {
		p, err := syscall.UTF16PtrFromString(s)
		if err != nil {
			return &os.PathError{Op: "replace", Path: s, Err: err}
		}
		names[i] = p
	}
	proc := syscall.NewLazyDLL("kernel32.dll").NewProc("ReplaceFileW")
	ok, _, err := proc.Call(uintptr(unsafe.Pointer(names[0])), uintptr(unsafe.Pointer(names[1])), uintptr(unsafe.Pointer(names[2])), 0, 0, 0)
	if ok != 0 {
		return nil
	}
	return &os.PathError{Op: "replace", Path: path, Err: err}
}

// moveFile calls MoveFile, which fails if there is something already. os.Rename
// would replace it.
func moveFile(from, to string) error {
	f, err := syscall.UTF16PtrFromString(from)
	if err != nil {
		return err
	}
	t, err := syscall.UTF16PtrFromString(to)
	if err != nil {
		return err
	}
	return os.NewSyscallError("MoveFile", syscall.MoveFile(f, t))
}

// inherit has nothing to do: ReplaceFile sees to it.
func inherit(_, _ string) error { return nil }
