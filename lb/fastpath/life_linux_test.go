package fastpath_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

var (
	natCase  = scenario{client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500"}
	natCase6 = scenario{client: "[fd82:1::2]:1234", vip: "[fd82:1::1]:4500", gateway: "[fd82:2::2]:4500"}
)

// When a gateway goes down, its clients' very next packet is the engine's again,
// which moves it; when it comes back, it is carried again.
func TestDown(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	l := newLab(t, false)
	c := startChild(t, l.balancer, natCase.config(l))
	n := natCase.tunnel(l)
	n.establish()
	n.flow(5)
	before := c.tell(command{Mark: "g1", Down: true})
	if before.Engine.Carried != 1 {
		t.Fatalf("%d flows are carried, want 1", before.Engine.Carried)
	}
	// It is the only gateway, so the pool's panic keeps it in use; but nothing
	// was carried on the strength of what was decided before.
	n.send(esp(n.up, 100))
	c.tell(command{Mark: "g1"})
	time.Sleep(150 * time.Millisecond)
	n.carry()
	n.flow(20)
	if r := c.report(); r.Engine.CarriedPackets < before.Engine.CarriedPackets+40 {
		t.Errorf("%d packets were carried, %d of them before; left: %v", r.Engine.CarriedPackets, before.Engine.CarriedPackets, r.Path.Passed)
	}
}

// With another gateway, a client's packets go there at once, and nothing more to
// the one that is down.
func TestMoved(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	l := newLab(t, false)
	cfg := natCase.config(l)
	cfg.Backends = append(cfg.Backends, netip.MustParseAddr("10.82.2.3"))
	c := startChild(t, l.balancer, cfg)
	n := natCase.tunnel(l)
	other := l.listen(l.gateway, "10.82.2.3:4500")
	n.establish() // both are asked, and the first one answers
	if _, _, err := other.ReadFromUDPAddrPort(make([]byte, 2000)); err != nil {
		t.Fatal(err)
	}
	n.flow(5)
	if r := c.tell(command{Mark: "g1", Down: true}); r.Engine.Carried != 1 {
		t.Fatalf("%d flows are carried, want 1", r.Engine.Carried)
	}
	gone := n.gateway
	n.gateway, n.at = other, netip.AddrPort{}
	// Of what was begun with a gateway that is down no other can make sense; but a
	// client begins anew.
	n.send(ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: 0x999, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator},
		ikev2.Payload{Type: ikev2.PayloadNonce, Body: make([]byte, 32)}))
	_ = gone.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if size, _, err := gone.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
		t.Errorf("the gateway that is down got %d bytes", size)
	}
	r := c.report()
	if r.Engine.Moved != 1 || r.Path.Flows != 0 {
		t.Errorf("%d flows moved, %d are in the kernel; want 1 and none", r.Engine.Moved, r.Path.Flows)
	}
}

// The programs can go at any moment: the engine goes on, with the same ports.
func TestDetach(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	l := newLab(t, false)
	c := startChild(t, l.balancer, natCase.config(l))
	n := natCase.tunnel(l)
	n.establish()
	sent := n.flow(10)
	if r := c.report(); r.Engine.CarriedPackets != uint64(sent) {
		t.Fatalf("%d of %d packets were carried", r.Engine.CarriedPackets, sent)
	}
	before := c.tell(command{Detach: true})
	n.flow(10)
	if r := c.report(); r.Engine.CarriedPackets != before.Engine.CarriedPackets || r.Engine.ClientPackets != before.Engine.ClientPackets+10 {
		t.Errorf("without programs %d packets were carried and %d came to the engine, want none and 10",
			r.Engine.CarriedPackets-before.Engine.CarriedPackets, r.Engine.ClientPackets-before.Engine.ClientPackets)
	}
}

