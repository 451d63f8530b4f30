package profilexml

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf16"
)

// TestRefused: what isn't well-formed is refused, at the place where it isn't.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, text, at, want string }{
		{"nothing", "", "1:1", "there is no XML"},
		{"space", " \n", "1:1", "there is no XML"},
		{"text alone", "hello", "1:1", "text can't stand outside"},
		{"no end", "<a>\n<b/>", "1:1", "<a> has no end tag"},
		{"wrong end", "<a>\n  <b></c></a>", "2:6", "</c> stands where </b> must, for <b> at 2:3"},
		{"end alone", "<a/></a>", "1:5", "</a> ends nothing"},
		{"second root", "<a/>\n<b/>", "2:1", "a second <b>"},
		{"text behind", "<a/>\n\n x", "3:2", "text can't stand outside"},
		{"CDATA behind", "<a/><![CDATA[x]]>", "1:5", "text can't stand outside"},
		{"document type", "<!DOCTYPE a [<!ENTITY x 'y'>]>\n<a>&x;</a>", "1:1", "document type"},
		{"unknown entity", "<a>&nbsp;</a>", "1:4", "write & as &amp;"},
		{"bare ampersand", "<a>R&D</a>", "1:5", "write & as &amp;"},
		{"cut off", "<a><b", "1:6", "ends in the middle"},
		{"attribute twice", "<a b='1' b='2'/>", "1:10", "has the attribute b twice"},
		{"attributes without space", "<a b='1'c='2'/>", "1:9", "there must be a space before the attribute c"},
		{"attribute without quotes", "<a b=1/>", "1:6", "unquoted"},
		{"prefix", "<a><x:b/></a>", "1:4", "the prefix x of <x:b> isn't declared"},
		{"prefix of an attribute", "<a i:nil='true'/>", "1:1", "the prefix i of <a> isn't declared"},
		{"empty prefix", "<a xmlns:x=''/>", "1:4", "declares no namespace"},
		{"late declaration", "<a/>\n<?xml version='1.0'?>", "2:1", "must be the first thing"},
		{"declaration after space", " <?xml version='1.0'?><a/>", "1:2", "must be the first thing"},
		{"a control character", "<a>fine\n fine\x01 fine</a>", "2:6", "illegal character"},
		{"entity in an attribute", "<a><b c='&copy;'/></a>", "1:10", "write & as &amp;"},
		{"no semicolon", "<a>\n<b>a &amp; b &lt c</b></a>", "2:14", "write & as &amp;"},
		{"NUL", "<a>\x00</a>", "1:4", "illegal character"},
		{"end of CDATA", "<a>]]></a>", "1:4", "]]>"},
		{"comment", "<a><!-- a -- b --></a>", "1:11", "--"},
		{"a character more", "<ä>中文</b></ä>", "1:6", "</b> stands where </ä> must"},
		{"not UTF-8", "<a>\xff</a>", "0:0", "byte 4 is not UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseString(c.text)
			var s *SyntaxError
			if !errors.As(err, &s) {
				t.Fatalf("it was taken, or %v", err)
			}
			if got := s.Position.String(); got != c.at || !strings.Contains(s.Text, c.want) {
				t.Errorf("%s: %s\nwant %s: …%s…", got, s.Text, c.at, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	deep := strings.Repeat("<a>", 65) + strings.Repeat("</a>", 65)
	if _, err := ParseString(deep); err == nil || !strings.Contains(err.Error(), "nested deeper than 64") {
		t.Errorf("65 elements deep: %v", err)
	}
	if _, err := (&Reader{MaxDepth: 65}).Parse([]byte(deep)); err != nil {
		t.Errorf("65 elements deep, and allowed: %v", err)
	}
	if _, err := (&Reader{MaxBytes: 3}).Parse([]byte("<a/>")); err == nil || !strings.Contains(err.Error(), "larger than 3 bytes") {
		t.Errorf("4 bytes of 3: %v", err)
	}
	if _, err := (&Reader{MaxBytes: 4}).Read(strings.NewReader("<a/>")); err != nil {
		t.Errorf("4 bytes of 4: %v", err)
	}
	if _, err := (&Reader{MaxBytes: 3}).Read(strings.NewReader("<a/>")); err == nil {
		t.Error("4 bytes of 3 were read")
	}
	many := "<a " + strings.Repeat("x", 1)
	for i := range 65 {
		many += " a" + strings.Repeat("b", i) + "='1'"
	}
	if _, err := ParseString(strings.Replace(many, "<a x", "<a", 1) + "/>"); err == nil || !strings.Contains(err.Error(), "more than 64 attributes") {
		t.Errorf("65 attributes: %v", err)
	}
}

func utf16Bytes(text string, big bool) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		if big {
			b = append(b, byte(u>>8), byte(u))
		} else {
			b = append(b, byte(u), byte(u>>8))
		}
	}
	return b
}

