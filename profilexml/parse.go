package profilexml

// The parser is this package's own, because a profile must come out byte for
// byte as it went in, with the place of everything in it: that of encoding/xml
// rewrites prefixes and line ends, and lets pass what Windows refuses. What is
// taken here, encoding/xml takes too; a fuzzer holds it to that.

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	cdataStart = "<![CDATA["
	cdataEnd   = "]]>"
	xmlSpace   = "http://www.w3.org/XML/1998/namespace"
)

const (
	// maxAttrs bounds the attributes of one element.
	maxAttrs = 64
	// maxBindings bounds the prefixes in scope. Profiles need ten.
	maxBindings = 64
)

type parser struct {
	doc      *Document
	text     string
	at       int // how far it has been read
	maxDepth int // how many elements may be open

	open *Node // the element that is being read; nil outside the root
	// done are nodes that are complete and whose parent isn't; those in the
	// open elements begin at marks.
	done  []*Node
	marks []int

	nodes    []Node    // where the next nodes come from
	tags     []Tag     // where the next tags come from
	untagged *Tag      // that of nodes which have none of their own
	lists    []*Node   // where the next lists of children come from
	bindings []nsBound // the prefixes in scope, innermost last
	failed   *SyntaxError
}

// nsBound is a prefix that an element declared.
type nsBound struct {
	prefix, space string
	depth         int
}

func (r *Reader) parse(text string, encoding Encoding) (*Document, error) {
	p := &parser{doc: &Document{Encoding: encoding, Text: text, places: newLocator(text)}, text: text, maxDepth: r.maxDepth(), untagged: new(Tag)}
	if i := illegalCharacter(text); i >= 0 {
		c, _ := utf8.DecodeRuneInString(text[i:])
		p.fail(i, "illegal character U+%04X: XML can't hold it", c)
	}
	for p.failed == nil && p.at < len(text) {
		p.next()
	}
	p.finish()
	if p.failed != nil {
		return nil, p.failed
	}
	p.doc.Nodes = p.done
	return p.doc, nil
}

// illegalCharacter returns where a character is that XML can't hold, or -1
// (XML 1.0 §2.2). The text is valid UTF-8.
func illegalCharacter(text string) int {
	for i := range len(text) {
		c := text[i]
		switch {
		case c < ' ' && c != '\t' && c != '\n' && c != '\r':
			return i
		case c == 0xef && (text[i:i+3] == "\ufffe" || text[i:i+3] == "\uffff"):
			return i
		}
	}
	return -1
}

// inXML reports whether XML may hold a character. XML 1.0 §2.2.
func inXML(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000 && r <= utf8.MaxRune
}

func (p *parser) fail(at int, format string, args ...any) {
	if p.failed == nil {
		p.failed = &SyntaxError{Position: p.doc.Position(at), Text: fmt.Sprintf(format, args...)}
	}
}

func (p *parser) finish() {
	switch {
	case p.failed != nil:
	case p.open != nil:
		p.fail(p.open.Start, "<%s> has no end tag", p.open.Name())
	case p.doc.Root == nil:
		p.fail(0, "there is no XML in it: a profile begins with <VPNProfile>")
	}
}

// next reads what comes next.
func (p *parser) next() {
	rest := p.text[p.at:]
	switch {
	case rest[0] != '<':
		end := strings.IndexByte(rest, '<')
		if end < 0 {
			end = len(rest)
		}
		p.charData(p.at + end)
	case strings.HasPrefix(rest, "</"):
		p.endElement()
	case strings.HasPrefix(rest, "<!--"):
		p.comment()
	case strings.HasPrefix(rest, cdataStart):
		p.cdata()
	case strings.HasPrefix(rest, "<?"):
		p.instruction()
	case strings.HasPrefix(rest, "<!"):
		p.fail(p.at, "a document type (<!DOCTYPE>) has no place in a profile: remove it")
	default:
		p.startElement()
	}
}

// add makes a node of what stands from here to end, and goes on there.
func (p *parser) add(kind NodeKind, end int) *Node {
	if len(p.nodes) == 0 {
		p.nodes = make([]Node, 256)
	}
	n := &p.nodes[0]
	p.nodes = p.nodes[1:]
	n.Kind, n.Tag, n.Parent = kind, p.untagged, p.open
	n.Start, n.End = p.at, end
	p.at = end
	if kind == ElementNode || kind == InstructionNode {
		n.Tag = p.tag()
	}
	if kind == CommentNode || kind == InstructionNode {
		p.doc.asides = append(p.doc.asides, n)
	}
	return n
}

// tag returns an empty Tag.
func (p *parser) tag() *Tag {
	if len(p.tags) == 0 {
		p.tags = make([]Tag, 128)
	}
	t := &p.tags[0]
	p.tags = p.tags[1:]
	return t
}

