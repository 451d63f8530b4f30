package peers

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespaces are named aovlb-PID-NET-HOST, so that those of a test program that
// was killed can be told from those in use.
const prefix = "aovlb-"

var (
	nets  atomic.Int32
	sweep sync.Once
)

// A Net is the namespaces and bridges of one test.
type Net struct {
	// Dir is a folder for the files of the test's peers.
	Dir string

	t      testing.TB
	prefix string
	wire   *Host // where the bridges are

	mu    sync.Mutex
	ports int
	hosts map[string]*Host
}

// New makes an empty Net, which is removed when the test ends.
func New(t testing.TB) *Net {
	t.Helper()
	sweep.Do(sweepOld)
	n := &Net{
		Dir:    t.TempDir(),
		t:      t,
		prefix: fmt.Sprintf("%s%d-%d-", prefix, os.Getpid(), nets.Add(1)),
		hosts:  map[string]*Host{},
	}
	n.wire = n.Host("wire")
	return n
}

// toolTime is more than any command of ip or nft should take.
const toolTime = time.Minute

// ip runs a command of ip(8), in no namespace.
func ip(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	return exec.CommandContext(ctx, "ip", args...).CombinedOutput()
}

// sweepOld removes the namespaces of test programs that no longer run. Their
// processes are gone already: see Host.Start.
func sweepOld() {
	names, err := filepath.Glob("/run/netns/" + prefix + "*")
	if err != nil {
		return
	}
	for _, name := range names {
		name = filepath.Base(name)
		pid, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); os.IsNotExist(err) {
			_, _ = ip("netns", "delete", name) // someone else may have done it
		}
	}
}

// A Host is a network namespace.
type Host struct {
	// Name is its short name.
	Name string

	net   *Net
	ns    string
	ifs   int
	addrs []netip.Prefix
}

// Host makes a namespace with only a loopback interface.
func (n *Net) Host(name string) *Host {
	n.t.Helper()
	h := &Host{Name: name, net: n, ns: n.prefix + name}
	n.mu.Lock()
	twice := n.hosts[name] != nil
	n.hosts[name] = h
	n.mu.Unlock()
	if twice {
		n.t.Fatalf("peers: two hosts named %q", name)
	}
	if out, err := ip("netns", "add", h.ns); err != nil {
		n.t.Fatalf("peers: making namespace %s: %v: %s", h.ns, err, out)
	}
	n.t.Cleanup(func() {
		if out, err := ip("netns", "delete", h.ns); err != nil {
			n.t.Errorf("peers: removing namespace %s: %v: %s", h.ns, err, out)
		}
	})
	h.IP("link set lo up")
	// An address isn't lost with an older one of the same network: see Move.
	h.Sysctl("ipv4/conf/all/promote_secondaries", "1")
	return h
}

// String returns the name of the namespace, as "ip netns" shows it.
func (h *Host) String() string { return h.ns }

// IP runs commands of ip(8), one a string and without the word ip, in the
// namespace. The first that fails ends the test.
func (h *Host) IP(commands ...string) {
	h.net.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ip", "-n", h.ns, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n"))
	if out, err := cmd.CombinedOutput(); err != nil {
		h.net.t.Fatalf("peers: ip in %s: %v: %s\n%s", h.Name, err, out, strings.Join(commands, "\n"))
	}
}

// NFT loads rules of nft(8) in the namespace.
func (h *Host) NFT(rules string) {
	h.net.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Do(cmd.Run); err != nil {
		h.net.t.Fatalf("peers: nft in %s: %v: %s\n%s", h.Name, err, out.String(), rules)
	}
}

// Sysctl sets a value below /proc/sys/net in the namespace: "ipv4/ip_forward".
func (h *Host) Sysctl(name, value string) {
	h.net.t.Helper()
	err := h.Do(func() error {
		return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	})
	if err != nil {
		h.net.t.Fatalf("peers: %s: %v", h.Name, err)
	}
}

