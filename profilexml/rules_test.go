package profilexml

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file, or writes it there.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run the tests with -update)", err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got, -update takes it):\n%s", file, d)
	}
}

func read(t testing.TB, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ruleOptions say how a rule's examples are checked, where that isn't as the
// zero Checker does.
type ruleOptions struct {
	Windows string `json:"windows"`
	Channel string `json:"channel"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
	BadName string `json:"bad_name"`
	Server  string `json:"server"`
	Beside  string `json:"beside"`
}

func (o ruleOptions) checker(t *testing.T, bad bool) *Checker {
	t.Helper()
	c := &Checker{Name: o.Name}
	if bad && o.BadName != "" {
		c.Name = o.BadName
	}
	var err error
	check := func() {
		if err != nil {
			t.Fatal(err)
		}
	}
	if o.Windows != "" {
		c.Windows, err = ParseWindows(o.Windows)
		check()
	}
	if o.Channel != "" {
		c.Channel, err = ParseChannel(o.Channel)
		check()
	}
	if o.Scope != "" {
		c.Scope, err = ParseScope(o.Scope)
		check()
	}
	if o.Server != "" {
		s, err := ParseSuite(o.Server)
		if err != nil {
			t.Fatal(err)
		}
		c.Server = []Suite{s}
	}
	if o.Beside != "" {
		d, err := Parse(read(t, "rules", o.Beside))
		if err != nil {
			t.Fatal(err)
		}
		c.Beside = []*Document{d}
	}
	return c
}

func readRuleOptions(t *testing.T) map[string]ruleOptions {
	t.Helper()
	options := map[string]ruleOptions{}
	if err := json.Unmarshal(read(t, "rules", "options.json"), &options); err != nil {
		t.Fatal(err)
	}
	return options
}

func ofRule(list []Finding, id string) []Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f Finding) bool { return f.Rule != id })
}

// TestRules has every rule found in its failing example and not in its passing
// one. What is found is in a golden file, with positions.
func TestRules(t *testing.T) {
	options := readRuleOptions(t)
	for _, r := range Rules() {
		t.Run(r.ID, func(t *testing.T) {
			bad, good := options[r.ID].checker(t, true), options[r.ID].checker(t, false)
			d, found := bad.CheckBytes(read(t, "rules", r.ID+".bad.xml"))
			mine := ofRule(found, r.ID)
			if len(mine) == 0 {
				t.Errorf("nothing found in the failing example; it has:\n%s", report(found))
			}
			golden(t, filepath.Join("testdata", "rules", r.ID+".bad.txt"), report(found))
			_, found = good.CheckBytes(read(t, "rules", r.ID+".good.xml"))
			if list := ofRule(found, r.ID); len(list) > 0 {
				t.Errorf("found in the passing example:\n%s", report(list))
			}
			if list := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Severity == Info || f.Rule == "AOV606" || options[r.ID].Beside != "" }); len(list) > 0 {
				t.Logf("the passing example has:\n%s", report(list))
			}
			if fixable := slices.ContainsFunc(mine, func(f Finding) bool { return f.Fixable() }); fixable != r.Fixable {
				t.Errorf("the rule says fixable %v, its example %v", r.Fixable, fixable)
			}
			if r.Fixable && d != nil {
				tryFix(t, bad, d, r.ID)
			}
		})
	}
}

func report(list []Finding) string {
	var s strings.Builder
	for _, f := range list {
		fixable := ""
		if f.Fixable() {
			fixable = " (fix)"
		}
		fmt.Fprintf(&s, "%s%s\n", f.String(), fixable)
	}
	return s.String()
}

func tryFix(t *testing.T, c *Checker, d *Document, id string) {
	t.Helper()
	fixed, done, err := c.Fix(d)
	if err != nil {
		t.Fatal(err)
	}
	if len(ofRule(done, id)) == 0 {
		t.Errorf("it wasn't fixed, but\n%s", report(done))
	}
	if left := ofRule(c.Check(fixed), id); len(left) > 0 {
		t.Errorf("after fixing there is still\n%s", report(left))
	}
	golden(t, filepath.Join("testdata", "rules", id+".fixed.xml"), string(fixed.Bytes()))
	again, done, err := c.Fix(fixed)
	if err != nil || len(done) > 0 || string(again.Bytes()) != string(fixed.Bytes()) {
		t.Errorf("fixing again: %v, %s", err, report(done))
	}
}

// TestRuleTexts holds the rules to one form.
func TestRuleTexts(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Rules() {
		if seen[r.ID] || len(r.ID) != 6 || !strings.HasPrefix(r.ID, "AOV") {
			t.Errorf("%s: there twice, or no ID", r.ID)
		}
		seen[r.ID] = true
		if r.Title == "" || strings.HasSuffix(r.Title, ".") {
			t.Errorf("%s: the title %q is empty or a sentence", r.ID, r.Title)
		}
		for _, s := range []string{r.Why, r.Remedy} {
			if !strings.HasSuffix(s, ".") {
				t.Errorf("%s: %q isn't a sentence", r.ID, s)
			}
		}
		if (r.visit == nil) == (r.run == nil) {
			t.Errorf("%s: either visit or run", r.ID)
		}
	}
}

// TestRulesPage holds docs/rules.md and the like to what they are made from.
func TestGeneratedPages(t *testing.T) {
	golden(t, filepath.Join("..", "docs", "rules.md"), RulesMarkdown())
	golden(t, filepath.Join("..", "docs", "profilexml-elements.md"), ElementsMarkdown())
	golden(t, filepath.Join("..", "docs", "profilexml.xsd"), XSD())
	b, err := json.MarshalIndent(struct {
		Rules    []Rule   `json:"rules"`
		Elements *Element `json:"elements"`
	}{Rules(), Content()}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("..", "docs", "profilexml.json"), string(b)+"\n")
}
