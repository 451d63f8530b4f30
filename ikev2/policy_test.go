package ikev2

import (
	"encoding/xml"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWindowsValues(t *testing.T) {
	seen := map[string]bool{}
	counts := map[Setting]int{}
	for _, v := range WindowsValues() {
		counts[v.Setting]++
		for _, name := range append([]string{v.PowerShell, v.ProfileXML}, v.Aliases...) {
			if name == "" {
				continue
			}
			got, err := LookUpWindowsValue(v.Setting, strings.ToLower(name))
			if err != nil {
				t.Error(err)
				continue
			}
			if diff := cmp.Diff(v, got); diff != "" {
				t.Errorf("%v %s (-want +got):\n%s", v.Setting, name, diff)
			}
		}
		if key := v.Setting.String() + v.PowerShell; v.PowerShell == "" || seen[key] {
			t.Errorf("%v is named twice, or not at all", v)
		} else {
			seen[key] = true
		}
	}
	// As many as PowerShell's documentation lists.
	want := map[Setting]int{
		SettingAuthenticationTransform: 7, SettingCipherTransform: 9, SettingEncryption: 7, SettingIntegrity: 4, SettingDHGroup: 7, SettingPFSGroup: 8,
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"", "AES_GCM_192", "Group15"} {
		if v, err := LookUpWindowsValue(SettingEncryption, name); err == nil {
			t.Errorf("%q is %v", name, v)
		}
	}
}

// customPolicies calls f with every combination of the values for ESP, and of
// those for IKE.
func customPolicies(f func(c CustomPolicy)) {
	names := map[Setting][]string{}
	for _, v := range WindowsValues() {
		names[v.Setting] = append(names[v.Setting], v.PowerShell)
	}
	vary := func(settings ...Setting) {
		var fill func(c CustomPolicy, left []Setting)
		fill = func(c CustomPolicy, left []Setting) {
			if len(left) == 0 {
				f(c)
				return
			}
			for _, n := range names[left[0]] {
				c.Set(left[0], n)
				fill(c, left[1:])
			}
		}
		fill(StandardPolicy(), settings)
	}
	vary(SettingAuthenticationTransform, SettingCipherTransform, SettingPFSGroup)
	vary(SettingEncryption, SettingIntegrity, SettingDHGroup)
}

// Every policy that passes Check makes suites from which it comes back.
func TestCustomPolicyRoundTrip(t *testing.T) {
	all, good, same := 0, 0, 0
	customPolicies(func(c CustomPolicy) {
		all++
		ike, esp, err := c.Suites()
		if (err == nil) != (c.Check() == nil) {
			t.Fatalf("%+v: %v", c, err)
		}
		if err != nil {
			return
		}
		good++
		back, err := CustomPolicyOf(ike, esp)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if c.PfsGroup == "PFSMM" {
			// It is the group by another name, if there is one.
			back.PfsGroup = "PFSMM"
		}
		if back != c {
			t.Fatalf("%+v comes back as %+v", c, back)
		}
		if diff, err := c.MustMatch(back); err != nil || len(diff) != 0 {
			t.Fatalf("%+v differs from itself in %v, %v", c, diff, err)
		}
		x, err := c.ProfileXML()
		if err != nil {
			return // None
		}
		same++
		if n, err := x.Normalize(); err != nil || n != c {
			t.Fatalf("%+v becomes %+v, %v", c, n, err)
		}
		if ike2, esp2, err := x.Suites(); err != nil || ike2 != ike || esp2 != esp {
			t.Fatalf("%+v: other suites by ProfileXML's names: %v", x, err)
		}
	})
	t.Logf("%d policies, %d can be, %d of them in ProfileXML", all, good, same)
	if all != 7*9*8+7*4*7 || good < 300 || same < 300 {
		t.Errorf("%d, %d, %d", all, good, same)
	}
}

func TestCustomPolicyCheck(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(c *CustomPolicy)
		words  []string
	}{
		{"good", func(*CustomPolicy) {}, nil},
		{"missing", func(c *CustomPolicy) { c.PfsGroup, c.DHGroup = "", "" }, []string{"PfsGroup is missing", "DHGroup is missing"}},
		{"unknown", func(c *CustomPolicy) { c.DHGroup, c.EncryptionMethod = "Group15", "ChaCha20" }, []string{`can't be "Group15"`, "Group24", `can't be "ChaCha20"`}},
		{"GCM and CBC", func(c *CustomPolicy) { c.CipherTransformConstants = "AES256" }, []string{"must be GCMAES128 too"}},
		{"two GCMs", func(c *CustomPolicy) { c.CipherTransformConstants = "GCMAES256" }, []string{"must be GCMAES256 too"}},
		{"nothing", func(c *CustomPolicy) {
			c.CipherTransformConstants, c.AuthenticationTransformConstants = "None", "None"
		}, []string{"can't both be None"}},
		{"no group", func(c *CustomPolicy) { c.DHGroup = "None" }, []string{"always exchanges keys"}},
		{"ProfileXML's words", func(c *CustomPolicy) { c.EncryptionMethod, c.IntegrityCheckMethod = "AES_GCM_256", "SHA196" }, nil},
	} {
		t.Run(x.name, func(t *testing.T) {
			c := EnhancedPolicy()
			x.change(&c)
			err := c.Check()
			if (err == nil) != (x.words == nil) {
				t.Fatal(err)
			}
			for _, w := range x.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%v: without %q", err, w)
				}
			}
		})
	}
}

