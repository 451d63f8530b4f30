package haproxy

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/ownfile"
)

// A file of the driver begins with a mark, and then has, in comments that begin with
// #%, what the driver must know of it: a memory. Behind it are the sections, and
// last an empty one whose name tells the process that serves the file from one
// that serves an earlier file.

// memory is what a file says of itself.
type memory struct {
	// Deployment is what the file is for; nil if for nothing.
	Deployment *plugins.Deployment `json:"deployment"`
	// Drained are the backends that Drain was called for.
	Drained []plugins.DrainRequest `json:"drained,omitempty"`
	// Edition counts what was written.
	Edition int `json:"edition"`
}

// content is a file that was read.
type content struct {
	memory   memory
	sections []section
	edition  string // the name of the last section; empty if there is none
}

// write returns the file for m and its sections; edition is the name of the last.
func write(owner plugins.Owner, site string, m memory, sections []section, edition string) ([]byte, error) {
	b, err := ownfile.Head(owner.Mark(site, m.Deployment.Revision()), "Written by aovlb, which undoes what is altered here. HAProxy loads this file beside yours.", m)
	if err != nil {
		return nil, err
	}
	b = append(b, body(sections)...)
	if len(sections) > 0 {
		b = fmt.Appendf(b, "\n# This one is never used: its name tells which edition of the file HAProxy serves.\nbackend %s from %s\n",
			edition, sections[0].name)
	}
	return b, nil
}

// editionName is the name of the last section of the nth file that is written.
func editionName(owner plugins.Owner, site string, n int, sections []section) string {
	return owner.Prefix(site) + "edition_" + strconv.Itoa(n) + "_" + plugins.RevisionOf(objects(sections))[:8]
}

// body writes sections.
func body(sections []section) []byte {
	var b bytes.Buffer
	for _, s := range sections {
		b.WriteByte('\n')
		if s.note != "" {
			fmt.Fprintf(&b, "# %s\n", s.note)
		}
		fmt.Fprintf(&b, "%s %s", s.kind, s.name)
		if s.rest != "" {
			b.WriteString(" " + s.rest)
		}
		b.WriteByte('\n')
		for _, l := range s.lines {
			b.WriteString("\t" + l + "\n")
		}
	}
	return b.Bytes()
}

// read reads a file. An empty one, or none, is one for nothing.
func read(owner plugins.Owner, site string, b []byte) (*content, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return &content{}, nil
	}
	if !ownfile.Ours(owner, site, b, 0) {
		return nil, ownfile.ErrForeign
	}
	c := new(content)
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, ownfile.Most)
	for lines.Scan() {
		if line := strings.TrimSpace(lines.Text()); line != "" && line[0] != '#' {
			c.line(owner, site, line)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if err := ownfile.Recall(b, &c.memory); err != nil {
		// What was served can't be known, but what is to be served can.
		c.memory = memory{Edition: int(time.Now().Unix())}
	}
	return c, nil
}

// line takes one line in.
func (c *content) line(owner plugins.Owner, site, line string) {
	words := strings.Fields(line)
	switch words[0] {
	case "frontend", "backend", "defaults", "listen", "global", "userlist", "peers", "resolvers", "cache", "program", "ring", "mailers", "http-errors":
		s := section{kind: words[0]}
		if len(words) > 1 {
			s.name, s.rest = words[1], strings.Join(words[2:], " ")
		}
		if s.kind == "backend" && strings.HasPrefix(s.name, owner.Prefix(site)+"edition_") {
			c.edition = s.name
			return
		}
		c.sections = append(c.sections, s)
	default:
		if len(c.sections) == 0 {
			c.sections = append(c.sections, section{kind: "nothing", name: "before the first section"})
		}
		s := &c.sections[len(c.sections)-1]
		s.lines = append(s.lines, line)
	}
}

// objects returns sections as they are compared.
func objects(sections []section) []plugins.Object {
	out := make([]plugins.Object, 0, len(sections))
	for i := range sections {
		s := &sections[i]
		o := plugins.Object{Kind: s.kind, Name: s.name}
		if s.rest != "" {
			o.Fields = append(o.Fields, plugins.Field{Name: "is", Value: s.rest})
		}
		seen := make(map[string]int)
		for _, l := range s.lines {
			name, value := keyword(l)
			if seen[name]++; seen[name] > 1 {
				name += " " + strconv.Itoa(seen[name])
			}
			o.Fields = append(o.Fields, plugins.Field{Name: name, Value: value})
		}
		out = append(out, o)
	}
	return out
}

// keyword parts a line into what it sets and to what.
func keyword(line string) (name, value string) {
	words := strings.Fields(line)
	n := 1
	switch words[0] {
	case "server", "timeout", "option", "stick", "http-check", "tcp-check", "tcp-request", "no":
		n = 2
	}
	n = min(n, len(words))
	value = strings.Join(words[n:], " ")
	if value == "" {
		value = "on"
	}
	return strings.Join(words[:n], " "), value
}
