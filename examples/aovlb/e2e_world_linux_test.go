package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/plugins"
)

// The tests of e2e_*_linux_test.go run this program, as its users do, between
// real peers in network namespaces:
//
//	pc1 198.18.1.1 ──┐                                                     ┌── ras1 10.1.0.11
//	pc2 198.18.1.2 ──┤ "public"                                   "dc"     ├── ras2 10.1.0.12
//	                 ├ 198.18.0.0/16 ── VIP 198.18.0.100 lb 10.1.0.1 ──────┤
//	     nat 198.18.2.1 ──┘                                   10.1.0.0/24  └── ras3 10.1.0.13
//	192.168.1.0/24 ── pc…
//
// They need root and AOVLB_PEERS=1. With AOVLB_E2E=dnat the kernel sends all
// traffic to ras1 instead and the program isn't used: that shows whether a
// scenario itself works on a machine, and which can't without a balancer.

const (
	vip  = "198.18.0.100"
	vip6 = "2001:db8:1::100" // for the scenario over IPv6
)

var (
	vipAddr  = netip.MustParseAddr(vip)
	vip6Addr = netip.MustParseAddr(vip6)
)

// program is the built program. It lives as long as the first test that uses it,
// which is the parent of all others that use it at the time.
var program struct {
	mu   sync.Mutex
	path string
}

// useProgram builds the program, unless a parent of the test has.
func useProgram(t *testing.T) string {
	t.Helper()
	p := &program
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.path != "" {
		return p.path
	}
	path := filepath.Join(t.TempDir(), "aovlb")
	args := append([]string{"build", "-o", path}, raceFlag()...)
	if out, err := exec.CommandContext(t.Context(), "go", append(args, ".")...).CombinedOutput(); err != nil {
		t.Fatalf("building: %v: %s", err, out)
	}
	p.path = path
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.path = ""
	})
	return path
}

// raceFlag has the program look for data races if the test does.
func raceFlag() []string {
	info, _ := debug.ReadBuildInfo()
	if info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return []string{"-race"}
	}
	return nil
}

// A world is one test's net, with the balancer and its gateways.
type world struct {
	*peers.Net
	t        *testing.T
	pki      *peers.PKI
	public   *peers.Segment
	dc       *peers.Segment
	lb       *peers.Host
	servers  []*peers.Host // behind the balancer
	gateways []*peers.Swan
	program  string
	balancer *peers.Proc
	options  options
	starts   int
	clients  int
}

// options are what a scenario asks of its world.
type options struct {
	gateways    int
	transparent bool
	ipv6        bool
	affinity    string // spi or source; empty means spi
	bits        int    // of RSA keys; 0 means 2048
	gateway     peers.Gateway
	proxy       bool                 // RADIUS is proxied, with other secrets on the servers' side
	fragment    int                  // of the RADIUS servers' EAP; 0 means 1000
	fastpath    plugins.FastPathHook // the kernel carries what it can; empty: it doesn't
}

// newWorld makes gateways, and starts the balancer in front of them.
func newWorld(t *testing.T, o options) *world {
	t.Helper()
	return newWorldOf(t, o, o.gateways)
}

// newWorldOf is newWorld with only the first n gateways in the balancer's file.
func newWorldOf(t *testing.T, o options, n int) *world {
	t.Helper()
	if o.bits == 0 {
		o.bits = 2048
	}
	w := newNet(t, o)
	w.pki = peers.NewPKI(t, o.bits)
	for i := range o.gateways {
		g := o.gateway
		g.ID, g.PKI = i+1, w.pki
		if g.Settings == nil {
			// A gateway that takes one copy of a first message, and wants a
			// cookie for another that came first, ends up with another
			// message than its client, and refuses AUTH. That happens to
			// clients behind one address where answers take a second.
			g.Settings = map[string]string{"cookie_threshold_ip": "0", "block_threshold": "0"}
		}
		w.gateways = append(w.gateways, w.server(fmt.Sprintf("ras%d", i+1)).Gateway(g))
	}
	w.start(n)
	w.watchFastPath()
	return w
}

// newNet makes the net with the balancer's host, and no servers.
func newNet(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, options: o}
	if !useDNAT() {
		w.program = useProgram(t)
	}
	w.Net = peers.New(t)
	w.public, w.dc = w.Segment("public"), w.Segment("dc")
	w.lb = w.Host("lb")
	if o.ipv6 {
		w.lb.Attach(w.public, vip6+"/64")
		w.lb.Attach(w.dc, "2001:db8:2::1/64")
		return w
	}
	w.lb.Attach(w.public, vip+"/16")
	w.lb.Attach(w.dc, "10.1.0.1/24")
	if o.transparent {
		// What gateways answer to clients is for the balancer's sockets.
		w.lb.IP("rule add fwmark 1 lookup 100", "route add local default dev lo table 100")
		w.lb.NFT(`
table ip divert {
	chain pre {
		type filter hook prerouting priority mangle
		iifname "eth1" ip daddr != 10.1.0.0/24 ip protocol { tcp, udp } meta mark set 1 accept
	}
}`)
	}
	return w
}

