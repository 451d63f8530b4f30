package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A block is a piece of code in a document.
type block struct {
	file, lang, text string
	line             int
}

// blocks returns the fenced pieces of code in a document.
func blocks(file, text string) []block {
	var all []block
	var open *block
	for n, line := range strings.Split(text, "\n") {
		fence, ok := strings.CutPrefix(line, "```")
		switch {
		case !ok && open != nil:
			open.text += line + "\n"
		case ok && open == nil:
			open = &block{file: file, lang: strings.TrimSpace(fence), line: n + 1}
		case ok:
			all = append(all, *open)
			open = nil
		}
	}
	return all
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.file, b.line) }

// documents returns the blocks of one language in all documents.
func documents(t *testing.T, r *tree, lang string) []block {
	t.Helper()
	var all []block
	for _, f := range r.files {
		if path.Ext(f) != ".md" {
			continue
		}
		data, err := r.read(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blocks(f, string(data)) {
			if b.lang == lang {
				all = append(all, b)
			}
		}
	}
	return all
}

// TestSnippetsCompile builds the Go code in the documents. What isn't a whole
// file gets a package clause and the imports it obviously means.
func TestSnippetsCompile(t *testing.T) {
	r := openRepository(t)
	snippets := documents(t, r, "go")
	if len(snippets) == 0 {
		t.Fatal("no document has Go code, not even README.md")
	}
	if err := compile(t.TempDir(), r, snippets); err != nil {
		t.Error(err)
	}
}

func TestSnippetsRuleBites(t *testing.T) {
	r := openRepository(t)
	text := "Text.\n\n```go\nfunc f() *lb.Pool { return new(lb.Pool) }\n```\n```sh\nrm\n```\n"
	good := blocks("a.md", text)
	if len(good) != 2 || good[0].lang != "go" || good[1].lang != "sh" || good[0].line != 3 {
		t.Fatalf("blocks: %+v", good)
	}
	if err := compile(t.TempDir(), r, good[:1]); err != nil {
		t.Error(err)
	}
	bad := blocks("a.md", strings.ReplaceAll(text, "new(lb.Pool)", "new(lb.Puddle)"))
	if err := compile(t.TempDir(), r, bad[:1]); err == nil || !strings.Contains(err.Error(), "Puddle") {
		t.Errorf("a snippet that can't be compiled: %v", err)
	}
}

// compile builds snippets as packages that exist only in an overlay.
func compile(tmp string, r *tree, snippets []block) error {
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	args := []string{"build", "-overlay", filepath.Join(tmp, "overlay.json")}
	for i, s := range snippets {
		dir := fmt.Sprintf("internal/archtest/snippet%d", i)
		file := filepath.Join(tmp, fmt.Sprintf("snippet%d.go", i))
		if err := os.WriteFile(file, []byte(wholeFile(r, s)), 0o600); err != nil {
			return err
		}
		overlay.Replace[filepath.Join(r.root, filepath.FromSlash(dir), "snippet.go")] = file
		args = append(args, "./"+dir)
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, "overlay.json"), data, 0o600); err != nil {
		return err
	}
	if len(snippets) == 1 {
		args = slices.Insert(args, 1, "-o", filepath.Join(tmp, "out"))
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = r.root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("the code in the documents doesn't compile: %w\n%s", err, out)
	}
	return nil
}

var (
	packageClause = regexp.MustCompile(`(?m)^package \w+`)
	selector      = regexp.MustCompile(`\b([a-z][a-z0-9]*)\.[A-Z]`)
)

// wholeFile makes a file of a snippet. Compile errors name the document.
func wholeFile(r *tree, s block) string {
	place := fmt.Sprintf("//line %s:%d\n", s.file, s.line+1)
	if packageClause.MatchString(s.text) {
		return place + s.text
	}
	known := map[string]string{
		"context": "context", "errors": "errors", "fmt": "fmt", "log": "log", "net": "net", "netip": "net/netip",
		"os": "os", "slog": "log/slog", "testing": "testing", "time": "time",
	}
	for _, p := range r.sorted() {
		if p.name != "" && p.name != "main" && !isInternal(p.dir) {
			known[p.name] = module + "/" + p.dir
		}
	}
	used := map[string]bool{}
	for _, m := range selector.FindAllStringSubmatch(s.text, -1) {
		if known[m[1]] != "" {
			used[known[m[1]]] = true
		}
	}
	head := "package snippet\n"
	for _, p := range slices.Sorted(maps.Keys(used)) {
		head += fmt.Sprintf("import %q\n", p)
	}
	return head + place + s.text
}

