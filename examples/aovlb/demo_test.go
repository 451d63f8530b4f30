package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

// demoTestDuration is short: the clients repeat after 375 ms then.
const demoTestDuration = 6 * time.Second

// needLoopback skips a test where only 127.0.0.1 is the machine's own.
func needLoopback(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("the demo takes some seconds of real time")
	}
	c, err := listenUDP(netip.MustParseAddr("127.0.5.2"), 0)
	if err != nil {
		t.Skipf("the demo needs all of 127.0.0.0/8 on %s: %v", runtime.GOOS, err)
	}
	c.Close()
}

// The promises are told from numbers that the gateways counted; this test
// looks at those numbers itself, through the command as users call it.
func TestDemo(t *testing.T) {
	needLoopback(t)
	var out, errs bytes.Buffer
	env := &environment{stdout: &out, stderr: &errs, getenv: os.Getenv}
	code := run(t.Context(), env, []string{"demo", "--json", "--duration", demoTestDuration.String(), "--clients", "40"})
	var s demoSummary
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("exit code %d, %v: %s%s", code, err, &out, &errs)
	}
	for _, p := range s.Promises {
		if !p.Kept {
			t.Errorf("%s: %s", p.Promise, p.Found)
		}
	}
	if code != 0 || !s.Kept || len(s.Promises) != 14 {
		t.Errorf("exit code %d, kept %t, %d promises", code, s.Kept, len(s.Promises))
	}
	var sessions, begun, split, calls, rekeys, fragments, invalidKE, probes uint64
	for _, g := range s.Gateways {
		sessions += uint64(g.Sessions)
		begun += g.IKE.Begun
		split += g.IKE.SplitAuth
		rekeys += g.IKE.Rekeys
		fragments += g.IKE.Fragments
		invalidKE += g.IKE.InvalidKE
		calls += g.SSTP.Calls
		probes += g.SSTP.Probes
		if g.Sessions < 5 || g.SSTP.Aborted > 0 {
			t.Errorf("%s: %d sessions, counts %+v %+v", g.Name, g.Sessions, *g.IKE, *g.SSTP)
		}
	}
	// 40 tunnels and 6 calls at first, 8 and 7 more later, and those of the dead
	// gateway twice.
	if sessions < 40+6+8+7+8 || begun < 40+6+6+8 || calls < 6+2+1 {
		t.Errorf("%d sessions, %d handshakes, %d calls: too few", sessions, begun, calls)
	}
	if split > 0 {
		t.Errorf("%d handshakes reached a gateway that they don't belong to", split)
	}
	if rekeys != 1 || fragments == 0 || invalidKE == 0 || probes == 0 {
		t.Errorf("%d rekeys, %d fragments, %d INVALID_KE_PAYLOAD, %d probes: too few", rekeys, fragments, invalidKE, probes)
	}
	var accepts, unknown, foreign uint64
	for _, n := range s.Servers {
		accepts += n.NPS.Accepts
		unknown += n.NPS.UnknownState
		foreign += n.NPS.ForeignAccounting
		if n.NPS.Accepts == 0 || n.NPS.Bad > 0 {
			t.Errorf("%s: counts %+v", n.Name, *n.NPS)
		}
	}
	if accepts < 50 || unknown+foreign > 0 {
		t.Errorf("%d users, %d rounds and %d accounting messages astray", accepts, unknown, foreign)
	}
}

// A saboteur is the built-in driver, made to break a promise.
type saboteur struct {
	builtin.Driver
	rewrite func(d *plugins.Deployment)
	drain   func(d *builtin.Driver, r plugins.DrainRequest) error
}

func (s *saboteur) Plan(ctx context.Context, d *plugins.Deployment) (*plugins.Plan, error) {
	if s.rewrite != nil {
		s.rewrite(d)
	}
	return s.Driver.Plan(ctx, d)
}

func (s *saboteur) Drain(ctx context.Context, r plugins.DrainRequest) error {
	if s.drain != nil {
		return s.drain(&s.Driver, r)
	}
	return s.Driver.Drain(ctx, r)
}

// Undrain doesn't mind that a drain was sabotaged.
func (s *saboteur) Undrain(ctx context.Context, b plugins.BackendRef) error {
	err := s.Driver.Undrain(ctx, b)
	if s.drain != nil {
		return nil
	}
	return err
}

// eventView calls f for each event.
type eventView struct{ f func(text string) }

func (v eventView) Event(_ time.Duration, text string) { v.f(text) }
func (v eventView) Picture(demoPicture)                {}

