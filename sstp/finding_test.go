package sstp_test

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/sstp"
)

// Each finding is produced by a client and a gateway that are wrong in the way it
// is about, through a balancer that ends TLS.
func TestFindings(t *testing.T) {
	type scene struct {
		w *world
		g *standin.SSTPGateway
		c *standin.SSTPClient
	}
	foreign := []byte("the leaf of a TLS inspector")
	for _, tc := range []struct {
		name string
		bend func(s scene)
		want sstp.Finding
		says string // in what Explain says
	}{
		{
			"the hash set at the gateway is another", func(s scene) { s.g.SetFault(standin.SSTPFault{ForeignHash: true}) }, sstp.FindingWrongHash,
			"Enable-SstpOffload -CertificateHash",
		},
		{"so, known beforehand", func(s scene) {
			s.g.SetFault(standin.SSTPFault{ForeignHash: true})
			s.w.sessions.Expected = func(string) (sstp.Fingerprint, bool) { return sstp.Fingerprint{1}, true }
		}, sstp.FindingWrongHash, "0100000000"},
		{"so, by SHA-1", func(s scene) {
			s.g.Hashes = sstp.HashSHA1
			s.g.SetFault(standin.SSTPFault{ForeignHash: true})
		}, sstp.FindingWrongHash, "Enable-SstpOffload"},
		{
			"so, by a server that aborts nothing", func(s scene) { s.g.SetFault(standin.SSTPFault{ForeignHash: true, CloseQuietly: true}) },
			sstp.FindingWrongHash, "Enable-SstpOffload",
		},
		{"the keys differ", func(s scene) {
			expected, _ := s.w.leaves.Leaf("", nil)
			s.w.sessions.Expected = func(string) (sstp.Fingerprint, bool) { return sstp.FingerprintOf(expected.Certificate[0]), true }
			s.c.Spoil = func(b *sstp.Binding) { b.MAC[3]++ }
		}, sstp.FindingKeys, "MS-MPPE"},
		{"TLS is inspected", func(s scene) { s.c.Leaf = foreign }, sstp.FindingInspection, "127.0.0.0/24"},
		{"TLS is inspected, by SHA-1", func(s scene) { s.c.Leaf, s.g.Hashes = foreign, sstp.HashSHA1 }, sstp.FindingInspection, "inspected"},
		{"the client reports an earlier certificate", func(s scene) {
			old, _ := s.w.leaves.Leaf("", nil)
			s.w.sessions.Served(old.Certificate[0])
			s.c.Leaf = old.Certificate[0]
			fresh := certificate(s.w.t, s.w.roots)
			s.w.leaves.set("", fresh)
			s.g.SetHash(sstp.FingerprintOf(fresh.Certificate[0]), sstp.FingerprintSHA1{})
		}, sstp.FindingStaleLeaf, "resumed"},
		{"the nonce isn't the gateway's", func(s scene) { s.c.Spoil = func(b *sstp.Binding) { b.Nonce[0]++ } }, sstp.FindingNonce, "nonce"},
		{"the hash wasn't offered", func(s scene) {
			s.g.Hashes = sstp.HashSHA256
			s.c.Spoil = func(b *sstp.Binding) { b.Hash = sstp.HashSHA1 }
		}, sstp.FindingHashProtocol, "SHA-1, and gateway ras1 offers SHA-256"},
		{
			"the password is wrong", func(s scene) { s.g.Passwords, s.c.Password = map[string]string{"alice": "pw"}, "guess" },
			sstp.FindingAuthFailed, "CHAP failed with error 691",
		},
		{"the RADIUS server is gone", func(s scene) {
			s.g.Passwords, s.c.Password = map[string]string{"alice": "pw"}, "pw"
			s.g.Negotiation = 100 * time.Millisecond
			s.g.SetFault(standin.SSTPFault{SilentAuth: true})
		}, sstp.FindingAuthStalled, "CHAP Response from client"},
		{"there is no port", func(s scene) { s.g.SetFault(standin.SSTPFault{Status: 503}) }, sstp.FindingHTTP, "503"},
		{"there is no SSTP", func(s scene) { s.g.SetFault(standin.SSTPFault{Status: 404}) }, sstp.FindingHTTP, "RemoteAccess"},
		{"it wants a web login", func(s scene) { s.g.SetFault(standin.SSTPFault{Status: 401}) }, sstp.FindingHTTP, "401"},
		{"the gateway sends nonsense", func(s scene) { s.g.SetFault(standin.SSTPFault{Garbage: true}) }, sstp.FindingMalformed, "the gateway sent what isn't SSTP"},
		{"there is no gateway", func(s scene) { _ = s.w.pool.Set() }, sstp.FindingNoBackend, "no gateway"},
		{"nobody is at the gateway's address", func(s scene) {
			_ = s.w.pool.Set(lb.Backend{Name: "ras9", Addr: netip.MustParseAddr("127.0.0.99")})
		}, sstp.FindingNoBackend, "no gateway"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeOffload, 1, nil)
			s := scene{w, w.gateways[0], w.client()}
			tc.bend(s)
			w.run(s.c, answered(1<<40))
			x := w.ended(1)
			what, fix := x.Explain()
			if x.Finding != tc.want || !strings.Contains(what+"; "+fix, tc.says) {
				t.Errorf("%v: %s; %s\nwant %v: %s\n%+v", x.Finding, what, fix, tc.want, tc.says, x)
			}
		})
	}
}