// list returns a list of its own with the nodes that are done since mark.
func (p *parser) list(mark int) []*Node {
	n := len(p.done) - mark
	if n == 0 {
		return nil
	}
	if len(p.lists) < n {
		p.lists = make([]*Node, max(n, 512))
	}
	list := p.lists[:n:n]
	p.lists = p.lists[n:]
	copy(list, p.done[mark:])
	p.done = p.done[:mark]
	return list
}

func (p *parser) charData(end int) {
	raw := p.text[p.at:end]
	if i := strings.Index(raw, cdataEnd); i >= 0 {
		p.fail(p.at+i, "]]> can't stand in text: write ]]&gt;")
		return
	}
	p.references(p.at, end)
	if p.open == nil {
		if rest := strings.TrimLeft(raw, " \t\r\n"); rest != "" {
			p.fail(p.at+len(raw)-len(rest), "text can't stand outside the profile: %.20q", strings.TrimSpace(rest))
		}
	}
	p.done = append(p.done, p.add(TextNode, end))
}

// references checks each &...; between two offsets.
func (p *parser) references(start, end int) {
	for p.failed == nil {
		i := strings.IndexByte(p.text[start:end], '&')
		if i < 0 {
			return
		}
		start += i
		name, _, ok := strings.Cut(p.text[start+1:end], ";")
		if !ok || len(name) > 12 {
			p.fail(start, "an & begins nothing that ends with a semicolon: write & as &amp;")
			return
		}
		if _, ok := reference(name); !ok {
			p.fail(start, "there is no &%s;: write & as &amp;", name)
			return
		}
		start += len(name) + 2
	}
}

// until returns where the first end stands behind at, end included.
func (p *parser) until(at int, end string) (int, bool) {
	i := strings.Index(p.text[at:], end)
	if i < 0 {
		p.cutOff()
		return 0, false
	}
	return at + i + len(end), true
}

func (p *parser) cutOff() { p.fail(len(p.text), "the file ends in the middle") }

func (p *parser) comment() {
	end, ok := p.until(p.at+len("<!--"), "-->")
	if !ok {
		return
	}
	inner := p.text[p.at+len("<!--") : end-len("-->")]
	if i := strings.Index(inner+"-", "--"); i >= 0 {
		p.fail(p.at+len("<!--")+i, "-- can't stand in a comment")
		return
	}
	p.done = append(p.done, p.add(CommentNode, end))
}

func (p *parser) cdata() {
	if p.open == nil {
		p.fail(p.at, "text can't stand outside the profile")
		return
	}
	if end, ok := p.until(p.at+len(cdataStart), cdataEnd); ok {
		p.done = append(p.done, p.add(CDATANode, end))
	}
}

func (p *parser) instruction() {
	end, ok := p.until(p.at+len("<?"), "?>")
	if !ok {
		return
	}
	target, ok := p.name(p.at + len("<?"))
	inner := p.text[p.at+len("<?")+len(target) : end-len("?>")]
	switch {
	case !ok || inner != "" && !isSpace(inner[0]):
		p.fail(p.at, "<? must be followed by a name")
	case strings.EqualFold(target, "xml") && (p.at != 0 || target != "xml"):
		p.fail(p.at, "the XML declaration must be the first thing in the file, and may be left out")
	case target == "xml":
		p.declaration(inner)
	}
	n := p.add(InstructionNode, end)
	n.Local = target
	p.done = append(p.done, n)
}

// declaration checks what is in <?xml ...?>. XML 1.0 §2.8.
func (p *parser) declaration(inner string) {
	var seen []string
	for {
		trimmed := strings.TrimLeft(inner, " \t\r\n")
		if trimmed == "" {
			break
		}
		name, rest, _ := strings.Cut(trimmed, "=")
		name, rest = strings.TrimRight(name, " \t\r\n"), strings.TrimLeft(rest, " \t\r\n")
		if trimmed == inner || rest == "" || rest[0] != '"' && rest[0] != '\'' {
			p.fail(p.at, "the XML declaration must be <?xml version=\"1.0\"?>, and may be left out")
			return
		}
		value, after, _ := strings.Cut(rest[1:], rest[:1])
		if name == "version" && value != "1.0" {
			p.fail(p.at, "the XML declaration must say version 1.0, and may be left out")
			return
		}
		seen = append(seen, name)
		inner = after
	}
	if !slices.Contains([]string{"version", "version encoding", "version standalone", "version encoding standalone"}, strings.Join(seen, " ")) {
		p.fail(p.at, "the XML declaration must be <?xml version=\"1.0\"?>, and may be left out")
	}
}

