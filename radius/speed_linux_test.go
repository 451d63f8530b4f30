//go:build linux && (amd64 || arm64)

package radius

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// The speed of the Proxy, and of forwarding by package udp, beside nginx's stream
// module, FreeRADIUS as a proxy and radsecproxy, all on loopback:
//
//	clients ── ports of some requests each ── X ─┬─ server
//	                                             └─ server
//
// Every X is a process that has one processor to itself. The clients and the
// servers, which are the shore, have the other, and need less of it than any X
// needs of its own: so X is what limits, and how many requests a second pass says
// what it can do. That this is so is measured too: X's processor is busy and that of
// the shore is not. "direct" is without an X: what the shore could do. Kinds take
// turns, so that neighbours on the machine disturb all alike.
//
// Servers answer 5 to 20 ms later, as NPS may with a directory behind it, while 2048
// requests are under way; or at once, with 96 under way. Both ends take in trains
// whole (UDP GRO), so that nobody has to cut up what X sends at once, as where a
// network card does that. "apart" is without: on one machine cutting is then the
// work of who sends. In "mixed" all lengths differ, so that the shore can't send
// trains, and is busy itself.
//
// Run it with
//
//	AOVLB_BENCH=1 go test -run 'TestSpeed$' -v ./radius
//
// with nginx and its stream module, freeradius and radsecproxy. What isn't there
// is left out.

const (
	speedSecret = "testing123-but-longer"
	roleEnv     = "AOVLB_RADIUS_ROLE"
)

// TestSpeedRole is a part of TestSpeed, in a process of its own.
func TestSpeedRole(t *testing.T) {
	role, args, _ := strings.Cut(os.Getenv(roleEnv), " ")
	ports := strings.Fields(args)
	switch role {
	case "":
		t.Skip("it is for TestSpeed")
	case "proxy", "forward":
		speedBalance(t, role, ports)
	}
}

func loopback(port string) netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:" + port) }

// speedBalance is the Proxy, or the forwarding engine. ports are where to listen,
// then that of the servers at 127.0.0.2 and 127.0.0.3.
func speedBalance(t *testing.T, role string, ports []string) {
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "a", Addr: netip.MustParseAddr("127.0.0.2")}, lb.Backend{Name: "b", Addr: netip.MustParseAddr("127.0.0.3")}); err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(ports[1])
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	conns, err := udp.Listen(t.Context(), loopback(ports[0]), udp.ListenConfig{Sockets: runtime.GOMAXPROCS(0)})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	if role == "forward" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2)
		err = (&udp.Engine{Balancer: b, Classifier: Classifier{User: ByStationAndName}, Port: uint16(n)}).Serve(t.Context(), conns...)
	} else {
		p := &Proxy{Balancer: b, Classifier: Classifier{User: ByStationAndName}, AuthPort: uint16(n), AcctPort: uint16(n)}
		secret := NewSecret([]byte(speedSecret))
		if err := p.SetClients(Client{Name: "all", Prefixes: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Secret: secret}); err != nil {
			t.Fatal(err)
		}
		if err := p.SetServers(Server{Secret: secret}, nil); err != nil {
			t.Fatal(err)
		}
		err = p.Serve(t.Context(), conns...)
	}
	t.Fatal(err)
}

// contender is one X.
type contender struct {
	name string
	port string
	pids []int
}

type speedLab struct {
	t     *testing.T
	dir   string
	all   []*contender
	shore *shore
	cpus  [2]int // of X, and of the shore
}

// startRole starts this test in another role.
func (l *speedLab) startRole(role string, args ...string) int {
	l.t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestSpeedRole$", "-test.timeout=30m")
	c.Env = append(os.Environ(), roleEnv+"="+role+" "+strings.Join(args, " "))
	return l.start(c)
}

func (l *speedLab) start(c *exec.Cmd) int {
	l.t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // Pdeathsig is about the thread
	pin(l.t, 0, l.cpus[0]) // it is inherited
	err := c.Start()
	pin(l.t, 0, l.cpus[1])
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	return c.Process.Pid
}

