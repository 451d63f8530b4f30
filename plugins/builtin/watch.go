package builtin

import (
	"context"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// hub gives events to those who watch. It never blocks who sends.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
}

type watcher struct {
	ch     chan plugins.Event
	missed int // under hub.mu
}

// waiting is how many events may wait for one watcher.
const waiting = 256

func (h *hub) watch(ctx context.Context, f func(plugins.Event)) error {
	w := &watcher{ch: make(chan plugins.Event, waiting)}
	h.mu.Lock()
	if h.watchers == nil {
		h.watchers = make(map[*watcher]struct{})
	}
	h.watchers[w] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.watchers, w)
		h.mu.Unlock()
	}()
	for {
		select {
		case e := <-w.ch:
			f(e)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send is called with locks of lb held.
func (h *hub) send(s plugins.Severity, kind, name, text string) {
	e := plugins.Event{At: time.Now(), Severity: s, Kind: kind, Name: name, Text: text}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		e.Missed = w.missed
		select {
		case w.ch <- e:
			w.missed = 0
		default:
			w.missed++
		}
	}
}
