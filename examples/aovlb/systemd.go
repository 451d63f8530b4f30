package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
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
