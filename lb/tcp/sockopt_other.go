//go:build !linux

package tcp

import (
	"errors"
	"net"
	"syscall"
	"time"
)

var errTransparent = errors.New("tcp: Transparent needs Linux")

func setUserTimeout(*net.TCPConn, time.Duration) {}

func controlTransparent(string, string, syscall.RawConn) error { return errTransparent }

func (c *ListenConfig) control(string, string, syscall.RawConn) error {
	if c.Transparent {
		return errTransparent
	}
	if c.ReusePort {
		return errors.New("tcp: ReusePort needs Linux")
	}
	return nil
}
