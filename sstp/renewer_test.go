package sstp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A ringWorld is two or more gateways, a balancer that sends clients to them, and
// a disk. Whatever happens in it, two things must hold: a client is never shown a
// leaf that its gateway doesn't expect, and a new client can always be served.
type ringWorld struct {
	t        *testing.T
	certs    []*Certificate // old, new
	names    []string
	gateways map[string]*worldGateway // outlive the balancer
	disk     []byte                   // likewise
	ring     *Keyring                 // of the balancer's process

	ops     int
	crashAt int  // -1: never
	after   bool // crash when the work is done, not before
	trail   []string
}

type worldGateway struct {
	expects         Fingerprint
	drained, closed bool
	clients         int
	shy             int // how often it doesn't answer yet
	deaf            int // how often a set is without effect
	mute            int // how often it takes no call, whatever it holds
}

// crash is what a kill looks like: nothing of the process is left.
type crash struct{}

func newRingWorld(t *testing.T, certs []*Certificate, names ...string) *ringWorld {
	w := &ringWorld{t: t, certs: certs, names: names, gateways: map[string]*worldGateway{}, crashAt: -1}
	for _, n := range names {
		w.gateways[n] = &worldGateway{expects: certs[0].SHA256(), clients: 2}
	}
	return w
}

// boot starts the balancer's process: from the disk, or for the first time.
func (w *ringWorld) boot() *Renewal {
	w.t.Helper()
	w.ring = &Keyring{Trusting: true}
	for _, c := range w.certs {
		if _, err := w.ring.Hold(c); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, g := range w.gateways {
		g.closed = false // Drain outlives a process, Close need not
	}
	if w.disk == nil {
		r, err := NewRenewal(w.ring, w.certs[1].SHA256(), w.names, time.Now())
		if err != nil {
			w.t.Fatal(err)
		}
		return r
	}
	s, err := parseRing(w.disk)
	if err != nil {
		w.t.Fatal(err)
	}
	w.ring.Restore(s)
	w.look()
	return s.Renewal
}

// look is a moment at which clients come.
func (w *ringWorld) look() {
	w.t.Helper()
	open := 0
	for name, g := range w.gateways {
		leaf, err := w.ring.Leaf(name, nil)
		if err == nil && FingerprintOf(leaf.Certificate[0]) != g.expects {
			w.t.Errorf("a client of %s is shown a leaf that it doesn't expect, after %s", name, strings.Join(w.trail, ", "))
		}
		if !g.drained && !g.closed {
			open++
			if err != nil {
				w.t.Errorf("a client of %s is shown none, though it takes clients, after %s: %v", name, strings.Join(w.trail, ", "), err)
			}
		}
	}
	if open == 0 {
		w.t.Errorf("no gateway takes clients, after %s", strings.Join(w.trail, ", "))
	}
}

// do is a piece of work of the process, before or after which it may be killed.
func (w *ringWorld) do(what string, f func() error) error {
	w.look()
	w.trail = append(w.trail, what)
	n := w.ops
	w.ops++
	if n == w.crashAt && !w.after {
		panic(crash{})
	}
	err := f()
	if n == w.crashAt {
		panic(crash{})
	}
	w.look()
	return err
}

func (w *ringWorld) renewer() *Renewer {
	gate := func(what string, f func(*worldGateway)) func(context.Context, string) error {
		return func(_ context.Context, name string) error {
			return w.do(what+" "+name, func() error { f(w.gateways[name]); return nil })
		}
	}
	return &Renewer{
		Keyring: w.ring,
		Control: GatewayControl{
			Spare: func(_ context.Context, name string) error {
				for other, g := range w.gateways {
					if other != name && !g.drained && !g.closed {
						return nil
					}
				}
				return errors.New("no other gateway takes clients")
			},
			Drain: gate("drain", func(g *worldGateway) { g.drained = true }),
			Clients: func(_ context.Context, name string) (n int, err error) {
				err = w.do("count "+name, func() error { n = w.gateways[name].clients; w.gateways[name].clients = max(n-1, 0); return nil })
				return n, err
			},
			Close:  gate("close", func(g *worldGateway) { g.closed, g.clients = true, 0 }),
			Return: gate("return", func(g *worldGateway) { g.drained, g.closed, g.clients = false, false, 2 }),
		},
		Set: func(_ context.Context, t RenewalTask) error {
			return w.do("set "+t.Gateway, func() error {
				g := w.gateways[t.Gateway]
				if !g.closed {
					w.t.Errorf("%s is changed while clients may come", t.Gateway)
				}
				g.shy = 2
				if g.deaf > 0 {
					g.deaf--
					return nil
				}
				g.expects = t.Certificate.SHA256()
				return nil
			})
		},
		Verify: func(_ context.Context, t RenewalTask) (e Evidence, err error) {
			err = w.do("verify "+t.Gateway, func() error {
				g := w.gateways[t.Gateway]
				if g.shy > 0 {
					g.shy--
					return errors.New("it doesn't answer yet")
				}
				e = Evidence{Answers: g.mute == 0, Configured: g.expects}
				g.mute = max(g.mute-1, 0)
				return nil
			})
			return e, err
		},
		Save: func(r *Renewal) error {
			s := w.ring.State()
			s.Renewal = r
			b, err := json.Marshal(s)
			if err != nil {
				return err
			}
			return w.do("save "+fmt.Sprint(r.Next()), func() error { w.disk = b; return nil })
		},
	}
}

// life runs the process until it is done or is killed.
func (w *ringWorld) life(ctx context.Context) (killed bool, err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case crash:
			killed = true
		default:
			panic(p)
		}
	}()
	r := w.boot()
	return false, w.renewer().Run(ctx, r)
}

