package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// This file turns YAML into a struct, by its json tags. Unlike the YAML library's
// own decoder it goes on after a fault, so that all of them are found at once,
// and it remembers where in the file each field is, so that what is found wrong
// later can be shown there too.

// position is a place in a file, from 1.
type position struct{ line, column int }

// positions are the places of all fields in a file, by path.
type positions map[string]position

// find returns the place of a field, or, if it isn't in the file, of what it
// would be in.
func (p positions) find(path string) position {
	for path != "" {
		if at, ok := p[path]; ok {
			return at
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return position{}
}

const (
	maxDepth = 64      // of brackets and dashes
	maxNodes = 100_000 // with aliases written out
)

// decode reads YAML into the struct that into points to. The positions are nil if
// the YAML can't be read at all.
func decode(b []byte, into any) (at positions, faults []Fault) {
	defer func() {
		// The YAML library is given whatever an administrator may have typed.
		if r := recover(); r != nil {
			at, faults = nil, []Fault{{Text: fmt.Sprintf("the YAML can't be read: %v", r)}}
		}
	}()
	b = bytes.TrimPrefix(b, []byte("\uFEFF")) // Windows editors put it there
	if f, other := notUTF8(b); other {
		return nil, []Fault{f}
	}
	if f, deep := tooDeep(b); deep {
		return nil, []Fault{f}
	}
	file, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, []Fault{syntaxFault(err)}
	}
	var docs []*ast.DocumentNode
	for _, d := range file.Docs {
		if d.Body != nil {
			docs = append(docs, d)
		}
	}
	switch len(docs) {
	case 0:
		return nil, []Fault{{Text: "it is empty"}}
	case 1:
	default:
		return nil, []Fault{{Line: docs[1].Body.GetToken().Position.Line, Column: 1, Text: "there is more than one YAML document"}}
	}
	d := &decoder{at: make(positions), anchors: make(map[string]ast.Node)}
	d.value(docs[0].Body, reflect.ValueOf(into).Elem(), "")
	return d.at, d.faults
}

// notUTF8 reports text in another encoding, such as the UTF-16 that PowerShell
// writes, and what isn't text at all.
func notUTF8(b []byte) (Fault, bool) {
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		return Fault{}, false
	}
	line := 1
	for l := range bytes.Lines(b) {
		if !utf8.Valid(l) || bytes.IndexByte(l, 0) >= 0 {
			break
		}
		line++
	}
	return Fault{Line: line, Column: 1, Text: "it is not text in UTF-8: save the file in that encoding"}, true
}

// tooDeep reports nesting that no file of ours has, and that would exhaust the
// stack of a parser.
func tooDeep(b []byte) (Fault, bool) {
	flow, run, line := 0, 0, 0
	for _, t := range lexer.Tokenize(string(b)) {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			if t.Position.Line != line {
				run, line = 0, t.Position.Line
			}
			run++
		}
		if flow > maxDepth || run > maxDepth {
			return Fault{Line: t.Position.Line, Column: t.Position.Column, Text: "it is nested too deeply"}, true
		}
	}
	return Fault{}, false
}

func syntaxFault(err error) Fault {
	var s yaml.Error
	if errors.As(err, &s) && s.GetToken() != nil && s.GetToken().Position != nil {
		p := s.GetToken().Position
		return Fault{Line: p.Line, Column: p.Column, Text: "not YAML: " + s.GetMessage() + advice(s.GetMessage())}
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return Fault{Text: "not YAML: " + text}
}

// advice says what usually is behind a fault that the YAML library finds.
func advice(message string) string {
	switch {
	case strings.Contains(message, "'\t'"):
		return "; indent with spaces, not tabs"
	case strings.HasPrefix(message, "value is not allowed in this context"):
		return "; is it indented like its neighbours?"
	case strings.HasPrefix(message, "found an invalid key for this map"):
		return "; text with brackets, such as [::1]:500, needs quotes"
	case strings.HasPrefix(message, "non-map value is specified"):
		return "; is a colon missing after a field's name?"
	}
	return ""
}

type decoder struct {
	at      positions
	anchors map[string]ast.Node
	nodes   int
	faults  []Fault
}

func (d *decoder) fault(n ast.Node, path, format string, args ...any) {
	f := Fault{Path: path, Text: fmt.Sprintf(format, args...)}
	if t := n.GetToken(); t != nil && t.Position != nil {
		f.Line, f.Column = t.Position.Line, t.Position.Column
	}
	d.faults = append(d.faults, f)
}

// resolve returns what n stands for.
func (d *decoder) resolve(n ast.Node, path string) ast.Node {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			d.anchors[v.Name.GetToken().Value] = v.Value
			n = v.Value
		case *ast.AliasNode:
			name := v.Value.GetToken().Value
			to := d.anchors[name]
			if to == nil {
				d.fault(n, path, "there is no anchor &%s before it", name)
				return nil
			}
			n = to
		case *ast.TagNode:
			d.fault(n, path, "tags such as %s have no meaning here", v.Start.Value)
			return nil
		default:
			return n
		}
	}
	d.fault(n, path, "its aliases lead nowhere")
	return nil
}

