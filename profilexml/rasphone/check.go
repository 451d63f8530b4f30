package rasphone

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A Severity says how much a Finding matters.
type Severity uint8

const (
	// Info is good to know.
	Info Severity = iota
	// Warning is probably not meant.
	Warning
	// Error is something that Windows, or an editor, will stumble over.
	Error
)

var severityNames = [...]string{"info", "warning", "error"}

func (s Severity) String() string {
	if int(s) < len(severityNames) {
		return severityNames[s]
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText writes the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Finding is something that Check says about a phone book.
type Finding struct {
	// Rule identifies what was looked for, such as PBK101.
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"` // Severity is how much it matters
	Entry    string   `json:"entry,omitempty"`
	// Line is where it is, from 1.
	Line int    `json:"line"`
	Text string `json:"text"` // Text says what is wrong
	// Do says what to do about it.
	Do string `json:"do"`
}

func (f Finding) String() string {
	where := strconv.Itoa(f.Line)
	if f.Entry != "" {
		where += ": [" + printable(f.Entry) + "]"
	}
	return fmt.Sprintf("%s: %v %s: %s", where, f.Severity, f.Rule, printable(f.Text))
}

// Check says what is wrong or unwise in a phone book, in the order of the file.
func Check(p *Phonebook) []Finding {
	c := &checker{book: p, counted: p.entriesStart()}
	c.file()
	seen := map[string]int{}
	for _, e := range p.Entries() {
		c.entry = e
		c.lines = e.lines(c.lines[:0])
		c.names(seen)
		c.form()
		c.repeated()
		c.lists()
		c.settings()
	}
	slices.SortStableFunc(c.list, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return c.list
}

type checker struct {
	book    *Phonebook
	entry   Entry
	lines   []line
	list    []Finding
	counted lineCount
	inFile  bool // what is said is about the whole file
}

func (c *checker) add(rule string, severity Severity, offset int, do, format string, args ...any) {
	f := Finding{Rule: rule, Severity: severity, Line: c.counted.of(offset), Text: fmt.Sprintf(format, args...), Do: do}
	if !c.inFile {
		f.Entry = c.entry.Name()
	}
	c.list = append(c.list, f)
}

// file looks at what concerns the whole file.
func (c *checker) file() {
	c.inFile = true
	defer func() { c.inFile = false }()
	data := c.book.data
	if bytes.HasPrefix(data, []byte(byteOrderMark)) {
		c.add("PBK001", Error, 0, "Save it as UTF-8 without a byte order mark.", "the file begins with a byte order mark, so that Windows doesn't find its first entry")
	}
	first := len(data)
	if len(c.book.entries) > 0 {
		first = c.book.entries[0].start
	}
	if before := bytes.TrimPrefix(data[:first], []byte(byteOrderMark)); len(bytes.TrimSpace(before)) > 0 {
		c.add("PBK002", Warning, 0, "Remove it, or give it a header [name].", "there is text before the first entry")
	}
	if i := bytes.Index(data, []byte("System.Collections.")); i >= 0 {
		c.add("PBK003", Error, i, "Restore the file from a backup.", "a PowerShell script has written the name of a type in place of entries")
	}
	c.lineEnds()
	if n := len(data); n > 0 && data[n-1] != '\n' {
		c.add("PBK005", Warning, n, "Add a line end.", "the last line has no end, so that the next program to add an entry may damage it")
	}
	if !utf8.Valid(data) {
		i := invalidUTF8(data)
		c.add("PBK006", Warning, i, "If a script did this, restore the file; Windows since 7 writes UTF-8.", "the file isn't UTF-8")
	}
}

func invalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(data)
}

func (c *checker) lineEnds() {
	data := c.book.data
	all, crlf := bytes.Count(data, []byte("\n")), bytes.Count(data, []byte("\r\n"))
	switch cr := bytes.Count(data, []byte("\r")); {
	case cr != crlf:
		c.add("PBK004", Error, strayCR(data), "Let lines end in CR LF.", "a carriage return doesn't belong to a line end: something has converted line ends that were right")
	case crlf == 0 && all > 0:
		c.add("PBK004", Info, 0, "Let lines end in CR LF, as Windows does.", "lines end in LF")
	case crlf != all:
		c.add("PBK004", Warning, bareLF(data), "Let lines end in CR LF.", "some lines end in LF and others in CR LF, as scripts leave it")
	}
}

func strayCR(data []byte) int {
	for i, b := range data {
		if b == '\r' && (i+1 == len(data) || data[i+1] != '\n') {
			return i
		}
	}
	return 0
}

func bareLF(data []byte) int {
	for i, b := range data {
		if b == '\n' && (i == 0 || data[i-1] != '\r') {
			return i
		}
	}
	return 0
}

// names looks at the name of the entry.
func (c *checker) names(seen map[string]int) {
	name, start := c.entry.Name(), c.entry.span().start
	fold := strings.ToLower(name)
	if first, ok := seen[fold]; ok {
		c.add("PBK101", Error, start, "Delete one of them, after a look at which of them works.", "the entry is there twice: it is in line %d too, and Windows uses one of them", first)
	} else {
		seen[fold] = c.counted.of(start)
	}
	switch n := len(utf16.Encode([]rune(name))); {
	case strings.TrimSpace(name) == "":
		c.add("PBK102", Error, start, "Delete it.", "the entry has no name")
	case n > MaxName:
		c.add("PBK102", Error, start, "Give it a shorter name.", "the name has %d characters, and Windows allows %d", n, MaxName)
	}
	if strings.Contains(name, "?") {
		c.add("PBK103", Warning, start, "If the name had other letters once, restore the file from a backup.", "the name has a question mark, which is what ANSI or ASCII makes of letters that it lacks")
	}
}

// form looks at lines that aren't as Windows writes them.
func (c *checker) form() {
	data := c.book.data
	var has [len(groupNames)]bool
	spaces := false
	for i := range c.lines {
		l := &c.lines[i]
		has[l.group] = true
		switch {
		case l.eq < 0 && len(bytes.TrimSpace(data[l.start:l.stop])) > 0:
			c.add("PBK104", Warning, l.start, "Delete the line, or write Key=Value.", "%.40q is no setting", decode(data[l.start:l.stop]))
		case l.eq >= 0 && (l.stop > l.eq+1 && data[l.stop-1] == ' ' || len(l.key(data)) != l.eq-l.start):
			spaces = spaces || c.spaces(l)
		}
	}
	if typ, ok := c.entry.Get("Type"); ok && typ == "2" && !(has[Media] && has[Device]) {
		c.add("PBK106", Error, c.entry.span().start, "Restore the entry from a backup, or make the connection anew.", "the entry lacks its MEDIA or DEVICE part, so that Windows can't dial it")
	}
}

// spaces reports the first line with spaces around what it says.
func (c *checker) spaces(l *line) bool {
	c.add("PBK105", Info, l.start, "Remove the spaces: Windows writes none.", "there are spaces around the setting, which comes from a script")
	return true
}

// listKeys are the keys that are repeated, and what counts them.
var listKeys = []struct {
	key, counter string
	bytes        int // of an item; 0 if they differ in length
}{
	{"CustomIPSecPolicies", "NumCustomPolicy", policyBytes},
	{"Routes", "NumRoutes", routeBytes},
	{"NrptRules", "NumNrptRules", 0},
	{"TrustedNetworks", "NumTrustedNetworks", nameBytes},
	{"DnsSuffixSearchList", "NumDnsSearchSuffixes", nameBytes},
	{"PerAppTrafficFilters", "NumPerAppTrafficFilters", 0},
}

// mayRepeat are other keys that are there several times in good files.
var mayRepeat = []string{"CustomAuthData", "ServerListServerName", "ServerListFriendlyName", "ThirdPartyProfileInfo"}

// repeated looks for keys that are there twice.
func (c *checker) repeated() {
	type place struct {
		group Group
		key   string
	}
	seen := map[place]int{}
	for i := range c.lines {
		l := &c.lines[i]
		key := string(l.key(c.book.data))
		if l.eq < 0 || isGroupKey([]byte(key)) || mayBeRepeated(key) {
			continue
		}
		k, known := LookupKey(key)
		if known && !k.isFor(l.group) {
			continue
		}
		first, twice := seen[place{l.group, key}]
		if !twice {
			seen[place{l.group, key}] = c.counted.of(l.start)
		} else if known {
			c.add("PBK107", Error, l.start, "Delete the one that is wrong.", "%s is set in line %d too", key, first)
		}
		if known && k.Name != key && !isGroupKey([]byte(key)) {
			c.add("PBK108", Warning, l.start, "Write "+k.Name+".", "%s is spelt %s by Windows", key, k.Name)
		}
	}
}

func (k *Key) isFor(g Group) bool { return k.Group == g }

func mayBeRepeated(key string) bool {
	for _, k := range listKeys {
		if strings.EqualFold(k.key, key) {
			return true
		}
	}
	for _, k := range mayRepeat {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// lists looks at lists and their counters.
func (c *checker) lists() {
	data := c.book.data
	for _, k := range listKeys {
		lines := find(data, c.lines, Main, k.key, nil)
		counters := find(data, c.lines, Main, k.counter, nil)
		if len(lines) == 0 && len(counters) == 0 {
			continue
		}
		at, count := c.entry.span().start, uint64(0)
		if len(counters) > 0 {
			at = c.lines[counters[0]].start
			n, err := strconv.ParseUint(c.lines[counters[0]].text(data), 10, 31)
			if err != nil {
				c.add("PBK110", Error, at, "Write how many there are.", "%s is no number", k.counter)
				continue
			}
			count = n
		}
		values := make([]string, len(lines))
		for i, n := range lines {
			values[i] = c.lines[n].text(data)
		}
		c.oneList(k.key, k.counter, k.bytes, at, count, values)
	}
}

func (c *checker) oneList(key, counter string, size, at int, count uint64, values []string) {
	const anew = "Deliver the profile anew, or set the list with aovlb rasphone set."
	b, err := DecodeBinary(values)
	if err != nil {
		c.add("PBK111", Error, at, anew, "%s: %v", key, err)
		return
	}
	for i, v := range values {
		if i+1 < len(values) && len(v) != 2*bytesPerLine {
			c.add("PBK111", Warning, at, anew, "%s: line %d of it has %d digits, and Windows writes %d", key, i+1, len(v), 2*bytesPerLine)
		}
	}
	if count > 0 && len(b) == 0 {
		c.add("PBK112", Error, at, anew, "%s is %d, and there is no %s: a script copied the number only", counter, count, key)
		return
	}
	found := uint64(0)
	switch key {
	case "NrptRules":
		list, e := DecodeNameRules(b)
		found, err = uint64(len(list)), e
	case "PerAppTrafficFilters":
		list, e := DecodeTrafficFilters(b)
		found, err = uint64(len(list)), e
	default:
		found = uint64(len(b) / size)
		_, err = c.entry.describeList(key)
	}
	switch {
	case err != nil:
		c.add("PBK113", Warning, at, anew, "%s: %v", key, err)
	case found != count:
		c.add("PBK112", Error, at, anew, "%s is %d, and there are %d %s", counter, count, found, key)
	}
}

// settings looks at what is set.
func (c *checker) settings() {
	if v, ok := c.entry.Get("Type"); ok && v != "2" {
		return
	}
	data := c.book.data
	for i := range c.lines {
		l := &c.lines[i]
		if l.eq < 0 {
			continue
		}
		k, known := LookupKey(string(l.key(data)))
		if !known || !k.isFor(l.group) || k.Kind == Binary || k.Kind == Text {
			continue
		}
		c.setting(&k, l, l.text(data))
	}
	c.together()
}

func (c *checker) setting(k *Key, l *line, value string) {
	if _, err := strconv.ParseInt(value, 10, 64); err != nil {
		c.add("PBK201", Error, l.start, "Write a number.", "%s is %.40q, and must be a number", k.Name, value)
		return
	}
	switch {
	case k.Name == "VpnStrategy":
		c.strategy(l, value)
	case k.Name == "DisableIKENameEkuCheck" && value == "1":
		c.add("PBK203", Warning, l.start, "Give the gateway a certificate with its public name and Server Authentication, and set IKENameEkuCheck=on.", "the name and the usage of the gateway's certificate aren't checked: whoever has a certificate of the same root can play the gateway")
	case k.Name == "DataEncryption" && (value == "0" || value == "8"):
		c.add("PBK204", Warning, l.start, "Set DataEncryption=require, or max.", "the connection may be unencrypted")
	case k.Kind == Number || k.Kind == Flag:
		if _, err := k.parse(value); err != nil {
			c.add("PBK202", Warning, l.start, "Set it to what it can be.", "%v", err)
		}
	}
}

func (c *checker) strategy(l *line, value string) {
	s, err := ParseStrategy(value)
	switch {
	case err != nil:
		c.add("PBK205", Error, l.start, "Set VpnStrategy=Ikev2Sstp, for example.", "%v", err)
	case s == GREOnly || s == ProtocolList:
		c.add("PBK206", Warning, l.start, "Set VpnStrategy=Ikev2Sstp, for example.", "VpnStrategy is %d (%v), with which PowerShell and the profile can't be read back", uint32(s), s)
	case s == SSTPFirst:
		c.add("PBK207", Info, l.start, "Set VpnStrategy=Ikev2Sstp if IKEv2 is meant to be first.", "SSTP is tried before IKEv2: this is what Automatic in a profile makes, and what Windows writes when IKEv2 has failed once")
	}
}

// together looks at settings that don't go together.
func (c *checker) together() {
	at := c.entry.span().start
	off, _ := c.entry.Get("DisableMobility")
	outage, _ := c.entry.Get("NetworkOutageTime")
	if off == "1" && outage != "0" && outage != "" {
		c.add("PBK208", Warning, at, "Set Mobility=on, or NetworkOutageTime=0.", "NetworkOutageTime is %s seconds, which does nothing while mobility is off", outage)
	}
	if list, err := c.entry.Policies(); err == nil && len(list) == 1 {
		for _, weak := range []string{"DES", "DES3", "MD5", "MD596", "Group1", "Group2", "PFS1", "PFS2"} {
			if strings.Contains(list[0].String()+",", "="+weak+",") {
				c.add("PBK209", Warning, at, "Set Suite to AES-GCM and ECP256, on the gateways too.", "the cryptography has %s, which is broken or weak", weak)
				break
			}
		}
	}
}
