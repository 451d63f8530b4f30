package profilexml

import (
	"slices"
	"strings"
)

// cryptoRules are about CryptographySuite.
func cryptoRules() []Rule {
	return []Rule{
		{
			ID: "AOV120", Severity: Warning, Title: "There is no CryptographySuite",
			Why:    "Windows then offers its defaults, which begin with 3DES, SHA1 and DH group 2, and RRAS takes the first: the weakest.",
			Remedy: "Add a CryptographySuite, and give the gateways the same with Set-VpnServerConfiguration -CustomPolicy.",
			run:    checkSuiteMissing,
		},
		{
			ID: "AOV121", Severity: Error, Title: "CryptographySuite doesn't have all six values",
			Why:    "Windows wants all six, or none. With fewer, the suite isn't applied, or not as it was meant.",
			Remedy: "Give all six values.",
			run:    checkSuiteComplete,
		},
		{
			ID: "AOV122", Severity: Error, Title: "The integrity doesn't fit the cipher of ESP",
			Why:    "AES-GCM protects integrity itself, so that both transforms must name the same GCM. One alone is refused, or leaves traffic without encryption or integrity.",
			Remedy: "Use the same GCMAES value for both, or an AES cipher with SHA256128.",
			run:    checkGCM,
		},
		{
			ID: "AOV123", Severity: Error, Title: "An algorithm is broken",
			Why:    "DES, MD5, a group of 768 bits, or no group at all don't keep anybody out.",
			Remedy: "Use AES, SHA256 and at least Group14; best AES-GCM and ECP256.",
			run:    func(k *check) { k.checkStrength(broken, "is broken") },
		},
		{
			ID: "AOV124", Severity: Warning, Title: "An algorithm is weak",
			Why:    "3DES, SHA1, groups 2 and 24 are deprecated (RFC 8247), and without PFS one stolen key opens all that was recorded of a session.",
			Remedy: "Use AES, SHA256 and at least Group14 and PFS2048; best AES-GCM and ECP256.",
			run:    func(k *check) { k.checkStrength(weak, "is weak") },
		},
		{
			ID: "AOV125", Severity: Error, Title: "The gateway doesn't take this suite",
			Why:    "A client with a CryptographySuite makes exactly one proposal. Where the gateway differs in one value, the connection ends in error 800 or 13868; where only PfsGroup differs, it breaks at the first rekey, hours later.",
			Remedy: "Give client and gateway the same six values.",
			run:    checkServerPolicy,
		},
		{
			ID: "AOV126", Severity: Error, Title: "The gateway has a policy, and the profile doesn't",
			Why:    "Without CryptographySuite Windows offers its defaults, of which a gateway with a custom policy takes none: error 800 or 13868.",
			Remedy: "Add the gateway's six values as CryptographySuite.",
			run:    checkPolicyUnmet,
		},
	}
}

// usesIKEv2 reports whether the profile may connect by IKEv2 and apply a suite.
func (k *check) usesIKEv2() bool {
	return slices.Contains(k.protocols(), "IKEv2")
}

func checkSuiteMissing(k *check) {
	if k.native != nil && k.suite == nil && k.usesIKEv2() && len(k.Server) == 0 {
		k.report(k.native, nil, "without <CryptographySuite> Windows offers 3DES, SHA1 and DH group 2 first")
	}
}

func checkSuiteComplete(k *check) {
	if k.suite == nil {
		return
	}
	var missing []string
	for _, f := range suiteFields {
		if k.suite.child(f.name) == nil {
			missing = append(missing, f.name)
		}
	}
	if len(missing) > 0 {
		k.report(k.suite, nil, "<CryptographySuite> has no %s", strings.Join(missing, ", "))
	}
}

// suiteValue returns a value of the suite as Windows writes it.
func (k *check) suiteValue(name string) string {
	n := k.suite.child(name)
	if n == nil || n.spec == nil {
		return ""
	}
	return n.spec.canonical(k.text(n))
}

func checkGCM(k *check) {
	auth, cipher := k.suiteValue("AuthenticationTransformConstants"), k.suiteValue("CipherTransformConstants")
	gcm := strings.HasPrefix(auth, "GCM") || strings.HasPrefix(cipher, "GCM")
	if gcm && auth != "" && cipher != "" && auth != cipher {
		k.reportValue(k.suite.child("AuthenticationTransformConstants"), nil, "AuthenticationTransformConstants %s doesn't fit CipherTransformConstants %s", auth, cipher)
	}
}

func (k *check) checkStrength(s strength, is string) {
	for _, f := range suiteFields {
		n := k.suite.child(f.name)
		v, ok := f.value(k.text(n))
		if n == nil || !ok || v.strength != s {
			continue
		}
		name := f.name + " " + v.name
		if f.name == "IntegrityCheckMethod" && v.name == "SHA196" || f.name == "AuthenticationTransformConstants" && v.name == "SHA196" {
			name += " (SHA1)"
		}
		k.reportValue(n, nil, "%s %s", name, is)
	}
}

// suiteOf returns the suite if it is complete.
func (k *check) suiteOf() (Suite, bool) {
	var s Suite
	for i, p := range valuesOf(&s) {
		if *p = k.suiteValue(suiteFields[i].name); *p == "" {
			return s, false
		}
	}
	return s, true
}

func checkServerPolicy(k *check) {
	s, ok := k.suiteOf()
	if !ok || !k.usesIKEv2() {
		return
	}
	for _, server := range k.Server {
		for _, d := range s.Differences(server) {
			name, _, _ := strings.Cut(d, " ")
			k.reportValue(k.suite.child(name), nil, "%s", d)
		}
	}
	if k.Negotiate == nil {
		return
	}
	if err := k.Negotiate(s); err != nil {
		k.report(k.suite, nil, "%v", err)
	}
}

func checkPolicyUnmet(k *check) {
	if k.native != nil && k.suite == nil && k.usesIKEv2() && len(k.Server) > 0 {
		k.report(k.native, nil, "the gateways have the policy %v, and the profile has no <CryptographySuite>", k.Server[0])
	}
}
