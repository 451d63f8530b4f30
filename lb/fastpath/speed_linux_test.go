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
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/aovlb/aovlb/internal/peers/netns"
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
// billed. So is what the sinks do: "wire", which does nothing but hand on, says how
// much that is, and "drop", which doesn't even do that, how fast the generator is.

//go:embed testdata/load_bpfel.o
var loadObject []byte

// settings are those of the programs in testdata/load.c.
type settings struct {
	Flows, Device, Bounce, Window, Here, Until, Pause, Strangers, Alike uint32
	First                                                               [46]byte
	_                                                                   [2]byte
}

const (
	atGateway = iota // of the counts
	atClient
)

// window is how many packets are under way: as many as an interface holds. They come in
// steps of which several are in it, so that there is always work.
const (
	window = 256
	step   = 64 // STEP
)

// loadEnd is the programs at one interface.
type loadEnd struct {
	coll *ebpf.Collection
	dev  uint32
}

type speedLab struct {
	t    *testing.T
	id   string
	c, g *loadEnd // at fc and fg
}

func (l *speedLab) ns(name string) string { return l.id + name }

func newSpeedLab(t *testing.T) *speedLab {
	labs++
	l := &speedLab{t: t, id: fmt.Sprintf("fasts%d.%d", os.Getpid(), labs)}
	t.Cleanup(func() {
		for _, n := range []string{"c", "l", "g"} {
			_ = exec.Command("ip", "netns", "del", l.ns(n)).Run()
		}
	})
	netns.Sh(t, strings.ReplaceAll(`
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
	return l
}

// load puts the generator and the sinks to both ends.
func (l *speedLab) load() *speedLab {
	l.c, _ = l.attach("c", "fc", "sink")
	l.g, _ = l.attach("g", "fg", "sink")
	return l
}

// attach attaches a program of testdata/load.c to a device.
func (l *speedLab) attach(ns, dev, program string) (e *loadEnd, detach func()) {
	l.t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(loadObject))
	if err != nil {
		l.t.Fatal(err)
	}
	var opts ebpf.CollectionOptions
	if l.c != nil {
		opts.MapReplacements = map[string]*ebpf.Map{"counts": l.c.coll.Maps["counts"]}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, opts)
	if err != nil {
		l.t.Fatal(err)
	}
	e = &loadEnd{coll, l.device(ns, dev)}
	var x link.Link
	netns.Do(l.t, l.ns(ns), func() error {
		x, err = link.AttachXDP(link.XDPOptions{Program: coll.Programs[program], Interface: int(e.dev), Flags: link.XDPDriverMode})
		return err
	})
	detach = sync.OnceFunc(func() {
		_ = x.Close()
		coll.Close()
	})
	l.t.Cleanup(detach)
	return e, detach
}

// device returns the number of a device.
func (l *speedLab) device(ns, dev string) uint32 {
	l.t.Helper()
	number, err := strconv.Atoi(strings.TrimSpace(netns.Sh(l.t, fmt.Sprintf("ip netns exec %s cat /sys/class/net/%s/ifindex", l.ns(ns), dev))))
	if err != nil {
		l.t.Fatal(err)
	}
	return uint32(number)
}

func (l *speedLab) set(e *loadEnd, s settings) {
	l.t.Helper()
	if err := e.coll.Maps["setting"].Update(uint32(0), &s, ebpf.UpdateAny); err != nil {
		l.t.Fatal(err)
	}
}

// tally is what the programs have counted.
type tally struct {
	sent, lost, strangers uint64
	took                  time.Duration // from the first to the last that was sent
	arrived               [2]uint64
}

func (l *speedLab) tally() (n tally) {
	l.t.Helper()
	var sent [6]uint64
	if err := l.c.coll.Maps["sents"].Lookup(uint32(0), &sent); err != nil {
		l.t.Fatal(err)
	}
	for i := range n.arrived {
		var c [16]uint64
		if err := l.c.coll.Maps["counts"].Lookup(uint32(i), &c); err != nil {
			l.t.Fatal(err)
		}
		n.arrived[i] = c[0]
	}
	n.sent, n.lost, n.took = sent[0], sent[1], time.Duration(sent[4]-sent[3])
	n.strangers = sent[5]
	return n
}

// reset has the counts begin anew.
func (l *speedLab) reset() {
	l.t.Helper()
	if err := l.c.coll.Maps["sents"].Update(uint32(0), &[6]uint64{}, ebpf.UpdateAny); err != nil {
		l.t.Fatal(err)
	}
	for i := range 2 {
		if err := l.c.coll.Maps["counts"].Update(uint32(i), &[16]uint64{}, ebpf.UpdateAny); err != nil {
			l.t.Fatal(err)
		}
	}
}

// threads returns the kernel's threads of devices, which it puts on a processor, and that
// processor's for deferred work, which has what those leave.
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
		if name == fmt.Sprintf("ksoftirqd/%d", cpu) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(d)))
			pids = append(pids, pid)
		}
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
	if len(pids) <= len(devices) {
		l.t.Fatalf("%d kernel threads of %v", len(pids), devices)
	}
	return pids
}

// taskTimes are for how long a task has run, and for how long it would have, had not
// others been running.
type taskTimes struct{ ran, waited time.Duration }

// taskTimesOf returns those of all tasks of processes.
func taskTimesOf(pids []int) map[string]taskTimes {
	all := make(map[string]taskTimes)
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range tasks {
			b, _ := os.ReadFile(f)
			var t taskTimes
			_, _ = fmt.Sscan(string(b), &t.ran, &t.waited)
			all[f] = t
		}
	}
	return all
}

// since returns for how long the tasks have run in all, and how long at least one of
// them had work.
func since(before, now map[string]taskTimes) (ran, busy time.Duration) {
	for f, t := range now {
		d := t.ran - before[f].ran
		ran += d
		busy = max(busy, d+t.waited-before[f].waited)
	}
	return ran, max(ran, busy)
}

// balancer is something that carries packets from clients to a gateway.
type balancer struct {
	name string
	dst  netip.AddrPort
	most int // flows
	// up starts it.
	up func(l *speedLab, c load) (pids []int, stats func() string, down func())
}

func client(i int) netip.AddrPort {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], 0x0a400000+uint32(i))
	return netip.AddrPortFrom(netip.AddrFrom4(a), uint16(1024+i%60000))
}

const speedSPI = 0xc0ffee01

func carried(hook fastpath.Hook) func(*speedLab, load) ([]int, func() string, func()) {
	return func(l *speedLab, c load) ([]int, func() string, func()) {
		p, carrier, down := l.open(hook, c.flows)
		for i := range c.flows {
			carry(l.t, p, carrier, i)
		}
		return nil, func() string { return fmt.Sprint(p.Stats()) }, down
	}
}

var vip = netip.MustParseAddrPort("10.91.1.1:4500")

// open opens a fast path with room for so many flows.
func (l *speedLab) open(hook fastpath.Hook, most int) (p *fastpath.Path, c *fastpath.Carrier, down func()) {
	l.t.Helper()
	netns.Do(l.t, l.ns("l"), func() (err error) {
		p, err = fastpath.Open(fastpath.Config{Hook: hook, Interfaces: []string{"fl", "fm"}, MaxFlows: most})
		return err
	})
	if s := p.Stats(); s.Attached["fl"] != hook || s.Attached["fm"] != hook {
		l.t.Fatalf("attached %v", s.Attached)
	}
	c = p.Carrier()
	return p, c, func() {
		c.Close()
		if err := p.Close(false); err != nil {
			l.t.Error(err)
		}
	}
}

// carry has flow i be carried.
func carry(t *testing.T, p *fastpath.Path, c *fastpath.Carrier, i int) (id uint64) {
	b := append(binary.BigEndian.AppendUint32(nil, speedSPI), make([]byte, 16)...)
	f := udp.FastFlow{
		Client: client(i), Listener: netip.MustParseAddrPort("10.91.1.1:4500"),
		Local:   netip.AddrPortFrom(netip.MustParseAddr("10.91.2.1"), uint16(1024+i%60000)),
		Backend: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 91, 2, byte(2 + i/60000)}), 4500),
	}
	for _, answer := range []bool{false, true} {
		var ok bool
		if id, ok = c.Carry(f, b, answer); !ok {
			t.Errorf("flow %d is refused: %+v", i, p.Stats())
		}
	}
	return id
}

// drop is a sink in the balancer's place.
func drop(l *speedLab, _ load) ([]int, func() string, func()) {
	e, detach := l.attach("l", "fl", "sink")
	l.set(e, settings{Here: atGateway})
	return nil, nothing, detach
}

// wire hands on what comes, whatever it is, to the other interface.
func wire(l *speedLab, _ load) ([]int, func() string, func()) {
	fl, detach := l.attach("l", "fl", "wire")
	fm, detach2 := l.attach("l", "fm", "wire")
	l.set(fl, settings{Device: fm.dev})
	l.set(fm, settings{Device: fl.dev})
	return nil, nothing, func() { detach(); detach2() }
}

func routed(*speedLab, load) ([]int, func() string, func()) { return nil, nothing, func() {} }

func nothing() string { return "" }

func nft(l *speedLab, c load) ([]int, func() string, func()) {
	to := "jhash ip saddr mod 2 map { 0 : 10.91.2.2, 1 : 10.91.2.3 } : 4500"
	if c.flows == 0 { // one gateway
		to = "10.91.2.2:4500"
	}
	netns.Sh(l.t, fmt.Sprintf(`nsenter --net=/run/netns/%s sh -ec 'sysctl -qw net.netfilter.nf_conntrack_max=400000 || true
nft -f -' <<END
table ip speed {
 chain pre { type nat hook prerouting priority dstnat; ip daddr 10.91.1.1 udp dport 4502 dnat to %s ; }
 chain post { type nat hook postrouting priority srcnat; oifname "fm" masquerade; }
}
END
`, l.ns("l"), to))
	return nil, nothing, func() {
		netns.Sh(l.t, fmt.Sprintf("nsenter --net=/run/netns/%s nft delete table ip speed", l.ns("l")))
	}
}

const nginxDir = "/usr/lib/nginx/modules"

func nginx(l *speedLab, _ load) ([]int, func() string, func()) {
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
	ns      float64 // of processor 1, for a packet that arrived
	rate    float64 // packets a second that arrived
	arrived float64 // of those that should have
	busy    float64 // for what part of the time there was work
}

// flaw says why a measurement doesn't count; empty: it does.
func (m *measured) flaw() string {
	switch {
	case m.rate == 0:
		return "nothing arrived"
	case m.arrived < 0.99:
		return fmt.Sprintf("%.1f %% of the packets arrived: losing them is work too", 100*m.arrived)
	case m.busy < 0.9:
		return fmt.Sprintf("the balancer's threads had work for %.0f %% of the time only: for the rest they slept, or were waking up", 100*m.busy)
	}
	return ""
}

// load is what a balancer is measured by.
type load struct {
	flows, size int
	both        bool
}

func (c load) String() string {
	way := "one way"
	if c.both {
		way = "both ways"
	}
	return fmt.Sprintf("%s/%d octets/%d flows", way, c.size, c.flows)
}

// measure has b carry packets for a while.
func (l *speedLab) measure(b balancer, c load, d time.Duration) (m measured) {
	l.t.Helper()
	pids, stats, down := b.up(l, c)
	defer down()
	pids = append(pids, l.threads(1, "fl", "fm")...)
	gate, gen := settings{Here: atGateway}, settings{Flows: uint32(c.flows), Device: l.c.dev, Window: window, Here: atClient, Until: atGateway}
	ways := 1.0
	if c.both {
		gate.Bounce, gen.Until, ways = 1, atClient, 2
	}
	frame := l.frame(b.dst, c.size)
	copy(gen.First[:], frame)
	l.set(l.g, gate)
	l.set(l.c, gen)
	l.reset()
	l.generate(frame, max(1<<14, 4*c.flows), step) // to learn, and to warm up
	warm := l.tally()
	l.reset()
	before := taskTimesOf(pids)
	// All at once: between two calls the kernel needs some 30 ms.
	l.generate(frame, 1<<12+int(d.Seconds()*float64(warm.sent)/warm.took.Seconds()), step)
	time.Sleep(20 * time.Millisecond)
	worked, busy := since(before, taskTimesOf(pids))
	all := l.tally()
	took := all.took
	got := float64(all.arrived[atGateway] + all.arrived[atClient])
	if got == 0 {
		l.t.Logf("%s: nothing arrived of %d packets: %s", b.name, all.sent, stats())
		return m
	}
	if testing.Verbose() && os.Getenv("AOVLB_DETAIL") != "" {
		l.t.Logf("    %-7s %.0f ns/packet, %.2f M/s, %.0f %% at work, sent %d, lost %d, arrived %v %s", b.name, float64(worked)/got, got/took.Seconds()/1e6, 100*busy.Seconds()/took.Seconds(), all.sent, all.lost, all.arrived, stats())
	}
	return measured{ns: float64(worked) / got, rate: got / took.Seconds(), arrived: got / ways / float64(all.sent), busy: busy.Seconds() / took.Seconds()}
}

func (l *speedLab) frame(dst netip.AddrPort, size int) []byte {
	ip := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 64, 0, 0}
	ip = append(ip, dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[2:], uint16(28+size))
	binary.BigEndian.PutUint16(ip[10:], internetSum(ip))
	b := append([]byte{2, 0, 0, 0, 0x91, 1, 2, 0, 0, 0, 0x91, 2, 8, 0}, ip...)
	b = binary.BigEndian.AppendUint16(b, 1024)
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(8+size))
	b = binary.BigEndian.AppendUint32(append(b, 0, 0), speedSPI)
	return append(b, make([]byte, size-4)...)
}

// generate sends packets, from processor 0, so many by one call of the kernel's.
func (l *speedLab) generate(frame []byte, packets, batch int) {
	l.t.Helper()
	netns.Do(l.t, l.ns("c"), func() error {
		var set unix.CPUSet
		set.Set(0)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return err
		}
		_, err := l.c.coll.Programs["generate"].Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(packets), Flags: 2 /* live frames */, BatchSize: uint32(batch)})
		return err
	})
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
// packets that a processor carries a second, and the ratios of each round. One load is
// chosen by -run 'TestSpeed/one_way/64_octets/1000_flows', say.
func TestSpeed(t *testing.T) {
	netns.Need(t, "AOVLB_BENCH", "ip", "nsenter", "ethtool", "nft", "nginx", "taskset")
	rounds, d := 3, 500*time.Millisecond
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH")); err == nil && n > 1 {
		rounds = n
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20000, Max: 20000}); err != nil {
		t.Log(err)
	}
	for _, both := range []bool{false, true} {
		for _, size := range []int{64, 1400} {
			for _, flows := range []int{1, 1000, 100000} {
				c := load{flows: flows, size: size, both: both}
				t.Run(c.String(), func(t *testing.T) { compare(t, c, rounds, d) })
			}
		}
	}
}

func balancers() []balancer {
	gateway := netip.MustParseAddrPort("10.91.2.2:4500")
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(vip.Addr(), port) }
	return []balancer{
		{"drop", gateway, 1 << 20, drop},
		{"wire", gateway, 1 << 20, wire},
		{"routed", gateway, 1 << 20, routed},
		{"nft", at(4502), 1 << 20, nft},
		{"nginx", at(4501), 2000, nginx},
		{"tc", vip, 1 << 20, carried(fastpath.HookTC)},
		{"xdp", vip, 1 << 20, carried(fastpath.HookXDP)},
	}
}

// compare measures each balancer so many times, in random order.
func compare(t *testing.T, c load, rounds int, d time.Duration) {
	l := newSpeedLab(t).load()
	all := balancers()
	all = slices.DeleteFunc(all, func(b balancer) bool {
		only := os.Getenv("AOVLB_BALANCERS")
		return c.flows > b.most || c.both && b.name == "drop" || only != "" && !slices.Contains(strings.Split(only, ","), b.name)
	})
	got := make(map[string]map[int]measured) // by balancer and round
	for _, b := range all {
		got[b.name] = make(map[int]measured)
	}
	for r := range rounds {
		for _, i := range rand.Perm(len(all)) {
			m := l.measure(all[i], c, d)
			if why := m.flaw(); why != "" && all[i].name != "drop" {
				t.Logf("  round %d of %s doesn't count: %s", r+1, all[i].name, why)
				continue
			}
			got[all[i].name][r] = m
		}
	}
	for _, b := range all {
		of := got[b.name]
		if len(of) <= rounds/2 {
			t.Errorf("%s: only %d of %d rounds count", b.name, len(of), rounds)
			continue
		}
		t.Log(line(b.name, of, got))
	}
}

// line says what was measured of a balancer: min/median/max.
func line(name string, of map[int]measured, all map[string]map[int]measured) string {
	var kpps, ns, busy, rate spread
	for _, m := range of {
		kpps, ns, busy, rate = append(kpps, 1e6/m.ns), append(ns, m.ns), append(busy, 100*m.busy), append(rate, m.rate/1e3)
	}
	var b strings.Builder
	if name == "drop" {
		fmt.Fprintf(&b, "  the generator's limit is %s k/s; a sink alone takes %s ns/packet", rate, ns)
		return b.String()
	}
	fmt.Fprintf(&b, "  %-7s %d rounds  %s kpps/core  %s ns/packet  %s %% at work", name, len(of), kpps, ns, busy)
	for _, base := range []string{"routed", "nft", "nginx"} {
		var r spread
		for i, m := range of {
			if n, ok := all[base][i]; ok && base != name {
				r = append(r, n.ns/m.ns)
			}
		}
		if len(r) > 0 {
			fmt.Fprintf(&b, "  %s x%s", base, ratio(r))
		}
	}
	return b.String()
}
