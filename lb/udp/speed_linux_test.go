package udp_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
)

// The speed of the engine beside nginx and nftables:
//
//	client ns           lb ns                               gateway namespaces
//	vc0 10.71.0.1 ───── vl0 10.71.0.254  vb1 10.71.11.254 ───── vg1 10.71.11.1
//	10.72.0.0/16          :4500 engine   vb2 10.71.12.254 ───── vg2 10.71.12.1
//	generator             :4501 nginx
//	                      :4502 nftables
//
// The generator sends single frames without a UDP checksum, as ESP in UDP is, or, in
// the cases with trains, with one, as other protocols have: the engine then merges
// them (Engine.GRO). It keeps a window of them in flight: it counts what leaves towards the gateways, so
// that each balancer runs at its own limit and loses next to nothing. The gateways
// drop what comes. Trains made by GSO are cut before they reach the wire, in
// software, on the balancer's account.
//
// Everything runs on CPU 1, since waking another CPU of a virtual machine costs more
// than carrying a datagram does. What is billed to a balancer is the time its process,
// the kernel thread that receives for the client side, and the kernel thread for
// deferred work take; the generator is billed for its own sending and nothing else.
// Packets per second per core is packets divided by that time. Neighbours on the
// machine can't take any of it, though they do make caches colder.
//
// Run it with
//
//	AOVLB_BENCH=1 go test -run TestSpeed -v -timeout 20m ./lb/udp
//
// as root, with nginx and its stream module, nft, ethtool and sockperf.

const nginxDir = "/usr/lib/nginx/modules"

type speedLab struct {
	t      *testing.T
	id     string
	napi   []int // pids billed to every balancer
	pids   map[string]int
	sinks  []*os.File
	client *os.File
}

const (
	macClient = "02:00:00:00:71:01"
	macLB     = "02:00:00:00:71:fe"
)

func (l *speedLab) ns(name string) string { return l.id + name }

func newSpeedLab(t *testing.T) *speedLab {
	l := &speedLab{t: t, id: fmt.Sprintf("udpsp%d", os.Getpid()), pids: make(map[string]int)}
	t.Cleanup(func() {
		for _, n := range []string{"c", "l", "g1", "g2"} {
			_ = exec.Command("ip", "netns", "del", l.ns(n)).Run()
		}
	})
	script := `
for n in c l g1 g2; do ip netns add ID$n; ip -n ID$n link set lo up; done
ip -n IDl link add vl0 address MACL numtxqueues 1 numrxqueues 1 type veth peer name vc0 netns IDc address MACC numtxqueues 1 numrxqueues 1
ip -n IDl addr add 10.71.0.254/24 dev vl0; ip -n IDl link set vl0 up
ip -n IDc addr add 10.71.0.1/24 dev vc0; ip -n IDc link set vc0 up
ip -n IDl neigh replace 10.71.0.1 lladdr MACC dev vl0 nud permanent
ip -n IDc neigh replace 10.71.0.254 lladdr MACL dev vc0 nud permanent
ip -n IDl route add 10.72.0.0/16 via 10.71.0.1
ip -n IDc route add local 10.72.0.0/16 dev lo
ip -n IDc route add 10.71.11.0/24 via 10.71.0.254
ip -n IDc route add 10.71.12.0/24 via 10.71.0.254
for g in 1 2; do
 ip -n IDl link add vb$g address 02:00:00:00:7$g:fe type veth peer name vg$g netns IDg$g address 02:00:00:00:7$g:01
 ip -n IDl addr add 10.71.1$g.254/24 dev vb$g; ip -n IDl link set vb$g up
 ip -n IDg$g addr add 10.71.1$g.1/24 dev vg$g; ip -n IDg$g link set vg$g up
 ip -n IDl neigh replace 10.71.1$g.1 lladdr 02:00:00:00:7$g:01 dev vb$g nud permanent
 ip -n IDg$g neigh replace 10.71.1$g.254 lladdr 02:00:00:00:7$g:fe dev vg$g nud permanent
 ip -n IDg$g route add default via 10.71.1$g.254
 ip netns exec IDl ethtool -K vb$g tx-udp-segmentation off tso off >/dev/null
done
ip netns exec IDc ethtool -K vc0 tso off tx-udp-segmentation off >/dev/null
ip netns exec IDl ethtool -K vl0 gro on tx-udp-segmentation off >/dev/null
ip netns exec IDl sh -c 'echo 1 > /sys/class/net/vl0/threaded; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0'
`
	netns.Sh(t, strings.NewReplacer("ID", l.id, "MACL", macLB, "MACC", macClient).Replace(script))
	l.findKthreads()
	for _, g := range []string{"g1", "g2"} {
		netns.Do(t, l.ns(g), func() error {
			f, err := os.Open("/proc/thread-self/net/dev")
			l.sinks = append(l.sinks, f)
			return err
		})
	}
	netns.Do(t, l.ns("c"), func() (err error) {
		l.client, err = os.Open("/proc/thread-self/net/dev")
		return err
	})
	return l
}