// TestConfigsAreValid has the program check the deployments in the documents.
func TestConfigsAreValid(t *testing.T) {
	r := openRepository(t)
	if _, err := os.Stat(filepath.Join(r.root, "examples", "aovlb", "main.go")); errors.Is(err, fs.ErrNotExist) {
		t.Skip("examples/aovlb is not there")
	}
	tmp := t.TempDir()
	bin := filepath.Join(tmp, "aovlb")
	build := exec.Command("go", "build", "-o", bin, "./examples/aovlb")
	build.Dir = r.root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := 0
	for _, b := range documents(t, r, "yaml") {
		if !strings.Contains(b.text, "sites:") {
			continue // part of one
		}
		found++
		file := filepath.Join(tmp, "deployment.yaml")
		if err := os.WriteFile(file, []byte(b.text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin, "check", "--no-files", file)
		cmd.Env = append(os.Environ(), "NPS_SECRET=not really one")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: aovlb check: %v\n%s", b, err, out)
		}
	}
	if found == 0 {
		t.Error("no document has a whole deployment, not even README.md")
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)

// TestLinks follows the links between documents.
func TestLinks(t *testing.T) {
	r := openRepository(t)
	for _, f := range r.files {
		if path.Ext(f) != ".md" {
			continue
		}
		data, err := r.read(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range deadLinks(r.files, f, string(data)) {
			t.Errorf("%s: there is no %s", f, to)
		}
	}
}

// deadLinks returns what a document links to in this repository that isn't there.
func deadLinks(files []string, f, text string) []string {
	var dead []string
	for _, m := range link.FindAllStringSubmatch(text, -1) {
		if strings.Contains(m[1], ":") {
			continue // elsewhere
		}
		to := path.Join(path.Dir(f), m[1])
		there := func(name string) bool { return name == to || strings.HasPrefix(name, to+"/") }
		if !slices.ContainsFunc(files, there) {
			dead = append(dead, m[1])
		}
	}
	return dead
}

func TestLinksRuleBites(t *testing.T) {
	files := []string{"docs/a.md", "docs/d/x.md", "README.md"}
	text := "[a](a.md#top) [d](d/) [up](../README.md) [web](https://example.com/x) [no](b.md) [top](#top)"
	if got := deadLinks(files, "docs/a.md", text); !slices.Equal(got, []string{"b.md"}) {
		t.Errorf("dead links: %q, want b.md", got)
	}
}

// TestConfigurationIsWritten: every field of the file is in its documentation.
func TestConfigurationIsWritten(t *testing.T) {
	r := openRepository(t)
	text, err := r.read("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for file, types := range map[string][]string{
		"plugins/deployment.go":    {"Deployment", "Site", "Pool", "Backend", "Check", "Group", "Limits", "Listener"},
		"plugins/tls.go":           {"TLS", "GatewayTLS", "ClientTLS"},
		"plugins/certificate.go":   {"Certificate", "ACME", "Rollout"},
		"examples/aovlb/config.go": {"Config", "AdminAPI", "Metrics", "Log"},
	} {
		fields := jsonFields(r, file, types)
		if len(fields) < len(types) {
			t.Errorf("%s has only the fields %q in %q", file, fields, types)
		}
		for _, f := range fields {
			if !strings.Contains(string(text), "`"+f+"`") {
				t.Errorf("docs/configuration.md doesn't say what %s of %s is", f, file)
			}
		}
	}
}

var jsonName = regexp.MustCompile(`json:"(\w+)`)

// jsonFields returns the names that the fields of some types have in files.
func jsonFields(r *tree, file string, types []string) []string {
	found := map[string]bool{}
	p := r.pkgs[path.Dir(file)]
	if p == nil {
		return nil
	}
	for _, f := range p.code {
		if f.path != file {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.TypeSpec)
			if !ok || !slices.Contains(types, s.Name.Name) {
				return true
			}
			for _, field := range s.Type.(*ast.StructType).Fields.List {
				if field.Tag == nil {
					continue
				}
				if m := jsonName.FindStringSubmatch(field.Tag.Value); m != nil {
					found[m[1]] = true
				}
			}
			return false
		})
	}
	return slices.Sorted(maps.Keys(found))
}
