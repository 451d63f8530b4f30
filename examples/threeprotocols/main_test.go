package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"layeh.com/radius/rfc2866"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/radius"
)

var secret = []byte("a key for all")

// world is the service on loopback, and the servers behind it.
type world struct {
	service
	wg     sync.WaitGroup
	nps    []*standin.NPS
	client *standin.SSTPClient
}

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 6, n}) }

func newWorld(t *testing.T, ctx context.Context) *world {
	// The ports are below those that systems give to sockets by themselves.
	w := &world{service: service{
		addr: addr(1), ike: 16500, natt: 16501, sstp: 16443, auth: 16812, acct: 16813, secret: radius.NewSecret(secret),
	}}
	cert, roots, err := standin.SelfSigned("vpn.example.com")
	if err != nil {
		t.Fatal(err)
	}
	w.client = &standin.SSTPClient{
		Name: "caller", Server: netip.AddrPortFrom(w.addr, w.sstp), ServerName: "vpn.example.com", RootCAs: roots, Every: 20 * time.Millisecond,
	}
	for i := range byte(2) {
		ras, nps := addr(11+i), addr(21+i)
		g := &standin.IKEGateway{Name: fmt.Sprintf("ras%d", i+1), Secret: secret}
		ike, natt := listen(t, ras, w.ike), listen(t, ras, w.natt)
		w.wg.Go(func() { g.Serve(ctx, ike, natt) })
		s := &standin.SSTPGateway{Name: g.Name, Certificate: cert}
		ln, err := net.Listen("tcp", netip.AddrPortFrom(ras, w.sstp).String())
		if err != nil {
			t.Fatal(err)
		}
		w.wg.Go(func() { s.Serve(ctx, ln) })
		n := &standin.NPS{Name: fmt.Sprintf("nps%d", i+1), Secret: secret, Users: map[string]string{"alice": "pw", "bob": "pw"}}
		auth, acct := listen(t, nps, w.auth), listen(t, nps, w.acct)
		w.wg.Go(func() { n.Serve(ctx, auth, acct) })
		w.nps = append(w.nps, n)
		w.gateways = append(w.gateways, lb.Backend{Name: g.Name, Addr: ras})
		w.npss = append(w.npss, lb.Backend{Name: n.Name, Addr: nps})
	}
	return w
}

func listen(t *testing.T, a netip.Addr, port uint16) *net.UDPConn {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
	if err != nil {
		t.Skip("loopback can't be used for this:", err)
	}
	return c
}

// A computer has an IKEv2 tunnel and then an SSTP call, and both are at one
// gateway. Users log in, and each conversation is at one server.
func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w := newWorld(t, ctx)
	done := make(chan error, 1)
	go func() { done <- w.serve(ctx) }()
	defer w.wg.Wait()
	defer cancel()

	pc := addr(101)
	tun := &standin.Tunnel{Name: "pc", Secret: secret, Every: 20 * time.Millisecond, Repeat: 200 * time.Millisecond}
	ike, natt := listen(t, pc, 0), listen(t, pc, 0)
	m := &standin.Machine{
		IKE: netip.AddrPortFrom(w.addr, w.ike), NATT: netip.AddrPortFrom(w.addr, w.natt), Tunnels: []*standin.Tunnel{tun},
		Open: func() (standin.Conn, standin.Conn, error) { return ike, natt, nil },
	}
	w.wg.Go(func() { m.Run(ctx) })
	until(t, done, func() bool { return tun.Status().Received > 5 })
	w.client.Dialer = &net.Dialer{LocalAddr: &net.TCPAddr{IP: pc.AsSlice()}}
	w.wg.Go(func() { w.client.Run(ctx) })
	until(t, done, func() bool { return w.client.Status().Received > 5 })
	if a, b := tun.Status().Gateway, w.client.Status().Gateway; a == "" || a != b {
		t.Errorf("IKEv2 is at %s, SSTP at %s", a, b)
	}
	w.logIn(t, ctx)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// logIn has two users log in from one NAS, with accounting.
func (w *world) logIn(t *testing.T, ctx context.Context) {
	nas := &standin.NAS{
		Conn: listen(t, addr(102), 0), Auth: netip.AddrPortFrom(w.addr, w.auth), Acct: netip.AddrPortFrom(w.addr, w.acct),
		Addr: addr(102), Secret: secret, Repeat: time.Second,
	}
	w.wg.Go(func() { nas.Run(ctx) })
	for i, name := range []string{"alice", "bob"} {
		u := standin.User{Name: name, Password: "pw", Station: fmt.Sprintf("198.51.100.%d", i), Session: name}
		l, err := nas.Login(ctx, u)
		if err != nil || !l.Accepted {
			t.Fatalf("%s: %+v, %v", name, l, err)
		}
		if err := nas.Account(ctx, u, l, rfc2866.AcctStatusType_Value_Start); err != nil {
			t.Error(err)
		}
	}
	sessions := 0
	for _, n := range w.nps {
		sessions += len(n.Sessions())
		if c := n.Counts(); c.UnknownState+c.ForeignAccounting != 0 {
			t.Errorf("%s saw what was another's: %+v", n.Name, c)
		}
	}
	if sessions != 2 {
		t.Errorf("%d sessions, want 2", sessions)
	}
}

func until(t *testing.T, done chan error, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case err := <-done:
			t.Fatal(err)
		case <-late:
			t.Fatal("waited in vain")
		}
	}
}
