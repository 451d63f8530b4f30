package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestImports holds the import table against every import in the tree.
func TestImports(t *testing.T) { report(t, importFaults(openRepository(t))) }

// TestWalls holds the negative rules against what each package leads to.
func TestWalls(t *testing.T) { report(t, wallFaults(openRepository(t))) }

func importFaults(t *tree) []string {
	var faults []string
	for _, p := range t.sorted() {
		rule, ok := ruleFor(p.dir)
		if !ok {
			faults = append(faults, fmt.Sprintf("%s: this package has no rule: give it one in rooms_test.go and docs/design.md, or a place in a room that has", p.dir))
			continue
		}
		for _, f := range p.code {
			for _, i := range f.imports() {
				if why := rule.forbids(p.dir, i); why != "" {
					faults = append(faults, fmt.Sprintf("%s: %s", f.path, why))
				}
			}
		}
		for _, f := range p.tests {
			for _, i := range f.imports() {
				if why := rule.forbidsTests(p.dir, i); why != "" {
					faults = append(faults, fmt.Sprintf("%s: %s", f.path, why))
				}
			}
		}
	}
	return faults
}

// imports returns what a file imports, our own packages by their folder. The
// standard library is left out.
func (f *file) imports() []string {
	var all []string
	for _, i := range f.ast.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		if err != nil || isStandard(name) {
			continue
		}
		all = append(all, strings.TrimPrefix(name, module+"/"))
	}
	return all
}

func isStandard(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !strings.Contains(first, ".")
}

// isOurs reports whether a name returned by imports is a folder of ours.
func isOurs(name string) bool { return isStandard(name) }

// forbids says why the packages in dir must not import a package, or "".
func (r room) forbids(dir, imp string) string {
	if why := wallBetween(dir, imp); why != "" {
		return fmt.Sprintf("%s must not import %s: %s", dir, imp, why)
	}
	if isOurs(imp) && (matchesAny(r.ours, imp) || sameProgram(dir, imp)) {
		return ""
	}
	if !isOurs(imp) && (slices.Contains(r.modules, anything) || slices.ContainsFunc(r.modules, func(m string) bool { return within(imp, m) })) {
		return ""
	}
	return fmt.Sprintf("%s must not import %s: it may import %s", dir, imp, r.may())
}

// forbidsTests is forbids for test files. They may meet any of our rooms but
// the programs, for tests are where rooms come together.
func (r room) forbidsTests(dir, imp string) string {
	switch {
	case isOurs(imp) && matches("examples/...", imp) && !sameProgram(dir, imp):
		return fmt.Sprintf("tests of %s must not import %s: examples are programs, and nobody's library", dir, imp)
	case isOurs(imp):
		return ""
	}
	allowed := append(slices.Clone(testsMay), r.modules...)
	if slices.Contains(allowed, anything) || slices.ContainsFunc(allowed, func(m string) bool { return within(imp, m) }) {
		return ""
	}
	return fmt.Sprintf("tests of %s must not import %s: see testsMay in rooms_test.go", dir, imp)
}

func (r room) may() string {
	if len(r.ours)+len(r.modules) == 0 {
		return "nothing but the standard library"
	}
	return "the standard library, " + strings.Join(slices.Concat(r.ours, r.modules), ", ")
}

// within reports whether a package belongs to a module, by its path.
func within(imp, module string) bool {
	return imp == module || strings.HasPrefix(imp, module+"/")
}

func wallFaults(t *tree) []string {
	var faults []string
	for _, p := range t.sorted() {
		for _, way := range t.leadsTo(p.dir) {
			to := way[len(way)-1]
			if why := wallBetween(p.dir, to); why != "" {
				faults = append(faults, fmt.Sprintf("%s must not lead to %s: %s (the way is %s)", p.dir, to, why, strings.Join(way, " → ")))
			}
		}
	}
	return faults
}

// leadsTo returns the shortest way from a folder to each package that its code
// imports, itself or by way of our other packages.
func (t *tree) leadsTo(dir string) [][]string {
	var ways [][]string
	seen := map[string]bool{dir: true}
	next := [][]string{{dir}}
	for len(next) > 0 {
		way := next[0]
		next = next[1:]
		p := t.pkgs[way[len(way)-1]]
		if p == nil {
			continue
		}
		for _, f := range p.code {
			for _, i := range f.imports() {
				if seen[i] {
					continue
				}
				seen[i] = true
				longer := append(slices.Clone(way), i)
				ways = append(ways, longer)
				next = append(next, longer)
			}
		}
	}
	return ways
}

// listed is what the go command says of one package.
type listed struct {
	ImportPath string
	Standard   bool
	Deps       []string
	Module     *struct{ Path string }
	Error      *struct{ Err string }
}

// TestModules counts the modules of others that the build of each room reaches
// on this system: what somebody who imports it has to compile and to trust.
func TestModules(t *testing.T) {
	all, err := goList(openRepository(t).root)
	if err != nil {
		t.Fatal(err)
	}
	report(t, moduleFaults(all))
	for _, dir := range slices.Sorted(maps.Keys(all)) {
		if ours, ok := strings.CutPrefix(dir, module+"/"); ok {
			t.Logf("%-24s %v", ours, reached(all, dir))
		}
	}
}

func goList(root string) (map[string]listed, error) {
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Deps,Module,Error", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("go list: %w", err)
	}
	all := map[string]listed{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var l listed
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		all[l.ImportPath] = l
	}
}

