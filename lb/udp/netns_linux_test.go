package udp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/udp"
)

// The tests in network namespaces run the engine in a process of its own, since a
// namespace belongs to a thread and an engine has several.

const childEnv = "AOVLB_UDP_TEST_CHILD"

type childConfig struct {
	Listen      []netip.AddrPort
	Backends    []netip.Addr
	Transparent bool
	ESP         bool // classify as asESP
	GRO         bool
}

type child struct {
	pid  int
	stop func() udp.Stats
}

// startChild starts an engine in a namespace, behind the command in prefix, and
// waits until it listens. It is stopped at the end of the test, or by stop.
func startChild(t *testing.T, ns string, prefix []string, cfg childConfig) *child {
	t.Helper()
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"netns", "exec", ns}, prefix...)
	c := exec.Command("ip", append(args, os.Args[0], "-test.run=^TestChild$", "-test.timeout=0")...)
	c.Env = append(os.Environ(), childEnv+"="+string(b))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		t.Log(lines.Text())
	}
	stopped := false
	stop := func() (s udp.Stats) {
		if stopped {
			return s
		}
		stopped = true
		_ = in.Close()
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), "stats "); ok {
				if err := json.Unmarshal([]byte(rest), &s); err != nil {
					t.Error(err)
				}
			}
		}
		if err := c.Wait(); err != nil {
			t.Errorf("the engine's process: %v", err)
		}
		return s
	}
	t.Cleanup(func() { stop() })
	return &child{pid: c.Process.Pid, stop: stop}
}

