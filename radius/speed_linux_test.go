package radius

import (
	"context"
	"encoding/binary"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// The speed of the Proxy, and of forwarding by package udp, beside nginx's stream
// module, FreeRADIUS as a proxy and radsecproxy, all on loopback:
//
//	generator ── 8 ports of 12 requests each ── X ─┬─ server
//	                                               └─ server
//
// The servers and the generator are this test's own and the same for all. Every X
// is a process of its own; what it costs is the processor time that the kernel
// has billed to it, per request. How many requests a second pass depends on what
// else the machine has to do, which is the generator and the servers in any case:
// "direct" is without an X. Kinds take turns, so that neighbours on the machine
// disturb all alike.
//
// Run it with
//
//	AOVLB_BENCH=1 go test -run 'TestSpeed$' -v ./radius
//
// with nginx and its stream module, freeradius and radsecproxy. What isn't there
// is left out.

const (
	speedPorts  = 8
	speedWindow = 12
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
	case "server":
		speedServe(t, ports[0])
	case "proxy", "forward":
		speedBalance(t, role, ports)
	}
}

func loopback(port string) netip.AddrPort { return netip.MustParseAddrPort("127.0.0.1:" + port) }

// speedServe answers each request as fast as it can.
func speedServe(t *testing.T, port string) {
	k := newKey(NewSecret([]byte(speedSecret)))
	for _, host := range []string{"127.0.0.2", "127.0.0.3"} {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(host+":"+port)))
		if err != nil {
			t.Fatal(err)
		}
		prepare(c)
		go func() {
			var f frontIO
			var s post
			f.init(c)
			fr := &front{io: f}
			sign := newSigner()
			var bufs [][]byte
			var tos []dest
			arena := make([]byte, 0, 1<<16)
			for {
				n, err := f.recv()
				if err != nil {
					return
				}
				bufs, tos, arena = bufs[:0], tos[:0], arena[:0]
				for i := range n {
					p, err := Parse(f.in.at(i))
					if err != nil {
						continue
					}
					code := AccessAccept
					if p.Code() == AccountingRequest {
						code = AccountingResponse
					}
					at := len(arena)
					arena = sign.short(arena, code, p.Identifier(), k, p.Authenticator(), code == AccessAccept)
					bufs, tos = append(bufs, arena[at:]), append(tos, dest{to: f.in.from(i)})
				}
				for at := 0; at < len(bufs); {
					k, err := s.writeTo(fr, bufs[at:], tos[at:])
					if at += k; err != nil {
						at++
					}
				}
			}
		}()
	}
	fmt.Println("ready")
	select {}
}

// speedBalance is the Proxy, or the forwarding engine. ports are where to listen,
// then that of the servers at 127.0.0.2 and 127.0.0.3.
func speedBalance(t *testing.T, role string, ports []string) {
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "a", Addr: netip.MustParseAddr("127.0.0.2")}, lb.Backend{Name: "b", Addr: netip.MustParseAddr("127.0.0.3")}); err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(ports[1])
	b := &lb.Balancer{Pool: pool, Table: new(lb.Table)}
	conns, err := udp.Listen(t.Context(), loopback(ports[0]), udp.ListenConfig{Sockets: 2})
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
	t   *testing.T
	dir string
	all []*contender
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
	if err := c.Start(); err != nil {
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
	// The servers are at 127.0.0.2 and 127.0.0.3, with one port.
	l.startRole("server", back)
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
	cpu     time.Duration // per request
	lost    int
	latency []time.Duration
}

// run asks c for a while, with so many requests under way at each port.
func (l *speedLab) run(c *contender, window int, d time.Duration) speedResult {
	var done, lost atomic.Int64
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []time.Duration
	cpu := c.cpu()
	begin := time.Now()
	for i := range speedPorts {
		wg.Go(func() {
			target := "127.0.0.1:" + c.port
			if c.name == "direct" {
				target = fmt.Sprintf("127.0.0.%d:%s", 2+i%2, c.port)
			}
			n, miss, took := l.generate(target, i, window, begin.Add(d))
			done.Add(int64(n))
			lost.Add(int64(miss))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		})
	}
	wg.Wait()
	took := time.Since(begin)
	n := max(done.Load(), 1)
	slices.Sort(all)
	return speedResult{rps: float64(n) / took.Seconds(), cpu: (c.cpu() - cpu) / time.Duration(n), lost: int(lost.Load()), latency: all}
}

var speedSerial atomic.Uint64

