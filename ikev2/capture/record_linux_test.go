package capture_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// This file makes the captures of ../testdata/captures, with strongSwan in
// network namespaces:
//
//	client 198.51.100.7 ── internet ── router ── dc ──┬── ras1 203.0.113.11
//	       2001:db8:1::7                              └── ras2 203.0.113.12
//
// Without -record they are made in a folder of the test's own and are judged
// just as those in testdata, so that both can't drift apart.

var record = flag.Bool("record", false, "make the captures of testdata anew")

const (
	clientAddr, clientAddr6 = "198.51.100.7", "2001:db8:1::7"
	ras1Addr, ras1Addr6     = "203.0.113.11", "2001:db8:2::11"
	ras2Addr                = "203.0.113.12"
	vipAddr                 = "198.51.100.100"
)

// A lab is what a scenario plays in.
type lab struct {
	t   *testing.T
	dir string // for the captures
	net *peers.Net
	pki *peers.PKI

	internet, dc               *peers.Segment
	client, router, ras1, ras2 *peers.Host
	taps                       []*tap
}

type tap struct {
	proc *peers.Proc
	file string
}

func newLab(t *testing.T, dir string, bits int) *lab {
	t.Helper()
	l := &lab{t: t, dir: dir, net: peers.New(t), pki: peers.NewPKI(t, bits)}
	l.internet, l.dc = l.net.Segment("internet"), l.net.Segment("dc")
	l.router = l.net.Host("router")
	l.router.Attach(l.internet, "198.51.100.1/24", vipAddr+"/32", "2001:db8:1::1/64")
	l.router.Attach(l.dc, "203.0.113.1/24", "2001:db8:2::1/64")
	l.router.Sysctl("ipv4/ip_forward", "1")
	l.router.Sysctl("ipv6/conf/all/forwarding", "1")
	l.client = l.net.Host("client")
	l.client.Attach(l.internet, clientAddr+"/24", clientAddr6+"/64")
	l.client.IP("route add default via 198.51.100.1", "route add default via 2001:db8:1::1")
	l.ras1 = l.gatewayHost("ras1", ras1Addr+"/24", ras1Addr6+"/64")
	l.ras2 = l.gatewayHost("ras2", ras2Addr+"/24")
	return l
}

func (l *lab) gatewayHost(name string, addrs ...string) *peers.Host {
	h := l.net.Host(name)
	h.Attach(l.dc, addrs...)
	h.IP("route add default via 203.0.113.1")
	if len(addrs) > 1 {
		h.IP("route add default via 2001:db8:2::1")
	}
	return h
}

// only keeps neighbour discovery and routers' business out of a capture.
const only = "(ip and (udp or icmp)) or (ip6 and ((udp) or ip6[6] == 44 or (icmp6 and ip6[40] < 128)))"

// tap begins to write what h sees to name.pcap.
func (l *lab) tap(name string, h *peers.Host, dev string) {
	l.t.Helper()
	file := filepath.Join(l.dir, name+".pcap")
	p := h.Start("tcpdump", nil, "tcpdump", "-i", dev, "-n", "-U", "--immediate-mode", "-s", "0", "-Z", "root", "-w", file, only)
	l.taps = append(l.taps, &tap{p, file})
	peers.Eventually(l.t, 10*time.Second, "tcpdump", func() error {
		if !strings.Contains(p.Output(), "listening on") {
			return fmt.Errorf("it says %q", p.Output())
		}
		return nil
	})
}

// views taps the client, and the gateway if that may see something else.
func (l *lab) views(name string) {
	l.t.Helper()
	l.tap(name+"-client", l.client, "eth0")
	l.tap(name+"-gateway", l.ras1, "eth0")
}

// end stops the captures, when the last packets are in them.
func (l *lab) end() {
	time.Sleep(300 * time.Millisecond) // tcpdump tells nobody how far it is
	for _, t := range l.taps {
		_ = t.proc.Stop() // its exit code says how it was stopped
	}
	l.taps = nil
}

func (l *lab) gateway(g peers.Gateway) *peers.Swan {
	l.t.Helper()
	if g.ID == 0 {
		g.ID = 1
	}
	g.PKI = l.pki
	return l.ras1.Gateway(g)
}

// strangers are authorities that the gateway doesn't know.
func (l *lab) strangers() *peers.PKI { return peers.NewPKI(l.t, 3072) }

// user is a tunnel by EAP, machine one by certificate, to ras1.
func user() peers.Tunnel {
	return peers.Tunnel{Name: "user", Server: netip.MustParseAddr(ras1Addr), User: "user1"}
}

func machine() peers.Tunnel {
	return peers.Tunnel{Name: "machine", Server: netip.MustParseAddr(ras1Addr), Machine: "pc1.example.com"}
}

