package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Diff returns what differs between two states of a site, in the order in which
// a driver can make it so: what is new comes before what goes. Objects are the
// same if they have the same name. Either site may be nil. It is the readable
// part of a Plan; a driver adds Effects, and turns a change into a replacement
// where its balancer can't do otherwise.
func Diff(old, now *Site) []Change {
	if old == nil {
		old = new(Site)
	}
	if now == nil {
		now = new(Site)
	}
	var d differ
	objects(&d, "pool", "", old.Pools, now.Pools, func(p *Pool) string { return p.Name },
		[]string{"backends", "checks"}, func(o, n *Pool, name string) {
			objects(&d, "backend", name+"/", o.Backends, n.Backends, func(b *Backend) string { return b.Name }, nil, nil)
			objects(&d, "check", name+"/", o.Checks, n.Checks, checkName, nil, nil)
		})
	objects(&d, "certificate", "", old.Certificates, now.Certificates, func(c *Certificate) string { return c.Name }, nil, nil)
	objects(&d, "group", "", old.Groups, now.Groups, func(g *Group) string { return g.Name },
		[]string{"listeners"}, func(o, n *Group, name string) {
			objects(&d, "listener", name+"/", o.Listeners, n.Listeners, func(l *Listener) string { return l.Name }, nil, nil)
		})
	slices.Reverse(d.removed) // what is within goes first
	return append(d.made, d.removed...)
}

// checkName returns the name of a check that may have none of its own.
func checkName(c *Check) string {
	if c.Name == "" {
		return string(c.Type)
	}
	return c.Name
}

type differ struct{ made, removed []Change }

// objects compares two lists. The fields in skip are compared by inner, which
// is given an empty object for one that isn't there.
func objects[T any](d *differ, kind, parent string, old, now []T, nameOf func(*T) string, skip []string, inner func(o, n *T, name string)) {
	find := func(list []T, name string) *T {
		i := slices.IndexFunc(list, func(t T) bool { return nameOf(&t) == name })
		if i < 0 {
			return nil
		}
		return &list[i]
	}
	for i := range now {
		n := &now[i]
		name := nameOf(n)
		o := find(old, name)
		c := Change{Action: ActionChange, Kind: kind, Name: parent + name}
		if o == nil {
			o, c.Action = new(T), ActionAdd
		}
		c.Fields = fields(reflect.ValueOf(o).Elem(), reflect.ValueOf(n).Elem(), append(skip, "name"))
		if c.Action == ActionAdd || len(c.Fields) > 0 {
			d.made = append(d.made, c)
		}
		if inner != nil {
			inner(o, n, c.Name)
		}
	}
	for i := range old {
		o := &old[i]
		name := nameOf(o)
		if find(now, name) != nil {
			continue
		}
		d.removed = append(d.removed, Change{Action: ActionRemove, Kind: kind, Name: parent + name})
		if inner != nil {
			inner(o, new(T), parent+name)
		}
	}
}

// fields compares two structs of the model, field by field.
func fields(o, n reflect.Value, skip []string) []FieldChange {
	var out []FieldChange
	for i := range n.NumField() {
		name, _, _ := strings.Cut(n.Type().Field(i).Tag.Get("json"), ",")
		if slices.Contains(skip, name) || reflect.DeepEqual(o.Field(i).Interface(), n.Field(i).Interface()) {
			continue
		}
		out = append(out, FieldChange{Name: name, Before: text(o.Field(i)), After: text(n.Field(i))})
	}
	return out
}

// text shows a value in one line; the zero value is empty.
func text(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	if v.Kind() == reflect.Struct {
		b, err := json.Marshal(v.Interface())
		if err == nil {
			return string(b)
		}
	}
	return fmt.Sprint(v.Interface())
}

// Revision identifies what d says: equal Deployments have equal Revisions.
func (d *Deployment) Revision() string {
	if d == nil {
		return ""
	}
	b, err := json.Marshal(d)
	if err != nil {
		return "" // no field of the model can fail to be marshalled
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}
