//go:build !linux

package main

import (
	"errors"
	"time"
)

// monotonic isn't needed where there is no systemd.
func monotonic() (time.Duration, error) { return 0, errors.ErrUnsupported }
