package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// systemd is told what sd_notify(3) says, at a socket of either kind.
func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Skip("no unix datagrams:", err)
	}
	defer c.Close()
	e := &environment{stdout: io.Discard, stderr: io.Discard, getenv: func(name string) string {
		if name == "NOTIFY_SOCKET" {
			return path
		}
		return ""
	}}
	if err := e.notify(reloading()...); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	b := make([]byte, 1000)
	n, err := c.Read(b)
	if err != nil || !strings.HasPrefix(string(b[:n]), "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("%q, %v", b[:n], err)
	}
	none := &environment{getenv: func(string) string { return "" }}
	if err := none.notify("READY=1"); err != nil {
		t.Error("without systemd:", err)
	}
	if files, err := none.inherited(); files != nil || err != nil {
		t.Error(files, err)
	}
}

// Sockets that are meant for another process are left alone.
func TestInheritedByAnother(t *testing.T) {
	e := &environment{getenv: func(name string) string {
		return map[string]string{"LISTEN_PID": "1", "LISTEN_FDS": "2"}[name]
	}}
	if os.Getpid() == 1 {
		t.Skip("this is process 1")
	}
	if files, err := e.inherited(); files != nil || err != nil {
		t.Error(files, err)
	}
}

// With the lines for the fast path taken, the unit permits all that it takes, as systemd
// reads it: what is written later counts.
func TestUnitFastPath(t *testing.T) {
	b, err := os.ReadFile("systemd/aovlb.service")
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string][]string)
	for line := range strings.SplitSeq(string(b), "\n") {
		key, value, ok := strings.Cut(strings.TrimPrefix(line, "#"), "=")
		if !ok || strings.ContainsAny(key, " \t") {
			continue
		}
		if key == "SystemCallFilter" && strings.HasPrefix(value, "~") && strings.Contains(value, "@privileged") {
			have[key] = slices.DeleteFunc(have[key], func(s string) bool { return s == "bpf" }) // it is one of those
		}
		have[key] = append(have[key], strings.Fields(value)...)
	}
	for key, want := range map[string][]string{
		"AmbientCapabilities": {"CAP_BPF", "CAP_NET_ADMIN"}, "CapabilityBoundingSet": {"CAP_BPF", "CAP_NET_ADMIN"},
		"SystemCallFilter": {"bpf"}, "RestrictAddressFamilies": {"AF_NETLINK"}, "ReadWritePaths": {"-/run/aovlb-fastpath"},
	} {
		for _, w := range want {
			if !slices.Contains(have[key], w) {
				t.Errorf("%s has no %s: %v", key, w, have[key])
			}
		}
	}
}
