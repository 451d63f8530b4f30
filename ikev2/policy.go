package ikev2

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Setting is one of the six values of a custom IPsec policy of Windows.
type Setting uint8

// The settings, in the order of PowerShell's documentation. The first, second and
// last are about the packets of the tunnel (ESP), the others about IKE.
const (
	SettingAuthenticationTransform Setting = iota
	SettingCipherTransform
	SettingEncryption
	SettingIntegrity
	SettingDHGroup
	SettingPFSGroup
)

var settingNames = [...]string{
	"AuthenticationTransformConstants", "CipherTransformConstants", "EncryptionMethod", "IntegrityCheckMethod",
	"DHGroup", "PfsGroup",
}

// String returns the name that PowerShell's parameters and ProfileXML's elements
// have in common.
func (s Setting) String() string {
	if n := nameFrom(settingNames[:], int(s), 0); n != "" {
		return n
	}
	return fmt.Sprintf("Setting(%d)", uint8(s))
}

// A WindowsValue is one value of a setting: how PowerShell and ProfileXML spell
// it, and what it stands for on the wire.
type WindowsValue struct {
	// Setting is what it is a value of.
	Setting Setting
	// PowerShell is its name in Set-VpnServerConfiguration and
	// Set-VpnConnectionIPsecConfiguration. Every value has one.
	PowerShell string
	// ProfileXML is its name in a CryptographySuite; empty if it can't be said
	// there.
	ProfileXML string
	// Aliases are other spellings that documentation of ProfileXML has used.
	Aliases []string
	// Transforms are the algorithms: of IntegrityCheckMethod the integrity
	// algorithm and the PRF. None stands for none; PFSMM for the group of
	// DHGroup, whatever that is.
	Transforms []Transform
}

// WindowsValues returns all values of all settings, in Windows' order.
func WindowsValues() []WindowsValue {
	encr := func(id, bits uint16) []Transform { return []Transform{{TransformEncr, id, bits}} }
	integ := func(id uint16) []Transform { return []Transform{{TransformInteg, id, 0}} }
	group := func(g Group) []Transform { return []Transform{{TransformKE, uint16(g), 0}} }
	both := func(integ, prf uint16) []Transform {
		return []Transform{{TransformInteg, integ, 0}, {TransformPRF, prf, 0}}
	}
	auth, cipher, ike, check := SettingAuthenticationTransform, SettingCipherTransform, SettingEncryption, SettingIntegrity
	return []WindowsValue{
		{auth, "MD596", "MD596", nil, integ(IntegHMACMD5)},
		{auth, "SHA196", "SHA196", nil, integ(IntegHMACSHA1)},
		{auth, "SHA256128", "SHA256128", nil, integ(IntegHMACSHA256)},
		{auth, "GCMAES128", "GCMAES128", nil, encr(EncrAESGCM16, 128)},
		{auth, "GCMAES192", "GCMAES192", nil, encr(EncrAESGCM16, 192)},
		{auth, "GCMAES256", "GCMAES256", nil, encr(EncrAESGCM16, 256)},
		{auth, "None", "", nil, nil},

		{cipher, "DES", "DES", nil, encr(EncrDES, 0)},
		{cipher, "DES3", "DES3", nil, encr(Encr3DES, 0)},
		{cipher, "AES128", "AES128", nil, encr(EncrAESCBC, 128)},
		{cipher, "AES192", "AES192", nil, encr(EncrAESCBC, 192)},
		{cipher, "AES256", "AES256", nil, encr(EncrAESCBC, 256)},
		{cipher, "GCMAES128", "GCMAES128", nil, encr(EncrAESGCM16, 128)},
		{cipher, "GCMAES192", "GCMAES192", nil, encr(EncrAESGCM16, 192)},
		{cipher, "GCMAES256", "GCMAES256", nil, encr(EncrAESGCM16, 256)},
		{cipher, "None", "", nil, nil},

		{ike, "DES", "DES", nil, encr(EncrDES, 0)},
		{ike, "DES3", "DES3", nil, encr(Encr3DES, 0)},
		{ike, "AES128", "AES128", nil, encr(EncrAESCBC, 128)},
		{ike, "AES192", "AES192", nil, encr(EncrAESCBC, 192)},
		{ike, "AES256", "AES256", nil, encr(EncrAESCBC, 256)},
		{ike, "GCMAES128", "AES_GCM_128", nil, encr(EncrAESGCM16, 128)},
		{ike, "GCMAES256", "AES_GCM_256", nil, encr(EncrAESGCM16, 256)},

		{check, "MD5", "MD5", nil, both(IntegHMACMD5, PRFHMACMD5)},
		{check, "SHA1", "SHA196", []string{"SHA1"}, both(IntegHMACSHA1, PRFHMACSHA1)},
		{check, "SHA256", "SHA256", nil, both(IntegHMACSHA256, PRFHMACSHA256)},
		{check, "SHA384", "SHA384", nil, both(IntegHMACSHA384, PRFHMACSHA384)},

		{SettingDHGroup, "None", "None", nil, nil},
		{SettingDHGroup, "Group1", "Group1", nil, group(GroupMODP768)},
		{SettingDHGroup, "Group2", "Group2", nil, group(GroupMODP1024)},
		{SettingDHGroup, "Group14", "Group14", nil, group(GroupMODP2048)},
		{SettingDHGroup, "ECP256", "ECP256", nil, group(GroupECP256)},
		{SettingDHGroup, "ECP384", "ECP384", nil, group(GroupECP384)},
		{SettingDHGroup, "Group24", "Group24", nil, group(GroupMODP2048S256)},

		{SettingPFSGroup, "None", "None", nil, nil},
		{SettingPFSGroup, "PFS1", "PFS1", nil, group(GroupMODP768)},
		{SettingPFSGroup, "PFS2", "PFS2", nil, group(GroupMODP1024)},
		{SettingPFSGroup, "PFS2048", "PFS2048", nil, group(GroupMODP2048)},
		{SettingPFSGroup, "ECP256", "ECP256", nil, group(GroupECP256)},
		{SettingPFSGroup, "ECP384", "ECP384", nil, group(GroupECP384)},
		{SettingPFSGroup, "PFSMM", "PFSMM", nil, nil},
		{SettingPFSGroup, "PFS24", "PFS24", nil, group(GroupMODP2048S256)},
	}
}

