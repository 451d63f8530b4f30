package setup

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

var errUnset = errors.New("not configured")

func TestSetup(t *testing.T) {
	var s Setup[int, string]
	if _, _, _, err := s.Get(t.Context(), errUnset); !errors.Is(err, errUnset) {
		t.Errorf("Get before Set: %v", err)
	}
	if c, n, box := s.Peek(); c.Site != "" || n != 0 || box != "" {
		t.Errorf("Peek before Set: %v, %d, %q", c, n, box)
	}
	s.Set(plugins.Config{Site: "hq"}, 7, "box")
	if c, n, box, err := s.Get(t.Context(), errUnset); c.Site != "hq" || n != 7 || box != "box" || err != nil {
		t.Errorf("Get: %v, %d, %q, %v", c, n, box, err)
	}
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if _, _, _, err := s.Get(ctx, errUnset); !errors.Is(err, gone) {
		t.Errorf("Get after the end: %v", err)
	}
	if err := Check(ctx, new(plugins.Config)); !errors.Is(err, gone) {
		t.Errorf("Check after the end: %v", err)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(t.Context(), new(plugins.Config)); err != nil {
		t.Error(err)
	}
	var field *plugins.FieldError
	if err := Check(t.Context(), &plugins.Config{Owner: "a b"}); !errors.As(err, &field) || field.Path != "owner" {
		t.Errorf("Check: %v", err)
	}
}

func ExampleSetup() {
	var s Setup[int, string]
	s.Set(plugins.Config{Site: "hq"}, 30, "192.0.2.1")
	c, timeout, box, err := s.Get(context.Background(), errUnset)
	fmt.Println(c.Site, timeout, box, err)
	// Output: hq 30 192.0.2.1 <nil>
}
