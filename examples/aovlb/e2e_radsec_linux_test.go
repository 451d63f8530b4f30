package main

import (
	"errors"
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

// TestE2ERadSec carries requests over TLS on both sides, with radsecproxy as the
// others:
//
//	eapol_test, radclient ── UDP ── radsecproxy "branch" ── TLS ──┐
//	radclient "nas" ── UDP ───────────────────────────────────── lb ── TLS ─┬─ radsecproxy ── UDP ── FreeRADIUS  nps1
//	                                                                        └─ radsecproxy ── UDP ── FreeRADIUS  nps2
func TestE2ERadSec(t *testing.T) {
	peers.Need(t, append([]string{"radsecproxy"}, peers.RADIUSPrograms...)...)
	needBalancer(t)
	useProgram(t)
	w := &radiusWorld{world: newNet(t, options{proxy: true})}
	w.pki = peers.NewPKI(t, 2048)
	for i := range 2 {
		name := fmt.Sprintf("nps%d", i+1)
		h := w.server(name)
		w.nps = append(w.nps, h.FreeRADIUS(peers.RADIUSServer{Name: name, PKI: w.pki}))
		w.radsecproxy(h, name+".example.com", fmt.Sprintf(`
ListenTLS *:2083
client lb {
	host 10.1.0.1
	type tls
	secret radsec
	certificateNameCheck off
}
server auth {
	host %[1]s
	type udp
	secret %[2]s
}
server acct {
	host %[1]s
	port 1813
	type udp
	secret %[2]s
}
realm * {
	server auth
	accountingServer acct
}
`, h.Addr(), peers.RADIUSSecret))
	}
	w.nas = w.Host("nas")
	w.nas.Attach(w.public, "198.18.3.1/16")
	branch := w.Host("branch")
	branch.Attach(w.public, "198.18.3.2/16")
	w.radsecproxy(branch, "branch.example.com", fmt.Sprintf(`
ListenUDP 127.0.0.1:1812
ListenUDP 127.0.0.1:1813
client local {
	host 127.0.0.1
	type udp
	secret %s
}
server lb {
	host %s
	type tls
	secret radsec
	certificateNameCheck off
	matchCertificateAttribute SubjectAltName:DNS:/^lb\.example\.com$/
	StatusServer on
}
realm * {
	server lb
	accountingServer lb
}
`, peers.RADIUSSecret, vip))
	w.serve(w.radsecYAML())

	t.Run("EAP over TLS", func(t *testing.T) { w.eapOverTLS(t, branch) })
	t.Run("UDP to TLS", func(t *testing.T) {
		for i := range 10 {
			out, err := w.nas.Radclient(authVIP, "auth", fmt.Sprintf("User-Name = user%d", 100+i), fmt.Sprintf("User-Password = %q", peers.Password))
			if err != nil || !strings.Contains(out, "Access-Accept") {
				t.Errorf("user%d: %v\n%s", 100+i, err, out)
			}
		}
		if out, err := w.nas.Radclient(authVIP, "auth", "User-Name = user1", "User-Password = wrong"); err == nil || !strings.Contains(out, "Access-Reject") {
			t.Errorf("a wrong password: %v, %s", err, out)
		}
	})
	t.Run("a stranger", func(t *testing.T) {
		out := w.command("status", "--json", "--admin", "unix:"+w.admin())
		if !strings.Contains(out, `"name": "branch"`) {
			t.Errorf("the status doesn't know the branch:\n%s", out)
		}
	})
	t.Run("a server dies", func(t *testing.T) { w.overTLSDead(t, branch) })
}

// eapOverTLS logs in by the branch, with accounting that follows.
func (w *radiusWorld) eapOverTLS(t *testing.T, branch *peers.Host) {
	local := netip.MustParseAddrPort("127.0.0.1:1812")
	const n = 30
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			methods := peers.EAPMethods()
			_, errs[i] = branch.EAP(peers.EAP{Server: local, User: fmt.Sprintf("user%d", i), Station: i, PKI: w.pki, Method: methods[i%len(methods)]})
		})
	}
	wg.Wait()
	at := map[string]int{}
	for i := range n {
		if errs[i] != nil {
			t.Errorf("conversation %d: %v", i, errs[i])
			continue
		}
		station, _ := peers.Station(i)
		if _, err := branch.Radclient(netip.MustParseAddrPort("127.0.0.1:1813"), "acct", fmt.Sprintf("User-Name = user%d", i), "Acct-Status-Type = Start",
			fmt.Sprintf("Acct-Session-Id = s%d", i), fmt.Sprintf("Calling-Station-Id = %q", station)); err != nil {
			t.Error(err)
		}
		auth, acct := w.by(station, (*peers.FreeRADIUS).Authenticated), w.by(station, (*peers.FreeRADIUS).Accounted)
		if len(auth) != 1 || len(acct) != 1 || auth[0] != acct[0] {
			t.Errorf("user%d was at %v, its accounting at %v", i, auth, acct)
			continue
		}
		at[auth[0]]++
	}
	if len(at) != 2 {
		t.Errorf("%v", at)
	}
	t.Logf("%d conversations over TLS, and their accounting: %v", n, at)
}

