package standin

import (
	"bufio"
	"bytes"
	"context"
	"log/slog"
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

// says reports whether a client's or a gateway's error says text.
func says(log *bytes.Buffer, mu *sync.Mutex, text string) func() bool {
	return func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(log.String(), text)
	}
}

// lockedWriter is a Buffer for two.
type lockedWriter struct {
	mu *sync.Mutex
	b  *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(b)
}

func TestSSTPBinding(t *testing.T) {
	refused := "CALL_ABORT STATUS_INFO{CRYPTO_BINDING VALUE_NOT_SUPPORTED}"
	for name, tc := range map[string]struct {
		bend func(g *SSTPGateway, c *SSTPClient)
		want string // what the gateway aborts with; empty for a call that comes up
	}{
		"right":      {func(*SSTPGateway, *SSTPClient) {}, ""},
		"SHA-1 only": {func(g *SSTPGateway, _ *SSTPClient) { g.Hashes = sstp.HashSHA1 }, ""},
		"MS-CHAPv2": {func(g *SSTPGateway, c *SSTPClient) {
			g.Passwords, c.Password = map[string]string{"alice": "s3cret"}, "s3cret"
		}, ""},
		"in single bytes": {func(_ *SSTPGateway, c *SSTPClient) { c.Bytewise, c.Pipelined = true, true }, ""},
		"other leaf":      {func(_ *SSTPGateway, c *SSTPClient) { c.Leaf = []byte("the leaf of somebody else") }, refused},
		"other hash set":  {func(g *SSTPGateway, _ *SSTPClient) { g.Hash = sstp.Fingerprint{1} }, refused},
		"wrong nonce":     {func(_ *SSTPGateway, c *SSTPClient) { c.Spoil = func(b *sstp.Binding) { b.Nonce[0]++ } }, refused},
		"wrong MAC":       {func(_ *SSTPGateway, c *SSTPClient) { c.Spoil = func(b *sstp.Binding) { b.MAC[0]++ } }, refused},
		"hash not offered": {func(g *SSTPGateway, c *SSTPClient) {
			g.Hashes = sstp.HashSHA256
			c.Spoil = func(b *sstp.Binding) { b.Hash = sstp.HashSHA1 }
		}, refused},
		"wrong password": {func(g *SSTPGateway, c *SSTPClient) {
			g.Passwords, c.Password = map[string]string{"alice": "s3cret"}, "x"
		}, "E=691"},
		"an abort of its own": {func(g *SSTPGateway, _ *SSTPClient) {
			g.SetFault(SSTPFault{Abort: &sstp.StatusInfo{Attribute: sstp.AttrNone, Status: sstp.StatusUnacceptedFrame}})
		}, "CALL_ABORT STATUS_INFO{NO_ERROR UNACCEPTED_FRAME_RECEIVED}"},
		"no ports":  {func(g *SSTPGateway, _ *SSTPClient) { g.SetFault(SSTPFault{Status: 503}) }, "answered 503"},
		"not Plain": {func(_ *SSTPGateway, c *SSTPClient) { c.Plain = true }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newSSTPWorld(t, t.Context())
			var mu sync.Mutex
			var log bytes.Buffer
			w.client.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))
			tc.bend(w.SSTPGateway, w.client)
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			wg.Go(func() { w.client.Run(ctx) })
			if tc.want == "" {
				until(t, "three answers", func() bool { return w.client.Status().Received >= 3 })
				return
			}
			until(t, tc.want, says(&log, &mu, tc.want))
		})
	}
}

func FuzzSSTP(f *testing.F) {
	f.Add(sstp.AppendConnectRequest(nil))
	f.Add(lcp(lcpEchoRequest, 1, []byte("x")))
	f.Add([]byte{0x10, 0, 0, 14, 0xff, 3, 0xc2, 0x23, 2, 1, 0, 6, 49, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		ends := []*PPP{{Server: true, Passwords: func(string) (string, bool) { return "x", true }}, {User: "u", Password: "x"}}
		for _, e := range ends {
			e.Send = func([]byte) error { return nil }
			e.Authenticated = len(b)%2 == 0
		}
		for {
			p, err := readSSTP(r)
			if err != nil {
				return
			}
			if len(p.whole) < sstp.HeaderLen || len(p.whole) > sstp.MaxPacket {
				t.Fatalf("packet of %d bytes", len(p.whole))
			}
			parseLCP(p.data)
			for _, e := range ends {
				_ = e.Take(p.data) // that it doesn't panic is enough
			}
		}
	})
}

func TestReadHeadIsBounded(t *testing.T) {
	long := "HEAD / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 4000)
	if _, err := readHead(bufio.NewReader(strings.NewReader(long))); err == nil {
		t.Error("a head over 8 KiB was read")
	}
}
