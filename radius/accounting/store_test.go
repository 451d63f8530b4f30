package accounting

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/spool"
)

// servers stands for the Proxy and what is behind it.
type servers struct {
	mu   sync.Mutex
	down error
	got  []string // session and Acct-Delay-Time
	came chan bool
}

func (v *servers) Forward(_ context.Context, client string, p radius.Packet, _ lb.Flow) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	session, _ := p.Lookup(radius.AcctSessionID)
	late, _ := p.Lookup(radius.AcctDelayTime)
	if errors.Is(v.down, radius.ErrNotSent) {
		return nil, v.down
	}
	v.got = append(v.got, fmt.Sprintf("%s %s late=%v", client, session, late[3] > 0))
	v.came <- true
	return nil, v.down
}

func (v *servers) set(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.down = err
}

// world runs a Store on a folder.
func world(t *testing.T, c Config, v *servers) (*Store, func()) {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx, v) }) // it ends with ctx
	return s, func() {
		cancel()
		wg.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func start(t *testing.T, id byte, session string) radius.Packet {
	return request(t, id, radius.AcctStatusType, "\x00\x00\x00\x01", radius.AcctSessionID, session, radius.AcctDelayTime, "\x00\x00\x00\x00")
}

func wait(t *testing.T, v *servers) {
	t.Helper()
	select {
	case <-v.came:
	case <-time.After(20 * time.Second):
		t.Fatal("no record came")
	}
}

func TestStore(t *testing.T) {
	v := &servers{came: make(chan bool, 100), down: fmt.Errorf("all are down: %w", radius.ErrNotSent)}
	c := Config{Spool: spool.Config{Dir: filepath.Join(t.TempDir(), "accounting"), Retry: time.Millisecond}}
	s, stop := world(t, c, v)
	a, b := start(t, 1, "a"), start(t, 2, "b")
	if s.Behind(a) {
		t.Error("an empty store wants a record")
	}
	for _, r := range []radius.Record{{Packet: a, Client: "ras1", Flow: flow}, {Packet: b, Client: "ras1", Flow: flow, Sent: true}} {
		if err := s.Store(r); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	s, stop = world(t, c, v)
	defer stop()
	if !s.Behind(request(t, 7, radius.AcctStatusType, "\x00\x00\x00\x02", radius.AcctSessionID, "a")) {
		t.Error("a session's end may overtake its beginning")
	}
	if s.Behind(start(t, 3, "c")) {
		t.Error("another session has to wait")
	}
	v.set(nil)
	s.Wake()
	wait(t, v)
	wait(t, v)
	if !s.Behind(a) {
		t.Error("a record that is repeated after it was delivered isn't known")
	}
	if err := s.Store(radius.Record{Packet: a, Client: "ras1", Flow: flow}); err != nil {
		t.Error(err)
	}
	want := map[string]bool{"ras1 a late=false": true, "ras1 b late=true": true}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.got) != 2 || !want[v.got[0]] || !want[v.got[1]] {
		t.Errorf("delivered: %q", v.got)
	}
}

// What a server may have taken although no answer came goes out marked.
func TestMarkedAgain(t *testing.T) {
	v := &servers{came: make(chan bool, 100), down: errors.New("no answer")}
	s, stop := world(t, Config{Always: true, Spool: spool.Config{Dir: filepath.Join(t.TempDir(), "accounting"), Retry: time.Millisecond}}, v)
	defer stop()
	a := start(t, 1, "a")
	if !s.Behind(a) {
		t.Error("always isn't always")
	}
	if err := s.Store(radius.Record{Packet: a, Client: "ras1", Flow: flow}); err != nil {
		t.Fatal(err)
	}
	wait(t, v)
	v.set(nil)
	wait(t, v)
	v.mu.Lock()
	got := append([]string(nil), v.got...)
	v.mu.Unlock()
	if got[0] != "ras1 a late=false" || got[len(got)-1] != "ras1 a late=true" {
		t.Errorf("delivered: %q", got)
	}
}
