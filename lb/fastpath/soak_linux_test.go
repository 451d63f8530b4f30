package fastpath_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// Clients come and go, for some seconds, or as long as AOVLB_SOAK says: in the end
// nothing is left of them, neither in the kernel nor in the engine.
func TestSoak(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	d := 4 * time.Second
	if s := os.Getenv("AOVLB_SOAK"); s != "" {
		var err error
		if d, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	l := newLab(t, false)
	cfg := natCase.config(l)
	cfg.Idle, cfg.MaxFlows = 3*time.Second, 1000
	c := startChild(t, l.balancer, cfg)
	before := c.report()
	gateway := l.listen(l.gateway, natCase.gateway)
	clients, most, packets := 0, 0, 0
	for end := time.Now().Add(d); time.Now().Before(end); clients++ {
		_ = gateway.SetDeadline(time.Now().Add(30 * time.Second))
		n := &tunnel{
			t: t, client: l.listen(l.client, fmt.Sprintf("10.82.1.2:%d", 2000+clients%60000)), gateway: gateway,
			vip: netip.MustParseAddrPort(natCase.vip), up: 0x1000 + uint32(clients), down: 0x2000 + uint32(clients),
		}
		n.establish()
		packets += n.flow(20)
		if err := n.client.Close(); err != nil {
			t.Fatal(err)
		}
		if clients%100 == 99 {
			most = max(most, c.report().Path.Flows)
		}
		time.Sleep(10 * time.Millisecond)
	}
	for wait := time.Now().Add(30 * time.Second); time.Now().Before(wait) && c.report().Engine.Flows > 0; {
		time.Sleep(500 * time.Millisecond)
	}
	r := c.report()
	t.Logf("%d clients in %v, %d packets, %d of them carried, at most %d flows at once", clients, d, packets, r.Engine.CarriedPackets, most)
	if r.Path.Flows != 0 || r.Engine.Flows != 0 || r.Engine.Carried != 0 || r.Engine.CarriedPackets != uint64(packets) || r.Path.Failed != 0 {
		t.Errorf("in the end: %+v, %+v", r.Path, r.Engine)
	}
	// Sockets rest for a second before they are closed.
	time.Sleep(2 * time.Second)
	if r = c.report(); r.Files > before.Files+8 || r.Goroutines > before.Goroutines+4 {
		t.Errorf("%d files and %d goroutines, at first %d and %d", r.Files, r.Goroutines, before.Files, before.Goroutines)
	}
}

// A flood of first messages, from everywhere, doesn't touch a flow that is carried:
// not one of its packets is lost, and none comes to the engine. What is beyond the bound
// doesn't come to it either.
func TestFlood(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nsenter", "ethtool")
	for _, s := range []scenario{natCase, {client: natCase.client, vip: natCase.vip, gateway: natCase.gateway, hook: fastpath.HookXDP}} {
		for _, bound := range []int{-1, 10} {
			t.Run(fmt.Sprintf("%v, %d a second", s.hook, bound), func(t *testing.T) { flooded(t, &s, bound) })
		}
	}
}

func flooded(t *testing.T, s *scenario, bound int) {
	l := newLab(t, false)
	l.sh("ip -n NL route add 10.83.0.0/16 via 10.82.1.2")
	cfg := s.config(l)
	cfg.FirstMessages = bound
	c := startChild(t, l.balancer, cfg)
	n := s.tunnel(l)
	n.establish()
	start := time.Now()
	drain := make(chan struct{})
	stop := make(chan struct{})
	floods := 0
	go func() {
		defer close(drain)
		netns.Do(t, l.client, func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			first := ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator},
				ikev2.Payload{Type: ikev2.PayloadNonce, Body: make([]byte, 32)})
			for ; ; floods++ {
				select {
				case <-stop:
					return nil
				default:
				}
				b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 83, byte(floods >> 8), byte(floods), 10, 82, 1, 1, 0x10, 0, 0x11, 0x94, 0, 0, 0, 0}
				binary.BigEndian.PutUint16(b[24:], uint16(8+len(first)))
				binary.BigEndian.PutUint64(first[4:], uint64(floods+1))
				if err := unix.Sendto(fd, append(b, first...), 0, &unix.SockaddrInet4{Addr: [4]byte{10, 82, 1, 1}}); err != nil && err != unix.ENOBUFS {
					return err
				}
				if floods%200 == 0 {
					time.Sleep(time.Millisecond) // the gateway is this test, too
				}
			}
		})
	}()
	// The gateway's socket gets the flood too, so the tunnel's packets are looked for.
	sent := uint64(0)
	buf := make([]byte, 2000)
	for i := range 2000 {
		b := esp(n.up, 60+i%1000)
		if _, err := n.client.WriteToUDPAddrPort(b, n.vip); err != nil {
			t.Fatal(err)
		}
		for {
			size, at, err := n.gateway.ReadFromUDPAddrPort(buf)
			if err != nil {
				t.Fatalf("packet %d of the tunnel: %v", i, err)
			}
			if size == len(b) && binary.BigEndian.Uint32(buf) == n.up && at.Port() == n.at.Port() {
				break
			}
		}
		n.answer(esp(n.down, 60+i%1000))
		sent += 2
	}
	close(stop)
	<-drain
	r := c.report()
	if r.Engine.CarriedPackets != sent || r.Path.Flows != 1 {
		t.Errorf("%d of %d packets were carried, of %d flows", r.Engine.CarriedPackets, sent, r.Path.Flows)
	}
	t.Logf("%d first messages in %v; the engine had %d flows and opened %d, %d messages were too many, %d found no room", floods, time.Since(start), r.Engine.Flows, r.Engine.Opened, r.Path.Dropped, r.Engine.Overflow)
	if bound < 0 {
		if r.Path.Dropped > 0 {
			t.Errorf("%d were dropped without a bound", r.Path.Dropped)
		}
		return
	}
	// Each processor begins with one, and its clock has steps; and there is the tunnel.
	most := 1 + float64(runtime.NumCPU())*(2+float64(bound)*(time.Since(start).Seconds()+10.1))
	if got := float64(r.Engine.Opened); got > most || r.Path.Dropped == 0 {
		t.Errorf("%.0f flows were opened, of %d a second and processor at most %.0f; %d messages were dropped", got, bound, most, r.Path.Dropped)
	}
	// Whoever comes afterwards gets through.
	time.Sleep(200 * time.Millisecond)
	for err := error(nil); err == nil; _, _, err = n.gateway.ReadFromUDPAddrPort(buf) {
		if err := n.gateway.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.gateway.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	next := &tunnel{t: t, client: l.listen(l.client, "10.82.1.2:1235"), gateway: n.gateway, vip: n.vip, up: 0x3333, down: 0x4444}
	next.send(ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator}))
	next.establish()
	next.flow(10)
}
