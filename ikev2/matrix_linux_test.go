package ikev2

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers"
)

// matrixPolicies are what gateways of the matrix accept, as strongSwan spells it.
var matrixPolicies = []string{
	"aes256-sha256-modp2048",
	"aes128-sha256-modp2048",
	"aes256gcm16-prfsha384-ecp384",
	"aes128gcm16-prfsha256-modp2048,aes256-sha256-modp2048",
	"3des-sha1-modp1024",
	"3des-aes128-aes192-aes256-sha1-sha256-sha384-modp1024",
	"aes256-aes128-sha384-sha256-ecp384-ecp256-modp2048",
	"aes256gcm16-aes128gcm16-prfsha384-prfsha256-ecp384-ecp256,aes256-sha256-ecp256-modp2048",
	"aes256-sha1-prfsha256-modp2048",
	"aes128-sha256-x25519-ecp256",
	"aes256-sha1-sha256-sha384-modp2048",
	"chacha20poly1305-prfsha256-x25519,aes128-aesxcbc-prfaesxcbc-modp3072",
}

// matrixOffers are what clients of the matrix offer, besides what Windows does.
var matrixOffers = []string{
	"aes256-sha256-modp2048",
	"aes128-sha256-modp2048",
	"aes256-aes128-sha256-sha1-modp2048-modp1024",
	"aes256gcm16-prfsha384-ecp384",
	"aes128gcm16-prfsha256-modp2048",
	"aes128gcm16-aes256gcm16-prfsha256-prfsha384-modp2048-ecp384",
	"3des-sha1-modp1024",
	"aes256-sha384-modp1024,aes128-sha256-ecp256,aes256gcm16-prfsha384-ecp384",
	"aes256-sha1-modp2048",
	"aes256-sha256-sha1-prfsha256-prfsha1-modp2048",
	"aes128-sha256-ecp256-x25519",
	"aes192-sha256-modp2048",
	"chacha20poly1305-prfsha256-prfsha512-x25519",
	"aes128-aesxcbc-modp3072,aes256-sha512-ecp521",
	"aes128-sha256-modp1024,aes256-sha256-modp1024,aes256-sha256-modp2048",
}

// TestNegotiateStrongSwan compares what Negotiate predicts with what strongSwan
// does, for each offer under each policy:
//
//	namespace gw: lo 127.0.1.1, 127.0.1.2 …, one policy at each; one charon for all;
//	the Prober asks from within
func TestNegotiateStrongSwan(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	offers := map[string][]Proposal{}
	for _, p := range Policies() {
		offers[p.Name] = p.IKE
	}
	for _, s := range matrixOffers {
		ps, err := ParseProposals(ProtocolIKE, s)
		if err != nil {
			t.Fatal(err)
		}
		offers[s] = ps
	}
	for _, preferOffer := range []bool{false, true} {
		t.Run(fmt.Sprintf("PreferOffer=%v", preferOffer), func(t *testing.T) { playMatrix(t, offers, preferOffer) })
	}
}

func matrixAddr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), Port)
}

// startResponder starts a gateway with each policy at its matrixAddr.
func startResponder(gw *peers.Host, settings map[string]string, policies []string) *peers.Swan {
	s := gw.Responder(settings)
	all := make([]peers.Acceptance, len(policies))
	for i, p := range policies {
		all[i] = peers.Acceptance{Addr: matrixAddr(i).Addr(), IKE: p}
	}
	s.Accept(all...)
	return s
}

// ask is Prober.Ask from within a namespace.
func ask(ctx context.Context, from *peers.Host, p Prober, target netip.AddrPort) (r Result, err error) {
	err = from.Do(func() (err error) {
		r, err = p.Ask(ctx, target)
		return err
	})
	return r, err
}

func playMatrix(t *testing.T, offers map[string][]Proposal, preferOffer bool) {
	settings := map[string]string{}
	if preferOffer {
		settings["prefer_configured_proposals"] = "no"
	}
	gw := peers.New(t).Host("gw")
	startResponder(gw, settings, matrixPolicies)
	counts := map[AnswerKind]int{}
	for i, text := range matrixPolicies {
		accept, err := ParseProposals(ProtocolIKE, text)
		if err != nil {
			t.Fatal(err)
		}
		policy := Policy{Name: text, IKE: accept, PreferOffer: preferOffer}
		j := 0
		for name, offer := range offers {
			// Each from an address of its own: a gateway falls silent towards
			// one with some half-open SAs.
			from := netip.AddrFrom4([4]byte{127, 2, byte(i), byte(j)})
			counts[playPair(t, gw, matrixAddr(i), from, name, offer, policy)]++
			j++
		}
	}
	t.Logf("%d pairs: %v", len(offers)*len(matrixPolicies), counts)
	if counts[AnswerSA] < 20 || counts[AnswerInvalidKE] < 5 || counts[AnswerNoProposal] < 20 {
		t.Errorf("the matrix is lopsided: %v", counts)
	}
}

// playPair sends an offer, and compares: first the answer to the guess of a
// client, then the suite in the end.
func playPair(t *testing.T, gw *peers.Host, target netip.AddrPort, from netip.Addr, name string, offer []Proposal, policy Policy) AnswerKind {
	t.Helper()
	want := Negotiate(offer, policy)
	p := Prober{Proposals: offer, Exact: true, Local: from}
	first := want.Answer(p.guess())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := ask(ctx, gw, p, target)
	if err != nil {
		t.Errorf("%s, offered %s: %v", policy.Name, name, err)
		return AnswerNone
	}
	if r.Answer != first || r.Answer == AnswerInvalidKE && r.Group != want.Suite.KE {
		t.Errorf("%s, offered %s: strongSwan says %v, Negotiate %v %v", policy.Name, name, r, first, want)
		return r.Answer
	}
	if first == AnswerInvalidKE {
		p.Complete = true
		if r, err = ask(ctx, gw, p, target); err != nil {
			t.Errorf("%s, offered %s: %v", policy.Name, name, err)
			return first
		}
	}
	if !want.OK {
		return first
	}
	got, err := SuiteOf(r.Suite)
	if err != nil || got != want.Suite || int(r.Suite.Number) != want.Offered+1 {
		t.Errorf("%s, offered %s: strongSwan chooses %v of proposal %d (%v), Negotiate %v of %d",
			policy.Name, name, r.Suite, r.Suite.Number, err, want.Suite, want.Offered+1)
	}
	return first
}
