package rasphone

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Setting is a key and what it is to be.
type Setting struct {
	// Key is its name, with its group if it isn't in the table of [Keys]:
	// MEDIA/Port.
	Key string
	// Value is what comes after the =. A List has none.
	Value string
	// List makes Key a list, such as Routes.
	List *List
}

// A List is the value of a key that is repeated, and counted by another.
type List struct {
	// Counter is the key that says how many there are, such as NumRoutes.
	Counter string
	// Count is how many there are.
	Count int
	// Lines are the values of the repeated key.
	Lines []string
	// Text says in words what is in the list.
	Text string

	lines func(Entry) ([]string, error) // if it isn't nil, makes Lines for an entry
}

// ParseSetting reads a setting such as VpnStrategy=Ikev2Sstp, DisableMobility=on
// or IKEv2Fragmentation=off: names in any case, and words for numbers where the
// table of [Keys] has them. A key that isn't in the table must be written exactly.
//
// Lists are Suite, Routes, NrptRules, TrustedNetworks and DnsSuffixSearchList, with
// commas between what is in them; routes may be exclude:10.1.0.0/16 and
// 10.0.0.0/8@5, with a metric, and a rule is .corp.example.com=10.0.0.53+10.0.0.54.
func ParseSetting(text string) (Setting, error) {
	name, value, ok := strings.Cut(text, "=")
	if !ok || name == "" {
		return Setting{}, fmt.Errorf("%.60q is no setting: write Key=Value", text)
	}
	if parse := listParser(name); parse != nil {
		return parse(value)
	}
	for i := range keyTable {
		if k := &keyTable[i]; k.Opposite != "" && strings.EqualFold(k.Opposite, name) {
			v, err := k.parse(value)
			if err != nil {
				return Setting{}, fmt.Errorf("%s can't be %.60q: it can be on or off", k.Opposite, value)
			}
			return Setting{Key: k.Name, Value: map[string]string{"0": "1", "1": "0"}[v]}, nil
		}
	}
	if k, ok := LookupKey(name); ok {
		v, err := k.parse(value)
		return Setting{Key: k.Name, Value: v}, err
	}
	return Setting{Key: name, Value: value}, checkValue(value)
}

// listParser returns what reads the list of a name, or nil.
func listParser(name string) func(string) (Setting, error) {
	switch strings.ToLower(name) {
	case "suite", "customipsecpolicies":
		return func(s string) (Setting, error) {
			if strings.EqualFold(s, "none") || s == "" {
				return PoliciesSetting()
			}
			p, err := ParsePolicy(s)
			if err != nil {
				return Setting{}, err
			}
			return PoliciesSetting(p)
		}
	case "routes":
		return func(s string) (Setting, error) {
			list, err := parseRoutes(s)
			if err != nil {
				return Setting{}, err
			}
			return RoutesSetting(list)
		}
	case "nrptrules":
		return parsedNameRules
	case "trustednetworks":
		return func(s string) (Setting, error) { return TrustedNetworksSetting(splitList(s)) }
	case "dnssuffixsearchlist":
		return func(s string) (Setting, error) { return DNSSuffixesSetting(splitList(s)) }
	}
	return nil
}

func splitList(s string) []string {
	var list []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// checkValue refuses what would be more than a value.
func checkValue(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("the value isn't UTF-8")
	}
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '[' || r == ']' {
			return fmt.Errorf("the value can't have the character %U", r)
		}
	}
	if s != strings.Trim(s, " ") {
		return errors.New("the value can't begin or end with a space")
	}
	return nil
}

// An Edit says which entries are to have which settings.
type Edit struct {
	// Entries are the exact names of the entries.
	Entries []string
	// All is for all entries of the file, in place of Entries.
	All bool
	// Set are the settings.
	Set []Setting
	// Force sets also what belongs to Windows, and strategies that PowerShell
	// can't read.
	Force bool
}

// A Change is a key of an entry that an Edit changes.
type Change struct {
	Entry, Key string // Entry and Key say what is changed
	// Old and New are the values, in words for a list.
	Old, New string
	// Line is where it was, or where it is added, from 1.
	Line int
	// Added says that the entry had no such key.
	Added bool
}

// String says what is changed, without secrets.
func (c Change) String() string {
	old, now := c.Old, c.New
	if k, ok := LookupKey(c.Key); ok && k.Secret {
		old, now = "(secret)", "(secret)"
	} else if ok {
		old, now = withWord(&k, old), withWord(&k, now)
	}
	if c.Added {
		return fmt.Sprintf("[%s] %s: %s (added)", c.Entry, c.Key, now)
	}
	return fmt.Sprintf("[%s] %s: %s -> %s", c.Entry, c.Key, old, now)
}

