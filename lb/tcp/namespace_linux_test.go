package tcp_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers/netns"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/tcp"
)

// The topology, in three network namespaces:
//
//	client                     balancer                    backend
//	10.77.1.2 ────────── 10.77.1.1  10.77.2.1 ────────── 10.77.2.2
//	fd77:1::2            fd77:1::1  fd77:2::1            fd77:2::2
//	                     eth0            eth1            default via the balancer

// run runs a command.
func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// namespaces makes the topology and returns the three names.
func namespaces(t *testing.T) (client, balancer, backend string) {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" || os.Geteuid() != 0 {
		t.Skip("needs root and network namespaces: set AOVLB_PEERS=1")
	}
	name := func(s string) string { return fmt.Sprintf("tcp%d%s", os.Getpid(), s) }
	client, balancer, backend = name("c"), name("l"), name("b")
	for _, n := range []string{client, balancer, backend} {
		run(t, "ip netns add "+n)
		t.Cleanup(func() { run(t, "ip netns del "+n) })
		run(t, "ip -n "+n+" link set lo up")
	}
	for i, peer := range []string{client, backend} {
		run(t, fmt.Sprintf("ip -n %s link add eth%d type veth peer name eth0 netns %s", balancer, i, peer))
		for _, end := range []struct {
			ns, dev string
			host    int
		}{{balancer, fmt.Sprintf("eth%d", i), 1}, {peer, "eth0", 2}} {
			run(t, fmt.Sprintf("ip -n %s addr add 10.77.%d.%d/24 dev %s", end.ns, i+1, end.host, end.dev))
			run(t, fmt.Sprintf("ip -n %s addr add fd77:%d::%d/64 dev %s nodad", end.ns, i+1, end.host, end.dev))
			run(t, fmt.Sprintf("ip -n %s link set %s up", end.ns, end.dev))
		}
		run(t, fmt.Sprintf("ip -n %s route add default via 10.77.%d.1", peer, i+1))
		run(t, fmt.Sprintf("ip -n %s -6 route add default via fd77:%d::1", peer, i+1))
	}
	return client, balancer, backend
}

// TestTransparent checks, with both ways of routing that the package comment
// shows, that a backend sees the client's own address, and that bytes pass.
func TestTransparent(t *testing.T) {
	routings := map[string][]string{
		"by port": {
			"ip -n NS FAMILY rule add iif eth1 ipproto tcp sport 443 lookup 100",
			"ip -n NS FAMILY route add local DEFAULT dev lo table 100",
		},
		"by socket": {
			"ip netns exec NS nft add table inet aovlb",
			"ip netns exec NS nft add chain inet aovlb pre { type filter hook prerouting priority mangle ; }",
			"ip netns exec NS nft add rule inet aovlb pre iif eth1 meta l4proto tcp socket transparent 1 meta mark set 1",
			"ip -n NS FAMILY rule add fwmark 1 lookup 100",
			"ip -n NS FAMILY route add local DEFAULT dev lo table 100",
		},
	}
	for name, routing := range routings {
		for _, family := range []string{"-4", "-6"} {
			t.Run(name+family, func(t *testing.T) {
				clientNS, balancerNS, backendNS := namespaces(t)
				prefix, all := "10.77.%d.%d", "0.0.0.0/0"
				if family == "-6" {
					prefix, all = "fd77:%d::%d", "::/0"
				}
				for _, line := range routing {
					run(t, strings.NewReplacer("NS", balancerNS, "FAMILY", family, "DEFAULT", all).Replace(line))
				}
				addr := func(net, host int) netip.AddrPort {
					return netip.AddrPortFrom(netip.MustParseAddr(fmt.Sprintf(prefix, net, host)), 443)
				}
				back := listenIn(t, backendNS, addr(2, 2))
				startEngine(t, addr(1, 1).String()+" "+addr(2, 2).String()+" transparent",
					"ip", "netns", "exec", balancerNS)
				transparentTrip(t, clientNS, addr(1, 1), addr(1, 2).Addr(), back)
			})
		}
	}
}

// listenIn listens in a namespace until the test ends.
func listenIn(t *testing.T, ns string, at netip.AddrPort) (l net.Listener) {
	t.Helper()
	netns.Do(t, ns, func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	t.Cleanup(func() { l.Close() })
	return l
}

// through connects from a namespace to vip, and accepts at the backend.
func through(t *testing.T, clientNS string, vip netip.AddrPort, back net.Listener) (client, backend net.Conn) {
	t.Helper()
	netns.Do(t, clientNS, func() (err error) {
		client, err = net.DialTimeout("tcp", vip.String(), 5*time.Second)
		return err
	})
	t.Cleanup(func() { client.Close() })
	back.(*net.TCPListener).SetDeadline(time.Now().Add(8 * time.Second))
	backend, err := back.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	for _, c := range []net.Conn{client, backend} {
		c.SetDeadline(time.Now().Add(15 * time.Second))
	}
	return client, backend
}

func transparentTrip(t *testing.T, clientNS string, vip netip.AddrPort, self netip.Addr, back net.Listener) {
	t.Helper()
	client, backend := through(t, clientNS, vip, back)
	if got := backend.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != self {
		t.Errorf("the backend sees %v, not %v", got, self)
	}
	alive(t, client, backend)
}

// TestVanished takes the client's cable away while data are under way.
func TestVanished(t *testing.T) {
	clientNS, balancerNS, backendNS := namespaces(t)
	vip, at := netip.MustParseAddrPort("10.77.1.1:443"), netip.MustParseAddrPort("10.77.2.2:443")
	back := listenIn(t, backendNS, at)
	startEngine(t, vip.String()+" "+at.String()+" impatient", "ip", "netns", "exec", balancerNS)
	client, backend := through(t, clientNS, vip, back)
	alive(t, client, backend)
	run(t, "ip -n "+clientNS+" link set eth0 down")
	start := time.Now()
	send(t, backend, "are you there?")
	wantReset(t, backend)
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("it took %v to notice", took)
	}
}

// TestTransparentFamily has a client of IPv4 and a backend of IPv6.
func TestTransparentFamily(t *testing.T) {
	refused := make(chan tcp.Refusal, 1)
	pool := new(lb.Pool)
	if err := pool.Set(lb.Backend{Name: "b1", Addr: netip.IPv6Loopback()}); err != nil {
		t.Fatal(err)
	}
	e := &tcp.Engine{
		Balancer: &lb.Balancer{Pool: pool, Table: new(lb.Table)}, Transparent: true, Port: 9,
		Trace: &tcp.Trace{
			Refused:     func(_ lb.Flow, why tcp.Refusal, _ error) { refused <- why },
			Unreachable: func(*lb.Member, netip.AddrPort, error) { t.Error("the backend was blamed") },
		},
	}
	c, err := net.DialTCP("tcp", nil, serve(t, e))
	if err == nil {
		defer c.Close()
	}
	if why := <-refused; why != tcp.RefusedLocal {
		t.Errorf("refused: %v", why)
	}
}
