package profilexml

// Reading is done in two layers. The Decoder of encoding/xml finds the tokens
// and checks their inside: names, references, characters, comments. RawToken
// with InputOffset says where each begins and ends, so that nothing is lost to
// the Decoder's own idea of what matters (it rewrites prefixes, and CR LF).
// What RawToken doesn't check is done here: that tags match, that there is one
// root, that attributes are apart and differ, that prefixes are declared.

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	cdataStart = "<![CDATA["
	cdataEnd   = "]]>"
	xmlSpace   = "http://www.w3.org/XML/1998/namespace"
)

// maxAttrs bounds the attributes of one element.
const maxAttrs = 64

type parser struct {
	doc      *Document
	open     *Node     // the element that is being read; nil outside the root
	depth    int       // how many are open
	maxDepth int       // how many may be
	slab     []Node    // where the next nodes come from
	bindings []nsBound // the prefixes in scope, innermost last
	failed   *SyntaxError
}

// nsBound is a prefix that an element declared.
type nsBound struct {
	prefix, space string
	depth         int
}

func (r *Reader) parse(text string, encoding Encoding) (*Document, error) {
	p := &parser{doc: &Document{Encoding: encoding, Text: text, lines: lineStarts(text)}, maxDepth: r.maxDepth()}
	d := xml.NewDecoder(strings.NewReader(text))
	// The text is UTF-8 by now, whatever the declaration says it was.
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
	for p.failed == nil {
		start := int(d.InputOffset())
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		end := int(d.InputOffset())
		if err != nil {
			p.decoderFailed(err, start, min(end, len(text)))
			break
		}
		p.token(t, start, end)
	}
	p.finish()
	if p.failed != nil {
		return nil, p.failed
	}
	p.doc.Root.assignSpecs()
	return p.doc, nil
}

func (p *parser) fail(at int, format string, args ...any) {
	if p.failed == nil {
		p.failed = &SyntaxError{Position: p.doc.Position(at), Text: fmt.Sprintf(format, args...)}
	}
}

// decoderFailed puts an error of the Decoder into words. It came up in the token
// that begins at start, after end had been read.
func (p *parser) decoderFailed(err error, start, end int) {
	text := err.Error()
	if s := (*xml.SyntaxError)(nil); errors.As(err, &s) {
		text = s.Msg
	}
	read := p.doc.Text[start:end]
	switch {
	case strings.Contains(text, "unexpected EOF"):
		p.fail(end, "the file ends in the middle")
	case strings.HasPrefix(text, "invalid character entity") || strings.Contains(text, "no semicolon"):
		p.fail(start+max(strings.LastIndexByte(read, '&'), 0), "%s: write & as &amp;", text)
	case strings.HasPrefix(text, "illegal character"):
		p.fail(start+max(strings.IndexFunc(read, func(r rune) bool { return !inXML(r) }), 0), "%s", text)
	case strings.Contains(text, "not allowed in comments"):
		p.fail(start+max(strings.LastIndex(read, "--"), 0), "%s", text)
	case strings.Contains(text, "]]>"):
		p.fail(start+max(strings.LastIndex(read, cdataEnd), 0), "%s", text)
	default: // what was read last is what was wrong
		_, size := utf8.DecodeLastRuneInString(read)
		p.fail(end-size, "%s", text)
	}
}

