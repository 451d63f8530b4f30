package standin

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

var (
	testSecret = []byte("correct horse")
	gwIKE      = netip.MustParseAddrPort("10.0.0.1:500")
	gwNATT     = netip.MustParseAddrPort("10.0.0.1:4500")
)

// ikeWorld is a gateway and a machine on one network.
type ikeWorld struct {
	t *testing.T
	*network
	gateway *IKEGateway
	machine *Machine
	clients int
	wg      sync.WaitGroup
}

func newIKEWorld(t *testing.T, tunnels ...*Tunnel) *ikeWorld {
	t.Helper()
	w := &ikeWorld{t: t, gateway: &IKEGateway{Name: "ras1", Secret: testSecret}}
	w.machine = &Machine{IKE: gwIKE, NATT: gwNATT, Tunnels: tunnels, Open: func() (Conn, Conn, error) {
		w.clients++
		return w.listen(t, fmt.Sprintf("10.1.0.%d:500", w.clients)), w.listen(t, fmt.Sprintf("10.1.0.%d:4500", w.clients)), nil
	}}
	for _, tun := range tunnels {
		if tun.Secret == nil {
			tun.Secret = testSecret
		}
	}
	return w
}

// serve runs the gateway until the returned function is called.
func (w *ikeWorld) serve(ctx context.Context) (kill func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	ike, natt := w.listen(w.t, gwIKE.String()), w.listen(w.t, gwNATT.String())
	wg.Go(func() { w.gateway.Serve(ctx, ike, natt) })
	return func() { cancel(); wg.Wait() }
}

// run runs gateway and machine in a bubble of virtual time while f looks on.
func (w *ikeWorld) run(t *testing.T, f func(kill func())) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		w.network = newNetwork()
		ctx, cancel := context.WithCancel(context.Background())
		kill := w.serve(ctx)
		w.wg.Go(func() { w.machine.Run(ctx) })
		f(kill)
		cancel()
		kill()
		w.wg.Wait()
	})
}

func TestTunnelVariants(t *testing.T) {
	for name, tc := range map[string]struct {
		tunnel  *Tunnel
		gateway func(*IKEGateway)
		check   func(IKECounts) bool
	}{
		"P-256, AES-GCM":  {},
		"AES-CBC":         {tunnel: &Tunnel{CBC: true}},
		"MODP-2048":       {gateway: func(g *IKEGateway) { g.Groups = []ikev2.Group{ikev2.GroupMODP2048} }, check: func(c IKECounts) bool { return c.InvalidKE == 1 }},
		"x25519":          {tunnel: &Tunnel{Group: ikev2.GroupX25519}, gateway: func(g *IKEGateway) { g.Groups = []ikev2.Group{ikev2.GroupX25519} }, check: func(c IKECounts) bool { return c.InvalidKE == 0 }},
		"P-384":           {tunnel: &Tunnel{Group: ikev2.GroupECP384, CBC: true}, gateway: func(g *IKEGateway) { g.Groups = []ikev2.Group{ikev2.GroupECP384} }},
		"cookie":          {gateway: func(g *IKEGateway) { g.CookieAt = -1 }, check: func(c IKECounts) bool { return c.Cookies == 1 }},
		"cookie and KE":   {gateway: func(g *IKEGateway) { g.CookieAt = -1; g.Groups = []ikev2.Group{ikev2.GroupMODP2048} }, check: func(c IKECounts) bool { return c.Cookies == 1 && c.InvalidKE == 1 }},
		"fragments":       {tunnel: &Tunnel{Fragment: 300}, check: func(c IKECounts) bool { return c.Fragments == 4 }},
		"fragments, CBC":  {tunnel: &Tunnel{Fragment: 500, CBC: true}, check: func(c IKECounts) bool { return c.Fragments == 2 }},
		"no group shared": {tunnel: &Tunnel{Name: "refused"}, gateway: func(g *IKEGateway) { g.Groups = []ikev2.Group{ikev2.GroupECP384} }, check: func(c IKECounts) bool { return c.NoProposal > 0 }},
		"wrong secret":    {tunnel: &Tunnel{Name: "refused", Secret: []byte("guess")}, check: func(c IKECounts) bool { return c.AuthFailed > 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			tun := tc.tunnel
			if tun == nil {
				tun = new(Tunnel)
			}
			refused := tun.Name == "refused"
			if !refused {
				tun.Name = "alice"
			}
			w := newIKEWorld(t, tun)
			if tc.gateway != nil {
				tc.gateway(w.gateway)
			}
			w.run(t, func(func()) {
				time.Sleep(5500 * time.Millisecond) // virtual
				s := tun.Status()
				if refused {
					if s.Established != 0 || s.Failed == 0 || len(w.gateway.Sessions()) != 0 {
						t.Errorf("status %+v; want it refused", s)
					}
				} else if s.Gateway != "ras1" || s.Established != 1 || s.Sent != 6 || s.Received != 6 || s.Alien != 0 {
					t.Errorf("status %+v; want 6 messages answered by ras1", s)
				} else if l := w.gateway.Sessions(); len(l) != 1 || l[0].Client != "alice" || l[0].Packets != 6 {
					t.Errorf("sessions %+v; want one of alice with 6 packets", l)
				}
				c := w.gateway.Counts()
				if tc.check != nil && !tc.check(c) || c.Bad+c.StrayIKE+c.StrayESP+c.SplitAuth != 0 {
					t.Errorf("unexpected counts %+v", c)
				}
			})
		})
	}
}

