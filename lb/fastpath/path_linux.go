package fastpath

import (
	"bytes"
	"cmp"
	"context"
	_ "embed" // the programs
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb/udp"
)

//go:generate sh generate.sh

//go:embed fastpath_bpfel.o
var object []byte

// A Path is the programs in the kernel, and what they carry. Its methods may be
// called by several goroutines at once.
type Path struct {
	c       Config
	maps    maps
	tc, xdp *ebpf.Program
	gens    []uint64 // of maps.Generations, shared with the kernel
	devices []byte   // of maps.Devices, likewise
	state   *state
	lock    *os.File // of the folder where things are pinned
	mapped  [][]byte
	pins    string // where, with the layout; empty: not pinned
	barrier barrier

	full, unfit, failed atomic.Uint64

	mu       sync.Mutex // below
	table    table      // with maps.Records and maps.Pairs6
	slots    []slot
	free     []uint32
	index    map[ends]uint32 // of slots
	backends []backend       // by number
	waiting  int             // slots without an owner
	began    time.Time
	attached map[uint32]*attachment // by number of the device
	bounded  map[listener]bool      // in maps.Listeners
	closed   bool
}

// maps are the kernel's.
type maps struct {
	Records     *ebpf.Map `ebpf:"records"`
	Pairs6      *ebpf.Map `ebpf:"pairs6"`
	Generations *ebpf.Map `ebpf:"generations"`
	Devices     *ebpf.Map `ebpf:"devices"`
	States      *ebpf.Map `ebpf:"states"`
	Listeners   *ebpf.Map `ebpf:"listeners"`
	Reasons     *ebpf.Map `ebpf:"reasons"`
}

// ends are what a flow is known by.
type ends struct{ client, listener netip.AddrPort }

// slot is a flow that is carried.
type slot struct {
	used    bool
	flow    udp.FastFlow
	owner   *Carrier // nil: nobody has taken it over yet
	serial  uint32   // tells it from others that have had its number
	backend uint32
	written uint32    // the generation in its records
	at      [2]uint32 // its records
	there   [2]bool   // whether they are
	known   [2]known
}

// known are the SPIs of one direction; the next replaces that at at.
type known struct {
	spi [spis]uint32
	at  uint8
}

// add adds an SPI, and reports whether it is new.
func (k *known) add(spi uint32) bool {
	for _, s := range k.spi {
		if s == spi {
			return false
		}
	}
	k.spi[k.at] = spi
	k.at = (k.at + 1) % spis
	return true
}

// backend is the number of a generation.
type backend struct {
	addr  netip.Addr
	owner *Carrier // nil: an earlier process's, or a Carrier's that is closed
	flows int
	used  bool
}

// orphaned is how long flows of an earlier process wait for an Engine that goes on
// with them.
const orphaned = 20 * time.Second

// Open loads the programs and attaches them. The error is one line that says what
// is missing, and wraps [ErrUnsupported] if that can't be mended by more rights.
func Open(c Config) (*Path, error) {
	p := &Path{c: c, index: make(map[ends]uint32), attached: make(map[uint32]*attachment), began: time.Now()}
	p.c.MaxFlows = cmp.Or(max(c.MaxFlows, 0), DefaultMaxFlows)
	if p.c.MaxFlows > mostFlows {
		return nil, fmt.Errorf("fastpath: MaxFlows is %d, the most is %d", p.c.MaxFlows, mostFlows)
	}
	if c.Hook > HookXDP {
		return nil, fmt.Errorf("fastpath: %v is unknown, it can be HookTC or HookXDP", c.Hook)
	}
	p.c.Lease = cmp.Or(max(c.Lease, 0), DefaultLease)
	p.c.FirstMessages = cmp.Or(c.FirstMessages, DefaultFirstMessages)
	p.backends = make([]backend, 1, 16) // 0 is nobody's
	err := p.open()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fastpath: %w", err), p.release())
	}
	return p, nil
}

func (p *Path) open() error {
	if err := capable(); err != nil {
		return err
	}
	if err := p.forwarding(); err != nil {
		return err
	}
	if err := p.load(); err != nil {
		return err
	}
	if err := p.recover(); err != nil {
		return err
	}
	p.renew()
	if p.c.Hook == HookXDP {
		p.detachOlder("xdp-*") // to make room
	}
	if err := p.refresh(); err != nil {
		return err
	}
	p.leaveXDP()
	p.leaveOlder()
	return nil
}