// up dials, pings and hangs up.
func (l *lab) upPingDown(c *peers.Swan, name string) {
	l.t.Helper()
	l.up(c, name)
	l.down(c, name)
}

func (l *lab) up(c *peers.Swan, name string) {
	l.t.Helper()
	if err := c.Up(name, 20*time.Second); err != nil {
		l.t.Fatal(err)
	}
	c.MustPing(l.t, name, 10*time.Second)
}

func (l *lab) down(c *peers.Swan, name string) {
	l.t.Helper()
	if err := c.Down(name); err != nil {
		l.t.Fatal(err)
	}
}

// fails dials in vain.
func (l *lab) fails(c *peers.Swan, name string, wait time.Duration) {
	l.t.Helper()
	if err := c.Up(name, wait); err == nil {
		l.t.Fatal("the tunnel came up")
	}
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// drop has the router drop what rule matches.
func (l *lab) drop(rule string) {
	l.t.Helper()
	l.router.NFT("table inet faults {\n\tchain forward {\n\t\ttype filter hook forward priority 0\n\t\t" + rule + "\n\t}\n}\n")
}

// dnat makes the router a balancer of the kind that treats ports separately.
func (l *lab) dnat(to500, to4500 string) {
	l.t.Helper()
	l.router.NFT(fmt.Sprintf(`table ip vip {
	chain pre {
		type nat hook prerouting priority -100
		ip daddr %s udp dport 500 dnat to %s
		ip daddr %s udp dport 4500 dnat to %s
	}
}
`, vipAddr, to500, vipAddr, to4500))
}

// TestRecord makes every capture and judges it.
func TestRecord(t *testing.T) {
	peers.Need(t, append([]string{"tcpdump"}, peers.SwanPrograms...)...)
	dir := t.TempDir()
	if *record {
		dir = filepath.Join("..", "testdata", "captures")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			if i%3 != 0 && !*record && os.Getenv("AOVLB_BENCH") == "" {
				t.Skip("every third capture is made again; all are with AOVLB_BENCH set")
			}
			play := plays[s.name]
			if play == nil {
				t.Fatal("nobody knows how to make it")
			}
			l := newLab(t, abs, max(s.bits, 2048))
			play(l)
			l.end()
			for _, v := range s.views {
				judge(t, filepath.Join(abs, v.file(s.name)), v)
			}
		})
	}
	if *record && !t.Failed() {
		if err := os.WriteFile(filepath.Join(abs, "README.md"), []byte(readme()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// plays are how the scenarios are made, by name.
var plays = map[string]func(l *lab){
	"eap": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("eap", l.client, "eth0")
		l.upPingDown(c, "user")
	},
	"certificate-fragments": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, machine())
		l.tap("certificate-fragments", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
	"certificate-ip-fragments": func(l *lab) {
		l.gateway(peers.Gateway{Fragmentation: "no"})
		m := machine()
		m.Fragmentation = "no"
		c := l.client.Client(l.pki, m)
		l.tap("certificate-ip-fragments", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
	"nat": func(l *lab) {
		l.gateway(peers.Gateway{})
		nat := l.net.NAT("home", l.internet, "192.168.1.1/24", "198.51.100.9/24")
		nat.Host.IP("route add default via 198.51.100.1")
		h := l.net.Host("laptop")
		nat.Join(h, "192.168.1.2/24")
		c := h.Client(l.pki, user())
		l.tap("nat-gateway", l.ras1, "eth0")
		l.upPingDown(c, "user")
	},
	"ipv6": func(l *lab) {
		l.gateway(peers.Gateway{})
		m := machine()
		m.Server = netip.MustParseAddr(ras1Addr6)
		c := l.client.Client(l.pki, m)
		l.tap("ipv6", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
	"ipv6-ip-fragments": func(l *lab) {
		l.gateway(peers.Gateway{Fragmentation: "no"})
		m := machine()
		m.Server, m.Fragmentation = netip.MustParseAddr(ras1Addr6), "no"
		c := l.client.Client(l.pki, m)
		l.tap("ipv6-ip-fragments", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
	"start-on-4500": func(l *lab) {
		l.gateway(peers.Gateway{})
		u := user()
		u.Port4500 = true
		c := l.client.Client(l.pki, u)
		l.tap("start-on-4500", l.client, "eth0")
		l.upPingDown(c, "user")
	},
	"cookie": func(l *lab) {
		l.gateway(peers.Gateway{Settings: map[string]string{"cookie_threshold": "1", "cookie_threshold_ip": "1"}})
		// One half-open SA of somebody else is enough for cookies.
		silent := user()
		silent.Name = "silent"
		other := l.net.Host("other")
		other.Attach(l.internet, "198.51.100.8/24")
		other.IP("route add default via 198.51.100.1")
		l.drop("ip saddr 198.51.100.8 udp dport 4500 drop")
		o := other.Client(l.pki, silent)
		l.fails(o, "silent", 1*time.Second)
		c := l.client.Client(l.pki, user())
		l.tap("cookie", l.client, "eth0")
		l.upPingDown(c, "user")
	},
	"invalid-ke": func(l *lab) {
		l.gateway(peers.Gateway{})
		u := user()
		u.Proposals = "aes128gcm16-prfsha256-ecp256-modp2048"
		c := l.client.Client(l.pki, u)
		l.tap("invalid-ke", l.client, "eth0")
		l.upPingDown(c, "user")
	},
	"mobike": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("mobike", l.client, "eth0")
		l.up(c, "user")
		l.client.IP("address add 198.51.100.77/24 dev eth0", "address delete "+clientAddr+"/24 dev eth0")
		l.client.IP("route replace default via 198.51.100.1")
		c.MustPing(l.t, "user", 10*time.Second)
		l.down(c, "user")
	},
	"rekey-by-client": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("rekey-by-client", l.client, "eth0")
		l.up(c, "user")
		l.must(c.RekeyIKE("user"))
		c.MustPing(l.t, "user", 10*time.Second)
		l.down(c, "user")
	},
	"rekey-by-gateway": func(l *lab) {
		g := l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("rekey-by-gateway", l.client, "eth0")
		l.up(c, "user")
		l.must(g.RekeyIKE("eap"))
		c.MustPing(l.t, "user", 10*time.Second)
		l.down(c, "user")
	},
	"rekey-child": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("rekey-child", l.client, "eth0")
		l.up(c, "user")
		l.must(c.RekeyChild("user", "user"))
		c.MustPing(l.t, "user", 10*time.Second)
		l.down(c, "user")
	},
	"dpd": func(l *lab) {
		l.gateway(peers.Gateway{})
		u := user()
		u.DPD = time.Second
		c := l.client.Client(l.pki, u)
		l.tap("dpd", l.client, "eth0")
		l.up(c, "user")
		time.Sleep(6 * time.Second) // for the client's own timers
		l.down(c, "user")
	},
	"delete-by-gateway": func(l *lab) {
		g := l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("delete-by-gateway", l.client, "eth0")
		l.up(c, "user")
		l.must(g.Down("eap"))
	},
	"two-tunnels": func(l *lab) {
		l.gateway(peers.Gateway{})
		d := machine()
		d.Device = true
		c := l.client.Client(l.pki, d, user())
		l.tap("two-tunnels", l.client, "eth0")
		l.up(c, "machine")
		l.up(c, "user")
		l.down(c, "user")
		l.down(c, "machine")
	},
	"balancer": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.dnat(ras1Addr, ras1Addr)
		u := user()
		u.Server = netip.MustParseAddr(vipAddr)
		c := l.client.Client(l.pki, u)
		l.tap("balancer", l.router, "any")
		l.upPingDown(c, "user")
	},

	"no-proposal": func(l *lab) {
		l.gateway(peers.Gateway{Proposals: "aes256gcm16-prfsha384-ecp384"})
		u := user()
		u.Proposals = "3des-sha1-modp1024,aes256-sha256-modp1024"
		c := l.client.Client(l.pki, u)
		l.tap("no-proposal", l.client, "eth0")
		l.fails(c, "user", 5*time.Second)
	},
	"weak-suite": func(l *lab) {
		l.gateway(peers.Gateway{Proposals: "3des-sha1-modp1024"})
		u := user()
		u.Proposals = "3des-sha1-modp1024"
		c := l.client.Client(l.pki, u)
		l.tap("weak-suite", l.client, "eth0")
		l.upPingDown(c, "user")
	},
	"fragmentation-one-side": func(l *lab) {
		l.gateway(peers.Gateway{Fragmentation: "no"})
		c := l.client.Client(l.pki, machine())
		l.tap("fragmentation-one-side", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
	"fragments-dropped": func(l *lab) {
		l.gateway(peers.Gateway{Fragmentation: "no"})
		l.drop("ip frag-off & 0x1fff != 0 drop")
		c := l.client.Client(l.pki, machine())
		l.views("fragments-dropped")
		l.fails(c, "machine", 15*time.Second)
	},
	"ike-fragment-lost": func(l *lab) {
		// The router drops what is large: each IKE fragment but the last.
		l.gateway(peers.Gateway{})
		l.drop("udp dport 4500 meta length > 1200 drop")
		c := l.client.Client(l.pki, machine())
		l.views("ike-fragment-lost")
		l.fails(c, "machine", 15*time.Second)
	},
	"never-4500": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.drop("udp dport 4500 drop")
		c := l.client.Client(l.pki, user())
		l.views("never-4500")
		l.fails(c, "user", 15*time.Second)
	},
	"no-answer": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.drop("udp dport 500 drop")
		c := l.client.Client(l.pki, user())
		l.tap("no-answer", l.client, "eth0")
		l.fails(c, "user", 12*time.Second)
	},
	"closed": func(l *lab) {
		c := l.client.Client(l.pki, user())
		l.tap("closed", l.client, "eth0")
		l.fails(c, "user", 12*time.Second)
	},
	"prohibited": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.drop("udp dport 500 reject with icmpx type admin-prohibited")
		c := l.client.Client(l.pki, user())
		l.tap("prohibited", l.client, "eth0")
		l.fails(c, "user", 12*time.Second)
	},
	"wrong-gateway": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.ras2.Gateway(peers.Gateway{ID: 2, PKI: l.pki})
		l.dnat(ras1Addr, ras2Addr)
		u := user()
		u.Server = netip.MustParseAddr(vipAddr)
		c := l.client.Client(l.pki, u)
		l.tap("wrong-gateway-client", l.client, "eth0")
		l.tap("wrong-gateway-balancer", l.router, "any")
		l.fails(c, "user", 15*time.Second)
	},
	"bad-password": func(l *lab) {
		l.gateway(peers.Gateway{})
		u := user()
		u.User = "nobody"
		c := l.client.Client(l.pki, u)
		l.tap("bad-password", l.client, "eth0")
		l.fails(c, "user", 10*time.Second)
	},
	"eap-stopped": func(l *lab) {
		l.gateway(peers.Gateway{})
		u := user()
		u.Forgetful = true
		c := l.client.Client(l.pki, u)
		l.tap("eap-stopped", l.client, "eth0")
		l.fails(c, "user", 10*time.Second)
	},
	"certificate-refused": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.strangers(), machine())
		l.tap("certificate-refused", l.client, "eth0")
		l.fails(c, "machine", 10*time.Second)
	},
	"gateway-untrusted": func(l *lab) {
		l.gateway(peers.Gateway{})
		c := l.client.Client(l.strangers(), user())
		l.tap("gateway-untrusted", l.client, "eth0")
		l.fails(c, "user", 10*time.Second)
	},
	"never-used": func(l *lab) {
		l.gateway(peers.Gateway{})
		m := machine()
		m.ChildProposals = "3des-sha1"
		c := l.client.Client(l.pki, m)
		l.tap("never-used", l.client, "eth0")
		l.fails(c, "machine", 10*time.Second)
		_ = c.Down("machine") // it may have done so by itself
	},
	"radius-silent": func(l *lab) {
		// The gateway waits for a RADIUS server that isn't there, and says
		// nothing meanwhile.
		l.gateway(peers.Gateway{RADIUS: netip.MustParseAddr("203.0.113.99")})
		u := user()
		c := l.client.Client(l.pki, u)
		l.tap("radius-silent", l.client, "eth0")
		l.fails(c, "user", 25*time.Second)
	},
	"half-open-limit": func(l *lab) {
		l.gateway(peers.Gateway{Settings: map[string]string{"block_threshold": "1", "cookie_threshold_ip": "1"}})
		l.drop("udp dport 4500 drop")
		u := user()
		c := l.client.Client(l.pki, u)
		for range 2 {
			l.fails(c, "user", 1*time.Second)
			c.Kill()
			c.Start()
		}
		l.tap("half-open-limit", l.client, "eth0")
		l.fails(c, "user", 12*time.Second)
	},
	"slow": func(l *lab) {
		g := l.gateway(peers.Gateway{})
		c := l.client.Client(l.pki, user())
		l.tap("slow", l.client, "eth0")
		g.Freeze()
		thaw := time.AfterFunc(3300*time.Millisecond, g.Thaw)
		defer thaw.Stop()
		l.up(c, "user")
	},
	"gateway-gone": func(l *lab) {
		g := l.gateway(peers.Gateway{})
		u := user()
		u.DPD = time.Second
		c := l.client.Client(l.pki, u)
		l.tap("gateway-gone", l.client, "eth0")
		l.up(c, "user")
		g.Freeze()
		time.Sleep(8 * time.Second) // while the client's own timers run
		l.end()
		g.Thaw()
	},
	"small-mtu": func(l *lab) {
		l.gateway(peers.Gateway{})
		l.router.IP("link set eth1 mtu 1000")
		l.ras1.IP("link set eth0 mtu 1000")
		c := l.client.Client(l.pki, machine())
		l.tap("small-mtu", l.client, "eth0")
		l.upPingDown(c, "machine")
	},
}
