package fastpath_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb/fastpath"
)

// The latency tests send one packet at a time to and fro, all on processor 1, client
// and gateway too: waking up another processor would take longer than all that is to
// be measured. Kernel threads have no part in it: what a socket sends has arrived at
// the other one when the call returns.

// newLatencyLab is a speed lab with sockets at both ends. The test's other threads, like
// that which the Go runtime watches all others with, stay on processor 0: when that has
// something to do, the scheduler would have them run on processor 1.
func newLatencyLab(t *testing.T) *speedLab {
	l := newSpeedLab(t)
	pinThreads(t, 0)
	t.Cleanup(func() { pinThreads(t, 0, 1) })
	netns.Sh(t, strings.ReplaceAll(`
ip netns exec IDl sh -c 'echo 0 > /sys/class/net/fl/threaded; echo 0 > /sys/class/net/fm/threaded'
nsenter --net=/run/netns/IDc ethtool -K fc tx off >/dev/null; nsenter --net=/run/netns/IDg ethtool -K fg tx off >/dev/null
ip -n IDc addr add 10.64.0.1/32 dev fc
ip -n IDc neigh replace 10.91.1.1 lladdr 02:00:00:00:91:01 dev fc nud permanent
ip -n IDg neigh replace 10.91.2.1 lladdr 02:00:00:00:92:01 dev fg nud permanent
ip -n IDc route add 10.91.2.0/24 via 10.91.1.1
ip -n IDg route add default via 10.91.2.1
`, "ID", l.id))
	return l
}

// pinThreads has all threads of this process run on some processors.
func pinThreads(t *testing.T, cpus ...int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	for _, task := range tasks {
		pid, _ := strconv.Atoi(task.Name())
		if err := unix.SchedSetaffinity(pid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}

// pair is a client's socket and a gateway's.
type pair struct{ client, gateway int }

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

func (l *speedLab) pair(dst netip.AddrPort) (p pair) {
	l.t.Helper()
	p = pair{l.socket("c", "10.64.0.1:1025"), l.socket("g", gatewayAt)}
	if err := unix.Connect(p.client, sockaddr(dst)); err != nil {
		l.t.Fatal(err)
	}
	return p
}

const gatewayAt = "10.91.2.2:4500"

// socket opens one that may have another's address.
func (l *speedLab) socket(ns, at string) (fd int) {
	netns.Do(l.t, l.ns(ns), func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		return unix.Bind(fd, sockaddr(netip.MustParseAddrPort(at)))
	})
	l.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// receive waits for a datagram that begins as b does.
func receive(fd int, b, buf []byte) (from unix.Sockaddr, ok bool) {
	for tries := 0; tries < 20000; {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == nil && n == len(b) && string(buf[:4]) == string(b[:4]):
			return from, true
		case err != nil:
			tries++
		}
	}
	return nil, false
}

// rounds sends b to and fro n times, and returns how long each took, sorted; between
// is called before each.
func (p pair) rounds(b []byte, n int, between func()) (took []time.Duration, lost int) {
	buf := make([]byte, 2000)
	for range n {
		between()
		start := time.Now()
		_, err := unix.Write(p.client, b)
		from, ok := receive(p.gateway, b, buf)
		if err == nil && ok && unix.Sendto(p.gateway, b, 0, from) == nil {
			if _, ok = receive(p.client, b, buf); ok {
				took = append(took, time.Since(start))
				continue
			}
		}
		if lost++; lost > 3 {
			break
		}
	}
	slices.Sort(took)
	return took, lost
}

// onProcessor has f be called on a processor, by a thread that nothing else has.
func onProcessor(t *testing.T, cpu int, f func()) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		var set unix.CPUSet
		set.Set(cpu)
		err := unix.SchedSetaffinity(0, &set)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// setup has flows be carried, and ended after a while, so many a second, from a
// processor, until it is stopped.
type setup struct {
	started    atomic.Bool
	n          atomic.Int64
	cpu, took  time.Duration
	stop, done chan struct{}
}

// perSecond is how many flows a setup sets up.
const perSecond = 10000

func startSetup(t *testing.T, p *fastpath.Path, c *fastpath.Carrier, first, cpu int) *setup {
	s := &setup{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		onProcessor(t, cpu, func() {
			s.started.Store(true)
			began, before := time.Now(), threadTime()
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			var ids []uint64
			for {
				select {
				case <-s.stop:
					s.cpu, s.took = threadTime()-before, time.Since(began)
					return
				case <-tick.C:
				}
				for s.n.Load() < int64(time.Since(began).Seconds()*perSecond) {
					ids = append(ids, carry(t, p, c, first+int(s.n.Add(1))%perSecond))
					if len(ids) > perSecond/2 {
						c.End(ids[0])
						ids = ids[1:]
					}
				}
			}
		})
	}()
	for !s.started.Load() {
		runtime.Gosched()
	}
	return s
}

// threadTime returns for how long the calling thread has run.
func threadTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_THREAD, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (s *setup) end() string {
	close(s.stop)
	<-s.done
	return fmt.Sprintf("%.0f flows/s set up and ended, %.1f µs of a processor each", float64(s.n.Load())/s.took.Seconds(), s.cpu.Seconds()*1e6/float64(s.n.Load()))
}

func benchRounds(least int) int {
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH")); err == nil && n > 1 {
		return n
	}
	return least
}

