package archtest

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// A word is something that must not be in the tree. Patterns are put together
// from pieces, so that this file doesn't hold what it looks for.
type word struct {
	re   *regexp.Regexp
	why  string
	once string // the file that may hold it, in one line
}

var words = []word{
	{regexp.MustCompile(`\b(?:TO` + `DO|FIX` + `ME|X` + `XX|HA` + `CK)\b`), "unfinished work is finished, or written down where its users see it", ""},
	{regexp.MustCompile(`(?i)\bnot` + ` (?:yet )?implemented\b`), "a name that does nothing isn't exported", ""},
	{regexp.MustCompile(`(?:^|[\s"'=:(` + "`" + `])/(?:wo` + `rk|ro` + `ot|ho` + `me/\w+)/\w`), "a path of one machine means nothing on another", ""},
	{regexp.MustCompile(`\.\.` + `/shared`), "a path outside the repository means nothing to its readers", ".ci/run"},
	{regexp.MustCompile(`(?:pro` + `xy|su` + `m)\.gol` + `ang\.org|registry\.np` + `mjs|py` + `pi\.org|deb\.deb` + `ian\.org`), "where a machine gets its packages is its own business", ""},
	{regexp.MustCompile(`//no` + `lint(?:$|[^:]|:\w+(?:,\w+)*\s*$)`), "a linter is overruled by name and with a reason", ""},
}

// badNames say nothing about what is in a file or folder.
var badNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "types", "stuff"}

// TestText looks for what must not be in any file.
func TestText(t *testing.T) {
	r := openRepository(t)
	faults := nameOfFileFaults(r.files)
	for _, f := range r.files {
		data, err := r.read(f)
		if err != nil {
			t.Fatal(err)
		}
		faults = append(faults, textFaults(f, data)...)
	}
	report(t, faults)
	if len(r.files) < 10 {
		t.Errorf("only %d files were looked at", len(r.files))
	}
}

// TestGoMod: a library with replace lines can't be imported as it is tested, and
// tools in its go.mod become requirements of everybody who uses it.
func TestGoMod(t *testing.T) {
	data, err := openRepository(t).read("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	report(t, goModFaults(data))
}

func nameOfFileFaults(files []string) []string {
	var faults []string
	for _, f := range files {
		for part := range strings.SplitSeq(f, "/") {
			base := strings.TrimSuffix(strings.TrimSuffix(part, ".go"), "_test")
			if (path.Ext(part) == ".go" || part != path.Base(f)) && slices.Contains(badNames, base) {
				faults = append(faults, fmt.Sprintf("%s: %q says nothing about what is in it", f, part))
			}
		}
	}
	return faults
}

func textFaults(f string, data []byte) []string {
	if !isText(data) || path.Base(f) == "go.sum" || strings.HasSuffix(f, ".pb.go") {
		return nil // the last are made by protoc
	}
	var faults []string
	excused := map[string]bool{}
	for n, line := range bytes.Split(data, []byte("\n")) {
		for _, w := range words {
			if !w.re.Match(line) {
				continue
			}
			if w.once == f && !excused[w.why] {
				excused[w.why] = true
				continue
			}
			faults = append(faults, fmt.Sprintf("%s:%d: %q: %s", f, n+1, bytes.TrimSpace(w.re.Find(line)), w.why))
		}
	}
	if isTestdata(f) {
		return faults // somebody else's bytes, perhaps broken on purpose
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		faults = append(faults, fmt.Sprintf("%s: the last line doesn't end", f))
	}
	if bytes.Contains(data, []byte("\r\n")) {
		faults = append(faults, fmt.Sprintf("%s: lines end in CR LF", f))
	}
	return faults
}

func isText(data []byte) bool {
	return utf8.Valid(data) && !bytes.ContainsRune(data, 0)
}

func isTestdata(f string) bool { return slices.Contains(strings.Split(f, "/"), "testdata") }

func goModFaults(data []byte) []string {
	var faults []string
	for n, line := range strings.Split(string(data), "\n") {
		code, _, _ := strings.Cut(line, "//")
		first, _, _ := strings.Cut(strings.TrimSpace(code), " ")
		switch {
		case first == "replace" || first == "exclude" || strings.Contains(code, "=>"):
			faults = append(faults, fmt.Sprintf("go.mod:%d: %s lines count only here, so nobody else would get what is tested", n+1, first))
		case first == "tool" || first == "toolchain":
			faults = append(faults, fmt.Sprintf("go.mod:%d: %s: tools live in .ci/tools/go.mod", n+1, first))
		}
	}
	return faults
}

func TestTextRulesBite(t *testing.T) {
	for _, b := range []struct{ name, file, text, want string }{
		{"fine", "a.go", "package a\n", ""},
		{"unfinished", "a.go", "// TO" + "DO: all\n", "unfinished work"},
		{"part of a word", "a.go", "// MASTO" + "DON\n", ""},
		{"stub", "a.go", "errors.New(\"Not " + "implemented\")\n", "does nothing"},
		{"machine", "a.go", "open(\"/wo" + "rk/x\")\n", "path of one machine"},
		{"home", "a.sh", "cd /ro" + "ot/x\n", "path of one machine"},
		{"address", "a.md", "https://example.com/wo" + "rk/x\n", ""},
		{"outside", "a.go", "\"..\" + \"" + ".." + "/shared\"\n", "outside the repository"},
		{"outside, said by the right file", ".ci/run", "d=" + ".." + "/shared\n", ""},
		{"outside, said twice", ".ci/run", "d=" + ".." + "/shared\ne=" + ".." + "/shared\n", ".ci/run:2"},
		{"unfinished in that file", ".ci/run", "# TO" + "DO\n", "unfinished work"},
		{"no reason", "a.go", "x() //no" + "lint\n", "with a reason"},
		{"name without a reason", "a.go", "x() //no" + "lint:errcheck\n", "with a reason"},
		{"name and reason", "a.go", "x() //no" + "lint:errcheck // closing\n", ""},
		{"no end", "a.go", "package a", "doesn't end"},
		{"CR LF", "a.go", "package a\r\n", "CR LF"},
		{"testdata", "a/testdata/x.yaml", "a: b", ""},
		{"binary", "a.pcap", "\x00\xff", ""},
	} {
		t.Run(b.name, func(t *testing.T) {
			if err := checkBite(textFaults(b.file, []byte(b.text)), b.want); err != nil {
				t.Error(err)
			}
		})
	}
	for f, want := range map[string]string{
		"lb/utils.go": "utils.go", "lb/util_test.go": "says nothing", "internal/common/x.go": "says nothing", "lb/pool.go": "", "docs/types": "",
	} {
		if err := checkBite(nameOfFileFaults([]string{f}), want); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	for text, want := range map[string]string{
		"module a\n\ngo 1.26\n\nrequire b v1 // tool\n": "",
		"replace a => ../a\n":                           "replace",
		"replace (\n\ta => ../a\n)\n":                   "count only here",
		"tool a.example/b\n":                            "tools live in",
		"tool (\n":                                      "tools live in",
	} {
		if err := checkBite(goModFaults([]byte(text)), want); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}
