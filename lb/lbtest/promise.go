package lbtest

import (
	"fmt"
	"testing"
)

// A promise is one thing that an interface asks of those who implement it. The
// why is shown with the fault: it says what goes wrong for users otherwise.
type promise struct {
	name, why string
	check     func() error
}

// hold runs each promise as a subtest.
func hold(t *testing.T, promises []promise) {
	t.Helper()
	for _, p := range promises {
		t.Run(p.name, func(t *testing.T) {
			if err := p.check(); err != nil {
				t.Errorf("%v\n\twhy it matters: %s", err, p.why)
			}
		})
	}
}

// caught calls f and returns its panic as an error.
func caught(f func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	f()
	return nil
}
