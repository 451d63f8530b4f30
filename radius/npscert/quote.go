package npscert

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// What is generated is run by an administrator with all rights there are. So
// names are checked for what they may be, and quoted nevertheless; and scripts are
// ASCII alone, since PowerShell takes typographic quotes for quotes, and reads a
// file in whatever code page it thinks right.

const maxText = 256

// text checks a name that people made up.
func text(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("npscert: %s is empty", what)
	case len(s) > maxText:
		return fmt.Errorf("npscert: %s is longer than %d bytes", what, maxText)
	case !utf8.ValidString(s):
		return fmt.Errorf("npscert: %s isn't UTF-8", what)
	case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || r == '\ufeff' }):
		return fmt.Errorf("npscert: %s has a line end or another control character in it: %q", what, s)
	}
	return nil
}

// dnsName checks the name of a host.
func dnsName(what, s string) error {
	if s == "" {
		return fmt.Errorf("npscert: %s is empty", what)
	}
	if len(s) > 253 {
		return fmt.Errorf("npscert: %s is longer than 253 bytes", what)
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return fmt.Errorf("npscert: %s: %q is no DNS name of letters, digits, hyphens and dots", what, s)
		}
	}
	return nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-')
	})
}

// commonName checks a DNS name that is to be a common name, which is shorter.
func commonName(what, s string) error {
	if len(s) > 64 { // X.520 ub-common-name
		return fmt.Errorf("npscert: %s is longer than the 64 bytes that a certificate's subject can have", what)
	}
	return dnsName(what, s)
}

var errTemplate = errors.New("npscert: the name of a template is 1 to 64 letters, digits, hyphens and underscores: the name, not what is displayed")

// templateName checks the name of a template, its cn.
func templateName(s string) error {
	if s == "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
	}) {
		return errTemplate
	}
	return nil
}

// powershell returns s as an expression of PowerShell, in ASCII.
func powershell(s string) string {
	var parts []string
	plain := strings.Builder{}
	flush := func() {
		if plain.Len() > 0 {
			parts = append(parts, "'"+plain.String()+"'")
			plain.Reset()
		}
	}
	for _, r := range s {
		switch {
		case r == '\'':
			plain.WriteString("''")
		case r >= ' ' && r < 0x7f:
			plain.WriteRune(r)
		default:
			flush()
			for _, u := range utf16.Encode([]rune{r}) {
				parts = append(parts, fmt.Sprintf("[string][char]0x%04X", u))
			}
		}
	}
	flush()
	switch len(parts) {
	case 0:
		return "''"
	case 1:
		if parts[0][0] == '\'' {
			return parts[0]
		}
	}
	return "(" + strings.Join(parts, " + ") + ")"
}

// powershellList returns an array of strings.
func powershellList(all []string) string {
	q := make([]string, len(all))
	for i, s := range all {
		q[i] = powershell(s)
	}
	return "@(" + strings.Join(q, ", ") + ")"
}

// inf returns s as a value of an INF file. In one, quotes end a value and percent
// signs stand for what [Strings] says.
func inf(s string) (string, error) {
	if strings.ContainsAny(s, "\"%") {
		return "", fmt.Errorf("npscert: %q has a quotation mark or percent sign in it, which an INF file can't hold", s)
	}
	return `"` + s + `"`, nil
}
