package profilexml

// A Profile and XML are turned into each other by walking the content table:
// the field of an element is found by its name, or by the tag vpn. So there is
// no second list of elements that could differ from the first.

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// An Order is the order in which elements are written.
type Order uint8

const (
	// OrderReadback is that in which Windows reads a profile back. Intune on
	// Windows 11 needs it, and everything else takes it.
	OrderReadback Order = iota
	// OrderSchema is that of the published XSD. Elements that it doesn't know
	// come last.
	OrderSchema
	// OrderKeep leaves elements where they are.
	OrderKeep
)

var orderNames = [...]string{"readback", "schema", "keep"}

func (o Order) String() string {
	if int(o) < len(orderNames) {
		return orderNames[o]
	}
	return fmt.Sprintf("Order(%d)", uint8(o))
}

// ParseOrder reads the name of an Order.
func ParseOrder(s string) (Order, error) {
	i := slices.Index(orderNames[:], strings.ToLower(s))
	if i < 0 {
		return 0, fmt.Errorf("%q is no order: it can be %s", s, strings.Join(orderNames[:], ", "))
	}
	return Order(i), nil
}

// rank is the place of an element among its siblings.
func (o Order) rank(e *Element) int {
	if o == OrderSchema && e.Space == "" {
		if e.Schema == 0 {
			return 1000 + e.index
		}
		return e.Schema
	}
	return e.index
}

// sorted returns the children of e in the order o.
func (o Order) sorted(e *Element) []*Element {
	list := slices.Clone(e.Children)
	slices.SortStableFunc(list, func(a, b *Element) int { return o.rank(a) - o.rank(b) })
	return list
}

// A FieldError says which part of a profile is wrong.
type FieldError struct {
	// Path names the element, such as VPNProfile/Route[2]/Address.
	Path string
	// Position is where it stands; zero if the profile isn't from a file.
	Position Position
	// Err says what is wrong.
	Err error
}

func (e *FieldError) Error() string {
	if e.Position.Line == 0 {
		return e.Path + ": " + e.Err.Error()
	}
	return e.Position.String() + ": " + e.Path + ": " + e.Err.Error()
}

func (e *FieldError) Unwrap() error { return e.Err }

// Document writes the profile as XML, in one line. The error holds a
// [*FieldError] for each value that can't be written. Run a [Checker] on the
// Document to learn whether it is wise.
//
// MachineMethod Eap, which Intune wants and the published schema doesn't allow,
// is left out with OrderSchema.
func (p *Profile) Document(order Order) (*Document, error) {
	w := &writer{order: order}
	w.group(contentTable, reflect.ValueOf(p).Elem(), contentTable.Name)
	if err := errors.Join(w.errs...); err != nil {
		return nil, err
	}
	d, err := ParseString(w.String())
	if err != nil {
		return nil, fmt.Errorf("the profile holds what XML can't: %w", err)
	}
	return d, nil
}

type writer struct {
	markup
	order Order
	errs  []error
}

func (w *writer) fail(path string, format string, args ...any) {
	w.errs = append(w.errs, &FieldError{Path: path, Err: fmt.Errorf(format, args...)})
}

func (w *writer) group(e *Element, v reflect.Value, path string) {
	w.open(e.Name, e.Space)
	for _, c := range w.order.sorted(e) {
		f := fieldOf(v, c.Name)
		if !f.IsValid() {
			continue // the reserved Certificate of Authentication
		}
		w.element(c, f, path+"/"+c.Name)
	}
	w.end(e.Name)
}

// fieldOf returns the field of a struct that is for an element.
func fieldOf(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if tag := f.Tag.Get("vpn"); tag == name || tag == "" && f.Name == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

func (w *writer) element(e *Element, v reflect.Value, path string) {
	if w.order == OrderSchema && e.Name == "MachineMethod" && strings.EqualFold(v.String(), "Eap") {
		return
	}
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
	case e.Repeats:
		for i := range v.Len() {
			w.group(e, v.Index(i), fmt.Sprintf("%s[%d]", path, i+1))
		}
	case e.Name == "Eap":
		w.eap(v.Interface().(*EAP), path)
	case e.Type == Group:
		w.group(e, reflect.Indirect(v), path)
	default:
		if text, ok := w.value(e, reflect.Indirect(v), path); ok {
			w.leaf(e.Name, "", text)
		} else if e.Required {
			w.fail(path, "it is needed and is empty")
		}
	}
}

func (w *writer) eap(e *EAP, path string) {
	if err := e.Validate(); err != nil {
		w.errs = append(w.errs, &FieldError{Path: path, Err: err})
	}
	w.open("Eap", "")
	w.open("Configuration", "")
	e.write(&w.markup)
	w.end("Configuration")
	w.end("Eap")
}

