package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// TestE2ERADIUS carries the requests of radclient and eapol_test to FreeRADIUS
// servers through "aovlb serve".
func TestE2ERADIUS(t *testing.T) {
	peers.Need(t, peers.RADIUSPrograms...)
	if !useDNAT() {
		useProgram(t)
	}
	for _, s := range []radiusScenario{
		{"radclient", radclient},
		{"PEAP-MSCHAPv2", eapPEAP},
		{"EAP-TLS with large certificates", eapTLS},
		{"each EAP method and Framed-MTU", eapEach},
		{"a hundred conversations at once", eapHundred},
		{"authentication and accounting at one server", authAndAcct},
		{"server killed in mid-conversation", radiusKilled},
		{"the client's address is kept", radiusTransparent},
		{"VPN gateways as RADIUS clients", alwaysOn},
	} {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			s.run(t, options{})
		})
	}
}

// A radiusScenario is carried out in a mode.
type radiusScenario struct {
	name string
	run  func(*testing.T, options)
}

var (
	authVIP = netip.AddrPortFrom(vipAddr, 1812)
	acctVIP = netip.AddrPortFrom(vipAddr, 1813)
)

// A radiusWorld is a world whose servers are two of FreeRADIUS, and that has a
// RADIUS client: nas.
type radiusWorld struct {
	*world
	nps []*peers.FreeRADIUS
	nas *peers.Host

	proxies []*peers.Proc // radsecproxy, in TestE2ERadSec
}

func newRADIUS(t *testing.T, bits int, o options) *radiusWorld {
	t.Helper()
	w := &radiusWorld{world: newNet(t, o)}
	w.pki = peers.NewPKI(t, bits)
	for i := range 2 {
		name := fmt.Sprintf("nps%d", i+1)
		w.nps = append(w.nps, w.server(name).FreeRADIUS(peers.RADIUSServer{Name: name, PKI: w.pki, Fragment: o.fragment, Secret: o.serverSecret()}))
	}
	w.nas = w.Host("nas")
	w.nas.Attach(w.public, "198.18.3.1/16")
	if useDNAT() {
		w.lb.Sysctl("ipv4/ip_forward", "1")
		w.lb.NFT(fmt.Sprintf(`
table ip standin {
	chain pre {
		type nat hook prerouting priority dstnat
		ip daddr %s udp dport { 1812, 1813 } dnat to 10.1.0.11
	}
	chain post {
		type nat hook postrouting priority srcnat
		oifname "eth1" masquerade
	}
}`, vip))
		return w
	}
	w.serve("name: e2e\nsites:\n  - name: hq\n    pools:\n" + w.pool() + "    groups:\n" + w.group(vipAddr))
	return w
}

// pool and group are the YAML of the RADIUS servers and of their listeners.
func (w *radiusWorld) pool() string {
	w.t.Helper()
	secret := filepath.Join(w.Dir, "secret")
	if err := os.WriteFile(secret, []byte(cmp.Or(w.options.serverSecret(), peers.RADIUSSecret)+"\n"), 0o600); err != nil {
		w.t.Fatal(err)
	}
	var backends strings.Builder
	for _, f := range w.nps {
		backends.WriteString(fmt.Sprintf("          - {name: %s, address: %s}\n", f.Host.Name, f.Host.Addr()))
	}
	return fmt.Sprintf(`      - name: nps
        backends:
%s        checks:
          - {type: radius, port: 1812, interval: 1s, timeout: 1s, rise: 1, fall: 2, secret_file: %s, user: aovlb-ping}
`, backends.String(), secret)
}

func (w *radiusWorld) group(at netip.Addr) string {
	return fmt.Sprintf(`      - name: nps
        pool: nps
        client_address: %s
%s        listeners:
          - {name: auth, protocol: radius, address: "%s"}
          - {name: acct, protocol: radius, address: "%s"}
`, w.clientAddress(), w.radiusYAML(), netip.AddrPortFrom(at, 1812), netip.AddrPortFrom(at, 1813))
}

// by returns which servers have had something of a station: "nps1", "nps2".
func (w *radiusWorld) by(station string, entries func(*peers.FreeRADIUS) ([]peers.RADIUSEntry, error)) (names []string) {
	w.t.Helper()
	return w.which(func(e *peers.RADIUSEntry) bool { return e.Station == station }, entries)
}

