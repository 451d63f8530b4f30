package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/aovlb/aovlb/plugins"
)

var update = flag.Bool("update", false, "write the schema and the golden files anew")

// The schema is made from the types of the file: their fields, and the comments
// on them, so that it can't say anything else.

type object = map[string]any

// words are the values of the types that are words.
var words = map[reflect.Type][]string{
	reflect.TypeFor[plugins.Picker]():        {"maglev", "least-clients", "round-robin", "least-outstanding"},
	reflect.TypeFor[plugins.FastPath]():      {"off", "auto", "require"},
	reflect.TypeFor[plugins.FastPathHook]():  {"tc", "xdp"},
	reflect.TypeFor[plugins.Failback]():      {"automatic", "delayed", "manual"},
	reflect.TypeFor[plugins.Need]():          {"all", "any"},
	reflect.TypeFor[plugins.Admin]():         {"enabled", "draining", "disabled"},
	reflect.TypeFor[plugins.CheckType]():     {"ikev2", "sstp", "radius", "radsec", "tcp", "https", "icmp"},
	reflect.TypeFor[plugins.Affinity]():      {"spi", "source", "user"},
	reflect.TypeFor[plugins.ClientAddress](): {"nat", "transparent"},
	reflect.TypeFor[plugins.Protocol]():      {"ikev2", "sstp", "radius", "radsec", "udp", "tcp"},
	reflect.TypeFor[plugins.ProxyProtocol](): {"v1", "v2"},

	reflect.TypeFor[plugins.RADIUSMode]():           {"forward", "proxy"},
	reflect.TypeFor[plugins.RADIUSUser]():           {"station-and-name", "station", "name"},
	reflect.TypeFor[plugins.MessageAuthenticator](): {"add", "require", "legacy"},
	reflect.TypeFor[plugins.RADIUSTransport]():      {"udp", "radsec"},
	reflect.TypeFor[plugins.RADIUSStore]():          {"when-down", "always"},
	reflect.TypeFor[plugins.KeyType]():              {"p256", "p384", "rsa2048", "rsa4096"},
	reflect.TypeFor[plugins.Challenge]():            {"tls-alpn-01", "http-01"},
	reflect.TypeFor[plugins.RolloutStart]():         {"automatic", "manual"},
	reflect.TypeFor[plugins.SSTPQuestion]():         {"head", "call", "ip-https"},
	reflect.TypeFor[plugins.TLSMode]():              {"passthrough", "offload", "reencrypt"},
	reflect.TypeFor[plugins.TLSVersion]():           {"1.2", "1.3"},
}

// limits are the bounds of numbers, by type and field.
var limits = map[string][2]int{
	"Backend.weight": {0, 65535}, "Backend.priority": {0, 65535}, "Backend.max_clients": {0, 1 << 30},
	"Check.port": {0, 65535}, "Check.rise": {0, 100}, "Check.fall": {0, 100}, "Check.expect": {0, 599},
	"ACME.tls_alpn_port": {0, 65535}, "ACME.http_port": {0, 65535},
	"Listener.backend_port": {0, 65535}, "Listener.workers": {0, 64},
	"Limits.max_clients": {0, 1 << 26}, "Limits.max_per_source": {0, 1 << 26}, "Limits.max_half_open_per_source": {0, 1 << 26},
	"GeoSite.weight": {0, 65535}, "GeoSite.priority": {0, 65535}, "GeoSite.capacity": {0, 1 << 30}, "GeoSite.need": {-1, 65535}, "GeoName.nearest": {0, 100},
	"GeoName.answers": {0, 20}, "Geo.rate_limit": {0, 1_000_000}, "Geo.quorum": {0, 65535},
	"Limits.max_hinted": {-1, 1 << 26}, "Limits.ask_rate": {-1, 1 << 20},
	"RadSec.port":              {0, 65535},
	"RADIUSAccounting.max_mib": {0, 1 << 20},
	"RADIUS.max_outstanding":   {0, 1 << 16}, "RADIUSServer.max_outstanding": {0, 1 << 16},
}

func makeSchema(t *testing.T) []byte {
	g := &generator{comments: make(map[string]string), values: make(map[string]string), defs: make(object)}
	for _, file := range append(modelFiles(t), "config.go") {
		g.read(t, file)
	}
	root := g.fields(reflect.TypeFor[Config]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["$id"] = "https://aovlb.github.io/aovlb.schema.json"
	root["title"] = "The file of aovlb"
	root["$defs"] = g.defs
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// modelFiles are the source files of the model.
func modelFiles(t *testing.T) (list []string) {
	for _, name := range []string{"deployment", "radius", "accounting", "radsec", "certificate", "geo", "tls", "fastpath"} {
		file := "../../plugins/" + name + ".go"
		if _, err := os.Stat(file); err != nil {
			t.Fatal(err)
		}
		list = append(list, file)
	}
	return list
}

type generator struct {
	comments map[string]string // by type, or type and Go field
	values   map[string]string // of constants, by their Go names
	defs     object
}

// read takes in the comments of a source file.
func (g *generator) read(t *testing.T, file string) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range gen.Specs {
			if v, ok := s.(*ast.ValueSpec); ok && gen.Tok == token.CONST {
				if len(v.Values) == 0 {
					continue
				}
				if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					g.values[v.Names[0].Name] = strings.Trim(lit.Value, `"`)
				}
			}
			spec, ok := s.(*ast.TypeSpec)
			if !ok {
				continue
			}
			g.comments[spec.Name.Name] = prose(gen.Doc)
			st, ok := spec.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range st.Fields.List {
				for _, n := range field.Names {
					g.comments[spec.Name.Name+"."+n.Name] = prose(field.Doc)
				}
			}
		}
	}
}

