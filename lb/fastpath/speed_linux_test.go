package fastpath_test

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/lb/fastpath"
	"github.com/aovlb/aovlb/lb/udp"
)

// The speed tests compare what a processor can carry, by the processor's time that a
// packet takes, of everything in one run, in turns:
//
//	client         balancer (processor 1)          gateways
//	fc ─────────── fl 10.91.1.1      fm 10.91.2.1 ──── fg 10.91.2.2, .3
//	generator (processor 0), sink                      sink
//
// The generator and the sinks are programs in the kernel. The balancer's interfaces
// are worked on by kernel threads that stay on its processor, so that it can be
// billed. So is what the sinks do: some 0.2 µs are in every figure alike, which
// understates the differences.

//go:embed testdata/load_bpfel.o
var loadObject []byte

type speedLab struct {
	t      *testing.T
	id     string
	client *ebpf.Collection // generator and sink at fc
	sink   *ebpf.Collection // at fg
	links  []link.Link
	vm     uint32 // number of fc
}

func (l *speedLab) ns(name string) string { return l.id + name }

func newSpeedLab(t *testing.T) *speedLab {
	l := &speedLab{t: t, id: fmt.Sprintf("fasts%d", os.Getpid())}
	t.Cleanup(func() {
		for _, x := range l.links {
			_ = x.Close()
		}
		for _, n := range []string{"c", "l", "g"} {
			_ = exec.Command("ip", "netns", "del", l.ns(n)).Run()
		}
	})
	run(t, strings.ReplaceAll(`
for n in c l g; do ip netns add ID$n; ip -n ID$n link set lo up; done
ip -n IDl link add fl address 02:00:00:00:91:01 numtxqueues 1 numrxqueues 1 type veth peer name fc netns IDc address 02:00:00:00:91:02 numtxqueues 1 numrxqueues 1
ip -n IDl link add fm address 02:00:00:00:92:01 numtxqueues 1 numrxqueues 1 type veth peer name fg netns IDg address 02:00:00:00:92:02 numtxqueues 1 numrxqueues 1
ip -n IDl addr add 10.91.1.1/24 dev fl; ip -n IDl addr add 10.91.2.1/24 dev fm
ip -n IDc addr add 10.91.1.2/24 dev fc; ip -n IDg addr add 10.91.2.2/24 dev fg; ip -n IDg addr add 10.91.2.3/24 dev fg
for d in l:fl l:fm c:fc g:fg; do ip -n ID${d%:*} link set ${d#*:} up; nsenter --net=/run/netns/ID${d%:*} ethtool -K ${d#*:} gro on tso off tx-udp-segmentation off >/dev/null; done
ip -n IDl neigh replace 10.91.1.2 lladdr 02:00:00:00:91:02 dev fl nud permanent
for i in 2 3; do ip -n IDl neigh replace 10.91.2.$i lladdr 02:00:00:00:92:02 dev fm nud permanent; done
ip -n IDl route add 10.64.0.0/12 via 10.91.1.2
ip netns exec IDl sh -c 'echo 1 > /sys/class/net/fl/threaded; echo 1 > /sys/class/net/fm/threaded; sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.fl.rp_filter=0 net.ipv4.conf.fm.rp_filter=0'
`, "ID", l.id))
	l.client = l.attach("c", "fc")
	l.sink = l.attach("g", "fg")
	return l
}

// attach attaches the sink to a device.
func (l *speedLab) attach(ns, dev string) *ebpf.Collection {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(loadObject))
	if err != nil {
		l.t.Fatal(err)
	}
	coll, err := ebpf.NewCollection(spec)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(coll.Close)
	number, err := strconv.Atoi(strings.TrimSpace(run(l.t, fmt.Sprintf("ip netns exec %s cat /sys/class/net/%s/ifindex", l.ns(ns), dev))))
	if err != nil {
		l.t.Fatal(err)
	}
	if ns == "c" {
		l.vm = uint32(number)
	}
	inNetns(l.t, l.ns(ns), func() error {
		x, err := link.AttachXDP(link.XDPOptions{Program: coll.Programs["sink"], Interface: number, Flags: link.XDPDriverMode})
		l.links = append(l.links, x)
		return err
	})
	return coll
}

func (l *speedLab) set(c *ebpf.Collection, flows, device, bounce uint32) {
	l.t.Helper()
	if err := c.Maps["setting"].Update(uint32(0), []uint32{flows, device, bounce, 0}, ebpf.UpdateAny); err != nil {
		l.t.Fatal(err)
	}
}

func counted(c *ebpf.Collection) (sum uint64) {
	var each []uint64
	if c.Maps["counts"].Lookup(uint32(0), &each) != nil {
		return 0
	}
	for _, n := range each {
		sum += n
	}
	return sum
}

