package ikev2

import (
	"fmt"
	"slices"
	"strings"
)

// A Grade says how good algorithms are, as of 2026.
type Grade uint8

// From worst to best.
const (
	// GradeCritical can be broken by whom it is to keep out, or protects nothing.
	GradeCritical Grade = iota
	// GradeWeak is deprecated: it is to be replaced soon.
	GradeWeak
	// GradeAcceptable is the baseline: no known attack, but there is better.
	GradeAcceptable
	// GradeStrong is recommended.
	GradeStrong
)

var gradeNames = [...]string{"critical", "weak", "acceptable", "strong"}

func (g Grade) String() string {
	if s := nameFrom(gradeNames[:], int(g), 0); s != "" {
		return s
	}
	return fmt.Sprintf("Grade(%d)", uint8(g))
}

// MarshalText returns the Grade as String does.
func (g Grade) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText accepts what String returns.
func (g *Grade) UnmarshalText(b []byte) error {
	i := slices.Index(gradeNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("ikev2: there is no grade %q", b)
	}
	*g = Grade(i)
	return nil
}

// A Remark is one thing there is to say about a suite or a policy.
type Remark struct {
	// Grade is that of what it is about.
	Grade Grade
	// About names it: an algorithm, or a setting of Windows with its value.
	About string
	// Reason says why it has this grade.
	Reason string
	// Fix says what to do; empty if nothing has to be done.
	Fix string
}

// String puts the remark on one line.
func (r Remark) String() string {
	s := fmt.Sprintf("%v: %s: %s", r.Grade, r.About, r.Reason)
	if r.Fix != "" {
		s += "; " + r.Fix
	}
	return s
}

// An Assessment is what there is to say, and the worst of it.
type Assessment struct {
	// Grade is the worst of the remarks that ask for something to be done, or
	// of the algorithms.
	Grade Grade
	// Remarks come worst first.
	Remarks []Remark
	// Outlook is what the years to come bring; it doesn't count for Grade.
	Outlook []Remark
}

func (a *Assessment) add(r Remark) {
	if slices.Contains(a.Remarks, r) {
		return
	}
	a.Remarks = append(a.Remarks, r)
	a.Grade = min(a.Grade, r.Grade)
}

func (a *Assessment) sort() {
	slices.SortStableFunc(a.Remarks, func(x, y Remark) int { return int(x.Grade) - int(y.Grade) })
}

// Assess grades an algorithm as of 2026, by RFC 8247, 8221, 9395 and what has
// been published since. Algorithms that no peer of Windows uses are graded too.
func (t Transform) Assess() Remark {
	r := Remark{Grade: GradeAcceptable, About: t.String()}
	switch {
	case t.Type == TransformEncr:
		r.Grade, r.Reason, r.Fix = assessEncr(t)
	case t.Type == TransformPRF, t.Type == TransformInteg:
		r.Grade, r.Reason, r.Fix = assessHash(t)
	case t.Type.keyExchange():
		r.Grade, r.Reason, r.Fix = assessGroup(Group(t.ID))
	case t.Type == TransformESN:
		r.Grade, r.Reason = GradeStrong, "only says how ESP counts packets"
	default:
		r.Reason = "not known here"
	}
	return r
}

const (
	fixEncr  = "use GCMAES128 or GCMAES256 (AES with GCM), on server and clients alike"
	fixHash  = "use SHA256 or SHA384, on server and clients alike"
	fixGroup = "use Group14 at least, better ECP256 or ECP384, on server and clients alike"
)

func assessEncr(t Transform) (Grade, string, string) {
	switch t.ID {
	case EncrNULL:
		return GradeCritical, "encrypts nothing: all traffic can be read", fixEncr
	case EncrNULLAuthAESGMAC:
		return GradeCritical, "only checks integrity and encrypts nothing: all traffic can be read", fixEncr
	case EncrDES, EncrDESIV32, EncrDESIV64:
		return GradeCritical, "its 56-bit key can be tried out in a day", fixEncr
	case Encr3DES:
		return GradeWeak, "its 64-bit blocks leak data after some gigabytes (Sweet32), it is slow, and NIST disallowed it at the end of 2023", fixEncr
	case EncrRC5, EncrIDEA, EncrCAST, EncrBlowfish, Encr3IDEA:
		return GradeWeak, "has 64-bit blocks and was deprecated long ago (RFC 8247)", fixEncr
	case EncrAESCBC:
		return GradeAcceptable, "sound with a good integrity check, but slower than GCM", "GCMAES128 or GCMAES256 do both at once, and faster"
	case EncrAESCTR, EncrCamelliaCBC, EncrCamelliaCTR:
		return GradeAcceptable, "sound with a good integrity check, but not in Windows", ""
	case EncrAESGCM8, EncrAESGCM12, EncrAESCCM8, EncrAESCCM12, EncrAESCCM8IIV, EncrCamelliaCCM8, EncrCamelliaCCM12:
		return GradeAcceptable, "its check value is short", "prefer the one with 16 octets"
	case EncrAESGCM16, EncrAESGCM16IIV, EncrChaCha20Poly1305, EncrChaCha20Poly1305IIV, EncrAESCCM16, EncrCamelliaCCM16:
		return GradeStrong, "encrypts and checks integrity at once", ""
	}
	return GradeWeak, "isn't known here", fixEncr
}