// server makes the next host behind the balancer.
func (w *world) server(name string) *peers.Host {
	w.t.Helper()
	h := w.Host(name)
	if w.options.ipv6 {
		h.Attach(w.dc, fmt.Sprintf("2001:db8:2::%d/64", 11+len(w.servers)))
		w.servers = append(w.servers, h)
		return h
	}
	h.Attach(w.dc, fmt.Sprintf("10.1.0.%d/24", 11+len(w.servers)))
	h.IP("route add default via 10.1.0.1")
	w.servers = append(w.servers, h)
	return h
}

// useDNAT says that the kernel stands in for the program.
func useDNAT() bool { return os.Getenv("AOVLB_E2E") == "dnat" }

// needBalancer skips what one gateway can't show.
func needBalancer(t *testing.T) {
	t.Helper()
	if useDNAT() {
		t.Skip("needs the balancer: AOVLB_E2E=dnat is set")
	}
}

// yaml is the deployment of the VPN scenarios, with these servers.
func (w *world) yaml(servers []*peers.Host) string {
	var b strings.Builder
	b.WriteString("name: e2e\nsites:\n  - name: hq\n    pools:\n      - name: ras\n        backends:\n")
	for _, h := range servers {
		fmt.Fprintf(&b, "          - {name: %s, address: %s}\n", h.Name, h.Addr())
	}
	b.WriteString("        checks:\n          - {type: ikev2, interval: 1s, timeout: 1s, rise: 1, fall: 2}\n")
	affinity, addr := w.options.affinity, vipAddr
	if affinity == "" {
		affinity = "spi"
	}
	if w.options.ipv6 {
		addr = vip6Addr
	}
	fmt.Fprintf(&b, `    groups:
      - name: vpn
        pool: ras
        affinity: %s
        client_address: %s
        listeners:
          - {name: ike, protocol: ikev2, address: "%s"}
          - {name: nat-t, protocol: ikev2, address: "%s"}
`, affinity, w.clientAddress(), netip.AddrPortFrom(addr, 500), netip.AddrPortFrom(addr, 4500))
	if w.options.fastpath != "" {
		fmt.Fprintf(&b, "    fastpath: require\n    fastpath_options: {hook: %s}\n", w.options.fastpath)
	}
	return b.String()
}

// clientAddress is the client_address of the file.
func (w *world) clientAddress() string {
	if w.options.transparent {
		return "transparent"
	}
	return "nat"
}

// start starts the balancer of the VPN scenarios before the first n servers.
func (w *world) start(n int) {
	w.t.Helper()
	if useDNAT() {
		w.lb.Sysctl("ipv4/ip_forward", "1")
		w.lb.NFT(fmt.Sprintf(`
table ip standin {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr %s udp dport { 500, 4500 } dnat to 10.1.0.11
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" masquerade
	}
}`, vip))
		return
	}
	w.serve(w.yaml(w.servers[:n]))
}

func (w *world) config() string { return filepath.Join(w.Dir, "aovlb.yaml") }
func (w *world) state() string  { return filepath.Join(w.Dir, "state") }
func (w *world) admin() string  { return filepath.Join(w.Dir, "admin.sock") }

// serve writes the file, with the program's own settings added, and runs it
// until the test ends. It returns when every listener is open.
func (w *world) serve(deployment string) {
	w.t.Helper()
	w.write(deployment)
	w.restart()
}

