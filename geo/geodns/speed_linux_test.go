package geodns_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/aovlb/aovlb/geo/mmdb"
	"github.com/miekg/dns"
)

// The speed of the server beside gdnsd, knot, PowerDNS and a handler on miekg/dns,
// on loopback: each server has CPU 0 for itself, dnsperf has CPU 1. They take
// turns, in random order; what counts is the CPU time a server takes for an
// answer, as the generator nearly needs its CPU whole. Run it with
//
//	AOVLB_BENCH=1 AOVLB_TESTDATA=... go test -run TestSpeed -v -timeout 10m ./geo/geodns
//
// Latency is taken by an asker of our own; see speedLatency.

const (
	childEnv   = "AOVLB_GEODNS_CHILD"
	cityDB     = "GeoIP2-City-Test.mmdb"
	subnetHex  = "8:00011800027da0" // 2.125.160.0/24
	speedSites = "GB US SE JP"
)

// TestChild is no test: it is the server, and the plain handler, in a process
// that can be billed.
func TestChild(t *testing.T) {
	kind, listen, _ := strings.Cut(os.Getenv(childEnv), " ")
	if kind == "" {
		t.Skip("only for TestSpeed: it serves in a process of its own")
	}
	runtime.GOMAXPROCS(1)
	pc, err := net.ListenPacket("udp", listen)
	if err != nil {
		t.Fatal(err)
	}
	_ = pc.(*net.UDPConn).SetReadBuffer(4 << 20)
	if kind == "plain" {
		srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(plain)}
		go func() { _ = srv.ActivateAndServe() }()
	} else {
		srv := speedServer(t, kind == "signed")
		go func() { _ = srv.ServePacket(context.Background(), pc) }()
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
}

// plain is the least that a handler does.
func plain(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.IPv4(192, 0, 2, 1)}}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(1232, false)
		for _, opt := range o.Option {
			if s, ok := opt.(*dns.EDNS0_SUBNET); ok {
				s.SourceScope = 24
				m.IsEdns0().Option = append(m.IsEdns0().Option, s)
			}
		}
	}
	_ = w.WriteMsg(m)
}

func speedServer(t *testing.T, signed bool) *geodns.Server {
	db, err := mmdb.Open(filepath.Join(os.Getenv("AOVLB_TESTDATA"), "geo", cityDB))
	if err != nil {
		t.Fatal(err)
	}
	var list []geo.Site
	for i, c := range []geo.Place{at("GB", 51.5, -0.1), at("US", 47.6, -122.3), at("SE", 59.3, 18), at("JP", 35.7, 139.7)} {
		list = append(list, geo.Site{Name: c.Country, Place: c, Gateways: []geo.Gateway{{Name: "g", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}}}})
	}
	plan, err := (&geo.Policy{Order: []geo.Criterion{geo.ByDistance}}).Compile(list, db, nil)
	if err != nil {
		t.Fatal(err)
	}
	var h geo.Health
	if err := h.Set(list...); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		_ = h.Mark(s.Name, "g", geo.Up, "")
	}
	z := parseZone(t, "example.com", "@ 300 SOA ns h 1 2 3 4 60\n@ 300 NS ns\nns 300 A 192.0.2.53\n")
	if signed {
		k, err := geodns.GenerateKey("example.com")
		if err != nil {
			t.Fatal(err)
		}
		k.Active = true
		z.Keys = &geodns.Keys{Keys: []*geodns.Key{k}}
	}
	n := &geodns.Name{Name: "vpn.example.com"}
	s := new(geodns.Server)
	where, err := geo.NewCountryMap(db, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.CountBy(where)
	if err := s.Set([]*geodns.Zone{z}, []*geodns.Name{n}); err != nil {
		t.Fatal(err)
	}
	n.Update(plan.Select(h.View(), n.Name))
	return s
}

func at(country string, lat, lon float64) geo.Place {
	return geo.Place{Country: country, Coordinates: geo.Coordinates{Latitude: lat, Longitude: lon}, Located: true}
}

// speedPeer is a server that takes part.
type speedPeer struct {
	name, addr string
	pid        int
	do         bool // queries want signatures
}

