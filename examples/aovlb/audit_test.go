package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/sstp"
)

// TestServeShares: SSTP, IP-HTTPS and a web site come to one address and port of
// the program, and audit and probe say so.
func TestServeShares(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "hello from %s", r.URL.Path) }))
	defer web.Close()
	w := newOffload(t, "reencrypt", ", gateway: {insecure: true}, ip_https: true, web: \""+web.Listener.Addr().String()+"\"")
	conf := &tls.Config{RootCAs: w.client.RootCAs, ServerName: w.client.ServerName}
	browser := &http.Client{Transport: &http.Transport{TLSClientConfig: conf.Clone(), ForceAttemptHTTP2: true}}
	defer browser.CloseIdleConnections()
	r, err := browser.Get("https://" + w.client.Server.String() + "/page")
	if err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(r.Body).ReadString('e'); r.StatusCode != http.StatusOK || line != "he" {
		t.Errorf("web: %s %q", r.Status, line)
	}
	r.Body.Close()
	if s := w.session(); s.Received < 3 {
		t.Errorf("SSTP: %+v", s)
	}
	c, err := tls.Dial("tcp", w.client.Server.String(), conf)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /IPHTTPS HTTP/1.1\r\nHost: x\r\nContent-Length: %s\r\n\r\n", sstp.ContentLength)
	if line, err := bufio.NewReader(c).ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
		t.Errorf("IP-HTTPS: %q, %v", line, err)
	}
	at := w.client.Server.String()
	for _, tc := range []struct{ command, says string }{
		{"probe sstp --call --name vpn.example.com " + at, "crypto binding"},
		{"probe sstp --ip-https " + at, "serves ip-https"},
		{"probe sstp " + at, "401"},
		{"status", "vpn"},
	} {
		out, err := w.command(strings.Fields(tc.command)...)
		if err != nil || !strings.Contains(out, tc.says) {
			t.Errorf("%s: %v\n%s", tc.command, err, out)
		}
	}
	// The certificate is of no CA, so audit fails, and says why.
	out, err := w.command("audit", "--no-ports", "--pause", "-1ms", "--name", "vpn.example.com", at)
	if err == nil {
		t.Error("audit found nothing fatal")
	}
	for _, want := range []string{"serves SSTP and IP-HTTPS", "calls        taken", "TLS 1.3", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "fatal: chain", "Microsoft-HTTPAPI/2.0"} {
		if !strings.Contains(out, want) {
			t.Errorf("audit says nothing of %q:\n%s", want, out)
		}
	}
	t.Log(out)
}

func TestAuditRefuses(t *testing.T) {
	for _, args := range [][]string{{"audit"}, {"audit", "127.0.0.1:99999"}, {"audit", "--ca", "/nonexistent", "127.0.0.1"}, {"audit", "127.0.0.1:1"}, {"probe", "sstp", "--call", "--ip-https", "127.0.0.1:1"}} {
		out := new(safeBuffer)
		if code := run(t.Context(), &environment{stdout: out, stderr: out, getenv: func(string) string { return "" }}, args); code == 0 || out.String() == "" {
			t.Errorf("%q: code %d, %q", args, code, out.String())
		}
	}
}