func (l *speedLab) file(name, text string) string {
	path := filepath.Join(l.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func (l *speedLab) add(name, port string, pid int) {
	l.all = append(l.all, &contender{name, port, []int{pid}})
}

func (l *speedLab) freePort() string {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		l.t.Fatal(err)
	}
	defer c.Close()
	return strconv.Itoa(c.LocalAddr().(*net.UDPAddr).Port)
}

func have(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// setup starts everything.
func (l *speedLab) setup() {
	back := l.freePort()
	l.shore = newShore(l.t, back, "127.0.0.2", "127.0.0.3")
	l.all = append(l.all, &contender{name: "direct", port: ""})
	for _, role := range []string{"proxy", "forward"} {
		port := l.freePort()
		l.add("aovlb "+role, port, l.startRole(role, port, back))
	}
	if _, err := os.Stat("/usr/lib/nginx/modules/ngx_stream_module.so"); err == nil && have("nginx") {
		port := l.freePort()
		conf := l.file("nginx.conf", fmt.Sprintf(`daemon off; master_process off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.log error;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events { worker_connections 4096; multi_accept on; }
stream {
 upstream s { hash $remote_addr$remote_port consistent; server 127.0.0.2:%[3]s; server 127.0.0.3:%[3]s; }
 server { listen 127.0.0.1:%[2]s udp reuseport rcvbuf=8m; proxy_pass s; proxy_timeout 600s; }
}
`, l.dir, port, back))
		l.add("nginx stream", port, l.start(exec.Command("nginx", "-c", conf, "-p", l.dir, "-e", l.dir+"/nginx.err")))
	}
	if have("freeradius") {
		port := l.freePort()
		l.file("fr/radiusd.conf", fmt.Sprintf(speedFreeRADIUS, l.dir+"/fr", speedSecret, port, back))
		l.file("fr/dictionary", "$INCLUDE /usr/share/freeradius/dictionary\n")
		l.add("FreeRADIUS as proxy", port, l.start(exec.Command("freeradius", "-f", "-l", l.dir+"/fr/log", "-d", l.dir+"/fr")))
	}
	if have("radsecproxy") {
		port := l.freePort()
		conf := l.file("radsecproxy.conf", fmt.Sprintf(`ListenUDP 127.0.0.1:%s
LoopPrevention off
client all {
 host 127.0.0.0/8
 type udp
 secret %[3]s
}
server a {
 host 127.0.0.2
 port %[2]s
 type udp
 secret %[3]s
}
server b {
 host 127.0.0.3
 port %[2]s
 type udp
 secret %[3]s
}
realm * {
 server a
 server b
 accountingServer a
 accountingServer b
}
`, port, back, speedSecret))
		l.add("radsecproxy", port, l.start(exec.Command("radsecproxy", "-f", "-c", conf)))
	}
	l.all[0].port = back
}

const speedFreeRADIUS = `
prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
name = freeradius
hostname_lookups = no
max_request_time = 30
cleanup_delay = 1
max_requests = 65536
proxy_requests = yes
log {
	destination = files
	file = %[1]s/log
}
security {
	user = root
	group = root
	max_attributes = 200
	reject_delay = 0
	status_server = no
}
thread pool {
	start_servers = 2
	max_servers = 4
	min_spare_servers = 1
	max_spare_servers = 4
	max_requests_per_server = 0
}
client all {
	ipaddr = 127.0.0.0/8
	secret = %[2]s
}
proxy server {
}
home_server a {
	type = auth+acct
	ipaddr = 127.0.0.2
	port = %[4]s
	secret = %[2]s
	response_window = 5
}
home_server b {
	type = auth+acct
	ipaddr = 127.0.0.3
	port = %[4]s
	secret = %[2]s
	response_window = 5
}
home_server_pool p {
	type = keyed-balance
	home_server = a
	home_server = b
}
realm NPS {
	pool = p
}
modules {
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[3]s
	}
	authorize {
		update control {
			&Load-Balance-Key := "%%{User-Name}%%{Calling-Station-Id}"
			&Proxy-To-Realm := NPS
		}
	}
}
`

// cpu returns the processor time of a process and its children.
func (c *contender) cpu() time.Duration {
	ticks := 0
	for _, pid := range c.pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		user, _ := strconv.Atoi(f[11])
		system, _ := strconv.Atoi(f[12])
		ticks += user + system
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// speedResult is one round of a contender.
type speedResult struct {
	rps     float64
	took    time.Duration
	done    int
	lost    int
	cpu     time.Duration // per request
	limit   float64       // how busy the contender's processor was
	shore   float64       // and that of everybody else
	latency []time.Duration
}

// setting is how contenders are compared.
type setting struct {
	name          string
	ports, window int
	early, late   time.Duration // when servers answer; 0 means at once
	mixed         bool          // requests and answers are of many lengths
	apart         bool          // the shore receives each packet by itself
	// beside is how many times what radsecproxy carries the Proxy should; 0
	// where it isn't the contender that limits.
	beside float64
}

// run asks c for a while.
func (l *speedLab) run(c *contender, at *setting, d time.Duration) speedResult {
	targets := []string{"127.0.0.1:" + c.port}
	if c.name == "direct" {
		targets = []string{"127.0.0.2:" + c.port, "127.0.0.3:" + c.port}
	}
	l.shore.mixed, l.shore.apart = at.mixed, at.apart
	l.shore.early, l.shore.late = int(at.early/shoreTick), int(at.late/shoreTick)
	cpu, was := c.cpu(), processors(l.t)
	var is [][2]int
	res := l.shore.run(targets, at, d, func() { is = processors(l.t) })
	res.cpu = (c.cpu() - cpu) / time.Duration(max(res.done, 1))
	res.limit, res.shore = busyShare(was, is, l.cpus[0]), busyShare(was, is, l.cpus[1])
	return res
}

// pin keeps thread tid, 0 for the caller's, on one processor.
func pin(t *testing.T, tid, cpu int) {
	var mask [16]uint64
	mask[cpu/64] = 1 << (cpu % 64)
	if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); e != 0 {
		t.Fatal(e)
	}
}

// settle finds two processors, and keeps this process on one of them.
func (l *speedLab) settle() {
	var mask [16]uint64
	if _, _, e := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask))); e != 0 {
		l.t.Fatal(e)
	}
	var all []int
	for i := range 64 * len(mask) {
		if mask[i/64]&(1<<(i%64)) != 0 {
			all = append(all, i)
		}
	}
	if len(all) < 2 {
		l.t.Skip("it needs two processors")
	}
	l.cpus = [2]int{all[0], all[1]}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, x := range threads {
		tid, _ := strconv.Atoi(x.Name())
		pin(l.t, tid, l.cpus[1])
	}
}

