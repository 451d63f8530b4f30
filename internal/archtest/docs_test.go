package archtest

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// TestPackageComments: one package comment a package, so that there is one
// place to read what it is for.
func TestPackageComments(t *testing.T) { report(t, packageCommentFaults(openRepository(t))) }

// TestNamesAreDocumented: a name is exported for somebody to use, and they
// should not have to read the code for it.
func TestNamesAreDocumented(t *testing.T) { report(t, nameFaults(openRepository(t))) }

// TestExamples: an Example is the one piece of documentation that can't be
// wrong.
func TestExamples(t *testing.T) { report(t, exampleFaults(openRepository(t))) }

func packageCommentFaults(t *tree) []string {
	var faults []string
	for _, p := range t.sorted() {
		var in []string
		for _, f := range p.code {
			if f.ast.Doc != nil && strings.TrimSpace(f.ast.Doc.Text()) != "" {
				in = append(in, f.path)
			}
		}
		switch {
		case len(p.code) == 0:
		case len(in) == 0:
			faults = append(faults, fmt.Sprintf("%s: no file has a package comment; write one in doc.go, or in the file named for the package", p.dir))
		case len(in) > 1:
			faults = append(faults, fmt.Sprintf("%s: there must be one package comment, and there are several: %s", p.dir, strings.Join(in, ", ")))
		default:
			if want := "Package " + p.name + " "; p.name != "main" && !strings.HasPrefix(docOf(p, in[0]), want) {
				faults = append(faults, fmt.Sprintf("%s: the package comment must begin with %q", in[0], want))
			}
		}
	}
	return faults
}

func docOf(p *pkg, path string) string {
	i := slices.IndexFunc(p.code, func(f *file) bool { return f.path == path })
	return strings.ReplaceAll(p.code[i].ast.Doc.Text(), "\n", " ")
}

func nameFaults(t *tree) []string {
	var faults []string
	for _, p := range t.sorted() {
		if p.name == "main" {
			continue // nobody can import it
		}
		said := fieldsSaid(p)
		for _, f := range p.code {
			if ast.IsGenerated(f.ast) {
				continue
			}
			for _, d := range f.ast.Decls {
				for _, n := range undocumented(d) {
					if n.field && (isInternal(p.dir) || said[n.name[strings.LastIndex(n.name, ".")+1:]]) {
						continue
					}
					faults = append(faults, fmt.Sprintf("%s: %s is exported and not documented", t.fset.Position(n.pos), n.name))
				}
			}
		}
	}
	return faults
}

// named is an exported name without a comment, and where it is. Fields are told
// apart, for what one means need be said only once a package, and not at all
// where nobody else can see it.
type named struct {
	name  string
	pos   token.Pos
	field bool
}

// fieldsSaid returns the names of fields that have a comment somewhere in p.
func fieldsSaid(p *pkg) map[string]bool {
	said := map[string]bool{}
	for _, f := range p.code {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if f, ok := n.(*ast.Field); ok && (says(f.Doc) || says(f.Comment)) {
				for _, name := range f.Names {
					said[name.Name] = true
				}
			}
			return true
		})
	}
	return said
}

func undocumented(d ast.Decl) []named {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return undocumentedFunc(d)
	case *ast.GenDecl:
		var all []named
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				all = append(all, undocumentedType(d, s)...)
			case *ast.ValueSpec:
				all = append(all, undocumentedValues(d, s)...)
			}
		}
		return all
	}
	return nil
}

// wellKnown are methods whose name is all there is to say.
var wellKnown = []string{"String", "Error", "Unwrap", "Len", "Less", "Swap"}