// sabotagePorts balances the two ports of IKE each for itself, as a list of UDP services
// on a common load balancer does.
func sabotagePorts(d *plugins.Deployment) {
	s := &d.Sites[0]
	vpn := &s.Groups[0]
	natt := vpn.Listeners[1]
	vpn.Listeners = slices.Delete(vpn.Listeners, 1, 2)
	vpn.Listeners[0].Protocol, natt.Protocol = plugins.ProtocolUDP, plugins.ProtocolUDP
	s.Groups = append(s.Groups, plugins.Group{Name: "apart", Pool: "ras", Listeners: []plugins.Listener{natt}})
}

// sabotageAccounting sends RADIUS accounting to a server that doesn't authenticate.
func sabotageAccounting(d *plugins.Deployment) {
	s := &d.Sites[0]
	acct := s.Pools[1]
	acct.Name, acct.Backends = "acct", acct.Backends[1:]
	s.Pools[1].Backends = s.Pools[1].Backends[:1]
	s.Pools = append(s.Pools, acct)
	g := s.Groups[1]
	g.Name, g.Pool, g.Listeners = "acct", "acct", g.Listeners[1:]
	s.Groups[1].Listeners = s.Groups[1].Listeners[:1]
	s.Groups = append(s.Groups, g)
}

// sabotageAffinity has each address be a client, whose gateway a hash chooses.
func sabotageAffinity(d *plugins.Deployment) {
	d.Sites[0].Groups[0].Affinity, d.Sites[0].Pools[0].Picker = plugins.AffinitySource, plugins.PickMaglev
}

// sabotageDrain drains a gateway with no time left.
func sabotageDrain(d *builtin.Driver, name string) error {
	return d.Drain(context.Background(), plugins.DrainRequest{
		BackendRef: plugins.BackendRef{Backend: name}, Deadline: time.Now().Add(time.Millisecond),
	})
}

// A demo that can't fail shows nothing. So here everything is broken in turn, by
// configurations that people have and by a driver that doesn't do as it is told,
// and the demo must say so. Each case takes one run, so some break two things
// that have nothing to do with each other.
func TestDemoNoticesSabotage(t *testing.T) {
	needLoopback(t)
	t.Parallel()
	for _, tc := range []struct {
		name     string
		saboteur *saboteur
		relay    bool // one without any memory stands before the RADIUS servers
		event    func(d *saboteur, text string)
		want     []string // the promises that are broken, at least
	}{
		{
			name:     "500 and 4500 apart, accounting elsewhere",
			saboteur: &saboteur{rewrite: func(d *plugins.Deployment) { sabotagePorts(d); sabotageAccounting(d) }},
			want:     []string{"ports", "accounting"},
		},
		{
			name:     "gateways by source address, RADIUS by packet",
			saboteur: &saboteur{rewrite: sabotageAffinity},
			relay:    true,
			want:     []string{"nat", "radius", "accounting"},
		},
		{
			name:     "drain does nothing, the living are moved when others move or die",
			saboteur: &saboteur{drain: func(*builtin.Driver, plugins.DrainRequest) error { return nil }},
			event: func(d *saboteur, text string) {
				for _, name := range []string{"ras1", "ras2"} {
					switch {
					case strings.Contains(text, "change their address"), strings.Contains(text, "dies"):
						sabotageDrain(&d.Driver, name)
					case strings.Contains(text, "are drained"):
						d.Driver.Undrain(context.Background(), plugins.BackendRef{Backend: name})
					}
				}
			},
			want: []string{"move", "drain-takes", "radius-drain", "kill-others"},
		},
		{
			name:     "drain throws clients out, the revived gateway stays drained",
			saboteur: &saboteur{drain: func(d *builtin.Driver, r plugins.DrainRequest) error { return sabotageDrain(d, r.Backend) }},
			event: func(d *saboteur, text string) {
				if name, _, ok := strings.Cut(text, " dies"); ok {
					d.Driver.Drain(context.Background(), plugins.DrainRequest{BackendRef: plugins.BackendRef{Backend: name}})
				}
			},
			want: []string{"drain-keeps", "revival"},
		},
		{
			name: "no checks, and a gateway for each address",
			saboteur: &saboteur{rewrite: func(d *plugins.Deployment) {
				sabotageAffinity(d)
				d.Sites[0].Pools[0].Checks = nil
			}},
			want: []string{"kill-returns"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := tc.saboteur
			s := &demoScenario{Duration: demoTestDuration, Clients: 30, Driver: d}
			if tc.event != nil {
				s.View = eventView{func(text string) { tc.event(d, text) }}
			}
			if tc.relay {
				rewrite := d.rewrite
				d.rewrite = func(dep *plugins.Deployment) {
					rewrite(dep)
					p := &dep.Sites[0].Pools[1]
					p.Checks, p.Backends = nil, []plugins.Backend{{Name: "nps1", Address: relayAddr}}
					sabotageRelay(t, dep)
				}
			}
			sum, err := s.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var broken []string
			for _, p := range sum.Promises {
				if !p.Kept {
					broken = append(broken, p.Name)
					t.Logf("%s: %s", p.Name, p.Found)
				}
			}
			if sum.Kept {
				t.Error("all promises are said to be kept")
			}
			for _, want := range tc.want {
				if !slices.Contains(broken, want) {
					t.Errorf("%q isn't among the broken promises %v", want, broken)
				}
			}
		})
	}
}

