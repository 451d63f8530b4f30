package fastpath

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
)

// What was dropped before Run began, by an earlier process say, is no flood of now.
func TestFloodTold(t *testing.T) {
	x := newBench(t)
	var log bytes.Buffer
	x.p.c.Logger, x.p.c.Lease = slog.New(slog.NewTextHandler(&log, nil)), 60*time.Millisecond
	dropped := uint64(0)
	flood := func() {
		dropped++
		n := make([]uint64, ebpf.MustPossibleCPU())
		n[0] = dropped
		if err := x.p.maps.Reasons.Put(uint32(xdpReasons-1), n); err != nil {
			t.Error(err)
		}
	}
	run := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_ = x.p.Run(ctx)
	}
	flood()
	run()
	if strings.Contains(log.String(), "first messages") {
		t.Errorf("what had been dropped before is told: %s", &log)
	}
	later := make(chan struct{})
	go func() {
		defer close(later)
		time.Sleep(50 * time.Millisecond)
		flood()
	}()
	run()
	<-later
	for _, line := range []string{"too many new clients begin at once", "no first messages are dropped any more"} {
		if strings.Count(log.String(), line) != 1 {
			t.Errorf("the log has no line, or several, with %q: %s", line, &log)
		}
	}
}

// A process that has packets taken by TC leaves nothing of an earlier one's XDP: first
// messages would be counted at both places.
func TestRestartHook(t *testing.T) {
	x := newBench(t)
	c := x.p.c
	if err := x.p.Close(false); err != nil {
		t.Fatal(err)
	}
	pins := netns.BPF(t)
	c.Pin = filepath.Join(pins, "x")
	for _, hook := range []Hook{HookXDP, HookTC, HookXDP} {
		c.Hook = hook
		p, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Stats().Attached["va"]; got != hook {
			t.Fatalf("attached by %v, want %v", got, hook)
		}
		out, err := exec.Command("ip", "-d", "link", "show", "va").CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		if xdp := bytes.Contains(out, []byte("prog/xdp")); xdp != (hook == HookXDP) {
			t.Errorf("by %v: there is a program at XDP: %v", hook, xdp)
		}
		if err := p.Close(true); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(c.Pin); err != nil {
		t.Error(err)
	}
}

// XDP counts what comes by a VLAN device of its device, but not where that has an address
// of its own.
func TestSeen(t *testing.T) {
	x := newBench(t)
	c := x.p.c
	if err := x.p.Close(false); err != nil {
		t.Fatal(err)
	}
	c.Hook = HookXDP
	p, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(false)
	if got := p.Stats().Attached["va"]; got != HookXDP {
		t.Fatalf("attached by %v", got)
	}
	all, err := netDevices()
	if err != nil {
		t.Fatal(err)
	}
	vlan := func(index uint32, mac [6]byte) netDevice {
		return netDevice{index: index, parent: x.a, mac: mac, ethernet: true, up: true, vlan: 5}
	}
	p.mu.Lock()
	p.tell(append(all, vlan(100, macA), vlan(101, macB)), netdevFamily())
	p.mu.Unlock()
	table := unsafe.Slice((*device)(unsafe.Pointer(unsafe.SliceData(p.devices))), maxDevices)
	for i, want := range map[uint32]uint8{x.a: 1, 100: 1, 101: 0} {
		if got := table[i].Seen; got != want {
			t.Errorf("device %d: seen is %d, want %d", i, got, want)
		}
	}
}

// What has tags that aren't 802.1Q's is no VLAN device that XDP knows.
func TestVLANProtocol(t *testing.T) {
	for proto, want := range map[uint16]uint16{unix.ETH_P_8021Q: 5, unix.ETH_P_8021AD: 0} {
		id := attribute(1, binary.NativeEndian.AppendUint16(nil, 5))
		tag := attribute(5, binary.BigEndian.AppendUint16(nil, proto))
		for _, data := range [][]byte{slices.Concat(tag, id), slices.Concat(id, tag)} {
			var d netDevice
			d.attribute(unix.IFLA_LINKINFO, slices.Concat(attribute(unix.IFLA_INFO_KIND, []byte("vlan\x00")), attribute(unix.IFLA_INFO_DATA, data)))
			if d.vlan != want {
				t.Errorf("protocol %#x: VLAN %d, want %d", proto, d.vlan, want)
			}
		}
	}
}
