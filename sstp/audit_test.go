package sstp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/sstp"
)

// has reports whether r has a finding of a rule whose reason contains a text.
func has(r *sstp.AuditReport, rule, text string) bool {
	return slices.ContainsFunc(r.Findings, func(f sstp.AuditFinding) bool { return f.Rule == rule && strings.Contains(f.Reason, text) })
}

func TestAudit(t *testing.T) {
	w := newWorld(t, sstp.ModeReencrypt, 1, nil)
	gateway := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.port)
	a := &sstp.Auditor{Name: "vpn.example", Roots: w.roots, Pause: -1}

	// The balancer: what it has is right.
	r, err := a.Audit(t.Context(), w.addr)
	if err != nil {
		t.Fatal(err)
	}
	if !r.SSTP || !r.Calls || !r.IPHTTPS || r.Server != "Microsoft-HTTPAPI/2.0" || !strings.Contains(r.Hashes, "SHA-256") || r.Certificate == nil {
		t.Errorf("report %+v", r)
	}
	if len(r.TLS) != 2 || len(r.TLS[0].Suites) != 3 || len(r.TLS[1].Suites) != 3 || has(r, "cipher", "") || has(r, "tls", "") {
		t.Errorf("TLS: %+v, %+v", r.TLS, r.Findings)
	}
	if !has(r, "crl", "") { // of the certificate
		t.Errorf("findings: %+v", r.Findings)
	}

	// A gateway that takes no calls, with another port open.
	w.gateways[0].SetFault(standin.SSTPFault{Status: 503})
	if l, err := net.Listen("tcp", "127.0.0.2:62000"); err == nil {
		defer l.Close()
	} else {
		t.Log("port 62000 isn't free, so it will be found for another reason:", err)
	}
	r, err = a.Audit(t.Context(), gateway)
	if err != nil || !r.SSTP || r.Calls || !has(r, "service", "503") || r.Findings[0].Gravity != sstp.GravityFatal {
		t.Errorf("%v, report %+v", err, r)
	}
	if !slices.Contains(r.Ports, 62000) || !has(r, "port", "Network Location Server") {
		t.Errorf("ports %v", r.Ports)
	}

	if r, err = a.Audit(t.Context(), netip.MustParseAddrPort("127.0.0.2:1")); err == nil {
		t.Errorf("nobody is there: %+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = a.Audit(ctx, gateway); err == nil {
		t.Error("an audit went on though it was ended")
	}
}

// TestAuditUDP tells ports of UDP apart that answer, that are refused by ICMP, and
// that say nothing.
func TestAuditUDP(t *testing.T) {
	w := newWorld(t, sstp.ModeReencrypt, 1, nil)
	gateway := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), w.port)
	serve := func(port uint16, answer bool) chan []byte {
		c, err := net.ListenPacket("udp", netip.AddrPortFrom(gateway.Addr(), port).String())
		if err != nil {
			t.Skip(err)
		}
		asked, done := make(chan []byte, 10), make(chan struct{})
		go func() {
			defer close(done)
			for b := make([]byte, 2048); ; {
				n, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				asked <- bytes.Clone(b[:n])
				if answer {
					c.WriteTo([]byte("an answer"), from)
				}
			}
		}()
		t.Cleanup(func() { c.Close(); <-done })
		return asked
	}
	browser, desktop, radius := serve(1434, true), serve(3389, true), serve(1812, false)
	var ike []uint16
	var mu sync.Mutex
	a := &sstp.Auditor{Name: "vpn.example", Roots: w.roots, Pause: -1, Timeout: 2 * time.Second, AskIKE: func(_ context.Context, target netip.AddrPort) error {
		mu.Lock()
		defer mu.Unlock()
		ike = append(ike, target.Port())
		if target.Port() == 500 {
			return nil
		}
		return context.DeadlineExceeded
	}}
	r, err := a.Audit(t.Context(), gateway)
	if err != nil {
		t.Fatal(err)
	}
	got := map[uint16]sstp.UDPState{}
	for _, p := range r.UDP {
		got[p.Port] = p.State
	}
	want := map[uint16]sstp.UDPState{500: sstp.UDPOpen, 4500: sstp.UDPSilent, 1434: sstp.UDPOpen, 3389: sstp.UDPOpen, 1812: sstp.UDPSilent, 1813: sstp.UDPClosed}
	for port, state := range want {
		if got[port] != state {
			t.Errorf("UDP %d: %v, want %v", port, got[port], state)
		}
	}
	if !has(r, "port", "UDP 1434 answers") || !has(r, "port", "UDP 3389 answers") || has(r, "port", "UDP 1812") || has(r, "port", "UDP 500") {
		t.Errorf("findings %+v", r.Findings)
	}
	if slices.Sort(ike); !slices.Equal(ike, []uint16{500, 4500}) {
		t.Errorf("IKE was asked at %v", ike)
	}
	if n := len(radius); n != 2 {
		t.Errorf("a silent port was asked %d times, want twice", n)
	}
	if b := <-desktop; len(b) != 1232 || len(<-browser) != 1 {
		t.Errorf("the question to Remote Desktop has %d bytes", len(b))
	}
	a.NoPorts = true
	if r, err = a.Audit(t.Context(), gateway); err != nil || len(r.UDP) != 0 {
		t.Errorf("%v, %+v though ports were to be left alone", err, r.UDP)
	}
}

