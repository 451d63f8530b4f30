package tcp

import (
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var errTransparent error // Linux has IP_TRANSPARENT

func setUserTimeout(c *net.TCPConn, d time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// controlTransparent lets a socket be bound to an address that isn't local. The
// port is chosen at connect, when both ends are known, so each pair of addresses
// has all ports for itself.
func controlTransparent(network, _ string, raw syscall.RawConn) error {
	return control(raw, func(fd int) error {
		if err := setTransparent(fd, network); err != nil {
			return err
		}
		// Only a lack of ports would tell the difference.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		return nil
	})
}

func setTransparent(fd int, network string) error {
	if network == "tcp4" {
		return os.NewSyscallError("setsockopt IP_TRANSPARENT", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1))
	}
	return os.NewSyscallError("setsockopt IPV6_TRANSPARENT", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1))
}

func (c *ListenConfig) control(network, _ string, raw syscall.RawConn) error {
	return control(raw, func(fd int) error {
		if c.ReusePort {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
				return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
			}
		}
		if c.Transparent {
			return setTransparent(fd, network)
		}
		return nil
	})
}

func control(raw syscall.RawConn, f func(fd int) error) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return cerr
	}
	return err
}