// which returns the servers with an entry that is as wanted.
func (w *radiusWorld) which(want func(*peers.RADIUSEntry) bool, entries func(*peers.FreeRADIUS) ([]peers.RADIUSEntry, error)) (names []string) {
	w.t.Helper()
	for _, f := range w.nps {
		all, err := entries(f)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range all {
			if want(&e) && !slices.Contains(names, f.Host.Name) {
				names = append(names, f.Host.Name)
			}
		}
	}
	return names
}

func radclient(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	count := map[string]int{}
	for i := range 20 {
		station, _ := peers.Station(i)
		out, err := w.nas.Radclient(authVIP, "auth", fmt.Sprintf("User-Name = user%d", i),
			fmt.Sprintf("User-Password = %q", peers.Password), fmt.Sprintf("Calling-Station-Id = %q", station))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"nps1", "nps2"} {
			if strings.Contains(out, "Access-Accept") && strings.Contains(out, name) {
				count[name]++
			}
		}
	}
	if count["nps1"]+count["nps2"] != 20 {
		t.Errorf("of 20 requests, these were accepted: %v", count)
	}
	if !useDNAT() && len(count) != 2 {
		t.Errorf("20 clients: %v", count)
	}
	// CHAP's challenge is the Request Authenticator, unless there is another.
	for _, kind := range []string{"User-Password", "CHAP-Password", "MS-CHAP-Password"} {
		out, err := w.nas.Radclient(authVIP, "auth", "User-Name = user1", fmt.Sprintf("%s = %q", kind, peers.Password))
		if err != nil || !strings.Contains(out, "Access-Accept") {
			t.Errorf("%s: %v, %s", kind, err, out)
		}
		if out, err := w.nas.Radclient(authVIP, "auth", "User-Name = user1", kind+" = wrong"); err == nil || !strings.Contains(out, "Access-Reject") {
			t.Errorf("a wrong %s: %v, %s", kind, err, out)
		}
	}
	t.Logf("20 requests accepted: %v; a wrong password rejected", count)
}

func eapPEAP(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	for i := range 8 {
		r, err := w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki})
		if err != nil {
			t.Fatal(err)
		}
		station, _ := peers.Station(i)
		t.Logf("PEAP-MSCHAPv2: %d rounds at %v", r.Rounds, w.by(station, (*peers.FreeRADIUS).Authenticated))
	}
}

func eapTLS(t *testing.T, o options) {
	w := newRADIUS(t, 4096, o)
	for i := range 4 {
		r, err := w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d.example.com", i), Station: i, PKI: w.pki, Method: peers.EAPTLS, Fragment: 500})
		if err != nil {
			t.Fatal(err)
		}
		if r.Rounds < 10 {
			t.Errorf("only %d rounds: the certificates are small", r.Rounds)
		}
		station, _ := peers.Station(i)
		t.Logf("EAP-TLS: %d rounds at %v", r.Rounds, w.by(station, (*peers.FreeRADIUS).Authenticated))
	}
}

// eapEach has users log in by each EAP method, with certificates whose chain is
// about 4 kB. A Framed-MTU of 1344 keeps every packet in one piece, and one of 4000
// has the network fragment them.
func eapEach(t *testing.T, o options) {
	o.fragment = 3800
	w := newRADIUS(t, 4096, o)
	for k, each := range []struct{ mtu, fragment int }{{1344, 1000}, {4000, 3800}} {
		before, err := w.nas.Counter("Ip", "ReasmOKs")
		if err != nil {
			t.Fatal(err)
		}
		methods := peers.EAPMethods()
		results, errs := make([]peers.EAPResult, len(methods)), make([]error, len(methods))
		var wg sync.WaitGroup
		for i, m := range methods {
			wg.Go(func() {
				results[i], errs[i] = w.nas.EAP(peers.EAP{
					Server: authVIP, User: fmt.Sprintf("user%d.example.com", i), Station: k*100 + i, PKI: w.pki, Method: m, Fragment: each.fragment, FramedMTU: each.mtu,
				})
			})
		}
		wg.Wait()
		for i, m := range methods {
			if errs[i] != nil {
				t.Errorf("%s, Framed-MTU %d: %v", m, each.mtu, errs[i])
				continue
			}
			station, _ := peers.Station(k*100 + i)
			at := w.by(station, (*peers.FreeRADIUS).Authenticated)
			if len(at) != 1 {
				t.Errorf("%s, Framed-MTU %d: at %v", m, each.mtu, at)
			}
			t.Logf("%s, Framed-MTU %d: %d rounds at %v", m, each.mtu, results[i].Rounds, at)
		}
		r, err := w.nas.EAP(peers.EAP{Server: authVIP, User: "nobody.example.com", Station: k*100 + 99, PKI: w.pki, Fragment: each.fragment, FramedMTU: each.mtu})
		if err == nil || !strings.Contains(r.Output, "Access-Reject") || r.Retransmits > 0 {
			t.Errorf("a stranger: %v after %d rounds and %d retransmissions", err, r.Rounds, r.Retransmits)
		}
		after, err := w.nas.Counter("Ip", "ReasmOKs")
		if err != nil {
			t.Fatal(err)
		}
		if large := each.mtu > 1500; (after > before) != large {
			t.Errorf("Framed-MTU %d: %d packets came in fragments", each.mtu, after-before)
		}
	}
}

