package rasphone

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Bounds of phone books.
const (
	// MaxBytes is the size of the largest phone book that is read, in bytes.
	MaxBytes = 256 << 20
	// MaxName is the length of the longest name of an entry, in UTF-16 code
	// units (RAS_MaxEntryName).
	MaxName = 256
)

// What can be wrong with an entry that was asked for. Errors wrap them.
var (
	// ErrNoEntry says that no entry has the name. Windows calls it error 623.
	ErrNoEntry = errors.New("there is no such entry")
	// ErrTwice says that an entry or a key is there several times, so that
	// nobody can say which is meant.
	ErrTwice = errors.New("it is there several times")
	// ErrNoKey says that an entry lacks a key, and that its place is unknown.
	ErrNoKey = errors.New("there is no such key")
	// ErrRefused says that a setting does harm, and is only made if an Edit
	// insists.
	ErrRefused = errors.New("it does harm")
)

// A Phonebook is a phone book that has been read without loss. It doesn't
// change, and may be used by many goroutines at once.
//
// Windows takes the bytes of a file for UTF-8 if Encoding is 1, and old ones for
// ANSI. They are never converted here.
type Phonebook struct {
	data    []byte
	entries []span
}

// A span is where an entry is: its header [name] from start to body, and its
// lines from there to end.
type span struct {
	start, body, end int
	nameEnd          int // where the last bracket of the header is
}

// The mark that editors put before UTF-8. Windows takes none.
const byteOrderMark = "\xef\xbb\xbf"

// Parse reads a phone book, which keeps b: it must not be changed any more. It
// takes anything but what isn't text in the encoding of a phone book at all;
// [Check] says what is wrong with the rest.
func Parse(b []byte) (*Phonebook, error) {
	switch {
	case len(b) > MaxBytes:
		return nil, fmt.Errorf("the file is larger than %d bytes, so it is no phone book", MaxBytes)
	case bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff")):
		return nil, errors.New("the file is in UTF-16, which Windows can't read in a phone book (some script wrote it, with Out-File perhaps): restore it from a backup, or save it as UTF-8 without a byte order mark")
	}
	if before0, _, ok := bytes.Cut(b, []byte{0}); ok {
		return nil, fmt.Errorf("line %d: there is a zero byte, so that this is no phone book, or a damaged one: restore it from a backup", 1+bytes.Count(before0, []byte("\n")))
	}
	p := &Phonebook{data: b}
	p.index()
	return p, nil
}

// index finds the entries: lines that begin with a bracket and have a second one.
func (p *Phonebook) index() {
	at := 0
	if bytes.HasPrefix(p.data, []byte(byteOrderMark)) {
		at = len(byteOrderMark)
	}
	first := at
	for at < len(p.data) {
		next := bytes.IndexByte(p.data[at:], '[') // which is rarer than line ends
		if next < 0 {
			break
		}
		if at += next; at == first || p.data[at-1] == '\n' {
			p.header(at)
		}
		at++
	}
	if n := len(p.entries); n > 0 {
		p.entries[n-1].end = len(p.data)
	}
}

// header takes the line at an offset as the header of an entry, if it is one.
func (p *Phonebook) header(at int) {
	line := p.data[at:]
	body := len(p.data)
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		line, body = line[:i], at+i+1
	}
	last := bytes.LastIndexByte(line, ']')
	if last < 0 {
		return
	}
	if n := len(p.entries); n > 0 {
		p.entries[n-1].end = at
	}
	p.entries = append(p.entries, span{start: at, body: body, nameEnd: at + last})
}

// name returns the bytes of the name of an entry.
func (p *Phonebook) name(n int) []byte { return p.data[p.entries[n].start+1 : p.entries[n].nameEnd] }

// isNamed reports whether an entry has a name.
func (p *Phonebook) isNamed(n int, name string) bool {
	b := p.name(n)
	return string(b) == name || !utf8.Valid(b) && decode(b) == name
}

// decode returns bytes of a phone book as text. What isn't UTF-8 is from before
// Windows 7, and taken for Windows-1252.
func decode(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	var s strings.Builder
	for _, c := range b {
		if c >= 0x80 && c < 0xa0 {
			s.WriteRune(windows1252[c-0x80])
		} else {
			s.WriteRune(rune(c))
		}
	}
	return s.String()
}

// windows1252 are the characters from 0x80 to 0x9f.
var windows1252 = [32]rune{
	'€', 0x81, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0x8d, 'Ž', 0x8f,
	0x90, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0x9d, 'ž', 'Ÿ',
}

// Bytes returns the file, byte for byte. It must not be changed.
func (p *Phonebook) Bytes() []byte { return p.data }

// Len returns how many entries there are.
func (p *Phonebook) Len() int { return len(p.entries) }

// Entries returns all entries, in the order of the file.
func (p *Phonebook) Entries() []Entry {
	list := make([]Entry, len(p.entries))
	for i := range p.entries {
		list[i] = Entry{p, i}
	}
	return list
}

// Entry returns the entry with exactly this name. The error is ErrNoEntry or
// ErrTwice.
func (p *Phonebook) Entry(name string) (Entry, error) {
	found := -1
	for i := range p.entries {
		if !p.isNamed(i, name) {
			continue
		}
		if found >= 0 {
			return Entry{}, fmt.Errorf("entry %q: %w, in lines %d and %d: delete one", name, ErrTwice, p.lineAt(p.entries[found].start), p.lineAt(p.entries[i].start))
		}
		found = i
	}
	if found < 0 {
		return Entry{}, fmt.Errorf("entry %q: %w%s", name, ErrNoEntry, p.suggestion(name))
	}
	return Entry{p, found}, nil
}

// suggestion names an entry that may be meant.
func (p *Phonebook) suggestion(name string) string {
	for i := range p.entries {
		if other := decode(p.name(i)); strings.EqualFold(strings.TrimSpace(other), strings.TrimSpace(name)) {
			return fmt.Sprintf("; there is %q", other)
		}
	}
	switch len(p.entries) {
	case 0:
		return ", nor any other"
	case 1:
		return fmt.Sprintf("; there is only %q", decode(p.name(0)))
	}
	return ""
}

// lineAt returns the number of the line at an offset, from 1.
func (p *Phonebook) lineAt(offset int) int {
	return 1 + bytes.Count(p.data[:offset], []byte("\n"))
}

// newline returns the line end of the file: that of its first line, which is CR
// LF unless somebody changed it.
func (p *Phonebook) newline() string {
	if i := bytes.IndexByte(p.data, '\n'); i == 0 || i > 0 && p.data[i-1] != '\r' {
		return "\n"
	}
	return "\r\n"
}