// threads returns the kernel's threads of devices, and puts them on a processor.
func (l *speedLab) threads(cpu int, devices ...string) (pids []int) {
	dirs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range dirs {
		b, err := os.ReadFile(d)
		if err != nil {
			continue
		}
		name := strings.TrimSpace(string(b))
		if slices.ContainsFunc(devices, func(dev string) bool { return strings.HasPrefix(name, "napi/"+dev+"-") }) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(pid, &set); err != nil {
				l.t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	if len(pids) < len(devices) {
		l.t.Fatalf("%d kernel threads of %v", len(pids), devices)
	}
	return pids
}

// ran returns how long threads and processes have run.
func ran(pids []int) (d time.Duration) {
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

// balancer is something that carries packets from clients to a gateway.
type balancer struct {
	name string
	dst  netip.AddrPort
	most int // flows
	// up starts it, for so many flows.
	up func(l *speedLab, flows int) (pids []int, stats func() string, down func())
}

func client(i int) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a400000+uint32(i))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+i%60000))
}

const speedSPI = 0xc0ffee01

func carried(hook fastpath.Hook) func(*speedLab, int) ([]int, func() string, func()) {
	return func(l *speedLab, flows int) ([]int, func() string, func()) {
		var p *fastpath.Path
		inNetns(l.t, l.ns("l"), func() (err error) {
			p, err = fastpath.Open(fastpath.Config{Hook: hook, Interfaces: []string{"fl", "fm"}, MaxFlows: flows})
			return err
		})
		if s := p.Stats(); s.Attached["fl"] != hook || s.Attached["fm"] != hook {
			l.t.Fatalf("attached %v", s.Attached)
		}
		c := p.Carrier()
		b := binary.BigEndian.AppendUint32(nil, speedSPI)
		b = append(b, make([]byte, 16)...)
		for i := range flows {
			f := udp.FastFlow{
				Client: client(i), Listener: netip.MustParseAddrPort("10.91.1.1:4500"),
				Local:   netip.AddrPortFrom(netip.MustParseAddr("10.91.2.1"), uint16(1024+i%60000)),
				Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 91, 2, byte(2 + i/60000)}), 4500),
			}
			for _, answer := range []bool{false, true} {
				if _, ok := c.Carry(f, b, answer); !ok {
					l.t.Fatalf("flow %d is refused: %+v", i, p.Stats())
				}
			}
		}
		return nil, func() string { return fmt.Sprint(p.Stats()) }, func() {
			c.Close()
			if err := p.Close(false); err != nil {
				l.t.Error(err)
			}
		}
	}
}

func routed(*speedLab, int) ([]int, func() string, func()) { return nil, nothing, func() {} }

func nothing() string { return "" }

func nft(l *speedLab, _ int) ([]int, func() string, func()) {
	run(l.t, fmt.Sprintf(`nsenter --net=/run/netns/%s sh -ec 'sysctl -qw net.netfilter.nf_conntrack_max=400000 || true
nft -f -' <<END
table ip speed {
 chain pre { type nat hook prerouting priority dstnat; ip daddr 10.91.1.1 udp dport 4502 dnat to jhash ip saddr mod 2 map { 0 : 10.91.2.2, 1 : 10.91.2.3 } : 4500 ; }
 chain post { type nat hook postrouting priority srcnat; oifname "fm" masquerade; }
}
END
`, l.ns("l")))
	return nil, nothing, func() {
		run(l.t, fmt.Sprintf("nsenter --net=/run/netns/%s nft delete table ip speed", l.ns("l")))
	}
}

const nginxDir = "/usr/lib/nginx/modules"

func nginx(l *speedLab, _ int) ([]int, func() string, func()) {
	conf := filepath.Join(l.t.TempDir(), "nginx.conf")
	text := `daemon off; master_process off; pid ` + conf + `.pid; error_log ` + conf + `.log crit;
load_module ` + nginxDir + `/ngx_stream_module.so;
worker_rlimit_nofile 20000;
events { worker_connections 8192; multi_accept on; }
stream {
 upstream gateways { hash $remote_addr; server 10.91.2.2:4500; server 10.91.2.3:4500; }
 server { listen 10.91.1.1:4501 udp reuseport rcvbuf=8m; proxy_pass gateways; proxy_timeout 600s; }
}
`
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	c := exec.Command("nsenter", "--net=/run/netns/"+l.ns("l"), "taskset", "-c", "1", "nginx", "-c", conf, "-p", filepath.Dir(conf), "-e", conf+".log")
	if err := c.Start(); err != nil {
		l.t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	return []int{c.Process.Pid}, nothing, func() {
		_ = c.Process.Signal(unix.SIGTERM)
		_ = c.Wait()
	}
}

// measured is one measurement.
type measured struct {
	ns      float64 // of processor 1, for a packet
	rate    float64 // packets a second that arrived
	offered float64
}

// measure has b carry packets of a payload's size for a while.
func (l *speedLab) measure(b balancer, flows, size int, both bool, d time.Duration, again int) measured {
	l.t.Helper()
	pids, stats, down := b.up(l, flows)
	defer func() { down() }()
	pids = append(pids, l.threads(1, "fl", "fm")...)
	bounce := uint32(0)
	if both {
		bounce = 1
	}
	l.set(l.sink, 0, 0, bounce)
	l.set(l.client, uint32(flows), l.vm, 0)
	frame := l.frame(b.dst, size)
	l.generate(frame, 300*time.Millisecond) // to learn and to warm up
	time.Sleep(50 * time.Millisecond)
	before, cpu := counted(l.sink)+counted(l.client), ran(pids)
	start := time.Now()
	sent := l.generate(frame, d)
	took := time.Since(start)
	time.Sleep(50 * time.Millisecond)
	got := float64(counted(l.sink) + counted(l.client) - before)
	if got < 1000 {
		if again > 0 {
			down()
			down = func() {}
			return l.measure(b, flows, size, both, d, again-1)
		}
		l.t.Fatalf("%s: %v packets arrived of %d; %s", b.name, got, sent, stats())
	}
	return measured{ns: float64(ran(pids)-cpu) / got, rate: got / took.Seconds(), offered: float64(sent) / took.Seconds()}
}

func (l *speedLab) frame(dst netip.AddrPort, size int) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, 0}
	ip = append(ip, dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(28+size))
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum&0xffff+sum>>16))
	b := append([]byte{2, 0, 0, 0, 0x91, 1, 2, 0, 0, 0, 0x91, 2, 8, 0}, ip...)
	b = binary.BigEndian.AppendUint16(b, 1024)
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+size))
	b = binary.BigEndian.AppendUint32(append(b, 0, 0), speedSPI)
	return append(b, make([]byte, size-4)...)
}