func TestTunnelReturnsAfterKill(t *testing.T) {
	tun := &Tunnel{Name: "bob", Every: 250 * time.Millisecond, Patience: time.Second}
	w := newIKEWorld(t, tun)
	w.run(t, func(kill func()) {
		time.Sleep(2100 * time.Millisecond)
		kill()
		time.Sleep(10 * time.Second)
		if s := tun.Status(); s.Gateway != "" || s.Failed == 0 {
			t.Errorf("status %+v; want it lost", s)
		}
		defer w.serve(context.Background())()
		time.Sleep(3 * time.Second)
		s := tun.Status()
		if s.Gateway != "ras1" || s.Established != 2 || s.Lost.IsZero() || !s.Back.After(s.Lost) {
			t.Errorf("status %+v; want it back", s)
		}
		l := w.gateway.Sessions()
		if len(l) != 2 || l[0].Life != 0 || l[0].Ended.IsZero() || l[1].Life != 1 || !l[1].Ended.IsZero() {
			t.Errorf("sessions %+v; want one in each life", l)
		}
	})
}

func TestTunnelRidesOutLoss(t *testing.T) {
	tun := &Tunnel{Name: "carol"}
	w := newIKEWorld(t, tun)
	w.run(t, func(func()) {
		w.loseFirst(func(from, to netip.AddrPort, b []byte) bool { // all of IKE
			return from.Port() == 500 || to.Port() == 500 || b[0] == 0
		})
		time.Sleep(20 * time.Second)
		if s := tun.Status(); s.Established != 1 || s.Failed > 0 {
			t.Errorf("status %+v; want one SA in spite of the loss", s)
		}
		if lost := w.Stats().Lost; lost < 3 {
			t.Errorf("%d datagrams were lost; want both sides of IKE_AUTH at least", lost)
		}
	})
}

