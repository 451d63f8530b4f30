package rasphone

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// Windows writes binary values as hexadecimal in capitals, 64 bytes a line, and
// repeats the key for each line.
const bytesPerLine = 64

// maxItems bounds how much is in a list. Windows has fewer.
const maxItems = 100_000

// EncodeBinary returns bytes as the values of a repeated key.
func EncodeBinary(b []byte) []string {
	var lines []string
	for chunk := range slices.Chunk(b, bytesPerLine) {
		lines = append(lines, strings.ToUpper(hex.EncodeToString(chunk)))
	}
	return lines
}

// DecodeBinary returns the bytes that the values of a repeated key hold together.
// It takes lines of any length, and digits in any case.
func DecodeBinary(values []string) ([]byte, error) {
	b, err := hex.DecodeString(strings.Join(values, ""))
	if err != nil {
		return nil, fmt.Errorf("it isn't hexadecimal: %w", err)
	}
	return b, nil
}

// Binary returns the bytes of a key that holds them, none if the entry lacks it.
func (e Entry) Binary(key string) ([]byte, error) {
	b, err := DecodeBinary(e.Values(key))
	if err != nil {
		return nil, fmt.Errorf("entry %q: %s: %w", e.Name(), key, err)
	}
	return b, nil
}

// listOf reads a list of an entry with what decodes it.
func listOf[T any](e Entry, key string, decode func([]byte) ([]T, error)) ([]T, error) {
	b, err := e.Binary(key)
	if err != nil {
		return nil, err
	}
	list, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("entry %q: %s: %w", e.Name(), key, err)
	}
	return list, nil
}

// The length of a name in TrustedNetworks and DnsSuffixSearchList, in UTF-16 code
// units and in bytes.
const (
	nameUnits = 256
	nameBytes = 2 * nameUnits
)

// DecodeNames reads TrustedNetworks or DnsSuffixSearchList: for each name 256
// UTF-16 code units, of which those before the first zero count.
func DecodeNames(b []byte) ([]string, error) {
	if len(b)%nameBytes != 0 {
		return nil, fmt.Errorf("it is %d bytes long, and each name has %d", len(b), nameBytes)
	}
	var list []string
	for chunk := range slices.Chunk(b, nameBytes) {
		units := units(chunk)
		n := slices.Index(units, 0)
		if n < 0 {
			return nil, errors.New("a name has no end")
		}
		name, err := utf16Text(units[:n])
		if err != nil {
			return nil, err
		}
		list = append(list, name)
	}
	return list, nil
}

// EncodeNames writes what DecodeNames reads.
func EncodeNames(names []string) ([]byte, error) {
	if len(names) > maxItems {
		return nil, fmt.Errorf("there are more than %d names", maxItems)
	}
	b := make([]byte, 0, len(names)*nameBytes)
	for _, name := range names {
		if err := checkName(name); err != nil {
			return nil, err
		}
		units := utf16.Encode([]rune(name))
		if len(units) >= nameUnits {
			return nil, fmt.Errorf("%.60q is longer than %d characters", name, nameUnits-1)
		}
		b = appendUnits(b, units)
		b = append(b, make([]byte, nameBytes-2*len(units))...)
	}
	return b, nil
}

// checkName refuses what can't be part of a DNS name.
func checkName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == ',' || r == '\ufffd' }) {
		return fmt.Errorf("%.60q is no DNS name", name)
	}
	return nil
}

func units(b []byte) []uint16 {
	list := make([]uint16, len(b)/2)
	for i := range list {
		list[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return list
}

func appendUnits(b []byte, units []uint16) []byte {
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// utf16Text returns text, and fails if it is none, so that it can be written
// again as it was.
func utf16Text(u []uint16) (string, error) {
	r := utf16.Decode(u)
	if slices.Contains(r, '\ufffd') {
		return "", errors.New("a name isn't UTF-16")
	}
	return string(r), nil
}

// TrustedNetworks returns the DNS suffixes of networks that need no VPN.
func (e Entry) TrustedNetworks() ([]string, error) {
	return listOf(e, "TrustedNetworks", DecodeNames)
}

// DNSSuffixes returns the DNS suffixes that are tried.
func (e Entry) DNSSuffixes() ([]string, error) {
	return listOf(e, "DnsSuffixSearchList", DecodeNames)
}

// TrustedNetworksSetting returns the setting for TrustedNetworks.
func TrustedNetworksSetting(names []string) (Setting, error) {
	return namesSetting("TrustedNetworks", "NumTrustedNetworks", names)
}

// DNSSuffixesSetting returns the setting for DnsSuffixSearchList.
func DNSSuffixesSetting(names []string) (Setting, error) {
	return namesSetting("DnsSuffixSearchList", "NumDnsSearchSuffixes", names)
}

func namesSetting(key, counter string, names []string) (Setting, error) {
	b, err := EncodeNames(names)
	if err != nil {
		return Setting{}, fmt.Errorf("%s: %w", key, err)
	}
	return listSetting(key, counter, len(names), b, inWords(names)), nil
}

func listSetting(key, counter string, count int, b []byte, text string) Setting {
	return Setting{Key: key, List: &List{Counter: counter, Count: count, Lines: EncodeBinary(b), Text: text}}
}

// inWords joins what is in a list.
func inWords[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	var text []string
	for _, x := range list {
		text = append(text, fmt.Sprint(x))
	}
	return strings.Join(text, ", ")
}

// TrafficFilters returns PerAppTrafficFilters: rules of the firewall
// (MS-GPFAS 2.2.2), such as v2.24|Action=Allow|Dir=Out.
func (e Entry) TrafficFilters() ([]string, error) {
	return listOf(e, "PerAppTrafficFilters", DecodeTrafficFilters)
}

// DecodeTrafficFilters reads PerAppTrafficFilters: text in UTF-16, with a zero
// after each rule.
func DecodeTrafficFilters(b []byte) ([]string, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b)%2 != 0 {
		return nil, fmt.Errorf("it is %d bytes long, which is no UTF-16", len(b))
	}
	u := units(b)
	if u[len(u)-1] != 0 {
		return nil, errors.New("the last rule has no end")
	}
	text, err := utf16Text(u[:len(u)-1])
	if err != nil {
		return nil, err
	}
	return strings.Split(text, "\x00"), nil
}

// describeList says in words what a list of the entry is.
func (e Entry) describeList(key string) (string, error) {
	switch key {
	case "CustomIPSecPolicies":
		list, err := e.Policies()
		return inWords(list), err
	case "Routes":
		list, err := e.Routes()
		return inWords(list), err
	case "NrptRules":
		list, err := e.NameRules()
		return inWords(list), err
	case "TrustedNetworks":
		list, err := e.TrustedNetworks()
		return inWords(list), err
	case "DnsSuffixSearchList":
		list, err := e.DNSSuffixes()
		return inWords(list), err
	case "PerAppTrafficFilters":
		list, err := e.TrafficFilters()
		return inWords(list), err
	}
	return "", errors.ErrUnsupported
}
