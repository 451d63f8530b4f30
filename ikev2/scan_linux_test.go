package ikev2

import (
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/internal/peers"
)

// scanPolicies are what the gateways that are scanned accept.
var scanPolicies = []string{
	"aes256-sha256-modp2048",
	"aes128gcm16-prfsha256-modp2048",
	"3des-aes128-aes192-aes256-sha1-sha256-sha384-modp1024",
	"aes256gcm16-prfsha384-ecp384,aes128-sha256-ecp256-modp2048",
	"aes256-sha512-curve25519",
}

// TestScanStrongSwan compares what a scan finds with the policy, suite by suite,
// and what ike-scan says with what Negotiate predicts for its proposal:
//
//	namespace gw: lo 127.0.1.1, 127.0.1.2 …, one policy at each; one charon for all;
//	the Scanner and ike-scan ask from within
func TestScanStrongSwan(t *testing.T) {
	peers.Need(t, peers.SwanPrograms...)
	gw := peers.New(t).Host("gw")
	s := startResponder(gw, map[string]string{"send_vendor_id": "yes"}, scanPolicies)
	for i, text := range scanPolicies {
		t.Run(text, func(t *testing.T) {
			ps, err := ParseProposals(ProtocolIKE, text)
			if err != nil {
				t.Fatal(err)
			}
			policy := Policy{Name: text, IKE: ps}
			for name, candidates := range map[string][]Transform{"Windows": WindowsCandidates(), "all": AllCandidates()} {
				from := netip.AddrFrom4([4]byte{127, 3, byte(i), byte(len(candidates))})
				was, _ := counts(t, s)
				compareScan(t, gw, name, matrixAddr(i), from, candidates, policy)
				if now, half := counts(t, s); now != was {
					t.Errorf("%s: %d IKE SAs before, %d after, %d half-open", name, was, now, half)
				}
			}
			// These two leave a half-open SA each.
			compareIKEScan(t, gw, matrixAddr(i), policy)
		})
	}
}

// counts returns how many IKE SAs a gateway has, and how many are half-open.
func counts(t *testing.T, s *peers.Swan) (total, halfOpen int) {
	t.Helper()
	total, halfOpen, err := s.Counts()
	if err != nil {
		t.Fatal(err)
	}
	return total, halfOpen
}

// compareScan scans, and compares with what the policy says.
func compareScan(t *testing.T, asker *peers.Host, name string, target netip.AddrPort, from netip.Addr, candidates []Transform, policy Policy) Scan {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var got Scan
	err := asker.Do(func() (err error) {
		got, err = Scanner{Candidates: candidates, Interval: time.Millisecond, Local: from}.Scan(ctx, target)
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	t.Logf("%s: %d questions in %v: %d suites, exact %v, %v", name, got.Questions, got.Took.Round(time.Millisecond), len(got.Suites), got.Exact, got.Assess().Grade)
	if !got.Exact || !got.Alive || got.HalfOpen != 0 {
		t.Errorf("%s: %+v", name, got)
	}
	if diff := cmp.Diff(suiteNames(suitesWithin(policy.IKE, candidates)), suiteNames(got.Suites)); diff != "" {
		t.Errorf("%s: suites (-policy +scan):\n%s", name, diff)
	}
	return got
}

func suiteNames(suites []Suite) []string {
	out := []string{}
	for _, s := range suites {
		out = append(out, s.String())
	}
	slices.Sort(out)
	return out
}

// suitesWithin returns all suites of proposals that are made of candidates.
func suitesWithin(ps []Proposal, candidates []Transform) []Suite {
	var out []Suite
	for _, p := range ps {
		var fill func(s Suite, kinds []TransformType)
		fill = func(s Suite, kinds []TransformType) {
			if len(kinds) == 0 {
				if !slices.Contains(out, s) {
					out = append(out, s)
				}
				return
			}
			ts := p.of(kinds[0])
			if len(ts) == 0 {
				fill(s, kinds[1:])
			}
			for _, x := range ts {
				if slices.Contains(candidates, x) {
					next := s
					next.set(x)
					fill(next, kinds[1:])
				}
			}
		}
		fill(Suite{Protocol: ProtocolIKE}, []TransformType{TransformEncr, TransformInteg, TransformPRF, TransformKE})
	}
	return out
}

// ikeScanOffer is the one proposal that ike-scan makes for IKEv2.
var ikeScanOffer = []Proposal{{Number: 1, Protocol: ProtocolIKE, Transforms: []Transform{
	{TransformEncr, EncrAESCBC, 256},
	{TransformEncr, EncrAESCBC, 128},
	{TransformEncr, Encr3DES, 0},
	{TransformEncr, EncrDES, 0},
	{TransformInteg, IntegHMACSHA1, 0},
	{TransformInteg, IntegHMACMD5, 0},
	{TransformPRF, PRFHMACSHA1, 0},
	{TransformPRF, PRFHMACMD5, 0},
	{TransformKE, uint16(GroupMODP1024), 0},
	{TransformKE, uint16(GroupMODP1536), 0},
	{TransformKE, uint16(GroupMODP2048), 0},
}}}

var ikeScanSA = regexp.MustCompile(`SA=\(Encr=(\S+?)(?:,KeyLength=(\d+))? Integ=(\S+) Prf=(\S+) DH_Group=(\d+):`)

// compareIKEScan asks by ike-scan, and by a Prober with the same proposal.
func compareIKEScan(t *testing.T, asker *peers.Host, target netip.AddrPort, policy Policy) {
	t.Helper()
	if _, err := exec.LookPath("ike-scan"); err != nil {
		t.Log(err)
		return
	}
	out, err := asker.Run("ike-scan", "--ikev2", "--sport=0", fmt.Sprintf("--dport=%d", target.Port()), target.Addr().String())
	if err != nil {
		t.Fatalf("ike-scan: %v\n%s", err, out)
	}
	ours, err := ask(t.Context(), asker, Prober{Proposals: ikeScanOffer, Exact: true, Guess: GroupMODP1024}, target)
	if err != nil {
		t.Fatal(err)
	}
	theirs := ""
	switch m := ikeScanSA.FindStringSubmatch(out); {
	case m != nil:
		theirs = fmt.Sprintf("SA %s %s group %s", m[1], m[2], m[5])
	case strings.Contains(out, "(NO_PROPOSAL_CHOSEN)"):
		theirs = "NO_PROPOSAL_CHOSEN"
	case strings.Contains(out, "(INVALID_KE_PAYLOAD)"):
		theirs = "INVALID_KE_PAYLOAD"
	default:
		theirs = out
	}
	mine := ours.Answer.String()
	if ours.Answer == AnswerSA {
		s, err := SuiteOf(ours.Suite)
		if err != nil {
			t.Fatal(err)
		}
		name := map[uint16]string{EncrAESCBC: "AES_CBC", Encr3DES: "3DES", EncrDES: "DES"}[s.Encr]
		bits := ""
		if s.KeyBits != 0 {
			bits = fmt.Sprint(s.KeyBits)
		}
		mine = fmt.Sprintf("SA %s %s group %d", name, bits, s.KE)
	}
	if mine != theirs {
		t.Errorf("ike-scan finds %q, the Prober %q:\n%s", theirs, mine, out)
	}
	if want := Negotiate(ikeScanOffer, policy).Answer(GroupMODP1024); want != ours.Answer {
		t.Errorf("the Prober is told %v, Negotiate predicts %v", ours.Answer, want)
	}
}