func TestTunnelsRekeyAndMove(t *testing.T) {
	device, user := &Tunnel{Name: "pc7 device"}, &Tunnel{Name: "pc7 user", CBC: true}
	w := newIKEWorld(t, device, user)
	w.run(t, func(func()) {
		time.Sleep(1500 * time.Millisecond)
		user.Rekey()
		time.Sleep(time.Second)
		w.machine.Move()
		time.Sleep(3 * time.Second)
		for _, tun := range w.machine.Tunnels {
			if s := tun.Status(); s.Established != 1 || s.Moves != 1 || s.Received < 5 || s.Alien != 0 {
				t.Errorf("%s: status %+v; want it moved and alive", tun.Name, s)
			}
		}
		if s := user.Status(); s.Rekeyed != 1 {
			t.Errorf("status %+v; want one rekey", s)
		}
		got := make(map[string]int)
		for _, s := range w.gateway.Sessions() {
			got[fmt.Sprintf("%s rekeyed=%t moves=%d ended=%t", s.Client, s.Rekeyed, s.Moves, !s.Ended.IsZero())]++
		}
		for _, want := range []string{
			"pc7 device rekeyed=false moves=1 ended=false", "pc7 user rekeyed=false moves=0 ended=true",
			"pc7 user rekeyed=true moves=1 ended=false",
		} {
			if got[want] != 1 {
				t.Errorf("sessions %v; want one %q", got, want)
			}
		}
	})
}

func TestGatewayIsSilentToStrangers(t *testing.T) {
	g := &IKEGateway{Name: "ras1", Secret: testSecret}
	g.begin()
	from := netip.MustParseAddrPort("192.0.2.9:4500")
	stray := func(x ikev2.ExchangeType) []byte {
		h := ikev2.Header{SPIi: 1, SPIr: 2, Exchange: x, Flags: ikev2.FlagInitiator, MessageID: 1}
		return ikev2.AppendMessage(make([]byte, 4), h, part(ikev2.PayloadSK, make([]byte, 40)))
	}
	esp := binary.BigEndian.AppendUint32(nil, 0xc0ffee00)
	for _, b := range [][]byte{stray(ikev2.ExchangeAuth), stray(ikev2.ExchangeInformational), append(esp, make([]byte, 60)...), {0xff}, make([]byte, 12)} {
		if a := g.handle(b, from, true); a != nil {
			t.Errorf("answered %x to %x", a, b)
		}
	}
	if c := g.Counts(); c.SplitAuth != 1 || c.StrayIKE != 1 || c.StrayESP != 1 || c.Bad != 1 {
		t.Errorf("counts %+v; want one of each stray", c)
	}
}

// The gateway must look up to the Prober, and keep nothing of it.
func TestGatewayIsUpToTheProber(t *testing.T) {
	open := func() (Conn, netip.AddrPort) {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	g := &IKEGateway{Name: "ras1", Secret: testSecret}
	ike, at := open()
	natt, _ := open()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { g.Serve(ctx, ike, natt) })
	defer wg.Wait()
	defer cancel()
	if err := (&ikev2.Prober{Strict: true}).Probe(ctx, at); err != nil {
		t.Error(err)
	}
	if c := g.Counts(); c != (IKECounts{InvalidKE: 1}) {
		t.Errorf("counts %+v; want one INVALID_KE_PAYLOAD and no SA", c)
	}
	cancel()
	wg.Wait()
	if err := (&ikev2.Prober{}).Probe(t.Context(), at); err == nil {
		t.Error("a killed gateway is up")
	}
}

// What comes from where the machine hasn't sent to is counted, and not believed.
func TestMachineRefusesStrangers(t *testing.T) {
	tun := &Tunnel{Name: "dave"}
	w := newIKEWorld(t, tun)
	w.run(t, func(func()) {
		synctest.Wait() // the machine has its sockets
		stranger := w.listen(t, "10.0.0.66:4500")
		defer stranger.Close()
		for range 3 {
			stranger.WriteToUDPAddrPort(make([]byte, 64), netip.MustParseAddrPort("10.1.0.1:4500"))
		}
		time.Sleep(2500 * time.Millisecond)
		if n := w.machine.WrongSource(); n != 3 {
			t.Errorf("%d datagrams from a wrong source, want 3", n)
		}
		if s := tun.Status(); s.Received != 3 || s.Established != 1 {
			t.Errorf("status %+v; want it undisturbed", s)
		}
	})
}

