package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/internal/standin"
)

// probe --scan finds the policy of a gateway on loopback, in words and as JSON,
// and probe --offer asks as one kind of client.
func TestProbeScan(t *testing.T) {
	udp := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip("no loopback:", err)
		}
		return c
	}
	c, natt := udp(), udp()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	g := &standin.IKEGateway{Name: "ras1", Secret: []byte("x")}
	wg.Go(func() { _ = g.Serve(ctx, c, natt) }) // ends with ctx
	at := c.LocalAddr().String()
	probe := func(args ...string) (string, int) {
		var out bytes.Buffer
		env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		code := run(ctx, env, append([]string{"probe", "ikev2", at}, args...))
		return out.String(), code
	}
	text, code := probe("--scan", "--interval", "1ms")
	if code != 0 {
		t.Errorf("exit code %d: %s", code, text)
	}
	for _, w := range []string{"questions", "AES_GCM_16_128/PRF_HMAC_SHA2_256/ECP_256", "EncryptionMethod GCMAES128, IntegrityCheckMethod SHA256, DHGroup ECP256", "as a whole it is "} {
		if !strings.Contains(text, w) {
			t.Errorf("without %q: %s", w, text)
		}
	}
	text, _ = probe("--scan", "--interval", "1ms", "--all", "--json")
	var found []scanReport
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	r := found[0]
	if !r.Exact || r.Error != "" || r.HalfOpen != 0 || !slices.ContainsFunc(r.Suites, func(s scanSuite) bool { return strings.Contains(s.Suite, "CURVE_25519") }) {
		t.Errorf("%+v", r)
	}
	if text, code := probe("--scan", "--interval", "1ms", "--max", "12"); code != 0 || !strings.Contains(text, "There may be more suites") {
		t.Errorf("%d: %s", code, text)
	}
	if text, code := probe("--offer", "windows-10"); code != 1 || !strings.Contains(text, "refuses what windows-10 offers") {
		t.Errorf("%d: %s", code, text)
	}
	if text, code := probe("--offer", "aes128gcm16-prfsha256-ecp256"); code != 0 || !strings.Contains(text, "AES_GCM_16_128/PRF_HMAC_SHA2_256/ECP_256") {
		t.Errorf("%d: %s", code, text)
	}
}
