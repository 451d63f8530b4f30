package profilexml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Transform is what a name of a CryptographySuite means to IKE: the type and
// the number of a transform (RFC 7296 section 3.3.2, IANA's "Transform Type
// Values"), and the bits of its key where the transform has a choice.
type Transform struct {
	// Type is 1 for ciphers, 2 for random functions, 3 for integrity, 4 for
	// groups.
	Type uint8
	// ID is the transform's number.
	ID uint16
	// KeyBits is the key length attribute; 0 if the transform has none.
	KeyBits uint16
}

// The types of transforms.
const (
	transformEncr  = 1
	transformPRF   = 2
	transformInteg = 3
	transformKE    = 4
)

// A strength says what is thought of an algorithm.
type strength uint8

const (
	strong strength = iota
	fair
	weak
	broken
)

// A suiteValue is one thing that a field of a CryptographySuite can be.
type suiteValue struct {
	name       string   // in ProfileXML
	powershell string   // in Set-VpnConnectionIPsecConfiguration, if it differs
	also       []string // others' spellings
	strength   strength
	transforms []Transform
}

// A suiteField is one of the six fields, in the order of the schema.
type suiteField struct {
	name   string
	values []suiteValue
}

func encr(id, bits uint16) []Transform { return []Transform{{transformEncr, id, bits}} }
func integ(id uint16) []Transform      { return []Transform{{transformInteg, id, 0}} }
func group(id uint16) []Transform      { return []Transform{{transformKE, id, 0}} }
func hash(integ, prf uint16) []Transform {
	return []Transform{{transformInteg, integ, 0}, {transformPRF, prf, 0}}
}

// suiteFields is the table of all values. Numbers are IANA's.
var suiteFields = []suiteField{
	{"AuthenticationTransformConstants", []suiteValue{
		{name: "MD596", strength: broken, transforms: integ(1)},
		{name: "SHA196", strength: weak, transforms: integ(2)},
		{name: "SHA256128", strength: fair, transforms: integ(12)},
		{name: "GCMAES128", also: []string{"AES_GCM_128"}},
		{name: "GCMAES192", also: []string{"AES_GCM_192"}},
		{name: "GCMAES256", also: []string{"AES_GCM_256"}},
	}},
	{"CipherTransformConstants", []suiteValue{
		{name: "DES", strength: broken, transforms: encr(2, 0)},
		{name: "DES3", also: []string{"3DES"}, strength: weak, transforms: encr(3, 0)},
		{name: "AES128", strength: fair, transforms: encr(12, 128)},
		{name: "AES192", strength: fair, transforms: encr(12, 192)},
		{name: "AES256", strength: fair, transforms: encr(12, 256)},
		{name: "GCMAES128", also: []string{"AES_GCM_128"}, transforms: encr(20, 128)},
		{name: "GCMAES192", also: []string{"AES_GCM_192"}, transforms: encr(20, 192)},
		{name: "GCMAES256", also: []string{"AES_GCM_256"}, transforms: encr(20, 256)},
	}},
	{"PfsGroup", []suiteValue{
		{name: "None", strength: weak},
		{name: "PFS1", strength: broken, transforms: group(1)},
		{name: "PFS2", strength: weak, transforms: group(2)},
		{name: "PFS2048", also: []string{"PFS14"}, strength: fair, transforms: group(14)},
		{name: "ECP256", transforms: group(19)},
		{name: "ECP384", transforms: group(20)},
		{name: "PFSMM"}, // the group of the IKE SA
		{name: "PFS24", strength: weak, transforms: group(24)},
	}},
	{"DHGroup", []suiteValue{
		{name: "None", strength: broken},
		{name: "Group1", strength: broken, transforms: group(1)},
		{name: "Group2", strength: weak, transforms: group(2)},
		{name: "Group14", strength: fair, transforms: group(14)},
		{name: "ECP256", transforms: group(19)},
		{name: "ECP384", transforms: group(20)},
		{name: "Group24", strength: weak, transforms: group(24)},
	}},
	{"IntegrityCheckMethod", []suiteValue{
		{name: "MD5", strength: broken, transforms: hash(1, 1)},
		{name: "SHA196", powershell: "SHA1", also: []string{"SHA1"}, strength: weak, transforms: hash(2, 2)},
		{name: "SHA256", transforms: hash(12, 5)},
		{name: "SHA384", transforms: hash(13, 6)},
	}},
	{"EncryptionMethod", []suiteValue{
		{name: "DES", strength: broken, transforms: encr(2, 0)},
		{name: "DES3", also: []string{"3DES"}, strength: weak, transforms: encr(3, 0)},
		{name: "AES128", strength: fair, transforms: encr(12, 128)},
		{name: "AES192", strength: fair, transforms: encr(12, 192)},
		{name: "AES256", strength: fair, transforms: encr(12, 256)},
		{name: "AES_GCM_128", powershell: "GCMAES128", also: []string{"GCMAES128"}, transforms: encr(20, 128)},
		{name: "AES_GCM_256", powershell: "GCMAES256", also: []string{"GCMAES256"}, transforms: encr(20, 256)},
	}},
}

