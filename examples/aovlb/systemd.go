package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// notify tells systemd how this process gets on, if it was started by systemd
// with Type=notify-reload; see sd_notify(3).
func (e *environment) notify(state ...string) error {
	path := e.getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	defer c.Close()
	if _, err = c.Write([]byte(strings.Join(state, "\n"))); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// reloading is what systemd wants to hear when a reload begins: with the time,
// so that it can tell an answer to its signal from an earlier one.
func reloading() []string {
	now, err := monotonic()
	if err != nil {
		return []string{"RELOADING=1"}
	}
	return []string{"RELOADING=1", "MONOTONIC_USEC=" + strconv.FormatInt(now.Microseconds(), 10)}
}

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
