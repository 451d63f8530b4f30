package lb

import (
	"context"
	"fmt"
	"net/netip"
)

// A Prober asks one server whether it truly serves. Returning nil is the only
// proof. The error says what came instead, in words for an administrator.
type Prober interface {
	Probe(ctx context.Context, target netip.AddrPort) error
}

// ProberFunc is a function as a Prober.
type ProberFunc func(ctx context.Context, target netip.AddrPort) error

// Probe calls f.
func (f ProberFunc) Probe(ctx context.Context, target netip.AddrPort) error { return f(ctx, target) }

// A ProbeError says which check of which backend failed, and why.
type ProbeError struct {
	// Backend and Check are their names.
	Backend, Check string
	// Target is what was asked.
	Target netip.AddrPort
	// Err is what the Prober said.
	Err error
}

func (e *ProbeError) Error() string {
	return fmt.Sprintf("backend %s: check %s at %v: %v", e.Backend, e.Check, e.Target, e.Err)
}

// Unwrap returns the Prober's own error.
func (e *ProbeError) Unwrap() error { return e.Err }
