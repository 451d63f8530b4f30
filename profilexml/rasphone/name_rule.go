package rasphone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A NameRule is one of NrptRules: which DNS servers answer for a name.
//
// All files that were seen have rules for suffixes with servers. How Windows
// writes others isn't known, so that [NewNameRule] doesn't make them; those that
// are in a file keep what they have when they are written again.
type NameRule struct {
	Type    uint32       // what kind of rule it is: see SuffixRule
	Name    string       // a suffix such as .corp.example.com
	Servers []netip.Addr // the DNS servers
	// Unknown are numbers that are always zero in files that were seen. They are
	// kept.
	Unknown [3]uint32
}

// SuffixRule is the Type of a rule for all names that end in its Name.
const SuffixRule = 2

// NewNameRule returns the rule that has DNS servers answer for a suffix, which
// begins with a period: .corp.example.com. It refuses what Windows was never seen
// to write.
func NewNameRule(name string, servers ...netip.Addr) (NameRule, error) {
	switch {
	case name == ".":
		return NameRule{}, errors.New("a rule for every name can't be made, only kept: how Windows writes it isn't known. Deliver it with a profile, as DomainNameInformation")
	case !strings.HasPrefix(name, "."):
		return NameRule{}, fmt.Errorf("a rule for the host %.60q can't be made, only kept: the number that Windows writes for such rules isn't known. Write a period before it for a suffix, or deliver it with a profile, as DomainNameInformation", name)
	case tooLong(name):
		return NameRule{}, fmt.Errorf("%.60q is no DNS name: it has more than 253 letters, or more than 63 between two periods", name)
	case len(servers) == 0:
		return NameRule{}, fmt.Errorf("a rule for %.60q without DNS servers can't be made, only kept: how Windows writes it isn't known. Deliver it with a profile, as DomainNameInformation", name)
	}
	return NameRule{Type: SuffixRule, Name: name, Servers: servers}, nil
}

// tooLong reports whether DNS has no such name (RFC 1035 section 2.3.4). Letters are
// counted, not octets: how long those beyond ASCII become isn't settled here.
func tooLong(name string) bool {
	name = strings.Trim(name, ".")
	return utf8.RuneCountInString(name) > 253 || slices.ContainsFunc(strings.Split(name, "."), func(label string) bool {
		return utf8.RuneCountInString(label) > 63
	})
}

// String returns the rule as ParseSetting reads it.
func (r NameRule) String() string {
	var servers []string
	for _, s := range r.Servers {
		servers = append(servers, s.String())
	}
	return r.Name + "=" + strings.Join(servers, "+")
}

// parseNameRules reads what String writes, with commas between. Types aren't in
// it.
func parseNameRules(s string) ([]NameRule, error) {
	var list []NameRule
	for _, item := range splitList(s) {
		name, servers, ok := strings.Cut(item, "=")
		if err := checkName(name); err != nil || !ok {
			return nil, fmt.Errorf("%.60q is no rule: write .corp.example.com=10.0.0.53+10.0.0.54", item)
		}
		r := NameRule{Name: name}
		for a := range strings.SplitSeq(servers, "+") {
			if a == "" && servers == "" {
				break
			}
			addr, err := netip.ParseAddr(a)
			if err != nil || addr.Zone() != "" {
				return nil, fmt.Errorf("%.60q: %.60q is no address of a DNS server", name, a)
			}
			r.Servers = append(r.Servers, addr)
		}
		if slices.ContainsFunc(list, func(o NameRule) bool { return strings.EqualFold(o.Name, r.Name) }) {
			return nil, fmt.Errorf("there are two rules for %.60q: write one with all servers", r.Name)
		}
		list = append(list, r)
	}
	return list, nil
}