// LookUpWindowsValue returns the value of a setting by either spelling, in upper
// or lower case.
func LookUpWindowsValue(s Setting, name string) (WindowsValue, error) {
	var known []string
	for _, v := range WindowsValues() {
		if v.Setting != s {
			continue
		}
		is := func(a string) bool { return a != "" && strings.EqualFold(a, name) }
		if is(v.PowerShell) || is(v.ProfileXML) || slices.ContainsFunc(v.Aliases, is) {
			return v, nil
		}
		known = append(known, v.PowerShell)
	}
	return WindowsValue{}, fmt.Errorf("ikev2: %v can't be %q: it is one of %s", s, name, strings.Join(known, ", "))
}

// A CustomPolicy is a custom IPsec policy of Windows: what
// Set-VpnServerConfiguration -CustomPolicy, Set-VpnConnectionIPsecConfiguration
// and ProfileXML's CryptographySuite set. Server and client must have the same:
// with it, each makes exactly one proposal. Values may be spelled either way;
// [CustomPolicy.Normalize] makes PowerShell's of them.
type CustomPolicy struct { //nolint:recvcheck // its reading methods take it by value, as its users do
	// AuthenticationTransformConstants is the integrity check of ESP.
	AuthenticationTransformConstants string
	// CipherTransformConstants is the encryption of ESP. If either is GCM, both
	// must be the same.
	CipherTransformConstants string
	// EncryptionMethod is the encryption of IKE.
	EncryptionMethod string
	// IntegrityCheckMethod is the integrity check of IKE, and the PRF.
	IntegrityCheckMethod string
	// DHGroup is the key exchange of IKE.
	DHGroup string
	// PfsGroup is the key exchange with which ESP is renewed.
	PfsGroup string
}

// Get returns the value of a setting as it stands.
func (c CustomPolicy) Get(s Setting) string { return *c.field(s) }

// Set sets the value of a setting.
func (c *CustomPolicy) Set(s Setting, value string) { *c.field(s) = value }

func (c *CustomPolicy) field(s Setting) *string {
	switch s {
	case SettingAuthenticationTransform:
		return &c.AuthenticationTransformConstants
	case SettingCipherTransform:
		return &c.CipherTransformConstants
	case SettingEncryption:
		return &c.EncryptionMethod
	case SettingIntegrity:
		return &c.IntegrityCheckMethod
	case SettingDHGroup:
		return &c.DHGroup
	case SettingPFSGroup:
		return &c.PfsGroup
	}
	return new(string)
}