func (f *suiteField) names() []string {
	names := make([]string, len(f.values))
	for i, v := range f.values {
		names[i] = v.name
	}
	return names
}

func (f *suiteField) spellings() map[string]string {
	var m map[string]string
	for _, v := range f.values {
		for _, s := range v.also {
			if m == nil {
				m = map[string]string{}
			}
			m[s] = v.name
		}
	}
	return m
}

// value returns the entry of a value, in any case and in PowerShell's spelling
// too.
func (f *suiteField) value(name string) (suiteValue, bool) {
	for _, v := range f.values {
		if strings.EqualFold(v.name, name) || slices.ContainsFunc(v.also, func(s string) bool { return strings.EqualFold(s, name) }) {
			return v, true
		}
	}
	return suiteValue{}, false
}

// A Suite is a CryptographySuite: the one proposal of an IKEv2 client, or the
// policy of a gateway. The fields have the names of the CSP, and hold its
// values; see [Content].
type Suite struct {
	AuthenticationTransformConstants string // the integrity of ESP
	CipherTransformConstants         string // the cipher of ESP
	PfsGroup                         string // the group for new keys of ESP
	DHGroup                          string // the group of the IKE SA
	IntegrityCheckMethod             string // the integrity of the IKE SA
	EncryptionMethod                 string // the cipher of the IKE SA
}

// StandardSuite is the suite for gateways before Windows Server 2019 and
// clients before Windows 10 1803: AES-CBC with SHA-256, and groups of 2048 bits.
func StandardSuite() Suite {
	return Suite{"SHA256128", "AES128", "PFS2048", "Group14", "SHA256", "AES128"}
}

// EnhancedSuite is what is recommended today: AES-GCM, and ECP-256 for new
// keys.
func EnhancedSuite() Suite {
	return Suite{"GCMAES128", "GCMAES128", "ECP256", "Group14", "SHA256", "AES_GCM_128"}
}

// StrongSuite is the strongest that Windows has: 256 bits, SHA-384 and ECP-384.
func StrongSuite() Suite {
	return Suite{"GCMAES256", "GCMAES256", "ECP384", "ECP384", "SHA384", "AES_GCM_256"}
}

// ParseSuite reads a suite: "standard", "enhanced" or "strong", or six values
// after a Name= each, with commas between them, where Name may be the CSP's and
// values may be spelt as PowerShell does.
func ParseSuite(s string) (Suite, error) {
	switch strings.ToLower(s) {
	case "standard":
		return StandardSuite(), nil
	case "enhanced":
		return EnhancedSuite(), nil
	case "strong":
		return StrongSuite(), nil
	}
	var suite Suite
	for item := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(item), "=")
		if !ok {
			return Suite{}, fmt.Errorf("%q is neither standard, enhanced or strong, nor Name=value", item)
		}
		i := slices.IndexFunc(suiteFields, func(f suiteField) bool { return strings.EqualFold(f.name, name) })
		if i < 0 {
			return Suite{}, fmt.Errorf("a suite has no %q: it has %s", name, strings.Join(suiteFieldNames(), ", "))
		}
		v, ok := suiteFields[i].value(value)
		if !ok {
			return Suite{}, fmt.Errorf("%s can't be %q: it can be %s", suiteFields[i].name, value, strings.Join(suiteFields[i].names(), ", "))
		}
		*valuesOf(&suite)[i] = v.name
	}
	for i, p := range valuesOf(&suite) {
		if *p == "" {
			return Suite{}, fmt.Errorf("%s is missing: Windows wants all six values, or none", suiteFields[i].name)
		}
	}
	return suite, nil
}

// FindSuite finds the six values of a suite in a file of any kind, by their
// names: the output of Get-VpnServerConfiguration, a script, a profile. The error
// says which value is missing, unknown, or there in two ways, or that the gateway
// has no custom policy.
func FindSuite(file []byte) (Suite, error) {
	text, _, err := decodeBytes(file)
	if err != nil {
		return Suite{}, err
	}
	if slices.ContainsFunc(wordsBehind(text, "CustomPolicy"), func(word string) bool { return strings.EqualFold(word, "False") }) {
		return Suite{}, errors.New("CustomPolicy is False in it: the gateway has no policy of its own, and takes what RRAS takes by default")
	}
	var s Suite
	values := valuesOf(&s)
	for i, f := range suiteFields {
		for _, word := range wordsBehind(text, f.name) {
			v, ok := f.value(word)
			switch {
			case !ok:
				return Suite{}, fmt.Errorf("%s can't be %.40q: it can be %s", f.name, word, strings.Join(f.names(), ", "))
			case *values[i] != "" && *values[i] != v.name:
				return Suite{}, fmt.Errorf("%s is there twice, as %s and as %s", f.name, *values[i], v.name)
			}
			*values[i] = v.name
		}
		if *values[i] == "" {
			return Suite{}, fmt.Errorf("there is no %s in it: a policy has %s", f.name, strings.Join(suiteFieldNames(), ", "))
		}
	}
	return s, nil
}