// reached returns the modules of others below a package.
func reached(all map[string]listed, pkg string) []string {
	found := map[string]bool{}
	for _, d := range all[pkg].Deps {
		if m := all[d].Module; m != nil && m.Path != module {
			found[m.Path] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func moduleFaults(all map[string]listed) []string {
	var faults []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		dir, ours := strings.CutPrefix(name, module+"/")
		rule, ok := ruleFor(dir)
		if !ours || !ok {
			continue // others', or reported by TestImports
		}
		got := reached(all, name)
		if rule.reach != uncounted && len(got) > rule.reach {
			faults = append(faults, fmt.Sprintf("%s leads to %d modules of others, and may lead to %d: %s", dir, len(got), rule.reach, strings.Join(got, ", ")))
		}
		for _, m := range got {
			if why := wallBetween(dir, m); why != "" {
				faults = append(faults, fmt.Sprintf("%s must not lead to %s: %s", dir, m, why))
			}
		}
	}
	return faults
}

func TestImportRulesBite(t *testing.T) {
	one := func(dir, imp string) map[string]string {
		return map[string]string{dir + "/x.go": "package x\nimport _ \"" + imp + "\"\n"}
	}
	tryBites(t, importFaults, []bite{
		{"std", one("lb", "net/netip"), ""},
		{"lb is alone", one("lb", module+"/geo"), "lb must not import geo: lb decides"},
		{"lb without modules", one("lb", "golang.org/x/sys/unix"), "nothing but the standard library"},
		{"engine and protocol", one("lb/udp", module+"/ikev2"), "lb/udp must not import ikev2: engines know no protocol"},
		{"engine and engine", one("lb/tcp", module+"/lb/udp"), "lb/tcp must not import lb/udp"},
		{"engine and lb", one("lb/udp", module+"/lb"), ""},
		{"engine and sys", one("lb/udp", "golang.org/x/sys/unix"), ""},
		{"module, not its namesake", one("lb/udp", "golang.org/x/system"), "must not import golang.org/x/system"},
		{"protocols", one("radius", module+"/ikev2"), "each protocol stands alone"},
		{"leaf", one("profilexml/rasphone", module+"/profilexml"), "rasphone is a leaf"},
		{"built-in", one("plugins/builtin", goPlugin), "speaks to no other"},
		{"vendor", one("plugins/vendors/kemp", module+"/lb/tcp"), "no business with engines"},
		{"vendor's own folder", one("plugins/vendors/kemp", module+"/plugins/vendors/kemp/grammar"), ""},
		{"examples take all", one("examples/aovlb", module+"/plugins/host"), ""},
		{"one example, another", one("examples/aovlb", module+"/examples/tiny"), "nobody's library"},
		{"one example, two folders", one("examples/aovlb", module+"/examples/aovlb/internal/page"), ""},
		{"no rule", one("lb/fast", "fmt"), "lb/fast: this package has no rule"},
		{"no rule inside", one("internal/misc", "fmt"), "has no rule"},
		{"test with a protocol", map[string]string{"lb/udp/x_test.go": "package x\nimport _ \"" + module + "/ikev2\"\n"}, ""},
		{"test with a program", map[string]string{"lb/x_test.go": "package x\nimport _ \"" + module + "/examples/aovlb\"\n"}, "nobody's library"},
		{"test with testify", map[string]string{"lb/x_test.go": "package x\nimport _ \"github.com/stretchr/testify/assert\"\n"}, "see testsMay"},
		{"other systems", map[string]string{"lb/x_plan9.go": "package x\nimport _ \"golang.org/x/sys/plan9\"\n"}, "nothing but the standard library"},
	})
}

func TestWallsBite(t *testing.T) {
	tryBites(t, wallFaults, []bite{
		{"the long way round", map[string]string{
			"lb/udp/x.go": "package x\nimport _ \"" + module + "/lb\"\n",
			"lb/x.go":     "package x\nimport _ \"" + module + "/ikev2\"\n",
		}, "lb/udp must not lead to ikev2: engines know no protocol; they are handed an lb.Classifier or lb.Sniffer (the way is lb/udp → lb → ikev2)"},
		{"a right way", map[string]string{
			"plugins/builtin/x.go": "package x\nimport _ \"" + module + "/ikev2\"\n",
			"ikev2/x.go":           "package x\nimport _ \"" + module + "/lb\"\n",
		}, ""},
	})
}

func TestModuleRulesBite(t *testing.T) {
	mod := func(p string) listed { return listed{ImportPath: p, Module: &struct{ Path string }{p}} }
	all := map[string]listed{
		module + "/lb":              {Deps: []string{"fmt", "a.example/a"}},
		module + "/plugins/builtin": {Deps: []string{goPlugin}},
		module + "/examples/aovlb":  {Deps: []string{"a.example/a", goPlugin}},
		"a.example/a":               mod("a.example/a"),
		goPlugin:                    mod(goPlugin),
		"fmt":                       {Standard: true},
	}
	got := moduleFaults(all)
	for _, want := range []string{"lb leads to 1 modules of others, and may lead to 0: a.example/a", "plugins/builtin must not lead to " + goPlugin} {
		if err := checkBite(got, want); err != nil {
			t.Error(err)
		}
	}
	if len(got) != 2 {
		t.Errorf("faults: %q, want 2", got)
	}
}

// TestRoomsAreWritten sees to it that docs/design.md names every room.
func TestRoomsAreWritten(t *testing.T) {
	r := openRepository(t)
	text, err := r.read("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, room := range rooms {
		name := strings.TrimSuffix(room.match, "/...")
		if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), "`"+name+"/*`") {
			t.Errorf("docs/design.md doesn't say what %s may import", name)
		}
	}
}
