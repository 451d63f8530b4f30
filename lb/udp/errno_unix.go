//go:build unix

package udp

import (
	"errors"
	"syscall"
)

// outOfFiles reports whether err says that there are too many open files.
func outOfFiles(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}