// findKthreads finds the kernel threads that work on CPU 1 for every balancer.
func (l *speedLab) findKthreads() {
	dirs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range dirs {
		b, err := os.ReadFile(d)
		name := strings.TrimSpace(string(b))
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
		switch {
		case err != nil:
		case strings.HasPrefix(name, "napi/vl0-"):
			netns.Sh(l.t, fmt.Sprintf("taskset -pc 1 %d", pid))
			l.napi = append(l.napi, pid)
		case name == "ksoftirqd/1":
			l.napi = append(l.napi, pid)
		}
	}
	if len(l.napi) != 2 {
		l.t.Fatalf("kernel threads: found %v", l.napi)
	}
}

func (l *speedLab) startEngine(t *testing.T, gro bool) {
	// Go would make itself small on one CPU, and then has to juggle its only
	// place to run; no gateway runs like that.
	procs := fmt.Sprintf("GOMAXPROCS=%d", max(runtime.NumCPU(), 2))
	e := startChild(t, l.ns("l"), []string{"taskset", "-c", "1", "env", procs}, childConfig{
		Listen:   []netip.AddrPort{netip.MustParseAddrPort("10.71.0.254:4500")},
		Backends: []netip.Addr{netip.MustParseAddr("10.71.11.1"), netip.MustParseAddr("10.71.12.1")},
		ESP:      true,
		GRO:      gro,
	})
	l.pids["engine"] = e.pid
}