// A process that restarts finds what it had pinned: while there is none, the kernel
// carries on, and the next one goes on with the flows. One that never comes back
// stops being a ghost when its lease is over.
func TestRestart(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool", "mount", "umount")
	pins := netns.BPF(t)
	for _, s := range []scenario{natCase, natCase6, {client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", hook: fastpath.HookXDP}} {
		l := newLab(t, false)
		cfg := s.config(l)
		cfg.Pin, cfg.Lease = filepath.Join(pins, s.hook.String()+fmt.Sprint(labs)), 3*time.Second
		c := startChild(t, l.balancer, cfg)
		other := cfg
		other.Listen = []netip.AddrPort{netip.AddrPortFrom(cfg.Listen[0].Addr(), 4501)}
		if _, err := tryChild(t, l.balancer, other); err == nil || !strings.Contains(err.Error(), "another process has it") {
			t.Errorf("a second process with the same pins: %v", err)
		}
		n := s.tunnel(l)
		n.establish()
		n.flow(10)
		r := c.tell(command{End: true, Keep: true})
		n.flow(100) // there is no process now
		cfg.Restore = r.Flows
		c = startChild(t, l.balancer, cfg)
		for c.report().Engine.Restored == 0 {
			time.Sleep(10 * time.Millisecond)
		}
		n.flow(20)
		r = c.report()
		if r.Engine.Restored != 1 || r.Engine.Carried != 1 || r.Engine.CarriedPackets != 40 || r.Path.Waiting != 0 {
			t.Errorf("after a restart: %d flows restored, %d carried, %d packets (want 1, 1, 40), %d waiting", r.Engine.Restored, r.Engine.Carried, r.Engine.CarriedPackets, r.Path.Waiting)
		}
		if err := c.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		c.ended = true
		_ = c.cmd.Wait()
		n.flow(10) // still within the lease
		time.Sleep(cfg.Lease + 500*time.Millisecond)
		if _, err := n.client.WriteToUDPAddrPort(esp(n.up, 100), n.vip); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		_ = n.gateway.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if _, _, err := n.gateway.ReadFromUDPAddrPort(make([]byte, 2000)); err == nil {
			t.Error("a packet was carried after the lease was over")
		}
		_ = n.gateway.SetReadDeadline(time.Now().Add(30 * time.Second))
		c = startChild(t, l.balancer, cfg) // it makes a new start, with the same flow
		if r := c.report(); r.Path.Flows != 0 {
			t.Errorf("%d flows were taken over after the lease", r.Path.Flows)
		}
		n.send(esp(n.up, 100))
		c.tell(command{End: true})
		if list, err := os.ReadDir(filepath.Join(cfg.Pin, "layout-3")); err != nil || len(list) != 0 {
			t.Errorf("left behind: %v %v", list, err)
		}
		if err := fastpath.Clean(cfg.Pin); err != nil {
			t.Error(err)
		}
	}
}

// A process that is newer, or older, than one that left maps of another form in the
// same place can't go on with them. It says so in one line and takes them away; its own
// sockets serve the clients meanwhile, and no packet is lost.
func TestOtherLayout(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool", "mount", "umount")
	pins := netns.BPF(t)
	for name, change := range map[string]func(t *testing.T, dir string, cfg *childConfig) (line string){
		// A later version: what it has is in a folder of its own.
		"of another version": func(t *testing.T, dir string, _ *childConfig) string {
			if err := os.Rename(filepath.Join(dir, "layout-3"), filepath.Join(dir, "layout-1")); err != nil {
				t.Fatal(err)
			}
			return "what another version had pinned is removed"
		},
		// The same version with other sizes: the kernel refuses the maps.
		"of another size": func(_ *testing.T, _ string, cfg *childConfig) string {
			cfg.MaxFlows *= 2
			return "what is pinned doesn't fit"
		},
		// The same name, with other values in it.
		"of another form": func(t *testing.T, dir string, _ *childConfig) string {
			pin := filepath.Join(dir, "layout-3", "records")
			was, err := ebpf.LoadPinnedMap(pin, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer was.Close()
			m, err := ebpf.NewMap(&ebpf.MapSpec{Type: was.Type(), Flags: was.Flags(), KeySize: 4, ValueSize: was.ValueSize() / 2, MaxEntries: was.MaxEntries()})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if err := errors.Join(os.Remove(pin), m.Pin(pin)); err != nil {
				t.Fatal(err)
			}
			return "what is pinned doesn't fit"
		},
	} {
		for _, hook := range []fastpath.Hook{fastpath.HookTC, fastpath.HookXDP} {
			t.Run(name+", "+hook.String(), func(t *testing.T) {
				l := newLab(t, false)
				cfg := natCase.config(l)
				cfg.Hook = hook
				cfg.Pin = filepath.Join(pins, fmt.Sprint(labs))
				c := startChild(t, l.balancer, cfg)
				n := natCase.tunnel(l)
				n.establish()
				n.flow(10)
				r := c.tell(command{End: true, Keep: true})
				n.flow(10) // there is no process now
				line := change(t, cfg.Pin, &cfg)
				cfg.Restore, cfg.Log = r.Flows, filepath.Join(t.TempDir(), "log")
				c = startChild(t, l.balancer, cfg)
				for c.report().Engine.Restored == 0 {
					time.Sleep(10 * time.Millisecond)
				}
				n.flow(1) // by the sockets
				time.Sleep(150 * time.Millisecond)
				n.carry()
				sent := n.flow(20)
				r = c.tell(command{End: true, Keep: true})
				if r.Path.Attached[l.fa] != hook {
					t.Errorf("attached %v", r.Path.Attached)
				}
				if r.Engine.CarriedPackets < uint64(sent) || r.Path.Flows != 1 {
					t.Errorf("%d packets were carried, want %d; %d flows; left: %v", r.Engine.CarriedPackets, sent, r.Path.Flows, r.Path.Passed)
				}
				list, err := os.ReadDir(cfg.Pin)
				if err != nil || len(list) != 1 || list[0].Name() != "layout-3" {
					t.Errorf("left there: %v %v", list, err)
				}
				log, err := os.ReadFile(cfg.Log)
				if err != nil || strings.Count(string(log), line) != 1 {
					t.Errorf("the log has no line, or several, with %q: %v\n%s", line, err, log)
				}
				if err := fastpath.Clean(cfg.Pin); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// told sends b by a connected socket, and returns what error that is told of.
func (l *lab) told(ns, from string, to netip.AddrPort, b []byte) error {
	l.t.Helper()
	var conn *net.UDPConn
	netns.Do(l.t, ns, func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.UDPAddrFromAddrPort(to))
		return err
	})
	defer conn.Close()
	if _, err := conn.Write(b); err != nil {
		l.t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := conn.Read(make([]byte, 100))
	return err
}

// ICMP errors about what was carried come to whom they concern, about the packet
// that that one sent; and the engine hears of them too.
func TestICMP(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range []scenario{natCase, natCase6} {
		l := newLab(t, false)
		c := startChild(t, l.balancer, s.config(l))
		n := s.tunnel(l)
		n.establish()
		n.flow(5)
		addr := n.gateway.LocalAddr().String()
		_ = n.gateway.Close()
		// The client's socket, connected, is told of the refusal.
		_ = n.client.Close()
		if err := l.told(l.client, s.client, n.vip, esp(n.up, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("with %s closed the client gets %v, want that the connection is refused", addr, err)
		}
		r := c.report()
		if r.Path.Passed["icmp copied"] != 1 || r.Unreachable == 0 {
			t.Errorf("%d errors were copied, the engine heard of %d; want one of each", r.Path.Passed["icmp copied"], r.Unreachable)
		}
	}
}

// A client that refuses what was carried to it is heard of by the gateway, at the port that
// this knows.
func TestICMPToGateway(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range []scenario{natCase, natCase6, {client: natCase.client, vip: natCase.vip, gateway: natCase.gateway, transparent: true}} {
		l := newLab(t, false)
		c := startChild(t, l.balancer, s.config(l))
		n := s.tunnel(l)
		n.establish()
		n.flow(5)
		_, _ = n.client.Close(), n.gateway.Close()
		if err := l.told(l.gateway, s.gateway, n.at, esp(n.down, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("of %s the gateway gets %v, want that the connection is refused", s.client, err)
		}
		if r := c.report(); r.Path.Passed["icmp copied"] != 1 {
			t.Errorf("%d errors were copied, want one", r.Path.Passed["icmp copied"])
		}
	}
}

// Flows of a listener at all addresses are carried, of both families.
func TestUnspecified(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for at, list := range map[string][]scenario{"[::]:4500": {natCase, natCase6}, "0.0.0.0:4500": {natCase}} {
		for _, s := range list {
			l := newLab(t, false)
			cfg := s.config(l)
			cfg.Listen = []netip.AddrPort{netip.MustParseAddrPort(at)}
			c := startChild(t, l.balancer, cfg)
			n := s.tunnel(l)
			n.establish()
			sent := n.flow(10)
			if r := c.report(); r.Engine.CarriedPackets != uint64(sent) {
				t.Errorf("at %s, of %s, %d of %d packets were carried; left: %v", at, s.client, r.Engine.CarriedPackets, sent, r.Path.Passed)
			}
		}
	}
}

// What is too large for the way on isn't lost: the engine sends it in fragments.
func TestTooBig(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range []scenario{natCase, natCase6, {client: "10.82.1.2:1234", vip: "10.82.1.1:4500", gateway: "10.82.2.2:4500", hook: fastpath.HookXDP}} {
		l := newLab(t, false)
		l.sh("ip -n NL link set fb mtu 1300")
		c := startChild(t, l.balancer, s.config(l))
		n := s.tunnel(l)
		n.establish()
		for range 5 {
			n.send(esp(n.up, 1400))
			n.answer(esp(n.down, 1200))
			n.send(esp(n.up, 1200))
		}
		if r := c.report(); r.Path.Passed["too big"] != 5 || r.Engine.CarriedPackets < 10 {
			t.Errorf("%d packets were too big, want 5; %d were carried", r.Path.Passed["too big"], r.Engine.CarriedPackets)
		}
	}
}

// When there is no room, further flows are the engine's, and it can be seen; when
// flows end, there is room again.
func TestFull(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	l := newLab(t, false)
	cfg := natCase.config(l)
	cfg.MaxFlows = 3
	c := startChild(t, l.balancer, cfg)
	gateway := l.listen(l.gateway, natCase.gateway)
	for i := range 6 {
		n := &tunnel{t: t, client: l.listen(l.client, fmt.Sprintf("10.82.1.2:%d", 2000+i)), gateway: gateway, vip: netip.MustParseAddrPort(natCase.vip), up: 0x1000 + uint32(i), down: 0x2000 + uint32(i)}
		n.establish()
		n.flow(3)
	}
	if r := c.report(); r.Path.Flows != 3 || r.Engine.Carried != 3 || r.Path.Full == 0 {
		t.Errorf("%d and %d flows are carried of 3, %d were refused", r.Engine.Carried, r.Path.Flows, r.Path.Full)
	}
}

// Whoever may not, or can't, is told in one line what is missing.
func TestRefusal(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool", "setpriv")
	l := newLab(t, false)
	for _, c := range []struct {
		caps string
		edit func(*childConfig)
		want string
	}{
		{"-all", nil, "lacks CAP_BPF and CAP_NET_ADMIN"},
		{"-all,+net_admin", nil, "lacks CAP_BPF,"},
		{"-all,+bpf", nil, "lacks CAP_NET_ADMIN,"},
		{"-all,+bpf,+net_admin", func(c *childConfig) { c.Interfaces = []string{"nosuch"} }, "no network device to attach to"},
		{"-all,+bpf,+net_admin", func(c *childConfig) { c.Pin = "/proc" }, "BPF file system"},
	} {
		cfg := natCase.config(l)
		if c.edit != nil {
			c.edit(&cfg)
		}
		_, err := tryChild(t, l.balancer, cfg, "setpriv", "--bounding-set="+c.caps, "--inh-caps="+c.caps)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("with %s: %v, want one line with %q", c.caps, err, c.want)
		}
	}
	// And these two suffice, for XDP too.
	for _, hook := range []fastpath.Hook{fastpath.HookTC, fastpath.HookXDP} {
		cfg := natCase.config(l)
		cfg.Hook = hook
		c, err := tryChild(t, l.balancer, cfg, "setpriv", "--bounding-set=-all,+bpf,+net_admin", "--inh-caps=-all,+bpf,+net_admin")
		if err != nil {
			t.Fatalf("%v: %v", hook, err)
		}
		if r := c.tell(command{End: true}); len(r.Path.Attached) == 0 || r.Path.Attached[l.fa] != hook {
			t.Errorf("%v: attached %v", hook, r.Path.Attached)
		}
	}
}