func assessHash(t Transform) (Grade, string, string) {
	prf := t.Type == TransformPRF
	switch {
	case prf && t.ID == PRFHMACMD5, !prf && (t.ID == IntegHMACMD5 || t.ID == IntegHMACMD5128):
		return GradeCritical, "MD5 has been broken for years and must not be used (RFC 8247, RFC 9395)", fixHash
	case !prf && (t.ID == IntegDESMAC || t.ID == IntegKPDKMD5):
		return GradeCritical, "must not be used (RFC 8221)", fixHash
	case !prf && t.ID == IntegNone:
		return GradeCritical, "checks no integrity: packets can be changed on the way", fixHash
	case prf && t.ID == PRFHMACSHA1, !prf && (t.ID == IntegHMACSHA1 || t.ID == IntegHMACSHA1160):
		return GradeWeak, "SHA-1 is broken as a hash, and though HMAC with it still holds, it is being withdrawn (NIST: by the end of 2030) and fails audits", fixHash
	case prf && t.ID == PRFHMACTiger:
		return GradeWeak, "is obsolete (RFC 9395)", fixHash
	case prf && t.ID > PRFHMACStreebog512, !prf && t.ID > IntegHMACSHA512:
		return GradeWeak, "isn't known here", fixHash
	}
	return GradeStrong, "has no known weakness", ""
}

func assessGroup(g Group) (Grade, string, string) {
	switch g {
	case GroupMODP768:
		return GradeCritical, "768-bit MODP was broken in public in 2016", fixGroup
	case GroupMODP1024:
		return GradeCritical, "1024-bit MODP is within reach of states: one large computation opens every connection that ever used this prime (Logjam)", fixGroup
	case GroupMODP1024S160:
		return GradeCritical, "1024-bit MODP with a short subgroup must not be used (RFC 8247)", fixGroup
	case GroupMODP1536:
		return GradeWeak, "1536-bit MODP is below the 112 bits of strength that are the minimum", fixGroup
	case GroupMODP2048S224, GroupMODP2048S256:
		return GradeWeak, "nobody can show where its prime comes from, and small subgroups have to be checked for: it should not be used (RFC 8247)", fixGroup
	case GroupECP192, GroupECP224, GroupBrainpoolP224:
		return GradeWeak, "the curve is too small", fixGroup
	case GroupMODP2048:
		return GradeAcceptable, "2048-bit MODP has 112 bits of strength, the minimum until the end of 2030", "ECP256 and ECP384 are stronger and faster"
	case GroupMLKEM512, GroupMLKEM768, GroupMLKEM1024:
		return GradeStrong, "withstands quantum computers, beside a classical key exchange", ""
	case GroupNone:
		return GradeWeak, "there is no key exchange of its own", fixGroup
	}
	if g.PublicLen() == 0 {
		return GradeWeak, "isn't known here", fixGroup
	}
	return GradeStrong, "has no known weakness but quantum computers", ""
}

// Assess grades the suite: it is as good as its worst algorithm.
func (s Suite) Assess() Assessment {
	a := Assessment{Grade: GradeStrong}
	for _, t := range s.Transforms() {
		if t.Type != TransformESN {
			a.add(t.Assess())
		}
	}
	if s.Integ == IntegNone && !s.AEAD() {
		a.add(Transform{TransformInteg, IntegNone, 0}.Assess())
	}
	if s.Protocol == ProtocolIKE && s.KE == GroupNone {
		a.add(Transform{TransformKE, uint16(GroupNone), 0}.Assess())
	}
	a.Outlook = s.outlook()
	a.sort()
	return a
}

// outlook says what quantum computers mean for the suite.
func (s Suite) outlook() []Remark {
	if s.Protocol != ProtocolIKE || s.quantumSafe() {
		return nil
	}
	return []Remark{{
		Grade: GradeAcceptable, About: "quantum computers",
		Reason: "what is recorded today can be read once there are any: the key exchange isn't post-quantum",
		Fix:    "nothing can be set yet: no Windows is known to have ML-KEM for IKEv2 (RFC 9370) in 2026; prefer the 256-bit ciphers, and watch the release notes",
	}}
}

