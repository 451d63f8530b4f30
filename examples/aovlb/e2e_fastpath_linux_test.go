package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/plugins"
)

// The scenarios of TestE2EIKEv2 run with the fast path too: here is what only those
// with it have.

// pin is where the fast path is pinned; empty here: namespaces are gone with a test,
// but pins would stay.
func (w *world) pin() string { return "" }

// fastPath returns what the program says of its fast path, and how many packets of
// clients and gateways have passed, and how many of them it has carried.
func (w *world) fastPath() (s *plugins.FastPathStats, all, carried uint64) {
	w.t.Helper()
	var st plugins.Stats
	w.json(&st, "status")
	for _, l := range st.Listeners {
		if l.Carried != nil {
			carried += l.Carried.Packets
			all += l.In.Packets + l.Out.Packets
		}
	}
	return st.FastPath, all, carried
}

// watchFastPath says at the end of a scenario what the kernel has carried.
func (w *world) watchFastPath() {
	if w.options.fastpath == "" {
		return
	}
	w.t.Cleanup(func() {
		select {
		case <-w.balancer.Done():
			return
		default:
		}
		if s, all, carried := w.fastPath(); s == nil || !s.Active {
			w.t.Errorf("no fast path: %+v", s)
		} else {
			w.t.Logf("the kernel carried %d of %d packets on 4500; left: %v", carried, all, s.Left)
		}
	})
}

// Most of a tunnel's packets are carried by the kernel; status says how many, and
// the text says so too.
func TestE2EFastPath(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	needBalancer(t)
	useProgram(t)
	for _, hook := range []plugins.FastPathHook{plugins.FastPathTC, plugins.FastPathXDP} {
		t.Run(string(hook), func(t *testing.T) {
			w := newWorld(t, options{gateways: 2, fastpath: hook})
			c := w.pc(nil, peers.Tunnel{})
			w.up(c, "user")
			u := w.live(c, "user")
			p := u.pinging()
			time.Sleep(3 * time.Second)
			sent, lost := p.lost(t)
			if lost > 0 {
				t.Errorf("%d of %d pings were lost", lost, sent)
			}
			peers.Eventually(t, 10*time.Second, "most packets being carried", func() error {
				if s, all, carried := w.fastPath(); carried < uint64(sent) {
					return fmt.Errorf("the kernel carried %d of %d packets: %+v", carried, all, s)
				}
				return nil
			})
			t.Log(w.command("status", "--admin", "unix:"+w.admin()))
		})
	}
}
