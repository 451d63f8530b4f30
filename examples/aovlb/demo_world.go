package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/plugins"
)

// demoVIP is where clients go.
var demoVIP = netip.MustParseAddr("127.0.1.1")

// demoName is the service's name in its certificate.
const demoName = "vpn.example"

// demoPorts stand for 500, 4500, 443, 1812 and 1813, which need root.
type demoPorts struct{ ike, natt, sstp, auth, acct uint16 }

// randomPorts returns ports below those from which systems take sockets' own.
func randomPorts() demoPorts {
	first := uint16(20000 + mathrand.IntN(12000))
	return demoPorts{first, first + 1, first + 2, first + 3, first + 4}
}

// demoWorld is everything the demo starts.
type demoWorld struct {
	driver    demoDriver
	ports     demoPorts
	secret    []byte
	secretEnv string
	roots     *x509.CertPool
	cert      tls.Certificate
	logger    *slog.Logger
	unit      time.Duration
	gateways  []*demoHost
	servers   []*demoHost

	wg     sync.WaitGroup
	failed chan error // what should have gone on, and ended

	mu    sync.Mutex
	crowd demoCrowd
}

// demoHost is one simulated computer: a gateway with IKEv2 and SSTP, or a RADIUS
// server. It can be killed and revived.
type demoHost struct {
	name  string
	addr  netip.Addr
	ports demoPorts
	ike   *standin.IKEGateway
	sstp  *standin.SSTPGateway
	nps   *standin.NPS

	failed chan<- error
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// newDemoWorld makes the hosts and starts them, on ports that are free
// everywhere.
func newDemoWorld(s *demoScenario, driver demoDriver) (*demoWorld, error) {
	cert, roots, err := standin.SelfSigned(demoName)
	if err != nil {
		return nil, err
	}
	w := &demoWorld{
		driver: driver, secret: []byte(rand.Text()), cert: cert, roots: roots, logger: s.Logger,
		unit: s.Duration / 16, failed: make(chan error, 64),
	}
	w.crowd.world, w.crowd.first = w, s.Clients
	// The driver is told where the RADIUS secret is, never what it is.
	w.secretEnv = "AOVLB_DEMO_SECRET_" + rand.Text()
	if err := os.Setenv(w.secretEnv, string(w.secret)); err != nil {
		return nil, err
	}
	for range 20 {
		w.ports = randomPorts()
		if err = w.startHosts(); err == nil {
			return w, nil
		}
		w.killAll()
	}
	return nil, fmt.Errorf("no free ports on 127.0.1.1 to 127.0.1.22: %w", err)
}

// startHosts makes and starts all servers.
func (w *demoWorld) startHosts() error {
	w.gateways, w.servers = nil, nil
	users := make(map[string]string)
	for i := range demoUsers {
		users[demoUser(i)] = demoPassword(i)
	}
	for i := range 3 {
		name := fmt.Sprintf("ras%d", i+1)
		w.gateways = append(w.gateways, &demoHost{
			name: name, addr: netip.AddrFrom4([4]byte{127, 0, 1, byte(11 + i)}), ports: w.ports, failed: w.failed,
			ike:  &standin.IKEGateway{Name: name, Secret: w.secret, Logger: w.logger},
			sstp: &standin.SSTPGateway{Name: name, Certificate: w.cert, Logger: w.logger},
		})
	}
	for i := range 2 {
		name := fmt.Sprintf("nps%d", i+1)
		w.servers = append(w.servers, &demoHost{
			name: name, addr: netip.AddrFrom4([4]byte{127, 0, 1, byte(21 + i)}), ports: w.ports, failed: w.failed,
			nps: &standin.NPS{Name: name, Secret: w.secret, Users: users, Logger: w.logger},
		})
	}
	for _, h := range w.hosts() {
		if err := h.start(); err != nil {
			return err
		}
	}
	return w.vipFree()
}

// vipFree reports whether the driver will be able to listen.
func (w *demoWorld) vipFree() error {
	for _, p := range []uint16{w.ports.ike, w.ports.natt, w.ports.auth, w.ports.acct} {
		c, err := listenUDP(demoVIP, p)
		if err != nil {
			return err
		}
		c.Close()
	}
	ln, err := net.Listen("tcp", netip.AddrPortFrom(demoVIP, w.ports.sstp).String())
	if err != nil {
		return err
	}
	return ln.Close()
}

func (w *demoWorld) hosts() []*demoHost {
	return append(w.gateways[:len(w.gateways):len(w.gateways)], w.servers...)
}

func (w *demoWorld) killAll() {
	for _, h := range w.hosts() {
		h.kill()
	}
}

// wait returns when nothing runs any more; the context of start must have ended.
func (w *demoWorld) wait() {
	w.wg.Wait()
	w.killAll()
	_ = os.Unsetenv(w.secretEnv) // it was set, so it can be unset
}

func listenUDP(a netip.Addr, port uint16) (*net.UDPConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
}

// start opens the host's sockets and serves.
func (h *demoHost) start() error {
	var opened []interface{ Close() error }
	var errs []error
	udp := func(port uint16) *net.UDPConn {
		c, err := listenUDP(h.addr, port)
		if err != nil {
			errs = append(errs, err)
			return nil
		}
		opened = append(opened, c)
		return c
	}
	var a, b *net.UDPConn
	var ln net.Listener
	if h.nps != nil {
		a, b = udp(h.ports.auth), udp(h.ports.acct)
	} else {
		a, b = udp(h.ports.ike), udp(h.ports.natt)
		var err error
		if ln, err = net.Listen("tcp", netip.AddrPortFrom(h.addr, h.ports.sstp).String()); err != nil {
			errs = append(errs, err)
		} else {
			opened = append(opened, ln)
		}
	}
	if len(errs) > 0 {
		for _, c := range opened {
			c.Close()
		}
		return errors.Join(errs...)
	}
	if h.nps != nil {
		h.serve(func(ctx context.Context) error { return h.nps.Serve(ctx, a, b) })
		return nil
	}
	h.serve(
		func(ctx context.Context) error { return h.ike.Serve(ctx, a, b) },
		func(ctx context.Context) error { return h.sstp.Serve(ctx, ln) })
	return nil
}

// serve runs services until the host is killed.
func (h *demoHost) serve(services ...func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	for _, f := range services {
		h.wg.Go(func() { report(ctx, h.failed, f) })
	}
}

// report runs what should go on until ctx ends, and says so if it didn't.
func report(ctx context.Context, failed chan<- error, f func(context.Context) error) {
	if err := f(ctx); ctx.Err() == nil {
		select {
		case failed <- err:
		default: // one failure ends the demo
		}
	}
}

// kill ends the host without a word to anybody, as a crash does.
func (h *demoHost) kill() {
	if h.cancel != nil {
		h.cancel()
	}
	h.wg.Wait()
}

// deployment is what the driver is told: what an administrator would write.
func (w *demoWorld) deployment() *plugins.Deployment {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(demoVIP, port) }
	backends := func(hosts []*demoHost) (list []plugins.Backend) {
		for _, h := range hosts {
			list = append(list, plugins.Backend{Name: h.name, Address: h.addr})
		}
		return list
	}
	// On a busy computer a living gateway may be slow to answer, and must not
	// count as dead for that; a dead one is noticed at once, by ICMP.
	second := plugins.Duration(time.Second)
	check := func(t plugins.CheckType, port uint16) plugins.Check {
		return plugins.Check{Type: t, Port: int(port), Interval: second, Timeout: second, Rise: 1, Fall: 3}
	}
	radius := check(plugins.CheckRADIUS, w.ports.auth)
	radius.User, radius.SecretEnv = "ping-user", w.secretEnv
	return &plugins.Deployment{Name: "demo", Sites: []plugins.Site{{
		Name: "here",
		Pools: []plugins.Pool{
			{
				Name: "ras", Backends: backends(w.gateways), Picker: plugins.PickRoundRobin,
				Checks: []plugins.Check{check(plugins.CheckIKEv2, w.ports.ike), check(plugins.CheckSSTP, w.ports.sstp)},
			},
			{Name: "nps", Backends: backends(w.servers), Checks: []plugins.Check{radius}},
		},
		Groups: []plugins.Group{
			{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{
				{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: at(w.ports.ike)},
				{Name: "nat-t", Protocol: plugins.ProtocolIKEv2, Address: at(w.ports.natt)},
				{Name: "sstp", Protocol: plugins.ProtocolSSTP, Address: at(w.ports.sstp)},
			}},
			{Name: "nps", Pool: "nps", Listeners: []plugins.Listener{
				{Name: "auth", Protocol: plugins.ProtocolRADIUS, Address: at(w.ports.auth)},
				{Name: "acct", Protocol: plugins.ProtocolRADIUS, Address: at(w.ports.acct)},
			}},
		},
	}}}
}

// start applies the deployment and runs the driver until ctx ends.
func (w *demoWorld) start(ctx context.Context) error {
	plan, err := w.driver.Plan(ctx, w.deployment())
	if err == nil {
		err = w.driver.Apply(ctx, plan, nil)
	}
	if err != nil {
		return err
	}
	w.keep(ctx, w.driver.Run)
	return nil
}

// keep runs what must go on until ctx ends.
func (w *demoWorld) keep(ctx context.Context, f func(context.Context) error) {
	w.wg.Go(func() { report(ctx, w.failed, f) })
}

// every returns how often tunnels send, patience when they begin to worry.
func (w *demoWorld) every() time.Duration    { return max(w.unit/5, 100*time.Millisecond) }
func (w *demoWorld) patience() time.Duration { return 3 * w.every() }

// repeat is the clients' retransmission time: 1 s, as Windows has it, if the
// demo has its usual length.
func (w *demoWorld) repeat() time.Duration { return max(w.unit, 500*time.Millisecond) }

// group varies what clients guess, so that some are asked for another group.
func demoGroup(i int) ikev2.Group {
	if i%5 == 3 {
		return ikev2.GroupMODP2048
	}
	return ikev2.GroupECP256
}
