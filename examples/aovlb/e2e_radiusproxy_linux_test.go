package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// TestE2ERADIUSProxy carries requests to FreeRADIUS servers through "aovlb serve"
// as TestE2ERADIUS does, in proxy mode: with one secret for clients and another
// for servers.
func TestE2ERADIUSProxy(t *testing.T) {
	peers.Need(t, peers.RADIUSPrograms...)
	needBalancer(t)
	useProgram(t)
	for _, s := range []radiusScenario{
		{"radclient", radclient},
		{"PEAP-MSCHAPv2", eapPEAP},
		{"EAP-TLS with large certificates", eapTLS},
		{"each EAP method and Framed-MTU", eapEach},
		{"a hundred conversations at once", eapHundred},
		{"authentication and accounting at one server", authAndAcct},
		{"server killed in mid-conversation", radiusKilled},
		{"VPN gateways as RADIUS clients", alwaysOn},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, options{proxy: true})
		})
	}
}

// TestE2ERADIUSHard has many conversations at once, a bad network, and servers that
// stop, die and return, in both modes.
func TestE2ERADIUSHard(t *testing.T) {
	peers.Need(t, peers.RADIUSPrograms...)
	needBalancer(t)
	useProgram(t)
	for _, mode := range []string{"forward", "proxy"} {
		for _, s := range []radiusScenario{
			{"five hundred conversations at once", fiveHundred},
			{"packets lost and overtaken", badNetwork},
			{"EAP fragments larger than the MTU", eapJumbo},
			{"server stopped and killed and back", stoppedDeadAndBack},
		} {
			t.Run(mode+"/"+s.name, func(t *testing.T) {
				s.run(t, options{proxy: mode == "proxy"})
			})
		}
	}
}

// crowd has n conversations at once, by way of server, and returns how many failed
// and how many requests were repeated. None may be at two servers.
func (w *radiusWorld) crowd(n, first int, server netip.AddrPort, o peers.EAP) (failed, again int) {
	w.t.Helper()
	errs, results := make([]error, n), make([]peers.EAPResult, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			e := o
			e.Server, e.User, e.Station, e.PKI = server, fmt.Sprintf("user%d", first+i), first+i, w.pki
			results[i], errs[i] = w.nas.EAP(e)
		})
	}
	wg.Wait()
	count, split := map[string]int{}, 0
	for i := range n {
		station, _ := peers.Station(first + i)
		at := w.by(station, (*peers.FreeRADIUS).Authenticated)
		if len(at) > 1 {
			split++
		}
		for _, name := range at {
			count[name]++
		}
		again += results[i].Retransmits
		if errs[i] != nil {
			if failed++; failed < 4 {
				w.t.Logf("conversation %d at %v: %v", first+i, at, errs[i])
			}
		}
	}
	w.t.Logf("%d conversations: %d failed, %d split, %d requests repeated, accepted by %v", n, failed, split, again, count)
	if split > 0 || n > 20 && len(count) != 2 {
		w.t.Errorf("%d conversations were split, and they were at %v", split, count)
	}
	return failed, again
}

func fiveHundred(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	begin := time.Now()
	failed, _ := w.crowd(500, 0, authVIP, peers.EAP{Timeout: 55 * time.Second})
	if failed > 0 {
		t.Errorf("%d of 500 failed", failed)
	}
	t.Logf("in %v", time.Since(begin).Round(10*time.Millisecond))
}

func badNetwork(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	r := w.nas.Relay(netip.MustParseAddrPort("127.0.0.1:1812"), authVIP, .03, 30*time.Millisecond)
	failed, again := w.crowd(100, 0, r.Addr, peers.EAP{Timeout: 55 * time.Second})
	carried, lost := r.Counts()
	if failed > 0 || lost == 0 || again == 0 {
		t.Errorf("%d of 100 failed; %d packets lost, %d requests repeated", failed, lost, again)
	}
	t.Logf("%d packets carried, %d lost", carried, lost)
}

func eapJumbo(t *testing.T, o options) {
	o.fragment = 3800
	w := newRADIUS(t, 4096, o)
	for i := range 4 {
		r, err := w.nas.EAP(peers.EAP{
			Server: authVIP, User: fmt.Sprintf("user%d.example.com", i), Station: i, PKI: w.pki, Method: peers.EAPTLS, Fragment: 3800, FramedMTU: 4000,
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("EAP-TLS in %d rounds", r.Rounds)
	}
	frags, err := w.nas.Counter("Ip", "ReasmOKs")
	if err != nil || frags == 0 {
		t.Errorf("%d packets were put together of fragments, %v: nothing was tested", frags, err)
	}
	if !o.proxy {
		return
	}
	out, err := w.lb.Run(w.program, "status", "--admin", "unix:"+w.admin())
	if err != nil || !strings.Contains(out, "IP fragments") {
		t.Errorf("the status says nothing of fragments: %v\n%s", err, out)
	}
}

func stoppedDeadAndBack(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	// A stop of four seconds in the middle of conversations: they wait.
	go func() {
		time.Sleep(100 * time.Millisecond)
		w.nps[0].Pause()
		time.Sleep(4 * time.Second)
		w.nps[0].Resume()
	}()
	if failed, _ := w.crowd(60, 0, authVIP, peers.EAP{Timeout: 40 * time.Second}); failed > 0 {
		t.Errorf("%d conversations didn't survive a stop of 4 s", failed)
	}
	// Stopped for good: new users get in within the time of a few checks.
	w.nps[0].Pause()
	time.Sleep(8 * time.Second)
	begin := time.Now()
	if failed, _ := w.crowd(10, 100, authVIP, peers.EAP{Timeout: 15 * time.Second}); failed > 0 {
		t.Errorf("%d new users were not let in 8 s after a server was stopped", failed)
	}
	t.Logf("10 new users in %v", time.Since(begin).Round(time.Millisecond))
	w.nps[0].Resume()
	w.nps[0].Kill()
	time.Sleep(4 * time.Second)
	if failed, _ := w.crowd(10, 200, authVIP, peers.EAP{Timeout: 15 * time.Second}); failed > 0 {
		t.Errorf("%d new users were not let in 4 s after a server was killed", failed)
	}
	w.nps[0].Start()
	time.Sleep(6 * time.Second)
	if failed, _ := w.crowd(40, 300, authVIP, peers.EAP{Timeout: 15 * time.Second}); failed > 0 {
		t.Errorf("%d new users were not let in after the server came back", failed)
	}
}

// serverSecret is what the servers share with the balancer where it isn't what
// clients have: there the keys in answers have to be hidden anew.
func (o options) serverSecret() string {
	if o.proxy {
		return "another-secret, which is longer than sixty-four bytes so that HMAC folds it"
	}
	return ""
}

// radiusYAML is what a group says of RADIUS.
func (w *world) radiusYAML() string {
	if !w.options.proxy {
		return ""
	}
	clients := filepath.Join(w.Dir, "clients")
	if err := os.WriteFile(clients, []byte(peers.RADIUSSecret), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return fmt.Sprintf(`        radius:
          mode: proxy
          secret_file: %s
          clients:
            - {name: nas, addresses: [198.18.0.0/15], secret_file: %[2]s, message_authenticator: add}
            - {name: gateways, addresses: [10.1.0.0/24], secret_file: %[2]s}
`, filepath.Join(w.Dir, "secret"), clients)
}
