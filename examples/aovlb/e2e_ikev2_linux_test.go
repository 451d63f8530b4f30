package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/plugins"
)

// TestE2EIKEv2 carries real tunnels of strongSwan clients to strongSwan gateways
// through "aovlb serve". Every scenario is on its own and may run alone.
func TestE2EIKEv2(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	if !useDNAT() {
		useProgram(t)
	}
	for _, mode := range []struct {
		name        string
		transparent bool
		fastpath    plugins.FastPathHook
	}{
		{"nat", false, ""},
		{"transparent", true, ""},
		{"nat by the kernel", false, plugins.FastPathTC},
		{"transparent by the kernel", true, plugins.FastPathTC},
	} {
		t.Run(mode.name, func(t *testing.T) {
			for _, s := range scenarios {
				if mode.transparent && !s.transparent || useDNAT() && (mode.transparent || mode.fastpath != "") {
					continue
				}
				if mode.fastpath != "" && !slices.Contains(byTheKernel, s.name) && os.Getenv("AOVLB_BENCH") == "" {
					continue
				}
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					s.run(t, options{transparent: mode.transparent, fastpath: mode.fastpath})
				})
			}
		})
	}
}

// byTheKernel are the scenarios that are run with the fast path too: those in which
// what the kernel does could go wrong. With AOVLB_BENCH set all are.
var byTheKernel = []string{
	"one client by EAP-MSCHAPv2", "MOBIKE move", "NAT re-mapping of a live tunnel", "rekey then move", "large certificates in IP fragments",
	"gateway killed", "drain", "restart by SIGKILL",
}

// scenarios are what a balancer for IKEv2 must carry. Those marked are run with
// the client's address kept too.
var scenarios = []struct {
	name        string
	transparent bool
	run         func(*testing.T, options)
}{
	{"one client by EAP-MSCHAPv2", true, oneClientEAP},
	{"one client by certificate", true, oneClientCert},
	{"two clients at two addresses", true, twoClients},
	{"twenty clients behind one NAT", true, manyBehindNAT},
	{"MOBIKE move", true, mobikeMove},
	{"NAT re-mapping of a live tunnel", true, natRemapping},
	{"NAT changes its address", false, natReaddress},
	{"IKE and child rekey", true, rekey},
	{"rekey then move", true, rekeyThenMove},
	{"rekey by the server then move", false, serverRekeyThenMove},
	{"device and user tunnel of one machine", true, deviceAndUser},
	{"cookies", false, cookies},
	{"large certificates in IKE fragments", true, ikeFragments},
	{"large certificates in IP fragments", true, ipFragments},
	{"start on 4500", true, startOn4500},
	{"500 and 4500 from different addresses", true, splitNAT},
	{"gateway killed", true, gatewayKilled},
	{"gateway unplugged", false, gatewayUnplugged},
	{"gateway frozen", false, gatewayFrozen},
	{"drain", true, drain},
	{"drain with a deadline", false, drainDeadline},
	{"reload", true, reload},
	{"restart by SIGTERM", true, restartTerm},
	{"restart by SIGKILL", true, restartKill},
	{"restart without its state", false, restartEmpty},
	{"affinity by source address", false, bySource},
	{"over IPv6", false, overIPv6},
	{"status and explain", false, statusAndExplain},
	{"a tunnel that is never used", false, neverUsed},
}

// seesClient checks, where the client's address is kept, that the gateway sees
// it.
func (w *world) seesClient(c *peers.Swan, gateway int) {
	w.t.Helper()
	if !w.options.transparent {
		return
	}
	sas, err := w.gateways[gateway-1].SAs()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, sa := range sas {
		if sa.Remote.Addr() == c.Host.Addr() {
			w.t.Logf("ras%d sees %s as %s", gateway, c.Host.Name, sa.Remote)
			return
		}
	}
	w.t.Errorf("ras%d doesn't see the address %s of %s: %+v", gateway, c.Host.Addr(), c.Host.Name, sas)
}

