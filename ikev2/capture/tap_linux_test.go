package capture_test

import (
	"context"
	"testing"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
	"github.com/aovlb/aovlb/internal/peers"
)

// TestTap watches a gateway's interface while a client dials, with a large IKE_AUTH
// in IP fragments.
func TestTap(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	l := newLab(t, t.TempDir(), 4096)
	l.gateway(peers.Gateway{Fragmentation: "no"})
	m := machine()
	m.Fragmentation = "no"
	c := l.client.Client(l.pki, m)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var tap *capture.Tap
	l.must(l.ras1.Do(func() (err error) {
		tap, err = capture.OpenTap(ctx, "eth0")
		return err
	}))
	var tr ikev2.Tracker
	d := capture.Decoder{Event: tr.Observe}
	done := make(chan error, 1)
	go func() { done <- d.Run(tap) }()
	l.upPingDown(c, "machine")
	time.Sleep(200 * time.Millisecond) // until the last packets are read
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	tap.Close()
	r := tr.Report()
	if len(r.Conversations) != 1 || r.Conversations[0].Outcome != ikev2.OutcomeEstablished || r.Counts.ESP == 0 || d.Stats().Fragments == 0 {
		t.Errorf("got %+v, %+v", r, d.Stats())
	}
	if _, err := capture.OpenTap(t.Context(), "no-such-interface"); err == nil {
		t.Error("an interface that isn't there was opened")
	}
}
