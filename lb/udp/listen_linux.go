package udp

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// control sets a listener's options. wildcard says that it must learn to which
// address a datagram was sent, share that others have the same address.
func (c ListenConfig) control(wildcard, share bool) func(string, string, syscall.RawConn) error {
	return func(network, _ string, rc syscall.RawConn) error {
		var err error
		ctlErr := rc.Control(func(fd uintptr) {
			err = c.set(int(fd), network == "udp4", wildcard, share)
		})
		return errors.Join(ctlErr, err)
	}
}

type sockopt struct {
	level, name, value int
	what               string
}

func (c ListenConfig) set(fd int, v4, wildcard, share bool) error {
	var opts []sockopt
	if share {
		opts = append(opts, sockopt{unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"})
	}
	// Answers may be larger than the path takes: the network may fragment
	// them, as it would those of the gateway itself.
	if v4 {
		opts = append(opts, sockopt{unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT, "IP_MTU_DISCOVER"})
		if wildcard {
			opts = append(opts, sockopt{unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO"})
		}
		if c.Transparent {
			opts = append(opts, sockopt{unix.IPPROTO_IP, unix.IP_TRANSPARENT, 1, "IP_TRANSPARENT"})
		}
	} else {
		opts = append(opts, sockopt{unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT, "IPV6_MTU_DISCOVER"})
		if wildcard {
			opts = append(opts, sockopt{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO"})
		}
		if c.Transparent {
			opts = append(opts, sockopt{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, 1, "IPV6_TRANSPARENT"})
		}
	}
	if err := setAll(fd, opts); err != nil {
		return err
	}
	setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, c.Buffer)
	setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, c.Buffer)
	return nil
}

func setAll(fd int, opts []sockopt) error {
	for _, o := range opts {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("udp: setting %s: %w", o.what, os.NewSyscallError("setsockopt", err))
		}
	}
	return nil
}

// setBuffer sets a buffer's size, with privilege if there is one, else as far as
// the system permits.
func setBuffer(fd, force, plain, size int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size)
	}
}