// overTLSDead kills a server: new users are let in by the other.
func (w *radiusWorld) overTLSDead(t *testing.T, branch *peers.Host) {
	w.proxies[0].Kill()
	w.nps[0].Kill()
	peers.Eventually(t, 20*time.Second, "the check finding nps1 down", func() error {
		if out := w.command("status", "--admin", "unix:"+w.admin()); !strings.Contains(out, "down") {
			return errors.New(out)
		}
		return nil
	})
	for i := range 6 {
		if _, err := branch.EAP(peers.EAP{Server: netip.MustParseAddrPort("127.0.0.1:1812"), User: fmt.Sprintf("user%d", 200+i), Station: 200 + i, PKI: w.pki}); err != nil {
			t.Errorf("user%d: %v", 200+i, err)
		}
	}
}

// radsecproxy starts one with a certificate for name.
func (w *radiusWorld) radsecproxy(h *peers.Host, name, conf string) {
	w.t.Helper()
	tls := w.radsecFiles(name)
	file := filepath.Join(w.Dir, "radsecproxy-"+h.Name+".conf")
	text := fmt.Sprintf("LoopPrevention off\ntls default {\n\tCACertificateFile %s\n\tCertificateFile %s\n\tCertificateKeyFile %s\n}\n%s", tls[2], tls[0], tls[1], conf)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.proxies = append(w.proxies, h.Start("radsecproxy", nil, "radsecproxy", "-f", "-c", file))
}

// radsecFiles writes a certificate with its chain, its key, and the root.
func (w *radiusWorld) radsecFiles(name string) [3]string {
	w.t.Helper()
	leaf := w.pki.Issue(w.t, name)
	var out [3]string
	for i, b := range [][]byte{append(append([]byte(nil), leaf.Cert...), w.pki.IntermediatePEM()...), leaf.Key, w.pki.RootPEM()} {
		out[i] = filepath.Join(w.Dir, fmt.Sprintf("%s-%d.pem", name, i))
		if err := os.WriteFile(out[i], b, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

func (w *radiusWorld) radsecYAML() string {
	w.t.Helper()
	secret := filepath.Join(w.Dir, "clients")
	if err := os.WriteFile(secret, []byte(peers.RADIUSSecret), 0o600); err != nil {
		w.t.Fatal(err)
	}
	tls := w.radsecFiles("lb.example.com")
	files := fmt.Sprintf("cert_file: %s, key_file: %s, ca_file: %s, names: [nps1.example.com, nps2.example.com]", tls[0], tls[1], tls[2])
	return fmt.Sprintf(`name: e2e
sites:
  - name: hq
    pools:
      - name: nps
        backends: [{name: nps1, address: %s}, {name: nps2, address: %s}]
        checks: [{type: radsec, interval: 1s, timeout: 1s, rise: 1, fall: 2, radsec: {%s}}]
    groups:
      - name: nps
        pool: nps
        radius:
          mode: proxy
          transport: radsec
          radsec: {%[3]s}
          clients:
            - {name: nas, addresses: [198.18.3.1], secret_file: %[4]s}
            - {name: branch, names: [branch.example.com]}
        listeners:
          - {name: auth, protocol: radius, address: "%[5]s:1812"}
          - {name: tls, protocol: radsec, address: "%[5]s:2083"}
`, w.nps[0].Host.Addr(), w.nps[1].Host.Addr(), files, secret, vip)
}