// quantumSafe reports whether one of the key exchanges is ML-KEM.
func (s Suite) quantumSafe() bool {
	is := func(g Group) bool { return g >= GroupMLKEM512 && g <= GroupMLKEM1024 }
	return is(s.KE) || slices.ContainsFunc(s.AddKE[:], is)
}

// Assess grades the policy by the worst that it lets pass, since that is what an
// attacker who can drop packets, or an old client, makes of it.
func (p Policy) Assess() Assessment {
	a := Assessment{Grade: GradeStrong}
	for _, x := range slices.Concat(p.IKE, p.ESP) {
		for _, t := range x.Transforms {
			if t.Type != TransformESN && (t.Type != TransformInteg || t.ID != IntegNone) && (!t.Type.keyExchange() || t.ID != 0) {
				a.add(t.Assess())
			}
		}
		if len(x.of(TransformInteg)) == 0 && slices.ContainsFunc(x.of(TransformEncr), func(t Transform) bool { return !aead(t.ID) }) {
			a.add(Transform{TransformInteg, IntegNone, 0}.Assess())
		}
	}
	if len(p.IKE) > 0 {
		s, _ := meet(p.IKE[0], p.IKE[0], false)
		a.Outlook = s.outlook()
	}
	if n := len(p.IKE); n > 1 && a.Grade < GradeAcceptable {
		a.add(Remark{
			Grade: a.Grade, About: fmt.Sprintf("%d proposals", n),
			Reason: "which one is used is up to the other side: strong ones beside weak ones protect nobody",
			Fix:    "leave one: a custom policy makes Windows offer and accept exactly one",
		})
	}
	a.sort()
	return a
}

// Assess grades the custom policy, in the words of its settings. It fails if
// Windows has no such values. Values that don't go together, which Windows
// documents in examples nevertheless, are graded like the others.
func (c CustomPolicy) Assess() (Assessment, error) {
	vs, err := c.values()
	if err != nil {
		return Assessment{}, err
	}
	a := Assessment{Grade: GradeStrong}
	say := func(s Setting, r Remark) {
		r.About = fmt.Sprintf("%v %s", s, vs[s].PowerShell)
		a.add(r)
	}
	for i, s := range Settings() {
		if s == SettingIntegrity {
			r := vs[i].Transforms[1].Assess()
			say(s, r)
			continue
		}
		for _, t := range vs[i].Transforms {
			say(s, t.Assess())
		}
	}
	c.assessESP(vs, say)
	switch {
	case vs[SettingPFSGroup].PowerShell == "None":
		say(SettingPFSGroup, Remark{
			Grade: GradeWeak, Reason: "who learns the keys of the IKE SA can read all that it carried, for its whole life",
			Fix: "use PFS2048, ECP256 or ECP384, on server and clients alike: a difference shows only when the tunnel is renewed, as a break hours later",
		})
	case vs[SettingDHGroup].PowerShell == "None":
		say(SettingDHGroup, Remark{Grade: GradeCritical, Reason: "IKEv2 always exchanges keys: no tunnel comes up", Fix: fixGroup})
	}
	if ike, _, err := c.Suites(); err == nil {
		a.Outlook = ike.outlook()
	}
	a.sort()
	return a, nil
}

// assessESP says what is wrong with how cipher and integrity check of ESP go
// together.
func (c CustomPolicy) assessESP(vs [6]WindowsValue, say func(Setting, Remark)) {
	auth, cipher := vs[SettingAuthenticationTransform].PowerShell, vs[SettingCipherTransform].PowerShell
	gcm := func(s string) bool { return strings.HasPrefix(s, "GCM") }
	switch {
	case cipher == "None":
		say(SettingCipherTransform, Remark{
			Grade: GradeCritical, Reason: "packets are not encrypted: all traffic can be read (an example in Microsoft's documentation does this with GCMAES)", Fix: fixEncr,
		})
	case auth == "None":
		say(SettingAuthenticationTransform, Remark{
			Grade: GradeCritical, Reason: "packets are not protected against change on the way (an example in Microsoft's documentation does this with AES256)", Fix: "use SHA256128, or GCM for both",
		})
	case gcm(auth) != gcm(cipher), gcm(cipher) && auth != cipher:
		say(SettingAuthenticationTransform, Remark{
			Grade: GradeCritical, Reason: fmt.Sprintf("doesn't go with CipherTransformConstants %s: GCM does both, so both must name the same, or no tunnel comes up", cipher),
			Fix: "set both to GCMAES128, or both to GCMAES256",
		})
	}
}