// TestSpeed has two parts, each of a minute or so, that may be run apart:
// TestSpeed$/throughput and TestSpeed$/latency.
func TestSpeed(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") == "" {
		t.Skip("AOVLB_BENCH is not set: this measures for minutes")
	}
	for _, tool := range []string{"dnsperf", "taskset"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs " + tool)
		}
	}
	if os.Getenv("AOVLB_TESTDATA") == "" {
		t.Skip("AOVLB_TESTDATA is not set: it names the folder with MaxMind's test databases")
	}
	queries := filepath.Join(t.TempDir(), "queries")
	if err := os.WriteFile(queries, []byte("vpn.example.com A\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("throughput", func(t *testing.T) { speedThroughput(t, queries) })
	t.Run("latency", func(t *testing.T) { speedLatency(t) })
}

// speedRounds is how often all take their turn.
func speedRounds() int {
	if n, err := strconv.Atoi(os.Getenv("AOVLB_BENCH_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 3
}

func speedThroughput(t *testing.T, queries string) {
	dir := t.TempDir()
	peers := []speedPeer{
		child(t, "geodns", "127.0.0.1:5301"),
		child(t, "signed", "127.0.0.1:5302"),
		child(t, "plain", "127.0.0.1:5303"),
	}
	peers = append(peers, gdnsd(t, dir)...)
	peers = append(peers, knot(t, dir)...)
	peers = append(peers, powerDNS(t, dir)...)
	cpu, rate := make(map[string][]float64), make(map[string][]float64)
	for range speedRounds() {
		for _, i := range rand.Perm(len(peers)) {
			p := peers[i]
			perf(t, p, queries, 1) // warm
			before := cpuTime(t, p.pid)
			qps, answers := perf(t, p, queries, 4)
			used := cpuTime(t, p.pid) - before
			rate[p.name] = append(rate[p.name], qps/1000)
			cpu[p.name] = append(cpu[p.name], float64(used.Nanoseconds())/1000/answers)
		}
	}
	for _, p := range peers {
		t.Logf("%-8s %s thousand answers a second, %s µs of CPU each", p.name, spread(rate[p.name]), spread(cpu[p.name]))
	}
	ratio := func(a, b string) []float64 {
		var r []float64
		for i := range cpu[a] {
			r = append(r, cpu[b][i]/cpu[a][i])
		}
		return r
	}
	for _, goal := range []struct {
		a, b string
		want float64
	}{{"geodns", "gdnsd", 0.9}, {"geodns", "plain", 2}, {"geodns", "powerdns", 3}, {"signed", "geodns", 0.5}, {"geodns", "knot", 0}} {
		if len(cpu[goal.b]) == 0 {
			continue
		}
		r := ratio(goal.a, goal.b)
		t.Logf("%s answers per CPU time, times those of %s: %s", goal.a, goal.b, spread(r))
		if m := median(r); m < goal.want {
			t.Errorf("%s does %.2f times what %s does, want %.1f", goal.a, m, goal.b, goal.want)
		}
	}
}

// latencyFor is how long a round of speedLatency takes: so long that one pause of
// 10 ms, of whatever makes it, isn't a hundredth of the queries.
const latencyFor = 5 * time.Second

// speedLatency has each server asked at 70 % of what it can answer, by an asker
// whose queries come when they are due, whatever the answers do. Each server has
// CPU 0, and the asker CPU 1, before all others; a round in which something took
// these from them is logged, and done again.
func speedLatency(t *testing.T) {
	dir := t.TempDir()
	peers := append([]speedPeer{child(t, "geodns", "127.0.0.1:5301")}, gdnsd(t, dir)...)
	load := make(map[string]float64)
	judge := true
	for _, p := range peers {
		judge = first(t, p.pid) && judge
		all := alone(peers, p)
		askAt(t, askerWork{Addr: p.addr, Window: 200, For: time.Second}) // warm
		load[p.name] = 0.7 * askAt(t, askerWork{Addr: p.addr, Window: 200, For: 3 * time.Second}).QPS
		all()
	}
	took := make(map[string][]askerReport)
	spoilt := 0
	for range speedRounds() {
		for _, i := range rand.Perm(len(peers)) {
			p := peers[i]
			for {
				r, why := latencyRound(t, peers, p, load[p.name])
				if why == "" {
					took[p.name] = append(took[p.name], r)
					break
				}
				t.Logf("%-8s that round doesn't count: %s", p.name, why)
				if spoilt++; spoilt > 2*speedRounds() {
					t.Skip("the machine has too much else to do for a measurement of latency")
				}
			}
		}
	}
	for _, p := range peers {
		of := func(v func(r *askerReport) float64) (list []float64) {
			for i := range took[p.name] {
				list = append(list, v(&took[p.name][i]))
			}
			return list
		}
		p99 := of(func(r *askerReport) float64 { return r.Whole99 })
		t.Logf("%-8s at %.0f queries a second: p50 %s µs, p99 %s µs; until the kernel has the answer, p50 %s µs, p99 %s µs, p99.9 %s µs", p.name, load[p.name],
			spread(of(func(r *askerReport) float64 { return r.Whole50 })), spread(p99),
			spread(of(func(r *askerReport) float64 { return r.Server50 })), spread(of(func(r *askerReport) float64 { return r.Server99 })), spread(of(func(r *askerReport) float64 { return r.Server999 })))
		if p.name == "gdnsd" || !judge {
			continue
		}
		if median(p99) > 1000 {
			t.Errorf("%s: p99 is %s µs, want 1000 at most", p.name, spread(p99))
		}
		if lost := median(of(func(r *askerReport) float64 { return float64(r.Lost+r.Wrong) / r.QPS / latencyFor.Seconds() })); lost > 0.001 {
			t.Errorf("%s: %.2f %% of the queries got no answer, or a wrong one", p.name, 100*lost)
		}
	}
}

// latencyRound asks one server for a while. It says why, if what was measured is
// not the server.
func latencyRound(t *testing.T, peers []speedPeer, p speedPeer, rate float64) (r askerReport, why string) {
	all := alone(peers, p)
	ran, waited := schedule(p.pid)
	stolen := steal()
	r = askAt(t, askerWork{Addr: p.addr, Rate: rate, For: latencyFor})
	ranThen, waitedThen := schedule(p.pid)
	ran, waited, stolen = ranThen-ran, waitedThen-waited, steal()-stolen
	all()
	t.Logf("%-8s ran %v, waited %v for its CPU, the host took %v; %+v", p.name, ran.Round(time.Millisecond), waited.Round(time.Millisecond), stolen, r)
	switch {
	case waited > latencyFor/50:
		why = "the kernel kept the server from its processor"
	case stolen > latencyFor/100:
		why = "the host had its processors do something else"
	case float64(r.Late) > r.QPS*latencyFor.Seconds()/100:
		why = "the asker was late itself"
	}
	return r, why
}

// steal returns for how long the host of a virtual machine had its processors do
// something else.
func steal() time.Duration {
	b, _ := os.ReadFile("/proc/stat")
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return 0
	}
	ticks, _ := strconv.ParseInt(f[8], 10, 64)
	return time.Duration(ticks) * 10 * time.Millisecond
}

// first has the threads of a process go before all that the machine does
// besides (SCHED_FIFO), as on a processor of their own. It takes root; it reports
// whether it could.
//
// A kernel with groups of such processes (CONFIG_RT_GROUP_SCHED) stops them for the
// rest of a second in which they have run for 950 ms, even where nobody else wants
// to run (sched_rt_runtime_us). A server that catches up after a pause gets there:
// latencyRound sees that it waited.
func first(t *testing.T, pid int) bool {
	t.Helper()
	out, err := exec.Command("chrt", "-a", "-f", "-p", "1", strconv.Itoa(pid)).CombinedOutput()
	if err != nil {
		t.Logf("whatever else runs on the processor is measured, too, so nothing is judged: %v %s", err, out)
	}
	return err == nil
}

// alone stops all peers but one, and returns what has them go on.
func alone(peers []speedPeer, but speedPeer) (all func()) {
	signal := func(s syscall.Signal) {
		for _, p := range peers {
			if p.pid != but.pid {
				_ = syscall.Kill(p.pid, s)
			}
		}
	}
	signal(syscall.SIGSTOP)
	return func() { signal(syscall.SIGCONT) }
}

// askAt has an asker do its work on CPU 1.
func askAt(t *testing.T, w askerWork) (r askerReport) {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithTimeout(t.Context(), w.For+10*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "taskset", "-c", "1", os.Args[0], "-test.run=^TestAsker$")
	c.Env = append(os.Environ(), askerEnv+"="+string(text))
	c.ExtraFiles = []*os.File{in}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	err = c.Start()
	_ = in.Close()
	if err != nil {
		t.Fatal(err)
	}
	first(t, c.Process.Pid)
	if err := c.Wait(); err != nil {
		t.Fatalf("asker: %v\n%s", err, &said)
	}
	if err := json.NewDecoder(out).Decode(&r); err != nil {
		t.Fatal(err)
	}
	return r
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}

func spread(v []float64) string {
	return fmt.Sprintf("%.2f (%.2f-%.2f)", median(v), slices.Min(v), slices.Max(v))
}

// child serves in a process of its own.
func child(t *testing.T, kind, addr string) speedPeer {
	c := exec.Command("taskset", "-c", "0", os.Args[0], "-test.run=^TestChild$", "-test.timeout=0")
	c.Env = append(os.Environ(), childEnv+"="+kind+" "+addr)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, c)
	t.Cleanup(func() { _ = in.Close() })
	return ready(t, speedPeer{name: kind, addr: addr, pid: c.Process.Pid, do: kind == "signed"})
}

// start runs a server until the test ends.
func start(t *testing.T, c *exec.Cmd) {
	t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	c.Stdout, c.Stderr = f, f
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
		_ = f.Close()
		if b, _ := os.ReadFile(out); t.Failed() {
			t.Logf("%s:\n%s", c.Args, b)
		}
	})
}