// generate sends for d, from processor 0.
func (l *speedLab) generate(frame []byte, d time.Duration) (sent uint64) {
	l.t.Helper()
	inNetns(l.t, l.ns("c"), func() error {
		var set unix.CPUSet
		set.Set(0)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		const most = 1 << 15
		for end := time.Now().Add(d); time.Now().Before(end); sent += most {
			_, err := l.client.Programs["generate"].Run(&ebpf.RunOptions{Data: frame, Repeat: most, Flags: 2 /* live frames */})
			if err != nil && err != unix.EINTR {
				return err
			}
		}
		return nil
	})
	return sent
}

type spread []float64

func (s spread) at(i int) float64 { v := slices.Sorted(slices.Values(s)); return v[i] }
func (s spread) String() string {
	return fmt.Sprintf("%.0f/%.0f/%.0f", s.at(0), s.at(len(s)/2), s.at(len(s)-1))
}

func ratio(s spread) string {
	return fmt.Sprintf("%.2f/%.2f/%.2f", s.at(0), s.at(len(s)/2), s.at(len(s)-1))
}

// TestSpeed compares the fast path with what else can carry packets: thousands of
// packets that a processor carries a second, and the ratios of each round.
func TestSpeed(t *testing.T) {
	needRoot(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "nft", "nginx", "taskset")
	rounds, d := 3, 500*time.Millisecond
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH")); err == nil && n > 1 {
		rounds = n
	}
	gateway := netip.MustParseAddrPort("10.91.2.2:4500")
	vip := func(port uint16) netip.AddrPort {
		return netip.AddrPortFrom(netip.MustParseAddr("10.91.1.1"), port)
	}
	balancers := []balancer{
		{"routed", gateway, 1 << 20, routed},
		{"nft", vip(4502), 1 << 20, nft},
		{"nginx", vip(4501), 2000, nginx},
		{"tc", vip(4500), 1 << 20, carried(fastpath.HookTC)},
		{"xdp", vip(4500), 1 << 20, carried(fastpath.HookXDP)},
	}
	l := newSpeedLab(t)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20000, Max: 20000}); err != nil {
		t.Log(err)
	}
	for _, c := range []struct {
		flows, size int
		both        bool
	}{
		{1, 64, false}, {1000, 64, false}, {100000, 64, false}, {1000, 1400, false}, {1000, 64, true}, {1000, 1400, true},
	} {
		got := make(map[string][]measured)
		for range rounds {
			order := rand.Perm(len(balancers))
			for _, i := range order {
				if b := balancers[i]; c.flows <= b.most {
					got[b.name] = append(got[b.name], l.measure(b, c.flows, c.size, c.both, d, 2))
				}
			}
		}
		way := "one way"
		if c.both {
			way = "both ways"
		}
		t.Logf("%d flows, %d octets, %s; min/median/max", c.flows, c.size, way)
		for _, b := range balancers {
			var kpps, ns, rate, offered spread
			for _, m := range got[b.name] {
				kpps, ns = append(kpps, 1e6/m.ns), append(ns, m.ns)
				rate, offered = append(rate, m.rate/1e3), append(offered, m.offered/1e3)
			}
			if len(kpps) == 0 {
				continue
			}
			var line strings.Builder
			line.WriteString(fmt.Sprintf("  %-7s %s kpps/core  %s ns/packet  arrived %v of %v k/s", b.name, kpps, ns, rate, offered))
			for _, base := range []string{"routed", "nft", "nginx"} {
				var r spread
				for i := range min(len(got[base]), len(got[b.name])) {
					r = append(r, got[base][i].ns/got[b.name][i].ns)
				}
				if len(r) > 0 && base != b.name {
					line.WriteString(fmt.Sprintf("  %s x%s", base, ratio(r)))
				}
			}
			t.Log(line.String())
		}
	}
}
