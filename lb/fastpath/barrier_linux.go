package fastpath

import (
	"log/slog"
	"sync"
	"time"

	"github.com/cilium/ebpf"
)

// A barrier waits until no program that runs now is still running. The kernel does that
// whenever a map is put into a map of maps, before it returns, so that whoever did it
// knows that nobody uses the one which was there before (maybe_wait_bpf_programs in
// kernel/bpf/syscall.c).
type barrier struct {
	mu    sync.Mutex // below; it is held while waiting
	outer *ebpf.Map  // nil: there is none
	inner *ebpf.Map
}

// open makes a barrier, if it is to be had.
func (b *barrier) open() error {
	spec := ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1}
	inner, err := ebpf.NewMap(&spec)
	if err != nil {
		return err
	}
	outer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ArrayOfMaps, KeySize: 4, ValueSize: 4, MaxEntries: 1, InnerMap: &spec})
	if err != nil {
		_ = inner.Close()
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.outer, b.inner = outer, inner
	return nil
}

// wait waits, some milliseconds or some tens of them. It reports whether there is a
// barrier at all.
func (b *barrier) wait() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.outer != nil && b.outer.Put(uint32(0), b.inner) == nil
}

func (b *barrier) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outer != nil {
		_, _ = b.outer.Close(), b.inner.Close()
		b.outer, b.inner = nil, nil
	}
}

// settleEvery is how often places that were left are looked after.
const settleEvery = 250 * time.Millisecond

// settle has the places that were left before now be used again, once the programs that
// run now have ended. Without a barrier, time has to tell; see grace.
func (p *Path) settle() {
	p.mu.Lock()
	none, began := p.closed || len(p.table.limbo) == 0, time.Now()
	p.mu.Unlock()
	if none {
		return
	}
	passed := p.barrier.wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	p.table.waits = passed
	if passed {
		p.table.passed = began
	}
	p.table.settle()
}

// startSettling opens the barrier, and has no place be used again without it.
func (p *Path) startSettling() {
	err := p.barrier.open()
	if err != nil {
		p.log(slog.LevelDebug, "places are used again after a second, without asking the kernel", "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.waits = err == nil
}

// stopSettling has time tell from now on.
func (p *Path) stopSettling() {
	p.barrier.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.table.waits = false
}
