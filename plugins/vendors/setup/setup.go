// Package setup keeps what a driver was configured with, for all that it is asked at
// once.
package setup

import (
	"context"
	"log/slog"
	"sync"

	"github.com/aovlb/aovlb/plugins"
)

// A Setup holds a driver's configuration, its settings, and what it reaches its
// balancer by. Its zero value holds nothing yet. It may be used by several goroutines
// at once.
type Setup[Settings, Box any] struct {
	mu       sync.RWMutex
	done     bool
	config   plugins.Config
	settings Settings
	box      Box
}

// Check says what is wrong with c, but for its settings, or that ctx has ended.
func Check(ctx context.Context, c *plugins.Config) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := c.Owner.Check(); err != nil {
		return &plugins.FieldError{Path: "owner", Err: err}
	}
	return nil
}

// Log returns a driver's logger; nil is one that says nothing.
func Log(l *slog.Logger) *slog.Logger {
	if l != nil {
		return l
	}
	return slog.New(slog.DiscardHandler)
}

// Set takes what the driver is configured with from now on.
func (s *Setup[S, B]) Set(c plugins.Config, settings S, box B) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done, s.config, s.settings, s.box = true, c, settings, box
}

// Get returns what was set. It fails with unset if nothing was, and with the cause of
// ctx if that has ended.
func (s *Setup[S, B]) Get(ctx context.Context, unset error) (c plugins.Config, settings S, box B, err error) {
	if err = context.Cause(ctx); err != nil {
		return c, settings, box, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.done {
		return c, settings, box, unset
	}
	return s.config, s.settings, s.box, nil
}

// Peek returns what was set, or zero values.
func (s *Setup[S, B]) Peek() (plugins.Config, S, B) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.config, s.settings, s.box
}
