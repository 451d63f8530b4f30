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
	var chosen editSet
	for _, f := range list {
		switch {
		case f.reencode:
			reencode = true
			done = append(done, f)
		case len(f.Fix) > 0 && !slices.ContainsFunc(f.Fix, func(e Edit) bool { return chosen.touches(e, f.stacks) }):
			for _, e := range f.Fix {
				chosen.add(e, f.stacks)
			}
			done = append(done, f)
		}
	}
	return chosen.sorted(), done, reencode
}

// An editSet are edits of which none touches another, but for those that may.
//
// Fixes are found in the order of the text, and yet what one puts in somewhere
// else stands out of it. So the set is several lists, each of them in order:
// mostly one, two where everything is moved to the end, and never many.
type editSet struct{ lists [][]chosenEdit }

// A chosenEdit is an Edit, and whether it stacks, as in [Finding].
type chosenEdit struct {
	Edit
	stacks bool
}

// maxEditLists bounds how many lists are tried before an edit is put into the
// middle of the last one.
const maxEditLists = 8

func (s *editSet) add(e Edit, stacks bool) {
	for i, list := range s.lists {
		if list[len(list)-1].Start <= e.Start {
			s.lists[i] = append(list, chosenEdit{e, stacks})
			return
		}
	}
	if len(s.lists) < maxEditLists {
		s.lists = append(s.lists, []chosenEdit{{e, stacks}})
		return
	}
	last := &s.lists[maxEditLists-1]
	*last = slices.Insert(*last, sort.Search(len(*last), func(i int) bool { return (*last)[i].Start > e.Start }), chosenEdit{e, stacks})
}

// touches reports whether an edit touches one of the set. Two that only take
// something away may stand side by side, and those that stack may go to one place.
func (s *editSet) touches(e Edit, stacks bool) bool {
	for _, list := range s.lists {
		i := sort.Search(len(list), func(i int) bool { return list[i].End >= e.Start })
		for ; i < len(list) && list[i].Start <= e.End; i++ {
			switch o := &list[i]; {
			case stacks && o.stacks && e.Start == e.End && o.Start == e.Start && o.End == e.End:
				return false // for what touches this place touches the other edit too
			case e.removes() && o.removes() && (o.End == e.Start || e.End == o.Start):
			default:
				return true
			}
		}
	}
	return false
}

// removes reports whether an edit takes something away and does nothing else.
func (e *Edit) removes() bool { return e.Text == "" && e.Start < e.End }

// sorted returns the edits in the order of the text; those that go to one place,
// in the order in which they came.
func (s *editSet) sorted() []Edit {
	var edits []Edit
	for _, list := range s.lists {
		for _, e := range list {
			edits = append(edits, e.Edit)
		}
	}
	slices.SortStableFunc(edits, func(a, b Edit) int { return a.Start - b.Start })
	return edits
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

// maxSpace bounds the white space that is copied, in bytes.
const maxSpace = 200

// space returns the white space before a node, which one after it may copy: of
// very much, the last line end and what follows.
func (k *check) space(n *Node) string {
	start, least := n.Start, max(0, n.Start-maxSpace)
	for start > least && isSpace(k.doc.Text[start-1]) {
		start--
	}
	space := k.doc.Text[start:n.Start]
	if i := strings.LastIndexByte(space, '\n'); start == least && i > 0 {
		if space[i-1] == '\r' {
			i--
		}
		return space[i:]
	}
	return space
}

// insertAfter puts an element behind another one, and indents it like that.
func (k *check) insertAfter(n *Node, xml string) []Edit {
	return []Edit{{n.End, n.End, k.space(n) + xml}}
}
