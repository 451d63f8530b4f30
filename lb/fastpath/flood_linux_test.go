package fastpath_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// These tests measure what a flood of first messages does to flows that are carried.

var hooks = []fastpath.Hook{fastpath.HookTC, fastpath.HookXDP}

// bounds are those of first messages that are measured: none, and the default.
var bounds = map[string]int{"all let through": -1, "bounded": 0}

// TestFloodLatency measures round trips: after each, or after each eighth, comes a first
// message from somewhere, to the engine, which is on processor 0. For comparison it also
// measures what it takes if there is no flood, but processor 0 is at work.
func TestFloodLatency(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "taskset")
	for _, hook := range hooks {
		for name, bound := range bounds {
			t.Run(hook.String()+"/"+name, func(t *testing.T) { floodLatency(t, hook, bound) })
		}
	}
}

// beside is what happens beside the round trips.
type beside struct {
	name string
	each int // a first message after so many
	spin bool
}

func floodLatency(t *testing.T, hook fastpath.Hook, bound int) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	rounds, l := 4*benchRounds(5), newLatencyLab(t)
	c := l.engine(hook, bound, 0)
	pair := l.pair(vip)
	establish(t, pair)
	l.socket("g", gatewayAt) // what others send comes there
	onProcessor(t, 1, func() { pair.rounds(speedESP(), 500, func() {}) })
	flood, sent := l.flood(), 0
	// What may come at once has come already.
	send := func(n int) {
		onProcessor(t, 1, func() {
			for end := sent + n; sent < end; sent++ {
				flood(sent)
			}
		})
		time.Sleep(50 * time.Millisecond) // the engine may have more to do
	}
	send(11 * fastpath.DefaultFirstMessages)
	all := []beside{
		{name: "nothing"},
		{name: "a flood", each: 1},
		{name: "an eighth of it", each: 8},
		{name: "a busy processor 0", spin: true},
	}
	x, rate := make([]latencies, len(all)), make([]spread, len(all))
	for range rounds {
		for _, i := range rand.Perm(len(all)) {
			b, down := all[i], func() {}
			if b.spin {
				down = spin(t, 0)
			}
			if b.each == 1 {
				send(fastpath.DefaultFirstMessages)
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
			time.Sleep(50 * time.Millisecond)
		}
	}
	r := c.tell(command{End: true})
	if r.Engine.CarriedPackets < uint64(rounds*len(all)*5000) {
		t.Errorf("only %d packets were carried; left: %v", r.Engine.CarriedPackets, r.Path.Passed)
	}
	t.Logf("p50 %.2f µs, p99 %.2f µs; of %d messages in all the engine had %d, %d were dropped", median(x[0].p50), median(x[0].p99), sent, r.Engine.Opened, r.Path.Dropped)
	for i, b := range all[1:] {
		t.Logf("  beside %s (%v a second): of that: %s", b.name, rate[i+1], x[i+1].against(&x[0]))
	}
}

// engine starts an engine on processor 0, with a fast path that carries flows already.
func (l *speedLab) engine(hook fastpath.Hook, bound, flows int) *child {
	l.t.Helper()
	c, err := tryChild(l.t, l.ns("l"), childConfig{
		Listen: []netip.AddrPort{vip}, Backends: []netip.Addr{netip.MustParseAddr("10.91.2.2")},
		Hook: hook, Interfaces: []string{"fl", "fm"}, FirstMessages: bound, Fill: flows, MaxFlows: flows + 1000,
	}, "taskset", "-c", "0")
	if err != nil {
		l.t.Fatal(err)
	}
	return c
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
// while first messages come in between, to an engine on the other processor.
func TestFloodSpeed(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "taskset")
	for _, hook := range hooks {
		t.Run(hook.String(), func(t *testing.T) { floodSpeed(t, hook) })
	}
}

// turns are the times in turns with a flood and without; modes of the machine, and
// neighbours, last longer.
const (
	turns = 40
	turn  = 50 * time.Millisecond
)

func floodSpeed(t *testing.T, hook fastpath.Hook) {
	rounds, l := benchRounds(5), newSpeedLab(t).load()
	type flooded struct {
		name            string
		bound           int
		none            bool
		ns, flood, rate spread // of rounds
		let, all        uint64
	}
	cases := []*flooded{
		{name: "all let through", bound: -1},
		{name: "bounded", bound: 0},
		{name: "all dropped", bound: 1},
		{name: "there being none", none: true}, // how exact this is
	}
	for range rounds {
		for _, i := range rand.Perm(len(cases)) {
			x := cases[i]
			e := l.engine(hook, x.bound, 1000)
			m := l.alternate(1000, x.none)
			r := e.tell(command{End: true})
			if m.busy < 0.9 {
				t.Logf("a round beside a flood, %s, doesn't count: the balancer's threads had work for %.0f %% of the time only", x.name, 100*m.busy)
				continue
			}
			x.ns, x.flood, x.rate = append(x.ns, m.ns[0]), append(x.flood, m.ns[1]/m.ns[0]), append(x.rate, m.strange)
			x.let, x.all = x.let+r.Engine.Dropped, x.all+r.Engine.Dropped+r.Path.Dropped
		}
	}
	for _, x := range cases {
		if len(x.ns) <= rounds/2 {
			t.Fatalf("only %d of %d rounds count", len(x.ns), rounds)
		}
		t.Logf("%d rounds: a carried packet takes %s ns, and beside %s first messages a second, %s, %s of that (%d of %d came to the engine)",
			len(x.ns), x.ns, x.rate, x.name, ratio(x.flood), x.let, x.all)
	}
}

