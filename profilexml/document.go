package profilexml

import (
	"fmt"
	"io"
	"strings"
)

// What a document may cost, unless a [Reader] says otherwise.
const (
	// DefaultMaxBytes is the size of the largest file that is read, in bytes.
	DefaultMaxBytes = 16 << 20
	// DefaultMaxDepth is how deep elements may be nested. Profiles need 14.
	DefaultMaxDepth = 64
)

// A Reader reads documents. The zero Reader is ready for use, by many
// goroutines at once.
type Reader struct {
	// MaxBytes bounds the size of a file, in bytes; 0 means DefaultMaxBytes.
	MaxBytes int
	// MaxDepth bounds how deep elements are nested; 0 means DefaultMaxDepth.
	MaxDepth int
}

// A Document is a file of XML that has been read without loss: what it is
// written with, comments, white space, line ends and the byte order mark
// included, comes out again as it went in. A Document doesn't change; see
// [Document.Apply] and [Format].
type Document struct {
	// Encoding is how the file is encoded.
	Encoding Encoding
	// Text is the whole text, without a byte order mark. Offsets refer to it.
	Text string
	// Nodes are the root element, and what stands before and after it.
	Nodes []*Node
	// Root is the root element.
	Root *Node

	places locator
	asides []*Node // comments and instructions, in order
}

// A SyntaxError says why a file is no XML that can be used, and where.
type SyntaxError struct {
	// Position is where.
	Position
	// Text says what is wrong and what to do.
	Text string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Text
	}
	return e.Position.String() + ": " + e.Text
}

// Parse reads a document with the default limits. The error is a *SyntaxError.
func Parse(b []byte) (*Document, error) { return new(Reader).Parse(b) }

// ParseString reads text that is in memory, as if it were a file in UTF-8.
func ParseString(text string) (*Document, error) { return Parse([]byte(text)) }

// Read reads a document from r, which it reads to the end or to the limit.
func (r *Reader) Read(from io.Reader) (*Document, error) {
	b, err := io.ReadAll(io.LimitReader(from, int64(r.maxBytes())+1))
	if err != nil {
		return nil, fmt.Errorf("read the profile: %w", err)
	}
	return r.Parse(b)
}

func (r *Reader) maxBytes() int {
	if r.MaxBytes > 0 {
		return r.MaxBytes
	}
	return DefaultMaxBytes
}

func (r *Reader) maxDepth() int {
	if r.MaxDepth > 0 {
		return r.MaxDepth
	}
	return DefaultMaxDepth
}

// Parse reads a document. The error is a *SyntaxError.
//
// It takes well-formed XML 1.0 in UTF-8 or UTF-16, and no document type: what
// that could declare has no place in a profile and is how parsers are attacked.
func (r *Reader) Parse(b []byte) (*Document, error) {
	if len(b) > r.maxBytes() {
		return nil, &SyntaxError{Text: fmt.Sprintf("the file is larger than %d bytes, so it is no profile", r.maxBytes())}
	}
	text, encoding, err := decodeBytes(b)
	if err != nil {
		return nil, &SyntaxError{Text: err.Error()}
	}
	return r.parse(text, encoding)
}

// Bytes returns the document as a file, byte for byte what was read.
func (d *Document) Bytes() []byte {
	text := make([]byte, 0, len(d.Text))
	for _, n := range d.Nodes {
		text = n.appendTo(text, d.Text)
	}
	if !d.Encoding.wide() {
		return append([]byte(d.Encoding.mark()), text...)
	}
	return appendEncoded([]byte(d.Encoding.mark()), string(text), d.Encoding)
}

// appendTo appends what n is written as, put together from its parts.
func (n *Node) appendTo(b []byte, text string) []byte {
	if n.Kind != ElementNode || n.selfClosed() {
		return append(b, text[n.Start:n.End]...)
	}
	b = append(b, text[n.Start:n.OpenEnd]...)
	for _, c := range n.Children {
		b = c.appendTo(b, text)
	}
	return append(b, text[n.CloseStart:n.End]...)
}

// Position returns where an offset in Text is.
func (d *Document) Position(offset int) Position { return d.places.position(offset) }

// Value returns the text in an element, with references and CDATA sections
// resolved and comments left out, as it is and not trimmed. An element in n
// contributes nothing.
func (d *Document) Value(n *Node) string {
	if n == nil {
		return ""
	}
	if len(n.Children) == 1 && n.Children[0].Kind == TextNode {
		return resolve(d.Text[n.Children[0].Start:n.Children[0].End])
	}
	var s strings.Builder
	for _, c := range n.Children {
		switch c.Kind {
		case TextNode:
			s.WriteString(resolve(d.Text[c.Start:c.End]))
		case CDATANode:
			s.WriteString(normalNewlines(d.Text[c.Start+len(cdataStart) : c.End-len(cdataEnd)]))
		default:
		}
	}
	return s.String()
}

// inner returns what is written between the tags of n.
func (d *Document) inner(n *Node) string {
	if n.selfClosed() {
		return ""
	}
	return d.Text[n.OpenEnd:n.CloseStart]
}

// text returns the trimmed value of an element, "" if there is none.
func (d *Document) text(n *Node) string { return strings.TrimSpace(d.Value(n)) }

// newline returns the line end that the document uses.
func (d *Document) newline() string {
	if i := strings.IndexByte(d.Text, '\n'); i > 0 && d.Text[i-1] == '\r' {
		return "\r\n"
	}
	return "\n"
}
