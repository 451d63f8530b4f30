//go:build unix

package radsec

import (
	"errors"
	"syscall"
)

// isShort reports whether an accept failed for want of something that may be
// there again later.
func isShort(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) ||
		errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}