func oneClientEAP(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	c := w.pc(nil, peers.Tunnel{})
	id := w.up(c, "user")
	w.seesClient(c, id)
	t.Logf("tunnel up at ras%d, ping answered", id)
}

func oneClientCert(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	c := w.pc(nil, peers.Tunnel{Machine: "pc1.example.com"})
	id := w.up(c, "user")
	w.seesClient(c, id)
	t.Logf("tunnel up at ras%d, ping answered", id)
}

func twoClients(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	var at []int
	for range 2 {
		c := w.pc(nil, peers.Tunnel{})
		id := w.up(c, "user")
		w.seesClient(c, id)
		defer w.live(c, "user").still(t, 5*time.Second)
		at = append(at, id)
	}
	t.Logf("2 clients: %s", spread(at))
}

// upAll dials the tunnel of every client at once, and returns the gateways.
func (w *world) upAll(clients []*peers.Swan, name string) []int {
	w.t.Helper()
	errs := make([]error, len(clients))
	at := make([]int, len(clients))
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			if errs[i] = c.Up(name, 50*time.Second); errs[i] != nil {
				return
			}
			errs[i] = peers.Poll(15*time.Second, func() (err error) {
				at[i], err = c.Ping(name)
				return err
			})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		w.t.Fatal(err)
	}
	return at
}

