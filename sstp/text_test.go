package sstp_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/sstp"
)

// TestJSON: what is written as JSON can be read again.
func TestJSON(t *testing.T) {
	for f := sstp.FindingNone; f.String() != "unknown"; f++ {
		s := sstp.Session{
			Correlation: "{1}", Client: netip.MustParseAddrPort("192.0.2.1:7"), Mode: sstp.Mode(f % 3), Resource: sstp.Resource(f % 3),
			Stage: sstp.Stage(f % 7), Start: time.Unix(1, 2).UTC(), Served: sstp.Fingerprint{1}, Reported: sstp.CertHash{Hash: sstp.HashSHA1, Sum: [32]byte{2}},
			Auth: sstp.Auth{Protocol: "CHAP", Result: sstp.AuthResult(f % 4), Error: 691}, Aborted: &sstp.Abort{By: sstp.PeerGateway, Attribute: 3, Status: 4},
			Unanswered: sstp.Peer(f % 4), First: sstp.PeerClient, How: "done", Finding: f,
		}
		roundTrip(t, s)
	}
	roundTrip(t, []sstp.CertificateFinding{{Gravity: sstp.GravityAdvice}, {Gravity: sstp.GravityRisk}, {Gravity: sstp.GravityFatal, Rule: "eku"}})
	roundTrip(t, sstp.KeyringStatus{
		Leaves:   []sstp.LeafStatus{{SHA256: sstp.Fingerprint{1}, SHA1: sstp.FingerprintSHA1{2}, Names: []string{"x"}}},
		Gateways: []sstp.GatewayStatus{{Gateway: "ras1", Expects: sstp.Fingerprint{1}, Missing: true}},
	})
}

func roundTrip[T any](t *testing.T, v T) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var got T
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	if diff := cmp.Diff(v, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("%s: %s", b, diff)
	}
}

func TestJSONRefuses(t *testing.T) {
	for _, text := range []string{`{"finding": "guess"}`, `{"stage": ""}`, `{"reported": "00"}`, `{"served": "xy"}`} {
		if err := json.Unmarshal([]byte(text), new(sstp.Session)); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}