// TestChild is the engine's process in other tests.
func TestChild(t *testing.T) {
	env := os.Getenv(childEnv)
	if env == "" {
		t.Skip("it is what other tests start as a process of its own")
	}
	var cfg childConfig
	if err := json.Unmarshal([]byte(env), &cfg); err != nil {
		t.Fatal(err)
	}
	pool := new(lb.Pool)
	var backends []lb.Backend
	for i, a := range cfg.Backends {
		backends = append(backends, lb.Backend{Name: fmt.Sprintf("g%d", i+1), Addr: a})
	}
	if err := pool.Set(backends...); err != nil {
		t.Fatal(err)
	}
	var conns []net.PacketConn
	for _, a := range cfg.Listen {
		c, err := udp.Listen(t.Context(), a, udp.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c...)
	}
	e := &udp.Engine{Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Transparent: cfg.Transparent, GRO: cfg.GRO}
	if cfg.ESP {
		e.Classifier = asESP{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	if err := e.Serve(ctx, conns...); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	b, err := json.Marshal(e.Stats())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("stats %s\n", b)
}

// asESP names clients as the ikev2 package does for ESP: the flow, then the SPI.
type asESP struct{}

func (asESP) Classify(b []byte, f lb.Flow) lb.Verdict {
	v := lb.Verdict{Begin: true, Keys: [lb.MaxKeys]lb.Key{lb.FlowKey(f)}}
	if len(b) >= 8 {
		v.Keys[1] = lb.Uint64Key(toyData, uint64(binary.BigEndian.Uint32(b)))
	}
	return v
}

func (asESP) Answer([]byte, lb.Flow) lb.Verdict { return lb.Verdict{Stage: lb.StageEstablished} }

// newLab makes this, with an MTU of 1300 towards the gateway:
//
//	client                    balancer                     gateway
//	c 10.81.1.2 ───────────── a 10.81.1.1
//	  fd81:1::2                 fd81:1::1
//	                          b 10.81.2.1 ──────────────── g 10.81.2.2
//	                            fd81:2::1                    fd81:2::2, all else via b
//
// What comes from the gateway's side is for the balancer's sockets, whatever its
// address: that is what Engine.Transparent asks for.
//
// With marks it says so in the other way, to whatever has a socket.
func newLab(t *testing.T, marks bool) (client, balancer, gateway string) {
	t.Helper()
	id := fmt.Sprintf("udpt%d", os.Getpid())
	client, balancer, gateway = id+"c", id+"l", id+"g"
	t.Cleanup(func() {
		for _, n := range []string{client, balancer, gateway} {
			_ = exec.Command("ip", "netns", "del", n).Run()
		}
	})
	what := "iif fb"
	if marks {
		what = "fwmark 1"
	}
	netns.Sh(t, strings.NewReplacer("NC", client, "NL", balancer, "NG", gateway, "WHAT", what).Replace(`
for n in NC NL NG; do ip netns add $n; ip -n $n link set lo up; done
ip -n NL link add fa type veth peer name fc netns NC
ip -n NL link add fb mtu 1300 type veth peer name fg netns NG mtu 1300
ip -n NC addr add 10.81.1.2/24 dev fc; ip -n NC addr add fd81:1::2/64 dev fc nodad
ip -n NL addr add 10.81.1.1/24 dev fa; ip -n NL addr add fd81:1::1/64 dev fa nodad
ip -n NL addr add 10.81.2.1/24 dev fb; ip -n NL addr add fd81:2::1/64 dev fb nodad
ip -n NG addr add 10.81.2.2/24 dev fg; ip -n NG addr add fd81:2::2/64 dev fg nodad
ip -n NC link set fc up; ip -n NL link set fa up; ip -n NL link set fb up; ip -n NG link set fg up
ip -n NG route add default via 10.81.2.1; ip -n NG -6 route add default via fd81:2::1
for f in -4 -6; do
 ip -n NL $f rule add WHAT lookup 100
 ip -n NL $f route add local default dev lo table 100
done
ip netns exec NL sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.fb.rp_filter=0
`))
	if marks {
		netns.Sh(t, fmt.Sprintf(`ip netns exec %s nft -f - <<END
table inet mangle {
 chain prerouting {
  type filter hook prerouting priority mangle
  ct state new,established,related meta l4proto udp socket transparent 1 meta mark set 1
 }
}
END
`, balancer))
	}
	return client, balancer, gateway
}

// exchange sends b from client to the balancer, wants it at the gateway from the
// address in from (if valid), and an answer back.
func exchange(t *testing.T, client, gateway *net.UDPConn, to string, b []byte, from netip.AddrPort) netip.AddrPort {
	t.Helper()
	dst := netip.MustParseAddrPort(to)
	if _, err := client.WriteToUDPAddrPort(b, dst); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1<<16)
	n, at, err := gateway.ReadFromUDPAddrPort(got)
	if err != nil {
		t.Fatalf("at the gateway, of %d bytes: %v", len(b), err)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	if !bytes.Equal(got[:n], b) {
		t.Fatalf("the gateway got %d bytes, want %d", n, len(b))
	}
	if from.IsValid() && at != from {
		t.Errorf("the gateway sees %v, want %v", at, from)
	}
	if _, err := gateway.WriteToUDPAddrPort(b, at); err != nil {
		t.Fatal(err)
	}
	n, back, err := client.ReadFromUDPAddrPort(got)
	if err != nil {
		t.Fatalf("at the client, of %d bytes: %v", len(b), err)
	}
	if back = netip.AddrPortFrom(back.Addr().Unmap(), back.Port()); back != dst || !bytes.Equal(got[:n], b) {
		t.Fatalf("the client got %d bytes from %v, want %d from %v", n, back, len(b), dst)
	}
	return at
}

// The gateway sees the client's own address and port, also of one port that is
// used towards two of ours.
func TestTransparent(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip", "nft")
	for _, marks := range []bool{false, true} {
		t.Run(fmt.Sprintf("marks %v", marks), func(t *testing.T) { testTransparent(t, marks) })
	}
}

func testTransparent(t *testing.T, marks bool) {
	nc, nl, ng := newLab(t, marks)
	for _, c := range []struct{ client, vip, gateway string }{
		{"10.81.1.2", "10.81.1.1", "10.81.2.2"}, {"fd81:1::2", "fd81:1::1", "fd81:2::2"},
	} {
		t.Run(c.client, func(t *testing.T) {
			at := func(addr string, port uint16) string {
				return netip.AddrPortFrom(netip.MustParseAddr(addr), port).String()
			}
			client := netns.ListenUDP(t, nc, at(c.client, 1234))
			g500, g4500 := netns.ListenUDP(t, ng, at(c.gateway, 500)), netns.ListenUDP(t, ng, at(c.gateway, 4500))
			cfg := childConfig{
				Listen:      []netip.AddrPort{netip.MustParseAddrPort(at(c.vip, 500)), netip.MustParseAddrPort(at(c.vip, 4500))},
				Backends:    []netip.Addr{netip.MustParseAddr(c.gateway)},
				Transparent: true,
			}
			want := netip.MustParseAddrPort(at(c.client, 1234))
			e := startChild(t, nl, nil, cfg)
			for _, n := range []int{100, 0, 5000, 60000} {
				exchange(t, client, g500, at(c.vip, 500), pattern(n, 1), want)
				exchange(t, client, g4500, at(c.vip, 4500), pattern(n, 2), want)
			}
			if s := e.stop(); s.Opened != 2 || s.OpenErrors != 0 {
				t.Errorf("stats %+v", s)
			}
			// Another process needs nothing to go on.
			startChild(t, nl, nil, cfg)
			exchange(t, client, g4500, at(c.vip, 4500), pattern(100, 3), want)
		})
	}
}

// Datagrams that travel as IP fragments arrive whole, both ways, and trains that
// GSO can't send over a small MTU leave as fragments.
func TestFragments(t *testing.T) {
	netns.Need(t, "AOVLB_PEERS", "ip")
	nc, nl, ng := newLab(t, false)
	for _, c := range []struct {
		client, vip, gateway string
		gro                  bool
	}{
		{"10.81.1.2:1234", "10.81.1.1:4500", "10.81.2.2:4500", false},
		{"[fd81:1::2]:1234", "[fd81:1::1]:4500", "[fd81:2::2]:4500", false},
		{"10.81.1.2:1235", "10.81.1.1:4500", "10.81.2.2:4500", true},
		{"[fd81:1::2]:1235", "[fd81:1::1]:4500", "[fd81:2::2]:4500", true},
	} {
		t.Run(fmt.Sprintf("%s GRO %v", c.client, c.gro), func(t *testing.T) {
			client, gateway := netns.ListenUDP(t, nc, c.client), netns.ListenUDP(t, ng, c.gateway)
			e := startChild(t, nl, nil, childConfig{
				Listen:   []netip.AddrPort{netip.MustParseAddrPort(c.vip)},
				Backends: []netip.Addr{netip.MustParseAddrPort(c.gateway).Addr()},
				GRO:      c.gro,
			})
			var at netip.AddrPort
			for _, n := range []int{100, 1272, 1273, 1452, 1453, 3468, 9000, 60000, 65000} {
				at = exchange(t, client, gateway, c.vip, pattern(n, byte(n)), at)
			}
			trains(t, client, gateway, c.vip, at)
			if s := e.stop(); s.SendErrors != 0 || s.Replied != s.BackendPackets || c.gro != (s.Merged > 0) {
				t.Errorf("stats %+v", s)
			} else {
				t.Logf("%d datagrams towards the gateway, %d towards the client, %d trains, %d merged", s.Sent, s.Replied, s.Trains, s.Merged)
			}
		})
	}
}

// trains sends bursts that are too large for GSO on the gateway's side, and ones
// that aren't, both ways. Every other is sent as one from the client, which its
// network hands on as one.
func trains(t *testing.T, client, gateway *net.UDPConn, vip string, at netip.AddrPort) {
	t.Helper()
	b := make([]byte, 1<<16)
	for round := range 20 {
		for _, n := range []int{1400, 1200, 600} {
			const burst = 40
			if round%2 == 1 {
				sendTrain(t, client, netip.MustParseAddrPort(vip), train(n, burst, -1, byte(round)))
			}
			for i := 0; i < burst && round%2 == 0; i++ {
				if _, err := client.WriteToUDPAddrPort(pattern(n, byte(i+round)), netip.MustParseAddrPort(vip)); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range []*net.UDPConn{gateway, client} {
				for i := range burst {
					got, _, err := c.ReadFromUDPAddrPort(b)
					if err != nil || !bytes.Equal(b[:got], pattern(n, byte(i+round))) {
						t.Fatalf("round %d, %d of %d bytes: got %d, %v", round, i, n, got, err)
					}
				}
				if c == client {
					break
				}
				for i := range burst {
					if _, err := gateway.WriteToUDPAddrPort(pattern(n, byte(i+round)), at); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
}