// alternated is what was measured in turns.
type alternated struct {
	ns      [2]float64 // of processor 1, for a packet that arrived: without a flood, and with one
	busy    float64    // as in measured
	strange float64    // first messages a second, in their turns
}

// alternate measures what is carried already, in turns without and with a flood, or
// without in all.
func (l *speedLab) alternate(flows int, none bool) (m alternated) {
	l.t.Helper()
	pids := l.threads(1, "fl", "fm")
	gen := settings{Flows: uint32(flows), Device: l.c.dev, Window: window - step, Here: atClient, Until: atGateway}
	frame := l.frame(vip, 64)
	copy(gen.First[:], frame)
	l.set(l.g, settings{Here: atGateway})
	l.set(l.c, gen)
	l.reset()
	l.generate(frame, 1<<18, 2*step)
	warm := l.tally()
	rate := float64(warm.sent) / warm.took.Seconds()
	l.reset()
	before, start := taskTimesOf(pids), time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.generate(frame, int(rate*(2+2*turns*turn.Seconds())), 2*step)
	}()
	gen.Strangers = uint32(rate / floodRate)
	l.set(l.c, gen)
	time.Sleep(time.Second) // what may come at once has come
	var cpu, took [2]time.Duration
	var arrived, strangers [2]uint64
	sample := func() (time.Duration, tally) { return cpuTimes(l.t, pids), l.tally() }
	for i := range turns {
		gen.Strangers, gen.Alike = uint32(rate/floodRate), 1
		if i%2 == 1 && !none {
			gen.Alike = 0
		}
		l.set(l.c, gen)
		time.Sleep(turn / 4)
		c0, t0 := sample()
		began := time.Now()
		time.Sleep(turn)
		c1, t1 := sample()
		took[i%2] += time.Since(began)
		cpu[i%2] += c1 - c0
		arrived[i%2] += t1.arrived[atGateway] - t0.arrived[atGateway]
		strangers[i%2] += t1.strangers - t0.strangers
	}
	_, busy := since(before, taskTimesOf(pids))
	m.busy = busy.Seconds() / time.Since(start).Seconds()
	gen.Flows = 0 // it is to end
	l.set(l.c, gen)
	<-done
	for i := range m.ns {
		if arrived[i] == 0 {
			l.t.Fatalf("nothing arrived")
		}
		m.ns[i] = float64(cpu[i].Nanoseconds()) / float64(arrived[i])
	}
	m.strange = float64(strangers[1]) / took[1].Seconds()
	return m
}

// cpuTimes returns for how long processes have run, to this moment, also those that are
// running.
func cpuTimes(t *testing.T, pids []int) (sum time.Duration) {
	for _, pid := range pids {
		var at unix.Timespec
		if err := unix.ClockGettime(int32(^pid<<3|2), &at); err != nil { // its CPUCLOCK_SCHED
			t.Fatal(err)
		}
		sum += time.Duration(at.Nano())
	}
	return sum
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

// flood returns what sends the i-th first message, as a frame: what a socket for IP packets
// sends has a route of its own made each time, and done away with later, on this processor.
func (l *speedLab) flood() func(i int) {
	var fd int
	netns.Do(l.t, l.ns("c"), func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	first := ikev2.AppendMessage(ikev2.AppendMarker(nil), ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator},
		ikev2.Payload{Type: ikev2.PayloadNonce, Body: make([]byte, 32)})
	frame := l.frame(vip, len(first))
	const ip, udp = 14, 14 + 20
	b := frame[udp+8:]
	copy(b, first)
	sum := binary.BigEndian.Uint16(frame[ip+10:])
	to := &unix.SockaddrLinklayer{Ifindex: int(l.device("c", "fc"))}
	return func(i int) {
		frame[ip+13] = 65 // of 10.65.0.0/16
		frame[ip+14], frame[ip+15] = byte(i>>8), byte(i)
		more := uint32(^sum) + 1 + uint32(uint16(i)) // than with 10.64.0.0
		binary.BigEndian.PutUint16(frame[ip+10:], ^uint16(more&0xffff+more>>16))
		b[9], b[10], b[11] = byte(i>>16), byte(i>>8), byte(i)
		_ = unix.Sendto(fd, frame, 0, to)
	}
}
