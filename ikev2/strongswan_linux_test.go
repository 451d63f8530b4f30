package ikev2

import (
	"context"
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// TestProberStrongSwan asks a real gateway:
//
//	namespace gw: lo 127.0.0.1, charon on 500 and 4500; the Prober asks from within
func TestProberStrongSwan(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	gw := peers.New(t).Host("gw")
	s := gw.Responder(map[string]string{"send_vendor_id": "yes"})
	load := func(ike string) { s.Accept(peers.Acceptance{IKE: ike}) }
	probe := func(p Prober, target netip.AddrPort) error {
		return gw.Do(func() error { return p.Probe(t.Context(), target) })
	}
	local := netip.MustParseAddr("127.0.0.1")
	ike, natt := netip.AddrPortFrom(local, Port), netip.AddrPortFrom(local, PortNATT)
	for _, x := range []struct {
		proposals string
		group     Group
	}{
		{"aes128gcm16-prfsha256-modp2048", GroupMODP2048},
		{"aes256gcm16-prfsha384-ecp384", GroupECP384},
		{"aes256-sha256-ecp256", GroupECP256},
		{"aes256-sha1-modp1024", GroupMODP1024},
		{"3des-sha1-modp1024", GroupMODP1024},
		{"aes256-sha512-x25519", GroupX25519},
		{"default", 0},
	} {
		t.Run(x.proposals, func(t *testing.T) {
			load(x.proposals)
			// A probe is half-open until charon has answered it, for less than a
			// millisecond. Thirty in a row, on a machine that is busy, can be
			// enough for it to ask for cookies, which must do no harm.
			ok, cookies, was := 0, 0, time.Now()
			for i := range 30 {
				target := ike
				if i%2 == 1 {
					target = natt
				}
				r, err := ask(t.Context(), gw, Prober{}, target)
				if err != nil || r.Answer != AnswerInvalidKE || x.group != 0 && r.Group != x.group {
					t.Errorf("probe %d of %v: %v, %v", i, target, r, err)
					continue
				}
				ok++
				if r.Cookie {
					cookies++
				}
			}
			total, half := counts(t, s)
			t.Logf("%d of 30 probes answered by INVALID_KE_PAYLOAD, %d after a cookie, mean %v; then %d IKE SAs, %d half-open", ok, cookies, time.Since(was)/30, total, half)
			if total != 0 || half != 0 {
				t.Errorf("the probes left %d IKE SAs, %d half-open", total, half)
			}
		})
	}

	t.Run("policy drift", func(t *testing.T) {
		load("aes256gcm16-prfsha384-ecp384")
		p := Prober{Proposals: []Proposal{{Protocol: ProtocolIKE, Transforms: []Transform{
			{TransformEncr, EncrAESCBC, 128}, {TransformInteg, IntegHMACSHA256, 0}, {TransformPRF, PRFHMACSHA256, 0}, {TransformKE, uint16(GroupMODP2048), 0},
		}}}}
		r, err := ask(t.Context(), gw, p, ike)
		if err != nil || r.Answer != AnswerNoProposal {
			t.Errorf("got %v, %v", r, err)
		}
		if err := probe(p, ike); err != nil {
			t.Errorf("lenient: %v", err)
		}
		p.Strict = true
		if err := probe(p, ike); err == nil {
			t.Error("strict: no error")
		}
		if total, _ := counts(t, s); total != 0 {
			t.Errorf("%d IKE SAs", total)
		}
	})

	t.Run("complete", func(t *testing.T) { askCompletely(t, s, ike) })

	t.Run("dead", func(t *testing.T) {
		s.Kill()
		for _, target := range []netip.AddrPort{ike, natt} {
			if err := probe(Prober{}, target); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// askCompletely makes half-open SAs on purpose: it learns more, and brings the
// gateway to ask for cookies, then to silence.
func askCompletely(t *testing.T, s *peers.Swan, target netip.AddrPort) {
	t.Helper()
	gw := s.Host
	p := Prober{Complete: true}
	for i := range 3 {
		r, err := ask(t.Context(), gw, p, target)
		if err != nil || r.Answer != AnswerSA || r.Suite.String() != "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384" || !r.Fragments {
			t.Fatalf("%d: got %+v, %v", i, r, err)
		}
		if len(r.Vendors) == 0 || r.Vendors[0].Name() != "strongSwan" {
			t.Errorf("vendors are %v", r.Vendors)
		}
	}
	if total, half := counts(t, s); half != 3 {
		t.Errorf("%d IKE SAs, %d half-open: want 3 of them", total, half)
	}
	for i := range 3 {
		r, err := ask(t.Context(), gw, Prober{}, target)
		if err != nil || r.Answer != AnswerInvalidKE || !r.Cookie {
			t.Errorf("under pressure, %d: got %+v, %v", i, r, err)
		}
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := ask(ctx, gw, p, target)
		cancel()
		t.Logf("more half-open SAs: %v, %v", r, err)
		if err != nil {
			t.Errorf("a gateway under pressure isn't dead: %v", err)
		}
	}
}