// load makes the maps, or opens those that are pinned, and loads the programs.
func (p *Path) load() error {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return fmt.Errorf("there is no program for machines of this byte order: %w", ErrUnsupported)
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return fmt.Errorf("the program's file: %w", err)
	}
	spec.Maps["records"].MaxEntries, spec.Maps["pairs6"].MaxEntries = sizes(p.c.MaxFlows)
	opts := ebpf.CollectionOptions{}
	if p.pins, err = pinFolder(p.c.Pin); err != nil {
		return err
	}
	if p.pins != "" {
		if p.lock, err = locked(p.pins); err != nil {
			return err
		}
		opts.Maps.PinPath = p.pins
		for _, m := range spec.Maps {
			m.Pinning = ebpf.PinByName
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		// MaxFlows has changed, say. What is carried comes to the sockets.
		p.log(slog.LevelInfo, "what is pinned doesn't fit, and is made anew", "error", err)
		if err := unpin(p.pins); err != nil {
			return err
		}
		coll, err = ebpf.NewCollectionWithOptions(spec, opts)
	}
	if err != nil {
		return p.refused(err)
	}
	defer coll.Close() // what isn't taken out of it
	if err := coll.Assign(&p.maps); err != nil {
		return err
	}
	p.tc, p.xdp = coll.DetachProgram("aovlb_tc"), coll.DetachProgram("aovlb_xdp")
	return p.share()
}

// refused says why the kernel doesn't take the programs.
func (p *Path) refused(err error) error {
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		p.log(slog.LevelError, "the kernel's verifier refuses the program", "log", fmt.Sprintf("%+v", v))
		return fmt.Errorf("the kernel (%s) refuses the program: %w", release(), v)
	}
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("the kernel doesn't permit BPF programs, though the capabilities are there%s: %w", lockdown("/sys/kernel/security/lockdown"), err)
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("the kernel (%s) is too old or has no BPF, 6.6 has all it takes: %w: %w", release(), ErrUnsupported, err)
	}
	return fmt.Errorf("loading the program: %w", err)
}

// share maps memory of the kernel's.
func (p *Path) share() (err error) {
	if p.table.records, err = mapped[record](p, p.maps.Records); err != nil {
		return err
	}
	if p.table.pairs, err = mapped[pairs](p, p.maps.Pairs6); err != nil {
		return err
	}
	if p.gens, err = mapped[uint64](p, p.maps.Generations); err != nil {
		return err
	}
	if p.devices, err = p.mmap(p.maps.Devices, int(unsafe.Sizeof(device{}))); err != nil {
		return err
	}
	states, err := mapped[state](p, p.maps.States)
	if err != nil {
		return err
	}
	p.state = &states[0]
	for p.state.Seed == 0 {
		p.state.Seed = rand.Uint64()
	}
	p.table.seed, p.table.grace = p.state.Seed, grace
	p.table.ways = make([]way, len(p.table.records))
	p.state.Places = uint64(p.table.places())
	p.limit()
	return nil
}

// mapped maps the values of m.
func mapped[T any](p *Path, m *ebpf.Map) ([]T, error) {
	var one T
	b, err := p.mmap(m, int(unsafe.Sizeof(one)))
	if err != nil {
		return nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), m.MaxEntries()), nil
}

func (p *Path) mmap(m *ebpf.Map, size int) ([]byte, error) {
	b, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries())*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("mapping the kernel's memory: %w", os.NewSyscallError("mmap", err))
	}
	p.mapped = append(p.mapped, b)
	return b, nil
}

// Run keeps the Path alive: it renews its lease, attaches to network devices that
// come, and forgets flows of an earlier process that nobody has gone on with. It
// returns the cause of ctx when that is done; the programs stay attached until
// Close. After that it returns an error that wraps [os.ErrClosed].
func (p *Path) Run(ctx context.Context) error {
	// Several times within the lease, and often enough for new devices.
	tick := time.NewTicker(min(p.c.Lease/6, 2*time.Second))
	defer tick.Stop()
	settle := time.NewTicker(settleEvery)
	defer settle.Stop()
	p.startSettling()
	defer p.stopSettling()
	var said string
	p.mu.Lock()
	flood := flood{dropped: p.dropped()} // an earlier process's, maybe
	p.mu.Unlock()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-settle.C:
			p.settle()
			continue
		case <-tick.C:
		}
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return fmt.Errorf("fastpath: %w", os.ErrClosed)
		}
		p.renew()
		p.bury()
		err := p.refresh()
		flood.tell(p)
		p.mu.Unlock()
		if err != nil && err.Error() != said {
			said = err.Error()
			p.log(slog.LevelWarn, "not all network devices can be used", "error", err)
		} else if err == nil {
			said = ""
		}
	}
}

// flood tells when first messages begin to be dropped, and when that is over.
type flood struct {
	dropped, before uint64 // in all; when the flood began
	during          bool
}

