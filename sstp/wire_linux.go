package sstp

import (
	"io"
	"net"
	"os"
	"syscall"
)

// canWait says that a reader can wait for a connection without reading from it.
const canWait = true

// takeOnce reads what is there, and doesn't wait.
func (w *wire) takeOnce(fd uintptr) bool {
	w.n, w.err = w.readFD(fd, w.into)
	return true
}

// awakeOnce looks whether something is there, and is called again once there is. To
// look is to take a byte, as it costs what a look would.
func (w *wire) awakeOnce(fd uintptr) bool {
	if w.waited {
		return true
	}
	n, err := w.readFD(fd, w.one[:])
	if isDry(err) {
		w.waited = true
		return false
	}
	w.has, w.err = n > 0, err
	return true
}

func (w *wire) readFD(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, errDry
		case err != nil:
			return 0, w.failed(err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// failed returns an error as package net does.
func (w *wire) failed(err error) error {
	return &net.OpError{Op: "read", Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: os.NewSyscallError("read", err)}
}