// Settings returns all settings, in the order of PowerShell's documentation.
func Settings() []Setting {
	return []Setting{
		SettingAuthenticationTransform, SettingCipherTransform, SettingEncryption, SettingIntegrity, SettingDHGroup, SettingPFSGroup,
	}
}

// values returns the values, with all that is wrong with them one by one.
func (c CustomPolicy) values() (vs [6]WindowsValue, err error) {
	var errs []error
	for i, s := range Settings() {
		if c.Get(s) == "" {
			errs = append(errs, fmt.Errorf("ikev2: %v is missing: Windows wants all six", s))
			continue
		}
		v, err := LookUpWindowsValue(s, c.Get(s))
		if err != nil {
			errs = append(errs, err)
		}
		vs[i] = v
	}
	return vs, errors.Join(errs...)
}

// Normalize returns the policy in PowerShell's spelling. It fails, with every
// fault, if Windows has no such values.
func (c CustomPolicy) Normalize() (CustomPolicy, error) {
	vs, err := c.values()
	if err != nil {
		return CustomPolicy{}, err
	}
	for i, s := range Settings() {
		c.Set(s, vs[i].PowerShell)
	}
	return c, nil
}

// ProfileXML returns the policy in ProfileXML's spelling. It fails if Windows has
// no such values, or ProfileXML hasn't.
func (c CustomPolicy) ProfileXML() (CustomPolicy, error) {
	vs, err := c.values()
	if err != nil {
		return CustomPolicy{}, err
	}
	var errs []error
	for i, s := range Settings() {
		if vs[i].ProfileXML == "" {
			errs = append(errs, fmt.Errorf("ikev2: ProfileXML has no word for %v %s, only PowerShell has", s, vs[i].PowerShell))
		}
		c.Set(s, vs[i].ProfileXML)
	}
	return c, errors.Join(errs...)
}

// Check returns all that is wrong with the policy: values that Windows doesn't
// have, and those that don't go together. A policy that passes may still be weak:
// see [CustomPolicy.Assess].
func (c CustomPolicy) Check() error {
	vs, err := c.values()
	if err != nil {
		return err
	}
	var errs []error
	auth, cipher := vs[SettingAuthenticationTransform].PowerShell, vs[SettingCipherTransform].PowerShell
	gcm := func(s string) bool { return strings.HasPrefix(s, "GCM") }
	switch {
	case gcm(cipher) && auth != cipher:
		errs = append(errs, fmt.Errorf("ikev2: with CipherTransformConstants %s, AuthenticationTransformConstants must be %s too, not %s", cipher, cipher, auth))
	case gcm(auth) && auth != cipher && cipher != "None":
		errs = append(errs, fmt.Errorf("ikev2: with AuthenticationTransformConstants %s, CipherTransformConstants must be %s too, not %s", auth, auth, cipher))
	case auth == "None" && cipher == "None":
		errs = append(errs, errors.New("ikev2: AuthenticationTransformConstants and CipherTransformConstants can't both be None"))
	}
	if vs[SettingDHGroup].PowerShell == "None" {
		errs = append(errs, errors.New("ikev2: DHGroup can't be None: IKEv2 always exchanges keys; Group14, ECP256 and ECP384 are good"))
	}
	return errors.Join(errs...)
}

// Suites returns what a peer with this policy proposes: one suite for IKE, one
// for ESP. That for ESP has the key exchange of PfsGroup, which the first child
// SA does without. It fails if Check does.
func (c CustomPolicy) Suites() (ike, esp Suite, err error) {
	if err := c.Check(); err != nil {
		return Suite{}, Suite{}, err
	}
	vs, err := c.values()
	if err != nil {
		return Suite{}, Suite{}, err
	}
	ike.Protocol, esp.Protocol = ProtocolIKE, ProtocolESP
	for _, s := range []Setting{SettingEncryption, SettingIntegrity, SettingDHGroup} {
		for _, t := range vs[s].Transforms {
			ike.set(t)
		}
	}
	if ike.AEAD() {
		ike.Integ = IntegNone
	}
	for _, s := range []Setting{SettingCipherTransform, SettingPFSGroup} {
		for _, t := range vs[s].Transforms {
			esp.set(t)
		}
	}
	esp.setAuthentication(vs[SettingAuthenticationTransform])
	if vs[SettingPFSGroup].PowerShell == "PFSMM" {
		esp.KE = ike.KE
	}
	return ike, esp, nil
}

