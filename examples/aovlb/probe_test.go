package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/internal/standin"
)

// probe finds out about servers on loopback, in words and as JSON.
func TestProbe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	udp := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip("no loopback:", err)
		}
		return c
	}
	ike, natt, auth, acct, dead := udp(), udp(), udp(), udp(), udp()
	at := func(c net.Conn) string { return c.LocalAddr().String() }
	t.Setenv("PROBE_SECRET", "a RADIUS secret")
	g := &standin.IKEGateway{Name: "ras1", Secret: []byte("x")}
	n := &standin.NPS{Name: "nps1", Secret: []byte("a RADIUS secret")}
	cert, _, err := standin.SelfSigned("vpn.example.com")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &standin.SSTPGateway{Name: "ras1", Certificate: cert}
	for _, serve := range []func() error{
		func() error { return g.Serve(ctx, ike, natt) },
		func() error { return n.Serve(ctx, auth, acct) },
		func() error { return s.Serve(ctx, ln) },
	} {
		wg.Go(func() { _ = serve() }) // each ends with ctx
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}), 0o600); err != nil {
		t.Fatal(err)
	}
	ikeAt, authAt, deadAt := at(ike), at(auth), at(dead)
	dead.Close()
	for _, tt := range []struct {
		args   []string
		serves bool
		words  []string
	}{
		{[]string{"ikev2", ikeAt}, true, []string{"serves ikev2", "answer", "SA: ", "asks for a cookie"}},
		{[]string{"ikev2", ikeAt, "--gentle"}, true, []string{"serves ikev2", "INVALID_KE_PAYLOAD"}},
		{[]string{"ikev2", deadAt}, false, []string{"does not serve ikev2", "nothing listens"}},
		{[]string{"sstp", ln.Addr().String()}, true, []string{"serves sstp", "401", "vpn.example.com", "SHA-256"}},
		{[]string{"sstp", ln.Addr().String(), "--verify", "--name", "vpn.example.com"}, false, []string{"does not serve sstp", "certificate"}},
		{[]string{"sstp", ln.Addr().String(), "--ca", ca, "--name", "vpn.example.com"}, true, []string{"serves sstp", "vpn.example.com"}},
		{[]string{"sstp", ln.Addr().String(), "--ca", ca, "--name", "other.example.com"}, false, []string{"does not serve sstp", "certificate"}},
		{[]string{"radius", authAt, "--secret-env", "PROBE_SECRET"}, true, []string{"serves radius", "Access-Reject", "Message-Authenticator"}},
		{[]string{"radius", authAt}, false, []string{"shares a secret"}},
		{[]string{"radius", authAt, "--secret-env", "PROBE_SECRET_UNSET"}, false, []string{"is not set"}},
	} {
		name := strings.Join(tt.args, " ")
		var out bytes.Buffer
		env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		if code := run(ctx, env, append([]string{"probe"}, tt.args...)); (code == 0) != tt.serves {
			t.Errorf("%s: exit code %d", name, code)
		}
		for _, w := range tt.words {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: without %q: %s", name, w, &out)
			}
		}
		if strings.Contains(out.String(), "a RADIUS secret") {
			t.Errorf("%s: shows the secret", name)
		}
		out.Reset()
		run(ctx, env, append([]string{"probe", "--json"}, tt.args...))
		var found []finding
		if err := json.Unmarshal(out.Bytes(), &found); err != nil || len(found) != 1 || found[0].Serves != tt.serves || found[0].Target != netip.MustParseAddrPort(tt.args[1]) {
			t.Errorf("%s: %v, %s", name, err, &out)
		}
	}
}

// What a server says can't give orders to the terminal of who asks it.
func TestProbeHostileServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no loopback:", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer ln.Close()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4096)) // the request
		_, _ = c.Write([]byte("HTTP/1.1 401 \x1b[2J\x1b]0;owned\a" + strings.Repeat("x", 5000) + "\r\nServer: \x1b[1m\r\n\r\n"))
	})
	var out bytes.Buffer
	env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
	if code := run(t.Context(), env, []string{"probe", "sstp", ln.Addr().String(), "--plain-http"}); code != 0 {
		t.Errorf("exit code %d: %s", code, &out)
	}
	if s := out.String(); strings.ContainsAny(s, "\x1b\a") || !strings.Contains(s, "401") || len(s) > 1000 {
		t.Errorf("prints %q", s)
	}
}