func (w *ringWorld) finished() {
	w.t.Helper()
	for name, g := range w.gateways {
		if g.expects != w.certs[1].SHA256() || g.drained || g.closed {
			w.t.Errorf("%s is left as %+v after %s", name, *g, strings.Join(w.trail, ", "))
		}
	}
	if got := w.ring.Current().SHA256(); got != w.certs[1].SHA256() {
		w.t.Errorf("the current certificate is %v", got)
	}
	if s, err := parseRing(w.disk); err != nil || s.Renewal.Ended.IsZero() || !s.Renewal.Done() {
		w.t.Errorf("the saved state isn't that of a renewal that is done: %v, %v", s.Renewal, err)
	}
}

func twoCertificates(t testing.TB) []*Certificate {
	ca := newTestCA(t, "Example CA", nil)
	return []*Certificate{ca.issue(t, newTestKey(t), nil), ca.issue(t, newTestKey(t), nil)}
}

func TestRenewer(t *testing.T) {
	certs := twoCertificates(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2", "ras3")
		if _, err := w.life(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.finished()
		for i, want := range []string{"drain ras1", "close ras1", "set ras1", "verify ras1", "return ras1", "drain ras2"} {
			at := slices.Index(w.trail, want)
			if at < 0 {
				t.Fatalf("%q never happened", want)
			}
			if i > 0 {
				w.trail = w.trail[at:]
			}
		}
	})
}

// TestRenewerKilledAnywhere kills the process before and after each thing that it
// does, at every point of a whole renewal, and once more while it recovers.
func TestRenewerKilledAnywhere(t *testing.T) {
	certs := twoCertificates(t)
	total := 0
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		if _, err := w.life(t.Context()); err != nil {
			t.Fatal(err)
		}
		total = w.ops
	})
	if total < 30 {
		t.Fatalf("a renewal has only %d steps: the test doesn't see what happens", total)
	}
	for first := range total {
		for _, after := range []bool{false, true} {
			for _, second := range []int{-1, 0, 1, 2, 3, 5, 8} {
				synctest.Test(t, func(t *testing.T) {
					w := newRingWorld(t, certs, "ras1", "ras2")
					w.crashAt, w.after = first, after
					if killed, _ := w.life(t.Context()); !killed {
						t.Fatalf("it was not killed at %d", first)
					}
					if second >= 0 {
						w.trail = append(w.trail, "KILLED")
						w.crashAt = w.ops + second
						if killed, _ := w.life(t.Context()); !killed {
							w.finished()
							return
						}
					}
					w.trail = append(w.trail, "KILLED")
					w.crashAt = -1
					if _, err := w.life(t.Context()); err != nil {
						t.Fatal(err)
					}
					w.finished()
				})
			}
		}
	}
}