func withWord(k *Key, value string) string {
	if w := k.Describe(value); w != "" {
		return value + " (" + w + ")"
	}
	return value
}

// A splice replaces what is between two offsets.
type splice struct {
	from, to int
	text     string
	lines    bool // it is lines of their own, and no value
}

// compare sorts splices. What is put in at an offset comes before what is taken away
// there; and where a file ends in a key without a value or a line end, the value comes
// before the lines that follow it.
func (s splice) compare(o splice) int {
	if c := cmp.Or(cmp.Compare(s.from, o.from), cmp.Compare(s.to, o.to)); c != 0 || s.lines == o.lines {
		return c
	}
	if s.lines {
		return 1
	}
	return -1
}

// Apply returns the phone book with an edit made, and what it changes. Nothing
// but the values asked for differs: not the encoding, not line ends, not empty
// lines, not entries that weren't named. If nothing is changed, p itself is
// returned.
//
// It makes all of the edit or nothing: the error names all that is in the way,
// and wraps ErrNoEntry, ErrTwice, ErrNoKey or ErrRefused.
func (p *Phonebook) Apply(e Edit) (*Phonebook, []Change, error) {
	targets, err := p.targets(e)
	if err != nil {
		return nil, nil, err
	}
	if len(e.Set) == 0 {
		return nil, nil, errors.New("there is nothing to set")
	}
	w := &editor{book: p, force: e.Force, counted: p.entriesStart()}
	for i, s := range e.Set {
		if err := w.check(s); err != nil {
			return nil, nil, err
		}
		if slices.ContainsFunc(e.Set[:i], s.clashes) {
			return nil, nil, fmt.Errorf("%s is set twice", s.Key)
		}
	}
	w.splices, w.changes = make([]splice, 0, len(targets)), make([]Change, 0, len(targets))
	for _, t := range targets {
		w.entry(t, e.Set)
	}
	if err := errors.Join(w.errs...); err != nil {
		return nil, nil, err
	}
	if len(w.splices) == 0 {
		return p, nil, nil
	}
	out, err := Parse(w.result())
	if err != nil {
		return nil, nil, err
	}
	if len(out.entries) != len(p.entries) {
		return nil, nil, errors.New("the edit would make an entry or lose one") // not reached, since values are checked
	}
	return out, w.changes, nil
}

// clashes reports whether two settings are about one key.
func (s Setting) clashes(o Setting) bool {
	_, a := splitKey(s.Key)
	_, b := splitKey(o.Key)
	same := strings.EqualFold
	return same(a, b) || s.List != nil && same(s.List.Counter, b) || o.List != nil && same(a, o.List.Counter)
}

// targets returns the entries that an edit is for.
func (p *Phonebook) targets(e Edit) ([]Entry, error) {
	switch {
	case e.All && len(e.Entries) > 0:
		return nil, errors.New("an edit is for all entries or for some, not for both")
	case !e.All && len(e.Entries) == 0:
		return nil, errors.New("an edit must say which entries it is for")
	}
	if e.All {
		seen := make(map[string]int, len(p.entries))
		for i := range p.entries {
			name := decode(p.name(i))
			if first, ok := seen[name]; ok {
				return nil, fmt.Errorf("entry %q: %w, in lines %d and %d: delete one", name, ErrTwice, p.lineAt(p.entries[first].start), p.lineAt(p.entries[i].start))
			}
			seen[name] = i
		}
		if len(p.entries) == 0 {
			return nil, fmt.Errorf("the phone book is empty: %w", ErrNoEntry)
		}
		return p.Entries(), nil
	}
	var list []Entry
	var errs []error
	for _, name := range e.Entries {
		t, err := p.Entry(name)
		if err != nil {
			errs = append(errs, err)
		} else if !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return a.n - b.n })
	return list, errors.Join(errs...)
}

// An editor collects what an edit changes.
type editor struct {
	book    *Phonebook
	force   bool
	splices []splice
	changes []Change
	errs    []error

	lines   []line // of the entry at hand
	found   []int
	spare   []int
	counted lineCount
}

// A lineCount knows the number of the line at an offset, and counts on from it.
type lineCount struct {
	data       []byte
	at, number int
}

func (p *Phonebook) entriesStart() lineCount { return lineCount{p.data, 0, 1} }

func (c *lineCount) of(offset int) int {
	if offset < c.at {
		c.at, c.number = 0, 1
	}
	c.number += bytes.Count(c.data[c.at:offset], []byte("\n"))
	c.at = offset
	return c.number
}

