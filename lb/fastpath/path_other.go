//go:build !linux

package fastpath

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"github.com/aovlb/aovlb/lb/udp"
)

// A Path is the programs in the kernel, and what they carry: here there are none.
type Path struct{}

// Open reports that there is no fast path on this system.
func Open(Config) (*Path, error) {
	return nil, fmt.Errorf("fastpath: it is part of Linux, and this is %s: %w", runtime.GOOS, ErrUnsupported)
}

// Run waits until ctx is done.
func (p *Path) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// Watch does nothing.
func (p *Path) Watch([]netip.AddrPort, []netip.Addr) {}

// Bound does nothing.
func (p *Path) Bound(int) {}

// Stats returns nothing.
func (p *Path) Stats() Stats { return Stats{} }

// Close does nothing.
func (p *Path) Close(bool) error { return nil }

// Clean does nothing: nothing can have been pinned.
func Clean(string) error { return nil }

// A Carrier is what one Engine has of a Path.
type Carrier struct{}

var _ udp.FastPath = (*Carrier)(nil)

// Carrier returns a Carrier that carries nothing.
func (p *Path) Carrier() *Carrier { return new(Carrier) }

// Close does nothing.
func (c *Carrier) Close() {}

// Carry implements [udp.FastPath]: it refuses.
func (c *Carrier) Carry(udp.FastFlow, []byte, bool) (uint64, bool) { return 0, false }

// Carried implements [udp.FastPath].
func (c *Carrier) Carried(uint64) udp.FastUse { return udp.FastUse{} }

// End implements [udp.FastPath].
func (c *Carrier) End(uint64) udp.FastUse { return udp.FastUse{} }

// Revoke implements [udp.FastPath].
func (c *Carrier) Revoke(netip.Addr) {}
