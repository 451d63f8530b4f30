package ikev2

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// inNamespace runs the test again, alone, in a network namespace of its own with
// nothing but loopback, and returns true in there.
func inNamespace(t *testing.T, programs ...string) bool {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" || os.Geteuid() != 0 {
		t.Skip("needs root and AOVLB_PEERS=1: starts real gateways in a network namespace")
	}
	for _, p := range append(programs, "ip") {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	const inside = "AOVLB_IKEV2_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	ns := fmt.Sprintf("ikev2-%d", os.Getpid())
	run(t, nil, "ip", "netns", "add", ns)
	defer run(t, nil, "ip", "netns", "delete", ns)
	run(t, nil, "ip", "-n", ns, "link", "set", "lo", "up")
	out, err := command(t.Context(), append(os.Environ(), inside+"=1"), "ip", "netns", "exec", ns,
		os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=300s")
	t.Logf("inside %s:\n%s", ns, out)
	if err != nil {
		t.Error(err)
	}
	return false
}

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
//	namespace ikev2-PID: lo 127.0.1.1, 127.0.1.2 …, one policy at each; one charon
//	for all, and this test
func TestNegotiateStrongSwan(t *testing.T) {
	if !inNamespace(t, "charon-systemd", "swanctl") {
		return
	}
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

func playMatrix(t *testing.T, offers map[string][]Proposal, preferOffer bool) {
	settings := ""
	if preferOffer {
		settings += "	prefer_configured_proposals = no\n"
	}
	s := startSwanWith(t, settings)
	var conns strings.Builder
	for i, p := range matrixPolicies {
		run(t, nil, "ip", "addr", "replace", matrixAddr(i).Addr().String()+"/32", "dev", "lo")
		fmt.Fprintf(&conns, "	p%d {\n		version = 2\n		local_addrs = %v\n		proposals = %s\n		local {\n			auth = psk\n		}\n		remote {\n			auth = psk\n		}\n	}\n",
			i, matrixAddr(i).Addr(), p)
	}
	s.loadText("connections {\n" + conns.String() + "}\n")
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
			counts[playPair(t, matrixAddr(i), from, name, offer, policy)]++
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
func playPair(t *testing.T, target netip.AddrPort, from netip.Addr, name string, offer []Proposal, policy Policy) AnswerKind {
	t.Helper()
	want := Negotiate(offer, policy)
	p := Prober{Proposals: offer, Exact: true, Local: from}
	first := want.Answer(p.guess())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	r, err := p.Ask(ctx, target)
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
		if r, err = p.Ask(ctx, target); err != nil {
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

// startSwanWith starts a charon with settings of its own.
func startSwanWith(t *testing.T, settings string) *swan {
	t.Helper()
	s := &swan{t: t, dir: t.TempDir()}
	s.env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(s.dir, "strongswan.conf"), "SWANCTL_DIR="+s.dir)
	s.write("strongswan.conf", fmt.Sprintf(`charon {
	load = random nonce aes des sha1 sha2 md5 hmac kdf gcm chapoly xcbc pem x509 constraints pubkey gmp curve25519 openssl kernel-netlink socket-default vici
	send_vendor_id = yes
%s	plugins {
		vici {
			socket = %s
		}
	}
}
swanctl {
	load = pem x509 openssl random
}
`, settings, s.uri()))
	s.cmd = exec.Command("charon-systemd")
	s.cmd.Env = s.env
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

// loadText gives the gateway a configuration, when it is up.
func (s *swan) loadText(conf string) {
	s.t.Helper()
	s.write("swanctl.conf", conf)
	var out string
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if out, err = command(context.Background(), s.env, "swanctl", "--load-all", "--noprompt", "--uri", s.uri()); err == nil {
			if !slices.Contains(strings.Fields(out), "failed") {
				return
			}
			break
		}
		select {
		case <-s.t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.t.Fatalf("swanctl: %v\n%s", err, out)
}