// FuzzInner gives the gateway what only somebody with the keys could send.
func FuzzInner(f *testing.F) {
	f.Add(uint8(ikev2.ExchangeAuth), uint8(ikev2.PayloadIDi), []byte{0, 0, 0, 8, 2, 0, 0, 0})
	f.Add(uint8(ikev2.ExchangeInformational), uint8(ikev2.PayloadDelete), []byte{0, 0, 0, 8, 1, 0, 0, 0})
	f.Add(uint8(ikev2.ExchangeCreateChildSA), uint8(ikev2.PayloadSA), []byte{0, 0, 0, 4})
	f.Fuzz(func(t *testing.T, x, first uint8, inner []byte) {
		if len(inner) > 4000 {
			return
		}
		g := &IKEGateway{Name: "ras1", Secret: testSecret}
		g.begin()
		sa := &gatewaySA{ready: ikev2.ExchangeType(x) != ikev2.ExchangeAuth, ni: make([]byte, 32), nr: make([]byte, 32)}
		sa.spiI, sa.spiR = 1, 2
		s := suite{encr: ikev2.EncrAESGCM16, bits: 128, prf: ikev2.PRFHMACSHA256, group: ikev2.GroupECP256}
		sa.keys = deriveKeys(s, nil, make([]byte, 32), sa.ni, sa.nr, 1, 2)
		sa.in, sa.out = deriveChild(&sa.keys, sa.ni, sa.nr, false, 256, 257)
		g.sas[2] = sa
		h := ikev2.Header{SPIi: 1, SPIr: 2, Exchange: ikev2.ExchangeType(x), Flags: ikev2.FlagInitiator}
		b := sa.keys.sealPart(h, ikev2.Payload{Type: ikev2.PayloadSK, Inner: ikev2.PayloadType(first)}, inner, true)
		g.handle(b, netip.MustParseAddrPort("192.0.2.9:4500"), false)
	})
}

func FuzzESP(f *testing.F) {
	f.Add(make([]byte, 40))
	keys := deriveKeys(suite{encr: ikev2.EncrAESGCM16, bits: 128, prf: ikev2.PRFHMACSHA256}, nil, nil, nil, nil, 1, 2)
	f.Fuzz(func(t *testing.T, data []byte) {
		gwIn, _ := deriveChild(&keys, nil, nil, false, 256, 257)
		_, out := deriveChild(&keys, nil, nil, true, 257, 256)
		b := out.seal(data)
		got, err := gwIn.open(b)
		if err != nil || string(got) != string(data) {
			t.Fatalf("sealed %x, opened %x, %v", data, got, err)
		}
		if _, err := gwIn.open(b); err == nil {
			t.Error("a replayed packet was opened")
		}
		b[len(b)-1] ^= 1
		if _, err := gwIn.open(b); err == nil {
			t.Error("a changed packet was opened")
		}
		if _, err := gwIn.open(data); err == nil {
			t.Error("a packet without the keys was opened")
		}
	})
}

func FuzzGateway(f *testing.F) {
	h := ikev2.Header{SPIi: 1, Exchange: ikev2.ExchangeSAInit, Flags: ikev2.FlagInitiator}
	own, err := newDH(ikev2.GroupECP256)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ikev2.AppendMessage(nil, h, new(Tunnel).exchange(ikev2.GroupECP256, own.public, nil, make([]byte, 32)).payloads()...))
	f.Add([]byte{0, 0, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &IKEGateway{Name: "ras1", Secret: testSecret}
		g.begin()
		from := netip.MustParseAddrPort("192.0.2.9:4500")
		for _, a := range append(g.handle(b, from, false), g.handle(b, from, true)...) {
			if len(a) < ikev2.HeaderLen {
				t.Errorf("answer %x is no IKE message", a)
			}
		}
	})
}