var relayAddr = netip.MustParseAddr("127.0.1.29")

// sabotageRelay sends each datagram to the next RADIUS server in turn, as a balancer
// does that knows no conversations.
func sabotageRelay(t *testing.T, d *plugins.Deployment) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait) // after the sockets were closed
	for _, l := range d.Sites[0].Groups[1].Listeners {
		c, err := listenUDP(relayAddr, l.Address.Port())
		if err != nil {
			t.Errorf("relay: %v", err)
			return
		}
		t.Cleanup(func() { c.Close() })
		wg.Go(func() { relayDatagrams(c, l.Address.Port()) })
	}
}

func relayDatagrams(c *net.UDPConn, port uint16) {
	b := make([]byte, 4096)
	clients := make(map[byte]netip.AddrPort) // by RADIUS Identifier: enough for a bad example
	for i := 0; ; i++ {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		if from.Port() == port { // of a server
			c.WriteToUDPAddrPort(b[:n], clients[b[1]])
			continue
		}
		clients[b[1]] = from
		c.WriteToUDPAddrPort(b[:n], netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(21 + i%2)}), port))
	}
}

func TestDemoUsage(t *testing.T) {
	for _, args := range [][]string{{"--duration", "1s"}, {"--clients", "3"}, {"--clients", "x"}, {"more"}, {"--duration", "1h"}} {
		var errs bytes.Buffer
		env := &environment{stdout: io.Discard, stderr: &errs, getenv: os.Getenv}
		if code := run(t.Context(), env, append([]string{"demo"}, args...)); code != 2 || errs.Len() == 0 {
			t.Errorf("%v: exit code %d, %q", args, code, &errs)
		}
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]*[a-zA-Z]")

func TestDemoViews(t *testing.T) {
	pic := demoPicture{at: 1500 * time.Millisecond, title: "ras2 is dead; ras1 still drains", hosts: []demoHostPicture{
		{name: "ras1", addr: "127.0.1.11", state: "up", clients: 3, rate: 12345},
		{name: "ras2", addr: "127.0.1.12", state: "down"},
	}}
	var plain, live bytes.Buffer
	for _, v := range []demoView{&plainView{w: &plain}, &liveView{w: &live}} {
		v.Event(time.Second, "ras2 dies")
		v.Picture(pic)
		pic.at += 100 * time.Millisecond
		v.Picture(pic)
	}
	if want := "  1.0 s  ras2 dies\n  1.5 s   ras1 up 3  ras2 down 0\n"; plain.String() != want {
		t.Errorf("plain view: got %q, want %q", &plain, want)
	}
	for _, want := range []string{"ras2 is dead", "\x1b[31mdown", "███ ", "ras2 dies"} {
		if strings.Count(live.String(), want) != 2 {
			t.Errorf("live view: %q isn't there twice in %q", want, &live)
		}
	}
	for l := range strings.Lines(live.String()) {
		if n := utf8.RuneCountInString(escapes.ReplaceAllString(l, "")); n > 80 {
			t.Errorf("live view: %d columns in %q", n, l)
		}
	}
	if lines := strings.Count(live.String(), "\n") / 2; !strings.Contains(live.String(), "\x1b["+string(rune('0'+lines/10))+string(rune('0'+lines%10))+"A") {
		t.Errorf("live view: it doesn't go up by its %d lines: %q", lines, &live)
	}
}

func TestDemoSummaryText(t *testing.T) {
	s := &demoSummary{Kept: true, Seconds: 15.5, Promises: []demoPromise{{Promise: "water is wet", Kept: true, Found: "it was"}}}
	var b bytes.Buffer
	s.write(&b)
	if !strings.Contains(b.String(), "✓ water is wet\n      it was\n") || !strings.Contains(b.String(), "All 1 promises were kept, in 15.5 s.") {
		t.Errorf("got %s", &b)
	}
	s.Promises = append(s.Promises, demoPromise{Promise: "pigs fly", Found: "none did"})
	b.Reset()
	s.write(&b)
	if !strings.Contains(b.String(), "✗ pigs fly\n      none did\n") || !strings.Contains(b.String(), "1 of 2 promises were BROKEN.") {
		t.Errorf("got %s", &b)
	}
}