func TestCustomPolicyOfImpossible(t *testing.T) {
	_, err := CustomPolicyOf(
		Suite{Protocol: ProtocolIKE, Encr: EncrAESCBC, KeyBits: 256, Integ: IntegHMACSHA1, PRF: PRFHMACSHA512, KE: GroupX25519, AddKE: [7]Group{GroupMLKEM768}},
		Suite{Protocol: ProtocolESP, Encr: EncrChaCha20Poly1305},
	)
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range []string{"PRF_HMAC_SHA2_512", "one hash", "CURVE_25519", "CHACHA20_POLY1305", "RFC 9370"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("without %q: %v", w, err)
		}
	}
}

// The messages of Windows have the sizes that were captured, or that logs told:
// so the lists of proposals have the right length.
func TestWindowsMessageSizes(t *testing.T) {
	for _, x := range []struct {
		policy    string
		fragments bool
		want      int
	}{
		{PolicyWindows10, false, 880}, // captured in 2015
		{PolicyWindows10, true, 888},
		{PolicyWindows11, true, 1104},
		{PolicyDH2048, true, 632}, // logged by strongSwan
	} {
		p, _ := LookUpPolicy(x.policy)
		if n := len(WindowsInit(1, make([]byte, 48), p.IKE, x.fragments)); n != x.want {
			t.Errorf("%s: %d octets, want %d", x.policy, n, x.want)
		}
	}
	one, err := ParseProposals(ProtocolIKE, "aes128-sha384-ecp256")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(WindowsInit(1, make([]byte, 48), one, false)); n != 344 {
		t.Errorf("a custom policy takes %d octets, want 344", n)
	}
}

