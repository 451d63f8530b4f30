package rasphone

import (
	"bytes"
	"fmt"
	"strings"
)

// A Group is a part of an entry. Windows writes an empty line before each but
// the first.
type Group uint8

const (
	// Main is what comes first: nearly everything.
	Main Group = iota
	// NetComponents are the network components, after NETCOMPONENTS=.
	NetComponents
	// Media is the port, after MEDIA=.
	Media
	// Device is the address, after DEVICE=.
	Device
	anyGroup
)

var groupNames = [...]string{"", "NETCOMPONENTS", "MEDIA", "DEVICE"}

// String returns the key that begins the group; Main has none.
func (g Group) String() string {
	if int(g) < len(groupNames) {
		return groupNames[g]
	}
	return fmt.Sprintf("Group(%d)", uint8(g))
}

// An Entry is a connection in a phone book.
type Entry struct {
	book *Phonebook
	n    int
}

func (e Entry) span() *span { return &e.book.entries[e.n] }

// Name returns the name of the connection.
func (e Entry) Name() string { return decode(e.book.name(e.n)) }

// Line returns the number of the line that the entry begins in, from 1.
func (e Entry) Line() int { return e.book.lineAt(e.span().start) }

// A line is where a line of an entry is: its content from start to stop, and its
// end after that. eq is where its = is, or -1.
type line struct {
	start, eq, stop, end int
	group                Group
}

// key returns what stands before the =.
func (l *line) key(data []byte) []byte {
	if l.eq < 0 {
		return nil
	}
	if k := data[l.start:l.eq]; !l.blank(data) {
		return k
	}
	return bytes.Trim(data[l.start:l.eq], " \t")
}

// blank reports whether there are spaces around the key.
func (l *line) blank(data []byte) bool {
	return l.eq > l.start && (data[l.start] <= ' ' || data[l.eq-1] <= ' ')
}

// value returns where the value is, without spaces around it.
func (l *line) value(data []byte) (start, stop int) {
	start, stop = l.eq+1, l.stop
	for start < stop && (data[start] == ' ' || data[start] == '\t') {
		start++
	}
	for stop > start && (data[stop-1] == ' ' || data[stop-1] == '\t') {
		stop--
	}
	return start, stop
}

func (l *line) text(data []byte) string {
	start, stop := l.value(data)
	return decode(data[start:stop])
}

// lines appends the lines of the entry to list, without its header.
func (e Entry) lines(list []line) []line {
	data, at, end := e.book.data, e.span().body, e.span().end
	group := Main
	for at < end {
		next := end
		if i := bytes.IndexByte(data[at:end], '\n'); i >= 0 {
			next = at + i + 1
		}
		l := readLine(data, at, next)
		if c := data[at]; l.eq >= 0 && (c == 'N' || c == 'M' || c == 'D') {
			group = groupAfter(group, data[at:l.eq])
		}
		l.group = group
		list = append(list, l)
		at = l.end
	}
	return list
}

// readLine returns the line from start to end.
func readLine(data []byte, start, end int) line {
	l := line{start: start, eq: -1, stop: end, end: end}
	for l.stop > start && (data[l.stop-1] == '\n' || data[l.stop-1] == '\r') {
		l.stop--
	}
	if i := bytes.IndexByte(data[start:l.stop], '='); i >= 0 {
		l.eq = start + i
	}
	return l
}

// groupAfter returns the group that a key is in or begins.
func groupAfter(g Group, key []byte) Group {
	switch string(key) {
	case "NETCOMPONENTS":
		return NetComponents
	case "MEDIA":
		return Media
	case "DEVICE":
		return Device
	}
	return g
}

// find appends the indexes of the lines that have a key to list: those with
// exactly its case, or, if there are none, those of the same group with another.
func find(data []byte, lines []line, g Group, key string, list []int) []int {
	for i := range lines {
		l := &lines[i]
		if l.eq < 0 || g != anyGroup && l.group != g || l.eq-l.start < len(key) {
			continue
		}
		if data[l.start] == key[0] && string(data[l.start:l.eq]) == key || l.blank(data) && string(l.key(data)) == key {
			list = append(list, i)
		}
	}
	if len(list) > 0 {
		return list
	}
	for i := range lines {
		l := &lines[i]
		if l.eq < 0 || g != anyGroup && l.group != g || l.eq-l.start < len(key) {
			continue
		}
		if k := l.key(data); len(k) == len(key) && strings.EqualFold(string(k), key) && !isGroupKey(k) {
			list = append(list, i)
		}
	}
	return list
}