func prose(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }

var goName = regexp.MustCompile(`\b([A-Z][A-Za-z0-9]*)(\.[A-Z][A-Za-z0-9]*)?\b`)

// inFile puts the names of fields and constants in text as they are in the file.
func (g *generator) inFile(t reflect.Type, text string) string {
	first := true
	return goName.ReplaceAllStringFunc(text, func(word string) string {
		begins := first
		first = false
		if v, ok := g.values[word]; ok {
			return v
		}
		_, name, dotted := strings.Cut(word, ".")
		if !dotted {
			name = word
		}
		f, ok := t.FieldByName(name)
		if !ok || (!begins && !dotted && strings.Contains(text, "of "+word)) {
			return word
		}
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		return tag
	})
}

// fields describes a struct.
func (g *generator) fields(t reflect.Type) object {
	properties, required := make(object), []string{}
	g.collect(t, properties, &required)
	slices.Sort(required)
	out := object{"type": "object", "additionalProperties": false, "properties": properties}
	if text := g.comments[t.Name()]; text != "" {
		out["description"] = text
	}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func (g *generator) collect(t reflect.Type, properties object, required *[]string) {
	for f := range t.Fields() {
		if f.Anonymous {
			g.collect(f.Type, properties, required)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := g.value(f.Type)
		if text := g.comments[t.Name()+"."+f.Name]; text != "" {
			p["description"] = g.inFile(t, text)
		}
		if l, ok := limits[t.Name()+"."+name]; ok {
			p["minimum"], p["maximum"] = l[0], l[1]
		}
		properties[name] = p
		if !strings.HasPrefix(options, "omit") {
			*required = append(*required, name)
		}
	}
}

func (g *generator) value(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[plugins.Duration]():
		return object{"type": "string", "pattern": `^-?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`}
	case reflect.TypeFor[netip.Addr]():
		return object{"type": "string", "pattern": `^[0-9A-Fa-f.:]+(%.+)?$`}
	case reflect.TypeFor[netip.Prefix]():
		return object{"type": "string", "pattern": `^[0-9A-Fa-f.:]+/[0-9]{1,3}$`}
	case reflect.TypeFor[netip.AddrPort]():
		return object{"type": "string", "pattern": `^([0-9.]+|\[[0-9A-Fa-f.:]+(%.+)?\]):[0-9]{1,5}$`}
	}
	if w, ok := words[t]; ok {
		return object{"type": "string", "enum": w}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return g.value(t.Elem())
	case reflect.Slice:
		return object{"type": "array", "items": g.value(t.Elem())}
	case reflect.Struct:
		if _, ok := g.defs[t.Name()]; !ok {
			g.defs[t.Name()] = nil // it might refer to itself
			g.defs[t.Name()] = g.fields(t)
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return object{"type": "integer"}
	case reflect.Uint32:
		return object{"type": "integer", "minimum": 0, "maximum": uint32(1<<32 - 1)}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Map:
		if t.Elem().Kind() == reflect.Interface {
			return object{"type": "object"}
		}
		return object{"type": "object", "additionalProperties": g.value(t.Elem())}
	}
	return object{"type": "string"}
}

// The schema in the program, the one in docs, and what the types say agree.
func TestSchemaIsUpToDate(t *testing.T) {
	want := makeSchema(t)
	for _, file := range []string{"aovlb.schema.json", "../../docs/aovlb.schema.json"} {
		if *update {
			if err := os.WriteFile(file, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is out of date: run go test -update", file)
		}
	}
}

func compileSchema(t *testing.T) *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(makeSchema(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("aovlb.schema.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("aovlb.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// every word that the model knows is in the schema, and the other way round: a
// word that the model doesn't know is refused by Validate.
func TestSchemaWords(t *testing.T) {
	var decls []ast.Decl
	for _, file := range modelFiles(t) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		decls = append(decls, f.Decls...)
	}
	got := make(map[string][]string)
	for _, d := range decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.CONST {
			continue
		}
		for _, s := range gen.Specs {
			v := s.(*ast.ValueSpec)
			name := v.Type.(*ast.Ident).Name
			got[name] = append(got[name], strings.Trim(v.Values[0].(*ast.BasicLit).Value, `"`))
		}
	}
	for typ, list := range words {
		if !slices.Equal(got[typ.Name()], list) {
			t.Errorf("%s: the model has %v, the schema %v", typ.Name(), got[typ.Name()], list)
		}
		delete(got, typ.Name())
	}
	if len(got) > 0 {
		t.Errorf("not in the schema: %v", got)
	}
}

// Good files are good for the schema too. Of the bad ones, those that are bad in
// themselves, and not by contradiction, are bad for the schema.
func TestSchemaJudgesTestdata(t *testing.T) {
	s := compileSchema(t)
	good, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(good) == 0 {
		t.Fatal(err, good)
	}
	for _, file := range good {
		if err := s.Validate(readYAML(t, file)); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
	bad, err := filepath.Glob("testdata/bad/schema-*.yaml")
	if err != nil || len(bad) == 0 {
		t.Fatal(err, bad)
	}
	for _, file := range bad {
		if s.Validate(readYAML(t, file)) == nil {
			t.Errorf("%s is good for the schema", file)
		}
	}
}

// readYAML returns a file as the schema's library wants it.
func readYAML(t *testing.T, file string) any {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	j, err := yaml.YAMLToJSON(b)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(j))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}