// setAuthentication adds the integrity check of an ESP suite that has its cipher.
func (s *Suite) setAuthentication(v WindowsValue) {
	for _, t := range v.Transforms {
		switch {
		case t.Type == TransformInteg:
			s.Integ = t.ID
		case s.Encr == 0:
			// GCM without encryption is GMAC.
			s.Encr, s.KeyBits = EncrNULLAuthAESGMAC, t.KeyBits
		}
	}
	if s.Encr == 0 {
		s.Encr = EncrNULL
	}
}

// Policy returns what a peer with this policy offers and accepts.
func (c CustomPolicy) Policy(name string) (Policy, error) {
	ike, esp, err := c.Suites()
	if err != nil {
		return Policy{}, err
	}
	return Policy{
		Name: name, Note: "a custom IPsec policy of Windows: one proposal",
		IKE: []Proposal{ike.Proposal()}, ESP: []Proposal{esp.Proposal()}, PreferOffer: true, Custom: &c,
	}, nil
}

// CustomPolicyOf returns the custom policy, in PowerShell's spelling, with which
// Windows proposes these suites. It fails, with every fault, if it can't.
func CustomPolicyOf(ike, esp Suite) (CustomPolicy, error) {
	var c CustomPolicy
	var errs []error
	find := func(s Setting, want Transform) {
		for _, v := range WindowsValues() {
			if v.Setting == s && slices.Contains(v.Transforms, want) {
				c.Set(s, v.PowerShell)
				return
			}
		}
		errs = append(errs, fmt.Errorf("ikev2: Windows has no %v for %v", s, want))
	}
	find(SettingEncryption, Transform{TransformEncr, ike.Encr, ike.KeyBits})
	find(SettingIntegrity, Transform{TransformPRF, ike.PRF, 0})
	if !ike.AEAD() && ike.PRF != prfOf(Transform{TransformInteg, ike.Integ, 0}) {
		errs = append(errs, fmt.Errorf("ikev2: Windows uses one hash for integrity and PRF, not %v with %v",
			Transform{TransformInteg, ike.Integ, 0}, Transform{TransformPRF, ike.PRF, 0}))
	}
	find(SettingDHGroup, Transform{TransformKE, uint16(ike.KE), 0})
	c.PfsGroup = "None"
	if esp.KE != GroupNone {
		find(SettingPFSGroup, Transform{TransformKE, uint16(esp.KE), 0})
	}
	gmac := Transform{TransformEncr, EncrAESGCM16, esp.KeyBits}
	switch esp.Encr {
	case EncrNULL:
		c.CipherTransformConstants = "None"
	case EncrNULLAuthAESGMAC:
		c.CipherTransformConstants = "None"
		find(SettingAuthenticationTransform, gmac)
	default:
		find(SettingCipherTransform, Transform{TransformEncr, esp.Encr, esp.KeyBits})
	}
	switch {
	case esp.Encr == EncrNULLAuthAESGMAC:
	case esp.AEAD():
		c.AuthenticationTransformConstants = c.CipherTransformConstants
	case esp.Integ == IntegNone:
		c.AuthenticationTransformConstants = "None"
	default:
		find(SettingAuthenticationTransform, Transform{TransformInteg, esp.Integ, 0})
	}
	if ike.AddKE != [7]Group{} || esp.AddKE != [7]Group{} {
		errs = append(errs, errors.New("ikev2: Windows has no additional key exchanges (RFC 9370)"))
	}
	if err := errors.Join(errs...); err != nil {
		return CustomPolicy{}, err
	}
	return c, c.Check()
}

// MustMatch returns the settings in which two custom policies differ, whatever
// their spelling. Server and client must not differ in any.
func (c CustomPolicy) MustMatch(other CustomPolicy) ([]Setting, error) {
	a, err := c.values()
	if err != nil {
		return nil, err
	}
	b, err := other.values()
	if err != nil {
		return nil, err
	}
	var out []Setting
	for i, s := range Settings() {
		if a[i].PowerShell != b[i].PowerShell {
			out = append(out, s)
		}
	}
	return out, nil
}