func (f *flood) tell(p *Path) {
	n := p.dropped()
	switch {
	case n != f.dropped && !f.during:
		f.during, f.before = true, f.dropped
		p.log(slog.LevelWarn, "too many new clients begin at once, so some of their first messages are dropped", "a second and processor", p.c.FirstMessages)
	case n == f.dropped && f.during:
		f.during = false
		p.log(slog.LevelInfo, "no first messages are dropped any more", "dropped", n-f.before)
	}
	f.dropped = n
}

// Watch has the Path look for other network devices; see Config.At and
// Config.Toward.
func (p *Path) Watch(at []netip.AddrPort, toward []netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.At, p.c.Toward = at, toward
}

// Bound changes the bound of first messages; see Config.FirstMessages.
func (p *Path) Bound(firstMessages int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.c.FirstMessages = cmp.Or(firstMessages, DefaultFirstMessages)
	if p.state != nil {
		p.limit()
	}
}

func (p *Path) limit() {
	apart := uint64(0)
	if p.c.FirstMessages > 0 {
		apart = uint64(max(time.Second/time.Duration(p.c.FirstMessages), 1))
	}
	atomic.StoreUint64(&p.state.Apart, apart)
}

// renew extends the lease. What isn't pinned ends with the process, and needs none.
func (p *Path) renew() {
	until := uint64(0)
	if p.pins != "" {
		until = uint64(monotonic() + p.c.Lease)
	}
	if p.state != nil {
		atomic.StoreUint64(&p.state.Lease, until)
	}
}

func monotonic() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// bury ends what nobody has gone on with. p.mu is held.
func (p *Path) bury() {
	if p.waiting == 0 || time.Since(p.began) < orphaned {
		return
	}
	n := 0
	for i := range p.slots {
		if s := &p.slots[i]; s.used && s.owner == nil {
			p.remove(uint32(i))
			n++
		}
	}
	p.log(slog.LevelInfo, "flows of before, that nobody has gone on with, come to the sockets again", "flows", n)
}

// Stats returns what it does.
func (p *Path) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{
		Attached: make(map[string]Hook), Flows: len(p.index), Waiting: p.waiting, MaxFlows: p.c.MaxFlows,
		Full: p.full.Load(), Unfit: p.unfit.Load(), Failed: p.failed.Load(), Passed: make(map[string]uint64),
	}
	if p.closed {
		return s
	}
	for _, a := range p.attached {
		s.Attached[a.name] = a.hook()
	}
	for i, name := range Reasons() {
		if !p.packets() {
			i += xdpReasons // they are told by XDP alone
		}
		s.Passed[name] = p.counted(i)
	}
	s.Dropped = p.dropped()
	return s
}

// xdpReasons is where XDP's counters begin: after TC's, of which one more is of what is
// dropped.
var xdpReasons = len(Reasons()) + 1

// dropped returns how many first messages have been dropped, at either place. p.mu is
// held.
func (p *Path) dropped() uint64 {
	if p.closed {
		return 0
	}
	return p.counted(xdpReasons-1) + p.counted(2*xdpReasons-1)
}

// counted returns one of the kernel's counters.
func (p *Path) counted(i int) (sum uint64) {
	var each []uint64
	if p.maps.Reasons.Lookup(uint32(i), &each) == nil {
		for _, n := range each {
			sum += n
		}
	}
	return sum
}

// packets reports whether there is TC, which what XDP passes comes to.
func (p *Path) packets() bool {
	for _, a := range p.attached {
		if a.tc != nil {
			return true
		}
	}
	return false
}

// Close ends everything. With keep, what is pinned stays for the next process, for
// the time of the lease; otherwise, and if nothing is pinned, every packet comes to
// the sockets again. Engines must not use its Carriers any more.
func (p *Path) Close(keep bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	var err error
	if keep {
		p.renew()
	} else if p.pins != "" {
		err = errors.Join(p.detachAll(), unpin(p.pins))
	}
	return errors.Join(err, p.release())
}

// release closes what the process has. What isn't pinned is gone with it.
func (p *Path) release() error {
	var errs []error
	for _, a := range p.attached {
		errs = append(errs, a.close())
	}
	for _, b := range p.mapped {
		errs = append(errs, unix.Munmap(b))
	}
	p.mapped, p.table, p.devices, p.state, p.gens = nil, table{}, nil, nil, nil
	m := &p.maps
	for _, x := range []*ebpf.Map{m.Records, m.Pairs6, m.Generations, m.Devices, m.States, m.Listeners, m.Reasons} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	for _, x := range []*ebpf.Program{p.tc, p.xdp} {
		if x != nil {
			errs = append(errs, x.Close())
		}
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
		p.lock = nil
	}
	return errors.Join(errs...)
}

func (p *Path) log(level slog.Level, msg string, args ...any) {
	if p.c.Logger != nil {
		p.c.Logger.Log(context.Background(), level, "fastpath: "+msg, args...)
	}
}
