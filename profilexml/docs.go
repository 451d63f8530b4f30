package profilexml

import (
	"fmt"
	"strings"
)

// RulesMarkdown returns the documentation of all rules, as in docs/rules.md.
func RulesMarkdown() string {
	var s strings.Builder
	s.WriteString(`# What aovlb profile check looks for

Each rule has an ID that doesn't change. An **error** keeps the profile or a part
of it from working, a **warning** is probably not what was meant, and an **info**
is worth knowing. Where it says *fix*, ` + "`aovlb profile check --fix`" + ` sets it right
where that is safe, and changes nothing else in the file. What is found depends
on the release of Windows (` + "`--windows`" + `) and the channel (` + "`--channel`" + `) that the
profile is for.

This page is made from the rules themselves.

| ID | | | |
|---|---|---|---|
`)
	rules := Rules()
	for _, r := range rules {
		fmt.Fprintf(&s, "| [%s](#%s) | %v | %s | %s |\n", r.ID, strings.ToLower(r.ID), r.Severity, fixWord(r), inMarkdown(r.Title))
	}
	for _, r := range rules {
		fmt.Fprintf(&s, "\n## %s\n\n**%s** (%v%s)\n\n%s\n\n*What to do:* %s\n", r.ID, inMarkdown(r.Title), r.Severity, withComma(fixWord(r)), inMarkdown(r.Why), inMarkdown(r.Remedy))
	}
	return s.String()
}

func fixWord(r Rule) string {
	if r.Fixable {
		return "fix"
	}
	return ""
}

func withComma(s string) string {
	if s == "" {
		return ""
	}
	return ", " + s
}

// inMarkdown keeps text from being taken for markup.
func inMarkdown(s string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "|", `\|`, "*", `\*`, "[", `\[`, "]", `\]`, "_", `\_`).Replace(s)
}

// ElementsMarkdown returns the documentation of all elements, as in
// docs/profilexml.md.
func ElementsMarkdown() string {
	var s strings.Builder
	s.WriteString(`# The elements of ProfileXML

In the order in which Windows reads them back, which is the one to write them in.
"Since" is the first public release of Windows that honours the element. This
page is made from the table that aovlb reads, checks and builds profiles with.

| Element | Holds | Since | |
|---|---|---|---|
`)
	for e := range contentTable.Walk {
		if e.Space != "" {
			continue
		}
		since := ""
		if e.Since != 0 {
			since = strings.TrimPrefix(e.Since.String(), "Windows ")
		}
		about := e.About
		if e.Default != "" {
			about += " Default: " + e.Default + "."
		}
		if e.Trap != "" {
			about += " **" + e.Trap + "**"
		}
		fmt.Fprintf(&s, "| `%s`%s | %s | %s | %s |\n", strings.TrimPrefix(e.Path(), "VPNProfile/"), e.often(), e.holds(), since, strings.ReplaceAll(about, "|", `\|`))
	}
	return s.String()
}

// often says how often an element may be there, in a word.
func (e *Element) often() string {
	switch {
	case e.Repeats && e.Required:
		return ", at least one"
	case e.Repeats:
		return ", any number"
	case e.Required && e.parent != nil:
		return ", needed"
	}
	return ""
}

// holds says what an element holds.
func (e *Element) holds() string {
	switch e.Type {
	case Group:
		return "elements"
	case Boolean:
		return "true, false"
	case Enumeration:
		return strings.Join(e.Values, ", ")
	case Number:
		return fmt.Sprintf("%d to %d", e.Least, e.Most)
	case List:
		return fmt.Sprintf("list with `%s`", e.Separator)
	default:
		return e.Type.String()
	}
}

// XSD returns a schema of all elements, for editors to complete and explain
// them. It leaves the order open, as Windows does, and knows what the published
// schema doesn't. The inside of EapHostConfig is anything.
func XSD() string {
	var s strings.Builder
	s.WriteString(`<?xml version="1.0" encoding="utf-8"?>
<!-- The elements of ProfileXML, made from the content table of aovlb. -->
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified">
  <xs:simpleType name="boolean">
    <xs:restriction base="xs:string">
      <xs:enumeration value="true"/>
      <xs:enumeration value="false"/>
    </xs:restriction>
  </xs:simpleType>
`)
	writeXSD(&s, contentTable, 1)
	s.WriteString("</xs:schema>\n")
	return s.String()
}

func writeXSD(s *strings.Builder, e *Element, depth int) {
	pad := strings.Repeat("  ", depth)
	line := func(format string, args ...any) { fmt.Fprintf(s, pad+format+"\n", args...) }
	line(`<xs:element name="%s"%s>`, e.Name, xsdType(e))
	about := e.About
	if e.Trap != "" {
		about += " " + e.Trap
	}
	line(`  <xs:annotation><xs:documentation>%s</xs:documentation></xs:annotation>`, escape(about))
	switch {
	case e.Name == "Configuration":
		line(`  <xs:complexType><xs:sequence><xs:any namespace="##other" processContents="lax"/></xs:sequence></xs:complexType>`)
	case e.Type == Group:
		line(`  <xs:complexType>`)
		// Children in any order, each as often as it may: a choice that
		// repeats, for xs:all of XSD 1.0 allows no repetition.
		line(`    <xs:choice minOccurs="0" maxOccurs="unbounded">`)
		for _, c := range e.Children {
			writeXSD(s, c, depth+3)
		}
		line(`    </xs:choice>`)
		line(`  </xs:complexType>`)
	case e.Type == Enumeration:
		line(`  <xs:simpleType>`)
		line(`    <xs:restriction base="xs:string">`)
		for _, v := range e.Values {
			line(`      <xs:enumeration value="%s"/>`, v)
		}
		line(`    </xs:restriction>`)
		line(`  </xs:simpleType>`)
	case e.Type == Number:
		line(`  <xs:simpleType>`)
		line(`    <xs:restriction base="xs:unsignedLong"><xs:minInclusive value="%d"/><xs:maxInclusive value="%d"/></xs:restriction>`, e.Least, e.Most)
		line(`  </xs:simpleType>`)
	}
	line(`</xs:element>`)
}

func xsdType(e *Element) string {
	switch e.Type {
	case Boolean:
		return ` type="boolean"`
	case Text, List, Opaque:
		return ` type="xs:string"`
	default:
		return ""
	}
}