func TestPolicies(t *testing.T) {
	for _, p := range Policies() {
		if p.Note == "" || len(p.IKE) == 0 || len(p.ESP) == 0 {
			t.Errorf("%+v", p)
		}
		if got, ok := LookUpPolicy(p.Name); !ok || got.Name != p.Name {
			t.Errorf("%s: %v", p.Name, got)
		}
		for _, x := range slices.Concat(p.IKE, p.ESP) {
			if _, err := SuiteOf(x); err != nil {
				t.Errorf("%s leaves a choice within a proposal, which Windows never does: %v", p.Name, err)
			}
		}
	}
	// What people see who leave everything as it is.
	w11, _ := LookUpPolicy(PolicyWindows11)
	rras, _ := LookUpPolicy(PolicyRRAS)
	if n := Negotiate(w11.IKE, rras); n.String() != "3DES/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024" {
		t.Errorf("Windows 11 and RRAS agree on %v", n)
	}
	if n := NegotiateChild(w11.ESP, rras, true); n.String() != "AES_CBC_256/HMAC_SHA1_96/NO_EXT_SEQ" {
		t.Errorf("Windows 11 and RRAS agree on %v", n)
	}
	if _, ok := LookUpPolicy("no such"); ok {
		t.Error("found what isn't there")
	}
}

func TestNegotiateExplains(t *testing.T) {
	standard, _ := LookUpPolicy(PolicyStandard)
	enhanced, _ := LookUpPolicy(PolicyEnhanced)
	high, _ := LookUpPolicy(PolicyHighSecurity)
	w10, _ := LookUpPolicy(PolicyWindows10)
	for _, x := range []struct {
		name string
		n    Negotiation
		want []string
	}{
		{"no custom policy on the client", Negotiate(w10.IKE, standard), []string{
			"NO_PROPOSAL_CHOSEN", "800", "13868", "number 5 comes closest", "KE: offered MODP_1024, accepted MODP_2048",
		}},
		{"two baselines", Negotiate(standard.IKE, enhanced), []string{"ENCR: offered AES_CBC_128, accepted AES_GCM_16_128"}},
		{"key length and more", Negotiate(high.IKE, enhanced), []string{
			"ENCR: offered AES_GCM_16_256, accepted AES_GCM_16_128", "PRF: offered PRF_HMAC_SHA2_384, accepted PRF_HMAC_SHA2_256", "KE: offered ECP_384, accepted MODP_2048",
		}},
		{
			"PFS", NegotiateChild(enhanced.ESP, Policy{ESP: []Proposal{Suite{Protocol: ProtocolESP, Encr: EncrAESGCM16, KeyBits: 128}.Proposal()}}, false),
			[]string{"KE: offered ECP_256, accepted none"},
		},
		{"empty", Negotiate(nil, enhanced), []string{"one side has no proposal"}},
		{"AH", NegotiateChild([]Proposal{{Protocol: ProtocolAH}}, enhanced, true), []string{"another protocol"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			for _, w := range x.want {
				if x.n.OK || !strings.Contains(x.n.String(), w) {
					t.Errorf("without %q: %v", w, x.n)
				}
			}
		})
	}
	for want, n := range map[string]Negotiation{
		"DHGroup: the client has Group2, the server wants Group14":                            Negotiate(w10.IKE, standard),
		"EncryptionMethod: the client has AES128, the server wants GCMAES128":                 Negotiate(standard.IKE, enhanced),
		"AuthenticationTransformConstants: the client has SHA196, the server wants SHA256128": NegotiateChild(w10.ESP, standard, true),
	} {
		if f := n.Misses[0].Faults[0]; f.Windows(n.Misses[0].Proposal.Protocol) != want {
			t.Errorf("got %q, want %q", f.Windows(n.Misses[0].Proposal.Protocol), want)
		}
	}
	pfs := NegotiateChild(enhanced.ESP, Policy{ESP: []Proposal{Suite{Protocol: ProtocolESP, Encr: EncrAESGCM16, KeyBits: 128}.Proposal()}}, false)
	if got := pfs.Misses[0].Faults[0].Windows(ProtocolESP); got != "PfsGroup: the client has ECP256, the server wants None" {
		t.Errorf("got %q", got)
	}
	// The first child has no key exchange, so that PFS isn't looked at.
	n := NegotiateChild(enhanced.ESP, Policy{ESP: []Proposal{Suite{Protocol: ProtocolESP, Encr: EncrAESGCM16, KeyBits: 128}.Proposal()}}, true)
	if n.String() != "AES_GCM_16_128/NO_EXT_SEQ" {
		t.Errorf("got %v", n)
	}
	if a := Negotiate(high.IKE, high).Answer(GroupMODP2048); a != AnswerInvalidKE {
		t.Errorf("got %v", a)
	}
}

