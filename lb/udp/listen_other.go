//go:build !linux

package udp

import (
	"errors"
	"syscall"
)

func (c ListenConfig) control(_, share bool) func(string, string, syscall.RawConn) error {
	return func(string, string, syscall.RawConn) error {
		if share || c.Transparent {
			return errors.New("udp: several sockets for an address, and transparent ones, need Linux")
		}
		return nil
	}
}
