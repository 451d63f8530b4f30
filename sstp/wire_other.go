//go:build !linux

package sstp

// canWait says that a reader can't wait for a connection without reading from it.
const canWait = false

func (*wire) takeOnce(uintptr) bool { return true }

func (*wire) awakeOnce(uintptr) bool { return true }