func TestNegotiateRules(t *testing.T) {
	parse := func(p ProtocolID, s string) []Proposal {
		ps, err := ParseProposals(p, s)
		if err != nil {
			t.Fatal(err)
		}
		return ps
	}
	for _, x := range []struct {
		name          string
		protocol      ProtocolID
		offer, accept string
		preferOffer   bool
		want          string // "" is refusal
	}{
		{"own order", ProtocolIKE, "aes128-sha256-ecp256,aes256-sha256-ecp256", "aes256-sha256-ecp256,aes128-sha256-ecp256", false, "aes256-sha256-prfsha256-ecp256"},
		{"their order", ProtocolIKE, "aes128-sha256-ecp256,aes256-sha256-ecp256", "aes256-sha256-ecp256,aes128-sha256-ecp256", true, "aes128-sha256-prfsha256-ecp256"},
		{"optional KE", ProtocolESP, "aes128gcm16-ecp256-modpnone", "aes128gcm16", false, "aes128gcm16"},
		{"KE wanted", ProtocolESP, "aes128gcm16", "aes128gcm16-ecp256", false, ""},
		{"KE or not", ProtocolESP, "aes128gcm16", "aes128gcm16-ecp256-modpnone", false, "aes128gcm16"},
		{"ESN", ProtocolESP, "aes128gcm16-esn-noesn", "aes128gcm16-esn", false, "aes128gcm16-esn"},
		{"no ESN", ProtocolESP, "aes128gcm16-esn", "aes128gcm16", false, ""},
		{"hybrid", ProtocolIKE, "aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_mlkem768-ke1_mlkem1024", false, "aes256gcm16-prfsha384-curve25519-ke1_mlkem768"},
		{"hybrid wanted", ProtocolIKE, "aes256gcm16-prfsha384-x25519", "aes256gcm16-prfsha384-x25519-ke1_mlkem768", false, ""},
		{"no method twice", ProtocolIKE, "aes256gcm16-prfsha384-x25519-ke1_x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519-ke1_x25519-ke1_mlkem768", false, "aes256gcm16-prfsha384-curve25519-ke1_mlkem768"},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := Policy{IKE: parse(ProtocolIKE, "aes128-sha256-modp2048"), ESP: parse(ProtocolESP, "aes128-sha1"), PreferOffer: x.preferOffer}
			n := Negotiation{}
			if x.protocol == ProtocolIKE {
				p.IKE = parse(x.protocol, x.accept)
				n = Negotiate(parse(x.protocol, x.offer), p)
			} else {
				p.ESP = parse(x.protocol, x.accept)
				n = NegotiateChild(parse(x.protocol, x.offer), p, false)
			}
			got := ""
			if n.OK {
				var err error
				if got, err = n.Suite.Proposal().Keywords(); err != nil {
					t.Fatal(err)
				}
			}
			if got != x.want {
				t.Errorf("got %q, want %q: %v", got, x.want, n)
			}
			if !n.OK && len(n.Misses[0].Faults) == 0 {
				t.Errorf("refused without a reason: %+v", n.Misses)
			}
		})
	}
}

