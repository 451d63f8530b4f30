package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What is pinned, in Config.Pin:
//
//	layout-1/            the form of the maps
//	  flows4 usages …    maps, by their names
//	  tc-2 xdp-2         links, by the number of their device
//
// A program that is newer replaces the one that is attached, and goes on with the
// maps, if their layout is the same. Otherwise it makes maps of its own, attaches
// beside, and then removes the folder of the older layout.

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

// leaveOlder removes what is pinned in other layouts.
func (p *Path) leaveOlder() {
	if p.pins == "" {
		return
	}
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

// entry is one of the kernel's: a direction of a flow.
type entry struct {
	path path
	to   rewrite
}

// recover learns from the kernel's maps what an earlier process had carried. If its
// lease is over, nobody can know what has become of that since.
func (p *Path) recover() error {
	if p.pins == "" {
		return nil
	}
	pairs := make(map[uint32]*[2]*entry)
	all, err := p.entries()
	if err != nil {
		return fmt.Errorf("reading what is pinned: %w", err)
	}
	lease := time.Duration(binary.NativeEndian.Uint64(p.state))
	over := lease != 0 && lease < monotonic()
	for i := range all {
		e := &all[i]
		n := e.to.Slot / 2
		if over || n >= uint32(p.c.MaxFlows) || e.to.Backend == 0 || e.to.Backend >= maxBackends {
			p.discard(e)
			continue
		}
		if pairs[n] == nil {
			pairs[n] = new([2]*entry)
		}
		if was := pairs[n][e.to.Slot%2]; was != nil {
			p.discard(was)
		}
		pairs[n][e.to.Slot%2] = e
	}
	for n, pair := range pairs {
		if !p.adopt(n, pair) {
			for _, e := range pair {
				if e != nil {
					p.discard(e)
				}
			}
		}
	}
	for n := range p.slots {
		if !p.slots[n].used {
			p.free = append(p.free, uint32(n))
		}
	}
	if p.waiting > 0 {
		p.log(slog.LevelInfo, "an earlier process's flows are still carried", "flows", p.waiting)
	}
	return nil
}

// adopt makes a slot of a flow that is carried.
func (p *Path) adopt(n uint32, pair *[2]*entry) bool {
	up, down := pair[fromClient], pair[fromBackend]
	if up == nil || down == nil || up.to.Backend != down.to.Backend {
		return false
	}
	f, ok := fits(up.path.flowOf())
	if !ok || paths(&f)[fromBackend] != down.path || uint32(p.gens[up.to.Backend]) != up.to.Generation || up.to.Generation != down.to.Generation {
		return false
	}
	for len(p.slots) <= int(n) {
		p.slots = append(p.slots, slot{})
	}
	for len(p.backends) <= int(up.to.Backend) {
		p.backends = append(p.backends, backend{})
	}
	b := &p.backends[up.to.Backend]
	if b.used && b.addr != f.Backend.Addr() {
		return false
	}
	b.used, b.addr = true, f.Backend.Addr()
	b.flows++
	s := slot{used: true, flow: f, serial: 1, backend: up.to.Backend, written: up.to.Generation, there: [2]bool{true, true}}
	s.known[fromClient].spi, s.known[fromBackend].spi = up.to.SPI, down.to.SPI
	p.slots[n] = s
	p.index[ends{f.Client, f.Listener}] = n
	p.waiting++
	return true
}

// entries reads the kernel's maps.
func (p *Path) entries() (list []entry, err error) {
	var k4 key4
	var f4 flow4
	it := p.maps.Flows4.Iterate()
	for it.Next(&k4, &f4) {
		list = append(list, entry{path{
			addr4(k4.Src, k4.Sport), addr4(k4.Dst, k4.Dport), addr4(f4.Src, f4.To.Sport), addr4(f4.Dst, f4.To.Dport),
		}, f4.To})
	}
	var k6 key6
	var f6 flow6
	it6 := p.maps.Flows6.Iterate()
	for it6.Next(&k6, &f6) {
		list = append(list, entry{path{
			addr6(k6.Src, k6.Sport), addr6(k6.Dst, k6.Dport), addr6(f6.Src, f6.To.Sport), addr6(f6.Dst, f6.To.Dport),
		}, f6.To})
	}
	return list, errors.Join(it.Err(), it6.Err())
}

// discard removes an entry from the kernel's maps.
func (p *Path) discard(e *entry) {
	var err error
	if e.path.src.Addr().Is4() {
		k := e.path.key4()
		err = p.maps.Flows4.Delete(&k)
	} else {
		k := e.path.key6()
		err = p.maps.Flows6.Delete(&k)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		p.failed.Add(1)
	}
}