func TestRenewerInterrupted(t *testing.T) {
	certs := twoCertificates(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		w.gateways["ras1"].clients = 1 << 30 // they never leave
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Hour, errors.New("interrupted"))
		defer cancel()
		if _, err := w.life(ctx); err == nil || err.Error() != "interrupted" {
			t.Fatalf("got %v", err)
		}
		s, _ := parseRing(w.disk)
		if g := s.Renewal.Gateways[0]; g.Phase != PhaseEmptying || !strings.Contains(g.Error, "clients are still there") {
			t.Errorf("it stands at %+v", g)
		}
		w.gateways["ras1"].clients = 0
		if _, err := w.life(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.finished()
	})
}

func TestRenewerPatience(t *testing.T) {
	certs := twoCertificates(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		w.gateways["ras1"].clients = 1 << 30
		begin := time.Now()
		r := w.boot()
		n := w.renewer()
		n.Patience = 10 * time.Minute
		if err := n.Run(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		w.finished()
		if took := time.Since(begin); took < 10*time.Minute || took > 15*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRenewerGivesUp(t *testing.T) {
	certs := twoCertificates(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		r := w.boot()
		n := w.renewer()
		set := n.Set
		n.Set = func(ctx context.Context, t RenewalTask) error {
			return errors.New("access is denied")
		}
		err := n.Run(t.Context(), r)
		var stands *RenewalError
		if !errors.As(err, &stands) || stands.Gateway != "ras1" || stands.Phase != PhaseSetting || !strings.Contains(err.Error(), "access is denied") {
			t.Fatalf("got %v", err)
		}
		if _, err := w.ring.Leaf("ras1", nil); !errors.Is(err, ErrNoLeaf) {
			t.Errorf("clients of a gateway of which nobody knows what it expects get %v", err)
		}
		if _, err := w.ring.Leaf("ras2", nil); err != nil {
			t.Errorf("the other gateway doesn't serve: %v", err)
		}
		n.Set = set
		if err := n.Run(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		w.finished()
	})
}

// TestRenewerSetsAgain: where a gateway is found with the old hash after it was set,
// and that has failed for good or was interrupted, the next call sets it again.
func TestRenewerSetsAgain(t *testing.T) {
	certs := twoCertificates(t)
	for _, tc := range []struct {
		name string
		left func(t *testing.T, w *ringWorld) // how ras1's first set and verify went
		sets int
	}{
		{"given up", func(t *testing.T, w *ringWorld) {
			w.gateways["ras1"].deaf = 1
			_, err := w.life(t.Context())
			var stands *RenewalError
			if !errors.As(err, &stands) || stands.Gateway != "ras1" || stands.Phase != PhaseVerifying || !strings.Contains(err.Error(), "registry holds the hash") {
				t.Fatalf("got %v", err)
			}
		}, 2},
		{"interrupted", func(t *testing.T, w *ringWorld) {
			w.gateways["ras1"].deaf = 1
			ctx, cancel := context.WithCancel(t.Context())
			r := w.boot()
			n := w.renewer()
			n.Changed = func(r *Renewal) {
				if r.Gateways[0].Phase == PhaseVerifying && r.Gateways[0].Tries > 2 {
					cancel()
				}
			}
			if err := n.Run(ctx, r); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
		}, 2},
		{"given up, and found set by hand since", func(t *testing.T, w *ringWorld) {
			// It holds the hash and doesn't answer: only what failed is done again.
			w.gateways["ras1"].mute = DefaultRenewTries
			var stands *RenewalError
			if _, err := w.life(t.Context()); !errors.As(err, &stands) || stands.Phase != PhaseVerifying {
				t.Fatalf("got %v", err)
			}
		}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newRingWorld(t, certs, "ras1", "ras2")
				tc.left(t, w)
				if _, err := w.life(t.Context()); err != nil { // another process
					t.Fatal(err)
				}
				w.finished()
				sets := 0
				for _, what := range w.trail {
					if what == "set ras1" {
						sets++
					}
				}
				if sets != tc.sets {
					t.Errorf("ras1 was set %d times, want %d", sets, tc.sets)
				}
			})
		})
	}
}

