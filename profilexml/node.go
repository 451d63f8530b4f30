package profilexml

import (
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A NodeKind says what a Node is.
type NodeKind uint8

const (
	// ElementNode is an element, with everything in it.
	ElementNode NodeKind = iota
	// TextNode is text between tags, white space too, with its references
	// not resolved.
	TextNode
	// CDATANode is a CDATA section.
	CDATANode
	// CommentNode is a comment.
	CommentNode
	// InstructionNode is a processing instruction, or the XML declaration.
	InstructionNode
)

// An Attr is an attribute of an element.
type Attr struct {
	// Prefix and Local are its name as written.
	Prefix, Local string
	// Value is its value, with references resolved.
	Value string
	// Start and End are where it stands, as offsets in [Document.Text];
	// ValueStart and ValueEnd are the value between its quotes.
	Start, End, ValueStart, ValueEnd int
}

// Name returns the name as it is written.
func (a *Attr) Name() string { return qualified(a.Prefix, a.Local) }

// declares reports whether a is a declaration of a namespace.
func (a *Attr) declares() bool { return a.Prefix == "xmlns" || a.Prefix == "" && a.Local == "xmlns" }

// A Node is a piece of a document and knows where it stands. All offsets count
// bytes of [Document.Text].
type Node struct {
	// Kind says which of the other fields mean something.
	Kind NodeKind
	// Tag is what an element has beyond its place, and never nil. That of text,
	// of which there is much, is empty, and all text has the same.
	*Tag
	// Parent is the element that it is in, nil outside the root.
	Parent *Node
	// Start and End are the whole node, tags included.
	Start, End int
}

// A Tag is what an element says of itself, and what it holds.
type Tag struct {
	// Prefix and Local are the name of an element as written. Of an
	// instruction, Local is the target.
	Prefix, Local string
	// Space is the namespace that an element is in.
	Space string
	// Attrs are the attributes of an element.
	Attrs []Attr
	// Children are what is in an element, in order.
	Children []*Node
	// OpenEnd is where the start tag of an element ends, and CloseStart where
	// its end tag begins. Both are End if it is written <like-this/>.
	OpenEnd, CloseStart int

	spec *Element // what the content table says of it; nil if it is unknown there
}

// Name returns the name as it is written.
func (n *Node) Name() string { return qualified(n.Prefix, n.Local) }

func qualified(prefix, local string) string {
	if prefix == "" {
		return local
	}
	return prefix + ":" + local
}

// Attr returns the attribute of that name, or nil.
func (n *Node) Attr(name string) *Attr {
	for i := range n.Attrs {
		if n.Attrs[i].Name() == name {
			return &n.Attrs[i]
		}
	}
	return nil
}

// Spec returns the entry of the content table for an element, or nil if it isn't
// known where it stands.
func (n *Node) Spec() *Element { return n.spec }

// selfClosed reports whether the element is written <like-this/>.
func (n *Node) selfClosed() bool { return n.OpenEnd == n.End }

// child returns the first child element of that name, whatever its namespace.
func (n *Node) child(local string) *Node {
	if n == nil {
		return nil
	}
	for _, c := range n.Children {
		if c.Kind == ElementNode && c.Local == local {
			return c
		}
	}
	return nil
}

// all returns the child elements of that name.
func (n *Node) all(local string) []*Node {
	var list []*Node
	if n == nil {
		return nil
	}
	for _, c := range n.Children {
		if c.Kind == ElementNode && c.Local == local {
			list = append(list, c)
		}
	}
	return list
}

// at returns the element that a path of names leads to, or nil.
func (n *Node) at(path string) *Node {
	for name := range strings.SplitSeq(path, "/") {
		if n = n.child(name); n == nil {
			return nil
		}
	}
	return n
}

// hasElements reports whether there are elements in n.
func (n *Node) hasElements() bool {
	for _, c := range n.Children {
		if c.Kind == ElementNode {
			return true
		}
	}
	return false
}

// Path returns the names from the root to n, such as
// VPNProfile/Route[2]/Address. An element is counted where others have its name.
func (n *Node) Path() string {
	if n.Parent == nil {
		return n.Name()
	}
	same, index := 0, 0
	for _, c := range n.Parent.Children {
		if c.Kind == ElementNode && c.Local == n.Local && c.Prefix == n.Prefix {
			same++
			if c == n {
				index = same
			}
		}
	}
	if same > 1 {
		return n.Parent.Path() + "/" + n.Name() + "[" + strconv.Itoa(index) + "]"
	}
	return n.Parent.Path() + "/" + n.Name()
}

// paths names nodes as Path does, and counts the children of an element once for
// all of them.
type paths struct {
	counted map[*Node]bool
	index   map[*Node]int // of those that have others of their name beside them
}

func (p *paths) of(n *Node) string {
	if n.Parent == nil {
		return n.Name()
	}
	if !p.counted[n.Parent] {
		p.count(n.Parent)
	}
	if i := p.index[n]; i > 0 {
		return p.of(n.Parent) + "/" + n.Name() + "[" + strconv.Itoa(i) + "]"
	}
	return p.of(n.Parent) + "/" + n.Name()
}

func (p *paths) count(parent *Node) {
	if p.counted == nil {
		p.counted, p.index = map[*Node]bool{}, map[*Node]int{}
	}
	p.counted[parent] = true
	same := map[string][]*Node{}
	for _, c := range parent.Children {
		if c.Kind == ElementNode {
			same[c.Name()] = append(same[c.Name()], c)
		}
	}
	for _, list := range same {
		for i, c := range list {
			if len(list) > 1 {
				p.index[c] = i + 1
			}
		}
	}
}

// A Position is a place in a file, counted in lines and characters from 1. The
// zero Position is no place.
type Position struct {
	// Line counts from 1. LF, CR LF and CR end one.
	Line int `json:"line"`
	// Column counts characters, not bytes, from 1.
	Column int `json:"column"`
}

// String returns "line:column".
func (p Position) String() string { return strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column) }

