//go:build unix

package udp

import (
	"errors"
	"syscall"
)

// outOfRoom reports whether err says that there are too many open files, or no local
// port left, so that closing a socket would help.
func outOfRoom(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN, syscall.EADDRNOTAVAIL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