// name returns the name that stands at an offset, and whether it is one.
func (p *parser) name(at int) (string, bool) {
	end, plain := at, true
	for ; end < len(p.text); end++ {
		c := p.text[end]
		if c >= utf8.RuneSelf {
			plain = false
		} else if !isNameByte(c) {
			break
		}
	}
	name := p.text[at:end]
	if name == "" || name[0] == '-' || name[0] == '.' || name[0] >= '0' && name[0] <= '9' {
		return name, false
	}
	if !plain {
		// Which letters of the world may be in a name, encoding/xml knows.
		t, err := xml.NewDecoder(strings.NewReader("<" + name + "/>")).RawToken()
		_, ok := t.(xml.StartElement)
		return name, err == nil && ok
	}
	return name, true
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == ':' || c == '-' || c == '.'
}

// qname is a name, cut at its colon.
func (p *parser) qname(at int) (prefix, local string, ok bool) {
	name, ok := p.name(at)
	if !ok {
		return "", name, false
	}
	prefix, local, cut := strings.Cut(name, ":")
	if !cut {
		return "", name, true
	}
	first, _ := utf8.DecodeRuneInString(local)
	return prefix, local, prefix != "" && local != "" && !strings.Contains(local, ":") && first != '-' && first != '.' && (first < '0' || first > '9')
}

func (p *parser) startElement() {
	prefix, local, ok := p.qname(p.at + 1)
	switch {
	case p.at+1 == len(p.text):
		p.cutOff()
		return
	case !ok:
		p.fail(p.at, "a < must be followed by the name of an element: write < as &lt; in text")
		return
	case p.open == nil && p.doc.Root != nil:
		p.fail(p.at, "a second <%s> follows the profile: a file holds one", qualified(prefix, local))
		return
	case len(p.marks) == p.maxDepth:
		p.fail(p.at, "elements are nested deeper than %d", p.maxDepth)
		return
	}
	start := p.at
	n := p.add(ElementNode, p.at)
	n.Prefix, n.Local = prefix, local
	p.marks = append(p.marks, len(p.done))
	selfClosed := p.attributes(n, start+1+len(n.Name()))
	if p.failed != nil {
		return
	}
	n.OpenEnd, n.End, n.CloseStart = p.at, p.at, p.at
	n.Space = p.space(n, n.Prefix)
	for i := range n.Attrs {
		if a := &n.Attrs[i]; a.Prefix != "" && !a.declares() {
			p.space(n, a.Prefix)
		}
	}
	switch {
	case p.open != nil:
		n.spec = p.open.spec.child(n.Local, n.Space)
	default:
		p.doc.Root = n
		if n.Local == contentTable.Name && n.Space == "" {
			n.spec = contentTable
		}
	}
	p.open = n
	if selfClosed {
		p.close()
	}
}

// close ends the element that is being read.
func (p *parser) close() {
	n, last := p.open, len(p.marks)-1
	n.Children = p.list(p.marks[last])
	for len(p.bindings) > 0 && p.bindings[len(p.bindings)-1].depth == len(p.marks) {
		p.bindings = p.bindings[:len(p.bindings)-1]
	}
	p.marks = p.marks[:last]
	p.done = append(p.done, n)
	p.open = n.Parent
}

// attributes reads the rest of a start tag, and reports whether it is an end tag
// too.
func (p *parser) attributes(n *Node, at int) (selfClosed bool) {
	for p.failed == nil {
		start := p.skipSpace(at)
		if start == len(p.text) {
			p.cutOff()
			return false
		}
		switch {
		case p.text[start] == '>':
			p.at = start + 1
			return false
		case strings.HasPrefix(p.text[start:], "/>"):
			p.at = start + 2
			return true
		}
		a := Attr{Start: start}
		var ok bool
		if a.Prefix, a.Local, ok = p.qname(start); !ok {
			if start+1 == len(p.text) {
				p.cutOff()
			} else {
				p.fail(start, "%.10q can't stand in the tag of <%s>", p.text[start:min(start+utf8.UTFMax, len(p.text))], n.Name())
			}
			return false
		}
		at = p.attribute(n, &a, at)
	}
	return false
}

