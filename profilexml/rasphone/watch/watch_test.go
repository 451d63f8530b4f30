package watch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/aovlb/aovlb/profilexml/rasphone"
)

const (
	wrong = "[a]\r\nVpnStrategy=6\r\n"
	right = "[a]\r\nVpnStrategy=14\r\n"
)

var edit = rasphone.Edit{Entries: []string{"a"}, Set: []rasphone.Setting{rasphone.IKEv2SSTP.Setting()}}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// virtual runs the loop of a watcher in virtual time, with notices by hand.
func virtual(t *testing.T, w *Watcher, script func(notice func(), path string)) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "rasphone.pbk")
		w.Files = []string{path}
		w.Edit = edit
		events := make(chan string)
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error)
		write(t, path, wrong)
		go func() { done <- w.loop(ctx, events, func(string) {}) }()
		synctest.Wait()
		script(func() { events <- path; synctest.Wait() }, path)
		enough := errors.New("enough")
		cancel(enough)
		if err := <-done; !errors.Is(err, enough) {
			t.Error(err)
		}
	})
}

// TestSettles waits until the file is quiet, and no longer.
func TestSettles(t *testing.T) {
	virtual(t, &Watcher{Interval: time.Second, Poll: time.Hour}, func(notice func(), path string) {
		if got := read(t, path); got != right {
			t.Fatalf("at first: %q", got)
		}
		time.Sleep(time.Minute) // virtual
		write(t, path, wrong)
		for range 5 {
			notice()
			time.Sleep(DefaultSettle - time.Millisecond)
			synctest.Wait()
			if got := read(t, path); got != wrong {
				t.Fatal("it was edited before it was quiet")
			}
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := read(t, path); got != right {
			t.Fatalf("when it was quiet: %q", got)
		}
	})
}

// TestPolls finds what nobody gave notice of.
func TestPolls(t *testing.T) {
	virtual(t, &Watcher{}, func(_ func(), path string) {
		write(t, path, wrong)
		time.Sleep(DefaultPoll + DefaultSettle)
		synctest.Wait()
		if got := read(t, path); got != right {
			t.Fatalf("%q", got)
		}
	})
}

// TestRate has another program undo each edit at once: there are few edits, fewer
// and fewer.
func TestRate(t *testing.T) {
	var logs strings.Builder
	edits, delays := 0, 0
	w := &Watcher{Log: slog.New(slog.NewTextHandler(&logs, nil))}
	w.Trace.Delayed = func(string, time.Time) { delays++ }
	w.Trace.Looked = func(_ string, r rasphone.Result, err error) {
		if err != nil {
			t.Error(err)
		}
		if r.Written {
			edits++
		}
	}
	virtual(t, w, func(notice func(), path string) {
		for range 24 * 60 * 6 {
			if read(t, path) == right {
				write(t, path, wrong)
				notice()
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
		if edits < 24 || edits > 40 {
			t.Errorf("%d edits in a day", edits)
		}
		if delays == 0 || !strings.Contains(logs.String(), "something keeps changing") {
			t.Errorf("%d delays, logs %s", delays, logs.String())
		}
		edits = 0
		time.Sleep(3 * time.Hour) // of peace, in which the last edit is made
		write(t, path, wrong)
		notice()
		time.Sleep(DefaultSettle)
		synctest.Wait()
		if read(t, path) != right {
			t.Error("after peace it isn't edited soon")
		}
	})
}

// TestNoFile waits for a file that isn't there, and doesn't repeat itself.
func TestNoFile(t *testing.T) {
	var logs strings.Builder
	virtual(t, &Watcher{Log: slog.New(slog.NewTextHandler(&logs, nil))}, func(notice func(), path string) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(logs.String(), "can't be edited"); n != 1 {
			t.Errorf("it was logged %d times: %s", n, logs.String())
		}
		write(t, path, wrong)
		notice()
		time.Sleep(DefaultSettle)
		synctest.Wait()
		if read(t, path) != right {
			t.Error("it wasn't edited when it came")
		}
	})
}

// TestRun takes notices of the real file system.
func TestRun(t *testing.T) {
	defer goleak.VerifyNone(t)
	path := filepath.Join(t.TempDir(), "rasphone.pbk")
	write(t, path, wrong)
	edited := make(chan struct{}, 10)
	w := &Watcher{Files: []string{path}, Edit: edit, Settle: time.Millisecond, Interval: time.Millisecond}
	w.Trace.Looked = func(_ string, r rasphone.Result, err error) {
		if r.Written && err == nil {
			edited <- struct{}{}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for range 3 {
		select {
		case <-edited:
		case <-ctx.Done():
			t.Fatal("it isn't edited")
		}
		if got := read(t, path); got != right {
			t.Fatalf("%q", got)
		}
		write(t, path, wrong)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := new(Watcher).Run(t.Context()); err == nil {
		t.Error("it watches nothing")
	}
}