// generate keeps window requests under way from one port until end.
func (l *speedLab) generate(target string, port, window int, end time.Time) (done, lost int, took []time.Duration) {
	conn, err := net.Dial("udp", target)
	if err != nil {
		l.t.Error(err)
		return 0, 0, nil
	}
	defer conn.Close()
	u := conn.(*net.UDPConn)
	prepare(u)
	var lio linkIO
	lio.init(u)
	var out post
	k, sign := newKey(NewSecret([]byte(speedSecret))), newSigner()
	var sent [256]struct {
		auth [16]byte
		at   time.Time
		busy bool
	}
	next := byte(0)
	request := func(b []byte) []byte {
		for sent[next].busy {
			next++
		}
		id := next
		next++
		n := speedSerial.Add(1)
		b = append(b, byte(AccessRequest), id, 0, 0)
		b = binary.BigEndian.AppendUint64(b, n*0x9e3779b97f4a7c15)
		b = binary.BigEndian.AppendUint64(b, n)
		b = appendAttribute(b, MessageAuthenticator, make([]byte, 16))
		b = appendAttribute(b, UserName, fmt.Appendf(nil, "user%d@example.com", n%2000))
		b = appendAttribute(b, UserPassword, b[4:20])
		b = appendAttribute(b, CallingStationID, fmt.Appendf(nil, "02-00-00-00-%02X-%02X", n%2000/256, n%2000%256))
		b = appendAttribute(b, NASIPAddress, []byte{127, 0, 0, byte(port)})
		finish(b)
		s := &sent[id]
		s.auth, s.at, s.busy = [16]byte(b[4:20]), time.Now(), true
		mac := sign.message(b, HeaderLen, k, s.auth)
		copy(b[HeaderLen+2:], mac[:])
		return b
	}
	var store [256][]byte
	var bufs [][]byte
	post := func(n int) {
		bufs = bufs[:0]
		for i := range n {
			store[i] = request(store[i][:0])
			bufs = append(bufs, store[i])
		}
		if _, err := out.write(&lio, bufs); err != nil {
			l.t.Error(err)
		}
	}
	post(window)
	waiting := window
	for waiting > 0 {
		_ = u.SetReadDeadline(time.Now().Add(time.Second))
		n, err := lio.recv()
		if err != nil {
			break
		}
		now := time.Now()
		got := 0
		for i := range n {
			p, err := Parse(lio.in.at(i))
			if err != nil {
				l.t.Error(err)
				continue
			}
			s := &sent[p.Identifier()]
			if !s.busy {
				continue
			}
			if p.Code() != AccessAccept || done%16 == 0 && !sign.rightAnswer(p, k, s.auth) {
				l.t.Errorf("%s: wrong answer %v", target, p.Code())
			}
			s.busy = false
			if done%8 == 0 {
				took = append(took, now.Sub(s.at))
			}
			done, got, waiting = done+1, got+1, waiting-1
		}
		if got > 0 && now.Before(end) {
			post(got)
			waiting += got
		}
	}
	return done, waiting, took
}

func median[T any](all []T, less func(a, b T) int) T {
	all = slices.Clone(all)
	slices.SortFunc(all, less)
	return all[len(all)/2]
}

func TestSpeed(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") == "" {
		t.Skip("set AOVLB_BENCH=1 to compare with other balancers")
	}
	rounds, each := 3, 2*time.Second
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	l := &speedLab{t: t, dir: t.TempDir()}
	l.setup()
	l.await()
	if only := os.Getenv("AOVLB_BENCH_ONLY"); only != "" { // some of them, to find out why
		l.all = slices.DeleteFunc(l.all, func(c *contender) bool { return !slices.Contains(strings.Split(only, ","), c.name) })
	}
	for _, window := range []int{speedWindow, 1} {
		results := make(map[string][]speedResult)
		for round := range rounds {
			for i := range l.all {
				c := l.all[(i+round)%len(l.all)]
				results[c.name] = append(results[c.name], l.run(c, window, each))
			}
		}
		l.report(window, results)
	}
}

func byRPS(a, b speedResult) int { return int(a.rps - b.rps) }

// report tells the medians, and holds the Proxy to what it is meant to do.
func (l *speedLab) report(window int, results map[string][]speedResult) {
	t := l.t
	direct := median(append(results["direct"], speedResult{}), byRPS)
	t.Logf("%d ports, %d requests under way at each:", speedPorts, window)
	best := make(map[string]speedResult)
	for _, c := range l.all {
		r := median(results[c.name], byRPS)
		best[c.name] = r
		lost := 0
		for _, x := range results[c.name] {
			lost += x.lost
		}
		if len(r.latency) == 0 {
			t.Logf("%-20s nothing", c.name)
			continue
		}
		t.Logf("%-20s %7.0f/s, %.2f of direct, CPU %5.1f µs/request, p50 %v, p99 %v, lost %d", c.name, r.rps, r.rps/direct.rps,
			float64(r.cpu)/1e3, r.latency[len(r.latency)/2].Round(time.Microsecond), r.latency[len(r.latency)*99/100].Round(time.Microsecond), lost)
		if lost > 0 && strings.HasPrefix(c.name, "aovlb") {
			t.Errorf("%s lost %d requests", c.name, lost)
		}
	}
	if window == 1 {
		return // latency is what is looked at there
	}
	// The generator and the servers take more of the processors than the Proxy
	// does, so that nobody, were it for nothing, could carry many times what
	// another does: what counts is the processor time.
	for other, times := range map[string]float64{"FreeRADIUS as proxy": 3, "radsecproxy": 1.3} {
		if o := best[other]; o.rps > 0 {
			less := float64(o.cpu) / float64(best["aovlb proxy"].cpu)
			t.Logf("the proxy beside %s: %.1f times the requests, %.1f times less CPU", other, best["aovlb proxy"].rps/o.rps, less)
			if less < times || best["aovlb proxy"].rps < o.rps {
				t.Errorf("the proxy doesn't do %.1f times what %s does with a processor, or carries less", times, other)
			}
		}
	}
	if o := best["nginx stream"]; o.rps > 0 {
		t.Logf("forwarding beside nginx stream: %.2f times the requests, %.2f times the CPU", best["aovlb forward"].rps/o.rps, float64(best["aovlb forward"].cpu)/float64(o.cpu))
		if best["aovlb forward"].rps < o.rps*.95 { // 5 % is what rounds differ by
			t.Error("forwarding is slower than nginx")
		}
	}
}

// await waits until each contender answers.
func (l *speedLab) await() {
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
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
