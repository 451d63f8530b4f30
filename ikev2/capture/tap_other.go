//go:build !linux

package capture

import (
	"context"
	"errors"
	"io"
)

// A Tap reads packets from a network interface, which takes Linux.
type Tap struct{}

// OpenTap fails: taps take Linux.
func OpenTap(context.Context, string) (*Tap, error) {
	return nil, errors.New("capture: tapping an interface takes Linux: capture to a file instead, and read that")
}

// Next returns io.EOF.
func (*Tap) Next() (Packet, error) { return Packet{}, io.EOF }

// Close does nothing.
func (*Tap) Close() {}
