package profilexml

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf16"
)

// What is written for PowerShell here keeps to a few rules. A script is ASCII, so
// that no version of PowerShell, and no tool that carries it, reads it in a wrong
// encoding. What comes from a profile or from a caller is only ever in literals in
// which nothing is expanded, and those that may be long or odd are assigned to
// variables at the top; what follows is the same for every profile.

// quotePS returns a PowerShell expression for a string: a literal in single
// quotes, and characters that aren't printable ASCII by their numbers. So
// PowerShell finds neither a $ to expand nor one of the five quotation marks that
// it takes for an end.
func quotePS(s string) string {
	var parts []string
	var plain strings.Builder
	flush := func() {
		if plain.Len() > 0 || len(parts) == 0 {
			parts = append(parts, "'"+plain.String()+"'")
			plain.Reset()
		}
	}
	for _, u := range utf16.Encode([]rune(s)) {
		switch {
		case u == '\'':
			plain.WriteString("''")
		case u >= ' ' && u < 0x7f:
			plain.WriteByte(byte(u))
		default:
			flush()
			parts = append(parts, fmt.Sprintf("[char]0x%04X", u))
		}
	}
	flush()
	if len(parts) == 1 {
		return parts[0]
	}
	return "(" + strings.Join(parts, " + ") + ")"
}

// quoteListPS returns a PowerShell array of strings.
func quoteListPS(list []string) string {
	var q []string
	for _, s := range list {
		q = append(q, quotePS(s))
	}
	return "@(" + strings.Join(q, ", ") + ")"
}

// quoteTextPS returns a PowerShell expression for text of any length: a
// here-string, in which nothing is expanded, if the text is ASCII and has nothing
// in it that could end one, and base64 otherwise.
func quoteTextPS(text string) string {
	ok := isPlain(text)
	for line := range strings.SplitSeq(strings.ReplaceAll(text, "\r", "\n"), "\n") {
		ok = ok && !strings.HasPrefix(line, "'@")
	}
	if ok && !strings.Contains(text, "\r") { // a here-string's own line ends are those of the file
		return "@'\n" + text + "\n'@"
	}
	return "[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String('" + base64.StdEncoding.EncodeToString([]byte(text)) + "'))"
}

// isPlain reports whether text is ASCII without control characters but line ends
// and tabs.
func isPlain(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r >= 0x7f || r < ' ' && r != '\n' && r != '\t' && r != '\r'
	})
}

// commentPS returns lines of comment. Only words of this package come in.
func commentPS(lines ...string) string {
	return "# " + strings.Join(lines, "\n# ") + "\n"
}

// invokePS returns a command with an argument on each line.
func invokePS(command string, args ...string) string {
	return command + " `\n    " + strings.Join(args, " `\n    ") + "\n"
}

// asciiXML returns a document as text in ASCII: characters beyond it become
// references, which mean the same. It fails where XML has no references: in
// names, comments and CDATA sections.
func asciiXML(d *Document) (string, bool) {
	if isPlain(d.Text) {
		return d.Text, true
	}
	for _, n := range d.Nodes {
		if !n.hasASCIINames(d) {
			return d.Text, false
		}
	}
	var b strings.Builder
	for _, r := range d.Text {
		if r < 0x7f {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String(), true
}

// hasASCIINames reports whether all that is neither text nor the value of an
// attribute is ASCII.
func (n *Node) hasASCIINames(d *Document) bool {
	switch n.Kind {
	case TextNode:
		return true
	case ElementNode:
	default:
		return isPlain(d.Text[n.Start:n.End])
	}
	for i := range n.Attrs {
		if !isPlain(n.Attrs[i].Name()) {
			return false
		}
	}
	for _, c := range n.Children {
		if !c.hasASCIINames(d) {
			return false
		}
	}
	return isPlain(n.Name())
}

// encodedCommand returns commands as powershell.exe -EncodedCommand takes them.
func encodedCommand(script string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(script)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return base64.StdEncoding.EncodeToString(b)
}
