package fastpath_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// These tests measure what a flood of first messages does to flows that are carried.

var hooks = []fastpath.Hook{fastpath.HookTC, fastpath.HookXDP}

// TestFloodLatency measures round trips: after each, or after each eighth, comes a first
// message from somewhere, to the engine, which is on processor 0. It measures too what is
// left of that if a rule of nftables bounds first messages before the kernel's stack has
// them (docs/fastpath.md), and, for comparison, what it takes if there is no flood, but
// processor 0 is at work.
func TestFloodLatency(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "nft", "taskset")
	for _, hook := range hooks {
		t.Run(hook.String(), func(t *testing.T) { floodLatency(t, hook) })
	}
}

// beside is what happens beside the round trips.
type beside struct {
	name    string
	each    int // a first message after so many
	bounded bool
	spin    bool
}

func floodLatency(t *testing.T, hook fastpath.Hook) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	rounds, l := 4*benchRounds(5), newLatencyLab(t)
	c, err := tryChild(t, l.ns("l"), childConfig{
		Listen: []netip.AddrPort{vip}, Backends: []netip.Addr{netip.MustParseAddr("10.91.2.2")},
		Hook: hook, Interfaces: []string{"fl", "fm"},
	}, "taskset", "-c", "0")
	if err != nil {
		t.Fatal(err)
	}
	pair := l.pair(vip)
	establish(t, pair)
	l.socket("g", gatewayAt) // what others send comes there
	onProcessor(t, 1, func() { pair.rounds(speedESP(), 500, func() {}) })
	flood, sent := l.flood(), 0
	all := []beside{
		{name: "nothing"},
		{name: "a flood", each: 1},
		{name: "an eighth of it", each: 8},
		{name: "the flood, bounded", each: 1, bounded: true},
		{name: "a busy processor 0", spin: true},
	}
	x, rate := make([]latencies, len(all)), make([]spread, len(all))
	for range rounds {
		for _, i := range rand.Perm(len(all)) {
			b, down := all[i], func() {}
			if b.bounded {
				down = l.bound(perSecondBound)
			}
			if b.spin {
				down = spin(t, 0)
			}
			n, first, start := 0, sent, time.Now()
			between := func() {
				if n++; b.each > 0 && n%b.each == 0 {
					flood(sent)
					sent++
				}
			}
			onProcessor(t, 1, func() {
				took, lost := pair.rounds(speedESP(), 2500, between)
				rate[i] = append(rate[i], float64(sent-first)/time.Since(start).Seconds())
				x[i].add(t, hook.String(), took, lost)
			})
			down()
			time.Sleep(50 * time.Millisecond) // the engine may have more to do
		}
	}
	r := c.tell(command{End: true})
	if r.Engine.CarriedPackets < uint64(rounds*len(all)*5000) {
		t.Errorf("only %d packets were carried; left: %v", r.Engine.CarriedPackets, r.Path.Passed)
	}
	t.Logf("p50 %.2f µs, p99 %.2f µs; %d messages in all (%d flows)", median(x[0].p50), median(x[0].p99), sent, r.Engine.Opened)
	for i, b := range all[1:] {
		t.Logf("  beside %s (%v a second): p50 %s and p99 %s of that", b.name, rate[i+1], against(x[i+1].p50, x[0].p50), against(x[i+1].p99, x[0].p99))
	}
}

