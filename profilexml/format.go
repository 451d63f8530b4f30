package profilexml

import (
	"slices"
	"strings"
)

// A Style is how a document is laid out.
type Style struct {
	// Order is that of the elements; what isn't known stays behind the element
	// that it followed.
	Order Order
	// Indent is put before elements, once for each level they are in; empty
	// makes one line of the document.
	Indent string
	// DropComments leaves comments out. MDM wants none, and Windows doesn't
	// keep them.
	DropComments bool
	// DropDeclaration leaves the XML declaration and other instructions out.
	DropDeclaration bool
}

// EditorStyle is for people: indented, in the order of reading back, with
// comments.
func EditorStyle() Style { return Style{Indent: "  "} }

// ChannelStyle is what a channel takes best: one line, in the order of reading
// back, without comments and declarations.
func ChannelStyle() Style { return Style{DropComments: true, DropDeclaration: true} }

// Format lays a document out anew. Values, attributes and the inside of elements
// that aren't known stay as they are written; spaces between elements don't. To
// format what was formatted changes nothing.
func Format(d *Document, s Style) *Document {
	f := &formatter{doc: d, style: s, newline: d.newline(), trailing: map[*Node]bool{}}
	for _, n := range d.Nodes {
		if n.Kind == TextNode {
			continue
		}
		f.piece(n, 0)
	}
	if s.Indent != "" {
		f.out.WriteString(f.newline)
	}
	encoding := d.Encoding
	if s.DropDeclaration {
		encoding = UTF8
	}
	// The pieces are those of a well-formed document, so that this one is too,
	// and no larger limits are met.
	text := f.out.String()
	out, err := (&Reader{MaxBytes: 4*len(text) + 4, MaxDepth: d.depth()}).Parse(appendEncoded([]byte(encoding.mark()), text, encoding))
	if err != nil {
		return d // not reached; a test tries
	}
	return out
}

// depth returns how deep elements are nested.
func (d *Document) depth() int {
	var deepest func(n *Node) int
	deepest = func(n *Node) int {
		most := 0
		for _, c := range n.Children {
			if c.Kind == ElementNode {
				most = max(most, deepest(c))
			}
		}
		return most + 1
	}
	return deepest(d.Root)
}

type formatter struct {
	doc     *Document
	style   Style
	newline string
	out     strings.Builder
	// trailing are the comments that stay in the line of the element before
	// them, and so belong to it.
	trailing map[*Node]bool
}

// breakLine begins a new line for something at a depth.
func (f *formatter) breakLine(depth int) {
	if f.style.Indent == "" || f.out.Len() == 0 {
		return
	}
	f.out.WriteString(f.newline)
	for range depth {
		f.out.WriteString(f.style.Indent)
	}
}

func (f *formatter) raw(n *Node) string { return f.doc.Text[n.Start:n.End] }

// piece writes a node that stands among elements.
func (f *formatter) piece(n *Node, depth int) {
	switch n.Kind {
	case ElementNode:
		f.breakLine(depth)
		f.element(n, depth)
	case CommentNode:
		if f.style.DropComments {
			return
		}
		if f.trailing[n] {
			f.out.WriteString(" ")
		} else {
			f.breakLine(depth)
		}
		f.out.WriteString(f.raw(n))
	case InstructionNode:
		if f.style.DropDeclaration {
			return
		}
		f.breakLine(depth)
		f.out.WriteString(f.raw(n))
	case TextNode:
		if text := strings.Trim(f.raw(n), " \t\r\n"); text != "" {
			f.breakLine(depth)
			f.out.WriteString(text)
		}
	case CDATANode:
		f.breakLine(depth)
		f.out.WriteString(f.raw(n))
	}
}

// startTag writes a start tag with single spaces, without its end.
func (f *formatter) startTag(n *Node) {
	f.out.WriteString("<" + n.Name())
	for _, a := range n.Attrs {
		quote := f.doc.Text[a.ValueEnd : a.ValueEnd+1]
		f.out.WriteString(" " + a.Name() + "=" + quote + f.doc.Text[a.ValueStart:a.ValueEnd] + quote)
	}
}

func (f *formatter) element(n *Node, depth int) {
	f.startTag(n)
	if n.selfClosed() {
		f.out.WriteString("/>")
		return
	}
	f.out.WriteString(">")
	switch {
	case !f.isGroup(n):
		f.leaf(n)
	default:
		before := f.out.Len()
		for _, u := range f.units(n) {
			for _, c := range u.nodes {
				f.piece(c, depth+1)
			}
		}
		if f.out.Len() > before {
			f.breakLine(depth)
		}
	}
	f.out.WriteString("</" + n.Name() + ">")
}

// leaf writes what is in an element that holds a value.
func (f *formatter) leaf(n *Node) {
	for _, c := range n.Children {
		if c.Kind == CommentNode && f.style.DropComments {
			continue
		}
		f.out.WriteString(f.raw(c))
	}
}

// isGroup reports whether n holds elements and no value, so that spaces in it
// mean nothing. Of what isn't known, nobody can say so.
func (f *formatter) isGroup(n *Node) bool {
	if n.spec != nil {
		return n.spec.Type == Group
	}
	if !n.hasElements() || n.Parent == nil {
		return n.hasElements()
	}
	return !insideLeaf(n)
}

// insideLeaf reports whether n is in an element that should hold text, such as
// the raw XML in a CustomConfiguration.
func insideLeaf(n *Node) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if p.spec != nil {
			return p.spec.Type != Group
		}
	}
	return false
}

// A unit is an element with the comments that belong to it.
type unit struct {
	nodes []*Node
	rank  int
}

// units cuts the children of n into what moves together, in the right order.
func (f *formatter) units(n *Node) []unit {
	var list []unit
	var waiting []*Node // comments before the next element
	rank := -1
	sameLine := false // as the last element
	for _, c := range n.Children {
		switch {
		case c.Kind == TextNode && strings.Trim(f.raw(c), " \t\r\n") == "":
			sameLine = sameLine && !strings.ContainsAny(f.raw(c), "\r\n")
		case c.Kind == ElementNode:
			if c.spec != nil {
				rank = f.style.Order.rank(c.spec)
			}
			list = append(list, unit{append(waiting, c), rank})
			waiting, sameLine = nil, true
		case c.Kind == CommentNode && sameLine:
			last := &list[len(list)-1]
			last.nodes = append(last.nodes, c)
			f.trailing[c] = f.style.Indent != ""
			sameLine = false
		default:
			sameLine = false
			waiting = append(waiting, c)
		}
	}
	if f.style.Order != OrderKeep && (n.spec != nil) {
		slices.SortStableFunc(list, func(a, b unit) int { return a.rank - b.rank })
	}
	if len(waiting) > 0 {
		list = append(list, unit{waiting, 0})
	}
	return list
}