func (l *speedLab) startNginx() {
	conf := filepath.Join(l.t.TempDir(), "nginx.conf")
	text := `daemon off; master_process off; pid ` + conf + `.pid; error_log ` + conf + `.log error;
load_module ` + nginxDir + `/ngx_stream_module.so;
worker_rlimit_nofile 20000;
events { worker_connections 8192; multi_accept on; }
stream {
 upstream gateways { hash $remote_addr; server 10.71.11.1:4500; server 10.71.12.1:4500; }
 server { listen 10.71.0.254:4501 udp reuseport rcvbuf=8m; proxy_pass gateways; proxy_timeout 600s; }
}
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	c := exec.Command("ip", "netns", "exec", l.ns("l"), "taskset", "-c", "1",
		"nginx", "-c", conf, "-p", filepath.Dir(conf), "-e", conf+".log")
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.pids["nginx"] = c.Process.Pid
	l.t.Cleanup(func() {
		_ = c.Process.Signal(unix.SIGTERM)
		_ = c.Wait()
	})
}

// Fields of /proc/net/dev, from 1.
const (
	bytesIn   = 1
	packetsIn = 2
)

// counter returns a field of an interface from an open /proc/net/dev.
func counter(f *os.File, dev string, want int) uint64 {
	var buf [4096]byte
	n, _ := f.ReadAt(buf[:], 0)
	b := buf[:n]
	i := bytes.Index(b, []byte(dev+":"))
	if i < 0 {
		return 0
	}
	var v uint64
	field := 0
	in := false
	for _, c := range b[i+len(dev)+1:] {
		digit := c >= '0' && c <= '9'
		if digit && !in {
			field++
		}
		in = digit
		if field == want && digit {
			v = v*10 + uint64(c-'0')
		}
		if field > want {
			break
		}
	}
	return v
}

func (l *speedLab) delivered() uint64 {
	return counter(l.sinks[0], "vg1", packetsIn) + counter(l.sinks[1], "vg2", packetsIn)
}

func (l *speedLab) deliveredBytes() uint64 {
	return counter(l.sinks[0], "vg1", bytesIn) + counter(l.sinks[1], "vg2", bytesIn)
}

// ran returns how long processes have run.
func ran(pids ...int) (d time.Duration) {
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			ns, _, _ := strings.Cut(string(b), " ")
			n, _ := strconv.ParseInt(ns, 10, 64)
			d += time.Duration(n)
		}
	}
	return d
}

// generator sends frames from the client namespace, on CPU 0.
type generator struct {
	fd     int
	frames [][]byte
	hdr    []struct {
		unix.Msghdr
		n uint32
	}
	iov []unix.Iovec
	at  int
}

func mac(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

func newFrames(flows, size int, port uint16) (frames [][]byte) {
	for i := range flows {
		b := slices.Concat(mac(macLB), mac(macClient), []byte{8, 0},
			[]byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 72, byte(i >> 8), byte(i), 10, 71, 0, 254},
			make([]byte, 8+size))
		ip := b[14:34]
		binary.BigEndian.PutUint16(ip[2:], uint16(28+size))
		binary.BigEndian.PutUint16(ip[10:], ^sum16(0, ip))
		u := b[34:]
		binary.BigEndian.PutUint16(u, uint16(1024+i))
		binary.BigEndian.PutUint16(u[2:], port)
		binary.BigEndian.PutUint16(u[4:], uint16(8+size))
		binary.BigEndian.PutUint32(u[8:], 0xc0000000+uint32(i)) // the SPI
		frames = append(frames, b)
	}
	rand.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	return frames
}

// inTrains makes trains of n copies of frames, with a UDP checksum, and marked as not
// to be fragmented: a sender's numbering of its datagrams needn't go on then.
func inTrains(frames [][]byte, n int) (list [][]byte) {
	for _, f := range frames {
		ip, u := f[14:34], f[34:]
		ip[6] = 0x40
		binary.BigEndian.PutUint16(ip[10:], 0)
		binary.BigEndian.PutUint16(ip[10:], ^sum16(0, ip))
		binary.BigEndian.PutUint16(u[6:], ^sum16(17+uint32(len(u)), ip[12:], u))
		for range n {
			list = append(list, f)
		}
	}
	return list
}

// sum16 is the checksum of IP over pieces of even length.
func sum16(sum uint32, pieces ...[]byte) uint16 {
	for _, b := range pieces {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// window is how many frames are in flight: enough that a balancer always has work,
// few enough that they fit its buffer.
const window = 1024

// veth is how many frames may be sent in a row: a veth's ring has 256 places.
const veth = 192

const genBatch = 64

func newGenerator(frames [][]byte) (*generator, error) {
	g := &generator{frames: frames}
	g.hdr = make([]struct {
		unix.Msghdr
		n uint32
	}, genBatch)
	g.iov = make([]unix.Iovec, genBatch)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		return nil, err
	}
	g.fd = fd
	i, err := net.InterfaceByName("vc0")
	if err != nil {
		return nil, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return nil, err
	}
	return g, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
}

// send sends the next n frames and returns how many were taken.
func (g *generator) send(n int) int {
	n = min(n, genBatch)
	for i := range n {
		f := g.frames[(g.at+i)%len(g.frames)]
		g.iov[i].Base = &f[0]
		g.iov[i].SetLen(len(f))
		g.hdr[i].Iov = &g.iov[i]
		g.hdr[i].SetIovlen(1)
	}
	r, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(g.fd), uintptr(unsafe.Pointer(&g.hdr[0])), uintptr(n), 0, 0, 0)
	if e != 0 {
		return 0
	}
	g.at += int(r)
	return int(r)
}

// load keeps window frames in flight for d, and returns how many were sent and how
// many reached the gateways. What its interface has no room for isn't sent.
//
// It waits until it can send step frames in a row.
func (l *speedLab) load(frames [][]byte, window, step int, d time.Duration) (sent, got uint64) {
	netns.Do(l.t, l.ns("c"), func() error {
		var set unix.CPUSet
		set.Set(1)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			return err
		}
		g, err := newGenerator(frames)
		if err != nil {
			return err
		}
		defer unix.Close(g.fd)
		first := l.delivered()
		var lost uint64
		last, stuck := first, time.Now()
		for end := time.Now().Add(d); ; {
			now := time.Now()
			if now.After(end) {
				break
			}
			at := l.delivered()
			if at != last {
				last, stuck = at, now
			} else if now.Sub(stuck) > 20*time.Millisecond {
				lost, stuck = sent-(at-first), now
			}
			for range veth / genBatch {
				flying := int(sent - lost - (at - first))
				if flying > window-step {
					break
				}
				sent += uint64(g.send(window - flying))
			}
			// Now the others.
			pause := unix.Timespec{Nsec: 20000}
			_ = unix.Nanosleep(&pause, nil)
		}
		time.Sleep(5 * time.Millisecond) // for the last ones
		got = l.delivered() - first
		return nil
	})
	return sent, got
}

// gateways lets the gateways echo, until stop is called.
func (l *speedLab) gateways() (stop func()) {
	var conns []*net.UDPConn
	done := make(chan struct{}, 2)
	for _, g := range []string{"g1", "g2"} {
		netns.Do(l.t, l.ns(g), func() error {
			c, err := net.ListenUDP("udp4", &net.UDPAddr{Port: 4500})
			if err != nil {
				return err
			}
			_ = c.SetReadBuffer(4 << 20)
			conns = append(conns, c)
			return nil
		})
	}
	for _, c := range conns {
		go func() {
			b := make([]byte, 2048)
			for {
				n, from, err := c.ReadFromUDPAddrPort(b)
				if err != nil {
					done <- struct{}{}
					return
				}
				_, _ = c.WriteToUDPAddrPort(b[:n], from)
			}
		}()
	}
	return func() {
		for _, c := range conns {
			_ = c.Close()
			<-done
		}
	}
}

// sink has the gateways and the client drop everything, or not.
func (l *speedLab) sink(on bool) {
	for ns, dev := range map[string]string{"g1": "vg1", "g2": "vg2"} {
		script := "nft delete table netdev sink"
		if on {
			script = fmt.Sprintf("nft 'add table netdev sink; add chain netdev sink in { type filter hook ingress device %s priority 0; policy drop; }'", dev)
		}
		netns.Sh(l.t, fmt.Sprintf("ip netns exec %s %s", l.ns(ns), script))
	}
}

// warm has the gateways answer each flow, so that it is established.
func (l *speedLab) warm(t *testing.T, name string, frames [][]byte) {
	t.Helper()
	stop := l.gateways()
	defer stop()
	before := counter(l.client, "vc0", packetsIn)
	answers := func() uint64 { return counter(l.client, "vc0", packetsIn) - before }
	var sent, got uint64
	for try := 0; answers() < 2*uint64(len(frames)); try++ {
		if try > 100 {
			t.Fatalf("%s: %d answers to %d flows; %d datagrams sent, %d delivered", name, answers(), len(frames), sent, got)
		}
		s, g := l.load(frames, 32, 1, 50*time.Millisecond)
		sent, got = sent+s, got+g
	}
}

type spread struct{ v []float64 }

func (s *spread) add(v float64) { s.v = append(s.v, v) }
func (s *spread) median() float64 {
	v := slices.Sorted(slices.Values(s.v))
	return v[len(v)/2]
}

func (s *spread) String() string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median(), slices.Min(s.v), slices.Max(s.v))
}

// natRules are nftables' balancer. They are there only for its turn: tracking
// connections would slow down the others.
const natRules = `
table ip nat {
 chain pre { type nat hook prerouting priority -100; ip daddr 10.71.0.254 udp dport 4502 dnat to jhash ip saddr mod 2 map { 0 : 10.71.11.1 . 4500, 1 : 10.71.12.1 . 4500 }; }
 chain post { type nat hook postrouting priority 100; oifname { "vb1", "vb2" } udp dport 4500 masquerade; }
}
`

func (l *speedLab) nat(on bool) {
	script := "nft delete table ip nat"
	if on {
		script = "nft -f - <<END" + natRules + "END\n"
	}
	netns.Sh(l.t, "ip netns exec "+l.ns("l")+" "+script)
}

var speedPorts = map[string]uint16{"engine": 4500, "nginx": 4501, "nft": 4502}

func TestSpeed(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "nginx", "nft", "ethtool", "sockperf", "taskset", "ip")
	if _, err := os.Stat(nginxDir + "/ngx_stream_module.so"); err != nil {
		t.Skip("needs nginx's stream module")
	}
	rounds := 3
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	l := newSpeedLab(t)
	l.startNginx()
	for _, gro := range []bool{false, true} {
		t.Run(fmt.Sprintf("GRO %v", gro), func(t *testing.T) {
			l.startEngine(t, gro)
			t.Run("flood", func(t *testing.T) { l.flood(t, rounds) })
			t.Run("flood latency", func(t *testing.T) { l.floodLatency(t, rounds) })
			t.Run("latency", func(t *testing.T) { l.latency(t, rounds) })
			for _, c := range []speedCase{
				{1, 64, 1, 1.3},
				{1, 1400, 1, 1.3},
				{1000, 64, 1, 1.3},
				{1000, 1400, 1, 1.3},
				{1, 1400, 16, 1.3},
				{1000, 1400, 16, 1.3},
			} {
				if gro && c.train > 1 {
					c.want = 1.5
				}
				t.Run(fmt.Sprintf("%d flows of %d bytes, trains of %d", c.flows, c.size, c.train), func(t *testing.T) {
					l.throughput(t, c, rounds)
				})
			}
		})
	}
}

type speedCase struct {
	flows, size, train int
	want               float64 // times nginx's speed
}

// step is how many frames the generator sends in a row: single ones whenever there
// is room, but trains whole.
func (c speedCase) step() int {
	if c.train > 1 {
		return genBatch
	}
	return 1
}

// flood compares what established clients cost when they are alone with what they
// cost while there is a flood: every tenth packet is then a first one, from one of
// 60,000 sources, which nobody answers. All must not cost more than both by
// themselves: each established packet, and each first one.
func (l *speedLab) flood(t *testing.T, rounds int) {
	const size, firstSize, every = 64, 128, 10
	established := newFrames(1000, size, speedPorts["engine"])
	first := newFrames(60000, firstSize, speedPorts["engine"])
	for _, f := range first {
		f[14+14] |= 0x80 // another network
		binary.BigEndian.PutUint16(f[24:], 0)
		binary.BigEndian.PutUint16(f[24:], ^sum16(0, f[14:34]))
	}
	var mixed [][]byte
	for i, f := range first {
		for j := range every - 1 {
			mixed = append(mixed, established[(i*(every-1)+j)%len(established)])
		}
		mixed = append(mixed, f)
	}
	l.warm(t, "engine", established)
	l.sink(true)
	defer l.sink(false)
	pids := append(slices.Clone(l.napi), l.pids["engine"])
	cost := func(frames [][]byte) (each float64, packets, firsts uint64) {
		before, bytes := ran(pids...), l.deliveredBytes()
		sent, got := l.load(frames, window, 1, 2*time.Second)
		used := ran(pids...) - before
		bytes = l.deliveredBytes() - bytes
		const head = 14 + 20 + 8
		firsts = (bytes - got*(head+size)) / (firstSize - size)
		if got < sent*9/10 {
			t.Errorf("%d of %d packets lost", sent-got, sent)
		}
		return float64(used.Nanoseconds()) / float64(got), got, firsts
	}
	alone, flood, ratio, speed := new(spread), new(spread), new(spread), new(spread)
	for range rounds {
		a, _, _ := cost(established)
		f, _, _ := cost(first)
		m, n, firsts := cost(mixed)
		fraction := float64(firsts) / float64(n)
		alone.add(a)
		flood.add(f / 1000)
		ratio.add(m / (a*(1-fraction) + f*fraction))
		speed.add(a / (m / (1 - fraction)))
		if fraction < 0.9/every || fraction > 1.1/every {
			t.Errorf("%.3f of the packets are first ones, want %.3f", fraction, 1./every)
		}
	}
	t.Logf("a first packet that nobody answers: %s µs; one of an established client: %s ns", flood, alone)
	t.Logf("one first packet for %d of established clients: these are %s times as fast as without", every-1, speed)
	t.Logf("all cost %s times what both cost by themselves", ratio)
	if ratio.median() > 1.1 {
		t.Errorf("a flood costs established clients %.2f times its own cost", ratio.median())
	}
}

// trickle sends first packets from CPU 0, one each time, until stop is called, which
// returns how many it were.
func (l *speedLab) trickle(t *testing.T, size int, port uint16, every time.Duration) (stop func() int) {
	var g *generator
	netns.Do(t, l.ns("c"), func() (err error) {
		g, err = newGenerator(newFrames(60000, size, port))
		return err
	})
	done, result := make(chan struct{}), make(chan int)
	go func() {
		defer unix.Close(g.fd)
		runtime.LockOSThread() // and never unlock, since it stays on that CPU
		var set unix.CPUSet
		set.Set(0)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			t.Error(err)
		}
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err != nil {
			t.Error(err)
		}
		for n := 0; ; n += g.send(1) {
			pause := unix.NsecToTimespec(every.Nanoseconds())
			_ = unix.Nanosleep(&pause, nil)
			select {
			case <-done:
				result <- n
				return
			default:
			}
		}
	}()
	return func() int { close(done); return <-result }
}

// floodLatency plays ping-pong through the engine, beside first packets that nobody
// answers: some that the engine gets, and some that are dropped when they arrive, which
// is what shows how much such packets disturb anything that runs here.
func (l *speedLab) floodLatency(t *testing.T, rounds int) {
	const size, every, nobody = 128, 200 * time.Microsecond, 4599
	for ns, dev := range map[string]string{"g1": "vg1", "g2": "vg2", "l": "vl0"} {
		what := fmt.Sprintf("ip length %d", 20+8+size)
		if ns == "l" {
			what = fmt.Sprintf("udp dport %d", nobody)
		}
		netns.Sh(t, fmt.Sprintf("ip netns exec %s nft 'add table netdev deaf; add chain netdev deaf in { type filter hook ingress device %s priority 0; }; add rule netdev deaf in %s drop'",
			l.ns(ns), dev, what))
		defer netns.Sh(t, fmt.Sprintf("ip netns exec %s nft delete table netdev deaf", l.ns(ns)))
	}
	defer l.pongs(t)()
	pids := append(slices.Clone(l.napi), l.pids["engine"])
	own := new(spread) // what a first packet costs that comes alone, µs
	ports := [...]uint16{0, nobody, speedPorts["engine"]}
	var p50, p99, mean, perSecond [len(ports)]spread
	for range rounds {
		before := ran(pids...)
		stop := l.trickle(t, size, speedPorts["engine"], every)
		time.Sleep(time.Second)
		n := stop()
		own.add(float64((ran(pids...) - before).Microseconds()) / float64(n))
		for _, i := range rand.Perm(len(ports)) {
			stop := func() int { return 0 }
			begin := time.Now()
			if ports[i] != 0 {
				stop = l.trickle(t, size, ports[i], every)
			}
			r := l.pingPong(t, "10.71.0.254", speedPorts["engine"])
			perSecond[i].add(float64(stop()) / time.Since(begin).Seconds())
			p50[i].add(r.p50)
			p99[i].add(r.p99)
			mean[i].add(r.mean)
		}
	}
	for i, what := range []string{"alone", "beside packets that are dropped", "beside first packets"} {
		t.Logf("round trip %s (%.0f a second): p50 %s µs, p99 %s µs, mean %s µs", what, perSecond[i].median(), &p50[i], &p99[i], &mean[i])
	}
	t.Logf("a first packet that comes alone: %s µs", own)
	if perSecond[2].median() < 1000 {
		t.Errorf("only %s first packets a second", &perSecond[2])
	}
	// The game takes all of a processor: what first packets take, it lacks.
	left := 1 - perSecond[2].median()*own.median()/1e6
	r := mean[2].median() * left / mean[1].median()
	t.Logf("the game lost %.2f times the time that first packets take by themselves",
		(1-mean[1].median()/mean[2].median())/(1-left))
	if r > 1.05 {
		t.Errorf("what is left of the time is worth %.2f times less to established clients", r)
	}
	// One that is in the way makes a round trip longer by what it costs. Two can
	// be: the ball passes the engine twice.
	if d := p99[2].median() - p99[1].median(); d > 50 {
		t.Errorf("p99 is %.0f µs longer because the engine gets the packets", d)
	}
}

func (l *speedLab) throughput(t *testing.T, c speedCase, rounds int) {
	names := []string{"engine", "nginx", "nft"}
	frames := make(map[string][][]byte)
	for _, n := range names {
		frames[n] = newFrames(c.flows, c.size, speedPorts[n])
		if n != "nft" {
			l.warm(t, n, frames[n])
		}
		if c.train > 1 {
			frames[n] = inTrains(frames[n], c.train)
		}
	}
	l.sink(true)
	defer l.sink(false)
	kpps, wall := make(map[string]*spread), make(map[string]*spread)
	ratio := map[string]*spread{"nginx": {}, "nft": {}}
	for range rounds {
		now := make(map[string]float64)
		for _, i := range rand.Perm(len(names)) {
			n := names[i]
			pids := l.napi
			if pid := l.pids[n]; pid != 0 {
				pids = append(slices.Clone(pids), pid)
			}
			if n == "nft" {
				l.nat(true)
			}
			l.load(frames[n], window, c.step(), 200*time.Millisecond)
			before, start := ran(pids...), time.Now()
			sent, got := l.load(frames[n], window, c.step(), 2*time.Second)
			used, took := ran(pids...)-before, time.Since(start)
			if n == "nft" {
				l.nat(false)
			}
			if got < sent*95/100 {
				t.Logf("%s: %d of %d lost", n, sent-got, sent)
			}
			now[n] = float64(got) / used.Seconds() / 1000
			if kpps[n] == nil {
				kpps[n], wall[n] = new(spread), new(spread)
			}
			kpps[n].add(now[n])
			wall[n].add(float64(got) / took.Seconds() / 1000)
		}
		for n, r := range ratio {
			r.add(now["engine"] / now[n])
		}
	}
	for _, n := range names {
		t.Logf("%-7s %s kpps per core, %.0f ns a packet; %s kpps in wall time", n, kpps[n], 1e6/kpps[n].median(), wall[n])
	}
	for n, r := range ratio {
		t.Logf("engine / %-5s %s", n, r)
	}
	if r := ratio["nginx"].median(); r < c.want {
		t.Errorf("the engine is %.2f times as fast as nginx, want %.1f", r, c.want)
	}
}

// latency plays ping-pong, everything on CPU 1.
func (l *speedLab) latency(t *testing.T, rounds int) {
	defer l.pongs(t)()
	p50, p99 := make(map[string]*spread), make(map[string]*spread)
	r50, r99 := new(spread), new(spread)
	names := []string{"direct", "engine", "nginx", "nft"}
	for range rounds {
		for _, i := range rand.Perm(len(names)) {
			n := names[i]
			addr, port := "10.71.0.254", speedPorts[n]
			if n == "direct" {
				addr, port = "10.71.11.1", 4500
			}
			if n == "nft" {
				l.nat(true)
			}
			r := l.pingPong(t, addr, port)
			if n == "nft" {
				l.nat(false)
			}
			if p50[n] == nil {
				p50[n], p99[n] = new(spread), new(spread)
			}
			p50[n].add(r.p50)
			p99[n].add(r.p99)
		}
		last := len(p50["nginx"].v) - 1
		r50.add(p50["engine"].v[last] / p50["nginx"].v[last])
		r99.add(p99["engine"].v[last] / p99["nginx"].v[last])
	}
	for _, n := range names {
		t.Logf("%-7s p50 %s µs, p99 %s µs", n, p50[n], p99[n])
	}
	t.Logf("engine / nginx: p50 %s, p99 %s", r50, r99)
	const noise = 1.05
	if r50.median() > noise || r99.median() > 1.5 {
		t.Errorf("latency is %s of nginx's at p50, %s at p99; want 1 and 1.5", r50, r99)
	}
}

// pongs lets the gateways answer pings, on CPU 1, until stop is called.
func (l *speedLab) pongs(t *testing.T) (stop func()) {
	var stops []func()
	for i, g := range []string{"g1", "g2"} {
		c := exec.Command("ip", "netns", "exec", l.ns(g), "taskset", "-c", "1",
			"sockperf", "sr", "-i", fmt.Sprintf("10.71.1%d.1", i+1), "-p", "4500")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		stops = append(stops, func() { _ = c.Process.Kill(); _ = c.Wait() })
	}
	time.Sleep(500 * time.Millisecond) // sockperf says nothing when it is ready
	return func() {
		for _, f := range stops {
			f()
		}
	}
}

// roundTrips says how long round trips took, in µs.
type roundTrips struct{ mean, p50, p99 float64 }

func (l *speedLab) pingPong(t *testing.T, addr string, port uint16) (r roundTrips) {
	out := netns.Sh(t, fmt.Sprintf("ip netns exec %s taskset -c 1 sockperf pp -i %s -p %d -m 64 -t 1 --full-rtt", l.ns("c"), addr, port))
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		for i := 1; i+2 < len(f); i++ {
			v, _ := strconv.ParseFloat(f[i+2], 64)
			switch f[i] + " " + f[i+1] {
			case "trip is":
				r.mean = v
			case "50.000 =":
				r.p50 = v
			case "99.000 =":
				r.p99 = v
			}
		}
	}
	if r.mean == 0 || r.p50 == 0 || r.p99 == 0 {
		t.Fatalf("sockperf said:\n%s", out)
	}
	return r
}
