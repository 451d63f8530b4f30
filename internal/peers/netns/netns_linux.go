package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Need skips the test, with the reason, unless the environment variable env is set, the
// user is root, and the tools are installed.
func Need(t testing.TB, env string, tools ...string) {
	t.Helper()
	if os.Getenv(env) == "" {
		t.Skipf("%s is not set", env)
	}
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for _, p := range tools {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("needs %s", p)
		}
	}
}

// Sh runs a script by sh, and returns what it says. A command that fails ends the test.
func Sh(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s\n%s%v", script, out, err)
	}
	return string(out)
}

// Do calls f in the network namespace of that name. Sockets and files that f opens stay
// in it. If f fails, the test ends.
func Do(t testing.TB, name string, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with its namespace
		fd, err := unix.Open("/run/netns/"+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("in namespace %s: %v", name, err)
	}
}

// ListenUDP opens a socket in a network namespace at an address with a port, until the
// test ends. It can be used for 30 s.
func ListenUDP(t testing.TB, name, addr string) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	Do(t, name, func() (err error) {
		for range 100 { // IPv6 addresses take a moment
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
			if !errors.Is(err, unix.EADDRNOTAVAIL) {
				return err
			}
			time.Sleep(20 * time.Millisecond)
		}
		return err
	})
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadBuffer(4 << 20)
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

// BPF returns a folder where a BPF file system is mounted for the test, and skips the
// test where there is none.
func BPF(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Skipf("no BPF file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}
