package rasphone

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// A Policy is one of CustomIPSecPolicies: the cryptography of IKEv2, in numbers
// of the phone book's own. [Policy.String] has their names.
type Policy struct {
	Integrity  uint32 // of the IKE SA
	Encryption uint32 // of the IKE SA
	DHGroup    uint32 // of the IKE SA
	Cipher     uint32 // of ESP
	Auth       uint32 // integrity of ESP
	PFSGroup   uint32 // for new keys of ESP
}

// policyBytes is the length of a policy: six little-endian numbers.
const policyBytes = 24

// policyFields are the six numbers of a policy, in the order of the file, and what
// they stand for. Names are those of ProfileXML; others' come after a space.
var policyFields = [...]struct {
	name   string
	values []string
}{
	{"IntegrityCheckMethod", []string{"MD5", "SHA196 SHA1", "SHA256", "SHA384"}},
	{"EncryptionMethod", []string{"DES", "DES3 3DES", "AES128", "AES192", "AES256", "AES_GCM_128 GCMAES128", "AES_GCM_256 GCMAES256"}},
	{"DHGroup", []string{"None", "Group1", "Group2", "Group14", "ECP256", "ECP384", "Group24"}},
	{"CipherTransformConstants", []string{"None", "DES", "DES3 3DES", "AES128", "AES192", "AES256", "GCMAES128", "GCMAES192", "GCMAES256"}},
	{"AuthenticationTransformConstants", []string{"MD596", "SHA196", "SHA256128", "GCMAES128", "GCMAES192", "GCMAES256"}},
	{"PfsGroup", []string{"None", "PFS1", "PFS2", "PFS2048 PFS14", "ECP256", "ECP384", "PFSMM", "PFS24"}},
}

// numbersOf returns the six numbers in the order of the file.
func numbersOf(p *Policy) [6]*uint32 {
	return [6]*uint32{&p.Integrity, &p.Encryption, &p.DHGroup, &p.Cipher, &p.Auth, &p.PFSGroup}
}

// String returns the policy with the names of ProfileXML's CryptographySuite, as
// [ParsePolicy] reads it. A number without a name stays one.
func (p Policy) String() string {
	n := numbersOf(&p)
	var list []string
	for _, i := range []int{4, 3, 5, 2, 0, 1} { // the order of ProfileXML
		f := policyFields[i]
		value := fmt.Sprint(*n[i])
		if int64(*n[i]) < int64(len(f.values)) {
			value, _, _ = strings.Cut(f.values[*n[i]], " ")
		}
		list = append(list, f.name+"="+value)
	}
	return strings.Join(list, ",")
}

// ParsePolicy reads a policy: six Name=value with commas between them, in any
// order, with the names and values of ProfileXML's CryptographySuite or of
// Set-VpnConnectionIPsecConfiguration.
func ParsePolicy(s string) (Policy, error) {
	var p Policy
	numbers := numbersOf(&p)
	var seen [len(policyFields)]bool
	for item := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		i := policyField(name)
		if i < 0 {
			return Policy{}, fmt.Errorf("a policy has no %.60q: write %v", name, Policy{2, 5, 3, 6, 3, 4})
		}
		n := slices.IndexFunc(policyFields[i].values, func(v string) bool {
			return slices.ContainsFunc(strings.Fields(v), func(w string) bool { return strings.EqualFold(w, value) })
		})
		if n < 0 {
			return Policy{}, fmt.Errorf("%s can't be %.60q: it can be %s", policyFields[i].name, value, strings.Join(policyFields[i].values, ", "))
		}
		if seen[i] {
			return Policy{}, fmt.Errorf("%s is there twice", policyFields[i].name)
		}
		*numbers[i], seen[i] = uint32(n), true
	}
	if i := slices.Index(seen[:], false); i >= 0 {
		return Policy{}, fmt.Errorf("%s is missing: a policy has six values", policyFields[i].name)
	}
	return p, nil
}

func policyField(name string) int {
	for i := range policyFields {
		if strings.EqualFold(policyFields[i].name, name) {
			return i
		}
	}
	return -1
}

// DecodePolicies reads CustomIPSecPolicies.
func DecodePolicies(b []byte) ([]Policy, error) {
	if len(b)%policyBytes != 0 {
		return nil, fmt.Errorf("it is %d bytes long, and each policy has %d", len(b), policyBytes)
	}
	var list []Policy
	for chunk := range slices.Chunk(b, policyBytes) {
		var p Policy
		for i, n := range numbersOf(&p) {
			*n = binary.LittleEndian.Uint32(chunk[4*i:])
		}
		list = append(list, p)
	}
	return list, nil
}

// EncodePolicies writes what DecodePolicies reads.
func EncodePolicies(list []Policy) []byte {
	b := make([]byte, 0, len(list)*policyBytes)
	for _, p := range list {
		for _, n := range numbersOf(&p) {
			b = binary.LittleEndian.AppendUint32(b, *n)
		}
	}
	return b
}

// Policies returns the cryptography of the entry; none means that of Windows.
func (e Entry) Policies() ([]Policy, error) {
	return listOf(e, "CustomIPSecPolicies", DecodePolicies)
}

// PoliciesSetting returns the setting that gives an entry policies. Windows has
// one, or none for its own proposals.
func PoliciesSetting(list ...Policy) (Setting, error) {
	if len(list) > 1 {
		return Setting{}, fmt.Errorf("a connection has one policy, not %d", len(list))
	}
	for _, p := range list {
		for i, n := range numbersOf(&p) {
			if int64(*n) >= int64(len(policyFields[i].values)) {
				return Setting{}, fmt.Errorf("%s can't be %d", policyFields[i].name, *n)
			}
		}
	}
	return listSetting("CustomIPSecPolicies", "NumCustomPolicy", len(list), EncodePolicies(list), inWords(list)), nil
}

// PolicyValues returns the values that a field of a policy can have, in the order
// of their numbers, such as those of EncryptionMethod; nil if there is no such
// field.
func PolicyValues(field string) []string {
	i := policyField(field)
	if i < 0 {
		return nil
	}
	var list []string
	for _, v := range policyFields[i].values {
		name, _, _ := strings.Cut(v, " ")
		list = append(list, name)
	}
	return list
}
