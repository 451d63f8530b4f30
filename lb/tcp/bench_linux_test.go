package tcp_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A proxy is a balancer in a process of its own.
type proxy struct {
	name string
	addr string
	pid  int // 0: there is none
}

// startEngine starts the child, by a command in front of it if there is one.
func startEngine(t *testing.T, spec string, by ...string) proxy {
	t.Helper()
	args := append(by, os.Args[0])
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childEnv+"="+spec)
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return proxy{"aovlb", strings.TrimSpace(line), cmd.Process.Pid}
}

// startHAProxy starts HAProxy in TCP mode, with extra lines in its defaults.
func startHAProxy(t *testing.T, name string, backend uint16, extra string) proxy {
	t.Helper()
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy isn't installed")
	}
	l := loopback(t)
	addr := l.Addr().String()
	l.Close()
	conf := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`global
	maxconn 2000
defaults
	mode tcp
	timeout connect 5s
	timeout client 10m
	timeout server 10m
	%s
listen l
	bind %s
	server s 127.0.0.1:%d
`, extra, addr, backend)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-db", "-q", "-f", conf)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	return proxy{name, addr, cmd.Process.Pid}
}

// cpu returns the time the process has used, all threads.
func (p proxy) cpu(t *testing.T) time.Duration {
	t.Helper()
	if p.pid == 0 {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// flood sends through p over n streams for d, and returns how many bytes arrived.
// The backend sends if down, else the client does.
func flood(t *testing.T, p proxy, back net.Listener, n int, down bool, chunk int, d time.Duration) uint64 {
	t.Helper()
	var arrived atomic.Uint64
	var all sync.WaitGroup
	var conns []net.Conn
	buf := make([]byte, chunk)
	for range n {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		s, err := back.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from, to := c, s
		if down {
			from, to = s, c
		}
		conns = append(conns, c, s)
		all.Go(func() {
			for {
				if _, err := from.Write(buf); err != nil {
					return
				}
			}
		})
		all.Go(func() {
			b := make([]byte, 512<<10)
			for {
				n, err := to.Read(b)
				arrived.Add(uint64(n))
				if err != nil {
					return
				}
			}
		})
	}
	time.Sleep(d / 5) // windows grow
	before := arrived.Load()
	time.Sleep(d)
	got := arrived.Load() - before
	for _, c := range conns {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	all.Wait()
	return got
}

// spread is what was measured in several rounds.
type spread []float64

func (s spread) String() string {
	o := slices.Sorted(slices.Values(s))
	return fmt.Sprintf("%.2f/%.2f/%.2f", o[0], o[len(o)/2], o[len(o)-1])
}

func (s spread) median() float64 { return slices.Sorted(slices.Values(s))[len(s)/2] }

// TestThroughputAgainstHAProxy compares bulk streams through the engine and
// through HAProxy in TCP mode, over loopback, each in a process of its own. The
// rounds are interleaved in random order, so what else runs here hits all alike.
// Figures are min/median/max; "direct" is the limit of the load generator.
func TestThroughputAgainstHAProxy(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("takes a minute and all cores: set AOVLB_BENCH=1")
	}
	const rounds, d = 7, 600 * time.Millisecond
	back := loopback(t)
	defer back.Close()
	engine := startEngine(t, "127.0.0.1:0 "+back.Addr().String())
	plain := startHAProxy(t, "haproxy", port(back), "")
	splicing := startHAProxy(t, "haproxy splicing", port(back), "option splice-request\n\toption splice-response")
	drop(t, back, 2) // the connections that have shown that HAProxy is up
	proxies := []proxy{{name: "direct", addr: back.Addr().String()}, engine, plain, splicing}
	for _, load := range []struct {
		name    string
		streams int
		down    bool
		chunk   int
	}{
		{"1 stream down", 1, true, 256 << 10},
		{"1 stream up", 1, false, 256 << 10},
		{"8 streams down", 8, true, 256 << 10},
		{"8 streams down, writes of 1400 B", 8, true, 1400},
	} {
		rate, cost := make(map[string]spread), make(map[string]spread)
		for range rounds {
			for _, i := range rand.Perm(len(proxies)) {
				p := proxies[i]
				before := p.cpu(t)
				n := flood(t, p, back, load.streams, load.down, load.chunk, d)
				rate[p.name] = append(rate[p.name], float64(n)*8/1e9/d.Seconds())
				cost[p.name] = append(cost[p.name], (p.cpu(t)-before).Seconds()/(float64(n)/1e9*1.2))
			}
		}
		for _, p := range proxies {
			t.Logf("%-34s %-20s %s Gb/s, %s CPU s/GB", load.name, p.name, rate[p.name], cost[p.name])
		}
		for _, p := range []proxy{plain, splicing} {
			var r, c spread
			for i := range rounds {
				r = append(r, rate["aovlb"][i]/rate[p.name][i])
				c = append(c, cost["aovlb"][i]/cost[p.name][i])
			}
			t.Logf("%-34s aovlb / %-16s throughput x%s, CPU per byte x%s", load.name, p.name, r, c)
			// The goal is to be no slower: a tenth is left to chance.
			if r.median() < 0.9 || c.median() > 1.1 {
				t.Errorf("%s: the engine moves %.2f of what %s does, at %.2f of the CPU", load.name, r.median(), p.name, c.median())
			}
		}
	}
}

// drop takes n connections from the backlog of l.
func drop(t *testing.T, l net.Listener, n int) {
	t.Helper()
	for range n {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}

// churn opens and closes streams through p for d, with a byte each way, and
// returns how many.
func churn(t *testing.T, p proxy, back net.Listener, d time.Duration) int {
	t.Helper()
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		one := make([]byte, 1)
		for {
			c, err := back.Accept()
			if err != nil {
				return
			}
			if _, err := c.Read(one); err == nil {
				c.Write(one)
			}
			c.Close()
			select {
			case <-done:
				return
			default:
			}
		}
	})
	n := 0
	one := make([]byte, 1)
	trip := func() {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(one)
		if _, err := c.Read(one); err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetLinger(0) // or ports run out
	}
	for start := time.Now(); time.Since(start) < d; n++ {
		trip()
	}
	close(done)
	trip() // so that the backend sees it
	serving.Wait()
	return n
}

// TestConnectionsAgainstHAProxy compares how many short streams one client gets
// through, one after the other, and what each costs. Tunnels are long, so this
// matters only when all of them come back at once.
func TestConnectionsAgainstHAProxy(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("takes all cores: set AOVLB_BENCH=1")
	}
	const rounds, d = 7, 500 * time.Millisecond
	back := loopback(t)
	defer back.Close()
	engine := startEngine(t, "127.0.0.1:0 "+back.Addr().String())
	other := startHAProxy(t, "haproxy", port(back), "option splice-auto")
	drop(t, back, 1)
	rate, cost := make(map[string]spread), make(map[string]spread)
	proxies := []proxy{{name: "direct", addr: back.Addr().String()}, engine, other}
	for range rounds {
		for _, i := range rand.Perm(len(proxies)) {
			p := proxies[i]
			before := p.cpu(t)
			n := churn(t, p, back, d)
			rate[p.name] = append(rate[p.name], float64(n)/d.Seconds())
			cost[p.name] = append(cost[p.name], float64((p.cpu(t)-before).Microseconds())/float64(n))
		}
	}
	var r, c spread
	for i := range rounds {
		r = append(r, rate["aovlb"][i]/rate["haproxy"][i])
		c = append(c, cost["aovlb"][i]/cost["haproxy"][i])
	}
	for _, p := range proxies {
		t.Logf("%-8s %s streams a second, %s us of CPU each", p.name, rate[p.name], cost[p.name])
	}
	t.Logf("aovlb / haproxy: rate x%s, CPU each x%s", r, c)
	if r.median() < 0.5 {
		t.Errorf("the engine opens %.2f of the streams that HAProxy does", r.median())
	}
}