func eapHundred(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	const n = 100
	errs := make([]error, n)
	results := make([]peers.EAPResult, n)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range n {
		wg.Go(func() {
			results[i], errs[i] = w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki, Timeout: 50 * time.Second})
		})
	}
	wg.Wait()
	failed, rounds, again := 0, 0, 0
	for i, err := range errs {
		rounds += results[i].Rounds
		again += results[i].Retransmits
		if err != nil {
			failed++
			t.Logf("conversation %d: %v", i, err)
		}
	}
	count := map[string]int{}
	split := 0
	for i := range n {
		station, _ := peers.Station(i)
		at := w.by(station, (*peers.FreeRADIUS).Authenticated)
		if len(at) > 1 {
			split++
		}
		for _, name := range at {
			count[name]++
		}
	}
	if failed > 0 || split > 0 {
		t.Errorf("%d of %d conversations failed, %d were split", failed, n, split)
	}
	if !useDNAT() && len(count) != 2 {
		t.Errorf("%d conversations: %v", n, count)
	}
	t.Logf("%d conversations of %d rounds at once in %v, %d requests sent again: %v, none split", n, rounds/n, time.Since(start).Round(10*time.Millisecond), again, count)
}

func authAndAcct(t *testing.T, o options) {
	w := newRADIUS(t, 2048, o)
	const n = 16
	count := map[string]int{}
	for i := range n {
		station, _ := peers.Station(i)
		user := fmt.Sprintf("user%d", i)
		if i%4 == 0 {
			if _, err := w.nas.EAP(peers.EAP{Server: authVIP, User: user, Station: i, PKI: w.pki}); err != nil {
				t.Fatal(err)
			}
		} else if _, err := w.nas.Radclient(authVIP, "auth", "User-Name = "+user, fmt.Sprintf("User-Password = %q", peers.Password),
			fmt.Sprintf("Calling-Station-Id = %q", station)); err != nil {
			t.Fatal(err)
		}
		for _, status := range []string{"Start", "Interim-Update", "Stop"} {
			if _, err := w.nas.Radclient(acctVIP, "acct", "User-Name = "+user, "Acct-Status-Type = "+status,
				fmt.Sprintf("Acct-Session-Id = session%d", i), fmt.Sprintf("Calling-Station-Id = %q", station)); err != nil {
				t.Fatal(err)
			}
		}
		auth := w.by(station, (*peers.FreeRADIUS).Authenticated)
		acct := w.by(station, (*peers.FreeRADIUS).Accounted)
		if len(auth) != 1 || !slices.Equal(auth, acct) {
			t.Errorf("%s was authenticated by %v, and its accounting went to %v", user, auth, acct)
			continue
		}
		count[auth[0]]++
	}
	if !useDNAT() && len(count) != 2 {
		t.Errorf("%d clients: %v", n, count)
	}
	t.Logf("%d clients with accounting, each at one server: %v", n, count)
}

// radiusKilled has conversations hang half way, kills one of the servers, and lets
// them go on. Those of the other server must succeed, and those of the dead one
// must when they are begun anew.
func radiusKilled(t *testing.T, o options) {
	needBalancer(t)
	w := newRADIUS(t, 2048, o)
	// Every conversation hangs in the server's certificates, which are longer,
	// until the answers may pass again. Each has a port of its own.
	w.nas.NFT(`
table ip hang {
	set going { type inet_service; size 1000; flags dynamic; }
	set hung { type inet_service; size 1000; flags dynamic; }
	chain in {
		type filter hook input priority 0
		udp sport 1812 update @going { udp dport quota over 2500 bytes } update @hung { udp dport counter } drop
	}
}`)
	const n = 16
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, errs[i] = w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki, Timeout: 25 * time.Second})
		})
	}
	peers.Eventually(t, 15*time.Second, "conversations that hang", func() error {
		out, err := w.nas.Run("nft", "list", "set", "ip", "hang", "hung")
		if hung := strings.Count(out, "counter packets"); err == nil && hung != n {
			err = fmt.Errorf("%d of %d do", hung, n)
		}
		return err
	})
	w.nps[0].Kill()
	w.nas.NFT("flush ruleset")
	wg.Wait()

	alive, redone := 0, 0
	for i := range n {
		station, _ := peers.Station(i)
		if errs[i] == nil {
			alive++
			continue
		}
		if _, err := w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki}); err != nil {
			t.Errorf("conversation %d, begun anew: %v", i, err)
			continue
		}
		if at := w.by(station, (*peers.FreeRADIUS).Authenticated); !slices.Equal(at, []string{"nps2"}) {
			t.Errorf("conversation %d, begun anew, was at %v", i, at)
		}
		redone++
	}
	if alive == 0 || redone == 0 {
		t.Errorf("%d conversations went on and %d were begun anew: want both", alive, redone)
	}
	t.Logf("nps1 killed in mid-conversation: %d conversations of nps2 went on, %d of nps1 succeeded at nps2 when begun anew", alive, redone)
}

