package profilexml

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// valueRules are about what elements hold, whichever they are.
func valueRules() []Rule {
	return []Rule{
		{
			ID: "AOV017", Severity: Error, Title: "A boolean isn't true or false in small letters", Fixable: true,
			Why:    "Any other spelling, such as True, \"results in a partial configuration\", says Microsoft: the profile is there, and works only in part.",
			Remedy: "Write true or false.",
			visit:  checkBoolean,
		},
		{
			ID: "AOV018", Severity: Warning, Title: "A value is in another case than Windows writes it", Fixable: true,
			Why:    "Windows takes it, but reads another spelling back, which Intune takes for a difference, and other tools may not know it.",
			Remedy: "Write it as the reference does.",
			visit:  checkValueCase,
		},
		{
			ID: "AOV019", Severity: Error, Title: "A value isn't one of those that there are",
			Why:    "Windows refuses the profile, or takes its default in place of what it doesn't know.",
			Remedy: "Use one of the values named.",
			visit:  checkValue,
		},
		{
			ID: "AOV020", Severity: Error, Title: "A value is spelt as PowerShell spells it", Fixable: true,
			Why:    "Some algorithms have one name in PowerShell and another in ProfileXML: GCMAES128 is AES_GCM_128 in EncryptionMethod, and SHA1 is SHA196.",
			Remedy: "Use the name that ProfileXML has.",
			visit:  checkSpelling,
		},
		{
			ID: "AOV021", Severity: Error, Title: "There is white space around a value", Fixable: true,
			Why:    "Windows doesn't trim most values: a name with a space is another name.",
			Remedy: "Write the value directly between the tags.",
			visit:  checkWhiteSpace,
		},
		{
			ID: "AOV022", Severity: Error, Title: "A number is out of range",
			Why:    "Windows refuses the profile or leaves the value out.",
			Remedy: "Use a whole number in the range named.",
			visit:  checkNumber,
		},
		{
			ID: "AOV023", Severity: Info, Title: "An element has no effect",
			Why:    "It is reserved or retired, or the name comes from somewhere else. Whoever reads the profile takes it for something it isn't.",
			Remedy: "Remove it.",
			visit:  checkNoEffect,
		},
		{
			ID: "AOV025", Severity: Error, Title: "There is a space in a list", Fixable: true,
			Why:    "Windows doesn't take the spaces out: a DNS rule with \"10.0.0.1, 10.0.0.2\" isn't accepted, and addresses after a space aren't understood.",
			Remedy: "Write nothing but the separator between items.",
			visit:  checkListSpaces,
		},
		{
			ID: "AOV026", Severity: Error, Title: "There is an empty item in a list",
			Why:    "A separator at the end or twice in a row makes an item of nothing.",
			Remedy: "Remove the separator that is too many.",
			visit:  checkListItems,
		},
		{
			ID: "AOV027", Severity: Warning, Title: "A placeholder was left in a value",
			Why:    "A variable of a script, braces of a template, or quotation marks around a value show that something was to be put in, and wasn't. Windows takes it as it is.",
			Remedy: "Write the value itself. In PowerShell, variables aren't replaced within @'...'@.",
			visit:  checkPlaceholder,
		},
	}
}

func checkPlaceholder(k *check, n *Node) {
	if n.spec == nil || n.Space != "" || n.spec.Type == Group || n.spec.Type == Opaque || n.spec.Type == Boolean || n.spec.Type == Number {
		return
	}
	s := k.text(n)
	if len(s) < 2 {
		return
	}
	first, last := s[0], s[len(s)-1]
	variable := first == '$' && (s[1]|0x20 >= 'a' && s[1]|0x20 <= 'z') || strings.Contains(s, "${") || strings.Contains(s, "$(") || strings.Contains(s, "{{")
	quoted := (first == '"' || first == '\'') && last == first
	if variable || quoted || first == '{' && last == '}' {
		k.reportValue(n, nil, "%.60q looks like something that was to be replaced", s)
	}
}

func checkBoolean(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Boolean {
		return
	}
	raw := k.text(n)
	if raw == "true" || raw == "false" || raw == "" {
		return
	}
	if v, ok := boolean(raw); ok {
		k.reportValue(n, k.setValue(n, strconv.FormatBool(v)), "%q must be written %v", raw, v)
		return
	}
	k.reportValue(n, nil, "%.40q is neither true nor false", raw)
}

