package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/aovlb/aovlb/internal/standin"
)

// demoCrowd is everyone who wants something of the service. Its lists only grow,
// under the world's mu.
type demoCrowd struct {
	world *demoWorld
	first int // IKEv2 tunnels at the beginning

	machines []*standin.Machine
	tunnels  []*standin.Tunnel
	sstp     []*standin.SSTPClient
	nas      []*standin.NAS

	behindNAT  map[string]bool // names of tunnels
	pair       [2]string       // the device tunnel and user tunnel of one computer
	unpaired   string          // its 500 and 4500 leave from different addresses
	movers     []*mover
	ownAddress byte // the last one given out
	nextTunnel int
	nextSSTP   int
	logins     demoLogins
	loginsEnd  context.CancelFunc
	loginsDone sync.WaitGroup
}

// mover is a computer that changes its address.
type mover struct {
	machine *standin.Machine
	tunnel  *standin.Tunnel
	rekeys  bool // replaces its IKE SA first, so that nobody outside knows it
}

// demoLogins counts RADIUS users by what the NAS saw.
type demoLogins struct{ begun, accepted, refused, silent, accounted atomic.Int64 }

const (
	demoUsers    = 4096
	demoMovers   = 4
	demoSSTP     = 6
	demoNATShare = 2 // every second computer is behind the NAT
)

func demoUser(i int) string     { return fmt.Sprintf("user%04d", i) }
func demoPassword(i int) string { return fmt.Sprintf("password of %d", i) }

var (
	demoNAT = netip.MustParseAddr("127.0.2.1")
	demoCGN = [2]netip.Addr{netip.MustParseAddr("127.0.5.1"), netip.MustParseAddr("127.0.5.2")}
)

// machine makes a computer whose sockets have these addresses, and after each
// move the next pair.
func (c *demoCrowd) machine(addrs [][2]netip.Addr, tunnels ...*standin.Tunnel) *standin.Machine {
	w := c.world
	at := 0
	m := &standin.Machine{
		IKE: netip.AddrPortFrom(demoVIP, w.ports.ike), NATT: netip.AddrPortFrom(demoVIP, w.ports.natt), Tunnels: tunnels,
	}
	m.Open = func() (standin.Conn, standin.Conn, error) {
		a := addrs[min(at, len(addrs)-1)]
		at++
		ike, err := listenUDP(a[0], 0)
		if err != nil {
			return nil, nil, err
		}
		natt, err := listenUDP(a[1], 0)
		if err != nil {
			ike.Close()
			return nil, nil, err
		}
		return ike, natt, nil
	}
	c.machines = append(c.machines, m)
	c.tunnels = append(c.tunnels, tunnels...)
	return m
}

// tunnel makes the next tunnel; they differ in what they offer.
func (c *demoCrowd) tunnel(name string) *standin.Tunnel {
	w, i := c.world, c.nextTunnel
	c.nextTunnel++
	t := &standin.Tunnel{
		Name: name, Secret: w.secret, Group: demoGroup(i), CBC: i%7 == 2,
		Every: w.every(), Patience: w.patience(), Repeat: w.repeat(), Tries: 2, Logger: w.logger,
	}
	if i%4 == 1 {
		t.Fragment = 500
	}
	return t
}

func (c *demoCrowd) own() [2]netip.Addr {
	c.ownAddress++
	a := netip.AddrFrom4([4]byte{127, 0, 3, c.ownAddress})
	return [2]netip.Addr{a, a}
}

// first fills the crowd and returns the machines it made.
func (c *demoCrowd) begin() []*standin.Machine {
	c.behindNAT = make(map[string]bool)
	user, device := c.tunnel("pc user"), c.tunnel("pc device")
	c.pair = [2]string{user.Name, device.Name}
	c.machine([][2]netip.Addr{c.own()}, device, user)
	unpaired := c.tunnel("mobile")
	c.unpaired = unpaired.Name
	c.machine([][2]netip.Addr{demoCGN}, unpaired)
	for i := range demoMovers {
		t := c.tunnel(fmt.Sprintf("traveller%d", i+1))
		to := netip.AddrFrom4([4]byte{127, 0, 4, byte(i + 1)})
		m := c.machine([][2]netip.Addr{c.own(), {to, to}}, t)
		c.movers = append(c.movers, &mover{machine: m, tunnel: t, rekeys: i == 0})
	}
	c.more(c.first-len(c.tunnels), "laptop")
	return c.machines
}