func TestEncodings(t *testing.T) {
	const text = "<VPNProfile>\r\n<!-- 中文 😀 --></VPNProfile>"
	for _, c := range []struct {
		name string
		file []byte
		want Encoding
	}{
		{"UTF-8", []byte(text), UTF8},
		{"UTF-8 with a mark", append([]byte("\xef\xbb\xbf"), text...), UTF8BOM},
		{"UTF-16LE", append([]byte("\xff\xfe"), utf16Bytes(text, false)...), UTF16LE},
		{"UTF-16BE", append([]byte("\xfe\xff"), utf16Bytes(text, true)...), UTF16BE},
		{"UTF-16LE without a mark", utf16Bytes(text, false), UTF16LENoBOM},
		{"UTF-16BE without a mark", utf16Bytes(text, true), UTF16BENoBOM},
		{"UTF-16LE that begins with a line", utf16Bytes("\n"+text, false), UTF16LENoBOM},
	} {
		d, err := Parse(c.file)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d.Encoding != c.want || string(d.Bytes()) != string(c.file) || !strings.Contains(d.Text, "中文 😀") {
			t.Errorf("%s: read as %v: %q", c.name, d.Encoding, d.Text)
		}
	}
	for name, file := range map[string][]byte{
		"odd":            []byte("\xff\xfe<\x00a"),
		"half a pair":    append([]byte("\xff\xfe"), 0x3d, 0xd8),
		"the wrong half": append([]byte("\xff\xfe"), 0x00, 0xde, 0x00, 0x00),
	} {
		if _, err := Parse(file); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestPositions counts lines and characters, whatever ends a line.
func TestPositions(t *testing.T) {
	d, err := ParseString("<a>\r\n <b>中</b>\r<c/>\n\t<d x='1'\n   y='2'/></a>")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "1:1", "b": "2:2", "c": "3:1", "d": "4:2"}
	eachNode(d.Nodes, func(n *Node) {
		if n.Kind == ElementNode && d.Position(n.Start).String() != want[n.Local] {
			t.Errorf("<%s> is at %v, want %s", n.Local, d.Position(n.Start), want[n.Local])
		}
	})
	if at := d.Position(d.Root.child("d").Attr("y").ValueStart); at.String() != "5:7" {
		t.Errorf("the value of y is at %v", at)
	}
	if at := d.Position(d.Root.child("b").CloseStart); at.String() != "2:6" {
		t.Errorf("the end tag of b is at %v: a character counts once", at)
	}
	if at := d.Position(1 << 30); at.Line != 5 {
		t.Errorf("behind the end: %v", at)
	}
}

func TestValues(t *testing.T) {
	for text, want := range map[string]string{
		"<a>x</a>":                         "x",
		"<a/>":                             "",
		"<a>&lt;&amp;&gt;&quot;&apos;</a>": `<&>"'`,
		"<a>&#65;&#x42;&#x1F600;</a>":      "AB😀",
		"<a>1<!-- 2 -->3</a>":              "13",
		"<a>1<![CDATA[<&>]]>3</a>":         "1<&>3",
		"<a>1\r\n2\r3</a>":                 "1\n2\n3",
		"<a>1<b>2</b>3</a>":                "13",
	} {
		d, err := ParseString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Value(d.Root); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestNamespaces(t *testing.T) {
	d, err := ParseString(`<a xmlns="one" xmlns:p="two"><b/><p:c/><d xmlns="three" xmlns:p="four"><p:e/></d><p:f xml:lang="en"/><g xmlns=""/></a>`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "one", "b": "one", "c": "two", "d": "three", "e": "four", "f": "two", "g": ""}
	eachNode(d.Nodes, func(n *Node) {
		if n.Kind == ElementNode && n.Space != want[n.Local] {
			t.Errorf("<%s> is in %q, want %q", n.Local, n.Space, want[n.Local])
		}
	})
}