// processors returns the idle time and all time of each processor, in ticks.
func processors(t *testing.T) (all [][2]int) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		name, rest, _ := strings.Cut(line, " ")
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "cpu")); err == nil && strings.HasPrefix(name, "cpu") {
			for len(all) <= n {
				all = append(all, [2]int{})
			}
			for i, f := range strings.Fields(rest)[:8] {
				v, _ := strconv.Atoi(f)
				if i == 3 || i == 4 {
					all[n][0] += v
				}
				all[n][1] += v
			}
		}
	}
	return all
}

func busyShare(was, is [][2]int, cpu int) float64 {
	all := is[cpu][1] - was[cpu][1]
	return 1 - float64(is[cpu][0]-was[cpu][0])/float64(max(all, 1))
}

func TestSpeed(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") == "" {
		t.Skip("set AOVLB_BENCH=1 to compare with other balancers")
	}
	rounds, long := 3, 2*time.Second
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH_SECONDS")); err == nil && n > 0 {
		long = time.Duration(n) * time.Second
	}
	l := &speedLab{t: t, dir: t.TempDir()}
	l.settle()
	l.setup()
	l.await()
	if only := os.Getenv("AOVLB_BENCH_ONLY"); only != "" { // some of them, to find out why
		l.all = slices.DeleteFunc(l.all, func(c *contender) bool { return !slices.Contains(strings.Split(only, ","), c.name) })
	}
	for _, at := range []setting{
		{name: "servers that take 5 to 20 ms", ports: 32, window: 64, early: 5 * time.Millisecond, late: 20 * time.Millisecond, beside: 3},
		{name: "prompt servers", ports: 8, window: 12, beside: 3},
		{name: "apart: prompt servers, each packet received by itself", ports: 8, window: 12, apart: true, beside: 3},
		{name: "mixed: prompt servers, packets of many lengths", ports: 8, window: 12, mixed: true, beside: 2},
		{name: "one at a time", ports: 1, window: 1},
	} {
		if only := os.Getenv("AOVLB_BENCH_SETTING"); only != "" && !strings.HasPrefix(at.name, only) {
			continue
		}
		results := make(map[string][]speedResult)
		for round := range rounds {
			for i := range l.all {
				c := l.all[(i+round)%len(l.all)]
				results[c.name] = append(results[c.name], l.run(c, &at, long))
			}
		}
		l.report(&at, results)
	}
}

