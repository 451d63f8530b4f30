package profilexml

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// Apply returns the document with edits made, which may come in any order and
// must not overlap. All that no edit covers stays as it is, byte for byte.
func (d *Document) Apply(edits ...Edit) (*Document, error) {
	sorted := slices.Clone(edits)
	slices.SortStableFunc(sorted, func(a, b Edit) int { return a.Start - b.Start })
	var s strings.Builder
	at := 0
	for _, e := range sorted {
		if e.Start < at || e.End < e.Start || e.End > len(d.Text) {
			return nil, fmt.Errorf("an edit of %d to %d overlaps another, or isn't within the text", e.Start, e.End)
		}
		s.WriteString(d.Text[at:e.Start])
		s.WriteString(e.Text)
		at = e.End
	}
	s.WriteString(d.Text[at:])
	return d.with(s.String(), d.Encoding)
}

// with reads a changed text of the document.
func (d *Document) with(text string, e Encoding) (*Document, error) {
	b := appendEncoded([]byte(e.mark()), text, e)
	return (&Reader{MaxBytes: max(len(b), DefaultMaxBytes), MaxDepth: max(d.depth()+1, DefaultMaxDepth)}).Parse(b)
}

// maxRounds bounds how often Fix looks again at what it has changed. One fix may
// make room for another; a handful of rounds is the most that was seen.
const maxRounds = 50

// Fix sets right what can be set right safely, and returns the new document and
// what was fixed, at the positions in the text it then was. All else stays as it
// is, byte for byte. To fix what was fixed changes nothing.
func (c *Checker) Fix(d *Document) (*Document, []Finding, error) {
	var fixed []Finding
	for range maxRounds {
		edits, done, reencode := chooseFixes(c.check(d, 0))
		if len(done) == 0 {
			return d, fixed, nil
		}
		next, err := d.Apply(edits...)
		if err != nil {
			return d, fixed, fmt.Errorf("fix the profile: %w", err)
		}
		if reencode {
			if next, err = next.with(next.Text, UTF8); err != nil {
				return d, fixed, fmt.Errorf("fix the profile: %w", err)
			}
		}
		d, fixed = next, append(fixed, done...)
	}
	return d, fixed, errors.New("fix the profile: each fix asks for another one")
}

// chooseFixes takes the fixes that don't get in each other's way. The edits come
// back in the order of the text.
func chooseFixes(list []Finding) (edits []Edit, done []Finding, reencode bool) {
	for _, f := range list {
		switch {
		case f.reencode:
			reencode = true
			done = append(done, f)
		case len(f.Fix) > 0 && !slices.ContainsFunc(f.Fix, func(e Edit) bool { return overlaps(edits, e) }):
			for _, e := range f.Fix {
				edits = slices.Insert(edits, place(edits, e), e)
			}
			done = append(done, f)
		}
	}
	return edits, done, reencode
}

// place is where an edit belongs in a list in the order of the text. The list
// mostly grows at its end.
func place(sorted []Edit, e Edit) int {
	return sort.Search(len(sorted), func(i int) bool { return sorted[i].Start > e.Start })
}

// overlaps reports whether e touches one of a list in the order of the text, in
// which none touches another.
func overlaps(sorted []Edit, e Edit) bool {
	i := sort.Search(len(sorted), func(i int) bool { return sorted[i].End >= e.Start })
	return i < len(sorted) && sorted[i].Start <= e.End
}

// setValue has an element hold a text.
func (k *check) setValue(n *Node, text string) []Edit {
	if n.selfClosed() {
		return []Edit{{n.Start, n.End, "<" + n.Name() + ">" + escape(text) + "</" + n.Name() + ">"}}
	}
	return []Edit{{n.OpenEnd, n.CloseStart, escape(text)}}
}

// remove takes a node out, with the line it leaves empty.
func (k *check) remove(n *Node) []Edit {
	start := n.Start
	for start > 0 && (k.doc.Text[start-1] == ' ' || k.doc.Text[start-1] == '\t') {
		start--
	}
	end := n.End
	for end < len(k.doc.Text) && (k.doc.Text[end] == ' ' || k.doc.Text[end] == '\t') {
		end++
	}
	alone := end == len(k.doc.Text) || k.doc.Text[end] == '\n' || k.doc.Text[end] == '\r'
	switch {
	case alone && start > 0 && k.doc.Text[start-1] == '\n':
		start--
		if start > 0 && k.doc.Text[start-1] == '\r' {
			start--
		}
		return []Edit{{start, end, ""}}
	case alone && start == 0: // the first line: its end goes too
		if strings.HasPrefix(k.doc.Text[end:], "\r") {
			end++
		}
		if strings.HasPrefix(k.doc.Text[end:], "\n") {
			end++
		}
		return []Edit{{start, end, ""}}
	}
	return []Edit{{n.Start, n.End, ""}}
}

// rename gives an element another name.
func (k *check) rename(n *Node, local string) []Edit {
	name := qualified(n.Prefix, local)
	edits := []Edit{{n.Start + 1, n.Start + 1 + len(n.Name()), name}}
	if !n.selfClosed() {
		edits = append(edits, Edit{n.CloseStart + 2, n.CloseStart + 2 + len(n.Name()), name})
	}
	return edits
}

// space returns the white space before a node, which one after it may copy.
func (k *check) space(n *Node) string {
	start := n.Start
	for start > 0 && isSpace(k.doc.Text[start-1]) {
		start--
	}
	return k.doc.Text[start:n.Start]
}

// insertAfter puts an element behind another one, and indents it like that.
func (k *check) insertAfter(n *Node, xml string) []Edit {
	return []Edit{{n.End, n.End, k.space(n) + xml}}
}