// tcpServer serves each connection by f.
func tcpServer(t *testing.T, f func(c net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestScan(t *testing.T) {
	cert, _, err := standin.SelfSigned("vpn.example") // ECDSA
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{
		Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384},
	}
	addr := tcpServer(t, func(c net.Conn) { tls.Server(c, conf).HandshakeContext(t.Context()) })
	got, err := new(sstp.Scanner).Scan(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, v := range got {
		for _, s := range v.Suites {
			text = append(text, v.Name+" "+s.String())
		}
	}
	want := []string{
		"TLS 1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS 1.2 TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
		"TLS 1.1 TLS_ECDHE_ECDSA_WITH_RC4_128_SHA", "TLS 1.0 TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
	}
	if !slices.Equal(text, want) {
		t.Errorf("got %q, want %q", text, want)
	}
	r, err := (&sstp.Auditor{NoPorts: true, NoCall: true, Pause: -1}).Audit(t.Context(), addr)
	if err != nil || !has(r, "service", "neither SSTP nor IP-HTTPS") || !has(r, "tls", "TLS 1.0") || !has(r, "cipher", "RC4 is broken") || has(r, "cipher", "no suite with forward") {
		t.Errorf("%v, report %+v", err, r)
	}
}

// TestScanRefuses: what isn't TLS, or ends, is told.
func TestScanRefuses(t *testing.T) {
	for name, says := range map[string]string{"another protocol": "SSH-2.0-x\r\nand more", "an alert": "\x15\x03\x01\x00\x02\x02\x28", "nothing": ""} {
		addr := tcpServer(t, func(c net.Conn) {
			c.Read(make([]byte, 4096))
			c.Write([]byte(says))
		})
		if v, err := new(sstp.Scanner).Scan(t.Context(), addr); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

func TestProberQuestions(t *testing.T) {
	w := newWorld(t, sstp.ModeReencrypt, 1, nil)
	g := w.gateways[0]
	for _, tc := range []struct {
		name  string
		ask   sstp.Question
		fault standin.SSTPFault
		says  string // "" for success
	}{
		{"a call", sstp.AskCall, standin.SSTPFault{}, ""},
		{"no port", sstp.AskCall, standin.SSTPFault{Status: 503}, "has it free ports"},
		{"monitors only", sstp.AskCall, standin.SSTPFault{Status: 401}, "HTTP status 401"},
		{"a head while there is no port", sstp.AskHead, standin.SSTPFault{Status: 503}, ""},
		{"DirectAccess", sstp.AskIPHTTPS, standin.SSTPFault{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g.SetFault(tc.fault)
			res, err := (&sstp.Prober{Question: tc.ask, ServerName: "vpn.example"}).Ask(t.Context(), w.addr)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q", err, tc.says)
			}
			if tc.ask == sstp.AskCall && err == nil && res.Hashes != sstp.HashSHA1|sstp.HashSHA256 {
				t.Errorf("hashes %v", res.Hashes)
			}
		})
	}
	if c := g.Counts(); c.Calls != 0 || c.Bad != 0 {
		t.Errorf("counts %+v", c)
	}
	// What the gateway says in bad faith, or badly.
	ok := "HTTP/1.1 200\r\nContent-Length: 18446744073709551615\r\nServer: x\r\n\r\n"
	for name, tc := range map[string]struct {
		ask   sstp.Question
		reply string
		says  string
	}{
		"a refusal":           {sstp.AskCall, ok + string(sstp.AppendStatus(nil, sstp.CallConnectNak, sstp.StatusInfo{Attribute: sstp.AttrProtocol, Status: 4})), "takes no call"},
		"an empty ACK":        {sstp.AskCall, ok + string(sstp.AppendControl(nil, sstp.CallConnectAck)), "no usable crypto binding"},
		"nonsense":            {sstp.AskCall, ok + "this is not SSTP", "answer to CALL_CONNECT_REQUEST"},
		"an end":              {sstp.AskCall, ok, "the connection was closed"},
		"another web server":  {sstp.AskIPHTTPS, ok, "accepts everything"},
		"no IP-HTTPS":         {sstp.AskIPHTTPS, "HTTP/1.1 404 Not Found\r\n\r\n", "404"},
		"data before the ACK": {sstp.AskCall, ok + "\x10\x00\x00\x08\xff\x03\xc0\x21" + string(sstp.AppendConnectAck(nil, &sstp.BindingRequest{Hashes: sstp.HashSHA256})), ""},
	} {
		t.Run(name, func(t *testing.T) {
			addr := tcpServer(t, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				c.Write([]byte(tc.reply))
				c.(*net.TCPConn).CloseWrite()
				c.SetReadDeadline(time.Now().Add(time.Second))
				for b := make([]byte, 4096); ; {
					if _, err := c.Read(b); err != nil {
						return
					}
				}
			})
			err := (&sstp.Prober{Question: tc.ask, PlainHTTP: true}).Probe(t.Context(), addr)
			if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, want %q", err, tc.says)
			}
		})
	}
}

// nullServer runs OpenSSL with suites that Go doesn't have. It sends lines back,
// reversed.
func nullServer(t *testing.T, suites string) netip.AddrPort {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("needs real peers: set AOVLB_PEERS=1")
	}
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("needs openssl")
	}
	dir := t.TempDir()
	key, cert := filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
		"-subj", "/CN=vpn.example", "-keyout", key, "-out", cert).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.51:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "openssl", "s_server", "-accept", addr.String(), "-cert", cert, "-key", key,
		"-tls1_2", "-cipher", suites+":@SECLEVEL=0", "-rev", "-quiet")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		cmd.Wait()
		if t.Failed() {
			t.Logf("openssl: %s", out.String())
		}
	})
	until(t, "openssl", func() bool {
		c, err := net.DialTimeout("tcp", addr.String(), time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return addr
}

func TestRealScanNull(t *testing.T) {
	addr := nullServer(t, "NULL-SHA256:NULL-SHA:AES128-SHA")
	got, err := new(sstp.Scanner).Scan(t.Context(), addr)
	if err != nil || len(got) != 1 || len(got[0].Suites) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	null := 0
	for _, s := range got[0].Suites {
		if s.Null() {
			null++
		}
	}
	if null != 2 {
		t.Errorf("suites %v", got[0].Suites)
	}
}

// safeBuffer may be read while it is written.
type safeBuffer struct {
	mu  chan struct{}
	buf bytes.Buffer
}

func newSafeBuffer() *safeBuffer {
	b := &safeBuffer{mu: make(chan struct{}, 1)}
	b.mu <- struct{}{}
	return b
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	<-b.mu
	defer func() { b.mu <- struct{}{} }()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	<-b.mu
	defer func() { b.mu <- struct{}{} }()
	return b.buf.String()
}

// TestRealNullClient: OpenSSL, wanting no encryption, is passed to OpenSSL.
func TestRealNullClient(t *testing.T) {
	addr := nullServer(t, "NULL-SHA256:NULL-SHA")
	w := newWorld(t, sstp.ModeOffload, 1, func(w *world) { w.term.PassNull, w.term.TLSPort = true, addr.Port() })
	if err := w.pool.Set(lb.Backend{Name: "da1", Addr: addr.Addr()}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", w.addr.String(), "-tls1_2", "-cipher", "NULL-SHA256:@SECLEVEL=0", "-ign_eof")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := newSafeBuffer()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Write([]byte("through\n"))
	until(t, "the answer", func() bool { return strings.Contains(out.String(), "hguorht") })
	in.Close()
	cmd.Process.Kill()
	cmd.Wait()
	if !strings.Contains(out.String(), "NULL-SHA256") {
		t.Errorf("openssl says %s", out.String())
	}
	if s := w.ended(1); s.Mode != sstp.ModePassthrough || s.Resource != sstp.ResourceIPHTTPS || s.Backend != "da1" || w.term.Stats().Null != 1 {
		t.Errorf("session %+v", s)
	}
}