// value reads n into v.
func (d *decoder) value(n ast.Node, v reflect.Value, path string) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.fault(n, path, "there are more than %d values, aliases written out", maxNodes)
		}
		return
	}
	if n = d.resolve(n, path); n == nil {
		return
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		d.at[path] = position{t.Position.Line, t.Position.Column}
	}
	if _, ok := n.(*ast.NullNode); ok {
		d.fault(n, path, "it has no value")
		return
	}
	if v.Kind() == reflect.Pointer {
		fresh := reflect.New(v.Type().Elem())
		d.value(n, fresh.Elem(), path)
		v.Set(fresh)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		d.text(n, u, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.sequence(n, v, path)
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Interface {
			if m, ok := d.free(n, path).(map[string]any); ok {
				v.Set(reflect.ValueOf(m))
			} else {
				d.fault(n, path, "it must have fields, and is %s", kindOf(n))
			}
			return
		}
		d.table(n, v, path)
	default:
		d.scalar(n, v, path)
	}
}

// text reads a value that has a notation of its own.
func (d *decoder) text(n ast.Node, u encoding.TextUnmarshaler, path string) {
	switch n.(type) {
	case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.LiteralNode:
	default:
		d.fault(n, path, "it must be text, not %s", kindOf(n))
		return
	}
	if err := u.UnmarshalText([]byte(n.GetToken().Value)); err != nil {
		d.fault(n, path, "%s", plain(err, n.GetToken().Value))
	}
}

// plain puts the errors of net/netip in our words.
func plain(err error, value string) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "ParseAddrPort("), strings.HasPrefix(text, "not an ip:port"), strings.HasPrefix(text, "no port"),
		strings.HasPrefix(text, "invalid port"), strings.HasPrefix(text, "invalid ip:port"), text == "no IP":
		return fmt.Sprintf("%q is not an address and port, such as 192.0.2.1:500 or [2001:db8::1]:500", value)
	case strings.HasPrefix(text, "netip.ParsePrefix("):
		return fmt.Sprintf("%q is not a network, such as 192.0.2.0/24 or 2001:db8::/32", value)
	case strings.HasPrefix(text, "ParseAddr("):
		return fmt.Sprintf("%q is not an IP address", value)
	}
	return text
}

func (d *decoder) scalar(n ast.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.String:
		switch s := n.(type) {
		case *ast.StringNode:
			v.SetString(s.Value)
		case *ast.LiteralNode:
			v.SetString(s.Value.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			d.fault(n, path, "%s is %s here, and must be text: put it in quotes", n.GetToken().Value, kindOf(n))
		default:
			d.fault(n, path, "it must be text, not %s", kindOf(n))
		}
	case reflect.Bool:
		b, ok := n.(*ast.BoolNode)
		if !ok {
			d.fault(n, path, "it must be true or false, not %s", kindOf(n))
			return
		}
		v.SetBool(b.Value)
	case reflect.Int:
		if _, ok := n.(*ast.IntegerNode); !ok {
			d.fault(n, path, "it must be a whole number, not %s", kindOf(n))
			return
		}
		i, err := strconv.ParseInt(n.GetToken().Value, 10, 32)
		if err != nil {
			d.fault(n, path, "%s is not a whole number between -2147483648 and 2147483647, in decimal", n.GetToken().Value)
			return
		}
		v.SetInt(i)
	case reflect.Uint32:
		i, err := strconv.ParseUint(n.GetToken().Value, 10, 32)
		if _, ok := n.(*ast.IntegerNode); !ok || err != nil {
			d.fault(n, path, "%s is not a whole number between 0 and 4294967295, in decimal", n.GetToken().Value)
			return
		}
		v.SetUint(i)
	case reflect.Float64:
		d.float(n, v, path)
	default:
		d.fault(n, path, "a field of type %v can't be read", v.Type())
	}
}