// parsedNameRules returns the setting for rules that were read from text. Those
// that an entry has already keep what it has of them, but for the servers; others
// must be such as NewNameRule makes.
func parsedNameRules(text string) (Setting, error) {
	list, err := parseNameRules(text)
	if err != nil {
		return Setting{}, err
	}
	s := listSetting(nameRulesKey, nameRulesCounter, len(list), nil, inWords(list))
	s.List.lines = func(e Entry) ([]string, error) {
		old, err := e.NameRules()
		if err != nil {
			old = nil // it is replaced, and can't be kept
		}
		full := slices.Clone(list)
		for i, r := range full {
			if n := slices.IndexFunc(old, func(o NameRule) bool {
				return strings.EqualFold(o.Name, r.Name) && (len(o.Servers) > 0) == (len(r.Servers) > 0)
			}); n >= 0 {
				full[i].Type, full[i].Unknown = old[n].Type, old[n].Unknown
			} else if full[i], err = NewNameRule(r.Name, r.Servers...); err != nil {
				return nil, err
			}
		}
		b, err := EncodeNameRules(full)
		return EncodeBinary(b), err
	}
	return s, nil
}

// The keys of the list.
const (
	nameRulesKey     = "NrptRules"
	nameRulesCounter = "NumNrptRules"
)

// The form of a name rule: three numbers (type, number of servers, length of the
// name with its zero), three that are zero, servers, name in UTF-16.
const (
	ruleHead   = 24
	serverSize = 20
)

// DecodeNameRules reads NrptRules. It fails at what it doesn't understand, so that
// nothing is lost when they are written again.
func DecodeNameRules(b []byte) ([]NameRule, error) {
	var list []NameRule
	for len(b) > 0 {
		r, rest, err := decodeNameRule(b)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", len(list)+1, err)
		}
		list, b = append(list, r), rest
	}
	return list, nil
}

func decodeNameRule(b []byte) (NameRule, []byte, error) {
	if len(b) < ruleHead {
		return NameRule{}, nil, errors.New("it ends too early")
	}
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	r := NameRule{Type: word(0), Unknown: [3]uint32{word(12), word(16), word(20)}}
	servers, length := int64(word(4)), int64(word(8))
	size := ruleHead + servers*serverSize + 2*length
	if length == 0 || servers > maxItems || length > maxItems || size > int64(len(b)) {
		return r, nil, errors.New("it ends too early")
	}
	at := ruleHead
	for range servers {
		a, err := decodeAddr(word(at), b[at+4:at+serverSize])
		if err != nil {
			return r, nil, err
		}
		r.Servers, at = append(r.Servers, a), at+serverSize
	}
	name := units(b[at:size])
	if slices.Index(name, 0) != len(name)-1 {
		return r, nil, errors.New("its name doesn't end where it should")
	}
	var err error
	r.Name, err = utf16Text(name[:len(name)-1])
	return r, b[size:], err
}

// EncodeNameRules writes what DecodeNameRules reads.
func EncodeNameRules(list []NameRule) ([]byte, error) {
	if len(list) > maxItems {
		return nil, fmt.Errorf("there are more than %d rules", maxItems)
	}
	var b []byte
	for _, r := range list {
		if err := checkName(r.Name); err != nil {
			return nil, err
		}
		if len(r.Servers) > maxItems {
			return nil, fmt.Errorf("%s has more than %d servers", r.Name, maxItems)
		}
		name := append(utf16.Encode([]rune(r.Name)), 0)
		b = binary.LittleEndian.AppendUint32(b, r.Type)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Servers)))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(name)))
		for _, u := range r.Unknown {
			b = binary.LittleEndian.AppendUint32(b, u)
		}
		for _, s := range r.Servers {
			if !s.IsValid() || s.Zone() != "" {
				return nil, fmt.Errorf("%s: %v is no address of a DNS server", r.Name, s)
			}
			b = binary.LittleEndian.AppendUint32(b, family(s))
			b = appendAddr(b, s)
		}
		b = appendUnits(b, name)
	}
	return b, nil
}

// NameRules returns which DNS servers answer for which names.
func (e Entry) NameRules() ([]NameRule, error) { return listOf(e, nameRulesKey, DecodeNameRules) }

// NameRulesSetting returns the setting that gives an entry name rules. They come
// from [Entry.NameRules] or from [NewNameRule].
func NameRulesSetting(list []NameRule) (Setting, error) {
	for _, r := range list {
		if r.Type == 0 {
			return Setting{}, fmt.Errorf("NrptRules: the rule for %.60q has no type: make it with NewNameRule", r.Name)
		}
	}
	b, err := EncodeNameRules(list)
	if err != nil {
		return Setting{}, fmt.Errorf("NrptRules: %w", err)
	}
	return listSetting(nameRulesKey, nameRulesCounter, len(list), b, inWords(list)), nil
}
