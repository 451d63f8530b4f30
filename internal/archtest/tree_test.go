package archtest

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A tree is the repository as these tests see it.
type tree struct {
	root  string   // absolute
	files []string // slash-separated, below root, sorted
	fset  *token.FileSet
	pkgs  map[string]*pkg // by folder
}

// A pkg is the Go code of one folder, for every operating system at once.
type pkg struct {
	dir   string
	name  string
	code  []*file // what its importers get
	tests []*file
}

type file struct {
	path string // below the root
	ast  *ast.File
}

// repository reads the repository once for all tests.
var repository = sync.OnceValues(func() (*tree, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		return nil, fmt.Errorf("the repository isn't where it should be: %w", err)
	}
	return readTree(root)
})

func openRepository(t *testing.T) *tree {
	t.Helper()
	r, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func readTree(root string) (*tree, error) {
	t := &tree{root: root, fset: token.NewFileSet(), pkgs: map[string]*pkg{}}
	var err error
	if t.files, err = listFiles(root); err != nil {
		return nil, err
	}
	for _, f := range t.files {
		if path.Ext(f) != ".go" || !isPackageDir(path.Dir(f)) {
			continue
		}
		if err := t.parse(f); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// listFiles returns what is, or could be, committed: what git lists, or all
// files where there is no git.
func listFiles(root string) ([]string, error) {
	var files []string
	cmd := exec.Command("git", "-c", "safe.directory="+root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	if out, err := cmd.Output(); err == nil && len(out) > 0 {
		for f := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			if _, err := os.Lstat(filepath.Join(root, f)); err == nil { // it may be deleted, but not yet from the index
				files = append(files, f)
			}
		}
		slices.Sort(files)
		return slices.Compact(files), nil
	}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache"):
			return fs.SkipDir
		case d.IsDir():
			return nil
		}
		rel, err := filepath.Rel(root, p)
		files = append(files, filepath.ToSlash(rel))
		return err
	})
	slices.Sort(files)
	return files, err
}

// isPackageDir reports whether the go command looks into dir.
func isPackageDir(dir string) bool {
	for part := range strings.SplitSeq(dir, "/") {
		if part == "testdata" || part != "." && (part[0] == '.' || part[0] == '_') {
			return false
		}
	}
	return true
}

func (t *tree) read(f string) ([]byte, error) {
	return os.ReadFile(filepath.Join(t.root, filepath.FromSlash(f)))
}

func (t *tree) parse(f string) error {
	src, err := t.read(f)
	if err != nil {
		return err
	}
	return t.add(f, src)
}

// add parses one file of Go. The rules' own tests use it to make up trees.
func (t *tree) add(f string, src []byte) error {
	a, err := parser.ParseFile(t.fset, f, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir := path.Dir(f)
	p := t.pkgs[dir]
	if p == nil {
		p = &pkg{dir: dir}
		t.pkgs[dir] = p
	}
	g := &file{path: f, ast: a}
	if strings.HasSuffix(f, "_test.go") {
		p.tests = append(p.tests, g)
		return nil
	}
	if ignored(src) {
		return nil
	}
	p.code = append(p.code, g)
	p.name = a.Name.Name
	return nil
}

// ignored reports whether a file is never built, as generators are.
func ignored(src []byte) bool {
	head, _, _ := bytes.Cut(src, []byte("\npackage "))
	return bytes.Contains(head, []byte("//go:build ignore"))
}

// sorted returns the packages by folder.
func (t *tree) sorted() []*pkg {
	all := make([]*pkg, 0, len(t.pkgs))
	for _, p := range t.pkgs {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return all
}

// fake makes a tree of files that exist only here.
func fake(t *testing.T, files map[string]string) *tree {
	t.Helper()
	tr := &tree{fset: token.NewFileSet(), pkgs: map[string]*pkg{}}
	for f, src := range files {
		tr.files = append(tr.files, f)
		if err := tr.add(f, []byte(src)); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(tr.files)
	return tr
}

// report fails t with each fault.
func report(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

// A bite is something that breaks a rule, and a piece of what is then said. No
// words mean that the rule must be content.
type bite struct {
	name  string
	files map[string]string
	want  string
}

// tryBites holds a rule against made-up trees.
func tryBites(t *testing.T, rule func(*tree) []string, bites []bite) {
	t.Helper()
	for _, b := range bites {
		t.Run(b.name, func(t *testing.T) {
			if err := checkBite(rule(fake(t, b.files)), b.want); err != nil {
				t.Error(err)
			}
		})
	}
}

func checkBite(faults []string, want string) error {
	switch {
	case want == "" && len(faults) > 0:
		return fmt.Errorf("the rule complains about what is right: %q", faults)
	case want != "" && len(faults) == 0:
		return errors.New("the rule doesn't notice that it is broken")
	case want != "" && !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, want) }):
		return fmt.Errorf("the rule says %q, nothing with %q", faults, want)
	}
	return nil
}
