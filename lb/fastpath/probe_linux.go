package fastpath

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// capable says which capability is missing.
func capable() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err != nil {
		return fmt.Errorf("reading the capabilities: %w", os.NewSyscallError("capget", err))
	}
	return missing(uint64(data[0].Effective) | uint64(data[1].Effective)<<32)
}

// missing says which of the capabilities that it takes aren't among caps.
func missing(caps uint64) error {
	has := func(n int) bool { return caps&(1<<n) != 0 }
	var names []string
	if !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN) {
		names = append(names, "CAP_BPF")
	}
	if !has(unix.CAP_NET_ADMIN) {
		names = append(names, "CAP_NET_ADMIN")
	}
	if names == nil {
		return nil
	}
	return fmt.Errorf("the process lacks %s, which attaching programs to network devices takes: %w", strings.Join(names, " and "), os.ErrPermission)
}

// release returns the kernel's version.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "of unknown version"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}

// lockdown tells of a kernel that is locked down, by the file that says so.
func lockdown(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	_, mode, ok := strings.Cut(string(b), "[")
	mode, _, end := strings.Cut(mode, "]")
	if !ok || !end || mode == "none" {
		return ""
	}
	return " (the kernel is locked down: " + mode + ")"
}