func manyBehindNAT(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	nat := w.nat()
	var clients []*peers.Swan
	for range 20 {
		clients = append(clients, w.pc(nat, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	t.Logf("20 clients behind one NAT: %s", spread(at))
	var live []tunnel
	for _, c := range clients {
		live = append(live, w.live(c, "user"))
	}
	for _, u := range live {
		if id, err := u.client.Ping(u.name); err != nil || id != u.gateway {
			t.Errorf("second ping of %s: gateway %d, %v", u.client.Host.Name, id, err)
		}
	}
	if useDNAT() {
		return
	}
	for id := 1; id <= 2; id++ {
		if n := strings.Count(spread(at), fmt.Sprintf("ras%d ", id)); n == 0 {
			t.Errorf("ras%d has none of the 20 clients", id)
		}
	}
}

// move gives a client at an address of its own another one.
func (w *world) move(c *peers.Swan) {
	w.t.Helper()
	from := c.Host.Addr().As4()
	to := from
	to[2] += 100
	c.Host.Move("eth0", fmt.Sprintf("%d.%d.%d.%d/16", from[0], from[1], from[2], from[3]), fmt.Sprintf("%d.%d.%d.%d/16", to[0], to[1], to[2], to[3]))
}

// roam brings up clients, does something to each, and looks whether each still
// has its tunnel. More than one is needed because with two gateways a balancer
// that guesses is right half the time.
func (w *world) roam(n int, tun peers.Tunnel, do func(c *peers.Swan, gateway int)) {
	w.t.Helper()
	var clients []*peers.Swan
	for range n {
		clients = append(clients, w.pc(nil, tun))
	}
	at := w.upAll(clients, "user")
	var live []tunnel
	for i, c := range clients {
		live = append(live, w.live(c, "user"))
		do(c, at[i])
	}
	for i, u := range live {
		u.still(w.t, 25*time.Second)
		w.seesClient(clients[i], u.gateway)
	}
	w.t.Logf("%d clients: %s", n, spread(at))
}

func mobikeMove(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	w.roam(4, peers.Tunnel{}, func(c *peers.Swan, _ int) { w.move(c) })
}

func natRemapping(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	w.behindNAT(func(nat *peers.NAT) { nat.Remap() })
}

func natReaddress(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	w.behindNAT(func(nat *peers.NAT) { nat.Readdress() })
}

// awaitDPD waits until each client has asked its gateway once whether it lives.
// By the answer a strongSwan client behind a NAT learns how the gateway sees its
// address. Only what changes later is a change to it, of which it tells the
// gateway: kernel-libipsec doesn't notice by itself where ESP comes from, as a
// kernel does.
func (w *world) awaitDPD(clients []*peers.Swan) {
	w.t.Helper()
	for _, c := range clients {
		peers.Eventually(w.t, 15*time.Second, c.Host.Name+" looking whether its gateway lives", func() error {
			log := c.Log()
			log = log[max(strings.LastIndex(log, "rekeyed between"), 0):] // a new SA has to learn it anew
			_, since, _ := strings.Cut(log, "sending DPD request")
			if !strings.Contains(since, "parsed INFORMATIONAL response") {
				return errors.New("no answer")
			}
			return nil
		})
	}
}

// behindNAT brings up six clients behind a NAT, does something to the NAT, and
// looks whether each still has its tunnel.
func (w *world) behindNAT(do func(*peers.NAT)) {
	w.t.Helper()
	nat := w.nat()
	var clients []*peers.Swan
	for range 6 {
		clients = append(clients, w.pc(nat, peers.Tunnel{DPD: 3 * time.Second}))
	}
	at := w.upAll(clients, "user")
	w.t.Logf("6 clients behind one NAT: %s", spread(at))
	var live []tunnel
	for _, c := range clients {
		live = append(live, w.live(c, "user"))
	}
	w.awaitDPD(clients)
	for range 2 {
		do(nat)
		for _, u := range live {
			u.still(w.t, 25*time.Second)
		}
	}
}

func rekey(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	c := w.pc(nil, peers.Tunnel{})
	w.up(c, "user")
	u := w.live(c, "user")
	for i := range 3 {
		if err := c.RekeyIKE("user"); err != nil {
			t.Fatal(err)
		}
		u.still(t, 15*time.Second)
		if err := c.RekeyChild("user", "user"); err != nil {
			t.Fatal(err)
		}
		u.still(t, 15*time.Second)
		t.Logf("IKE and child rekey %d done", i+1)
	}
	if err := w.gateways[u.gateway-1].RekeyIKE("eap"); err != nil {
		t.Fatal(err)
	}
	u.still(t, 15*time.Second)
	if err := c.RekeyIKE("user"); err != nil {
		t.Fatal(err)
	}
	u.still(t, 15*time.Second)
}

func rekeyThenMove(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	w.roam(4, peers.Tunnel{}, func(c *peers.Swan, _ int) {
		if err := c.RekeyIKE("user"); err != nil {
			t.Fatal(err)
		}
		w.move(c)
	})
	if !useDNAT() {
		t.Logf("%d packets went to all gateways, to find the client's", w.asked())
		if w.asked() == 0 {
			t.Error("no client was found by asking: had the balancer seen its SPIs before?")
		}
	}
}

// asked returns how many packets the balancer has sent to all gateways.
func (w *world) asked() int {
	w.t.Helper()
	var status struct {
		Groups []struct{ Routes map[string]int }
	}
	w.json(&status, "status")
	return status.Groups[0].Routes["asked"]
}

func serverRekeyThenMove(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	before := map[int][]string{} // the SPIs at a gateway that were renewed
	w.roam(4, peers.Tunnel{}, func(c *peers.Swan, at int) {
		gateway := w.gateways[at-1]
		if before[at] == nil { // it renews all of its SAs at once
			before[at] = spis(t, gateway)
			if err := gateway.RekeyIKE("eap"); err != nil {
				t.Fatal(err)
			}
		}
		// A client that loses its address while its answer is under way has an SA
		// that the gateway knows nothing of.
		if err := peers.Poll(10*time.Second, func() error {
			sa, err := c.SA("user")
			if err == nil && (slices.Contains(before[at], sa.InitiatorSPI) || !slices.Contains(spis(t, gateway), sa.InitiatorSPI)) {
				err = fmt.Errorf("%s: its IKE SA has not been renewed on both sides", c.Host.Name)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		w.move(c)
	})
}

// spis returns the initiators' SPIs of the IKE SAs that s has, with their children.
func spis(t *testing.T, s *peers.Swan) (list []string) {
	t.Helper()
	all, err := s.SAs()
	if err != nil {
		t.Fatal(err)
	}
	for _, sa := range all {
		if sa.State == "ESTABLISHED" && sa.ChildState == "INSTALLED" {
			list = append(list, sa.InitiatorSPI)
		}
	}
	return list
}

func deviceAndUser(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	nat := w.nat()
	for i := range 3 {
		via := nat
		if i == 0 {
			via = nil
		}
		c := w.pc(via,
			peers.Tunnel{Name: "device", Machine: fmt.Sprintf("pc%d.example.com", i+1), Device: true},
			peers.Tunnel{Name: "user", User: fmt.Sprintf("user%d", i+1)})
		device := w.up(c, "device")
		user := w.up(c, "user")
		if device != user {
			t.Errorf("the device tunnel is at ras%d, the user tunnel at ras%d: they share a UDP flow", device, user)
		}
		// Both stay when each is renewed.
		for _, name := range []string{"device", "user"} {
			if err := c.RekeyIKE(name); err != nil {
				t.Fatal(err)
			}
		}
		w.live(c, "device").still(t, 5*time.Second)
		w.live(c, "user").still(t, 5*time.Second)
		t.Logf("%s: device and user tunnel at ras%d", c.Host.Name, user)
	}
}

func cookies(t *testing.T, o options) {
	o.gateways = 2
	o.gateway.Settings = map[string]string{"cookie_threshold": "1", "half_open_timeout": "120"}
	w := newWorld(t, o)
	// A client of each gateway that never gets beyond its first exchange, so
	// that they want cookies of all others.
	for i := range w.gateways {
		h := w.Host(fmt.Sprintf("half%d", i+1))
		h.Attach(w.dc, fmt.Sprintf("10.1.0.%d/24", 201+i))
		h.NFT(`
table ip block {
	chain out {
		type filter hook output priority 0
		udp dport 4500 drop
	}
}`)
		half := h.Client(w.pki, peers.Tunnel{Name: "half", Server: w.servers[i].Addr(), User: "user50"})
		if err := half.Up("half", 1*time.Second); err == nil {
			t.Fatal("a tunnel without port 4500 came up")
		}
	}
	for range 3 {
		c := w.pc(nil, peers.Tunnel{})
		id := w.up(c, "user")
		if !strings.Contains(c.Log(), "N(COOKIE)") {
			t.Errorf("%s was not asked for a cookie by ras%d", c.Host.Name, id)
		}
		t.Logf("%s: cookie, then tunnel up at ras%d", c.Host.Name, id)
	}
}

func ikeFragments(t *testing.T, o options) {
	o.gateways, o.bits = 2, 4096
	w := newWorld(t, o)
	c := w.pc(w.nat(), peers.Tunnel{Machine: "pc1.example.com"})
	id := w.up(c, "user")
	log := c.Log()
	if !strings.Contains(log, "splitting IKE message") || !strings.Contains(log, "received fragment #") {
		t.Errorf("no IKE fragments in both directions:\n%s", log)
	}
	w.live(c, "user").still(t, 5*time.Second)
	t.Logf("tunnel up at ras%d, %d fragments received", id, strings.Count(log, "received fragment #"))
}

func ipFragments(t *testing.T, o options) {
	o.gateways, o.bits = 2, 4096
	o.gateway.Fragmentation = "no"
	w := newWorld(t, o)
	c := w.pc(w.nat(), peers.Tunnel{Machine: "pc1.example.com", Fragmentation: "no"})
	id := w.up(c, "user")
	w.live(c, "user").still(t, 5*time.Second)
	if strings.Contains(c.Log(), "splitting IKE message") {
		t.Error("the client sent IKE fragments")
	}
	for _, h := range []*peers.Host{c.Host, w.servers[id-1]} {
		n, err := h.Counter("Ip", "ReasmOKs")
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			t.Errorf("%s has received no IP fragments", h.Name)
		}
		t.Logf("%s put %d packets together from IP fragments", h.Name, n)
	}
}

func startOn4500(t *testing.T, o options) {
	o.gateways = 2
	w := newWorld(t, o)
	nat := w.nat()
	var at []int
	for i := range 4 {
		via := nat
		if i%2 == 0 {
			via = nil
		}
		c := w.pc(via, peers.Tunnel{Port4500: true})
		at = append(at, w.up(c, "user"))
		if strings.Contains(c.Log(), "[500]") {
			t.Error("the client used port 500")
		}
		w.live(c, "user").still(t, 5*time.Second)
	}
	t.Logf("4 clients that start on 4500: %s", spread(at))
}

func splitNAT(t *testing.T, o options) {
	o.gateways = 3
	w := newWorld(t, o)
	nat := w.nat()
	nat.Split()
	var clients []*peers.Swan
	for range 4 {
		clients = append(clients, w.pc(nat, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	for _, c := range clients {
		w.live(c, "user").still(t, 5*time.Second)
	}
	t.Logf("4 clients, 500 and 4500 from different addresses: %s", spread(at))
}

func gatewayKilled(t *testing.T, o options) {
	w := gatewayLost(t, o)
	w.lose(func(g int) { w.gateways[g-1].Kill() })
	if w.options.transparent {
		return
	}
	// It comes back, and takes clients again.
	g := w.lost
	w.gateways[g-1].Start()
	peers.Eventually(t, 60*time.Second, fmt.Sprintf("new clients for ras%d, which is back", g), func() error {
		c := w.pc(nil, peers.Tunnel{})
		if id := w.up(c, "user"); id != g {
			return fmt.Errorf("%s is at ras%d", c.Host.Name, id)
		}
		return nil
	})
}

func gatewayUnplugged(t *testing.T, o options) {
	w := gatewayLost(t, o)
	w.lose(func(g int) { w.servers[g-1].IP("link set eth0 down") })
}

func gatewayFrozen(t *testing.T, o options) {
	w := gatewayLost(t, o)
	w.lose(func(g int) { w.gateways[g-1].Freeze() })
	w.gateways[w.lost-1].Thaw()
}

// A losing world is one that will lose a gateway.
type losing struct {
	*world
	clients []*peers.Swan
	lost    int
}

// gatewayLost brings up clients at two gateways at least.
func gatewayLost(t *testing.T, o options) *losing {
	needBalancer(t)
	o.gateways = 3
	w := &losing{world: newWorld(t, o)}
	for range 6 {
		w.clients = append(w.clients, w.pc(nil, peers.Tunnel{DPD: 2 * time.Second}))
	}
	return w
}

// lose has the gateway of the first client die, and looks whether its clients
// come back on others, and whether the other clients notice.
func (w *losing) lose(die func(gateway int)) {
	t := w.t
	t.Helper()
	at := w.upAll(w.clients, "user")
	w.lost = at[0]
	t.Logf("before: %s; ras%d dies", spread(at), w.lost)
	var moved, stay []tunnel
	for i, c := range w.clients {
		if at[i] == w.lost {
			moved = append(moved, w.live(c, "user"))
		} else {
			stay = append(stay, w.live(c, "user"))
		}
	}
	var pings []pinger
	for _, u := range stay {
		pings = append(pings, u.pinging())
	}
	start := time.Now()
	die(w.lost)
	var now []int
	for _, u := range moved {
		peers.Eventually(t, 60*time.Second, u.client.Host.Name+" coming back on another gateway", func() error {
			id, err := u.client.Ping("user")
			if err == nil && id == w.lost {
				err = errors.New("it's still at the dead one")
			}
			if err == nil {
				now = append(now, id)
			}
			return err
		})
	}
	t.Logf("its %d clients came back within %v: %s", len(moved), time.Since(start).Round(100*time.Millisecond), spread(now))
	for i, u := range stay {
		if sent, lost := pings[i].lost(t); lost > 0 || sent == 0 {
			t.Errorf("%s at ras%d lost %d of %d pings", u.client.Host.Name, u.gateway, lost, sent)
		}
		u.still(t, 5*time.Second)
	}
	t.Logf("the other %d clients lost no ping", len(stay))
	if len(stay) == 0 {
		t.Errorf("all 6 clients were at ras%d", w.lost)
	}
}

func drain(t *testing.T, o options) {
	needBalancer(t)
	o.gateways = 2
	w := newWorld(t, o)
	first := w.pc(nil, peers.Tunnel{DPD: 2 * time.Second})
	drained := w.up(first, "user")
	u := w.live(first, "user")
	p := u.pinging()
	w.command("drain", "--admin", "unix:"+w.admin(), fmt.Sprintf("ras%d", drained))
	var clients []*peers.Swan
	for range 6 {
		clients = append(clients, w.pc(nil, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	for i, id := range at {
		if id == drained {
			t.Errorf("%s got on the drained ras%d", clients[i].Host.Name, id)
		}
	}
	u.still(t, 5*time.Second)
	if err := first.RekeyIKE("user"); err != nil {
		t.Fatal(err)
	}
	w.move(first)
	u.still(t, 25*time.Second)
	if sent, lost := p.lost(t); sent == 0 || lost == sent {
		t.Errorf("the client of the drained gateway lost %d of %d pings", lost, sent)
	}
	t.Logf("ras%d drained: its client stays, even as it is rekeyed and moves; 6 new clients: %s", drained, spread(at))
	w.command("undrain", "--admin", "unix:"+w.admin(), fmt.Sprintf("ras%d", drained))
	peers.Eventually(t, 60*time.Second, fmt.Sprintf("new clients for ras%d", drained), func() error {
		c := w.pc(nil, peers.Tunnel{})
		if id := w.up(c, "user"); id != drained {
			return fmt.Errorf("%s is at ras%d", c.Host.Name, id)
		}
		return nil
	})
}

func restartTerm(t *testing.T, o options) {
	restart(t, o, func(w *world) {
		if err := w.balancer.Stop(); err != nil {
			t.Errorf("aovlb ended by SIGTERM with %v", err)
		}
	})
}

func restartKill(t *testing.T, o options) {
	restart(t, o, func(w *world) { w.balancer.Kill() })
}

func drainDeadline(t *testing.T, o options) {
	needBalancer(t)
	o.gateways = 2
	w := newWorld(t, o)
	c := w.pc(nil, peers.Tunnel{DPD: 2 * time.Second})
	drained := w.up(c, "user")
	w.command("drain", "--admin", "unix:"+w.admin(), "--deadline", "2s", fmt.Sprintf("ras%d", drained))
	start := time.Now()
	w.live(c, "user").still(t, time.Second)
	peers.Eventually(t, 40*time.Second, "the client being at the other gateway", func() error {
		id, err := c.Ping("user")
		if err == nil && id == drained {
			err = errors.New("it's still at the drained one")
		}
		return err
	})
	t.Logf("ras%d drained with 2 s left: its client was on the other after %v", drained, time.Since(start).Round(100*time.Millisecond))
}

func reload(t *testing.T, o options) {
	needBalancer(t)
	o.gateways = 3
	w := newWorldOf(t, o, 2)
	var clients []*peers.Swan
	for range 6 {
		clients = append(clients, w.pc(nil, peers.Tunnel{DPD: 2 * time.Second}))
	}
	at := w.upAll(clients, "user")
	t.Logf("before: %s", spread(at))
	var live []tunnel
	var pings []pinger
	for _, c := range clients {
		u := w.live(c, "user")
		live, pings = append(live, u), append(pings, u.pinging())
	}

	// A third gateway comes, and takes its share of new clients.
	w.reload(w.yaml(w.servers))
	peers.Eventually(t, 30*time.Second, "a new client for ras3", func() error {
		c := w.pc(nil, peers.Tunnel{})
		if id := w.up(c, "user"); id != 3 {
			return fmt.Errorf("%s is at ras%d", c.Host.Name, id)
		}
		return nil
	})
	for i, u := range live {
		if sent, lost := pings[i].lost(t); lost > 0 || sent == 0 {
			t.Errorf("%s at ras%d lost %d of %d pings", u.client.Host.Name, u.gateway, lost, sent)
		}
		u.still(t, 5*time.Second)
	}
	t.Log("ras3 added: no client lost a ping")

	// The first one goes, and only its clients do too.
	w.reload(w.yaml(w.servers[1:]))
	for _, u := range live {
		if u.gateway != 1 {
			u.still(t, 5*time.Second)
			continue
		}
		peers.Eventually(t, 40*time.Second, u.client.Host.Name+" being at another gateway", func() error {
			id, err := u.client.Ping("user")
			if err == nil && id == 1 {
				err = errors.New("it's still at ras1")
			}
			return err
		})
	}
	t.Log("ras1 removed: its clients came back on others, and no one else moved")
}

func bySource(t *testing.T, o options) {
	needBalancer(t)
	o.gateways, o.affinity = 2, "source"
	w := newWorld(t, o)
	nat := w.nat()
	var behind, own []*peers.Swan
	for range 4 {
		behind = append(behind, w.pc(nat, peers.Tunnel{}))
		own = append(own, w.pc(nil, peers.Tunnel{}))
	}
	at := w.upAll(behind, "user")
	for _, id := range at {
		if id != at[0] {
			t.Errorf("clients of one address are at different gateways: %s", spread(at))
			break
		}
	}
	t.Logf("4 clients behind one NAT: %s; 4 at addresses of their own: %s", spread(at), spread(w.upAll(own, "user")))
	u := w.live(own[0], "user")
	if err := own[0].RekeyIKE("user"); err != nil {
		t.Fatal(err)
	}
	u.still(t, 5*time.Second)
}

func overIPv6(t *testing.T, o options) {
	needBalancer(t)
	o.gateways, o.ipv6 = 2, true
	w := newWorld(t, o)
	var clients []*peers.Swan
	for range 4 {
		clients = append(clients, w.pc(nil, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	for _, c := range clients {
		u := w.live(c, "user")
		if err := c.RekeyIKE("user"); err != nil {
			t.Fatal(err)
		}
		u.still(t, 5*time.Second)
	}
	t.Logf("4 clients over IPv6: %s", spread(at))
}

// statusAndExplain looks whether what the program says is so.
func statusAndExplain(t *testing.T, o options) {
	needBalancer(t)
	o.gateways = 2
	w := newWorld(t, o)
	nat := w.nat()
	var clients []*peers.Swan
	for range 6 {
		clients = append(clients, w.pc(nat, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	var status struct {
		Pools []struct {
			Backends []struct {
				Name, State string
				Clients     int
			}
		}
	}
	w.json(&status, "status")
	want, got := map[string]int{"ras1": 0, "ras2": 0}, map[string]int{}
	for _, id := range at {
		want[fmt.Sprintf("ras%d", id)]++
	}
	for _, b := range status.Pools[0].Backends {
		got[b.Name] = b.Clients
		if b.State != "up" {
			t.Errorf("status says that %s is %s", b.Name, b.State)
		}
	}
	if !maps.Equal(want, got) {
		t.Errorf("status says %v, and it is %v", got, want)
	}
	for i, c := range clients {
		sa, err := c.SA("user")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{sa.InitiatorSPI, sa.ChildSPIOut} {
			var out []struct {
				Backend string
				Known   bool
			}
			w.json(&out, "explain", name)
			if len(out) == 0 || !out[0].Known || out[0].Backend != fmt.Sprintf("ras%d", at[i]) {
				t.Errorf("explain %s says %+v, and it is at ras%d", name, out, at[i])
			}
		}
	}
	t.Logf("status: %v; explain by IKE SPI and by ESP SPI right for 6 clients", got)
	t.Logf("explain 198.18.2.1:\n%s", w.command("explain", "--admin", "unix:"+w.admin(), "198.18.2.1"))
	t.Logf("status:\n%s", w.command("status", "--admin", "unix:"+w.admin()))
}

// neverUsed: of two clients that hang up at once, the one that got no tunnel counts
// as failed, and the one that used its tunnel as finished.
func neverUsed(t *testing.T, o options) {
	needBalancer(t)
	o.gateways = 1
	w := newWorld(t, o)
	good := w.pc(nil, peers.Tunnel{})
	w.up(good, "user")
	bad := w.pc(nil, peers.Tunnel{Machine: "pc1.example.com", ChildProposals: "3des-sha1"})
	if err := bad.Up("user", 10*time.Second); err == nil {
		t.Fatal("a client without common algorithms for ESP got its tunnel")
	}
	if err := good.Down("user"); err != nil {
		t.Fatal(err)
	}
	_ = bad.Down("user") // it may have done so by itself
	peers.Eventually(t, 30*time.Second, "the handshakes", func() error {
		var status struct {
			Groups []struct {
				IKEv2 struct {
					Gateways []struct {
						Begun, Finished uint64
						Failed          map[string]uint64
					}
				}
			}
		}
		w.json(&status, "status")
		g := status.Groups[0].IKEv2.Gateways
		if len(g) != 1 || g[0].Begun != 2 || g[0].Finished != 1 || g[0].Failed["never-used"] != 1 {
			return fmt.Errorf("status says %+v", g)
		}
		return nil
	})
}

// json runs a command of the program that asks the one that serves, and reads
// what it prints.
func (w *world) json(v any, command string, args ...string) {
	w.t.Helper()
	out := w.command(append([]string{command, "--admin", "unix:" + w.admin(), "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("aovlb %s: %v:\n%s", command, err, out)
	}
}

func restartEmpty(t *testing.T, o options) {
	restart(t, o, func(w *world) {
		w.balancer.Kill()
		if err := os.RemoveAll(w.state()); err != nil {
			t.Fatal(err)
		}
	})
}

// restart ends the balancer while tunnels are up, starts it again, and looks
// whether each client still has its tunnel.
func restart(t *testing.T, o options, end func(*world)) {
	needBalancer(t)
	o.gateways = 3
	w := newWorld(t, o)
	nat := w.nat()
	var clients []*peers.Swan
	for i := range 6 {
		via := nat
		if i%2 == 0 {
			via = nil
		}
		clients = append(clients, w.pc(via, peers.Tunnel{DPD: 3 * time.Second}))
	}
	at := w.upAll(clients, "user")
	t.Logf("6 clients: %s", spread(at))
	var live []tunnel
	for i, c := range clients {
		if i%3 == 0 {
			if err := c.RekeyIKE("user"); err != nil {
				t.Fatal(err)
			}
		}
		live = append(live, w.live(c, "user"))
	}
	w.awaitDPD(clients)
	var pings []pinger
	for _, u := range live {
		pings = append(pings, u.pinging())
	}
	start := time.Now()
	end(w)
	w.restart()
	t.Logf("aovlb was away for %v", time.Since(start).Round(10*time.Millisecond))
	for _, u := range live {
		u.still(t, 25*time.Second)
	}
	all, none := 0, 0
	for _, p := range pings {
		sent, lost := p.lost(t)
		all, none = all+sent, none+lost
	}
	t.Logf("%d of %d pings were lost meanwhile", none, all)
}
