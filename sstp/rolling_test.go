package sstp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"

	"github.com/aovlb/aovlb/sstp"
)

// A roller has a world's leaves come from a Keyring, which holds an old and a new
// certificate.
type roller struct {
	*world
	ring      *sstp.Keyring
	old, next sstp.Fingerprint
}

func newRoller(t *testing.T, mode sstp.Mode) *roller {
	t.Helper()
	r := &roller{ring: &sstp.Keyring{Trusting: true}}
	hold := func(c tls.Certificate) sstp.Fingerprint {
		x, err := sstp.CertificateOf(&c)
		if err != nil {
			t.Fatal(err)
		}
		f, err := r.ring.Hold(x)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	r.world = newWorld(t, mode, 2, func(w *world) {
		r.old = hold(*w.leaves.each[""])
		r.next = hold(certificate(t, w.roots))
		w.term.Leaves, w.term.HandshakeRate = r.ring, -1 // the whole crowd has one address
		for _, g := range w.gateways {
			g.Passwords = map[string]string{"alice": "open sesame"}
		}
	})
	return r
}

func (r *roller) gateway(name string) (int, *standin.SSTPGateway) {
	for i, g := range r.gateways {
		if g.Name == name {
			return i, g
		}
	}
	r.t.Fatalf("there is no gateway %s", name)
	return 0, nil
}

// renewer does to the world what plugins/builtin does to a deployment.
func (r *roller) renewer() *sstp.Renewer {
	clients := func(_ context.Context, name string) (int, error) { return r.pool.View().ByName(name).Clients(), nil }
	return &sstp.Renewer{
		Keyring: r.ring, Settle: 300 * time.Millisecond, Poll: 20 * time.Millisecond, Retry: 50 * time.Millisecond,
		Save: func(*sstp.Renewal) error { return nil },
		Control: sstp.GatewayControl{
			Spare: func(_ context.Context, name string) error {
				for _, m := range r.pool.View().Ready {
					if m.Name != name {
						return nil
					}
				}
				return errors.New("no other gateway")
			},
			Drain:   func(_ context.Context, name string) error { return r.pool.Drain(name, time.Time{}) },
			Clients: clients,
			Close:   func(_ context.Context, name string) error { return r.pool.Drain(name, time.Unix(1, 0)) },
			Return:  func(_ context.Context, name string) error { return r.pool.Undrain(name) },
		},
		Set: func(ctx context.Context, t sstp.RenewalTask) error {
			if n, _ := clients(ctx, t.Gateway); n > 0 {
				r.t.Errorf("%s is restarted with %d clients", t.Gateway, n)
			}
			_, g := r.gateway(t.Gateway)
			g.SetHash(t.To, t.Certificate.SHA1())
			return nil
		},
		Verify: func(ctx context.Context, t sstp.RenewalTask) (sstp.Evidence, error) {
			i, g := r.gateway(t.Gateway)
			p := sstp.Prober{PlainHTTP: len(g.Certificate.Certificate) == 0}
			err := p.Probe(ctx, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i)}), r.port))
			return sstp.Evidence{Answers: err == nil, Configured: t.To}, err
		},
	}
}

// crowd has users log in, be connected for a moment, and leave, all the time.
type crowd struct {
	connected, failed atomic.Int64
	mu                sync.Mutex
	why               string
}

func (c *crowd) run(ctx context.Context, r *roller, many int) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			for ctx.Err() == nil {
				c.user(r)
			}
		})
	}
	return &wg
}

// user is one who is connected for a moment. It isn't cut off in the middle of its
// login when the test is over.
func (c *crowd) user(r *roller) {
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	defer cancel()
	var log strings.Builder
	user := &standin.SSTPClient{
		Name: "alice", Password: "open sesame", Server: r.addr, ServerName: "vpn.example", RootCAs: r.roots,
		Every: 5 * time.Millisecond, Patience: 15 * time.Second, Logger: textLogger(&log),
	}
	var wg sync.WaitGroup
	wg.Go(func() { user.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	for ctx.Err() == nil {
		switch s := user.Status(); {
		case s.Failed > 0 || !s.Lost.IsZero():
			cancel()
			c.failed.Add(1)
			c.mu.Lock()
			c.why += log.String()
			c.mu.Unlock()
			return
		case s.Received >= 2:
			c.connected.Add(1)
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	c.failed.Add(1)
}

// TestRollingChange changes the certificate at two gateways, and back again, while
// users log in all the time: none is aborted, none fails to connect, and none is
// cut off.
func TestRollingChange(t *testing.T) {
	for _, mode := range []sstp.Mode{sstp.ModeOffload, sstp.ModeReencrypt} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			r := newRoller(t, mode)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var c crowd
			users := c.run(ctx, r, 6)
			wait := func(n int64) {
				for end := time.Now().Add(20 * time.Second); c.connected.Load() < n && time.Now().Before(end); {
					time.Sleep(5 * time.Millisecond)
				}
			}
			wait(10)
			for _, to := range []sstp.Fingerprint{r.next, r.old} {
				before := c.connected.Load()
				w, err := sstp.NewRenewal(r.ring, to, []string{"ras1", "ras2"}, time.Now())
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				if err := r.renewer().Run(ctx, w); err != nil {
					t.Fatal(err)
				}
				t.Logf("%v: two gateways in %v, meanwhile %d users", mode, time.Since(begin), c.connected.Load()-before)
				wait(c.connected.Load() + 20)
			}
			cancel()
			users.Wait()
			for _, g := range r.gateways {
				if n := g.Counts(); n.Aborted != 0 || n.Bad != 0 || n.Calls < 10 {
					t.Errorf("%s: %+v", g.Name, n)
				}
			}
			if c.failed.Load() != 0 || c.connected.Load() < 50 {
				t.Errorf("%d users were connected, and %d were not:\n%s", c.connected.Load(), c.failed.Load(), c.why)
			}
			for _, l := range r.ring.Status().Leaves {
				if l.Served == 0 {
					t.Errorf("the leaf %v was never shown", l.SHA256)
				}
			}
			for _, g := range r.ring.Status().Gateways {
				if g.Refused != 0 {
					t.Errorf("%d handshakes for %s were refused", g.Refused, g.Gateway)
				}
			}
		})
	}
}

// TestChangeWithoutCare is what happens without: the crowd of the test above does
// notice when a certificate is changed as everybody does it.
func TestChangeWithoutCare(t *testing.T) {
	r := newRoller(t, sstp.ModeOffload)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var c crowd
	users := c.run(ctx, r, 4)
	for end := time.Now().Add(20 * time.Second); c.connected.Load() < 5 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if err := r.ring.SetCurrent(r.next); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); c.failed.Load() == 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	users.Wait()
	aborted := uint64(0)
	for _, g := range r.gateways {
		aborted += g.Counts().Aborted
	}
	if aborted == 0 || c.failed.Load() == 0 {
		t.Errorf("%d aborted, %d failed: the crowd notices nothing", aborted, c.failed.Load())
	}
}

