package main

import (
	"context"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors"
)

// TestRenderedQuestion: what keepalived asks IKEv2 gateways is a message that a
// gateway of Windows, with its defaults and as guides advise, finds a proposal in.
func TestRenderedQuestion(t *testing.T) {
	r, ok := vendors.FindRenderer("keepalived")
	if !ok {
		t.Fatal("keepalived isn't there")
	}
	files, err := r.Render(context.Background(), &plugins.Deployment{Sites: []plugins.Site{{
		Name: "hq",
		Pools: []plugins.Pool{{
			Name: "ras", Backends: []plugins.Backend{{Name: "ras1", Address: netip.MustParseAddr("10.0.1.11")}},
			Checks: []plugins.Check{{Type: plugins.CheckIKEv2}, {Name: "nat-t", Type: plugins.CheckIKEv2, Port: 4500}},
		}},
		Groups: []plugins.Group{{Name: "vpn", Pool: "ras", Listeners: []plugins.Listener{
			{Name: "ike", Protocol: plugins.ProtocolIKEv2, Address: netip.MustParseAddrPort("192.0.2.1:500")},
		}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	asked, spis := quoted(t, files[0].Content, "payload"), quoted(t, files[0].Content, "require_reply")
	if len(asked) != 2 || len(spis) != 2 {
		t.Fatalf("%d questions and %d answers", len(asked), len(spis))
	}
	if string(asked[1]) != "\x00\x00\x00\x00"+string(asked[0]) || string(spis[1]) != "\x00\x00\x00\x00"+string(spis[0]) {
		t.Error("at port 4500 there must be four zero bytes before the same message")
	}
	m, err := ikev2.ParseMessage(asked[0])
	if err != nil || m.Exchange != ikev2.ExchangeSAInit || string(spis[0]) != string(asked[0][:8]) {
		t.Fatalf("%+v, %v", m.Header, err)
	}
	got := map[ikev2.PayloadType][]byte{}
	w := m.Payloads()
	for w.Next() {
		got[w.Payload.Type] = w.Payload.Body
	}
	if err := w.Err(); err != nil {
		t.Fatal(err)
	}
	list, err := ikev2.ParseSA(got[ikev2.PayloadSA])
	if err != nil || len(list) != 3 {
		t.Fatalf("%d proposals, %v", len(list), err)
	}
	for _, p := range ikev2.Policies() {
		if strings.HasPrefix(p.Name, "windows") && !ikev2.Negotiate(list, p).OK {
			t.Errorf("a gateway with the policy %s refuses it", p.Name)
		}
	}
	ke, err := ikev2.ParseKE(got[ikev2.PayloadKE])
	if err != nil || ke.Group != ikev2.GroupX25519 || len(ke.Data) != 32 {
		t.Errorf("%+v, %v", ke, err)
	}
	if n, err := ikev2.ParseNonce(got[ikev2.PayloadNonce]); err != nil || len(n) != 32 {
		t.Errorf("a nonce of %d bytes, %v", len(n), err)
	}
}

// quoted returns the hexadecimal values of a keyword.
func quoted(t *testing.T, text []byte, keyword string) [][]byte {
	t.Helper()
	var out [][]byte
	for line := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), keyword+" ")
		if !ok {
			continue
		}
		b, err := hex.DecodeString(strings.Trim(value, `"`))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}
