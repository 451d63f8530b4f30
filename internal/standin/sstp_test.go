package standin

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// sstpWorld is a gateway on loopback.
type sstpWorld struct {
	*SSTPGateway
	addr   netip.AddrPort
	client *SSTPClient
}

// newSSTPWorld serves a gateway until the test ends or the context does.
func newSSTPWorld(t *testing.T, ctx context.Context) *sstpWorld {
	t.Helper()
	cert, roots, err := SelfSigned("vpn.example")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &sstpWorld{SSTPGateway: &SSTPGateway{Name: "ras1", Certificate: cert}, addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	w.client = &SSTPClient{Name: "alice", Server: w.addr, ServerName: "vpn.example", RootCAs: roots, Every: 10 * time.Millisecond}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

// until waits until ok, for real sockets.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

func TestSSTPCall(t *testing.T) {
	w := newSSTPWorld(t, t.Context())
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() { w.client.Run(ctx) })
	until(t, "five answers", func() bool { return w.client.Status().Received >= 5 })
	cancel()
	wg.Wait()
	if s := w.client.Status(); s.Gateway != "ras1" || s.Established != 1 || s.Alien+uint64(s.Failed) != 0 {
		t.Errorf("status %+v; want one call at ras1", s)
	}
	until(t, "the call's end", func() bool { l := w.Sessions(); return len(l) == 1 && !l[0].Ended.IsZero() })
	if l := w.Sessions(); l[0].Client != "alice" || l[0].Packets < 5 {
		t.Errorf("sessions %+v; want one of alice", l)
	}
	if c := w.Counts(); c != (SSTPCounts{Calls: 1}) {
		t.Errorf("counts %+v; want one call", c)
	}
}

func TestSSTPGatewayIsUpToTheProber(t *testing.T) {
	w := newSSTPWorld(t, t.Context())
	p := &sstp.Prober{ServerName: "vpn.example", Verify: true, RootCAs: w.client.RootCAs}
	if err := p.Probe(t.Context(), w.addr); err != nil {
		t.Error(err)
	}
	if c := w.Counts(); c.Probes != 1 || c.Bad != 0 {
		t.Errorf("counts %+v; want one probe", c)
	}
}

func TestSSTPRefuses(t *testing.T) {
	w := newSSTPWorld(t, t.Context())
	good, evil := w.Certificate.Certificate[0], []byte("the certificate of a man in the middle")
	for name, tc := range map[string]struct {
		leaf  []byte
		spoil func([]byte)
		want  []byte // status info, or nil for a connection that goes on
	}{
		"right":       {leaf: good},
		"other leaf":  {leaf: evil, want: []byte{0, 0, 0, 3, 0, 0, 0, 4}},
		"wrong nonce": {leaf: good, spoil: func(b []byte) { b[16]++ }, want: []byte{0, 0, 0, 3, 0, 0, 0, 4}},
		"wrong MAC":   {leaf: good, spoil: func(b []byte) { b[111]++ }, want: []byte{0, 0, 0, 3, 0, 0, 0, 4}},
		"SHA1":        {leaf: good, spoil: func(b []byte) { b[15] = 1 }, want: []byte{0, 0, 0, 3, 0, 0, 0, 4}},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := tls.Dial("tcp", w.addr.String(), &tls.Config{ServerName: "vpn.example", RootCAs: w.client.RootCAs})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r := bufio.NewReader(c)
			// Everything at once, as a client may send it.
			c.Write([]byte("SSTP_DUPLEX_POST " + sstp.Path + "?tenantid=x HTTP/1.1\r\nHost: x\r\nContent-Length: " + sstpLength + "\r\n\r\n"))
			c.Write(control(callConnectRequest, attrProtocol, []byte{0, protocolPPP}))
			first, fields, err := readHead(r)
			if first != "HTTP/1.1 200" || fields["content-length"] != sstpLength || err != nil {
				t.Fatalf("answer %q %v, %v", first, fields, err)
			}
			ack, err := readSSTP(r)
			if err != nil || ack.kind != callConnectAck || len(ack.whole) != 48 {
				t.Fatalf("ack %+v, %v; want 48 bytes", ack, err)
			}
			c.Write(lcp(lcpIdentification, 1, []byte("bob")))
			b := bindCall(ack.attrs[attrBindingReq][4:], tc.leaf)
			if len(b) != 112 {
				t.Fatalf("CALL_CONNECTED has %d bytes, not 112", len(b))
			}
			if tc.spoil != nil {
				tc.spoil(b)
			}
			c.Write(b)
			c.Write(control(echoRequest, 0, nil))
			p, err := readSSTP(r)
			switch {
			case err != nil:
				t.Fatal(err)
			case tc.want == nil && p.kind != echoResponse:
				t.Errorf("packet %x; want an echo response", p.whole)
			case tc.want != nil && (p.kind != callAbort || !bytes.Equal(p.attrs[attrStatus], tc.want)):
				t.Errorf("packet %x; want an abort with status %x", p.whole, tc.want)
			}
		})
	}
}

func FuzzSSTP(f *testing.F) {
	f.Add(control(callConnectRequest, attrProtocol, []byte{0, 1}))
	f.Add(lcp(lcpEchoRequest, 1, []byte("x")))
	f.Add(bindCall(make([]byte, 32), []byte("leaf")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			p, err := readSSTP(r)
			if err != nil {
				return
			}
			if len(p.whole) < 4 || len(p.whole) > sstpMaxLen {
				t.Fatalf("packet of %d bytes", len(p.whole))
			}
			parseLCP(p.data)
			checkBinding(p, make([]byte, 32), nil)
		}
	})
}

func TestReadHeadIsBounded(t *testing.T) {
	long := "HEAD / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 4000)
	if _, _, err := readHead(bufio.NewReader(strings.NewReader(long))); err == nil {
		t.Error("a head over 16 KiB was read")
	}
}
