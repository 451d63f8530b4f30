package ikev2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// What package syscall doesn't have (linux/in.h, linux/in6.h, linux/errqueue.h).
const (
	pmtuProbe      = 3 // never fragment, and don't believe what was learned before
	ipv6MTUDisc    = 23
	ipv6RecvErr    = 25
	originICMP     = 2
	originICMPv6   = 3
	extendedErrLen = 16
)

// linuxMTUSocket is a connected UDP socket that sets DF and keeps ICMP errors in
// its error queue.
type linuxMTUSocket struct {
	c   *net.UDPConn
	raw syscall.RawConn
	v6  bool
}

func dialMTU(ctx context.Context, target netip.AddrPort) (mtuSocket, error) {
	v6 := target.Addr().Is6()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) {
			if v6 {
				err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, ipv6MTUDisc, pmtuProbe),
					syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, ipv6RecvErr, 1))
				return
			}
			err = errors.Join(syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER, pmtuProbe),
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_RECVERR, 1))
		})
		return errors.Join(cerr, err)
	}}
	conn, err := d.DialContext(ctx, "udp", target.String())
	if err != nil {
		return nil, err
	}
	c, ok := conn.(*net.UDPConn)
	if !ok {
		conn.Close()
		return nil, fmt.Errorf("a %T is no UDP socket", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, err
	}
	return &linuxMTUSocket{c, raw, v6}, nil
}

func (s *linuxMTUSocket) close() { s.c.Close() }

func (s *linuxMTUSocket) send(b []byte) error {
	for range 2 {
		// An error may be that of a packet before: it is in the queue, too.
		_, err := s.c.Write(b)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EMSGSIZE) {
			return err
		}
	}
	return errTooLong
}

func (s *linuxMTUSocket) receive(until time.Time, b []byte) (n int, report *MTUReport, err error) {
	if err := s.c.SetReadDeadline(until); err != nil {
		return 0, nil, err
	}
	rerr := s.raw.Read(func(fd uintptr) bool {
		if report, err = readError(int(fd)); report != nil || err != nil {
			return true
		}
		n, _, err = syscall.Recvfrom(int(fd), b, syscall.MSG_DONTWAIT)
		if errors.Is(err, syscall.EMSGSIZE) {
			report, err = readError(int(fd))
			return report != nil || err != nil
		}
		return !errors.Is(err, syscall.EAGAIN) && !errors.Is(err, syscall.EINTR)
	})
	if errors.Is(rerr, os.ErrDeadlineExceeded) {
		return 0, nil, errNothing
	}
	return n, report, errors.Join(rerr, err)
}

// readError takes one error from the queue of a socket. An error other than that
// a packet is too large is returned as such.
func readError(fd int) (*MTUReport, error) {
	var data [64]byte
	var oob [512]byte
	_, on, _, _, err := syscall.Recvmsg(fd, data[:], oob[:], syscall.MSG_ERRQUEUE|syscall.MSG_DONTWAIT)
	if err != nil {
		return nil, nil //nolint:nilerr // there is none
	}
	msgs, err := syscall.ParseSocketControlMessage(oob[:on])
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		isV4 := m.Header.Level == syscall.IPPROTO_IP && m.Header.Type == syscall.IP_RECVERR
		isV6 := m.Header.Level == syscall.IPPROTO_IPV6 && m.Header.Type == ipv6RecvErr
		if (isV4 || isV6) && len(m.Data) >= extendedErrLen {
			return extendedError(m.Data)
		}
	}
	return nil, nil
}

// extendedError reads a struct sock_extended_err, and the address of who sent it.
func extendedError(b []byte) (*MTUReport, error) {
	errno := syscall.Errno(native32(b))
	if errno != syscall.EMSGSIZE {
		return nil, fmt.Errorf("the network says: %w", errno)
	}
	r := &MTUReport{MTU: int(native32(b[8:]))}
	switch a := b[extendedErrLen:]; {
	case b[4] == originICMP && len(a) >= 8:
		r.From = netip.AddrFrom4([4]byte(a[4:]))
	case b[4] == originICMPv6 && len(a) >= 24:
		r.From = netip.AddrFrom16([16]byte(a[8:]))
	}
	return r, nil
}

// native32 reads a number as this machine writes it.
func native32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
