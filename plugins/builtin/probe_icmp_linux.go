package builtin

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// openICMP opens a socket for echo requests: a raw one or, for those who may not,
// one that can do nothing else.
func openICMP(addr netip.Addr) (net.Conn, error) {
	c, err := openRaw(addr)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return c, err
	}
	family, proto := syscall.AF_INET, syscall.IPPROTO_ICMP
	var to syscall.Sockaddr = &syscall.SockaddrInet4{Addr: as4(addr)}
	if addr.Is6() {
		family, proto, to = syscall.AF_INET6, syscall.IPPROTO_ICMPV6, &syscall.SockaddrInet6{Addr: addr.As16()}
	}
	fd, failed := syscall.Socket(family, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, proto)
	if failed != nil {
		return nil, err // the one that says what is missing
	}
	f := os.NewFile(uintptr(fd), "icmp")
	defer f.Close() // FileConn has one of its own
	if err := syscall.Connect(fd, to); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

func as4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}