// attribute reads an attribute, behind which the next one may stand.
func (p *parser) attribute(n *Node, a *Attr, tagAt int) int {
	equals := p.skipSpace(a.Start + len(a.Name()))
	quoteAt := p.skipSpace(min(equals+1, len(p.text)))
	switch {
	case a.Start == tagAt:
		p.fail(tagAt, "there must be a space before the attribute %s", a.Name())
		return 0
	case quoteAt >= len(p.text):
		p.cutOff()
		return 0
	case p.text[equals] != '=' || p.text[quoteAt] != '"' && p.text[quoteAt] != '\'':
		p.fail(quoteAt, "unquoted or missing value of the attribute %s", a.Name())
		return 0
	}
	a.ValueStart = quoteAt + 1
	end, ok := p.until(a.ValueStart, p.text[quoteAt:quoteAt+1])
	if !ok {
		return 0
	}
	a.ValueEnd, a.End = end-1, end
	raw := p.text[a.ValueStart:a.ValueEnd]
	if i := strings.IndexByte(raw, '<'); i >= 0 {
		p.fail(a.ValueStart+i, "a < can't stand in an attribute: write it as &lt;, if no quotation mark is missing")
		return 0
	}
	p.references(a.ValueStart, a.ValueEnd)
	a.Value = resolve(raw)
	switch {
	case n.Attr(a.Name()) != nil:
		p.fail(a.Start, "<%s> has the attribute %s twice", n.Name(), a.Name())
	case len(n.Attrs) == maxAttrs:
		p.fail(n.Start, "<%s> has more than %d attributes", n.Name(), maxAttrs)
	}
	n.Attrs = append(n.Attrs, *a)
	p.declare(a)
	return end
}

func (p *parser) declare(a *Attr) {
	b := nsBound{"", a.Value, len(p.marks)}
	switch {
	case !a.declares():
		return
	case a.Prefix == "":
	case a.Value == "":
		p.fail(a.Start, "%s declares no namespace", a.Name())
	default:
		b.prefix = a.Local
	}
	if p.bindings = append(p.bindings, b); len(p.bindings) > maxBindings {
		p.fail(a.Start, "more than %d namespaces are declared, one within the other", maxBindings)
	}
}

// skipSpace returns the first offset from at on that isn't white space.
func (p *parser) skipSpace(at int) int {
	for at < len(p.text) && isSpace(p.text[at]) {
		at++
	}
	return at
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// space returns the namespace that a prefix stands for.
func (p *parser) space(n *Node, prefix string) string {
	for i := len(p.bindings) - 1; i >= 0; i-- {
		if p.bindings[i].prefix == prefix {
			return p.bindings[i].space
		}
	}
	switch prefix {
	case "":
		return ""
	case "xml":
		return xmlSpace
	}
	p.fail(n.Start, "the prefix %s of <%s> isn't declared by any xmlns:%s", prefix, n.Name(), prefix)
	return ""
}

func (p *parser) endElement() {
	n := p.open
	name, ok := p.name(p.at + len("</"))
	end := p.skipSpace(p.at + len("</") + len(name))
	switch {
	case end == len(p.text):
		p.cutOff()
	case !ok || p.text[end] != '>':
		p.fail(p.at, "an end tag must be </, a name, and >")
	case n == nil:
		p.fail(p.at, "</%s> ends nothing", name)
	case n.Name() != name:
		p.fail(p.at, "</%s> stands where </%s> must, for <%s> at %v", name, n.Name(), n.Name(), p.doc.Position(n.Start))
	default:
		n.CloseStart, n.End = p.at, end+1
		p.at = n.End
		p.close()
	}
}

// resolve resolves the references in text that was accepted, and makes line ends
// LF, as XML demands.
func resolve(raw string) string {
	if !strings.ContainsAny(raw, "&\r") {
		return raw
	}
	raw = normalNewlines(raw)
	var s strings.Builder
	for {
		before, rest, ok := strings.Cut(raw, "&")
		s.WriteString(before)
		if !ok {
			return s.String()
		}
		name, after, ok := strings.Cut(rest, ";")
		if !ok {
			s.WriteString("&" + rest)
			return s.String()
		}
		text, known := reference(name)
		if !known {
			text = "&" + name + ";"
		}
		s.WriteString(text)
		raw = after
	}
}

func normalNewlines(s string) string {
	if !strings.Contains(s, "\r") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// reference returns what &name; stands for, and false if there is none.
func reference(name string) (string, bool) {
	switch name {
	case "lt":
		return "<", true
	case "gt":
		return ">", true
	case "amp":
		return "&", true
	case "quot":
		return `"`, true
	case "apos":
		return "'", true
	}
	digits, ok := strings.CutPrefix(name, "#")
	base := 10
	if hex, isHex := strings.CutPrefix(digits, "x"); isHex {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(digits, base, 32)
	if !ok || err != nil || n > utf8.MaxRune || !inXML(rune(n)) {
		return "", false
	}
	return string(rune(n)), true
}

// escape writes text so that it can stand between tags and in attributes.
func escape(s string) string {
	if !strings.ContainsAny(s, "&<>\"\r") {
		return s
	}
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\r", "&#13;").Replace(s)
}