// TestRenewerDoubts: a gateway that holds another hash than it was told must not
// get clients.
func TestRenewerDoubts(t *testing.T) {
	certs := twoCertificates(t)
	old, want := certs[0].SHA256(), certs[1].SHA256()
	for _, tt := range []struct {
		name string
		e    Evidence
		want string // part of the error; none if empty
	}{
		{"configured", Evidence{Answers: true, Configured: want}, ""},
		{"configured, but dead", Evidence{Configured: want}, "doesn't answer"},
		{"old hash in the registry", Evidence{Answers: true, Configured: old}, "registry holds the hash " + old.String()},
		{"old hash, though the right leaf is shown", Evidence{Answers: true, Configured: old, Shows: want}, "registry holds"},
		{"right hash, other leaf", Evidence{Answers: true, Configured: want, Shows: old}, ""},
		{"shown", Evidence{Answers: true, Shows: want}, ""},
		{"another shown", Evidence{Answers: true, Shows: old}, "nobody looked into its registry"},
		{"another shown, whatever somebody says", Evidence{Answers: true, Shows: old, Word: "administrator"}, "nobody looked"},
		{"bound", Evidence{Bound: true}, ""},
		{"somebody's word", Evidence{Answers: true, Word: "administrator"}, ""},
		{"nothing", Evidence{Answers: true}, "nothing says"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.e.Judge(want)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestRenewerProves: where the hash is only said to be set, a session has to prove it
// before the next gateway is touched, and a gateway that aborts them is taken out of
// service again.
func TestRenewerProves(t *testing.T) {
	certs := twoCertificates(t)
	prepare := func(t *testing.T) (*ringWorld, *Renewal, *Renewer) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		r := w.boot()
		n := w.renewer()
		n.Verify = func(context.Context, RenewalTask) (Evidence, error) {
			return Evidence{Answers: true, Word: "administrator"}, nil
		}
		return w, r, n
	}
	untouched := func(t *testing.T, w *ringWorld, name string) {
		if slices.Contains(w.trail, "drain "+name) {
			t.Errorf("%s was drained", name)
		}
	}
	t.Run("a session", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r, n := prepare(t)
			begin := time.Now()
			n.Bindings = func(task RenewalTask, since time.Time) (bound, aborted int) {
				if task.Gateway == "ras1" {
					untouched(t, w, "ras2")
				}
				if task.To != certs[1].SHA256() || since.Before(begin) {
					t.Errorf("asked for %+v since %v", task, since)
				}
				if time.Since(since) < time.Minute {
					return 0, refutedBy - 1 // other clients have troubles of their own
				}
				return 1, refutedBy
			}
			if err := n.Run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			w.finished()
			if got := r.Gateways[0].Evidence.String(); got != "a session was logged in to with it" || time.Since(begin) > 5*time.Minute {
				t.Errorf("%s, after %v", got, time.Since(begin))
			}
		})
	})
	t.Run("nobody comes", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r, n := prepare(t)
			begin := time.Now()
			n.Bindings = func(task RenewalTask, since time.Time) (bound, aborted int) {
				if g := r.Next(); !g.Until.Equal(since.Add(DefaultRenewProve)) {
					t.Errorf("%s is waited for until %v, since %v", g.Gateway, g.Until, since)
				}
				if g := r.Unproved(); (g != nil) != (task.Gateway == "ras2") {
					t.Errorf("at %s, all that is left to do is %v", task.Gateway, g)
				}
				return 0, 0
			}
			if err := n.Run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			w.finished()
			if g := r.Gateways[1]; !g.Until.IsZero() || r.Unproved() != nil {
				t.Errorf("when it is done, %+v", g)
			}
			if took := time.Since(begin); took < 2*DefaultRenewProve {
				t.Errorf("sessions were waited for only %v", took)
			}
		})
	})
	t.Run("aborted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r, n := prepare(t)
			aborted := 0
			n.Bindings = func(RenewalTask, time.Time) (int, int) { aborted++; return 0, aborted }
			err := n.Run(t.Context(), r)
			var stands *RenewalError
			if !errors.As(err, &stands) || stands.Gateway != "ras1" || stands.Phase != PhaseProving || !strings.Contains(err.Error(), "3 of its sessions") {
				t.Fatalf("got %v", err)
			}
			untouched(t, w, "ras2")
			if g := r.Gateways[0]; g.Phase != PhaseSetting || !w.gateways["ras1"].closed {
				t.Errorf("ras1 is %+v, closed %v", g, w.gateways["ras1"].closed)
			}
			if _, err := w.ring.Leaf("ras1", nil); !errors.Is(err, ErrNoLeaf) {
				t.Errorf("clients of ras1 get %v", err)
			}
			// It is put right, and another process goes on.
			n = w.renewer()
			n.Bindings = func(RenewalTask, time.Time) (int, int) { t.Error("asked though its registry was read"); return 1, 0 }
			if err := n.Run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			w.finished()
		})
	})
	t.Run("the first certificate", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r, n := prepare(t)
			for i := range r.Gateways {
				r.Gateways[i].From = Fingerprint{}
			}
			n.Bindings = func(RenewalTask, time.Time) (int, int) { t.Error("a gateway waits for users of another"); return 1, 0 }
			if err := n.Run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			w.finished()
		})
	})
	t.Run("interrupted", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w, r, n := prepare(t)
			ctx, cancel := context.WithCancel(t.Context())
			n.Bindings = func(RenewalTask, time.Time) (int, int) { cancel(); return 0, 0 }
			if err := n.Run(ctx, r); !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v", err)
			}
			r = w.boot()
			if g := r.Gateways[0]; g.Phase != PhaseProving {
				t.Fatalf("ras1 is saved as %+v", g)
			}
			n = w.renewer()
			n.Bindings = func(RenewalTask, time.Time) (int, int) { untouched(t, w, "ras2"); return 1, 0 }
			if err := n.Run(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			w.finished()
		})
	})
}