// findAlike returns another line of the group that has the key of a line in
// another case, or -1: Windows doesn't tell them apart.
func findAlike(data []byte, lines []line, g Group, key string, but int) int {
	first := key[0] | 0x20 // in small letters
	for i := range lines {
		l := &lines[i]
		if l.eq-l.start < len(key) || i == but || g != anyGroup && l.group != g {
			continue
		}
		if l.eq-l.start > len(key) && !l.blank(data) || data[l.start] > ' ' && data[l.start]|0x20 != first {
			continue
		}
		if k := l.key(data); len(k) == len(key) && strings.EqualFold(string(k), key) && !isGroupKey(k) {
			return i
		}
	}
	return -1
}

// only returns the line that has a key, if it is the only one, in any case of its
// letters: the same as find and findAlike say of all lines, without making a list
// of them.
func (e Entry) only(g Group, key string) (found line, ok bool) {
	if g != Main && g != anyGroup || !isASCII(key) {
		return line{}, false // rare enough
	}
	data, at, end := e.book.data, e.span().body, e.span().end
	first := key[0] | 0x20 // in small letters
	for next := end; at < end; at, next = next, end {
		if i := bytes.IndexByte(data[at:end], '\n'); i >= 0 {
			next = at + i + 1
		}
		c := data[at]
		if g == Main && (c == 'N' || c == 'M' || c == 'D') && beginsGroup(data[at:next]) {
			break // nothing comes back to the first group
		}
		if c|0x20 != first && c > ' ' {
			continue
		}
		l := readLine(data, at, next)
		if l.eq < 0 {
			continue
		}
		if k := l.key(data); len(k) != len(key) || !strings.EqualFold(string(k), key) || isGroupKey(k) {
			continue
		} else if ok || string(k) != key {
			return line{}, false // a second one, or one in another case
		}
		found, ok = l, true
	}
	return found, ok
}

// beginsGroup reports whether a line begins a group.
func beginsGroup(text []byte) bool {
	key, _, ok := bytes.Cut(text, []byte("="))
	return ok && isGroupKey(key)
}

// isGroupKey reports whether a key begins a group, and so is no value of one.
func isGroupKey(key []byte) bool {
	switch string(key) {
	case "NETCOMPONENTS", "MEDIA", "DEVICE":
		return true
	}
	return false
}

// splitKey cuts the group off a key such as MEDIA/Port. A key without one is
// looked for where it is known to be.
func splitKey(key string) (Group, string) {
	if name, rest, ok := strings.Cut(key, "/"); ok {
		for g, n := range groupNames {
			if strings.EqualFold(n, name) {
				return Group(g), rest
			}
		}
	}
	if k, ok := LookupKey(key); ok && k.Name == key {
		return k.Group, key
	}
	return anyGroup, key
}

// Get returns the value of a key, and whether the entry has it. A key that isn't
// in the table of [Keys] may be named with its group, such as MEDIA/Port. The
// value of a list is that of its first line.
func (e Entry) Get(key string) (string, bool) {
	if list := e.Values(key); len(list) > 0 {
		return list[0], true
	}
	return "", false
}

// Values returns all values of a key that is repeated, in the order of the file.
func (e Entry) Values(key string) []string {
	g, name := splitKey(key)
	if name == "" {
		return nil
	}
	lines := e.lines(nil)
	var list []string
	for _, i := range find(e.book.data, lines, g, name, nil) {
		list = append(list, lines[i].text(e.book.data))
	}
	return list
}

// A Line is a line of an entry.
type Line struct {
	// Number counts lines from the beginning of the file, from 1.
	Number int
	Group  Group // Group is the part of the entry that it is in
	Key    string
	Value  string // Value is what stands after the Key and its =
}

// Lines returns the keys of the entry and their values, in the order of the file.
func (e Entry) Lines() []Line {
	number := e.Line()
	var list []Line
	for _, l := range e.lines(nil) {
		number++
		if l.eq >= 0 {
			list = append(list, Line{number, l.group, decode(l.key(e.book.data)), l.text(e.book.data)})
		}
	}
	return list
}