func (w *world) write(deployment string) {
	w.t.Helper()
	text := deployment + fmt.Sprintf("admin: {listen: \"unix:%s\"}\nstate: %s\nlog: {level: info, format: text}\n",
		w.admin(), w.state())
	if err := os.WriteFile(w.config(), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// restart starts the program on the file that is there.
func (w *world) restart() {
	w.t.Helper()
	w.starts++
	p := w.lb.Start(fmt.Sprintf("aovlb%d", w.starts), nil, w.program, "serve", w.config())
	w.balancer = p
	w.t.Cleanup(func() {
		p.Stop()
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(p.Output(), bad) {
				w.t.Errorf("%s in the output of aovlb:\n%s", bad, p.Output())
			}
		}
	})
	peers.Eventually(w.t, 20*time.Second, "aovlb being ready", func() error {
		select {
		case <-p.Done():
			w.t.Fatalf("aovlb ended: %v\n%s", p.Stop(), p.Output())
		default:
		}
		if !strings.Contains(p.Output(), "ready") {
			return fmt.Errorf("it said %q", p.Output())
		}
		return nil
	})
}

// command runs another command of the program beside the one that serves.
func (w *world) command(args ...string) string {
	w.t.Helper()
	out, err := w.lb.Run(append([]string{w.program}, args...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// reload has the program read a changed file.
func (w *world) reload(deployment string) {
	w.t.Helper()
	w.write(deployment)
	w.balancer.Signal(syscall.SIGHUP)
}

// pc makes a client at a public address of its own, or, given a NAT, behind it.
// Tunnels without a Server go to the balancer.
func (w *world) pc(nat *peers.NAT, tunnels ...peers.Tunnel) *peers.Swan {
	w.t.Helper()
	w.clients++
	h := w.Host(fmt.Sprintf("pc%d", w.clients))
	server := vipAddr
	if w.options.ipv6 {
		server = vip6Addr
		h.Attach(w.public, fmt.Sprintf("2001:db8:1:0:1::%d/64", w.clients))
	} else if nat != nil {
		nat.Join(h, fmt.Sprintf("192.168.1.%d/24", 10+w.clients))
	} else {
		h.Attach(w.public, fmt.Sprintf("198.18.1.%d/16", w.clients))
	}
	for i := range tunnels {
		tun := &tunnels[i]
		if !tun.Server.IsValid() {
			tun.Server = server
		}
		if tun.Name == "" {
			tun.Name = "user"
		}
		if tun.User == "" && tun.Machine == "" {
			tun.User = fmt.Sprintf("user%d", w.clients)
		}
	}
	return h.Client(w.pki, tunnels...)
}

// nat makes the NAT router of a scenario.
func (w *world) nat() *peers.NAT {
	return w.NAT("nat", w.public, "192.168.1.1/24", "198.18.2.1/16", "198.18.2.2/16")
}

// up dials a tunnel, pings through it, and returns the gateway it is at.
func (w *world) up(c *peers.Swan, name string) int {
	w.t.Helper()
	if err := c.Up(name, 30*time.Second); err != nil {
		w.t.Fatal(err)
	}
	return c.MustPing(w.t, name, 10*time.Second)
}

// A tunnel is what must not change while a tunnel lives.
type tunnel struct {
	client  *peers.Swan
	name    string
	gateway int
	unique  string
	vip     netip.Addr
}

// live notes a tunnel that is up.
func (w *world) live(c *peers.Swan, name string) tunnel {
	w.t.Helper()
	sa, err := c.SA(name)
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := c.Gateway(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return tunnel{client: c, name: name, gateway: id, vip: sa.VIP, unique: dials(c)}
}

// dials counts the tunnels that a client has begun, so that one that was quietly
// made anew is noticed.
func dials(c *peers.Swan) string {
	return fmt.Sprint(strings.Count(c.Log(), "generating IKE_SA_INIT request"))
}

// still pings through the tunnel until there's an answer, for d at most, and
// fails the test unless it is the same tunnel at the same gateway.
func (u tunnel) still(t *testing.T, d time.Duration) {
	t.Helper()
	start := time.Now()
	id := u.client.MustPing(t, u.name, d)
	sa, err := u.client.SA(u.name)
	if err != nil {
		t.Fatal(err)
	}
	if id != u.gateway || sa.VIP != u.vip {
		t.Errorf("%s: tunnel %s is at gateway %d as %s, was at %d as %s", u.client.Host.Name, u.name, id, sa.VIP, u.gateway, u.vip)
	}
	if n := dials(u.client); n != u.unique {
		t.Errorf("%s: tunnel %s was dialled again (%s dials, were %s)", u.client.Host.Name, u.name, n, u.unique)
	}
	t.Logf("%s: tunnel %s still at ras%d, ping after %v", u.client.Host.Name, u.name, id, time.Since(start).Round(10*time.Millisecond))
}

// spread says how many are at each gateway: "ras1 11, ras2 9".
func spread(gateways []int) string {
	count := map[int]int{}
	for _, g := range gateways {
		count[g]++
	}
	var ids []int
	for id := range count {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var parts []string
	for _, id := range ids {
		parts = append(parts, fmt.Sprintf("ras%d %d", id, count[id]))
	}
	return strings.Join(parts, ", ")
}

// A pinger pings through a tunnel all the time.
type pinger struct{ p *peers.Proc }

// pinging starts to ping through a tunnel five times a second.
func (u tunnel) pinging() pinger {
	return pinger{u.client.Host.Start("ping", nil, "ping", "-i", "0.2", "-I", u.vip.String(), fmt.Sprintf("172.31.%d.1", u.gateway))}
}

// lost stops the pings, and returns how many were sent and not answered.
func (p pinger) lost(t *testing.T) (sent, lost int) {
	t.Helper()
	p.p.Signal(syscall.SIGINT)
	<-p.p.Done()
	out := p.p.Output()
	before, _, ok := strings.Cut(out, "packets transmitted")
	if !ok {
		t.Fatalf("ping said:\n%s", out)
	}
	line := out[strings.LastIndex(before, "\n")+1:]
	var received int
	if _, err := fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received); err != nil {
		t.Fatalf("ping said %q: %v", line, err)
	}
	lost = sent - received
	if lost > 0 && !strings.Contains(out, fmt.Sprintf("icmp_seq=%d ", sent)) {
		lost-- // its answer was still on its way
	}
	return sent, lost
}