// latencies are those of rounds, in microseconds, and of all of them together: of the 99th
// percentile, which is where the ticks of the clock begin to count, rounds differ much.
type latencies struct {
	p50, p99 []float64
	all      []time.Duration
}

func (x *latencies) against(base *latencies) string {
	return fmt.Sprintf("p50 %s, p99 %s, p99 of all rounds together %.2f", against(x.p50, base.p50), against(x.p99, base.p99), x.p99OfAll()/base.p99OfAll())
}

func (x *latencies) p99OfAll() float64 {
	slices.Sort(x.all)
	return x.all[len(x.all)*99/100].Seconds()
}

func (x *latencies) add(t *testing.T, name string, took []time.Duration, lost int) {
	t.Helper()
	if lost > 0 {
		t.Errorf("%s: %d round trips failed", name, lost)
	}
	if len(took) == 0 {
		t.Fatalf("%s: nothing came back", name)
	}
	us := func(i int) float64 { return float64(took[i].Nanoseconds()) / 1e3 }
	x.p50, x.p99, x.all = append(x.p50, us(len(took)/2)), append(x.p99, us(len(took)*99/100)), append(x.all, took...)
}

// against returns the ratios, round by round.
func against(a, b []float64) string {
	var r spread
	for i := range a {
		r = append(r, a[i]/b[i])
	}
	return ratio(r)
}

// TestLatency compares round trips with those of plain routing, also while flows are
// set up.
func TestLatency(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "nft")
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	rounds, l := 4*benchRounds(5), newLatencyLab(t)
	type way struct {
		name   string
		dst    string
		up     func(*speedLab, load) ([]int, func() string, func())
		hook   fastpath.Hook
		beside bool
	}
	ways := []way{
		{"routed", "10.91.2.2:4500", routed, 0, false},
		{"nft", "10.91.1.1:4502", nft, 0, false},
		{"tc", "10.91.1.1:4500", nil, fastpath.HookTC, false},
		{"tc, flows set up", "10.91.1.1:4500", nil, fastpath.HookTC, true},
		{"xdp", "10.91.1.1:4500", nil, fastpath.HookXDP, false},
		{"xdp, flows set up", "10.91.1.1:4500", nil, fastpath.HookXDP, true},
	}
	got := make(map[string]*latencies)
	told := make(map[string]string)
	for range rounds {
		for _, i := range rand.Perm(len(ways)) {
			w := ways[i]
			if got[w.name] == nil {
				got[w.name] = new(latencies)
			}
			var down func()
			stop := func() {}
			if w.up != nil {
				_, _, down = w.up(l, load{})
			} else {
				p, c, d := l.open(w.hook, 2*perSecond)
				down = d
				carry(t, p, c, 1)
				if w.beside {
					s := startSetup(t, p, c, 1000, 0)
					stop = func() { told[w.name] = s.end() }
				}
			}
			pair := l.pair(netip.MustParseAddrPort(w.dst))
			b := speedESP()
			onProcessor(t, 1, func() {
				pair.rounds(b, 500, func() {})
				took, lost := pair.rounds(b, 5000, func() {})
				got[w.name].add(t, w.name, took, lost)
			})
			_, _ = unix.Close(pair.client), unix.Close(pair.gateway)
			stop()
			down()
		}
	}
	for _, w := range ways {
		x, base := got[w.name], got["routed"]
		t.Logf("%-18s p50 %.2f µs, p99 %.2f µs; of routed's: %s %s", w.name, median(x.p50), median(x.p99), x.against(base), told[w.name])
	}
}

func median(s []float64) float64 { return spread(s).at(len(s) / 2) }

// speedESP is what the flows of these tests carry.
func speedESP() []byte { return esp(speedSPI, 64) }

// TestSetup measures what setting up 10,000 flows a second on the balancer's processor
// takes, and what it does to those that are carried there.
func TestSetup(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool")
	rounds, l := benchRounds(5), newSpeedLab(t).load()
	with := func(hook fastpath.Hook, beside bool, told *string) balancer {
		return balancer{hook.String(), vip, 1 << 20, func(l *speedLab, c load) ([]int, func() string, func()) {
			p, carrier, down := l.open(hook, c.flows+2*perSecond)
			for i := range c.flows {
				carry(t, p, carrier, i)
			}
			if !beside {
				return nil, nothing, down
			}
			s := startSetup(t, p, carrier, c.flows, 1)
			return nil, nothing, func() { *told = s.end(); down() }
		}}
	}
	for _, hook := range []fastpath.Hook{fastpath.HookTC, fastpath.HookXDP} {
		var told string
		var r spread
		for range rounds {
			var ns [2]float64
			for _, i := range rand.Perm(2) {
				m := l.measure(with(hook, i == 1, &told), load{flows: 1000, size: 64}, time.Second)
				// The setup has the processor for a while.
				if why := m.flaw(); why != "" && (i == 0 || m.arrived < 0.99) {
					t.Logf("a round of %v doesn't count: %s", hook, why)
					continue
				}
				ns[i] = m.ns
			}
			if ns[0] > 0 && ns[1] > 0 {
				r = append(r, ns[1]/ns[0])
			}
		}
		if len(r) <= rounds/2 {
			t.Errorf("%v: only %d of %d rounds count", hook, len(r), rounds)
			continue
		}
		t.Logf("%v: a carried packet takes %s of what it takes without; %s", hook, ratio(r), told)
	}
}