// TestRenewerWaitsForOthers: a gateway isn't drained while it is the only one.
func TestRenewerWaitsForOthers(t *testing.T) {
	certs := twoCertificates(t)
	synctest.Test(t, func(t *testing.T) {
		w := newRingWorld(t, certs, "ras1", "ras2")
		r := w.boot()
		n := w.renewer()
		back := time.Now().Add(time.Hour)
		n.Control.Spare = func(context.Context, string) error {
			if time.Now().Before(back) {
				return errors.New("ras2 is down")
			}
			return nil
		}
		if err := n.Run(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if time.Now().Before(back) {
			t.Error("it didn't wait")
		}
		w.finished()
	})
}

func TestNewRenewal(t *testing.T) {
	certs := twoCertificates(t)
	k := &Keyring{}
	for _, c := range certs {
		if _, err := k.Hold(c); err != nil {
			t.Fatal(err)
		}
	}
	old, next := certs[0].SHA256(), certs[1].SHA256()
	k.Expect("a", old)
	k.Expect("b", next)
	k.Withhold("d", "it was left in the middle")
	r, err := NewRenewal(k, next, []string{"a", "b", "c", "d"}, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range r.Gateways {
		got = append(got, g.Gateway+" "+g.Phase.String())
	}
	if want := []string{"c waiting", "d waiting", "a waiting", "b done"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range []struct {
		to    Fingerprint
		names []string
	}{{next, nil}, {Fingerprint{1}, []string{"a"}}, {next, []string{"a", "a"}}} {
		if _, err := NewRenewal(k, bad.to, bad.names, time.Now()); err == nil {
			t.Errorf("a renewal to %v of %q is taken", bad.to, bad.names)
		}
	}
}
