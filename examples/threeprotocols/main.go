// Command threeprotocols balances IKEv2 and SSTP over two gateways, and RADIUS
// over two NPS servers.
//
// IKEv2 and SSTP share a pool, a table and so a Balancer: a computer that comes
// by both is at one gateway. The users of RADIUS are other clients of other
// servers, and so have a Balancer of their own.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
	"github.com/aovlb/aovlb/lb/udp"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/sstp"
)

// A service is what is balanced, and where.
type service struct {
	addr           netip.Addr
	ike, natt      uint16
	sstp           uint16
	auth, acct     uint16
	gateways, npss []lb.Backend
	secret         radius.Secret
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s := &service{
		addr: netip.IPv4Unspecified(), ike: 500, natt: 4500, sstp: 443, auth: 1812, acct: 1813,
		gateways: []lb.Backend{
			{Name: "ras1", Addr: netip.MustParseAddr("10.0.1.11")},
			{Name: "ras2", Addr: netip.MustParseAddr("10.0.1.12")},
		},
		npss: []lb.Backend{
			{Name: "nps1", Addr: netip.MustParseAddr("10.0.2.11")},
			{Name: "nps2", Addr: netip.MustParseAddr("10.0.2.12")},
		},
		secret: radius.NewSecret([]byte(os.Getenv("RADIUS_SECRET"))),
	}
	if err := s.serve(ctx); !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// serve balances until ctx is done or a listener fails.
func (s *service) serve(ctx context.Context) error {
	gateways, npss := new(lb.Pool), new(lb.Pool)
	if err := errors.Join(gateways.Set(s.gateways...), npss.Set(s.npss...)); err != nil {
		return err
	}
	vpn := &lb.Balancer{Pool: gateways, Table: new(lb.Table)}
	users := &lb.Balancer{Pool: npss, Table: new(lb.Table)}
	ike, err := s.listen(ctx, s.ike, s.natt)
	if err != nil {
		return err
	}
	rad, err := s.listen(ctx, s.auth, s.acct)
	if err != nil {
		return err
	}
	calls, err := new(tcp.ListenConfig).Listen(ctx, netip.AddrPortFrom(s.addr, s.sstp))
	if err != nil {
		return err
	}
	return together(ctx,
		(&lb.Monitor{Pool: gateways, Checks: []lb.Check{
			{Name: "ike", Prober: ikev2.Prober{}, Port: s.ike},
			{Name: "sstp", Prober: &sstp.Prober{}, Port: s.sstp},
		}}).Run,
		(&lb.Monitor{Pool: npss, Checks: []lb.Check{
			{Name: "radius", Prober: &radius.Prober{Secret: s.secret}, Port: s.auth},
		}}).Run,
		func(ctx context.Context) error {
			return (&udp.Engine{Balancer: vpn, Classifier: ikev2.Classifier{}}).Serve(ctx, ike...)
		},
		func(ctx context.Context) error {
			return (&tcp.Engine{Balancer: vpn, Sniffer: sstp.Sniffer{}}).Serve(ctx, calls)
		},
		func(ctx context.Context) error {
			return (&udp.Engine{Balancer: users, Classifier: radius.Classifier{}}).Serve(ctx, rad...)
		},
	)
}

// listen opens two UDP ports.
func (s *service) listen(ctx context.Context, ports ...uint16) ([]net.PacketConn, error) {
	var all []net.PacketConn
	for _, p := range ports {
		conns, err := udp.Listen(ctx, netip.AddrPortFrom(s.addr, p), udp.ListenConfig{})
		if err != nil {
			return nil, err
		}
		all = append(all, conns...)
	}
	return all, nil
}

// together runs all until the first returns, ends the others, and returns the
// first's error.
func together(ctx context.Context, run ...func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, f := range run {
		wg.Go(func() { cancel(f(ctx)) })
	}
	wg.Wait()
	return context.Cause(ctx)
}