// check refuses a setting that no entry should have.
func (w *editor) check(s Setting) error {
	g, name := splitKey(s.Key)
	if name == "" || strings.ContainsAny(name, "=[]\r\n\x00") || isGroupKey([]byte(name)) {
		return fmt.Errorf("%.60q is no key that can be set", s.Key)
	}
	values := []string{s.Value}
	if s.List != nil {
		values = s.List.Lines
	}
	for _, v := range values {
		if err := checkValue(v); err != nil {
			return fmt.Errorf("%s: %w", s.Key, err)
		}
		if !isASCII(v) && !utf8.Valid(w.book.data) {
			return fmt.Errorf("%s: the phone book is in an old encoding that isn't known, so that %.60q can't be written", s.Key, v)
		}
	}
	k, known := LookupKey(name)
	if !known || w.force {
		return nil
	}
	switch {
	case k.Kept && (g == k.Group || g == anyGroup):
		return fmt.Errorf("%s: %w: it belongs to Windows (%s)", k.Name, ErrRefused, k.Does)
	case k.Kind == Binary && s.List == nil:
		return fmt.Errorf("%s: %w: it is a list, and must agree with its counter", k.Name, ErrRefused)
	case k.Name == "VpnStrategy" && (s.Value == "9" || s.Value == "15"):
		return fmt.Errorf("VpnStrategy: %w: with %s, PowerShell and the profile can't be read back", ErrRefused, s.Value)
	}
	return nil
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

func (w *editor) fail(e Entry, key string, format string, args ...any) {
	w.errs = append(w.errs, fmt.Errorf("entry %q: %s: %w", e.Name(), key, fmt.Errorf(format, args...)))
}

// entry makes the settings in an entry.
func (w *editor) entry(e Entry, settings []Setting) {
	if header := w.book.data[e.span().start:e.span().body]; bytes.IndexByte(bytes.TrimRight(header, "\r\n"), '\r') >= 0 {
		w.errs = append(w.errs, fmt.Errorf("entry %q: its lines end in CR alone, so that nobody can say what Windows takes for a line, and %w: let lines end in CR LF", e.Name(), ErrRefused))
		return
	}
	w.lines = w.lines[:0]
	first := len(w.splices)
	for _, s := range settings {
		switch g, key := splitKey(s.Key); {
		case s.List != nil:
			w.read(e)
			w.list(e, s)
		case !w.quickValue(e, g, key, s.Value):
			w.read(e)
			w.value(e, g, key, s.Value)
		}
	}
	if len(w.splices)-first > 1 {
		slices.SortStableFunc(w.splices[first:], splice.compare)
	}
}

// read reads the lines of the entry at hand, if that wasn't done.
func (w *editor) read(e Entry) {
	if len(w.lines) == 0 {
		w.lines = e.lines(w.lines)
	}
}

// quickValue makes a setting where the entry has its key exactly once, and nothing
// like it, which takes no more than a look at each line. Else it returns false and
// has done nothing.
func (w *editor) quickValue(e Entry, g Group, key, value string) bool {
	l, ok := e.only(g, key)
	if ok {
		w.replace(e, &l, key, value)
	}
	return ok
}

// value makes a setting that is no list.
func (w *editor) value(e Entry, g Group, key, value string) {
	w.found = w.lookUp(g, key, w.found[:0])
	switch {
	case len(w.found) > 1:
		w.fail(e, key, "%w, first in lines %d and %d: say which is right, and delete the other", ErrTwice, w.counted.of(w.lines[w.found[0]].start), w.counted.of(w.lines[w.found[1]].start))
		return
	case len(w.found) == 0:
		w.add(e, g, key, value)
		return
	}
	w.replace(e, &w.lines[w.found[0]], key, value)
}

// replace gives a line a value.
func (w *editor) replace(e Entry, l *line, key, value string) {
	data := w.book.data
	from, to := l.value(data)
	if string(data[from:to]) == value {
		return
	}
	w.splices = append(w.splices, splice{from: from, to: to, text: value})
	w.changes = append(w.changes, Change{Entry: e.Name(), Key: key, Old: decode(data[from:to]), New: value, Line: w.counted.of(from)})
}

// lookUp appends the lines that have a key to list. One in another case is a
// second one.
func (w *editor) lookUp(g Group, key string, list []int) []int {
	list = find(w.book.data, w.lines, g, key, list)
	if len(list) == 1 {
		if i := findAlike(w.book.data, w.lines, g, key, list[0]); i >= 0 {
			list = append(list, i)
			slices.Sort(list)
		}
	}
	return list
}

// add puts a line where it belongs.
func (w *editor) add(e Entry, g Group, key, value string) {
	at, ok := w.place(g, key)
	if !ok {
		w.fail(e, key, "%w, and its place isn't known: only keys that are known can be added", ErrNoKey)
		return
	}
	sp := w.insertion(e, at, key+"="+value)
	w.splices = append(w.splices, sp)
	w.changes = append(w.changes, Change{Entry: e.Name(), Key: key, New: value, Line: w.counted.of(sp.from), Added: true})
}

// place returns which line a new key comes before, and false if nobody knows.
func (w *editor) place(g Group, key string) (int, bool) {
	order := mainOrder
	switch g {
	case Device:
		order = deviceOrder
	case Main:
	default:
		return 0, false
	}
	n := slices.Index(order, key)
	if n < 0 {
		return 0, false
	}
	for _, next := range order[n+1:] {
		if w.spare = find(w.book.data, w.lines, g, next, w.spare[:0]); len(w.spare) > 0 {
			return w.spare[0], true
		}
	}
	for i := n - 1; i >= 0; i-- {
		if w.spare = find(w.book.data, w.lines, g, order[i], w.spare[:0]); len(w.spare) > 0 {
			return w.spare[len(w.spare)-1] + 1, true
		}
	}
	return 0, g == Main
}

// insertion puts text as lines of their own before line number at of an entry.
func (w *editor) insertion(e Entry, at int, text ...string) splice {
	data, offset := w.book.data, e.span().body
	if at > 0 {
		offset = w.lines[at-1].end
	}
	newline := w.book.newline()
	if at < len(w.lines) && w.lines[at].end > w.lines[at].stop {
		newline = string(data[w.lines[at].stop:w.lines[at].end])
	}
	all := strings.Join(text, newline)
	if offset > 0 && data[offset-1] != '\n' { // the file ends without a line end
		return splice{from: offset, to: offset, text: newline + all, lines: true}
	}
	return splice{from: offset, to: offset, text: all + newline, lines: true}
}

// list makes a setting that is a list: its counter, and right after it its lines.
func (w *editor) list(e Entry, s Setting) {
	data := w.book.data
	want := s.List.Lines
	if s.List.lines != nil {
		var err error
		if want, err = s.List.lines(e); err != nil {
			w.fail(e, s.Key, "%w", err)
			return
		}
	}
	counters := w.lookUp(Main, s.List.Counter, nil)
	have := find(data, w.lines, Main, s.Key, nil)
	if len(counters) > 1 {
		w.fail(e, s.List.Counter, "%w", ErrTwice)
		return
	}
	count := strconv.Itoa(s.List.Count)
	if len(counters) == 1 && w.sameList(counters[0], have, count, want) {
		return
	}
	c := Change{Entry: e.Name(), Key: s.Key, New: s.List.Text, Added: len(counters) == 0}
	for _, i := range have {
		w.splices = append(w.splices, splice{from: w.lines[i].start, to: w.lines[i].end, lines: true})
	}
	text := make([]string, 0, 1+len(want))
	for _, l := range want {
		text = append(text, s.Key+"="+l)
	}
	switch {
	case len(counters) == 0:
		at, ok := w.place(Main, s.List.Counter)
		if !ok {
			w.fail(e, s.List.Counter, "%w", ErrNoKey)
			return
		}
		sp := w.insertion(e, at, append([]string{s.List.Counter + "=" + count}, text...)...)
		w.splices = append(w.splices, sp)
		c.Line = w.counted.of(sp.from)
	default:
		from, to := w.lines[counters[0]].value(data)
		c.Line = w.counted.of(from)
		c.Old = w.oldList(e, s, decode(data[from:to]))
		if string(data[from:to]) != count {
			w.splices = append(w.splices, splice{from: from, to: to, text: count})
		}
		if len(text) > 0 {
			w.splices = append(w.splices, w.insertion(e, counters[0]+1, text...))
		}
	}
	w.changes = append(w.changes, c)
}

// sameList reports whether the list is as it is to be already.
func (w *editor) sameList(counter int, have []int, count string, want []string) bool {
	from, to := w.lines[counter].value(w.book.data)
	if string(w.book.data[from:to]) != count {
		return false
	}
	var old strings.Builder
	for _, i := range have {
		old.WriteString(w.lines[i].text(w.book.data))
	}
	return strings.EqualFold(old.String(), strings.Join(want, ""))
}

// oldList says in words what a list was.
func (w *editor) oldList(e Entry, s Setting, count string) string {
	if text, err := e.describeList(s.Key); err == nil {
		return text
	}
	return count + " of " + s.Key
}

// result returns the file with all splices made. Join writes it in one go, into
// memory that wasn't cleared for it.
func (w *editor) result() []byte {
	pieces, at := make([][]byte, 0, 2*len(w.splices)+1), 0
	for _, s := range w.splices {
		pieces = append(pieces, w.book.data[at:s.from], []byte(s.text))
		at = s.to
	}
	return bytes.Join(append(pieces, w.book.data[at:]), nil)
}
