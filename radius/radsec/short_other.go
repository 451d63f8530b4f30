//go:build !unix

package radsec

// isShort reports whether an accept failed for want of something that may be
// there again later.
func isShort(error) bool { return false }