// spread is the least, the median and the greatest of some values.
func spread(all []float64, form string) string {
	slices.Sort(all)
	return fmt.Sprintf(form+" ("+form+" to "+form+")", all[len(all)/2], all[0], all[len(all)-1])
}

// each returns what f says of each round.
func each[T any](rounds []speedResult, f func(r *speedResult) T) (out []T) {
	for i := range rounds {
		out = append(out, f(&rounds[i]))
	}
	return out
}

// ratios returns how a stands to b in each round.
func ratios(a, b []speedResult, f func(r *speedResult) float64) (out []float64) {
	for i := range min(len(a), len(b)) {
		out = append(out, f(&a[i])/max(f(&b[i]), 1e-9))
	}
	return out
}

func rps(r *speedResult) float64 { return r.rps }
func cpu(r *speedResult) float64 { return float64(r.cpu) / 1e3 }

// report tells what was found, and holds aovlb to what it is meant to do.
func (l *speedLab) report(at *setting, results map[string][]speedResult) {
	t := l.t
	t.Logf("%s: %d ports, %d requests under way at each; median (least to greatest):", at.name, at.ports, at.window)
	for _, c := range l.all {
		all := results[c.name]
		lost := 0
		for _, x := range all {
			lost += x.lost
		}
		latency := func(q int) []float64 {
			return each(all, func(r *speedResult) float64 {
				if len(r.latency) == 0 {
					return 0
				}
				return float64(r.latency[len(r.latency)*q/100].Microseconds())
			})
		}
		t.Logf("%-20s %s/s, CPU %s µs each, p50 %s µs, p99 %s µs, lost %d, its processor busy %s, the shore's %s", c.name,
			spread(each(all, rps), "%.0f"), spread(each(all, cpu), "%.1f"), spread(latency(50), "%.0f"), spread(latency(99), "%.0f"), lost,
			spread(each(all, func(r *speedResult) float64 { return r.limit }), "%.2f"), spread(each(all, func(r *speedResult) float64 { return r.shore }), "%.2f"))
		if lost > 0 && strings.HasPrefix(c.name, "aovlb") {
			t.Errorf("%s lost %d requests", c.name, lost)
		}
	}
	if at.beside > 0 {
		l.judge("aovlb proxy", "FreeRADIUS as proxy", 3, results)
		l.judge("aovlb proxy", "radsecproxy", at.beside, results)
		l.judge("aovlb forward", "nginx stream", 1, results)
	}
}

// judge says whether ours carries so many times what theirs does.
func (l *speedLab) judge(ours, theirs string, times float64, results map[string][]speedResult) {
	a, b := results[ours], results[theirs]
	if len(a) == 0 || len(b) == 0 {
		return
	}
	more := ratios(a, b, rps)
	l.t.Logf("%s beside %s: %s times the requests, %s times the CPU", ours, theirs, spread(more, "%.2f"), spread(ratios(a, b, cpu), "%.2f"))
	if got := more[len(more)/2]; got < times*.95 { // 5 % is what rounds differ by
		l.t.Errorf("%s carries %.2f times what %s does, and should %v times", ours, got, theirs, times)
	}
}

// await waits until each contender answers.
func (l *speedLab) await() {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { l.shore.idle(done) })
	defer wg.Wait()
	defer close(done)
	for _, c := range l.all {
		addr := loopback(c.port)
		if c.name == "direct" {
			addr = netip.MustParseAddrPort("127.0.0.2:" + c.port)
		}
		probe := &Prober{Secret: NewSecret([]byte(speedSecret)), Resend: 100 * time.Millisecond}
		for {
			if err := probe.Probe(ctx, addr); err == nil {
				break
			} else if ctx.Err() != nil {
				log, _ := os.ReadFile(l.dir + "/fr/log")
				l.t.Fatalf("%s doesn't answer: %v\n%s", c.name, err, log)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}
