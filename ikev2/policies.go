package ikev2

import "slices"

// The names of the policies of [Policies].
const (
	PolicyWindows10    = "windows-10"
	PolicyWindows11    = "windows-11"
	PolicyDH2048       = "windows-dh2048"
	PolicyRRAS         = "rras"
	PolicyStandard     = "standard"
	PolicyEnhanced     = "enhanced"
	PolicyHighSecurity = "high"
)

// StandardPolicy is what has been advised for all versions of Windows since
// 2018: AES-128, SHA-256, 2048-bit MODP.
func StandardPolicy() CustomPolicy {
	return CustomPolicy{
		AuthenticationTransformConstants: "SHA256128", CipherTransformConstants: "AES128", EncryptionMethod: "AES128",
		IntegrityCheckMethod: "SHA256", DHGroup: "Group14", PfsGroup: "PFS2048",
	}
}

// EnhancedPolicy is what is advised in 2026 for Windows 10 1803 and later: GCM,
// and P-256 to renew child SAs.
func EnhancedPolicy() CustomPolicy {
	return CustomPolicy{
		AuthenticationTransformConstants: "GCMAES128", CipherTransformConstants: "GCMAES128", EncryptionMethod: "GCMAES128",
		IntegrityCheckMethod: "SHA256", DHGroup: "Group14", PfsGroup: "ECP256",
	}
}

// HighSecurityPolicy is the strongest that Windows has: AES-256 with GCM, and
// P-384.
func HighSecurityPolicy() CustomPolicy {
	return CustomPolicy{
		AuthenticationTransformConstants: "GCMAES256", CipherTransformConstants: "GCMAES256", EncryptionMethod: "GCMAES256",
		IntegrityCheckMethod: "SHA384", DHGroup: "ECP384", PfsGroup: "ECP384",
	}
}

// Policies returns the policies that this package knows: what Windows offers and
// RRAS accepts unless told otherwise, and what they are advised to be told.
func Policies() []Policy {
	esp := windowsESP()
	old, gcm := windowsCBC(GroupMODP1024), windowsGCM(GroupMODP1024)
	ps := []Policy{
		{
			Name: PolicyWindows10, Note: "what a Windows 7 to 10 client offers by default (captures of 2015 to 2019)",
			IKE: number(old), ESP: esp, PreferOffer: true,
		},
		{
			Name: PolicyWindows11, Note: "what a Windows 11 client offers by default (strongSwan's documentation; the order of the GCM proposals is assumed)",
			IKE: number(old, gcm), ESP: esp, PreferOffer: true,
		},
		{
			Name: PolicyDH2048, Note: "what a Windows 11 client offers with the registry value NegotiateDH2048_AES256 = 2",
			IKE: number(windowsDH2048()), ESP: esp, PreferOffer: true,
		},
		{
			Name: PolicyRRAS, Note: "what RRAS accepts by default: all that Windows 11 offers by default, and it takes the first",
			IKE: number(old, gcm), ESP: esp, PreferOffer: true,
		},
	}
	for _, x := range []struct {
		name, note string
		c          CustomPolicy
	}{
		{PolicyStandard, "the baseline: AES-128 with CBC, SHA-256, 2048-bit MODP", StandardPolicy()},
		{PolicyEnhanced, "advised in 2026: AES-128 with GCM, 2048-bit MODP, P-256 to renew", EnhancedPolicy()},
		{PolicyHighSecurity, "the strongest of Windows: AES-256 with GCM, SHA-384, P-384", HighSecurityPolicy()},
	} {
		// A test sees to it that these have no faults.
		p, _ := x.c.Policy(x.name)
		p.Note = x.note
		ps = append(ps, p)
	}
	return ps
}

// LookUpPolicy returns the policy of [Policies] that has a name.
func LookUpPolicy(name string) (Policy, bool) {
	ps := Policies()
	i := slices.IndexFunc(ps, func(p Policy) bool { return p.Name == name })
	if i < 0 {
		return Policy{}, false
	}
	return ps[i], true
}

// number puts suites one after another as proposals, as Windows sends them: one
// algorithm of each type in each.
func number(suites ...[]Suite) []Proposal {
	var ps []Proposal
	for _, s := range slices.Concat(suites...) {
		p := s.Proposal()
		p.Number = uint8(len(ps) + 1)
		ps = append(ps, p)
	}
	return ps
}

// The hashes of Windows' proposals, in their order.
var windowsHashes = [...]struct{ integ, prf uint16 }{
	{IntegHMACSHA1, PRFHMACSHA1}, {IntegHMACSHA256, PRFHMACSHA256}, {IntegHMACSHA384, PRFHMACSHA384},
}

// windowsCBC returns the twelve proposals for IKE that Windows has made since
// Windows 7.
func windowsCBC(g Group) []Suite {
	var out []Suite
	for _, c := range []Transform{{0, Encr3DES, 0}, {0, EncrAESCBC, 128}, {0, EncrAESCBC, 192}, {0, EncrAESCBC, 256}} {
		for _, h := range windowsHashes {
			out = append(out, Suite{Protocol: ProtocolIKE, Encr: c.ID, KeyBits: c.KeyBits, Integ: h.integ, PRF: h.prf, KE: g})
		}
	}
	return out
}

// windowsGCM returns the six that Windows 11 adds.
func windowsGCM(g Group) []Suite {
	var out []Suite
	for _, bits := range []uint16{128, 256} {
		for _, h := range windowsHashes {
			out = append(out, Suite{Protocol: ProtocolIKE, Encr: EncrAESGCM16, KeyBits: bits, PRF: h.prf, KE: g})
		}
	}
	return out
}

// windowsDH2048 returns the three that NegotiateDH2048_AES256 enforces.
func windowsDH2048() []Suite {
	return windowsCBC(GroupMODP2048)[9:]
}

// windowsESP returns the proposals for ESP: integrity is by SHA-1 in all.
func windowsESP() []Proposal {
	var out []Suite
	for _, c := range []Transform{{0, EncrAESCBC, 256}, {0, EncrAESCBC, 128}, {0, Encr3DES, 0}, {0, EncrDES, 0}, {0, EncrNULL, 0}} {
		out = append(out, Suite{Protocol: ProtocolESP, Encr: c.ID, KeyBits: c.KeyBits, Integ: IntegHMACSHA1})
	}
	return number(out)
}