// spin has a processor be busy until down is called.
func spin(t *testing.T, cpu int) (down func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		onProcessor(t, cpu, func() {
			for n := 0; ; n++ {
				if n%(1<<20) != 0 {
					continue
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}()
	return func() { close(stop); <-done }
}

// floodRate is how many first messages a second there are in TestFloodSpeed.
const floodRate = 30000

// TestFloodSpeed measures the time of the balancer's processor that a carried packet takes
// while first messages come in between, to a socket of the other processor.
func TestFloodSpeed(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "nft")
	for _, hook := range hooks {
		t.Run(hook.String(), func(t *testing.T) { floodSpeed(t, hook) })
	}
}

func floodSpeed(t *testing.T, hook fastpath.Hook) {
	rounds, l := benchRounds(5), newSpeedLab(t).load()
	b := balancer{hook.String(), vip, 1 << 20, func(l *speedLab, c load) ([]int, func() string, func()) {
		p, carrier, down := l.open(hook, c.flows)
		for i := range c.flows {
			carry(t, p, carrier, i)
		}
		end := l.sinkSocket()
		return nil, func() string { return fmt.Sprint(p.Stats()) }, func() { end(); down() }
	}}
	var ns spread
	beside := []struct {
		name  string
		bound string // the rule that drops them before the stack, if any
		r     spread
		rate  spread
	}{
		{name: "taken by the engine's socket"},
		{name: "bounded", bound: perSecondBound},
		{name: "all dropped before the stack", bound: " "}, // what the generator and the rule cost
	}
	for range rounds {
		without := l.measure(b, load{flows: 1000, size: 64}, 500*time.Millisecond)
		if why := without.flaw(); why != "" {
			t.Logf("a round doesn't count: %s", why)
			continue
		}
		ns = append(ns, without.ns)
		for i := range beside {
			x, down := &beside[i], func() {}
			if x.bound != "" {
				down = l.bound(x.bound)
			}
			with := l.measure(b, load{flows: 1000, size: 64, strangers: uint32(without.rate / floodRate)}, 500*time.Millisecond)
			down()
			if why := with.flaw(); why != "" {
				t.Logf("a round beside what is %s doesn't count: %s", x.name, why)
				continue
			}
			x.r, x.rate = append(x.r, with.ns/without.ns), append(x.rate, with.strange)
		}
	}
	for _, x := range beside {
		if len(x.r) <= rounds/2 {
			t.Fatalf("only %d of %d rounds count", len(x.r), rounds)
		}
		t.Logf("a carried packet takes %s ns, and beside %s first messages a second, %s, %s of that", ns, x.rate, x.name, ratio(x.r))
	}
}

// sinkSocket has a thread on processor 0 receive what comes to the balancer's socket.
func (l *speedLab) sinkSocket() (end func()) {
	fd := l.socket("l", vip.String())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100000})
	_ = unix.SetNonblock(fd, false)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		onProcessor(l.t, 0, func() {
			for b := make([]byte, 2000); ; {
				select {
				case <-stop:
					return
				default:
					_, _, _ = unix.Recvfrom(fd, b, 0)
				}
			}
		})
	}()
	return func() { close(stop); <-done; _ = unix.Close(fd) }
}

// establish has the engine know the flow of a pair, and the kernel carry it.
func establish(t *testing.T, p pair) {
	t.Helper()
	for _, b := range [][2][]byte{
		{ike(ikev2.FlagInitiator, ikev2.ExchangeAuth, 7), ike(ikev2.FlagResponse, ikev2.ExchangeAuth, 7)},
		{speedESP(), speedESP()},
	} {
		buf := make([]byte, 2000)
		if _, err := unix.Write(p.client, b[0]); err != nil {
			t.Fatal(err)
		}
		from, ok := receiveSlowly(p.gateway, b[0], buf)
		if !ok {
			t.Fatal("nothing came to the gateway")
		}
		if err := unix.Sendto(p.gateway, b[1], 0, from); err != nil {
			t.Fatal(err)
		}
		if _, ok := receiveSlowly(p.client, b[1], buf); !ok {
			t.Fatal("nothing came back")
		}
		// What the engine hands on from others isn't for this socket to take.
		if err := unix.Connect(p.gateway, from); err != nil {
			t.Fatal(err)
		}
	}
}

func receiveSlowly(fd int, b, buf []byte) (from unix.Sockaddr, ok bool) {
	for range 50 {
		if from, ok = receive(fd, b, buf); ok {
			return from, ok
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, false
}

// perSecondBound is the limit that docs/fastpath.md gives.
const perSecondBound = "limit rate over 5000/second burst 50 packets"

// bound has the first messages beyond a limit dropped before the kernel's stack, by a
// rule of nftables.
func (l *speedLab) bound(limit string) (down func()) {
	netns.Sh(l.t, fmt.Sprintf(`nsenter --net=/run/netns/%s nft -f - <<END
table netdev first {
 chain in { type filter hook ingress device fl priority 0; udp dport 4500 @th,64,32 0 @th,160,64 0 %s counter drop; }
}
END
`, l.ns("l"), limit))
	return func() {
		out := netns.Sh(l.t, fmt.Sprintf("nsenter --net=/run/netns/%s sh -ec 'nft list table netdev first; nft delete table netdev first'", l.ns("l")))
		if strings.Contains(out, "counter packets 0 ") {
			l.t.Errorf("the rule dropped nothing: %s", out)
		}
	}
}

// flood returns what sends the i-th first message.
func (l *speedLab) flood() func(i int) {
	var fd int
	netns.Do(l.t, l.ns("c"), func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	first := ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator},
		ikev2.Payload{Type: ikev2.PayloadNonce, Body: make([]byte, 32)})
	to := &unix.SockaddrInet4{Addr: [4]byte{10, 91, 1, 1}}
	packet := append([]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 65, 0, 0, 10, 91, 1, 1, 0x10, 0, 0x11, 0x94, 0, byte(8 + len(first)), 0, 0}, first...)
	return func(i int) {
		packet[14], packet[15], packet[28+11] = byte(i>>8), byte(i), byte(i)
		packet[28+10], packet[28+9] = byte(i>>8), byte(i>>16)
		_ = unix.Sendto(fd, packet, 0, to)
	}
}