func radiusTransparent(t *testing.T, o options) {
	needBalancer(t)
	o.transparent = true
	w := newRADIUS(t, 2048, o)
	for i := range 8 {
		if _, err := w.nas.EAP(peers.EAP{Server: authVIP, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki}); err != nil {
			t.Fatal(err)
		}
	}
	count := map[string]int{}
	for _, f := range w.nps {
		entries, err := f.Authenticated()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Station == "" {
				continue // of a check
			}
			count[f.Host.Name]++
			if e.From != w.nas.Addr() {
				t.Errorf("%s sees %s, and the RADIUS client is %s", f.Host.Name, e.From, w.nas.Addr())
			}
		}
	}
	if count["nps1"]+count["nps2"] != 8 {
		t.Errorf("8 conversations: %v", count)
	}
	t.Logf("8 conversations at %v: each server sees the RADIUS client's own address", count)
}

// alwaysOn is a whole Always On VPN: clients reach VPN gateways through the
// balancer, and the gateways have RADIUS servers judge the users, through it too.
//
//	pc ── VIP ─┐      ┌── ras1, ras2 ──┐
//	           └─ lb ─┘                └─ 10.1.0.1:1812 ── lb ── nps1, nps2
func alwaysOn(t *testing.T, o options) {
	peers.Need(t, peers.SwanPrograms...)
	needBalancer(t)
	w := &radiusWorld{world: newNet(t, o)}
	w.pki = peers.NewPKI(t, 2048)
	for i := range 2 {
		h := w.server(fmt.Sprintf("ras%d", i+1))
		w.gateways = append(w.gateways, h.Gateway(peers.Gateway{ID: i + 1, PKI: w.pki, RADIUS: netip.MustParseAddr("10.1.0.1")}))
	}
	gateways := w.servers
	for i := range 2 {
		name := fmt.Sprintf("nps%d", i+1)
		w.nps = append(w.nps, w.server(name).FreeRADIUS(peers.RADIUSServer{Name: name, PKI: w.pki, Fragment: o.fragment, Secret: o.serverSecret()}))
	}
	w.serve(strings.Replace(w.yaml(gateways), "    groups:\n", w.pool()+"    groups:\n", 1) + w.group(netip.MustParseAddr("10.1.0.1")))

	var clients []*peers.Swan
	for range 8 {
		clients = append(clients, w.pc(nil, peers.Tunnel{}))
	}
	at := w.upAll(clients, "user")
	count := map[string]int{}
	for i := range clients {
		user := fmt.Sprintf("user%d", i+1)
		var auth, acct []string
		peers.Eventually(t, 10*time.Second, "accounting of "+user, func() error {
			auth = w.of(user, (*peers.FreeRADIUS).Authenticated)
			acct = w.of(user, (*peers.FreeRADIUS).Accounted)
			if len(acct) == 0 {
				return errors.New("none yet")
			}
			return nil
		})
		if len(auth) != 1 || !slices.Equal(auth, acct) {
			t.Errorf("%s was authenticated by %v, and its accounting went to %v", user, auth, acct)
			continue
		}
		count[auth[0]]++
	}
	t.Logf("8 clients: %s, judged and accounted by %v", spread(at), count)
}

// of returns which servers have had something of a user.
func (w *radiusWorld) of(user string, entries func(*peers.FreeRADIUS) ([]peers.RADIUSEntry, error)) (names []string) {
	w.t.Helper()
	return w.which(func(e *peers.RADIUSEntry) bool { return e.User == user }, entries)
}