// ready waits until a server answers.
func ready(t *testing.T, p speedPeer) speedPeer {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion("vpn.example.com.", dns.TypeA)
	for end := time.Now().Add(10 * time.Second); ; {
		r, _, err := (&dns.Client{Timeout: 200 * time.Millisecond}).Exchange(m, p.addr)
		if err == nil && r.Rcode == 0 && len(r.Answer) > 0 {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("%s doesn't answer: %v %v", p.name, err, r)
		}
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

func have(t *testing.T, tool string) bool {
	if _, err := exec.LookPath(tool); err != nil {
		t.Logf("without %s, which is not installed", tool)
		return false
	}
	return true
}

func gdnsd(t *testing.T, dir string) []speedPeer {
	if !have(t, "gdnsd") {
		return nil
	}
	dir = filepath.Join(dir, "gdnsd")
	db := filepath.Join(os.Getenv("AOVLB_TESTDATA"), "geo", cityDB)
	write(t, dir, "config", `options => { listen => 127.0.0.1:5304, run_dir => "`+dir+`/run", state_dir => "`+dir+`/state", udp_threads => 1, tcp_threads => 1, zones_default_ttl => 60 }
plugins => { geoip => {
  maps => { m => { geoip2_db => `+db+`, datacenters => [`+strings.Join(strings.Fields(speedSites), ", ")+`],
    auto_dc_coords => { GB => [51.5, -0.1], US => [47.6, -122.3], SE => [59.3, 18], JP => [35.7, 139.7] } } },
  resources => { vpn => { map => m, dcmap => { GB => 192.0.2.1, US => 192.0.2.2, SE => 192.0.2.3, JP => 192.0.2.4 } } } } }
`)
	write(t, dir, "zones/example.com", "@ SOA ns h 1 7200 1800 259200 900\n@ NS ns\nns A 192.0.2.53\nvpn 60 DYNA geoip!vpn\n")
	for _, d := range []string{"run", "state"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("taskset", "-c", "0", "gdnsd", "-c", dir, "start")
	start(t, c)
	return []speedPeer{ready(t, speedPeer{name: "gdnsd", addr: "127.0.0.1:5304", pid: c.Process.Pid})}
}

func knot(t *testing.T, dir string) []speedPeer {
	if !have(t, "knotd") {
		return nil
	}
	dir = filepath.Join(dir, "knot")
	zone := write(t, dir, "example.com.zone", "@ 60 SOA ns h 1 7200 1800 259200 900\n@ 60 NS ns\nns 60 A 192.0.2.53\nvpn 60 A 192.0.2.1\n")
	conf := write(t, dir, "knot.conf", `server:
  listen: 127.0.0.1@5305
  rundir: `+dir+`
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: `+dir+`
zone:
  - domain: example.com
    file: `+zone+`
`)
	c := exec.Command("taskset", "-c", "0", "knotd", "-c", conf)
	start(t, c)
	return []speedPeer{ready(t, speedPeer{name: "knot", addr: "127.0.0.1:5305", pid: c.Process.Pid})}
}

func powerDNS(t *testing.T, dir string) []speedPeer {
	if !have(t, "pdns_server") {
		return nil
	}
	dir = filepath.Join(dir, "pdns")
	zones := write(t, dir, "zones.yml", `domains:
- domain: example.com
  ttl: 60
  records:
    example.com:
      - soa: ns.example.com h.example.com 1 7200 1800 259200 900
      - ns: ns.example.com
    gb.example.com:
      - a: 192.0.2.1
    us.example.com:
      - a: 192.0.2.2
  services:
    vpn.example.com: [ '%cc.example.com', 'gb.example.com' ]
`)
	db := filepath.Join(os.Getenv("AOVLB_TESTDATA"), "geo", cityDB)
	c := exec.Command("taskset", "-c", "0", "pdns_server", "--config-dir="+dir, "--socket-dir="+dir, "--module-dir=/usr/lib/x86_64-linux-gnu/pdns", "--launch=geoip", "--geoip-zones-file="+zones, "--geoip-database-files=mmdb:"+db,
		"--local-address=127.0.0.1", "--local-port=5306", "--edns-subnet-processing=yes", "--receiver-threads=1", "--distributor-threads=1", "--daemon=no", "--guardian=no", "--write-pid=no", "--setuid=", "--setgid=")
	start(t, c)
	return []speedPeer{ready(t, speedPeer{name: "powerdns", addr: "127.0.0.1:5306", pid: c.Process.Pid})}
}

var (
	perfRate = regexp.MustCompile(`Queries per second: +([0-9.]+)`)
	perfDone = regexp.MustCompile(`Queries completed: +([0-9]+)`)
)

// perf asks as fast as it can, for some seconds.
func perf(t *testing.T, p speedPeer, queries string, secs int) (qps, answers float64) {
	t.Helper()
	host, port, _ := strings.Cut(p.addr, ":")
	args := []string{"-c", "1", "dnsperf", "-s", host, "-p", port, "-d", queries, "-l", strconv.Itoa(secs), "-c", "8", "-q", "400", "-T", "1", "-e", "-E", subnetHex}
	if p.do {
		args = append(args, "-D")
	}
	out, err := exec.Command("taskset", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dnsperf: %v\n%s", err, out)
	}
	num := func(re *regexp.Regexp) float64 {
		m := re.FindSubmatch(out)
		if m == nil {
			t.Fatalf("dnsperf said\n%s", out)
		}
		v, _ := strconv.ParseFloat(string(m[1]), 64)
		return v
	}
	return num(perfRate), num(perfDone)
}

// cpuTime returns what a process, with all its threads, has used.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	used, _ := schedule(pid)
	return used
}

// schedule returns for how long the threads of a process have run, and for how long
// they would have run, had the processor not had something else to do.
func schedule(pid int) (ran, waited time.Duration) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, f := range files {
		var r, w int64
		b, _ := os.ReadFile(f)
		_, _ = fmt.Sscan(string(b), &r, &w)
		ran, waited = ran+time.Duration(r), waited+time.Duration(w)
	}
	return ran, waited
}