// inXML reports whether XML may hold a character. XML 1.0 §2.2.
func inXML(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r <= 0xd7ff || r >= 0xe000 && r <= 0xfffd || r >= 0x10000
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

func (p *parser) token(t xml.Token, start, end int) {
	text := p.doc.Text
	switch t := t.(type) {
	case xml.StartElement:
		p.startElement(t, start, end)
	case xml.EndElement:
		p.endElement(t, start, end)
	case xml.CharData:
		p.charData(start, end)
	case xml.Comment:
		p.add(CommentNode, start, end)
	case xml.ProcInst:
		if strings.EqualFold(t.Target, "xml") && (start != 0 || t.Target != "xml") {
			p.fail(start, "the XML declaration must be the first thing in the file, and may be left out")
		}
		p.add(InstructionNode, start, end).Local = t.Target
	case xml.Directive:
		p.fail(start, "a document type (<!DOCTYPE>) has no place in a profile: remove it")
	default:
		p.fail(start, "unexpected %.20q", text[start:end])
	}
}

// add makes a node where the reader is.
func (p *parser) add(kind NodeKind, start, end int) *Node {
	if len(p.slab) == 0 {
		p.slab = make([]Node, 256)
	}
	n := &p.slab[0]
	p.slab = p.slab[1:]
	*n = Node{Kind: kind, Parent: p.open, Start: start, End: end, OpenEnd: end, CloseStart: end}
	if p.open != nil {
		p.open.Children = append(p.open.Children, n)
	} else {
		p.doc.Nodes = append(p.doc.Nodes, n)
	}
	return n
}

func (p *parser) charData(start, end int) {
	raw := p.doc.Text[start:end]
	kind := TextNode
	if strings.HasPrefix(raw, cdataStart) {
		kind = CDATANode
	}
	if p.open == nil {
		if kind == CDATANode {
			p.fail(start, "text can't stand outside the profile")
		} else if rest := strings.TrimLeft(raw, " \t\r\n"); rest != "" {
			p.fail(start+len(raw)-len(rest), "text can't stand outside the profile: %.20q", strings.TrimSpace(rest))
		}
	}
	p.add(kind, start, end)
}

func (p *parser) startElement(t xml.StartElement, start, end int) {
	if p.open == nil && p.doc.Root != nil {
		p.fail(start, "a second <%s> follows the profile: a file holds one", qualified(t.Name.Space, t.Name.Local))
		return
	}
	if p.depth++; p.depth > p.maxDepth {
		p.fail(start, "elements are nested deeper than %d", p.maxDepth)
		return
	}
	n := p.add(ElementNode, start, end)
	n.Prefix, n.Local = t.Name.Space, t.Name.Local
	if p.open == nil {
		p.doc.Root = n
	}
	p.open = n
	if len(t.Attr) > 0 {
		p.attributes(n, t.Attr)
	}
	n.Space = p.space(n, n.Prefix)
	for i := range n.Attrs {
		if a := &n.Attrs[i]; a.Prefix != "" && !a.declares() {
			p.space(n, a.Prefix)
		}
	}
}

// attributes fills in what the Decoder doesn't say: where attributes stand.
func (p *parser) attributes(n *Node, attrs []xml.Attr) {
	if len(attrs) > maxAttrs {
		p.fail(n.Start, "<%s> has more than %d attributes", n.Name(), maxAttrs)
		return
	}
	n.Attrs = make([]Attr, 0, len(attrs))
	at := n.Start + 1 + len(n.Name())
	for _, x := range attrs {
		a := Attr{Prefix: x.Name.Space, Local: x.Name.Local, Value: x.Value}
		a.Start = p.skipSpace(at)
		if a.Start == at {
			p.fail(at, "there must be a space before the attribute %s", a.Name())
			return
		}
		equals := p.skipSpace(a.Start + len(a.Name()))
		a.ValueStart = p.skipSpace(equals+1) + 1
		quote := p.doc.Text[a.ValueStart-1]
		if p.doc.Text[equals] != '=' || quote != '"' && quote != '\'' {
			p.fail(a.Start, "the attribute %s has no value in quotes", a.Name())
			return
		}
		a.ValueEnd = a.ValueStart + strings.IndexByte(p.doc.Text[a.ValueStart:], quote)
		a.End = a.ValueEnd + 1
		at = a.End
		if n.Attr(a.Name()) != nil {
			p.fail(a.Start, "<%s> has the attribute %s twice", n.Name(), a.Name())
			return
		}
		n.Attrs = append(n.Attrs, a)
		p.declare(&a)
	}
}

func (p *parser) declare(a *Attr) {
	switch {
	case !a.declares():
	case a.Prefix == "":
		p.bindings = append(p.bindings, nsBound{"", a.Value, p.depth})
	case a.Value == "":
		p.fail(a.Start, "%s declares no namespace", a.Name())
	default:
		p.bindings = append(p.bindings, nsBound{a.Local, a.Value, p.depth})
	}
}

// skipSpace returns the first offset from at on that isn't white space. There
// always is one within a tag.
func (p *parser) skipSpace(at int) int {
	for at < len(p.doc.Text)-1 && isSpace(p.doc.Text[at]) {
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

func (p *parser) endElement(t xml.EndElement, start, end int) {
	n := p.open
	name := qualified(t.Name.Space, t.Name.Local)
	switch {
	case n == nil:
		p.fail(start, "</%s> ends nothing", name)
		return
	case n.Name() != name:
		p.fail(start, "</%s> stands where </%s> must, for <%s> at %v", name, n.Name(), n.Name(), p.doc.Position(n.Start))
		return
	}
	n.CloseStart, n.End = start, end
	if start == end { // <like-this/>, of which the Decoder makes two tokens
		n.OpenEnd, n.CloseStart = end, end
	}
	p.open = n.Parent
	for len(p.bindings) > 0 && p.bindings[len(p.bindings)-1].depth == p.depth {
		p.bindings = p.bindings[:len(p.bindings)-1]
	}
	p.depth--
}

// resolve resolves the references in text that the Decoder has accepted, and
// makes line ends LF, as XML demands.
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
		s.WriteString(reference(name))
		raw = after
	}
}

func normalNewlines(s string) string {
	if !strings.Contains(s, "\r") {
		return s
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
}

// reference returns what &name; stands for.
func reference(name string) string {
	switch name {
	case "lt":
		return "<"
	case "gt":
		return ">"
	case "amp":
		return "&"
	case "quot":
		return `"`
	case "apos":
		return "'"
	}
	var r rune
	var err error
	if hex, ok := strings.CutPrefix(name, "#x"); ok {
		_, err = fmt.Sscanf(hex, "%x", &r)
	} else {
		_, err = fmt.Sscanf(name, "#%d", &r)
	}
	if err != nil {
		return "&" + name + ";"
	}
	return string(r)
}

// escape writes text so that it can stand between tags and in attributes.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "\r", "&#13;").Replace(s)
}
