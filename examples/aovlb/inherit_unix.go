//go:build unix

package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// inherited returns the sockets that systemd opened for this process; see
// sd_listen_fds(3).
func (e *environment) inherited() ([]*os.File, error) {
	pid, count := e.getenv("LISTEN_PID"), e.getenv("LISTEN_FDS")
	if pid == "" || count == "" {
		return nil, nil
	}
	if p, err := strconv.Atoi(pid); err != nil || p != os.Getpid() {
		return nil, nil // they are meant for another process
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > 1024 {
		return nil, fmt.Errorf("LISTEN_FDS is %q, not a number of sockets", count)
	}
	names := strings.Split(e.getenv("LISTEN_FDNAMES"), ":")
	const first = 3
	var files []*os.File
	for i := range n {
		name := strconv.Itoa(first + i)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		syscall.CloseOnExec(first + i)
		if err := syscall.SetNonblock(first+i, true); err != nil {
			return nil, fmt.Errorf("socket %s from systemd: %w", name, err)
		}
		files = append(files, os.NewFile(uintptr(first+i), name))
	}
	return files, nil
}

// listenPrivate opens a unix socket that only this user can connect to. The mode
// is right from the start: there is no moment at which others could connect.
func listenPrivate(path string) (net.Listener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}