// TestChangeOnAWord: somebody says that the hash of ras1 is set, and it isn't. A few
// users notice; ras1 is taken out of service again, ras2 is not touched and serves
// all others. What is found is the hash, not the keys. Then it is put right.
func TestChangeOnAWord(t *testing.T) {
	for _, mode := range []sstp.Mode{sstp.ModeOffload, sstp.ModeReencrypt} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			r := newRoller(t, mode)
			n := r.renewer()
			set, verify, wrong := n.Set, n.Verify, true
			n.Set = func(ctx context.Context, task sstp.RenewalTask) error {
				if wrong {
					return nil
				}
				return set(ctx, task)
			}
			n.Verify = func(ctx context.Context, task sstp.RenewalTask) (sstp.Evidence, error) {
				e, err := verify(ctx, task)
				e.Configured, e.Word = sstp.Fingerprint{}, "administrator"
				return e, err
			}
			n.Bindings = func(task sstp.RenewalTask, since time.Time) (bound, aborted int) {
				return r.sessions.Bindings(task.Gateway, task.To, since)
			}
			w, err := sstp.NewRenewal(r.ring, r.next, []string{"ras1", "ras2"}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var c crowd
			users := c.run(ctx, r, 4)
			defer users.Wait()
			defer cancel()
			var stands *sstp.RenewalError
			if err := n.Run(ctx, w); !errors.As(err, &stands) || stands.Gateway != "ras1" || stands.Phase != sstp.PhaseProving {
				t.Fatalf("got %v", err)
			}
			if w.Gateways[1].Phase != sstp.PhaseWaiting {
				t.Errorf("ras2 is %+v", w.Gateways[1])
			}
			failed := c.failed.Load()
			before := c.connected.Load()
			until(t, "users at ras2", func() bool { return c.connected.Load() >= before+20 })
			// Those that were under way when ras1 was closed may fail late.
			if late := c.failed.Load() - failed; late > 4 {
				t.Errorf("%d users failed after ras1 was taken out of service", late)
			}
			for _, x := range r.sessions.Counts() {
				if x.Finding == sstp.FindingKeys || x.Finding == sstp.FindingWrongHash && x.Backend != "ras1" {
					t.Errorf("found %v at %s in %d sessions", x.Finding, x.Backend, x.N)
				}
			}
			wrong = false
			if err := n.Run(ctx, w); err != nil {
				t.Fatal(err)
			}
			for _, g := range w.Gateways {
				if !g.Evidence.Bound {
					t.Errorf("%s: %v", g.Gateway, g.Evidence)
				}
			}
		})
	}
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// TestClientsAreLedToGatewaysThatAreKnown: of two gateways one has been told
// nothing yet, or has a hash that is none of ours. It costs no client anything.
func TestClientsAreLedToGatewaysThatAreKnown(t *testing.T) {
	r := newRoller(t, sstp.ModeOffload)
	for name, forget := range map[string]func(){
		"told nothing":  func() { r.ring.Withhold("ras1", "") },
		"foreign hash":  func() { r.ring.Expect("ras1", sstp.Fingerprint{7}) },
		"being changed": func() { r.ring.Withhold("ras1", "its certificate is being changed") },
	} {
		forget()
		for range 3 {
			c := r.client()
			c.Password = "open sesame"
			if s := r.run(c, answered(1)); s.Received == 0 {
				t.Errorf("%s: status %+v", name, s)
			}
		}
	}
	if n := r.gateways[1].Counts().Calls; n != 9 {
		t.Errorf("ras2 got %d calls", n)
	}
	r.ring.Withhold("ras2", "")
	if c, err := r.dial(&tls.Config{}); err == nil {
		c.Close()
		t.Error("a client was shown a certificate, and none is right")
	}
}
