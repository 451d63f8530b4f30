package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/cilium/ebpf"
)

// queued is how many datagrams wait for a processor that they were handed on to, at most.
// Further ones are dropped.
const queued = 2048

// strangersOn checks the setting of that name.
func (c *Config) strangersOn() error {
	switch {
	case len(c.StrangersOn) == 0:
		return nil
	case c.Hook != HookXDP:
		return errors.New("fastpath: StrangersOn takes HookXDP: later, the kernel hands nothing on to another processor")
	case len(c.StrangersOn) > mostStrangersOn:
		return fmt.Errorf("fastpath: StrangersOn has %d processors, the most is %d", len(c.StrangersOn), mostStrangersOn)
	}
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return fmt.Errorf("fastpath: StrangersOn: which processors there are: %w", err)
	}
	online := string(bytes.TrimSpace(b))
	for _, n := range c.StrangersOn {
		if !inList(online, n) {
			return fmt.Errorf("fastpath: StrangersOn: there is no processor %d, or it is offline; online are %s", n, online)
		}
	}
	return nil
}

// inList reports whether n is in a list like "0-3,8".
func inList(list string, n int) bool {
	for part := range strings.SplitSeq(list, ",") {
		from, to, more := strings.Cut(part, "-")
		if !more {
			to = from
		}
		low, err := strconv.Atoi(from)
		high, err2 := strconv.Atoi(to)
		if err == nil && err2 == nil && low <= n && n <= high {
			return true
		}
	}
	return false
}

// handOn tells the kernel which processors strangers are handed on to. What another
// process had it do before ends.
func (p *Path) handOn() error {
	atomic.StoreUint32(&p.others.N, 0)
	for _, n := range p.c.StrangersOn {
		if err := p.maps.Processors.Put(uint32(n), uint32(queued)); err != nil {
			return fmt.Errorf("processor %d can't be handed anything: %w", n, err)
		}
	}
	for n := range p.maps.Processors.MaxEntries() {
		if slices.Contains(p.c.StrangersOn, int(n)) {
			continue
		}
		if err := p.maps.Processors.Delete(n); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("processor %d: %w", n, err)
		}
	}
	for p.others.Seed == 0 {
		p.others.Seed = rand.Uint64()
	}
	p.listens()
	for i, n := range p.c.StrangersOn {
		p.others.Onto[i] = uint32(n)
	}
	atomic.StoreUint32(&p.others.N, uint32(len(p.c.StrangersOn)))
	return nil
}

// listens tells the kernel which ports strangers may mean.
func (p *Path) listens() {
	var ports [len(p.others.Ports)]uint64
	for _, a := range p.c.At {
		ports[a.Port()/64] |= 1 << (a.Port() % 64)
	}
	for i, bits := range ports {
		atomic.StoreUint64(&p.others.Ports[i], bits)
	}
}

// hasVLANs reports whether there are VLAN devices on a device.
func hasVLANs(all []netDevice, index uint32) bool {
	return slices.ContainsFunc(all, func(d netDevice) bool { return d.vlan != 0 && d.parent == index })
}
