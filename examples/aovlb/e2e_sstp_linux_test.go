package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// TestE2ESSTP carries HTTPS sessions like those of SSTP clients through "aovlb
// serve", to servers of which only some are SSTP gateways that work.
func TestE2ESSTP(t *testing.T) {
	peers.Need(t, "nginx")
	needBalancer(t)
	useProgram(t)
	for _, s := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"only 401 is up", sstpOnly401},
		{"a gateway that stops answering 401", sstpFails},
		{"sessions survive a drain", sstpDrain},
		{"nginx that answers 401", sstpNginx},
		{"the client's address is kept", sstpTransparent},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t)
		})
	}
}

// A sstpWorld is a world whose servers are HTTPS servers, and that has a client.
type sstpWorld struct {
	*world
	pc *peers.Host
}

func newSSTP(t *testing.T, o options) *sstpWorld {
	t.Helper()
	w := &sstpWorld{world: newNet(t, o)}
	w.pki = peers.NewPKI(t, 2048)
	w.pc = w.Host("pc")
	w.pc.Attach(w.public, "198.18.1.1/16")
	return w
}

// add makes the next server.
func (w *sstpWorld) add(name string, m peers.Manner, status int) *peers.HTTPS {
	w.t.Helper()
	return w.server(name).HTTPS(name, w.pki, m, status)
}

// serveSSTP starts the balancer.
func (w *sstpWorld) serveSSTP() {
	w.t.Helper()
	var backends strings.Builder
	for _, h := range w.servers {
		backends.WriteString(fmt.Sprintf("          - {name: %s, address: %s}\n", h.Name, h.Addr()))
	}
	w.serve(fmt.Sprintf(`name: e2e
sites:
  - name: hq
    pools:
      - name: ras
        backends:
%s        checks:
          - {type: sstp, interval: 1s, timeout: 1s, rise: 1, fall: 2}
    groups:
      - name: vpn
        pool: ras
        affinity: source
        client_address: %s
        listeners:
          - {name: sstp, protocol: sstp, address: "%s:443"}
`, backends.String(), w.clientAddress(), vip))
}

// newAddress has the client come from an address that none has had.
func (w *sstpWorld) newAddress() {
	w.t.Helper()
	w.clients++
	addr := fmt.Sprintf("198.18.%d.%d", 5+w.clients/250, 1+w.clients%250)
	w.pc.IP(fmt.Sprintf("address add %s/16 dev eth0", addr),
		fmt.Sprintf("route replace %s/32 dev eth0 src %s", vip, addr))
}

// dial begins a session of a client at a new address.
func (w *sstpWorld) dial() (*peers.SSTPSession, error) {
	w.t.Helper()
	w.newAddress()
	return w.pc.SSTP(vip + ":443")
}

// settle waits until n new clients in a row got sessions with one of names.
func (w *sstpWorld) settle(n int, names ...string) map[string]int {
	w.t.Helper()
	var count map[string]int
	peers.Eventually(w.t, 30*time.Second, fmt.Sprintf("%d clients served by %v", n, names), func() error {
		count = map[string]int{}
		for range n {
			s, err := w.dial()
			if err != nil {
				return err
			}
			s.Close()
			count[s.Server]++
		}
		for got := range count {
			if !slices.Contains(names, got) {
				return fmt.Errorf("served by %v", count)
			}
		}
		return nil
	})
	return count
}

func sstpOnly401(t *testing.T) {
	w := newSSTP(t, options{})
	w.add("answers401", peers.Answers, 401)
	w.add("answers404", peers.Answers, 404)
	w.add("answers503", peers.Answers, 503)
	w.add("hangs", peers.Hangs, 0)
	w.add("resets", peers.Resets, 0)
	w.server("nobody")
	w.serveSSTP()
	count := w.settle(12, "answers401")
	t.Logf("401, 404, 503, hanging, resetting, nobody at home: 12 clients at %v", count)
}

func sstpFails(t *testing.T) {
	w := newSSTP(t, options{})
	w.add("ras1", peers.Answers, 401)
	ras2 := w.add("ras2", peers.Answers, 401)
	w.serveSSTP()
	count := w.settle(12, "ras1", "ras2")
	if len(count) != 2 {
		t.Errorf("12 clients at %v", count)
	}
	for _, bad := range []struct {
		name   string
		manner peers.Manner
		status int
	}{{"404", peers.Answers, 404}, {"503", peers.Answers, 503}, {"hangs", peers.Hangs, 0}, {"resets", peers.Resets, 0}} {
		ras2.Set(bad.manner, bad.status)
		w.settle(8, "ras1")
		ras2.Set(peers.Answers, 401)
		peers.Eventually(t, 30*time.Second, "clients for ras2, which is back", func() error {
			s, err := w.dial()
			if err != nil {
				return err
			}
			s.Close()
			if s.Server != "ras2" {
				return errors.New("at " + s.Server)
			}
			return nil
		})
		t.Logf("ras2 %s: new clients at ras1 only; ras2 is used again when it answers 401", bad.name)
	}
}

func sstpDrain(t *testing.T) {
	w := newSSTP(t, options{})
	w.add("ras1", peers.Answers, 401)
	w.add("ras2", peers.Answers, 401)
	w.serveSSTP()
	w.settle(4, "ras1", "ras2")
	var sessions []*peers.SSTPSession
	at := map[string]int{}
	for range 10 {
		s, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		at[s.Server]++
		sessions = append(sessions, s)
	}
	w.command("drain", "--admin", "unix:"+w.admin(), "ras2")
	count := w.settle(8, "ras1")
	for i, s := range sessions {
		if err := s.Echo(fmt.Sprintf("still here %d", i)); err != nil {
			t.Errorf("session %d with %s: %v", i, s.Server, err)
		}
	}
	if at["ras2"] == 0 {
		t.Errorf("10 sessions: %v", at)
	}
	t.Logf("10 sessions at %v survive the drain of ras2; 8 new ones: %v", at, count)
}

func sstpNginx(t *testing.T) {
	w := newSSTP(t, options{})
	w.server("nginx401").Nginx(w.pki, 401)
	w.server("nginx404").Nginx(w.pki, 404)
	w.serveSSTP()
	peers.Eventually(t, 20*time.Second, "8 clients at the nginx that answers 401", func() error {
		for range 8 {
			w.newAddress()
			line, err := w.pc.Head(vip + ":443")
			if err != nil {
				return err
			}
			if !strings.HasPrefix(line, "HTTP/1.1 401") {
				return fmt.Errorf("got %q", line)
			}
		}
		return nil
	})
	t.Log("8 clients at the nginx that answers 401, none at that with 404")
}

func sstpTransparent(t *testing.T) {
	w := newSSTP(t, options{transparent: true})
	servers := map[string]*peers.HTTPS{}
	for _, name := range []string{"ras1", "ras2"} {
		servers[name] = w.add(name, peers.Answers, 401)
	}
	w.serveSSTP()
	w.settle(4, "ras1", "ras2")
	count := map[string]int{}
	for i := range 8 {
		s, err := w.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		count[s.Server]++
		// The port is the balancer's own choice.
		if from := servers[s.Server].Last.Load().Addr().Unmap(); from != s.Local() {
			t.Errorf("%s sees %s, and the client is %s", s.Server, from, s.Local())
		}
		if err := s.Echo(fmt.Sprintf("hello %d", i)); err != nil {
			t.Errorf("session %d with %s: %v", i, s.Server, err)
		}
	}
	t.Logf("8 sessions at %v: each server sees the client's own address", count)
}