func TestParseProposals(t *testing.T) {
	for _, k := range keywords {
		text, protocol := k.word, ProtocolESP
		switch {
		case k.t.Type == TransformPRF, k.t.Type == TransformKE && k.t.ID != 0:
			text, protocol = "aes128-sha256-ecp256-"+k.word, ProtocolIKE
		case k.t.Type == TransformEncr && !aead(k.t.ID):
			text += "-sha1"
		case k.t.Type == TransformInteg:
			text = "3des-" + text
		case k.t.Type != TransformEncr:
			text = "aes128gcm16-" + text
		}
		ps, err := ParseProposals(protocol, text)
		if err != nil || len(ps) != 1 || !slices.Contains(ps[0].Transforms, k.t) {
			t.Errorf("%q: %v, %v", text, ps, err)
			continue
		}
		words, err := ps[0].Keywords()
		if err != nil {
			t.Error(err)
		}
		if again, err := ParseProposals(protocol, words); err != nil || again[0].String() != ps[0].String() {
			t.Errorf("%q becomes %q: %v, %v", text, words, again, err)
		}
	}
	for _, bad := range []string{
		"", "aes256", "aes256-sha256", "sha256-ecp256", "aes128-aes128gcm16-sha256-ecp256", "aes256gcm16-ecp256", "rot13-sha1-modp2048",
		"aes256-sha256-modp2048,", "aes256-sha256-modp2048-ke1_sha1", "aes256-sha256-modp2048-ke8_mlkem768", "aes128-prfsha256-ecp256",
		strings.Repeat("aes256-sha256-modp2048,", 256) + "aes256-sha256-modp2048",
	} {
		if ps, err := ParseProposals(ProtocolIKE, bad); err == nil {
			t.Errorf("%q is %v", bad, ps)
		}
	}
}

func TestAssess(t *testing.T) {
	c := func(auth, cipher, encr, integ, dh, pfs string) CustomPolicy {
		return CustomPolicy{auth, cipher, encr, integ, dh, pfs}
	}
	for _, x := range []struct {
		name  string
		c     CustomPolicy
		grade Grade
		words []string
	}{
		{"standard", StandardPolicy(), GradeAcceptable, []string{"Group14", "GCM"}},
		{"enhanced", EnhancedPolicy(), GradeAcceptable, []string{"Group14: 2048-bit MODP has 112 bits"}},
		{"high", HighSecurityPolicy(), GradeStrong, nil},
		{"3DES", c("SHA256128", "DES3", "DES3", "SHA256", "ECP256", "ECP256"), GradeWeak, []string{"Sweet32"}},
		{"SHA-1", c("SHA196", "AES256", "AES256", "SHA1", "ECP256", "ECP256"), GradeWeak, []string{"IntegrityCheckMethod SHA1", "AuthenticationTransformConstants SHA196"}},
		{"group 2", c("GCMAES128", "GCMAES128", "GCMAES128", "SHA256", "Group2", "ECP256"), GradeCritical, []string{"DHGroup Group2", "Logjam"}},
		{"group 24", c("GCMAES128", "GCMAES128", "GCMAES128", "SHA256", "Group24", "PFS24"), GradeWeak, []string{"DHGroup Group24", "PfsGroup PFS24"}},
		{"no PFS", c("GCMAES128", "GCMAES128", "GCMAES128", "SHA256", "ECP256", "None"), GradeWeak, []string{"PfsGroup None"}},
		{"Microsoft's example 1", c("None", "AES256", "AES256", "SHA256", "ECP256", "ECP256"), GradeCritical, []string{"not protected against change"}},
		{"Microsoft's example 3", c("GCMAES128", "None", "AES256", "SHA256", "ECP256", "ECP256"), GradeCritical, []string{"not encrypted"}},
		{"mixed", c("SHA256128", "GCMAES128", "AES256", "SHA256", "ECP256", "ECP256"), GradeCritical, []string{"GCM does both"}},
		{"DES and MD5", c("MD596", "DES", "DES", "MD5", "Group1", "PFS1"), GradeCritical, []string{"56-bit", "MD5 has been broken", "768-bit"}},
		{"no group", c("SHA256128", "AES128", "AES128", "SHA256", "None", "PFS2048"), GradeCritical, []string{"always exchanges keys"}},
	} {
		t.Run(x.name, func(t *testing.T) {
			a, err := x.c.Assess()
			if err != nil {
				t.Fatal(err)
			}
			var all strings.Builder
			for _, r := range a.Remarks {
				all.WriteString(r.String() + "\n")
				if r.Grade < GradeAcceptable && r.Fix == "" || r.Reason == "" {
					t.Errorf("no fix or no reason: %v", r)
				}
			}
			if a.Grade != x.grade {
				t.Errorf("grade is %v, want %v:\n%s", a.Grade, x.grade, &all)
			}
			for _, w := range x.words {
				if !strings.Contains(all.String(), w) {
					t.Errorf("without %q:\n%s", w, &all)
				}
			}
		})
	}
	if _, err := (CustomPolicy{}).Assess(); err == nil {
		t.Error("an empty policy is graded")
	}
	for name, want := range map[string]Grade{
		PolicyWindows10: GradeCritical, PolicyWindows11: GradeCritical, PolicyRRAS: GradeCritical, PolicyDH2048: GradeCritical,
		PolicyStandard: GradeAcceptable, PolicyEnhanced: GradeAcceptable, PolicyHighSecurity: GradeStrong,
	} {
		p, _ := LookUpPolicy(name)
		if a := p.Assess(); a.Grade != want {
			t.Errorf("%s: %v: %v", name, a.Grade, a.Remarks)
		}
	}
	pq := Suite{Protocol: ProtocolIKE, Encr: EncrAESGCM16, KeyBits: 256, PRF: PRFHMACSHA384, KE: GroupX25519, AddKE: [7]Group{GroupMLKEM768}}
	if a := pq.Assess(); a.Grade != GradeStrong || len(a.Outlook) != 0 {
		t.Errorf("%+v", a)
	}
	pq.AddKE = [7]Group{}
	if a := pq.Assess(); a.Grade != GradeStrong || len(a.Outlook) != 1 || !strings.Contains(a.Outlook[0].String(), "ML-KEM") {
		t.Errorf("%+v", a)
	}
}