func TestFindingAborted(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	w.gateways[0].SetFault(standin.SSTPFault{Abort: &sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusUnacceptedFrame}})
	w.run(w.client(), answered(1<<40))
	// It comes right after the binding, so it may well be for that.
	if s := w.ended(1); s.Aborted == nil || s.Aborted.Status != sstp.StatusUnacceptedFrame || s.Finding == sstp.FindingNone {
		t.Errorf("session %+v", s)
	}
}

func TestFindingGatewayLeaf(t *testing.T) {
	// The gateway has a certificate of its own, which the client knows from
	// elsewhere, and it expects ours.
	var own tls.Certificate
	w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) {
		own = certificate(t, w.roots)
		served, _ := w.leaves.Leaf("", nil)
		g := w.gateways[0]
		g.Certificate, g.Hash = own, sstp.FingerprintOf(served.Certificate[0])
	})
	c := w.client()
	c.Leaf = own.Certificate[0]
	w.run(c, answered(1<<40))
	if s := w.ended(1); s.Finding != sstp.FindingGatewayLeaf || s.Gateway != sstp.FingerprintOf(own.Certificate[0]) {
		t.Errorf("session %+v", s)
	}
}

// TestFindingWrongHashWithTLSToTheGateway: Enable-SstpOffload would turn the
// gateway's TLS off, so it isn't what mends the hash there.
func TestFindingWrongHashWithTLSToTheGateway(t *testing.T) {
	w := newWorld(t, sstp.ModeReencrypt, 1, nil)
	w.gateways[0].SetHash(sstp.Fingerprint{1}, sstp.FingerprintSHA1{})
	w.sessions.Expected = func(string) (sstp.Fingerprint, bool) { return sstp.Fingerprint{1}, true }
	w.run(w.client(), answered(1<<40))
	s := w.ended(1)
	_, fix := s.Explain()
	if s.Finding != sstp.FindingWrongHash || fix != "on ras1: run what is printed by: aovlb cert hash --powershell --restart "+s.Served.String() {
		t.Errorf("%v: %s", s.Finding, fix)
	}
}

// TestProbesAreNoFinding: a monitor that begins calls and gives them up must not fill
// the list of problems.
func TestProbesAreNoFinding(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	p := &sstp.Prober{ServerName: "vpn.example", Question: sstp.AskCall}
	if err := p.Probe(t.Context(), w.addr); err != nil {
		t.Fatal(err)
	}
	s := w.ended(1)
	if what, fix := s.Explain(); s.Finding != sstp.FindingNone || !strings.Contains(what, "as a probe does") || fix != "" {
		t.Errorf("%v: %s; %s", s.Finding, what, fix)
	}
}

