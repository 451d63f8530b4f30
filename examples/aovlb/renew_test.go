package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aovlb/aovlb/sstp"
)

// TestRenewWaitsForNothingElse: once all gateways are changed, the word comes at
// once, and says what the balancer still looks for. Before, the next gateway depends
// on it.
func TestRenewWaitsForNothingElse(t *testing.T) {
	c := certificateReply{}
	c.Name, c.Pool, c.Running = "vpn", "ras", true
	proving := sstp.GatewayRenewal{Gateway: "ras2", Phase: sstp.PhaseProving, Until: time.Now().Add(100 * time.Second)}
	looks := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		looks++
		now := c
		now.Renewal = &sstp.Renewal{Gateways: []sstp.GatewayRenewal{{Gateway: "ras1", Phase: sstp.PhaseWaiting}, proving}}
		if looks > 1 {
			now.Renewal.Gateways[0].Phase = sstp.PhaseDone
		}
		if looks > 3 {
			now.Renewal.Gateways[1].Phase, now.Renewal.Ended, now.Running = sstp.PhaseDone, time.Now(), false
		}
		_ = json.NewEncoder(w).Encode(certificatesReply{Certificates: []certificateReply{now}})
	}))
	defer srv.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := srv.Listener.Addr().String()
	for _, tt := range []struct {
		prove bool
		looks int
		says  []string
		never string
	}{
		{false, 2, []string{"proving", "(up to 2m0s left)", "changed: all gateways of pool ras", "aovlb renew --prove vpn"}, "done:"},
		{true, 4, []string{"(up to 2m0s left)", "done: all gateways of pool ras"}, "changed:"},
	} {
		looks = 0
		var out bytes.Buffer
		env := &environment{stdout: &out, stderr: &out, getenv: func(string) string { return "" }}
		r := &remote{listen: &listen, tokenFile: &token, env: env}
		if err := r.follow(t.Context(), env, "vpn", tt.prove); err != nil {
			t.Fatal(err)
		}
		if looks != tt.looks || strings.Contains(out.String(), tt.never) {
			t.Errorf("prove %v: after %d looks it says\n%s", tt.prove, looks, &out)
		}
		for _, s := range tt.says {
			if !strings.Contains(out.String(), s) {
				t.Errorf("prove %v: without %q:\n%s", tt.prove, s, &out)
			}
		}
	}
}
