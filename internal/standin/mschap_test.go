package standin

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The examples of RFC 1320 §A.5, RFC 2759 §9.2 and RFC 3079 §3.5.3.
func TestMSCHAPv2(t *testing.T) {
	for in, want := range map[string]string{
		"":    "31d6cfe0d16ae931b73c59d7e0c089c0",
		"abc": "a448017aaf21d8525fc10ae87aa6729d",
		"12345678901234567890123456789012345678901234567890123456789012345678901234567890": "e33b4ddc9c38f2199c3e7b164fcc0536",
	} {
		if got := md4([]byte(in)); hex.EncodeToString(got[:]) != want {
			t.Errorf("MD4 of %q: %x, want %s", in, got, want)
		}
	}
	challenge, _ := hex.DecodeString("5b5d7c7d7b3f2f3e3c2c602132262628")
	peer, _ := hex.DecodeString("21402324255e262a28295f2b3a337c7e")
	r := ntResponse(challenge, peer, "User", "clientPass")
	if got := strings.ToUpper(hex.EncodeToString(r)); got != "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF" {
		t.Errorf("NT-Response %s", got)
	}
	if got := authenticatorResponse(challenge, peer, r, "User", "clientPass"); got != "S=407A5589115FD0D6209F510FE9C04566932CDA56" {
		t.Errorf("authenticator response %s", got)
	}
	if got := strings.ToUpper(hex.EncodeToString(mppeKey(r, "clientPass", true))); got != "8B7CDC149B993A1BA118CB153F56DCCB" {
		t.Errorf("send key %s", got)
	}
}