// Every algorithm of the registry has a grade with a reason.
func TestAssessRegistry(t *testing.T) {
	for kind := TransformEncr; kind <= TransformAddKE7; kind++ {
		for id := range uint16(40) {
			tr := Transform{kind, id, 0}
			r := tr.Assess()
			if r.Reason == "" || r.Grade < GradeAcceptable && r.Fix == "" {
				t.Errorf("%v: %+v", tr, r)
			}
			b, _ := r.Grade.MarshalText()
			var g Grade
			if err := g.UnmarshalText(b); err != nil || g != r.Grade {
				t.Errorf("%s: %v, %v", b, g, err)
			}
		}
	}
}

func TestQuotePowerShell(t *testing.T) {
	for in, want := range map[string]string{
		"Always On VPN":       "'Always On VPN'",
		"it's":                "'it''s'",
		"$(Remove-Item C:\\)": "'$(Remove-Item C:\\)'",
		"a`b\"c;d|e":          "'a`b\"c;d|e'",
		"’; whoami; ‘":        "'’’; whoami; ‘‘'",
		"Größe‚‛":             "'Größe‚‚‛‛'",
	} {
		if got, err := QuotePowerShell(in); err != nil || got != want {
			t.Errorf("%q: %s, %v", in, got, err)
		}
	}
	for _, bad := range []string{"a\nb", "a\rb", "a\x00b", "a\u0085b", "a\u2028b", "a\xffb", "\x1b[2J"} {
		if got, err := QuotePowerShell(bad); err == nil {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

func TestPowerShell(t *testing.T) {
	server, err := EnhancedPolicy().ServerPowerShell(RecommendedSetup())
	if err != nil {
		t.Fatal(err)
	}
	want := "Set-VpnServerConfiguration `\n    -CustomPolicy `\n    -AuthenticationTransformConstants GCMAES128 `\n    -CipherTransformConstants GCMAES128 `\n" +
		"    -EncryptionMethod GCMAES128 `\n    -IntegrityCheckMethod SHA256 `\n    -DHGroup Group14 `\n    -PfsGroup ECP256 `\n" +
		"    -SALifeTimeSeconds 28800 `\n    -MMSALifeTimeSeconds 86400 `\n    -SADataSizeForRenegotiationKilobytes 1024000 `\n    -PassThru\n" +
		"# This ends all connections.\nRestart-Service -Name RemoteAccess -PassThru\n"
	if diff := cmp.Diff(want, server); diff != "" {
		t.Errorf("server (-want +got):\n%s", diff)
	}
	xml := EnhancedPolicy()
	xml.EncryptionMethod, xml.IntegrityCheckMethod = "aes_gcm_256", "sha196"
	client, err := xml.ClientPowerShell("Bob's VPN", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"-ConnectionName 'Bob''s VPN' `\n", "-AllUserConnection `\n", "-EncryptionMethod GCMAES256 ", "-IntegrityCheckMethod SHA1 ", "-Force\n"} {
		if !strings.Contains(client, w) {
			t.Errorf("without %q: %s", w, client)
		}
	}
	if strings.HasSuffix(client, "`\n") {
		t.Errorf("ends in a continuation: %s", client)
	}
	if s := RevertServerPowerShell(ServerSetup{NoRestart: true}); s != "Set-VpnServerConfiguration `\n    -RevertToDefault `\n    -PassThru\n" {
		t.Error(s)
	}
	if s, err := RevertClientPowerShell("VPN", false); err != nil || !strings.Contains(s, "-ConnectionName 'VPN' `\n    -RevertToDefault") {
		t.Errorf("%s, %v", s, err)
	}
	for _, bad := range []func() error{
		func() error { _, err := EnhancedPolicy().ClientPowerShell("", false); return err },
		func() error { _, err := EnhancedPolicy().ClientPowerShell("a\nb", false); return err },
		func() error { _, err := RevertClientPowerShell(strings.Repeat("x", 257), false); return err },
		func() error { _, err := (CustomPolicy{}).ServerPowerShell(ServerSetup{}); return err },
		func() error {
			_, err := EnhancedPolicy().ServerPowerShell(ServerSetup{SALifetime: time.Second})
			return err
		},
		func() error {
			_, err := EnhancedPolicy().ServerPowerShell(ServerSetup{MMSALifetime: 201 * 24 * time.Hour})
			return err
		},
		func() error { _, err := EnhancedPolicy().ServerPowerShell(ServerSetup{Data: 3}); return err },
	} {
		if bad() == nil {
			t.Error("no error")
		}
	}
}

func TestCryptographySuite(t *testing.T) {
	got, err := EnhancedPolicy().CryptographySuite("    ")
	if err != nil {
		t.Fatal(err)
	}
	want := `    <CryptographySuite>
      <AuthenticationTransformConstants>GCMAES128</AuthenticationTransformConstants>
      <CipherTransformConstants>GCMAES128</CipherTransformConstants>
      <PfsGroup>ECP256</PfsGroup>
      <DHGroup>Group14</DHGroup>
      <IntegrityCheckMethod>SHA256</IntegrityCheckMethod>
      <EncryptionMethod>AES_GCM_128</EncryptionMethod>
    </CryptographySuite>
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var back CustomPolicy
	if err := xml.Unmarshal([]byte(got), &back); err != nil {
		t.Fatal(err)
	}
	if n, err := back.Normalize(); err != nil || n != EnhancedPolicy() {
		t.Errorf("reads back as %+v, %v", n, err)
	}
	none := EnhancedPolicy()
	none.CipherTransformConstants = "None"
	if s, err := none.CryptographySuite(""); err == nil || !strings.Contains(err.Error(), "only PowerShell") {
		t.Errorf("%s, %v", s, err)
	}
}