// value returns what a field is written as, and false if it is left out.
func (w *writer) value(e *Element, v reflect.Value, path string) (string, bool) {
	if e.Type == List {
		var items []string
		for i := range v.Len() {
			s := w.item(v.Index(i), path)
			if s == "" || strings.Contains(s, e.Separator) {
				w.fail(path, "%q can't be an item of a list: %q stands between items", s, e.Separator)
			}
			items = append(items, s)
		}
		return strings.Join(items, e.Separator), len(items) > 0
	}
	s := w.item(v, path)
	switch {
	case s == "":
		return "", false
	case e.Type == Enumeration && !slices.Contains(e.Values, s):
		w.fail(path, "%q is not one of %s", s, strings.Join(e.Values, ", "))
	case e.Type == Number:
		if n, err := strconv.ParseUint(s, 10, 64); err != nil || n < e.Least || n > e.Most {
			w.fail(path, "%s is not from %d to %d", s, e.Least, e.Most)
		}
	}
	return s, true
}

func (w *writer) item(v reflect.Value, path string) string {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		if err != nil {
			w.errs = append(w.errs, &FieldError{Path: path, Err: err})
		}
		return string(b)
	}
	return fmt.Sprint(v.Interface())
}

// Profile reads the document into Go values. The error holds a [*FieldError] for
// each element that a Profile can't hold, the first 200 of them: unknown ones,
// and values of the wrong kind. What could be read is returned with it.
func (d *Document) Profile() (*Profile, error) {
	p := new(Profile)
	r := &profileReader{doc: d}
	if d.Root.spec == nil {
		r.fail(d.Root, "a profile is <VPNProfile>, without a namespace")
		return p, errors.Join(r.errs...)
	}
	r.group(d.Root, reflect.ValueOf(p).Elem())
	return p, errors.Join(r.errs...)
}

// maxFaults bounds what is said of one document.
const maxFaults = 200

type profileReader struct {
	doc   *Document
	errs  []error
	paths paths
}

func (r *profileReader) fail(n *Node, format string, args ...any) {
	if len(r.errs) == maxFaults {
		return
	}
	r.errs = append(r.errs, &FieldError{Path: r.paths.of(n), Position: r.doc.Position(n.Start), Err: fmt.Errorf(format, args...)})
}

func (r *profileReader) group(n *Node, v reflect.Value) {
	seen := map[*Element]bool{}
	for _, c := range n.Children {
		if c.Kind != ElementNode {
			continue
		}
		if c.spec == nil {
			r.fail(c, "there is no such element here")
			continue
		}
		if seen[c.spec] && !c.spec.Repeats {
			r.fail(c, "it is there twice")
			continue
		}
		seen[c.spec] = true
		f := fieldOf(v, c.Local)
		if !f.IsValid() {
			r.fail(c, "it is reserved")
			continue
		}
		r.element(c, f)
	}
}

func (r *profileReader) element(n *Node, v reflect.Value) {
	switch {
	case n.Local == "Eap":
		host := n.at("Configuration/EapHostConfig")
		if host == nil {
			r.fail(n, "it has no Configuration/EapHostConfig")
			return
		}
		v.Set(reflect.ValueOf(r.doc.eap(host)))
	case n.spec.Repeats:
		item := reflect.New(v.Type().Elem()).Elem()
		r.group(n, item)
		v.Set(reflect.Append(v, item))
	case n.spec.Type == Group:
		if v.Kind() == reflect.Pointer {
			v.Set(reflect.New(v.Type().Elem()))
			v = v.Elem()
		}
		r.group(n, v)
	case n.spec.Type == List:
		r.list(n, v)
	default:
		r.value(n, r.doc.text(n), v)
	}
}

func (r *profileReader) list(n *Node, v reflect.Value) {
	for item := range strings.SplitSeq(r.doc.text(n), n.spec.Separator) {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		x := reflect.New(v.Type().Elem()).Elem()
		r.value(n, item, x)
		v.Set(reflect.Append(v, x))
	}
}

func (r *profileReader) value(n *Node, text string, v reflect.Value) {
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			r.fail(n, "%w", err)
		}
		return
	}
	switch v.Kind() {
	case reflect.String:
		if n.spec.Type == Enumeration {
			text = n.spec.canonical(text)
		}
		v.SetString(text)
	case reflect.Bool:
		b, ok := boolean(text)
		if !ok {
			r.fail(n, "%q is neither true nor false", text)
		}
		v.SetBool(b)
	default:
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err != nil {
			r.fail(n, "%q is not a number from %d to %d", text, n.spec.Least, n.spec.Most)
		}
		v.SetUint(u)
	}
}

// boolean reads what some part of Windows takes for true or false.
func boolean(s string) (v, ok bool) {
	switch strings.ToLower(s) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return false, false
}

// canonical returns how Windows writes a value of an Enumeration, or s itself if
// it is unknown.
func (e *Element) canonical(s string) string {
	for _, v := range e.Values {
		if strings.EqualFold(v, s) {
			return v
		}
	}
	for other, v := range e.Spellings {
		if strings.EqualFold(other, s) {
			return v
		}
	}
	return s
}