// more adds n computers with a tunnel each, every second of them behind the NAT,
// and returns them.
func (c *demoCrowd) more(n int, kind string) []*standin.Machine {
	from := len(c.machines)
	for range n {
		t := c.tunnel(fmt.Sprintf("%s%02d", kind, c.nextTunnel))
		if c.nextTunnel%demoNATShare == 0 || c.ownAddress == 254 {
			c.behindNAT[t.Name] = true
			c.machine([][2]netip.Addr{{demoNAT, demoNAT}}, t)
		} else {
			c.machine([][2]netip.Addr{c.own()}, t)
		}
	}
	return c.machines[from:]
}

// call adds n SSTP clients and returns them.
func (c *demoCrowd) call(n int) []*standin.SSTPClient {
	w, from := c.world, len(c.sstp)
	for range n {
		c.nextSSTP++
		c.sstp = append(c.sstp, &standin.SSTPClient{
			Name: fmt.Sprintf("sstp%d", c.nextSSTP), Server: netip.AddrPortFrom(demoVIP, w.ports.sstp),
			ServerName: demoName, RootCAs: w.roots, Every: w.every(), Repeat: w.repeat() / 2, Logger: w.logger,
		})
	}
	return c.sstp[from:]
}

// run starts computers, one after the other within the time given.
func (w *demoWorld) run(ctx context.Context, within time.Duration, machines []*standin.Machine, calls []*standin.SSTPClient) {
	n := len(machines) + len(calls)
	for i, m := range machines {
		w.keep(ctx, after(within*time.Duration(i)/time.Duration(n), m.Run))
	}
	for i, c := range calls {
		w.keep(ctx, after(within*time.Duration(len(machines)+i)/time.Duration(n), c.Run))
	}
}

// after is f, a while later.
func after(d time.Duration, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d):
			return f(ctx)
		}
	}
}

// startLogins has two NASes log users in and out until endLogins.
func (w *demoWorld) startLogins(ctx context.Context) error {
	c := &w.crowd
	begin, cancel := context.WithCancel(ctx)
	c.loginsEnd = cancel
	for i := range 2 {
		addr := netip.AddrFrom4([4]byte{127, 0, 1, byte(31 + i)})
		conn, err := listenUDP(addr, 0)
		if err != nil {
			cancel()
			return err
		}
		n := &standin.NAS{
			Conn: conn,
			Auth: netip.AddrPortFrom(demoVIP, w.ports.auth), Acct: netip.AddrPortFrom(demoVIP, w.ports.acct),
			Addr: addr, Secret: w.secret, Repeat: w.repeat(), Tries: 5, Think: w.unit / 5,
		}
		w.mu.Lock()
		c.nas = append(c.nas, n)
		w.mu.Unlock()
		w.keep(ctx, n.Run)
		c.loginsDone.Go(func() { w.login(ctx, begin, n, i) })
	}
	return nil
}

// login begins a login every now and then until begin ends. What has begun goes
// on to its end, or that of ctx.
func (w *demoWorld) login(ctx, begin context.Context, n *standin.NAS, nas int) {
	tick := time.NewTicker(w.unit / 10)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := nas; i < demoUsers; i += 2 {
		u := standin.User{
			Name: demoUser(i), Password: demoPassword(i), PAP: i%5 == 4,
			Station: fmt.Sprintf("198.51.%d.%d", i/250, i%250), Session: fmt.Sprintf("%d-%d", nas, i),
		}
		wg.Go(func() { w.visit(ctx, n, u) })
		select {
		case <-begin.Done():
			return
		case <-tick.C:
		}
	}
}

// visit logs one user in, and out again.
func (w *demoWorld) visit(ctx context.Context, n *standin.NAS, u standin.User) {
	count := &w.crowd.logins
	count.begun.Add(1)
	l, err := n.Login(ctx, u)
	switch {
	case err != nil:
		count.silent.Add(1)
	case !l.Accepted:
		count.refused.Add(1)
	}
	if err != nil || !l.Accepted {
		if w.logger != nil {
			w.logger.Info("login failed", "user", u.Name, "rounds", l.Rounds, "error", err)
		}
		return
	}
	count.accepted.Add(1)
	err = n.Account(ctx, u, l, rfc2866.AcctStatusType_Value_Start)
	select {
	case <-ctx.Done():
	case <-time.After(w.unit / 2):
	}
	if err = errors.Join(err, n.Account(ctx, u, l, rfc2866.AcctStatusType_Value_Stop)); err == nil {
		count.accounted.Add(1)
	} else if w.logger != nil {
		w.logger.Info("accounting failed", "user", u.Name, "error", err)
	}
}

// endLogins begins no more logins, and returns when the last has ended.
func (w *demoWorld) endLogins() {
	w.crowd.loginsEnd()
	w.crowd.loginsDone.Wait()
}
