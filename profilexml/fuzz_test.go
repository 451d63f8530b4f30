package profilexml

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// seeds adds all profiles in testdata.
func seeds(f *testing.F) {
	f.Helper()
	for _, dir := range []string{"rules", "golden"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.xml"))
		if err != nil || len(files) == 0 {
			f.Fatal("there are no seeds:", err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	for _, s := range []string{"", "<", "<VPNProfile/>", "<a b='1'c='2'/>", "<a><![CDATA[]]></a>", "\xff\xfe<\x00", "<!DOCTYPE a><a/>", "<a>&#0;</a>", "<a xmlns:b=''/>", "<a/>\r\n<!-- -->", "<?xml version='1.0'?><a/>"} {
		f.Add([]byte(s))
	}
}

// FuzzParse: what is read comes out as it was, its nodes cover it, and the
// Decoder of encoding/xml takes it too.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := (&Reader{MaxBytes: 1 << 16}).Parse(b)
		if err != nil {
			if s := (*SyntaxError)(nil); !errors.As(err, &s) {
				t.Fatalf("an error that isn't a SyntaxError: %v", err)
			}
			return
		}
		if !bytes.Equal(d.Bytes(), b) {
			t.Fatalf("read %q and wrote %q", b, d.Bytes())
		}
		checkSpans(t, d)
		x := xml.NewDecoder(strings.NewReader(d.Text))
		x.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil }
		for {
			if _, err := x.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("encoding/xml doesn't take it: %v\n%q", err, d.Text)
			}
		}
	})
}

// FuzzCheck: whatever is read can be checked, fixed, formatted, compared and
// turned into a Profile; fixing and formatting twice is as good as once.
func FuzzCheck(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<14 {
			return
		}
		d, err := Parse(b)
		if err != nil {
			return
		}
		for _, c := range []*Checker{{}, {Channel: WMI, Windows: Windows10v1809, Scope: UserScope, Beside: []*Document{d}}} {
			fixed, _, err := c.Fix(d)
			if err != nil {
				t.Fatalf("%v\n%q", err, d.Text)
			}
			for _, found := range c.Check(fixed) {
				if found.Fixable() {
					t.Fatalf("after fixing: %s\n%q", found.String(), fixed.Text)
				}
			}
		}
		for _, s := range []Style{EditorStyle(), ChannelStyle(), {Order: OrderSchema, Indent: "\t"}} {
			once := Format(d, s)
			if twice := Format(once, s); once.Text != twice.Text {
				t.Fatalf("formatted once %q\nand twice %q", once.Text, twice.Text)
			}
			if list := Diff(d, once, DiffOptions{Exact: true}); len(list) > 0 {
				t.Fatalf("formatting changes %+v\n%q", list, d.Text)
			}
		}
		if p, err := d.Profile(); err == nil {
			if again, err := p.Document(OrderReadback); err == nil {
				if list := Diff(d, again, DiffOptions{}); len(list) > 0 && !hasAttributes(d) {
					t.Fatalf("a Profile loses %+v\n%q\n%q", list, d.Text, again.Text)
				}
			}
		}
	})
}

// hasAttributes reports whether elements outside EAP have attributes, which a
// Profile has no place for, and the checker reports.
func hasAttributes(d *Document) bool {
	found := false
	eachNode(d.Nodes, func(n *Node) { found = found || n.Space == "" && len(n.Attrs) > 0 })
	return found
}
