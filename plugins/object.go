package plugins

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
)

// An Object is something on a balancer that a driver owns, in the balancer's own
// words: a virtual service, an lbvserver, a line of a file. A driver that renders a
// Deployment into Objects and reads the Objects that are there has most of a Plan
// from [DiffObjects].
type Object struct {
	// Kind is the balancer's word for what it is, Name its name.
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Fields are what matters of it, those with the same Name once.
	Fields []Field `json:"fields,omitempty"`
}

// A Field is one property of an Object.
type Field struct {
	// Name and Value are as the balancer has them. Value is empty for what isn't
	// set. It must not be a secret: what stands for one is a hash of it, or
	// where it comes from.
	Name  string `json:"name"`
	Value string `json:"value"`
	// Fixed says that the balancer can't change it in an object that is there:
	// the object must be made anew.
	Fixed bool `json:"fixed,omitempty"`
}

// Get returns the value of a field; empty if there is none.
func (o *Object) Get(name string) string {
	for _, f := range o.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// DiffObjects returns the changes that make want of found, in an order in which
// traffic goes on: what is new is made and what differs is changed, in the order of
// want, which has what is used before what uses it; then what isn't wanted any
// more is removed, in the reverse order of found. Objects are the same if they
// have the same Kind and Name. Fields that only found has don't matter.
func DiffObjects(found, want []Object) []Change {
	var out []Change
	for i := range want {
		w := &want[i]
		k := slices.IndexFunc(found, func(o Object) bool { return o.Kind == w.Kind && o.Name == w.Name })
		c := Change{Action: ActionAdd, Kind: w.Kind, Name: w.Name}
		var old *Object
		if k >= 0 {
			old, c.Action = &found[k], ActionChange
		}
		for _, f := range w.Fields {
			before := ""
			if old != nil {
				before = old.Get(f.Name)
			}
			if before == f.Value {
				continue
			}
			c.Fields = append(c.Fields, FieldChange{Name: f.Name, Before: before, After: f.Value})
			if f.Fixed && old != nil {
				c.Action = ActionReplace
			}
		}
		if old == nil || len(c.Fields) > 0 {
			out = append(out, c)
		}
	}
	for i := range slices.Backward(found) {
		f := &found[i]
		if !slices.ContainsFunc(want, func(o Object) bool { return o.Kind == f.Kind && o.Name == f.Name }) {
			out = append(out, Change{Action: ActionRemove, Kind: f.Kind, Name: f.Name})
		}
	}
	return out
}

// RevisionOf identifies a set of objects, whatever their order: it is what State
// and Plan.Base can have as a revision.
func RevisionOf(list []Object) string {
	lines := make([]string, 0, len(list))
	for i := range list {
		o := list[i]
		o.Fields = slices.Clone(o.Fields)
		slices.SortFunc(o.Fields, func(a, b Field) int {
			if a.Name < b.Name {
				return -1
			}
			return 1
		})
		b, err := json.Marshal(o)
		if err != nil {
			return "" // strings can always be marshalled
		}
		lines = append(lines, string(b))
	}
	slices.Sort(lines)
	h := sha256.New()
	for _, l := range lines {
		h.Write([]byte(l + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}
