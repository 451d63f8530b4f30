package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/sstp"
)

// TestE2EAcmeRollingChange is the life of a certificate, through the whole program:
// a CA (Debian's Pebble) issues it over the shared port, it is brought to two
// gateways, users come and go all the time, the CA issues another one, and that is
// brought to the gateways too. Nobody is aborted and nobody is refused.
//
//	users ──▶ aovlb ──▶ ras1, ras2     set.sh stands for what sets a hash at RRAS
//	pebble ─────┘
func TestE2EAcmeRollingChange(t *testing.T) {
	peers.Need(t, "pebble", "pebble-challtestsrv")
	for _, challenge := range []string{"tls-alpn-01", "http-01"} {
		t.Run(challenge, func(t *testing.T) { acmeRollingChange(t, challenge) })
	}
}

func acmeRollingChange(t *testing.T, challenge string) {
	ca := peers.StartPebble(t, false)
	w := &offloadWorld{t: t, dir: t.TempDir(), log: new(safeBuffer)}
	first, second, port := twoListeners(t)
	gateways := map[string]*standin.SSTPGateway{}
	for name, l := range map[string]net.Listener{"ras1": first, "ras2": second} {
		g := &standin.SSTPGateway{Name: name}
		gateways[name] = g
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); g.Serve(ctx, l) }()
		t.Cleanup(func() { cancel(); <-done })
	}
	w.write("ca.pem", string(ca.RootsPEM))
	w.write("set.sh", `cat > /dev/null
echo $AOVLB_SHA256 > `+w.dir+`/$AOVLB_GATEWAY.want.tmp && mv `+w.dir+`/$AOVLB_GATEWAY.want.tmp `+w.dir+`/$AOVLB_GATEWAY.want
until [ "$(cat `+w.dir+`/$AOVLB_GATEWAY.has 2>/dev/null)" = $AOVLB_SHA256 ]; do sleep 0.05; done
`)
	w.write("aovlb.yaml", strings.NewReplacer("DIR", w.dir, "GWPORT", itoa(port), "FRONT", itoa(ca.TLSPort), "HTTP", itoa(ca.HTTPPort),
		"ACMEURL", ca.Directory, "CHALLENGE", challenge).Replace(`sites:
  - name: hq
    pools:
      - name: ras
        picker: round-robin
        backends: [{name: ras1, address: 127.0.0.2}, {name: ras2, address: 127.0.0.3}]
        checks: [{type: sstp, port: GWPORT, plain_http: true, interval: 1s, timeout: 1s}]
    certificates:
      - name: vpn
        pool: ras
        acme: {host: vpn.example.org, directory: "ACMEURL", ca_file: DIR/ca.pem, challenge: CHALLENGE, tls_alpn_port: FRONT, http_port: HTTP}
        renewal: {set: [/bin/sh, DIR/set.sh], read: [/bin/sh, -c, "cat >/dev/null; cat DIR/$AOVLB_GATEWAY.has"], patience: 10s, settle: 500ms}
    groups:
      - name: vpn
        pool: ras
        listeners:
          - {name: sstp, protocol: sstp, address: "127.0.0.1:FRONT", backend_port: GWPORT, tls: {mode: offload, handshake_rate: -1}}
admin: {listen: "unix:DIR/a.sock"}
state: DIR/state
`))
	w.serve()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	wg.Go(func() { registries(ctx, w.dir, gateways) })

	leaves := func() []string {
		out, _ := w.command("renew", "--status", "--json")
		return strings.Split(out, `"expects": "`)[1:]
	}
	expectBoth := func(but string) (hash string) {
		w.until("both gateways to expect a new certificate", func() bool {
			l := leaves()
			if len(l) != 2 || len(l[0]) < 64 || l[0][:64] != l[1][:min(64, len(l[1]))] {
				return false
			}
			hash = l[0][:64]
			return hash != but && !strings.HasPrefix(hash, "0000")
		})
		return hash
	}
	old := expectBoth("")

	users := &acmeUsers{addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(ca.TLSPort)), ca: ca, t: t}
	for range 4 {
		wg.Go(func() { users.come(ctx) })
	}
	w.until("users", func() bool { return users.connected.Load() >= 10 })
	begin := time.Now()
	if out, err := w.command("renew", "--issue"); err != nil {
		t.Fatalf("renew --issue: %v\n%s", err, out)
	}
	next := expectBoth(old)
	before := users.connected.Load()
	w.until("users of the new certificate", func() bool { return users.connected.Load() >= before+10 })
	t.Logf("%s: from %s to %s in %v, %d users in all", challenge, old[:8], next[:8], time.Since(begin), users.connected.Load())
	users.over.Store(true)
	w.until("the last users", func() bool { return users.here.Load() == 0 })
	if n := users.failed.Load(); n > 0 {
		t.Errorf("%d users failed: %s", n, users.why.Load())
	}
	for name, g := range gateways {
		if c := g.Counts(); c.Aborted != 0 || c.Calls < 5 || c.Bad != 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if out, err := w.command("sessions", "--problems"); err != nil || strings.Contains(out, "wrong_hash") || strings.Contains(out, "stale_leaf") {
		t.Errorf("%v\n%s", err, out)
	}
}

// twoListeners listens at one port of two addresses.
func twoListeners(t *testing.T) (a, b net.Listener, port int) {
	t.Helper()
	for range 20 {
		a, err := net.Listen("tcp", "127.0.0.2:0")
		if err != nil {
			t.Skip("no second loopback address:", err)
		}
		port = a.Addr().(*net.TCPAddr).Port
		if b, err := net.Listen("tcp", fmt.Sprintf("127.0.0.3:%d", port)); err == nil {
			return a, b, port
		}
		a.Close()
	}
	t.Fatal("no port that is free at both addresses")
	return nil, nil, 0
}

// registries does what set.sh asks for.
func registries(ctx context.Context, dir string, gateways map[string]*standin.SSTPGateway) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for name, g := range gateways {
			b, err := os.ReadFile(filepath.Join(dir, name+".want"))
			if err != nil {
				continue
			}
			if has, _ := os.ReadFile(filepath.Join(dir, name+".has")); string(has) == string(b) {
				continue
			}
			if f, err := sstp.ParseFingerprint(string(b)); err == nil {
				g.SetHash(f, sstp.FingerprintSHA1{})
				_ = os.WriteFile(filepath.Join(dir, name+".has"), b, 0o600) // set.sh waits until it is there
			}
		}
	}
}

// acmeUsers come and go all the time.
type acmeUsers struct {
	t    *testing.T
	addr netip.AddrPort
	ca   *peers.Pebble

	over                    atomic.Bool
	here, connected, failed atomic.Int64
	why                     atomic.Value
}

func (u *acmeUsers) come(ctx context.Context) {
	roots := u.ca.Issuers(u.t)
	for ctx.Err() == nil && !u.over.Load() {
		u.here.Add(1)
		c := &standin.SSTPClient{Name: "alice", Server: u.addr, ServerName: "vpn.example.org", RootCAs: roots, Every: 5 * time.Millisecond, Repeat: time.Hour}
		cctx, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() { defer close(done); c.Run(cctx) }()
		for cctx.Err() == nil {
			s := c.Status()
			if s.Failed > 0 || !s.Lost.IsZero() {
				u.failed.Add(1)
				u.why.Store(fmt.Sprintf("%+v", s))
				break
			}
			if s.Received >= 3 {
				u.connected.Add(1)
				break
			}
			<-time.After(2 * time.Millisecond)
		}
		cancel()
		<-done
		u.here.Add(-1)
	}
}