// lineStarts are the offsets at which lines begin: after LF, CR LF and CR.
func lineStarts(text string) []int {
	starts := make([]int, 1, 2+strings.Count(text, "\n"))
	if strings.IndexByte(text, '\r') < 0 {
		for at := 0; ; {
			i := strings.IndexByte(text[at:], '\n')
			if i < 0 {
				return starts
			}
			at += i + 1
			starts = append(starts, at)
		}
	}
	for i := range len(text) {
		if text[i] == '\n' || text[i] == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			starts = append(starts, i+1)
		}
	}
	return starts
}

// A locator finds the position of an offset without reading the lines before it,
// nor, since a profile may be one line, much of its own.
type locator struct {
	text  string
	lines []int // where each line begins
	// runes are the numbers of characters before each multiple of countedBytes;
	// nil if there are as many as bytes.
	runes []int
}

// countedBytes is how far apart the places are that a locator knows.
const countedBytes = 512

func newLocator(text string) locator {
	l := locator{text: text, lines: lineStarts(text)}
	if isASCII(text) {
		return l
	}
	n := 0
	for at := 0; at < len(text); at += countedBytes {
		l.runes = append(l.runes, n)
		n += startedRunes(text[at:min(at+countedBytes, len(text))])
	}
	return l
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// startedRunes counts the characters that begin in a piece of UTF-8.
func startedRunes(piece string) int {
	n := 0
	for i := range len(piece) {
		if utf8.RuneStart(piece[i]) {
			n++
		}
	}
	return n
}

// before counts the characters that begin before an offset.
func (l *locator) before(offset int) int {
	if l.runes == nil {
		return offset
	}
	i := min(offset/countedBytes, len(l.runes)-1)
	return l.runes[i] + startedRunes(l.text[i*countedBytes:offset])
}

func (l *locator) position(offset int) Position {
	offset = min(max(offset, 0), len(l.text))
	line := sort.SearchInts(l.lines, offset+1) - 1
	return Position{line + 1, l.before(offset) - l.before(l.lines[line]) + 1}
}
