package fastpath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What is pinned, in Config.Pin:
//
//	layout-3/            the form of the maps
//	  records pairs6 …   maps, by their names
//	  tc-2 xdp-2         links, by the number of their device
//
// A program that is newer replaces the one that is attached, and goes on with the
// maps, if their layout is the same. Otherwise it makes maps of its own, attaches
// beside, and then removes the folder of the older layout. A device has only one XDP
// program, so the older one's is detached first: until the other is there, packets come
// to the sockets, as they do after that until their flows are carried again.

const layoutPrefix = "layout-"

// pinFolder returns the folder for things that are pinned, made if need be.
func pinFolder(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the folder for what is pinned: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("the folder for what is pinned: %s: %w", dir, os.NewSyscallError("statfs", err))
	}
	if uint32(st.Type) != unix.BPF_FS_MAGIC {
		return "", fmt.Errorf("the folder for what is pinned: %s is on no BPF file system (mount -t bpf bpf %s)", dir, dir)
	}
	dir = filepath.Join(dir, layoutPrefix+layout)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("the folder for what is pinned: %w", err)
	}
	return dir, nil
}

// locked locks a folder for as long as the file is open: two processes that wrote the same
// table would spoil it.
func locked(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("the folder for what is pinned: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the folder for what is pinned: %s: another process has it: %w", dir, os.NewSyscallError("flock", err))
	}
	return f, nil
}

// unpin removes everything in a folder, and leaves the folder. Programs whose links
// were only there are detached.
func unpin(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var errs []error
	for _, e := range list {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}

// detachOlder detaches programs of other layouts, by the names of their links. Removing
// what is pinned would do that too, but some time later.
func (p *Path) detachOlder(names string) {
	if p.pins == "" {
		return
	}
	list, err := filepath.Glob(filepath.Join(filepath.Dir(p.pins), layoutPrefix+"*", names))
	if err != nil {
		return // the pattern is right
	}
	for _, pin := range list {
		if filepath.Dir(pin) == p.pins {
			continue
		}
		if err := detachPinned(pin); err != nil {
			p.log(slog.LevelWarn, "what another version has attached can't be detached", "link", pin, "error", err)
		}
	}
}

// detachPinned detaches the program whose link is pinned somewhere.
func detachPinned(pin string) error {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return err
	}
	return errors.Join(l.Detach(), l.Close())
}

// leaveXDP detaches what an earlier process of this layout had at XDP, and this one has
// not: else first messages would be counted there and by TC.
func (p *Path) leaveXDP() {
	if p.pins == "" {
		return
	}
	list, err := filepath.Glob(filepath.Join(p.pins, "xdp-*"))
	if err != nil {
		return // the pattern is right
	}
	for _, pin := range list {
		i, err := strconv.ParseUint(strings.TrimPrefix(filepath.Base(pin), "xdp-"), 10, 32)
		if a := p.attached[uint32(i)]; err == nil && a != nil && a.xdp != nil {
			continue
		}
		if err := errors.Join(detachPinned(pin), os.Remove(pin)); err != nil {
			p.log(slog.LevelWarn, "what an earlier process has attached can't be detached", "link", pin, "error", err)
		}
	}
}

// leaveOlder removes what is pinned in other layouts.
func (p *Path) leaveOlder() {
	if p.pins == "" {
		return
	}
	p.detachOlder("tc-*")
	n, err := clean(filepath.Dir(p.pins), filepath.Base(p.pins))
	if err != nil {
		p.log(slog.LevelWarn, "what another version has pinned can't be removed", "error", err)
	} else if n > 0 {
		p.log(slog.LevelInfo, "what another version had pinned is removed; the clients that it carried come to the sockets, and are carried again from there")
	}
}

// Clean removes whatever processes have pinned in a folder: every packet comes to the
// sockets again. It is for programs that were told to use no fast path any more. A
// folder that doesn't exist is clean.
func Clean(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := clean(dir, ""); err != nil {
		return fmt.Errorf("fastpath: removing what is pinned: %w", err)
	}
	return nil
}

// clean removes the layouts in dir, but not keep, and returns how many there were.
func clean(dir, keep string) (n int, err error) {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	var errs []error
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), layoutPrefix) || e.Name() == keep {
			continue
		}
		path := filepath.Join(dir, e.Name())
		errs = append(errs, unpin(path), os.Remove(path))
		n++
	}
	return n, errors.Join(errs...)
}

// recover learns from the kernel's tables what an earlier process had carried. If its
// lease is over, nobody can know what has become of that since.
func (p *Path) recover() error {
	if p.pins == "" {
		return nil
	}
	t := &p.table
	t.begin()
	lease := time.Duration(atomic.LoadUint64(&p.state.Lease))
	over := lease != 0 && lease < monotonic()
	taken := make(map[uint32]bool)
	for at := range t.records {
		if at := uint32(at); !over && uint8(t.status(at)>>8) == fromClient {
			p.adopt(at, taken)
		}
	}
	for at := range t.records {
		if at := uint32(at); !taken[at] && (uint8(t.status(at)) == family4 || uint8(t.status(at)) == family6) {
			t.drop(at)
		}
	}
	if p.waiting > 0 {
		p.log(slog.LevelInfo, "an earlier process's flows are still carried", "flows", p.waiting)
	}
	return nil
}

// adopt makes a slot of the flow that has its client's record at a place. It notes in taken
// which records it has.
func (p *Path) adopt(at uint32, taken map[uint32]bool) {
	t := &p.table
	up, ok := t.path(at)
	if !ok || len(p.slots) >= p.c.MaxFlows {
		return
	}
	f, ok := fits(up.flowOf())
	if !ok {
		return
	}
	down := paths(&f)[fromBackend]
	k := t.keyOf(&down)
	back, there, _ := t.find(&k)
	if !there || taken[back] {
		return
	}
	got, _ := t.path(back)
	s := t.status(at)
	number, generation := uint32(uint16(s>>16)), uint32(s>>32)
	if got != down || t.status(back) != s|fromBackend<<8 || number == 0 || number >= maxBackends || uint32(p.gens[number]) != generation {
		return
	}
	for len(p.backends) <= int(number) {
		p.backends = append(p.backends, backend{})
	}
	b := &p.backends[number]
	if b.used && b.addr != f.Backend.Addr() {
		return
	}
	b.used, b.addr = true, f.Backend.Addr()
	b.flows++
	n := slot{used: true, flow: f, serial: 1, backend: number, written: generation, at: [2]uint32{at, back}, there: [2]bool{true, true}}
	for side, at := range n.at {
		n.known[side].spi = t.records[at].SPI
		taken[at] = true
	}
	p.index[ends{f.Client, f.Listener}] = uint32(len(p.slots))
	p.slots = append(p.slots, n)
	p.waiting++
}