func (d *decoder) float(n ast.Node, v reflect.Value, path string) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		if f, err := strconv.ParseFloat(n.GetToken().Value, 64); err == nil {
			v.SetFloat(f)
			return
		}
	}
	d.fault(n, path, "it must be a number such as 52.5, not %s", kindOf(n))
}

// entries returns the fields of a mapping.
func (d *decoder) entries(n ast.Node, path string) (list []*ast.MappingValueNode, ok bool) {
	switch m := n.(type) {
	case *ast.MappingNode:
		return m.Values, true
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{m}, true
	}
	d.fault(n, path, "it must have fields, and is %s", kindOf(n))
	return nil, false
}

// table reads fields whose names are free.
func (d *decoder) table(n ast.Node, v reflect.Value, path string) {
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, e := range entries {
		name := e.Key.GetToken().Value
		inner := join(path, name)
		key := reflect.ValueOf(name).Convert(v.Type().Key())
		if v.MapIndex(key).IsValid() {
			d.fault(e.Key, inner, "it is there twice")
			continue
		}
		value := reflect.New(v.Type().Elem()).Elem()
		d.value(e.Value, value, inner)
		v.SetMapIndex(key, value)
	}
}

func (d *decoder) sequence(n ast.Node, v reflect.Value, path string) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.fault(n, path, "it must be a list, not %s", kindOf(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, e := range s.Values {
		d.value(e, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *decoder) mapping(n ast.Node, v reflect.Value, path string) {
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	fields := fieldsOf(v)
	seen := make(map[string]bool)
	for _, e := range entries {
		name := e.Key.GetToken().Value
		if _, merge := e.Key.(*ast.MergeKeyNode); merge {
			d.fault(e.Key, path, "merge keys can't be used here")
			continue
		}
		inner := join(path, name)
		field, ok := fields[name]
		switch {
		case !ok:
			d.fault(e.Key, inner, "%s", unknown(name, fields))
		case seen[name]:
			d.fault(e.Key, inner, "it is there twice")
		default:
			seen[name] = true
			d.value(e.Value, field, inner)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// fieldsOf returns the fields of a struct, and of structs embedded in it, by the
// names in their json tags.
func fieldsOf(v reflect.Value) map[string]reflect.Value {
	out := make(map[string]reflect.Value)
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			maps.Copy(out, fieldsOf(v.Field(i)))
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name != "" && name != "-" && f.IsExported() {
			out[name] = v.Field(i)
		}
	}
	return out
}

// unknown names an unknown field, and the nearest one that is known.
func unknown(name string, fields map[string]reflect.Value) string {
	known := make([]string, 0, len(fields))
	for k := range fields {
		known = append(known, k)
	}
	slices.Sort(known)
	best, least := "", 1+(len(name)+1)/3
	for _, k := range known {
		if n := distance(name, k); n < least {
			best, least = k, n
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown field %q, did you mean %q?", name, best)
	}
	return fmt.Sprintf("unknown field %q, there are: %s", name, strings.Join(known, ", "))
}

// distance is how many letters must be added, removed, changed or swapped with
// their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > 64 {
		a = a[:64]
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			change := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				change++
			}
			n := min(rows[i-1][j]+1, rows[i][j-1]+1, change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				n = min(n, rows[i-2][j-2]+1)
			}
			rows[i][j] = n
		}
	}
	return rows[len(a)][len(b)]
}

// kindOf says what n is, for people.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a set of fields"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return strings.ToLower(n.Type().String())
}
