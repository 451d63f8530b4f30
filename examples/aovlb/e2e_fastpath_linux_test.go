package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/plugins"
)

// The scenarios of TestE2EIKEv2 run with the fast path too: here is what only those
// with it have.

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

// Where there can be none, "auto" says why and serves, and "require" doesn't serve.
func TestE2EFastPathRefused(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	needBalancer(t)
	useProgram(t)
	w := newWorld(t, options{gateways: 1})
	deployment := w.yaml(w.servers)
	w.reload(deployment + "    fastpath: auto\n    fastpath_options: {interfaces: [nosuch0]}\n")
	peers.Eventually(t, 10*time.Second, "the reason", func() error {
		if s, _, _ := w.fastPath(); s == nil || s.Active || !strings.Contains(s.Reason, "no network device") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if out := w.command("status", "--admin", "unix:"+w.admin()); !strings.Contains(out, "this program carries everything") {
		t.Errorf("status said\n%s", out)
	}
	c := w.pc(nil, peers.Tunnel{})
	w.up(c, "user")
	u := w.live(c, "user")
	w.reload(deployment + "    fastpath: require\n    fastpath_options: {interfaces: [nosuch0]}\n")
	peers.Eventually(t, 10*time.Second, "the refusal", func() error {
		if out := w.balancer.Output(); !strings.Contains(out, "reload refused") || !strings.Contains(out, "sites[0].fastpath") {
			return errors.New(out)
		}
		return nil
	})
	u.still(t, 5*time.Second)
	// Turned on while the tunnel lives, and off again.
	w.reload(deployment + "    fastpath: require\n")
	p := u.pinging()
	peers.Eventually(t, 10*time.Second, "packets being carried", func() error {
		if s, all, carried := w.fastPath(); carried == 0 {
			return fmt.Errorf("%d of %d packets: %+v", carried, all, s)
		}
		return nil
	})
	// What is refused leaves the kernel's share as it was.
	w.reload(deployment + "    fastpath: require\n    fastpath_options: {interfaces: [nosuch1]}\n")
	peers.Eventually(t, 10*time.Second, "the second refusal", func() error {
		if out := w.balancer.Output(); strings.Count(out, "reload refused") < 2 {
			return errors.New(out)
		}
		return nil
	})
	_, _, before := w.fastPath()
	peers.Eventually(t, 10*time.Second, "packets being carried as before", func() error {
		if s, all, carried := w.fastPath(); carried <= before || !s.Active || len(s.Attached) == 0 {
			return fmt.Errorf("%d of %d packets, %d before: %+v", carried, all, before, s)
		}
		return nil
	})
	// Another bound of first messages doesn't have it begin anew.
	attached, reloaded := strings.Count(w.balancer.Output(), "fastpath: attached"), strings.Count(w.balancer.Output(), "reloaded")
	w.reload(deployment + "    fastpath: require\n    fastpath_options: {first_messages: 3000}\n")
	peers.Eventually(t, 10*time.Second, "a reload", func() error {
		if out := w.balancer.Output(); strings.Count(out, "reloaded") == reloaded {
			return errors.New(out)
		}
		return nil
	})
	if now := strings.Count(w.balancer.Output(), "fastpath: attached"); now != attached || attached == 0 {
		t.Errorf("attached %d times, before %d", now, attached)
	}
	w.reload(deployment)
	peers.Eventually(t, 10*time.Second, "no fast path", func() error {
		if s, _, _ := w.fastPath(); s != nil {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if sent, lost := p.lost(t); lost > 1 {
		t.Errorf("%d of %d pings were lost", lost, sent)
	}
	u.still(t, 5*time.Second)
}