// Do calls f in the namespace: the sockets it opens and the processes it starts
// belong there. Goroutines that f starts do not.
func (h *Host) Do(f func() error) error {
	ns, err := os.Open("/run/netns/" + h.ns)
	if err != nil {
		return err
	}
	defer ns.Close()
	runtime.LockOSThread()
	old, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer old.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("peers: entering %s: %w", h.ns, err)
	}
	defer func() {
		// A thread that can't go back stays locked, and ends with its
		// goroutine.
		if unix.Setns(int(old.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
	}()
	return f()
}

// Listen opens a TCP listener in the namespace.
func (h *Host) Listen(addr string) (l net.Listener, err error) {
	err = h.Do(func() error {
		l, err = new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		return err
	})
	return l, err
}

// ListenUDP opens a UDP socket in the namespace.
func (h *Host) ListenUDP(addr string) (c *net.UDPConn, err error) {
	err = h.Do(func() error {
		a, err := net.ResolveUDPAddr("udp", addr)
		if err != nil {
			return err
		}
		c, err = net.ListenUDP("udp", a)
		return err
	})
	return c, err
}

// Dial opens a connection from the namespace. addr must be numeric, so that only
// one dial is made, in this thread.
func (h *Host) Dial(network, addr string) (c net.Conn, err error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		c, err = d.DialContext(context.Background(), network, a.String())
		return err
	})
	return c, err
}

// A Segment is a bridge: a link that hosts share.
type Segment struct {
	name string
	net  *Net
}

// Segment makes a bridge.
func (n *Net) Segment(name string) *Segment {
	n.t.Helper()
	n.wire.IP("link add "+name+" type bridge", "link set "+name+" up")
	return &Segment{name: name, net: n}
}

// Attach joins h to s by a new interface with these addresses ("10.0.0.1/24"),
// and returns the interface's name: eth0, eth1 and so on.
func (h *Host) Attach(s *Segment, addrs ...string) string {
	h.net.t.Helper()
	n := h.net
	n.mu.Lock()
	n.ports++
	port := fmt.Sprintf("p%d", n.ports)
	dev := fmt.Sprintf("eth%d", h.ifs)
	h.ifs++
	n.mu.Unlock()
	n.wire.IP(
		fmt.Sprintf("link add %s type veth peer name %s netns %s", port, dev, h.ns),
		fmt.Sprintf("link set %s master %s up", port, s.name),
	)
	cmds := []string{"link set " + dev + " up"}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			n.t.Fatalf("peers: attaching %s: %v", h.Name, err)
		}
		h.addrs = append(h.addrs, p)
		cmd := "address add " + a + " dev " + dev
		if p.Addr().Is6() {
			cmd += " nodad" // usable at once
		}
		cmds = append(cmds, cmd)
	}
	h.IP(cmds...)
	return dev
}

// Addr returns the first address the Host was given by Attach.
func (h *Host) Addr() netip.Addr {
	if len(h.addrs) == 0 {
		return netip.Addr{}
	}
	return h.addrs[0].Addr()
}

// Move gives a Host a new address on interface dev and then takes the old one
// away, as a laptop that changes networks does.
func (h *Host) Move(dev, from, to string) {
	h.net.t.Helper()
	h.IP("address add "+to+" dev "+dev, "address delete "+from+" dev "+dev)
	for i, p := range h.addrs {
		if p.String() == from {
			h.addrs[i] = netip.MustParsePrefix(to)
		}
	}
}

// Eventually calls f until it returns nil, and ends the test if that takes
// longer than d. what says what is waited for.
func Eventually(t testing.TB, d time.Duration, what string, f func() error) {
	t.Helper()
	if err := Poll(d, f); err != nil {
		t.Fatalf("%s: not within %v: %v", what, d, err)
	}
}

// Poll calls f until it returns nil or d has passed, and returns the last error.
func Poll(d time.Duration, f func() error) error {
	end := time.Now().Add(d)
	for {
		err := f()
		if err == nil || time.Now().After(end) {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// FlushConntrack forgets all connections that the namespace tracks: what a NAT
// router that restarts does.
func (h *Host) FlushConntrack() {
	h.net.t.Helper()
	if err := h.Do(flushConntrack); err != nil {
		h.net.t.Fatalf("peers: forgetting the connections of %s: %v", h.Name, err)
	}
}

// flushConntrack sends IPCTNL_MSG_CT_DELETE without a tuple: delete all.
func flushConntrack() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	msg := make([]byte, 20) // nlmsghdr and nfgenmsg
	native := binary.NativeEndian
	native.PutUint32(msg[0:], uint32(len(msg)))
	native.PutUint16(msg[4:], ctDelete)
	native.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil {
		return err
	}
	if n < 20 {
		return fmt.Errorf("netlink: answer of %d bytes", n)
	}
	if e := int32(native.Uint32(buf[16:])); e != 0 {
		return syscall.Errno(-e)
	}
	return nil
}