// wordsBehind returns the words that follow each occurrence of name.
func wordsBehind(text, name string) []string {
	isWord := func(c byte) bool {
		return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
	}
	var words []string
	for i := 0; i+len(name) <= len(text); i++ {
		if !strings.EqualFold(text[i:i+len(name)], name) || i > 0 && (isWord(text[i-1]) || text[i-1] == '/') {
			continue
		}
		rest := text[i+len(name):]
		if rest == "" || isWord(rest[0]) {
			continue
		}
		rest = strings.TrimLeft(rest, " \t\r\n:=\"'>")
		end := 0
		for end < len(rest) && isWord(rest[end]) {
			end++
		}
		words = append(words, rest[:end])
	}
	return words
}

func suiteFieldNames() []string {
	names := make([]string, len(suiteFields))
	for i, f := range suiteFields {
		names[i] = f.name
	}
	return names
}

// valuesOf returns the fields of a suite in the order of suiteFields.
func valuesOf(s *Suite) [6]*string {
	return [6]*string{
		&s.AuthenticationTransformConstants, &s.CipherTransformConstants, &s.PfsGroup, &s.DHGroup, &s.IntegrityCheckMethod, &s.EncryptionMethod,
	}
}

// String returns the suite as ParseSuite reads it.
func (s Suite) String() string {
	var list []string
	for i, p := range valuesOf(&s) {
		if *p != "" {
			list = append(list, suiteFields[i].name+"="+*p)
		}
	}
	return strings.Join(list, ",")
}

// IKE returns the transforms of the proposal for the IKE SA: cipher, random
// function, integrity unless the cipher has its own, and group. The error says
// which value is unknown.
func (s Suite) IKE() ([]Transform, error) {
	encryption, err := s.lookup(5)
	if err != nil {
		return nil, err
	}
	integrity, err := s.lookup(4)
	if err != nil {
		return nil, err
	}
	dh, err := s.lookup(3)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(encryption.transforms)
	for _, t := range integrity.transforms {
		if t.Type == transformPRF || !isAEAD(encryption.transforms) {
			list = append(list, t)
		}
	}
	list = append(list, dh.transforms...)
	slices.SortFunc(list, func(a, b Transform) int { return int(a.Type) - int(b.Type) })
	return list, nil
}

// ESP returns the transforms of the proposal for ESP: cipher, integrity unless
// the cipher has its own, and the group that new keys are made with, none if
// PfsGroup is None. The first keys are made without a group in any case.
func (s Suite) ESP() ([]Transform, error) {
	cipher, err := s.lookup(1)
	if err != nil {
		return nil, err
	}
	auth, err := s.lookup(0)
	if err != nil {
		return nil, err
	}
	pfs, err := s.lookup(2)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(cipher.transforms)
	if !isAEAD(cipher.transforms) {
		list = append(list, auth.transforms...)
	}
	if pfs.name == "PFSMM" {
		if pfs, err = s.lookup(3); err != nil {
			return nil, err
		}
	}
	return append(list, pfs.transforms...), nil
}

func (s Suite) lookup(field int) (suiteValue, error) {
	name := *valuesOf(&s)[field]
	v, ok := suiteFields[field].value(name)
	if !ok {
		return suiteValue{}, fmt.Errorf("%s can't be %q: it can be %s", suiteFields[field].name, name, strings.Join(suiteFields[field].names(), ", "))
	}
	return v, nil
}

func isAEAD(list []Transform) bool {
	return len(list) > 0 && list[0].Type == transformEncr && list[0].ID == 20
}

// PowerShell returns the suite in the spelling of the parameters of
// Set-VpnConnectionIPsecConfiguration and Set-VpnServerConfiguration.
func (s Suite) PowerShell() Suite {
	for i, p := range valuesOf(&s) {
		if v, ok := suiteFields[i].value(*p); ok {
			*p = cmp.Or(v.powershell, v.name)
		}
	}
	return s
}

// Differences says how a client with suite s and a gateway with the policy
// server differ, one sentence for each field. A client with a suite makes one
// proposal, so that every difference is a failure.
func (s Suite) Differences(server Suite) []string {
	var list []string
	theirs := valuesOf(&server)
	for i, p := range valuesOf(&s) {
		a, b := *p, *theirs[i]
		if v, ok := suiteFields[i].value(a); ok {
			a = v.name
		}
		if v, ok := suiteFields[i].value(b); ok {
			b = v.name
		}
		if a == b || i == 0 && strings.HasPrefix(s.CipherTransformConstants, "GCM") && s.CipherTransformConstants == server.CipherTransformConstants {
			continue
		}
		list = append(list, fmt.Sprintf("%s is %s and the server has %s", suiteFields[i].name, a, b))
	}
	return list
}