func undocumentedFunc(d *ast.FuncDecl) []named {
	name := d.Name.Name
	if !d.Name.IsExported() || says(d.Doc) {
		return nil
	}
	if d.Recv != nil {
		recv := receiver(d.Recv.List[0].Type)
		if !ast.IsExported(recv) || slices.Contains(wellKnown, name) {
			return nil
		}
		name = recv + "." + name
	}
	return []named{{name: name, pos: d.Pos()}}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

func undocumentedType(d *ast.GenDecl, s *ast.TypeSpec) []named {
	if !s.Name.IsExported() {
		return nil
	}
	text := s.Doc.Text() + s.Comment.Text()
	if len(d.Specs) == 1 {
		text += d.Doc.Text()
	}
	var all []named
	if strings.TrimSpace(text) == "" {
		all = append(all, named{name: s.Name.Name, pos: s.Pos()})
	}
	switch t := s.Type.(type) {
	case *ast.StructType:
		all = append(all, undocumentedFields(s.Name.Name, text, t.Fields)...)
	case *ast.InterfaceType:
		if len(t.Methods.List) > 1 { // what is said of the type is said of its one method
			all = append(all, undocumentedFields(s.Name.Name, text, t.Methods)...)
		}
	}
	return all
}

// undocumentedFields looks at fields and at methods of interfaces. One without
// a comment is explained by the comment of its type, or of a field beside it,
// that names it, or by having the name of its own type.
func undocumentedFields(typ, text string, l *ast.FieldList) []named {
	var all []named
	for _, f := range l.List {
		text += f.Doc.Text() + f.Comment.Text()
	}
	for _, f := range l.List {
		if says(f.Doc) || says(f.Comment) {
			continue
		}
		for _, n := range f.Names {
			if n.IsExported() && !mentions(text, n.Name) && n.Name != lastName(f.Type) {
				all = append(all, named{name: typ + "." + n.Name, pos: n.Pos(), field: true})
			}
		}
	}
	return all
}

func lastName(e ast.Expr) string {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return receiver(e)
}

// mentions reports whether text has name as a word.
func mentions(text, name string) bool {
	isPart := func(r rune) bool {
		return r != '_' && !('0' <= r && r <= '9') && !('A' <= r && r <= 'Z') && !('a' <= r && r <= 'z')
	}
	return slices.Contains(strings.FieldsFunc(text, isPart), name)
}

// undocumentedValues looks at constants and variables. In a group one comment
// for all is enough, and so is the type of a value, whose comment says what its
// values are.
func undocumentedValues(d *ast.GenDecl, s *ast.ValueSpec) []named {
	if len(d.Specs) > 1 && (s.Type != nil || len(s.Values) == 0) {
		return nil
	}
	if says(d.Doc) || says(s.Doc) || says(s.Comment) {
		return nil
	}
	var all []named
	for _, n := range s.Names {
		if n.IsExported() {
			all = append(all, named{name: n.Name, pos: n.Pos()})
		}
	}
	return all
}

func says(c *ast.CommentGroup) bool { return c != nil && strings.TrimSpace(c.Text()) != "" }

func exampleFaults(t *tree) []string {
	var faults []string
	for _, p := range t.sorted() {
		if !needsExample(p) {
			continue
		}
		var files []*ast.File
		for _, f := range p.tests {
			files = append(files, f.ast)
		}
		runs := slices.ContainsFunc(doc.Examples(files...), func(e *doc.Example) bool { return e.Output != "" || e.EmptyOutput })
		if !runs {
			faults = append(faults, fmt.Sprintf("%s has no Example that runs (with an Output comment)", p.dir))
		}
	}
	return faults
}

// needsExample reports whether somebody outside could import p for something:
// programs, internal packages, and generated or empty ones are not used so.
func needsExample(p *pkg) bool {
	if p.name == "main" || len(p.code) == 0 || isInternal(p.dir) {
		return false
	}
	return slices.ContainsFunc(p.code, func(f *file) bool {
		return !ast.IsGenerated(f.ast) && slices.ContainsFunc(f.ast.Decls, exports)
	})
}

// isInternal reports whether only this repository can import dir.
func isInternal(dir string) bool { return slices.Contains(strings.Split(dir, "/"), "internal") }

func exports(d ast.Decl) bool {
	switch d := d.(type) {
	case *ast.FuncDecl:
		return d.Name.IsExported()
	case *ast.GenDecl:
		return slices.ContainsFunc(d.Specs, func(s ast.Spec) bool {
			switch s := s.(type) {
			case *ast.TypeSpec:
				return s.Name.IsExported()
			case *ast.ValueSpec:
				return slices.ContainsFunc(s.Names, (*ast.Ident).IsExported)
			}
			return false
		})
	}
	return false
}

func TestPackageCommentRuleBites(t *testing.T) {
	tryBites(t, packageCommentFaults, []bite{
		{"one", map[string]string{"a/x.go": "// Package a is a.\npackage a\n", "a/y.go": "package a\n"}, ""},
		{"none", map[string]string{"a/x.go": "package a\n"}, "no file has a package comment"},
		{"two", map[string]string{"a/x.go": "// Package a is a.\npackage a\n", "a/y.go": "// Package a is b.\npackage a\n"}, "there are several"},
		{"another name", map[string]string{"a/x.go": "// Package b is a.\npackage a\n"}, "must begin with"},
		{"a program", map[string]string{"a/x.go": "// Aovlb balances.\npackage main\n"}, ""},
		{"only tests", map[string]string{"a/x_test.go": "package a\n"}, ""},
	})
}

func TestNameRuleBites(t *testing.T) {
	one := func(code string) map[string]string { return map[string]string{"a/x.go": "package a\n" + code} }
	tryBites(t, nameFaults, []bite{
		{"func", one("func F() {}"), "F is exported"},
		{"documented func", one("// F does.\nfunc F() {}"), ""},
		{"method", one("// T is.\ntype T int\nfunc (t *T) M() {}"), "T.M is exported"},
		{"generic method", one("// T is.\ntype T[A any] struct{}\nfunc (t *T[A]) M() {}"), "T.M is exported"},
		{"well-known method", one("// T is.\ntype T int\nfunc (t T) String() string { return \"\" }"), ""},
		{"method nobody sees", one("type t int\nfunc (t) M() {}"), ""},
		{"type", one("type T int"), "T is exported"},
		{"field", one("// T is.\ntype T struct { Field int }"), "T.Field is exported"},
		{"field named by the type", one("// T is Field.\ntype T struct { Field int }"), ""},
		{"field said elsewhere", one("// T is.\ntype T struct { Field int }\n// U is.\ntype U struct {\n\t// Field is.\n\tField int\n}"), ""},
		{"field nobody else sees", map[string]string{"internal/a/x.go": "package a\n// T is.\ntype T struct { Field int }"}, ""},
		{"func in an internal package", map[string]string{"internal/a/x.go": "package a\nfunc F() {}"}, "F is exported"},
		{"field named by another", one("// T is.\ntype T struct {\n\t// Field and Other are.\n\tField int\n\tOther int\n}"), ""},
		{"field named as its type", one("// T is.\ntype T struct { Duration time.Duration }"), ""},
		{"field with a comment", one("// T is.\ntype T struct { Field int // in bytes\n}"), ""},
		{"one method", one("// T is.\ntype T interface { M() }"), ""},
		{"two methods", one("// T is.\ntype T interface { M(); N() }"), "T.M is exported"},
		{"constant", one("const C = 1"), "C is exported"},
		{"group", one("// The numbers.\nconst (\n\tA = 1\n\tB = 2\n)"), ""},
		{"enumeration", one("// T is.\ntype T int\nconst (\n\tA T = iota\n\tB\n)"), ""},
		{"group without", one("const (\n\tA = 1 // one\n\tB = 2\n)"), "B is exported"},
		{"generated", map[string]string{"a/x.go": "// Code generated by x. DO NOT EDIT.\n\npackage a\nfunc F() {}"}, ""},
		{"tests", map[string]string{"a/x_test.go": "package a\nfunc TestX() {}"}, ""},
	})
}

func TestExampleRuleBites(t *testing.T) {
	code := "// Package a is a.\npackage a\n// F does.\nfunc F() {}\n"
	tryBites(t, exampleFaults, []bite{
		{"none", map[string]string{"a/x.go": code}, "a has no Example that runs"},
		{"runs", map[string]string{"a/x.go": code, "a/x_test.go": "package a\nfunc ExampleF() {\n\tF()\n\t// Output:\n}\n"}, ""},
		{"is only compiled", map[string]string{"a/x.go": code, "a/x_test.go": "package a\nfunc ExampleF() {\n\tF()\n}\n"}, "a has no Example that runs"},
		{"internal", map[string]string{"internal/a/x.go": code}, ""},
		{"program", map[string]string{"a/x.go": "package main\nfunc main() {}\n"}, ""},
	})
}