func TestFindingUntrustedGateway(t *testing.T) {
	w := newWorld(t, sstp.ModeReencrypt, 1, nil)
	for name, g := range map[string]sstp.GatewayTLS{
		"CA":   {},
		"name": {RootCAs: w.roots, ServerName: "other.example"},
		"pin":  {Pins: []sstp.Fingerprint{{1}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) { w.term.Gateway = g })
			w.run(w.client(), answered(1<<40))
			if s := w.ended(1); s.Finding != sstp.FindingUntrusted {
				t.Errorf("session %+v", s)
			}
		})
	}
	for name, trust := range map[string]func(w *world) sstp.GatewayTLS{
		"pin": func(w *world) sstp.GatewayTLS {
			leaf, _ := w.leaves.Leaf("", nil)
			return sstp.GatewayTLS{Pins: []sstp.Fingerprint{{1}, sstp.FingerprintOf(leaf.Certificate[0])}}
		},
		"insecure": func(*world) sstp.GatewayTLS { return sstp.GatewayTLS{Insecure: true} },
	} {
		t.Run(name+" that fits", func(t *testing.T) {
			w := newWorld(t, sstp.ModeReencrypt, 1, func(w *world) { w.term.Gateway = trust(w) })
			if s := w.run(w.client(), answered(1)); s.Received == 0 {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// A rawGateway does with a connection what a test says.
func rawGateway(t *testing.T, w *world, f func(c net.Conn)) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.50:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	w.engine.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	if err := w.pool.Set(lb.Backend{Name: "raw", Addr: netip.MustParseAddr("127.0.0.50")}); err != nil {
		t.Fatal(err)
	}
}

func TestFindingNoAnswer(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	rawGateway(t, w, func(net.Conn) {})
	w.run(w.client(), answered(1))
	if s := w.ended(1); s.Finding != sstp.FindingNoAnswer || s.First != sstp.PeerGateway {
		t.Errorf("session %+v", s)
	}
}

func TestFindingNoBinding(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	c, err := w.dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := sstp.TunnelRequest("x", "{1}")
	c.Write(sstp.AppendConnectRequest(q.Append(nil)))
	c.Write([]byte{0x10, 0, 0, 17, 0xff, 3, 0xc0, 0x21, 12, 1, 0, 13, 1, 2, 3, 4, 'a'})
	c.Write(sstp.AppendControl(nil, sstp.CallConnected))
	c.Read(make([]byte, 1))
	buf := make([]byte, 1024)
	for {
		if _, err := c.Read(buf); err != nil || bytes.Contains(buf, sstp.AppendStatus(nil, sstp.CallAbort, sstp.StatusInfo{Attribute: sstp.AttrStatus, Status: sstp.StatusAttributeNotSupportedInMessage})) {
			break
		}
	}
	c.Close()
	if s := w.ended(1); s.Finding != sstp.FindingNoBinding {
		t.Errorf("session %+v", s)
	}
}

// TestFarewell: over real sockets too it is seen whether TLS ended before the
// connection did, and on whose side.
func TestFarewell(t *testing.T) {
	type ending struct {
		name string
		by   sstp.Peer // who ends it
		says bool      // with a farewell
	}
	for _, e := range []ending{
		{"the client says it", sstp.PeerClient, true},
		{"the client's network ends it", sstp.PeerClient, false},
		{"the gateway says it", sstp.PeerGateway, true},
		{"the gateway's network ends it", sstp.PeerGateway, false},
	} {
		t.Run(e.name, func(t *testing.T) {
			end := func(c *tls.Conn) {
				if e.says {
					c.Close()
				} else {
					c.NetConn().Close()
				}
			}
			w := newWorld(t, sstp.ModeReencrypt, 1, nil)
			leaf, _ := w.leaves.Leaf("", nil)
			rawGateway(t, w, func(raw net.Conn) {
				c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{*leaf}})
				b := make([]byte, 4096)
				if _, err := c.Read(b); err != nil {
					return
				}
				r := sstp.Response{Status: 200, Length: sstp.ContentLength}
				c.Write(r.Append(nil))
				if e.by == sstp.PeerGateway {
					end(c)
					return
				}
				for _, err := c.Read(b); err == nil; _, err = c.Read(b) {
				}
			})
			c, err := w.dial(&tls.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			q := sstp.TunnelRequest("vpn.example", "{1}")
			c.Write(q.Append(nil))
			b := make([]byte, 4096)
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
			if e.by == sstp.PeerClient {
				end(c)
			} else {
				c.Read(b)
				c.Close() // with a farewell, which is an answer
			}
			want := sstp.PeerNone
			if e.says {
				want = e.by
			}
			if s := w.ended(1); s.First != e.by || s.Farewell != want && (e.says || e.by == sstp.PeerClient || s.Farewell == e.by) {
				t.Errorf("ended by %q, farewell of %q; session %+v", s.First, s.Farewell, s)
			}
		})
	}
}

func TestFindingBalancer(t *testing.T) {
	w := newWorld(t, sstp.ModeOffload, 1, nil)
	c := w.client()
	done := make(chan standin.TunnelStatus)
	go func() {
		w.run(c, answered(1<<40))
		close(done)
	}()
	until(t, "the tunnel", func() bool { return c.Status().Received > 3 })
	if l := w.sessions.List(0, true); len(l) != 1 || l[0].Stage != sstp.StageConnected || !l[0].End.IsZero() {
		t.Errorf("live sessions: %+v", l)
	}
	if err := w.pool.Set(lb.Backend{Name: "ras2", Addr: netip.MustParseAddr("127.0.0.98")}); err != nil {
		t.Fatal(err)
	}
	<-done
	if s := w.ended(1); s.Finding != sstp.FindingBalancer || s.First != sstp.PeerBalancer {
		t.Errorf("session %+v", s)
	}
}
