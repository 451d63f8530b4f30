package rasphone

import (
	"bytes"
	"fmt"
	"strings"
)

// How far apart two phone books may drift before a difference is taken for a
// rewrite, and how many lines stand around a difference, in lines.
const (
	farthest = 400
	around   = 2
)

// Diff shows how the phone book b differs from a, in the form of diff -u, with
// the entry that each difference is in. It is empty if they are equal byte for
// byte. Secrets and control characters aren't shown, and a difference in line
// ends alone is named.
func Diff(a, b *Phonebook, nameA, nameB string) string {
	if bytes.Equal(a.data, b.data) {
		return ""
	}
	d := &differ{a: a, b: b, left: splitLines(a.data), right: splitLines(b.data)}
	d.run()
	var s strings.Builder
	fmt.Fprintf(&s, "--- %s\n+++ %s\n", printable(nameA), printable(nameB))
	for i := 0; i < len(d.hunks); {
		j := i + 1
		for j < len(d.hunks) && d.hunks[j].a0-d.hunks[j-1].a1 <= 2*around {
			j++
		}
		d.print(&s, d.hunks[i:j])
		i = j
	}
	return s.String()
}

// splitLines returns the lines of a file, with their ends.
func splitLines(data []byte) [][]byte {
	list := make([][]byte, 0, 1+bytes.Count(data, []byte("\n")))
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n') + 1
		if n == 0 {
			n = len(data)
		}
		list, data = append(list, data[:n]), data[n:]
	}
	return list
}

// A hunk says that lines a0 to a1 became lines b0 to b1.
type hunk struct{ a0, a1, b0, b1 int }

type differ struct {
	a, b        *Phonebook
	left, right [][]byte
	hunks       []hunk

	line, offset, entry int // how far entryAt has come
}

// run finds the hunks: where lines differ, it looks for the nearest place where
// two lines agree again.
func (d *differ) run() {
	i, j := 0, 0
	for i < len(d.left) || j < len(d.right) {
		if i < len(d.left) && j < len(d.right) && bytes.Equal(d.left[i], d.right[j]) {
			i, j = i+1, j+1
			continue
		}
		x, y := d.resume(i, j)
		d.hunks = append(d.hunks, hunk{i, x, j, y})
		i, j = x, y
	}
}

// resume returns where both go on alike after i and j.
func (d *differ) resume(i, j int) (x, y int) {
	for far := 1; far <= farthest; far++ {
		for k := 0; k <= far; k++ {
			if d.agree(i+k, j+far-k) {
				return i + k, j + far - k
			}
		}
	}
	return len(d.left), len(d.right)
}

func (d *differ) agree(i, j int) bool {
	if i >= len(d.left) || j >= len(d.right) {
		return i == len(d.left) && j == len(d.right)
	}
	return bytes.Equal(d.left[i], d.right[j])
}

func (d *differ) print(s *strings.Builder, hunks []hunk) {
	first, last := hunks[0], hunks[len(hunks)-1]
	before := min(around, first.a0)
	after := min(around, len(d.left)-last.a1)
	fmt.Fprintf(s, "@@ -%d,%d +%d,%d @@%s\n", first.a0-before+1, last.a1+after-first.a0+before, first.b0-before+1, last.b1+after-first.b0+before, d.entryAt(first.a0))
	at := first.a0 - before
	for _, h := range hunks {
		for ; at < h.a0; at++ {
			s.WriteString(" " + show(d.left[at], "") + "\n")
		}
		for n := h.a0; n < h.a1; n++ {
			s.WriteString("-" + show(d.left[n], d.ending(h, n-h.a0)) + "\n")
		}
		for n := h.b0; n < h.b1; n++ {
			s.WriteString("+" + show(d.right[n], d.ending(h, n-h.b0)) + "\n")
		}
		at = h.a1
	}
	for ; at < last.a1+after; at++ {
		s.WriteString(" " + show(d.left[at], "") + "\n")
	}
}

// ending says that line n of a hunk differs in its end only.
func (d *differ) ending(h hunk, n int) string {
	if h.a0+n < h.a1 && h.b0+n < h.b1 && string(content(d.left[h.a0+n])) == string(content(d.right[h.b0+n])) {
		return "line end"
	}
	return ""
}

func content(line []byte) []byte { return bytes.TrimRight(line, "\r\n") }

// show returns a line for people.
func show(line []byte, note string) string {
	text := decode(content(line))
	if key, _, ok := strings.Cut(text, "="); ok {
		if k, known := LookupKey(strings.TrimSpace(key)); known && k.Secret {
			text = key + "=(secret)"
		}
	}
	text = printable(text)
	if note != "" {
		text += fmt.Sprintf("  (%s: %q)", note, line[len(content(line)):])
	}
	return text
}

// printable keeps what is in a file from commanding the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

// entryAt names the entry that line n of a is in. It is asked for lines in rising
// order.
func (d *differ) entryAt(n int) string {
	for ; d.line < n; d.line++ {
		d.offset += len(d.left[d.line])
	}
	for d.entry < len(d.a.entries) && d.a.entries[d.entry].start <= d.offset {
		d.entry++
	}
	if d.entry == 0 {
		return ""
	}
	return " [" + printable(decode(d.a.name(d.entry-1))) + "]"
}