func checkValueCase(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Enumeration {
		return
	}
	raw := k.text(n)
	i := slices.IndexFunc(n.spec.Values, func(v string) bool { return strings.EqualFold(v, raw) })
	// What Windows itself reads back in another case than its reference has.
	if i < 0 || n.spec.Values[i] == raw || raw == "Ikev2" || raw == "EAP" && k.Channel == WMI {
		return
	}
	k.reportValue(n, k.setValue(n, n.spec.Values[i]), "%q is written %s", raw, n.spec.Values[i])
}

func checkSpelling(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Enumeration {
		return
	}
	raw := k.text(n)
	if v := n.spec.canonical(raw); !strings.EqualFold(v, raw) {
		k.reportValue(n, k.setValue(n, v), "%q is called %s in ProfileXML", raw, v)
	}
}

func checkValue(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Enumeration {
		return
	}
	raw := k.text(n)
	if raw != "" && !slices.Contains(n.spec.Values, n.spec.canonical(raw)) {
		k.reportValue(n, nil, "%.40q is not one of %s", raw, strings.Join(n.spec.Values, ", "))
	}
}

func checkWhiteSpace(k *check, n *Node) {
	if n.spec == nil || n.spec.Type == Group || n.spec.Type == Opaque || n.hasElements() || n.Space != "" && n.spec.Type != Boolean && n.spec.Type != Number {
		return
	}
	raw := k.doc.Value(n)
	if v := strings.TrimSpace(raw); v != raw && v != "" {
		if isSecret(n) { // it may be meant, and nobody could see whether it is right
			k.reportValue(n, nil, "there is white space around the value of <%s>", n.Name())
			return
		}
		k.reportValue(n, k.setValue(n, v), "there is white space around the value of <%s>", n.Name())
	}
}

func checkNumber(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Number {
		return
	}
	raw := k.text(n)
	if raw == "" {
		return
	}
	if v, err := strconv.ParseUint(raw, 10, 64); err != nil || v < n.spec.Least || v > n.spec.Most {
		k.reportValue(n, nil, "%.40q is not a whole number from %d to %d", raw, n.spec.Least, n.spec.Most)
	}
}

func checkNoEffect(k *check, n *Node) {
	if n.spec == nil || n.Space != "" || n.Parent == nil {
		return
	}
	switch n.spec.Path() {
	case "VPNProfile/ProfileName":
		k.report(n, nil, "Windows takes the name from the OMA-URI or the InstanceID, not from here")
	case "VPNProfile/EdpModeId":
		k.report(n, nil, "Windows Information Protection is retired")
	case "VPNProfile/ByPassForLocal", "VPNProfile/APNBinding", "VPNProfile/NativeProfile/Authentication/Certificate":
		k.report(n, nil, "<%s> is reserved and has no effect", n.Name())
	}
}

// listItems returns what is between the separators of a list, untrimmed. Lists
// of EAP are judged by rules of their own.
func (k *check) listItems(n *Node) []string {
	if n.spec == nil || n.spec.Type != List || n.Space != "" || k.text(n) == "" {
		return nil
	}
	return strings.Split(k.text(n), n.spec.Separator)
}

func checkListSpaces(k *check, n *Node) {
	items := k.listItems(n)
	trimmed := make([]string, len(items))
	for i, s := range items {
		trimmed[i] = strings.TrimSpace(s)
	}
	if !slices.Equal(items, trimmed) {
		k.reportValue(n, k.setValue(n, strings.Join(trimmed, n.spec.Separator)), "there are spaces between the items of <%s>", n.Name())
	}
}

func checkListItems(k *check, n *Node) {
	for _, s := range k.listItems(n) {
		if strings.TrimSpace(s) == "" {
			k.reportValue(n, nil, "<%s> has an empty item", n.Name())
			return
		}
	}
}

// hostName reports whether s can be the name of a host in DNS.
func hostName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if r >= 0x80 { // an internationalised name, not in its ASCII form
				return false
			}
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return false
			}
		}
	}
	return true
}

func isAddr(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isWebURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https" || u.Scheme == "file") && (u.Host != "" || u.Scheme == "file")
}
