package profilexml

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// pluginRules are about profiles of apps.
func pluginRules() []Rule {
	return []Rule{
		{
			ID: "AOV701", Severity: Error, Title: "The app's configuration isn't escaped", Fixable: true,
			Why:    "CustomConfiguration holds text. XML in it must be escaped, or it is part of the profile, where nobody knows it.",
			Remedy: "Write &lt; for <, and &amp; for &.",
			visit:  checkCustomConfiguration,
		},
		{
			ID: "AOV702", Severity: Error, Title: "The app's package family name isn't one",
			Why:    "Windows finds the app by it: the name, an underscore, and 13 letters and digits. The package's full name has its version too.",
			Remedy: "Use PackageFamilyName of Get-AppxPackage.",
			visit:  checkFamilyName,
		},
	}
}

func checkCustomConfiguration(k *check, n *Node) {
	if n.spec != nil && n.spec.Type == Opaque && n.hasElements() {
		k.reportValue(n, k.setValue(n, strings.TrimSpace(k.doc.inner(n))), "the XML in <%s> must be escaped", n.Name())
	}
}

func checkFamilyName(k *check, n *Node) {
	if n.spec != nil && n.spec.Name == "PluginPackageFamilyName" && k.text(n) != "" && !isFamilyName(k.text(n)) {
		k.reportValue(n, nil, "%.60q isn't a package family name", k.text(n))
	}
}

// channelRules are about how the profile gets to clients.
func channelRules() []Rule {
	return []Rule{
		{
			ID: "AOV710", Severity: Error, Title: "The profile's name can't be used",
			Why:    "The name is a part of the OMA-URI, of the InstanceID, and of the phonebook. A slash cuts it, square brackets break the phonebook, and & and letters outside ASCII break scripts.",
			Remedy: "Use letters, digits, spaces and hyphens, at most 255 of them.",
			run:    checkName,
		},
		{
			ID: "AOV711", Severity: Info, Title: "There is an & that scripts lose",
			Why:    "Published scripts escape < > and quotation marks before they hand the profile to WMI, and forget &. A profile with &amp; in it isn't well-formed then.",
			Remedy: "Use a script that escapes & first, such as those that this program makes.",
			run:    checkAmpersand,
		},
		{
			ID: "AOV712", Severity: Info, Title: "There are letters outside ASCII that scripts lose",
			Why:    "Windows PowerShell 5.1 reads a file of UTF-8 without a byte order mark by the code page of the machine, and each such letter becomes two others.",
			Remedy: "Use a script that holds the profile itself, or Get-Content -Encoding UTF8.",
			run:    checkNotASCII,
		},
	}
}

func checkName(k *check) {
	if k.Name == "" {
		return
	}
	bad := ""
	switch {
	case strings.ContainsAny(k.Name, `/\[]<>:"|?*`):
		bad = "has one of / \\ [ ] < > : \" | ? *"
	case strings.Contains(k.Name, "&"):
		bad = "has an &"
	case strings.ContainsFunc(k.Name, func(r rune) bool { return r >= 0x80 || r < ' ' || r == 0x7f }):
		bad = "has characters outside ASCII"
	case utf8.RuneCountInString(k.Name) > 255:
		bad = "is longer than 255"
	case strings.TrimSpace(k.Name) != k.Name:
		bad = "begins or ends with a space"
	case k.Name[0] == '.':
		bad = "begins with a period"
	case !strings.ContainsFunc(k.Name, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }):
		bad = "has neither a letter nor a digit"
	}
	if bad != "" {
		k.add(0, nil, Error, nil, "the name %.60q %s", k.Name, bad)
	}
}

func checkAmpersand(k *check) {
	if i := strings.Index(k.doc.Text, "&amp;"); i >= 0 && k.Channel == WMI {
		k.add(i, nil, Info, nil, "scripts that don't escape & first break the profile here")
	}
}

func checkNotASCII(k *check) {
	if k.Channel != WMI || k.doc.Encoding != UTF8 {
		return
	}
	for i, r := range k.doc.Text {
		if r >= utf8.RuneSelf {
			k.add(i, nil, Info, nil, "%q is lost where Windows PowerShell 5.1 reads the file", r)
			return
		}
	}
}
